package rawjson_test

import (
	"encoding/json"
	"flag"
	"os"
	"slices"
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
)

// oddDocuments is the list of the corpus of the decoders.
const oddDocuments = "../testdata/golden/odd.json"

var update = flag.Bool("update", false, "write testdata/golden.json")

// TestGolden holds which of the odd documents are the same to what version a1887a4
// found; see the README beside the list.
func TestGolden(t *testing.T) {
	t.Parallel()
	const path = "testdata/golden.json"
	read := func(path string, v any) {
		raw, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(raw, v)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var odd []string
	read(oddDocuments, &odd)
	// Of each document those that say the same, as Liveblocks answers it and as an
	// engine stores it; nothing where that is the document alone.
	type twins struct {
		JSON  []string `json:"json,omitempty"`
		Value []string `json:"value,omitempty"`
	}
	got := map[string]twins{}
	for _, a := range odd {
		var same twins
		for _, b := range odd {
			if rawjson.Same([]byte(a), []byte(b)) {
				same.JSON = append(same.JSON, b)
			}
			if rawjson.SameStored([]byte(a), []byte(b)) {
				same.Value = append(same.Value, b)
			}
		}
		if alone := []string{a}; !slices.Equal(same.JSON, alone) || !slices.Equal(same.Value, alone) {
			got[a] = same
		}
	}
	if *update {
		raw, err := json.MarshalIndent(got, "", " ")
		if err == nil {
			err = os.WriteFile(path, append(raw, '\n'), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	var want map[string]twins
	read(path, &want)
	for _, a := range odd {
		if w, g := want[a], got[a]; !slices.Equal(w.JSON, g.JSON) || !slices.Equal(w.Value, g.Value) {
			t.Errorf("the same as %q are %q, as values %q; want %q and %q", a, g.JSON, g.Value, w.JSON, w.Value)
		}
	}
}

package yjs_test

import (
	"bufio"
	"bytes"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/yjs"
)

// Fresh random documents, made by Yjs itself, read as it reads them.
func TestRandomDocumentsEqualYjs(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("NOT RUN: -short leaves out what needs Node and its packages; run without it before a merge")
	}
	const documents = 200
	script, err := filepath.Abs("testdata/random.mjs")
	if err != nil {
		t.Fatal(err)
	}
	seed := strconv.Itoa(int(rand.Uint32()))
	cmd := exec.CommandContext(t.Context(), "node", script, seed, strconv.Itoa(documents))
	cmd.Dir = filepath.Join("..", "..", "..", "e2e", "lb")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("random.mjs %s (tools/testdeps.sh installs what it needs): %v\n%s", seed, err, &stderr)
	}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, len(out)+1)
	n, ambiguous := 0, 0
	for ; lines.Scan(); n++ {
		if !compare(t, lines.Bytes()) {
			ambiguous++
		}
		if t.Failed() {
			t.Fatalf("document %d of random.mjs %s", n, seed)
		}
	}
	if n != documents {
		t.Fatalf("random.mjs made %d documents; want %d", n, documents)
	}
	if ambiguous > documents/20 {
		t.Errorf("Yjs reads %d of %d documents differently once it has encoded them again (random.mjs %s)", ambiguous, n,
			seed)
	}
}

// compare reads a document as a line of random.mjs says it has to be read. It reports
// whether there is an update that Yjs encoded again to compare it with.
func compare(t *testing.T, line []byte) bool {
	t.Helper()
	want := unmarshal[struct {
		Update, Again        []byte
		JSON, Fragment, Text string
	}](t, line)
	d := decode(t, want.Update)
	types := map[string]yjs.Type{
		"a": yjs.Array, "m": yjs.Map, "t": yjs.Text, "x": yjs.XMLFragment,
		"l": yjs.XMLText,
	}
	for name, typ := range types {
		d.As(name, typ)
	}
	if diff := cmp.Diff(parse(t, []byte(want.JSON)), parse(t, toJSON(t, d))); diff != "" {
		t.Errorf("JSON differs from what Yjs reads (-want +got):\n%s", diff)
	}
	if got := d.Text(); got != want.Text {
		t.Errorf("Text = %q; want %q", got, want.Text)
	}
	if len(want.Again) > 0 && len(d.Waiting()) == 0 {
		again := decode(t, want.Again)
		for name, typ := range types {
			again.As(name, typ)
		}
		if json := toJSON(t, d); d.StateSHA256(json) != again.StateSHA256(toJSON(t, again)) {
			t.Error("StateSHA256 differs from that of the update as Yjs encodes it again")
		}
	}
	trees, _ := parse(t, structure(t, d)).(map[string]any)
	if diff := cmp.Diff(parse(t, []byte(want.Fragment)), trees["x"]); diff != "" {
		t.Errorf("Structure differs from that of ProseMirror (-want +got):\n%s", diff)
	}
	return len(want.Again) > 0
}

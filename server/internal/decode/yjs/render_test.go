package yjs_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/yjs"
)

// The renderings equal the answers of Liveblocks' dev server, value by value.
func TestRenderEqualsLiveblocks(t *testing.T) {
	t.Parallel()
	file, err := os.Open("testdata/rest-answers.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	types := map[string]yjs.Type{
		"ymap": yjs.Map, "ytext": yjs.Text, "yxmltext": yjs.XMLText, "yxmlfragment": yjs.XMLFragment, "yarray": yjs.Array,
	}
	compared := 0
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var recorded struct {
			Name    string
			Update  []byte
			Answers []struct {
				Query string
				Body  any
			}
		}
		if err := json.Unmarshal(lines.Bytes(), &recorded); err != nil {
			t.Fatal(err)
		}
		doc, err := yjs.Decode(recorded.Update, yjs.Limits{})
		if err != nil {
			t.Fatalf("%s: %v", recorded.Name, err)
		}
		for _, want := range recorded.Answers {
			params, err := url.ParseQuery(want.Query)
			if err != nil {
				t.Fatal(err)
			}
			as := yjs.Rendering{Type: types[params.Get("type")], Formatting: params.Has("formatting")}
			if key := params.Get("key"); params.Has("key") {
				as.Key = &key
			}
			raw, err := doc.Render([]byte("before"), as)
			if err != nil {
				t.Errorf("%s: Render for %q = %v", recorded.Name, want.Query, err)
				continue
			}
			var got any
			if err := json.Unmarshal(raw[len("before"):], &got); err != nil {
				t.Errorf("%s: rendering for %q is no JSON: %v: %s", recorded.Name, want.Query, err, raw)
				continue
			}
			if diff := cmp.Diff(want.Body, got); diff != "" {
				t.Errorf("%s: rendering for %q (-Liveblocks +rendered):\n%s", recorded.Name, want.Query, diff)
			}
			compared++
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if compared < 500 {
		t.Errorf("%d answers were compared; want more than 500", compared)
	}
}

// What is too long is refused instead of built.
func TestRenderIsLimited(t *testing.T) {
	t.Parallel()
	update := read(t, "ydoc-tiptap-real-binary.bin")
	doc, err := yjs.Decode(update, yjs.Limits{Output: 100})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := doc.Render(nil, yjs.Rendering{}); !isLimit(err) {
		t.Errorf("Render of more than the limit = %v; want a LimitError", err)
	}
}

func isLimit(err error) bool {
	_, ok := errors.AsType[*yjs.LimitError](err)
	return ok
}

package tiptap_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/lson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/tiptap"
)

func parse(t *testing.T, storage []byte) rawjson.Value {
	t.Helper()
	v, err := rawjson.Parse(storage)
	if err != nil {
		t.Fatalf("parse %.200s: %v", storage, err)
	}
	return v
}

func docs(t *testing.T, storage string) string {
	t.Helper()
	got := tiptap.Docs(parse(t, []byte(storage)))
	if !json.Valid(got) {
		t.Fatalf("Docs(%.200s) = %s, which is not JSON", storage, got)
	}
	return string(got)
}

func TestRecordedDocument(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/storage-tiptap-storage-json.json")
	if err != nil {
		t.Fatal(err)
	}
	storage := strings.TrimSpace(string(raw))
	wantText := "Release notes\nPlain, bold and italic-strike\nsecond line\none\ntwo\nfunc main() {\n\tprintln(\"<hi " +
		"& bye>\")\n}"
	if got := tiptap.Text(parse(t, []byte(storage))); got != wantText {
		t.Errorf("Text = %q; want %q", got, wantText)
	}
	want := `{"default":{"type":"doc","content":[` +
		`{"type":"heading","attrs":{"level":1},"content":[{"type":"text","text":"Release notes"}]},` +
		`{"type":"paragraph","content":[{"type":"text","text":"Plain, "},{"type":"text","marks":[{"type":"bold"}],"text":"bold"},{"type":"text","text":" and "},` +
		`{"type":"text","marks":[{"type":"italic"},{"type":"strike"}],"text":"italic-strike"},{"type":"hardBreak"},{"type":"text","text":"second line"}]},` +
		`{"type":"bulletList","content":[{"type":"listItem","content":[{"type":"paragraph","content":[{"type":"text","text":"one"}]}]},` +
		`{"type":"listItem","content":[{"type":"paragraph","content":[{"type":"text","text":"two"}]}]}]},` +
		`{"type":"codeBlock","attrs":{"language":"go"},"content":[{"type":"text","text":"func main() {\n\tprintln(\"<hi & bye>\")\n}"}]}]}}`
	if diff := cmp.Diff(want, docs(t, storage)); diff != "" {
		t.Errorf("Docs (-want +got):\n%s", diff)
	}
}

// Nodes of Liveblocks' own kit mention users and groups by their ids.
func TestMentionsOfTheKit(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/storage-mention.json")
	if err != nil {
		t.Fatal(err)
	}
	storage, _, err := lson.JSON(nil, raw)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := tiptap.Text(storage), "Hello @alice!"; got != want {
		t.Errorf("Text = %q; want %q", got, want)
	}
	const group = `{"_tiptap_docs":{"f":{"type":"doc","content":[{"type":"paragraph","content":[` +
		`{"type":"text","text":[["Hi "]]},{"type":"liveblocksGroupMention","attrs":{"id":"team","userIds":["a"]}}]}]}}}`
	if got, want := tiptap.Text(parse(t, []byte(group))), "Hi @team"; got != want {
		t.Errorf("Text = %q; want %q", got, want)
	}
}

func TestDocuments(t *testing.T) {
	t.Parallel()
	in := func(content string) string {
		return `{"_tiptap_docs":{"f":{"type":"doc","content":[` + content + "]}}}"
	}
	out := func(content string) string { return `{"f":{"type":"doc","content":[` + content + "]}}" }
	for _, c := range []struct{ name, storage, docs, text string }{
		{"no documents", `{"a":1}`, `{}`, ""},
		{"key that is none of the root", `{"a":{"_tiptap_docs":{"f":{"type":"doc"}}}}`, `{}`, ""},
		{"of another shape", `{"_tiptap_docs":[1]}`, `{}`, ""},
		{"empty", `{"_tiptap_docs":{}}`, `{}`, ""},
		{"empty document", `{"_tiptap_docs":{"f":{"id":"a","type":"doc","content":[]}}}`, `{"f":{"type":"doc"}}`, ""},
		{
			"fields in order", `{"_tiptap_docs":{"b":{"type":"doc","content":[{"type":"text","text":[["2"]]}]},"a":{"type":"doc","content":[{"type":"text","text":[["1"]]}]},"\ud83d":{"type":"doc"},"c":7,"d":{"type":"text","text":[["x"]]}}}`,
			`{"a":{"type":"doc","content":[{"type":"text","text":"1"}]},"b":{"type":"doc","content":[{"type":"text","text":"2"}]},"\ud83d":{"type":"doc"}}`, "1\n2",
		},
		{
			"segments", in(`{"type":"paragraph","content":[{"type":"text","text":[["a"],["",{}],["b",{"__liveblocks_tiptap_marks":[{"type":"link","attrs":{"href":"x"}},{"type":"bold","attrs":7},{"a":1},7],"other":true}],["c",{"bold":true}]]}]}`),
			out(`{"type":"paragraph","content":[{"type":"text","text":"a"},{"type":"text","marks":[{"type":"link","attrs":{"href":"x"}},{"type":"bold"}],"text":"b"},{"type":"text","text":"c"}]}`), "abc",
		},
		{
			"odd nodes", in(`7,{},{"type":7},{"type":"text"},{"type":"text","text":"plain"},{"type":"text","text":[1,[],[7],["x"]]},{"type":"hr","attrs":7,"content":{}},{"type":"img","attrs":{}}`),
			out(`{"type":"text","text":"x"},{"type":"hr"},{"type":"img","attrs":{}}`), "x",
		},
		{
			"blocks without text",
			in(`{"type":"paragraph"},{"type":"paragraph","content":[{"type":"text","text":[["a"]]}]},{"type":"paragraph"},{"type":"quote","content":[{"type":"paragraph","content":[{"type":"text","text":[["b"]]}]}]}`),
			out(`{"type":"paragraph"},{"type":"paragraph","content":[{"type":"text","text":"a"}]},{"type":"paragraph"},{"type":"quote","content":[{"type":"paragraph","content":[{"type":"text","text":"b"}]}]}`), "a\nb",
		},
		{
			"inside a line", in(`{"type":"paragraph","content":[{"type":"text","text":[["a "]]},{"type":"mention","attrs":{"id":"7","label":"Ann"}},{"type":"text","text":[[" b"]]},{"type":"hardBreak"},{"type":"text","text":[["x"]]},{"type":"badge","content":[{"type":"text","text":[["c"]]}]}]},{"type":"paragraph","content":[{"type":"mention","attrs":{"id":"7","label":null}},{"type":"mention"}]}`),
			out(`{"type":"paragraph","content":[{"type":"text","text":"a "},{"type":"mention","attrs":{"id":"7","label":"Ann"}},{"type":"text","text":" b"},{"type":"hardBreak"},{"type":"text","text":"x"},{"type":"badge","content":[{"type":"text","text":"c"}]}]},{"type":"paragraph","content":[{"type":"mention","attrs":{"id":"7","label":null}},{"type":"mention"}]}`),
			"a @Ann b\nxc\n@7",
		},
		{
			"exact strings", in(`{"type":"text","text":[["\ud83d \u0000 \u00e9"]]}`),
			out(`{"type":"text","text":"\ud83d \u0000 \u00e9"}`), "\ufffd \ufffd é",
		},
	} {
		if diff := cmp.Diff(c.docs, docs(t, c.storage)); diff != "" {
			t.Errorf("%s: Docs (-want +got):\n%s", c.name, diff)
		}
		if got := tiptap.Text(parse(t, []byte(c.storage))); got != c.text {
			t.Errorf("%s: Text = %q; want %q", c.name, got, c.text)
		}
	}
}

// Nodes that are nested too deeply are left out, the others stay.
func TestDepth(t *testing.T) {
	t.Parallel()
	nest := func(depth int) string {
		return `{"_tiptap_docs":{"f":{"type":"doc","content":[{"type":"text","text":[["top"]]},` +
			strings.Repeat(`{"type":"q","content":[`, depth) + `{"type":"text","text":[["deep"]]}` +
			strings.Repeat("]}", depth) + "]}}}"
	}
	for depth, want := range map[int]bool{tiptap.MaxDepth - 1: true, tiptap.MaxDepth: false, 4900: false} {
		text, all := tiptap.Text(parse(t, []byte(nest(depth)))), docs(t, nest(depth))
		if strings.Contains(text, "deep") != want || strings.Contains(all, "deep") != want {
			t.Errorf("text at depth %d is there: %t and %t; want %t", depth, strings.Contains(text, "deep"),
				strings.Contains(all, "deep"), want)
		}
		if !strings.HasPrefix(text, "top") || strings.Count(all, `"q"`) != min(depth, tiptap.MaxDepth) {
			t.Errorf("at depth %d Text = %.20q and %d nodes; want all above", depth, text, strings.Count(all, `"q"`))
		}
	}
}

// FuzzDocs looks for panics and for what is not JSON.
func FuzzDocs(f *testing.F) {
	raw, err := os.ReadFile("testdata/storage-tiptap-storage-json.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"_tiptap_docs":{"a":{"type":"doc","content":[{"type":"text","text":[["x",{"__liveblocks_tiptap_marks":[{"type":"b","attrs":{}}]}]]}]}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		storage, err := rawjson.Parse(raw)
		if err != nil {
			return
		}
		text := tiptap.Text(storage)
		if text != rawjson.Clean(text) {
			t.Fatalf("Text = %q, which cannot be stored", text)
		}
		if got := tiptap.Docs(storage); !json.Valid(got) || len(got) > 4*len(raw)+100 {
			t.Fatalf("Docs = %d bytes of %d, JSON: %t", len(got), len(raw), json.Valid(got))
		}
	})
}

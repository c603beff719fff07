package yjs_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/yjs"
)

// within returns what of got is in want as well. Editors leave out of their
// JSON some properties that they keep in the document, such as an empty style.
func within(want, got any) any {
	switch want := want.(type) {
	case map[string]any:
		got, ok := got.(map[string]any)
		if !ok {
			return got
		}
		common := map[string]any{}
		for key := range want {
			if value, ok := got[key]; ok {
				common[key] = within(want[key], value)
			}
		}
		return common
	case []any:
		got, ok := got.([]any)
		if !ok || len(got) != len(want) {
			return got
		}
		common := make([]any, len(got))
		for i := range got {
			common[i] = within(want[i], got[i])
		}
		return common
	default:
		return got
	}
}

// withoutDefaults removes what is not in the document, since the editor supplies
// it: attributes without a value by its schema, and what Lexical works out for
// the items of lists.
func withoutDefaults(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			computed := v["type"] == "listitem" && (key == "indent" || key == "checked" && value == false)
			if value == nil || computed {
				delete(v, key)
			} else {
				v[key] = withoutDefaults(value)
			}
		}
	case []any:
		for i := range v {
			v[i] = withoutDefaults(v[i])
		}
	}
	return v
}

var lineBreaks = regexp.MustCompile(`\n+`)

// Documents of the editors read as the editors themselves read them. In the
// text, empty lines do not count.
func TestStructureAndTextEqualTheEditors(t *testing.T) {
	t.Parallel()
	for editor, root := range map[string]string{"lexical": "root", "tiptap": "default"} {
		t.Run(editor, func(t *testing.T) {
			t.Parallel()
			d := decode(t, read(t, "editor-"+editor+"-update.bin"))
			want := withoutDefaults(readJSON[any](t, "editor-"+editor+"-state.json"))
			trees, _ := withoutDefaults(unmarshal[any](t, structure(t, d))).(map[string]any)
			if diff := cmp.Diff(want, within(want, trees[root])); diff != "" {
				t.Errorf("Structure differs from the editor's (-want +got):\n%s", diff)
			}
			text := strings.TrimSpace(lineBreaks.ReplaceAllString(string(read(t, "editor-"+editor+"-text.txt")), "\n"))
			if got := d.Text(); got != text {
				t.Errorf("Text = %q; want %q", got, text)
			}
		})
	}
}

// node is a node of Lexical that is a map: the structs of client 1 from clock
// on, the first one after the unit before.
func (o ops) node(clock uint64, kind string) ops {
	if clock == 0 {
		o = o.root(typ, "root").byte(1)
	} else {
		o = o.after(typ, 1, clock-1).byte(1)
	}
	return o.byte(values|0x20).uint(0, 1, clock).text("__type").uint(1).byte(119).text(kind)
}

// A string without a node is what remained of one that was deleted.
func TestRemnantsOfLexical(t *testing.T) {
	t.Parallel()
	o := ops{}.node(0, "linebreak").after(str, 1, 0).text("x").node(3, "text").after(str, 1, 3).text("kept")
	d := decode(t, whole(section(6, 1, 0, o))).As("root", yjs.XMLText)
	if got, want := d.Text(), "\nkept"; got != want {
		t.Errorf("Text = %q; want %q", got, want)
	}
	const want = `{"root":{"root":{"type":"root","version":1,"direction":null,"format":"","indent":0,"children":[{"type":"linebreak","version":1},{"type":"text","version":1,"text":"kept"}]}}}`
	if got := string(structure(t, d)); got != want {
		t.Errorf("Structure = %s; want %s", got, want)
	}
}

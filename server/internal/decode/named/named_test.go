package named_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/named"
)

// odd is an id that JSON can spell in many ways.
const odd = "zoé \"x\"\\7/😀"

// spelled returns JSON strings that all mean the text.
func spelled(t *testing.T, text string) map[string]string {
	t.Helper()
	plain, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	var ascii strings.Builder
	for _, r := range text {
		switch {
		case r == '😀':
			ascii.WriteString(`\uD83d\ude00`)
		case r > 127 || r == '"' || r == '\\':
			const digits = "0123456789ABCDEF"
			ascii.WriteString(`\u00` + string([]byte{digits[r>>4&15], digits[r&15]}))
		case r == '/':
			ascii.WriteString(`\/`)
		default:
			ascii.WriteRune(r)
		}
	}
	return map[string]string{"plain": string(plain), "ascii": `"` + ascii.String() + `"`}
}

func TestReplace(t *testing.T) {
	t.Parallel()
	for name, s := range spelled(t, odd) {
		for raw, want := range map[string]string{
			`{"a":1,"userId":` + s + `}`:                                               `{"a":1,"userId":""}`,
			`{"userIds":[null, ` + s + ` ,2.50]}`:                                      `{"userIds":[null, "" ,2.50]}`,
			`{"usersAccesses" :{"bob":[]," x":0,` + s + ` : [1]}}`:                     `{"usersAccesses" :{"bob":[]," x":0}}`,
			`{"usersAccesses":{` + s + `:["a"] , "bob":[]}}`:                           `{"usersAccesses":{ "bob":[]}}`,
			`{"usersAccesses":{"x":1, ` + s + ` :{"userId":` + s + `},` + s + `:"a"}}`: `{"usersAccesses":{"x":1}}`,
			`{"usersAccesses":{ ` + s + `:1 },"n":` + s + `}`:                          `{"usersAccesses":{ },"n":` + s + `}`,
			`[{"type":"mention","kind":"user","id":` + s + `,"text":` + s + `}]`:       `[{"type":"mention","kind":"user","id":"","text":` + s + `}]`,
			`{"id":` + s + `,"children":[{}],"type":"mention"}`:                        `{"id":"","children":[{}],"type":"mention"}`,
			`{"members":[{"id":` + s + `}],"id":` + s + `}`:                            `{"members":[{"id":""}],"id":` + s + `}`,
			`{"reactions":[{"emoji":` + s + `,"users":[{"id":` + s + `}]}]}`:           `{"reactions":[{"emoji":` + s + `,"users":[{"id":""}]}]}`,
			// Not of a user, part of a word, or JSON in a string.
			s:                   "",
			`[null, ` + s + `]`: "",
			`{"children":[{"text":` + s + `}],"url":` + s + `}`:      "",
			`{"userInfo":{"name":` + s + `,"role":` + s + `}}`:       "",
			`{"userId":"bob","subjectId":` + s + `}`:                 "",
			`{"metadata":{"status":` + s + `}}`:                      "",
			`{"type":"mention","kind":"group","id":` + s + `}`:       "",
			`{"type":"mention","kind":"user","of":{"id":` + s + `}}`: "",
			`{"id":` + s + `,"type":"thread"}`:                       "",
			`{` + s + `:1}`:                                          "",
			`{"roomId":` + s + `,"threadId":` + s + `}`:              "",
			`{"kind":[` + s + `],"type":` + s + `}`:                  "",
			`{"usersAccesses":{"bob":{` + s + `:1}}}`:                "",
			`{"groupsAccesses":{` + s + `:["room:write"]}}`:          "",
			`{"text":` + strings.TrimSuffix(s, `"`) + ` b"}`:         "",
			`{"userId":` + s: "",
		} {
			if got := string(named.Replace([]byte(raw), odd)); got != want {
				t.Errorf("Replace(%s), %s = %s; want %s", raw, name, got, want)
			}
			if want != "" && !named.Value([]byte(raw), odd) {
				t.Errorf("Value(%s), %s = false", raw, name)
			}
		}
	}
	for raw, want := range map[string]bool{
		`{"text":"ok"}`: true, `{"name":"x","role":"ok"}`: true, `"ok"`: true, `{"usersAccesses":{"ok":1}}`: true,
		`{"type":"ok","roomId":"ok"}`: false, `{"text":"ok then"}`: false, `{"ok":1}`: false, `{"text":"ok"`: false,
	} {
		if got := named.Value([]byte(raw), "ok"); got != want {
			t.Errorf("Value(%s) = %t", raw, got)
		}
	}
	for _, raw := range []string{``, `{}`, `{"a":""}`, `{"n":1}`, `{"a":"annotation","b":"notes-ann","ann":{}}`} {
		for _, id := range []string{"ann", "1", ""} {
			if got := named.Replace([]byte(raw), id); got != nil {
				t.Errorf("Replace(%s) of %q = %s; want nothing to replace", raw, id, got)
			}
		}
	}
}

func TestClear(t *testing.T) {
	t.Parallel()
	for name, s := range spelled(t, odd) {
		inner := strings.Trim(s, `"`)
		quoted, err := json.Marshal(`{"by":` + s + `}`)
		if err != nil {
			t.Fatal(err)
		}
		for raw, want := range map[string]string{
			`{"text":"ask @` + inner + `, please","n":1}`:                         `{"text":"","n":1}`,
			`["x",` + s + `,"pre` + inner + `"]`:                                  `["x","","pre` + inner + `"]`,
			`{"state":` + string(quoted) + `}`:                                    `{"state":""}`,
			`{"info":{"a":{` + s + `:[` + s + `],"b":2}},` + s + `:3}`:            `{"info":{"a":{"b":2}},` + s + `:3}`,
			`{"metadata":{"type":` + s + `,"createdAt":"x ` + inner + `"}}`:       `{"metadata":{"type":"","createdAt":""}}`,
			`{"roomId":` + s + `,"id":` + s + `,"createdAt":"` + inner + `"}`:     "",
			`{"userId":"notes-` + inner + `","createdBy":` + s + `}`:              `{"userId":"notes-` + inner + `","createdBy":""}`,
			`{"usersAccesses":{"a-` + inner + `":1,` + s + `:2}}`:                 `{"usersAccesses":{"a-` + inner + `":1}}`,
			`{"text":"pre` + inner + `"}`:                                         "",
			`{"info":{"x":0, ` + s + `:{"y":[1,2]}},"info":{` + s + `:0,"z":` + s: "",
		} {
			if got := string(named.Clear([]byte(raw), odd, false)); got != want {
				t.Errorf("Clear(%s), %s = %s; want %s", raw, name, got, want)
			}
		}
		raw := `{` + s + `:1,"id":` + s + `,"` + inner + ` too":2}`
		if got := string(named.Clear([]byte(raw), odd, true)); got != `{"id":""}` {
			t.Errorf("Clear(%s), %s = %s", raw, name, got)
		}
	}
	for text, want := range map[string]bool{
		"42": true, "@42!": true, "a-42.": true, "é42": false, "421": false, "_42": false, "1429": false, "x 142 42": true,
		`{\"n\":\"\u00342\"}`: true, `\u00e942`: false,
	} {
		if got := named.Holds([]byte(text), "42"); got != want {
			t.Errorf("Holds(%s) = %t", text, got)
		}
	}
	if !named.Holds([]byte("x@ann"), "@ann") || named.Holds([]byte("x"), "") {
		t.Error("Holds takes signs for letters")
	}
}

func TestReplaced(t *testing.T) {
	t.Parallel()
	raw := []byte(`{"type":"x","data":{"createdBy":"ann","userIds":["\u0061nn","bob","eve"],"roomId":"ann"}}`)
	ann := named.Replace(raw, "ann")
	for _, got := range [][]byte{
		raw, ann, named.Replace(ann, "bob"), named.Replace(named.Replace(raw, "bob"), "ann"), named.Clear(raw, "eve", false),
	} {
		if !named.Replaced(raw, got) {
			t.Errorf("Replaced(%s) = false", got)
		}
	}
	for _, got := range []string{
		``, `{}`, `{"type":"x","data":{"createdBy":"","userIds":["ann","bob","eve"],"roomId":"ann"}}`, string(raw) + " ", string(raw[:len(raw)-1]),
		`{"type":"x","data":{"createdBy":"","userIds":["","bob","eve"],"roomId":""}}`, `{"type":"","data":{}}`,
	} {
		if named.Replaced(raw, []byte(got)) {
			t.Errorf("Replaced(%s) = true", got)
		}
	}
}

func TestReplaceInThread(t *testing.T) {
	t.Parallel()
	raw := `{"id":"th","comments":[` +
		`{"userId":"ann","body":{"content":[{"text":"secret"}]},"attachments":[{"name":"cv.pdf"}],"id":"cm_1","metadata":{"x":1}},` +
		`{"userId":"bob","body":{"content":[{"type":"mention","id":"ann"},{"text":"ann"}]},"reactions":[{"userId":"ann"}]}` +
		`],"metadata":{"owner":"ann"}}`
	want := `{"id":"th","comments":[` +
		`{"userId":"","body":null,"attachments":[],"id":"cm_1","metadata":{}},` +
		`{"userId":"bob","body":{"content":[{"type":"mention","id":""},{"text":"ann"}]},"reactions":[{"userId":""}]}` +
		`],"metadata":{"owner":"ann"}}`
	if got := string(named.ReplaceInThread([]byte(raw), "ann")); got != want {
		t.Errorf("ReplaceInThread = %s; want %s", got, want)
	}
	for _, raw := range []string{want, `{}`, `[]`, `{"comments":{"userId":"ann2"}}`, `{`} {
		if got := named.ReplaceInThread([]byte(raw), "ann"); got != nil {
			t.Errorf("ReplaceInThread(%s) = %s; want nothing to replace", raw, got)
		}
	}
	if got := string(named.ReplaceInThread([]byte(` {"comments":[{"userId":"ann"}]} `), "ann")); got !=
		` {"comments":[{"userId":""}]} ` {
		t.Errorf("ReplaceInThread with white space = %q", got)
	}
}

func TestOccurs(t *testing.T) {
	t.Parallel()
	for _, content := range []string{
		"ann", "annotation", "notes-ann", `{"a":"\u0061nn"}`, "\x01\x03aann\xff", `{"s":"{\"by\":\"\\u0061nn\"}"}`, `a\nn`,
	} {
		if want := content != `a\nn`; named.Occurs([]byte(content), "ann") != want {
			t.Errorf("Occurs(%q) = %t", content, !want)
		}
	}
	for _, content := range []string{"", "an", "Ann", "\x01an\xffn"} {
		if named.Occurs([]byte(content), "ann") {
			t.Errorf("Occurs(%q) = true", content)
		}
	}
	if !named.Occurs([]byte(`@a\_b\-c said`), "a_b-c") {
		t.Error("escapes of Markdown hide an id")
	}
	for _, s := range spelled(t, odd) {
		for range 3 { // JSON in strings of JSON
			if !named.Occurs([]byte(`{"text":`+s+`}`), odd) {
				t.Errorf("Occurs(%s) = false", s)
			}
			b, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			s = string(b)
		}
	}
	if named.Occurs([]byte("text"), "") {
		t.Error("an empty id is found")
	}
}

// Whatever the content: what was replaced is JSON, of which nothing more is to be replaced.
func FuzzReplace(f *testing.F) {
	f.Add([]byte(`{"a":"\ud83d","b":["a",{"usersAccesses":{"a":1}}]}`), "a")
	f.Add([]byte(`{"comments":[{"userId":"a","body":{"userId":"a"}}]}`), "a")
	f.Add([]byte(`{"type":"mention","id":"mention"}`), "mention")
	f.Add([]byte(`\`), "\\")
	f.Fuzz(func(t *testing.T, raw []byte, id string) {
		if named.Holds(raw, id) && !named.Occurs(raw, id) {
			t.Errorf("%q is held and does not occur in %q", id, raw)
		}
		for _, free := range []bool{true, false} {
			if out := named.Clear(raw, id, free); out != nil && (!json.Valid(out) || named.Clear(out, id, free) != nil ||
				!json.Valid(raw) || named.Replace(out, id) != nil) {
				t.Errorf("%q cleared of %q = %q", raw, id, out)
			}
		}
		for _, out := range [][]byte{named.Replace(raw, id), named.ReplaceInThread(raw, id)} {
			if out != nil && (!json.Valid(out) || named.Replace(out, id) != nil || bytes.Equal(out, raw)) {
				t.Errorf("%q without %q = %q", raw, id, out)
			}
		}
	})
}

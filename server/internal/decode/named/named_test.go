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
		b, _ := json.Marshal(string(r))
		switch {
		case r == '😀':
			ascii.WriteString(`\uD83d\ude00`)
		case r > 127 || r == '"' || r == '\\':
			ascii.WriteString(`\u00` + strings.ToUpper(hex(byte(r))))
		case r == '/':
			ascii.WriteString(`\/`)
		default:
			ascii.Write(bytes.Trim(b, `"`))
		}
	}
	return map[string]string{"plain": string(plain), "ascii": `"` + ascii.String() + `"`}
}

func hex(b byte) string {
	const digits = "0123456789abcdef"
	return string([]byte{digits[b>>4], digits[b&15]})
}

func TestValue(t *testing.T) {
	t.Parallel()
	for name, s := range spelled(t, odd) {
		inString, err := json.Marshal(`{"by":[` + s + `]}`)
		if err != nil {
			t.Fatal(err)
		}
		for form, raw := range map[string]string{
			"value": `{"a":1,"userId":` + s + `}`, "element": `[null,` + s + `]`, "member": `{` + s + `:["room:write"]}`,
			"alone": s, "in a string": `{"state":` + string(inString) + `}`,
		} {
			if !named.Value([]byte(raw), odd) {
				t.Errorf("Value(%s) as %s, %s = false", raw, form, name)
			}
		}
	}
	for _, raw := range []string{
		``, `{}`, `{"userId":"ann-marie"}`, `{"userId":"Ann"}`, `{"text":"by ann"}`, `{"a":"\"ann"}`, `[1]`, `{"a":"\\\"ann\\\""}`,
	} {
		if named.Value([]byte(raw), "ann") {
			t.Errorf("Value(%s) = true for a text that is not the id", raw)
		}
	}
	if named.Value([]byte(`{"n":1,"m":[1.5]}`), "1") {
		t.Error("a number counts as the id of a user")
	}
	if !named.Value([]byte(`{"userId":"ann"`), "ann") || named.Value([]byte(`{"userId":"annabel"`), "ann") {
		t.Error("what is no JSON is not read as text")
	}
}

func TestWord(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"ann": true, "@ann, look": true, "(ann)": true, "see ann": true, "ann@example.com": true, "你ann好": true,
		"hanna ann": true, `{"id":"ann"}`: true, "\\ann": true,
		"": false, "anna": false, "joann": false, "ann-marie": false, "x_ann": false, "Ann": false, "ann1": false,
	} {
		if got := named.Word([]byte(text), "ann"); got != want {
			t.Errorf("Word(%q, ann) = %t", text, got)
		}
	}
	for _, s := range spelled(t, odd) {
		for range 3 { // JSON in strings of JSON
			if !named.Word([]byte(`{"text":`+s+`}`), odd) {
				t.Errorf("Word(%s) = false", s)
			}
			b, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			s = string(b)
		}
	}
	if !named.Word([]byte(`@a\_b\-c said`), "a_b-c") {
		t.Error("escapes of Markdown hide an id")
	}
	if named.Word([]byte("text"), "") || named.Bytes([]byte("text"), "") {
		t.Error("an empty id is found")
	}
}

func TestBytes(t *testing.T) {
	t.Parallel()
	if !named.Bytes([]byte("\x01\x03aann\xff"), "ann") { // behind its length, which looks like a letter
		t.Error("an id in binary content is not found")
	}
	if named.Bytes([]byte("\x01an\xffn"), "ann") {
		t.Error("an id is found that is not there")
	}
	for _, s := range spelled(t, odd) {
		if !named.Bytes([]byte("\x00\x05"+s), odd) {
			t.Errorf("an id in JSON in binary content is not found: %s", s)
		}
	}
}

// Whatever the text, the search ends within it.
func FuzzFind(f *testing.F) {
	f.Add([]byte(`{"a":"\ud83d`), "a")
	f.Add([]byte(`\`), "\\")
	f.Add([]byte(`"\u00`), "u")
	f.Fuzz(func(t *testing.T, text []byte, id string) {
		named.Value(text, id)
		if named.Word(text, id) && !named.Bytes(text, id) {
			t.Errorf("%q is a word of %q, but not in it", id, text)
		}
	})
}

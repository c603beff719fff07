package lson_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/lson"
)

// The reference: documents as ordered trees, read by encoding/json and
// unwrapped by the definition of a live node, with no thought of speed.

// object is a JSON object whose members keep their order and repetitions.
type object []member

type member struct {
	Key   string
	Value any
}

// decode reads one value as object, []any, json.Number, string, bool or nil.
func decode(t interface{ Fatalf(string, ...any) }, src []byte) any {
	dec := json.NewDecoder(bytes.NewReader(src))
	dec.UseNumber()
	var value func() any
	token := func() json.Token {
		tok, err := dec.Token()
		if err != nil {
			t.Fatalf("decode %q: %v", src, err)
		}
		return tok
	}
	value = func() any {
		switch tok := token(); tok {
		case json.Delim('{'):
			obj := object{}
			for dec.More() {
				key, _ := token().(string)
				obj = append(obj, member{key, value()})
			}
			token()
			return obj
		case json.Delim('['):
			list := []any{}
			for dec.More() {
				list = append(list, value())
			}
			token()
			return list
		default:
			return tok
		}
	}
	return value()
}

// unwrap replaces the live nodes of v by their data and reports how many there
// were.
func unwrap(v any) (any, int) {
	nodes := 0
	inner := func(v any) any {
		v, n := unwrap(v)
		nodes += n
		return v
	}
	switch v := v.(type) {
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = inner(v[i])
		}
		return list, nodes
	case object:
		if data, ok := nodeData(v); ok {
			data = inner(data)
			return data, nodes + 1
		}
		obj := make(object, len(v))
		for i, m := range v {
			obj[i] = member{m.Key, inner(m.Value)}
		}
		return obj, nodes
	default:
		return v, 0
	}
}

// nodeData returns the data of obj if it is a live node.
func nodeData(obj object) (any, bool) {
	values := map[string]any{}
	for _, m := range obj {
		values[m.Key] = m.Value
	}
	data, hasData := values["data"]
	version, hasVersion := values["version"]
	want := 2
	if hasVersion {
		want = 3
		if _, isNumber := version.(json.Number); !isNumber || values["liveblocksType"] != any("LiveText") {
			return nil, false
		}
	}
	if !hasData || len(values) != want || len(obj) != want {
		return nil, false
	}
	_, isObject := data.(object)
	_, isList := data.([]any)
	switch values["liveblocksType"] {
	case "LiveObject", "LiveMap", "LiveFile":
		return data, isObject
	case "LiveList", "LiveText":
		return data, isList
	}
	return nil, false
}

// depth is how deep v is nested.
func depth(v any) int {
	deepest := 0
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			deepest = max(deepest, depth(item))
		}
	case object:
		for _, m := range v {
			deepest = max(deepest, depth(m.Value))
		}
	default:
		return 0
	}
	return deepest + 1
}

// document is a generated plain-lson document and the bytes it must become.
type document struct{ src, want string }

// documents generates values of at most n levels. What is generated with a
// live node has its data as want, so that the expected bytes come from the
// generator and not from a second parser.
func documentsOf(n int) *rapid.Generator[document] {
	return rapid.Custom(func(t *rapid.T) document {
		kind := rapid.IntRange(0, 9).Draw(t, "kind")
		if n == 0 {
			kind %= 3
		}
		switch kind {
		case 0:
			return same(genString().Draw(t, "string"))
		case 1:
			return same(rapid.SampledFrom([]string{
				"0", "-0", "1.50", "9007199254740993", "1e400", "-2E-7", "5e-324",
				"0.10e+2",
			}).Draw(t, "number"))
		case 2:
			return same(rapid.SampledFrom([]string{"true", "false", "null"}).Draw(t, "literal"))
		case 3:
			return genArray(t, n)
		case 4, 5:
			return genObject(t, n)
		case 6:
			return genNearMiss(t, n)
		default:
			return genNode(t, n)
		}
	})
}

func same(s string) document { return document{s, s} }

func genString() *rapid.Generator[string] {
	piece := rapid.SampledFrom([]string{
		"a", "hello", " ", "日本", "é", "👋", "\u007f", `\"`, `\\`, `\/`, `\n`, `\u0041`, `\u0000`, `\ud83d`, `\udc4b`,
		`\ud83d\udc4b`,
		"liveblocksType", "data", "{", "}", "[", "]", ":", ",", "a longer run of plain characters",
	})
	return rapid.Custom(func(t *rapid.T) string {
		return `"` + strings.Join(rapid.SliceOfN(piece, 0, 6).Draw(t, "pieces"), "") + `"`
	})
}

func genSpace(t *rapid.T) string {
	return rapid.SampledFrom([]string{"", "", "", "", " ", "\n\t", " \r\n"}).Draw(t, "space")
}

func genArray(t *rapid.T, n int) document {
	items := rapid.SliceOfN(documentsOf(n-1), 0, 4).Draw(t, "items")
	return enclose(t, "[", items, "]")
}

func genObject(t *rapid.T, n int) document {
	var members []document
	for range rapid.IntRange(0, 4).Draw(t, "members") {
		key := genString().Draw(t, "key")
		if rapid.IntRange(0, 9).Draw(t, "marked") == 0 {
			key = rapid.SampledFrom([]string{`"data"`, `"version"`, `"liveblocksType"`}).Draw(t, "marker")
		}
		members = append(members, genMember(t, key, documentsOf(n-1).Draw(t, "value")))
	}
	// Keys are drawn from so few that they may spell a node by chance; the key
	// in front of them all makes sure that they do not.
	members = append([]document{genMember(t, `"own"`, same("1"))}, members...)
	if rapid.Bool().Draw(t, "own key last") {
		members = append(members[1:], members[0])
	}
	return enclose(t, "{", members, "}")
}

// genNode generates a live node in any order of keys and with any white space.
func genNode(t *rapid.T, n int) document {
	name := rapid.SampledFrom([]string{"LiveObject", "LiveMap", "LiveList", "LiveText", "LiveFile"}).Draw(t, "type")
	data := genObject
	if name == "LiveList" || name == "LiveText" {
		data = genArray
	}
	value := data(t, n)
	if rapid.Bool().Draw(t, "as Liveblocks writes it") {
		return document{`{"liveblocksType":"` + name + `","data":` + value.src + `}`, value.want}
	}
	members := []document{
		genMember(t, `"liveblocksType"`, same(`"`+name+`"`)),
		genMember(t, `"data"`, value),
	}
	if name == "LiveText" && rapid.Bool().Draw(t, "version") {
		members = append(members, genMember(t, `"version"`, same("17")))
	}
	return document{enclose(t, "{", rapid.Permutation(members).Draw(t, "order"), "}").src, value.want}
}

// genNearMiss generates an object that is almost a live node.
func genNearMiss(t *rapid.T, n int) document {
	typ := genMember(t, `"liveblocksType"`, same(`"LiveMap"`))
	data := genMember(t, `"data"`, genObject(t, n))
	members := rapid.SampledFrom([][]document{
		{typ},
		{data},
		{typ, data, data},
		{typ, data, typ},
		{typ, data, genMember(t, `"x"`, documentsOf(n-1).Draw(t, "x"))},
		{typ, data, genMember(t, `"version"`, same("1"))},
		{typ, genMember(t, `"data"`, genArray(t, n))},
		{genMember(t, `"liveblocksType"`, same(`"LiveList"`)), data},
		{genMember(t, `"liveblocksType"`, same(`"Live"`)), data},
		{genMember(t, `"liveblocksType"`, same(`"LiveMaps"`)), data},
		{
			genMember(t, `"liveblocksType"`, same(`"LiveText"`)), genMember(t, `"data"`, genArray(t, n)),
			genMember(t, `"version"`, same(`"1"`)),
		},
	}).Draw(t, "near miss")
	return enclose(t, "{", rapid.Permutation(members).Draw(t, "order"), "}")
}

func genMember(t *rapid.T, key string, value document) document {
	return document{key + genSpace(t) + ":" + genSpace(t) + value.src, key + ":" + value.want}
}

// enclose joins parts, with white space in the source only.
func enclose(t *rapid.T, before string, parts []document, after string) document {
	var src, want []string
	for _, p := range parts {
		src = append(src, genSpace(t)+p.src+genSpace(t))
		want = append(want, p.want)
	}
	if len(parts) == 0 {
		src = []string{genSpace(t)}
	}
	return document{before + strings.Join(src, ",") + after, before + strings.Join(want, ",") + after}
}

// TestJSONEqualsTheReference compares with the bytes the generator expects and
// with the reference implementation, on random documents.
func TestJSONEqualsTheReference(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		doc := documentsOf(5).Draw(t, "document")
		got, props, err := lson.JSON(nil, []byte(doc.src))
		if size, p, serr := lson.Size([]byte(doc.src)); size != len(got) || p != props || (serr == nil) != (err == nil) {
			t.Fatalf("Size of %s = %d, %+v, %v; want those of JSON: %d, %+v, %v", doc.src, size, p, serr, len(got), props, err)
		}
		if err != nil {
			t.Fatalf("JSON: %v", err)
		}
		if string(got) != doc.want {
			t.Fatalf("JSON(%s)\n= %s\nwant %s", doc.src, got, doc.want)
		}
		want, _ := unwrap(decode(t, []byte(doc.src)))
		if diff := cmp.Diff(want, decode(t, got)); diff != "" {
			t.Fatalf("JSON differs from the reference (-want +got):\n%s", diff)
		}
		if d := depth(want); props.Depth != d {
			t.Fatalf("Depth = %d; want %d", props.Depth, d)
		}
		checkStrings(t, got, props)
	})
}

// checkStrings compares what props says of strings with what encoding/json
// makes of them: it turns a lone surrogate into U+FFFD.
func checkStrings(t interface{ Fatalf(string, ...any) }, out []byte, props lson.Properties) {
	nul, lone := false, false
	var walk func(v any)
	text := func(s string) {
		nul = nul || strings.ContainsRune(s, 0)
		lone = lone || strings.ContainsRune(s, utf8.RuneError)
	}
	walk = func(v any) {
		switch v := v.(type) {
		case string:
			text(v)
		case []any:
			for _, item := range v {
				walk(item)
			}
		case object:
			for _, m := range v {
				text(m.Key)
				walk(m.Value)
			}
		}
	}
	walk(decode(t, out))
	if props.HasNUL != nul {
		t.Fatalf("HasNUL of %s = %t; want %t", out, props.HasNUL, nul)
	}
	// U+FFFD may also stand in the document as itself.
	if props.HasLoneSurrogate != lone && !bytes.ContainsRune(out, utf8.RuneError) &&
		!bytes.Contains(bytes.ToLower(out), []byte(`\ufffd`)) {
		t.Fatalf("HasLoneSurrogate of %s = %t; want %t", out, props.HasLoneSurrogate, lone)
	}
}

// FuzzJSON holds the scanner to encoding/json on any input: the same inputs
// are valid, the output is valid, equal to the reference's and, where there is
// no live node left, stable.
func FuzzJSON(f *testing.F) {
	for _, d := range documents {
		f.Add(readFixture(f, d, "plainlson"))
		f.Add(readFixture(f, d, "json"))
	}
	for _, s := range []string{
		`{"data":[1e400,"\ud83d\u0000"],"liveblocksType":"LiveList"}`,
		`{"liveblocksType":"LiveText","data":[["a"]],"version":3}`,
		`{"liveblocksType":"LiveMap","data":{"a":{"liveblocksType":"LiveMap","data":{}}},"x":{"data":{},"liveblocksType":"LiveFile"}}`,
		" [ -0.5e-7 , \"日本\" , true , false , null , { } ] ",
		"\"\xff\"", `"\u12`, `[1,]`, `{"a":1,}`, `01`, `1.`, `-`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		got, props, err := lson.JSON(nil, src)
		if size, p, serr := lson.Size(src); size != len(got) || p != props || (serr == nil) != (err == nil) {
			t.Fatalf("Size = %d, %+v, %v; want those of JSON: %d, %+v, %v", size, p, serr, len(got), props, err)
		}
		if want := json.Valid(src) && utf8.Valid(src); (err == nil) != want {
			t.Fatalf("JSON(%q): error %v; want valid %t", src, err, want)
		}
		if err != nil {
			return
		}
		if !json.Valid(got) || len(got) > len(src) {
			t.Fatalf("JSON(%q) = %q; want valid JSON that is not longer", src, got)
		}
		// The keys of a node are known by their plain spelling only; encoding/json
		// has no way to tell an escaped one.
		escaped := bytes.IndexByte(src, '\\') >= 0
		nodes := 0
		if !escaped {
			var want any
			want, nodes = unwrap(decode(t, src))
			if out := decode(t, got); !reflect.DeepEqual(out, want) { // cmp.Diff takes long where nesting is deep
				t.Fatalf("JSON(%q) = %#v; want %#v", src, out, want)
			}
			if d := depth(want); props.Depth != d {
				t.Fatalf("Depth of %q = %d; want %d", src, props.Depth, d)
			}
		}
		checkStrings(t, got, props)
		if !escaped && nodes == 0 {
			var compact bytes.Buffer
			if err := json.Compact(&compact, src); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, compact.Bytes()) {
				t.Fatalf("JSON(%q) = %q; want what json.Compact makes of it", src, got)
			}
			again, _, err := lson.JSON(nil, got)
			if err != nil || !bytes.Equal(again, got) {
				t.Fatalf("JSON of its own output %q = %q, %v; want the same", got, again, err)
			}
		}
	})
}

func ExampleJSON() {
	out, _, err := lson.JSON(nil,
		[]byte(`{"liveblocksType":"LiveObject","data":{"todos":{"liveblocksType":"LiveList","data":["write","ship"]}}}`))
	if err != nil {
		panic(err)
	}
	fmt.Println(string(out))
	// Output: {"todos":["write","ship"]}
}

package lson_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/lson"
)

// documents are the recorded storage answers; each has a plain-lson and a json
// form made by Liveblocks' own server from the same room.
var documents = []string{"empty", "flow", "storage", "tiptap-storage"}

func readFixture(tb testing.TB, document, format string) []byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", fmt.Sprintf("storage-%s-%s.json", document, format)))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestJSONEqualsTheServersOwn(t *testing.T) {
	t.Parallel()
	for _, document := range documents {
		t.Run(document, func(t *testing.T) {
			t.Parallel()
			got, _, err := lson.JSON(nil, readFixture(t, document, "plainlson"))
			if err != nil {
				t.Fatalf("JSON: %v", err)
			}
			var gotValue, wantValue any
			if err := json.Unmarshal(got, &gotValue); err != nil {
				t.Fatalf("JSON made invalid JSON: %v", err)
			}
			if err := json.Unmarshal(readFixture(t, document, "json"), &wantValue); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(wantValue, gotValue); diff != "" {
				t.Errorf("JSON differs from format=json (-want +got):\n%s", diff)
			}
		})
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		src   string
		want  string
		props lson.Properties
	}{
		{name: "scalar", src: ` 1 `, want: `1`},
		{name: "empty room", src: `{"liveblocksType":"LiveObject","data":{}}`, want: `{}`, props: lson.Properties{Depth: 1}},
		{
			name: "list", src: `{"liveblocksType":"LiveList","data":[1,[2]]}`, want: `[1,[2]]`,
			props: lson.Properties{Depth: 2},
		},
		{name: "map", src: `{"liveblocksType":"LiveMap","data":{"":1}}`, want: `{"":1}`, props: lson.Properties{Depth: 1}},
		{
			name: "text", src: `{"liveblocksType":"LiveText","data":[["a",{"bold":true}],["b"]]}`,
			want: `[["a",{"bold":true}],["b"]]`, props: lson.Properties{Depth: 3},
		},
		{
			name: "text with a version behind", src: `{"liveblocksType":"LiveText","data":[["a"]],"version":12}`,
			want: `[["a"]]`, props: lson.Properties{Depth: 2},
		},
		{
			name: "text with a version before", src: `{"version":-1e0,"liveblocksType":"LiveText","data":[["a"]]}`,
			want: `[["a"]]`, props: lson.Properties{Depth: 2},
		},
		{
			name: "text with a version between", src: `[{"liveblocksType":"LiveText","version":0,"data":[]},3]`, want: `[[],3]`,
			props: lson.Properties{Depth: 2},
		},
		{
			name: "file", src: `{"liveblocksType":"LiveFile","data":{"id":"f","name":"n","size":1,"mimeType":"m"}}`,
			want: `{"id":"f","name":"n","size":1,"mimeType":"m"}`, props: lson.Properties{Depth: 1},
		},
		{
			name: "data before type",
			src:  `{"data":{"a":{"data":[1],"liveblocksType":"LiveList"}},"liveblocksType":"LiveObject"}`, want: `{"a":[1]}`,
			props: lson.Properties{Depth: 2},
		},
		{
			name: "white space", src: " { \"liveblocksType\" :\t\"LiveMap\" , \"data\" : { \"a\" : [ 1 , 2 ] } \r\n} ",
			want: `{"a":[1,2]}`, props: lson.Properties{Depth: 2},
		},
		{
			name: "white space behind data", src: `{"data":{} , "liveblocksType":"LiveMap"}`, want: `{}`,
			props: lson.Properties{Depth: 1},
		},
		{
			name: "exact numbers and escapes",
			src:  `{"liveblocksType":"LiveObject","data":{"n":[9007199254740993,1e400,-0,0.10E+2],"s":"\/\b\u00e9 \"\\u0000"}}`,
			want: `{"n":[9007199254740993,1e400,-0,0.10E+2],"s":"\/\b\u00e9 \"\\u0000"}`, props: lson.Properties{Depth: 2},
		},
		{name: "NUL", src: `"a\u0000"`, want: `"a\u0000"`, props: lson.Properties{HasNUL: true}},
		{
			name: "NUL in a key", src: `{"liveblocksType":"LiveMap","data":{"\u0000":1}}`, want: `{"\u0000":1}`,
			props: lson.Properties{HasNUL: true, Depth: 1},
		},
		{name: "lone high surrogate", src: `"\ud83d"`, want: `"\ud83d"`, props: lson.Properties{HasLoneSurrogate: true}},
		{
			name: "two high surrogates and a low one", src: `"\uD83D\ud83d\uDC4B"`, want: `"\uD83D\ud83d\uDC4B"`,
			props: lson.Properties{HasLoneSurrogate: true},
		},
		{
			name: "lone low surrogate", src: `"\udc4b\ud83d"`, want: `"\udc4b\ud83d"`,
			props: lson.Properties{HasLoneSurrogate: true},
		},
		{
			name: "high surrogate before another escape", src: `"\ud83d\n"`, want: `"\ud83d\n"`,
			props: lson.Properties{HasLoneSurrogate: true},
		},
		{name: "pair", src: `"\ud83d\uDC4B"`, want: `"\ud83d\uDC4B"`},
		{name: "escaped backslash before u", src: `"\\ud83d\\u0000"`, want: `"\\ud83d\\u0000"`},

		// The user's own objects stay.
		{
			name: "unknown type", src: `{"liveblocksType":"LiveThing","data":{}}`,
			want: `{"liveblocksType":"LiveThing","data":{}}`, props: lson.Properties{Depth: 2},
		},
		{
			name: "longer type", src: `{"liveblocksType":"LiveMapper","data":{}}`,
			want: `{"liveblocksType":"LiveMapper","data":{}}`, props: lson.Properties{Depth: 2},
		},
		{
			name: "type no string", src: `{"liveblocksType":1,"data":{}}`, want: `{"liveblocksType":1,"data":{}}`,
			props: lson.Properties{Depth: 2},
		},
		{
			name: "no data", src: `{"liveblocksType":"LiveMap"}`, want: `{"liveblocksType":"LiveMap"}`,
			props: lson.Properties{Depth: 1},
		},
		{name: "no type", src: `{"data":{}}`, want: `{"data":{}}`, props: lson.Properties{Depth: 2}},
		{
			name: "data of another shape",
			src:  `[{"liveblocksType":"LiveMap","data":[]},{"liveblocksType":"LiveList","data":{}},{"liveblocksType":"LiveText","data":""}]`, want: `[{"liveblocksType":"LiveMap","data":[]},{"liveblocksType":"LiveList","data":{}},{"liveblocksType":"LiveText","data":""}]`, props: lson.Properties{Depth: 3},
		},
		{
			name: "one key more",
			src:  `{"liveblocksType":"LiveMap","data":{"a":{"liveblocksType":"LiveList","data":[]}},"x":[1]}`,
			want: `{"liveblocksType":"LiveMap","data":{"a":[]},"x":[1]}`, props: lson.Properties{Depth: 3},
		},
		{
			name: "one key more before", src: `{"x":1,"liveblocksType":"LiveMap","data":{}}`,
			want: `{"x":1,"liveblocksType":"LiveMap","data":{}}`, props: lson.Properties{Depth: 2},
		},
		{
			name: "version of a map", src: `{"liveblocksType":"LiveMap","data":{},"version":1}`,
			want: `{"liveblocksType":"LiveMap","data":{},"version":1}`, props: lson.Properties{Depth: 2},
		},
		{
			name: "version no number", src: `{"liveblocksType":"LiveText","data":[],"version":{}}`,
			want: `{"liveblocksType":"LiveText","data":[],"version":{}}`, props: lson.Properties{Depth: 2},
		},
		{
			name: "two versions", src: `{"liveblocksType":"LiveText","data":[],"version":1,"version":2}`,
			want: `{"liveblocksType":"LiveText","data":[],"version":1,"version":2}`, props: lson.Properties{Depth: 2},
		},
		{
			name: "data twice", src: `{"liveblocksType":"LiveText","data":[],"data":[]}`,
			want: `{"liveblocksType":"LiveText","data":[],"data":[]}`, props: lson.Properties{Depth: 2},
		},
		{
			name: "wrong guesses inside each other",
			src:  `{"liveblocksType":"LiveMap","data":{"liveblocksType":"LiveMap","data":{"data":[0],"liveblocksType":"LiveList"},"x":0},"x":0}`, want: `{"liveblocksType":"LiveMap","data":{"liveblocksType":"LiveMap","data":[0],"x":0},"x":0}`, props: lson.Properties{Depth: 3},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, props, err := lson.JSON([]byte("before:"), []byte(tt.src))
			if err != nil {
				t.Fatalf("JSON(%s): %v", tt.src, err)
			}
			if string(got) != "before:"+tt.want {
				t.Errorf("JSON(%s) = %s; want before:%s", tt.src, got, tt.want)
			}
			if props != tt.props {
				t.Errorf("JSON(%s) properties = %+v; want %+v", tt.src, props, tt.props)
			}
			if size, props, err := lson.Size([]byte(tt.src)); err != nil || size != len(tt.want) || props != tt.props {
				t.Errorf("Size(%s) = %d, %+v, %v; want %d", tt.src, size, props, err, len(tt.want))
			}
		})
	}
}

func TestJSONRefusesWhatIsNotJSON(t *testing.T) {
	t.Parallel()
	tests := []struct {
		src    string
		offset int
	}{
		{``, 0},
		{` `, 1},
		{`tru`, 0},
		{`nulL`, 0},
		{`01`, 0},
		{`-`, 0},
		{`1.`, 2},
		{`1e+`, 3},
		{`+1`, 0},
		{`[1,]`, 3},
		{`[1 2]`, 3},
		{`[`, 1},
		{`{"a":1,}`, 7},
		{`{"a"}`, 4},
		{`{"a":}`, 5},
		{`{a:1}`, 1},
		{`{"a":1]`, 6},
		{`1 2`, 2},
		{`"`, 1},
		{`"\x"`, 1},
		{`"\u00g0"`, 1},
		{`"\u000`, 1},
		{"\"a\tb\"", 2},
		{"\"\xff\"", 0},
		{"\"\xed\xa0\xbd\"", 0}, // a surrogate, encoded as if it were a character
		{"\xef\xbb\xbf1", 0},    // byte order mark
		{`{"liveblocksType":"LiveMap","data":{}`, 37},
		{`{"liveblocksType":"LiveMap","data":{}]`, 37},
		{`{"liveblocksType":"LiveMap","data":{},}`, 38},
		{`{"liveblocksType":"LiveText","data":[],"version":-}`, 49},
	}
	for _, tt := range tests {
		t.Run(tt.src, func(t *testing.T) {
			t.Parallel()
			dst := []byte("before")
			got, props, err := lson.JSON(dst, []byte(tt.src))
			var syntax *lson.SyntaxError
			if !errors.As(err, &syntax) {
				t.Fatalf("JSON(%q) = %q, %v; want a SyntaxError", tt.src, got, err)
			}
			if syntax.Offset != tt.offset {
				t.Errorf("JSON(%q) fails at %d (%v); want %d", tt.src, syntax.Offset, err, tt.offset)
			}
			if string(got) != "before" || props != (lson.Properties{}) {
				t.Errorf("JSON(%q) = %q, %+v after the error; want dst as it was", tt.src, got, props)
			}
		})
	}
}

// TestJSONReadsEveryByteEverywhere puts every byte at every place of strings
// around the width of the words in which strings are read.
func TestJSONReadsEveryByteEverywhere(t *testing.T) {
	t.Parallel()
	for _, fill := range []string{"a", "\x7f", "é"} {
		for length := range 20 {
			for at := range length {
				for b := range 256 {
					src := []byte(`["` + strings.Repeat(fill, at) + string([]byte{byte(b)}) + strings.Repeat(fill, length-at-1) + `"]`)
					_, _, err := lson.JSON(nil, src)
					if want := json.Valid(src) && utf8.Valid(src); (err == nil) != want {
						t.Fatalf("JSON(%q): error %v; want valid %t", src, err, want)
					}
				}
			}
		}
	}
}

func TestJSONErrorsKeepThePayloadToThemselves(t *testing.T) {
	t.Parallel()
	const payload = "confidential"
	for _, src := range []string{`{"` + payload + `"`, `"` + payload, payload, `["` + payload + `"x]`} {
		if _, _, err := lson.JSON(nil, []byte(src)); err == nil || strings.Contains(err.Error(), payload) {
			t.Errorf("JSON(%q) = %v; want an error that does not quote it", src, err)
		}
	}
}

// nest repeats a wrapping n times around a core.
func nest(n int, before, core, after string) []byte {
	return []byte(strings.Repeat(before, n) + core + strings.Repeat(after, n))
}

func TestJSONBoundsDepth(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name          string
		before, after string
		levels        int // levels of the source in one wrapping
		plainLevels   int // levels of the output in one wrapping
	}{
		{"arrays", `[`, `]`, 1, 1},
		{"objects", `{"a":`, `}`, 1, 1},
		{"nodes", `{"liveblocksType":"LiveList","data":[`, `]}`, 2, 1},
		{"nodes in another order", `{"data":[`, `],"liveblocksType":"LiveList"}`, 2, 1},
		{"objects that look like nodes", `{"liveblocksType":"LiveList","data":[`, `],"x":1}`, 2, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := lson.MaxDepth / tt.levels
			got, props, err := lson.JSON(nil, nest(n, tt.before, "1", tt.after))
			if err != nil {
				t.Fatalf("JSON of %d levels: %v", lson.MaxDepth, err)
			}
			if want := n * tt.plainLevels; props.Depth != want {
				t.Errorf("Depth = %d; want %d", props.Depth, want)
			}
			if !json.Valid(got) {
				t.Error("JSON made invalid JSON")
			}
			if _, _, err := lson.JSON(nil, nest(n+1, tt.before, "1", tt.after)); err == nil {
				t.Errorf("JSON of more than %d levels succeeded; want an error", lson.MaxDepth)
			}
		})
	}
}

// TestJSONIsLinear holds wrong guesses to linear work: with one move of the
// text for each of them this input would move 50 GB.
func TestJSONIsLinear(t *testing.T) {
	t.Parallel()
	core := `"` + strings.Repeat("x", 10<<20) + `"`
	for _, after := range []string{`,"x":1}`, `,"version":1}`} {
		src := nest(lson.MaxDepth-1, `{"liveblocksType":"LiveMap","data":`, core, after)
		got, _, err := lson.JSON(nil, src)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, src) {
			t.Error("JSON altered objects that only look like nodes")
		}
	}
}

func TestJSONKeepsItsHandsOffTheSource(t *testing.T) {
	t.Parallel()
	src := []byte(`{"data":{"a":{"liveblocksType":"LiveMap","data":{},"x":1}},"liveblocksType":"LiveMap"}`)
	before := bytes.Clone(src)
	dst := make([]byte, 3, 1024)
	copy(dst, "abc")
	got, _, err := lson.JSON(dst, src)
	if err != nil {
		t.Fatal(err)
	}
	if want := `abc{"a":{"liveblocksType":"LiveMap","data":{},"x":1}}`; string(got) != want {
		t.Errorf("JSON = %s; want %s", got, want)
	}
	if &got[0] != &dst[0] {
		t.Error("JSON left a dst that had room")
	}
	if !bytes.Equal(src, before) {
		t.Error("JSON altered its source")
	}
}

// generate returns a plain-lson document of about size bytes whose nodes have
// the shapes seen in real rooms: todo items, diagram nodes, edges, rich text.
func generate(size int) []byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	word := func() string { return "word"[:1+rnd.IntN(4)] + fmt.Sprint(rnd.IntN(1000)) }
	sentence := func() string {
		return strings.TrimSpace(strings.Repeat(word()+" ", 3+rnd.IntN(20))) + []string{
			".", " 👋", ` \"quoted\"\n`, " naïve",
			"",
		}[rnd.IntN(5)]
	}
	var b bytes.Buffer
	b.WriteString(`{"liveblocksType":"LiveObject","data":{"title":"Generated","items":{"liveblocksType":"LiveMap","data":{`)
	for i := 0; b.Len() < size; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"item-%d":`, i)
		switch i % 4 {
		case 0:
			fmt.Fprintf(&b, `{"liveblocksType":"LiveObject","data":{"text":"%s","checked":%t}}`, sentence(), i%8 == 0)
		case 1:
			fmt.Fprintf(&b, `{"liveblocksType":"LiveObject","data":{"id":"%d","type":"default","position":{"x":%d,"y":%.2f},"width":150,"height":40,"parentId":null,"data":{"liveblocksType":"LiveObject","data":{"label":"%s","tags":{"liveblocksType":"LiveList","data":["%s","%s"]}}}}}`,
				i, rnd.IntN(2000), rnd.Float64()*1000, sentence(), word(), word())
		case 2:
			fmt.Fprintf(&b, `{"liveblocksType":"LiveObject","data":{"id":"e%d","source":"%d","target":"%d","animated":true,"markerEnd":{"type":"arrowclosed"}}}`, i, i-1, i-2)
		case 3:
			fmt.Fprintf(&b, `{"liveblocksType":"LiveObject","data":{"id":"n%d","type":"paragraph","content":{"liveblocksType":"LiveList","data":[{"liveblocksType":"LiveText","data":[["%s",{"bold":true}],["%s"]]}]}}}`, i, sentence(), sentence())
		}
	}
	b.WriteString(`}}}}`)
	return b.Bytes()
}

func BenchmarkJSON(b *testing.B) {
	inputs := []struct {
		name string
		src  []byte
	}{
		{"empty", readFixture(b, "empty", "plainlson")},
		{"flow", readFixture(b, "flow", "plainlson")},
		{"storage", readFixture(b, "storage", "plainlson")},
		{"tiptap", readFixture(b, "tiptap-storage", "plainlson")},
		{"100KiB", generate(100 << 10)},
		{"1MiB", generate(1 << 20)},
		{"long strings", fmt.Appendf(nil, `{"liveblocksType":"LiveObject","data":{"a":"%s"}}`,
			strings.Repeat("Lorem ipsum dolor sit amet, ", 40_000))},
		{"long strings beyond ASCII", fmt.Appendf(nil, `{"liveblocksType":"LiveObject","data":{"a":"%s"}}`,
			strings.Repeat("日本語のテキスト naïve ", 30_000))},
		{"wrong guesses", bytes.ReplaceAll(generate(100<<10), []byte(`}}`), []byte(`},"x":1}`))},
	}
	for _, in := range inputs {
		b.Run(in.name, func(b *testing.B) {
			dst := make([]byte, 0, len(in.src))
			b.SetBytes(int64(len(in.src)))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := lson.JSON(dst, in.src); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A document of objects that look like nodes takes no memory for each of them: it is
// measured before memory is reserved for its JSON.
func TestSizeTakesNoMemory(t *testing.T) { //nolint:paralleltest // others would count
	const odd = `{"liveblocksType":"LiveMap","data":{},"":0},{"data":{},"liveblocksType":"LiveMap"},`
	src := []byte("[" + strings.Repeat(odd, 10_000) + "0]")
	want, _, err := lson.JSON(nil, src)
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	size, _, err := lson.Size(src)
	runtime.ReadMemStats(&after)
	if err != nil || size != len(want) {
		t.Errorf("Size = %d, %v; want %d", size, err, len(want))
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 100_000 {
		t.Errorf("Size of %d bytes took %d bytes of memory; want 100,000 at most", len(src), took)
	}
}

package yjs_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/yjs"
)

// typeOf finds a type by its name.
func typeOf(tb testing.TB, name string) yjs.Type {
	tb.Helper()
	for typ := yjs.Array; typ <= yjs.XMLText; typ++ {
		if typ.String() == name {
			return typ
		}
	}
	tb.Fatalf("no type is called %q", name)
	return yjs.Unknown
}

func read(tb testing.TB, name string) []byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func readJSON[T any](tb testing.TB, name string) T {
	tb.Helper()
	return unmarshal[T](tb, read(tb, name))
}

func unmarshal[T any](tb testing.TB, b []byte) (v T) {
	tb.Helper()
	if err := json.Unmarshal(b, &v); err != nil {
		tb.Fatal(err)
	}
	return v
}

func update(tb testing.TB, document string) []byte {
	tb.Helper()
	return read(tb, "ydoc-"+document+"-binary.bin")
}

func decode(tb testing.TB, update []byte) *yjs.Doc {
	tb.Helper()
	d, err := yjs.Decode(update, yjs.Limits{})
	if err != nil {
		tb.Fatalf("Decode: %v", err)
	}
	return d
}

// parse reads JSON with its numbers as they are written.
func parse(tb testing.TB, b []byte) (v any) {
	tb.Helper()
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		tb.Fatalf("invalid JSON: %v\n%.2000s", err, b)
	}
	return v
}

func toJSON(tb testing.TB, d *yjs.Doc) []byte {
	tb.Helper()
	b, err := d.JSON(nil)
	if err != nil {
		tb.Fatalf("JSON: %v", err)
	}
	return b
}

func structure(tb testing.TB, d *yjs.Doc) []byte {
	tb.Helper()
	b, err := d.Structure(nil)
	if err != nil {
		tb.Fatalf("Structure: %v", err)
	}
	return b
}

// Every recorded document reads as Yjs reads it.
func TestJSONEqualsYjs(t *testing.T) {
	t.Parallel()
	want := readJSON[map[string]string](t, "ydoc-decoded-expected.json")
	for document, types := range readJSON[map[string]map[string]string](t, "ydoc-decoded-types.json") {
		t.Run(document, func(t *testing.T) {
			t.Parallel()
			d := decode(t, update(t, document))
			for _, root := range d.Roots() {
				// What was emptied tells nothing of its type.
				if typ := types[root.Name]; root.Type.String() != typ && root.Name != "deleted" {
					t.Errorf("root %s is a %v; want %s", root.Name, root.Type, typ)
				}
				d.As(root.Name, typeOf(t, types[root.Name]))
			}
			if diff := cmp.Diff(parse(t, []byte(want[document])), parse(t, toJSON(t, d))); diff != "" {
				t.Errorf("JSON differs from what Yjs reads (-want +got):\n%s", diff)
			}
		})
	}
}

// So do documents that several clients made at random.
func TestJSONEqualsYjsOnRandomDocuments(t *testing.T) {
	t.Parallel()
	lines := bufio.NewScanner(bytes.NewReader(read(t, "yjs-fuzz-100.ndjson")))
	lines.Buffer(nil, 1<<20)
	n := 0
	for ; lines.Scan(); n++ {
		var line struct{ U, W string }
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		u, err := base64.StdEncoding.DecodeString(line.U)
		if err != nil {
			t.Fatal(err)
		}
		d := decode(t, u)
		for name, typ := range map[string]yjs.Type{
			"t": yjs.Text, "m": yjs.Map, "a": yjs.Array, "x": yjs.XMLFragment,
			"l": yjs.XMLText,
		} {
			d.As(name, typ)
		}
		if diff := cmp.Diff(parse(t, []byte(line.W)), parse(t, toJSON(t, d))); diff != "" {
			t.Fatalf("document %d: JSON differs from what Yjs reads (-want +got):\n%s", n, diff)
		}
	}
	if n != 100 {
		t.Fatalf("read %d documents; want 100", n)
	}
}

func TestDecodeRefusesVersion2(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob("testdata/*-v2.bin")
	if err != nil || len(names) == 0 {
		t.Fatalf("updates in version 2: %v, %v", names, err)
	}
	for _, name := range names {
		if _, err := yjs.Decode(read(t, filepath.Base(name)), yjs.Limits{}); !errors.Is(err, yjs.ErrVersion2) {
			t.Errorf("Decode of %s: %v; want ErrVersion2", name, err)
		}
	}
}

// Half an update is no update, wherever it ends.
func TestDecodeRefusesTruncatedUpdates(t *testing.T) {
	t.Parallel()
	for document := range readJSON[map[string]map[string]string](t, "ydoc-decoded-types.json") {
		u := update(t, document)
		for n := range min(len(u), 600) {
			var syntax *yjs.SyntaxError
			if _, err := yjs.Decode(u[:n], yjs.Limits{}); !errors.As(err, &syntax) {
				t.Fatalf("Decode of %d bytes of %s: %v; want a SyntaxError", n, document, err)
			}
		}
	}
}

func TestDecodeRefusesMalformedUpdates(t *testing.T) {
	t.Parallel()
	one := func(o ops) []byte { return whole(section(1, 1, 0, o)) }
	tests := []struct {
		name    string
		update  []byte
		problem string
	}{
		{"empty", nil, "it ends too early"},
		{"something behind", append(one(ops{}.root(str, "t").text("x")), 0), "something follows it"},
		{"too many clients", ops{}.uint(1000, 1, 1, 0), "a number of parts leads beyond the end"},
		{"too many structs", ops{}.uint(1, 1000, 1, 0).byte(gc).uint(1, 0), "a number of parts leads beyond the end"},
		{"too many values", one(ops{}.root(values, "t").uint(1 << 40)), "a number of parts leads beyond the end"},
		{"too many deletions", ops{0, 1, 1, 200}, ""},
		{"integer of nine bytes", ops{}.uint(1 << 60), "an integer is too large"},
		{"integer without end", ops(strings.Repeat("\xff", 100)), "an integer is too large"},
		{"clock beyond", whole(section(2, 1, 0, ops{}.byte(gc).uint(1<<53).byte(gc).uint(1))), "a clock is too large"},
		{"string beyond the end", one(ops{}.root(str, "t").uint(100)), "a length leads beyond the end"},
		{"string not in UTF-8", one(ops{}.root(str, "t").text("\xed\xa0\xbd")), "a string is not valid UTF-8"},
		{"key not in UTF-8", one(ops{}.member(str, "t", "\xff").text("x")), "a string is not valid UTF-8"},
		{"kind of struct", one(ops{}.root(11, "t")), "a struct is of no known kind"},
		// What follows would be read as another struct.
		{"kind of type", one(ops{}.root(typ, "t").byte(8).text("name")), "a shared type is of no known kind"},
		{"kind of value", one(ops{}.root(values, "t").uint(1).byte(115)), "a value is of no known type"},
		{"broken JSON", one(ops{}.root(jsonTexts, "t").uint(1).text("{")), "a value is not JSON"},
		{"undefined embedded", one(ops{}.root(embed, "t").text("undefined")), "a value is not JSON"},
		{"origin is itself", one(ops{}.after(str, 1, 0).text("x")), "a struct refers to itself or to a later one"},
		{
			"origin is later", whole(section(2, 1, 0, ops{}.after(str, 1, 1).text("x").root(str, "t").text("x"))),
			"a struct refers to itself or to a later one",
		},
		{"parent is itself", one(ops{}.in(typ, 1, 0).byte(0)), "a struct refers to itself or to a later one"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := yjs.Decode(tt.update, yjs.Limits{})
			if tt.problem == "" {
				if !errors.Is(err, yjs.ErrVersion2) {
					t.Errorf("Decode: %v; want ErrVersion2", err)
				}
				return
			}
			var syntax *yjs.SyntaxError
			if !errors.As(err, &syntax) || syntax.Problem != tt.problem || syntax.Offset > len(tt.update) {
				t.Errorf("Decode: %v; want a SyntaxError: %s", err, tt.problem)
			}
		})
	}
}

// A broken update is told of without a word of what it holds.
func TestErrorsKeepTheDocumentToThemselves(t *testing.T) {
	t.Parallel()
	const secret = "confidential"
	u := whole(section(3, 1, 0, ops{}.member(values, secret, secret).uint(1).byte(119).text(secret).
		root(embed, secret).text(`{"`+secret+`":"`+secret+`"}`).after(format, 1, 1).text(secret).text(`"`+secret+`"`)))
	if b := toJSON(t, decode(t, u)); !bytes.Contains(b, []byte(secret)) {
		t.Fatalf("JSON = %s; want the content", b)
	}
	for i := range u {
		for _, limits := range []yjs.Limits{{}, {Items: 1}, {Depth: 1}, {Bytes: 10}} {
			broken := slices.Clone(u)
			broken[i] ^= 0x80
			if _, err := yjs.Decode(broken, limits); err != nil && strings.Contains(err.Error(), secret[:4]) {
				t.Fatalf("Decode: %v; want nothing of the content", err)
			}
		}
	}
}

// Where something is missing, Yjs shows the rest.
func TestDecodeLeavesOutWhatHasToWait(t *testing.T) {
	t.Parallel()
	a := ops{}.root(str, "t").text("a")
	tests := []struct {
		name   string
		update []byte
		want   string
	}{
		{
			"client that begins later", whole(section(1, 1, 0, a), section(1, 2, 5, ops{}.root(str, "t").text("b"))),
			`{"t":[{"insert":"a"}]}`,
		},
		{"gap", whole(section(3, 1, 0, a.byte(skip).uint(1).root(str, "t").text("b"))), `{"t":[{"insert":"a"}]}`},
		{"origin of an absent client", whole(section(2, 1, 0, a.after(str, 7, 0).text("b"))), `{"t":[{"insert":"a"}]}`},
		{
			"origin that a client never reached",
			whole(section(1, 1, 0, a), section(1, 2, 0, ops{}.after(str, 1, 1).text("b"))), `{"t":[{"insert":"a"}]}`,
		},
		{"what refers to what waits", whole(
			section(1, 1, 0, a), section(2, 2, 0, ops{}.after(str, 7, 0).text("b").after(str, 2, 0).text("c")),
			section(1, 3, 0, ops{}.after(str, 2, 1).text("d"))), `{"t":[{"insert":"a"}]}`},
		{"two that wait for each other", whole(
			section(1, 1, 0, a), section(1, 2, 0, ops{}.after(str, 3, 0).text("b")),
			section(1, 3, 0, ops{}.after(str, 2, 0).text("c"))), `{"t":[{"insert":"a"}]}`},
		{"parent of an absent client", whole(section(2, 1, 0, a.in(str, 7, 0).text("b"))), `{"t":[{"insert":"a"}]}`},
		{"deletion of what is absent", without(whole(section(1, 1, 0, a)), 1, 1, 9), `{"t":[{"insert":"a"}]}`},
		{"deletion of what a stranger made", without(whole(section(1, 1, 0, a)), 7, 0, 9), `{"t":[{"insert":"a"}]}`},
		{
			"deletions of two clients",
			append(bytes.TrimSuffix(whole(section(1, 1, 0, ops{}.root(str, "t").text("ba"))), []byte{0}), 2, 0, 1, 5, 1, 1, 1,
				0, 1), `{"t":[{"insert":"a"}]}`,
		},
		{
			"client twice", whole(section(1, 1, 0, a), section(1, 1, 0, ops{}.root(str, "t").text("b"))),
			`{"t":[{"insert":"b"}]}`,
		},

		// What was collected takes with it what lies in it or beside it.
		{"parent collected", whole(section(3, 1, 0, a.byte(gc).uint(1).in(str, 1, 1).text("b"))), `{"t":[{"insert":"a"}]}`},
		{"parent no type", whole(section(2, 1, 0, a.in(str, 1, 0).text("b"))), `{"t":[{"insert":"a"}]}`},
		{"origin collected", whole(section(4, 1, 0, a.byte(gc).uint(2).after(str, 1, 1).text("b").after(str, 1,
			3).text("c"))), `{"t":[{"insert":"a"}]}`},
		{
			"right origin collected", whole(section(3, 1, 0, a.byte(gc).uint(2).byte(str|0xc0).uint(1, 0, 1, 2).text("b"))),
			`{"t":[{"insert":"a"}]}`,
		},
		{
			"structs of no length",
			whole(section(5, 1, 0, ops{}.root(str, "t").text("").byte(gc).uint(0).root(values, "t").uint(0).root(deleted,
				"t").uint(0).root(str, "t").text("a"))), `{"t":[{"insert":"a"}]}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := toJSON(t, decode(t, tt.update)); string(got) != tt.want {
				t.Errorf("JSON = %s; want %s", got, tt.want)
			}
		})
	}
}

func TestJSONOfValues(t *testing.T) {
	t.Parallel()
	float := func(tag byte, bits uint64, size int) ops {
		b := binary.BigEndian.AppendUint64([]byte{tag}, bits)
		return append(b[:1:1], b[9-size:]...)
	}
	float64Of := func(f float64) ops { return float(123, math.Float64bits(f), 8) }
	object := func(n uint64) ops { return ops{}.byte(118).uint(n) }
	tests := []struct {
		name  string
		value ops
		want  string
	}{
		{"undefined", ops{127}, `null`},
		{"null", ops{126}, `null`},
		{"integer", ops{125, 42}, `42`},
		{"integer of two bytes", ops{125, 0xbf, 2}, `191`},
		{"negative integer", ops{125, 0x41}, `-1`},
		{"negative zero", ops{125, 0x40}, `0`},
		{"largest integer", ops{125, 0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f}, `9007199254740991`},
		{"float32", float(124, uint64(math.Float32bits(0.1)), 4), `0.10000000149011612`},
		{"float64", float64Of(0.1), `0.1`},
		{"negative zero of 8 bytes", float64Of(math.Copysign(0, -1)), `0`},
		{"not a number", float64Of(math.NaN()), `null`},
		{"infinite", float64Of(math.Inf(-1)), `null`},
		{"large", float64Of(1e21), `1e+21`},
		{"just not large", float64Of(123456789012345680000), `123456789012345680000`},
		{"small", float64Of(-1.5e-7), `-1.5e-7`},
		{"just not small", float64Of(0.000001), `0.000001`},
		{"smallest", float64Of(5e-324), `5e-324`},
		{"BigInt", float(122, math.MaxUint64>>1, 8), `9223372036854775807`},
		{"negative BigInt", float(122, math.MaxUint64, 8), `-1`},
		{"true", ops{120}, `true`},
		{"false", ops{121}, `false`},
		{"string", ops{119}.text("a\x00\b\t\n\v\f\r\x1f\"\\/<\u2028é👋"), `"a\u0000\b\t\n\u000b\f\r\u001f\"\\/<` +
			"\u2028é👋\""},
		{"object", append(object(2).text("b").byte(126).text("a"), object(0)...), `{"b":null,"a":{}}`},
		{"object with undefined", object(3).text("a").byte(127).text("b").byte(120).text("c").byte(127), `{"b":true}`},
		{"array", ops{117, 3, 127, 120, 117, 0}, `[null,true,[]]`},
		{"binary", ops{116, 2, 0, 255}, `{"0":0,"1":255}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := decode(t, whole(section(1, 1, 0, append(ops{}.root(values, "a").uint(1), tt.value...))))
			if got, want := string(toJSON(t, d)), `{"a":[`+tt.want+`]}`; got != want {
				t.Errorf("JSON = %s; want %s", got, want)
			}
		})
	}
}

func TestJSONOfJSON(t *testing.T) {
	t.Parallel()
	d := decode(t, whole(section(6, 1, 0, ops{}.
		root(jsonTexts, "a").uint(3).text(` { "b" : [ 1.50 , "\ud83d \u0000" ] } `).text("undefined").text("null").
		member(jsonTexts, "m", "gone").uint(1).text("undefined").
		member(values, "m", "gone too").uint(1).byte(127).
		root(embed, "t").text(` { "x" : 1 } `).after(format, 1, 5).text("bold").text(" true ").after(str, 1, 6).text("x"))))
	const want = `{"a":[{"b":[1.50,"\ud83d \u0000"]},null,null],"m":{},"t":[{"insert":{"x":1}},{"insert":"x","attributes":{"bold":true}}]}`
	if got := string(toJSON(t, d)); got != want {
		t.Errorf("JSON = %s; want %s", got, want)
	}
}

// Yjs puts U+FFFD in place of both halves of a character that was cut.
func TestStringsAreCutInUTF16(t *testing.T) {
	t.Parallel()
	text := "aé日👋z"
	for cut, want := range []string{"Xaé日👋z", "aXé日👋z", "aéX日👋z", "aé日X👋z", "aé日\ufffdX\ufffdz", "aé日👋Xz", "aé日👋zX"} {
		b := ops{}
		switch cut {
		case 0:
			b = b.before(str, 1, 0)
		case 6:
			b = b.after(str, 1, 5)
		default:
			b = b.byte(str|0xc0).uint(1, uint64(cut-1), 1, uint64(cut))
		}
		d := decode(t, whole(section(1, 1, 0, ops{}.root(str, "t").text(text)), section(1, 2, 0, b.text("X"))))
		if got := d.Text(); got != want {
			t.Errorf("Text with an insertion at %d = %q; want %q", cut, got, want)
		}
	}
	// One half alone, cut at both its ends.
	d := decode(t, without(whole(section(1, 1, 0, ops{}.root(str, "t").text("👋👋"))), 1, 0, 1, 3, 1))
	if got, want := d.Text(), "\ufffd\ufffd"; got != want {
		t.Errorf("Text of halves = %q; want %q", got, want)
	}
}

// Documents have structs whose right neighbour lies before the left one. Where
// they go depends, in Yjs as well, on whether the two are one run so far.
func TestNeighboursInTheWrongOrder(t *testing.T) {
	t.Parallel()
	abc := ops{}.root(str, "t").text("abc")
	odd := func(o ops, left, right uint64) ops { return o.byte(str|0xc0).uint(1, left, 1, right).text("X") }
	tests := []struct {
		name   string
		update []byte
		want   string
	}{
		{"in one run", whole(section(2, 1, 0, odd(abc, 2, 2))), "abXc"},
		{"run that goes on", whole(section(2, 1, 0, odd(abc, 1, 1))), "aXbc"},
		{"two units before", whole(section(2, 1, 0, odd(abc, 2, 1))), "aXbc"},
		{"run that begins with the right one", whole(section(2, 1, 0, odd(abc, 2, 0))), "abcX"},
		{
			"run that was cut there", whole(section(3, 1, 0, odd(abc.byte(str|0xc0).uint(1, 1, 1, 2).text("Y"), 2, 2))),
			"abYcX",
		},
		{
			"run that was cut in between", whole(section(3, 1, 0, odd(abc.byte(str|0xc0).uint(1, 1, 1, 2).text("Y"), 2, 1))),
			"abYcX",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := decode(t, tt.update).Text(); got != tt.want {
				t.Errorf("Text = %q; want %q", got, tt.want)
			}
		})
	}
}

func TestRootsAreOfTheTypeTheirContentSpeaksFor(t *testing.T) {
	t.Parallel()
	node := func(kind byte) ops {
		o := ops{}.root(typ, "r").byte(kind)
		if kind == 3 || kind == 5 {
			o = o.text("p")
		}
		return o
	}
	attribute := func(o ops, key string) []byte {
		return whole(section(2, 1, 0, append(o.byte(values|0x20).uint(0, 1, 0).text(key).uint(1), ops{119}.text("x")...)))
	}
	one := func(o ops) []byte { return whole(section(1, 1, 0, o)) }
	tests := []struct {
		name   string
		update []byte
		typ    yjs.Type
		json   string
	}{
		{"string", one(ops{}.root(str, "r").text("x")), yjs.Text, `[{"insert":"x"}]`},
		{"format alone", one(ops{}.root(format, "r").text("b").text("1")), yjs.Text, `[]`},
		{"values", one(ops{}.root(values, "r").uint(1).byte(120)), yjs.Array, `[true]`},
		{"binary", one(ops{}.root(binaryData, "r").uint(1).byte(9)), yjs.Array, `[{"0":9}]`},
		{"subdocument", one(ops{}.root(doc, "r").text("g").byte(118, 0)), yjs.Array, `[{"guid":"g"}]`},
		{"maps", one(node(1)), yjs.Array, `[{}]`},
		{"hook", one(node(5)), yjs.XMLFragment, `[{}]`},
		{"fragments", one(node(4)), yjs.Array, `[[]]`},
		{"elements", one(node(3)), yjs.XMLFragment, `[{"t":"p","attrs":{},"c":[]}]`},
		{"plain text node", one(node(6)), yjs.XMLFragment, `[{"t":"text","delta":[],"attrs":{}}]`},
		{
			"text node with attributes", attribute(node(6), "type"), yjs.XMLText,
			`{"t":"text","delta":[{"insert":{"t":"text","delta":[],"attrs":{"type":"x"}}}],"attrs":{}}`,
		},
		{
			"decorator of Lexical", attribute(node(3), "__type"), yjs.XMLText,
			`{"t":"text","delta":[{"insert":{"t":"p","attrs":{"__type":"x"},"c":[]}}],"attrs":{}}`,
		},
		{"member", one(ops{}.member(values, "r", "k").uint(1).byte(120)), yjs.Map, `{"k":true}`},
		{"deleted member", one(ops{}.member(deleted, "r", "k").uint(1)), yjs.Map, `{}`},
		{
			"element with attributes", whole(section(2, 1, 0, node(3).member(values, "r", "k").uint(1).byte(120))),
			yjs.XMLElement, `{"t":"UNDEFINED","attrs":{"k":true},"c":[{"t":"p","attrs":{},"c":[]}]}`,
		},
		{"deleted string", without(one(ops{}.root(str, "r").text("x")), 1, 0, 1), yjs.Text, `[]`},
		{"deleted", one(ops{}.root(deleted, "r").uint(1)), yjs.Unknown, ``},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := decode(t, tt.update)
			if diff := cmp.Diff([]yjs.Root{{Name: "r", Type: tt.typ}}, d.Roots()); diff != "" {
				t.Errorf("Roots differ (-want +got):\n%s", diff)
			}
			want := `{}`
			if tt.json != "" {
				want = `{"r":` + tt.json + `}`
			}
			if got := string(toJSON(t, d)); got != want {
				t.Errorf("JSON = %s; want %s", got, want)
			}
		})
	}
}

// JSON that is too long is counted and hashed, and not kept.
func TestQueryable(t *testing.T) {
	t.Parallel()
	long := attributes(400) // in many parts
	for name, update := range map[string][]byte{"short": update(t, "yjs-map"), "long": long} {
		d := decode(t, update)
		json := toJSON(t, d)
		for _, most := range []int{0, 1, len(json) / 2, len(json) - 1, len(json), len(json) + 1} {
			q, err := d.Queryable(most)
			if err != nil || q.Size != len(json) || q.StateSHA256 != d.StateSHA256(json) {
				t.Fatalf("%s: Queryable(%d) = %d bytes, %x, %v; want %d, %x", name, most, q.Size, q.StateSHA256, err, len(json),
					d.StateSHA256(json))
			}
			if kept := len(json) <= most; kept != (q.JSON != nil) || kept && !bytes.Equal(q.JSON, json) {
				t.Fatalf("%s: Queryable(%d) has %d bytes of JSON, of %d", name, most, len(q.JSON), len(json))
			}
		}
	}
	d, err := yjs.Decode(long, yjs.Limits{Output: 100_000})
	if err != nil {
		t.Fatal(err)
	}
	var limit *yjs.LimitError
	if _, err := d.Queryable(10); !errors.As(err, &limit) || limit.Limit != "Output" {
		t.Errorf("Queryable beyond the limit = %v; want a LimitError", err)
	}
}

func TestSubdocuments(t *testing.T) {
	t.Parallel()
	d := decode(t, whole(section(8, 1, 0, ops{}.
		root(doc, "a").text("two").byte(118, 0).
		after(doc, 1, 0).text("one").byte(118, 1).text("autoLoad").byte(120).
		root(typ, "a").byte(1).
		byte(doc|0x20).uint(0, 1, 2).text("k").text("nested").byte(118, 0).
		member(doc, "m", "k").text("overwritten").byte(118, 0).
		after(doc, 1, 4).text("one").byte(118, 0).
		root(typ, "a").byte(1).
		byte(doc|0x20).uint(0, 1, 6).text("k").text("in what was deleted").byte(118, 0))))
	if diff := cmp.Diff([]string{"in what was deleted", "nested", "one", "two"}, d.Subdocuments()); diff != "" {
		t.Errorf("Subdocuments differ (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"sub-guid-0001"}, decode(t, update(t, "yjs-subdoc")).Subdocuments()); diff != "" {
		t.Errorf("Subdocuments of the recorded document differ (-want +got):\n%s", diff)
	}
	for name, want := range map[string]bool{"yjs-subdoc": true, "yjs-map": false} {
		if got := yjs.MayHaveSubdocuments(update(t, name)); got != want {
			t.Errorf("MayHaveSubdocuments of %s = %t; want %t", name, got, want)
		}
	}
	if !yjs.MayHaveSubdocuments([]byte{1, 1, 1}) {
		t.Error("an update that cannot be read has no subdocuments; want that left open")
	}
}

func TestDecodeKeepsItsHandsOffTheUpdate(t *testing.T) {
	t.Parallel()
	u := update(t, "tiptap-real")
	before := slices.Clone(u)
	d := decode(t, u)
	want := toJSON(t, d)
	if !bytes.Equal(u, before) {
		t.Error("Decode altered the update")
	}
	clear(u)
	if got := toJSON(t, d); !bytes.Equal(got, want) {
		t.Error("the document changed with the update")
	}
	dst := append(make([]byte, 0, 4096), "abc"...)
	if got := must(d.JSON(dst)); string(got) != "abc"+string(want) || &got[0] != &dst[0] {
		t.Errorf("JSON = %.40s; want it appended to what was there", got)
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// The big document is decoded and read in all ways within 20 ms. The best of many
// tries counts, so that what else the machine does cannot fail the test; the race
// detector makes it up to 20 times slower.
func TestBigDocumentIsReadInTime(t *testing.T) {
	t.Parallel()
	limit := 20 * time.Millisecond
	if info, ok := debug.ReadBuildInfo(); ok &&
		slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		limit *= 20
	}
	u := update(t, "big")
	best := time.Duration(math.MaxInt64)
	for try := 0; try < 100 && best > limit; try++ {
		begin := time.Now()
		d := decode(t, u)
		toJSON(t, d)
		structure(t, d)
		d.Text()
		best = min(best, time.Since(begin))
	}
	if best > limit {
		t.Errorf("%d bytes took %v to read; want at most %v", len(u), best, limit)
	}
}

// BenchmarkDecode reads documents in all ways. The big one has 20,000
// operations of two clients.
func BenchmarkDecode(b *testing.B) {
	for _, document := range []string{"yjs-map", "tiptap-real", "yjs-lexical", "big"} {
		u := update(b, document)
		for name, use := range map[string]func(*yjs.Doc){
			"decode":    func(*yjs.Doc) {},
			"JSON":      func(d *yjs.Doc) { must(d.JSON(nil)) },
			"structure": func(d *yjs.Doc) { must(d.Structure(nil)) },
			"text":      func(d *yjs.Doc) { d.Text() },
		} {
			b.Run(document+"/"+name, func(b *testing.B) {
				b.SetBytes(int64(len(u)))
				b.ReportAllocs()
				for b.Loop() {
					d, err := yjs.Decode(u, yjs.Limits{})
					if err != nil {
						b.Fatal(err)
					}
					use(d)
				}
			})
		}
	}
}

func ExampleDecode() {
	update := []byte("\x01\x01\x01\x00\x04\x01\x04note\x05hello\x00")
	doc, err := yjs.Decode(update, yjs.Limits{})
	if err != nil {
		panic(err)
	}
	out, err := doc.JSON(nil)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s\n%s\n", out, doc.Text())
	// Output:
	// {"note":[{"insert":"hello"}]}
	// hello
}

package rawjson_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
)

func parse(t interface {
	Helper()
	Fatalf(string, ...any)
}, s string,
) rawjson.Value {
	t.Helper()
	v, err := rawjson.Parse([]byte(s))
	if err != nil {
		t.Fatalf("Parse(%s) = %v", s, err)
	}
	return v
}

func TestParse(t *testing.T) {
	t.Parallel()
	if got := parse(t, " \n{\"a\": 1 }\t"); string(got) != `{"a": 1 }` {
		t.Errorf("Parse = %s; want the value without the space around it", got)
	}
	for _, bad := range []string{
		"", " ", "{", `{"a":}`, "1 2", "nul", "\ufeff1",
		strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001),
	} {
		if v, err := rawjson.Parse([]byte(bad)); !errors.Is(err, rawjson.ErrSyntax) {
			t.Errorf("Parse(%.20q) = %s, %v; want ErrSyntax", bad, v, err)
		}
	}
}

func TestMembersAndElements(t *testing.T) {
	t.Parallel()
	var got []string
	for name, v := range parse(t, "{ \"a\" : [1 , {\"x\":\"}]\"}, \"\\\"\"] ,\"\\u0062\": -1e3,\"c\":null\n}").Members() {
		got = append(got, name+"="+string(v))
	}
	if diff := cmp.Diff([]string{`a=[1 , {"x":"}]"}, "\""]`, "b=-1e3", "c=null"}, got); diff != "" {
		t.Errorf("Members (-want +got):\n%s", diff)
	}
	got = nil
	for v := range parse(t, `[ 1,"a,]" , [], {"b":[2]},true ]`).Elements() {
		got = append(got, string(v))
	}
	if diff := cmp.Diff([]string{"1", `"a,]"`, "[]", `{"b":[2]}`, "true"}, got); diff != "" {
		t.Errorf("Elements (-want +got):\n%s", diff)
	}
	for _, empty := range []string{"{}", "[]", " { } ", "[ ]", "1", `"{}"`, "null"} {
		for name := range parse(t, empty).Members() {
			t.Errorf("%s has the member %q", empty, name)
		}
		for v := range parse(t, empty).Elements() {
			t.Errorf("%s has the element %s", empty, v)
		}
	}
	if got := parse(t, `{"a":1,"b":2,"a":3}`).Get("a"); string(got) != "3" {
		t.Errorf("Get = %s; want the last of the name", got)
	}
	if got := parse(t, `{"\u0061":1,"\\u0061":2}`).Get("a"); string(got) != "1" {
		t.Errorf("Get = %s; want the member whose name is written with an escape", got)
	}
	if got := rawjson.Value(nil).Get("a"); !got.IsNull() {
		t.Errorf("Get of nothing = %s; want nothing", got)
	}
}

func TestScalars(t *testing.T) {
	t.Parallel()
	text := parse(t, `{"a":"\ud83d\udc4b \ud83d \u0000\n\"é","b":"x\udc4b\ud83d"}`)
	if got, want := text.Get("a").Exact(), "👋 \xed\xa0\xbd \x00\n\"é"; got != want {
		t.Errorf("Exact = %q; want %q", got, want)
	}
	if got, want := text.Get("a").Text(), "👋 \ufffd \ufffd\n\"é"; got != want {
		t.Errorf("Text = %q; want %q", got, want)
	}
	for s, want := range map[string]string{
		`"room"`: "room", `"r\u006fom"`: "room", `"a\u0000"`: "", `"\ud83d"`: "", `""`: "", "1": "", `"toolong"`: "",
		"null": "",
	} {
		if got := parse(t, s).ID(6); got != want {
			t.Errorf("ID of %s = %q; want %q", s, got, want)
		}
	}
	for s, want := range map[string]int64{"0": 0, "-12": -12, "1e3": 1000, "2.0": 2, "9007199254740993": 1<<53 + 1} {
		if got, ok := parse(t, s).Int(); !ok || got != want {
			t.Errorf("Int of %s = %d, %t; want %d", s, got, ok, want)
		}
	}
	for _, s := range []string{"1.5", "1e400", "1e17", `"1"`, "null", "true", "[1]", "99999999999999999999"} {
		if got, ok := parse(t, s).Int(); ok {
			t.Errorf("Int of %s = %d; want none", s, got)
		}
	}
	want := time.Date(2026, 1, 2, 3, 4, 5, 678_901_000, time.UTC)
	if got := parse(t, `"2026-01-02T04:04:05.6789019+01:00"`).Time(); !got.Equal(want) || got.Location() != time.UTC {
		t.Errorf("Time = %v; want %v", got, want)
	}
	for _, s := range []string{
		`"2026-01-02"`, `"1969-12-31T00:00:00Z"`, `"9999-01-01T00:00:00Z"`, "1767323045678",
		"null", `""`,
	} {
		if got := parse(t, s).Time(); !got.IsZero() {
			t.Errorf("Time of %s = %v; want none", s, got)
		}
	}
}

func TestDepth(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]int{
		"1": 0, `"[[["`: 0, "{}": 1, "[1]": 1, `{"a":[{}],"b":[]}`: 3,
		`["\"[[[", {}]`: 2,
	} {
		if got := parse(t, s).Depth(); got != want {
			t.Errorf("Depth of %s = %d; want %d", s, got, want)
		}
	}
}

func TestProblem(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		`{"a":"\ud83d\udc4b \\u0000 \\ud83d"}`: "",
		`{"a":"\\\u0000"}`:                     "u0000",
		`{"\u0000":1}`:                         "u0000",
		`["\ud83d"]`:                           "surrogate",
		`["\ud83d\n"]`:                         "surrogate",
		`["\udc4b\ud83d"]`:                     "surrogate",
		`["\ud83d\u0000"]`:                     "u0000",
		"\"\xff\"":                             "UTF-8",
	} {
		got := parse(t, s).Problem()
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("Problem of %s = %q; want one with %q", s, got, want)
		}
	}
}

// spelled is a value and two ways to write it.
type spelled struct{ one, other string }

// spell writes each character of a string in one of the ways JSON has for it.
func spell(t *rapid.T, units []uint16) string {
	var out strings.Builder
	out.WriteByte('"')
	for i := 0; i < len(units); i++ {
		u := units[i]
		plain := u < 0x80 && u >= ' ' && u != '"' && u != '\\'
		switch {
		case plain && rapid.Bool().Draw(t, "plain"):
			out.WriteByte(byte(u))
		case u == '\n' && rapid.Bool().Draw(t, "short"):
			out.WriteString(`\n`)
		case u == '/' && rapid.Bool().Draw(t, "slash"):
			out.WriteString(`\/`)
		case utf16.IsSurrogate(rune(u)) && i+1 < len(units) && utf16.DecodeRune(rune(u), rune(units[i+1])) != '\ufffd' &&
			rapid.Bool().Draw(t, "raw"):
			out.WriteRune(utf16.DecodeRune(rune(u), rune(units[i+1])))
			i++
		case rapid.Bool().Draw(t, "upper"):
			fmt.Fprintf(&out, `\u%04X`, u)
		default:
			fmt.Fprintf(&out, `\u%04x`, u)
		}
	}
	out.WriteByte('"')
	return out.String()
}

func spelledString(t *rapid.T) (key string, s spelled) {
	units := rapid.SliceOfN(rapid.SampledFrom([]uint16{'a', '"', '\\', '/', '\n', 0, 0xd83d, 0xdc4b, 0xd83e, 0xdfff}), 0,
		4).Draw(t, "units")
	return fmt.Sprint(units), spelled{spell(t, units), spell(t, units)}
}

func spelledValue(t *rapid.T, depth int) spelled {
	space := rapid.SampledFrom([]string{"", " ", "\n\t"})
	switch kind := rapid.IntRange(0, 4).Draw(t, "kind"); {
	case kind == 0 && depth > 0:
		var s spelled
		for i := range rapid.IntRange(0, 3).Draw(t, "elements") {
			comma := ""
			if i > 0 {
				comma = ","
			}
			v := spelledValue(t, depth-1)
			s.one += comma + v.one
			s.other += space.Draw(t, "before") + comma + space.Draw(t, "after") + v.other
		}
		return spelled{"[" + s.one + "]", "[" + s.other + space.Draw(t, "end") + "]"}
	case kind == 1 && depth > 0:
		byKey := map[string]spelled{}
		var keys []string
		for range rapid.IntRange(0, 4).Draw(t, "members") {
			key, name := spelledString(t)
			v := spelledValue(t, depth-1)
			if _, ok := byKey[key]; !ok {
				keys = append(keys, key)
			}
			byKey[key] = spelled{name.one + ":" + v.one, name.other + space.Draw(t, "colon") + ":" + v.other}
		}
		var one, other []string
		for _, k := range keys {
			one = append(one, byKey[k].one)
		}
		for _, k := range rapid.Permutation(keys).Draw(t, "order") {
			if rapid.Bool().Draw(t, "twice") { // an earlier member of the name does not count
				name, _, _ := strings.Cut(byKey[k].one, "\":")
				other = append([]string{name + `":"earlier"`}, other...)
			}
			other = append(other, byKey[k].other)
		}
		return spelled{"{" + strings.Join(one, ",") + "}", "{" + strings.Join(other, space.Draw(t, "comma")+",") + "}"}
	case kind == 2:
		n := strconv.Itoa(rapid.IntRange(-3, 3).Draw(t, "number"))
		return spelled{n, n}
	case kind == 3:
		w := rapid.SampledFrom([]string{"true", "false", "null"}).Draw(t, "word")
		return spelled{w, w}
	default:
		_, s := spelledString(t)
		return s
	}
}

// One value has one canonical form however it is spelled, and it is JSON.
func TestCanonicalFormIsOne(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := spelledValue(t, 3)
		one, other := parse(t, s.one).AppendCanonical([]byte("x")), parse(t, s.other).AppendCanonical([]byte("x"))
		if !bytes.Equal(one, other) {
			t.Fatalf("canonical forms differ:\n%s\n%s\nof\n%s\n%s", one, other, s.one, s.other)
		}
		if !json.Valid(one[1:]) {
			t.Fatalf("not JSON: %s", one)
		}
		if again := parse(t, string(one[1:])).AppendCanonical([]byte("x")); !bytes.Equal(again, one) {
			t.Fatalf("canonical form of %s = %s", one, again)
		}
	})
}

// Values that differ have canonical forms that do, where encoding/json would make
// one of both.
func TestCanonicalFormKeepsDifferences(t *testing.T) {
	t.Parallel()
	for _, pair := range [][2]string{
		{`"\ud83d"`, `"\ud83e"`},
		{`"\ud83d"`, "\"\ufffd\""},
		{`"\udc4b\ud83d"`, `"\ud83d\udc4b"`},
		{`"\\ud83d"`, `"\ud83d"`},
		{"9007199254740993", "9007199254740992"},
		{`{"a":1,"a":2}`, `{"a":2,"a":1}`},
		{`["a","b"]`, `["a,b"]`},
		{`{"a":null}`, `{}`},
		{`{"\ud83d":1}`, `{"\ud83e":1}`},
	} {
		a, b := parse(t, pair[0]).AppendCanonical(nil), parse(t, pair[1]).AppendCanonical(nil)
		if bytes.Equal(a, b) {
			t.Errorf("%s and %s both have the form %s", pair[0], pair[1], a)
		}
	}
	twice := strings.Repeat(`"a":0,"b":1,`, 20) + `"b":2,"a":3`
	if got, want := parse(t, "{"+twice+"}").AppendCanonical(nil), `{"a":3,"b":2}`; string(got) != want {
		t.Errorf("AppendCanonical = %s; want %s", got, want)
	}
	want := "{\"\":[],\"a\":\"\\\"\\\\\\u000a👋/\\ud83d\\ud9ef\\u001f\",\"b\":{}}"
	if got := parse(t, `{"b":{ },"a":"\"\\\n\ud83d\udc4b\/\uD83D\uD9EF\u001F","":[ ]}`).AppendCanonical(nil); string(
		got) != want {
		t.Errorf("AppendCanonical = %s; want %s", got, want)
	}
}

// Names out of order on every level must not cost more than the depth times the
// length.
func TestCanonicalFormOfDeepObjects(t *testing.T) {
	t.Parallel()
	const depth = 100
	s := strings.Repeat(`{"b":1,"a":`, depth) + "0" + strings.Repeat("}", depth)
	want := strings.Repeat(`{"a":`, depth) + "0" + strings.Repeat(`,"b":1}`, depth)
	if got := parse(t, s).AppendCanonical(nil); string(got) != want {
		t.Errorf("AppendCanonical = %s; want %s", got, want)
	}
}

// FuzzValue holds everything that reads a value against encoding/json.
func FuzzValue(f *testing.F) {
	for _, s := range []string{
		`{"a":[1,"\ud83d",{"b":null}],"a":true}`, `"\u0000\ud83d\udc4b\\\/"`, "[[[]]]", "-1.5e+3", ` {"\u0061" : "x"} `,
		"\"\xed\xa0\xbd\"",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		v, err := rawjson.Parse(raw)
		var want any
		if wantErr := json.Unmarshal(raw, &want); (err == nil) != (wantErr == nil) {
			t.Fatalf("Parse = %v; encoding/json says %v", err, wantErr)
		}
		if err != nil || v.Depth() > 100 {
			return
		}
		form := v.AppendCanonical(nil)
		var got any
		if err := json.Unmarshal(form, &got); err != nil {
			t.Fatalf("canonical form %s: %v", form, err)
		}
		if v.Problem() != "" { // names that encoding/json makes one of count once more here
			return
		}
		if !reflect.DeepEqual(want, got) {
			t.Fatalf("canonical form %s means something else", form)
		}
	})
}

package yjs_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

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
			raw, err := doc.Render(t.Context(), []byte("before"), as)
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
	if _, err := doc.Render(t.Context(), nil, yjs.Rendering{}); !isLimit(err) {
		t.Errorf("Render of more than the limit = %v; want a LimitError", err)
	}
}

func isLimit(err error) bool {
	_, ok := errors.AsType[*yjs.LimitError](err)
	return ok
}

// heavyFormat is an update of an XML text with a format of a large value, which is written in
// two words, and n parts.
func heavyFormat(size, n int) []byte {
	value := `{"a":[` + strings.Repeat(`{},`, size/3) + `{}]}`
	o := ops{}.root(typ, "x").byte(6).in(format, 1, 0).text("f").text(`{"a":{"b":` + value + `}}`)
	last := uint64(1)
	for range n {
		o = o.after(str, 1, last).text("x")
		last++
		o = o.after(embed, 1, last).text("1")
		last++
	}
	return whole(section(2*n+2, 1, 0, o))
}

// What takes little space in a rendering takes little time, however often it is written.
func TestRenderReadsValuesOnce(t *testing.T) {
	t.Parallel()
	d := decode(t, heavyFormat(1<<20, 20_000))
	begin := time.Now()
	b, err := d.Render(t.Context(), nil, yjs.Rendering{})
	if err != nil || strings.Count(string(b), `<f a=\"[object Object]\">`) != 40_000 {
		t.Fatalf("Render = %d bytes, %v: %.200s", len(b), err, b)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("Render of %d bytes took %v", len(b), took)
	}
}

// A rendering ends with its context, and is given up as a whole.
func TestRenderEndsWithItsContext(t *testing.T) {
	t.Parallel()
	for name, update := range map[string][]byte{
		"formats": heavyFormat(100, 10_000),
		"list":    whole(section(1, 1, 0, ops{}.root(jsonTexts, "a").uint(2).text("1").text("2"))),
	} {
		d := decode(t, update)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		b, err := d.Render(ctx, []byte("before"), yjs.Rendering{})
		if !errors.Is(err, context.Canceled) || string(b) != "before" {
			t.Errorf("%s: Render for nobody = %d bytes, %v; want what was there before", name, len(b), err)
		}
	}
}

// Values of formats are written as JavaScript sorts and prints them, whatever their type.
func TestRenderOfFormats(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		`"abcdefghijkl"`: ` 0="a" 1="b" 10="k" 11="l" 2="c" 3="d" 4="e" 5="f" 6="g" 7="h" 8="i" 9="j"`,

		`[1,[2,null,3],{}, "<"]`:                          ` 0="1" 1="2,,3" 2="[object Object]" 3="<"`,
		`{"b":true,"a":null,"\ud83d\ude00":1,"\uffee":2}`: ` a="null" b="true" 😀="1" ￮="2"`,
		`"😀"`: ` 0="�" 1="�"`, `true`: ``, `12`: ``, `""`: ``, `[]`: ``,
	} {
		o := ops{}.root(typ, "x").byte(6).in(format, 1, 0).text("f").text(value).after(str, 1, 1).text("x")
		b, err := decode(t, whole(section(3, 1, 0, o))).Render(t.Context(), nil, yjs.Rendering{})
		var got struct{ X string }
		if err == nil {
			err = json.Unmarshal(b, &got)
		}
		if err != nil || got.X != "<f"+want+">x</f>" {
			t.Errorf("rendering of the format %s = %q, %v; want <f%s>x</f>", value, got.X, err, want)
		}
	}
}

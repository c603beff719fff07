package yjs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"testing"
	"unicode/utf8"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/yjs"
)

// FuzzDecode holds any input to what every document keeps: an error of the
// known ones or valid output, within the limits and always the same.
func FuzzDecode(f *testing.F) {
	names, err := filepath.Glob("testdata/*.bin")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range names {
		if u := read(f, filepath.Base(name)); len(u) < 1<<12 {
			f.Add(u)
		}
	}
	f.Add(quadratic(5))
	f.Add(nested(5, 1))
	f.Add(attributes(3))
	f.Add(marks(3))
	f.Add(shredded(20))
	f.Add(whole(section(3, 1, 0, ops{}.root(str, "t").text("a👋b").byte(gc).uint(3).byte(skip).uint(1)),
		section(2, 2, 0, ops{}.byte(str|0xc0).uint(1, 1, 1, 2).text("x").member(doc, "m", "k").text("g").byte(118, 0))))

	limits := yjs.Limits{Items: 1 << 12, Depth: 50, Steps: 1 << 16, Output: 1 << 18}
	f.Fuzz(func(t *testing.T, update []byte) {
		d, err := yjs.Decode(update, limits)
		if err != nil {
			checkError(t, err)
			return
		}
		again, err := yjs.Decode(update, limits)
		if err != nil {
			t.Fatalf("Decode of what was decoded: %v", err)
		}
		for name, write := range map[string]func(*yjs.Doc, []byte) ([]byte, error){
			"JSON":      (*yjs.Doc).JSON,
			"Structure": (*yjs.Doc).Structure,
			"Render": func(d *yjs.Doc, dst []byte) ([]byte, error) {
				return d.Render(context.Background(), dst, yjs.Rendering{Formatting: true})
			},
		} {
			b, err := write(d, nil)
			if err != nil {
				checkError(t, err)
				continue
			}
			if !json.Valid(b) || !utf8.Valid(b) || len(b) > limits.Output {
				t.Fatalf("%s = %q; want valid JSON within the limit", name, b)
			}
			if other, err := write(again, nil); err != nil || !bytes.Equal(other, b) {
				t.Fatalf("%s = %q, %v; want %q as before", name, other, err, b)
			}
		}
		if text := d.Text(); !utf8.ValidString(text) || len(text) > 3*len(update) || text != again.Text() {
			t.Fatalf("Text = %q; want valid UTF-8, not much longer than the update and always the same", text)
		}
		if len(d.Subdocuments()) > 0 && !yjs.MayHaveSubdocuments(update) {
			t.Fatal("MayHaveSubdocuments denies those that Subdocuments has")
		}
		for _, guid := range d.Subdocuments() {
			if !bytes.Contains(update, []byte(guid)) {
				t.Fatalf("Subdocuments has %q, which the update has not", guid)
			}
		}
	})
}

func checkError(t *testing.T, err error) {
	t.Helper()
	var syntax *yjs.SyntaxError
	var limit *yjs.LimitError
	if !errors.Is(err, yjs.ErrVersion2) && !errors.As(err, &syntax) && !errors.As(err, &limit) {
		t.Fatalf("error of an unknown kind: %v", err)
	}
}

package listed_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/listed"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
)

// What is read while it arrives equals what is read at once.
func TestReadEqualsParse(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("[", 200) + strings.Repeat("]", 200)
	for _, raw := range []string{
		`{"data":[]}`, ` { "data" : [ ] } `, `{"data":[{"id":"a","n":1}]}`, `{"next":{"a":[1]},"data":[{"id":"a"}],"x":null}`,
		`{"data":[{"id":"a","n":1},1,{},null,"x",{"id":"b"},{ "n": 2, "id":"a"}],"nextCursor":null}`,
		`{"data":[{"id":"a","text":"\ud800 \u0000 ü 9007199254740993"},{"id":"é"}]}`, `{"data":{}}`, `{"data":null}`, `{}`, `[]`,
		`1`, `"data"`, `{"data":[{"id":"a"}]`, `{"data":[{"id":"a"}}`, `{"data":[{"id":"a"}]}}`, `{"data":[{"id":"a"}]} 1`,
		`{"data":[{"id":"a"},]}`, `{"data":[{"id":"a","b":` + deep + `}]}`, `{"data":[` + deep + `]}`, `{"data":[{"id":`,
		`{"data":[{"id":"a"}],"data":[{"id":"b"}]}`,
	} {
		want, wantErr := listed.Parse([]byte(raw))
		got, err := listed.Read(iotest.OneByteReader(strings.NewReader(raw)), 1<<20)
		if diff := cmp.Diff(want, got); diff != "" || (err == nil) != (wantErr == nil) ||
			errors.Is(wantErr, listed.ErrList) != errors.Is(err, listed.ErrList) && len(raw) > 2 ||
			errors.Is(wantErr, listed.ErrDepth) != errors.Is(err, listed.ErrDepth) {
			t.Errorf("Read(%.60s) = %v; Parse = %v (-Parse +Read):\n%s", raw, err, wantErr, diff)
		}
	}
}

// A list of any length is read: beyond the limit, only the hashes are kept.
func TestReadKeepsWhatFits(t *testing.T) {
	t.Parallel()
	var raw bytes.Buffer
	raw.WriteString(`{"data":[`)
	for i := range 100 {
		if i > 0 {
			raw.WriteByte(',')
		}
		fmt.Fprintf(&raw, `{"id":"id-%02d","text":%q}`, i, strings.Repeat("x", 1000))
	}
	raw.WriteString(`]}`)
	all, err := listed.Parse(raw.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	got, err := listed.Read(&raw, 10_500)
	if err != nil || len(got) != 100 {
		t.Fatalf("Read = %d elements, %v; want all", len(got), err)
	}
	kept := 0
	for i, item := range got {
		if item.Source != nil {
			kept++
		}
		if item.ID != all[i].ID || item.SHA256 != all[i].SHA256 ||
			item.Source != nil && !bytes.Equal(item.Source, all[i].Source) {
			t.Fatalf("element %d = %q, %x; want %q, %x", i, item.ID, item.SHA256, all[i].ID, all[i].SHA256)
		}
	}
	if kept != 10 || got[9].Source == nil {
		t.Fatalf("%d sources are kept; want the first 10", kept)
	}
}

func TestReadFails(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for what, c := range map[string]struct {
		r    io.Reader
		want error
	}{
		"a reader that fails": {io.MultiReader(strings.NewReader(`{"data":[{"id":"a"},`), iotest.ErrReader(broken)), broken},
		"a body that ends":    {strings.NewReader(`{"data":[{"id":"a"},`), rawjson.ErrSyntax},
		"an element too long": {strings.NewReader(`{"data":[{"id":"` + strings.Repeat("x", 10_000)), listed.ErrElement},
		"a field too long":    {strings.NewReader(`{"other":"` + strings.Repeat("x", 10_000)), listed.ErrElement},
	} {
		if got, err := listed.Read(c.r, 1000); !errors.Is(err, c.want) || got != nil {
			t.Errorf("Read of %s = %v, %v; want %v", what, got, err, c.want)
		}
	}
}

package verify

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/derive"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// withYdoc is a mirror of a Yjs document.
type withYdoc struct {
	damaged

	content []byte
}

func (w withYdoc) Stored(context.Context, mirror.Resource) (mirror.Stored, error) {
	doc, _ := derive.Ydoc(w.content, 1<<20)
	return mirror.Stored{
		Content: w.content, SHA256: sha256.Sum256(w.content), DeriveVersion: doc.DeriveVersion,
		Data: doc.Data, DataProblem: doc.DataProblem, Text: doc.Text,
	}, nil
}

// answering is a Liveblocks that has a Yjs document.
type answering struct {
	denying

	body []byte
}

func (a answering) Ydoc(context.Context, mirror.RoomID, string) (mirror.Fetched, error) {
	return mirror.Fetched{Body: a.body}, nil
}

// A document that is only encoded differently does not differ.
func TestYdocsAreComparedByState(t *testing.T) {
	t.Parallel()
	read := func(name string) []byte {
		t.Helper()
		text, err := os.ReadFile(filepath.Join("..", "..", "decode", "yjs", "testdata", "case-"+name+".hex"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := hex.DecodeString(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, c := range []struct {
		stored, fetched string
		same            bool
	}{
		{"equal-a", "equal-a", true},
		{"equal-a", "equal-b", true},
		{"equal-b", "equal-a", true},
		{"equal-a", "gap-filled", false},
		{"gap", "gap", true},
		{"gap", "gap-filled", false},
		{"equal-a", "gap", false}, // reads the same, but operations wait
	} {
		r := &run{
			options: mirror.VerifyOptions{Project: project},
			Verifier: New(Config{
				Store: withYdoc{content: read(c.stored)}, Fetcher: answering{body: read(c.fetched)}, Limiter: open{}, Now: time.Now,
				MaxData: 1 << 20,
			}),
		}
		check := &roomCheck{
			comparison: comparison{run: r, found: make(map[mirror.Resource]finding)},
			room:       mirror.Resource{Project: project, Room: "room", Kind: mirror.KindRoom},
		}
		_, err := check.compareYdoc(t.Context(), "")
		if err != nil || (len(check.found) == 0) != c.same {
			t.Errorf("compareYdoc of %s with %s = %v, %+v; want the same: %t", c.stored, c.fetched, err, check.found, c.same)
		}
	}
}

package reconcile_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// What Tiptap keeps in Storage can be searched as text, also in documents that
// were stored by a version that did not know of it.
func TestTiptapInStorage(t *testing.T) {
	t.Parallel()
	lson, err := os.ReadFile(filepath.Join("..", "..", "decode", "lson", "testdata",
		"storage-tiptap-storage-plainlson.json"))
	if err != nil {
		t.Fatal(err)
	}
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start()
		db := e.Connect(t, b.url)
		text := func() string {
			t.Helper()
			text, err := dbtest.Value[string](t.Context(), db,
				"select plain_text from mirror_document where room_id = 'r' and kind = 2")
			if err != nil {
				t.Fatal(err)
			}
			return text
		}
		b.created(r, "r", string(lson))
		const first = "Release notes\nPlain, bold and italic-strike\nsecond line\none\ntwo\nfunc main() " +
			"{\n\tprintln(\"<hi & bye>\")\n}"
		if got := text(); got != first {
			t.Fatalf("plain_text = %q; want the words of the document, %q", got, first)
		}

		// As an earlier version has stored it.
		r.stop()
		if _, err := b.store.Request(t.Context(), []mirror.Request{{Resource: storageOf("r")}}, time.Now()); err != nil {
			t.Fatalf("Request = %v", err)
		}
		lease, err := b.store.Claim(t.Context(), storageOf("r"), [16]byte{1}, time.Now(), time.Minute)
		if err != nil {
			t.Fatalf("Claim = %v", err)
		}
		doc := mirror.DocumentContent{FetchTime: time.Now(), Content: lson, DeriveVersion: 1, Data: []byte(`{}`)}
		if _, err := b.store.ApplyDocument(t.Context(), lease, doc, time.Now(), 0); err != nil {
			t.Fatalf("ApplyDocument = %v", err)
		}
		if got := text(); got != "" {
			t.Fatalf("plain_text = %q; want none of the earlier version's", got)
		}
		r = b.start()
		b.deliver(r, event(fake.StorageUpdated, "r"))
		b.quiet()
		if got := text(); got != first {
			t.Fatalf("plain_text = %q; want %q", got, first)
		}

		// Text is there also where the database does not take the JSON.
		b.edited(r, "r", strings.Replace(string(lson), `{"liveblocksType":"LiveObject","data":{`,
			`{"liveblocksType":"LiveObject","data":{"nul":"\u0000",`, 1))
		b.quiet()
		if got := text(); got != first {
			t.Fatalf("plain_text beside no data = %q; want %q", got, first)
		}
		if doc, _ := b.document("r"); doc.DataProblem == "" {
			t.Fatal("DataProblem = none; want it to say why there is no data")
		}
	})
}

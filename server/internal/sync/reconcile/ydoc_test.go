package reconcile_test

import (
	"encoding/hex"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/yjs"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

func ydocOf(room, guid string) mirror.Resource {
	return mirror.Resource{Project: project, Room: mirror.RoomID(room), Kind: mirror.KindYdoc, ID: guid}
}

// recorded is a document as Liveblocks has answered it.
func recorded(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "decode", "yjs", "testdata", "ydoc-"+name+"-binary.bin"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// recordedCase is a document that is kept in hexadecimal.
func recordedCase(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "decode", "yjs", "testdata", "case-"+name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// edit changes a Yjs document and tells the replica, in words that do not say
// which of the room's documents it was.
func (b *bench) edit(r *replica, id, guid, update string) {
	b.Helper()
	if err := b.upstream.SetYdoc(id, guid, []byte(update)); err != nil {
		b.Fatalf("SetYdoc = %v", err)
	}
	b.deliver(r, event(fake.YdocUpdated, id))
	b.quiet()
}

// wantYdoc checks that a Yjs document is mirrored byte for byte, and that what
// is derived of it for SQL is what the decoder says.
func (b *bench) wantYdoc(r mirror.Resource, update string) {
	b.Helper()
	doc, err := b.store.Document(b.Context(), r, false)
	if err != nil || string(doc.Content) != update || doc.DataProblem != "" || doc.Freshness.Stale {
		b.Fatalf("Yjs document %q of %q = %q, problem %q, %v; want %q; tasks: %s", r.ID, r.Room, doc.Content,
			doc.DataProblem, err, update, b.tasks())
	}
	decoded, err := yjs.Decode([]byte(update), yjs.Limits{})
	if err != nil {
		b.Fatalf("Decode = %v", err)
	}
	db := b.engine.Connect(b, b.url)
	text, err := dbtest.Value[string](b.Context(), db,
		"select plain_text from mirror_document where kind = 3 and resource_id = ? and data is not null", r.ID)
	if err != nil || text != decoded.Text() {
		b.Fatalf("plain_text = %q, %v; want %q, beside data", text, err, decoded.Text())
	}
}

func TestYjsDocuments(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start()
		b.created(r, "r", lson("1"))
		b.wantYdoc(ydocOf("r", ""), fake.EmptyYdoc) // a new room has one

		for _, name := range []string{"tiptap-real", "yjs-lexical", "yjs-blocknote", "big"} {
			b.edit(r, "r", "", recorded(t, name))
			b.wantYdoc(ydocOf("r", ""), recorded(t, name))
		}
		b.wantDocument("r", lson("1"))
	})
}

// A document inside another is mirrored under its guid, and changes with it: no
// event names it.
func TestYjsDocumentsInside(t *testing.T) {
	t.Parallel()
	const guid = "sub-guid-0001"
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start()
		b.created(r, "r", lson("1"))
		if err := b.upstream.SetYdoc("r", guid, []byte(recorded(t, "subdoc-guid"))); err != nil {
			t.Fatalf("SetYdoc = %v", err)
		}
		b.edit(r, "r", "", recorded(t, "yjs-subdoc"))
		b.wantYdoc(ydocOf("r", ""), recorded(t, "yjs-subdoc"))
		b.wantYdoc(ydocOf("r", guid), recorded(t, "subdoc-guid"))

		b.edit(r, "r", guid, recorded(t, "yjs-text"))
		b.wantYdoc(ydocOf("r", guid), recorded(t, "yjs-text"))

		// One that holds itself comes to rest.
		b.edit(r, "r", guid, recorded(t, "yjs-subdoc"))
		b.wantYdoc(ydocOf("r", guid), recorded(t, "yjs-subdoc"))
	})
}

// A burst of events requests the documents inside once, behind what people wait for:
// there can be a thousand of them.
func TestYjsDocumentsInsideAreFetchedOnceForABurst(t *testing.T) {
	t.Parallel()
	const guid = "sub-guid-0001"
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start()
		b.created(r, "r", lson("1"))
		b.edit(r, "r", "", recorded(t, "yjs-subdoc"))
		db := e.Connect(t, b.url)
		var calls, background atomic.Int64
		b.before(func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Query().Get("guid") == guid {
				calls.Add(1)
				n, _ := dbtest.Value[int64](req.Context(), db,
					"select count(*) from mirror_resource_state where resource_id = ? and background", guid)
				background.Add(n)
			}
			b.upstream.ServeHTTP(w, req)
		})
		burst := event(fake.YdocUpdated, "r")
		b.deliver(r, burst, burst, burst, burst, burst)
		b.quiet()
		if c, n := calls.Load(), background.Load(); c != 1 || n != 1 {
			t.Errorf("fetches of the document inside = %d, %d of them in the background; want one for the whole burst, there",
				c, n)
		}
	})
}

// What cannot be decoded is kept all the same, and says why there is no data.
func TestYjsDocumentThatCannotBeRead(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start()
		b.created(r, "r", lson("1"))
		broken := recorded(t, "tiptap-real")
		broken = broken[:len(broken)/2]
		b.edit(r, "r", "", broken)
		doc, err := b.store.Document(t.Context(), ydocOf("r", ""), false)
		if err != nil || string(doc.Content) != broken || !strings.Contains(doc.DataProblem, "decode yjs update") {
			t.Fatalf("document = %q, problem %q, %v; want its bytes and the reason", doc.Content, doc.DataProblem, err)
		}
		b.wantState(ydocOf("r", ""), mirror.TaskDone, "")
	})
}

// Liveblocks may encode the same operations differently from one fetch to the next,
// which changes nothing for those who follow the document.
func TestYjsDocumentEncodedDifferently(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start()
		b.created(r, "r", lson("1"))
		db := e.Connect(t, b.url)
		changes := func() int {
			t.Helper()
			n, err := dbtest.Value[int](t.Context(), db, "select count(*) from mirror_change where kind = 3")
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		b.edit(r, "r", "", recordedCase(t, "equal-a"))
		b.wantYdoc(ydocOf("r", ""), recordedCase(t, "equal-a"))
		before := changes()
		b.edit(r, "r", "", recordedCase(t, "equal-b"))
		b.wantYdoc(ydocOf("r", ""), recordedCase(t, "equal-a"))
		if n := changes(); n != before {
			t.Fatalf("changes of the document = %d; want %d still", n, before)
		}
	})
}

// A document from which operations are missing says so until they are there.
func TestYjsDocumentThatWaits(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start()
		b.created(r, "r", lson("1"))
		b.edit(r, "r", "", recordedCase(t, "gap"))
		doc, err := b.store.Document(t.Context(), ydocOf("r", ""), false)
		const want = "operations of client 1 from clock 6 wait for others that are missing"
		if err != nil || doc.DataProblem != want {
			t.Fatalf("DataProblem = %q, %v; want %q", doc.DataProblem, err, want)
		}
		data, err := dbtest.Value[string](t.Context(), e.Connect(t, b.url),
			"select "+e.JSON("data", "t")+" from mirror_document where kind = 3")
		if err != nil || !strings.Contains(data, "Hello") {
			t.Fatalf("data = %q, %v; want what there is", data, err)
		}
		b.edit(r, "r", "", recordedCase(t, "gap-filled"))
		b.wantYdoc(ydocOf("r", ""), recordedCase(t, "gap-filled"))
	})
}

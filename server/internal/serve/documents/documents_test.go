package documents

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/derive"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/memory"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/fresh"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// rows is a Store of the documents of one project, by room.
const readMemory = 64 << 20

type rows map[mirror.RoomID]mirror.Document

func (r rows) Document(_ context.Context, resource mirror.Resource, _ bool) (mirror.Document, error) {
	doc, ok := r[resource.Room]
	if !ok {
		return doc, store.ErrNotFound
	}
	return doc, nil
}

func (r rows) ReadDocuments(_ context.Context, reads []store.DocumentRead, inline int64) ([]*mirror.Document, error) {
	answers := make([]*mirror.Document, len(reads))
	for i, read := range reads {
		if doc, ok := r[read.Resource.Room]; ok {
			if doc.Size > inline || doc.SHA256 == read.Have {
				doc.Content = nil
			}
			answers[i] = &doc
		}
	}
	return answers, nil
}

func storage(content string) mirror.Document {
	return mirror.Document{
		Kind: mirror.KindStorage, Content: []byte(content), SHA256: sha256.Sum256([]byte(content)),
		Size: int64(len(content)),
	}
}

func request(room mirror.RoomID) Request {
	return Request{
		Resource: mirror.Resource{Project: "default", Room: room, Kind: mirror.KindStorage}, Format: derive.StorageJSON,
	}
}

// Documents too long to come along with their description are read when there
// is memory for them, and not at all for a reader who has them.
func TestLongDocumentsTakeTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		long := storage(`{"x":"` + strings.Repeat("x", inlineBytes) + `"}`)
		r := New(rows{"long": long, "short": storage(`{"x":1}`)}, &fresh.Reader{}, Memory{Long: readMemory})
		read := func(change func(*Request)) *Document {
			t.Helper()
			req := request("long")
			change(&req)
			doc, err := r.Read(t.Context(), req)
			if err != nil {
				t.Fatalf("Read = %v", err)
			}
			return doc
		}
		if !r.long.TryAcquire(readMemory) {
			t.Fatal("memory is in use while nobody reads")
		}
		soon, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Read(soon, request("long")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Read without memory for it = %v; want it to wait until the deadline", err)
		}
		if doc := read(func(req *Request) { req.Resource.Room = "short" }); string(doc.Body) != `{"x":1}` {
			t.Errorf("short document = %s", doc.Body)
		}
		head := read(func(req *Request) { req.HeadOnly = true })
		if head.Body != nil || head.Size != long.Size {
			t.Errorf("head = %d of %d bytes; want none", len(head.Body), head.Size)
		}
		if doc := read(func(req *Request) {
			req.IfNoneMatch = []string{`"other", W/` + head.ETag}
		}); !doc.NotModified || doc.Body != nil {
			t.Errorf("what the reader has = %d bytes, not modified: %v", len(doc.Body), doc.NotModified)
		}
		r.long.Release(readMemory)

		first := read(func(*Request) {})
		if len(first.Body) != len(long.Content) || r.long.TryAcquire(readMemory) {
			t.Errorf("document = %d bytes; want %d, and its memory taken", len(first.Body), len(long.Content))
		}
		first.Release()
		first.Release() // the second one does nothing
		if !r.long.TryAcquire(readMemory) {
			t.Fatal("memory is in use after the last reader is done")
		}
		if again := read(func(*Request) {}); len(again.Body) != len(long.Content) || again.ETag != first.ETag {
			t.Errorf("document from the cache = %d bytes, %s; want %s", len(again.Body), again.ETag, first.ETag)
		}
	})
}

// Decoding waits for memory, also that of a document that came along with its
// description: a Yjs document takes many times its size.
func TestDecodingTakesMemory(t *testing.T) {
	t.Parallel()
	for kind, format := range map[mirror.Kind]derive.Format{
		mirror.KindYdoc: derive.YdocText, mirror.KindStorage: derive.StorageJSON,
	} {
		synctest.Test(t, func(t *testing.T) {
			budget := memory.New(1 << 20)
			doc := storage(strings.Repeat("?", 100<<10)) // neither JSON nor an update
			doc.Kind = kind
			r := New(rows{"r": doc}, &fresh.Reader{}, Memory{readMemory, budget})
			req := request("r")
			req.Resource.Kind, req.Format = kind, format
			others, end := budget.Begin(t.Context())
			if err := memory.ForDecoding(others, 1<<20); err != nil {
				t.Fatal(err)
			}
			soon, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := r.Read(soon, req); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Read of a %s without memory to decode it = %v; want it to wait", kind, err)
			}
			end()
			if _, err := r.Read(t.Context(), req); !fault.Is(err, fault.ReasonDocumentUnreadable) || budget.Used() != 0 {
				t.Errorf("Read of a %s = %v, %d bytes in use; want it decoded, and all given back", kind, err, budget.Used())
			}
		})
	}
}

// changing is a store whose long document is written again between its description
// and its content.
type changing struct{ rows }

func (c changing) Document(ctx context.Context, resource mirror.Resource, deleted bool) (mirror.Document, error) {
	c.rows[resource.Room] = storage(`{"later":true}`)
	return c.rows.Document(ctx, resource, deleted)
}

// The entity tag is that of the content sent, also of one that came in between.
func TestTagFollowsTheContent(t *testing.T) {
	t.Parallel()
	long := rows{"r": storage(strings.Repeat(" ", inlineBytes) + "1")}
	r := New(changing{long}, &fresh.Reader{}, Memory{Long: readMemory})
	doc, err := r.Read(t.Context(), request("r"))
	if err != nil || string(doc.Body) != `{"later":true}` {
		t.Fatalf("Read = %v, %v", doc, err)
	}
	doc.Release()
	if again, err := r.Read(t.Context(), request("r")); err != nil || again.ETag != doc.ETag {
		t.Errorf("tags = %s and %s, %v; want that of the later content twice", doc.ETag, again.ETag, err)
	}
}

// A document that is damaged, or trips a decoder, is one of those that were read with it.
func TestReadManyOfDamaged(t *testing.T) {
	t.Parallel()
	damaged := storage(`{"x":2}`)
	damaged.Content, damaged.Damage = nil, errors.New("unpack document: damaged")
	r := New(rows{"whole": storage(`{"x":1}`), "damaged": damaged}, &fresh.Reader{}, Memory{Long: readMemory})
	got, err := r.ReadMany(t.Context(), []mirror.Resource{
		request("damaged").Resource, request("whole").Resource, request("none").Resource,
	}, 1<<20)
	if err != nil || got[0].Body != nil || got[0].Err == nil || got[0].Damage == nil || got[0].SHA256 != damaged.SHA256 ||
		string(got[1].Body) != `{"x":1}` || got[1].Err != nil || got[2] != nil {
		t.Errorf("ReadMany = %+v, %v; want the damaged one with its error, and the other", got, err)
	}
	if _, err := r.Read(t.Context(), request("damaged")); !errors.Is(err, damaged.Damage) ||
		fault.Of(err).Kind != fault.Internal {
		t.Errorf("Read = %v; want that it is damaged, as a defect", err)
	}
	f := &Found{Document: storage(`{}`)}
	r.deriveOne(t.Context(), f, Request{Format: derive.Format{Derive: func([]byte) ([]byte, error) { panic("odd") }}})
	if f.Err == nil || f.Damage == nil || f.Body != nil {
		t.Errorf("a decoder that panics = %+v; want its error", f)
	}
}

func TestReadFailures(t *testing.T) {
	t.Parallel()
	r := New(rows{"odd": storage(strings.Repeat("{", inlineBytes+1))}, &fresh.Reader{}, Memory{Long: readMemory})
	_, err := r.Read(t.Context(), request("none"))
	if !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Read of no document = %v; want %v", err, store.ErrNotFound)
	}
	if _, err = r.Read(t.Context(), request("odd")); !fault.Is(err, fault.ReasonDocumentUnreadable) {
		t.Errorf("Read of a broken document = %v; want DOCUMENT_UNREADABLE", err)
	}
	if !r.long.TryAcquire(readMemory) {
		t.Error("a failed read holds memory")
	}
}

// The tags are those of earlier versions unless the form has changed, so copies that
// readers hold stay good. Text and editor trees have changed once.
func TestTagsAreKept(t *testing.T) {
	t.Parallel()
	for want, f := range map[string]derive.Format{
		"lson": derive.StorageSource, "json-1": derive.StorageJSON, "text-1.2": derive.StorageText,
		"editor-1.2": derive.StorageEditor, "binary": derive.YdocSource,
	} {
		if f.Tag != want {
			t.Errorf("tag = %q; want %q", f.Tag, want)
		}
	}
	if doc := derive.Storage([]byte(`{}`), 100); doc.DeriveVersion != 3001 {
		t.Errorf("version of a Storage document = %d; want 3001", doc.DeriveVersion)
	}
}

func TestIfNoneMatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		lines []string
		want  bool
	}{
		{nil, false},
		{[]string{""}, false},
		{[]string{`"a"`}, true},
		{[]string{`W/"a"`}, true},
		{[]string{`*`}, true},
		{[]string{`"b","a"`}, true},
		{[]string{`"b"`, ` W/"c" ,	"a" `}, true},
		{[]string{`a`}, false},
		{[]string{`"A"`}, false},
		{[]string{`"b"`}, false},
	} {
		if got := Matches(c.lines, `"a"`); got != c.want {
			t.Errorf("Matches(%q) = %v; want %v", c.lines, got, c.want)
		}
	}
}

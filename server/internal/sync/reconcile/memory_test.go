package reconcile_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/memory"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// watching notes what is applied.
type watching struct {
	store.Store
	mu        sync.Mutex
	documents []mirror.DocumentContent
	memory    *memory.Budget
	most      int64 // of memory in use
}

func (w *watching) ApplyDocument(ctx context.Context, lease mirror.Lease, doc mirror.DocumentContent, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	w.mu.Lock()
	w.documents = append(w.documents, doc)
	if w.memory != nil {
		w.documents = nil // they are long
		w.most = max(w.most, w.memory.Used())
	}
	w.mu.Unlock()
	return w.Store.ApplyDocument(ctx, lease, doc, now, settle)
}

// applied returns what was applied since the last time.
func (w *watching) applied() []mirror.DocumentContent {
	w.mu.Lock()
	defer w.mu.Unlock()
	documents := w.documents
	w.documents = nil
	return documents
}

// As many documents as there are fetches, each of which takes more than all of the
// memory: they are applied one after the other, and none waits forever.
func TestDocumentsBeyondTheMemory(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		const fetches, size, available = 64, 5 << 18, 3 << 20
		b := newBench(t, e)
		document := lson(`"` + strings.Repeat("x", size) + `"`)
		for i := range fetches {
			b.create(fmt.Sprint("r", i), document)
			if i%2 == 0 {
				// Its length is not known before it ends.
				b.upstream.Script(fake.Match{Endpoint: fake.EndpointStorage, Room: fmt.Sprint("r", i)},
					fake.Usual().Chunked().Always())
			}
		}
		w := &watching{Store: b.store, memory: memory.New(available)}
		r := b.start(func(p *parts) {
			p.reconcile.Mirror, p.reconcile.Settle = w, 0
			p.queue.Memory, p.queue.Fetches, p.queue.Workers = w.memory, fetches, 2
		})
		for i := range fetches {
			b.deliver(r, event(fake.RoomCreated, fmt.Sprint("r", i)))
		}
		b.quiet()
		for i := range fetches {
			b.wantDocument(fmt.Sprint("r", i), document)
		}
		if used := w.memory.Used(); used != 0 {
			t.Errorf("%d bytes are held after everything was applied", used)
		}
		// What is read, or one that grows, and one that is decoded.
		if most := int64(available/2 + 3*size + 4*size); w.most == 0 || w.most > most {
			t.Errorf("%d bytes were held at once; want at most %d", w.most, most)
		}
	})
}

// A document that has not changed is not decoded, unless it may name others.
func TestUnchangedIsNotDecoded(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		w := &watching{Store: b.store}
		r := b.start(func(p *parts) { p.reconcile.Mirror, p.reconcile.Settle = w, 0 })
		b.created(r, "r", lson("1"))
		check := func(what string, unchanged bool) {
			t.Helper()
			docs := w.applied()
			if len(docs) == 0 || docs[0].Unchanged != unchanged || unchanged == (docs[0].Data != nil) {
				t.Fatalf("%s is applied as %+v; want it unchanged: %t", what, docs, unchanged)
			}
		}
		for name, decoded := range map[string]bool{"yjs-map": false, "yjs-subdoc": true} {
			w.applied()
			b.edit(r, "r", "", recorded(t, name))
			check(name+", changed,", false)
			w.applied()
			b.deliver(r, event(fake.YdocUpdated, "r"))
			b.quiet()
			check(name+", unchanged,", !decoded)
			b.wantYdoc(ydocOf("r", ""), recorded(t, name))
		}
		w.applied()
		b.deliver(r, event(fake.StorageUpdated, "r"))
		b.quiet()
		check("Storage, unchanged,", true)
		b.wantDocument("r", lson("1"))
	})
}

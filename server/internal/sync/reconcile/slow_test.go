package reconcile_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// slowMirror takes longer to apply a document than a lease lasts, and lets
// nobody renew one meanwhile: as a database does that is busy with a large row.
type slowMirror struct {
	store.Store
	takes time.Duration
}

func (s *slowMirror) ApplyDocument(ctx context.Context, lease mirror.Lease, doc mirror.DocumentContent, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	select {
	case <-time.After(s.takes):
		return s.Store.ApplyDocument(ctx, lease, doc, now, settle)
	case <-ctx.Done():
		return mirror.Applied{}, ctx.Err()
	}
}

func (s *slowMirror) Renew(ctx context.Context, _ mirror.Lease, _ time.Time) error {
	<-ctx.Done()
	return errors.New("still waiting for the row")
}

func TestSlowApplyOutlastsItsLease(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		const lease = 3 * time.Second // much more than the fetch takes
		b := newBench(t, e)
		b.create("r", lson("1"))
		r := b.start(func(p *parts) {
			slow := &slowMirror{b.store, 2 * lease}
			p.reconcile.Mirror, p.queue.Tasks, p.queue.LeaseTTL, p.reconcile.Settle = slow, slow, lease, 0
		})
		b.deliver(r, event("roomCreated", "r"))
		b.quiet()
		b.wantDocument("r", lson("1"))
		if n := b.calls("r"); n != 1 {
			t.Fatalf("fetches = %d; want 1", n)
		}
	})
}

package crash_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// Invariant 1: another session keeps the state of one document locked. Events on
// other rooms are acknowledged, the service stays ready, and the event on the
// document is refused in time for its sender to try again.
func TestLockedRow(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		s := newSite(t, e)
		service := s.start()
		s.populate(service)
		held := mirror.Resource{Project: "default", Room: "plan", Kind: mirror.KindStorage}
		edited := func(room string) harness.Delivery {
			return harness.SignEvent(t, fake.Event{Type: fake.StorageUpdated, RoomID: room, Time: time.Now()})
		}
		refused := make(chan int, 1)
		// others posts events on other rooms, one after the other, and returns how long those took that
		// were acknowledged before the event on the document was answered. A machine that does much
		// else may not get through all of them by then.
		others := func() (took []time.Duration) {
			for n := range 40 {
				begun := time.Now()
				if got := service.Post(t, edited(fmt.Sprintf("room-%02d", n%20))); got != http.StatusOK {
					t.Fatalf("event on another room = %d; want 200", got)
				}
				if len(refused) > 0 {
					break
				}
				took = append(took, time.Since(begun))
			}
			slices.Sort(took)
			return took
		}
		before := others()

		tx, err := s.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatalf("BeginTx = %v", err)
		}
		defer func() { _ = tx.Rollback() }()
		if _, err := tx.ExecContext(t.Context(), fmt.Sprintf("select generation from mirror_resource_state where "+
			"bucket = %d and project_id = 'default' and room_id = 'plan' and kind = 2 and resource_id = '' for update",
			held.Bucket())); err != nil {
			t.Fatalf("lock the state = %v", err)
		}
		d := edited("plan")
		const triedFor = 9 * time.Second // how long the service tries to record an event
		var waited time.Duration
		go func() {
			begun := time.Now()
			status, _, _ := d.Do(t.Context(), service.URL("/api/liveblocks-webhook"))
			waited = time.Since(begun)
			refused <- status
		}()
		meanwhile := others()
		if got, _, body := service.Get(t, "/readyz"); got != http.StatusOK {
			t.Fatalf("/readyz = %d, %s; want 200", got, body)
		}
		if got := <-refused; got != http.StatusServiceUnavailable || waited < triedFor {
			t.Fatalf("event on the locked document = %d after %v; want 503 after %v", got, waited, triedFor)
		}
		// If they waited for the row as well, it would be one at most.
		if n := len(meanwhile); n < 3 || meanwhile[n/2] > before[20]+500*time.Millisecond {
			t.Fatalf("events on other rooms were acknowledged in %v while it waited; want several, not much later than %v",
				meanwhile, before[20])
		}
		if got, _, body := service.Get(t, "/readyz"); got != http.StatusOK {
			t.Fatalf("/readyz afterwards = %d, %s; want 200", got, body)
		}
		if err := tx.Rollback(); err != nil {
			t.Fatalf("Rollback = %v", err)
		}
		if got := service.Post(t, d); got != http.StatusOK {
			t.Fatalf("event on the document that is free again = %d; want 200", got)
		}
		n := len(meanwhile)
		t.Logf("others are acknowledged in %v (median), %v at most; %d beside the locked row in %v, %v", before[20],
			before[39], n, meanwhile[n/2], meanwhile[n-1])
	})
}

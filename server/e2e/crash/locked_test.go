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
		// others posts events on other rooms, one after the other.
		others := func() (took []time.Duration) {
			for n := range 40 {
				begun := time.Now()
				if got := service.Post(t, edited(fmt.Sprintf("room-%02d", n%20))); got != http.StatusOK {
					t.Fatalf("event on another room = %d; want 200", got)
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
		refused := make(chan int, 1)
		go func() {
			status, _, _ := d.Do(t.Context(), service.URL("/api/liveblocks-webhook"))
			refused <- status
		}()
		meanwhile := others()
		if got, _, body := service.Get(t, "/readyz"); got != http.StatusOK {
			t.Fatalf("/readyz = %d, %s; want 200", got, body)
		}
		select {
		case got := <-refused:
			t.Fatalf("event on the locked document = %d before all others; want it to wait", got)
		default:
		}
		if got := <-refused; got != http.StatusServiceUnavailable {
			t.Fatalf("event on the locked document = %d; want 503", got)
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
		t.Logf("others are acknowledged in %v (median), %v at most; beside the locked row in %v, %v", before[20], before[39],
			meanwhile[20], meanwhile[39])
	})
}

package engine_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
)

// tableWaits counts the sessions that wait for a table.
var tableWaits = map[*dbtest.Engine]string{
	dbtest.Postgres: "select count(*) from pg_stat_activity where datname = current_database() " +
		"and wait_event_type = 'Lock'",
	dbtest.MySQL: "select count(*) from {processlist} p where db = database() and state like 'Waiting for table%'",
}

// However many reads wait, workers, renewals and deliveries have connections.
func TestReadsKeepNobodyWaiting(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		const conns = 8
		r := raceOn(t, e, e.Database(t))
		r.mirrorRoom(t)
		s := open(t, engine.Config{URL: r.url, MaxConns: conns})
		unlock := r.db.LockTable(t, "mirror_notification", "access exclusive")
		var reads sync.WaitGroup
		for range 2 * conns {
			reads.Go(func() {
				if _, err := s.Notifications(t.Context(), store.NotificationFilter{Project: "default", Limit: 10}); err != nil {
					t.Errorf("Notifications = %v", err)
				}
			})
		}
		waits := r.db.OfServer(t, tableWaits[e])
		eventually(t, "reads that wait", func() bool {
			return value[int](t, r.db, waits) >= store.ShareConns(conns).Read // each in all shards
		})
		wantAll(t, s, r.lease)
		unlock()
		reads.Wait()
	})
}

// While all workers wait for a locked row, leases are renewed, deliveries recorded,
// and callers served.
func TestWorkersKeepNobodyWaiting(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		const conns = 8
		r := raceOn(t, e, e.Database(t))
		s := open(t, engine.Config{URL: r.url, MaxConns: conns})
		lease := r.lease
		held := mirror.Resource{Project: "default", Room: "held", Kind: mirror.KindStorage}
		if _, err := s.Request(t.Context(), requestsFor(held), r.now); err != nil {
			t.Fatalf("Request = %v", err)
		}
		tx := r.begin(t, fmt.Sprintf("select generation from mirror_resource_state where bucket = %d "+
			"and project_id = 'default' and room_id = 'held' and kind = 2 and resource_id = '' for update", held.Bucket()))
		var calls sync.WaitGroup
		for range 2 * conns {
			calls.Go(func() {
				if _, err := s.Request(t.Context(), requestsFor(held), r.now); err != nil {
					t.Errorf("Request = %v", err)
				}
			})
		}
		r.waiting(t, store.ShareConns(conns).Work)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Renew(ctx, lease, r.now.Add(time.Hour)); err != nil {
			t.Errorf("Renew = %v", err)
		}
		if _, err := s.Task(ctx, lease.Resource, r.now); err != nil {
			t.Errorf("Task = %v", err)
		}
		wantAccepted(ctx, t, s)
		commit(t, tx)
		calls.Wait()
	})
}

// wantAll checks that workers, renewals and deliveries get through.
func wantAll(t *testing.T, s store.Store, lease mirror.Lease) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Renew(ctx, lease, testTime.Add(time.Hour)); err != nil {
		t.Errorf("Renew = %v", err)
	}
	if _, err := s.Fail(ctx, lease, store.Failure{Now: testTime, NotBefore: testTime}); err != nil {
		t.Errorf("Fail = %v", err)
	}
	wantAccepted(ctx, t, s)
}

// wantAccepted checks that deliveries get through, with what they read before.
func wantAccepted(ctx context.Context, t *testing.T, s store.Store) {
	t.Helper()
	if _, err := s.Project(ctx, "default"); err != nil {
		t.Errorf("Project = %v", err)
	}
	room := mirror.Resource{Project: "default", Room: "another", Kind: mirror.KindRoom}
	for range 2 { // once new, once a duplicate
		if got, err := s.Accept(ctx, []mirror.Delivery{deliveryOf("msg", room)}); err != nil || len(got[0].Pending) != 1 {
			t.Errorf("Accept = %+v, %v; want it recorded", got, err)
		}
	}
}

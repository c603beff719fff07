package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres"
)

func arrivalOf(id string, r mirror.Resource, now time.Time) []mirror.Delivery {
	return []mirror.Delivery{{
		Event: mirror.Event{Project: r.Project, ID: id, ReceiveTime: now, SendTime: now,
			Outcome: mirror.OutcomeQueued},
		Invalidations: []mirror.Invalidation{{Resource: r}},
	}}
}

// While all other connections wait for locks, events are recorded all the same.
func TestAcceptWaitsForNobody(t *testing.T) {
	t.Parallel()
	r := newRace(t, "-c deadlock_timeout=1s")
	const conns = 4
	s := open(t, postgres.Config{URL: r.url, MaxConns: conns})
	tx, err := r.conn.Begin(t.Context())
	if err != nil {
		t.Fatalf("Begin = %v", err)
	}
	if _, err := tx.Exec(t.Context(), lockState, "room", mirror.KindStorage); err != nil {
		t.Fatalf("lock the storage = %v", err)
	}
	var calls sync.WaitGroup
	for range conns { // more than there are connections for them
		calls.Go(func() {
			if _, err := s.Request(t.Context(), []mirror.Request{{Resource: r.lease.Resource}}, r.now); err != nil {
				t.Errorf("Request = %v", err)
			}
		})
	}
	r.waiting(t, conns-2)
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Ping(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Ping = %v; want it to find no connection, or the test shows nothing", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for i := range 3 {
		other := mirror.Resource{Project: "default", Room: mirror.RoomID(fmt.Sprint("other", i)), Kind: mirror.KindStorage}
		for range 2 { // once new, once a duplicate
			got, err := s.Accept(ctx, arrivalOf(fmt.Sprint("msg", i), other, r.now))
			if err != nil || len(got[0].Pending) != 1 {
				_ = tx.Rollback(t.Context()) // lets the others end
				t.Fatalf("Accept = %+v, %v; want it recorded", got, err)
			}
		}
	}
	if _, err := s.PinProject(ctx, "default", "605a50b0"); err != nil {
		t.Fatalf("PinProject = %v", err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatalf("Rollback = %v", err)
	}
	calls.Wait()
}

// The connections for recording are among those that are allowed.
func TestMaxConns(t *testing.T) {
	t.Parallel()
	for _, conns := range []int{1, 2, 3, 5} {
		t.Run(fmt.Sprint(conns), func(t *testing.T) {
			t.Parallel()
			url, now := migratedDatabase(t), time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
			s, watch := open(t, postgres.Config{URL: url, MaxConns: conns}), connect(t, url)
			var calls sync.WaitGroup
			for i := range 8 {
				room := mirror.Resource{Project: "default", Room: mirror.RoomID(fmt.Sprint("room", i)), Kind: mirror.KindRoom}
				calls.Go(func() {
					for n := range 5 {
						if _, err := s.Accept(t.Context(), arrivalOf(fmt.Sprint("msg", i, "-", n), room, now)); err != nil {
							t.Errorf("Accept = %v", err)
						}
						if _, err := s.Request(t.Context(), []mirror.Request{{Resource: room}}, now); err != nil {
							t.Errorf("Request = %v", err)
						}
					}
				})
			}
			calls.Wait()
			open := value[int](t, watch,
				"select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()")
			if open < 1 || open > conns {
				t.Fatalf("connections = %d; want at most %d", open, conns)
			}
		})
	}
}

package postgres_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres"
)

func arrivalOf(id string, r mirror.Resource, now time.Time) []mirror.Delivery {
	return []mirror.Delivery{{
		Event: mirror.Event{
			Project: r.Project, ID: id, ReceiveTime: now, SendTime: now,
			Outcome: mirror.OutcomeQueued,
		},
		Invalidations: []mirror.Invalidation{{Resource: r}},
	}}
}

// The connections for recording are among those that are allowed.
func TestMaxConns(t *testing.T) {
	t.Parallel()
	for _, conns := range []int{1, 2, 3, 5} {
		t.Run(fmt.Sprint(conns), func(t *testing.T) {
			t.Parallel()
			url, now := dbtest.Postgres.Database(t), time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
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
				"select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() "+
					"and backend_type = 'client backend'")
			if open < 1 || open > conns {
				t.Fatalf("connections = %d; want at most %d", open, conns)
			}
		})
	}
}

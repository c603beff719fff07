package engine_test

import (
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
)

// A session that was refused a write is not used again, and neither are those that
// were opened before: they lead to the same server, and a new one may not.
func TestReadOnlySessionsAreThrownAway(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		g := e.Guarded(t)
		s := open(t, engine.Config{URL: g.URL, MaxConns: 6})
		room := mirror.Resource{Project: "default", Room: "room", Kind: mirror.KindRoom}
		writes := map[string]func(id string) error{
			"Accept": func(id string) error {
				_, err := s.Accept(t.Context(), []mirror.Delivery{deliveryOf(id, room)})
				return err
			},
			"Request": func(string) error {
				_, err := s.Request(t.Context(), requestsFor(room), testTime)
				return err
			},
			"Ping": func(string) error { return s.Ping(t.Context()) },
		}
		for what, write := range writes {
			if err := write("before " + what); err != nil {
				t.Fatalf("%s = %v", what, err)
			}
			g.Refuse(true)
			var stale []int64
			eventually(t, "several sessions", func() bool {
				var wg sync.WaitGroup
				for range 4 {
					wg.Go(func() { _, _ = s.Rooms(t.Context(), store.RoomFilter{Project: "default", Limit: 1}) })
				}
				wg.Wait()
				stale = g.Sessions()
				return len(stale) > 1
			})
			// The first may still meet a session that was terminated.
			wantOutage(t, what+" on a server that takes no writes", write(what+" once"))
			err := write(what + " twice")
			wantOutage(t, what+" on a server that takes no writes", err)
			if !errors.Is(err, store.ErrReadOnly) || !strings.Contains(err.Error(), "takes no writes") {
				t.Fatalf("%s on a server that takes no writes = %v; want %v", what, err, store.ErrReadOnly)
			}
			g.Refuse(false)
			if err := write("after " + what); err != nil {
				t.Fatalf("%s once writes are taken again = %v", what, err)
			}
			// Those that lie idle end when somebody would use them.
			eventually(t, "the end of the sessions that were open", func() bool {
				for what, write := range writes {
					if err := write(rand.Text()); err != nil {
						t.Fatalf("%s once writes are taken again = %v", what, err)
					}
				}
				if _, err := s.Rooms(t.Context(), store.RoomFilter{Project: "default", Limit: 1}); err != nil {
					t.Fatalf("Rooms once writes are taken again = %v", err)
				}
				return !slices.ContainsFunc(g.Sessions(), func(id int64) bool { return slices.Contains(stale, id) })
			})
		}
	})
}

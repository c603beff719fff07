package crash_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/client/follow"
	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// A replica loses all its connections to the database, for a moment or for as long as
// another one commits. Who watches it sees all of the other's changes once the database can
// be reached, on the same stream.
func TestWatcherOfAReplicaWithoutDatabase(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		direct := e.Database(t)
		s := newSiteAt(t, e, direct)
		watched := s.start("MIRROR_FEED_POLL=1s")
		s.aim(harness.Start(t, harness.Options{
			DatabaseURL: direct, UpstreamURL: s.upstream.URL, Env: s.env,
		}))
		name := e.Name
		if s.proxy.pooled {
			name += " behind PgBouncer"
		}

		var mu sync.Mutex
		seen := make(map[string]time.Time)
		var once sync.Once
		ctx, cancel := context.WithCancel(t.Context())
		began, ended := make(chan struct{}), make(chan error, 1)
		client := mirrorv1.NewChangeServiceClient(watched.Dial(t))
		var again []error // one for each time that the stream broke
		config := follow.Config{Store: &follow.Memory{}, Failed: func(err error) {
			mu.Lock()
			defer mu.Unlock()
			again = append(again, err)
		}}
		go func() {
			ended <- follow.Run(ctx, client, config,
				func(_ context.Context, response *mirrorv1.WatchChangesResponse) error {
					mu.Lock()
					defer mu.Unlock()
					for _, c := range response.GetChanges().GetChanges() {
						if _, ok := seen[c.GetRoomId()]; !ok {
							seen[c.GetRoomId()] = time.Now()
						}
					}
					once.Do(func() { close(began) })
					return nil
				})
		}()
		select {
		case <-began:
		case err := <-ended:
			t.Fatalf("Run = %v before the first response", err)
		}
		change := func(room string) {
			t.Helper()
			if err := s.upstream.CreateRoom(room, fake.RoomOptions{}); err != nil {
				t.Fatalf("CreateRoom = %v", err)
			}
		}
		awaitSeen := func(room string) (at time.Time) {
			t.Helper()
			eventually(t, func() error {
				mu.Lock()
				defer mu.Unlock()
				var ok bool
				if at, ok = seen[room]; !ok {
					return fmt.Errorf("no change of %q was seen, only of %d rooms", room, len(seen))
				}
				return nil
			})
			return at
		}
		change("before")
		awaitSeen("before")
		for n := range 6 {
			room := fmt.Sprint("room ", n)
			from := time.Now()
			s.proxy.shut()
			if n%2 == 0 {
				s.proxy.open()
				change(room)
				t.Logf("%s: connections cut: the next change was seen %s after the cut", name, awaitSeen(room).Sub(from))
				continue
			}
			change(room)
			eventually(t, func() error {
				committed, err := queryOne[int](s, "select count(*) from mirror_change where room_id = ?", room)
				if err == nil && committed == 0 {
					err = fmt.Errorf("nothing of %q is committed", room)
				}
				return err
			})
			s.proxy.open()
			back := time.Now()
			t.Logf("%s: no database for %s: the next change was seen %s after it was back", name, back.Sub(from),
				awaitSeen(room).Sub(back))
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v; want the end of its context", err)
		}
		if len(again) > 0 {
			t.Errorf("the stream broke: %v", again)
		}
	})
}

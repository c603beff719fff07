package blackbox_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

const (
	// limitedRooms is how many rooms TestLiveblocksLimitsCalls changes, unless TEST_ROOMS
	// says otherwise.
	limitedRooms = 300
	// limitedCalls is how many calls a second Liveblocks then takes.
	limitedCalls = 100
	// limitedAttempts is how often that is tried on a machine that is busy.
	limitedAttempts = 3
)

// Liveblocks takes fewer calls than the service may make. Every delivery is
// acknowledged, few calls are refused, and every room becomes fresh. With TEST_ROOMS set,
// it may take half as long again as the limit requires: that needs a machine that is
// not busy, and enough rooms for the rate to matter that the service begins with.
func TestLiveblocksLimitsCalls(t *testing.T) {
	t.Parallel()
	needServers(t)
	rooms, timed := limitedRooms, false
	if text := os.Getenv("TEST_ROOMS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("TEST_ROOMS = %q; want a number", text)
		}
		rooms, timed = n, true
	}
	url := database(t)
	s, upstream := startOn(t, url, nil)
	id := func(n int) string { return fmt.Sprintf("room-%04d", n) }
	all := func(s *harness.Service, kind string, version int) {
		change := func(ctx context.Context, n int) {
			document := fmt.Appendf(nil, `{"liveblocksType":"LiveObject","data":{"version":%d}}`, version)
			var err error
			if kind == fake.RoomCreated {
				err = upstream.CreateRoom(id(n), fake.RoomOptions{Storage: document})
			} else {
				err = upstream.SetStorage(id(n), document)
			}
			if err != nil {
				t.Errorf("change room %d = %v", n, err)
				return
			}
			d := harness.SignEvent(t, fake.Event{Type: kind, RoomID: id(n), Time: time.Now()})
			if status, _, err := d.Do(ctx, s.URL("/api/liveblocks-webhook")); status != http.StatusOK {
				t.Errorf("delivery for room %d = %d, %v; want 200", n, status, err)
			}
		}
		var next atomic.Int64
		var senders sync.WaitGroup
		for range 8 {
			senders.Go(func() {
				for n := int(next.Add(1)) - 1; n < rooms; n = int(next.Add(1)) - 1 {
					change(t.Context(), n)
				}
			})
		}
		senders.Wait()
	}
	db := dbtest.Postgres.Connect(t, url)
	await := func(version int) {
		harness.Eventually(t, patience+time.Duration(rooms)*time.Second/limitedCalls*3, func() error {
			if n := count(t, db, `select count(*) from mirror_document where kind = 2 and (data->>'version')::int = $1`,
				version); n < rooms {
				return fmt.Errorf("%d of %d rooms are fresh", n, rooms)
			}
			return nil
		})
	}
	all(s, fake.RoomCreated, 1)
	await(1)
	for attempt := 1; ; attempt++ {
		awaitIdle(t, s)
		if _, err := s.Stop(t); err != nil {
			t.Fatalf("the service ended with %v", err)
		}
		env := map[string]string{
			// The defaults.
			"MIRROR_MIGRATE": "", "MIRROR_LIVEBLOCKS_CALLS_PER_SECOND": "", "MIRROR_SETTLE": "", "MIRROR_BACKOFF_MIN": "",
			"MIRROR_BACKOFF_MAX": "", "MIRROR_LIVEBLOCKS_HEDGE_SHARE": "", "MIRROR_LIVEBLOCKS_IDLE_TIMEOUT": "",
			"MIRROR_BUSY_POLL": "", "MIRROR_LEASE_TTL": "",
		}
		if attempt == limitedAttempts {
			// So few calls are taken at one moment, and still are 160 a second: a rate that is far
			// too high is refused.
			env["MIRROR_FETCHES"], env["MIRROR_LIVEBLOCKS_HEDGE_SHARE"] = "8", "0"
		}
		s = harness.Start(t, harness.Options{DatabaseURL: url, UpstreamURL: upstream.URL, Env: env})
		upstream.SetDelay(func(fake.Call) fake.Delay { return fake.Delay{After: 50 * time.Millisecond} })
		upstream.SetRateLimit(limitedCalls, limitedCalls/10+1)
		before := upstream.Calls("", "")
		stoodStill := standstill(t)
		begin := time.Now()
		all(s, fake.StorageUpdated, 1+attempt)
		await(1 + attempt)
		took, least := time.Since(begin), time.Duration(rooms)*time.Second/limitedCalls
		longest := stoodStill()
		calls, refused := upstream.Calls("", "")-before, 0
		for _, c := range upstream.Log() {
			if c.Status == http.StatusTooManyRequests && c.Begin.After(begin) {
				refused++
			}
		}
		t.Logf("%d rooms: fresh after %s, at least %s; %d calls, %d refused (%.2f %%)", rooms, took.Round(time.Millisecond),
			least, calls, refused, 100*float64(refused)/float64(calls))
		if calls < rooms {
			t.Errorf("%d calls for %d rooms", calls, rooms)
		}
		if refused*50 >= calls {
			// What comes while this process stands still is counted at one moment afterwards, which
			// says nothing about when it was sent.
			if !timed && attempt < limitedAttempts && longest > time.Second/10 {
				t.Logf("done again: this process stood still for %s", longest)
				continue
			}
			t.Errorf("%d of %d calls were refused; want less than 2 %%", refused, calls)
		}
		if timed && took > least*3/2 {
			t.Errorf("every room was fresh after %s; want at most 1.5 times %s", took, least)
		}
		return
	}
}

// standstill measures for how long this process stands still at most, until longest is
// called.
func standstill(t *testing.T) (longest func() time.Duration) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	most := make(chan time.Duration, 1)
	go func() {
		var d time.Duration
		for ctx.Err() == nil {
			from := time.Now()
			_ = clock.Sleep(ctx, 5*time.Millisecond) // the end cuts it short
			d = max(d, time.Since(from))
		}
		most <- d
	}()
	return func() time.Duration { stop(); return <-most }
}

package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// inMemory carries calls to a handler without a network, so that they can be made under
// the clock of a bubble. With down set, nobody answers.
type inMemory struct {
	h    http.Handler
	down atomic.Pointer[func(*http.Request) error]
}

func (t *inMemory) RoundTrip(r *http.Request) (*http.Response, error) {
	if down := t.down.Load(); down != nil {
		return nil, (*down)(r)
	}
	w := httptest.NewRecorder()
	t.h.ServeHTTP(w, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

// Liveblocks is away for an hour, during which all rooms change. Nothing fails for
// good, however often it is tried, as the task of one among few rooms is. Within a minute of
// the end everything is fresh: all tasks wait for one call, those that failed do not wait for
// times that have grown meanwhile, and the rate is soon what it was. That holds also if
// Liveblocks has just told calls to wait for half of the minute, which is heeded.
func TestOutageOfAnHour(t *testing.T) {
	t.Parallel()
	const perSecond = 50
	for name, outage := range map[string]struct {
		step fake.Step
		down func(*http.Request) error
		told time.Duration // how long Liveblocks wants calls to wait
	}{
		"refused":                     {down: func(*http.Request) error { return errors.New("connection refused") }},
		"silent":                      {down: func(r *http.Request) error { <-r.Context().Done(); return r.Context().Err() }},
		"502":                         {step: fake.Status(http.StatusBadGateway, "BAD_GATEWAY")},
		"503":                         {step: fake.StatusRetry(http.StatusServiceUnavailable, "30"), told: 30 * time.Second},
		"429":                         {step: fake.TooMany("")},
		"429, told when to come back": {step: fake.TooMany("30"), told: 30 * time.Second},
	} {
		for _, rooms := range []int{1000, 3} {
			t.Run(fmt.Sprintf("%s, %d rooms", name, rooms), func(t *testing.T) {
				t.Parallel()
				bubble(t, func(b *bench) {
					upstream := fake.New("sk_test_outage")
					way := &inMemory{h: upstream}
					client := b.client(way, perSecond)
					b.Cleanup(client.Close)
					for i := range rooms {
						if err := upstream.CreateRoom(string(resource(i).Room), fake.RoomOptions{}); err != nil {
							b.Fatal(err)
						}
					}
					fetch := func(ctx context.Context, lease mirror.Lease) (Apply, error) {
						_, err := client.Storage(mirror.WithAttempts(ctx, lease.Attempts), lease.Resource.Room)
						return b.tasks.apply, err
					}
					pool := New(b.config(func(c *Config) {
						c.Limiter, c.Fetches, c.LeaseTTL = client, 64, 6*time.Second
					}))
					b.run(pool, map[mirror.Kind]Handler{mirror.KindStorage: fetch})
					b.due(pool, resources(rooms)...)
					pass(time.Minute)
					b.wantDone(resources(rooms)...)

					upstream.Script(fake.Match{}, outage.step.Always())
					if outage.down != nil {
						way.down.Store(&outage.down)
					}
					for i := range rooms {
						b.due(pool, resource(i))
						pass(time.Hour / time.Duration(rooms))
					}
					const step = 100 * time.Millisecond
					for time.Until(client.Status().ThrottledUntil) < outage.told-step {
						pass(step) // to the worst moment for the end
					}
					upstream.ClearScripts()
					way.down.Store(nil)
					end, calls, heeded := time.Now(), upstream.Calls("", ""), client.Status().ThrottledUntil
					pass(max(0, time.Until(heeded)-step))
					if made := upstream.Calls("", "") - calls; made > 0 && outage.told > 0 {
						b.Errorf("%d calls were made before the time that Liveblocks has told", made)
					}
					pass(time.Until(end.Add(time.Minute)))
					b.wantDone(resources(rooms)...)
					last := b.tasks.lastApplied()
					b.Logf("fresh after %v, with %d calls", last.Sub(end), upstream.Calls("", "")-calls)
					if text := b.log.String(); strings.Contains(text, "for good") {
						b.Errorf("a task failed for good: %.2000s", text)
					}
				})
			})
		}
	}
}

// client returns a client of Liveblocks with the settings that the service has by
// default.
func (b *bench) client(way http.RoundTripper, perSecond float64) *liveblocks.Client {
	b.Helper()
	key, err := liveblocks.ParseKey("sk_test_outage")
	if err != nil {
		b.Fatal(err)
	}
	url, err := liveblocks.ParseBaseURL("http://fake")
	if err != nil {
		b.Fatal(err)
	}
	return liveblocks.New(liveblocks.Config{
		BaseURL: url, SecretKey: key, IdleTimeout: 5 * time.Second, Timeout: 30 * time.Second, HedgeShare: 0.05,
		MaxBody: 64 << 20, RatePerSecond: perSecond, ProbeMin: 5 * time.Second, ProbeMax: 5 * time.Minute,
		UserAgent: "liveblocks-mirror", Now: time.Now, Logger: slog.New(slog.NewTextHandler(b.log, nil)),
		OnPause: func(reason string) { b.Errorf("paused: %s", reason) }, Transport: way,
	})
}

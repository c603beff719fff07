package liveblocks

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// impatient is what the service's defaults are.
func impatient(cfg *Config) {
	cfg.RatePerSecond, cfg.IdleTimeout, cfg.HedgeShare = MaxRatePerSecond, 5*time.Second, 0.05
}

// hang lets a share of the calls, chosen by chance, never be answered, and the others
// take some time. It returns a function that counts those that hung.
func hang(upstream *fake.Server, share float64, latency time.Duration) func() int {
	var mu sync.Mutex
	random, hung := rand.New(rand.NewPCG(1, 2)), 0
	upstream.SetDelay(func(fake.Call) fake.Delay {
		mu.Lock()
		defer mu.Unlock()
		if random.Float64() < share {
			hung++
			return fake.Delay{Before: 24 * time.Hour}
		}
		return fake.Delay{Before: latency * time.Duration(90+random.IntN(20)) / 100}
	})
	return func() int { mu.Lock(); defer mu.Unlock(); return hung }
}

// load makes calls with a number of workers and returns how long each took.
func load(t *testing.T, c *Client, workers, calls int) (took []time.Duration, failed int) {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range calls / workers {
				begin := time.Now()
				_, err := c.Storage(t.Context(), "r")
				mu.Lock()
				took = append(took, time.Since(begin))
				if err != nil {
					failed++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.Sort(took)
	return took, failed
}

// A share of calls that hang costs those calls a little, and the others nothing.
func TestHangingCallsHardlyShow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		upstream, c := newBubble(t, impatient)
		_ = hang(upstream, 0, 50*time.Millisecond)
		load(t, c, 10, 500) // the route's times are known then
		before := upstream.Calls("", "")
		hung := hang(upstream, 0.05, 50*time.Millisecond)
		took, failed := load(t, c, 64, 6400)
		made := upstream.Calls("", "") - before
		p50, p99 := took[len(took)/2], took[len(took)*99/100]
		t.Logf("p50 %v, p99 %v, longest %v; %d calls, of which %d hung; %d failed", p50, p99, took[len(took)-1], made,
			hung(), failed)
		if p50 > 60*time.Millisecond || p99 > 200*time.Millisecond {
			t.Errorf("p50 %v, p99 %v of calls of 50ms; want the second attempt to hide what hangs", p50, p99)
		}
		// Only calls of which all three attempts hang can fail: 1 in 8,000.
		if failed > 6 {
			t.Errorf("%d of 6400 calls failed", failed)
		}
		if extra := made - 6400 - hung(); extra > 6400/20 {
			t.Errorf("%d calls beside those needed; want at most 5%%", extra)
		}
		if rate := c.Status().RatePerSecond; rate < startRate {
			t.Errorf("rate = %v; want single timeouts not to shrink it", rate)
		}
		c.Close()
	})
}

// A call that was late while no further attempt was allowed gets one once it is: else it
// would keep its room waiting until it is cut off.
func TestLateCallsAskAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		upstream, c := newBubble(t, impatient) // which allows nothing yet
		upstream.Script(fake.Match{Room: "r"}, fake.Slow(24*time.Hour))
		var others sync.WaitGroup
		others.Go(func() {
			time.Sleep(firstDelay + minDelay) //nolint:forbidigo // the bubble's clock
			load(t, c, 1, 40)
		})
		var err error
		if took := elapsed(func() { _, err = c.Storage(t.Context(), "r") }); err != nil || took > 2*firstDelay {
			t.Errorf("Storage = %v after %v; want a second attempt after %v", err, took, 2*firstDelay)
		}
		others.Wait()
		c.Close()
	})
}

// A ping that hangs does not stop all calls, also if no further attempts are allowed.
func TestPingIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		upstream, c := newBubble(t, impatient)
		upstream.Script(fake.Match{Room: "hangs"}, fake.Slow(24*time.Hour).Always())
		upstream.Script(fake.Match{Endpoint: fake.EndpointListRooms}, fake.Slow(24*time.Hour))
		_, err := c.Storage(t.Context(), "hangs")
		wantFault(t, err, fault.Unavailable, fault.ReasonUpstreamUnavailable)
		if s := c.Status(); s.RatePerSecond != startRate || !s.ThrottledUntil.IsZero() {
			t.Errorf("Status = %+v; want calls to go on", s)
		}
		c.Close()
	})
}

// Second attempts are bounded: if everything becomes slow, they do not add to it.
func TestSecondAttemptsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		upstream, c := newBubble(t, impatient)
		_ = hang(upstream, 0, 50*time.Millisecond)
		load(t, c, 10, 500)
		before := upstream.Calls("", "")
		_ = hang(upstream, 0, time.Second)
		if _, failed := load(t, c, 64, 1280); failed > 0 {
			t.Errorf("%d calls failed", failed)
		}
		if extra := upstream.Calls("", "") - before - 1280; extra > 1280/20+hedgeCredit {
			t.Errorf("%d second attempts for 1280 slow calls; want at most 5%%", extra)
		}
		// What Liveblocks allows once in ten seconds is not asked twice, and neither is
		// anything if second attempts are disabled.
		upstream.Script(fake.Match{}, fake.Slow(3*time.Second).Times(2))
		if _, err := c.ActiveUsers(t.Context(), "r"); err != nil || upstream.Calls("r", fake.EndpointActiveUsers) != 1 {
			t.Errorf("ActiveUsers = %v after %d calls; want one", err, upstream.Calls("r", fake.EndpointActiveUsers))
		}
		c.Close()
		upstream, c = newBubble(t, impatient, func(cfg *Config) { cfg.HedgeShare = 0 })
		_ = hang(upstream, 0, 4*time.Second)
		if load(t, c, 1, 30); upstream.Calls("", "") != 30 {
			t.Errorf("%d calls with second attempts disabled; want 30", upstream.Calls("", ""))
		}
	})
}

// The answer that counts is that of the attempt whose time is told: what the first one
// would have returned may be older than what happened meanwhile.
func TestFetchTimeIsThatOfTheAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		upstream, c := newBubble(t, impatient)
		load(t, c, 1, 40)
		upstream.Script(fake.Match{}, fake.Slow(time.Hour))
		begin := time.Now()
		got, err := c.Storage(t.Context(), "r")
		if err != nil || got.FetchTime.Sub(begin) < minDelay || got.FetchTime.Sub(begin) > 2*minDelay {
			t.Errorf("Storage = fetched %v after the call began, %v; want %v at least", got.FetchTime.Sub(begin), err, minDelay)
		}
		c.Close()
	})
}

// A call that hangs is cut off soon, one that has failed before later, and neither says
// anything about the others.
func TestIdleTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		upstream, c := newBubble(t, impatient)
		upstream.Script(fake.Match{Room: "r"}, fake.Slow(24*time.Hour).Always())
		for attempts, want := range map[int]time.Duration{
			0: 5 * time.Second, 1: 10 * time.Second, 2: 20 * time.Second, 3: 30 * time.Second, 99: 30 * time.Second,
		} {
			took := elapsed(func() {
				_, err := c.Storage(mirror.WithAttempts(t.Context(), attempts), "r")
				wantFault(t, err, fault.Unavailable, fault.ReasonUpstreamUnavailable)
			})
			if took != want {
				t.Errorf("after %d attempts it took %v; want %v", attempts, took, want)
			}
		}
		if s := c.Status(); s.RatePerSecond != startRate || !s.ThrottledUntil.IsZero() {
			t.Errorf("Status = %+v; want the rate as it was", s)
		}
		c.Close()
	})
}

// drip is a transport whose body arrives in pieces.
type drip struct {
	pieces, size int
	gap          time.Duration
	announced    bool
}

func (d drip) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.URL.Path, "/rooms") {
		return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(`{"data":[]}`)), ContentLength: -1}, nil
	}
	length := int64(-1)
	if d.announced {
		length = int64(d.pieces * d.size)
	}
	return &http.Response{
		StatusCode: 200, Header: http.Header{"Content-Type": {"application/octet-stream"}},
		Body: io.NopCloser(&dripping{d, r.Context()}), ContentLength: length,
	}, nil
}

type dripping struct {
	drip
	ctx context.Context //nolint:containedctx // that of the call, as in net/http
}

func (d *dripping) Read(p []byte) (int, error) {
	if d.pieces == 0 {
		return 0, io.EOF
	}
	select {
	case <-time.After(d.gap):
	case <-d.ctx.Done():
		return 0, d.ctx.Err()
	}
	d.pieces--
	return copy(p, make([]byte, min(d.size, len(p)))), nil
}

// A large document on a slow link arrives, however long it takes.
func TestSlowBodies(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		drip
		ends time.Duration // 0: it arrives
	}{
		"50 MB in 100s":                {drip{1600, 32 << 10, 62500 * time.Microsecond, true}, 0},
		"50 MB of unknown length":      {drip{1600, 32 << 10, 62500 * time.Microsecond, false}, 0},
		"nothing for a while":          {drip{20, 32 << 10, 4 * time.Second, true}, 33 * time.Second},
		"nothing more":                 {drip{5, 1024, time.Hour, true}, 5 * time.Second},
		"a byte now and then, forever": {drip{1 << 20, 1, time.Second, true}, 31 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				_, c := newBubble(t, impatient, func(cfg *Config) { cfg.Transport = test.drip })
				var got mirror.Fetched
				var err error
				took := elapsed(func() { got, err = c.Ydoc(t.Context(), "r", "") })
				switch {
				case test.ends > 0 && (!fault.Is(err, fault.ReasonUpstreamUnavailable) || took < test.ends-2*time.Second ||
					took > test.ends+10*time.Second):
					t.Errorf("Ydoc = %v after %v; want it cut off after %v", err, took, test.ends)
				case test.ends == 0 && (err != nil || len(got.Body) != test.pieces*test.size):
					t.Errorf("Ydoc = %d bytes, %v after %v; want them all", len(got.Body), err, took)
				}
				c.Close()
			})
		})
	}
}

// A ping that was answered before the key was refused does not say that the key is
// good.
func TestKeyRefusedAfterAGoodPing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		upstream, c := newBubble(t)
		upstream.Script(fake.Match{Room: "r", Endpoint: fake.EndpointStorage}, fake.Status(500, "X"))
		if _, err := c.Storage(t.Context(), "r"); fault.Is(err, fault.ReasonProjectPaused) {
			t.Fatalf("Storage = %v; want its own failure", err)
		}
		time.Sleep(pingFor / 2) //nolint:forbidigo // the bubble's clock, moved by hand
		upstream.SetSecret("sk_another")
		if _, err := c.Storage(t.Context(), "r"); !fault.Is(err, fault.ReasonProjectPaused) {
			t.Fatalf("Storage with a refused key = %v; want PROJECT_PAUSED", err)
		}
	})
}

// Whose failure a failed call is depends on what others get.
func TestWhoseFailure(t *testing.T) {
	t.Parallel()
	trouble := map[string]fake.Step{
		"500": fake.Status(500, "X"), "503": fake.Status(503, "X"), "401": fake.Status(401, "X"),
		"no answer": fake.Slow(24 * time.Hour), "invalid": fake.Garbage(),
	}
	storageOf := func(c *Client, room mirror.RoomID) *fault.Error {
		_, err := c.Storage(context.Background(), room)
		return fault.Of(err)
	}
	rooms := func(upstream *fake.Server) {
		for i := range 6 {
			createRoom(t, upstream, fmt.Sprint("r", i), fake.RoomOptions{})
		}
	}
	for name, step := range trouble {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				upstream, c := newBubble(t, impatient, func(cfg *Config) { cfg.RatePerSecond = startRate })
				rooms(upstream)
				// One resource fails, again and again.
				upstream.Script(fake.Match{Room: "r0", Endpoint: fake.EndpointStorage}, step.Always())
				for range 5 {
					if f := storageOf(c, "r0"); f.Reason == fault.ReasonUpstreamOutage || f.Kind != fault.Unavailable {
						t.Fatalf("failure of one resource = %v; want its own", f)
					}
				}
				wantRate(t, c, startRate)
				// The whole kind fails: its tasks are not to blame, but all else goes on.
				upstream.ClearScripts()
				upstream.Script(fake.Match{Endpoint: fake.EndpointStorage}, step.Always())
				var last *fault.Error
				for i := range 6 {
					last = storageOf(c, mirror.RoomID(fmt.Sprint("r", i)))
				}
				spared := name != "401" && name != "invalid" // those tell what is wrong
				if got := last.Reason == fault.ReasonUpstreamOutage; got != spared || spared && last.RetryAfter < closeMin {
					t.Errorf("failure of all documents = %v, again after %v; want them spared: %t", last, last.RetryAfter, spared)
				}
				if strings.HasPrefix(name, "50") && last.RetryAfter >= 2*closeMin {
					t.Errorf("again after %v; want no longer than the kind has failed, but a second", last.RetryAfter)
				}
				time.Sleep(routeWait) //nolint:forbidigo // the bubble's clock, moved by hand
				last = storageOf(c, "r1")
				if spared && (last.RetryAfter < routeWait || last.RetryAfter >= 2*routeWait) {
					t.Errorf("after a long time of failures: again after %v; want at least %v", last.RetryAfter, routeWait)
				}
				if _, err := c.Room(t.Context(), "r0"); err != nil {
					t.Errorf("Room meanwhile = %v; want it", err)
				}
				wantRate(t, c, startRate)
				// The first document that is fetched ends it.
				upstream.ClearScripts()
				if _, err := c.Storage(t.Context(), "r5"); err != nil {
					t.Errorf("Storage = %v; want it", err)
				}
				upstream.Script(fake.Match{Room: "r0"}, step)
				if f := storageOf(c, "r0"); f.Reason == fault.ReasonUpstreamOutage {
					t.Errorf("failure after a success = %v; want the resource's own", f)
				}
				// Everything fails, the ping too.
				time.Sleep(2 * pingFor) //nolint:forbidigo // the bubble's clock, moved by hand
				upstream.Script(fake.Match{}, step.Always())
				want := fault.ReasonUpstreamOutage
				if name == "401" {
					want = fault.ReasonProjectPaused
				}
				if f := storageOf(c, "r1"); f.Reason != want {
					t.Errorf("failure of everything = %v; want %s", f, want)
				}
				c.Close()
			})
		})
	}
}

// After an outage one call finds out whether it is over, and the rest follow.
func TestOneCallEndsAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		upstream, c := newBubble(t, impatient)
		upstream.Script(fake.Match{}, fake.Status(502, "X").Always())
		begin := time.Now()
		stop, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		worker := func(ctx context.Context) bool {
			if c.Wait(ctx) != nil {
				return false
			}
			with, _ := c.WithTurn(ctx)
			_, err := c.Storage(with, "r")
			return err == nil
		}
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				for stop.Err() == nil {
					worker(stop)
				}
			})
		}
		wg.Wait()
		// At most one try in closeMax, each with a ping.
		if n := upstream.Calls("", ""); n > 2*int(time.Hour/closeMax)+50 {
			t.Errorf("%d calls in an outage of an hour", n)
		}
		upstream.ClearScripts()
		done := 0
		for done < 1000 && time.Since(begin) < 2*time.Hour {
			if worker(t.Context()) {
				done++
			}
		}
		if took := time.Since(begin) - time.Hour; took > time.Minute {
			t.Errorf("1000 calls after the outage took %v; want them within a minute", took)
		}
		c.Close()
	})
}

// The rate is found that an API allows: few calls are refused, and not much of what it
// allows is left unused.
func TestRateFindsTheLimit(t *testing.T) {
	t.Parallel()
	for allowed, share := range map[float64]float64{100: 0.02, 10: 0.04} {
		t.Run(fmt.Sprint(allowed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				upstream, c := newBubble(t, impatient, func(cfg *Config) { cfg.RatePerSecond = 200 })
				_ = hang(upstream, 0, 50*time.Millisecond)
				upstream.SetRateLimit(allowed, int(allowed/10)+1)
				var mu sync.Mutex
				left, refused, begin := 1000, 0, time.Now()
				var wg sync.WaitGroup
				for range 64 {
					wg.Go(func() {
						for {
							mu.Lock()
							over := left <= 0
							left--
							mu.Unlock()
							if over {
								return
							}
							if c.Wait(t.Context()) != nil {
								return
							}
							ctx, _ := c.WithTurn(t.Context())
							_, err := c.Storage(ctx, "r")
							mu.Lock()
							if err != nil {
								left++
							}
							if f := fault.Of(err); err != nil && f.Meta["status"] == "429" {
								refused++
							}
							mu.Unlock()
						}
					})
				}
				wg.Wait()
				took, calls := time.Since(begin), upstream.Calls("", "")
				ideal := time.Duration(1000 / allowed * float64(time.Second))
				t.Logf("%d calls, %d refused (%.1f%%), %v of at least %v", calls, refused, 100*float64(refused)/float64(calls),
					took, ideal)
				if float64(refused) > share*float64(calls) {
					t.Errorf("%d of %d calls were refused; want at most %.0f%%", refused, calls, 100*share)
				}
				if took > ideal*3/2 {
					t.Errorf("1000 calls took %v; want at most 1.5 times %v", took, ideal)
				}
				c.Close()
			})
		})
	}
}

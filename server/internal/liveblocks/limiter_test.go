package liveblocks

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// inMemory carries calls to a handler without a network, so that they can be
// made under the clock of testing/synctest.
type inMemory struct{ h http.Handler }

func (t inMemory) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	t.h.ServeHTTP(w, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

// newBubble returns a fake with the room "r" and a client of it, neither of
// which leaves the bubble. The rate is 50 calls a second.
func newBubble(t *testing.T, edits ...func(*Config)) (*fake.Server, *Client) {
	t.Helper()
	upstream := fake.New(testKey)
	createRoom(t, upstream, "r", fake.RoomOptions{})
	cfg := testConfig(t, "http://fake")
	cfg.RatePerSecond, cfg.Transport = 50, inMemory{upstream}
	for _, edit := range edits {
		edit(&cfg)
	}
	return upstream, New(cfg)
}

// work waits and calls n times, as a worker does.
func work(t *testing.T, c *Client, n int) {
	t.Helper()
	for range n {
		if err := c.Wait(t.Context()); err != nil {
			t.Fatalf("Wait = %v; want nil", err)
		}
		ctx, spent := c.WithTurn(t.Context())
		_, _ = c.Storage(ctx, "r") // the limiter is what matters
		if !spent() {
			t.Error("a call with a turn has not used it")
		}
	}
}

// elapsed returns how long f takes.
func elapsed(f func()) time.Duration {
	begin := time.Now()
	f()
	return time.Since(begin)
}

func wantRate(t *testing.T, c *Client, want float64) {
	t.Helper()
	if got := c.Status().RatePerSecond; got != want {
		t.Fatalf("RatePerSecond = %v; want %v", got, want)
	}
}

func TestLimiterPacesAllCallers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		upstream, c := newBubble(t)
		took := elapsed(func() {
			var wg sync.WaitGroup
			for range 5 {
				wg.Go(func() { work(t, c, 41) })
			}
			wg.Wait()
		})
		// 205 calls: 5 at once, then 50 a second.
		if took < 4*time.Second-time.Millisecond || took > 4*time.Second+time.Millisecond {
			t.Fatalf("205 calls took %v; want 4s", took)
		}
		if n := upstream.Calls("", ""); n != 205 {
			t.Fatalf("calls made = %d; want 205", n)
		}
	})
}

// Calls without a turn take one themselves, and only the first call uses one that
// the context carries.
func TestEveryCallTakesATurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		upstream, c := newBubble(t, func(cfg *Config) { cfg.RatePerSecond = 2 })
		if err := c.Wait(t.Context()); err != nil {
			t.Fatalf("Wait = %v; want nil", err)
		}
		ctx, _ := c.WithTurn(t.Context())
		took := elapsed(func() {
			for range 5 {
				_, _ = c.Storage(ctx, "r")
			}
			_, _ = c.ListRooms(ctx, "", 100)
		})
		if took != 2500*time.Millisecond {
			t.Fatalf("6 calls at 2 a second, the first with a turn, took %v; want 2.5s", took)
		}
		if n := upstream.Calls("", ""); n != 6 {
			t.Fatalf("Calls = %d; want 6", n)
		}
		// Without a turn to come, a call fails at once.
		took = elapsed(func() {
			if _, err := c.Room(c.WithoutTurn(t.Context()), "r"); fault.Of(err).Kind != fault.Busy {
				t.Fatalf("Room without a turn = %v; want it to be busy", err)
			}
		})
		if n := upstream.Calls("", ""); took != 0 || n != 6 {
			t.Fatalf("a call without a turn took %v and made %d calls; want none", took, n-6)
		}
	})
}

// A call that waits for its turn under a lease does not wait for a limiter that
// closes: that may last for days.
func TestClosedLimiterEndsTheWaitOfACall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		upstream, c := newBubble(t, func(cfg *Config) { cfg.RatePerSecond = 1 })
		work(t, c, 1)
		upstream.Script(fake.Match{}, fake.Status(401, "MISSING_SECRET_KEY").Always())
		var wg sync.WaitGroup
		begin := time.Now()
		wg.Go(func() {
			if _, err := c.Storage(t.Context(), "r"); !fault.Is(err, fault.ReasonProjectPaused) || time.Since(begin) != 0 {
				t.Errorf("Storage = %v after %v; want PROJECT_PAUSED at once", err, time.Since(begin))
			}
		})
		synctest.Wait() // it waits for its turn
		_ = c.Ping(t.Context())
		wg.Wait()
	})
}

// What is answered while calls are deferred was sent before that, so it says nothing of the rate.
func TestLateAnswerDoesNotRaiseTheRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		upstream, c := newBubble(t)
		upstream.Script(fake.Match{Room: "r", Endpoint: fake.EndpointStorage}, fake.Slow(3*time.Second))
		var early sync.WaitGroup
		early.Go(func() { _, _ = c.Storage(t.Context(), "r") })
		time.Sleep(time.Second) //nolint:forbidigo // the bubble's clock, moved by hand
		upstream.Script(fake.Match{Endpoint: fake.EndpointRoom}, fake.TooMany("30"))
		_, _ = c.Room(t.Context(), "r")
		refused := c.Status().RatePerSecond
		early.Wait()
		if s := c.Status(); s.RatePerSecond != refused || s.ThrottledUntil.IsZero() {
			t.Errorf("Status = %+v; want %v calls a second still", s, refused)
		}
	})
}

func TestRateHalvesOnceForABurst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		upstream, c := newBubble(t)
		upstream.Script(fake.Match{}, fake.Status(500, "INTERNAL").Always())
		burst := func() { // as from workers that were under way
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() { _, _ = c.Room(t.Context(), "r") })
			}
			wg.Wait()
		}
		burst()
		wantRate(t, c, 25)
		for _, want := range []float64{12.5, 6.25} {
			if err := c.Wait(t.Context()); err != nil {
				t.Fatalf("Wait = %v", err)
			}
			burst()
			wantRate(t, c, want)
		}
		work(t, c, 10)
		wantRate(t, c, minRate)

		// At the floor calls still go out, and the first good answers are
		// enough to climb again: the rate doubles each second.
		upstream.ClearScripts()
		opens := time.Until(c.Status().ThrottledUntil)
		took := elapsed(func() {
			for c.Status().RatePerSecond < 50 {
				work(t, c, 1)
			}
		}) - opens
		if took < 6*time.Second || took > 9*time.Second {
			t.Fatalf("the way back took %v; want some 7s after the limiter opens", took)
		}
		work(t, c, 200)
		wantRate(t, c, 50)
	})
}

// What does not concern all of Liveblocks does not change the pace.
func TestRateStaysForOtherFailures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		upstream, c := newBubble(t)
		upstream.Script(fake.Match{Room: "r"},
			fake.Status(404, "ROOM_NOT_FOUND"), fake.Status(403, "UNAUTHORIZED_ROOM_ACCESS"),
			fake.Status(403, "PLAN_ENDED"), fake.Garbage(), fake.Answer(501, "text/html", []byte("proxy")),
			fake.Status(422, "UNPROCESSABLE_ENTITY"), fake.Status(401, "MISSING_SECRET_KEY"), fake.Status(500, "X"))
		work(t, c, 8)
		upstream.Script(fake.Match{Room: "r"}, fake.Slow(time.Hour).Always())
		work(t, c, 1)
		wantRate(t, c, 50)
		// No answer to anybody does.
		upstream.Script(fake.Match{}, fake.Slow(time.Hour).Always())
		work(t, c, 1)
		wantRate(t, c, 25)
	})
}

// A queue that formed while the rate was low does not keep the low rate.
func TestWaitersFollowTheRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		upstream, c := newBubble(t)
		upstream.Script(fake.Match{}, fake.Status(503, "X").Always())
		work(t, c, 8)
		wantRate(t, c, minRate)
		upstream.ClearScripts()
		took := elapsed(func() {
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() { work(t, c, 1) })
			}
			wg.Wait()
		})
		if took > 30*time.Second { // 200 s at the floor, after 15 s while the limiter is closed
			t.Fatalf("100 waiters took %v; want them to speed up together", took)
		}
	})
}

func TestRetryAfterClosesTheLimiter(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		step        fake.Step
		least, most time.Duration
	}{
		"seconds": {fake.TooMany("30"), 30 * time.Second, 30 * time.Second},
		"absent":  {fake.TooMany(""), closeMin, 3 * closeMin / 2},
		"503":     {fake.StatusRetry(503, "30"), 30 * time.Second, 30 * time.Second},
		"longest": {fake.TooMany("1000000"), time.Hour, time.Hour},
		// The synctest clock begins in the year 2000.
		"date": {fake.TooMany("Sat, 01 Jan 2000 00:00:40 GMT"), 40 * time.Second, 40 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				upstream, c := newBubble(t)
				upstream.Script(fake.Match{}, test.step)
				work(t, c, 1)

				// Who has not waited is told to, and nothing is sent.
				_, err := c.Room(t.Context(), "r")
				f := asFault(t, err, fault.Busy, fault.ReasonUpstreamRateLimited)
				if f.RetryAfter < test.least || f.RetryAfter > test.most {
					t.Errorf("RetryAfter = %v; want %v to %v", f.RetryAfter, test.least, test.most)
				}
				if n := upstream.Calls("", ""); n != 1 {
					t.Errorf("Calls = %d; want 1", n)
				}
				if got := time.Until(c.Status().ThrottledUntil); got != f.RetryAfter {
					t.Errorf("ThrottledUntil = %v from now; want %v", got, f.RetryAfter)
				}

				// A refusal is an answer, an outage is none.
				if since := c.Status().FailingSince; since.IsZero() != (name != "503") {
					t.Errorf("FailingSince = %v", since)
				}

				took := elapsed(func() {
					var wg sync.WaitGroup
					for range 3 {
						wg.Go(func() { work(t, c, 1) })
					}
					wg.Wait()
				})
				if took < test.least || took > test.most+time.Second {
					t.Errorf("Wait took %v; want %v to %v", took, test.least, test.most)
				}
				if n, s := upstream.Calls("", ""), c.Status(); n != 4 || !s.ThrottledUntil.IsZero() || !s.FailingSince.IsZero() {
					t.Errorf("Calls = %d, Status = %+v; want 4 and no wait", n, s)
				}
			})
		})
	}
}

// A shorter wait told later does not undo a longer one.
func TestLongestRetryAfterHolds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		upstream, c := newBubble(t)
		upstream.Script(fake.Match{Room: "r"}, fake.TooMany("60"))
		upstream.Script(fake.Match{Endpoint: fake.EndpointListRooms}, fake.TooMany("2"))
		_, _ = c.Room(t.Context(), "r")
		_ = c.Ping(t.Context())
		if took := elapsed(func() { work(t, c, 1) }); took < time.Minute {
			t.Fatalf("Wait took %v; want 1m0s", took)
		}
	})
}

// Callers that wait for their turn while the limiter closes are told to come back.
func TestLimiterClosesOnACaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		upstream, c := newBubble(t, func(cfg *Config) { cfg.RatePerSecond = 1 })
		work(t, c, 1)
		upstream.Script(fake.Match{}, fake.TooMany("20"))
		errs := make(chan error)
		for range 2 {
			go func() { // the test receives what it sends
				_, err := c.Storage(t.Context(), "r")
				errs <- err
			}()
		}
		synctest.Wait() // one has its place in the limiter, the other is next
		_ = c.Ping(t.Context())
		for range 2 {
			f := asFault(t, <-errs, fault.Busy, fault.ReasonUpstreamRateLimited)
			if f.RetryAfter != 20*time.Second {
				t.Errorf("RetryAfter = %v; want 20s", f.RetryAfter)
			}
		}
		if n := upstream.Calls("", ""); n != 2 {
			t.Errorf("calls = %d; want the first and the ping", n)
		}
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		upstream, c := newBubble(t, func(cfg *Config) { cfg.RatePerSecond = 0.5 })
		ends := func(d time.Duration, what func(context.Context) error) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			took := elapsed(func() {
				if err := what(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("error = %v; want the context's", err)
				}
			})
			if took != d {
				t.Fatalf("it took %v; want %v", took, d)
			}
		}
		call := func(ctx context.Context) error {
			_, err := c.Storage(ctx, "r")
			return err
		}
		ends(0, c.Wait)
		ends(0, call)
		work(t, c, 1)
		ends(time.Second, call) // whose place goes to the next
		if took := elapsed(func() { work(t, c, 1) }); took != time.Second {
			t.Fatalf("the call took %v; want the second that was left", took)
		}
		var wg sync.WaitGroup
		wg.Go(func() { work(t, c, 1) })
		synctest.Wait()
		ends(time.Second, call) // in line behind one that waits
		wg.Wait()
		upstream.Script(fake.Match{}, fake.TooMany("60"))
		_ = c.Ping(t.Context())
		ends(time.Second, c.Wait) // before the time told
		upstream.Script(fake.Match{}, fake.Status(401, "MISSING_SECRET_KEY"))
		_ = c.Ping(t.Context())
		ends(time.Hour, c.Wait) // paused
		if n := upstream.Calls("", ""); n != 5 {
			t.Fatalf("Calls = %d; want 5", n)
		}
	})
}

// recorder keeps the calls of OnPause with their times.
type recorder struct {
	mu    sync.Mutex
	begin time.Time
	lines []string
}

func (r *recorder) add(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, fmt.Sprintf("%v %s", time.Since(r.begin), what))
}

func (r *recorder) pause(reason string) {
	if reason == "" {
		r.add("resume")
		return
	}
	r.add("pause: " + reason)
}

func (r *recorder) got() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.lines)
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var rec recorder
		rec.begin = time.Now()
		upstream, c := newBubble(t, func(cfg *Config) {
			cfg.OnPause = rec.pause
			cfg.ProbeMax = 30 * time.Second
		})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := c.Run(ctx); err != nil {
				t.Errorf("Run = %v; want nil", err)
			}
		})

		// The key is withdrawn; several workers find out at once.
		upstream.SetSecret("sk_new")
		for range 4 {
			wg.Go(func() { _, _ = c.Room(t.Context(), "r") })
		}
		synctest.Wait()
		s := c.Status()
		if s.PauseReason != "ping: status 403, code INVALID_SECRET_KEY" || !s.PausedSince.Equal(rec.begin) {
			t.Fatalf("Status = %+v; want the pause", s)
		}
		_, err := c.Storage(t.Context(), "r")
		if f := asFault(t, err, fault.Busy, fault.ReasonProjectPaused); f.RetryAfter != 5*time.Second {
			t.Fatalf("RetryAfter = %v; want the first probe's time", f.RetryAfter)
		}

		// One ping has told them; the probes come at 5, 15, 35, 65 s; then 30 s apart.
		var waited time.Duration
		wg.Go(func() { waited = elapsed(func() { work(t, c, 1) }) })
		time.Sleep(70 * time.Second) //nolint:forbidigo // the bubble's clock, moved by hand
		if n := upstream.Calls("", fake.EndpointListRooms); n != 5 {
			t.Fatalf("%d pings in 70s; want 5", n)
		}
		if n := upstream.Calls("r", ""); n > 4 {
			t.Fatalf("%d calls for the room; want none after the refusal", n)
		}
		if s := c.Status(); !s.PausedSince.Equal(rec.begin) || s.PauseReason[:4] != "ping" {
			t.Fatalf("Status = %+v; want the pause as it began", s)
		}
		// Other trouble than a refusal does not end the pause either.
		upstream.Script(fake.Match{}, fake.TooMany("40"))
		upstream.SetSecret(testKey)
		time.Sleep(30 * time.Second) //nolint:forbidigo // the bubble's clock, moved by hand
		synctest.Wait()
		if c.Status().PauseReason == "" {
			t.Fatal("PauseReason is empty; want the pause to outlast a 429")
		}
		time.Sleep(70 * time.Second) //nolint:forbidigo // the bubble's clock, moved by hand
		synctest.Wait()
		if s := c.Status(); s.PauseReason != "" || !s.PausedSince.IsZero() {
			t.Fatalf("Status = %+v; want no pause", s)
		}

		// A second pause is a transition of its own.
		upstream.Script(fake.Match{}, fake.Status(401, "WRONG_KEY_USED").Times(2))
		work(t, c, 1)
		time.Sleep(10 * time.Second) //nolint:forbidigo // the bubble's clock, moved by hand
		cancel()
		wg.Wait()
		want := []string{
			"0s pause: ping: status 403, code INVALID_SECRET_KEY",
			"2m15s resume", // 40 s after the probe at 95 s, as it was told
			"2m50s pause: ping: status 401, code WRONG_KEY_USED",
			"2m55s resume",
		}
		if diff := cmp.Diff(want, rec.got()); diff != "" {
			t.Fatalf("callbacks (-want +got):\n%s", diff)
		}
		if waited == 0 || waited > 136*time.Second {
			t.Fatalf("Wait took %v; want until the resumption", waited)
		}
	})
}

// A process that stops while paused stops.
func TestRunStops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var rec recorder
		rec.begin = time.Now()
		upstream, c := newBubble(t, func(cfg *Config) {
			cfg.OnPause = func(reason string) {
				if reason == "" {
					rec.pause(reason)
				}
			}
		})
		for _, step := range []fake.Step{
			fake.Status(401, "MISSING_SECRET_KEY"), // between probes
			fake.Slow(time.Hour),                   // during a probe
			fake.TooMany("3000"),                   // waiting as told
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
			upstream.Script(fake.Match{}, fake.Status(401, "MISSING_SECRET_KEY"))
			upstream.Script(fake.Match{Endpoint: fake.EndpointListRooms}, step)
			_ = c.Ping(t.Context())
			took := elapsed(func() {
				if err := c.Run(ctx); err != nil {
					t.Fatalf("Run = %v; want nil", err)
				}
			})
			cancel()
			if took != 7*time.Second {
				t.Fatalf("Run took %v; want 7s", took)
			}
			upstream.ClearScripts()
		}
		if got := rec.got(); len(got) != 0 {
			t.Fatalf("callbacks = %v; want none", got)
		}
	})
}

func TestRunIdles(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		upstream, c := newBubble(t)
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		if err := c.Run(ctx); err != nil {
			t.Fatalf("Run = %v; want nil", err)
		}
		if n := upstream.Calls("", ""); n != 0 {
			t.Fatalf("Calls = %d; want none without a pause", n)
		}
	})
}

// An outage that was seen long ago says nothing of now: if calls went on failing, the process
// would have made some.
func TestOldOutageIsForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		upstream, c := newBubble(t)
		upstream.Script(fake.Match{}, fake.StatusRetry(503, "1").Always())
		_, _ = c.Room(t.Context(), "r")
		since := c.Status().FailingSince
		if since.IsZero() {
			t.Fatal("FailingSince is not set after an outage")
		}
		for range 4 { // as long as calls fail, it is known
			<-time.After(4 * time.Minute)
			if got := c.Status().FailingSince; !got.Equal(since) {
				t.Fatalf("FailingSince = %v while calls fail; want %v", got, since)
			}
			_, _ = c.Room(t.Context(), "r")
		}
		<-time.After(6 * time.Minute)
		if got := c.Status().FailingSince; !got.IsZero() {
			t.Errorf("FailingSince = %v long after the last call; want none", got)
		}
		if _ = c.Ping(t.Context()); !c.Status().FailingSince.Equal(since) {
			t.Errorf("FailingSince = %v after another call that failed; want %v", c.Status().FailingSince, since)
		}
	})
}

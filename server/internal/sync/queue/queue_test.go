package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

const project = mirror.ProjectID("default")

// What a pool works with unless a test says otherwise.
const (
	workers    = 8
	fetches    = 8
	leaseTTL   = 30 * time.Second
	busyPoll   = 3 * time.Second
	safetyPoll = time.Hour
	stopGrace  = 10 * time.Second
	backoffMin = time.Second
)

var policy = Policy{MaxAttempts: 10, BackoffMin: backoffMin, BackoffMax: 5 * time.Minute}

func resource(i int) mirror.Resource {
	return mirror.Resource{Project: project, Room: mirror.RoomID(fmt.Sprintf("room-%d", i)), Kind: mirror.KindStorage}
}

func resources(n int) []mirror.Resource {
	out := make([]mirror.Resource, n)
	for i := range out {
		out[i] = resource(i)
	}
	return out
}

// marked is what is pushed of resources.
func marked(resources ...mirror.Resource) []mirror.Pending {
	out := make([]mirror.Pending, len(resources))
	for i, r := range resources {
		out[i] = mirror.Pending{Resource: r}
	}
	return out
}

// door is a limiter that a test opens, closes and pauses. It begins open.
type door struct {
	mu     sync.Mutex
	closed chan struct{} // nil while open
	passed int
	// pauses cut what is to end with a pause; paused says that there is one.
	pauses map[*context.CancelCauseFunc]struct{}
	paused bool
}

var errPaused = fault.New(fault.Unavailable, fault.ReasonProjectPaused, "paused")

func (d *door) UntilPaused(ctx context.Context) (context.Context, func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	if d.paused {
		cancel(errPaused)
	}
	if d.pauses == nil {
		d.pauses = make(map[*context.CancelCauseFunc]struct{})
	}
	d.pauses[&cancel] = struct{}{}
	return ctx, func() {
		cancel(nil)
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.pauses, &cancel)
	}
}

func (d *door) WithTurn(ctx context.Context) (context.Context, func() bool) { return withTurn(ctx) }

type turnKey struct{}

func withTurn(ctx context.Context) (context.Context, func() bool) {
	spent := new(atomic.Bool)
	return context.WithValue(ctx, turnKey{}, spent), spent.Load
}

func withoutTurn(ctx context.Context) context.Context {
	return context.WithValue(ctx, turnKey{}, (*atomic.Bool)(nil))
}

// mayCall reports whether a task may call Liveblocks.
func mayCall(ctx context.Context) bool {
	spent, ok := ctx.Value(turnKey{}).(*atomic.Bool)
	return !ok || spent != nil
}

// called spends the turn of a task, as a call does.
func called(ctx context.Context) {
	if spent, ok := ctx.Value(turnKey{}).(*atomic.Bool); ok && spent != nil {
		spent.Store(true)
	}
}

func (d *door) WithoutTurn(ctx context.Context) context.Context { return withoutTurn(ctx) }

func (d *door) pause() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.paused = true
	for cancel := range d.pauses {
		(*cancel)(errPaused)
	}
}

func (d *door) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = make(chan struct{})
}

func (d *door) open() {
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.closed)
	d.closed = nil
}

func (d *door) Wait(ctx context.Context) error {
	d.mu.Lock()
	closed := d.closed
	d.mu.Unlock()
	if closed != nil {
		select {
		case <-closed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.passed++
	return nil
}

// logs keeps what is logged.
type logs struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// attempt is one run of a handler.
type attempt struct {
	resource mirror.Resource
	at       time.Time
	attempts int
}

// bench is what a test works on: tasks in memory, a limiter, a log and the runs of
// the handlers, in a bubble whose clock only moves when everybody waits.
type bench struct {
	*testing.T
	tasks   *tasks
	limiter *door
	log     *logs

	mu   sync.Mutex
	runs []attempt
}

func bubble(t *testing.T, test func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		test(&bench{T: t, tasks: newTasks(), limiter: &door{}, log: &logs{}})
	})
}

// recorded is handler with its runs noted; nil applies at once.
func (b *bench) recorded(handler Apply) Handler {
	if handler == nil {
		handler = b.tasks.apply
	}
	return func(ctx context.Context, lease mirror.Lease) (Apply, error) {
		called(ctx)
		b.mu.Lock()
		b.runs = append(b.runs, attempt{lease.Resource, time.Now(), lease.Attempts})
		b.mu.Unlock()
		applied, err := handler(ctx, lease)
		return func(context.Context, mirror.Lease) (mirror.Applied, error) { return applied, err }, err
	}
}

func (b *bench) attempts() []attempt {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.runs)
}

// config is what a pool works with, changed by a test.
func (b *bench) config(change func(*Config)) Config {
	cfg := Config{
		Project: project, Tasks: b.tasks, Limiter: b.limiter, Policy: policy, Workers: workers, Fetches: fetches,
		LeaseTTL: leaseTTL,
		BusyPoll: busyPoll, SafetyPoll: safetyPoll, StopGrace: stopGrace,
		Now: time.Now, Logger: slog.New(slog.NewTextHandler(b.log, nil)),
	}
	if change != nil {
		change(&cfg)
	}
	return cfg
}

// handlers has the tasks of every kind done by one handler.
func (b *bench) handlers(handler Apply) map[mirror.Kind]Handler {
	handlers := make(map[mirror.Kind]Handler)
	for _, kind := range mirror.Kinds() {
		handlers[kind] = b.recorded(handler)
	}
	return handlers
}

// start runs a pool. stop ends it and returns when it has come to an end, which
// the end of the test does too.
func (b *bench) start(handler Apply, change func(*Config)) (pool *Pool, stop func()) {
	b.Helper()
	pool = New(b.config(change))
	return pool, b.run(pool, b.handlers(handler))
}

// run runs a pool. stop ends it as that of start does.
func (b *bench) run(pool *Pool, handlers map[mirror.Kind]Handler) (stop func()) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- pool.Run(ctx, handlers) }() // stop waits for it
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.Errorf("Run = %v; want nil", err)
		}
	})
	b.Cleanup(stop)
	return stop
}

// due makes resources due and tells the pool.
func (b *bench) due(pool *Pool, resources ...mirror.Resource) {
	b.tasks.raise(time.Now(), resources...)
	pool.Push(marked(resources...))
}

// pass lets the clock move on by d and everybody do what that leads to.
func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // the bubble's clock, which jumps
	synctest.Wait()
}

// wantRuns checks how many runs there were so far.
func (b *bench) wantRuns(want int) []attempt {
	b.Helper()
	synctest.Wait()
	runs := b.attempts()
	if len(runs) != want {
		b.Fatalf("runs of the handler = %d; want %d", len(runs), want)
	}
	return runs
}

func (b *bench) wantDone(resources ...mirror.Resource) {
	b.Helper()
	synctest.Wait()
	for _, r := range resources {
		if s := b.tasks.state(r); s.TaskState(time.Now()) != mirror.TaskDone || s.Applied == 0 {
			b.Fatalf("state of %q = %+v; want it done", r.Room, s)
		}
	}
}

// held is a handler that waits until released, or cut.
type held struct {
	tasks    *tasks
	mu       sync.Mutex
	now, max int
	release  chan struct{}
}

func newHeld(t *tasks) *held { return &held{tasks: t, release: make(chan struct{})} }

func (h *held) do(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
	h.mu.Lock()
	h.now++
	h.max = max(h.max, h.now)
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		h.now--
		h.mu.Unlock()
	}()
	select {
	case <-h.release:
		return h.tasks.apply(ctx, lease)
	case <-ctx.Done():
		return mirror.Applied{}, fmt.Errorf("fetch: %w", ctx.Err())
	}
}

func (h *held) running() (now, most int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now, h.max
}

func TestNoMoreTasksAtOnceThanFetches(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		h := newHeld(b.tasks)
		pool, _ := b.start(h.do, func(c *Config) { c.Workers, c.Fetches = 1, 3 })
		b.due(pool, resources(20)...)
		pass(time.Minute) // also past every poll
		if now, _ := h.running(); now != 3 {
			b.Fatalf("tasks done at once = %d; want all 3 fetches", now)
		}
		close(h.release)
		b.wantDone(resources(20)...)
		if _, most := h.running(); most != 3 {
			b.Fatalf("most tasks done at once = %d; want 3", most)
		}
	})
}

func TestScanOnStart(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		b.tasks.raise(time.Now(), resources(3)...)
		begun := time.Now()
		b.start(nil, nil)
		for _, run := range b.wantRuns(3) {
			if run.at != begun {
				b.Fatalf("task left by a crash begun after %v; want at once", run.at.Sub(begun))
			}
		}
	})
}

func TestOnlyTasksOfTheProject(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		foreign := resource(1)
		foreign.Project = "other"
		b.tasks.raise(time.Now(), resource(0), foreign)
		b.start(nil, nil)
		if runs := b.wantRuns(1); runs[0].resource != resource(0) {
			b.Fatalf("done = %v; want %v", runs[0].resource, resource(0))
		}
	})
}

// Work waits at the limiter before it is leased: otherwise a pause upstream would
// hold leases that others could use, and renew them for nothing.
func TestLimiterIsWaitedForBeforeClaim(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		pool, _ := b.start(nil, nil)
		synctest.Wait()
		b.limiter.close()
		b.due(pool, resources(2)...)
		pass(busyPoll)
		before := b.tasks.total()
		pass(24 * time.Hour)
		if n := b.tasks.total() - before; n != 24 {
			b.Fatalf("store calls while the limiter was closed for a day = %d; want the safety polls", n)
		}
		if n := b.tasks.count("Claim"); n != 0 {
			b.Fatalf("claims while the limiter was closed = %d; want 0", n)
		}
		b.limiter.open()
		b.wantDone(resources(2)...)
		if b.limiter.passed != 2 {
			b.Fatalf("passed the gate %d times for 2 tasks", b.limiter.passed)
		}
	})
}

func TestStopWhileTheLimiterIsClosed(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		b.limiter.close()
		b.tasks.raise(time.Now(), resource(0))
		_, stop := b.start(nil, nil)
		synctest.Wait()
		begun := time.Now()
		stop()
		if took := time.Since(begun); took != 0 {
			b.Fatalf("stop took %v; want it at once", took)
		}
		if n := b.tasks.count("Claim"); n != 0 {
			b.Fatalf("claims = %d; want 0", n)
		}
	})
}

func TestLeaseIsRenewedAtAThird(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		slow := func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			work := time.NewTimer(95 * time.Second)
			defer work.Stop()
			select {
			case <-work.C:
				return b.tasks.apply(ctx, lease)
			case <-ctx.Done():
				return mirror.Applied{}, ctx.Err()
			}
		}
		ttl := func(c *Config) { c.LeaseTTL = 30 * time.Second }
		b.tasks.raise(time.Now(), resource(0))
		begun := time.Now()
		b.start(slow, ttl)
		synctest.Wait()
		b.start(nil, func(c *Config) { ttl(c); c.SafetyPoll = time.Second }) // another replica, always looking
		pass(101 * time.Second)
		b.wantDone(resource(0))
		b.wantRuns(1)
		b.tasks.mu.Lock()
		defer b.tasks.mu.Unlock()
		if len(b.tasks.renewed) != 9 {
			b.Fatalf("renewals in 95 s with a lease of 30 s = %d; want 9", len(b.tasks.renewed))
		}
		for i, at := range b.tasks.renewed {
			if after := at.Sub(begun); after != time.Duration(i+1)*10*time.Second {
				b.Fatalf("renewal %d came after %v; want every 10 s", i, after)
			}
		}
	})
}

func TestLostLeaseCutsTheTaskAndDropsItsResult(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		r := resource(0)
		var cause error
		first := true
		handler := func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			if !first {
				return b.tasks.apply(ctx, lease)
			}
			first = false
			<-ctx.Done()
			cause = context.Cause(ctx)
			return mirror.Applied{}, fmt.Errorf("fetch: %w", ctx.Err())
		}
		b.tasks.raise(time.Now(), r)
		begun := time.Now()
		b.start(handler, nil)
		pass(12 * time.Second)
		// Somebody else takes the lease over, and dies.
		b.tasks.mu.Lock()
		s := b.tasks.states[r]
		s.LeaseToken, s.LeaseUntil = [16]byte{1}, time.Now().Add(time.Minute)
		b.tasks.states[r] = s
		b.tasks.mu.Unlock()
		pass(9 * time.Second)
		if !errors.Is(cause, store.ErrLeaseLost) {
			b.Fatalf("cause of the cut = %v; want ErrLeaseLost at the next renewal", cause)
		}
		if got := b.tasks.state(r); got != s {
			b.Fatalf("state = %+v; want it as the new holder left it: %+v", got, s)
		}
		if n := b.tasks.count("Fail"); n != 0 {
			b.Fatalf("failures recorded = %d; want none", n)
		}
		pass(time.Minute)
		if runs := b.wantRuns(2); runs[1].at.Sub(begun) != 72*time.Second || runs[1].attempts != 1 {
			b.Fatalf("second run = %+v, after %v; want it when the other lease ended, with its holder's death counted", runs[1],
				runs[1].at.Sub(begun))
		}
		b.wantDone(r)
	})
}

// While the lease cannot be renewed the task goes on, since the database may
// come back in time; once the lease has ended, somebody else may have it.
func TestUnrenewableLeaseCutsTheTaskWhenItEnds(t *testing.T) {
	t.Parallel()
	for name, hang := range map[string]bool{"refused": false, "hanging": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(b *bench) {
				r := resource(0)
				var cut time.Duration
				begun := time.Now()
				handler := func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
					if len(b.attempts()) > 1 {
						return b.tasks.apply(ctx, lease)
					}
					<-ctx.Done()
					cut = time.Since(begun)
					return mirror.Applied{}, ctx.Err()
				}
				down := fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "the database is not available")
				b.tasks.raise(begun, r)
				b.start(handler, func(c *Config) {
					c.LeaseTTL = 30 * time.Second
					if hang {
						c.Tasks = hangingRenewals{b.tasks}
					}
				})
				synctest.Wait()
				b.tasks.failing(func(call string) error {
					if call == "Claim" {
						return nil // nothing is claimed meanwhile
					}
					return down
				})
				pass(5 * time.Minute)
				if cut != 30*time.Second {
					b.Fatalf("task cut after %v; want when its lease of 30 s ended", cut)
				}
				b.tasks.failing(nil)
				pass(busyPoll)
				b.wantDone(r) // and not only at the safety poll
			})
		})
	}
}

// A look for due work passes over what is still in our own hands. If that comes
// to nothing, somebody has to look again.
func TestLookAfterALeaseThatEndedHere(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		begun := time.Now()
		handler := func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			if len(b.attempts()) > 1 {
				return b.tasks.apply(ctx, lease)
			}
			<-ctx.Done()
			slow := time.NewTimer(10 * time.Second) // longer than all looks that are due anyway
			<-slow.C
			return mirror.Applied{}, ctx.Err()
		}
		b.tasks.raise(begun, resource(0))
		b.tasks.failing(func(call string) error {
			if call == "Renew" {
				return fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "the database is not available")
			}
			return nil
		})
		b.start(handler, nil)
		pass(time.Minute)
		runs := b.wantRuns(2)
		if after := runs[1].at.Sub(begun); after < leaseTTL+10*time.Second || after > leaseTTL+10*time.Second+busyPoll {
			b.Fatalf("second run came after %v; want a busy poll after the first was over, at most", after)
		}
		b.wantDone(resource(0))
	})
}

type hangingRenewals struct{ *tasks }

func (h hangingRenewals) Renew(ctx context.Context, _ mirror.Lease, _ time.Time) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestBusyWaitsAsToldAndCostsNoAttempt(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		r := resource(0)
		handler := func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			switch n := len(b.attempts()); {
			case n == 30:
				// Without a time to wait for, it must not be tried in a circle.
				return mirror.Applied{}, fault.New(fault.Busy, fault.ReasonUpstreamRateLimited, "slow down")
			case n < 30:
				return mirror.Applied{}, fault.New(fault.Busy, fault.ReasonUpstreamRateLimited, "slow down").After(17 * time.Second)
			default:
				return b.tasks.apply(ctx, lease)
			}
		}
		b.tasks.raise(time.Now(), r)
		b.start(handler, func(c *Config) {
			c.Policy = Policy{MaxAttempts: 2, BackoffMin: 3 * time.Second, BackoffMax: time.Minute}
		})
		pass(time.Hour)
		runs := b.wantRuns(31)
		for i := 1; i < len(runs); i++ {
			want := 17 * time.Second
			if i == 30 {
				want = 3 * time.Second
			}
			if gap := runs[i].at.Sub(runs[i-1].at); gap != want || runs[i].attempts != 0 {
				b.Fatalf("run %d came after %v with %d attempts; want after %v with none", i, gap, runs[i].attempts, want)
			}
		}
		b.wantDone(r)
	})
}

func TestFinalFailureIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	for kind, reason := range map[fault.Kind]fault.Reason{
		fault.Invalid: fault.ReasonIDInvalid, fault.NotFound: fault.ReasonUpstreamNotFound,
		fault.Precondition: fault.ReasonUpstreamAccessDenied,
	} {
		t.Run(string(reason), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(b *bench) {
				r := resource(0)
				handler := func(context.Context, mirror.Lease) (mirror.Applied, error) {
					return mirror.Applied{}, fault.Wrap(errors.New("secret details"), kind, reason, "no way")
				}
				b.tasks.raise(time.Now(), r)
				pool, _ := b.start(handler, nil)
				pass(48 * time.Hour)
				b.wantRuns(1)
				s := b.tasks.state(r)
				if s.TaskState(time.Now()) != mirror.TaskFailed || s.LastError != string(reason)+": no way" {
					b.Fatalf("state = %+v; want it failed and the reason told", s)
				}
				b.due(pool, r) // the next event tries again
				b.wantRuns(2)
			})
		})
	}
}

func TestAttemptsRunOutAfterGrowingDelays(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		r := resource(0)
		handler := func(context.Context, mirror.Lease) (mirror.Applied, error) {
			return mirror.Applied{}, errors.New("something quotable: hunter2")
		}
		b.tasks.raise(time.Now(), r)
		pool, _ := b.start(handler, func(c *Config) {
			c.Policy = Policy{MaxAttempts: 8, BackoffMin: time.Second, BackoffMax: 20 * time.Second}
		})
		pass(24 * time.Hour)
		runs := b.wantRuns(8)
		for i := 1; i < len(runs); i++ {
			most := min(time.Second<<(i-1), 20*time.Second)
			if gap := runs[i].at.Sub(runs[i-1].at); gap < most/2 || gap > most {
				b.Fatalf("delay %d = %v; want between %v and %v", i, gap, most/2, most)
			}
			if runs[i].attempts != i {
				b.Fatalf("attempts counted at run %d = %d", i, runs[i].attempts)
			}
		}
		s := b.tasks.state(r)
		if s.TaskState(time.Now()) != mirror.TaskFailed || strings.Contains(s.LastError, "hunter2") {
			b.Fatalf("state = %+v; want it failed, and nothing quoted that nobody classified", s)
		}
		if _, err := pool.Retry(b.Context(), r); err != nil {
			b.Fatalf("Retry = %v", err)
		}
		if runs := b.wantRuns(9); runs[8].attempts != 0 {
			b.Fatalf("attempts counted after Retry = %d; want 0", runs[8].attempts)
		}
	})
}

func TestBackoffBoundsAndJitter(t *testing.T) {
	t.Parallel()
	p := Policy{MaxAttempts: 10, BackoffMin: time.Second, BackoffMax: time.Minute}
	for attempts := range 80 { // far beyond where doubling would overflow
		most := time.Minute
		if attempts < 6 {
			most = time.Second << attempts
		}
		seen := map[time.Duration]bool{}
		for range 50 {
			d := p.backoff(attempts)
			if d < most/2 || d > most {
				t.Fatalf("backoff(%d) = %v; want between %v and %v", attempts, d, most/2, most)
			}
			seen[d] = true
		}
		if len(seen) < 40 {
			t.Fatalf("backoff(%d) took %d values of 50; want them spread", attempts, len(seen))
		}
	}
}

func TestRetryAfterOfAnOutageIsHeeded(t *testing.T) {
	t.Parallel()
	now := time.Now()
	err := fmt.Errorf("storage: %w", fault.New(fault.Unavailable, fault.ReasonUpstreamUnavailable,
		"down").After(time.Hour))
	f := policy.Failure(mirror.Lease{Attempts: 2}, err, now)
	if f.Uncounted || f.Final || !f.NotBefore.Equal(now.Add(time.Hour)) {
		t.Fatalf("Failure = %+v; want an attempt, and the next one in an hour", f)
	}
}

func TestPanicIsAFailedAttempt(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		handler := func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			if lease.Resource == resource(0) && lease.Attempts == 0 {
				panic("broken invariant")
			}
			return b.tasks.apply(ctx, lease)
		}
		b.tasks.raise(time.Now(), resources(3)...)
		b.start(handler, func(c *Config) { c.Workers, c.Fetches = 1, 1 })
		b.wantDone(resource(1), resource(2))
		if s := b.tasks.state(resource(0)); s.Attempts != 1 || s.LeaseUntil.After(time.Now()) || s.LastError == "" {
			b.Fatalf("state after a panic = %+v; want one attempt counted and the lease given back", s)
		}
		if !strings.Contains(b.log.String(), "broken invariant") || !strings.Contains(b.log.String(), "stack=") {
			b.Fatalf("log = %s; want the panic and its stack", b.log.String())
		}
		pass(backoffMin)
		b.wantDone(resource(0))
	})
}

func TestStopLetsWorkFinish(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		h := newHeld(b.tasks)
		rest := resources(3)
		b.tasks.raise(time.Now(), rest...)
		_, stop := b.start(h.do, func(c *Config) { c.Workers, c.Fetches, c.StopGrace = 2, 2, 10*time.Second })
		synctest.Wait()
		time.AfterFunc(9*time.Second, func() { close(h.release) })
		begun := time.Now()
		stop()
		if took := time.Since(begun); took != 9*time.Second {
			b.Fatalf("stop took %v; want until the work was done after 9 s", took)
		}
		for _, run := range b.wantRuns(2) {
			b.wantDone(run.resource)
			rest = slices.DeleteFunc(rest, func(r mirror.Resource) bool { return r == run.resource })
		}
		if s := b.tasks.state(rest[0]); s.Due.IsZero() || s.LeaseUntil.After(time.Now()) {
			b.Fatalf("state of what was not begun = %+v; want it due and free", s)
		}
	})
}

func TestStopCutsWorkAfterTheGraceAndGivesItBack(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		h := newHeld(b.tasks)
		b.tasks.raise(time.Now(), resource(0))
		_, stop := b.start(h.do, func(c *Config) {
			c.StopGrace, c.Policy.MaxAttempts = 10*time.Second, 1
		})
		synctest.Wait()
		begun := time.Now()
		stop()
		if took := time.Since(begun); took != 10*time.Second {
			b.Fatalf("stop took %v; want the grace of 10 s", took)
		}
		if s := b.tasks.state(resource(0)); s.Attempts != 0 || s.Due.IsZero() || !s.LeaseUntil.IsZero() {
			b.Fatalf("state of what was cut = %+v; want it due, free and without an attempt", s)
		}
		// Another replica need not wait for the lease to end.
		b.start(nil, nil)
		b.wantDone(resource(0))
		if time.Since(begun) != 10*time.Second {
			b.Fatal("the other replica had to wait")
		}
	})
}

func TestStopAtOnceWithoutWork(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		_, stop := b.start(nil, nil)
		synctest.Wait()
		begun := time.Now()
		stop()
		if took := time.Since(begun); took != 0 {
			b.Fatalf("stop took %v; want it at once", took)
		}
	})
}

func TestChangedEpochIsDoneAnew(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		handler := func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			if len(b.attempts()) < 4 {
				return mirror.Applied{}, fmt.Errorf("apply storage: %w", store.ErrEpochChanged)
			}
			return b.tasks.apply(ctx, lease)
		}
		b.tasks.raise(time.Now(), resource(0))
		begun := time.Now()
		b.start(handler, func(c *Config) { c.Policy.MaxAttempts = 1 })
		b.wantDone(resource(0))
		for _, run := range b.wantRuns(4) {
			if run.at != begun || run.attempts != 0 {
				b.Fatalf("run = %+v; want each at once and none counted", run)
			}
		}
	})
}

func TestPushesDuringATaskLeadToOneMore(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		h := newHeld(b.tasks)
		pool, _ := b.start(h.do, nil)
		b.due(pool, resource(0))
		b.wantRuns(1)
		for range 1000 {
			b.due(pool, resource(0))
		}
		pass(time.Minute)
		b.wantRuns(1) // it is running, and its lease is held
		close(h.release)
		b.wantDone(resource(0))
		b.wantRuns(2)
		if s := b.tasks.state(resource(0)); s.Applied != 1001 {
			b.Fatalf("applied generation = %d; want 1001", s.Applied)
		}
	})
}

func TestPushesBeforeATaskLeadToOne(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		pool, _ := b.start(nil, nil)
		b.limiter.close()
		for range 1000 {
			b.due(pool, resource(0))
		}
		synctest.Wait()
		b.limiter.open()
		b.wantDone(resource(0))
		b.wantRuns(1)
	})
}

func TestWokenResourcesAreDone(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		room := mirror.Resource{Project: project, Room: "room-1", Kind: mirror.KindRoom}
		handler := func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			applied, err := b.tasks.apply(ctx, lease)
			if lease.Resource == room {
				b.tasks.raise(time.Now(), resource(1))
				applied.AlsoDue = []mirror.Resource{resource(1)}
			}
			return applied, err
		}
		begun := time.Now()
		pool, _ := b.start(handler, nil)
		b.due(pool, room)
		if runs := b.wantRuns(2); runs[1].resource != resource(1) || runs[1].at != begun {
			b.Fatalf("second run = %+v; want the woken resource at once", runs[1])
		}
	})
}

func TestWhatTheHandlerLeavesDueIsDoneThen(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		handler := func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			if err := b.tasks.enter(ctx, "Apply"); err != nil {
				return mirror.Applied{}, err
			}
			defer b.tasks.mu.Unlock()
			return b.tasks.write(lease, func(s store.State) store.State {
				s.Settle = len(b.attempts()) == 1 // as if an event had led to it
				return s.Succeed(lease, time.Now(), time.Now(), 42*time.Second)
			})
		}
		pool, _ := b.start(handler, nil)
		b.due(pool, resource(0))
		pass(24 * time.Hour)
		runs := b.wantRuns(2)
		if gap := runs[1].at.Sub(runs[0].at); gap != 42*time.Second {
			b.Fatalf("settle fetch came after %v; want 42 s", gap)
		}
	})
}

// What another replica left behind is found within the busy poll while there
// is work here, and at the safety poll otherwise.
func TestWorkOfOthersIsFound(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		pool, _ := b.start(nil, nil)
		pass(10 * time.Minute)
		b.due(pool, resource(0))
		synctest.Wait()
		left := time.Now()
		b.tasks.raise(left, resource(1)) // nobody tells us
		pass(20 * time.Minute)
		if runs := b.wantRuns(2); runs[1].at.Sub(left) != busyPoll {
			b.Fatalf("work of another replica found after %v; want the busy poll, %v", runs[1].at.Sub(left), busyPoll)
		}

		looked := left.Add(2 * busyPoll) // once more after what was found
		b.tasks.raise(time.Now(), resource(2))
		pass(2 * time.Hour)
		if runs := b.wantRuns(3); runs[2].at.Sub(looked) != safetyPoll {
			b.Fatalf("work of another replica found %v after the last look; want the safety poll, %v", runs[2].at.Sub(looked),
				safetyPoll)
		}
	})
}

// Invariant 13: with nothing to do, no query until the safety poll.
func TestIdleSendsNoQuery(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		pool, _ := b.start(nil, nil)
		synctest.Wait()
		b.due(pool, resources(10)...)
		b.wantDone(resources(10)...)
		pass(busyPoll) // the one look for what others left
		before := b.tasks.total()
		pass(safetyPoll - time.Nanosecond)
		if n := b.tasks.total() - before; n != 0 {
			b.Fatalf("store calls in an idle hour = %d; want 0", n)
		}
		pass(time.Nanosecond)
		if n := b.tasks.total() - before; n != 1 {
			b.Fatalf("store calls at the safety poll = %d; want 1", n)
		}
		pass(24*time.Hour - time.Nanosecond)
		if n := b.tasks.total() - before; n != 24 {
			b.Fatalf("store calls in an idle day = %d; want 24", n)
		}
	})
}

func TestNextDueTimeIsHonoured(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		begun := time.Now()
		b.tasks.raise(begun.Add(7*time.Minute), resource(0))
		b.tasks.raise(begun.Add(5*time.Minute), resource(1))
		b.start(nil, nil)
		pass(10 * time.Minute)
		runs := b.wantRuns(2)
		if runs[0].at.Sub(begun) != 5*time.Minute || runs[1].at.Sub(begun) != 7*time.Minute {
			b.Fatalf("runs = %v; want after 5 and 7 minutes", runs)
		}
		if n := b.tasks.count("Due"); n > 5 {
			b.Fatalf("looks for due work = %d; want no more than the start, two due times and a busy poll after each", n)
		}
	})
}

func TestPushedBeforeDueIsDoneWhenDue(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		begun := time.Now()
		pool, _ := b.start(nil, nil)
		synctest.Wait()
		b.tasks.raise(begun.Add(time.Minute), resource(0)) // a backoff stands in the way
		pool.Push(marked(resource(0)))
		pass(10 * time.Minute)
		if runs := b.wantRuns(1); runs[0].at.Sub(begun) != time.Minute {
			b.Fatalf("run after %v; want a minute", runs[0].at.Sub(begun))
		}
	})
}

func TestLooksAreKeptApart(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		b.start(nil, func(c *Config) { c.BusyPoll, c.SafetyPoll = time.Nanosecond, time.Nanosecond })
		pass(time.Second)
		if n := b.tasks.count("Due"); n < 4 || n > 5 {
			b.Fatalf("looks in a second = %d; want one every %v", n, scanGap)
		}
	})
}

func TestMoreThanOneLookHolds(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		all := resources(3*scanLimit + 1)
		b.tasks.raise(time.Now(), all...)
		b.start(nil, nil)
		pass(time.Second)
		b.wantDone(all...)
	})
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		pool, _ := b.start(nil, nil)
		synctest.Wait()
		b.limiter.close()
		all := resources(memoryLimit + 500)
		b.tasks.raise(time.Now(), all...)
		pool.Push(marked(all...))
		pool.Push(marked(all...))
		synctest.Wait()
		pool.mu.Lock()
		ready, queued := pool.lines.count[laneLive], len(pool.lines.queued)
		pool.mu.Unlock()
		if ready != memoryLimit || queued != memoryLimit {
			b.Fatalf("remembered = %d and %d; want the limit, %d", ready, queued, memoryLimit)
		}
		b.limiter.open()
		pass(busyPoll)
		b.wantDone(all...) // what was not remembered is found in the database
		pool.mu.Lock()
		defer pool.mu.Unlock()
		known := len(pool.lines.queued) + len(pool.running) + len(pool.waiters) + len(pool.inRoom)
		if known+pool.workers.held+pool.fetches.held != 0 {
			b.Fatal("something is still remembered after all is done")
		}
	})
}

// While one of several shards is away, what the others have is done, and all are asked
// again every busy poll.
func TestShardOutage(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		b.tasks.raise(time.Now(), resource(0))
		b.tasks.failing(func(call string) error {
			if call == "Due of a shard" {
				return fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "a shard is not available")
			}
			return nil
		})
		b.start(b.tasks.apply, nil)
		pass(time.Minute)
		b.wantDone(resource(0))
		if n := b.tasks.count("Due"); n < 19 || n > 21 {
			b.Fatalf("searches in a minute = %d; want one every busy poll", n)
		}
	})
}

// A database that is away is asked again every busy poll, and nothing is lost.
func TestStoreOutage(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"Due", "Claim", "Fail"} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(b *bench) {
				down := fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "the database is not available")
				handler := func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
					if call == "Fail" && len(b.attempts()) == 1 {
						return mirror.Applied{}, errors.New("broken")
					}
					return b.tasks.apply(ctx, lease)
				}
				b.tasks.raise(time.Now(), resource(0))
				b.tasks.failing(func(c string) error {
					if c == call {
						return down
					}
					return nil
				})
				b.start(handler, nil)
				pass(time.Minute)
				if n := b.tasks.count(call); n < 1 || n > 21 {
					b.Fatalf("calls of %s in a minute of outage = %d; want at most one every busy poll", call, n)
				}
				b.tasks.failing(nil)
				pass(leaseTTL)
				b.wantDone(resource(0))
			})
		})
	}
}

// A process that lives through outages of its database gives its leases back after each:
// they are no deaths, after some of which the task would fail for good.
func TestStoreOutagesAreNoDeaths(t *testing.T) {
	t.Parallel()
	for how, down := range map[string]error{
		"refuses": fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "the database is not available"),
		"hangs":   errHangs,
	} {
		for _, lost := range []string{
			"Apply", // then nothing is recorded
			"Claim", // the database has leased the task
		} {
			t.Run(lost+" "+how, func(t *testing.T) {
				t.Parallel()
				bubble(t, func(b *bench) {
					var out, over atomic.Bool
					b.tasks.late = func(call string) error {
						if call == lost && !over.Load() && out.CompareAndSwap(false, true) {
							return down
						}
						return nil
					}
					b.tasks.failing(func(string) error {
						if out.Load() {
							return down
						}
						return nil
					})
					pool, _ := b.start(func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
						if lease.Deaths != 0 {
							b.Errorf("the task counts %d deaths of a process that lives", lease.Deaths)
						}
						if err := hanging(ctx, b.tasks.late("Apply")); err != nil {
							return mirror.Applied{}, err
						}
						return b.tasks.apply(ctx, lease)
					}, func(c *Config) { c.Policy.MaxAttempts = 100 })
					for range store.MaxDeaths + store.MaxDeathsAlone + 1 {
						out.Store(false)
						b.due(pool, resource(0))
						pass(2 * time.Minute)
						if !out.Load() {
							b.Fatal("there was no outage")
						}
						pass(2 * leaseTTL)
					}
					over.Store(true)
					out.Store(false)
					pass(2 * time.Minute)
					b.wantDone(resource(0))
				})
			})
		}
	}
}

// What waits while the database refuses connections is begun in vain. That leaves the
// leases remembered which are held.
func TestHeldLeasesAreGivenBackAfterAnOutage(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		h := newHeld(b.tasks)
		pool, stop := b.start(h.do, nil)
		b.due(pool, resources(2)...)
		synctest.Wait()
		b.tasks.failing(func(string) error {
			return fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "the database is not available")
		})
		for i := range 10 * (workers + fetches) {
			pool.Push([]mirror.Pending{{Resource: resource(2 + i)}})
		}
		pass(time.Second)
		close(h.release)
		pass(2 * leaseTTL)
		b.tasks.failing(nil)
		stop() // it is given back even so
		for _, r := range resources(2) {
			if s := b.tasks.state(r); !s.LeaseUntil.IsZero() {
				b.Errorf("the lease of %v is not given back", r)
			}
		}
	})
}

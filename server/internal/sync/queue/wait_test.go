package queue

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// waiting calls Wait in the background and hands its answer over.
func waiting(ctx context.Context, p *Pool, pending ...mirror.Pending) <-chan error {
	done := make(chan error, 1)
	go func() { done <- p.Wait(ctx, pending) }() // whoever receives waits for it
	synctest.Wait()
	return done
}

func (b *bench) wantWaiting(done <-chan error) {
	b.Helper()
	synctest.Wait()
	select {
	case err := <-done:
		b.Fatalf("Wait = %v already; want it to go on", err)
	default:
	}
}

func (b *bench) forgotten(pool *Pool) {
	b.Helper()
	pool.mu.Lock()
	defer pool.mu.Unlock()
	if len(pool.waiters) != 0 {
		b.Fatalf("waiters remembered = %d; want none", len(pool.waiters))
	}
}

// Work done here wakes who waits at once, without a query.
func TestWaitForWorkDoneHere(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		h := newHeld(b.tasks)
		pool, _ := b.start(h.do, nil)
		b.due(pool, resources(2)...)
		done := waiting(b.Context(), pool, mirror.Pending{Resource: resource(0), Generation: 1},
			mirror.Pending{Resource: resource(1), Generation: 1})
		begun := time.Now()
		close(h.release)
		if err := <-done; err != nil {
			b.Fatalf("Wait = %v", err)
		}
		if took := time.Since(begun); took != 0 {
			b.Fatalf("Wait took %v after the work was done; want none", took)
		}
		if n := b.tasks.count("Generations"); n != 0 {
			b.Fatalf("queries = %d; want 0", n)
		}
		b.forgotten(pool)
	})
}

// Generations decide: the end of an older fetch is not the end of the wait.
func TestWaitForTheGenerationMeant(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		hold := make(chan struct{})
		handler := func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			<-hold
			return b.tasks.apply(ctx, lease)
		}
		pool, _ := b.start(handler, nil)
		b.due(pool, resource(0))
		synctest.Wait()
		b.due(pool, resource(0)) // while the first is under way
		done := waiting(b.Context(), pool, mirror.Pending{Resource: resource(0), Generation: 2})
		hold <- struct{}{}
		pass(time.Second)
		b.wantWaiting(done)
		hold <- struct{}{}
		if err := <-done; err != nil {
			b.Fatalf("Wait = %v", err)
		}
	})
}

func TestWaitForWorkDoneElsewhere(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		pool, _ := b.start(nil, nil)
		synctest.Wait()
		b.tasks.raise(time.Now(), resource(0))
		done := waiting(b.Context(), pool, mirror.Pending{Resource: resource(0), Generation: 1})
		pass(10 * time.Second)
		b.wantWaiting(done)
		b.start(nil, nil) // the other replica
		begun := time.Now()
		if err := <-done; err != nil {
			b.Fatalf("Wait = %v", err)
		}
		if took := time.Since(begun); took > waitPoll {
			b.Fatalf("Wait took %v after the work was done; want no more than %v", took, waitPoll)
		}
		b.forgotten(pool)
	})
}

func TestWaitForWhatIsDoneAlready(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		pool, _ := b.start(nil, nil)
		b.due(pool, resource(0))
		b.wantDone(resource(0))
		if err := pool.Wait(b.Context(), []mirror.Pending{{Resource: resource(0), Generation: 1}}); err != nil {
			b.Fatalf("Wait = %v", err)
		}
		if err := pool.Wait(b.Context(), nil); err != nil {
			b.Fatalf("Wait for nothing = %v", err)
		}
	})
}

func TestWaitFails(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		denied := fault.New(fault.Precondition, fault.ReasonUpstreamAccessDenied, "denied")
		handler := func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			if lease.Generation == 1 {
				return b.tasks.apply(ctx, lease)
			}
			return mirror.Applied{}, denied
		}
		pool, _ := b.start(handler, nil)
		b.due(pool, resources(2)...)
		b.wantDone(resources(2)...)
		b.due(pool, resource(0))
		err := pool.Wait(b.Context(), []mirror.Pending{
			{Resource: resource(1), Generation: 1},
			{Resource: resource(0), Generation: 2},
		})
		if !fault.Is(err, fault.ReasonRefreshFailed) || fault.Of(err).Kind != fault.Unavailable {
			b.Fatalf("Wait = %v; want REFRESH_FAILED", err)
		}
		// That a later generation failed does not concern who waits for an earlier.
		if err := pool.Wait(b.Context(), []mirror.Pending{{Resource: resource(0), Generation: 1}}); err != nil {
			b.Fatalf("Wait for what was applied before the failure = %v", err)
		}
		b.forgotten(pool)
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		h := newHeld(b.tasks)
		pool, _ := b.start(h.do, nil)
		b.due(pool, resource(0))
		ctx, cancel := context.WithTimeout(b.Context(), 5*time.Second)
		defer cancel()
		begun := time.Now()
		err := pool.Wait(ctx, []mirror.Pending{{Resource: resource(0), Generation: 1}})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != 5*time.Second {
			b.Fatalf("Wait = %v after %v; want the deadline after 5 s", err, time.Since(begun))
		}
		b.forgotten(pool)
		why := errors.New("hung up")
		ctx2, cut := context.WithCancelCause(b.Context())
		cut(why)
		if err := pool.Wait(ctx2, []mirror.Pending{{Resource: resource(0), Generation: 1}}); !errors.Is(err, why) {
			b.Fatalf("Wait = %v; want the cause, %v", err, why)
		}
		close(h.release)
	})
}

func TestWaitTellsOfTheStore(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		pool, _ := b.start(nil, nil)
		down := fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "the database is not available")
		b.tasks.failing(func(string) error { return down })
		if err := pool.Wait(b.Context(), []mirror.Pending{{Resource: resource(0), Generation: 1}}); !errors.Is(err, down) {
			b.Fatalf("Wait = %v; want %v", err, down)
		}
		if err := pool.Refresh(b.Context(), resource(0)); !errors.Is(err, down) {
			b.Fatalf("Refresh = %v; want %v", err, down)
		}
	})
}

func TestRefreshFetchesAnew(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		pool, _ := b.start(nil, nil)
		for i := range 3 {
			if err := pool.Refresh(b.Context(), resources(2)...); err != nil {
				b.Fatalf("Refresh = %v", err)
			}
			b.wantRuns(2 * (i + 1))
		}
	})
}

func TestRetryTellsWhatIsNotThere(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		pool, _ := b.start(nil, nil)
		if _, err := pool.Retry(b.Context(), resource(0)); !errors.Is(err, store.ErrNotFound) {
			b.Fatalf("Retry of an unknown task = %v; want ErrNotFound", err)
		}
		b.due(pool, resource(0))
		b.wantDone(resource(0))
		if _, err := pool.Retry(b.Context(), resource(0)); !errors.Is(err, store.ErrNotDue) {
			b.Fatalf("Retry of a task that is done = %v; want ErrNotDue", err)
		}
	})
}

// What another replica may do is asked for now and then; what is done here is not.
func TestWaitAsksOnlyAboutOthersWork(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		h := newHeld(b.tasks)
		pool, _ := b.start(h.do, nil)
		b.due(pool, resource(0))
		done := waiting(b.Context(), pool, mirror.Pending{Resource: resource(0), Generation: 1})
		pass(10 * time.Second)
		b.wantWaiting(done)
		if n := b.tasks.count("Generations"); n != 0 {
			b.Fatalf("queries while the work is done here = %d; want 0", n)
		}
		b.tasks.raise(time.Now(), resource(1))
		other := waiting(b.Context(), pool, mirror.Pending{Resource: resource(1), Generation: 1})
		pass(time.Second)
		b.wantWaiting(other)
		if n := b.tasks.count("Generations"); n != 1+int(time.Second/waitPoll) {
			b.Fatalf("queries in a second about the work of others = %d; want one at once, and one every %v", n, waitPoll)
		}
		close(h.release)
		pool.Push(marked(resource(1)))
		for _, c := range []<-chan error{done, other} {
			if err := <-c; err != nil {
				b.Fatalf("Wait = %v", err)
			}
		}
	})
}

// A pause ends what waits for a fetch at once, and keeps it from beginning.
func TestPauseEndsWaits(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		h := newHeld(b.tasks)
		pool, _ := b.start(h.do, nil)
		refresh, await := make(chan error, 1), make(chan error, 1)
		b.due(pool, resource(0))
		awaited := []mirror.Pending{{Resource: resource(0), Generation: 1}}
		go func() { refresh <- pool.Refresh(b.Context(), resource(1)) }() // received below
		go func() { await <- pool.Await(b.Context(), awaited) }()         // received below
		synctest.Wait()
		begun := time.Now()
		b.limiter.pause()
		for name, c := range map[string]chan error{"Refresh": refresh, "Await": await} {
			if err := <-c; !fault.Is(err, fault.ReasonProjectPaused) || time.Since(begun) != 0 {
				b.Errorf("%s = %v after %v; want PROJECT_PAUSED at once", name, err, time.Since(begun))
			}
		}
		before := b.tasks.total()
		if err := pool.Refresh(b.Context(), resource(2)); !fault.Is(err, fault.ReasonProjectPaused) {
			b.Errorf("Refresh = %v; want PROJECT_PAUSED", err)
		}
		if err := pool.Await(b.Context(), awaited); !fault.Is(err, fault.ReasonProjectPaused) {
			b.Errorf("Await = %v; want PROJECT_PAUSED", err)
		}
		if n := b.tasks.total() - before; n != 0 {
			b.Errorf("queries while paused = %d; want 0", n)
		}
		b.forgotten(pool)
		close(h.release)
	})
}

// Who waits for a resource of a kind that Liveblocks does not have learns that, and a
// repeated delivery does not wait for it.
func TestUnsupportedIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		pool, _ := b.start(func(context.Context, mirror.Lease) (mirror.Applied, error) {
			return mirror.Applied{}, fault.New(fault.Precondition, fault.ReasonUpstreamUnsupported, "not here").
				With("status", "501")
		}, nil)
		want := []mirror.Pending{{Resource: resource(0), Generation: 1}}
		done := waiting(b.Context(), pool, want...)
		b.due(pool, resource(0))
		if err := <-done; !fault.Is(err, fault.ReasonRefreshFailed) {
			b.Fatalf("Wait = %v; want REFRESH_FAILED", err)
		}
		s := b.tasks.state(resource(0))
		if s.TaskState(time.Now()) != mirror.TaskWaiting || s.Attempts != 0 ||
			s.LastError != "UPSTREAM_UNSUPPORTED: not here (HTTP status 501)" {
			b.Fatalf("state = %+v; want it waiting without an attempt, and why", s)
		}
		runs := len(b.attempts())
		if err := pool.Await(b.Context(), want); err != nil || len(b.attempts()) != runs {
			b.Fatalf("Await = %v after %d runs; want no error and none", err, len(b.attempts())-runs)
		}
		if err := pool.Wait(b.Context(), want); !fault.Is(err, fault.ReasonRefreshFailed) {
			b.Fatalf("Wait where the task does not run = %v; want REFRESH_FAILED", err)
		}
		// With the next event it is tried again.
		b.due(pool, resource(0))
		synctest.Wait()
		if len(b.attempts()) != runs+1 {
			b.Fatalf("runs = %d; want %d", len(b.attempts()), runs+1)
		}
	})
}

// A repeated delivery waits for what failed, and has it tried again.
func TestAwaitTriesAgain(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		var broken atomic.Bool
		broken.Store(true)
		handler := func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			if broken.Load() {
				return mirror.Applied{}, fault.New(fault.Precondition, fault.ReasonUpstreamAccessDenied, "denied")
			}
			return b.tasks.apply(ctx, lease)
		}
		pool, _ := b.start(handler, nil)
		b.due(pool, resource(0))
		want := []mirror.Pending{{Resource: resource(0), Generation: 1}}
		if err := pool.Await(b.Context(), want); !fault.Is(err, fault.ReasonRefreshFailed) {
			b.Fatalf("Await = %v; want REFRESH_FAILED", err)
		}
		broken.Store(false)
		if err := pool.Await(b.Context(), want); err != nil {
			b.Fatalf("Await of what had failed = %v", err)
		}
		b.wantDone(resource(0))
		runs := len(b.attempts())
		if err := pool.Await(b.Context(), want); err != nil || len(b.attempts()) != runs {
			b.Fatalf("Await of what is done = %v after %d runs; want none", err, len(b.attempts())-runs)
		}
	})
}

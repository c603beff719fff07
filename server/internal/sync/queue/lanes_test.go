package queue

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// sweep is the one task that has a worker of its own.
var sweep = mirror.Resource{Project: project, Kind: mirror.KindSweep}

// taking is a handler that takes its time for each task.
func (b *bench) taking(d time.Duration) Apply {
	return func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
		work := time.NewTimer(d)
		defer work.Stop()
		select {
		case <-work.C:
			return b.tasks.apply(ctx, lease)
		case <-ctx.Done():
			return mirror.Applied{}, ctx.Err()
		}
	}
}

// background makes resources due as a sweep does.
func (b *bench) background(resources ...mirror.Resource) {
	b.tasks.request(time.Now(), true, resources)
}

// begun is after how long a resource's first run began.
func (b *bench) begun(since time.Time, r mirror.Resource) time.Duration {
	b.Helper()
	synctest.Wait()
	for _, run := range b.attempts() {
		if run.resource == r {
			return run.at.Sub(since)
		}
	}
	b.Fatalf("%v was never begun", r)
	return 0
}

// What is wanted at once begins when the first worker is free, however much there
// is to do in the background, and wherever it came up.
func TestLiveWorkGoesFirst(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		push bool
		// within is the longest that it may take from 10.5 s on.
		within time.Duration
	}{
		"raised here":               {push: true, within: 500 * time.Millisecond},
		"raised by another replica": {within: busyPoll + time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(b *bench) {
				all := resources(2000)
				b.background(all...)
				begun := time.Now()
				pool, _ := b.start(b.taking(time.Second), func(c *Config) { c.Workers, c.Fetches = 2, 2 })
				pass(10*time.Second + 500*time.Millisecond)
				live := resource(5000)
				b.tasks.raise(time.Now(), live)
				if c.push {
					pool.Push(marked(live))
				}
				pass(time.Minute)
				if after := b.begun(begun, live) - 10*time.Second - 500*time.Millisecond; after > c.within {
					b.Fatalf("begun %v after it was raised; want at most %v", after, c.within)
				}
				pass(time.Hour)
				b.wantDone(all...)
				b.wantDone(live)
			})
		})
	}
}

// A rate that lets less through than the workers could do holds back the
// background alone.
func TestLiveWorkGoesFirstThroughASlowLimiter(t *testing.T) {
	t.Parallel()
	for name, push := range map[string]bool{"raised here": true, "raised by another replica": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(b *bench) {
				b.background(resources(2000)...)
				pool, _ := b.start(nil, func(c *Config) { c.Limiter = paced{time.Second} })
				pass(10*time.Second + 500*time.Millisecond)
				live, pending := resource(5000), time.Now()
				b.tasks.raise(pending, live)
				if push {
					pool.Push(marked(live))
				}
				pass(time.Minute)
				want := time.Second
				if !push {
					want += busyPoll
				}
				if after := b.begun(pending, live); after > want {
					b.Fatalf("begun %v after it was raised; want at most %v", after, want)
				}
			})
		})
	}
}

// paced lets one piece of work through each time.
type paced struct{ gap time.Duration }

func (paced) UntilPaused(ctx context.Context) (context.Context, func()) {
	return context.WithCancel(ctx)
}

func (paced) WithTurn(ctx context.Context) (context.Context, func() bool) { return withTurn(ctx) }

func (paced) WithoutTurn(ctx context.Context) context.Context { return withoutTurn(ctx) }

func (p paced) Wait(ctx context.Context) error {
	timer := time.NewTimer(p.gap)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// An event for what waits in the background makes it urgent, and it is still done
// once.
func TestLiveWorkOvertakesItself(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		b.background(resource(200))
		pool, _ := b.start(b.taking(time.Second), func(c *Config) { c.Workers, c.Fetches = 1, 1 })
		pass(500 * time.Millisecond)
		all := resources(100)
		b.background(all...)
		pool.PushBackground(marked(all...))
		b.due(pool, resource(50), resource(60))
		b.due(pool, resource(200))                               // which is running
		pool.PushBackground(marked(resource(50), resource(200))) // does not make them less urgent
		pass(time.Hour)
		runs := b.wantRuns(102)
		for i, want := range []mirror.Resource{resource(200), resource(50), resource(60), resource(200)} {
			if runs[i].resource != want {
				b.Fatalf("run %d = %v; want what became urgent, %v", i, runs[i].resource, want)
			}
		}
		b.wantDone(all...)
	})
}

// What a task of the background wakes is of the background as well, and so is the
// rest of its own work.
func TestWokenInTheBackgroundStaysThere(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		child := resource(900)
		handler := func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			applied, err := b.taking(time.Second)(ctx, lease)
			if lease.Resource == resource(0) && lease.Applied == 0 {
				b.background(child)
				applied.AlsoDue = []mirror.Resource{child}
				b.background(lease.Resource)
				applied.Due = time.Now()
			}
			return applied, err
		}
		b.background(resource(0))
		swept := make(chan mirror.Resource, 10)
		pool, _ := b.start(handler, func(c *Config) {
			c.Workers, c.Fetches = 1, 1
			c.Swept = func(lease mirror.Lease, _ mirror.Applied) { swept <- lease.Resource }
		})
		pass(500 * time.Millisecond)
		b.due(pool, resources(4)[1:]...)
		pass(time.Minute)
		runs := b.wantRuns(6)
		for i, run := range runs[1:4] {
			if run.resource == child || run.resource == resource(0) {
				b.Fatalf("run %d = %v; want what was wanted at once before it", i+1, run.resource)
			}
		}
		b.wantDone(child, resource(0))
		close(swept)
		told := make(map[mirror.Resource]int)
		for r := range swept {
			told[r]++
		}
		if len(told) != 2 || told[child] != 1 || told[resource(0)] != 2 {
			b.Fatalf("told of = %v; want what was of the background", told)
		}
	})
}

// The sweep takes minutes: neither does it keep the only worker from anything else,
// nor does it wait until the others have nothing to do.
func TestSweepHasAWorkerOfItsOwn(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		handler := func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			if lease.Resource == sweep {
				return b.taking(10*time.Minute)(ctx, lease)
			}
			return b.taking(time.Second)(ctx, lease)
		}
		pool, _ := b.start(handler, func(c *Config) { c.Workers, c.Fetches = 1, 1 })
		b.due(pool, resources(60)...)
		pass(500 * time.Millisecond)
		pending := time.Now()
		b.background(sweep)
		pool.PushBackground(marked(sweep))
		if after := b.begun(pending, sweep); after != 0 {
			b.Fatalf("sweep begun after %v; want at once", after)
		}
		pass(time.Minute)
		b.wantDone(resources(60)...)
		b.due(pool, resource(70))
		pass(time.Second)
		b.wantDone(resource(70))
		if s := b.tasks.state(sweep); s.Applied != 0 {
			b.Fatal("the sweep was over too early for this test")
		}
		pass(10 * time.Minute)
		b.wantDone(sweep)
	})
}

// A background that does not fit into memory is bounded there, and is done to its
// end without asking the database all the time.
func TestBackgroundIsBoundedAndDone(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		all := resources(memoryLimit + 2000)
		pool, _ := b.start(b.taking(10*time.Millisecond), nil)
		synctest.Wait()
		b.background(all...)
		pool.PushBackground(marked(all...))
		pool.PushBackground(marked(all...))
		pool.mu.Lock()
		ready, queued := pool.lines.count[laneBackground], len(pool.lines.queued)
		pool.mu.Unlock()
		if ready > memoryLimit || queued > memoryLimit || ready < memoryLimit-workers {
			b.Fatalf("remembered = %d and %d; want the limit, %d", ready, queued, memoryLimit)
		}
		before := b.tasks.count("Due")
		pass(20 * time.Second)
		if looks, most := b.tasks.count("Due")-before, int(20*time.Second/busyPoll)+1; looks > most {
			b.Fatalf("looks for due work in 20 s = %d; want at most %d, as the lane is full", looks, most)
		}
		pass(20 * time.Second)
		for _, r := range all {
			if b.tasks.state(r).Applied == 0 {
				b.Fatalf("%q is not done in half as much time again as all of it needs", r.Room)
			}
		}
		if pool.mu.Lock(); len(pool.lines.queued)+len(pool.running) != 0 {
			b.Error("something is still remembered after all is done")
		}
		pool.mu.Unlock()
	})
}

// settling makes settle fetches of resources due.
func (b *bench) settling(resources ...mirror.Resource) {
	b.tasks.mu.Lock()
	defer b.tasks.mu.Unlock()
	for _, r := range resources {
		b.tasks.states[r] = store.State{Generation: 1, Applied: 1, Due: time.Now()}
	}
}

// What is stale goes before what has been applied and is only fetched once more, also if
// Liveblocks has refused it at first.
func TestStaleGoesBeforeSettleFetches(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		push, refuse bool
		// within is the longest that it may take.
		within time.Duration
	}{
		"pushed":             {push: true, within: 20 * time.Millisecond},
		"pushed and refused": {push: true, refuse: true, within: 2*time.Second + 20*time.Millisecond},
		"found":              {within: busyPoll + 20*time.Millisecond},
		"found and refused":  {refuse: true, within: busyPoll + 2*time.Second + 20*time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(b *bench) {
				late := resource(5000)
				handler := func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
					if lease.Resource == late && c.refuse {
						c.refuse = false
						return mirror.Applied{}, fault.New(fault.Busy, fault.ReasonUpstreamRateLimited, "429").After(2 * time.Second)
					}
					return b.taking(20*time.Millisecond)(ctx, lease)
				}
				again := resources(scanLimit - 10)
				b.settling(again...)
				pool, _ := b.start(handler, func(c *Config) { c.Workers, c.Fetches = 1, 1 })
				pass(time.Second)
				begun := time.Now()
				b.tasks.raise(begun, late)
				if c.push {
					pool.Push(marked(late))
				}
				pass(time.Minute)
				runs := b.attempts()
				slices.Reverse(runs)
				last := runs[slices.IndexFunc(runs, func(a attempt) bool { return a.resource == late })]
				if after := last.at.Sub(begun); after > c.within {
					b.Fatalf("begun %v after it became stale; want at most %v", after, c.within)
				}
				b.wantDone(again...)
			})
		})
	}
}

// Settle fetches wait longer than others, but not for ever.
func TestSettleFetchesAreNotStarved(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		pool, _ := b.start(b.taking(20*time.Millisecond), func(c *Config) { c.Workers, c.Fetches = 1, 1 })
		again, begun := resource(5000), time.Now()
		b.settling(again)
		for i := range 2000 { // twice as much as can be done
			b.due(pool, resource(i))
			pass(10 * time.Millisecond)
		}
		pass(time.Minute)
		// What became due before the end of its patience takes twice as long.
		after := b.begun(begun, again)
		if after < settlePatience || after > 2*settlePatience+busyPoll {
			b.Fatalf("begun after %v; want it after %v at least and %v at most", after, settlePatience, 2*settlePatience)
		}
		b.wantDone(resources(2000)...)
	})
}

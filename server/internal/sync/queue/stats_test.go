package queue

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// Each attempt is told with how it ended.
func TestEveryAttemptIsTold(t *testing.T) {
	t.Parallel()
	for want, handler := range map[Result]func(b *bench) Apply{
		Applied: func(*bench) Apply { return nil },
		Parked: func(b *bench) Apply {
			b.tasks.epoch = 0
			return nil
		},
		Retried: func(*bench) Apply {
			return func(context.Context, mirror.Lease) (mirror.Applied, error) {
				return mirror.Applied{}, errors.New("odd")
			}
		},
		Postponed: func(*bench) Apply {
			return func(context.Context, mirror.Lease) (mirror.Applied, error) {
				return mirror.Applied{}, fault.New(fault.Busy, fault.ReasonUpstreamRateLimited, "slow down")
			}
		},
		Failed: func(*bench) Apply {
			return func(context.Context, mirror.Lease) (mirror.Applied, error) {
				return mirror.Applied{}, fault.New(fault.Invalid, fault.ReasonIDInvalid, "never")
			}
		},
		Unsupported: func(*bench) Apply {
			return func(context.Context, mirror.Lease) (mirror.Applied, error) {
				return mirror.Applied{}, fault.New(fault.Precondition, fault.ReasonUpstreamUnsupported, "never")
			}
		},
		Lost: func(*bench) Apply {
			return func(context.Context, mirror.Lease) (mirror.Applied, error) {
				return mirror.Applied{}, store.ErrLeaseLost
			}
		},
	} {
		t.Run(string(want), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(b *bench) {
				var mu sync.Mutex
				var told []Attempt
				pool, stop := b.start(handler(b), func(cfg *Config) {
					cfg.Ended = func(a Attempt) {
						mu.Lock()
						defer mu.Unlock()
						told = append(told, a)
					}
				})
				b.due(pool, resource(0))
				pass(time.Millisecond)
				stop()
				mu.Lock()
				defer mu.Unlock()
				if len(told) != 1 || told[0].Result != want || told[0].Lease.Resource != resource(0) {
					t.Errorf("told = %+v; want one attempt that ended %q", told, want)
				}
			})
		})
	}
}

// A sweep, and what it has requested, may take hours: no change is late because of that.
func TestSweepsAreNotLate(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		h := newHeld(b.tasks)
		pool, _ := b.start(h.do, nil)
		b.due(pool, mirror.Resource{Project: project, Kind: mirror.KindSweep})
		pool.PushBackground(marked(resources(fetches + 3)...))
		pass(time.Minute)
		if got := pool.Stats().OldestDue; !got.IsZero() {
			b.Errorf("OldestDue = %v; want none: only a sweep goes on", got)
		}
		close(h.release)
		pass(time.Second)
	})
}

// What the pool has in memory is told by lane: what waits, what runs, and since when the
// oldest is due.
func TestStats(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		h := newHeld(b.tasks)
		pool, _ := b.start(h.do, nil)
		begun := time.Now()
		b.due(pool, resources(fetches)...)
		pass(time.Minute)
		sweep := mirror.Resource{Project: project, Kind: mirror.KindSweep}
		b.due(pool, append(resources(fetches + 3)[fetches:], sweep)...)
		pool.PushBackground(marked(resource(50), resource(51)))
		pass(0)
		want := Stats{
			Lanes: []Lane{
				{Name: "sweep", Running: 1},
				{Name: "live", Queued: 3, Running: fetches},
				{Name: "settle"},
				{Name: "background", Queued: 2},
			},
			OldestDue: begun,
		}
		if diff := cmp.Diff(want, pool.Stats()); diff != "" {
			b.Errorf("Stats (-want +got):\n%s", diff)
		}
		close(h.release)
		pass(time.Second)
		want.Lanes = []Lane{{Name: "sweep"}, {Name: "live"}, {Name: "settle"}, {Name: "background"}}
		want.OldestDue = time.Time{}
		if diff := cmp.Diff(want, pool.Stats()); diff != "" {
			b.Errorf("Stats once all is done (-want +got):\n%s", diff)
		}
	})
}

// Freshness is that of changes that an event announced, from the change on.
func TestAnnounced(t *testing.T) {
	t.Parallel()
	notice := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	change, fetched := notice.Add(-2*time.Second), notice.Add(-time.Hour)
	announced := func(edit func(a *Attempt)) Attempt {
		a := Attempt{
			Lease: mirror.Lease{
				Generation: 3, Applied: 2, NoticeTime: notice, SourceTime: change, FetchTime: fetched,
			},
			Result: Applied,
		}
		edit(&a)
		return a
	}
	for name, c := range map[string]struct {
		attempt Attempt
		want    time.Time // zero if not announced
	}{
		"change":            {announced(func(*Attempt) {}), change},
		"first fetch":       {announced(func(a *Attempt) { a.Lease.FetchTime = time.Time{} }), change},
		"without its time":  {announced(func(a *Attempt) { a.Lease.SourceTime = time.Time{} }), notice},
		"clock ahead":       {announced(func(a *Attempt) { a.Lease.SourceTime = notice.Add(time.Hour) }), notice},
		"not applied":       {announced(func(a *Attempt) { a.Result = Retried }), time.Time{}},
		"sweep":             {announced(func(a *Attempt) { a.Lease.Background = true }), time.Time{}},
		"settle fetch":      {announced(func(a *Attempt) { a.Lease.Applied = 3 }), time.Time{}},
		"reader, no event":  {announced(func(a *Attempt) { a.Lease.NoticeTime = time.Time{} }), time.Time{}},
		"reader, old event": {announced(func(a *Attempt) { a.Lease.FetchTime = notice.Add(time.Second) }), time.Time{}},
	} {
		at, ok := c.attempt.Announced()
		if !at.Equal(c.want) || ok == c.want.IsZero() {
			t.Errorf("%s: Announced = %v, %t; want %v", name, at, ok, c.want)
		}
	}
}

// The percentiles are of the latest changes of the last hour.
func TestFreshness(t *testing.T) {
	t.Parallel()
	var f freshness
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	want := func(want Freshness) {
		t.Helper()
		if diff := cmp.Diff(want, f.percentiles(now)); diff != "" {
			t.Errorf("Freshness (-want +got):\n%s", diff)
		}
	}
	want(Freshness{})
	f.add(now, -time.Second)
	want(Freshness{Count: 1})
	for i := range 200 {
		f.add(now, time.Duration(200-i)*time.Second)
	}
	want(Freshness{Count: 201, P50: 100 * time.Second, P95: 190 * time.Second, P99: 198 * time.Second})
	now = now.Add(30 * time.Minute)
	for range recentChanges - 100 {
		f.add(now, time.Second)
	}
	want(Freshness{Count: recentChanges, P50: time.Second, P95: 50 * time.Second, P99: 90 * time.Second})
	now = now.Add(30 * time.Minute)
	want(Freshness{Count: recentChanges - 100, P50: time.Second, P95: time.Second, P99: time.Second})
	now = now.Add(30 * time.Minute)
	want(Freshness{})
}

package queue

import (
	"slices"
	"sync"
	"time"
)

const (
	// recentChanges is how many changes the percentiles of [Freshness] are of at most, and
	// recentFor how long one counts.
	recentChanges = 1000
	recentFor     = time.Hour
)

// Freshness says how long recent changes took to be mirrored, from the change on as its
// event tells it. What no event told of is left out.
type Freshness struct {
	// Count is how many changes of the last hour it is of: the latest 1,000 at most.
	Count int
	// P50, P95 and P99 are the times within which 50, 95 and 99 of 100 were mirrored.
	P50, P95, P99 time.Duration
}

// freshness remembers recent changes.
type freshness struct {
	mu     sync.Mutex
	recent [recentChanges]struct {
		at   time.Time
		took time.Duration
	}
	next int
}

func (f *freshness) add(now time.Time, took time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.recent[f.next].at, f.recent[f.next].took = now, max(took, 0)
	f.next = (f.next + 1) % recentChanges
}

func (f *freshness) percentiles(now time.Time) Freshness {
	var list []time.Duration
	f.mu.Lock()
	for _, r := range f.recent {
		if !r.at.IsZero() && now.Sub(r.at) < recentFor {
			list = append(list, r.took)
		}
	}
	f.mu.Unlock()
	if len(list) == 0 {
		return Freshness{}
	}
	slices.Sort(list)
	of := func(percent int) time.Duration { return list[(len(list)*percent-1)/100] }
	return Freshness{Count: len(list), P50: of(50), P95: of(95), P99: of(99)}
}

// Freshness returns how long recent changes took to be mirrored by this process.
func (p *Pool) Freshness() Freshness { return p.fresh.percentiles(p.cfg.Now()) }

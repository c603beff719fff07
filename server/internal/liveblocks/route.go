package liveblocks

import (
	"slices"
	"sync"
	"time"
)

const (
	// recentCalls is the number of calls of a route whose times are remembered, and
	// enoughCalls how many make them mean something. The delay is computed anew after
	// each measureEvery calls.
	recentCalls  = 256
	enoughCalls  = 16
	measureEvery = 16
	// firstDelay is the time after which a call of a new route is late. minDelay is
	// the least for all: short times vary with the load of this machine.
	firstDelay = time.Second
	minDelay   = 100 * time.Millisecond
	// Every call adds its share to what further attempts may spend, up to hedgeCredit.
	// Each costs 1, and those of a call nothing if the last was the one answered.
	hedgeCredit = 10
	// acrossResources is the number of resources that must fail in a row before that
	// is no matter of one resource.
	acrossResources = 3
)

// route holds what is known about the recent calls of one operation.
type route struct {
	times [recentCalls]time.Duration // until the answers began
	count int                        // calls ever measured
	late  time.Duration              // the time after which a call is late
	// failed holds the paths that got no answer since the route last gave one; at most
	// acrossResources. The first one failed at failedAt.
	failed   []string
	failedAt time.Time
}

// routes remembers recent calls, by operation. It decides when a call deserves another
// attempt, which covers calls that hang, and whether failures concern one resource.
type routes struct {
	mu     sync.Mutex
	routes map[string]*route
	share  float64
	credit float64
}

// get returns a route. r.mu is held.
func (r *routes) get(op string) *route {
	if r.routes == nil {
		r.routes = make(map[string]*route)
	}
	if r.routes[op] == nil {
		r.routes[op] = &route{late: firstDelay}
	}
	return r.routes[op]
}

// begin counts a call and returns after which time it is late: the 99th percentile of
// the route's recent calls.
func (r *routes) begin(op string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.credit = min(r.credit+r.share, hedgeCredit)
	return r.get(op).late
}

// hedge reports whether a late call may get another attempt, and counts it. One that
// decides about all calls needs no credit.
func (r *routes) hedge(decides bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.share <= 0 || r.credit < 1 && !decides {
		return false
	}
	r.credit = max(r.credit-1, 0)
	return true
}

// answered records how long an attempt took to be answered, and how many of its call
// came before it: they were late for a reason.
func (r *routes) answered(op string, took time.Duration, before int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.credit = min(r.credit+float64(before), hedgeCredit)
	o := r.get(op)
	o.times[o.count%recentCalls] = took
	o.count++
	if o.count >= enoughCalls && o.count%measureEvery == 0 {
		known := slices.Clone(o.times[:min(o.count, recentCalls)])
		slices.Sort(known)
		o.late = max(known[(len(known)*99-1)/100], minDelay)
	}
}

// worked records that a route gave a usable answer.
func (r *routes) worked(op string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.get(op).failed = nil
}

// failed records that a call got no usable answer. If that has happened to several
// resources in a row, it returns when to try again; else 0.
func (r *routes) failed(op, path string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.get(op)
	if len(o.failed) == 0 {
		o.failedAt = time.Now()
	}
	if len(o.failed) < acrossResources && !slices.Contains(o.failed, path) {
		o.failed = append(o.failed, path)
	}
	if len(o.failed) < acrossResources {
		return 0
	}
	return min(max(time.Since(o.failedAt), closeMin), routeWait)
}

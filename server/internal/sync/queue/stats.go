package queue

import (
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// Result is how an attempt of a task ended.
type Result string

// The results.
const (
	// Applied: the result was written.
	Applied Result = "applied"
	// Parked: the task waits for its room.
	Parked Result = "parked"
	// Retried: it failed, and is tried again.
	Retried Result = "retried"
	// Postponed: it could not be done now, which does not count as an attempt.
	Postponed Result = "postponed"
	// Failed: it failed for good.
	Failed Result = "failed"
	// Unsupported: the Liveblocks server has nothing of the kind.
	Unsupported Result = "unsupported"
	// Lost: somebody else has the lease, or it could not be given back.
	Lost Result = "lost"
)

// Attempt is an attempt of a task that has ended.
type Attempt struct {
	Lease   mirror.Lease
	Applied mirror.Applied
	Result  Result
}

// Announced returns when the change happened that the attempt has made readable,
// according to the event that announced it, or otherwise when that event arrived. It
// reports false if no event did: a sweep or a reader requested the fetch.
func (a Attempt) Announced() (time.Time, bool) {
	l := a.Lease
	if a.Result != Applied || l.Background || l.Generation <= l.Applied || !l.NoticeTime.After(l.FetchTime) {
		return time.Time{}, false
	}
	if l.SourceTime.IsZero() || l.SourceTime.After(l.NoticeTime) {
		return l.NoticeTime, true
	}
	return l.SourceTime, true
}

func resultOf(f store.Failure) Result {
	switch {
	case f.Unsupported:
		return Unsupported
	case f.Final:
		return Failed
	case f.Uncounted:
		return Postponed
	default:
		return Retried
	}
}

// Lane says how many tasks of a lane this process has.
type Lane struct {
	// Name is the lane's: "sweep", "live", "settle" or "background".
	Name string
	// Queued tasks wait to begin, Running ones have begun. More means that others of the
	// lane are due in the database.
	Queued, Running int
	More            bool
}

// Stats is what a Pool has in memory.
type Stats struct {
	Lanes []Lane
	// OldestDue is since when the task is due that waits longest or is being done; zero if
	// there is none. Those of sweeps and the sweeps themselves do not count: they may take
	// hours and delay nothing else.
	OldestDue time.Time
}

// laneNames are the names of the lanes for operators.
var laneNames = [lanes]string{laneApart: "sweep", laneLive: "live", laneSettle: "settle", laneBackground: "background"}

// Stats returns what the pool has in memory. It asks nobody.
func (p *Pool) Stats() Stats {
	now := p.cfg.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	var s Stats
	oldest := func(l lane, due time.Time) {
		if l != laneBackground && l != laneApart && !due.After(now) && (s.OldestDue.IsZero() || due.Before(s.OldestDue)) {
			s.OldestDue = due
		}
	}
	for l := range lanes {
		s.Lanes = append(s.Lanes, Lane{Name: laneNames[l], Queued: p.lines.count[l], More: p.more[l]})
		if e := p.lines.head(l); e != nil {
			oldest(l, e.due)
		}
		if p.more[l] {
			oldest(l, p.horizon[l])
		}
	}
	for _, list := range p.lines.aside {
		oldest(list[0].lane, list[0].due)
	}
	for _, e := range p.lines.alone {
		oldest(e.lane, e.due)
	}
	for _, r := range p.running {
		s.Lanes[r.lane].Running++
		oldest(r.lane, r.due)
	}
	return s
}

package store

import (
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// Stale says that a resource has become stale, and how soon it wants its fetch.
type Stale struct {
	Resource mirror.Resource
	// Now is when that was learned.
	Now time.Time
	// MinInterval keeps the next fetch at least this long after the last one.
	MinInterval time.Duration
	// SourceTime is when the resource changed at its source; zero if unknown.
	SourceTime time.Time
	// IfUnknown marks the resource only if it has no state yet.
	IfUnknown bool
	// Event says that an event told of it. Liveblocks may still answer with the state before the event, so the fetch is
	// followed by a settle fetch.
	Event bool
	// Deleted says that the resource is said to be deleted: by an event, or because a complete list lacks it.
	Deleted bool
	// Background lets everything that is not in the background go first.
	Background bool
	// Lift ends a backoff and forgets failed attempts. It goes without MinInterval.
	Lift bool
	// SameGeneration brings forward what is pending anyway. The resource must have a state.
	SameGeneration bool
}

// StaleByEvent is what an event says of a resource that it invalidates.
func StaleByEvent(e mirror.Event, i mirror.Invalidation) Stale {
	return Stale{
		Resource: i.Resource, Now: e.ReceiveTime, MinInterval: i.MinInterval, SourceTime: e.SourceTime,
		IfUnknown: i.IfUnknown, Event: true, Deleted: i.Deleted,
	}
}

// StaleByRequest is what a request at now says.
func StaleByRequest(r mirror.Request, now time.Time) Stale {
	return Stale{Resource: r.Resource, Now: now, Deleted: r.Unlisted, Background: r.Background, Lift: true}
}

// MergeStale returns the list in key order, with one element for each resource.
func MergeStale(list []Stale) []Stale {
	var merged []Stale
	for _, w := range slices.SortedStableFunc(slices.Values(list), compareStale) {
		n := len(merged)
		if n == 0 || merged[n-1].Resource != w.Resource {
			merged = append(merged, w)
			continue
		}
		m := &merged[n-1]
		m.Now = earliest(m.Now, w.Now)
		m.MinInterval = min(m.MinInterval, w.MinInterval)
		m.SourceTime = latest(m.SourceTime, w.SourceTime)
		m.IfUnknown = m.IfUnknown && w.IfUnknown
		m.Event = m.Event || w.Event
		m.Deleted = m.Deleted || w.Deleted
		m.Background = m.Background && w.Background
		m.Lift = m.Lift || w.Lift
		m.SameGeneration = m.SameGeneration && w.SameGeneration
	}
	return merged
}

func compareStale(a, b Stale) int { return a.Resource.Compare(b.Resource) }

// MarkStale is the state of a resource that has become stale; that of a resource without one is the zero State.
//
// This is the rule. Each engine has one statement that says the same of many resources at once, some of them without a
// state, and a test holds the two equal.
func (s State) MarkStale(w Stale) State {
	if s.Generation == 0 {
		s = State{
			Generation: 1, Due: w.Now, Settle: w.Event, Background: w.Background, EventTime: w.SourceTime,
		}
		if !w.Lift {
			s.RefetchAt = w.Now.Add(w.MinInterval)
		}
		if w.Deleted {
			s.DeleteGeneration = 1
		}
		return s
	}
	if w.IfUnknown {
		return s
	}
	due := w.Now
	if w.Lift {
		s.NotBefore = time.Time{}
	}
	due = latest(due, s.NotBefore)
	if w.MinInterval > 0 && !s.FetchTime.IsZero() {
		due = latest(due, s.FetchTime.Add(w.MinInterval))
	}
	// A settle fetch that is brought forward is still owed.
	s.Settle = s.Settle || w.Event || !s.Due.IsZero() && s.Generation == s.Applied
	// What is wanted at once does not become less urgent by being wanted again.
	s.Background = w.Background && (s.Due.IsZero() || s.Background)
	s.Due = earliest(s.Due, due)
	// Counts only while leased: a claim clears it.
	s.RefetchAt = earliest(s.RefetchAt, w.Now.Add(w.MinInterval))
	s.EventTime = latest(s.EventTime, w.SourceTime)
	if !w.SameGeneration {
		s.Generation++
	}
	if w.Deleted {
		s.DeleteGeneration = s.Generation
	}
	if w.Lift || !s.FailTime.IsZero() {
		s.Attempts, s.FailTime = 0, time.Time{}
	}
	return s
}

// earliest is the earlier of two times, of which the zero time is none.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// latest is the later of two times.
func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

package store

import (
	"crypto/sha256"
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// Stale says that a resource became stale, and how soon to fetch it.
type Stale struct {
	Resource mirror.Resource
	// Now is when this became known.
	Now time.Time
	// MinInterval is the minimal time between the last fetch and the next one.
	MinInterval time.Duration
	// SourceTime is when the resource changed in Liveblocks; zero if unknown.
	SourceTime time.Time
	// NoticeTime is when the event arrived that reported it; zero if none did.
	NoticeTime time.Time
	// IfUnknown limits it to a resource that has no state yet.
	IfUnknown bool
	// Event means that an event reported it, or a write was passed on. Liveblocks may still
	// return the state before, so a settle fetch follows.
	Event bool
	// Deleted means that the resource is reported as deleted, by an event or
	// because a complete list does not contain it.
	Deleted bool
	// Background gives it a lower priority than all other work.
	Background bool
	// Lift ends a backoff and resets attempts. It excludes MinInterval.
	Lift bool
	// SameGeneration only brings forward what is pending. The resource must have a
	// state.
	SameGeneration bool
}

// StaleByEvent returns the Stale of an event for a resource that it invalidates.
func StaleByEvent(e mirror.Event, i mirror.Invalidation) Stale {
	return Stale{
		Resource: i.Resource, Now: e.ReceiveTime, MinInterval: i.MinInterval, SourceTime: e.SourceTime,
		NoticeTime: e.ReceiveTime, IfUnknown: i.IfUnknown, Event: true, Deleted: i.Deleted,
	}
}

// StaleByRequest returns the Stale of a request at now.
func StaleByRequest(r mirror.Request, now time.Time) Stale {
	return Stale{
		Resource: r.Resource, Now: now, Event: r.Settle, Deleted: r.Unlisted, Background: r.Background, Lift: true,
	}
}

// StaleByReplay returns the Stale of a recorded event that is replayed at now, for a
// resource that it invalidates. Liveblocks no longer returns the state before the event,
// so no settle fetch follows, and whoever replays can wait.
func StaleByReplay(e mirror.Event, i mirror.Invalidation, now time.Time) Stale {
	w := StaleByEvent(e, i)
	w.Now, w.Event, w.Background = now, false, true
	return w
}

// StoredEvent is the key of an event in the ledger.
type StoredEvent struct {
	Bucket  int16
	Project mirror.ProjectID
	ID      string
}

// StillRecorded returns those of the recorded deliveries whose events are still stored with the
// body that they have. What was erased meanwhile must not come back, nor what is gone. hashes
// are the SHA-256 of the bodies that are stored.
func StillRecorded(batch []mirror.Delivery, hashes map[StoredEvent]string) []mirror.Delivery {
	return slices.DeleteFunc(slices.Clone(batch), func(d mirror.Delivery) bool {
		hash, stored := hashes[StoredEvent{d.Event.Bucket(), d.Event.Project, d.Event.ID}]
		sum := sha256.Sum256(d.Event.Payload)
		return !stored || hash != string(sum[:])
	})
}

// MergeStale returns the list in key order, merged to one element for each
// resource.
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
		m.NoticeTime = latest(m.NoticeTime, w.NoticeTime)
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

// MarkStale returns the state of a resource that becomes stale; the zero State
// stands for a resource without one.
//
// This is the rule. Each engine has one statement that does the same to many
// resources, including those without a state. A test keeps the two equal.
func (s State) MarkStale(w Stale) State {
	if s.Generation == 0 {
		s = State{
			Generation: 1, Due: w.Now, Settle: w.Event, Background: w.Background, EventTime: w.SourceTime,
			NoticeTime: w.NoticeTime,
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
		// A fetch in the future, by a clock that was wrong, counts as one just now.
		due = latest(due, earliest(s.FetchTime, w.Now).Add(w.MinInterval))
	}
	// A settle fetch that is brought forward is still to be done.
	s.Settle = s.Settle || w.Event || s.Settles()
	// Urgent work does not become less urgent by a background request.
	s.Background = w.Background && (s.Due.IsZero() || s.Background)
	s.Due = earliest(s.Due, due)
	// Only relevant while leased: a claim clears it.
	s.RefetchAt = earliest(s.RefetchAt, w.Now.Add(w.MinInterval))
	s.EventTime = latest(s.EventTime, w.SourceTime)
	s.NoticeTime = latest(s.NoticeTime, w.NoticeTime)
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

// earliest returns the earlier of two times; a zero time means none.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// latest returns the later of two times.
func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

package store

import (
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// State is the synchronisation state of one resource. Engines lock its row, call
// one of the methods below, and write the result. These methods are the only place
// for the rules. Zero times mean none.
type State struct {
	Generation int64
	Applied    int64
	Due        time.Time
	NotBefore  time.Time
	// Settle means that an event arrived since the last settle fetch.
	Settle bool
	// DeleteGeneration is the generation of the latest delete event that no fetch
	// has contradicted; 0 if there is none.
	DeleteGeneration int64
	LeaseToken       [16]byte
	LeaseUntil       time.Time
	// RefetchAt is when to fetch again because of what arrived since the claim, if
	// all of it has a MinInterval; zero means immediately.
	RefetchAt        time.Time
	Attempts         int
	LastError        string
	FailTime         time.Time
	FetchTime        time.Time
	SourceUpdateTime time.Time
	MissingSince     time.Time
	// Background means that only a sweep requested what is due.
	Background bool
	// EventTime is the latest time of change that an event reported.
	EventTime time.Time
	// NoticeTime is when the latest event arrived.
	NoticeTime time.Time
	// Deaths counts how often the process ended during the task since its last
	// success. A claim finds it out by a lease that was not given back, and counts it
	// as an attempt too.
	Deaths int
}

const (
	// MaxDeaths is the number of deaths after which a task runs alone.
	MaxDeaths = 2
	// MaxDeathsAlone is the number of further ones after which it fails for good. One
	// proves nothing: processes and their machines are also ended from outside, perhaps
	// again and again.
	MaxDeathsAlone = 3
)

// LeaseTooFar returns the time after which a lease cannot end if leases last ttl and
// now is right: a clock that was ahead has written it, and it does not count. Leases
// of replicas with other settings or clocks remain below.
func LeaseTooFar(now time.Time, ttl time.Duration) time.Time { return now.Add(2 * ttl) }

// Settles reports whether all that is known of the resource has been applied, and it is
// only due to be fetched once more.
func (s State) Settles() bool { return !s.Due.IsZero() && s.Generation == s.Applied }

// Held reports whether the lease is still held.
func (s State) Held(lease mirror.Lease) bool {
	return s.LeaseToken == lease.Token && lease.Token != [16]byte{}
}

// Succeed returns the state after applying a fetch that began at fetchTime.
//
// What arrived during the fetch is still due. Otherwise, if events caused the
// fetch, one more is due after settle, because Liveblocks may answer a read with
// the state before the event. It is not if the fetch began that long after the
// latest event.
func (s State) Succeed(lease mirror.Lease, fetchTime, now time.Time, settle time.Duration) State {
	s.Settle = s.Settle && !settled(s.NoticeTime, fetchTime, settle)
	s = s.end(lease, now, settle)
	s.FetchTime = fetchTime
	s.MissingSince = time.Time{}
	if lease.SourceTime.After(s.SourceUpdateTime) {
		s.SourceUpdateTime = lease.SourceTime
	}
	return s
}

// Unfinished returns the state after a success that left work undone: it continues
// immediately.
func (s State) Unfinished(now time.Time) State {
	s.Due = now
	return s
}

// Vanish returns the state after Liveblocks answered that the resource does not
// exist. deleted means that the deletion is confirmed.
func (s State) Vanish(lease mirror.Lease, now time.Time, settle time.Duration, deleted bool) State {
	s = s.end(lease, now, settle)
	if deleted {
		s.MissingSince = time.Time{}
	} else if s.MissingSince.IsZero() {
		s.MissingSince = now
	}
	return s
}

// settled reports whether a fetch began long enough after the latest event.
func settled(noticeTime, fetchTime time.Time, settle time.Duration) bool {
	return !noticeTime.IsZero() && !fetchTime.Before(noticeTime.Add(settle))
}

// Settled reports whether a fetch that begins at fetchTime under the lease is the
// last one unless something happens meanwhile: no settle fetch follows.
func Settled(lease mirror.Lease, fetchTime time.Time, settle time.Duration) bool {
	return settle == 0 || !lease.Settle || settled(lease.NoticeTime, fetchTime, settle)
}

// Release returns the state without its lease, whose holder loses the right to write
// its result. If the task has ended the process too often, it may run alone again.
func (s State) Release() State {
	s.LeaseToken, s.LeaseUntil = [16]byte{}, time.Time{}
	s.Deaths = min(s.Deaths, MaxDeaths)
	return s
}

func (s State) end(lease mirror.Lease, now time.Time, settle time.Duration) State {
	s.Applied = max(s.Applied, lease.Generation)
	s.Attempts, s.Deaths, s.LastError, s.FailTime, s.NotBefore = 0, 0, "", time.Time{}, time.Time{}
	switch {
	case s.Generation > s.Applied:
		s.Due = now
		if s.RefetchAt.After(now) {
			s.Due = s.RefetchAt
		}
	case s.Settle && settle > 0:
		s.Due, s.Settle = now.Add(settle), false
	default:
		// Nothing more is due, so this decides about a delete event too: it is
		// confirmed, or of an earlier incarnation if the resource exists. Earlier
		// fetches may have read an old state.
		s.Due, s.Settle, s.DeleteGeneration, s.Background = time.Time{}, false, 0, false
	}
	return s
}

// Fail returns the state after a failed attempt.
func (s State) Fail(lease mirror.Lease, f Failure) State {
	if s.Due.IsZero() {
		return s // the room was deleted, and nothing is left to fetch
	}
	s.LastError = f.Cause
	if f.Unsupported {
		// What arrived meanwhile cannot be fetched either.
		s.Attempts = 0
		return s.Park()
	}
	if !f.Uncounted {
		s.Attempts = lease.Attempts + 1
	}
	if f.Final {
		s.Attempts = 0
		if s.Generation == lease.Generation {
			s.Due, s.NotBefore, s.FailTime = time.Time{}, time.Time{}, f.Now
			return s
		}
		// Something happened during the last attempt: start again.
	}
	s.NotBefore = f.NotBefore
	if s.NotBefore.Before(f.Now) {
		s.NotBefore = f.Now
	}
	s.Due = s.NotBefore
	return s
}

// ProgressOf returns how far the resource is.
func (s State) ProgressOf() Progress {
	state := s.TaskState(time.Time{})
	return Progress{
		Applied:     s.Applied,
		Failed:      state == mirror.TaskFailed,
		Waiting:     state == mirror.TaskWaiting,
		Unsupported: state == mirror.TaskWaiting && Unsupported(s.LastError),
		NoticeTime:  s.NoticeTime,
	}
}

// Unsupported reports whether the last error of a task says that Liveblocks does not
// have resources of its kind.
func Unsupported(lastError string) bool {
	return strings.HasPrefix(lastError, string(fault.ReasonUpstreamUnsupported)+":")
}

// Park returns the state of a resource that waits for its room. Arrivals since the
// claim do not change that: the room wakes it.
func (s State) Park() State {
	s.Due, s.NotBefore = time.Time{}, time.Time{}
	return s
}

// TaskState returns the task's state at now.
func (s State) TaskState(now time.Time) mirror.TaskState {
	switch {
	case !s.Due.IsZero() && s.LeaseUntil.After(now):
		return mirror.TaskRunning
	case !s.Due.IsZero():
		return mirror.TaskPending
	case !s.FailTime.IsZero():
		return mirror.TaskFailed
	case s.Generation > s.Applied:
		return mirror.TaskWaiting
	default:
		return mirror.TaskDone
	}
}

// Task returns the task for operators.
func (s State) Task(resource mirror.Resource, now time.Time) mirror.Task {
	return mirror.Task{
		Resource:     resource,
		State:        s.TaskState(now),
		Generation:   s.Generation,
		Applied:      s.Applied,
		DueTime:      s.Due,
		NotBefore:    s.NotBefore,
		LeaseUntil:   s.LeaseUntil,
		Attempts:     s.Attempts,
		LastError:    s.LastError,
		FailTime:     s.FailTime,
		FetchTime:    s.FetchTime,
		MissingSince: s.MissingSince,
	}
}

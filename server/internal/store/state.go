package store

import (
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// State is the synchronisation state of one resource. Engines lock its row,
// let one of the methods below decide, and write the result: the rules are the
// same on every engine, and this is where they stand. Zero times mean none.
type State struct {
	Generation int64
	Applied    int64
	Due        time.Time
	NotBefore  time.Time
	// Settle says that an event came in since the last settle fetch.
	Settle bool
	// DeleteGeneration is the generation of the latest delete event that no
	// successful fetch has contradicted; 0 if there is none.
	DeleteGeneration int64
	LeaseToken       [16]byte
	LeaseUntil       time.Time
	// RefetchAt is when what came in since the claim wants its fetch, if all of it
	// came with a MinInterval; zero means at once.
	RefetchAt        time.Time
	Attempts         int
	LastError        string
	FailTime         time.Time
	FetchTime        time.Time
	SourceUpdateTime time.Time
	MissingSince     time.Time
	// Background says that nobody but a sweep has asked for what is due.
	Background bool
	// EventTime is the latest time of change that an event told of.
	EventTime time.Time
}

// Held reports whether the state is the lease's still.
func (s State) Held(lease mirror.Lease) bool {
	return s.LeaseToken == lease.Token && lease.Token != [16]byte{}
}

// Succeed is the state after a fetch that began at fetchTime was applied.
//
// What came in during the fetch is still due. Otherwise, if events led to the
// fetch, one more is due after settle: Liveblocks may answer a read with the
// state before the event it has just announced.
func (s State) Succeed(lease mirror.Lease, fetchTime, now time.Time, settle time.Duration) State {
	s = s.settled(lease, now, settle)
	s.FetchTime = fetchTime
	s.MissingSince = time.Time{}
	if lease.SourceTime.After(s.SourceUpdateTime) {
		s.SourceUpdateTime = lease.SourceTime
	}
	return s
}

// Unfinished is the state after a success that left some of the work undone: it
// goes on at once.
func (s State) Unfinished(now time.Time) State {
	s.Due = now
	return s
}

// Vanish is the state after the source denied knowing the resource and nothing
// is left to try for now. deleted says that the deletion is confirmed.
func (s State) Vanish(lease mirror.Lease, now time.Time, settle time.Duration, deleted bool) State {
	s = s.settled(lease, now, settle)
	if deleted {
		s.MissingSince = time.Time{}
	} else if s.MissingSince.IsZero() {
		s.MissingSince = now
	}
	return s
}

func (s State) settled(lease mirror.Lease, now time.Time, settle time.Duration) State {
	s.Applied = max(s.Applied, lease.Generation)
	s.Attempts, s.LastError, s.FailTime, s.NotBefore = 0, "", time.Time{}, time.Time{}
	switch {
	case s.Generation > s.Applied:
		s.Due = now
		if s.RefetchAt.After(now) {
			s.Due = s.RefetchAt
		}
	case s.Settle && settle > 0:
		s.Due, s.Settle = now.Add(settle), false
	default:
		// Nothing more is to come, so this is the last word on a delete event too:
		// confirmed, or of an earlier incarnation if the resource was there. The
		// fetches before it could not say, since they may have read an old state.
		s.Due, s.Settle, s.DeleteGeneration, s.Background = time.Time{}, false, 0, false
	}
	return s
}

// Fail is the state after a failed attempt.
func (s State) Fail(lease mirror.Lease, f Failure) State {
	if s.Due.IsZero() {
		return s // the room is gone meanwhile, and nothing is left to fetch
	}
	s.LastError = f.Cause
	if !f.Uncounted {
		s.Attempts = lease.Attempts + 1
	}
	if f.Final {
		s.Attempts = 0
		if s.Generation == lease.Generation {
			s.Due, s.NotBefore, s.FailTime = time.Time{}, time.Time{}, f.Now
			return s
		}
		// Something happened during the last attempt: that begins anew.
	}
	s.NotBefore = f.NotBefore
	if s.NotBefore.Before(f.Now) {
		s.NotBefore = f.Now
	}
	s.Due = s.NotBefore
	return s
}

// Park is the state of a resource that waits for its room. Something that came
// in since the claim does not change that: the room wakes it.
func (s State) Park() State {
	s.Due, s.NotBefore = time.Time{}, time.Time{}
	return s
}

// TaskState names where the state stands at now.
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

// Task describes the state to an operator.
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

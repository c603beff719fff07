package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const settle = 5 * time.Second

func TestStateSucceed(t *testing.T) {
	t.Parallel()
	fetched := now.Add(-time.Second)
	for _, c := range []struct {
		what   string
		before store.State
		lease  mirror.Lease
		settle time.Duration
		want   store.State
	}{
		{
			"nothing newer, no event",
			store.State{Generation: 3, Applied: 2, Due: now},
			mirror.Lease{Generation: 3},
			settle,
			store.State{Generation: 3, Applied: 3, FetchTime: fetched},
		},
		{
			"an event led to it",
			store.State{Generation: 3, Applied: 2, Due: now, Settle: true},
			mirror.Lease{Generation: 3},
			settle,
			store.State{Generation: 3, Applied: 3, Due: now.Add(settle), FetchTime: fetched},
		},
		{
			"an event led to it, no settle fetch wanted",
			store.State{Generation: 3, Applied: 2, Due: now, Settle: true},
			mirror.Lease{Generation: 3},
			0,
			store.State{Generation: 3, Applied: 3, FetchTime: fetched},
		},
		{
			"an event came in meanwhile",
			store.State{Generation: 4, Applied: 2, Due: now.Add(-time.Minute), Settle: true},
			mirror.Lease{Generation: 3},
			settle,
			store.State{Generation: 4, Applied: 3, Due: now, Settle: true, FetchTime: fetched},
		},
		{
			"an event that can wait came in meanwhile",
			store.State{Generation: 4, Due: now, Settle: true, RefetchAt: now.Add(time.Hour)},
			mirror.Lease{Generation: 3},
			settle,
			store.State{
				Generation: 4, Applied: 3, Due: now.Add(time.Hour), Settle: true, RefetchAt: now.Add(time.Hour),
				FetchTime: fetched,
			},
		},
		{
			"it could wait, and has",
			store.State{Generation: 4, Due: now, RefetchAt: now.Add(-time.Second)},
			mirror.Lease{Generation: 3},
			settle,
			store.State{Generation: 4, Applied: 3, Due: now, RefetchAt: now.Add(-time.Second), FetchTime: fetched},
		},
		{
			"failures are forgotten",
			store.State{Generation: 3, Due: now, NotBefore: now, Attempts: 4, LastError: "x", FailTime: now},
			mirror.Lease{Generation: 3, Attempts: 4},
			settle,
			store.State{Generation: 3, Applied: 3, FetchTime: fetched},
		},
		{
			"it is no longer missing",
			store.State{Generation: 3, MissingSince: now},
			mirror.Lease{Generation: 3},
			settle,
			store.State{Generation: 3, Applied: 3, FetchTime: fetched},
		},
		{
			"a later change was told of",
			store.State{Generation: 3, SourceUpdateTime: now.Add(-time.Hour)},
			mirror.Lease{Generation: 3, SourceTime: now},
			settle,
			store.State{Generation: 3, Applied: 3, SourceUpdateTime: now, FetchTime: fetched},
		},
		{
			"no later change was told of",
			store.State{Generation: 3, SourceUpdateTime: now},
			mirror.Lease{Generation: 3, SourceTime: now.Add(-time.Hour)},
			settle,
			store.State{Generation: 3, Applied: 3, SourceUpdateTime: now, FetchTime: fetched},
		},
		{
			"it may have read the state before a delete event",
			store.State{Generation: 3, Due: now, Settle: true, DeleteGeneration: 3},
			mirror.Lease{Generation: 3},
			settle,
			store.State{Generation: 3, Applied: 3, DeleteGeneration: 3, Due: now.Add(settle), FetchTime: fetched},
		},
		{
			"it contradicts a delete event",
			store.State{Generation: 3, DeleteGeneration: 3},
			mirror.Lease{Generation: 3},
			settle,
			store.State{Generation: 3, Applied: 3, FetchTime: fetched},
		},
		{
			"a delete event came in meanwhile",
			store.State{Generation: 4, DeleteGeneration: 4},
			mirror.Lease{Generation: 3},
			settle,
			store.State{Generation: 4, Applied: 3, DeleteGeneration: 4, Due: now, FetchTime: fetched},
		},
		{
			"nothing is left to wait in the background",
			store.State{Generation: 3, Due: now, Background: true},
			mirror.Lease{Generation: 3},
			settle,
			store.State{Generation: 3, Applied: 3, FetchTime: fetched},
		},
		{
			"what came in meanwhile is as urgent as it was asked for",
			store.State{Generation: 4, Due: now, Background: true},
			mirror.Lease{Generation: 3},
			settle,
			store.State{Generation: 4, Applied: 3, Due: now, FetchTime: fetched, Background: true},
		},
		{
			"the room was quieted meanwhile",
			store.State{Generation: 5, Applied: 5},
			mirror.Lease{Generation: 3},
			settle,
			store.State{Generation: 5, Applied: 5, FetchTime: fetched},
		},
	} {
		if d := cmp.Diff(c.want, c.before.Succeed(c.lease, fetched, now, c.settle)); d != "" {
			t.Errorf("Succeed, %s (-want +got):\n%s", c.what, d)
		}
	}
}

func TestStateUnfinished(t *testing.T) {
	t.Parallel()
	for _, s := range []store.State{{Generation: 3, Applied: 3}, {Generation: 4, Applied: 3, Due: now.Add(time.Hour)}} {
		want := s
		want.Due = now
		if d := cmp.Diff(want, s.Unfinished(now)); d != "" {
			t.Errorf("Unfinished (-want +got):\n%s", d)
		}
	}
}

func TestStateVanish(t *testing.T) {
	t.Parallel()
	earlier := now.Add(-time.Hour)
	for _, c := range []struct {
		what    string
		before  store.State
		deleted bool
		want    store.State
	}{
		{
			"not confirmed",
			store.State{Generation: 3, Due: now, FetchTime: earlier},
			false,
			store.State{Generation: 3, Applied: 3, FetchTime: earlier, MissingSince: now},
		},
		{
			"not confirmed again",
			store.State{Generation: 3, Due: now, MissingSince: earlier},
			false,
			store.State{Generation: 3, Applied: 3, MissingSince: earlier},
		},
		{
			"not confirmed, after an event",
			store.State{Generation: 3, Due: now, Settle: true},
			false,
			store.State{Generation: 3, Applied: 3, Due: now.Add(settle), MissingSince: now},
		},
		{
			"confirmed",
			store.State{Generation: 3, Due: now, DeleteGeneration: 2, MissingSince: earlier, Attempts: 2, LastError: "x"},
			true,
			store.State{Generation: 3, Applied: 3},
		},
		{
			"confirmed, with news",
			store.State{Generation: 4, Due: now, DeleteGeneration: 4},
			true,
			store.State{Generation: 4, Applied: 3, Due: now, DeleteGeneration: 4},
		},
	} {
		if d := cmp.Diff(c.want, c.before.Vanish(mirror.Lease{Generation: 3}, now, settle, c.deleted)); d != "" {
			t.Errorf("Vanish, %s (-want +got):\n%s", c.what, d)
		}
	}
}

func TestStateFail(t *testing.T) {
	t.Parallel()
	later := now.Add(time.Minute)
	lease := mirror.Lease{Generation: 3, Attempts: 2}
	for _, c := range []struct {
		what   string
		before store.State
		f      store.Failure
		want   store.State
	}{
		{
			"with a backoff",
			store.State{Generation: 3, Due: now, Attempts: 2},
			store.Failure{Now: now, NotBefore: later, Cause: "x"},
			store.State{Generation: 3, Due: later, NotBefore: later, Attempts: 3, LastError: "x"},
		},
		{
			"with a backoff in the past",
			store.State{Generation: 3, Due: now, Attempts: 2},
			store.Failure{Now: now, Cause: "x"},
			store.State{Generation: 3, Due: now, NotBefore: now, Attempts: 3, LastError: "x"},
		},
		{
			"spare",
			store.State{Generation: 3, Due: now, Attempts: 2},
			store.Failure{Now: now, NotBefore: later, Uncounted: true, Cause: "x"},
			store.State{Generation: 3, Due: later, NotBefore: later, Attempts: 2, LastError: "x"},
		},
		{
			"retried or raised out of failure meanwhile",
			store.State{Generation: 3, Due: now},
			store.Failure{Now: now, NotBefore: later, Cause: "x"},
			store.State{Generation: 3, Due: later, NotBefore: later, Attempts: 3, LastError: "x"},
		},
		{
			"final",
			store.State{Generation: 3, Due: now, NotBefore: now, Attempts: 2},
			store.Failure{Now: now, NotBefore: later, Final: true, Cause: "x"},
			store.State{Generation: 3, FailTime: now, LastError: "x"},
		},
		{
			"final of old news",
			store.State{Generation: 4, Due: now, Attempts: 2},
			store.Failure{Now: now, NotBefore: later, Final: true, Cause: "x"},
			store.State{Generation: 4, Due: later, NotBefore: later, LastError: "x"},
		},
		{
			"when nothing is left to fetch",
			store.State{Generation: 3, Applied: 3},
			store.Failure{Now: now, NotBefore: later, Final: true, Cause: "x"},
			store.State{Generation: 3, Applied: 3},
		},
	} {
		if d := cmp.Diff(c.want, c.before.Fail(lease, c.f)); d != "" {
			t.Errorf("Fail, %s (-want +got):\n%s", c.what, d)
		}
	}
}

func TestStatePark(t *testing.T) {
	t.Parallel()
	got := store.State{Generation: 4, Applied: 1, Due: now, NotBefore: now, Settle: true}.Park()
	if d := cmp.Diff(store.State{Generation: 4, Applied: 1, Settle: true}, got); d != "" {
		t.Errorf("Park (-want +got):\n%s", d)
	}
	if state := got.TaskState(now); state != mirror.TaskWaiting {
		t.Errorf("state after Park = %s; want %s", state, mirror.TaskWaiting)
	}
}

func TestTaskState(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		s    store.State
		want mirror.TaskState
	}{
		{store.State{}, mirror.TaskDone},
		{store.State{Generation: 1, Applied: 1}, mirror.TaskDone},
		{store.State{Generation: 1, Applied: 1, LeaseUntil: now.Add(time.Hour)}, mirror.TaskDone}, // quieted while leased
		{store.State{Generation: 1, Due: now}, mirror.TaskPending},
		{store.State{Generation: 1, Due: now.Add(time.Hour)}, mirror.TaskPending},
		{store.State{Generation: 1, Applied: 1, Due: now.Add(time.Hour)}, mirror.TaskPending}, // settle fetch
		{store.State{Generation: 1, Due: now, LeaseUntil: now.Add(1)}, mirror.TaskRunning},
		{store.State{Generation: 1, Due: now, LeaseUntil: now}, mirror.TaskPending},
		{store.State{Generation: 1}, mirror.TaskWaiting},
		{store.State{Generation: 1, FailTime: now}, mirror.TaskFailed},
	} {
		if got := c.s.TaskState(now); got != c.want {
			t.Errorf("TaskState of %+v = %s; want %s", c.s, got, c.want)
		}
	}
}

func TestStateTask(t *testing.T) {
	t.Parallel()
	r := mirror.Resource{Project: "default", Room: "room", Kind: mirror.KindStorage}
	at := func(n int) time.Time { return now.Add(time.Duration(n) * time.Minute) }
	s := store.State{
		Generation: 9, Applied: 8, Due: at(1), NotBefore: at(2), LeaseUntil: at(3), Attempts: 4, LastError: "x",
		FailTime: at(5), FetchTime: at(6), MissingSince: at(7),
	}
	want := mirror.Task{
		Resource: r, State: mirror.TaskRunning, Generation: 9, Applied: 8, DueTime: at(1), NotBefore: at(2),
		LeaseUntil: at(3),
		Attempts:   4, LastError: "x", FailTime: at(5), FetchTime: at(6), MissingSince: at(7),
	}
	if d := cmp.Diff(want, s.Task(r, now)); d != "" {
		t.Errorf("Task (-want +got):\n%s", d)
	}
}

// machine drives one state the way an engine does.
type machine struct {
	s     store.State
	now   time.Time
	lease *mirror.Lease
}

func (m *machine) raise() {
	m.s.Generation++
	due := m.now
	if m.s.NotBefore.After(due) {
		due = m.s.NotBefore
	}
	if m.s.Due.IsZero() || due.Before(m.s.Due) {
		m.s.Due = due
	}
	if !m.s.FailTime.IsZero() {
		m.s.FailTime, m.s.Attempts = time.Time{}, 0
	}
	m.s.Settle = true
}

func (m *machine) claim() bool {
	if m.s.Due.IsZero() || m.s.Due.After(m.now) || m.lease != nil {
		return false
	}
	m.lease = &mirror.Lease{Generation: m.s.Generation, Applied: m.s.Applied, Attempts: m.s.Attempts}
	m.s.LeaseUntil = m.now.Add(time.Minute)
	return true
}

func (m *machine) release() mirror.Lease {
	lease := *m.lease
	m.lease, m.s.LeaseUntil = nil, time.Time{}
	return lease
}

// Whatever happens to a resource, nothing known is forgotten: as long as the
// copy is behind, it is due, failed or asleep until its room comes.
func TestStateForgetsNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{now: now}
		asleep := false
		t.Repeat(map[string]func(*rapid.T){
			"time passes": func(t *rapid.T) {
				m.now = m.now.Add(time.Duration(rapid.IntRange(0, 10).Draw(t, "seconds")) * time.Second)
			},
			"event": func(*rapid.T) { m.raise(); asleep = false },
			"claim": func(*rapid.T) { m.claim() },
			"succeed": func(t *rapid.T) {
				if m.lease == nil {
					t.Skip("no lease")
				}
				lease := m.release()
				m.s = m.s.Succeed(lease, m.now, m.now, settle)
				if m.s.Applied < lease.Generation {
					t.Fatalf("applied = %d; want the claimed %d at least", m.s.Applied, lease.Generation)
				}
				if m.s.Attempts != 0 || m.s.LastError != "" || !m.s.FailTime.IsZero() {
					t.Fatalf("state = %+v; want failures forgotten", m.s)
				}
			},
			"vanish": func(t *rapid.T) {
				if m.lease == nil {
					t.Skip("no lease")
				}
				m.s = m.s.Vanish(m.release(), m.now, settle, rapid.Bool().Draw(t, "deleted"))
			},
			"fail": func(t *rapid.T) {
				if m.lease == nil {
					t.Skip("no lease")
				}
				lease := m.release()
				f := store.Failure{
					Now: m.now, NotBefore: m.now.Add(time.Duration(rapid.IntRange(-5, 5).Draw(t, "backoff")) * time.Second),
					Uncounted: rapid.Bool().Draw(t, "spare"), Final: rapid.IntRange(0, 3).Draw(t, "final") == 0, Cause: "x",
				}
				m.s = m.s.Fail(lease, f)
				if m.s.Applied != lease.Applied {
					t.Fatalf("a failure applied %d; want %d as before", m.s.Applied, lease.Applied)
				}
				if !m.s.Due.IsZero() && m.s.Due.Before(f.NotBefore) {
					t.Fatalf("due at %v; want it no sooner than %v", m.s.Due, f.NotBefore)
				}
			},
			"park": func(t *rapid.T) {
				if m.lease == nil {
					t.Skip("no lease")
				}
				lease := m.release()
				m.s = m.s.Park()
				asleep = lease.Generation > lease.Applied || m.s.Generation > m.s.Applied
			},
			"": func(t *rapid.T) {
				if m.s.Applied > m.s.Generation {
					t.Fatalf("state = %+v; want no more applied than there is", m.s)
				}
				state := m.s.TaskState(m.now)
				if behind := m.s.Generation > m.s.Applied; behind && state == mirror.TaskDone || state == mirror.TaskWaiting &&
					!asleep {
					t.Fatalf("state = %+v (%s); want it due, failed, or asleep if it was parked", m.s, state)
				}
				if !m.s.FailTime.IsZero() && !m.s.Due.IsZero() {
					t.Fatalf("state = %+v; want it failed or due, not both", m.s)
				}
			},
		})
	})
}

// After the last event, a fetch that was under way, one more and the settle
// fetch are all there is.
func TestStateComesToRest(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{now: now}
		for range rapid.IntRange(1, 20).Draw(t, "events") {
			m.raise()
			if rapid.Bool().Draw(t, "claim") {
				m.claim()
			}
			if m.lease != nil && rapid.Bool().Draw(t, "apply") {
				m.s = m.s.Succeed(m.release(), m.now, m.now, settle)
			}
			m.now = m.now.Add(time.Duration(rapid.IntRange(0, 8).Draw(t, "seconds")) * time.Second)
		}
		m.raise()
		fetches := 0
		for !m.s.Due.IsZero() {
			m.now = m.now.Add(settle)
			m.claim()
			m.s = m.s.Succeed(m.release(), m.now, m.now, settle)
			if fetches++; fetches > 3 {
				t.Fatalf("fetch %d after the last event leaves %+v; want it at rest", fetches, m.s)
			}
		}
		if m.s.TaskState(m.now) != mirror.TaskDone || m.s.Applied != m.s.Generation {
			t.Fatalf("state at rest = %+v; want all applied", m.s)
		}
	})
}

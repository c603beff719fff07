package queue

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// tasks is a store.Tasks in memory. The rules are those of [store.State]; here
// stands only what an engine does around them. It counts the calls it gets.
type tasks struct {
	mu     sync.Mutex
	states map[mirror.Resource]store.State
	calls  map[string]int
	// claimed and renewed are when those calls came, applied when the last result did.
	claimed, renewed []time.Time
	applied          time.Time
	// epoch is that of every room.
	epoch int64
	// late, if set, may lose the answer to a call that was obeyed.
	late func(call string) error
	// fail, if set, may refuse a call by its name.
	fail func(call string) error
}

var _ store.Tasks = (*tasks)(nil)

func newTasks() *tasks {
	return &tasks{states: make(map[mirror.Resource]store.State), calls: make(map[string]int), epoch: 1}
}

// enter counts a call. On nil, t.mu is held.
func (t *tasks) enter(ctx context.Context, call string) error {
	t.mu.Lock()
	t.calls[call]++
	err := ctx.Err()
	if err == nil && t.fail != nil {
		err = t.fail(call)
	}
	if err != nil {
		t.mu.Unlock()
	}
	return hanging(ctx, err)
}

// errHangs stands for no answer until the caller gives up.
var errHangs = errors.New("no answer")

func hanging(ctx context.Context, err error) error {
	if errors.Is(err, errHangs) {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

// total is the number of all calls so far.
func (t *tasks) total() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.calls {
		n += c
	}
	return n
}

func (t *tasks) count(call string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.calls[call]
}

func (t *tasks) failing(f func(call string) error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fail = f
}

func (t *tasks) state(r mirror.Resource) store.State {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.states[r]
}

// raise does what accepting an event does.
func (t *tasks) raise(due time.Time, resources ...mirror.Resource) {
	t.request(due, false, resources)
}

func (t *tasks) request(due time.Time, background bool, resources []mirror.Resource) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range resources {
		s := t.states[r]
		s.Background = background && (s.Background || s.Due.IsZero())
		s.Generation++
		if s.Due.IsZero() || due.Before(s.Due) {
			s.Due = due
		}
		if !s.FailTime.IsZero() {
			s.Attempts, s.FailTime = 0, time.Time{}
		}
		t.states[r] = s
	}
}

// lastApplied is when the last result was written.
func (t *tasks) lastApplied() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.applied
}

// apply settles a lease as an engine's Apply does, without its content.
func (t *tasks) apply(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
	if err := t.enter(ctx, "Apply"); err != nil {
		return mirror.Applied{}, err
	}
	defer t.mu.Unlock()
	t.applied = time.Now()
	return t.write(lease, func(s store.State) store.State {
		return s.Succeed(lease, time.Now(), time.Now(), 0)
	})
}

// write changes a leased state and gives the lease back. t.mu is held.
func (t *tasks) write(lease mirror.Lease, change func(store.State) store.State) (mirror.Applied, error) {
	s := t.states[lease.Resource]
	if s.LeaseToken != lease.Token {
		return mirror.Applied{}, store.ErrLeaseLost
	}
	s = change(s)
	s.LeaseToken, s.LeaseUntil = [16]byte{}, time.Time{}
	t.states[lease.Resource] = s
	return mirror.Applied{Generation: s.Applied, Due: s.Due, Settles: s.Settles()}, nil
}

func (t *tasks) Due(ctx context.Context, look store.Look) (store.DueList, error) {
	if err := t.enter(ctx, "Due"); err != nil {
		return store.DueList{}, err
	}
	defer t.mu.Unlock()
	var list store.DueList
	var live, background []store.DueResource
	for r, s := range t.states {
		if r.Project != look.Project || s.Due.IsZero() || !slices.Contains(look.Kinds, r.Kind) {
			continue
		}
		at := s.Due
		if s.LeaseUntil.After(at) && !s.LeaseUntil.After(store.LeaseTooFar(look.Now, look.LeaseTTL)) {
			at = s.LeaseUntil
		}
		switch {
		case !at.After(look.Now) && s.Background:
			background = append(background, store.DueResource{Resource: r, Due: s.Due, Settles: s.Settles()})
		case !at.After(look.Now):
			live = append(live, store.DueResource{Resource: r, Due: s.Due, Settles: s.Settles()})
		case list.Next.IsZero() || at.Before(list.Next):
			list.Next = at
		}
	}
	for i, some := range [][]store.DueResource{live, background} {
		slices.SortFunc(some, func(a, b store.DueResource) int {
			return cmp.Or(a.Due.Compare(b.Due), cmp.Compare(a.Room, b.Room), cmp.Compare(a.Kind, b.Kind))
		})
		for _, r := range some {
			list.Add(look, r, i == 1)
		}
	}
	var err error
	if t.fail != nil {
		err = t.fail("Due of a shard")
	}
	return list, err
}

func (t *tasks) Claim(ctx context.Context, r mirror.Resource, token [16]byte, now time.Time,
	ttl time.Duration,
) (mirror.Lease, error) {
	if err := t.enter(ctx, "Claim"); err != nil {
		return mirror.Lease{}, err
	}
	lease, err := t.claim(r, token, now, ttl)
	t.mu.Unlock()
	if err == nil && t.late != nil {
		err = hanging(ctx, t.late("Claim"))
	}
	return lease, err
}

// claim leases a task. t.mu is held.
func (t *tasks) claim(r mirror.Resource, token [16]byte, now time.Time, ttl time.Duration) (mirror.Lease, error) {
	s, ok := t.states[r]
	if !ok || s.Due.IsZero() || s.Due.After(now) ||
		s.LeaseUntil.After(now) && !s.LeaseUntil.After(store.LeaseTooFar(now, ttl)) {
		return mirror.Lease{}, store.ErrNotDue
	}
	t.claimed = append(t.claimed, now)
	if !s.LeaseUntil.IsZero() && !s.LeaseUntil.After(now) {
		s.Attempts++
		s.Deaths++
	}
	s.LeaseToken, s.LeaseUntil = token, now.Add(ttl)
	t.states[r] = s
	return store.LeaseOf(r, token, s.LeaseUntil, s, store.RoomCopy{Epoch: t.epoch}), nil
}

func (t *tasks) Renew(ctx context.Context, lease mirror.Lease, until time.Time) error {
	if err := t.enter(ctx, "Renew"); err != nil {
		return err
	}
	defer t.mu.Unlock()
	s := t.states[lease.Resource]
	if s.LeaseToken != lease.Token {
		return store.ErrLeaseLost
	}
	t.renewed = append(t.renewed, time.Now())
	s.LeaseUntil = until
	t.states[lease.Resource] = s
	return nil
}

func (t *tasks) Park(ctx context.Context, lease mirror.Lease, _ time.Time) (mirror.Applied, error) {
	if err := t.enter(ctx, "Park"); err != nil {
		return mirror.Applied{}, err
	}
	defer t.mu.Unlock()
	return t.write(lease, store.State.Park)
}

func (t *tasks) Fail(ctx context.Context, lease mirror.Lease, f store.Failure) (mirror.Applied, error) {
	if err := t.enter(ctx, "Fail"); err != nil {
		return mirror.Applied{}, err
	}
	defer t.mu.Unlock()
	return t.write(lease, func(s store.State) store.State { return s.Fail(lease, f) })
}

func (t *tasks) Request(ctx context.Context, requests []mirror.Request, now time.Time) ([]mirror.Pending, error) {
	if err := t.enter(ctx, "Request"); err != nil {
		return nil, err
	}
	t.mu.Unlock()
	var pending []mirror.Pending
	for _, r := range requests {
		t.request(now, r.Background, []mirror.Resource{r.Resource})
		pending = append(pending, mirror.Pending{Resource: r.Resource, Generation: t.state(r.Resource).Generation})
	}
	return pending, nil
}

func (t *tasks) Retry(ctx context.Context, r mirror.Resource, now time.Time) (mirror.Task, error) {
	if err := t.enter(ctx, "Retry"); err != nil {
		return mirror.Task{}, err
	}
	defer t.mu.Unlock()
	s, ok := t.states[r]
	switch {
	case !ok:
		return mirror.Task{}, store.ErrNotFound
	case s.TaskState(now) == mirror.TaskDone:
		return mirror.Task{}, store.ErrNotDue
	}
	s = s.Release()
	s.Due, s.Attempts, s.FailTime = now, 0, time.Time{}
	t.states[r] = s
	return s.Task(r, now), nil
}

func (t *tasks) Discard(ctx context.Context, r mirror.Resource, now time.Time) (mirror.Task, error) {
	if err := t.enter(ctx, "Discard"); err != nil {
		return mirror.Task{}, err
	}
	defer t.mu.Unlock()
	s, ok := t.states[r]
	if !ok {
		return mirror.Task{}, store.ErrNotFound
	}
	s, err := store.PlanDiscard(s, now)
	if err == nil {
		t.states[r] = s
	}
	return s.Task(r, now), err
}

func (t *tasks) Generations(ctx context.Context, resources []mirror.Resource) ([]store.Progress, error) {
	if err := t.enter(ctx, "Generations"); err != nil {
		return nil, err
	}
	defer t.mu.Unlock()
	progress := make([]store.Progress, len(resources))
	for i, r := range resources {
		progress[i] = t.states[r].ProgressOf()
	}
	return progress, nil
}

func (t *tasks) Pause(ctx context.Context, _ mirror.ProjectID, _ string, _ time.Time) error {
	if err := t.enter(ctx, "Pause"); err != nil {
		return err
	}
	t.mu.Unlock()
	return nil
}

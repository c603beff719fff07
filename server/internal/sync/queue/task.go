package queue

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// The causes of contexts of tasks that lost their lease: somebody else has it, or it
// could not be renewed.
var (
	errLeaseLost    = fmt.Errorf("queue: %w", store.ErrLeaseLost)
	errLeaseExpired = fmt.Errorf("queue: not renewed: %w", store.ErrLeaseLost)
)

// ending is how a task ended.
type ending struct {
	applied mirror.Applied
	// background means that the task was of the background.
	background bool
	// failed is why the generation will not be applied, for those who wait for it.
	failed     error
	generation int64
	// alone means that the task is to be repeated while nothing else runs.
	alone bool
	// stopped means that the task has given its worker back.
	stopped bool
	// result is how the attempt ended.
	result Result
	// unclaimed is why there was no attempt, unless the task was only not due.
	unclaimed error
}

// traced makes an attempt, in a trace of its own. Tasks of minutes are in none.
func (p *Pool) traced(ctx context.Context, r mirror.Resource, run *run) (end ending) {
	if p.cfg.Tracer == nil || r.Kind.Traits().Apart {
		return p.attempt(ctx, r, run)
	}
	ctx, span := p.cfg.Tracer.Follow(ctx, "fetch "+r.Kind.String(), run.causes)
	defer func() {
		span.Set("mirror.result", string(cmp.Or(end.result, notClaimed)))
		if end.result != "" && end.result != Applied && end.result != Parked {
			span.Fail(string(end.result))
		}
		span.End(end.unclaimed)
	}()
	span.Set("mirror.project", string(r.Project))
	span.Set("mirror.kind", r.Kind.String())
	p.cfg.Tracer.Name(ctx, r, "")
	return p.attempt(ctx, r, run)
}

// notClaimed is the result of an attempt that was none: the task was not due any more, or
// somebody else has it.
const notClaimed Result = "not_claimed"

// attempt leases and runs a task.
func (p *Pool) attempt(ctx context.Context, r mirror.Resource, run *run) (end ending) {
	if p.owes(r) {
		return end // to claim it now would count as a death
	}
	var token [16]byte
	_, _ = rand.Read(token[:]) // never fails by its own contract
	claimCtx, cancel := context.WithTimeout(ctx, recordTimeout)
	lease, err := p.cfg.Tasks.Claim(claimCtx, r, token, p.cfg.Now(), p.cfg.LeaseTTL)
	cancel()
	if err != nil {
		// Another worker has it, or the database is down: query again later.
		if !errors.Is(err, store.ErrNotDue) {
			p.cfg.Logger.ErrorContext(ctx, "cannot claim a task", slog.Any("error", err))
			end.unclaimed = err
			// Perhaps only the answer is lost.
			lease = mirror.Lease{Resource: r, Token: token}
			p.owe(lease, p.cfg.Policy.Failure(lease, errUnanswered, p.cfg.Now()), err)
		}
		p.lookAgain()
		return end
	}
	end.background, end.generation = lease.Background, lease.Generation
	switch {
	case lease.Deaths >= store.MaxDeaths+store.MaxDeathsAlone:
		err = fault.New(fault.Precondition, fault.ReasonTaskKillsProcess, fmt.Sprintf("the process ended %d times "+
			"during this task, the last %d times while nothing else ran; find out why, then retry the task", lease.Deaths,
			store.MaxDeathsAlone))
	case lease.Deaths >= store.MaxDeaths && !run.alone:
		end.alone, err = true, errAlone
	default:
		end.applied, err = p.handle(ctx, lease, run, &end)
	}
	if err == nil && end.result == "" {
		end.result = Applied
	}
	defer func() {
		told := Attempt{Lease: lease, Applied: end.applied, Result: end.result}
		if at, ok := told.Announced(); ok {
			now := p.cfg.Now()
			p.fresh.add(now, now.Sub(at))
		}
		if p.cfg.Ended != nil {
			p.cfg.Ended(told)
		}
	}()
	switch {
	case err != nil:
		p.fail(ctx, lease, err, &end)
	case lease.Background && !r.Kind.Traits().Apart:
		p.rate.count(p.cfg.Now())
		if p.cfg.Swept != nil {
			p.cfg.Swept(lease, end.applied)
		}
	}
	return end
}

// errUnanswered ends a task that may have been leased: the store did not say so.
var errUnanswered = errors.New("queue: no answer to a claim")

// errAlone ends a task that is to run while nothing else does.
var errAlone = errors.New("queue: the process ended several times during this task")

// handle runs the task and renews its lease meanwhile.
func (p *Pool) handle(
	ctx context.Context, lease mirror.Lease, run *run, end *ending,
) (applied mirror.Applied, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	renewing := make(chan struct{})
	go func() { // handle waits for it
		defer close(renewing)
		p.renew(ctx, lease, cancel)
	}()
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("task panicked: %v", v)
			p.cfg.Logger.ErrorContext(ctx, "task panicked", slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
		}
		cancel(nil)
		<-renewing
	}()
	applied, err = p.work(ctx, lease, run, end)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	return applied, err
}

// work runs the two parts of a task. Between them, the worker is free for others.
func (p *Pool) work(ctx context.Context, lease mirror.Lease, run *run, end *ending) (mirror.Applied, error) {
	var joined *joined
	if lease.Resource.Kind.Traits().NeedsRoom && (lease.Epoch == 0 || lease.Gone) {
		// Without the room, its incarnation is unknown: the room comes first.
		if joined = p.join(lease); joined == nil {
			end.result = Parked
			return p.cfg.Tasks.Park(ctx, lease, p.cfg.Now())
		}
		defer p.unjoin()
	}
	if run.fetch {
		p.mu.Lock()
		p.leave()
		p.mu.Unlock()
		p.signal()
		end.stopped = true
	}
	if run.fetch && lease.Resource.Kind != mirror.KindRoom {
		// A room is small, and tasks that hold memory may wait for it.
		work, end := p.cfg.Memory.Begin(ctx)
		defer end()
		ctx = work
	}
	apply, err := p.handlers[lease.Resource.Kind](ctx, lease)
	var member bool
	if joined != nil {
		lease, member = joined.await(ctx, lease)
	}
	if run.fetch {
		end.stopped = !p.enter(ctx)
	}
	if joined != nil && !member {
		if cause := context.Cause(ctx); cause != nil {
			return mirror.Applied{}, cause
		}
		end.result = Parked
		return p.cfg.Tasks.Park(ctx, lease, p.cfg.Now())
	}
	if err != nil {
		return mirror.Applied{}, err
	}
	if lease.Resource.Kind == mirror.KindRoom {
		lease.Joined = p.closeJoin(run)
	}
	applied, err := apply(ctx, lease)
	switch {
	case err == nil && p.cfg.Committed != nil:
		p.cfg.Committed(applied.Changes)
	case err != nil && p.cfg.Doubt != nil:
		p.cfg.Doubt()
	}
	return applied, err
}

// joined is the task of a child that is fetched together with its room, which is
// not mirrored yet.
type joined struct {
	lease mirror.Lease
	done  chan struct{}
	// epoch is the room's, if the child belongs to it; else 0.
	epoch int64
}

// join lets the task of a child be fetched together with its room if that is being
// fetched here, instead of after it. The result is applied after the room's, and
// only if the store finds that it belongs to the same incarnation; see
// store.PlanRoom. While many children wait for their rooms, another one is fetched
// after its room: they hold places among the fetches that the rooms need.
func (p *Pool) join(lease mirror.Lease) *joined {
	p.mu.Lock()
	defer p.mu.Unlock()
	room, ok := p.running[lease.Resource.RoomResource()]
	if !ok || room.closed || p.joined >= p.fetches.most()/joinShare {
		return nil
	}
	p.joined++
	j := &joined{lease: lease, done: make(chan struct{})}
	room.joined = append(room.joined, j)
	return j
}

// unjoin says that a task that has joined its room ends.
func (p *Pool) unjoin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.joined--
}

// closeJoin returns the leases of the children that have joined.
func (p *Pool) closeJoin(run *run) []mirror.Lease {
	p.mu.Lock()
	defer p.mu.Unlock()
	run.closed = true
	leases := make([]mirror.Lease, len(run.joined))
	for i, j := range run.joined {
		leases[i] = j.lease
	}
	return leases
}

// decide ends the wait for the room, given the result of its task.
func (j *joined) decide(room mirror.Applied) {
	if slices.Contains(room.Joined, j.lease.Resource) {
		j.epoch = room.Epoch
	}
	close(j.done)
}

// await waits for the room and returns the lease with the room's epoch, or false if
// what was fetched does not belong to it.
func (j *joined) await(ctx context.Context, lease mirror.Lease) (mirror.Lease, bool) {
	select {
	case <-j.done:
	case <-ctx.Done():
		return lease, false
	}
	if j.epoch == 0 {
		return lease, false
	}
	lease.Epoch, lease.Gone = j.epoch, false
	return lease, true
}

// renew renews the lease until ctx ends. It cancels the task when the lease is lost
// or has expired because renewals failed.
func (p *Pool) renew(ctx context.Context, lease mirror.Lease, cancel context.CancelCauseFunc) {
	end := time.AfterFunc(lease.Until.Sub(p.cfg.Now()), func() { cancel(errLeaseExpired) })
	defer end.Stop()
	ticker := time.NewTicker(p.cfg.LeaseTTL / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		until := p.cfg.Now().Add(p.cfg.LeaseTTL)
		renewCtx, done := context.WithTimeout(ctx, p.cfg.LeaseTTL/3)
		err := p.cfg.Tasks.Renew(renewCtx, lease, until)
		done()
		switch {
		case err == nil:
			end.Reset(until.Sub(p.cfg.Now()))
		case errors.Is(err, store.ErrLeaseLost):
			cancel(errLeaseLost)
			return
		}
	}
}

// fail records a failure and releases the lease.
func (p *Pool) fail(ctx context.Context, lease mirror.Lease, err error, end *ending) {
	log := p.cfg.Logger.With(slog.String("kind", lease.Resource.Kind.String()),
		slog.String("room", string(lease.Resource.Room)))
	end.result = Lost
	if errors.Is(err, store.ErrLeaseLost) {
		log.WarnContext(ctx, "lease lost, result dropped")
		if !errors.Is(err, errLeaseExpired) {
			p.lookAgain()
			return
		}
		// Unless somebody has taken it over, it is given back: the process lives.
	}
	f := p.cfg.Policy.Failure(lease, err, p.cfg.Now())
	end.result = resultOf(f)
	switch {
	case f.Final:
		log.ErrorContext(ctx, "task failed for good", slog.Any("error", err))
	case !f.Uncounted:
		log.WarnContext(ctx, "task failed, will be tried again", slog.Any("error", err),
			slog.Int("attempts", lease.Attempts+1), slog.Time("next", f.NotBefore))
	}
	// Also at shutdown: a released task need not wait for the lease to expire.
	applied, ferr := p.giveBack(context.WithoutCancel(ctx), lease, f)
	switch {
	case ferr == nil:
		end.applied, end.failed = applied, given(f, applied)
		return
	case !errors.Is(ferr, store.ErrLeaseLost):
		log.ErrorContext(ctx, "cannot record a failed task; it is recorded once the database is back",
			slog.Any("error", ferr))
		p.owe(lease, f, ferr)
	}
	p.lookAgain()
}

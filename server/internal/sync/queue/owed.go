package queue

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// debts are the leases that could not be given back, because the database did not answer.
// One that ends by itself counts as a death of the process, although this one lives.
type debts struct {
	list []debt // guarded by the pool's lock, as all here
	// paying means that some are being given back. next is when to try again.
	paying bool
	next   time.Time
}

// debt is a lease with the failure to record.
type debt struct {
	lease   mirror.Lease
	failure store.Failure
}

// owe remembers a lease for when the database is back, if that is why it could not be given
// back. Of claims without an answer, as many as can be on their way are enough: the next
// ones do not even reach the database.
func (p *Pool) owe(lease mirror.Lease, f store.Failure, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	claimed := !lease.Until.IsZero()
	if !unanswered(err) || !claimed && len(p.owed.list) >= p.cfg.Workers+p.cfg.Fetches {
		return
	}
	if len(p.owed.list) == 0 {
		p.owed.next = p.cfg.Now().Add(p.cfg.BusyPoll)
	}
	p.owed.list = append(p.owed.list, debt{lease, f})
}

// unanswered reports whether the database did not answer: it refused the connection, or it
// hangs.
func unanswered(err error) bool {
	return fault.Of(err).Kind == fault.Unavailable || errors.Is(err, context.DeadlineExceeded)
}

// owes reports whether a lease of the resource is to be given back first.
func (p *Pool) owes(r mirror.Resource) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.owed.list, func(d debt) bool { return d.lease.Resource == r })
}

// pay gives leases back, one after the other, until the database does not answer. p.mu is
// held.
func (p *Pool) pay(ctx context.Context, now time.Time) {
	if len(p.owed.list) == 0 || p.owed.paying || p.owed.next.After(now) {
		return
	}
	p.owed.paying = true
	p.wg.Go(func() {
		defer p.signal()
		for p.payOne(ctx) {
		}
	})
}

// payOne gives the first lease back, and reports whether to go on with the next.
func (p *Pool) payOne(ctx context.Context) bool {
	p.mu.Lock()
	d := p.owed.list[0]
	p.mu.Unlock()
	applied, err := p.giveBack(ctx, d.lease, d.failure)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.owed.list = p.owed.list[1:]
	r := d.lease.Resource
	switch {
	case err == nil:
		if !applied.Due.IsZero() {
			p.push(laneOf(laneLive, r, applied.Settles), classOf(r.Kind), r, applied.Due, memoryLimit)
		}
		if failed := given(d.failure, applied); failed != nil {
			p.notify(r, d.lease.Generation, failed)
		}
	case unanswered(err) && !errors.Is(err, store.ErrLeaseLost):
		p.owed.list = append(p.owed.list, d) // others may be in another shard
		p.owed.paying, p.owed.next = false, p.cfg.Now().Add(p.cfg.BusyPoll)
		return false
	}
	p.scanBy(p.cfg.Now().Add(p.cfg.BusyPoll)) // what was not claimed meanwhile is found
	p.owed.paying = len(p.owed.list) > 0
	return p.owed.paying
}

// giveBack records a failure and releases the lease.
func (p *Pool) giveBack(ctx context.Context, lease mirror.Lease, f store.Failure) (mirror.Applied, error) {
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	return p.cfg.Tasks.Fail(ctx, lease, f)
}

// given returns what those who wait for the task are told once its failure is recorded.
func given(f store.Failure, recorded mirror.Applied) error {
	switch {
	case f.Unsupported:
		return errUnsupported
	case f.Final && recorded.Due.IsZero():
		return errRefreshFailed
	default:
		return nil
	}
}

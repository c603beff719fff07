package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// An event that arrives during a fetch of its resource needs another fetch. The order
// in which Liveblocks has read what two calls under way at once return is unknown, so
// only one of the answers could be written. The next fetch therefore begins when the
// first one has been applied, unless it is better to give that up and begin anew:
//
//   - nobody waits for it, as for a settle fetch, or
//   - it is in its first half: then those who wait for it lose less time than the event
//     gains.
//
// That costs no more calls than waiting. A fetch is not given up if it follows one during
// which events arrived, so a stream of them keeps no row from being written and costs
// one more call at most; nor if its task runs alone; nor while calls or results wait for
// their turns.

// errOvertaken ends a fetch that is given up for an event.
var errOvertaken = errors.New("queue: an event arrived during the fetch")

// fetch does the first part of a task. Events may end it.
func (p *Pool) fetch(ctx context.Context, lease mirror.Lease, run *run) (Apply, error) {
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	kind, begun := lease.Resource.Kind, p.cfg.Now()
	p.mu.Lock()
	if run.fetch && !run.repeated && !run.joins && !run.alone && lease.Resource.Announced() {
		run.giveUp, run.generation, run.until = giveUp, lease.Generation, begun.Add(p.usual[kind]/2)
		if lease.Background || lease.Applied == lease.Generation {
			run.until = begun.Add(p.cfg.SafetyPoll)
		}
	}
	p.mu.Unlock()
	apply, err := p.handlers[kind](ctx, lease)
	p.mu.Lock()
	defer p.mu.Unlock()
	run.giveUp = nil
	if err == nil {
		p.took(kind, p.cfg.Now().Sub(begun))
	} else if errors.Is(context.Cause(ctx), errOvertaken) {
		err = fmt.Errorf("%w: %w", errOvertaken, err)
	}
	return apply, err
}

// took notes how long a fetch took. Single ones that took long hardly count.
func (p *Pool) took(kind mirror.Kind, d time.Duration) {
	usual := p.usual[kind]
	if usual == 0 {
		usual = d
	}
	p.usual[kind] = usual + (min(d, 2*usual)-usual)/8
}

// overtake gives up the fetch of a resource whose result would be stale, if that pays.
func (p *Pool) overtake(r mirror.Pending, now time.Time) {
	run := p.running[r.Resource]
	if run == nil || run.giveUp == nil || r.Generation <= run.generation || now.After(run.until) ||
		p.asking || len(p.applying) > 0 {
		return
	}
	run.giveUp(errOvertaken)
	run.giveUp = nil
}

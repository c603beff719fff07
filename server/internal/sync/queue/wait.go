package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// waitPoll is how often a waiter asks the database about resources whose tasks
// neither run nor wait here: another replica may have them. What is done here wakes
// the waiter.
const waitPoll = time.Second

var errRefreshFailed = fault.New(fault.Unavailable, fault.ReasonRefreshFailed,
	"the resource could not be fetched from Liveblocks")

var errUnsupported = fault.New(fault.Unavailable, fault.ReasonRefreshFailed,
	"this Liveblocks server does not have resources of this kind")

// waiter waits for one resource to reach a generation.
type waiter struct {
	want  int64
	done  chan struct{}
	ended bool
	err   error // of the fetch, once done
}

// notify wakes the waiters for r: it has reached generation, or err says why it
// will not.
func (p *Pool) notify(r mirror.Resource, generation int64, err error) {
	for w := range p.waiters[r] {
		if generation >= w.want && !w.ended {
			w.ended, w.err = true, err
			close(w.done)
		}
	}
}

// Request marks the resources as stale and passes them to the workers.
func (p *Pool) Request(ctx context.Context, resources []mirror.Resource) ([]mirror.Pending, error) {
	requests := make([]mirror.Request, len(resources))
	for i, r := range resources {
		requests[i] = mirror.Request{Resource: r}
	}
	return p.RequestEach(ctx, requests)
}

// RequestEach is Request, and can say more of each of them.
func (p *Pool) RequestEach(ctx context.Context, requests []mirror.Request) ([]mirror.Pending, error) {
	pending, err := p.cfg.Tasks.Request(ctx, requests, p.cfg.Now())
	if err != nil {
		return nil, err
	}
	p.Push(pending)
	return pending, nil
}

// Retry makes a task due immediately and passes it to the workers.
func (p *Pool) Retry(ctx context.Context, r mirror.Resource) (mirror.Task, error) {
	task, err := p.cfg.Tasks.Retry(ctx, r, p.cfg.Now())
	if err != nil {
		return mirror.Task{}, err
	}
	p.Push([]mirror.Pending{{Resource: r}})
	return task, nil
}

// Discard ends a task without a fetch.
func (p *Pool) Discard(ctx context.Context, r mirror.Resource) (mirror.Task, error) {
	return p.cfg.Tasks.Discard(ctx, r, p.cfg.Now())
}

// Refresh fetches the resources again and returns when the results are applied. It
// fails as [Pool.Wait] does.
func (p *Pool) Refresh(ctx context.Context, resources ...mirror.Resource) error {
	return p.unlessPaused(ctx, func(ctx context.Context) error {
		pending, err := p.Request(ctx, resources)
		if err != nil {
			return err
		}
		return p.Wait(ctx, pending)
	})
}

// Await is [Pool.Wait], and also restarts failed tasks: the delivery may be a retry
// because of that failure, and a duplicate marks nothing as stale.
func (p *Pool) Await(ctx context.Context, pending []mirror.Pending) error {
	return p.unlessPaused(ctx, func(ctx context.Context) error {
		progress, err := p.cfg.Tasks.Generations(ctx, resourcesOf(pending))
		if err != nil {
			return err
		}
		var left []mirror.Pending
		for i, r := range pending {
			if progress[i].Applied >= r.Generation || progress[i].Unsupported {
				continue // there is nothing to wait for
			}
			if progress[i].Failed {
				if _, err := p.Retry(ctx, r.Resource); err != nil && !errors.Is(err, store.ErrNotDue) {
					return err
				}
			}
			left = append(left, r)
		}
		return p.Wait(ctx, left)
	})
}

// unlessPaused calls wait and ends it with PROJECT_PAUSED during a pause, which
// lasts until an operator fixes the key.
func (p *Pool) unlessPaused(ctx context.Context, wait func(context.Context) error) error {
	pausable, release := p.cfg.Limiter.UntilPaused(ctx)
	defer release()
	err := context.Cause(pausable)
	if err == nil {
		err = wait(pausable)
	}
	if cause := context.Cause(pausable); err != nil && ctx.Err() == nil && cause != nil {
		return cause
	}
	return err
}

func resourcesOf(pending []mirror.Pending) []mirror.Resource {
	resources := make([]mirror.Resource, len(pending))
	for i, p := range pending {
		resources[i] = p.Resource
	}
	return resources
}

// Wait returns nil once every resource has reached its generation. It fails with
// REFRESH_FAILED once one of them has failed for good, and with the context's cause
// if that ends first. Generations decide, never clocks.
func (p *Pool) Wait(ctx context.Context, pending []mirror.Pending) error {
	waiters := make([]*waiter, len(pending))
	p.mu.Lock()
	for i, r := range pending {
		w := &waiter{want: r.Generation, done: make(chan struct{})}
		waiters[i] = w
		if p.waiters[r.Resource] == nil {
			p.waiters[r.Resource] = make(map[*waiter]struct{})
		}
		p.waiters[r.Resource][w] = struct{}{}
	}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for i, r := range pending {
			if delete(p.waiters[r.Resource], waiters[i]); len(p.waiters[r.Resource]) == 0 {
				delete(p.waiters, r.Resource)
			}
		}
	}()

	timer := time.NewTimer(0) // what is not done here may be done already
	defer timer.Stop()
	for i := 0; i < len(waiters); {
		select {
		case <-waiters[i].done:
			if err := waiters[i].err; err != nil {
				return err
			}
			i++
		case <-timer.C:
			done, err := p.caughtUp(ctx, pending[i:])
			if err != nil || done {
				return err
			}
			timer.Reset(waitPoll)
		case <-ctx.Done():
			return fmt.Errorf("wait for the mirror: %w", context.Cause(ctx))
		}
	}
	return nil
}

// caughtUp asks the database about resources that are not in hand here, and
// reports whether nothing is left to wait for.
func (p *Pool) caughtUp(ctx context.Context, pending []mirror.Pending) (bool, error) {
	elsewhere := p.elsewhere(pending)
	if len(elsewhere) == 0 {
		return false, nil
	}
	progress, err := p.cfg.Tasks.Generations(ctx, resourcesOf(elsewhere))
	if err != nil {
		return false, err
	}
	all := len(elsewhere) == len(pending)
	for i, r := range elsewhere {
		switch {
		case progress[i].Applied >= r.Generation:
		case progress[i].Failed:
			return false, errRefreshFailed
		case progress[i].Unsupported:
			return false, errUnsupported
		default:
			all = false
		}
	}
	return all, nil
}

// elsewhere returns the resources whose tasks neither run nor wait in this pool.
func (p *Pool) elsewhere(pending []mirror.Pending) []mirror.Pending {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(pending), func(r mirror.Pending) bool {
		_, runs := p.running[r.Resource]
		_, waits := p.lines.queued[r.Resource]
		return runs || waits
	})
}

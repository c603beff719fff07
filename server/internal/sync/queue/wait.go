package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// waitPoll is how often somebody who waits asks the database, since the work
// may be done by another replica. Work done here wakes him at once.
const waitPoll = 250 * time.Millisecond

// waiter waits for one resource to reach a generation.
type waiter struct {
	want  int64
	done  chan struct{}
	ended bool
}

// notify tells those who wait for r that it has caught up with generation.
func (p *Pool) notify(r mirror.Resource, generation int64) {
	for w := range p.waiters[r] {
		if generation >= w.want && !w.ended {
			w.ended = true
			close(w.done)
		}
	}
}

// Request raises the resources and sets the workers on them.
func (p *Pool) Request(ctx context.Context, resources []mirror.Resource) ([]mirror.Pending, error) {
	requests := make([]mirror.Request, len(resources))
	for i, r := range resources {
		requests[i] = mirror.Request{Resource: r}
	}
	pending, err := p.cfg.Tasks.Request(ctx, requests, p.cfg.Now())
	if err != nil {
		return nil, err
	}
	p.Push(resources...)
	return pending, nil
}

// Retry makes a task due at once and sets the workers on it.
func (p *Pool) Retry(ctx context.Context, r mirror.Resource) (mirror.Task, error) {
	task, err := p.cfg.Tasks.Retry(ctx, r, p.cfg.Now())
	if err != nil {
		return mirror.Task{}, err
	}
	p.Push(r)
	return task, nil
}

// Refresh fetches the resources anew and returns when that is applied.
func (p *Pool) Refresh(ctx context.Context, resources ...mirror.Resource) error {
	pending, err := p.Request(ctx, resources)
	if err != nil {
		return err
	}
	return p.Wait(ctx, pending)
}

// Wait returns nil once every resource has caught up with its generation. It
// fails with REFRESH_FAILED once one of them has used up its attempts, and with
// the context's cause when that ends first. Generations decide, never clocks.
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

	ticker := time.NewTicker(waitPoll)
	defer ticker.Stop()
	for i := 0; i < len(waiters); {
		select {
		case <-waiters[i].done:
			i++
		case <-ticker.C:
			done, err := p.caughtUp(ctx, pending[i:])
			if err != nil || done {
				return err
			}
		case <-ctx.Done():
			return fmt.Errorf("wait for the mirror: %w", context.Cause(ctx))
		}
	}
	return nil
}

func (p *Pool) caughtUp(ctx context.Context, pending []mirror.Pending) (bool, error) {
	resources := make([]mirror.Resource, len(pending))
	for i, r := range pending {
		resources[i] = r.Resource
	}
	progress, err := p.cfg.Tasks.Generations(ctx, resources)
	if err != nil {
		return false, err
	}
	all := true
	for i, r := range pending {
		switch {
		case progress[i].Applied >= r.Generation:
		case progress[i].Failed:
			return false, fault.New(fault.Unavailable, fault.ReasonRefreshFailed,
				"the resource could not be fetched from Liveblocks")
		default:
			all = false
		}
	}
	return all, nil
}

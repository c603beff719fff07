package reconcile

import (
	"context"
	"fmt"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/thread"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// threads fetches the list of a room's threads, which finds those that no event
// told of. What it says of the others only makes them be fetched.
func (r *Reconciler) threads(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
	fetched, err := r.cfg.Fetcher.Threads(ctx, lease.Resource.Room)
	if err != nil {
		return r.missing(ctx, lease, err)
	}
	list := mirror.ThreadList{FetchTime: fetched.FetchTime}
	if list.Threads, err = thread.ParseList(fetched.Body); err != nil {
		return mirror.Applied{}, unreadable("threads", err)
	}
	ctx, done := beyondLease(ctx)
	defer done()
	applied, err := r.cfg.Mirror.ApplyThreads(ctx, lease, list, r.cfg.Now(), r.cfg.Settle)
	if err != nil {
		return applied, fmt.Errorf("apply threads: %w", err)
	}
	return applied, nil
}

func (r *Reconciler) thread(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
	fetched, err := r.cfg.Fetcher.Thread(ctx, lease.Resource.Room, lease.Resource.ID)
	if code, _ := denied(err); code == codeResourceNotFound {
		ctx, done := beyondLease(ctx)
		defer done()
		applied, err := r.cfg.Mirror.ApplyThreadMissing(ctx, lease, r.cfg.Now(), r.cfg.Settle)
		if err != nil {
			return applied, fmt.Errorf("apply missing thread: %w", err)
		}
		return applied, nil
	}
	if err != nil {
		return r.missing(ctx, lease, err)
	}
	content := mirror.ThreadContent{FetchTime: fetched.FetchTime}
	if content.Thread, err = thread.Parse(fetched.Body); err != nil {
		return mirror.Applied{}, unreadable("thread", err)
	}
	ctx, done := beyondLease(ctx)
	defer done()
	applied, err := r.cfg.Mirror.ApplyThread(ctx, lease, content, r.cfg.Now(), r.cfg.Settle)
	if err != nil {
		return applied, fmt.Errorf("apply thread: %w", err)
	}
	return applied, nil
}

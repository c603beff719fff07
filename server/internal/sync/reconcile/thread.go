package reconcile

import (
	"context"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/thread"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// thread fetches a thread or, without an id, the list of a room's threads.
func (r *Reconciler) thread(ctx context.Context, lease mirror.Lease) (apply, error) {
	if lease.Resource.ID == "" {
		return r.threads(ctx, lease)
	}
	fetched, err := r.cfg.Fetcher.Thread(ctx, lease.Resource.Room, lease.Resource.ID)
	if fault.Is(err, fault.ReasonUpstreamResourceNotFound) {
		return func(ctx context.Context) (mirror.Applied, error) {
			return r.cfg.Mirror.ApplyThreadMissing(ctx, lease, r.cfg.Now(), r.cfg.Settle)
		}, nil
	}
	if err != nil {
		return nil, err
	}
	content := mirror.ThreadContent{FetchTime: fetched.FetchTime}
	if content.Thread, err = thread.Parse(fetched.Body); err != nil {
		return nil, unreadable("thread", err)
	}
	return func(ctx context.Context) (mirror.Applied, error) {
		return r.cfg.Mirror.ApplyThread(ctx, lease, content, r.cfg.Now(), r.cfg.Settle)
	}, nil
}

// threads fetches the list of a room's threads, which finds threads that no event
// announced. Known threads that differ are only marked as stale.
func (r *Reconciler) threads(ctx context.Context, lease mirror.Lease) (apply, error) {
	fetched, err := r.cfg.Fetcher.Threads(ctx, lease.Resource.Room)
	if err != nil {
		return nil, err
	}
	list := mirror.ThreadList{FetchTime: fetched.FetchTime}
	if list.Threads, err = thread.ParseList(fetched.Body); err != nil {
		return nil, unreadable("threads", err)
	}
	return func(ctx context.Context) (mirror.Applied, error) {
		return r.cfg.Mirror.ApplyThreads(ctx, lease, list, r.cfg.Now(), r.cfg.Settle)
	}, nil
}

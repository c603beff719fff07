package reconcile

import (
	"context"
	"errors"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/group"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// group fetches a group, or without an id the list of all groups.
func (r *Reconciler) group(ctx context.Context, lease mirror.Lease) (apply, error) {
	if lease.Resource.ID == "" {
		return r.groups(ctx, lease)
	}
	fetched, err := r.cfg.Fetcher.Group(ctx, lease.Resource.ID)
	if fault.Is(err, fault.ReasonUpstreamResourceNotFound) {
		return func(ctx context.Context) (mirror.Applied, error) {
			return r.cfg.Mirror.ApplyGroupMissing(ctx, lease, r.cfg.Now(), r.cfg.Settle)
		}, nil
	}
	if err != nil {
		return nil, err
	}
	content := mirror.GroupContent{FetchTime: fetched.FetchTime}
	if content.Group, err = group.Parse(fetched.Body); err != nil {
		return nil, unreadable("group", err)
	}
	return func(ctx context.Context) (mirror.Applied, error) {
		return r.cfg.Mirror.ApplyGroup(ctx, lease, content, r.cfg.Now(), r.cfg.Settle)
	}, nil
}

// groups fetches the list of all groups. What differs from the list is fetched on
// its own.
func (r *Reconciler) groups(ctx context.Context, lease mirror.Lease) (apply, error) {
	fetched, err := r.cfg.Fetcher.Groups(ctx)
	if err != nil {
		return nil, err
	}
	list := mirror.GroupList{FetchTime: fetched.FetchTime}
	if list.Groups, err = group.ParseList(fetched.Body); err != nil {
		return nil, unreadable("groups", err)
	}
	return func(ctx context.Context) (mirror.Applied, error) {
		applied, err := r.cfg.Mirror.ApplyGroups(ctx, lease, list, r.cfg.Now())
		if errors.Is(err, store.ErrImplausible) {
			err = fault.Wrap(err, fault.Unavailable, fault.ReasonUpstreamAnswerInvalid,
				"the list of groups lacks more of the mirrored groups than is believed at once; nothing was deleted")
		}
		return applied, err
	}, nil
}

package reconcile

import (
	"context"
	"errors"
	"fmt"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/group"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/listed"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/thread"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// itemSource fetches and reads the items of a kind.
type itemSource struct {
	one  func(f Fetcher, ctx context.Context, r mirror.Resource) (mirror.Fetched, error)
	list func(f Fetcher, ctx context.Context, r mirror.Resource) (mirror.List, error)
	// parse reads an item as it is to be stored.
	parse func(source []byte) (store.Item, error)
}

var itemSources = map[mirror.Kind]itemSource{
	mirror.KindThread: {
		one: func(f Fetcher, ctx context.Context, r mirror.Resource) (mirror.Fetched, error) {
			return f.Thread(ctx, r.Room, r.ID)
		},
		list: func(f Fetcher, ctx context.Context, r mirror.Resource) (mirror.List, error) {
			return f.Threads(ctx, r.Room)
		},
		parse: func(source []byte) (store.Item, error) {
			t, err := thread.Parse(source)
			return store.ThreadItem(t), err
		},
	},
	mirror.KindGroup: {
		one: func(f Fetcher, ctx context.Context, r mirror.Resource) (mirror.Fetched, error) {
			return f.Group(ctx, r.ID)
		},
		list: func(f Fetcher, ctx context.Context, _ mirror.Resource) (mirror.List, error) {
			fetched, err := f.Groups(ctx)
			if err != nil {
				return mirror.List{}, err
			}
			list := mirror.List{FetchTime: fetched.FetchTime}
			if list.Items, err = listed.Parse(fetched.Body); err != nil {
				return mirror.List{}, unreadable("groups", err)
			}
			return list, nil
		},
		parse: func(source []byte) (store.Item, error) {
			g, err := group.Parse(source)
			return store.GroupItem(g), err
		},
	},
}

// item fetches an item or, without an id, the list of all, which finds items that no
// event announced.
func (r *Reconciler) item(ctx context.Context, lease mirror.Lease) (apply, error) {
	kind := lease.Resource.Kind
	source := itemSources[kind]
	if lease.Resource.ID == "" {
		return r.list(ctx, lease.Resource, source)
	}
	fetched, err := source.one(r.cfg.Fetcher, ctx, lease.Resource)
	if fault.Is(err, fault.ReasonUpstreamResourceNotFound) {
		return func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			return r.cfg.Mirror.ApplyItemMissing(ctx, lease, r.cfg.Now(), r.cfg.Settle)
		}, nil
	}
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
		item, err := source.parse(fetched.Body)
		if err != nil {
			return mirror.Applied{}, unreadable(kind.String(), err)
		}
		return store.WriteItem(ctx, r.cfg.Mirror, lease, item, fetched.FetchTime, r.cfg.Now, r.cfg.Settle)
	}, nil
}

func (r *Reconciler) list(ctx context.Context, of mirror.Resource, source itemSource) (apply, error) {
	list, err := source.list(r.cfg.Fetcher, ctx, of)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
		kind := lease.Resource.Kind
		applied, err := store.ApplyList(ctx, r.cfg.Mirror, lease, list, source.parse, r.cfg.Now, r.cfg.Settle)
		lacks, implausible := errors.AsType[*store.ImplausibleError](err)
		if !implausible {
			return applied, err
		}
		project, perr := r.cfg.Project(ctx, lease.Resource.Project)
		if perr != nil {
			return applied, fmt.Errorf("read what an operator has confirmed: %w", perr)
		}
		if list.Confirmed = project.Confirmed.At(r.cfg.Now()).Groups; lacks.Vanished <= list.Confirmed {
			return store.ApplyList(ctx, r.cfg.Mirror, lease, list, source.parse, r.cfg.Now, r.cfg.Settle)
		}
		return applied, fault.Wrap(err, fault.Unavailable, fault.ReasonUpstreamAnswerInvalid, fmt.Sprintf(
			"the list of %ss lacks %d of the %d mirrored ones, more than is believed at once; nothing was deleted; if they are "+
				"really deleted, confirm it with `liveblocks-mirror project confirm-deletions --%ss %d`",
			kind, lacks.Vanished, lacks.Mirrored, kind, lacks.Vanished))
	}, nil
}

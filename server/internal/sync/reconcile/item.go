package reconcile

import (
	"context"
	"errors"
	"fmt"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/memory"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/items"
)

// itemWeight is the memory that an item takes while it is decoded and written, in bytes
// for each byte of its source. A list is written in pieces, which take little.
const itemWeight = 32

// item fetches an item or, without an id, the list of all, which finds items that no
// event announced.
func (r *Reconciler) item(ctx context.Context, lease mirror.Lease) (apply, error) {
	kind := lease.Resource.Kind
	source := items.Sources[kind]
	if lease.Resource.ID == "" {
		return r.list(ctx, lease.Resource, source)
	}
	fetched, err := source.One(ctx, r.cfg.Fetcher, lease.Resource)
	if fault.Is(err, fault.ReasonUpstreamResourceNotFound) {
		return func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			return r.cfg.Mirror.ApplyItemMissing(ctx, lease, r.cfg.Now(), r.cfg.Settle)
		}, nil
	}
	if err == nil {
		err = memory.ForDecoding(ctx, itemWeight*int64(len(fetched.Body)))
	}
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
		item, err := source.Parse(fetched.Body)
		if err != nil {
			return mirror.Applied{}, unreadable(kind.String(), err)
		}
		return store.WriteItem(ctx, r.cfg.Mirror, lease, item, fetched.FetchTime, r.cfg.Now, r.cfg.Settle)
	}, nil
}

func (r *Reconciler) list(ctx context.Context, of mirror.Resource, source items.Source) (apply, error) {
	list, err := source.List(ctx, r.cfg.Fetcher, of)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
		kind := lease.Resource.Kind
		applied, err := store.ApplyList(ctx, r.cfg.Mirror, lease, list, source.Parse, r.cfg.Now, r.cfg.Settle)
		lacks, implausible := errors.AsType[*store.ImplausibleError](err)
		if !implausible {
			return applied, err
		}
		project, perr := r.cfg.Project(ctx, lease.Resource.Project)
		if perr != nil {
			return applied, fmt.Errorf("read what an operator has confirmed: %w", perr)
		}
		if list.Confirmed = project.Confirmed.At(r.cfg.Now()).Groups; lacks.Vanished <= list.Confirmed {
			return store.ApplyList(ctx, r.cfg.Mirror, lease, list, source.Parse, r.cfg.Now, r.cfg.Settle)
		}
		return applied, fault.Wrap(err, fault.Unavailable, fault.ReasonUpstreamAnswerInvalid, items.Implausible(kind, lacks))
	}, nil
}

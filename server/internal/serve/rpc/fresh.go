package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// defaultRefresh is how long a read waits for a refresh if its caller set no
// deadline.
const defaultRefresh = 10 * time.Second

// freshRequest is what the requests of all reads have in common.
type freshRequest interface {
	GetShowDeleted() bool
	GetMaxAge() *durationpb.Duration
	GetRequireFresh() bool
}

// copyOf is how one resource is read from the mirror.
type copyOf[T any] struct {
	resource mirror.Resource
	// get returns store.ErrNotFound where there is no copy, and for a tombstone
	// unless deleted ones are asked for.
	get       func(ctx context.Context, resource mirror.Resource, deleted bool) (T, error)
	freshness func(*T) mirror.Freshness
}

// read returns the copy, refreshed first if it is older than the request
// allows. If it cannot be refreshed in time, the copy at hand is the answer,
// even if that is none, unless the request insists.
func read[T any](ctx context.Context, s *Services, req freshRequest, c copyOf[T]) (T, error) {
	have, err := c.get(ctx, c.resource, req.GetShowDeleted())
	if req.GetMaxAge() == nil || err != nil && !errors.Is(err, store.ErrNotFound) {
		return have, err
	}
	current := func(v *T) bool {
		f := c.freshness(v)
		known := f.FetchTime
		if f.DeleteTime.After(known) { // found deleted since: nothing newer is to be had
			known = f.DeleteTime
		}
		return !f.Stale && s.Now().Sub(known) <= req.GetMaxAge().AsDuration()
	}
	refresh := []mirror.Resource{c.resource}
	if err == nil {
		if current(&have) {
			return have, nil
		}
	} else {
		// A tombstone is an answer too and has its age.
		if !req.GetShowDeleted() {
			if gone, err := c.get(ctx, c.resource, true); err == nil && current(&gone) {
				return have, store.ErrNotFound
			}
		}
		// Nothing in a room can be fetched before the room is.
		refresh = slices.Compact([]mirror.Resource{c.resource.RoomResource(), c.resource})
	}

	failure := s.refresh(ctx, refresh)
	if failure == nil {
		return c.get(ctx, c.resource, req.GetShowDeleted())
	}
	if ctx.Err() != nil {
		return have, fmt.Errorf("refresh: %w", ctx.Err())
	}
	if req.GetRequireFresh() {
		return have, refreshFault(failure)
	}
	s.Log.DebugContext(ctx, "not refreshed, the copy at hand is the answer",
		slog.String("request_id", requestID(ctx)), slog.Any("error", failure))
	return have, err
}

// refresh brings the resources up to date within the caller's deadline, less
// what it takes to read and send the answer.
func (s *Services) refresh(ctx context.Context, resources []mirror.Resource) error {
	wait := defaultRefresh
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		wait = left - min(max(left/10, 50*time.Millisecond), time.Second)
	}
	if wait <= 0 {
		return context.DeadlineExceeded
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return s.Refresher.Refresh(ctx, resources...)
}

// refreshFault returns the failure of a read that insisted on a refresh.
func refreshFault(err error) error {
	if f, ok := errors.AsType[*fault.Error](err); ok && f.Kind == fault.Unavailable {
		return err
	}
	return fault.Wrap(err, fault.Unavailable, fault.ReasonRefreshFailed, "the copy could not be refreshed in time")
}

// Package fresh reads copies that are as current as their readers ask for.
package fresh

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

// defaultWait is how long a read waits for a refresh if its caller set no
// deadline.
const defaultWait = 10 * time.Second

// Refresher brings copies up to date: it marks the resources stale, lets the workers
// fetch and waits until the result is applied. It fails with REFRESH_FAILED,
// PROJECT_PAUSED or the context's error.
type Refresher interface {
	Refresh(ctx context.Context, resources ...mirror.Resource) error
}

// Reader is what reads need to refresh a copy.
type Reader struct {
	Refresher Refresher
	Now       func() time.Time
	// NotRefreshed is told why a read answers with the copy at hand although that
	// is older than its caller wished.
	NotRefreshed func(ctx context.Context, err error)
}

// Options are a caller's wishes.
type Options struct {
	// Deleted shows tombstones too.
	Deleted bool
	// MaxAge is how old the copy may be; nil allows any age.
	MaxAge *time.Duration
	// Required fails the read if the copy is older and cannot be refreshed.
	Required bool
}

// Spec is how one resource is read from the mirror.
type Spec[T any] struct {
	Resource mirror.Resource
	// Get returns [store.ErrNotFound] where there is no copy, and for a tombstone
	// unless deleted ones are asked for.
	Get       func(ctx context.Context, resource mirror.Resource, deleted bool) (T, error)
	Freshness func(*T) mirror.Freshness
}

// Read returns the copy, refreshed first if it is older than the options allow.
// If it cannot be refreshed in time, the copy at hand is the answer, even if that
// is none, unless a fresh one is required.
func Read[T any](ctx context.Context, r *Reader, o Options, s Spec[T]) (T, error) {
	have, err := s.Get(ctx, s.Resource, o.Deleted)
	if o.MaxAge == nil || err != nil && !errors.Is(err, store.ErrNotFound) {
		return have, err
	}
	current := func(v *T) bool {
		f := s.Freshness(v)
		known := f.FetchTime
		if f.DeleteTime.After(known) { // found deleted since: nothing newer is to be had
			known = f.DeleteTime
		}
		return !f.Stale && r.Now().Sub(known) <= *o.MaxAge
	}
	refresh := []mirror.Resource{s.Resource}
	if err == nil {
		if current(&have) {
			return have, nil
		}
	} else {
		// A tombstone is an answer too and has its age.
		if !o.Deleted {
			if gone, err := s.Get(ctx, s.Resource, true); err == nil && current(&gone) {
				return have, store.ErrNotFound
			}
		}
		// Nothing in a room can be fetched before the room is.
		refresh = slices.Compact([]mirror.Resource{s.Resource.RoomResource(), s.Resource})
	}

	failure := r.refresh(ctx, refresh)
	if failure == nil {
		return s.Get(ctx, s.Resource, o.Deleted)
	}
	if ctx.Err() != nil {
		return have, fmt.Errorf("refresh: %w", ctx.Err())
	}
	if o.Required {
		if f, ok := errors.AsType[*fault.Error](failure); ok && f.Kind == fault.Unavailable {
			return have, failure
		}
		return have, fault.Wrap(failure, fault.Unavailable, fault.ReasonRefreshFailed,
			"the copy could not be refreshed in time")
	}
	r.NotRefreshed(ctx, failure)
	return have, err
}

// refresh brings the resources up to date within the caller's deadline, less
// what it takes to read and send the answer.
func (r *Reader) refresh(ctx context.Context, resources []mirror.Resource) error {
	wait := defaultWait
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		wait = left - min(max(left/10, 50*time.Millisecond), time.Second)
	}
	if wait <= 0 {
		return context.DeadlineExceeded
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return r.Refresher.Refresh(ctx, resources...)
}

// Package fresh reads mirrored copies as fresh as their readers require.
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

// defaultWait is how long a read waits for a refresh if the caller sets no
// deadline.
const defaultWait = 10 * time.Second

// Refresher updates copies: it marks the resources as stale and waits until the
// workers have fetched and applied them. It fails with REFRESH_FAILED,
// PROJECT_PAUSED or the context's error.
type Refresher interface {
	Refresh(ctx context.Context, resources ...mirror.Resource) error
}

// Reader holds the dependencies of a read.
type Reader struct {
	Refresher Refresher
	Now       func() time.Time
	// NotRefreshed receives the reason why a read returns a copy that is older than
	// its caller requested.
	NotRefreshed func(ctx context.Context, err error)
}

// Options are the options of a caller.
type Options struct {
	// Deleted includes tombstones.
	Deleted bool
	// MaxAge is the maximum age of the copy; nil allows any age.
	MaxAge *time.Duration
	// Required makes the read fail if the copy is older and cannot be refreshed.
	Required bool
}

// Spec describes how to read one resource from the mirror.
type Spec[T any] struct {
	Resource mirror.Resource
	// Get returns [store.ErrNotFound] if there is no copy, and for a tombstone
	// unless deleted ones are requested.
	Get       func(ctx context.Context, resource mirror.Resource, deleted bool) (T, error)
	Freshness func(*T) *mirror.Freshness
}

// Read returns the copy, and refreshes it first if it is older than the options
// allow. If the refresh does not finish in time, Read returns the stored copy, or
// that there is none, unless a fresh one is required.
func Read[T any](ctx context.Context, r *Reader, o Options, s Spec[T]) (T, error) {
	have, err := s.Get(ctx, s.Resource, o.Deleted)
	if o.MaxAge == nil || err != nil && !errors.Is(err, store.ErrNotFound) {
		return have, err
	}
	current := func(v *T) bool {
		f := s.Freshness(v)
		known := f.FetchTime
		if f.DeleteTime.After(known) { // deleted since: there is nothing newer
			known = f.DeleteTime
		}
		// A time in the future is of a clock that was ahead, by a little or by a year.
		return !f.Stale && r.Now().Sub(known).Abs() <= *o.MaxAge
	}
	refresh := []mirror.Resource{s.Resource}
	if err == nil {
		if current(&have) {
			return have, nil
		}
	} else {
		// A tombstone is a result too and has an age.
		if !o.Deleted {
			if other, err := s.Get(ctx, s.Resource, true); err == nil && current(&other) {
				if s.Freshness(&other).DeleteTime.IsZero() {
					return other, nil // it was mirrored meanwhile
				}
				return have, store.ErrNotFound
			}
		}
		// Nothing in a room can be fetched before the room itself.
		refresh = slices.Compact([]mirror.Resource{s.Resource.RoomResource(), s.Resource})
	}

	refreshing := r.refresh(ctx, refresh)
	if refreshing == nil {
		return s.Get(ctx, s.Resource, o.Deleted)
	}
	if ctx.Err() != nil {
		return have, fmt.Errorf("refresh: %w", ctx.Err())
	}
	failure := unavailable(refreshing)
	if o.Required {
		return have, failure
	}
	r.NotRefreshed(ctx, failure)
	if err == nil {
		s.Freshness(&have).RefreshError = string(failure.Reason) + ": " + failure.Public
	}
	return have, err
}

// unavailable returns the failure of a refresh as its caller gets it.
func unavailable(failure error) *fault.Error {
	if f, ok := errors.AsType[*fault.Error](failure); ok && f.Kind == fault.Unavailable {
		return f
	}
	return fault.Wrap(failure, fault.Unavailable, fault.ReasonRefreshFailed, "the copy could not be refreshed in time")
}

// refresh updates the resources within the caller's deadline, minus the time to
// read and send the response.
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

package reconcile

import (
	"context"
	"fmt"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/presence"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

const (
	// absence is how long before a fetch of the active users a session must have
	// begun for the fetch to end it. Event times are from Liveblocks' clock and
	// fetch times from this service's, and a read may lag behind an event.
	absence = time.Minute
	// foldLimit is the maximum number of events folded in one transaction.
	foldLimit = 1000
	// The number of sessions of one connection that are read at first, and at most:
	// connection ids restart, up to a hundred times a day in a busy room.
	fewSessions, manySessions = 32, 2048
)

func (r *Reconciler) activeUsers(ctx context.Context, lease mirror.Lease) (apply, error) {
	// Events keep the interval by themselves; requests do not.
	wait := lease.FetchTime.Add(r.cfg.ActiveUsersInterval).Sub(r.cfg.Now())
	if wait > 0 && wait <= 2*r.cfg.ActiveUsersInterval { // else a clock that was ahead has written it
		return nil, fault.New(fault.Busy, fault.ReasonUpstreamRateLimited,
			"the active users of this room were fetched only seconds ago").After(wait)
	}
	fetched, err := r.cfg.Fetcher.ActiveUsers(ctx, lease.Resource.Room)
	if err != nil {
		return nil, err
	}
	content := mirror.ActiveUsersContent{FetchTime: fetched.FetchTime}
	if content.Users, err = presence.ParseUsers(fetched.Body); err != nil {
		return nil, unreadable("active users", err)
	}
	settle := r.cfg.Settle
	if settle > 0 {
		settle = max(settle, r.cfg.ActiveUsersInterval)
	}
	return func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
		return r.cfg.Mirror.ApplyActiveUsers(ctx, lease, content, fetched.FetchTime.Add(-absence), r.cfg.Now(), settle)
	}, nil
}

// sessions folds the waiting events into a room's sessions. Nothing is fetched.
func (r *Reconciler) sessions(context.Context, mirror.Lease) (apply, error) {
	return r.foldSessions, nil
}

func (r *Reconciler) foldSessions(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
	events, err := r.cfg.Mirror.Unfolded(ctx, lease.Resource, foldLimit)
	if err != nil {
		return mirror.Applied{}, fmt.Errorf("events of sessions: %w", err)
	}
	stored, err := r.storedSessions(ctx, lease.Resource, events)
	if err != nil {
		return mirror.Applied{}, fmt.Errorf("stored sessions: %w", err)
	}
	fold := presence.Fold(stored, events)
	fold.Until = lastOf(events)
	return r.cfg.Mirror.ApplySessions(ctx, lease, fold, r.cfg.Now())
}

// lastOf returns when the last of some waiting events happened, zero if there are none.
func lastOf(events []mirror.Event) time.Time {
	if len(events) == 0 {
		return time.Time{}
	}
	return events[len(events)-1].HappenTime()
}

// storedSessions returns the sessions that the events may belong to: those of each
// connection since before its earliest event.
func (r *Reconciler) storedSessions(ctx context.Context, room mirror.Resource,
	events []mirror.Event,
) ([]mirror.UserSession, error) {
	connections := presence.Connections(events)
	if len(connections) == 0 {
		return nil, nil
	}
	earliest := r.cfg.Now()
	for _, ev := range events {
		if at := ev.HappenTime(); at.Before(earliest) {
			earliest = at
		}
	}
	for limit := fewSessions; ; limit *= 8 {
		stored, err := r.cfg.Mirror.SessionsOf(ctx, room, connections, limit)
		if err != nil || limit >= manySessions || reach(stored, limit, earliest) {
			return stored, err
		}
	}
}

// reach reports whether the sessions, at most limit for each connection, go back to
// before t or include all there are.
func reach(sessions []mirror.UserSession, limit int, t time.Time) bool {
	count, before := make(map[int64]int), make(map[int64]bool)
	for _, s := range sessions {
		count[s.ConnectionID]++
		before[s.ConnectionID] = before[s.ConnectionID] || s.BeginTime().Before(t)
	}
	for connection, n := range count {
		if n >= limit && !before[connection] {
			return false
		}
	}
	return true
}

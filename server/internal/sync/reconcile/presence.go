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
	// begun for its end to be concluded from the fetch: the times of events are
	// Liveblocks' and that of the fetch is ours, and a read may lag behind an event.
	absence = time.Minute
	// foldLimit bounds the events folded in one transaction.
	foldLimit = 1000
	// Sessions of one connection that are read at first, and at most: a connection's
	// number is given out anew, a hundred times a day in a busy room.
	fewSessions, manySessions = 32, 2048
)

func (r *Reconciler) activeUsers(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
	// Events keep the interval by themselves, whoever asks for a fetch does not.
	if wait := lease.FetchTime.Add(r.cfg.ActiveUsersInterval).Sub(r.cfg.Now()); wait > 0 {
		return mirror.Applied{}, fault.New(fault.Busy, fault.ReasonUpstreamRateLimited,
			"the active users of a room are not fetched so soon again").After(wait)
	}
	fetched, err := r.cfg.Fetcher.ActiveUsers(ctx, lease.Resource.Room)
	if err != nil {
		return r.missing(ctx, lease, err)
	}
	content := mirror.ActiveUsersContent{FetchTime: fetched.FetchTime}
	if content.Users, err = presence.ParseUsers(fetched.Body); err != nil {
		return mirror.Applied{}, unreadable("active users", err)
	}
	settle := r.cfg.Settle
	if settle > 0 {
		settle = max(settle, r.cfg.ActiveUsersInterval)
	}
	ctx, done := beyondLease(ctx)
	defer done()
	applied, err := r.cfg.Mirror.ApplyActiveUsers(ctx, lease, content, fetched.FetchTime.Add(-absence), r.cfg.Now(),
		settle)
	if err != nil {
		return applied, fmt.Errorf("apply active users: %w", err)
	}
	return applied, nil
}

// sessions folds the events that wait into a room's sessions. Nothing is fetched.
func (r *Reconciler) sessions(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
	events, err := r.cfg.Mirror.Unfolded(ctx, lease.Resource, foldLimit)
	if err != nil {
		return mirror.Applied{}, fmt.Errorf("events of sessions: %w", err)
	}
	stored, err := r.storedSessions(ctx, lease.Resource, events)
	if err != nil {
		return mirror.Applied{}, fmt.Errorf("stored sessions: %w", err)
	}
	ctx, done := beyondLease(ctx)
	defer done()
	applied, err := r.cfg.Mirror.ApplySessions(ctx, lease, presence.Fold(stored, events), r.cfg.Now())
	if err != nil {
		return applied, fmt.Errorf("apply sessions: %w", err)
	}
	return applied, nil
}

// storedSessions returns the sessions that the events may belong to: of each of
// their connections those back to before the earliest of the events.
func (r *Reconciler) storedSessions(ctx context.Context, room mirror.Resource,
	events []mirror.Event) ([]mirror.UserSession, error) {
	connections := presence.Connections(events)
	if len(connections) == 0 {
		return nil, nil
	}
	earliest := r.cfg.Now()
	for _, ev := range events {
		at := ev.SourceTime
		if at.IsZero() {
			at = ev.ReceiveTime
		}
		if at.Before(earliest) {
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

// reach reports whether the sessions, of each connection at most limit, go back
// to before t where there are that far.
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

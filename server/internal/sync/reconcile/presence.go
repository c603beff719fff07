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

func (r *Reconciler) activeUsers(ctx context.Context, lease mirror.Lease) (apply, error) {
	// Events keep the interval by themselves, whoever asks for a fetch does not.
	if wait := lease.FetchTime.Add(r.cfg.ActiveUsersInterval).Sub(r.cfg.Now()); wait > 0 {
		return nil, fault.New(fault.Busy, fault.ReasonUpstreamRateLimited,
			"the active users of a room are not fetched so soon again").After(wait)
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
	return func(ctx context.Context) (mirror.Applied, error) {
		return r.cfg.Mirror.ApplyActiveUsers(ctx, lease, content, fetched.FetchTime.Add(-absence), r.cfg.Now(), settle)
	}, nil
}

// sessions folds the events that wait into a room's sessions. Nothing is fetched.
func (r *Reconciler) sessions(ctx context.Context, lease mirror.Lease) (apply, error) {
	events, err := r.cfg.Mirror.Unfolded(ctx, lease.Resource, foldLimit)
	if err != nil {
		return nil, fmt.Errorf("events of sessions: %w", err)
	}
	stored, err := r.storedSessions(ctx, lease.Resource, events)
	if err != nil {
		return nil, fmt.Errorf("stored sessions: %w", err)
	}
	return func(ctx context.Context) (mirror.Applied, error) {
		return r.cfg.Mirror.ApplySessions(ctx, lease, presence.Fold(stored, events), r.cfg.Now())
	}, nil
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

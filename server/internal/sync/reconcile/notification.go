package reconcile

import (
	"context"
	"fmt"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/notification"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// notification folds the events that wait into a notification, and asks its
// user's inbox, which may hold it or not.
func (r *Reconciler) notification(ctx context.Context, lease mirror.Lease) (apply, error) {
	events, err := r.cfg.Mirror.Unfolded(ctx, lease.Resource, foldLimit)
	if err != nil {
		return nil, fmt.Errorf("events of a notification: %w", err)
	}
	fold := mirror.NotificationFold{FetchTime: r.cfg.Now()}
	fold.Rows, fold.Folded = notification.Fold(events)
	user, err := r.inboxUser(ctx, lease.Resource, fold.Rows)
	if err != nil {
		return nil, fmt.Errorf("user of a notification: %w", err)
	}
	settle := time.Duration(0) // without an inbox there is nothing to look at again
	if user != "" {
		settle = r.cfg.Settle
		fetchTime, inbox, err := r.inbox(ctx, user, lease.Resource.ID)
		if err != nil && len(events) == 0 {
			return nil, err
		}
		// What the events tell need not wait until the inbox can be asked.
		fold.FetchTime, fold.Inbox = fetchTime, inbox
	}
	return func(ctx context.Context) (mirror.Applied, error) {
		return r.cfg.Mirror.ApplyNotification(ctx, lease, fold, r.cfg.Now(), settle)
	}, nil
}

// inbox asks a user's inbox for a notification. That it does not hold it is normal:
// it was deleted, or never had a place there. The time is zero if it cannot be asked.
func (r *Reconciler) inbox(ctx context.Context, user, id string) (time.Time, mirror.Inbox, error) {
	asked := r.cfg.Now()
	fetched, err := r.cfg.Fetcher.InboxNotification(ctx, user, id)
	switch {
	case fault.Is(err, fault.ReasonUpstreamResourceNotFound):
		return asked, mirror.Inbox{}, nil
	case err != nil:
		return time.Time{}, mirror.Inbox{}, err
	}
	inbox, err := notification.ParseInbox(fetched.Body)
	if err != nil {
		return time.Time{}, mirror.Inbox{}, unreadable("inbox notification", err)
	}
	return fetched.FetchTime, inbox, nil
}

// inboxUser returns whose inbox may hold the notification; empty if none may.
func (r *Reconciler) inboxUser(ctx context.Context, resource mirror.Resource, rows []mirror.Notification) (string,
	error) {
	for _, row := range rows {
		if row.EventID == resource.ID {
			return "", nil // it has no inbox id, and goes by that of its event
		}
		if row.UserID != "" {
			return row.UserID, nil
		}
	}
	return r.cfg.Mirror.NotificationUser(ctx, resource)
}

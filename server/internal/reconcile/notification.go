package reconcile

import (
	"context"
	"fmt"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/notification"
)

// notification folds the events that wait into a notification, and asks its
// user's inbox, which may hold it or not.
func (r *Reconciler) notification(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
	events, err := r.cfg.Mirror.Unfolded(ctx, lease.Resource, foldLimit)
	if err != nil {
		return mirror.Applied{}, fmt.Errorf("events of a notification: %w", err)
	}
	fold := mirror.NotificationFold{FetchTime: r.cfg.Now()}
	fold.Rows, fold.Folded = notification.Fold(events)
	user, err := r.inboxUser(ctx, lease.Resource, fold.Rows)
	if err != nil {
		return mirror.Applied{}, fmt.Errorf("user of a notification: %w", err)
	}
	settle := time.Duration(0) // without an inbox there is nothing to look at again
	if user != "" {
		settle = r.cfg.Settle
		fetched, err := r.cfg.Fetcher.InboxNotification(ctx, user, lease.Resource.ID)
		code, again := denied(err)
		switch {
		case code == codeResourceNotFound: // as is normal: it was deleted, or never had a place there
		case err != nil && len(events) == 0:
			return mirror.Applied{}, again
		case err != nil: // what the events tell need not wait for the inbox
			fold.FetchTime = time.Time{}
		default:
			fold.FetchTime = fetched.FetchTime
			if fold.Inbox, err = notification.ParseInbox(fetched.Body); err != nil {
				return mirror.Applied{}, unreadable("inbox notification", err)
			}
		}
	}
	ctx, done := beyondLease(ctx)
	defer done()
	applied, err := r.cfg.Mirror.ApplyNotification(ctx, lease, fold, r.cfg.Now(), settle)
	if err != nil {
		return applied, fmt.Errorf("apply notification: %w", err)
	}
	return applied, nil
}

// inboxUser returns whose inbox may hold the notification; empty if none may.
func (r *Reconciler) inboxUser(ctx context.Context, resource mirror.Resource, rows []mirror.Notification) (string, error) {
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

package reconcile

import (
	"context"
	"fmt"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/notification"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// notification folds the waiting events into a notification, and fetches its entry
// in the user's inbox, if there is one.
func (r *Reconciler) notification(ctx context.Context, lease mirror.Lease) (apply, error) {
	events, err := r.cfg.Mirror.Unfolded(ctx, lease.Resource, foldLimit)
	if err != nil {
		return nil, fmt.Errorf("events of a notification: %w", err)
	}
	fold := mirror.NotificationFold{FetchTime: r.cfg.Now()}
	fold.Rows, fold.Folded = notification.Fold(events)
	fold.Until = lastOf(events)
	user, err := r.inboxUser(ctx, lease.Resource, fold.Rows)
	if err != nil {
		return nil, fmt.Errorf("user of a notification: %w", err)
	}
	settle := time.Duration(0) // without an inbox there is nothing to fetch again
	if user != "" {
		settle = r.cfg.Settle
		fetchTime, inbox, err := r.inbox(ctx, user, lease.Resource.ID)
		if err != nil && len(events) == 0 {
			return nil, err
		}
		// Folding the events need not wait until the inbox can be fetched.
		fold.FetchTime, fold.Inbox = fetchTime, inbox
	}
	return func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
		return r.cfg.Mirror.ApplyNotification(ctx, lease, fold, r.cfg.Now(), settle)
	}, nil
}

// inbox fetches a notification from a user's inbox. It is normal that the inbox
// does not contain it: it was deleted, or was never there. The time is zero if the
// inbox cannot be fetched.
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

// inboxUser returns the user whose inbox may contain the notification; empty if
// none.
func (r *Reconciler) inboxUser(ctx context.Context, resource mirror.Resource, rows []mirror.Notification) (string,
	error,
) {
	for _, row := range rows {
		if row.EventID == resource.ID {
			return "", nil // it has no inbox id; its event's id identifies it
		}
		if row.UserID != "" {
			return row.UserID, nil
		}
	}
	return r.cfg.Mirror.NotificationUser(ctx, resource)
}

package rest

import (
	"context"
	"net/http"
	"time"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
)

// inboxAge is how old a copy of a notification may be before it is fetched again: no event
// tells that one was read or deleted.
const inboxAge = 10 * time.Second

// inboxNotification answers with a notification of a user's inbox, byte for byte. It is fetched
// again first, unless that was done just now. Where writes come this way, it always is, for one
// of them may have changed it.
func (h *Handler) inboxNotification(w http.ResponseWriter, r *request) error {
	n, err := h.announced(r)
	if err != nil {
		return err
	}
	of := mirror.Resource{
		Room: mirror.RoomID(n.GetRoomId()), Kind: mirror.KindNotification, ID: n.GetNotificationId(),
	}
	old := false
	if h.cfg.Mode.Writes || n.GetFreshness().GetStale() ||
		h.cfg.Now().Sub(n.GetFreshness().GetFetchTime().AsTime()).Abs() > inboxAge {
		old = !h.refreshed(r, of)
		if n, err = h.announced(r); err != nil {
			return err
		}
	}
	switch {
	case n.GetFreshness().GetFetchTime() == nil:
		return h.unfetched(r, of, "the notification")
	case len(n.GetInboxJson()) == 0:
		return resourceMissing("Inbox notification")
	}
	a := ageOf(n.GetFreshness())
	a.stale = a.stale || old
	return h.sendJSON(w, r, a, n.GetInboxJson())
}

// announced returns a notification that an event has announced. Other ones may be in the inbox,
// too.
func (h *Handler) announced(r *request) (*mirrorv1.Notification, error) {
	got, err := h.mirror.ListNotifications(r.ctx, &mirrorv1.ListNotificationsRequest{
		ProjectId: r.project, UserId: r.ids[0], NotificationId: r.ids[1], PageSize: 1,
	})
	if err != nil && !absentHere(err) {
		return nil, err
	}
	for _, n := range got.GetNotifications() {
		if n.GetEventId() != n.GetNotificationId() { // otherwise the event names no notification
			return n, nil
		}
	}
	if caller, ok := access.From(r.ctx); ok && caller.Limited() { // it may be of a room that is not to be seen
		return nil, resourceMissing("Inbox notification")
	}
	return nil, notMirrored(r.Request)
}

// refreshed fetches a resource again, and reports whether that could be done in time. While
// Liveblocks is known not to answer, nobody waits for it.
func (h *Handler) refreshed(r *request, of mirror.Resource) bool {
	if !h.cfg.Failing(r.project).IsZero() {
		return false
	}
	ctx, cancel := context.WithDeadline(r.ctx, r.begin.Add(changedWait))
	defer cancel()
	return h.cfg.Refresh(ctx, h.of(r, of)) == nil
}

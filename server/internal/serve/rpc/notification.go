package rpc

import (
	"context"
	"crypto/sha256"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// notificationBatch bounds how many notifications one query brings: a custom one
// holds what the application put into it.
const notificationBatch = 100

// ListNotifications lists notifications, the latest first.
func (m *mirrorService) ListNotifications(ctx context.Context,
	req *mirrorv1.ListNotificationsRequest) (*mirrorv1.ListNotificationsResponse, error) {
	project, err := m.s.project(req.GetProjectId())
	if err != nil {
		return nil, err
	}
	notifications, next, err := page(ctx, req, listing[mirror.Notification, *mirrorv1.Notification]{
		list:    listNotifications,
		project: project,
		batch:   notificationBatch,
		fetch: func(ctx context.Context, after cursor, limit int) ([]mirror.Notification, error) {
			return m.s.Query.Notifications(ctx, store.NotificationFilter{
				Project:   project,
				Room:      mirror.RoomID(req.GetRoomId()),
				User:      req.GetUserId(),
				Channel:   req.GetChannel(),
				Kind:      req.GetKind(),
				Thread:    req.GetThreadId(),
				From:      bound(req.GetStartTime()),
				To:        bound(req.GetEndTime()),
				AfterTime: after.stored(),
				AfterID:   after.ID,
				Limit:     limit,
			})
		},
		key:  func(row *mirror.Notification) cursor { return cursor{Time: row.CreateTime, ID: row.EventID} },
		show: showNotification,
	}, m.s.pageBudget())
	if err != nil {
		return nil, err
	}
	return &mirrorv1.ListNotificationsResponse{Notifications: notifications, NextPageToken: next}, nil
}

func showNotification(n *mirror.Notification) *mirrorv1.Notification {
	var hash *[32]byte
	if n.Inbox.Source != nil {
		sum := sha256.Sum256(n.Inbox.Source)
		hash = &sum
	}
	return &mirrorv1.Notification{
		ProjectId:      string(n.Project),
		RoomId:         string(n.Room),
		EventId:        n.EventID,
		NotificationId: n.ID,
		Channel:        n.Channel,
		Kind:           n.Kind,
		UserId:         n.UserID,
		ThreadId:       n.ThreadID,
		MentionId:      n.MentionID,
		SubjectId:      n.SubjectID,
		CreateTime:     timestamp(n.CreateTime),
		TriggerTime:    timestamp(n.TriggerTime),
		InboxJson:      n.Inbox.Source,
		ReadTime:       timestamp(n.Inbox.ReadTime),
		NotifyTime:     timestamp(n.Inbox.NotifyTime),
		Freshness:      showFreshness(n.Freshness, hash),
	}
}

package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

// NotificationUser reads by key.
func (s *Store) NotificationUser(ctx context.Context, r mirror.Resource) (string, error) {
	user, err := s.q.NotificationUser(ctx, dbq.NotificationUserParams{
		Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), NotificationID: r.ID,
	})
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", classify(ctx, fmt.Errorf("read user of notification: %w", err))
	}
	return user, nil
}

// ApplyNotification writes the rows that differ, and then the inbox entry to all
// rows of the notification if it differs in one.
func (s *Store) ApplyNotification(ctx context.Context, lease mirror.Lease, fold mirror.NotificationFold, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	r := lease.Resource
	bucket, project, room := r.Bucket(), string(r.Project), string(r.Room)
	fold = store.NotificationColumns(fold, func(t time.Time) time.Time { return timeOf(nullTime(t)) })
	data, why := store.Queryable(fold.Inbox.Source)
	inbox := dbq.WriteInboxParams{
		InboxJson: fold.Inbox.Source, Inbox: data, InboxProblem: why,
		ReadTime: nullTime(fold.Inbox.ReadTime), NotifyTime: nullTime(fold.Inbox.NotifyTime),
		Bucket: bucket, ProjectID: project, RoomID: room, NotificationID: r.ID,
	}
	apply := func() (mirror.Applied, error) {
		return s.end(ctx, "apply notification", lease, now, func(q, later *dbq.Queries) (store.Plan, error) {
			st, _, err := lockLeased(ctx, q, lease)
			if err != nil {
				return store.Plan{}, err
			}
			rows, err := q.NotificationRows(ctx, dbq.NotificationRowsParams{
				Bucket: bucket, ProjectID: project, RoomID: room, NotificationID: r.ID,
			})
			if err != nil {
				return store.Plan{}, err
			}
			stored := make([]mirror.Notification, len(rows))
			for i, row := range rows {
				stored[i] = mirror.Notification{
					EventID: row.EventID, Channel: row.Channel, Kind: row.Kind, UserID: row.UserID, ThreadID: row.ThreadID,
					MentionID: row.MentionID, SubjectID: row.SubjectID, CreateTime: timeOf(row.CreateTime),
					TriggerTime: timeOf(row.TriggerTime),
					Inbox: mirror.Inbox{
						Source: row.InboxJson, ReadTime: timeOf(row.ReadTime), NotifyTime: timeOf(row.NotifyTime),
					},
				}
			}
			more, err := deleteFolded(ctx, q, later, r, fold.Folded, fold.Until)
			if err != nil {
				return store.Plan{}, err
			}
			plan := store.PlanNotification(st, stored, fold, more, lease, now, settle)
			if len(plan.Rows) > 0 {
				err = writeNotifications(ctx, later, r, plan.Rows)
			}
			if plan.Inbox {
				err = errors.Join(err, later.WriteInbox(ctx, inbox))
			}
			return plan.Plan, err
		})
	}
	out, err := apply()
	if refused(err) && inbox.Inbox != nil {
		inbox.Inbox, inbox.InboxProblem = nil, problem(err)
		out, err = apply()
	}
	return out, err
}

func writeNotifications(ctx context.Context, later *dbq.Queries, r mirror.Resource, rows []mirror.Notification) error {
	arg := dbq.UpsertNotificationsParams{
		Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), NotificationID: r.ID,
	}
	for _, n := range rows {
		arg.EventID = append(arg.EventID, n.EventID)
		arg.Channel = append(arg.Channel, n.Channel)
		arg.Kind = append(arg.Kind, n.Kind)
		arg.UserID = append(arg.UserID, n.UserID)
		arg.ThreadID = append(arg.ThreadID, n.ThreadID)
		arg.MentionID = append(arg.MentionID, n.MentionID)
		arg.SubjectID = append(arg.SubjectID, n.SubjectID)
		arg.CreateTime = append(arg.CreateTime, nullTime(n.CreateTime))
		arg.TriggerTime = append(arg.TriggerTime, nullTime(n.TriggerTime))
	}
	return later.UpsertNotifications(ctx, arg)
}

package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql/dbq"
)

// NotificationUser reads by key.
func (s *Store) NotificationUser(ctx context.Context, r mirror.Resource) (string, error) {
	user, err := s.q.NotificationUser(ctx, dbq.NotificationUserParams{
		Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room), NotificationID: rawKey(r.ID),
	})
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", classify(ctx, fmt.Errorf("read user of notification: %w", err))
	}
	return string(user), nil
}

var notificationTable = table{
	name: "mirror_notification",
	columns: "bucket, project_id, room_id, notification_id, event_id, channel, kind, user_id, " +
		"thread_id, mention_id, subject_id, create_time, trigger_time",
	key: 5,
}

// ApplyNotification writes the rows that differ, and then the inbox entry to all
// rows of the notification if it differs in one.
func (s *Store) ApplyNotification(ctx context.Context, lease mirror.Lease, fold mirror.NotificationFold, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	r := lease.Resource
	fold = store.NotificationColumns(fold, func(t time.Time) time.Time { return timeOf(nullTime(t)) })
	data, why := store.Queryable(fold.Inbox.Source)
	inbox := dbq.WriteInboxParams{
		InboxJson: fold.Inbox.Source, Inbox: data, InboxProblem: why,
		ReadTime: nullTime(fold.Inbox.ReadTime), NotifyTime: nullTime(fold.Inbox.NotifyTime),
		Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room), NotificationID: rawKey(r.ID),
	}
	return s.end(ctx, "apply notification", lease, now, func(q *queries) (store.Plan, error) {
		st, err := lockState(ctx, q, lease)
		if err != nil {
			return store.Plan{}, err
		}
		of := dbq.NotificationRowsParams{
			Bucket: inbox.Bucket, ProjectID: inbox.ProjectID, RoomID: inbox.RoomID, NotificationID: inbox.NotificationID,
			After: []byte{}, Limit: q.limit(),
		}
		rows, err := pages(q.piece, func(last *dbq.NotificationRowsRow) ([]dbq.NotificationRowsRow, error) {
			if last != nil {
				of.After = last.EventID
			}
			return q.NotificationRows(ctx, of)
		})
		if err != nil {
			return store.Plan{}, err
		}
		stored := make([]mirror.Notification, len(rows))
		for i, row := range rows {
			stored[i] = mirror.Notification{
				EventID: string(row.EventID), Channel: string(row.Channel), Kind: string(row.Kind), UserID: string(row.UserID),
				ThreadID: string(row.ThreadID), MentionID: string(row.MentionID), SubjectID: string(row.SubjectID),
				CreateTime: row.CreateTime, TriggerTime: timeOf(row.TriggerTime),
				Inbox: mirror.Inbox{Source: row.InboxJson, ReadTime: timeOf(row.ReadTime), NotifyTime: timeOf(row.NotifyTime)},
			}
		}
		more, err := deleteFolded(ctx, q, r, fold.Folded)
		if err != nil {
			return store.Plan{}, err
		}
		plan := store.PlanNotification(st, stored, fold, more, lease, now, settle)
		values := make([][]any, 0, len(plan.Rows))
		for _, n := range plan.Rows {
			values = append(values, append(roomArgs(r), rawKey(r.ID), rawKey(n.EventID), rawKey(n.Channel), rawKey(n.Kind),
				rawKey(n.UserID), rawKey(n.ThreadID), rawKey(n.MentionID), rawKey(n.SubjectID), nullTime(n.CreateTime),
				nullTime(n.TriggerTime)))
		}
		if err := s.write(ctx, q, notificationTable, values, nil); err != nil || !plan.Inbox {
			return plan.Plan, err
		}
		ids := make([]string, 0, len(rows)+len(plan.Rows))
		for _, row := range rows {
			ids = append(ids, string(row.EventID))
		}
		for _, n := range plan.Rows {
			ids = append(ids, n.EventID)
		}
		slices.Sort(ids)
		return plan.Plan, chunks(slices.Compact(ids), q.piece, func(ids []string) error {
			inbox.FirstEvent, inbox.LastEvent = rawKey(ids[0]), rawKey(ids[len(ids)-1])
			return s.writeInbox(ctx, q, inbox)
		})
	})
}

// writeInbox leaves out the queryable JSON if the server refuses it: that undoes
// only the statement.
func (s *Store) writeInbox(ctx context.Context, q *queries, arg dbq.WriteInboxParams) error {
	without, err := s.fit(arg.InboxJson, arg.Inbox, "")
	if err != nil {
		return err
	}
	if without {
		arg.Inbox, arg.InboxProblem = nil, tooLargeData
	}
	if err = q.WriteInbox(ctx, arg); refused(err) && arg.Inbox != nil {
		arg.Inbox, arg.InboxProblem = nil, problem(err)
		err = q.WriteInbox(ctx, arg)
	}
	return err
}

package postgres

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

// column is JSON for a column, null where there is none.
func column(raw []byte) []byte {
	if len(raw) == 0 {
		return nil
	}
	return raw
}

// ApplyActiveUsers replaces who is in the room if somebody else is.
func (s *Store) ApplyActiveUsers(
	ctx context.Context, lease mirror.Lease, users mirror.ActiveUsersContent, absentBefore, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	r := lease.Resource
	bucket, project, room := r.Bucket(), string(r.Project), string(r.Room)
	arg := dbq.InsertActiveUsersParams{Bucket: bucket, ProjectID: project, RoomID: room, Epoch: lease.Epoch,
		ConnectionID: []int64{}}
	sorted := slices.Clone(users.Users)
	slices.SortStableFunc(sorted, func(a, b mirror.ActiveUser) int { return cmp.Compare(a.ConnectionID, b.ConnectionID) })
	sorted = slices.CompactFunc(sorted, func(a, b mirror.ActiveUser) bool { return a.ConnectionID == b.ConnectionID })
	for i, u := range sorted {
		if !mirror.ValidID(u.UserID, mirror.MaxUserID) {
			sorted[i].UserID = "" // as if anonymous, since no other id would be his
		}
		arg.ConnectionID = append(arg.ConnectionID, u.ConnectionID)
		arg.UserID = append(arg.UserID, sorted[i].UserID)
		arg.InfoJson = append(arg.InfoJson, column(u.Info))
		arg.Info = append(arg.Info, column(u.Info))
	}
	same := func(rows []dbq.ActiveUserRowsRow) bool {
		return slices.EqualFunc(rows, sorted, func(row dbq.ActiveUserRowsRow, u mirror.ActiveUser) bool {
			return row.Epoch == lease.Epoch && row.ConnectionID == u.ConnectionID && row.UserID == u.UserID &&
				bytes.Equal(row.InfoJson, u.Info)
		})
	}
	var out mirror.Applied
	apply := func(q, later *dbq.Queries) error {
		out = mirror.Applied{}
		row, err := q.LockChild(ctx, dbq.LockChildParams{
			Bucket: bucket, ProjectID: project, RoomID: room, Kind: int16(r.Kind), ResourceID: r.ID, Token: lease.Token[:],
		})
		if err = fenced(ctx, q, lease, row.RoomEpoch, err); err != nil {
			return err
		}
		stored, err := q.ActiveUserRows(ctx, dbq.ActiveUserRowsParams{Bucket: bucket, ProjectID: project, RoomID: room})
		if err != nil {
			return err
		}
		var change mirror.ChangeKind
		if !same(stored) {
			change = mirror.ChangeUpserted
			if err := later.DeleteActiveUsers(ctx, dbq.DeleteActiveUsersParams{Bucket: bucket, ProjectID: project,
				RoomID: room}); err != nil {
				return err
			}
			if err := later.InsertActiveUsers(ctx, arg); err != nil {
				return err
			}
		}
		ended, err := q.EndAbsentSessions(ctx, dbq.EndAbsentSessionsParams{
			LeaveTime: nullTime(users.FetchTime), AbsentBefore: nullTime(absentBefore), ConnectionID: arg.ConnectionID,
			UserID: arg.UserID,
			Bucket: bucket, ProjectID: project, RoomID: room,
		})
		if err != nil {
			return err
		}
		st := stateOf(row.MirrorResourceState).Succeed(lease, users.FetchTime, now, settle)
		out = mirror.Applied{Generation: st.Applied, Changed: change != 0 || ended > 0, Due: st.Due}
		if err := later.WriteState(ctx, writeState(r, st, change, now)); err != nil || ended == 0 {
			return err
		}
		return later.Announce(ctx, dbq.AnnounceParams{
			Bucket: bucket, ProjectID: project, RoomID: room, Kind: int16(mirror.KindUserSessions), Now: nullTime(now),
		})
	}
	err := s.tx(ctx, "apply active users", apply)
	if refused(err) {
		arg.Info = make([][]byte, len(arg.Info))
		err = s.tx(ctx, "apply active users", apply)
	}
	if err != nil {
		return mirror.Applied{}, err
	}
	return out, nil
}

// Unfolded reads by key.
func (s *Store) Unfolded(ctx context.Context, r mirror.Resource, limit int) ([]mirror.Event, error) {
	rows, err := s.q.Unfolded(ctx, dbq.UnfoldedParams{
		Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), Kind: int16(r.Kind), ResourceID: r.ID,
		MaxRows: int32(limit), //nolint:gosec // a small constant of the caller
	})
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("read events that wait: %w", err))
	}
	out := make([]mirror.Event, 0, len(rows))
	for _, row := range rows {
		out = append(out, mirror.Event{
			Project: r.Project, Room: r.Room, ID: row.EventID, Type: row.Type, Payload: row.Payload,
			SourceTime: timeOf(row.SourceTime), ReceiveTime: timeOf(row.ReceiveTime),
		})
	}
	return out, nil
}

// deleteFolded takes away the events that need not wait any longer, and reports
// whether others do. One that comes in later waits for the lock of the state.
func deleteFolded(ctx context.Context, q, later *dbq.Queries, r mirror.Resource, folded []string) (more bool,
	err error) {
	key := dbq.HasUnfoldedParams{Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room),
		Kind: int16(r.Kind), ResourceID: r.ID}
	if len(folded) > 0 {
		if err := later.DeleteUnfolded(ctx, dbq.DeleteUnfoldedParams{
			Bucket: key.Bucket, ProjectID: key.ProjectID, RoomID: key.RoomID, Kind: key.Kind, ResourceID: key.ResourceID,
			EventID: folded,
		}); err != nil {
			return false, err
		}
	}
	return q.HasUnfolded(ctx, key)
}

// SessionsOf walks the index by connection.
func (s *Store) SessionsOf(ctx context.Context, r mirror.Resource, connections []int64,
	limit int) ([]mirror.UserSession, error) {
	rows, err := s.q.SessionsOf(ctx, dbq.SessionsOfParams{
		ConnectionID: connections, Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room),
		MaxRows: int32(limit), //nolint:gosec // a small constant of the caller
	})
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("read sessions of connections: %w", err))
	}
	out := make([]mirror.UserSession, 0, len(rows))
	for _, row := range rows {
		out = append(out, sessionOf(row))
	}
	return out, nil
}

func sessionOf(row dbq.MirrorUserSession) mirror.UserSession {
	return mirror.UserSession{
		Project: mirror.ProjectID(row.ProjectID), Room: mirror.RoomID(row.RoomID), ID: row.SessionID,
		ConnectionID: row.ConnectionID, UserID: row.UserID, Info: row.InfoJson,
		EnterTime: timeOf(row.EnterTime), LeaveTime: timeOf(row.LeaveTime), LeaveEventID: row.LeaveEventID,
		End: mirror.SessionEnd(row.EndCause),
	}
}

// ApplySessions deletes before it writes: what turned out to be part of another
// session may have its id.
func (s *Store) ApplySessions(ctx context.Context, lease mirror.Lease, fold mirror.SessionFold,
	now time.Time) (mirror.Applied, error) {
	r := lease.Resource
	bucket, project, room := r.Bucket(), string(r.Project), string(r.Room)
	arg := dbq.UpsertSessionsParams{Bucket: bucket, ProjectID: project, RoomID: room}
	for _, u := range fold.Upserts {
		arg.SessionID = append(arg.SessionID, u.ID)
		arg.ConnectionID = append(arg.ConnectionID, u.ConnectionID)
		arg.UserID = append(arg.UserID, u.UserID)
		arg.InfoJson = append(arg.InfoJson, column(u.Info))
		arg.Info = append(arg.Info, column(u.Info))
		arg.BeginTime = append(arg.BeginTime, sinceEpoch(u.BeginTime()))
		arg.EnterTime = append(arg.EnterTime, nullTime(u.EnterTime))
		arg.LeaveTime = append(arg.LeaveTime, nullTime(u.LeaveTime))
		arg.LeaveEventID = append(arg.LeaveEventID, u.LeaveEventID)
		arg.EndCause = append(arg.EndCause, string(u.End))
	}
	var out mirror.Applied
	apply := func(q, later *dbq.Queries) error {
		out = mirror.Applied{}
		st, h, err := lockLeased(ctx, q, lease)
		if err != nil {
			return err
		}
		var change mirror.ChangeKind
		if len(fold.Deletes) > 0 {
			change = mirror.ChangeUpserted
			if err := later.DeleteSessions(ctx, dbq.DeleteSessionsParams{Bucket: bucket, ProjectID: project, RoomID: room,
				SessionID: fold.Deletes}); err != nil {
				return err
			}
		}
		if len(fold.Upserts) > 0 {
			change = mirror.ChangeUpserted
			if err := later.UpsertSessions(ctx, arg); err != nil {
				return err
			}
		}
		if h.epoch > 0 && !h.lives() {
			if err := later.EndSessions(ctx, dbq.EndSessionsParams{LeaveTime: nullTime(h.deleteTime), Bucket: bucket,
				ProjectID: project, RoomID: room}); err != nil {
				return err
			}
		}
		more, err := deleteFolded(ctx, q, later, r, fold.Folded)
		if err != nil {
			return err
		}
		st = st.Succeed(lease, now, now, 0)
		if more {
			st = st.Unfinished(now)
		}
		out = mirror.Applied{Generation: st.Applied, Changed: change != 0, Due: st.Due}
		return later.WriteState(ctx, writeState(r, st, change, now))
	}
	err := s.tx(ctx, "apply sessions", apply)
	if refused(err) {
		arg.Info = make([][]byte, len(arg.Info))
		err = s.tx(ctx, "apply sessions", apply)
	}
	if err != nil {
		return mirror.Applied{}, err
	}
	return out, nil
}

// NotificationUser reads by key.
func (s *Store) NotificationUser(ctx context.Context, r mirror.Resource) (string, error) {
	rows, err := s.q.NotificationCopies(ctx, dbq.NotificationCopiesParams{
		Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), NotificationID: r.ID,
	})
	if err != nil {
		return "", classify(ctx, fmt.Errorf("read user of notification: %w", err))
	}
	for _, row := range rows {
		if row.UserID != "" {
			return row.UserID, nil
		}
	}
	return "", nil
}

// ApplyNotification writes what the inbox holds into all rows, the new ones
// included, unless it was not asked.
func (s *Store) ApplyNotification(ctx context.Context, lease mirror.Lease, fold mirror.NotificationFold, now time.Time,
	settle time.Duration) (mirror.Applied, error) {
	r := lease.Resource
	bucket, project, room := r.Bucket(), string(r.Project), string(r.Room)
	arg := dbq.UpsertNotificationsParams{Bucket: bucket, ProjectID: project, RoomID: room, NotificationID: r.ID}
	for _, n := range fold.Rows {
		arg.EventID = append(arg.EventID, n.EventID)
		arg.Channel = append(arg.Channel, text(n.Channel))
		arg.Kind = append(arg.Kind, text(n.Kind))
		arg.UserID = append(arg.UserID, n.UserID)
		arg.ThreadID = append(arg.ThreadID, n.ThreadID)
		arg.MentionID = append(arg.MentionID, n.MentionID)
		arg.SubjectID = append(arg.SubjectID, n.SubjectID)
		arg.CreateTime = append(arg.CreateTime, sinceEpoch(n.CreateTime))
		arg.TriggerTime = append(arg.TriggerTime, nullTime(n.TriggerTime))
	}
	inbox := dbq.SetInboxParams{
		InboxJson: fold.Inbox.Source, Inbox: column(fold.Inbox.Source),
		ReadTime: nullTime(fold.Inbox.ReadTime), NotifyTime: nullTime(fold.Inbox.NotifyTime),
		Bucket: bucket, ProjectID: project, RoomID: room, NotificationID: r.ID,
	}
	var out mirror.Applied
	apply := func(q, later *dbq.Queries) error {
		out = mirror.Applied{}
		st, _, err := lockLeased(ctx, q, lease)
		if err != nil {
			return err
		}
		stored, err := q.NotificationCopies(ctx, dbq.NotificationCopiesParams{Bucket: bucket, ProjectID: project,
			RoomID: room, NotificationID: r.ID})
		if err != nil {
			return err
		}
		var change mirror.ChangeKind
		for _, id := range arg.EventID {
			if !slices.ContainsFunc(stored, func(row dbq.NotificationCopiesRow) bool { return row.EventID == id }) {
				change = mirror.ChangeUpserted
			}
		}
		if len(arg.EventID) > 0 {
			if err := later.UpsertNotifications(ctx, arg); err != nil {
				return err
			}
		}
		if !fold.FetchTime.IsZero() {
			for _, row := range stored {
				if !bytes.Equal(row.InboxJson, fold.Inbox.Source) || (row.InboxJson == nil) != (fold.Inbox.Source == nil) {
					change = mirror.ChangeUpserted
				}
			}
			if change != 0 {
				if err := later.SetInbox(ctx, inbox); err != nil {
					return err
				}
			}
		}
		more, err := deleteFolded(ctx, q, later, r, fold.Folded)
		if err != nil {
			return err
		}
		if fold.FetchTime.IsZero() {
			st = st.Succeed(lease, st.FetchTime, now, settle).Unfinished(now)
		} else {
			st = st.Succeed(lease, fold.FetchTime, now, settle)
		}
		if more {
			st = st.Unfinished(now)
		}
		out = mirror.Applied{Generation: st.Applied, Changed: change != 0, Due: st.Due}
		return later.WriteState(ctx, writeState(r, st, change, now))
	}
	err := s.tx(ctx, "apply notification", apply)
	if refused(err) {
		inbox.Inbox = nil
		err = s.tx(ctx, "apply notification", apply)
	}
	if err != nil {
		return mirror.Applied{}, err
	}
	return out, nil
}

// ActiveUsers reads the room and who is in it in one statement.
func (s *Store) ActiveUsers(ctx context.Context, r mirror.Resource, deleted bool) (mirror.ActiveUsers, error) {
	rows, err := s.q.ActiveUsers(ctx, dbq.ActiveUsersParams{
		Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), Deleted: deleted,
	})
	if err != nil {
		return mirror.ActiveUsers{}, classify(ctx, fmt.Errorf("read active users: %w", err))
	}
	if len(rows) == 0 {
		return mirror.ActiveUsers{}, fmt.Errorf("read active users: %w", store.ErrNotFound)
	}
	out := mirror.ActiveUsers{Project: r.Project, Room: r.Room, Freshness: mirror.Freshness{
		FetchTime:        timeOf(rows[0].FetchTime),
		SourceUpdateTime: timeOf(rows[0].SourceUpdateTime),
		DeleteTime:       timeOf(rows[0].DeleteTime),
		MissingSince:     timeOf(rows[0].MissingSince),
		Revision:         rows[0].Revision,
		Stale:            rows[0].Stale,
	}}
	for _, row := range rows {
		if row.ConnectionID.Valid {
			out.Users = append(out.Users, mirror.ActiveUser{ConnectionID: row.ConnectionID.Int64, UserID: row.UserID.String,
				Info: row.InfoJson})
		}
	}
	return out, nil
}

// bounds are those of a list of what happened, the latest first.
func bounds(since, to, after time.Time) (lower, upper, last pgtype.Timestamptz) {
	lower, upper, last = nullTime(since), nullTime(to), nullTime(after)
	if !lower.Valid {
		lower = pgtype.Timestamptz{InfinityModifier: pgtype.NegativeInfinity, Valid: true}
	}
	for _, t := range []*pgtype.Timestamptz{&upper, &last} {
		if !t.Valid {
			*t = pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true}
		}
	}
	return lower, upper, last
}

// UserSessions walks the index that fits the filter best.
func (s *Store) UserSessions(ctx context.Context, f store.SessionFilter) ([]mirror.UserSession, error) {
	lower, upper, after := bounds(f.From, f.To, f.AfterTime)
	limit := int32(f.Limit) //nolint:gosec // a page size, bounded by the caller
	var rows []dbq.MirrorUserSession
	var err error
	switch {
	case f.Room != "":
		rows, err = s.q.SessionsByRoom(ctx, dbq.SessionsByRoomParams{
			ProjectID: string(f.Project), RoomID: string(f.Room), UserID: f.User, Open: f.Open,
			FromTime: lower, ToTime: upper, AfterTime: after, AfterID: f.AfterID, MaxRows: limit,
		})
	case f.User != "":
		rows, err = s.q.SessionsByUser(ctx, dbq.SessionsByUserParams{
			ProjectID: string(f.Project), UserID: f.User, Open: f.Open,
			FromTime: lower, ToTime: upper, AfterTime: after, AfterID: f.AfterID, MaxRows: limit,
		})
	case f.Open:
		rows, err = s.q.OpenSessionsByTime(ctx, dbq.OpenSessionsByTimeParams{
			ProjectID: string(f.Project),
			FromTime:  lower, ToTime: upper, AfterTime: after, AfterID: f.AfterID, MaxRows: limit,
		})
	default:
		rows, err = s.q.SessionsByTime(ctx, dbq.SessionsByTimeParams{
			ProjectID: string(f.Project),
			FromTime:  lower, ToTime: upper, AfterTime: after, AfterID: f.AfterID, MaxRows: limit,
		})
	}
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("list user sessions: %w", err))
	}
	out := make([]mirror.UserSession, 0, len(rows))
	for _, row := range rows {
		out = append(out, sessionOf(row))
	}
	return out, nil
}

func notificationOf(row dbq.NotificationsByTimeRow) mirror.Notification {
	n := row.MirrorNotification
	return mirror.Notification{
		Project: mirror.ProjectID(n.ProjectID), Room: mirror.RoomID(n.RoomID), EventID: n.EventID, ID: n.NotificationID,
		Channel: n.Channel, Kind: n.Kind, UserID: n.UserID, ThreadID: n.ThreadID, MentionID: n.MentionID,
		SubjectID:  n.SubjectID,
		CreateTime: timeOf(n.CreateTime), TriggerTime: timeOf(n.TriggerTime),
		Inbox: mirror.Inbox{Source: n.InboxJson, ReadTime: timeOf(n.ReadTime), NotifyTime: timeOf(n.NotifyTime)},
		Freshness: mirror.Freshness{
			FetchTime:        timeOf(row.FetchTime),
			SourceUpdateTime: timeOf(row.SourceUpdateTime),
			MissingSince:     timeOf(row.MissingSince),
			Revision:         row.Revision,
			Stale:            row.Stale,
		},
	}
}

// Notifications walks the index that fits the filter best.
func (s *Store) Notifications(ctx context.Context, f store.NotificationFilter) ([]mirror.Notification, error) {
	lower, upper, after := bounds(f.From, f.To, f.AfterTime)
	limit := int32(f.Limit) //nolint:gosec // a page size, bounded by the caller
	var out []mirror.Notification
	var err error
	switch {
	case f.Room != "":
		var rows []dbq.NotificationsByRoomRow
		rows, err = s.q.NotificationsByRoom(ctx, dbq.NotificationsByRoomParams{
			ProjectID: string(f.Project), RoomID: string(f.Room), UserID: f.User, Channel: f.Channel, Kind: f.Kind,
			ThreadID: f.Thread,
			FromTime: lower, ToTime: upper, AfterTime: after, AfterID: f.AfterID, MaxRows: limit,
		})
		for _, row := range rows {
			out = append(out, notificationOf(dbq.NotificationsByTimeRow(row)))
		}
	case f.User != "":
		var rows []dbq.NotificationsByUserRow
		rows, err = s.q.NotificationsByUser(ctx, dbq.NotificationsByUserParams{
			ProjectID: string(f.Project), UserID: f.User, Channel: f.Channel, Kind: f.Kind, ThreadID: f.Thread,
			FromTime: lower, ToTime: upper, AfterTime: after, AfterID: f.AfterID, MaxRows: limit,
		})
		for _, row := range rows {
			out = append(out, notificationOf(dbq.NotificationsByTimeRow(row)))
		}
	default:
		var rows []dbq.NotificationsByTimeRow
		rows, err = s.q.NotificationsByTime(ctx, dbq.NotificationsByTimeParams{
			ProjectID: string(f.Project), Channel: f.Channel, Kind: f.Kind, ThreadID: f.Thread,
			FromTime: lower, ToTime: upper, AfterTime: after, AfterID: f.AfterID, MaxRows: limit,
		})
		for _, row := range rows {
			out = append(out, notificationOf(row))
		}
	}
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("list notifications: %w", err))
	}
	return out, nil
}

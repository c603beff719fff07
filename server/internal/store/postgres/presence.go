package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

// ApplyActiveUsers replaces who is in the room if somebody else is.
func (s *Store) ApplyActiveUsers(
	ctx context.Context, lease mirror.Lease, content mirror.ActiveUsersContent, absentBefore, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	r := lease.Resource
	bucket, project, room := r.Bucket(), string(r.Project), string(r.Room)
	users := store.ActiveUsersOf(content)
	arg := dbq.InsertActiveUsersParams{Bucket: bucket, ProjectID: project, RoomID: room, Epoch: lease.Epoch}
	for _, u := range users {
		arg.ConnectionID = append(arg.ConnectionID, u.ConnectionID)
		arg.UserID = append(arg.UserID, u.UserID)
		arg.InfoJson = append(arg.InfoJson, u.Info)
		arg.Info = append(arg.Info, store.Queryable(u.Info))
	}
	apply := func() (mirror.Applied, error) {
		return s.end(ctx, "apply active users", lease, now, func(q, later *dbq.Queries) (store.Plan, error) {
			row, err := q.LockChild(ctx, dbq.LockChildParams{
				Bucket: bucket, ProjectID: project, RoomID: room, Kind: int16(r.Kind), ResourceID: r.ID, Token: lease.Token[:],
			})
			if err = fenced(ctx, q, lease, row.RoomEpoch, err); err != nil {
				return store.Plan{}, err
			}
			rows, err := q.ActiveUserRows(ctx, dbq.ActiveUserRowsParams{Bucket: bucket, ProjectID: project, RoomID: room})
			if err != nil {
				return store.Plan{}, err
			}
			stored := make(map[int64][]mirror.ActiveUser)
			for _, u := range rows {
				stored[u.Epoch] = append(stored[u.Epoch], mirror.ActiveUser{
					ConnectionID: u.ConnectionID, UserID: u.UserID, Info: u.InfoJson,
				})
			}
			open, err := q.OpenSessions(ctx, dbq.OpenSessionsParams{Bucket: bucket, ProjectID: project, RoomID: room})
			if err != nil {
				return store.Plan{}, err
			}
			var sessions []mirror.UserSession
			for _, o := range open {
				sessions = append(sessions, mirror.UserSession{
					ID: o.SessionID, ConnectionID: o.ConnectionID, UserID: o.UserID, EnterTime: timeOf(o.BeginTime),
				})
			}
			plan := store.PlanActiveUsers(stateOf(row.MirrorResourceState), stored, sessions, lease, users, content.FetchTime,
				absentBefore, now, settle)
			if plan.Write {
				err = errors.Join(
					later.DeleteActiveUsers(ctx, dbq.DeleteActiveUsersParams{Bucket: bucket, ProjectID: project, RoomID: room}),
					later.InsertActiveUsers(ctx, arg),
				)
			}
			if len(plan.Ended) > 0 {
				err = errors.Join(err, later.EndAbsentSessions(ctx, dbq.EndAbsentSessionsParams{
					LeaveTime: nullTime(content.FetchTime), Bucket: bucket, ProjectID: project, RoomID: room, SessionID: plan.Ended,
				}))
			}
			return plan.Plan, err
		})
	}
	out, err := apply()
	if refused(err) {
		if err = s.dropRefused(ctx, arg.Info); err == nil {
			out, err = apply()
		}
	}
	return out, err
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

// ApplySessions deletes before it writes.
func (s *Store) ApplySessions(ctx context.Context, lease mirror.Lease, fold mirror.SessionFold,
	now time.Time) (mirror.Applied, error) {
	r := lease.Resource
	bucket, project, room := r.Bucket(), string(r.Project), string(r.Room)
	arg := dbq.UpsertSessionsParams{Bucket: bucket, ProjectID: project, RoomID: room}
	for _, u := range fold.Upserts {
		arg.SessionID = append(arg.SessionID, u.ID)
		arg.ConnectionID = append(arg.ConnectionID, u.ConnectionID)
		arg.UserID = append(arg.UserID, u.UserID)
		arg.InfoJson = append(arg.InfoJson, store.Present(u.Info))
		arg.Info = append(arg.Info, store.Queryable(u.Info))
		arg.BeginTime = append(arg.BeginTime, sinceEpoch(u.BeginTime()))
		arg.EnterTime = append(arg.EnterTime, nullTime(u.EnterTime))
		arg.LeaveTime = append(arg.LeaveTime, nullTime(u.LeaveTime))
		arg.LeaveEventID = append(arg.LeaveEventID, u.LeaveEventID)
		arg.EndCause = append(arg.EndCause, string(u.End))
	}
	apply := func() (mirror.Applied, error) {
		return s.end(ctx, "apply sessions", lease, now, func(q, later *dbq.Queries) (store.Plan, error) {
			st, stored, err := lockLeased(ctx, q, lease)
			if err != nil {
				return store.Plan{}, err
			}
			if len(fold.Deletes) > 0 {
				err = later.DeleteSessions(ctx, dbq.DeleteSessionsParams{
					Bucket: bucket, ProjectID: project, RoomID: room, SessionID: fold.Deletes,
				})
			}
			if len(fold.Upserts) > 0 {
				err = errors.Join(err, later.UpsertSessions(ctx, arg))
			}
			if stored.Gone() {
				err = errors.Join(err, endSessions(ctx, later, r, stored.DeleteTime))
			}
			more, errMore := deleteFolded(ctx, q, later, r, fold.Folded)
			return store.PlanSessions(st, fold, more, lease, now), errors.Join(err, errMore)
		})
	}
	out, err := apply()
	if refused(err) {
		if err = s.dropRefused(ctx, arg.Info); err == nil {
			out, err = apply()
		}
	}
	return out, err
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

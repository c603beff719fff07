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

// ApplyActiveUsers replaces the active users if they changed.
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
		info, problem := store.Queryable(u.Info)
		arg.Info, arg.InfoProblem = append(arg.Info, info), append(arg.InfoProblem, problem)
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
		if err = s.dropRefused(ctx, arg.Info, arg.InfoProblem); err == nil {
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

// deleteFolded deletes the events that need not wait any longer, and reports
// whether others do. A later event waits for the lock of the state.
func deleteFolded(ctx context.Context, q, later *dbq.Queries, r mirror.Resource, folded []string, until time.Time) (
	more bool, err error,
) {
	key := dbq.HasUnfoldedParams{
		Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room),
		Kind: int16(r.Kind), ResourceID: r.ID,
	}
	if len(folded) > 0 {
		if err := later.DeleteUnfolded(ctx, dbq.DeleteUnfoldedParams{
			Bucket: key.Bucket, ProjectID: key.ProjectID, RoomID: key.RoomID, Kind: key.Kind, ResourceID: key.ResourceID,
			EventID: folded, Until: untilOf(until),
		}); err != nil {
			return false, err
		}
	}
	return q.HasUnfolded(ctx, key)
}

// untilOf is the time or, if it is zero, infinity.
func untilOf(t time.Time) pgtype.Timestamptz {
	if t.IsZero() {
		return pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true}
	}
	return nullTime(t)
}

// ApplySessions deletes before it writes.
func (s *Store) ApplySessions(ctx context.Context, lease mirror.Lease, fold mirror.SessionFold,
	now time.Time,
) (mirror.Applied, error) {
	r := lease.Resource
	bucket, project, room := r.Bucket(), string(r.Project), string(r.Room)
	arg := dbq.UpsertSessionsParams{Bucket: bucket, ProjectID: project, RoomID: room}
	for _, u := range fold.Upserts {
		arg.SessionID = append(arg.SessionID, u.ID)
		arg.ConnectionID = append(arg.ConnectionID, u.ConnectionID)
		arg.UserID = append(arg.UserID, u.UserID)
		arg.InfoJson = append(arg.InfoJson, store.Present(u.Info))
		info, problem := store.Queryable(u.Info)
		arg.Info, arg.InfoProblem = append(arg.Info, info), append(arg.InfoProblem, problem)
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
			more, errMore := deleteFolded(ctx, q, later, r, fold.Folded, fold.Until)
			return store.PlanSessions(st, fold, more, lease, now), errors.Join(err, errMore)
		})
	}
	out, err := apply()
	if refused(err) {
		if err = s.dropRefused(ctx, arg.Info, arg.InfoProblem); err == nil {
			out, err = apply()
		}
	}
	return out, err
}

package mysql

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql/dbq"
)

var unfoldedTable = table{
	name: "mirror_unfolded_event",
	columns: "bucket, project_id, room_id, kind, resource_id, event_id, " +
		"type, payload, source_time, receive_time, happen_time",
	key: 11, // an event never changes
}

// hold makes the new events of a batch wait at the resources they are folded into.
func (s *Store) hold(ctx context.Context, q *queries, batch []mirror.Delivery, answers []store.Accepted) error {
	type waiting struct {
		resource mirror.Resource
		event    mirror.Event
	}
	var all []waiting
	for i, a := range batch {
		for _, h := range a.Invalidations {
			if h.Fold && answers[i].Fresh {
				all = append(all, waiting{h.Resource, a.Event})
			}
		}
	}
	slices.SortFunc(all, func(a, b waiting) int {
		return cmp.Or(a.resource.Compare(b.resource), strings.Compare(a.event.ID, b.event.ID))
	})
	rows := make([][]any, 0, len(all))
	for _, w := range all {
		e := w.event
		rows = append(rows, append(appendKey(nil, w.resource), rawKey(e.ID), rawKey(e.Type), rawKey(e.Payload),
			nullTime(e.SourceTime), nullTime(e.ReceiveTime), nullTime(e.HappenTime())))
	}
	return s.write(ctx, q, unfoldedTable, rows, nil)
}

// Unfolded reads by the resource's key.
func (s *Store) Unfolded(ctx context.Context, r mirror.Resource, limit int) ([]mirror.Event, error) {
	rows, err := s.q.Unfolded(ctx, dbq.UnfoldedParams{
		Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room), Kind: int16(r.Kind),
		ResourceID: rawKey(r.ID),
		Limit:      int32(limit), //nolint:gosec // a small constant of the caller
	})
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("list waiting events: %w", err))
	}
	out := make([]mirror.Event, 0, len(rows))
	for _, row := range rows {
		out = append(out, mirror.Event{
			Project: r.Project, ID: string(row.EventID), Type: string(row.Type), Room: r.Room, Payload: row.Payload,
			SourceTime: timeOf(row.SourceTime), ReceiveTime: row.ReceiveTime.UTC(),
		})
	}
	return out, nil
}

func deleteFoldedSQL(n int) string {
	return `delete from mirror_unfolded_event
where bucket = ? and project_id = ? and room_id = ? and kind = ? and resource_id = ?
    and event_id in (` + repeat("?", n) + `)`
}

func deleteSessionsSQL(n int) string {
	return `delete from mirror_user_session
where bucket = ? and project_id = ? and room_id = ? and session_id in (` + repeat("?", n) + `)`
}

// endSessionsSQL ends those that are still open.
func endSessionsSQL(n int) string {
	return `update mirror_user_session
set leave_time = ?, end_cause = 'absent'
where bucket = ? and project_id = ? and room_id = ? and end_cause = '' and session_id in (` + repeat("?", n) + `)`
}

// byIDs runs a statement about a list of ids, at most maxRows at a time, in key
// order. args holds the arguments before the list.
func (q *queries) byIDs(ctx context.Context, statement func(n int) string, args []any, ids []string) error {
	ids = slices.Sorted(slices.Values(ids))
	return chunks(ids, min(maxRows, q.piece), func(ids []string) error {
		args := slices.Clone(args)
		for _, id := range ids {
			args = append(args, rawKey(id))
		}
		_, err := q.db.ExecContext(ctx, statement(len(ids)), args...)
		return err
	})
}

// deleteFolded deletes the events that need not wait any longer, and reports
// whether others do.
func deleteFolded(ctx context.Context, q *queries, r mirror.Resource, ids []string) (more bool, err error) {
	if err := q.byIDs(ctx, deleteFoldedSQL, appendKey(nil, r), ids); err != nil {
		return false, err
	}
	n, err := q.AnyUnfolded(ctx, dbq.AnyUnfoldedParams(lockParams(r)))
	return n > 0, err
}

const inferred = "values(end_cause) = '' and end_cause in ('absent', 'room_deleted')"

var sessionTable = table{
	name: "mirror_user_session",
	columns: "bucket, project_id, room_id, session_id, connection_id, user_id, info_json, info, info_problem, " +
		"begin_time, enter_time, leave_time, leave_event_id, end_cause",
	key: 4,
	// An end that was inferred since the fold read the session stays, because the
	// fold does not know of it. Assignments are evaluated from left to right.
	keep: map[string]string{
		"leave_time": "if(" + inferred + ", leave_time, values(leave_time))",
		"end_cause":  "if(" + inferred + ", end_cause, values(end_cause))",
	},
}

// ApplySessions deletes before it writes.
func (s *Store) ApplySessions(ctx context.Context, lease mirror.Lease, fold mirror.SessionFold,
	now time.Time,
) (mirror.Applied, error) {
	r := lease.Resource
	upserts := slices.SortedFunc(slices.Values(fold.Upserts), func(a, b mirror.UserSession) int {
		return strings.Compare(a.ID, b.ID)
	})
	return s.end(ctx, "apply sessions", lease, now, func(q *queries) (store.Plan, error) {
		st, stored, err := lockRoom(ctx, q, lease)
		if err != nil {
			return store.Plan{}, err
		}
		if err := q.byIDs(ctx, deleteSessionsSQL, roomArgs(r), fold.Deletes); err != nil {
			return store.Plan{}, err
		}
		rows := make([][]any, 0, len(upserts))
		for _, u := range upserts {
			info, problem := store.Queryable(u.Info)
			rows = append(rows, append(roomArgs(r), rawKey(u.ID), u.ConnectionID, rawKey(u.UserID), store.Present(u.Info),
				json.RawMessage(info), problem, nullTime(u.BeginTime()), nullTime(u.EnterTime), nullTime(u.LeaveTime),
				rawKey(u.LeaveEventID), rawKey(u.End)))
		}
		if err := s.write(ctx, q, sessionTable, rows, sessionTable.note("info_problem")); err != nil {
			return store.Plan{}, err
		}
		if stored.Gone() {
			if err := endSessions(ctx, q, r, stored.DeleteTime); err != nil {
				return store.Plan{}, err
			}
		}
		more, err := deleteFolded(ctx, q, r, fold.Folded)
		return store.PlanSessions(st, fold, more, lease, now), err
	})
}

var activeUserTable = table{
	name:    "mirror_active_user",
	columns: "bucket, project_id, room_id, connection_id, user_id, epoch, info_json, info, info_problem",
	key:     5,
}

// ApplyActiveUsers replaces the active users if they changed.
func (s *Store) ApplyActiveUsers(ctx context.Context, lease mirror.Lease, content mirror.ActiveUsersContent,
	absentBefore, now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	r := lease.Resource
	users := store.ActiveUsersOf(content)
	return s.end(ctx, "apply active users", lease, now, func(q *queries) (store.Plan, error) {
		st, err := lockState(ctx, q, lease)
		if err != nil {
			return store.Plan{}, err
		}
		if err := shareRoom(ctx, q, lease); err != nil {
			return store.Plan{}, err
		}
		stored, err := activeUsersOf(ctx, q, r)
		if err != nil {
			return store.Plan{}, err
		}
		sessions, err := openSessions(ctx, q, r)
		if err != nil {
			return store.Plan{}, err
		}
		plan := store.PlanActiveUsers(st, stored, sessions, lease, users, content.FetchTime, absentBefore, now, settle)
		if plan.Write {
			if err := q.inPieces(func(limit int32) (int64, error) {
				return q.DeleteActiveUsers(ctx, dbq.DeleteActiveUsersParams{
					Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room), Limit: limit,
				})
			}); err != nil {
				return store.Plan{}, err
			}
			values := make([][]any, 0, len(users))
			for _, u := range users {
				info, problem := store.Queryable(u.Info)
				values = append(values, append(roomArgs(r), u.ConnectionID, rawKey(u.UserID), lease.Epoch, u.Info,
					json.RawMessage(info), problem))
			}
			if err := s.write(ctx, q, activeUserTable, values, activeUserTable.note("info_problem")); err != nil {
				return store.Plan{}, err
			}
		}
		args := append([]any{nullTime(content.FetchTime)}, roomArgs(r)...)
		return plan.Plan, q.byIDs(ctx, endSessionsSQL, args, plan.Ended)
	})
}

// activeUsersOf reads the stored users of a room, by epoch.
func activeUsersOf(ctx context.Context, q *queries, r mirror.Resource) (map[int64][]mirror.ActiveUser, error) {
	arg := dbq.ActiveUsersOfRoomParams{
		Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room),
		AfterConnection: math.MinInt64, AfterUser: []byte{}, Limit: q.limit(),
	}
	rows, err := pages(q.piece, func(last *dbq.ActiveUsersOfRoomRow) ([]dbq.ActiveUsersOfRoomRow, error) {
		if last != nil {
			arg.AfterConnection, arg.AfterUser = last.ConnectionID, last.UserID
		}
		return q.ActiveUsersOfRoom(ctx, arg)
	})
	users := make(map[int64][]mirror.ActiveUser)
	for _, u := range rows {
		users[u.Epoch] = append(users[u.Epoch], mirror.ActiveUser{
			ConnectionID: u.ConnectionID, UserID: string(u.UserID), Info: u.InfoJson,
		})
	}
	return users, err
}

// openSessions reads the sessions of a room that have not ended.
func openSessions(ctx context.Context, q *queries, r mirror.Resource) ([]mirror.UserSession, error) {
	arg := dbq.OpenSessionsParams{
		Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room), After: []byte{}, Limit: q.limit(),
	}
	rows, err := pages(q.piece, func(last *dbq.OpenSessionsRow) ([]dbq.OpenSessionsRow, error) {
		if last != nil {
			arg.After = last.SessionID
		}
		return q.OpenSessions(ctx, arg)
	})
	var sessions []mirror.UserSession
	for _, o := range rows {
		sessions = append(sessions, mirror.UserSession{
			ID: string(o.SessionID), ConnectionID: o.ConnectionID, UserID: string(o.UserID), EnterTime: o.BeginTime,
		})
	}
	return sessions, err
}

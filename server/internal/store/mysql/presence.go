package mysql

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
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
		"type, payload, source_time, receive_time",
	key: 10, // an event never changes
}

// hold makes the fresh events of a batch wait at what they are folded into.
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
			nullTime(e.SourceTime), nullTime(e.ReceiveTime)))
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

// byIDs runs a statement about a list of ids, of at most maxRows at a time, in key
// order. What stands before the list is in args.
func (q *queries) byIDs(ctx context.Context, text func(n int) string, args []any, ids []string) error {
	ids = slices.Sorted(slices.Values(ids))
	return chunks(ids, maxRows, func(ids []string) error {
		args := slices.Clone(args)
		for _, id := range ids {
			args = append(args, rawKey(id))
		}
		_, err := q.db.ExecContext(ctx, text(len(ids)), args...)
		return err
	})
}

// folded removes events that need not wait any longer, and makes the resource due
// at once if others do.
func folded(ctx context.Context, q *queries, r mirror.Resource, ids []string, st store.State,
	now time.Time) (store.State, error) {
	if err := q.byIDs(ctx, deleteFoldedSQL, appendKey(nil, r), ids); err != nil {
		return st, err
	}
	n, err := q.AnyUnfolded(ctx, dbq.AnyUnfoldedParams(lockParams(r)))
	if n > 0 {
		st = st.Unfinished(now)
	}
	return st, err
}

var sessionTable = table{
	name: "mirror_user_session",
	columns: "bucket, project_id, room_id, session_id, connection_id, user_id, info_json, info, " +
		"begin_time, enter_time, leave_time, leave_event_id, end_cause",
	key: 4,
	// An end that was inferred since the fold read the session stays: the fold knew
	// of none. Assignments are made from left to right.
	keep: map[string]string{
		"leave_time": "if(values(end_cause) = '' and end_cause in ('absent', 'room_deleted'), leave_time, values(leave_time))",
		"end_cause":  "if(values(end_cause) = '' and end_cause in ('absent', 'room_deleted'), end_cause, values(end_cause))",
	},
}

// ApplySessions locks the state first, and then touches rows in key order.
func (s *Store) ApplySessions(ctx context.Context, lease mirror.Lease, fold mirror.SessionFold,
	now time.Time) (mirror.Applied, error) {
	r := lease.Resource
	upserts := slices.SortedFunc(slices.Values(fold.Upserts),
		func(a, b mirror.UserSession) int { return strings.Compare(a.ID, b.ID) })
	var out mirror.Applied
	err := s.tx(ctx, "apply sessions", func(q *queries) error {
		out = mirror.Applied{}
		st, err := lockState(ctx, q, r, lease.Token)
		if err != nil {
			return err
		}
		rows := make([][]any, 0, len(upserts))
		for _, u := range upserts {
			rows = append(rows, append(roomArgs(r), rawKey(u.ID), u.ConnectionID, rawKey(u.UserID), u.Info, queryable(u.Info),
				nullTime(u.BeginTime()), nullTime(u.EnterTime), nullTime(u.LeaveTime), rawKey(u.LeaveEventID), rawKey(u.End)))
		}
		if err := s.write(ctx, q, sessionTable, rows, nil); err != nil {
			return err
		}
		if err := q.byIDs(ctx, deleteSessionsSQL, roomArgs(r), fold.Deletes); err != nil {
			return err
		}
		h, err := roomHead(ctx, q, r.RoomResource())
		if err != nil {
			return err
		}
		if h.epoch > 0 && !h.lives() {
			if _, err := q.EndSessionsOfRoom(ctx, dbq.EndSessionsOfRoomParams{
				LeaveTime: nullTime(h.deleteTime), Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room),
			}); err != nil {
				return err
			}
		}
		st = st.Succeed(lease, now, now, 0)
		if st, err = folded(ctx, q, r, fold.Folded, st, now); err != nil {
			return err
		}
		var change mirror.ChangeKind
		if len(fold.Upserts)+len(fold.Deletes) > 0 {
			change = mirror.ChangeUpserted
		}
		out = mirror.Applied{Generation: st.Applied, Changed: change != 0, Due: st.Due}
		return finish(ctx, q, r, st, change, now)
	})
	return out, err
}

const sessionColumns = `room_id, session_id, connection_id, user_id, info_json, enter_time, leave_time, leave_event_id, end_cause`

func scanSession(rows *sql.Rows, project mirror.ProjectID) (mirror.UserSession, error) {
	u := mirror.UserSession{Project: project}
	var enter, leave sql.NullTime
	err := rows.Scan(&u.Room, &u.ID, &u.ConnectionID, &u.UserID, &u.Info, &enter, &leave, &u.LeaveEventID, &u.End)
	u.EnterTime, u.LeaveTime = timeOf(enter), timeOf(leave)
	return u, err
}

func sessionsOfSQL(n int) string {
	const one = `(select ` + sessionColumns + `
from mirror_user_session
where bucket = ? and project_id = ? and room_id = ? and connection_id = ?
order by begin_time desc, session_id
limit ?)`
	return one + strings.Repeat("\nunion all\n"+one, n-1)
}

// SessionsOf reads for a few connections at a time.
func (s *Store) SessionsOf(ctx context.Context, room mirror.Resource, connections []int64,
	limit int) ([]mirror.UserSession, error) {
	var out []mirror.UserSession
	err := chunks(slices.Compact(slices.Sorted(slices.Values(connections))), maxKeys, func(connections []int64) error {
		var args []any
		for _, c := range connections {
			args = append(append(args, roomArgs(room)...), c, limit)
		}
		return s.q.query(ctx, sessionsOfSQL(len(connections)), args, func(rows *sql.Rows) error {
			u, err := scanSession(rows, room.Project)
			out = append(out, u)
			return err
		})
	})
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("read sessions: %w", err))
	}
	slices.SortFunc(out, func(a, b mirror.UserSession) int {
		return cmp.Or(cmp.Compare(a.ConnectionID, b.ConnectionID), b.BeginTime().Compare(a.BeginTime()),
			strings.Compare(a.ID, b.ID))
	})
	return out, nil
}

func userSessionsSQL(f store.SessionFilter) (string, []any) {
	var c condition
	c.and("project_id = ?", rawKey(f.Project))
	c.andIf(f.Room != "", "room_id = ?", rawKey(f.Room))
	c.andIf(f.User != "", "user_id = ?", rawKey(f.User))
	c.andIf(f.Open, "end_cause = ''")
	c.between("begin_time", "session_id", f.From, f.To, f.AfterTime, f.AfterID)
	return "select " + sessionColumns + "\nfrom mirror_user_session\n" + c.text.String() +
			"\norder by begin_time desc, session_id\nlimit ?",
		append(c.args, f.Limit)
}

// UserSessions walks the index that fits the filter best.
func (s *Store) UserSessions(ctx context.Context, f store.SessionFilter) ([]mirror.UserSession, error) {
	text, args := userSessionsSQL(f)
	var out []mirror.UserSession
	err := s.q.query(ctx, text, args, func(rows *sql.Rows) error {
		u, err := scanSession(rows, f.Project)
		out = append(out, u)
		return err
	})
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("list sessions: %w", err))
	}
	return out, nil
}

// shareRoom locks a living room of the lease's epoch against a change of it.
func shareRoom(ctx context.Context, q *queries, lease mirror.Lease) error {
	r := lease.Resource
	row, err := q.ShareRoom(ctx, dbq.ShareRoomParams{
		Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room), Kind: int16(r.Kind),
		ResourceID: rawKey(r.ID),
	})
	if errors.Is(err, sql.ErrNoRows) || err == nil && row.RoomEpoch != lease.Epoch {
		return store.ErrEpochChanged
	}
	return err
}

var activeUserTable = table{
	name:    "mirror_active_user",
	columns: "bucket, project_id, room_id, connection_id, epoch, user_id, info_json, info",
	key:     4,
}

// ApplyActiveUsers writes all rows anew if one differs: there are few, and most
// connections are new each time.
func (s *Store) ApplyActiveUsers(ctx context.Context, lease mirror.Lease, content mirror.ActiveUsersContent,
	absentBefore, now time.Time, settle time.Duration) (mirror.Applied, error) {
	r := lease.Resource
	users := slices.SortedStableFunc(slices.Values(content.Users),
		func(a, b mirror.ActiveUser) int { return cmp.Compare(a.ConnectionID, b.ConnectionID) })
	users = slices.CompactFunc(users, func(a, b mirror.ActiveUser) bool { return a.ConnectionID == b.ConnectionID })
	for i := range users {
		if !mirror.ValidID(users[i].UserID, mirror.MaxUserID) {
			users[i].UserID = "" // as if without a name, since no other id would be his
		}
	}
	room := dbq.ActiveUsersOfRoomParams{Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room)}
	var out mirror.Applied
	err := s.tx(ctx, "apply active users", func(q *queries) error {
		out = mirror.Applied{}
		st, err := lockState(ctx, q, r, lease.Token)
		if err != nil {
			return err
		}
		if err := shareRoom(ctx, q, lease); err != nil {
			return err
		}
		rows, err := q.ActiveUsersOfRoom(ctx, room)
		if err != nil {
			return err
		}
		var shown []mirror.ActiveUser
		for _, row := range rows {
			if row.Epoch == lease.Epoch {
				shown = append(shown, mirror.ActiveUser{ConnectionID: row.ConnectionID, UserID: string(row.UserID),
					Info: row.InfoJson})
			}
		}
		var change mirror.ChangeKind
		if !slices.EqualFunc(shown, users, sameUser) {
			change = mirror.ChangeUpserted
		}
		if change != 0 || len(shown) < len(rows) {
			if err := q.DeleteActiveUsers(ctx, dbq.DeleteActiveUsersParams(room)); err != nil {
				return err
			}
			values := make([][]any, 0, len(users))
			for _, u := range users {
				values = append(values, append(roomArgs(r), u.ConnectionID, lease.Epoch, rawKey(u.UserID), u.Info,
					queryable(u.Info)))
			}
			if err := s.write(ctx, q, activeUserTable, values, nil); err != nil {
				return err
			}
		}
		ended, err := endAbsent(ctx, q, r, users, absentBefore, content.FetchTime)
		if err != nil {
			return err
		}
		if ended {
			sessions := mirror.Resource{Project: r.Project, Room: r.Room, Kind: mirror.KindUserSessions}
			if err := addChange(ctx, q, sessions, mirror.ChangeUpserted, now); err != nil {
				return err
			}
		}
		st = st.Succeed(lease, content.FetchTime, now, settle)
		out = mirror.Applied{Generation: st.Applied, Changed: change != 0 || ended, Due: st.Due}
		return finish(ctx, q, r, st, change, now)
	})
	return out, err
}

func sameUser(a, b mirror.ActiveUser) bool {
	return a.ConnectionID == b.ConnectionID && a.UserID == b.UserID && string(a.Info) == string(b.Info) &&
		(a.Info == nil) == (b.Info == nil)
}

// endAbsent ends open sessions of connections that are not among users, which are
// in order, or are somebody else's by now, and reports whether there were any.
func endAbsent(ctx context.Context, q *queries, r mirror.Resource, users []mirror.ActiveUser, before,
	leaveTime time.Time) (bool, error) {
	open, err := q.OpenSessions(ctx, dbq.OpenSessionsParams{Bucket: r.Bucket(), ProjectID: rawKey(r.Project),
		RoomID: rawKey(r.Room)})
	if err != nil {
		return false, err
	}
	var gone []string
	for _, o := range open {
		i, here := slices.BinarySearchFunc(users, o.ConnectionID,
			func(u mirror.ActiveUser, c int64) int { return cmp.Compare(u.ConnectionID, c) })
		here = here && users[i].UserID == string(o.UserID)
		if !here && o.BeginTime.Before(before) {
			gone = append(gone, string(o.SessionID))
		}
	}
	return len(gone) > 0, q.byIDs(ctx, endSessionsSQL, append([]any{nullTime(leaveTime)}, roomArgs(r)...), gone)
}

// ActiveUsers reads the room and its connections at once.
func (s *Store) ActiveUsers(ctx context.Context, r mirror.Resource, deleted bool) (mirror.ActiveUsers, error) {
	rows, err := s.q.ActiveUsers(ctx, dbq.ActiveUsersParams{Bucket: r.Bucket(), ProjectID: rawKey(r.Project),
		RoomID: rawKey(r.Room), Deleted: flag(deleted)})
	if err == nil && len(rows) == 0 {
		err = store.ErrNotFound
	}
	if err != nil {
		return mirror.ActiveUsers{}, classify(ctx, fmt.Errorf("read active users: %w", err))
	}
	first := rows[0]
	out := mirror.ActiveUsers{
		Project: r.Project, Room: r.Room,
		Freshness: freshness(first.DeleteTime, first.FetchTime, first.SourceUpdateTime, first.MissingSince,
			first.Revision, first.Generation, first.AppliedGeneration),
	}
	for _, row := range rows {
		if row.ConnectionID.Valid {
			out.Users = append(out.Users, mirror.ActiveUser{ConnectionID: row.ConnectionID.Int64, UserID: row.UserID.String,
				Info: row.InfoJson})
		}
	}
	return out, nil
}

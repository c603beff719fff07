package mysql

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/internal/sqllist"
)

var lists = sqllist.Dialect{
	Contains:      "json_contains(%s, ?)",
	Key:           func(id string) any { return rawKey(id) },
	Time:          func(t time.Time) any { return nullTime(t) },
	First:         firstTime,
	Last:          lastTime,
	DocumentTable: documentTable, DocumentKeys: documentKeys,
	KeyTable: func(columns []sqllist.KeyColumn) (table string, args []any) {
		rows := 0
		names := make([]string, len(columns))
		for i, c := range columns {
			names[i], rows = c.Name, max(len(c.Ints), len(c.IDs))
		}
		for n := range rows {
			for _, c := range columns {
				if c.Ints != nil {
					args = append(args, c.Ints[n])
				} else {
					args = append(args, rawKey(c.IDs[n]))
				}
			}
		}
		return keyTable(rows, names...), args
	},
	ThreadChanged:  "t.changed_time",
	CommentChanged: "c.changed_time",
	RoomDeleted:    "t." + roomDeleted,
	ForceIndex:     true,
	DeleteLimit:    true,
	Routed:         true,
	TimedOut:       func(err error) bool { return number(err) == 1969 || number(err) == 3024 },
	Unsupported:    func(err error) bool { return number(err) == 1235 },
	Open:           "s.is_open = true",
	Done:           "s.is_open = false",
	RoomUnindexed:  "r.is_indexed = false", ThreadUnindexed: "t.is_indexed = false",
}

// limited adds a limit for the server to statements with a deadline, because the
// server does not notice that nobody waits for them any more. MariaDB runs what it
// takes for a comment elsewhere, MySQL obeys the hint.
func limited(run func(context.Context, string, []any, func(sqllist.Row) error) error) func(context.Context, string,
	[]any, func(sqllist.Row) error) error {
	return func(ctx context.Context, text string, args []any, scan func(sqllist.Row) error) error {
		if end, ok := ctx.Deadline(); ok {
			left := max(time.Until(end), time.Millisecond)
			text = fmt.Sprintf("/*M! set statement max_statement_time = %.3f for */ ", left.Seconds()) +
				strings.Replace(text, "select", fmt.Sprintf("select /*+ MAX_EXECUTION_TIME(%d) */", left.Milliseconds()), 1)
		}
		return run(ctx, text, args, scan)
	}
}

// rows runs a query and calls scan for each row.
func (q *queries) rows(ctx context.Context, text string, args []any, scan func(sqllist.Row) error) error {
	return q.query(ctx, text, args, func(rows *sql.Rows) error { return scan(rows) })
}

// documentTable is a table expression of keys.
func documentTable(reads int) string {
	return keyTable(reads, "n", "bucket", "project_id", "room_id", "kind", "resource_id", "deleted", "have")
}

func documentKeys(reads []store.DocumentRead) []any {
	args := make([]any, 0, 8*len(reads))
	for i := range reads {
		args = append(appendKey(append(args, i), reads[i].Resource), reads[i].Deleted, reads[i].Have[:])
	}
	return args
}

func roomsByIDSQL(n int) string {
	return "select " + sqllist.RoomColumns + "\nfrom mirror_room r force index (primary)\n" + sqllist.RoomState +
		"where r.bucket in (" + repeat("?", n) + ") and (r.bucket, r.project_id, r.room_id) in (" + places(n, 3) + ")"
}

// RoomsByID reads a few rooms at a time.
func (s *Store) RoomsByID(ctx context.Context, project mirror.ProjectID, ids []mirror.RoomID,
	source bool,
) ([]mirror.Room, error) {
	var out []mirror.Room
	err := chunks(slices.Compact(slices.Sorted(slices.Values(ids))), maxKeys, func(ids []mirror.RoomID) error {
		args := []any{source}
		for _, id := range ids { // for a sharded server, to find all of their states at once
			args = append(args, mirror.Bucket(project, string(id)))
		}
		for _, id := range ids {
			args = append(args, roomArgs(mirror.Resource{Project: project, Room: id})...)
		}
		rooms, err := s.RoomsBy(ctx, project, roomsByIDSQL(len(ids)), args...)
		out = append(out, rooms...)
		return err
	})
	slices.SortFunc(out, func(a, b mirror.Room) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return out, err
}

// LatestRooms reads rooms by their keys.
func (s *Store) LatestRooms(ctx context.Context, f store.LatestRoomFilter) ([]mirror.Room, error) {
	return s.LatestRoomsBy(ctx, f, s.RoomsByID)
}

func sessionsOfSQL(n int) string {
	const of = `(select ` + sqllist.SessionColumns + `
from mirror_user_session u
where u.bucket = ? and u.project_id = ? and u.room_id = ? and u.connection_id = ?
order by u.begin_time desc, u.session_id
limit ?)`
	return of + strings.Repeat("\nunion all\n"+of, n-1)
}

// SessionsOf reads for a few connections at a time.
func (s *Store) SessionsOf(ctx context.Context, room mirror.Resource, connections []int64,
	limit int,
) ([]mirror.UserSession, error) {
	var out []mirror.UserSession
	some := max(1, min(maxKeys, s.piece/max(1, limit)))
	err := chunks(slices.Compact(slices.Sorted(slices.Values(connections))), some, func(connections []int64) error {
		var args []any
		for _, c := range connections {
			args = append(append(args, roomArgs(room)...), c, limit)
		}
		sessions, err := s.SessionsBy(ctx, room.Project, sessionsOfSQL(len(connections)), args...)
		out = append(out, sessions...)
		return err
	})
	slices.SortFunc(out, func(a, b mirror.UserSession) int {
		return cmp.Or(cmp.Compare(a.ConnectionID, b.ConnectionID), b.BeginTime().Compare(a.BeginTime()),
			strings.Compare(a.ID, b.ID))
	})
	return out, err
}

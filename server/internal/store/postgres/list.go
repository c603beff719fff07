package postgres

import (
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/internal/sqllist"
)

var lists = sqllist.Dialect{
	Numbered: true, RowValues: true, Lateral: true,
	Contains:      "%s @> ?",
	Key:           func(id string) any { return id },
	Time:          func(t time.Time) any { return nullTime(t) },
	ByValues:      []any{pgx.QueryExecModeCacheDescribe}, // without a statement that stays
	First:         pgtype.Timestamptz{InfinityModifier: pgtype.NegativeInfinity, Valid: true},
	Last:          pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true},
	DocumentTable: func(int) string { return documentTable },
	DocumentKeys:  documentKeys,
	KeyTable:      keyTable,
	// As in the expressions of their indexes.
	ThreadChanged:   "coalesce(t.update_time, t.create_time)",
	CommentChanged:  "greatest(c.create_time, c.edit_time, c.delete_time)",
	RoomDeleted:     "t.delete_time",
	RoomUnpurged:    " and " + roomUnpurged,
	Open:            "(s.due_time is not null or s.fail_time is not null or s.parked)",
	RoomUnindexed:   "r.delete_time is null and (r.terms_sha256 is not distinct from r.content_sha256)::integer = 0",
	ThreadUnindexed: "(t.terms_sha256 is not distinct from t.content_sha256)::integer = 0",
	// By a comparison of two columns, the planner would expect few.
	Done: "case when s.due_time is null and s.fail_time is null then s.generation = s.applied_generation " +
		"else false end",
	EachBucket: "generate_series(0, 255) b(n)\ncross join lateral ",
}

// rowsOf runs a query on a pool and calls scan for each row.
func rowsOf(pool querier) func(ctx context.Context, text string, args []any, scan func(sqllist.Row) error) error {
	return func(ctx context.Context, text string, args []any, scan func(sqllist.Row) error) error {
		rows, err := pool.Query(ctx, text, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if err := scan(rows); err != nil {
				return err
			}
		}
		return rows.Err()
	}
}

// querier is the part of a pool that a query needs.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// documentTable is a table expression of keys. The inner selects hide the lengths of the
// arrays from the planner, which would otherwise plan every execution again, at many
// times the cost of the rows.
const documentTable = `(
    select
        unnest((select ?::integer[])) as n,
        unnest((select ?::smallint[])) as bucket,
        unnest((select ?::text[])) as project_id,
        unnest((select ?::text[])) as room_id,
        unnest((select ?::smallint[])) as kind,
        unnest((select ?::text[])) as resource_id,
        unnest((select ?::boolean[])) as deleted,
        unnest((select ?::bytea[])) as have
) k`

func documentKeys(reads []store.DocumentRead) []any {
	n := make([]int32, len(reads))
	buckets, kinds := make([]int16, len(reads)), make([]int16, len(reads))
	projects, rooms, ids := make([]string, len(reads)), make([]string, len(reads)), make([]string, len(reads))
	deleted, have := make([]bool, len(reads)), make([][]byte, len(reads))
	for i := range reads {
		r := reads[i].Resource
		n[i], buckets[i], kinds[i] = int32(i), r.Bucket(), int16(r.Kind)
		projects[i], rooms[i], ids[i] = string(r.Project), string(r.Room), r.ID
		deleted[i], have[i] = reads[i].Deleted, reads[i].Have[:]
	}
	return []any{n, buckets, projects, rooms, kinds, ids, deleted, have}
}

// keyTable is a table expression of keys, as documentTable.
func keyTable(columns []sqllist.KeyColumn) (table string, args []any) {
	var selected []string
	for _, c := range columns {
		if c.Ints != nil {
			selected, args = append(selected, "unnest((select ?::smallint[])) as "+c.Name), append(args, c.Ints)
		} else {
			selected, args = append(selected, "unnest((select ?::text[])) as "+c.Name), append(args, c.IDs)
		}
	}
	return "(select\n    " + strings.Join(selected, ",\n    ") + "\n) k", args
}

// RoomsByID uses one statement for all ids.
func (s *Store) RoomsByID(ctx context.Context, project mirror.ProjectID, ids []mirror.RoomID,
	source bool,
) ([]mirror.Room, error) {
	var buckets []int16
	var rooms []string
	for _, id := range ids {
		buckets, rooms = append(buckets, mirror.Bucket(project, string(id))), append(rooms, string(id))
	}
	return s.RoomsBy(ctx, project, roomsByIDSQL, source, buckets, rooms, project)
}

var roomsByIDSQL = "select " + sqllist.RoomColumns + `
from (select distinct unnest(?::smallint[]) as bucket, unnest(?::text[]) as room_id) k
join mirror_room r on r.bucket = k.bucket and r.project_id = ? and r.room_id = k.room_id
` + sqllist.RoomState + "order by r.room_id"

// LatestRooms reads rooms by their keys.
func (s *Store) LatestRooms(ctx context.Context, f store.LatestRoomFilter) ([]mirror.Room, error) {
	return s.LatestRoomsBy(ctx, f, s.RoomsByID)
}

// SessionsOf uses the index by connection.
func (s *Store) SessionsOf(ctx context.Context, room mirror.Resource, connections []int64,
	limit int,
) ([]mirror.UserSession, error) {
	return s.SessionsBy(ctx, room.Project, sessionsOfSQL, connections, room.Bucket(), room.Project, room.Room, limit)
}

const sessionsOfSQL = "select " + sqllist.SessionColumns + `
from (select unnest(?::bigint[]) as connection_id) c
cross join lateral (
    select * from mirror_user_session a
    where a.bucket = ? and a.project_id = ? and a.room_id = ? and a.connection_id = c.connection_id
    order by a.begin_time desc, a.session_id
    limit ?
) u
order by u.connection_id, u.begin_time desc, u.session_id`

package mysql

import (
	"context"
	"database/sql"
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql/dbq"
)

var roomTerms = table{
	name: "mirror_room_term", columns: "bucket, project_id, room_id, term, create_time", key: 4,
}

func deleteTermsSQL(n int) string {
	return "delete from mirror_room_term\nwhere bucket = ? and project_id = ? and room_id = ? and term in (" +
		repeat("?", n) + ")"
}

// termsOf is a room whose terms are written.
type termsOf struct {
	room    mirror.RoomID
	source  []byte
	created time.Time
}

// writeTerms writes the terms of rooms of a bucket, in order, whose rows the transaction has
// locked or written. It writes what differs.
func (s *Store) writeTerms(
	ctx context.Context, q *queries, bucket int16, project mirror.ProjectID, rooms []termsOf,
) error {
	var rows [][]any
	for _, of := range rooms {
		created := nullTime(store.ListTime(of.created))
		arg := dbq.RoomTermsParams{
			Bucket: bucket, ProjectID: rawKey(project), RoomID: rawKey(of.room), After: []byte{}, Limit: q.limit(),
		}
		stored, err := pages(q.piece, func(last *dbq.RoomTermsRow) ([]dbq.RoomTermsRow, error) {
			if last != nil {
				arg.After = last.Term
			}
			return q.RoomTerms(ctx, arg)
		})
		if err != nil {
			return err
		}
		terms := store.RoomTermHashes(of.source)
		find := func(row dbq.RoomTermsRow, term []byte) int { return slices.Compare(row.Term, term) }
		for _, term := range terms {
			if at, ok := slices.BinarySearchFunc(stored, term, find); !ok || !stored[at].CreateTime.Equal(created.Time) {
				rows = append(rows, []any{bucket, arg.ProjectID, arg.RoomID, term, created})
			}
		}
		var gone []any
		for _, row := range stored {
			if _, ok := slices.BinarySearchFunc(terms, row.Term, slices.Compare[[]byte]); !ok {
				gone = append(gone, row.Term)
			}
		}
		if err := chunks(gone, maxRows, func(gone []any) error {
			_, err := q.exec(ctx, deleteTermsSQL(len(gone)), append([]any{bucket, arg.ProjectID, arg.RoomID}, gone...)...)
			return err
		}); err != nil {
			return err
		}
	}
	return s.write(ctx, q, roomTerms, rows, func([]any, string) {})
}

const unindexedSQL = `select bucket, project_id, room_id
from mirror_room force index (mirror_room_unindexed)
where is_indexed = false
order by bucket, project_id, room_id
limit ?`

func lockUnindexedSQL(n int) string {
	return `select room_id, source_json, create_time
from mirror_room force index (primary)
where bucket = ? and project_id = ? and room_id in (` + repeat("?", n) + `) and is_indexed = false
order by room_id
for update`
}

func markIndexedSQL(n int) string {
	return `update mirror_room
set terms_sha256 = content_sha256
where bucket = ? and project_id = ? and room_id in (` + repeat("?", n) + `)`
}

// IndexRooms is one transaction about rooms of one project in one bucket, which it locks in
// the order of their keys.
func (s *Store) IndexRooms(ctx context.Context, limit int) (int, error) {
	var n int
	var bucket int16
	var project string
	var ids []string
	find := func() error {
		n, ids = 0, nil
		return s.q.query(ctx, unindexedSQL, []any{limit}, func(rows *sql.Rows) error {
			var of int16
			var in, id string
			err := rows.Scan(&of, &in, &id)
			if len(ids) == 0 {
				bucket, project = of, in
			}
			if of == bucket && in == project {
				ids = append(ids, id)
			}
			return err
		})
	}
	if err := retry(ctx, find); err != nil {
		return 0, classify(ctx, err)
	}
	if n = len(ids); n == 0 {
		return 0, nil
	}
	return n, s.tx(ctx, "index rooms", func(q *queries) error {
		return chunks(ids, maxKeys, func(ids []string) error {
			keys := func(ids []string) []any {
				args := []any{bucket, rawKey(project)}
				for _, id := range ids {
					args = append(args, rawKey(id))
				}
				return args
			}
			var rooms []termsOf
			ids = slices.Clone(ids)
			err := q.query(ctx, lockUnindexedSQL(len(ids)), keys(ids), func(rows *sql.Rows) error {
				var of termsOf
				var created sql.NullTime
				err := rows.Scan(&of.room, &of.source, &created)
				of.created = timeOf(created)
				rooms = append(rooms, of)
				return err
			})
			if err != nil || len(rooms) == 0 {
				return err
			}
			if err := s.writeTerms(ctx, q, bucket, mirror.ProjectID(project), rooms); err != nil {
				return err
			}
			ids = ids[:0]
			for _, of := range rooms {
				ids = append(ids, string(of.room))
			}
			_, err = q.exec(ctx, markIndexedSQL(len(ids)), keys(ids)...)
			return err
		})
	})
}

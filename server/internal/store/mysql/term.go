package mysql

import (
	"context"
	"database/sql"
	"slices"
	"strings"
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

// indexed is a table of which lists select rows by their terms.
type indexed struct {
	table string
	// key are the columns of the primary key behind the bucket and the project.
	key []string
	// content is the column that terms are made from.
	content string
}

var (
	indexedRooms   = indexed{"mirror_room", []string{"room_id"}, "source_json"}
	indexedThreads = indexed{"mirror_thread", []string{"room_id", "thread_id"}, "metadata_text"}
)

// in selects n rows of one project in one bucket. For a list of tuples, MariaDB would read
// the whole table to change some of its rows.
func (t indexed) in(n int) string {
	one := strings.Join(t.key, " = ? and ") + " = ?"
	return "bucket = ? and project_id = ? and (" + strings.Repeat(one+" or ", n-1) + one + ")"
}

func inArgs(bucket int16, project mirror.ProjectID, keys [][]string) []any {
	args := []any{bucket, rawKey(project)}
	for _, key := range keys {
		for _, id := range key {
			args = append(args, rawKey(id))
		}
	}
	return args
}

func (t indexed) unindexedSQL() string {
	key := "bucket, project_id, " + strings.Join(t.key, ", ")
	return "select " + key + "\nfrom " + t.table + " force index (" + t.table + "_unindexed)\n" +
		"where is_indexed = false\norder by " + key + "\nlimit ?"
}

func (t indexed) lockUnindexedSQL(n int) string {
	key := strings.Join(t.key, ", ")
	return "select " + t.content + ", create_time, " + key + "\nfrom " + t.table + " force index (primary)\nwhere " +
		t.in(n) + " and is_indexed = false\norder by " + key + "\nfor update"
}

func (t indexed) markIndexedSQL(n int) string {
	return "update " + t.table + "\nset terms_sha256 = content_sha256\nwhere " + t.in(n)
}

// unindexed is a row that is locked to be indexed.
type unindexed struct {
	key     []string
	content []byte
	created time.Time
}

// scanKey scans columns and then those of the key.
func (t indexed) scanKey(rows *sql.Rows, into ...any) ([]string, error) {
	key := make([]string, len(t.key))
	for i := range key {
		into = append(into, &key[i])
	}
	return key, rows.Scan(into...)
}

// index is one transaction about rows of one project in one bucket, which it locks in the
// order of their keys. write writes the terms of some of them.
func (s *Store) index(ctx context.Context, t indexed, limit int,
	write func(q *queries, bucket int16, project mirror.ProjectID, rows []unindexed) error,
) (int, error) {
	var bucket int16
	var project mirror.ProjectID
	var keys [][]string
	find := func() error {
		keys = nil
		return s.q.query(ctx, t.unindexedSQL(), []any{limit}, func(rows *sql.Rows) error {
			var of int16
			var in mirror.ProjectID
			key, err := t.scanKey(rows, &of, &in)
			if len(keys) == 0 {
				bucket, project = of, in
			}
			if of == bucket && in == project {
				keys = append(keys, key)
			}
			return err
		})
	}
	if err := retry(ctx, find); err != nil {
		return 0, classify(ctx, err)
	}
	if len(keys) == 0 {
		return 0, nil
	}
	return len(keys), s.tx(ctx, "index "+t.table, func(q *queries) error {
		return chunks(keys, maxKeys, func(keys [][]string) error {
			var locked []unindexed
			args := inArgs(bucket, project, keys)
			err := q.query(ctx, t.lockUnindexedSQL(len(keys)), args, func(rows *sql.Rows) (err error) {
				var of unindexed
				var created sql.NullTime
				of.key, err = t.scanKey(rows, &of.content, &created)
				of.created = timeOf(created)
				locked = append(locked, of)
				return err
			})
			if err != nil || len(locked) == 0 {
				return err
			}
			if err := write(q, bucket, project, locked); err != nil {
				return err
			}
			_, err = q.exec(ctx, t.markIndexedSQL(len(locked)), inArgs(bucket, project, keysOf(locked))...)
			return err
		})
	})
}

func keysOf(rows []unindexed) (keys [][]string) {
	for _, row := range rows {
		keys = append(keys, row.key)
	}
	return keys
}

// IndexRooms finds rooms by the index of those that are not.
func (s *Store) IndexRooms(ctx context.Context, limit int) (int, error) {
	return s.index(ctx, indexedRooms, limit,
		func(q *queries, bucket int16, project mirror.ProjectID, rows []unindexed) error {
			var rooms []termsOf
			for _, row := range rows {
				rooms = append(rooms, termsOf{mirror.RoomID(row.key[0]), row.content, row.created})
			}
			return s.writeTerms(ctx, q, bucket, project, rooms)
		})
}

// The terms of threads are written by [Store.writeAll], except of threads that an earlier
// version has written.
var threadTerms = table{
	name: "mirror_thread_term", columns: "bucket, project_id, room_id, thread_id, term", key: 5,
}

func deleteThreadTermsSQL(n int) string {
	return "delete from mirror_thread_term\nwhere " + indexedThreads.in(n)
}

// IndexThreads deletes what terms they have, which are few, and inserts theirs.
func (s *Store) IndexThreads(ctx context.Context, limit int) (int, error) {
	return s.index(ctx, indexedThreads, limit,
		func(q *queries, bucket int16, project mirror.ProjectID, rows []unindexed) error {
			args := inArgs(bucket, project, keysOf(rows))
			if _, err := q.exec(ctx, deleteThreadTermsSQL(len(rows)), args...); err != nil {
				return err
			}
			var terms [][]any
			for _, row := range rows {
				for _, term := range store.ThreadTerms(row.content) {
					terms = append(terms, append(inArgs(bucket, project, [][]string{row.key}), rawKey(term)))
				}
			}
			return s.write(ctx, q, threadTerms, terms, nil)
		})
}

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

// unindexedSQL finds rows of a project, or of all.
func (t indexed) unindexedSQL() string {
	key := append([]string{"bucket", "project_id"}, t.key...)
	columns := strings.Join(key, ", ")
	return "select " + columns + "\nfrom " + t.table + " force index (" + t.table + "_unindexed)\n" +
		"where is_indexed = false and " + afterSQL(key) + " and (? = '' or project_id = ?)\norder by " + columns + "\nlimit ?"
}

func (t indexed) unindexedArgs(project mirror.ProjectID, after store.IndexPlace, limit int) []any {
	key := []string{string(after.Project), string(after.Room), after.Thread}
	args := afterArgs([]any{after.Bucket, after.Bucket}, key[:1+len(t.key)])
	return append(args, rawKey(project), rawKey(project), limit)
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
func (s *Store) index(ctx context.Context, t indexed, in mirror.ProjectID, after store.IndexPlace, limit int,
	write func(q *queries, bucket int16, project mirror.ProjectID, rows []unindexed) error,
) (last store.IndexPlace, n int, err error) {
	var bucket int16
	var project mirror.ProjectID
	var keys [][]string
	find := func() error {
		keys = nil
		return s.q.query(ctx, t.unindexedSQL(), t.unindexedArgs(in, after, limit), func(rows *sql.Rows) error {
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
		return after, 0, classify(ctx, err)
	}
	if len(keys) == 0 {
		return after, 0, nil
	}
	end := append(slices.Clone(keys[len(keys)-1]), "")
	last = store.IndexPlace{Bucket: bucket, Project: project, Room: mirror.RoomID(end[0]), Thread: end[1]}
	return last, len(keys), s.tx(ctx, "index "+t.table, func(q *queries) error {
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
func (s *Store) IndexRooms(ctx context.Context, project mirror.ProjectID, after store.IndexPlace, limit int) (
	last store.IndexPlace, n int, err error,
) {
	return s.index(ctx, indexedRooms, project, after, limit,
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
func (s *Store) IndexThreads(ctx context.Context, project mirror.ProjectID, after store.IndexPlace, limit int) (
	last store.IndexPlace, n int, err error,
) {
	return s.index(ctx, indexedThreads, project, after, limit,
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

// termed is a table of terms, of the rows of another one.
type termed struct {
	indexed

	terms string
	// kept is the condition that a term of a row h stays.
	kept string
}

var (
	termedRooms   = termed{indexedRooms, "mirror_room_term", "h.delete_time is null and h.epoch <> -1"}
	termedThreads = termed{indexedThreads, "mirror_thread_term", "true"}
)

func (t termed) termKey() []string { return append(slices.Clone(t.key), "term") }

// isKept is the condition that there is a row for a term. It can only be a look-up by key.
func (t termed) isKept() string {
	on := "h.bucket = " + t.terms + ".bucket and h.project_id = " + t.terms + ".project_id"
	for _, column := range t.key {
		on += " and h." + column + " = " + t.terms + "." + column
	}
	return "(\n    select " + t.kept + " from " + t.table + " h\n    where " + on + "\n) is true"
}

// termsAfterSQL reads terms in a bucket, and whether they stay.
func (t termed) termsAfterSQL() string {
	key := strings.Join(t.termKey(), ", ")
	return "select " + key + ", " + t.isKept() + "\nfrom " + t.terms + " force index (primary)\n" +
		"where bucket = ? and project_id = ? and " + afterSQL(t.termKey()) + "\norder by " + key + "\nlimit ?"
}

// deleteGoneSQL deletes n terms, unless there are rows for them now.
func (t termed) deleteGoneSQL(n int) string {
	one := strings.Join(t.termKey(), " = ? and ") + " = ?"
	return "delete from " + t.terms + "\nwhere bucket = ? and project_id = ? and (" +
		strings.Repeat(one+" or ", n-1) + one + ")\n    and not " + t.isKept()
}

// heldRooms makes rooms that are missing, so that nobody else does, and nothing appears in them,
// until the transaction ends; dropHeldSQL takes them away again.
var heldRooms = table{
	name:    "mirror_room",
	columns: "bucket, project_id, room_id, epoch, source_json, content_sha256, organization_id, data_problem", key: 3,
	keep: map[string]string{
		"epoch": "epoch", "source_json": "source_json", "content_sha256": "content_sha256",
		"organization_id": "organization_id", "data_problem": "data_problem",
	},
}

func dropHeldSQL(n int) string {
	return "delete from mirror_room\nwhere " + indexedRooms.in(n) + " and epoch = -1"
}

// unmarkIndexedSQL is about rooms that lose terms if they are deleted: an earlier version of
// the service may bring them back as they were.
func unmarkIndexedSQL(n int) string {
	return "update mirror_room\nset terms_sha256 = null\nwhere " + indexedRooms.in(n) + " and delete_time is not null"
}

// CleanTerms reads the terms without a lock. Where it finds some of what is gone, it locks the
// rooms, also those that are missing, so that nothing of that comes back meanwhile.
func (s *Store) CleanTerms(ctx context.Context, project mirror.ProjectID, of mirror.Kind, bucket int16,
	after store.TermPlace, limit int,
) (store.CleanedTerms, error) {
	t := termedRooms
	if of == mirror.KindThread {
		t = termedThreads
	}
	var out store.CleanedTerms
	var gone [][]string
	if err := retry(ctx, func() (err error) {
		out, gone, err = s.goneTerms(ctx, t, project, bucket, after, limit)
		return err
	}); err != nil || len(gone) == 0 {
		return out, classify(ctx, err)
	}
	err := s.tx(ctx, "delete terms of what is gone", func(q *queries) error {
		out.Deleted = 0
		return chunks(gone, maxKeys, func(terms [][]string) error {
			n, err := s.deleteGone(ctx, q, t, project, bucket, terms)
			out.Deleted += int(n)
			return err
		})
	})
	if err != nil {
		return store.CleanedTerms{}, err
	}
	return out, nil
}

// goneTerms reads terms behind one, and returns the keys of those of what is gone.
func (s *Store) goneTerms(ctx context.Context, t termed, project mirror.ProjectID, bucket int16,
	after store.TermPlace, limit int,
) (out store.CleanedTerms, gone [][]string, err error) {
	out.Last = after
	place := []string{string(after.Room), after.Thread, after.Term}
	if len(t.key) == 1 {
		place = slices.Delete(place, 1, 2)
	}
	seen := 0
	err = s.q.query(ctx, t.termsAfterSQL(), append(afterArgs([]any{bucket, rawKey(project)}, place), limit),
		func(rows *sql.Rows) error {
			key := make([]string, len(place))
			var kept bool
			into := []any{}
			for i := range key {
				into = append(into, &key[i])
			}
			err := rows.Scan(append(into, &kept)...)
			seen++
			if out.Last = (store.TermPlace{Room: mirror.RoomID(key[0]), Term: key[len(key)-1]}); len(key) == 3 {
				out.Last.Thread = key[1]
			}
			if !kept {
				gone = append(gone, key)
			}
			return err
		})
	out.More = seen == limit
	return out, gone, err
}

// deleteGone deletes those of some terms, which are in order, for which there is nothing.
func (s *Store) deleteGone(ctx context.Context, q *queries, t termed, project mirror.ProjectID, bucket int16,
	terms [][]string,
) (int64, error) {
	var rooms [][]string
	var held [][]any
	for _, key := range terms {
		if n := len(rooms); n == 0 || rooms[n-1][0] != key[0] {
			rooms = append(rooms, key[:1])
			held = append(held, []any{
				bucket, rawKey(project), rawKey(key[0]), int64(-1), []byte{}, []byte{}, "", "",
			})
		}
	}
	in := inArgs(bucket, project, rooms)
	// It locks those that are there, too.
	if err := s.write(ctx, q, heldRooms, held, nil); err != nil {
		return 0, err
	}
	deleted, err := q.exec(ctx, t.deleteGoneSQL(len(terms)), inArgs(bucket, project, terms)...)
	if err != nil {
		return 0, err
	}
	if t.table == indexedRooms.table {
		if _, err := q.exec(ctx, unmarkIndexedSQL(len(rooms)), in...); err != nil {
			return 0, err
		}
	}
	_, err = q.exec(ctx, dropHeldSQL(len(rooms)), in...)
	return deleted, err
}

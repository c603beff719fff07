package mysql

import (
	"bytes"
	"context"
	"database/sql"
	"slices"
	"strings"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// roomDeleted is the column of rooms with the time of the deletion of those that have content.
const roomDeleted = "unpurged_time"

// agedSQL finds rows from the oldest on, and locks none.
func agedSQL(a store.Aging) string {
	c := a.Columns()
	if c.Empties {
		c.Time = roomDeleted
	}
	return strings.NewReplacer("TABLE", string(a), "TIME", c.Time, "ID", c.ID, "INDEX", c.Index,
		"KEY", "t."+strings.Join(c.Key, ", t.")).Replace(`select t.TIME, t.bucket, KEY
from TABLE t force index (INDEX)
where t.project_id = ? and t.TIME >= ? and t.TIME < ? and (t.TIME > ? or t.ID < ?)
order by t.TIME, t.ID desc
limit ?`)
}

// lockAgedSQL reads and locks n rows by their keys. It has no subquery, because Vitess forgets
// the lock of a statement with one.
func lockAgedSQL(a store.Aging, n int) string {
	c := a.Columns()
	if c.Empties {
		c.Time = roomDeleted
	}
	return "select t." + c.Time + ", " + c.End + ", t.bucket, t." + strings.Join(c.Key, ", t.") + agedByKey(a, n) +
		"\nfor update nowait"
}

// waitingAgedSQL reads of n rows whether something waits for them. As a condition, what waits
// could be read before the rows, all of it.
func waitingAgedSQL(a store.Aging, n int) string {
	c := a.Columns()
	return "select exists (select 1 from " + c.Waits + "), t.bucket, t." + strings.Join(c.Key, ", t.") + agedByKey(a, n)
}

func agedByKey(a store.Aging, n int) string {
	key := a.Columns().Key
	return `
from ` + string(a) + ` t force index (primary)
where (t.bucket, t.project_id, t.` + strings.Join(key, ", t.") + `) in (` + places(n, 2+len(key)) + `)`
}

// deleteAgedSQL deletes n rows by their keys. That the buckets are named apart tells Vitess
// the shards; MariaDB would read the whole table to delete by a list of row values.
func deleteAgedSQL(a store.Aging, n int) string {
	change := "delete from " + string(a)
	if a.Columns().Empties {
		change = emptyRoom
	}
	key := "bucket = ? and " + strings.Join(a.Columns().Key, " = ? and ") + " = ?"
	return change + "\nwhere bucket in (" + repeat("?", n) + ") and project_id = ?\n    and (" +
		strings.Repeat(key+" or ", n-1) + key + ")"
}

// deletePartSQL deletes what belongs to a row that is locked.
func deletePartSQL(a store.Aging, part string) string {
	return "delete from " + part + ofPart(a)
}

// weighPartSQL reads how long the rows are that [deletePartSQL] would delete.
func weighPartSQL(a store.Aging, part string) string {
	return "select " + store.Weights[part] + "\nfrom " + part + " force index (primary)" + ofPart(a)
}

func ofPart(a store.Aging) string {
	return "\nwhere bucket = ? and project_id = ? and " + strings.Join(a.Columns().Key, " = ? and ") + " = ?\nlimit ?"
}

func deletePartArgs(x store.Expiry, key agedKey, limit int) []any {
	args := []any{key.bucket, rawKey(x.Project)}
	for _, id := range key.ids {
		args = append(args, id)
	}
	return append(args, limit)
}

func deleteAgedArgs(x store.Expiry, keys []agedKey) (args []any) {
	if x.Table.Columns().Empties {
		args = append(args, purgedSum())
	}
	for _, k := range keys {
		args = append(args, k.bucket)
	}
	args = append(args, rawKey(x.Project))
	for _, k := range keys {
		args = append(args, k.bucket)
		for _, id := range k.ids {
			args = append(args, id)
		}
	}
	return args
}

// fitting returns how many rows of a part fit the room of the transaction, which it takes, and
// whether others do not. The first row of the transaction always does.
func (q *queries) fitting(ctx context.Context, x store.Expiry, part string, key agedKey, limit int, room *int64) (
	fit int, cut bool, err error,
) {
	err = q.query(ctx, weighPartSQL(x.Table, part), deletePartArgs(x, key, limit), func(rows *sql.Rows) error {
		var weight int64
		if err := rows.Scan(&weight); err != nil || cut {
			return err
		}
		if cut = weight > *room && *room < store.MaxExpired; !cut {
			fit, *room = fit+1, *room-weight
		}
		return nil
	})
	if !cut {
		fit = limit // none are more than were weighed
	}
	return fit, cut, err
}

// agedKey is the primary key of a row, without the project.
type agedKey struct {
	bucket int16
	ids    [][]byte
}

func (k agedKey) compare(other agedKey) int {
	if k.bucket != other.bucket {
		return int(k.bucket) - int(other.bucket)
	}
	return slices.CompareFunc(k.ids, other.ids, bytes.Compare)
}

// scan returns where a row's key is scanned into.
func (k *agedKey) scan(columns int) []any {
	k.ids = make([][]byte, columns)
	into := []any{&k.bucket}
	for i := range k.ids {
		into = append(into, &k.ids[i])
	}
	return into
}

func agedArgs(x store.Expiry, keys []agedKey) (args []any) {
	for _, k := range keys {
		args = append(args, k.bucket, rawKey(x.Project))
		for _, id := range k.ids {
			args = append(args, id)
		}
	}
	return args
}

// Expire is one transaction, on a sharded server one for each bucket. Rows of which
// another session has locked one stay for the next time, all that the transaction is about.
func (s *Store) Expire(ctx context.Context, x store.Expiry) (store.Expired, error) {
	out := store.Expired{Last: x.After}
	columns := x.Table.Columns()
	after := nullTime(x.After.Time)
	if !after.Valid {
		after = nullTime(firstTime)
	}
	var keys []agedKey
	err := retry(ctx, func() error {
		keys, out.Last = nil, x.After
		return s.q.query(ctx, agedSQL(x.Table), []any{
			rawKey(x.Project), after, nullTime(x.Before), after, rawKey(x.After.ID), x.Look(),
		}, func(rows *sql.Rows) error {
			var key agedKey
			var at sql.NullTime
			err := rows.Scan(append([]any{&at}, key.scan(len(columns.Key))...)...)
			if out.Last.Time = timeOf(at); len(keys) == 0 {
				out.Oldest = out.Last.Time
			}
			keys = append(keys, key)
			out.Last.ID = string(key.ids[len(key.ids)-1]) // the key ends with what the index ends with
			return err
		})
	})
	if err != nil {
		return store.Expired{}, classify(ctx, err)
	}
	out.More = len(keys) == x.Look() && len(keys) > 0
	slices.SortFunc(keys, agedKey.compare) // key order is lock order
	parts, err := transactions(ctx, s, keys, func(k agedKey) int16 { return k.bucket })
	for _, part := range parts {
		deleted, left := 0, x
		left.Limit -= out.Deleted
		cut := left.Limit == 0
		if !cut {
			err := s.tx(ctx, "expire rows of "+string(x.Table), func(q *queries) (err error) {
				deleted, cut, err = q.expire(ctx, left, part)
				return err
			})
			if err != nil {
				return store.Expired{}, err
			}
		}
		if out.Deleted += deleted; cut {
			return out.Cut(x), nil
		}
	}
	return out, err
}

// expire deletes those of some rows that have expired, with their parts, or none if one is
// locked. It is cut if that would be more than the limit.
func (q *queries) expire(ctx context.Context, x store.Expiry, keys []agedKey) (deleted int, cut bool, err error) {
	var gone []agedKey
	err = chunks(keys, maxKeys, func(keys []agedKey) error {
		rows, err := q.lockAged(ctx, x, keys)
		for _, row := range rows {
			if x.Table.Expired(row.AgedRow, x.Before) {
				gone = append(gone, row.key)
			}
		}
		return err
	})
	if err != nil {
		return 0, false, unlessLocked(err, nil)
	}
	if parts := x.Table.Columns().Parts; len(parts) > 0 {
		return q.expireWithParts(ctx, x, parts, gone)
	}
	err = chunks(gone, maxKeys, func(keys []agedKey) error {
		n, err := q.exec(ctx, deleteAgedSQL(x.Table, len(keys)), deleteAgedArgs(x, keys)...)
		deleted += int(n)
		return err
	})
	return deleted, false, err
}

// agedRow is a row that is locked.
type agedRow struct {
	store.AgedRow

	key agedKey
}

// lockAged locks those of some rows that are there, and then reads what waits for them.
func (q *queries) lockAged(ctx context.Context, x store.Expiry, keys []agedKey) (locked []agedRow, err error) {
	columns := x.Table.Columns()
	width := len(columns.Key)
	err = q.query(ctx, lockAgedSQL(x.Table, len(keys)), agedArgs(x, keys), func(rows *sql.Rows) error {
		var row agedRow
		var at, end sql.NullTime
		err := rows.Scan(append([]any{&at, &end}, row.key.scan(width)...)...)
		row.Time, row.End = timeOf(at), timeOf(end)
		locked = append(locked, row)
		return err
	})
	if err != nil || columns.Waits == "" {
		return locked, err
	}
	return locked, q.query(ctx, waitingAgedSQL(x.Table, len(keys)), agedArgs(x, keys), func(rows *sql.Rows) error {
		var key agedKey
		var waits bool
		err := rows.Scan(append([]any{&waits}, key.scan(width)...)...)
		for i := range locked {
			if locked[i].key.compare(key) == 0 {
				locked[i].Waits = waits
			}
		}
		return err
	})
}

// expireWithParts deletes rows one by one, each after what belongs to it.
func (q *queries) expireWithParts(ctx context.Context, x store.Expiry, parts []string, gone []agedKey) (
	deleted int, cut bool, err error,
) {
	room := int64(store.MaxExpired)
	for _, key := range gone {
		if x.Table.Columns().Empties {
			// Some of its terms may be left, or none.
			if _, err := q.exec(ctx, unmarkIndexedSQL(1), agedArgs(x, []agedKey{key})...); err != nil {
				return deleted, false, err
			}
		}
		for _, part := range parts {
			limit := x.Limit - deleted
			if store.Weights[part] != "" && limit > 0 {
				if limit, cut, err = q.fitting(ctx, x, part, key, limit, &room); err != nil {
					return deleted, false, err
				}
			}
			if limit == 0 {
				return deleted, true, nil
			}
			n, err := q.exec(ctx, deletePartSQL(x.Table, part), deletePartArgs(x, key, limit)...)
			if deleted += int(n); err != nil || cut {
				return deleted, cut, err
			}
		}
		if deleted == x.Limit {
			return deleted, true, nil
		}
		n, err := q.exec(ctx, deleteAgedSQL(x.Table, 1), deleteAgedArgs(x, []agedKey{key})...)
		if deleted += int(n); err != nil {
			return deleted, false, err
		}
	}
	return deleted, false, nil
}

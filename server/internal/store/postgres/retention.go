package postgres

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

// roomUnpurged is the condition of the index of deleted rooms that a room t has content.
const roomUnpurged = "t.content_sha256 <> sha256('" + store.Purged + "')"

// agedSQL reads and locks rows from the oldest on. Rows that are locked are left out, so
// it never waits, whatever the order.
func agedSQL(a store.Aging) string {
	c := a.Columns()
	waits, keys, only := "false", "", ""
	if c.Waits != "" { // with a limit it is looked up for each row
		waits = "(select true from " + c.Waits + " limit 1) is not null"
	}
	if len(c.Parts) > 0 {
		keys = ", t.bucket, array[t." + strings.Join(c.Key, ", t.") + "]"
	}
	if c.Empties {
		only = " and " + roomUnpurged
	}
	return strings.NewReplacer("TABLE", string(a), "TIME", c.Time, "ID", c.ID, "END", c.End, "WAITS", waits,
		"KEYS", keys, "ONLY", only).Replace(`select t.ctid, t.TIME, t.ID, END::timestamptz, WAITSKEYS
from TABLE t
where t.project_id = $1 and t.TIME >= $2 and t.TIME < $3 and (t.TIME > $2 or t.ID < $4)ONLY
order by t.TIME, t.ID desc
limit $5
for update of t skip locked`)
}

// expireSettings keep the server from reading more than the limit, whatever it expects:
// what is first in the index is read first.
var expireSettings = []string{"set local enable_bitmapscan = off", "set local enable_sort = off"}

// A locked row stays where it is.
func deleteAgedSQL(a store.Aging) string {
	if a.Columns().Empties {
		return emptyRoomSQL + "where ctid = any($1)"
	}
	return "delete from " + string(a) + " where ctid = any($1)"
}

// unmarkAgedSQL is about rooms that lose some of their terms, but are not emptied yet: an earlier
// version of the service may bring them back as they were.
const unmarkAgedSQL = `update mirror_room set terms_sha256 = null
where ctid = any($1) and terms_sha256 is not null`

// deletePartsSQL deletes what belongs to some rows, which are locked. Its parameters are the
// project, how many it may delete, and the keys of the rows, column by column.
func deletePartsSQL(a store.Aging, part string) string {
	rows, names, same := "$3::smallint[]", "k_bucket", "bucket = k.k_bucket and project_id = $1"
	for i, column := range a.Columns().Key {
		rows += ", $" + strconv.Itoa(i+4) + "::text[]"
		names += ", k_" + column
		same += " and " + column + " = k.k_" + column
	}
	return "delete from " + part + "\nwhere ctid = any(array(\n    select d.ctid from unnest(" + rows + ") k (" + names +
		")\n    cross join lateral (select ctid from " + part + " where " + same + " offset 0) d\n    limit $2::bigint\n))"
}

// agedKeys are the keys of rows, column by column.
type agedKeys struct {
	buckets []int16
	ids     [][]string
}

func (k *agedKeys) add(bucket int16, ids []string) {
	k.buckets = append(k.buckets, bucket)
	if k.ids == nil {
		k.ids = make([][]string, len(ids))
	}
	for i, id := range ids {
		k.ids[i] = append(k.ids[i], id)
	}
}

func (k *agedKeys) args(project mirror.ProjectID, limit int) []any {
	args := []any{string(project), limit, k.buckets}
	for _, ids := range k.ids {
		args = append(args, ids)
	}
	return args
}

// Expire is one transaction.
func (s *Store) Expire(ctx context.Context, x store.Expiry) (store.Expired, error) {
	var out store.Expired
	err := s.itemTx(ctx, "expire rows of "+string(x.Table), func(t *transaction, _, _ *dbq.Queries) error {
		out = store.Expired{Last: x.After}
		for _, setting := range expireSettings {
			t.queue(setting)
		}
		rows, err := t.Query(ctx, agedSQL(x.Table), string(x.Project), x.After.Time, x.Before, x.After.ID, x.Look())
		if err != nil {
			return err
		}
		defer rows.Close()
		seen := 0
		var gone []pgtype.TID
		var keys agedKeys
		parts := x.Table.Columns().Parts
		for rows.Next() {
			var tid pgtype.TID
			var row store.AgedRow
			var end *time.Time
			var bucket int16
			var ids []string
			into := []any{&tid, &out.Last.Time, &out.Last.ID, &end, &row.Waits}
			if len(parts) > 0 {
				into = append(into, &bucket, &ids)
			}
			if err := rows.Scan(into...); err != nil {
				return err
			}
			out.Last.Time = out.Last.Time.UTC()
			if seen++; seen == 1 {
				out.Oldest = out.Last.Time
			}
			if row.Time = out.Last.Time; end != nil {
				row.End = end.UTC()
			}
			if x.Table.Expired(row, x.Before) {
				gone = append(gone, tid)
				keys.add(bucket, ids)
			}
		}
		out.More = seen == x.Look() && seen > 0
		if err := rows.Err(); err != nil || len(gone) == 0 {
			return err
		}
		rows.Close()
		cut := func(rest []pgtype.TID) error {
			out = out.Cut(x)
			if !x.Table.Columns().Empties {
				return nil
			}
			_, err := t.Exec(ctx, unmarkAgedSQL, rest)
			return err
		}
		for _, part := range parts {
			tag, err := t.Exec(ctx, deletePartsSQL(x.Table, part), keys.args(x.Project, x.Limit-out.Deleted)...)
			if out.Deleted += int(tag.RowsAffected()); err != nil {
				return err
			}
			if out.Deleted == x.Limit {
				return cut(gone)
			}
		}
		some := gone[:min(len(gone), x.Limit-out.Deleted)]
		tag, err := t.Exec(ctx, deleteAgedSQL(x.Table), some)
		if out.Deleted += int(tag.RowsAffected()); err != nil || len(some) == len(gone) {
			return err
		}
		return cut(gone[len(some):])
	})
	if err != nil {
		return store.Expired{}, err
	}
	return out, nil
}

package postgres

import (
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

// agedSQL reads and locks rows from the oldest on. Rows that are locked are left out, so
// it never waits, whatever the order.
func agedSQL(a store.Aging) string {
	waits := "false"
	if from := a.Columns().Waits; from != "" { // with a limit it is looked up for each row
		waits = "(select true from " + from + " limit 1) is not null"
	}
	return strings.NewReplacer("TABLE", string(a), "TIME", a.Columns().Time, "ID", a.Columns().ID,
		"END", a.Columns().End, "WAITS", waits).Replace(`select t.ctid, t.TIME, t.ID, END::timestamptz, WAITS
from TABLE t
where t.project_id = $1 and t.TIME >= $2 and t.TIME < $3 and (t.TIME > $2 or t.ID < $4)
order by t.TIME, t.ID desc
limit $5
for update of t skip locked`)
}

// expireSettings keep the server from reading more than the limit, whatever it expects:
// what is first in the index is read first.
var expireSettings = []string{"set local enable_bitmapscan = off", "set local enable_sort = off"}

// A locked row stays where it is.
func deleteAgedSQL(a store.Aging) string { return "delete from " + string(a) + " where ctid = any($1)" }

// Expire is one transaction.
func (s *Store) Expire(ctx context.Context, x store.Expiry) (store.Expired, error) {
	var out store.Expired
	err := s.itemTx(ctx, "expire rows of "+string(x.Table), func(t *transaction, _, _ *dbq.Queries) error {
		out = store.Expired{Last: x.After}
		for _, setting := range expireSettings {
			t.queue(setting)
		}
		rows, err := t.Query(ctx, agedSQL(x.Table), string(x.Project), x.After.Time, x.Before, x.After.ID, x.Limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		seen := 0
		var gone []pgtype.TID
		for rows.Next() {
			var tid pgtype.TID
			var row store.AgedRow
			var end *time.Time
			if err := rows.Scan(&tid, &out.Last.Time, &out.Last.ID, &end, &row.Waits); err != nil {
				return err
			}
			seen++
			out.Last.Time = out.Last.Time.UTC()
			if row.Time = out.Last.Time; end != nil {
				row.End = end.UTC()
			}
			if x.Table.Expired(row, x.Before) {
				gone = append(gone, tid)
			}
		}
		if err := rows.Err(); err != nil || len(gone) == 0 {
			out.More = seen == x.Limit && seen > 0
			return err
		}
		rows.Close()
		tag, err := t.Exec(ctx, deleteAgedSQL(x.Table), gone)
		out.Deleted, out.More = int(tag.RowsAffected()), seen == x.Limit
		return err
	})
	if err != nil {
		return store.Expired{}, err
	}
	return out, nil
}

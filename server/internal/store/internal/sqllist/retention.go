package sqllist

import (
	"context"
	"strconv"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// Oldest reads one entry of an index for each table. The times are columns: the value of a
// subquery comes from Vitess as text where it does not know its type, as for a while after
// the table was made.
func (r *Reader) Oldest(ctx context.Context, project mirror.ProjectID) (map[store.Aging]time.Time, error) {
	var parts []part
	for i, table := range store.AgingTables {
		c := table.Columns()
		aged, only := "t."+c.Time, ""
		if c.Empties {
			aged, only = r.dialect.RoomDeleted, r.dialect.RoomUnpurged
		}
		if len(c.Parts) > 0 {
			only += " and " + aged + " is not null"
		}
		parts = append(parts, part{"select " + strconv.Itoa(i) + ", " + aged + " from " + string(table) + " t" +
			r.by(c.Index) + "where t.project_id = ?" + only + "\n    order by " + aged + " limit 1", []any{project}})
	}
	oldest := make(map[store.Aging]time.Time)
	err := r.together(ctx, "read the times of the oldest rows", parts, func(row Row) error {
		var n int
		var t time.Time
		err := row.Scan(&n, at(&t))
		if err == nil && !t.IsZero() {
			oldest[store.AgingTables[n]] = t
		}
		return err
	})
	return oldest, err
}

package sqllist

import (
	"context"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// Oldest reads one entry of an index for each table. The times are columns: the value of a
// subquery comes from Vitess as text where it does not know its type, as for a while after
// the table was made. While it knows the types of some of the tables only, it refuses a union
// of these statements, too.
func (r *Reader) Oldest(ctx context.Context, project mirror.ProjectID) (map[store.Aging]time.Time, error) {
	const what = "read the times of the oldest rows"
	oldest := make(map[store.Aging]time.Time)
	return oldest, r.within(ctx, what, func(ctx context.Context) error {
		for _, table := range store.AgingTables {
			c := table.Columns()
			aged, only := "t."+c.Time, ""
			if c.Empties {
				aged, only = r.dialect.RoomDeleted, r.dialect.RoomUnpurged
			}
			if len(c.Parts) > 0 {
				only += " and " + aged + " is not null"
			}
			s := r.query("select "+aged+" from "+string(table)+" t"+r.by(c.Index)+
				"where t.project_id = ?"+only+"\n    order by "+aged+" limit 1", project)
			if err := r.read(ctx, what, s, func(row Row) error {
				var t time.Time
				err := row.Scan(at(&t))
				if err == nil && !t.IsZero() {
					oldest[table] = t
				}
				return err
			}); err != nil {
				return err
			}
		}
		return nil
	})
}

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
	s := r.query("")
	for i, table := range store.AgingTables {
		c := table.Columns()
		if i > 0 {
			s.add("\nunion all ")
		}
		at, only := "t."+c.Time, ""
		if c.Empties {
			at, only = r.dialect.RoomDeleted, r.dialect.RoomUnpurged
		}
		if len(c.Parts) > 0 {
			only += " and " + at + " is not null"
		}
		s.add("(select "+strconv.Itoa(i)+", "+at+" from "+string(table)+" t"+r.by(c.Index)+
			"where t.project_id = ?"+only+"\n    order by "+at+" limit 1)", project)
	}
	oldest := make(map[store.Aging]time.Time)
	err := r.read(ctx, "read the times of the oldest rows", s, func(row Row) error {
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

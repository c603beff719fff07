package sqllist

import (
	"context"
	"slices"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// copyRow is a row that may be a copy.
type copyRow struct {
	mirror.Change

	shown bool
}

// Copies uses the index of the list of the kind, and reads keys and states alone. What hides a
// row is no condition of the statement, which would look at all rows until enough are shown.
func (r *Reader) Copies(ctx context.Context, f store.CopyFilter) (page store.CopyPage, err error) {
	var rows []copyRow
	switch {
	case f.Kind == mirror.KindGroup && f.Room == "" && (f.Rooms == nil || f.Rooms.Select("")):
		rows, err = r.copies(ctx, f, "")
	case f.Kind == mirror.KindGroup || f.Room != "" && !f.Rooms.Select(f.Room):
	case f.Room != "":
		rows, err = r.copies(ctx, f, string(f.Room))
	default:
		rows, err = byRanges(f.Rooms.Within(""), f.AfterRoom, f.Limit, func(prefix string, limit int) ([]copyRow, error) {
			f := f
			f.Limit = limit
			return r.copies(ctx, f, prefix)
		})
	}
	for _, row := range rows {
		if row.shown {
			page.Copies = append(page.Copies, row.Change)
		}
	}
	if len(rows) > 0 {
		page.More, page.Last = len(rows) == f.Limit, rows[len(rows)-1].Resource
	}
	return page, err
}

// copies reads rows of the only room, or of rooms with a prefix.
func (r *Reader) copies(ctx context.Context, f store.CopyFilter, prefix string) ([]copyRow, error) {
	var s *statement
	// An index is read from one of two lower bounds, not always from the higher.
	afterRoom, afterKind, afterID := f.AfterRoom, f.Kind, f.AfterID
	single := f.Kind == mirror.KindRoom || f.Kind == mirror.KindActiveUsers // a row for each room
	if string(afterRoom) < prefix && !single {
		afterRoom, afterKind, afterID = mirror.RoomID(prefix), 0, ""
	}
	room := mirror.Resource{Project: f.Project, Room: f.Room}
	// page selects a page of the rooms, in the order of some ids.
	page := func(of string, ids []string, after ...any) {
		if f.Room != "" {
			s.page(s.withinRoom(of, ids, room, after...), f.Limit)
			return
		}
		order := append([]string{of + ".room_id"}, ids...)
		s.where(of+".project_id = ?", f.Project).whereIDs(order[0], prefix).
			after(order, slices.Concat([]any{afterRoom}, after)...).page(order, f.Limit)
	}
	// head begins a statement with a key, an epoch and whether the row is shown.
	head := func(key, epoch, shown string, args ...any) {
		s = r.query("select "+key+", "+epoch+", coalesce(s.revision, 0), case when "+shown+" then 1 else 0 end\n", args...)
	}
	switch f.Kind {
	case mirror.KindRoom, mirror.KindActiveUsers:
		// One text for both: users are a copy once they were fetched; a room is one at once.
		head("r.room_id, "+literal(mirror.KindRoom)+", ''", "r.epoch", "r.delete_time is null and (? or s.revision > 0)",
			f.Kind == mirror.KindRoom)
		s.add("from mirror_room r\n"+r.state("r", "r.room_id", "?", "''"), f.Kind)
		order := []string{"r.room_id"}
		switch {
		case f.Room == "":
			page("r", nil)
		case r.dialect.Routed:
			s.whereRoom("r", room).after(order, f.AfterRoom).page(order, f.Limit)
		default: // the text of the list, from this room to this room
			s.where("r.project_id = ?", f.Project).where("r.room_id >= ? and r.room_id <= ?", f.Room, f.Room).
				after(order, f.AfterRoom).page(order, f.Limit)
		}
	case mirror.KindStorage, mirror.KindYdoc:
		head("d.room_id, d.kind, d.resource_id", "d.epoch", shown("d", "", "?"), false)
		s.add("from mirror_document d\n" + r.ofDocument())
		page("d", []string{"d.kind", "d.resource_id"}, afterKind, afterID)
	case mirror.KindThread:
		head("t.room_id, "+literal(f.Kind)+", t.thread_id", "t.epoch", shown("t", " and t.delete_time is null", "?"), false)
		s.add("from mirror_thread t\n" + r.ofThread())
		page("t", []string{"t.thread_id"}, afterID)
	case mirror.KindGroup:
		order := []string{"g.group_id"}
		head("'', "+literal(f.Kind)+", g.group_id", "0", "g.delete_time is null")
		s.add("from mirror_group g\n" + r.ofGroup())
		s.where("g.bucket = ? and g.project_id = ?", mirror.Bucket(f.Project, ""), f.Project).
			after(order, f.AfterID).page(order, f.Limit)
	default:
		return nil, nil // there are no copies of what is history
	}
	return list(ctx, r, "list copies", s, func(row Row, c *copyRow) error {
		var shown int
		c.Kind, c.Resource.Project = mirror.ChangeUpserted, f.Project
		err := row.Scan(&c.Resource.Room, &c.Resource.Kind, &c.Resource.ID, &c.Epoch, &c.Number, &shown)
		if single {
			c.Resource.Kind = f.Kind
		}
		c.Bucket, c.shown = c.Resource.Bucket(), shown == 1
		return err
	})
}

package sqllist

import (
	"context"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// Copies uses the index of the list of the kind, and reads keys and states alone.
func (r *Reader) Copies(ctx context.Context, f store.CopyFilter) ([]mirror.Change, error) {
	if f.Kind == mirror.KindGroup {
		if f.Rooms != nil && !f.Rooms.Select("") {
			return nil, nil
		}
		return r.copies(ctx, f, "")
	}
	return byRanges(f.Rooms.Within(""), f.AfterRoom, f.Limit, func(prefix string, limit int) ([]mirror.Change, error) {
		f := f
		f.Limit = limit
		return r.copies(ctx, f, prefix)
	})
}

// copies reads those in rooms with a prefix.
func (r *Reader) copies(ctx context.Context, f store.CopyFilter, prefix string) ([]mirror.Change, error) {
	const revision = "coalesce(s.revision, 0)\n"
	var s *statement
	// An index is read from one of two lower bounds, not always from the higher.
	afterRoom, afterKind, afterID := f.AfterRoom, f.Kind, f.AfterID
	if string(afterRoom) < prefix {
		afterRoom, afterKind, afterID = mirror.RoomID(prefix), 0, ""
	}
	switch f.Kind {
	case mirror.KindRoom, mirror.KindActiveUsers:
		order := []string{"r.room_id"}
		s = r.query("select r.room_id, '', r.epoch, "+revision+"from mirror_room r\n"+
			r.state("r", "r.room_id", literal(f.Kind), "''")).
			where("r.project_id = ?", f.Project).whereIDs("r.room_id", prefix).after(order, f.AfterRoom).
			where("r.delete_time is null").
			// Users are a copy once they were fetched; a room is one at once.
			whereIf(f.Kind == mirror.KindActiveUsers, "coalesce(s.revision, 0) > 0").
			page(order, f.Limit)
	case mirror.KindStorage, mirror.KindYdoc:
		order := []string{"d.room_id", "d.kind", "d.resource_id"}
		s = r.query("select d.room_id, d.resource_id, d.epoch, "+revision+"from mirror_document d\n"+r.ofDocument()).
			where("d.project_id = ?", f.Project).where(shown("d", "", "?"), false).whereIDs("d.room_id", prefix).
			where("(? = 0 or d.kind = ?)", f.Kind, f.Kind).
			after(order, afterRoom, afterKind, afterID).page(order, f.Limit)
	case mirror.KindThread:
		order := []string{"t.room_id", "t.thread_id"}
		s = r.query("select t.room_id, t.thread_id, t.epoch, "+revision+"from mirror_thread t\n"+r.ofThread()).
			where("t.project_id = ?", f.Project).whereShown(false).whereIDs("t.room_id", prefix).
			after(order, afterRoom, afterID).page(order, f.Limit)
	case mirror.KindGroup:
		order := []string{"g.group_id"}
		s = r.query("select '', g.group_id, 0, "+revision+"from mirror_group g\n"+r.ofGroup()).
			where("g.bucket = ? and g.project_id = ?", mirror.Bucket(f.Project, ""), f.Project).
			where("g.delete_time is null").after(order, f.AfterID).page(order, f.Limit)
	default:
		return nil, nil // there are no copies of what is history
	}
	return list(ctx, r, "list copies", s, func(row Row, c *mirror.Change) error {
		c.Kind, c.Resource = mirror.ChangeUpserted, mirror.Resource{Project: f.Project, Kind: f.Kind}
		err := row.Scan(&c.Resource.Room, &c.Resource.ID, &c.Epoch, &c.Number)
		c.Bucket = c.Resource.Bucket()
		return err
	})
}

package sqllist

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// DeletedRooms lists the rooms that were deleted before a time.
func (r *Reader) DeletedRooms(ctx context.Context, project mirror.ProjectID, before time.Time, after mirror.RoomID,
	limit int,
) ([]mirror.RoomID, error) {
	s := r.query("select room_id\nfrom mirror_room\n").
		where("project_id = ?", project).
		where("room_id > ?", after).
		where("delete_time < ?", before)
	s.add("\norder by room_id\nlimit ?", limit)
	return list(ctx, r, "list deleted rooms", s, func(row Row, id *mirror.RoomID) error { return row.Scan(id) })
}

// Remains counts what is left of a room, table by table.
func (r *Reader) Remains(ctx context.Context, room mirror.Resource) (store.TableRows, error) {
	all := make(store.TableRows)
	tables, statements := r.remains(room)
	for i, s := range statements {
		n, err := one(ctx, r, "count what is left of a room", s, func(row Row, n *int64) error { return row.Scan(n) })
		if err != nil {
			return nil, err
		}
		if n > 0 {
			all[tables[i]] = n
		}
	}
	return all, nil
}

func (r *Reader) remains(room mirror.Resource) (tables []string, all []*statement) {
	count := func(table string) *statement {
		return r.query("select count(*)\nfrom "+table+" t\n").
			where("project_id = ?", room.Project).
			where("room_id = ?", room.Room)
	}
	for _, table := range store.RoomTables {
		all = append(all, count(table).where("bucket = ?", room.Bucket()))
	}
	return append(slices.Clone(store.RoomTables), "mirror_room", "mirror_event"), append(all,
		count("mirror_room").where("bucket = ?", room.Bucket()).where("source_json <> '"+store.Purged+"'"),
		// In any bucket: that of another version can be another.
		count("mirror_event").
			where("room_id <> ''").where("(payload <> '"+store.Purged+"' or user_id <> '')").
			where("outcome <> '"+string(mirror.OutcomeForeignProject)+"'"))
}

// LockTombstone keeps a room that was deleted before a time from coming back until the
// transaction ends, and ends the leases on what is folded in it. It returns store.ErrNotFound if
// there is none, or if it may be back; then the transaction is to change nothing.
func LockTombstone(ctx context.Context, tx Tx, d Dialect, room mirror.Resource, before time.Time) error {
	key := []any{room.Bucket(), d.argument(room.Project), d.argument(room.Room)}
	// States are locked before rooms.
	var waits bool
	switch err := tx.Get(ctx, WaitingRoomSQL, key, &waits); {
	case err != nil && !errors.Is(err, store.ErrNotFound):
		return err
	case waits:
		return store.ErrNotFound
	}
	if err := tx.Later(ctx, ReleaseFoldsSQL, key...); err != nil {
		return err
	}
	var one int
	return tx.Get(ctx, LockTombstoneSQL, append(key, d.Time(before)), &one) // without it, leases go on
}

// ProjectIDs lists the projects of which something is stored.
func (r *Reader) ProjectIDs(ctx context.Context) ([]mirror.ProjectID, error) {
	s := r.query("select project_id\nfrom mirror_project\norder by project_id")
	return list(ctx, r, "list projects", s, func(row Row, id *mirror.ProjectID) error { return row.Scan(id) })
}

// RemainsOfProject counts what a bucket has of a project, table by table.
func (r *Reader) RemainsOfProject(ctx context.Context, project mirror.ProjectID, bucket int16) (int64, error) {
	all := int64(0)
	for _, table := range append(slices.Clone(store.ProjectTables), "mirror_change") {
		s := r.query("select count(*)\nfrom "+table+"\n").
			where("bucket = ?", bucket).
			where("project_id = ?", project)
		n, err := one(ctx, r, "count what is left of a project", s, func(row Row, n *int64) error { return row.Scan(n) })
		if all += n; err != nil {
			return 0, err
		}
	}
	return all, nil
}

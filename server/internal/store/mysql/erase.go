package mysql

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/internal/sqllist"
)

// EraseRows locks the states of what is folded before its rows.
func (s *Store) EraseRows(ctx context.Context, project mirror.ProjectID, table *store.PersonalTable, bucket int16,
	rows []store.ErasedRow, now time.Time,
) ([]mirror.Change, error) {
	var changes []mirror.Change
	resources := table.FoldedResources(project, rows)
	err := s.tx(ctx, "erase rows of "+table.Name, func(q *queries) error {
		changes = nil
		var known []mirror.Resource
		states := make([]store.State, 0, len(resources))
		for _, r := range resources {
			row, err := q.LockState(ctx, lockParams(r))
			if errors.Is(err, sql.ErrNoRows) {
				continue
			}
			if err != nil {
				return err
			}
			known, states = append(known, r), append(states, stateOf(row).Release())
		}
		for _, row := range rows {
			args := []any{bucket, rawKey(project)}
			for _, id := range row.Key {
				if text, ok := id.(string); ok {
					id = rawKey(text)
				}
				args = append(args, id)
			}
			if _, err := q.exec(ctx, sqllist.EraseRowSQL(table, row.Whole), args...); err != nil {
				return err
			}
		}
		changes = table.ErasureEntries(known, now)
		if err := q.announce(ctx, changes); err != nil {
			return err
		}
		for i, r := range known {
			revision := int64(0)
			if len(changes) > 0 {
				revision = changes[i].Number
			}
			if err := q.WriteState(ctx, writeState(r, states[i], revision)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return changes, nil
}

func deleteDeadSQL(table string, key []string) string {
	return "delete from " + table + "\nwhere " + strings.Join(key, " = ? and ") + " = ?\nlimit ?"
}

// EraseDead locks the room, so that it neither comes back nor is created anew meanwhile.
func (s *Store) EraseDead(ctx context.Context, r mirror.Resource, limit int) (n int, lives bool, err error) {
	err = s.tx(ctx, "erase what is deleted", func(q *queries) error {
		n, lives = 0, false
		var room store.RoomCopy
		var deleted sql.NullTime
		if err := q.db.QueryRowContext(ctx, sqllist.LockRoomSQL, roomArgs(r)...).Scan(&room.Epoch, &deleted); err != nil &&
			!errors.Is(err, sql.ErrNoRows) {
			return err
		}
		room.DeleteTime = timeOf(deleted)
		key := sqllist.DeadKey(r, func(id string) any { return rawKey(id) })
		var head store.DeadHead
		if r.Kind != mirror.KindRoom {
			err := q.db.QueryRowContext(ctx, sqllist.DeadHeadSQL(r.Kind), key...).Scan(&head.Epoch, &head.Deleted)
			if head.Found = err == nil; err != nil && !errors.Is(err, sql.ErrNoRows) {
				return err
			}
		}
		if lives = head.Lives(r.Kind, room); lives || limit == 0 {
			return nil
		}
		if r.Kind == mirror.KindRoom {
			blanked, err := q.exec(ctx, sqllist.BlankRoomSQL, key...)
			n = int(blanked)
			return err
		}
		tables, columns := store.DeadTables(r.Kind)
		for _, table := range tables {
			if n == limit {
				return nil
			}
			gone, err := q.exec(ctx, deleteDeadSQL(table, columns), append(key, limit-n)...)
			if err != nil {
				return err
			}
			n += int(gone)
		}
		return nil
	})
	if err != nil {
		return 0, false, err
	}
	return n, lives, nil
}

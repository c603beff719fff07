package postgres

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/internal/sqllist"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

// EraseRows locks the states of what is folded before its rows.
func (s *Store) EraseRows(ctx context.Context, project mirror.ProjectID, table *store.PersonalTable, bucket int16,
	rows []store.ErasedRow, now time.Time,
) ([]mirror.Change, error) {
	var changes []mirror.Change
	var numbers []int64
	resources := table.FoldedResources(project, rows)
	err := s.itemTx(ctx, "erase rows of "+table.Name, func(t *transaction, q, _ *dbq.Queries) error {
		var known []mirror.Resource
		var plans []store.Plan
		for _, r := range resources {
			row, err := q.LockState(ctx, stateKey(r))
			if errors.Is(err, pgx.ErrNoRows) {
				continue
			}
			if err != nil {
				return err
			}
			known, plans = append(known, r), append(plans, store.Plan{State: stateOf(row).Release()})
		}
		for _, row := range rows {
			t.queue(sqllist.Numbered(sqllist.EraseRowSQL(table, row.Whole)), append([]any{bucket, string(project)},
				row.Key...)...)
		}
		changes = table.ErasureEntries(known, now)
		numbers = make([]int64, len(known))
		for i, r := range known {
			if len(changes) > 0 {
				plans[i].Change = changes[i].Kind
			}
			if _, err := t.later(&numbers[i]).WriteState(ctx, writeState(r, plans[i], now)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range changes {
		changes[i].Number = numbers[i]
	}
	return changes, nil
}

func deleteDeadSQL(table string, key []string) string {
	limit := "$" + strconv.Itoa(len(key)+1)
	return sqllist.Numbered("delete from "+table+"\nwhere ctid = any(array(\n    select ctid from "+table+
		"\n    where "+strings.Join(key, " = ? and ")+" = ? limit ") + limit + "::bigint\n))"
}

// EraseDead locks the room, so that it neither comes back nor is created anew meanwhile.
func (s *Store) EraseDead(ctx context.Context, r mirror.Resource, limit int) (n int, lives bool, err error) {
	err = s.itemTx(ctx, "erase what is deleted", func(t *transaction, _, _ *dbq.Queries) error {
		n, lives = 0, false
		var room store.RoomCopy
		var deleted pgtype.Timestamptz
		if err := t.QueryRow(ctx, sqllist.Numbered(sqllist.LockRoomSQL), r.Bucket(), string(r.Project), string(r.Room)).
			Scan(&room.Epoch, &deleted); err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		room.DeleteTime = timeOf(deleted)
		key := sqllist.DeadKey(r, func(id string) any { return id })
		var head store.DeadHead
		if r.Kind != mirror.KindRoom {
			err := t.QueryRow(ctx, sqllist.Numbered(sqllist.DeadHeadSQL(r.Kind)), key...).Scan(&head.Epoch, &head.Deleted)
			if head.Found = err == nil; err != nil && !errors.Is(err, pgx.ErrNoRows) {
				return err
			}
		}
		if lives = head.Lives(r.Kind, room); lives || limit == 0 {
			return nil
		}
		if r.Kind == mirror.KindRoom {
			tag, err := t.Exec(ctx, sqllist.Numbered(sqllist.BlankRoomSQL), key...)
			n = int(tag.RowsAffected())
			return err
		}
		tables, columns := store.DeadTables(r.Kind)
		for _, table := range tables {
			if n == limit {
				return nil
			}
			tag, err := t.Exec(ctx, deleteDeadSQL(table, columns), append(key, limit-n)...)
			if err != nil {
				return err
			}
			n += int(tag.RowsAffected())
		}
		return nil
	})
	if err != nil {
		return 0, false, err
	}
	return n, lives, nil
}

package postgres

import (
	"context"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/internal/sqllist"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

// emptyRoomSQL takes the JSON of rooms away.
const emptyRoomSQL = `update mirror_room
set source_json = '` + store.Purged + `', content_sha256 = sha256('` + store.Purged + `'), data = '` + store.Purged + `',
    data_problem = '', organization_id = '', terms_sha256 = null
`

// purgeSQL are the statements about what is left of a room, each of one table. Their
// parameters are its key and how many rows they may delete or empty.
var purgeSQL = purgeStatements()

type purgeStatement struct{ table, sql string }

func purgeStatements() (all []purgeStatement) {
	for _, table := range store.RoomTables {
		all = append(all, purgeStatement{table, sqllist.Numbered(lists.DeleteSome(table,
			"\nwhere bucket = ? and project_id = ? and room_id = ?"))})
	}
	return append(all, purgeStatement{"mirror_event", `update mirror_event
set payload = '` + store.Purged + `', user_id = ''
where $1::smallint is not null and ctid = any(array(
    select ctid from mirror_event
    where project_id = $2 and room_id = $3 and room_id <> '' and (payload <> '` + store.Purged + `' or user_id <> '')
        and outcome <> '` + string(mirror.OutcomeForeignProject) + `'
    limit $4::bigint
))`}, purgeStatement{"mirror_room", emptyRoomSQL + `where bucket = $1 and project_id = $2 and room_id = $3
    and source_json <> '` + store.Purged + `' and $4::bigint > 0`})
}

// PurgeRoom is one transaction.
func (s *Store) PurgeRoom(ctx context.Context, room mirror.Resource, before time.Time, limit int) (
	store.TableRows, error,
) {
	var purged store.TableRows
	err := s.itemTx(ctx, "purge room", func(t *transaction, q, later *dbq.Queries) error {
		purged = make(store.TableRows)
		err := sqllist.LockTombstone(ctx, listTx{t, q}, lists, room, before)
		if err == nil {
			err = later.UnmarkIndexed(ctx, dbq.UnmarkIndexedParams{
				Bucket: room.Bucket(), ProjectID: string(room.Project), RoomIds: []string{string(room.Room)},
			})
		}
		if err != nil {
			return err
		}
		left := int64(limit)
		for _, s := range purgeSQL {
			if left == 0 {
				break
			}
			tag, err := t.Exec(ctx, s.sql, room.Bucket(), string(room.Project), string(room.Room), left)
			if err != nil {
				return err
			}
			if n := tag.RowsAffected(); n > 0 {
				purged[s.table], left = n, left-n
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return purged, nil
}

// purgeProjectSQL are the statements about what a bucket has of a project. Their
// parameters are the bucket, the project and how many rows they may delete or empty.
var purgeProjectSQL = purgeProjectStatements()

func purgeProjectStatements() (all []string) {
	for _, table := range store.ProjectTables {
		all = append(all, sqllist.Numbered(lists.DeleteSome(table, "\nwhere bucket = ? and project_id = ?")))
	}
	return append(all, `update mirror_change
set project_id = '', room_id = '', resource_id = ''
where bucket = $1 and n = any(array(
    select n from mirror_change where bucket = $1 and project_id = $2 limit $3::bigint
))`)
}

// PurgeProject is one transaction.
func (s *Store) PurgeProject(ctx context.Context, project mirror.ProjectID, bucket int16, limit int) (int, error) {
	purged := 0
	err := s.itemTx(ctx, "purge project", func(t *transaction, _, _ *dbq.Queries) error {
		purged = 0
		for _, sql := range purgeProjectSQL {
			if purged == limit {
				break
			}
			tag, err := t.Exec(ctx, sql, bucket, string(project), limit-purged)
			if err != nil {
				return err
			}
			purged += int(tag.RowsAffected())
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return purged, nil
}

// ForgetProject is one transaction.
func (s *Store) ForgetProject(ctx context.Context, project mirror.ProjectID) error {
	return s.itemTx(ctx, "forget project", func(t *transaction, _, _ *dbq.Queries) error {
		for _, table := range store.ProjectRows {
			if _, err := t.Exec(ctx, "delete from "+table+" where project_id = $1", string(project)); err != nil {
				return err
			}
		}
		return nil
	})
}

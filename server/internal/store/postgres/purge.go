package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/internal/sqllist"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

// lockTombstoneSQL keeps a deleted room from coming back until the transaction ends.
const lockTombstoneSQL = `select delete_time from mirror_room
where bucket = $1 and project_id = $2 and room_id = $3 and delete_time < $4
for update`

var (
	waitingRoomSQL  = sqllist.Numbered(sqllist.WaitingRoomSQL)
	releaseFoldsSQL = sqllist.Numbered(sqllist.ReleaseFoldsSQL)
)

// emptyRoomSQL takes the JSON of rooms away.
const emptyRoomSQL = `update mirror_room
set source_json = '` + store.Purged + `', content_sha256 = sha256('` + store.Purged + `'), data = '` + store.Purged + `',
    data_problem = '', organization_id = '', terms_sha256 = null
`

// purgeSQL are the statements about what is left of a room. Their parameters are its key
// and how many rows they may delete or empty.
var purgeSQL = purgeStatements()

func purgeStatements() (all []string) {
	for _, table := range store.RoomTables {
		all = append(all, "delete from "+table+"\nwhere ctid = any(array(\n    select ctid from "+table+
			"\n    where bucket = $1 and project_id = $2 and room_id = $3 limit $4::bigint\n))")
	}
	return append(all, `update mirror_event
set payload = '`+store.Purged+`', user_id = ''
where $1::smallint is not null and ctid = any(array(
    select ctid from mirror_event
    where project_id = $2 and room_id = $3 and room_id <> '' and (payload <> '`+store.Purged+`' or user_id <> '')
        and outcome <> '`+string(mirror.OutcomeForeignProject)+`'
    limit $4::bigint
))`, emptyRoomSQL+`where bucket = $1 and project_id = $2 and room_id = $3 and source_json <> '`+store.Purged+`' and $4::bigint > 0`)
}

// PurgeRoom is one transaction.
func (s *Store) PurgeRoom(ctx context.Context, room mirror.Resource, before time.Time, limit int) (int, error) {
	purged := 0
	err := s.itemTx(ctx, "purge room", func(t *transaction, _, later *dbq.Queries) error {
		purged = 0
		bucket, project, id := room.Bucket(), string(room.Project), string(room.Room)
		// States are locked before rooms.
		var waits bool
		err := t.QueryRow(ctx, waitingRoomSQL, bucket, project, id).Scan(&waits)
		switch {
		case err != nil && !errors.Is(err, pgx.ErrNoRows):
			return err
		case waits:
			return store.ErrNotFound
		}
		if _, err := t.Exec(ctx, releaseFoldsSQL, bucket, project, id); err != nil {
			return err
		}
		var deleted time.Time
		err = t.QueryRow(ctx, lockTombstoneSQL, bucket, project, id, before).Scan(&deleted)
		if errors.Is(err, pgx.ErrNoRows) {
			return store.ErrNotFound // leases go on
		}
		if err == nil {
			err = later.UnmarkIndexed(ctx, dbq.UnmarkIndexedParams{Bucket: bucket, ProjectID: project, RoomIds: []string{id}})
		}
		for _, sql := range purgeSQL {
			if err != nil || purged == limit {
				break
			}
			tag, failed := t.Exec(ctx, sql, bucket, project, id, limit-purged)
			purged, err = purged+int(tag.RowsAffected()), failed
		}
		return err
	})
	switch {
	case errors.Is(err, store.ErrNotFound):
		return 0, nil
	case err != nil:
		return 0, err
	}
	return purged, nil
}

// purgeProjectSQL are the statements about what a bucket has of a project. Their
// parameters are the bucket, the project and how many rows they may delete or empty.
var purgeProjectSQL = purgeProjectStatements()

func purgeProjectStatements() (all []string) {
	for _, table := range store.ProjectTables {
		all = append(all, "delete from "+table+"\nwhere ctid = any(array(\n    select ctid from "+table+
			"\n    where bucket = $1 and project_id = $2 limit $3::bigint\n))")
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

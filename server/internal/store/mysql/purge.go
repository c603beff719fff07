package mysql

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/internal/sqllist"
)

const (
	// lockTombstoneSQL keeps a deleted room from coming back until the transaction ends.
	lockTombstoneSQL = `select delete_time from mirror_room
where bucket = ? and project_id = ? and room_id = ? and delete_time < ?
for update`
	// emptyRoom takes the JSON of rooms away. Its first parameter is purgedSum.
	emptyRoom = `update mirror_room
set source_json = '` + store.Purged + `', content_sha256 = ?, data = '` + store.Purged + `', data_problem = '',
    organization_id = '', terms_sha256 = null`
	purgeRoomSQL = emptyRoom + `
where bucket = ? and project_id = ? and room_id = ? and source_json <> '` + store.Purged + `'`
	// eventsOfRoomSQL finds events that are not empty yet. Those that a version before
	// schema 13 has recorded beside this one are in other buckets, but never in other
	// shards, which that version could not write to: there, eventsOfRoomInSQL finds them.
	eventsOfRoomSQL   = someEvents + eventsOfRoom
	eventsOfRoomInSQL = someEvents + `bucket = ? and ` + eventsOfRoom

	someEvents = `select bucket, event_id from mirror_event force index (mirror_event_by_room)
where `
	eventsOfRoom = `project_id = ? and room_id = ? and (payload <> '` + store.Purged + `' or user_id <> '') and outcome <> '` +
		string(mirror.OutcomeForeignProject) + `'
limit ?`
)

// purgedSum is the hash of the JSON of a room of which nothing is left.
func purgedSum() []byte {
	sum := sha256.Sum256([]byte(store.Purged))
	return sum[:]
}

func purgeTableSQL(table string) string {
	return "delete from " + table + "\nwhere bucket = ? and project_id = ? and room_id = ?\nlimit ?"
}

const (
	purgeProjectSQL   = " where bucket = ? and project_id = ? limit ?"
	forgetChangesSQL  = "update mirror_change set project_id = '', room_id = '', resource_id = ''" + purgeProjectSQL
	forgetProjectsSQL = " where project_id = ?"
)

func purgeEventsSQL(n int) string {
	return `update mirror_event
set payload = '` + store.Purged + `', user_id = ''
where (bucket, project_id, event_id) in (` + places(n, 3) + `)`
}

// PurgeRoom is one transaction.
func (s *Store) PurgeRoom(ctx context.Context, room mirror.Resource, before time.Time, limit int) (int, error) {
	purged := 0
	sharded, err := s.sharded(ctx)
	if err != nil {
		return 0, err
	}
	err = s.tx(ctx, "purge room", func(q *queries) error {
		purged = 0
		key := []any{room.Bucket(), rawKey(room.Project), rawKey(room.Room)}
		// States are locked before rooms.
		var waits bool
		err := q.db.QueryRowContext(ctx, sqllist.WaitingRoomSQL, key...).Scan(&waits)
		switch {
		case err != nil && !errors.Is(err, sql.ErrNoRows):
			return err
		case waits:
			return store.ErrNotFound
		}
		if _, err := q.exec(ctx, sqllist.ReleaseFoldsSQL, key...); err != nil {
			return err
		}
		var deleted time.Time
		err = q.db.QueryRowContext(ctx, lockTombstoneSQL, append(key, nullTime(before))...).Scan(&deleted)
		if errors.Is(err, sql.ErrNoRows) {
			return store.ErrNotFound // leases go on
		}
		if err != nil {
			return err
		}
		if _, err := q.exec(ctx, unmarkIndexedSQL(1), key...); err != nil {
			return err
		}
		run := func(text string, args ...any) error {
			result, err := q.db.ExecContext(ctx, text, args...)
			if err != nil {
				return err
			}
			n, err := result.RowsAffected()
			purged += int(n)
			return err
		}
		for _, table := range store.RoomTables {
			if purged == limit {
				return nil
			}
			if err := run(purgeTableSQL(table), append(key, limit-purged)...); err != nil {
				return err
			}
		}
		if purged == limit {
			return nil
		}
		events, err := q.eventsOfRoom(ctx, room, sharded, limit-purged)
		if err != nil {
			return err
		}
		if err := chunks(events, 3*maxKeys, func(keys []any) error {
			return run(purgeEventsSQL(len(keys)/3), keys...)
		}); err != nil || purged == limit {
			return err
		}
		return run(purgeRoomSQL, append([]any{purgedSum()}, key...)...)
	})
	switch {
	case errors.Is(err, store.ErrNotFound):
		return 0, nil
	case err != nil:
		return 0, err
	}
	return purged, nil
}

// eventsOfRoom returns the keys of at most limit events of a room, one after the other.
func (q *queries) eventsOfRoom(
	ctx context.Context, room mirror.Resource, sharded bool, limit int,
) (keys []any, err error) {
	text, args := eventsOfRoomSQL, []any{rawKey(room.Project), rawKey(room.Room), limit}
	if sharded {
		text, args = eventsOfRoomInSQL, append([]any{room.Bucket()}, args...)
	}
	rows, err := q.db.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var bucket int16
		var id []byte
		if err := rows.Scan(&bucket, &id); err != nil {
			return nil, err
		}
		keys = append(keys, bucket, rawKey(room.Project), id)
	}
	return keys, rows.Err()
}

// PurgeProject is one transaction.
func (s *Store) PurgeProject(ctx context.Context, project mirror.ProjectID, bucket int16, limit int) (int, error) {
	purged := 0
	err := s.tx(ctx, "purge project", func(q *queries) error {
		purged = 0
		run := func(text string) error {
			if purged == limit {
				return nil
			}
			result, err := q.db.ExecContext(ctx, text, bucket, rawKey(project), limit-purged)
			if err != nil {
				return err
			}
			n, err := result.RowsAffected()
			purged += int(n)
			return err
		}
		for _, table := range store.ProjectTables {
			if err := run("delete from " + table + purgeProjectSQL); err != nil {
				return err
			}
		}
		return run(forgetChangesSQL)
	})
	if err != nil {
		return 0, err
	}
	return purged, nil
}

// ForgetProject is one transaction.
func (s *Store) ForgetProject(ctx context.Context, project mirror.ProjectID) error {
	return s.tx(ctx, "forget project", func(q *queries) error {
		for _, table := range store.ProjectRows {
			if _, err := q.db.ExecContext(ctx, "delete from "+table+forgetProjectsSQL, rawKey(project)); err != nil {
				return err
			}
		}
		return nil
	})
}

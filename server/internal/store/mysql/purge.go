package mysql

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/internal/sqllist"
)

const (
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
	return lists.DeleteSome(table, "\nwhere bucket = ? and project_id = ? and room_id = ?")
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
func (s *Store) PurgeRoom(ctx context.Context, room mirror.Resource, before time.Time, limit int) (
	store.TableRows, error,
) {
	sharded, err := s.sharded(ctx)
	if err != nil {
		return nil, err
	}
	var purged store.TableRows
	err = s.tx(ctx, "purge room", func(q *queries) error {
		purged = make(store.TableRows)
		if err := sqllist.LockTombstone(ctx, listTx{q}, lists, room, before); err != nil {
			return err
		}
		key := []any{room.Bucket(), rawKey(room.Project), rawKey(room.Room)}
		if _, err := q.exec(ctx, unmarkIndexedSQL(1), key...); err != nil {
			return err
		}
		left := limit
		run := func(table, text string, args ...any) error {
			n, err := q.exec(ctx, text, args...)
			if n > 0 {
				purged[table] += n
			}
			left -= int(n)
			return err
		}
		for _, table := range store.RoomTables {
			if left == 0 {
				return nil
			}
			if err := run(table, purgeTableSQL(table), append(key, left)...); err != nil {
				return err
			}
		}
		if left == 0 {
			return nil
		}
		events, err := q.eventsOfRoom(ctx, room, sharded, left)
		if err != nil {
			return err
		}
		if err := chunks(events, 3*maxKeys, func(keys []any) error {
			return run("mirror_event", purgeEventsSQL(len(keys)/3), keys...)
		}); err != nil || left == 0 {
			return err
		}
		return run("mirror_room", purgeRoomSQL, append([]any{purgedSum()}, key...)...)
	})
	if err != nil {
		return nil, err
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

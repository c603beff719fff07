package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

// writeTerms writes the terms of a room, whose row the transaction has locked or written.
func writeTerms(ctx context.Context, q *dbq.Queries, room mirror.Resource, source []byte, created time.Time) error {
	terms := store.RoomTermHashes(source)
	arg := dbq.UpsertRoomTermsParams{
		Bucket: room.Bucket(), ProjectID: string(room.Project), RoomID: string(room.Room), Terms: terms,
		CreateTime: nullTime(store.ListTime(created)),
	}
	return errors.Join(q.DeleteRoomTerms(ctx, dbq.DeleteRoomTermsParams{
		Bucket: arg.Bucket, ProjectID: arg.ProjectID, RoomID: arg.RoomID, Terms: terms,
	}), q.UpsertRoomTerms(ctx, arg))
}

// unindexed is the key of a room or thread that is to be indexed.
type unindexed struct {
	bucket                int16
	project, room, thread string
}

// index is one transaction about rows of one project in one bucket. find returns their keys
// in order, and write locks rows in that order and writes the terms of those that are still
// to be indexed.
func (s *Store) index(ctx context.Context, what string, find func(q *dbq.Queries) ([]unindexed, error),
	write func(q, later *dbq.Queries, bucket int16, project string, rooms, threads []string) error,
) (n int, err error) {
	err = s.tx(ctx, what, func(q, later *dbq.Queries) error {
		all, err := find(q)
		n = 0
		if err != nil || len(all) == 0 {
			return err
		}
		var rooms, threads []string
		for _, key := range all {
			if key.bucket == all[0].bucket && key.project == all[0].project {
				rooms, threads = append(rooms, key.room), append(threads, key.thread)
			}
		}
		n = len(rooms)
		return write(q, later, all[0].bucket, all[0].project, rooms, threads)
	})
	return n, err
}

// IndexRooms locks rooms in one statement.
func (s *Store) IndexRooms(ctx context.Context, limit int) (int, error) {
	return s.index(ctx, "index rooms", func(q *dbq.Queries) (keys []unindexed, err error) {
		rows, err := q.UnindexedRooms(ctx, int32(limit)) //nolint:gosec // a small constant of the caller
		for _, row := range rows {
			keys = append(keys, unindexed{bucket: row.Bucket, project: row.ProjectID, room: row.RoomID})
		}
		return keys, err
	}, func(q, later *dbq.Queries, bucket int16, project string, ids, _ []string) error {
		rooms, err := q.LockUnindexedRooms(ctx, dbq.LockUnindexedRoomsParams{
			Bucket: bucket, ProjectID: project, RoomIds: ids,
		})
		if err != nil {
			return err
		}
		ids = nil
		for _, row := range rooms {
			room := mirror.Resource{Project: mirror.ProjectID(project), Room: mirror.RoomID(row.RoomID)}
			if err := writeTerms(ctx, later, room, row.SourceJson, timeOf(row.CreateTime)); err != nil {
				return err
			}
			ids = append(ids, row.RoomID)
		}
		return later.MarkRoomsIndexed(ctx, dbq.MarkRoomsIndexedParams{Bucket: bucket, ProjectID: project, RoomIds: ids})
	})
}

// IndexThreads deletes what terms they have, which are few, and inserts theirs.
func (s *Store) IndexThreads(ctx context.Context, limit int) (int, error) {
	return s.index(ctx, "index threads", func(q *dbq.Queries) (keys []unindexed, err error) {
		rows, err := q.UnindexedThreads(ctx, int32(limit)) //nolint:gosec // a small constant of the caller
		for _, row := range rows {
			keys = append(keys, unindexed{row.Bucket, row.ProjectID, row.RoomID, row.ThreadID})
		}
		return keys, err
	}, func(q, later *dbq.Queries, bucket int16, project string, rooms, threads []string) error {
		locked, err := q.LockUnindexedThreads(ctx, dbq.LockUnindexedThreadsParams{
			Bucket: bucket, ProjectID: project, RoomIds: rooms, ThreadIds: threads,
		})
		if err != nil {
			return err
		}
		of := dbq.MarkThreadsIndexedParams{Bucket: bucket, ProjectID: project}
		terms := dbq.InsertThreadTermsParams{Bucket: bucket, ProjectID: project}
		for _, row := range locked {
			of.RoomIds, of.ThreadIds = append(of.RoomIds, row.RoomID), append(of.ThreadIds, row.ThreadID)
			for _, term := range store.ThreadTerms(row.MetadataText) {
				terms.RoomIds, terms.ThreadIds = append(terms.RoomIds, row.RoomID), append(terms.ThreadIds, row.ThreadID)
				terms.Terms = append(terms.Terms, term)
			}
		}
		return errors.Join(later.DeleteThreadTerms(ctx, dbq.DeleteThreadTermsParams(of)),
			later.InsertThreadTerms(ctx, terms), later.MarkThreadsIndexed(ctx, of))
	})
}

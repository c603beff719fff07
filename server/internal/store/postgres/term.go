package postgres

import (
	"context"
	"errors"
	"slices"
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

// IndexRooms is one transaction about rooms of one project in one bucket, which it locks in
// the order of their keys.
func (s *Store) IndexRooms(ctx context.Context, limit int) (int, error) {
	n := 0
	err := s.tx(ctx, "index rooms", func(q, later *dbq.Queries) error {
		rows, err := q.UnindexedRooms(ctx, int32(limit)) //nolint:gosec // a small constant of the caller
		if n = 0; err != nil || len(rows) == 0 {
			return err
		}
		bucket, project := rows[0].Bucket, rows[0].ProjectID
		var ids []string
		for _, row := range rows {
			if row.Bucket == bucket && row.ProjectID == project {
				ids = append(ids, row.RoomID)
			}
		}
		n = len(ids)
		rooms, err := q.LockUnindexedRooms(ctx, dbq.LockUnindexedRoomsParams{
			Bucket: bucket, ProjectID: project, RoomIds: ids,
		})
		if err != nil {
			return err
		}
		ids = slices.Clip(ids[:0])
		for _, row := range rooms {
			room := mirror.Resource{Project: mirror.ProjectID(project), Room: mirror.RoomID(row.RoomID)}
			if err := writeTerms(ctx, later, room, row.SourceJson, timeOf(row.CreateTime)); err != nil {
				return err
			}
			ids = append(ids, row.RoomID)
		}
		return later.MarkRoomsIndexed(ctx, dbq.MarkRoomsIndexedParams{Bucket: bucket, ProjectID: project, RoomIds: ids})
	})
	return n, err
}

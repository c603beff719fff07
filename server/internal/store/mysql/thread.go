package mysql

import (
	"context"
	"database/sql"
	"errors"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql/dbq"
)

// cleanThreads deletes at most limit threads of epochs before the given one, each
// with everything in it and in transactions of its own.
func (s *Store) cleanThreads(ctx context.Context, room mirror.Resource, epoch int64, limit int) (n int, err error) {
	ids, err := s.q.OldThreads(ctx, dbq.OldThreadsParams{
		Bucket: room.Bucket(), ProjectID: rawKey(room.Project), RoomID: rawKey(room.Room), Epoch: epoch,
		Limit: int32(limit), //nolint:gosec // a small constant of the caller
	})
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		gone, err := s.cleanThread(ctx, room, epoch, id)
		if err != nil {
			return n, err
		}
		if gone {
			n++
		}
	}
	return n, nil
}

// cleanThread deletes a thread of an epoch before the given one, with the thread's own
// row last. It reports false if a new incarnation has overwritten it.
func (s *Store) cleanThread(ctx context.Context, room mirror.Resource, epoch int64, id []byte) (gone bool, err error) {
	of := items[mirror.KindThread]
	thread := dbq.DeleteThreadParams{
		Bucket: room.Bucket(), ProjectID: rawKey(room.Project), RoomID: rawKey(room.Room), ThreadID: id,
	}
	for more := true; more && err == nil; {
		err = s.tx(ctx, "clean thread", func(q *queries) error {
			gone, more = false, false
			_, err := q.LockOldThread(ctx, dbq.LockOldThreadParams{
				Bucket: thread.Bucket, ProjectID: thread.ProjectID, RoomID: thread.RoomID, ThreadID: id, Epoch: epoch,
			})
			if errors.Is(err, sql.ErrNoRows) {
				return nil
			}
			left := int64(q.piece)
			for p := range of.parts {
				if err != nil {
					return err
				}
				var n int64
				n, err = q.exec(ctx, of.deleteAllSQL(p), of.scope(room, id, left)...)
				if left -= n; left == 0 {
					more = true
					return err
				}
			}
			if err != nil {
				return err
			}
			gone = true
			return q.DeleteThread(ctx, thread)
		})
	}
	return gone, err
}

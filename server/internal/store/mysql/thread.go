package mysql

import (
	"context"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql/dbq"
)

// cleanThreads deletes at most limit threads of epochs before the given one, each
// with everything in it and in its own transaction.
func (s *Store) cleanThreads(ctx context.Context, room mirror.Resource, epoch int64, limit int) (n int, err error) {
	ids, err := s.q.OldThreads(ctx, dbq.OldThreadsParams{
		Bucket: room.Bucket(), ProjectID: rawKey(room.Project), RoomID: rawKey(room.Room), Epoch: epoch,
		Limit: int32(limit), //nolint:gosec // a small constant of the caller
	})
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		var gone int64
		err := s.tx(ctx, "clean thread", func(q *queries) error {
			gone, err = q.CleanThread(ctx, dbq.CleanThreadParams{
				Bucket: room.Bucket(), ProjectID: rawKey(room.Project), RoomID: rawKey(room.Room), ThreadID: id, Epoch: epoch,
			})
			if err != nil || gone == 0 {
				return err // a new incarnation has overwritten it
			}
			of := items[mirror.KindThread]
			for p := range of.parts {
				if _, err := q.db.ExecContext(ctx, of.deleteAllSQL(p), of.scope(room, id)...); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return n, err
		}
		n += int(gone)
	}
	return n, nil
}

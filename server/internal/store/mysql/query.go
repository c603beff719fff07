package mysql

import (
	"context"
	"fmt"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql/dbq"
)

// Changes reads one bucket's entries.
func (s *Store) Changes(ctx context.Context, bucket int16, after int64, limit int) ([]mirror.Change, error) {
	rows, err := newQueries(s.reading, s.piece).Changes(ctx,
		dbq.ChangesParams{Bucket: bucket, After: after, Limit: int32(limit)}) //nolint:gosec // bounded by the caller
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("list changes: %w", err))
	}
	out := make([]mirror.Change, 0, len(rows))
	for _, row := range rows {
		out = append(out, mirror.Change{
			Bucket: row.Bucket,
			Number: row.N,
			Resource: mirror.Resource{
				Project: mirror.ProjectID(row.ProjectID), Room: mirror.RoomID(row.RoomID), Kind: mirror.Kind(row.Kind),
				ID: string(row.ResourceID),
			},
			Kind:       mirror.ChangeKind(row.ChangeKind),
			CommitTime: row.CommitTime.UTC(),
		})
	}
	return store.WithoutGaps(after, out), nil
}

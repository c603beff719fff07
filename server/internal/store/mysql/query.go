package mysql

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql/dbq"
)

// Counts counts in the indexes by due and by fail time.
func (s *Store) Counts(ctx context.Context, project mirror.ProjectID) (store.Counts, error) {
	rows, errPending := newQueries(s.reading).CountPending(ctx, rawKey(project))
	rooms, errRooms := newQueries(s.reading).CountBackgroundRooms(ctx, dbq.CountBackgroundRoomsParams{
		ProjectID: rawKey(project), Kind: int16(mirror.KindRoom),
	})
	failed, errFailed := newQueries(s.reading).CountFailed(ctx, rawKey(project))
	if err := errors.Join(errPending, errRooms, errFailed); err != nil {
		return store.Counts{}, classify(ctx, fmt.Errorf("count tasks: %w", err))
	}
	counts := store.Counts{Failed: failed, BackgroundRooms: rooms}
	for _, row := range rows {
		counts.Pending += row.N
		if row.Background {
			counts.Background = row.N
		}
		if oldest, _ := row.Oldest.(time.Time); counts.OldestDue.IsZero() || oldest.Before(counts.OldestDue) {
			counts.OldestDue = oldest.UTC()
		}
	}
	return counts, nil
}

// Changes reads one bucket's entries.
func (s *Store) Changes(ctx context.Context, bucket int16, after int64, limit int) ([]mirror.Change, error) {
	rows, err := newQueries(s.reading).Changes(ctx,
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
	return out, nil
}

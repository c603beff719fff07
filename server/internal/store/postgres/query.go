package postgres

import (
	"context"
	"fmt"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

// Heads reads the row of each bucket.
func (s *Store) Heads(ctx context.Context) (mirror.Position, error) {
	var position mirror.Position
	rows, err := dbq.New(s.names.on(s.reading)).Heads(ctx)
	for _, row := range rows {
		position[row.Bucket] = row.N
	}
	if err != nil {
		return mirror.Position{}, classify(ctx, fmt.Errorf("read the heads of the feed: %w", err))
	}
	return position, nil
}

// Earliest reads the first key of each bucket. That of an entry whose predecessor is not
// visible yet is not the first: it is after the head that was read before.
func (s *Store) Earliest(ctx context.Context) (mirror.Position, error) {
	position, err := s.Heads(ctx)
	if err != nil {
		return position, err
	}
	rows, err := dbq.New(s.names.on(s.reading)).Earliest(ctx)
	for _, row := range rows {
		position[row.Bucket] = min(position[row.Bucket], row.Before)
	}
	if err != nil {
		return mirror.Position{}, classify(ctx, fmt.Errorf("read where the feed begins: %w", err))
	}
	return position, nil
}

// Changes reads all ranges with one statement.
func (s *Store) Changes(ctx context.Context, ranges []store.ChangeRange) ([]mirror.Change, error) {
	if len(ranges) == 0 {
		return nil, nil
	}
	var arg dbq.ChangesParams
	for _, r := range ranges {
		arg.Bucket, arg.AfterN, arg.ToN = append(arg.Bucket, r.Bucket), append(arg.AfterN, r.After), append(arg.ToN, r.To)
	}
	rows, err := dbq.New(s.names.on(s.reading)).Changes(ctx, arg)
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("read changes: %w", err))
	}
	out := make([]mirror.Change, len(rows))
	for i, row := range rows {
		out[i] = mirror.Change{
			Bucket: row.Bucket,
			Number: row.N,
			Resource: mirror.Resource{
				Project: mirror.ProjectID(row.ProjectID), Room: mirror.RoomID(row.RoomID), Kind: mirror.Kind(row.Kind),
				ID: row.ResourceID,
			},
			Kind:       mirror.ChangeKind(row.ChangeKind),
			Epoch:      row.Epoch,
			CommitTime: timeOf(row.CommitTime),
		}
	}
	return out, nil
}

// Trim is one statement.
func (s *Store) Trim(ctx context.Context, bucket int16, through int64, limit int) (int, error) {
	var n int64
	err := retry(ctx, func() (err error) {
		n, err = s.q.TrimChanges(ctx, dbq.TrimChangesParams{
			Bucket: bucket, Through: through, MaxRows: int32(limit), //nolint:gosec // bounded by the caller
		})
		return err
	})
	if err != nil {
		return 0, classify(ctx, fmt.Errorf("trim changes: %w", err))
	}
	return int(n), nil
}

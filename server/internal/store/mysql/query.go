package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql/dbq"
)

// Heads reads the row of each bucket that has changes.
func (s *Store) Heads(ctx context.Context) (mirror.Position, error) {
	var position mirror.Position
	rows, err := newQueries(s.reading, s.piece).Heads(ctx, mirror.Buckets)
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
	rows, err := newQueries(s.reading, s.piece).Earliest(ctx, mirror.Buckets)
	for _, row := range rows {
		position[row.Bucket] = min(position[row.Bucket], row.BeforeN)
	}
	if err != nil {
		return mirror.Position{}, classify(ctx, fmt.Errorf("read where the feed begins: %w", err))
	}
	return position, nil
}

// changesSQL reads n ranges. That the buckets are named apart tells Vitess the shards.
func changesSQL(n int) string {
	return `select bucket, n, project_id, room_id, kind, resource_id, change_kind, epoch, commit_time
from mirror_change
where bucket in (` + repeat("?", n) + `)
    and (` + strings.Repeat("bucket = ? and n > ? and n <= ? or ", n-1) + `bucket = ? and n > ? and n <= ?)
order by bucket, n
limit ?`
}

func changesArgs(ranges []store.ChangeRange) []any {
	var args, conditions []any
	most := int64(0)
	for _, r := range ranges {
		args = append(args, r.Bucket)
		conditions = append(conditions, r.Bucket, r.After, r.To)
		most += r.To - r.After
	}
	return append(slices.Concat(args, conditions), most)
}

// Changes reads all ranges with one statement.
func (s *Store) Changes(ctx context.Context, ranges []store.ChangeRange) ([]mirror.Change, error) {
	if len(ranges) == 0 {
		return nil, nil
	}
	var out []mirror.Change
	err := newQueries(s.reading, s.piece).query(ctx, changesSQL(len(ranges)), changesArgs(ranges),
		func(rows *sql.Rows) error {
			var c mirror.Change
			err := rows.Scan(&c.Bucket, &c.Number, &c.Resource.Project, &c.Resource.Room, &c.Resource.Kind, &c.Resource.ID,
				&c.Kind, &c.Epoch, &c.CommitTime)
			c.CommitTime = c.CommitTime.UTC()
			out = append(out, c)
			return err
		})
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("read changes: %w", err))
	}
	return out, nil
}

// Trim is one statement.
func (s *Store) Trim(ctx context.Context, bucket int16, through int64, limit int) (int, error) {
	var n int64
	err := retry(ctx, func() (err error) {
		n, err = s.q.TrimChanges(ctx,
			dbq.TrimChangesParams{Bucket: bucket, N: through, Limit: int32(limit)}) //nolint:gosec // bounded by the caller
		return err
	})
	if err != nil {
		return 0, classify(ctx, fmt.Errorf("trim changes: %w", err))
	}
	return int(n), nil
}

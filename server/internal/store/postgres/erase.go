package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/internal/sqllist"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

// listTx is a transaction for statements of package sqllist.
type listTx struct {
	t *transaction
	q *dbq.Queries
}

func (tx listTx) Exec(ctx context.Context, text string, args ...any) (int64, error) {
	tag, err := tx.t.Exec(ctx, sqllist.Numbered(text), args...)
	return tag.RowsAffected(), err
}

func (tx listTx) Later(_ context.Context, text string, args ...any) error {
	tx.t.queue(sqllist.Numbered(text), args...)
	return nil
}

func (tx listTx) Get(ctx context.Context, text string, args []any, dest ...any) error {
	return found(tx.t.QueryRow(ctx, sqllist.Numbered(text), args...).Scan(dest...))
}

func (tx listTx) LockState(ctx context.Context, r mirror.Resource) (store.State, error) {
	row, err := tx.q.LockState(ctx, stateKey(r))
	return stateOf(row), found(err)
}

// found returns store.ErrNotFound if there was no row.
func found(err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return store.ErrNotFound
	}
	return err
}

// EraseRows is one transaction.
func (s *Store) EraseRows(ctx context.Context, project mirror.ProjectID, table *store.PersonalTable, bucket int16,
	keys [][]any, subject store.Subject, dryRun bool, now time.Time,
) (store.Erased, error) {
	var out store.Erased
	var numbers []int64
	err := s.itemTx(ctx, "erase rows of "+table.Name, func(t *transaction, q, _ *dbq.Queries) error {
		erased, released, err := s.EraseIn(ctx, listTx{t, q}, project, table, bucket, keys, subject, dryRun, now)
		if err != nil {
			return err
		}
		out, numbers = erased, make([]int64, len(released))
		for i, r := range released {
			plan := store.Plan{State: r.State}
			if len(out.Changes) > 0 {
				plan.Change = out.Changes[i].Kind
			}
			if _, err := t.later(&numbers[i]).WriteState(ctx, writeState(r.Resource, plan, now)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return store.Erased{}, err
	}
	for i := range out.Changes {
		out.Changes[i].Number = numbers[i]
	}
	return out, nil
}

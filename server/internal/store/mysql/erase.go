package mysql

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// listTx is a transaction for statements of package sqllist.
type listTx struct{ q *queries }

func (tx listTx) Exec(ctx context.Context, text string, args ...any) (int64, error) {
	return tx.q.exec(ctx, text, args...)
}

func (tx listTx) Later(ctx context.Context, text string, args ...any) error {
	_, err := tx.q.exec(ctx, text, args...)
	return err
}

func (tx listTx) Get(ctx context.Context, text string, args []any, dest ...any) error {
	return found(tx.q.db.QueryRowContext(ctx, text, args...).Scan(dest...))
}

func (tx listTx) LockState(ctx context.Context, r mirror.Resource) (store.State, error) {
	row, err := tx.q.LockState(ctx, lockParams(r))
	return stateOf(row), found(err)
}

// found returns store.ErrNotFound if there was no row.
func found(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return store.ErrNotFound
	}
	return err
}

// EraseRows is one transaction.
func (s *Store) EraseRows(ctx context.Context, project mirror.ProjectID, table *store.PersonalTable, bucket int16,
	keys [][]any, subject store.Subject, dryRun bool, now time.Time,
) (store.Erased, error) {
	var out store.Erased
	err := s.tx(ctx, "erase rows of "+table.Name, func(q *queries) error {
		erased, released, err := s.EraseIn(ctx, listTx{q}, project, table, bucket, keys, subject, dryRun, now)
		if err != nil {
			return err
		}
		out = erased
		if err := q.announce(ctx, out.Changes); err != nil {
			return err
		}
		for i, r := range released {
			revision := int64(0)
			if len(out.Changes) > 0 {
				revision = out.Changes[i].Number
			}
			if err := q.WriteState(ctx, writeState(r.Resource, r.State, revision)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return store.Erased{}, err
	}
	return out, nil
}

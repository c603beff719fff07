package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

// tx runs f in a transaction, again from the start after transient failures, and
// classifies other errors. f must not keep state across runs.
//
// Statements through q are executed immediately. Statements through later are sent
// with the next use of q or with the commit, and fail there. So a transaction that
// locks, decides and writes takes two round trips.
func (s *Store) tx(ctx context.Context, what string, f func(q, later *dbq.Queries) error) error {
	return s.itemTx(ctx, what, func(_ *transaction, q, later *dbq.Queries) error { return f(q, later) })
}

// itemTx is tx for statements that are not sqlc's.
func (s *Store) itemTx(ctx context.Context, what string,
	f func(t *transaction, q, later *dbq.Queries) error,
) error {
	if err := retry(ctx, func() error { return s.tryTx(ctx, f) }); err != nil {
		return classify(ctx, fmt.Errorf("%s: %w", what, err))
	}
	return nil
}

func (s *Store) tryTx(ctx context.Context, f func(t *transaction, q, later *dbq.Queries) error) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release() // also closes the session if the transaction is still open
	t := &transaction{conn: conn.Conn(), names: s.names, waiting: &pgx.Batch{}}
	t.waiting.Queue("begin isolation level read committed")
	var tag pgconn.CommandTag
	if err = f(t, dbq.New(t), dbq.New(deferred{t})); err == nil {
		tag, err = t.Exec(ctx, "commit")
	}
	switch {
	case err != nil && t.conn.PgConn().TxStatus() != 'I':
		_, _ = t.conn.Exec(ctx, "rollback") // err is the cause
	case err == nil && tag.String() != "COMMIT":
		err = pgx.ErrTxCommitRollback
	}
	return err
}

// transaction defers statements until one must be executed, and sends them
// together.
type transaction struct {
	conn    *pgx.Conn
	names   *names
	waiting *pgx.Batch
	// reads read the first row of some of the statements that wait, by place.
	reads map[int]func(pgx.Row) error
}

// ahead sends a query with the next statement and calls read with its first row.
func (t *transaction) ahead(sql string, args []any, read func(pgx.Row) error) {
	if t.reads == nil {
		t.reads = make(map[int]func(pgx.Row) error)
	}
	t.reads[t.waiting.Len()] = read
	t.queue(sql, args...)
}

// later defers one query of sqlc's that returns a number, which is in n once the query has
// been sent.
func (t *transaction) later(n *int64) *dbq.Queries { return dbq.New(deferredRow{deferred{t}, n}) }

// queue defers a statement.
func (t *transaction) queue(sql string, args ...any) { t.waiting.Queue(t.names.in(sql), args...) }

// send sends the deferred statements and then sql, and reads all results except
// that of sql.
func (t *transaction) send(ctx context.Context, sql string, args []any) (pgx.BatchResults, error) {
	b, reads := t.waiting, t.reads
	t.waiting, t.reads = &pgx.Batch{}, nil
	b.Queue(t.names.in(sql), args...)
	results := t.conn.SendBatch(ctx, b)
	for i := range b.Len() - 1 {
		var err error
		if read := reads[i]; read != nil {
			err = read(results.QueryRow())
		} else {
			_, err = results.Exec()
		}
		if err != nil {
			_ = results.Close() // says the same
			return nil, err
		}
	}
	return results, nil
}

// Exec is for sqlc's code.
func (t *transaction) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	results, err := t.send(ctx, sql, args)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	tag, err := results.Exec()
	return tag, errors.Join(err, results.Close())
}

// Query is for sqlc's code.
func (t *transaction) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	results, err := t.send(ctx, sql, args)
	if err != nil {
		return nil, err
	}
	rows, err := results.Query()
	if err != nil {
		_ = results.Close() // says the same
		return nil, err
	}
	return lastRows{rows, results}, nil
}

// QueryRow is for sqlc's code.
func (t *transaction) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	rows, err := t.Query(ctx, sql, args...)
	return oneRow{rows, err}
}

// lastRows are the rows of the last statement sent.
type lastRows struct {
	pgx.Rows
	results pgx.BatchResults
}

func (r lastRows) Close() {
	r.Rows.Close()
	_ = r.results.Close() // a broken session fails the next statement, at the latest the commit
}

// oneRow is the first row of a result.
type oneRow struct {
	rows pgx.Rows
	err  error
}

func (r oneRow) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	_, err := pgx.CollectOneRow(r.rows, func(row pgx.CollectableRow) (struct{}, error) {
		return struct{}{},
			row.Scan(dest...)
	})
	return err
}

// deferred defers statements. Their results are not read.
type deferred struct{ t *transaction }

func (d deferred) Exec(_ context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	d.t.queue(sql, args...)
	return pgconn.CommandTag{}, nil
}

func (d deferred) Query(_ context.Context, sql string, args ...any) (pgx.Rows, error) {
	d.t.queue(sql, args...)
	return noRows{}, nil
}

func (d deferred) QueryRow(_ context.Context, sql string, args ...any) pgx.Row {
	d.t.queue(sql, args...)
	return noRow{}
}

// deferredRow defers a query and then reads its row.
type deferredRow struct {
	deferred

	n *int64
}

func (d deferredRow) QueryRow(_ context.Context, sql string, args ...any) pgx.Row {
	d.t.ahead(sql, args, func(row pgx.Row) error { return row.Scan(d.n) })
	return noRow{}
}

// noRows are the rows of a deferred statement.
type noRows struct{ pgx.Rows }

func (noRows) Close()     {}
func (noRows) Err() error { return nil }
func (noRows) Next() bool { return false }

// noRow is the row of a deferred statement.
type noRow struct{}

func (noRow) Scan(...any) error { return nil }

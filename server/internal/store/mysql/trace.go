package mysql

import (
	"context"
	"database/sql/driver"
	"errors"
	"strconv"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/tracing"
)

// begin begins the span of a statement, if something is traced.
func begin(ctx context.Context, text string) (context.Context, tracing.Span) {
	if !tracing.From(ctx).On() {
		return ctx, tracing.Span{}
	}
	ctx, span := tracing.BeginCall(ctx, store.StatementName(text))
	span.Set("db.system.name", "mysql")
	return ctx, span
}

// end ends it. Errors may quote values, so it has their number alone.
func end(span tracing.Span, err error) {
	switch {
	case err == nil, errors.Is(err, driver.ErrSkip): // then package sql goes another way
	case number(err) != 0:
		span.Fail(strconv.Itoa(int(number(err))))
	default:
		span.Fail("no_answer")
	}
	span.End(nil)
}

// BeginTx begins a transaction, whose commit is in the trace of ctx.
func (s *session) BeginTx(ctx context.Context, options driver.TxOptions) (driver.Tx, error) {
	outer := ctx
	ctx, span := begin(ctx, "begin")
	tx, err := s.serverConn.BeginTx(ctx, options)
	end(span, err)
	if err != nil || !span.On() {
		return tx, err
	}
	return tracedTx{tx, outer}, nil
}

type tracedTx struct {
	driver.Tx

	ctx context.Context //nolint:containedctx // Commit has none
}

// Commit commits the transaction.
func (t tracedTx) Commit() error {
	_, span := begin(t.ctx, "commit")
	err := t.Tx.Commit()
	end(span, err)
	return err
}

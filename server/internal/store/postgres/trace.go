package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/tracing"
)

// tracer gives each statement a span: statements that are sent together have one, named
// after the last, which is that the caller waits for. The driver's errors may quote values,
// so a span has their code alone.
type tracer struct{}

var (
	_ pgx.QueryTracer   = tracer{}
	_ pgx.BatchTracer   = tracer{}
	_ pgx.ConnectTracer = tracer{}
)

type spanKey struct{}

func begin(ctx context.Context, sql string) context.Context {
	if !tracing.From(ctx).On() {
		return ctx
	}
	ctx, span := tracing.BeginCall(ctx, store.StatementName(sql))
	span.Set("db.system.name", "postgresql")
	return context.WithValue(ctx, spanKey{}, span)
}

func end(ctx context.Context, err error) {
	span, _ := ctx.Value(spanKey{}).(tracing.Span)
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		span.Fail(pg.Code)
	} else if err != nil {
		span.Fail("no_answer")
	}
	span.End(nil)
}

// TraceQueryStart is part of [pgx.QueryTracer].
func (tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	return begin(ctx, data.SQL)
}

// TraceQueryEnd is part of [pgx.QueryTracer].
func (tracer) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	end(ctx, data.Err)
}

// TraceBatchStart is part of [pgx.BatchTracer].
func (tracer) TraceBatchStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	statements := data.Batch.QueuedQueries
	return begin(ctx, statements[len(statements)-1].SQL)
}

// TraceBatchQuery is part of [pgx.BatchTracer].
func (tracer) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

// TraceBatchEnd is part of [pgx.BatchTracer].
func (tracer) TraceBatchEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchEndData) {
	end(ctx, data.Err)
}

// TraceConnectStart is part of [pgx.ConnectTracer].
func (tracer) TraceConnectStart(ctx context.Context, _ pgx.TraceConnectStartData) context.Context {
	return begin(ctx, "connect")
}

// TraceConnectEnd is part of [pgx.ConnectTracer].
func (tracer) TraceConnectEnd(ctx context.Context, data pgx.TraceConnectEndData) { end(ctx, data.Err) }

package postgres

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
)

type anyKey struct{}

// Statements outside of a trace allocate nothing for it.
func TestTracerOffCostsNothing(t *testing.T) { //nolint:paralleltest // it counts allocations
	ctx, sql, args := context.WithValue(t.Context(), anyKey{}, 1), "-- name: MarkStale :many\nselect $1", []any{1}
	batch := &pgx.Batch{}
	batch.Queue(sql, args...)
	var c pgx.QueryTracer = tracer{}
	var b pgx.BatchTracer = tracer{}
	if n := testing.AllocsPerRun(1000, func() {
		ctx := c.TraceQueryStart(ctx, nil, pgx.TraceQueryStartData{SQL: sql, Args: args})
		c.TraceQueryEnd(ctx, nil, pgx.TraceQueryEndData{})
		ctx = b.TraceBatchStart(ctx, nil, pgx.TraceBatchStartData{Batch: batch})
		b.TraceBatchEnd(ctx, nil, pgx.TraceBatchEndData{})
	}); n != 0 {
		t.Errorf("%v allocations for each statement; want none", n)
	}
}

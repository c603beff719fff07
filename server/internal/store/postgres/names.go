package postgres

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

// names puts our tables in the texts of statements into a schema. A search path could do
// so too, but a pooler in transaction mode keeps none, and that of a role holds for its
// other clients as well. nil leaves tables to the search path.
type names struct {
	qualify *strings.Replacer
	// known are the texts that have been sent, up to maxKnown: nearly all are constants.
	known sync.Map
	count atomic.Int64
}

const maxKnown = 1000

// namesIn returns the names of tables in a schema, or nil if it is empty.
func namesIn(schema string) *names {
	if schema == "" {
		return nil
	}
	// Names of tables are the only words of ours that begin so, and none is in quotes.
	const prefix = "mirror_"
	full := pgx.Identifier{schema}.Sanitize() + "." + prefix
	var pairs []string
	for _, before := range []string{" ", "\n", "("} {
		pairs = append(pairs, before+prefix, before+full)
	}
	return &names{qualify: strings.NewReplacer(pairs...)}
}

// in returns the text of a statement as it is sent.
func (n *names) in(text string) string {
	if n == nil {
		return text
	}
	if known, ok := n.known.Load(text); ok {
		text, _ = known.(string) // nothing else is stored
		return text
	}
	full := n.qualify.Replace(text)
	if n.count.Add(1) <= maxKnown {
		n.known.Store(text, full)
	}
	return full
}

// on returns what runs statements on db.
func (n *names) on(db dbq.DBTX) dbq.DBTX {
	if n == nil {
		return db
	}
	return namedDB{db, n}
}

type namedDB struct {
	db    dbq.DBTX
	names *names
}

func (d namedDB) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return d.db.Exec(ctx, d.names.in(sql), args...)
}

func (d namedDB) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return d.db.Query(ctx, d.names.in(sql), args...)
}

func (d namedDB) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return d.db.QueryRow(ctx, d.names.in(sql), args...)
}

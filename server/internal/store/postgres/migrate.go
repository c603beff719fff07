package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// schemaTable is where the applied migrations are counted.
const schemaTable = "mirror_schema_version"

//go:embed migrations/*.sql
var migrationFiles embed.FS

//go:embed views.sql
var viewsSQL string

// documentsView has the name of the table in the Liveblocks guides.
const documentsView = "liveblocks_documents"

// Migrate brings the schema up to what this binary needs, step by step, and
// reports what it did. Several may start at once: one works, the others wait.
// The URL should lead straight to the server, not through a pooler.
func Migrate(ctx context.Context, url string, log *slog.Logger) error {
	cc, err := pgx.ParseConfig(url)
	if err != nil {
		return errors.New("migrate: the database URL cannot be read") // the cause repeats the URL, password included
	}
	cc.ConnectTimeout = connectTimeout
	// Described types only: this also works if the URL does lead to a pooler.
	cc.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	db := stdlib.OpenDB(*cc)
	defer db.Close()
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	// A row in a table locks, because a session's advisory lock does not survive
	// a pooler that switches connections.
	locker, err := lock.NewPostgresTableLocker(lock.WithTableName("mirror_schema_lock"))
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files,
		goose.WithLocker(locker), goose.WithTableName(schemaTable))
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	done, err := provider.Up(ctx)
	if err != nil {
		return fmt.Errorf("migrate: %w", migrateHint(err))
	}
	for _, m := range done {
		log.InfoContext(ctx, "migration applied", slog.Int64("version", m.Source.Version), slog.Duration("took", m.Duration))
	}
	conn, err := pgx.ConnectConfig(ctx, cc)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return ensureViews(ctx, conn, log)
}

// migrateHint says what to do where the server's word alone would not.
func migrateHint(err error) error {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "42501" {
		return fmt.Errorf("the database role may not create tables; run migrate with the role that owns the schema: %w", err)
	}
	return err
}

// ensureViews creates the views anew. A relation of the same name that somebody
// else made is left alone: it is theirs, and nothing of ours depends on it.
func ensureViews(ctx context.Context, conn *pgx.Conn, log *slog.Logger) error {
	var relkind string
	err := conn.QueryRow(ctx, "select relkind::text from pg_class where oid = to_regclass($1)", documentsView).Scan(&relkind)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("migrate: look for view %s: %w", documentsView, err)
	}
	if relkind != "" && relkind != "v" {
		log.WarnContext(ctx, "a relation of this name exists and is left alone; rename it and run migrate again to get the view",
			slog.String("view", documentsView))
		return nil
	}
	if _, err := conn.Exec(ctx, viewsSQL); err != nil {
		if pg, ok := errors.AsType[*pgconn.PgError](err); ok && (pg.Code == "42501" || pg.Code == "42P16") {
			// Not ours to replace: another owner, or other columns.
			log.WarnContext(ctx, "a view of this name exists and is left alone; rename it and run migrate again to get ours",
				slog.String("view", documentsView))
			return nil
		}
		return fmt.Errorf("migrate: create view %s: %w", documentsView, err)
	}
	return nil
}

// schemaWanted is the version of the last embedded migration.
func schemaWanted() int64 {
	var last int64
	entries, _ := migrationFiles.ReadDir("migrations") // embedded: cannot fail
	for _, e := range entries {
		number, _, _ := strings.Cut(e.Name(), "_")
		if n, err := strconv.ParseInt(number, 10, 64); err == nil {
			last = max(last, n)
		}
	}
	return last
}

// schemaBehind reports whether migrations are missing. A schema newer than the
// binary is fine: migrations only ever add.
func schemaBehind(ctx context.Context, pool *pgxpool.Pool) (bool, error) {
	var have int64
	err := pool.QueryRow(ctx, "select coalesce(max(version_id), 0) from "+schemaTable+" where is_applied").Scan(&have)
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "42P01" {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return have < schemaWanted(), nil
}

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
	"time"

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

//go:embed views
var viewFiles embed.FS

// lockInterval is how often a starter asks whether another has migrated, and
// lockPatience for how long at most. lockLease is how long one that died keeps
// the others waiting; while it lives, it renews it every lockRenew.
const (
	lockInterval = 250 * time.Millisecond
	lockPatience = 5 * time.Minute
	lockLease    = 10 * time.Second
	lockRenew    = 2 * time.Second
)

// viewMark begins the comment by which a view is known to be ours.
const viewMark = "liveblocks-mirror:"

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
	locker, err := lock.NewPostgresTableLocker(lock.WithTableName("mirror_schema_lock"),
		lock.WithTableLockTimeout(lockInterval, uint64(lockPatience/lockInterval)),
		lock.WithTableLeaseDuration(lockLease), lock.WithTableHeartbeatInterval(lockRenew))
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
	if err := ensureViews(ctx, conn, log); err != nil {
		return fmt.Errorf("migrate: %w", migrateHint(err))
	}
	return nil
}

// migrateHint says what to do where the server's word alone would not.
func migrateHint(err error) error {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "42501" {
		return fmt.Errorf("the database role may not create tables; run migrate with the role that owns the schema: %w", err)
	}
	return err
}

// ensureViews creates the views anew, each from the file of its name.
func ensureViews(ctx context.Context, conn *pgx.Conn, log *slog.Logger) error {
	files, _ := viewFiles.ReadDir("views") // embedded: cannot fail
	for _, file := range files {
		create, _ := viewFiles.ReadFile("views/" + file.Name())
		view := strings.TrimSuffix(file.Name(), ".sql")
		if err := ensureView(ctx, conn, log, view, string(create)); err != nil {
			return fmt.Errorf("create view %s: %w", view, err)
		}
	}
	return nil
}

// ensureView creates a view anew. A relation of the same name that somebody else
// made is left alone: it is theirs, and nothing of ours depends on it.
func ensureView(ctx context.Context, conn *pgx.Conn, log *slog.Logger, view, create string) error {
	theirs := false
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		// Two at once would trip over each other in the catalogue.
		if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock(hashtext($1))", view); err != nil {
			return err
		}
		var comment string
		err := tx.QueryRow(ctx,
			"select coalesce(obj_description(to_regclass($1), 'pg_class'), '') where to_regclass($1) is not null",
			view).Scan(&comment)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		if err == nil && !strings.HasPrefix(comment, viewMark) {
			theirs = true
			return nil
		}
		_, err = tx.Exec(ctx, create)
		return err
	})
	if err == nil && theirs {
		log.WarnContext(ctx, "a relation of this name exists and is left alone; rename it and run migrate again to get "+
			"the view",
			slog.String("view", view))
	}
	return err
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

package postgres

import (
	"context"
	"database/sql"
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

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/internal/move"
)

// schemaTable is the table of applied migrations.
const schemaTable = "mirror_schema_version"

//go:embed migrations/*.sql
var migrationFiles embed.FS

//go:embed views
var viewFiles embed.FS

// lockInterval is the time between two attempts to get the migration lock, and
// lockPatience the maximum wait. lockLease is how long a dead holder blocks the
// others; a living one renews the lock every lockRenew.
const (
	lockInterval = 250 * time.Millisecond
	lockPatience = 5 * time.Minute
	lockLease    = 10 * time.Second
	lockRenew    = 2 * time.Second
)

// viewMark is the prefix of the comment that marks a view as created by this
// package.
const viewMark = "liveblocks-mirror:"

// Migrate migrates the schema to the version that this binary needs and logs each
// step. Of several concurrent calls one works and the others wait. The URL should
// connect directly to the server, not through a pooler.
func Migrate(ctx context.Context, url string, log *slog.Logger) error {
	to, err := configOf(url)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	cc := to.conn
	cc.ConnectTimeout = connectTimeout
	// Only described types: this also works through a pooler.
	cc.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	cc.RuntimeParams["client_encoding"] = "UTF8"
	prepare := func(ctx context.Context, conn *pgx.Conn) error {
		if to.pooled || behindPooler(cc) {
			return nil
		}
		return pinSession(ctx, conn, to.searchPath)
	}
	db := stdlib.OpenDB(*cc, stdlib.OptionAfterConnect(prepare))
	defer db.Close()
	connected := func(f func(conn *pgx.Conn) error) error {
		conn, err := pgx.ConnectConfig(ctx, cc)
		if err == nil {
			defer conn.Close(context.WithoutCancel(ctx))
			err = prepare(ctx, conn)
		}
		if err == nil {
			err = f(conn)
		}
		if err != nil {
			return fmt.Errorf("migrate: %w", migrateHint(err))
		}
		return nil
	}
	err = connected(func(conn *pgx.Conn) error { return checkTarget(ctx, conn, to.searchPath) })
	if err != nil {
		return err
	}
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	// The lock is a row in a table, because a session's advisory lock does not
	// survive a pooler that switches connections.
	locker, err := lock.NewPostgresTableLocker(lock.WithTableName("mirror_schema_lock"),
		lock.WithTableLockTimeout(lockInterval, uint64(lockPatience/lockInterval)),
		lock.WithTableLeaseDuration(lockLease), lock.WithTableHeartbeatInterval(lockRenew),
		lock.WithTableRetryPolicy(func(err error) bool { return !isCode(err, readOnlyCode) }))
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files,
		goose.WithLocker(locker), goose.WithTableName(schemaTable))
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if err := moveEvents(ctx, db, locker, log); err != nil {
		return fmt.Errorf("migrate: %w", migrateHint(err))
	}
	for { // one by one, so that the log tells how far it is
		m, err := provider.UpByOne(ctx)
		if errors.Is(err, goose.ErrNoNextVersion) {
			break
		}
		if err != nil {
			return fmt.Errorf("migrate: %w", migrateHint(err))
		}
		log.InfoContext(ctx, "migration applied", slog.Int64("version", m.Source.Version), slog.Duration("took", m.Duration))
	}
	return connected(func(conn *pgx.Conn) error {
		if err := ensureViews(ctx, conn, log); err != nil {
			return err
		}
		return warnOfRights(ctx, conn, log)
	})
}

// mover is the dialect of what brings rows of older versions to where they belong.
var mover = move.Dialect{
	Numbered: true,
	Key:      func(id string) any { return id },
	Bucket: "get_byte(sha256(convert_to(e.project_id, 'UTF8') || '\\x00'::bytea || convert_to(e.room_id, 'UTF8')), 0)" +
		"::smallint",
	Columns: "project_id, event_id, type, room_id, user_id, liveblocks_project_id, payload, send_time, receive_time, " +
		"source_time, outcome",
	OnConflict: "on conflict do nothing",
}

// moveEvents moves the events of a database that an older version has written.
func moveEvents(ctx context.Context, db *sql.DB, locker lock.Locker, log *slog.Logger) error {
	var version int64
	err := db.QueryRowContext(ctx, "select coalesce(max(version_id), 0) from "+schemaTable+" where is_applied").
		Scan(&version)
	if isCode(err, "42P01") {
		return nil
	}
	if err != nil || version == 0 || version >= move.Version {
		return err
	}
	if err := locker.Lock(ctx, db); err != nil {
		return fmt.Errorf("lock the events: %w", err)
	}
	return errors.Join(mover.Events(ctx, db, log), locker.Unlock(context.WithoutCancel(ctx), db))
}

// rightsSQL lists the roles other than the owner that have rights on our tables and
// views, where no row-level security stands in between.
const rightsSQL = `select coalesce(r.rolname::text, 'PUBLIC'), string_agg(distinct lower(a.privilege_type), ', '), count(distinct c.oid)
from pg_class c
cross join lateral aclexplode(c.relacl) a
left join pg_roles r on r.oid = a.grantee
where c.relnamespace = (select v.relnamespace from pg_class v where v.oid = to_regclass('mirror_schema_version'))
and a.grantee <> c.relowner
and (c.relname like 'mirror\_%' and c.relkind in ('r', 'p') and not c.relrowsecurity
    or c.relkind = 'v' and obj_description(c.oid, 'pg_class') like '` + viewMark + `%'
    and not coalesce('security_invoker=true' = any(c.reloptions), false))
group by 1 order by 1`

// warnOfRights tells which other roles have rights. Hosted databases give them to all
// new tables, to roles that anybody on the internet can take.
func warnOfRights(ctx context.Context, conn *pgx.Conn, log *slog.Logger) error {
	rows, err := conn.Query(ctx, rightsSQL)
	if err != nil {
		return fmt.Errorf("read rights: %w", err)
	}
	var role, rights string
	var tables int
	_, err = pgx.ForEachRow(rows, []any{&role, &rights, &tables}, func() error {
		log.WarnContext(ctx, "another role has rights on the tables; revoke them, or enable row-level security, unless it "+
			"needs them",
			slog.String("role", role), slog.String("rights", rights), slog.Int("tables", tables))
		return nil
	})
	if err != nil {
		return fmt.Errorf("read rights: %w", err)
	}
	return nil
}

// checkTarget checks what tables would depend on before there are any.
func checkTarget(ctx context.Context, conn *pgx.Conn, searchPath string) error {
	if _, err := probeTransaction(ctx, conn); err != nil {
		return err
	}
	f, err := readFacts(ctx, conn)
	switch {
	case err != nil:
		return err
	case f.Encoding != "UTF8":
		return f.encodingProblem()
	case f.Schema == "" && searchPath != "":
		return fmt.Errorf("there is no schema %s, or the role %s may not use it; run: create schema %s authorization %s",
			searchPath, f.Role, searchPath, pgx.Identifier{f.Role}.Sanitize())
	case !f.inPath(searchPath):
		return f.problem(searchPath)
	}
	return nil
}

// migrateHint adds advice to errors of the server.
func migrateHint(err error) error {
	switch {
	case isCode(err, startingCode):
		return fmt.Errorf("%w: %w", store.ErrStarting, err)
	case isCode(err, readOnlyCode):
		return fmt.Errorf("%w; run migrate on the primary: %w", store.ErrReadOnly, err)
	case isCode(err, "42501"):
		return fmt.Errorf("the database role may not create tables, or alter those of another; run migrate with "+
			"the role that owns the schema and the tables: %w", err)
	}
	return connectHint(err)
}

func isCode(err error, code string) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == code
}

// ensureViews recreates the views, each from the file of its name.
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

// ensureView recreates a view. It leaves alone a relation of the same name that
// this package did not create; nothing depends on the view.
func ensureView(ctx context.Context, conn *pgx.Conn, log *slog.Logger, view, create string) error {
	theirs := false
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		// Concurrent changes would conflict in the catalogue.
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
		if _, err = tx.Exec(ctx, create); err != nil {
			return err
		}
		// Who reads the view needs rights on its tables, and sees only the rows that their
		// policies allow. PostgreSQL 14 has no such views.
		var version int
		err = tx.QueryRow(ctx, "select current_setting('server_version_num')::integer").Scan(&version)
		if err == nil && version >= 150000 {
			_, err = tx.Exec(ctx, "alter view "+view+" set (security_invoker = true)")
		}
		return err
	})
	if err == nil && theirs {
		log.WarnContext(ctx, "a relation of this name exists and is left alone; rename it and run migrate again to get "+
			"the view",
			slog.String("view", view))
	}
	return err
}

// MigrationSQL returns the statements that [Migrate] would run on an empty database, for
// whoever may create tables. Afterwards Migrate has nothing to do.
func MigrationSQL() string {
	var b strings.Builder
	b.WriteString("-- Tables and views. Run this with psql, as the role that is to own the tables.\n\n")
	b.WriteString("create table mirror_schema_lock (\n" +
		"    lock_id bigint not null primary key,\n" +
		"    locked boolean not null default false,\n" +
		"    locked_at timestamptz null,\n" +
		"    locked_by text null,\n" +
		"    lease_expires_at timestamptz null,\n" +
		"    updated_at timestamptz null\n);\n\n")
	b.WriteString("create table " + schemaTable + " (\n" +
		"    id integer primary key generated by default as identity,\n" +
		"    version_id bigint not null,\n" +
		"    is_applied boolean not null,\n" +
		"    tstamp timestamp not null default now()\n);\n\n")
	versions := "(0, true)"
	entries, _ := migrationFiles.ReadDir("migrations") // embedded: cannot fail
	for _, e := range entries {
		text, _ := migrationFiles.ReadFile("migrations/" + e.Name())
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(line, "-- +goose") {
				b.WriteString(line)
			}
		}
		number, _, _ := strings.Cut(e.Name(), "_")
		versions += ", (" + strings.TrimLeft(number, "0") + ", true)"
	}
	views, _ := viewFiles.ReadDir("views") // embedded: cannot fail
	for _, file := range views {
		create, _ := viewFiles.ReadFile("views/" + file.Name())
		b.WriteString("\n" + strings.TrimSpace(string(create)) + "\n")
		// PostgreSQL 14 has no such views.
		fmt.Fprintf(&b, "do $$ begin if current_setting('server_version_num')::integer >= 150000 then "+
			"alter view %s set (security_invoker = true); end if; end $$;\n", strings.TrimSuffix(file.Name(), ".sql"))
	}
	b.WriteString("\n-- What has been done.\n\n")
	b.WriteString("insert into " + schemaTable + " (version_id, is_applied) values " + versions + ";\n")
	return b.String()
}

// schemaWanted returns the version of the last embedded migration.
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

// schemaBehind reports whether migrations are missing, and whether the session that
// was asked is read-only. A schema newer than the binary is fine: migrations only
// ever add.
func schemaBehind(ctx context.Context, pool *pgxpool.Pool) (behind, readOnly bool, err error) {
	var have int64
	err = pool.QueryRow(ctx, "select coalesce(max(version_id), 0), current_setting('transaction_read_only')::boolean "+
		"from "+schemaTable+" where is_applied").Scan(&have, &readOnly)
	if isCode(err, "42P01") {
		return true, false, nil
	}
	return have < schemaWanted(), readOnly, err
}

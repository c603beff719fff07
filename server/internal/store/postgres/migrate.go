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
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/internal/move"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
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
//
// It warns of roles that have rights on the tables, except those in expected.
func Migrate(ctx context.Context, url string, log *slog.Logger, expected ...string) error {
	to, err := configOf(url)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	cc := to.conn
	cc.ConnectTimeout = connectTimeout
	// Only described types: this also works through a pooler.
	cc.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	cc.RuntimeParams["client_encoding"] = "UTF8"
	pooled := to.pooled || behindPooler(cc)
	prepare := func(ctx context.Context, conn *pgx.Conn) error {
		if pooled {
			return nil
		}
		return pinSession(ctx, conn, to.path())
	}
	db := stdlib.OpenDB(*cc, stdlib.OptionAfterConnect(prepare))
	defer db.Close()
	connected := func(f func(conn *pgx.Conn) error) error {
		conn, err := pgx.ConnectConfig(ctx, cc)
		if err == nil {
			defer conn.Close(context.WithoutCancel(ctx))
			err = f(conn)
		}
		if err != nil {
			return fmt.Errorf("migrate: %w", migrateHint(err))
		}
		return nil
	}
	err = connected(func(conn *pgx.Conn) error {
		backend, err := probeTransaction(ctx, conn)
		if err != nil {
			return err
		}
		if !pooled && backend != conn.PgConn().PID() {
			err = connected(func(second *pgx.Conn) error { pooled = forgets(ctx, conn, second); return nil })
		}
		if err == nil {
			err = prepare(ctx, conn)
		}
		if err == nil {
			err = checkTarget(ctx, conn, to.target)
		}
		return err
	})
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
	if err := mover.Run(ctx, db, locker, schemaVersion, log); err != nil {
		return fmt.Errorf("migrate: %w", migrateHint(err))
	}
	if err := move.Up(ctx, provider, func(err error) bool { return isCode(err, lockedCode) }, log); err != nil {
		return fmt.Errorf("migrate: %w", migrateHint(err))
	}
	return connected(func(conn *pgx.Conn) error {
		if err := prepare(ctx, conn); err != nil {
			return err
		}
		if err := ensureViews(ctx, conn, log); err != nil {
			return err
		}
		return warnOfRights(ctx, conn, log, expected)
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

// schemaVersion returns the version of the last migration that was applied; 0 if none was.
func schemaVersion(ctx context.Context, db *sql.DB) (version int64, err error) {
	err = db.QueryRowContext(ctx, "select coalesce(max(version_id), 0) from "+schemaTable+" where is_applied").
		Scan(&version)
	if isCode(err, "42P01") {
		err = nil
	}
	return version, err
}

// rightsSQL lists the roles that have rights on our tables and views, where neither
// row-level security nor the right to use the schema stands in between. Owners, superusers
// and those in the parameter are left out. For each it lists what to take the rights from,
// and whose defaults give them, in which schema (empty for all).
const rightsSQL = `with home as (
    select v.relnamespace as oid, v.relowner as owner, n.nspname
    from pg_class v join pg_namespace n on n.oid = v.relnamespace
    where v.oid = to_regclass('mirror_schema_version')
), ours as (
    select c.oid, c.relname, c.relowner, c.relacl, case when c.relkind = 'v'
        then not coalesce('security_invoker=true' = any(c.reloptions), false) else not c.relrowsecurity end as open
    from pg_class c join home on home.oid = c.relnamespace
    where c.relname like 'mirror\_%' and c.relkind in ('r', 'p')
    or c.relkind = 'v' and obj_description(c.oid, 'pg_class') like '` + viewMark + `%'
), rights as (
    select o.oid, o.relname, o.relowner, o.open, a.grantee, a.privilege_type
    from ours o cross join lateral aclexplode(o.relacl) a
    union all
    select o.oid, o.relname, o.relowner, o.open, a.grantee, a.privilege_type
    from ours o join pg_attribute t on t.attrelid = o.oid cross join lateral aclexplode(t.attacl) a
)
select coalesce(r.rolname::text, 'PUBLIC'), string_agg(distinct lower(x.privilege_type), ', ') filter (where x.open),
    count(distinct x.oid) filter (where x.open),
    coalesce(quote_ident(r.rolname), 'public'), string_agg(distinct format('%I.%I', home.nspname, x.relname), ', '),
    array(select distinct format('for role %I', pg_get_userbyid(d.defaclrole))
            || coalesce((select format(' in schema %I', n.nspname) from pg_namespace n
                where n.oid = d.defaclnamespace), '')
        from pg_default_acl d cross join lateral aclexplode(d.defaclacl) a
        where d.defaclobjtype = 'r' and d.defaclrole = home.owner and d.defaclnamespace in (0, home.oid)
        and a.grantee = x.grantee order by 1)
from rights x cross join home
left join pg_roles r on r.oid = x.grantee
where x.grantee <> x.relowner and not coalesce(r.rolsuper, false)
and coalesce(r.rolname::text, 'PUBLIC') <> all($1::text[])
and case when r.oid is null then has_schema_privilege('public', home.oid, 'usage')
    else has_schema_privilege(r.oid, home.oid, 'usage') end
group by r.rolname, x.grantee, home.oid, home.owner
having bool_or(x.open) order by 1`

// warnOfRights tells which other roles have rights. Hosted databases give them to all
// new tables, to roles that anybody on the internet can take.
func warnOfRights(ctx context.Context, conn *pgx.Conn, log *slog.Logger, expected []string) error {
	rows, err := conn.Query(ctx, rightsSQL, append([]string{}, expected...))
	if err != nil {
		return fmt.Errorf("read rights: %w", err)
	}
	var role, rights, grantee, relations string
	var tables int
	var defaults []string
	_, err = pgx.ForEachRow(rows, []any{&role, &rights, &tables, &grantee, &relations, &defaults}, func() error {
		statement := "revoke all on " + relations + " from " + grantee + ";"
		for _, of := range defaults {
			statement += " alter default privileges " + of + " revoke all on tables from " + grantee + ";"
		}
		log.WarnContext(ctx, "another role has rights on the tables; run the statement to revoke them, or enable row-level "+
			"security, unless it needs them",
			slog.String("role", role), slog.String("rights", rights), slog.Int("tables", tables),
			slog.String("statement", statement))
		return nil
	})
	if err != nil {
		return fmt.Errorf("read rights: %w", err)
	}
	return nil
}

// checkTarget checks what tables would depend on before there are any, and creates their
// schema.
func checkTarget(ctx context.Context, conn *pgx.Conn, to target) error {
	f, err := readFacts(ctx, conn, to.schema)
	path := to.path()
	switch {
	case err != nil:
		return err
	case f.Encoding != "UTF8":
		return f.encodingProblem()
	case to.schema != "" && !f.inPath(path):
		return fmt.Errorf("migrate cannot choose the schema %s through a pooler; set DATABASE_DIRECT_URL to a URL that "+
			"leads to the database directly", path)
	case !f.inPath(path):
		return f.problem(path, "")
	}
	if err := ensureSchema(ctx, conn, to.schema); err != nil {
		return err
	}
	var found bool
	if err := conn.QueryRow(ctx, "select current_schema() is not null").Scan(&found); err != nil {
		return err
	}
	if !found && path != "" {
		role := pgx.Identifier{f.Role}.Sanitize()
		return fmt.Errorf("there is no schema %s, or the role %s may not use it; run: create schema %s authorization %s, "+
			"or, if there is one, grant usage, create on schema %s to %s", path, f.Role, path, role, path, role)
	}
	return nil
}

// ensureSchema creates a schema if there is none. Who may not create one needs none of
// that if it exists.
func ensureSchema(ctx context.Context, conn *pgx.Conn, schema string) error {
	if schema == "" {
		return nil
	}
	var exists bool
	err := conn.QueryRow(ctx, "select exists (select from pg_namespace where nspname = $1)", schema).Scan(&exists)
	if err == nil && !exists {
		_, err = conn.Exec(ctx, "create schema "+pgx.Identifier{schema}.Sanitize())
	}
	if isCode(err, "42P06") || isCode(err, "23505") { // another process was quicker
		return nil
	}
	if err != nil {
		return fmt.Errorf("create the schema %s: %w", schema, err)
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

// definitions are the definitions of the views.
func definitions() (list []string) {
	files, _ := viewFiles.ReadDir("views") // embedded: cannot fail
	for _, file := range files {
		create, _ := viewFiles.ReadFile("views/" + file.Name())
		list = append(list, string(create))
	}
	return list
}

// MigrationSQL returns the statements that [Migrate] would run on an empty database, for
// whoever may create tables. Afterwards Migrate has nothing to do. Of the URL only the
// schema matters.
func MigrationSQL(url string) string {
	var b strings.Builder
	b.WriteString("-- Tables and views. Run this with psql, as the role that is to own the tables.\n\n")
	if to, err := parseURL(url); err == nil && to.schema != "" {
		fmt.Fprintf(&b, "do $$ begin if to_regnamespace(%s) is null then create schema %s; end if; end $$;\n"+
			"set search_path = %s;\n\n", constant(to.path()), to.path(), to.path())
	}
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
func schemaBehind(ctx context.Context, db dbq.DBTX) (behind, readOnly bool, err error) {
	have, readOnly, err := schemaState(ctx, db)
	return err == nil && have < schemaWanted(), readOnly, err
}

// schemaState returns the version of the last migration that was applied, 0 if none was,
// and whether the session is read-only, which it does not say without a schema.
func schemaState(ctx context.Context, db dbq.DBTX) (have int64, readOnly bool, err error) {
	err = db.QueryRow(ctx, "select coalesce(max(version_id), 0), current_setting('transaction_read_only')::boolean "+
		"from "+schemaTable+" where is_applied").Scan(&have, &readOnly)
	if isCode(err, "42P01") {
		return 0, false, nil
	}
	return have, readOnly, err
}

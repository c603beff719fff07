package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"time"

	gomysql "github.com/go-sql-driver/mysql"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
	"github.com/pressly/goose/v3/database/dialect"
	"github.com/pressly/goose/v3/lock"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/internal/move"
)

// schemaTable is the table of applied migrations, lockTable that of the migration
// lock.
const (
	schemaTable = "mirror_schema_version"
	lockTable   = "mirror_schema_lock"
)

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

// viewMark is in the definition of every view of this package, because views have
// no comments on MySQL. The number after it is the edition.
var viewMark = regexp.MustCompile(`'liveblocks-mirror \d+'`)

// Migrate migrates the schema to the version that this binary needs and logs each
// step. Of several concurrent calls one works and the others wait. If the schema is
// current, as after a PlanetScale deploy request with the result of [MigrationSQL],
// it needs no right to alter tables.
func Migrate(ctx context.Context, url string, log *slog.Logger) error {
	c, err := newConnector(url)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	db := sql.OpenDB(repeating{c})
	defer func() { _ = db.Close() }() // nothing can be lost
	if err := migrate(ctx, db, log); err != nil {
		return fmt.Errorf("migrate: %w", migrateHint(err))
	}
	return nil
}

// repeating opens connections on which a migration can be run again from the start.
// Tables are created "if not exists", which MySQL supports for nothing else. They may be
// silent while another process migrates, for twice as long as one waits for that.
type repeating struct{ *connector }

// Connect opens a connection.
func (r repeating) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := r.connector.Connect(ctx)
	if s, ok := conn.(*session); ok && err == nil {
		_, err = s.ExecContext(ctx, fmt.Sprintf(waitTimeout, 2*lockPatience/time.Second), nil)
		if err != nil && number(err) == 0 { // a server that refuses it has a limit of its own
			return nil, connectError{errors.Join(err, conn.Close())}
		}
		if l := layout(r.layout.Load()); l != oneShard && l != manyShards {
			// Vitess has its own way to alter tables.
			_, err = s.ExecContext(ctx, fmt.Sprintf("set session lock_wait_timeout = %d", move.LockWait/time.Second), nil)
			if err != nil && number(err) == 0 {
				return nil, connectError{errors.Join(err, conn.Close())}
			}
		} else {
			// A statement of a migration may write to all shards, even where nothing else may:
			// each can be run again.
			_, err = s.ExecContext(ctx, "set transaction_mode = 'multi'", nil)
			if err != nil && number(err) == 0 {
				return nil, connectError{errors.Join(err, conn.Close())}
			}
		}
		return repeatingConn{s}, nil
	}
	return conn, err
}

type repeatingConn struct{ *session }

// ExecContext runs a statement. An existing column or index counts as added, and an
// index that is gone as dropped: each is altered by its own statement, which is atomic.
func (c repeatingConn) ExecContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Result, error) {
	result, err := c.session.ExecContext(ctx, text, args)
	for began := time.Now(); behind(err) && time.Since(began) < lockPatience && clock.Sleep(ctx, lockInterval) == nil; {
		result, err = c.session.ExecContext(ctx, text, args)
	}
	switch number(err) {
	case 1060, 1061, 1091:
		return driver.RowsAffected(0), nil
	}
	return result, err
}

// behind reports whether Vitess has refused a statement because its gateway does not know
// a column yet that a shard has. It learns of one a moment after it was added.
func behind(err error) bool {
	var refused *gomysql.MySQLError
	return errors.As(err, &refused) && refused.Number == 1054 && strings.Contains(refused.Message, "not found")
}

func migrate(ctx context.Context, db *sql.DB, log *slog.Logger) error {
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return err
	}
	// The lock is a row in a table, because session locks do not work on Galera or
	// behind a proxy. Without rights, do not wait for it.
	locker, err := lock.NewMySQLTableLocker(lock.WithTableName(lockTable),
		lock.WithTableLockTimeout(lockInterval, uint64(lockPatience/lockInterval)),
		lock.WithTableLeaseDuration(lockLease), lock.WithTableHeartbeatInterval(lockRenew),
		lock.WithTableRetryPolicy(func(err error) bool { return !denied(err) && !readOnly(err) }))
	if err != nil {
		return err
	}
	versions, err := database.NewStoreFromQuerier(schemaTable, versionQueries{})
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectCustom, db, files, goose.WithLocker(locker), goose.WithStore(versions))
	if err != nil {
		return err
	}
	if err := mover.Run(ctx, db, locker, schemaVersion, log); err != nil {
		return err
	}
	if err := move.Up(ctx, provider, func(err error) bool { return number(err) == 1205 }, log); err != nil {
		return err
	}
	// Also one starter at a time: on Galera, a view that one creates can stop another that
	// looks for it, and both for ever.
	if err := locker.Lock(ctx, db); err != nil {
		return fmt.Errorf("lock the views: %w", err)
	}
	err = ensureViews(ctx, db, log)
	return errors.Join(err, locker.Unlock(context.WithoutCancel(ctx), db))
}

// mover is the dialect of what brings rows of older versions to where they belong.
var mover = move.Dialect{
	Key:    func(id string) any { return rawKey(id) },
	Bucket: "cast(conv(left(sha2(concat(e.project_id, 0x00, e.room_id), 256), 2), 16, 10) as signed)",
	Columns: "project_id, event_id, type, room_id, user_id, liveblocks_project_id, payload, send_time, receive_time, " +
		"source_time, outcome, batch_token",
	OnConflict: "on duplicate key update bucket = values(bucket)",
}

// migrateHint adds advice to errors of the server.
func migrateHint(err error) error {
	switch {
	case readOnly(err):
		return fmt.Errorf("%w; run migrate on the primary: %w", store.ErrReadOnly, err)
	case denied(err):
		return fmt.Errorf("the database role may not create tables; run migrate with the role that owns the schema: %w", err)
	}
	return err
}

// versionQueries are goose's statements for MySQL about the version table, except
// that the server does not number its rows.
type versionQueries struct{}

var _ dialect.Querier = versionQueries{}

// CreateTable can be run again: the statement commits by itself, and a crash may
// follow.
func (versionQueries) CreateTable(table string) string {
	return "create table if not exists " + table + ` (
    version_id bigint not null,
    is_applied boolean not null,
    tstamp datetime(6) not null default current_timestamp(6),
    primary key (version_id)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin`
}

func (versionQueries) InsertVersion(table string) string {
	return "insert into " + table + " (version_id, is_applied) values (?, ?)"
}

func (versionQueries) DeleteVersion(table string) string {
	return "delete from " + table + " where version_id = ?"
}

func (versionQueries) GetMigrationByVersion(table string) string {
	return "select tstamp, is_applied from " + table + " where version_id = ?"
}

func (versionQueries) ListMigrations(table string) string {
	return "select version_id, is_applied from " + table + " order by version_id desc"
}

func (versionQueries) GetLatestVersion(table string) string {
	return "select max(version_id) from " + table
}

// views calls do with each view's name and definition, in the order of names.
func views(do func(view, create string) error) error {
	files, _ := viewFiles.ReadDir("views") // embedded: cannot fail
	for _, file := range files {
		create, _ := viewFiles.ReadFile("views/" + file.Name())
		if err := do(strings.TrimSuffix(file.Name(), ".sql"), string(create)); err != nil {
			return err
		}
	}
	return nil
}

// ensureViews creates the views, or recreates them if they are of another edition.
// It leaves alone a relation of the same name that this package did not create;
// nothing depends on the views.
func ensureViews(ctx context.Context, db *sql.DB, log *slog.Logger) error {
	return views(func(view, create string) error {
		theirs := func() error {
			log.WarnContext(ctx, "a relation of this name exists and is left alone; rename it and run migrate again to get "+
				"the view",
				slog.String("view", view))
			return nil
		}
		var definition string
		// On Galera, even this can lose against a change of the schema from another node.
		err := retry(ctx, func() error {
			return db.QueryRowContext(ctx, `select coalesce(v.view_definition, '')
from information_schema.tables t
left join information_schema.views v on v.table_schema = t.table_schema and v.table_name = t.table_name
where t.table_schema = database() and t.table_name = ?`, view).Scan(&definition)
		})
		switch {
		case errors.Is(err, sql.ErrNoRows):
		case err != nil:
			return fmt.Errorf("look for view %s: %w", view, err)
		case strings.Contains(definition, viewMark.FindString(create)):
			return nil
		case !viewMark.MatchString(definition):
			return theirs()
		}
		// This does not replace a table created in the meantime.
		err = retry(ctx, func() error {
			_, err := db.ExecContext(ctx, create)
			return err
		})
		switch number(err) {
		case 1050, 1347: // a table of this name exists
			return theirs()
		case 1143:
			// MariaDB lets nobody use the columns of a json_table in a view who may not read
			// all databases, however much they may do in this one.
			log.WarnContext(ctx, "this user cannot create the view; run migrate once as a user who may select from all "+
				"databases",
				slog.String("view", view), slog.Any("error", err))
			return nil
		}
		if viewUnsupported(err) {
			log.WarnContext(ctx, "this server cannot have the view; documents can be read in mirror_document",
				slog.String("view", view))
			return nil
		}
		if err != nil {
			return fmt.Errorf("create view %s: %w", view, err)
		}
		return nil
	})
}

// viewUnsupported reports whether the server has no such views: none at all, or none with
// json_table.
func viewUnsupported(err error) bool {
	switch number(err) {
	case 1064, 1235:
		return true
	case 1105: // any error of Vitess
		return strings.Contains(err.Error(), "VT12001") // unsupported
	}
	return false
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

// schemaBehind reports whether migrations are missing. A schema newer than the
// binary is fine: migrations only ever add.
func schemaBehind(ctx context.Context, db *sql.DB) (bool, error) {
	have, err := schemaVersion(ctx, db)
	return err == nil && have < schemaWanted(), err
}

// schemaVersion returns the version of the last migration that was applied; 0 if none was.
func schemaVersion(ctx context.Context, db *sql.DB) (have int64, err error) {
	err = db.QueryRowContext(ctx, "select coalesce(max(version_id), 0) from "+schemaTable+" where is_applied").Scan(&have)
	if number(err) == 1146 {
		return 0, nil
	}
	return have, err
}

//go:embed vschema.json
var vschema string

// VSchema returns the VSchema of a sharded keyspace of Vitess: by which column each table
// is sharded.
func VSchema() string { return vschema }

// MigrationSQL returns the statements that [Migrate] would run on an empty
// database, to be run in another way, such as a PlanetScale deploy request.
// Afterwards Migrate has nothing to do.
func MigrationSQL() string {
	var b strings.Builder
	b.WriteString("-- Tables and views.\n\n")
	b.WriteString("create table if not exists " + lockTable + ` (
    lock_id bigint not null primary key,
    locked boolean not null default 0,
    locked_at datetime(6) null,
    locked_by text null,
    lease_expires_at datetime(6) null,
    updated_at datetime(6) null
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

`)
	b.WriteString(versionQueries{}.CreateTable(schemaTable) + ";\n")
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
	_ = views(func(_, create string) error {
		b.WriteString("\n" + strings.TrimSpace(create) + ";\n")
		return nil
	})
	b.WriteString("\n-- What has been done. A deploy request carries no rows: run this where it was deployed.\n\n")
	b.WriteString("insert into " + schemaTable + " (version_id, is_applied) values " + versions + ";\n")
	return b.String()
}

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

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
	"github.com/pressly/goose/v3/database/dialect"
	"github.com/pressly/goose/v3/lock"
)

// schemaTable is where the applied migrations are counted, lockTable where who
// applies them is written down.
const (
	schemaTable = "mirror_schema_version"
	lockTable   = "mirror_schema_lock"
)

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

// viewMark is in the definition of every view of ours, by which it is known: a
// view has no comment here. With the number behind it, it names the edition.
var viewMark = regexp.MustCompile(`'liveblocks-mirror \d+'`)

// Migrate brings the schema up to what this binary needs, step by step, and
// reports what it did. Several may start at once: one works, the others wait.
// Where everything is there already, as after a deploy request of PlanetScale
// with what [MigrationSQL] returns, it needs no right to alter tables.
func Migrate(ctx context.Context, url string, log *slog.Logger) error {
	c, err := newConnector(url)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	db := sql.OpenDB(repeating{c})
	defer func() { _ = db.Close() }() // nothing is left that could be lost
	if err := migrate(ctx, db, log); err != nil {
		return fmt.Errorf("migrate: %w", migrateHint(err))
	}
	return nil
}

// repeating makes connections on which a migration can be run again from the start.
// Tables are created "if not exists", but MySQL has no such word for a column.
type repeating struct{ *connector }

// Connect opens a connection.
func (r repeating) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := r.connector.Connect(ctx)
	if s, ok := conn.(*session); ok && err == nil {
		return repeatingConn{s}, nil
	}
	return conn, err
}

type repeatingConn struct{ *session }

// ExecContext runs a statement. A column that is there counts as added: each is added
// by a statement of its own, which takes place as a whole or not at all.
func (c repeatingConn) ExecContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Result, error) {
	result, err := c.session.ExecContext(ctx, text, args)
	if number(err) == 1060 {
		return driver.RowsAffected(0), nil
	}
	return result, err
}

func migrate(ctx context.Context, db *sql.DB, log *slog.Logger) error {
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return err
	}
	// A row in a table locks, because the lock of a session means nothing on
	// Galera or behind a proxy. Without rights it is pointless to wait for it.
	locker, err := lock.NewMySQLTableLocker(lock.WithTableName(lockTable),
		lock.WithTableLockTimeout(lockInterval, uint64(lockPatience/lockInterval)),
		lock.WithTableLeaseDuration(lockLease), lock.WithTableHeartbeatInterval(lockRenew),
		lock.WithTableRetryPolicy(func(err error) bool { return !denied(err) }))
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
	done, err := provider.Up(ctx)
	if err != nil {
		return err
	}
	for _, m := range done {
		log.InfoContext(ctx, "migration applied", slog.Int64("version", m.Source.Version), slog.Duration("took", m.Duration))
	}
	return ensureViews(ctx, db, log)
}

// migrateHint says what to do where the server's word alone would not.
func migrateHint(err error) error {
	if denied(err) {
		return fmt.Errorf("the database role may not create tables; run migrate with the role that owns the schema: %w", err)
	}
	return err
}

// versionQueries are goose's statements about the version table, as it has them
// for MySQL but for the table itself: its rows are not numbered by the server.
type versionQueries struct{}

var _ dialect.Querier = versionQueries{}

// CreateTable can be run again: the statement commits by itself, and what should
// follow may not come.
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

// ensureViews creates the views, or anew if they are of another edition. A
// relation of the same name that somebody else made is left alone: it is theirs,
// and nothing of ours depends on it.
func ensureViews(ctx context.Context, db *sql.DB, log *slog.Logger) error {
	return views(func(view, create string) error {
		theirs := func() error {
			log.WarnContext(ctx, "a relation of this name exists and is left alone; rename it and run migrate again to get "+
				"the view",
				slog.String("view", view))
			return nil
		}
		var definition string
		err := db.QueryRowContext(ctx, `select coalesce(v.view_definition, '')
from information_schema.tables t
left join information_schema.views v on v.table_schema = t.table_schema and v.table_name = t.table_name
where t.table_schema = database() and t.table_name = ?`, view).Scan(&definition)
		switch {
		case errors.Is(err, sql.ErrNoRows):
		case err != nil:
			return fmt.Errorf("look for view %s: %w", view, err)
		case strings.Contains(definition, viewMark.FindString(create)):
			return nil
		case !viewMark.MatchString(definition):
			return theirs()
		}
		// A table that has come in between is not replaced by this.
		err = retry(ctx, func() error {
			_, err := db.ExecContext(ctx, create)
			return err
		})
		switch number(err) {
		case 1050, 1347: // there is such a table
			return theirs()
		case 1064, 1235: // not supported: views, or json_table in one
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
func schemaBehind(ctx context.Context, db *sql.DB) (bool, error) {
	var have int64
	err := db.QueryRowContext(ctx, "select coalesce(max(version_id), 0) from "+schemaTable+" where is_applied").Scan(&have)
	if number(err) == 1146 {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return have < schemaWanted(), nil
}

// MigrationSQL returns all that [Migrate] would do to an empty database, for
// whoever has to do it in another way, such as by a deploy request of
// PlanetScale. After that, Migrate finds nothing to do.
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

package dbtest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/pgtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
)

// pool holds the databases of an engine that tests hand on. To make one takes many
// times as long as to empty one.
type pool struct {
	sync.Mutex
	free []string // URLs of those that no test has

	// add makes one more database with the current schema, for as long as the server
	// lasts.
	add func(tb testing.TB) string
	// others returns a query for the sessions of a database except its own, one in a row.
	others func(ctx context.Context, db *sql.DB) (string, error)
	// kill ends a session.
	kill func(ctx context.Context, conn *sql.Conn, id string) error
	// empty removes all rows that a store can have written.
	empty func(ctx context.Context, url string) error
}

var (
	postgresPool = &pool{
		add: func(tb testing.TB) string { tb.Helper(); return service(pgtest.Keep(tb, template(tb))) },
		others: func(context.Context, *sql.DB) (string, error) {
			return "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and " +
				"backend_type = 'client backend'", nil
		},
		kill: func(ctx context.Context, conn *sql.Conn, id string) error {
			_, err := conn.ExecContext(ctx, "select pg_terminate_backend("+id+")")
			return err
		},
		empty: emptyPostgres,
	}
	// schemaPool has databases whose tables are in a schema of their own, where no search path
	// leads to them.
	schemaPool = &pool{
		add: func(tb testing.TB) string {
			tb.Helper()
			to := engine.WithSchema(pgtest.Keep(tb, pgtest.Template(tb, "dbtest in a schema", fillSchema)), schemaName)
			u, err := url.Parse(to)
			if err != nil {
				tb.Fatal("dbtest: the URL of a database cannot be read") // without its text: it holds a password
			}
			Script(tb, to, "alter database "+strings.TrimPrefix(u.Path, "/")+" set search_path = ''")
			return service(to)
		},
		others: postgresPool.others, kill: postgresPool.kill, empty: emptyPostgres,
	}
	mysqlPool = &pool{
		add:    addMySQL,
		others: mysqltest.Others,
		kill:   func(ctx context.Context, conn *sql.Conn, id string) error { return mysqltest.Kill(ctx, conn, id) },
		empty: func(ctx context.Context, url string) error {
			return mysqltest.Empty(ctx, url, "mirror_schema_version", "mirror_schema_lock")
		},
	}
)

const schemaName = `Live "Blocks"`

func fillSchema(ctx context.Context, admin string) error {
	return migrateAsOwner(ctx, engine.WithSchema(admin, schemaName))
}

// InSchema is [Engine.Database] on PostgreSQL with the tables in a schema of their own, of
// an odd name, where no search path leads.
func InSchema(tb testing.TB) string {
	tb.Helper()
	Postgres.Need(tb)
	e := *Postgres
	e.pool = schemaPool
	return e.lend(tb)
}

// lend lends a database to tb, which hands it on unless it fails.
func (e *Engine) lend(tb testing.TB) string {
	tb.Helper()
	if e == MySQL && mysqltest.Named() {
		return takeMySQL(tb)
	}
	p := e.pool
	p.Lock()
	var to string
	if n := len(p.free); n > 0 {
		to, p.free = p.free[n-1], p.free[:n-1]
	}
	p.Unlock()
	if to == "" {
		to = p.add(tb)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := e.clean(ctx, to); err != nil {
			tb.Errorf("dbtest: clean a database: %v", err)
			return
		}
		p.Lock()
		defer p.Unlock()
		p.free = append(p.free, to)
	})
	return to
}

// clean removes from a database all that was written since it was made. Whoever is
// still connected has been killed, and the server may not have noticed: what it does
// for the dead must not come after this.
func (e *Engine) clean(ctx context.Context, to string) error {
	to = Admin(to)
	db, err := e.open(to)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // there is nothing to flush
	if err := e.endSessions(ctx, db); err != nil {
		return err
	}
	return e.pool.empty(ctx, to)
}

// EndSessions ends all other sessions of a database, as a restart of the server or a
// proxy does, and waits until they have ended.
func (e *Engine) EndSessions(tb testing.TB, url string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	db, err := e.open(Admin(url))
	if err == nil {
		defer func() { _ = db.Close() }() // there is nothing to flush
		err = e.endSessions(ctx, db)
	}
	if err != nil {
		tb.Fatalf("dbtest: end sessions: %v", err)
	}
}

func (e *Engine) endSessions(ctx context.Context, db *sql.DB) error {
	others, err := e.pool.others(ctx, db)
	if err != nil {
		return err
	}
	// The session that asks must be the one left out.
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // there is nothing to flush
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for ; ; <-ticker.C {
		var id string
		err := conn.QueryRowContext(ctx, others+" limit 1").Scan(&id)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		_ = e.pool.kill(ctx, conn, id) // it may have gone by itself
	}
}

// template names the database on PostgreSQL that the others are copied from.
func template(tb testing.TB) string {
	tb.Helper()
	return pgtest.Template(tb, "dbtest", migrateAsOwner)
}

func emptyPostgres(ctx context.Context, to string) error {
	return run(ctx, openPostgres, to, `do $$
		declare name text;
		begin
			for name in select tablename from pg_tables
				where tablename like 'mirror\_%' and tablename not like 'mirror\_schema\_%' and tablename <> 'mirror_feed_head'
			loop
				execute format('delete from %I', name);
			end loop;
			update mirror_feed_head set n = 0 where n > 0;
		end $$`)
}

// made are the names of the databases that were made where TEST_MYSQL_URL leads.
var made struct {
	sync.Mutex
	names []string
}

func addMySQL(tb testing.TB) string {
	tb.Helper()
	admin := mysqltest.URL(tb)
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	u, err := url.Parse(admin)
	if err != nil {
		tb.Fatal("dbtest: the URL of the MySQL server cannot be read") // without its text: it holds a password
	}
	name := "dbtest_" + strings.ToLower(rand.Text())
	if err := run(ctx, openMySQL, admin, "create database "+name); err != nil {
		tb.Fatalf("dbtest: %v", err)
	}
	made.Lock()
	made.names = append(made.names, name)
	made.Unlock()
	u.Path = "/" + name
	err = mysqltest.Create(ctx, u.String(), engine.Migrations(u.String()))
	if err == nil {
		err = migrateAsOwner(ctx, u.String()) // which migrates nothing where that has been done
	}
	if err != nil {
		tb.Fatalf("dbtest: %v", err)
	}
	return service(u.String())
}

// marker is a table in the databases that have the current schema and whose rows alone
// tests have altered.
const marker = "dbtest_lent"

// current are the databases that this process has seen to have the current schema. To ask$
// for it takes longer than most tests.
var current sync.Map

// takeMySQL takes one of the databases that tests take turns with. It has not been cleaned
// up after a test that failed or was killed, so that is done before it is used.
func takeMySQL(tb testing.TB) string {
	tb.Helper()
	e, to := MySQL, mysqltest.Take(tb, false)
	ctx, cancel := context.WithTimeout(tb.Context(), mysqltest.Turn)
	defer cancel()
	db, err := e.open(to)
	if err != nil {
		tb.Fatalf("dbtest: %v", err)
	}
	defer func() { _ = db.Close() }() // there is nothing to flush
	var lent int
	err = db.QueryRowContext(ctx, "select count(*) from information_schema.tables where table_schema = database() "+
		"and table_name = '"+marker+"'").Scan(&lent)
	if err == nil && lent == 0 {
		if err = mysqltest.Clear(ctx, to); err == nil {
			err = mysqltest.Create(ctx, to, engine.Migrations(to))
		}
	}
	if _, seen := current.Load(to); err == nil && (lent == 0 || !seen) {
		if err = migrate(ctx, to); err == nil { // which does nothing where it has been done
			current.Store(to, nil)
		}
	}
	if err == nil && lent == 0 {
		_, err = db.ExecContext(ctx, "create table "+marker+" (id int primary key)")
	}
	if err == nil {
		err = e.clean(ctx, to)
	}
	if err != nil {
		tb.Fatalf("dbtest: take a database: %v", err)
	}
	return to
}

// dropMade drops all that was made where TEST_MYSQL_URL leads.
func dropMade() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	made.Lock()
	defer made.Unlock()
	var errs []error
	for _, name := range made.names {
		errs = append(errs, run(ctx, openMySQL, os.Getenv("TEST_MYSQL_URL"), "drop database "+name))
	}
	return errors.Join(errs...)
}

// run runs a statement where a URL leads.
func run(ctx context.Context, open func(url string) (*sql.DB, error), at, statement string) error {
	db, err := open(at)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // there is nothing to flush
	if _, err := db.ExecContext(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}

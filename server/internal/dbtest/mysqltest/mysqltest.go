// Package mysqltest provides tests with databases on a real server of the MySQL
// protocol: one server per test binary, one database per test.
//
//	func TestMain(m *testing.M) { mysqltest.Run(m) }
//
//	func TestSomething(t *testing.T) {
//		url := mysqltest.Database(t)
//		...
//	}
//
// The server is a MariaDB of this machine, a node of a Galera cluster with TEST_GALERA=1, or
// the MySQL of MYSQL_BIN, set up as one in production would be, unless TEST_MYSQL_URL leads
// to one whose user may create databases, or where TEST_MYSQL_DATABASES names some. Its URLs
// have the form that hosters hand out: mysql://user:password@host:port/database. A
// database cannot be copied here as with PostgreSQL: tests that want many with the
// same tables hand them on, cleared by [Empty].
//
// [Start] starts a server that a test may kill, [Galera] a cluster of three.
// Package need skips tests that were not requested.
package mysqltest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/need"
)

// patience limits every single step; none takes ten seconds on an idle machine.
const patience = 2 * time.Minute

// galera is the variable that makes the shared server a node of a cluster.
const galera = "TEST_GALERA"

var shared struct {
	sync.Mutex
	running bool // inside Run
	server  *Server
	close   func() error
	err     error // of the attempt to start server; it is not repeated
}

// Run runs the tests of m, then ends the shared server. It returns the exit code,
// which a TestMain that ends with Run need not heed. It panics if the server's
// folder does not go.
func Run(m *testing.M) int {
	shared.Lock()
	shared.running = true
	shared.Unlock()
	code := m.Run()
	shared.Lock()
	defer shared.Unlock()
	shared.running = false
	if shared.server != nil {
		if err := shared.close(); err != nil {
			panic(fmt.Errorf("mysqltest: %w", err))
		}
	}
	return code
}

// Shared returns the server of this test binary and starts it at the first call. It
// is for tests about the server itself; others use [Database], which honours
// TEST_MYSQL_URL. Do not stop it.
func Shared(tb testing.TB) *Server {
	tb.Helper()
	need.Server(tb, need.MySQL)
	shared.Lock()
	defer shared.Unlock()
	if !shared.running {
		tb.Fatal("mysqltest: no one would stop the server: call mysqltest.Run from TestMain")
	}
	if shared.server == nil && shared.err == nil {
		// Not the context of tb: the others who wait outlive it.
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		shared.server, shared.close, shared.err = launchShared(ctx)
	}
	if shared.err != nil {
		tb.Fatalf("mysqltest: %v", shared.err)
	}
	return shared.server
}

// launchShared starts a server or, with TEST_GALERA=1, a cluster, of whose nodes tests use
// the first: what is committed there has to pass the others.
func launchShared(ctx context.Context) (*Server, func() error, error) {
	if os.Getenv(galera) == "" {
		s, err := Launch(ctx, Options{})
		if err != nil {
			return nil, nil, err
		}
		return s, s.Close, nil
	}
	c := new(Cluster)
	// No test kills a node of it, and none is to be taken for dead while others have the processor.
	if err := c.start(ctx, Options{Settings: map[string]string{
		providerOptions: ";gmcast.peer_timeout=PT1M;evs.suspect_timeout=PT1M;evs.inactive_timeout=PT2M",
	}}); err != nil {
		return nil, nil, errors.Join(err, c.close())
	}
	return c.nodes[0].Server, c.close, nil
}

// URL returns the URL of the server where databases are created: that of
// TEST_MYSQL_URL, or of [Shared].
func URL(tb testing.TB) string {
	tb.Helper()
	need.Server(tb, need.MySQL)
	if external := os.Getenv("TEST_MYSQL_URL"); external != "" {
		return external
	}
	return Shared(tb).URL("")
}

// Database creates an empty database and returns its URL. It is dropped when tb ends,
// connections or not. Where databases have names, it clears one of these.
func Database(tb testing.TB) string {
	tb.Helper()
	if Named() {
		to := Take(tb, true)
		ctx, cancel := context.WithTimeout(tb.Context(), Turn)
		defer cancel()
		if err := Clear(ctx, to); err != nil {
			tb.Fatalf("mysqltest: %v", err)
		}
		return to
	}
	admin, name := URL(tb), "mysqltest_"+strings.ToLower(rand.Text())
	to, err := at(admin, name)
	if err != nil {
		tb.Fatalf("mysqltest: %v", err)
	}
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	if err := create(ctx, admin, name); err != nil {
		tb.Fatalf("mysqltest: %v", err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := drop(ctx, admin, name); err != nil {
			tb.Errorf("mysqltest: %v", err)
		}
	})
	return to
}

// Connect opens connections to the database of a URL and closes them when tb ends.
func Connect(tb testing.TB, url string) *sql.DB {
	tb.Helper()
	db, err := open(url)
	if err != nil {
		tb.Fatalf("mysqltest: %v", err)
	}
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Errorf("mysqltest: %v", err)
		}
	})
	return db
}

// Empty deletes the rows of every table of a database but those named, in one
// transaction unless the database may be sharded. To make tables takes many times as
// long, so tests hand databases on. With Vitess, the server below it deletes them, in
// every shard.
func Empty(ctx context.Context, url string, keep ...string) error {
	parts, err := shardsBelow(ctx, url)
	if err != nil {
		return fmt.Errorf("empty: %w", err)
	}
	for _, part := range parts {
		if err := empty(ctx, part, false, keep); err != nil {
			return err
		}
	}
	if len(parts) > 0 {
		return nil
	}
	return empty(ctx, url, Named(), keep)
}

func empty(ctx context.Context, url string, sharded bool, keep []string) error {
	db, err := open(url)
	if err != nil {
		return fmt.Errorf("empty: %w", err)
	}
	defer func() { _ = db.Close() }() // what matters is the commit
	tables, err := column(ctx, db,
		"select table_name from information_schema.tables where table_schema = database() and table_type = 'BASE TABLE'")
	if err != nil {
		return fmt.Errorf("empty: %w", err)
	}
	tables = slices.DeleteFunc(tables, func(table string) bool { return slices.Contains(keep, table) })
	if sharded {
		return emptyEach(ctx, db, tables)
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("empty: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after the commit it does nothing
	for _, table := range tables {
		if _, err := tx.ExecContext(ctx, "delete from "+quote(table)); err != nil {
			return fmt.Errorf("empty %s: %w", table, err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("empty: %w", err)
	}
	return nil
}

// emptyEach deletes rows table by table. A server that limits the rows of a statement
// refuses to delete more; tables are emptied otherwise then.
func emptyEach(ctx context.Context, db *sql.DB, tables []string) error {
	for _, table := range tables {
		_, err := db.ExecContext(ctx, "delete from "+quote(table))
		var refused *mysql.MySQLError
		if errors.As(err, &refused) {
			_, err = db.ExecContext(ctx, "truncate table "+quote(table))
		}
		if err != nil {
			return fmt.Errorf("empty %s: %w", table, err)
		}
	}
	return nil
}

// Script runs several statements in one session of a database.
func Script(ctx context.Context, url, text string) error {
	db, err := open(url)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // there is nothing to flush
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // there is nothing to flush
	for statement := range strings.SplitSeq(text, ";\n") {
		if strings.TrimSpace(statement) == "" {
			continue
		}
		if _, err := conn.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// at returns the URL of another database on the server of admin.
func at(admin, database string) (string, error) {
	u, err := url.Parse(admin)
	if err != nil || u.Scheme != "mysql" {
		return "", errors.New("TEST_MYSQL_URL has to begin with mysql://") // without its text: it holds a password
	}
	u.Path, u.RawPath = "/"+database, ""
	return u.String(), nil
}

func create(ctx context.Context, admin, name string) error {
	db, err := open(admin)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // there is nothing to flush
	if _, err := db.ExecContext(ctx, "create database "+quote(name)); err != nil {
		return fmt.Errorf("create database: %w", err)
	}
	return nil
}

// drop drops a database. An open transaction in it would stop that for as long as it
// lasts, so its connections go first.
func drop(ctx context.Context, admin, name string) error {
	db, err := open(admin)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // there is nothing to flush
	list, err := Processlist(ctx, db)
	if err != nil {
		return err
	}
	sessions, err := column(ctx, db, "select id from "+list+" p where db = ?", name)
	if err != nil {
		return fmt.Errorf("list the connections of a database: %w", err)
	}
	for _, id := range sessions {
		_ = Kill(ctx, db, id) // it may be gone
	}
	if _, err := db.ExecContext(ctx, "drop database if exists "+quote(name)); err != nil {
		return fmt.Errorf("drop database: %w", err)
	}
	return nil
}

// Processlist is the table of a server's sessions, for the clause from. What
// information_schema has is not to be relied on in MySQL: it fails while a session runs a
// statement with bytes that are no text. With Vitess, they are sessions of the MySQL server
// below it, each in the database of a shard.
func Processlist(ctx context.Context, db *sql.DB) (string, error) {
	p, err := productOf(ctx, db)
	switch p {
	case MariaDB:
		return "information_schema.processlist", err
	case Vitess:
		// A shard may see the name that it has there as that of the current database.
		return "(select id, user, if(regexp_replace(db, " + inShard + ") = regexp_replace(database(), " + inShard + "), " +
			"database(), regexp_replace(db, " + inShard + ")) as db, state, info from performance_schema.processlist)", err
	default:
		return "performance_schema.processlist", err
	}
}

// inShard are the arguments of regexp_replace that make the name of a database of Vitess
// of that of one of its shards below.
const inShard = `'^vt_(.*)_[^_]*$', '$1'`

// belowVariable is the URL of the MySQL server below Vitess.
const belowVariable = "TEST_VITESS_MYSQL"

// LockTable keeps everybody else from a table of db's database until the returned function
// is called, which tb ends with otherwise. The gateway of Vitess takes the statement for
// done and does nothing, so there the server below it locks the table, in every shard.
func LockTable(tb testing.TB, db *sql.DB, table string) (unlock func()) {
	tb.Helper()
	ctx, names := tb.Context(), []string{quote(table)}
	if below := os.Getenv(belowVariable); below != "" {
		var database string
		if err := db.QueryRowContext(ctx, "select database()").Scan(&database); err != nil {
			tb.Fatalf("mysqltest: lock %s: %v", table, err)
		}
		db = Connect(tb, below)
		var err error
		if names, err = column(ctx, db, "select concat('`', table_schema, '`.`', table_name, '`') from "+
			"information_schema.tables where table_name = ? and regexp_replace(table_schema, "+inShard+") = ?",
			table, database); err != nil || len(names) == 0 {
			tb.Fatalf("mysqltest: lock %s in the shards %q: %v", table, names, err)
		}
	}
	session, err := db.Conn(ctx)
	if err == nil {
		_, err = session.ExecContext(ctx, "lock tables "+strings.Join(names, " write, ")+" write")
	}
	if err != nil {
		tb.Fatalf("mysqltest: lock %s: %v", table, err)
	}
	unlock = sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		if _, err := session.ExecContext(ctx, "unlock tables"); err != nil {
			tb.Errorf("mysqltest: unlock %s: %v", table, err)
		}
		_ = session.Close() // back to the pool
	})
	tb.Cleanup(unlock)
	return unlock
}

// Others is a query for the ids of all other sessions of the current database. Those of
// the MySQL server below Vitess stay open for whoever is next; the ones that count are in
// a transaction that writes.
func Others(ctx context.Context, db *sql.DB) (string, error) {
	list, err := Processlist(ctx, db)
	if err != nil {
		return "", err
	}
	if p, err := productOf(ctx, db); p != Vitess {
		return "select id from " + list + " p where db = database() and id <> connection_id()", err
	}
	transactions, err := Transactions(ctx, db)
	return "select p.id from " + transactions + " t join " + list + " p on p.id = t.session_id " +
		"where p.db = database() and t.writes", err
}

// Kill ends a session that [Processlist] has.
func Kill(ctx context.Context, db interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}, session string,
) error {
	if below := os.Getenv(belowVariable); below != "" {
		own, err := open(below)
		if err != nil {
			return err
		}
		defer func() { _ = own.Close() }() // there is nothing to flush
		db = own
	}
	_, err := db.ExecContext(ctx, "kill "+session)
	return err
}

// Transactions is a table of the transactions that are open in a server, for the clause
// from: the id of the session, the name of the transaction, and whether it has locked
// rows in order to write.
func Transactions(ctx context.Context, db *sql.DB) (string, error) {
	p, err := productOf(ctx, db)
	if p == MariaDB {
		return `(select trx_mysql_thread_id as session_id, concat(trx_id, ' since ', trx_started) as name,
			trx_rows_modified > 0 as writes from information_schema.innodb_trx)`, err
	}
	return `(select s.processlist_id as session_id, concat(e.event_id, ' since ', e.timer_start) as name,
		exists (select 1 from performance_schema.data_locks l where l.thread_id = s.thread_id and l.lock_mode = 'IX')
			as writes
		from performance_schema.events_transactions_current e join performance_schema.threads s on s.thread_id = e.thread_id
		where e.state = 'ACTIVE')`, err
}

// IsMariaDB reports whether a server is MariaDB's.
func IsMariaDB(ctx context.Context, db *sql.DB) (bool, error) {
	p, err := productOf(ctx, db)
	return p == MariaDB, err
}

// IsVitess reports whether a server is Vitess' gateway.
func IsVitess(ctx context.Context, db *sql.DB) (bool, error) {
	p, err := productOf(ctx, db)
	return p == Vitess, err
}

// column returns the only column of a query's result.
func column(ctx context.Context, db *sql.DB, query string, args ...any) (values []string, err error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var v string
		if err := rows.Scan(&v); err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, rows.Err()
}

func quote(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

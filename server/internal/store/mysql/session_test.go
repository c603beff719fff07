package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	gomysql "github.com/go-sql-driver/mysql"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql/dbq"
)

// Statements with long values are prepared once for each connection, and again
// where the connection, or what the server knows, is another.
func TestLongValuesArePreparedOnce(t *testing.T) {
	t.Parallel()
	mysqltest.Need(t, mysqltest.Counters)
	url := mysqltest.Database(t)
	if err := Migrate(t.Context(), url, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatalf("Migrate = %v", err)
	}
	s, err := Open(t.Context(), Config{URL: url, MaxConns: 1})
	if err != nil {
		t.Fatalf("Open = %v", err)
	}
	defer s.Close()
	write := func(content string) error {
		_, err := s.db.ExecContext(t.Context(),
			`insert into mirror_document values (1, 'p', 'r', 2, '', 1, ?, '', 0, 1, null, '', '', null)
			on duplicate key update content = values(content)`, []byte(content))
		return err
	}
	status := func(name string) (n int) {
		t.Helper()
		if err := s.db.QueryRowContext(t.Context(), "show session status like '"+name+"'").Scan(&name, &n); err != nil {
			t.Fatalf("%s = %v", name, err)
		}
		return n
	}
	// Nothing of these may be taken for text.
	var every []byte
	for b := range 256 {
		every = append(every, byte(b), '\\', '\'', byte(b), 0xff)
	}
	want := func(name string, n int) {
		t.Helper()
		if got := status(name); got != n {
			t.Fatalf("%s = %d; want %d", name, got, n)
		}
	}
	for i, content := range []string{
		string(every), strings.Repeat(string(every), 10),
		strings.Repeat(string(every), 1000), strings.Repeat(string(every), 4000), strings.Repeat("a", longValue-1),
	} {
		if err := write(content); err != nil {
			t.Fatalf("write %d = %v", i, err)
		}
		var got string
		if err := s.db.QueryRowContext(t.Context(), "select content from mirror_document").Scan(&got); err != nil ||
			got != content {
			t.Fatalf("content %d = %d bytes, %v; want the %d written", i, len(got), err, len(content))
		}
	}
	want("Com_stmt_prepare", 1)
	want("Com_stmt_execute", 3)

	// The table is altered under it.
	long := strings.Repeat(string(every), 10)
	db := mysqltest.Connect(t, url)
	for _, text := range []string{
		"alter table mirror_document add column more int",
		"alter table mirror_document drop column more",
	} {
		if _, err := db.ExecContext(t.Context(), text); err != nil {
			t.Fatalf("%s = %v", text, err)
		}
	}
	if err := write(long); err != nil {
		t.Fatalf("write after the table was altered = %v", err)
	}

	// What fails is prepared anew. The server may have counted what it did for the
	// altered table.
	prepared := status("Com_stmt_prepare")
	refused := func() {
		t.Helper()
		if _, err := s.db.ExecContext(t.Context(), "update mirror_document set project_id = ?", long); number(err) != 1406 {
			t.Fatalf("update with a value that is too long = %v; want it refused", err)
		}
	}
	refused()
	refused()
	want("Com_stmt_prepare", prepared+2)
	want("Com_stmt_close", 2)

	// Another connection knows nothing of it.
	var id int
	if err := s.db.QueryRowContext(t.Context(), "select connection_id()").Scan(&id); err != nil {
		t.Fatalf("connection_id = %v", err)
	}
	if _, err := db.ExecContext(t.Context(), fmt.Sprintf("kill %d", id)); err != nil {
		t.Fatalf("kill = %v", err)
	}
	if err := retry(t.Context(), func() error { return write(long) }); err != nil {
		t.Fatalf("write on another connection = %v", err)
	}
	want("Com_stmt_prepare", 1)
	want("Com_stmt_execute", 1)
}

// forgetful has forgotten each statement at its second use, as a proxy may that
// leads to another server then.
type forgetful struct {
	serverConn
	prepared, closed int
}

func (f *forgetful) PrepareContext(context.Context, string) (driver.Stmt, error) {
	f.prepared++
	return &forgotten{conn: f}, nil
}

type forgotten struct {
	driver.Stmt
	conn *forgetful
	used int
}

func (f *forgotten) ExecContext(context.Context, []driver.NamedValue) (driver.Result, error) {
	if f.used++; f.used == 2 {
		return nil, &gomysql.MySQLError{Number: 1243}
	}
	return driver.RowsAffected(1), nil
}

func (f *forgotten) Close() error {
	f.conn.closed++
	return nil
}

func TestForgottenStatementIsPreparedAnew(t *testing.T) {
	t.Parallel()
	f := &forgetful{}
	s := &session{serverConn: f, kept: make(map[string]driver.Stmt), current: new(atomic.Uint64)}
	args := []driver.NamedValue{{Ordinal: 1, Value: strings.Repeat("x", longValue)}}
	for i := range 3 {
		err := retry(t.Context(), func() error {
			_, err := s.ExecContext(t.Context(), "update t set a = ?", args)
			return err
		})
		if err != nil {
			t.Fatalf("ExecContext %d = %v; want it done", i, err)
		}
	}
	if f.prepared != 3 || f.closed != 2 {
		t.Fatalf("prepared %d times, closed %d; want 3 and 2", f.prepared, f.closed)
	}
}

// late is a gateway of Vitess that knows a new column when it is asked for the third time.
type late struct {
	serverConn
	asked int
}

func (l *late) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	if l.asked++; l.asked < 3 {
		return nil, &gomysql.MySQLError{Number: 1054, Message: []string{
			1: "column 'b' not found in table 't'", 2: "column 't.b' not found", // of an insert from a select
		}[l.asked]}
	}
	return driver.RowsAffected(1), nil
}

func TestMigrationWaitsForNewColumns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &late{}
		c := repeatingConn{&session{serverConn: l, current: new(atomic.Uint64)}}
		if _, err := c.ExecContext(t.Context(), "update t set b = 1", nil); err != nil || l.asked != 3 {
			t.Errorf("ExecContext = %v, asked %d times; want it done at the third", err, l.asked)
		}
		l.asked = 0
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.ExecContext(ctx, "update t set b = 1", nil); number(err) != 1054 {
			t.Errorf("ExecContext of a caller who has left = %v; want the server's answer", err)
		}
	})
}

// A directive is where Vitess looks for it, behind the hints of MySQL, and other statements
// have none.
func TestAlone(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"select 1": "select /*vt+ CONSOLIDATOR=disabled */ 1",
		"-- name: Heads :many\nselect n from t where a = 'select'": "-- name: Heads :many\n" +
			"select /*vt+ CONSOLIDATOR=disabled */ n from t where a = 'select'",
		"/*M! set statement x = 1 for */ select /*+ MAX_EXECUTION_TIME(9) */ n from t": "/*M! set statement x = 1 for */ " +
			"select /*+ MAX_EXECUTION_TIME(9) */ /*vt+ CONSOLIDATOR=disabled */ n from t",
		"insert into t select 1":          "insert into t select 1",
		"(select 1) union all (select 2)": "(select /*vt+ CONSOLIDATOR=disabled */ 1) union all (select 2)",
		"/* a */ (select /*+ MAX_EXECUTION_TIME(9) */ 1) union (select 2)": "/* a */ (select /*+ MAX_EXECUTION_TIME(9) */ " +
			"/*vt+ CONSOLIDATOR=disabled */ 1) union (select 2)",
		"/* a */ insert into t /* b */ select 1": "/* a */ insert into t /* b */ select 1",
		"-- select\nupdate t set a = 1":          "-- select\nupdate t set a = 1",
		"selected":                               "selected",
	} {
		if got := alone(text); got != want {
			t.Errorf("alone(%q) = %q; want %q", text, got, want)
		}
	}
}

// A transaction that the server has ended is over, whatever the code in it goes on to do, or
// makes of the error.
func TestEndedTransactionSendsNothing(t *testing.T) {
	t.Parallel()
	mysqltest.Need(t, mysqltest.OneShard)
	s, err := Open(t.Context(), Config{URL: mysqltest.Database(t), MaxConns: 1})
	if err != nil {
		t.Fatalf("Open = %v", err)
	}
	defer s.Close()
	if _, err := s.db.ExecContext(t.Context(), "create table note (id int primary key)"); err != nil {
		t.Fatalf("create table = %v", err)
	}
	runs := 0
	err = s.once(t.Context(), s.db, func(q *queries) error {
		runs++
		const deadlock = "signal sqlstate '40001' set mysql_errno = 1213"
		if _, err := q.db.ExecContext(t.Context(), deadlock); number(err) != 1213 {
			t.Errorf("deadlock = %v; want 1213", err)
		}
		if _, err := q.db.ExecContext(t.Context(), "insert into note values (1)"); number(err) != 1213 {
			t.Errorf("statement after a deadlock = %v; want 1213", err)
		}
		err := q.query(t.Context(), "select 1", nil, func(*sql.Rows) error { return nil })
		if number(err) != 1213 {
			t.Errorf("query after a deadlock = %v; want 1213", err)
		}
		var n int
		if err := q.db.QueryRowContext(t.Context(), "select 1").Scan(&n); err == nil {
			t.Error("query of a row after a deadlock went through")
		}
		return nil
	})
	if number(err) != 1213 || runs != 1 {
		t.Errorf("once = %v after %d runs; want 1213", err, runs)
	}
}

// failing is a server that refuses each login.
type failing struct {
	driver.Connector

	err    error
	logins int
}

func (f *failing) Connect(context.Context) (driver.Conn, error) {
	f.logins++
	return nil, f.err
}

// Vitess asks any shard while it opens a session, so another attempt can succeed, and a shard
// that takes no writes says nothing of the others.
func TestErrorsOfAShard(t *testing.T) {
	t.Parallel()
	const shard = "target: mirror.40-80.primary: vttablet: rpc error"
	for _, c := range []struct {
		err    error
		logins int
		era    uint64
	}{
		{&gomysql.MySQLError{Number: 1105, Message: shard}, shardAttempts, 0},
		{&gomysql.MySQLError{Number: 1290, Message: shard}, shardAttempts, 0},
		{&gomysql.MySQLError{Number: 1105, Message: "unknown error"}, 1, 0},
		{&gomysql.MySQLError{Number: 1290, Message: "the server is read-only"}, 1, 1},
		{&gomysql.MySQLError{Number: 1045, Message: "Access denied"}, 1, 0},
		{driver.ErrBadConn, 1, 0},
	} {
		f := &failing{err: c.err}
		if _, err := (&connector{Connector: f}).Connect(t.Context()); !errors.Is(err, c.err) || f.logins != c.logins {
			t.Errorf("Connect = %v after %d logins; want %v after %d", err, f.logins, c.err, c.logins)
		}
		s := &session{current: new(atomic.Uint64)}
		if _ = s.observe(c.err); s.current.Load() != c.era {
			t.Errorf("the era after %v is %d; want %d", c.err, s.current.Load(), c.era)
		}
	}
}

// The first search for due work is one of all shards.
func TestDueAsksAllShards(t *testing.T) {
	t.Parallel()
	const partly = "SCATTER_ERRORS_AS_WARNINGS"
	due := func(wrap func(dbq.DBTX) dbq.DBTX) string {
		record := &recorder{}
		func() {
			defer func() { _ = recover() }() // of a scan of the rows that are not there
			_, _ = dbq.New(wrap(record)).Due(t.Context(), dbq.DueParams{Kinds: []int16{1}, KindsToo: []int16{1}})
		}()
		return record.text
	}
	all := due(func(db dbq.DBTX) dbq.DBTX { return allShards{db} })
	some := due(func(db dbq.DBTX) dbq.DBTX { return db })
	if strings.Count(some, partly) != 2 || strings.Contains(all, partly) || !strings.Contains(all, "due_time") {
		t.Errorf("all shards are asked by %q, and some by %q", all, some)
	}
}

package mysqltest_test

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
)

// withServer runs the tests around the life of the shared server.
type withServer struct{ m *testing.M }

func (s withServer) Run() int { return mysqltest.Run(s.m) }

// holdDir makes the test binary a process that holds a server in the folder it names.
const holdDir = "MYSQLTEST_HOLD"

func TestMain(m *testing.M) {
	dir := os.Getenv(holdDir)
	if dir == "" {
		goleak.VerifyTestMain(withServer{m})
		return
	}
	if err := hold(dir); err != nil {
		panic(err)
	}
}

// hold starts a server, says where it is, and waits to be killed.
func hold(dir string) error {
	s, err := mysqltest.Launch(context.Background(), mysqltest.Options{Dir: dir})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(os.Stdout, s.URL("")); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// databases is how many databases there are of the name.
func databases(t *testing.T, name string) int {
	t.Helper()
	return value[int](t, mysqltest.URL(t), "select count(*) from information_schema.schemata where schema_name = ?", name)
}

func mustExec(t *testing.T, url, query string, args ...any) {
	t.Helper()
	if _, err := mysqltest.Connect(t, url).ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s = %v", query, err)
	}
}

func value[V any](t *testing.T, url, query string, args ...any) (v V) {
	t.Helper()
	if err := mysqltest.Connect(t, url).QueryRowContext(t.Context(), query, args...).Scan(&v); err != nil {
		t.Fatalf("%s = %v", query, err)
	}
	return v
}

// begin does something in a transaction that stays open.
func begin(t *testing.T, url, query string) *sql.Tx {
	t.Helper()
	tx, err := mysqltest.Connect(t, url).BeginTx(context.Background(), nil)
	if err != nil {
		t.Fatalf("BeginTx = %v", err)
	}
	if _, err := tx.ExecContext(t.Context(), query); err != nil {
		t.Fatalf("%s = %v", query, err)
	}
	return tx
}

func TestDatabaseIsEmptyAndDropped(t *testing.T) {
	t.Parallel()
	var name string
	var leftOpen *sql.Tx // which does not keep the database
	t.Cleanup(func() {
		if leftOpen != nil {
			_ = leftOpen.Rollback()
		}
	})
	t.Run("use", func(t *testing.T) {
		a, b := mysqltest.Database(t), mysqltest.Database(t)
		mustExec(t, a, "create table note (id int primary key)")
		if n := value[int](t, b, "select count(*) from information_schema.tables where table_schema = database()"); n != 0 {
			t.Fatalf("tables in the database of another test = %d; want 0", n)
		}
		name = value[string](t, a, "select database()")
		if n := databases(t, name); n != 1 {
			t.Fatalf("databases called %s = %d; want 1", name, n)
		}
		leftOpen = begin(t, a, "insert into note values (1)")
	})
	if n := databases(t, name); n != 0 {
		t.Fatalf("databases called %s after the test = %d; want 0", name, n)
	}
}

func TestEmpty(t *testing.T) {
	t.Parallel()
	url := mysqltest.Database(t)
	for _, query := range []string{
		"create table note (id int)", "create table head (id int)", "create view notes as select id from note",
		"insert into note values (1), (2)", "insert into head values (3)",
	} {
		mustExec(t, url, query)
	}
	if err := mysqltest.Empty(t.Context(), url, "head"); err != nil {
		t.Fatalf("Empty = %v", err)
	}
	if notes, heads := value[int](t, url, "select count(*) from notes"),
		value[int](t, url, "select count(*) from head"); notes != 0 || heads != 1 {
		t.Fatalf("rows left = %d, and %d in the table to keep; want 0 and 1", notes, heads)
	}
}

// What was committed is there after a crash, on the same port, and what was not is
// not.
func TestKilledServerKeepsWhatWasCommitted(t *testing.T) {
	t.Parallel()
	s := mysqltest.Start(t, mysqltest.Options{Settings: map[string]string{"max_allowed_packet": "1M"}})
	url := s.Database(t, "app")
	mustExec(t, url, "create table note (id int primary key)")
	mustExec(t, url, "insert into note values (1)")
	tx := begin(t, url, "insert into note values (2)")

	pid := s.Pid()
	s.Kill()
	_ = tx.Rollback() // it has nowhere to go
	if s.Pid() != 0 {
		t.Fatalf("Pid after Kill = %d; want 0", s.Pid())
	}
	if err := mysqltest.Connect(t, url).PingContext(t.Context()); err == nil {
		t.Fatal("a killed server takes connections")
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatalf("Restart after Kill = %v", err)
	}
	if s.Pid() == 0 || s.Pid() == pid {
		t.Fatalf("Pid after Restart = %d; want a new one", s.Pid())
	}
	mustExec(t, url, "insert into note values (3)")
	if got := value[string](t, url, "select group_concat(id order by id) from note"); got != "1,3" {
		t.Fatalf("rows after Kill = %s; want 1,3", got)
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Fatalf("Stop = %v", err)
	}
	if err := s.Restart(ctx); err != nil {
		t.Fatalf("Restart after Stop = %v", err)
	}
	if got := value[int](t, url, "select @@max_allowed_packet"); got != 1<<20 {
		t.Fatalf("max_allowed_packet = %d; want the one asked for", got)
	}
}

// A commit on one node is on all of them, also on one that was dead at the time, and
// outlives the end of all.
func TestCluster(t *testing.T) {
	t.Parallel()
	c := mysqltest.Galera(t, mysqltest.Options{})
	c.Node(0).Database(t, "app")
	mustExec(t, c.Node(0).URL("app"), "create table note (id int primary key)")
	for i := range 3 {
		mustExec(t, c.Node(i).URL("app"), "set statement wsrep_sync_wait = 7 for insert into note values (?)", i)
	}
	wantNotes(t, c, "0,1,2")

	c.Node(1).Kill()
	mustExec(t, c.Node(0).URL("app"), "insert into note values (3)")
	c.WaitSize(t, 2)
	mustExec(t, c.Node(2).URL("app"), "insert into note values (4)")
	if err := c.Node(1).Restart(t.Context()); err != nil {
		t.Fatalf("Restart of a node = %v", err)
	}
	c.WaitSize(t, 3)
	wantNotes(t, c, "0,1,2,3,4")

	c.Kill()
	if err := c.Restart(t.Context()); err != nil {
		t.Fatalf("Restart of the cluster = %v", err)
	}
	c.WaitSize(t, 3)
	mustExec(t, c.Node(1).URL("app"), "insert into note values (5)")
	wantNotes(t, c, "0,1,2,3,4,5")
}

// wantNotes compares what is on every node once it has applied what any of them has
// acknowledged.
func wantNotes(t *testing.T, c *mysqltest.Cluster, want string) {
	t.Helper()
	for i := range 3 {
		got := value[string](t, c.Node(i).URL("app"),
			"set statement wsrep_sync_wait = 1 for select group_concat(id order by id) from note")
		if got != want {
			t.Errorf("rows on node %d = %s; want %s", i, got, want)
		}
	}
}

package dbtest_test

import (
	"bytes"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
)

// withServers runs the tests around the lives of the shared servers.
type withServers struct{ m *testing.M }

func (s withServers) Run() int { return dbtest.Run(s.m) }

func TestMain(m *testing.M) { goleak.VerifyTestMain(withServers{m}) }

// pin is the one row that the tests here write.
const pin = "insert into mirror_project (project_id, liveblocks_project_id, pause_reason, pause_time) values (?, " +
	"?, ?, ?)"

func value[V any](t *testing.T, db *dbtest.DB, query string, args ...any) V {
	t.Helper()
	v, err := dbtest.Value[V](t.Context(), db, query, args...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// A database has its schema and no rows, also where another test has had it before.
func TestDatabaseIsCleanEachTime(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		for range 3 {
			t.Run("one after the other", func(t *testing.T) {
				db := e.Connect(t, e.Database(t))
				if n := value[int](t, db, "select count(*) from mirror_project"); n != 0 {
					t.Fatalf("rows in a database that was just handed out = %d; want 0", n)
				}
				if _, err := db.Exec(t.Context(), pin, "p", "", "", nil); err != nil {
					t.Fatal(err)
				}
			})
		}
	})
}

// What a statement of a test means is the same everywhere.
func TestSQLIsTheSame(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		db := e.Connect(t, e.Database(t))
		at := time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)
		for _, id := range []string{"a", "A", "a ", "b"} {
			if n, err := db.Exec(t.Context(), pin, id, "it's "+id, "", at); err != nil || n != 1 {
				t.Fatalf("insert = %d, %v; want one row", n, err)
			}
		}
		if got := value[time.Time](t, db, "select pause_time from mirror_project where project_id = ?", "a"); !got.Equal(at) {
			t.Errorf("time = %v; want %v", got, at)
		}
		if got := value[[]byte](t, db, "select liveblocks_project_id from mirror_project where project_id = ?",
			"a "); !bytes.Equal(got, []byte("it's a ")) {
			t.Errorf("text = %q; want that of the same id", got)
		}
		in, args := dbtest.In([]string{"a", "a ", "x"})
		var ids []string
		err := db.Each(t.Context(), "select project_id, pause_time is null from mirror_project where project_id in "+in+
			" order by project_id",
			func(scan func(dest ...any) error) error {
				var id string
				var null bool
				if err := scan(&id, &null); err != nil || null {
					t.Errorf("row of %q: pause_time is null: %v, %v", id, null, err)
				}
				ids = append(ids, id)
				return nil
			}, args...)
		if err != nil || len(ids) != 2 || ids[0] != "a" || ids[1] != "a " {
			t.Errorf("rows = %q, %v; want those of the list, which are bytes", ids, err)
		}
		if n := value[int](t, db, "select count(*) from information_schema.tables where table_schema = "+e.Schema+
			" and table_name = 'mirror_event'"); n != 1 {
			t.Errorf("tables called mirror_event in the schema = %d; want 1", n)
		}
		if db := e.Connect(t, e.Empty(t)); value[int](t, db,
			"select count(*) from information_schema.tables where table_schema = "+e.Schema) != 0 {
			t.Error("an empty database has tables")
		}
	})
}

func TestServerComesBack(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		s := e.Server(t)
		db := e.Connect(t, s.URL)
		if _, err := db.Exec(t.Context(), pin, "p", "", "", nil); err != nil {
			t.Fatal(err)
		}
		s.Kill(t)
		s.Restart(t)
		// The connection of before may still be in the pool.
		deadline := time.After(time.Minute)
		for {
			n, err := dbtest.Value[int](t.Context(), db, "select count(*) from mirror_project")
			if err == nil && n == 1 {
				return
			}
			select {
			case <-deadline:
				t.Fatalf("rows after a crash = %d, %v; want 1", n, err)
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
}

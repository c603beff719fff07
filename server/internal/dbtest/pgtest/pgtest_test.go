package pgtest_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/pgtest"
)

func TestMain(m *testing.M) { pgtest.Run(m) }

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatalf("Connect = %v", err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// databases is how many databases of pgtest have the name.
func databases(t *testing.T, name string) (n int) {
	t.Helper()
	if err := connect(t, pgtest.URL(t)).QueryRow(t.Context(), "select count(*) from pg_database where datname = $1",
		name).Scan(&n); err != nil {
		t.Fatalf("count databases = %v", err)
	}
	return n
}

func TestDatabaseIsEmptyAndDropped(t *testing.T) {
	t.Parallel()
	var name string
	t.Run("use", func(t *testing.T) {
		a, b := connect(t, pgtest.Database(t)), connect(t, pgtest.Database(t))
		if _, err := a.Exec(t.Context(), "create table note (id int)"); err != nil {
			t.Fatalf("create table = %v", err)
		}
		var inB bool
		if err := b.QueryRow(t.Context(), "select to_regclass('note') is not null").Scan(&inB); err != nil || inB {
			t.Fatalf("table of one test in the database of another = %v, %v; want false", inB, err)
		}
		if err := a.QueryRow(t.Context(), "select current_database()").Scan(&name); err != nil {
			t.Fatalf("current_database = %v", err)
		}
		if n := databases(t, name); n != 1 {
			t.Fatalf("databases called %s = %d; want 1", name, n)
		}
	})
	if n := databases(t, name); n != 0 {
		t.Fatalf("databases called %s after the test = %d; want 0", name, n)
	}
}

func TestCloneOfTemplate(t *testing.T) {
	t.Parallel()
	filled := 0
	fill := func(ctx context.Context, url string) error {
		filled++
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, "create table note (id int); insert into note values (7)")
		return errors.Join(err, conn.Close(ctx))
	}
	for range 2 {
		conn := connect(t, pgtest.Clone(t, pgtest.Template(t, "notes", fill)))
		var sum int
		if err := conn.QueryRow(t.Context(),
			"insert into note values (1) returning (select sum(id) from note)").Scan(&sum); err != nil || sum != 7 {
			t.Fatalf("sum in clone = %d, %v; want 7: a clone sees the template alone", sum, err)
		}
	}
	if filled != 1 {
		t.Fatalf("template filled %d times; want 1", filled)
	}
}

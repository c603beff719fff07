package postgres_test

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/pgtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/storetest"
)

// withServer runs the tests around the life of the shared server.
type withServer struct{ m *testing.M }

func (s withServer) Run() int { return pgtest.Run(s.m) }

func TestMain(m *testing.M) { goleak.VerifyTestMain(withServer{m}) }

// needServer leaves a test out where -short asks for tests without databases.
func needServer(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("NOT RUN: -short leaves out what needs a PostgreSQL server; run without it before a merge")
	}
}

// emptyDatabase returns the URL of a database without a schema.
func emptyDatabase(t testing.TB) string {
	t.Helper()
	needServer(t)
	return pgtest.Database(t)
}

// migratedDatabase returns the URL of a database with the current schema.
func migratedDatabase(t testing.TB) string {
	t.Helper()
	needServer(t)
	return pgtest.Clone(t, pgtest.Template(t, "postgres", func(ctx context.Context, url string) error {
		return postgres.Migrate(ctx, url, slog.New(slog.DiscardHandler))
	}))
}

// databases lends databases with the current schema and nothing in it. To make
// one takes a hundred times as long as to empty one, so they are handed on, from
// tests that passed.
type databases struct {
	parent testing.TB
	mu     sync.Mutex
	free   []string
}

func (d *databases) lend(t testing.TB) string {
	t.Helper()
	d.mu.Lock()
	var url string
	if n := len(d.free); n > 0 {
		url, d.free = d.free[n-1], d.free[:n-1]
	}
	d.mu.Unlock()
	if url == "" {
		url = migratedDatabase(d.parent)
	}
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		if err := empty(context.Background(), url); err != nil {
			t.Errorf("empty database = %v", err)
			return
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.free = append(d.free, url)
	})
	return url
}

// empty undoes whatever a store can have written.
func empty(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, `do $$
		declare name text;
		begin
			for name in select tablename from pg_tables
				where tablename like 'mirror\_%' and tablename not like 'mirror\_schema\_%' and tablename <> 'mirror_feed_head'
			loop
				execute format('delete from %I', name);
			end loop;
			update mirror_feed_head set n = 0 where n > 0;
		end $$`)
	return err
}

// open opens a store that is closed when t ends.
func open(t storetest.T, cfg postgres.Config) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open = %v", err)
	}
	t.Cleanup(s.Close)
	return s
}

// connect opens a connection of its own to a database.
func connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatalf("Connect = %v", err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func mustExec(t testing.TB, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s = %v", sql, err)
	}
}

// value reads one value.
func value[V any](t testing.TB, conn *pgx.Conn, sql string, args ...any) (v V) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s = %v", sql, err)
	}
	return v
}

// journal keeps what is logged.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

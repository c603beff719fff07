package postgres_test

import (
	"cmp"
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/storetest"
)

// withServer runs the tests around the life of the shared server.
type withServer struct{ m *testing.M }

func (s withServer) Run() int { return dbtest.Run(s.m) }

func TestMain(m *testing.M) { goleak.VerifyTestMain(withServer{m}) }

// open opens a store that is closed when t ends.
func open(t storetest.T, cfg postgres.Config) *postgres.Store {
	t.Helper()
	cfg.MaxConns = cmp.Or(cfg.MaxConns, 16)
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

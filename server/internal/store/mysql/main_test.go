package mysql_test

import (
	"bytes"
	"context"
	"database/sql"
	"log/slog"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/storetest"
)

// withServer runs the tests around the life of the shared server.
type withServer struct{ m *testing.M }

func (s withServer) Run() int { return mysqltest.Run(s.m) }

func TestMain(m *testing.M) { goleak.VerifyTestMain(withServer{m}) }

// needServer leaves a test out where -short asks for tests without databases.
func needServer(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("NOT RUN: -short leaves out what needs a MariaDB server; run without it before a merge")
	}
}

// emptyDatabase returns the URL of a database without a schema.
func emptyDatabase(t testing.TB) string {
	t.Helper()
	needServer(t)
	return mysqltest.Database(t)
}

// migratedDatabase returns the URL of a database with the current schema.
func migratedDatabase(t testing.TB) string {
	t.Helper()
	url := emptyDatabase(t)
	if err := mysql.Migrate(context.Background(), url, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatalf("Migrate = %v", err)
	}
	return url
}

// databases lends databases with the current schema and nothing in it. To make
// one takes many times as long as to empty one, so they are handed on, from
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
		if err := mysqltest.Empty(context.Background(), url, "mirror_schema_version", "mirror_schema_lock"); err != nil {
			t.Errorf("empty database = %v", err)
			return
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.free = append(d.free, url)
	})
	return url
}

// open opens a store that is closed when t ends.
func open(t storetest.T, cfg mysql.Config) *mysql.Store {
	t.Helper()
	s, err := mysql.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open = %v", err)
	}
	t.Cleanup(s.Close)
	return s
}

func mustExec(t testing.TB, db *sql.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s = %v", query, err)
	}
}

// value reads one value.
func value[V any](t testing.TB, db *sql.DB, query string, args ...any) (v V) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), query, args...).Scan(&v); err != nil {
		t.Fatalf("%s = %v", query, err)
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

// requestsFor asks for the resources, at once.
func requestsFor(resources ...mirror.Resource) []mirror.Request {
	var requests []mirror.Request
	for _, r := range resources {
		requests = append(requests, mirror.Request{Resource: r})
	}
	return requests
}

package mysql_test

import (
	"cmp"
	"database/sql"
	"testing"

	"go.uber.org/goleak"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/storetest"
)

// withServer runs the tests around the life of the shared server.
type withServer struct{ m *testing.M }

func (s withServer) Run() int { return dbtest.Run(s.m) }

func TestMain(m *testing.M) { goleak.VerifyTestMain(withServer{m}) }

// open opens a store that is closed when t ends.
func open(t storetest.T, cfg mysql.Config) *mysql.Store {
	t.Helper()
	cfg.MaxConns = cmp.Or(cfg.MaxConns, 16)
	s, err := mysql.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open = %v", err)
	}
	t.Cleanup(s.Close)
	return s
}

// value reads one value.
func value[V any](t testing.TB, db *sql.DB, query string, args ...any) (v V) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), query, args...).Scan(&v); err != nil {
		t.Fatalf("%s = %v", query, err)
	}
	return v
}

// requestsFor asks for the resources, at once.
func requestsFor(resources ...mirror.Resource) []mirror.Request {
	var requests []mirror.Request
	for _, r := range resources {
		requests = append(requests, mirror.Request{Resource: r})
	}
	return requests
}

package engine_test

import (
	"bytes"
	"cmp"
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/storetest"
)

// withServers runs the tests around the lives of the shared servers.
type withServers struct{ m *testing.M }

func (s withServers) Run() int { return dbtest.Run(s.m) }

func TestMain(m *testing.M) {
	dbtest.Parallel(4)
	goleak.VerifyTestMain(withServers{m})
}

var testTime = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// open opens a store that is closed when t ends.
func open(t storetest.T, cfg engine.Config) store.Store {
	t.Helper()
	cfg.MaxConns = cmp.Or(cfg.MaxConns, 16)
	s, err := engine.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open = %v", err)
	}
	t.Cleanup(s.Close)
	return s
}

// migrate brings the schema of a database up to date and returns what was logged.
func migrate(t *testing.T, url string) string {
	t.Helper()
	var log journal
	if err := engine.Migrate(t.Context(), url, log.logger()); err != nil {
		t.Fatalf("Migrate = %v", err)
	}
	return log.String()
}

func mustExec(t testing.TB, db *dbtest.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.Exec(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

// value reads one value.
func value[V any](t testing.TB, db *dbtest.DB, query string, args ...any) V {
	t.Helper()
	v, err := dbtest.Value[V](t.Context(), db, query, args...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// eventually waits until done is true.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s does not come", what)
		case <-tick.C:
		}
	}
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

// deliveryOf is an event that makes resources stale.
func deliveryOf(id string, resources ...mirror.Resource) mirror.Delivery {
	d := mirror.Delivery{Event: mirror.Event{Project: "default", ID: id, ReceiveTime: testTime, SendTime: testTime}}
	for _, r := range resources {
		d.Event.Room = r.Room
		d.Invalidations = append(d.Invalidations, mirror.Invalidation{Resource: r})
	}
	return d
}

// requestsFor asks for resources, at once.
func requestsFor(resources ...mirror.Resource) []mirror.Request {
	var requests []mirror.Request
	for _, r := range resources {
		requests = append(requests, mirror.Request{Resource: r})
	}
	return requests
}

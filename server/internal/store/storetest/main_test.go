package storetest

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
)

// withServers runs the tests around the lives of the shared servers.
type withServers struct{ m *testing.M }

func (s withServers) Run() int { return dbtest.Run(s.m) }

func TestMain(m *testing.M) { goleak.VerifyTestMain(withServers{m}) }

// recorder is a T that keeps the failures of a case to itself.
type recorder struct {
	t        *testing.T
	ctx      context.Context //nolint:containedctx // a test has one too
	mu       sync.Mutex
	failures []string
	cleanups []func()
}

func (r *recorder) Helper()                         {}
func (r *recorder) Context() context.Context        { return r.ctx }
func (r *recorder) TempDir() string                 { return r.t.TempDir() }
func (r *recorder) Logf(format string, args ...any) { r.t.Logf(format, args...) }
func (r *recorder) Cleanup(f func())                { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Fatalf(f string, args ...any)    { r.Errorf(f, args...); runtime.Goexit() }
func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

// record runs a case and returns its failures. A case that does not end fails.
func record(t *testing.T, c testCase, db Database) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r := &recorder{t: t, ctx: ctx}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			for _, f := range r.cleanups {
				f()
			}
		}()
		defer func() {
			if p := recover(); p != nil {
				r.Errorf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		c.run(newEnv(r, db))
	}()
	<-done
	return r.failures
}

// database is a fresh one of an engine that the suite is tried on, and a way past
// the contract to the rows.
type database struct {
	url string
	sql *dbtest.DB
}

func newDatabase(t *testing.T, e *dbtest.Engine) database {
	t.Helper()
	url := e.Database(t)
	return database{url: url, sql: e.Connect(t, url)}
}

func (d database) open(t T) store.Store {
	s, err := engine.Open(t.Context(), engine.Config{URL: d.url, MaxConns: 16})
	if err != nil {
		t.Fatalf("Open = %v", err)
	}
	t.Cleanup(s.Close)
	return s
}

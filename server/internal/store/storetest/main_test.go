package storetest

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/pgembed/pgtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres"
)

// withServer runs the tests around the life of the shared server.
type withServer struct{ m *testing.M }

func (s withServer) Run() int { return pgtest.Run(s.m) }

func TestMain(m *testing.M) { goleak.VerifyTestMain(withServer{m}) }

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

// engine is a fresh database of the engine that the suite is tried on, and a
// way past the contract to the rows.
type engine struct {
	url string
	sql *pgxpool.Pool
}

func newEngine(t *testing.T) engine {
	t.Helper()
	template := pgtest.Template(t, "postgres", func(ctx context.Context, url string) error {
		return postgres.Migrate(ctx, url, slog.New(slog.DiscardHandler))
	})
	url := pgtest.Clone(t, template)
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatalf("connect = %v", err)
	}
	t.Cleanup(pool.Close)
	return engine{url: url, sql: pool}
}

func (g engine) open(t T) store.Store {
	s, err := postgres.Open(t.Context(), postgres.Config{URL: g.url})
	if err != nil {
		t.Fatalf("Open = %v", err)
	}
	t.Cleanup(s.Close)
	return s
}

// Package dbtest provides tests with databases on every SQL engine of the service,
// and with direct access to the rows that is the same on all engines.
//
//	func TestMain(m *testing.M) { dbtest.Run(m) }
//
//	func TestSomething(t *testing.T) {
//		t.Parallel()
//		dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
//			url := e.Database(t)
//			...
//		})
//	}
//
// The servers come from packages pgtest and mysqltest, which use TEST_POSTGRES_URL
// and TEST_MYSQL_URL if set. Package need skips tests that were not requested.
package dbtest

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/need"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/pgtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/pgembed"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
)

// patience limits every single step; none takes ten seconds on an idle machine.
const patience = 2 * time.Minute

// Engine is a database engine of the service.
type Engine struct {
	// Name is the name of its server.
	Name string
	// Schema is the SQL expression for the schema that tables are looked up in.
	Schema string

	need   need.Engine
	pool   *pool
	empty  func(tb testing.TB) string
	own    func(tb testing.TB) string
	server func(tb testing.TB) *Server
	open   func(url string) (*sql.DB, error)
}

// The engines.
var (
	Postgres = &Engine{
		Name: "PostgreSQL", Schema: "current_schema()", need: need.Postgres,
		pool: postgresPool, empty: pgtest.Database, own: clone, server: startPostgres, open: openPostgres,
	}
	MySQL = &Engine{
		Name: mysqltest.ServerName(), Schema: "database()", need: need.MySQL,
		pool: mysqlPool, empty: mysqltest.Database, own: ownMySQL, server: startMySQL, open: openMySQL,
	}
)

// Engines are all engines.
func Engines() []*Engine { return []*Engine{Postgres, MySQL} }

// Each runs a test on every engine in parallel. It skips engines as [Engine.Need]
// does.
func Each(t *testing.T, f func(t *testing.T, e *Engine)) {
	t.Helper()
	for _, e := range Engines() {
		t.Run(e.Name, func(t *testing.T) {
			t.Parallel()
			e.Need(t)
			f(t, e)
		})
	}
}

// withMySQL runs tests within the life of MySQL's shared server.
type withMySQL struct{ m *testing.M }

func (w withMySQL) Run() int {
	code := mysqltest.Run(w.m)
	if os.Getenv("TEST_MYSQL_URL") != "" { // else they have gone with their server
		if err := dropMade(); err != nil {
			panic(fmt.Errorf("dbtest: %w", err))
		}
	}
	return code
}

// Parallel lets so many tests run at once, unless the command line says how many.
// Tests that wait for servers or for time to pass leave the processor to others. It is
// for the beginning of a TestMain.
func Parallel(n int) {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if chosen {
		return
	}
	if err := flag.Set("test.parallel", strconv.Itoa(n)); err != nil {
		panic(err)
	}
}

// Run runs the tests of m, then stops the shared servers. It returns the exit code,
// which a TestMain that ends with Run can ignore. It panics if a server does not
// stop.
func Run(m *testing.M) int {
	code := pgtest.Run(withMySQL{m})
	if err := dropRoles(); err != nil {
		panic(fmt.Errorf("dbtest: %w", err))
	}
	return code
}

// Need skips tb if -short or TEST_ENGINES excludes tests that need a server of e.
// Every method that returns a database or server calls it.
func (e *Engine) Need(tb testing.TB) {
	tb.Helper()
	need.Server(tb, e.need)
}

// Empty returns the URL of a database without a schema, as an administrator has it.
func (e *Engine) Empty(tb testing.TB) string {
	tb.Helper()
	return e.empty(tb)
}

// Database returns the URL of a database with the current schema and no rows, as the
// service's role has it: it may read and write rows, and nothing else. tb has it to
// itself, and may alter its rows alone: another test has it next.
func (e *Engine) Database(tb testing.TB) string {
	tb.Helper()
	return e.lend(tb)
}

// Own returns the URL of a database with the current schema and no rows, as an
// administrator has it, which tb may alter as it likes.
func (e *Engine) Own(tb testing.TB) string {
	tb.Helper()
	return e.own(tb)
}

// Server is a database server that a test may kill.
type Server struct {
	// URL is the URL of a database with the current schema, as the service's role has it.
	URL     string
	kill    func() error
	restart func(ctx context.Context) error
}

// Server starts a server for tb alone and stops it when tb ends.
func (e *Engine) Server(tb testing.TB) *Server {
	tb.Helper()
	s := e.server(tb)
	if err := migrateAsOwner(tb.Context(), s.URL); err != nil {
		tb.Fatalf("dbtest: %v", err)
	}
	s.URL = service(s.URL)
	return s
}

// Kill ends the server by SIGKILL, as a crash would.
func (s *Server) Kill(tb testing.TB) {
	tb.Helper()
	if err := s.kill(); err != nil {
		tb.Fatalf("dbtest: kill the server: %v", err)
	}
}

// Restart returns when the server is back after Kill. It starts the server if
// nothing else does.
func (s *Server) Restart(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	if err := s.restart(ctx); err != nil {
		tb.Fatalf("dbtest: restart the server: %v", err)
	}
}

func migrate(ctx context.Context, url string) error {
	return engine.Migrate(ctx, url, slog.New(slog.DiscardHandler))
}

func clone(tb testing.TB) string {
	tb.Helper()
	return pgtest.Clone(tb, template(tb))
}

func ownMySQL(tb testing.TB) string {
	tb.Helper()
	url := mysqltest.Database(tb)
	if err := migrate(tb.Context(), url); err != nil {
		tb.Fatalf("dbtest: %v", err)
	}
	return url
}

func startPostgres(tb testing.TB) *Server {
	tb.Helper()
	server := pgtest.Start(tb)
	var killed int
	return &Server{
		URL: server.URL(),
		kill: func() error {
			killed = server.Pid()
			return syscall.Kill(killed, syscall.SIGKILL)
		},
		// The embedded server restarts by itself, also here.
		restart: func(ctx context.Context) error { return awaitPid(ctx, server, killed) },
	}
}

// awaitPid waits until a process other than the killed one serves the data.
func awaitPid(ctx context.Context, server *pgembed.Server, killed int) error {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		if p := server.Pid(); p != 0 && p != killed {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

func startMySQL(tb testing.TB) *Server {
	tb.Helper()
	server := mysqltest.Start(tb, mysqltest.Options{})
	return &Server{
		URL:     server.Database(tb, "mirror"),
		kill:    func() error { server.Kill(); return nil },
		restart: server.Restart,
	}
}

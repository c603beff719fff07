// Package pgtest provides tests with databases on a real PostgreSQL: one server per
// test binary, one database per test.
//
//	func TestMain(m *testing.M) { pgtest.Run(m) }
//
//	func TestSomething(t *testing.T) {
//		url := pgtest.Database(t)
//		...
//	}
//
// Where the schema takes time to build, build it once and copy it:
//
//	template := pgtest.Template(t, "schema", migrate)
//	url := pgtest.Clone(t, template)
//
// [pgembed] starts the server, without syncing to disk, unless TEST_POSTGRES_URL
// names one whose user can create databases. Package need skips tests that were not
// requested.
package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/need"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/pgembed"
)

// patience limits every single step; none takes a second on an idle machine.
const patience = 2 * time.Minute

var shared struct {
	sync.Mutex
	running   bool // inside Run
	dir       string
	server    *pgembed.Server
	err       error // of the attempt to start server; it is not repeated
	templates map[string]*template
	kept      []string // names of what Keep made
}

type template struct {
	once sync.Once
	name string
	err  error
}

// Run runs the tests of m, a [testing.M] or a wrapper of one, then drops the
// templates and stops the server. It returns the exit code, which a TestMain that
// ends with Run can ignore. It panics if the server does not stop.
func Run(m interface{ Run() int }) int {
	shared.Lock()
	shared.running = true
	shared.Unlock()
	code := m.Run()
	if err := tearDown(); err != nil {
		panic(fmt.Errorf("pgtest: %w", err))
	}
	return code
}

func tearDown() error {
	shared.Lock()
	defer shared.Unlock()
	shared.running = false
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var errs []error
	if external := os.Getenv("TEST_POSTGRES_URL"); external != "" {
		for _, t := range shared.templates {
			errs = append(errs, drop(ctx, external, t.name))
		}
		for _, name := range shared.kept {
			errs = append(errs, drop(ctx, external, name))
		}
	}
	if shared.server != nil {
		errs = append(errs, shared.server.Stop(ctx))
	}
	if shared.dir != "" {
		errs = append(errs, os.RemoveAll(shared.dir))
	}
	return errors.Join(errs...)
}

// Server returns the embedded server of this test binary and starts it at the first
// call. It is for tests about the server itself; others use [Database], which
// honours TEST_POSTGRES_URL. The server is shared: do not stop it.
func Server(tb testing.TB) *pgembed.Server {
	tb.Helper()
	need.Server(tb, need.Postgres)
	shared.Lock()
	defer shared.Unlock()
	if !shared.running {
		tb.Fatal("pgtest: no one would stop the server: call pgtest.Run from TestMain")
	}
	if shared.server == nil && shared.err == nil {
		shared.dir, shared.err = openDir()
		if shared.err == nil {
			shared.server, shared.err = start(shared.dir, nil)
		}
	}
	if shared.err != nil {
		tb.Fatalf("pgtest: %v", shared.err)
	}
	return shared.server
}

// Start starts a server for tb alone, which may stop or kill it, and stops it when
// tb ends.
func Start(tb testing.TB) *pgembed.Server {
	tb.Helper()
	need.Server(tb, need.Postgres)
	dir, err := openDir()
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	tb.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			tb.Errorf("pgtest: %v", err)
		}
	})
	server, err := start(dir, nil)
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := server.Stop(ctx); err != nil {
			tb.Errorf("pgtest: %v", err)
		}
	})
	return server
}

// openDir creates a folder that the server's account can pass through if root runs
// the tests.
func openDir() (string, error) {
	dir, err := os.MkdirTemp("", "pgtest-")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o711)
}

// start starts the server of a folder, with additional settings.
func start(dir string, settings map[string]string) (*pgembed.Server, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*patience) // it may install PostgreSQL
	defer cancel()
	cfg := pgembed.Config{DataDir: dir, Settings: map[string]string{
		"fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB", "max_connections": "400",
	}}
	maps.Copy(cfg.Settings, settings)
	return pgembed.Start(ctx, cfg)
}

// URL returns the URL of the server's maintenance database: that of
// TEST_POSTGRES_URL, or of [Server].
func URL(tb testing.TB) string {
	tb.Helper()
	need.Server(tb, need.Postgres)
	if external := os.Getenv("TEST_POSTGRES_URL"); external != "" {
		return external
	}
	return Server(tb).URL()
}

// Database creates an empty database and returns its URL. It is dropped when tb ends,
// connections or not.
func Database(tb testing.TB) string {
	tb.Helper()
	return Clone(tb, "template0")
}

// Clone creates a copy of the database called template, as [Template] returns it, and
// returns the copy's URL. The copy is dropped when tb ends, connections or not.
func Clone(tb testing.TB, template string) string {
	tb.Helper()
	name, to := copyOf(tb, template)
	admin := URL(tb)
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := drop(ctx, admin, name); err != nil {
			tb.Errorf("pgtest: %v", err)
		}
	})
	return to
}

// Keep is [Clone] for a copy that lasts as long as the test binary.
func Keep(tb testing.TB, template string) string {
	tb.Helper()
	name, to := copyOf(tb, template)
	shared.Lock()
	defer shared.Unlock()
	shared.kept = append(shared.kept, name)
	return to
}

// copyOf creates a copy of a template and returns its name and URL.
func copyOf(tb testing.TB, template string) (name, to string) {
	tb.Helper()
	admin, name := URL(tb), newName("test")
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	err := create(ctx, admin, name, template)
	if err == nil {
		to, err = at(admin, name)
	}
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	return name, to
}

// Template returns the name of a database, for [Clone], that fill was given to fill
// and has left no connection to. It is filled once for each key in a test binary;
// if that fails, everyone who asks for the key fails.
func Template(tb testing.TB, key string, fill func(ctx context.Context, url string) error) string {
	tb.Helper()
	admin := URL(tb)
	shared.Lock()
	if shared.templates == nil {
		shared.templates = make(map[string]*template)
	}
	tmpl := shared.templates[key]
	if tmpl == nil {
		tmpl = &template{name: newName("template")}
		shared.templates[key] = tmpl
	}
	shared.Unlock()
	tmpl.once.Do(func() {
		// Not the context of tb: the others who wait outlive it.
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		tmpl.err = create(ctx, admin, tmpl.name, "template0")
		if tmpl.err != nil {
			return
		}
		var to string
		if to, tmpl.err = at(admin, tmpl.name); tmpl.err == nil {
			tmpl.err = fill(ctx, to)
		}
	})
	if tmpl.err != nil {
		tb.Fatalf("pgtest: fill template %q: %v", key, tmpl.err)
	}
	return tmpl.name
}

// newName returns a name that no other test uses, in any process.
func newName(kind string) string {
	return "pgtest_" + kind + "_" + strings.ToLower(rand.Text())
}

// at returns the URL of another database on the server of admin.
func at(admin, database string) (string, error) {
	u, err := url.Parse(admin)
	if err != nil || u.Scheme == "" {
		return "", errors.New("TEST_POSTGRES_URL has to begin with postgres://") // without its text: it holds a password
	}
	u.Path, u.RawPath = "/"+database, ""
	return u.String(), nil
}

func create(ctx context.Context, admin, name, template string) error {
	return run(ctx, admin, "create database "+quote(name)+" template "+quote(template))
}

func drop(ctx context.Context, admin, name string) error {
	return run(ctx, admin, "drop database if exists "+quote(name)+" with (force)")
}

func run(ctx context.Context, admin, sql string) error {
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

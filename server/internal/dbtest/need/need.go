// Package need skips tests that were not requested: with -short, all tests that
// need a database server; with TEST_ENGINES, those that need a server of an engine
// it does not name.
package need

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

// Engine is a database engine, as named in TEST_ENGINES.
type Engine string

// The engines.
const (
	Postgres Engine = "postgres"
	MySQL    Engine = "mysql"
)

// Server skips tb if it was not requested. TEST_ENGINES lists engines, separated by
// commas; an empty list means all of them. A name that is not an engine fails tb.
func Server(tb testing.TB, e Engine) {
	tb.Helper()
	if testing.Short() {
		tb.Skipf("NOT RUN: -short leaves out tests that need a database server (%s)", e)
	}
	list := os.Getenv("TEST_ENGINES")
	if list == "" {
		return
	}
	chosen := strings.Split(list, ",")
	for _, name := range chosen {
		if Engine(name) != Postgres && Engine(name) != MySQL {
			tb.Fatalf("TEST_ENGINES names %q; the engines are %s and %s", name, Postgres, MySQL)
		}
	}
	if !slices.Contains(chosen, string(e)) {
		tb.Skipf("NOT RUN: TEST_ENGINES=%s leaves out tests that need a %s server", list, e)
	}
}

// ErrNotInstalled is wrapped by errors about programs that are not on this machine.
var ErrNotInstalled = errors.New("not installed")

// Own ends tb because a server of its own did not start. If TEST_POSTGRES_URL or
// TEST_MYSQL_URL names a server of the engine, and its programs are not on this
// machine, nobody asked for more: tb is skipped. Otherwise it fails.
func Own(tb testing.TB, e Engine, err error) {
	tb.Helper()
	variable := "TEST_" + strings.ToUpper(string(e)) + "_URL"
	if errors.Is(err, ErrNotInstalled) && os.Getenv(variable) != "" {
		tb.Skipf("NOT RUN: %s names a server, and this test needs one of its own: %v", variable, err)
	}
	tb.Fatalf("a server of the test: %v", err)
}

package need_test

import (
	"flag"
	"fmt"
	"runtime"
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/need"
)

// tb keeps what becomes of it to itself.
type tb struct {
	testing.TB
	end string
}

func (*tb) Helper() {}
func (r *tb) Skipf(format string, args ...any) {
	r.end = "skip: " + fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (r *tb) Fatalf(format string, args ...any) {
	r.end = "fail: " + fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func ask(e need.Engine) string {
	r := &tb{end: "run"}
	done := make(chan struct{})
	go func() {
		defer close(done)
		need.Server(r, e)
	}()
	<-done
	return r.end
}

// TestServer is not parallel: it changes the environment and -short.
func TestServer(t *testing.T) {
	setShort(t, "false")
	for _, c := range []struct {
		list            string
		postgres, mysql string
	}{
		{"", "run", "run"},
		{"postgres,mysql", "run", "run"},
		{"postgres", "run", "skip: NOT RUN: TEST_ENGINES=postgres leaves out tests that need a mysql server"},
		{"mysql", "skip: NOT RUN: TEST_ENGINES=mysql leaves out tests that need a postgres server", "run"},
		{
			"postgres,oracle", `fail: TEST_ENGINES names "oracle"; the engines are postgres and mysql`,
			`fail: TEST_ENGINES names "oracle"; the engines are postgres and mysql`,
		},
	} {
		t.Setenv("TEST_ENGINES", c.list)
		if got := ask(need.Postgres); got != c.postgres {
			t.Errorf("Postgres with TEST_ENGINES=%s: %s; want %s", c.list, got, c.postgres)
		}
		if got := ask(need.MySQL); got != c.mysql {
			t.Errorf("MySQL with TEST_ENGINES=%s: %s; want %s", c.list, got, c.mysql)
		}
	}
	setShort(t, "true")
	t.Setenv("TEST_ENGINES", "postgres")
	want := "skip: NOT RUN: -short leaves out tests that need a database server (postgres)"
	if got := ask(need.Postgres); got != want {
		t.Errorf("Postgres with -short: %s; want %s", got, want)
	}
}

func setShort(t *testing.T, value string) {
	t.Helper()
	before := flag.Lookup("test.short").Value.String()
	if err := flag.Set("test.short", value); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = flag.Set("test.short", before) })
}

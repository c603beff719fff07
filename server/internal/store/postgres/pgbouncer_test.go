package postgres_test

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/pgtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/storetest"
)

// poolerPort is part of a socket's name only, and not one that would be
// recognised as a pooler's.
const poolerPort = "16999"

// startPooler runs PgBouncer in transaction mode before the shared server, and
// returns what turns a database's URL into one that leads through it.
func startPooler(t *testing.T) func(direct string) string {
	t.Helper()
	needServer(t)
	bin, err := exec.LookPath("pgbouncer")
	if err != nil {
		if bin = "/usr/sbin/pgbouncer"; exec.Command(bin, "--version").Run() != nil {
			t.Fatalf("pgbouncer is not installed: %v", err)
		}
	}
	server, err := pgx.ParseConfig(pgtest.URL(t))
	if err != nil {
		t.Fatalf("ParseConfig = %v", err)
	}
	account := accountFor(t, server.Host)
	dir, err := os.MkdirTemp("", "pooler-") //nolint:usetesting // other accounts have to reach it
	if err != nil {
		t.Fatalf("MkdirTemp = %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	database := fmt.Sprintf("* = host=%s port=%d user=%s", server.Host, server.Port, server.User)
	if server.Password != "" {
		database += " password='" + strings.ReplaceAll(server.Password, "'", "''") + "'"
	}
	ini := filepath.Join(dir, "pgbouncer.ini")
	config := strings.Join([]string{
		"[databases]", database, "[pgbouncer]", "listen_addr =", "listen_port = " + poolerPort, "unix_socket_dir = " + dir,
		"auth_type = any", "pool_mode = transaction", "default_pool_size = 4", "max_client_conn = 2000",
		"log_connections = 0", "log_disconnections = 0", "",
	}, "\n")
	if err := os.WriteFile(ini, []byte(config), 0o600); err != nil {
		t.Fatalf("WriteFile = %v", err)
	}
	cmd := exec.Command(bin, ini)
	if account != nil { // it refuses to run as root
		for _, path := range []string{dir, ini} {
			if err := os.Chown(path, int(account.Uid), int(account.Gid)); err != nil {
				t.Fatalf("Chown = %v", err)
			}
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: account}
	}
	cmd.Dir = dir
	var log journal
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatalf("start pgbouncer = %v", err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGQUIT) // at once; fails only if it has exited
		<-exited
		if t.Failed() {
			t.Logf("log of pgbouncer:\n%s", log.String())
		}
	})
	through := func(direct string) string {
		u, err := url.Parse(direct)
		if err != nil {
			t.Fatalf("Parse = %v", err)
		}
		pooled := url.URL{Scheme: "postgres", Path: u.Path, RawQuery: url.Values{
			"host": {dir}, "port": {poolerPort}, "user": {server.User}, "sslmode": {"disable"},
		}.Encode()}
		return pooled.String()
	}
	eventually(t, "pgbouncer", func() bool {
		select {
		case <-exited:
			t.Fatalf("pgbouncer exited:\n%s", log.String())
		default:
		}
		_, err := os.Stat(filepath.Join(dir, ".s.PGSQL."+poolerPort))
		return err == nil
	})
	return through
}

// accountFor is an account other than root that can reach the server's socket;
// nil means our own.
func accountFor(t *testing.T, host string) *syscall.Credential {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	if filepath.IsAbs(host) {
		var st syscall.Stat_t
		if err := syscall.Stat(host, &st); err != nil {
			t.Fatalf("stat of the server's socket folder = %v", err)
		}
		if st.Uid != 0 {
			return &syscall.Credential{Uid: st.Uid, Gid: st.Gid}
		}
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatalf("Lookup = %v", err)
	}
	uid, errU := strconv.ParseUint(nobody.Uid, 10, 32)
	gid, errG := strconv.ParseUint(nobody.Gid, 10, 32)
	if errU != nil || errG != nil {
		t.Fatalf("ids of nobody = %v, %v", errU, errG)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func TestContractThroughPgBouncer(t *testing.T) {
	t.Parallel()
	through := startPooler(t)
	wantPooled(t, through(migratedDatabase(t)))
	all := &databases{parent: t}
	storetest.Run(t, func(t testing.TB) storetest.Database {
		pooled := through(all.lend(t))
		return func(t storetest.T) store.Store { return open(t, postgres.Config{URL: pooled, Pooled: true}) }
	})
	t.Run("migrate", func(t *testing.T) {
		t.Parallel()
		pooled := through(emptyDatabase(t))
		migrate(t, pooled)
		if err := open(t, postgres.Config{URL: pooled, Pooled: true}).Ping(t.Context()); err != nil {
			t.Fatalf("Ping = %v; want nil", err)
		}
	})
}

// wantPooled proves that the pooler hands each transaction another connection,
// or the rest of the test would show nothing.
func wantPooled(t *testing.T, pooled string) {
	t.Helper()
	first, second := connect(t, pooled), connect(t, pooled)
	if _, err := first.Prepare(t.Context(), "mine", "select 1"); err != nil {
		t.Fatalf("Prepare = %v", err)
	}
	tx, err := second.Begin(t.Context()) // takes the only connection to the server
	if err != nil {
		t.Fatalf("Begin = %v", err)
	}
	if _, err := first.Exec(t.Context(), "mine"); err == nil {
		t.Fatal("a prepared statement was there in the next transaction; want the pooler to have switched connections")
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatalf("Rollback = %v", err)
	}
}

// More callers than the pooler has connections only wait.
func TestManyCallersThroughPgBouncer(t *testing.T) {
	t.Parallel()
	through := startPooler(t)
	s := open(t, postgres.Config{URL: through(migratedDatabase(t)), Pooled: true, MaxConns: 40})
	errs := make([]error, 40)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			for range 5 {
				r := mirror.Resource{Project: "default", Room: mirror.RoomID(fmt.Sprintf("room-%d", i%7)), Kind: mirror.KindStorage}
				if _, err := s.Request(t.Context(), []mirror.Request{{Resource: r}},
					time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)); err != nil {
					errs[i] = err
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatalf("Request = %v; want no error", err)
		}
	}
}

package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/need"
)

// PoolerPort is the port by which PgBouncer is usually known.
const PoolerPort = "6432"

// PoolerSize is the number of connections from a pooler to the server.
const PoolerSize = 4

// Pooler is a running PgBouncer.
type Pooler struct {
	// URL is the URL of the database through the pooler.
	URL string

	dir   string
	query string // of its URLs
}

// pooled is the variable that puts a pooler between the service and the shared server in
// end-to-end tests.
const pooled = "TEST_POOLER"

// Fronted reports whether Front puts a pooler before servers.
func Fronted() bool { return os.Getenv(pooled) != "" }

// Front returns the URL by which a service reaches the database of a URL, and whether
// that goes through a pooler of its own, which ends with tb: so it does with
// TEST_POOLER=transaction, unless the URL is that of a pooler already.
func Front(tb testing.TB, direct string) (to string, through bool) {
	tb.Helper()
	switch mode := os.Getenv(pooled); mode {
	case "":
		return direct, false
	case "transaction":
		u, err := url.Parse(direct)
		if err != nil {
			tb.Fatal("pgtest: the URL of the database cannot be read")
		}
		if q := u.Query(); q.Get("port") == PoolerPort || q.Has("pgbouncer") {
			return direct, false
		}
		return StartPoolerIn(tb, mode, direct, PoolerPort).Through(tb, direct), true
	default:
		tb.Fatalf("pgtest: %s is %q; the one mode that the service works behind is transaction", pooled, mode)
		return "", false
	}
}

// StartPooler puts a real PgBouncer in front of the server of a database, whose URL it
// is given, in transaction mode. The port names its socket; no TCP port is opened. It
// ends with tb.
func StartPooler(tb testing.TB, direct, port string) *Pooler {
	tb.Helper()
	return StartPoolerIn(tb, "transaction", direct, port)
}

// StartPoolerIn is StartPooler for another pool_mode.
func StartPoolerIn(tb testing.TB, mode, direct, port string) *Pooler {
	tb.Helper()
	server, err := pgconn.ParseConfig(direct)
	if err != nil {
		tb.Fatal("pgtest: the URL of the database cannot be read")
	}
	bin, err := exec.LookPath("pgbouncer")
	if err != nil {
		if bin, err = exec.LookPath("/usr/sbin/pgbouncer"); err != nil {
			need.Own(tb, need.Postgres, fmt.Errorf("%w: PgBouncer: %w", need.ErrNotInstalled, err))
		}
	}
	dir, err := os.MkdirTemp("", "pgtest-pooler-") //nolint:usetesting // other accounts have to reach it
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	tb.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			tb.Errorf("pgtest: %v", err)
		}
	})
	p := &Pooler{dir: dir, query: url.Values{
		"host": {dir}, "port": {port}, "user": {server.User}, "sslmode": {"disable"},
	}.Encode()}
	p.URL = p.to(server.Database)
	target := fmt.Sprintf("host=%s port=%d user=%s", server.Host, server.Port, server.User)
	if server.Password != "" {
		target += fmt.Sprintf(" password='%s'", strings.ReplaceAll(server.Password, "'", "''"))
	}
	config := fmt.Sprintf(`[databases]
* = %s
[pgbouncer]
listen_port = %s
unix_socket_dir = %s
auth_type = any
admin_users = %s
pool_mode = %s
default_pool_size = %d
max_client_conn = 2000
logfile = %s
`, target, port, dir, server.User, mode, PoolerSize, p.logFile())
	ini := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(ini, []byte(config), 0o600); err != nil {
		tb.Fatalf("pgtest: %v", err)
	}

	cmd := exec.Command(bin, "-q", ini)
	if os.Geteuid() == 0 {
		// PgBouncer refuses root, and only the server's account can open its
		// socket.
		account := ownerOf(tb, server.Host)
		for _, path := range []string{dir, ini} {
			if err := os.Chown(path, int(account.Uid), int(account.Gid)); err != nil {
				tb.Fatalf("pgtest: %v", err)
			}
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: account}
	}
	if err := cmd.Start(); err != nil {
		tb.Fatalf("pgtest: start PgBouncer: %v", err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }() // the clean-up waits for it
	tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if tb.Failed() {
			tb.Logf("log of PgBouncer:\n%s", p.Log())
		}
	})
	if err := p.await(tb.Context(), ended); err != nil {
		tb.Fatalf("pgtest: PgBouncer did not come up: %v\n%s", err, p.Log())
	}
	return p
}

// ownerOf returns the account that can use the socket in a folder. Over TCP any
// account can connect, so any unprivileged one will do.
func ownerOf(tb testing.TB, host string) *syscall.Credential {
	tb.Helper()
	const nobody = 65534
	account := &syscall.Credential{Uid: nobody, Gid: nobody}
	if !filepath.IsAbs(host) {
		return account
	}
	var st syscall.Stat_t
	if err := syscall.Stat(host, &st); err != nil {
		tb.Fatalf("pgtest: stat socket folder: %v", err)
	}
	if st.Uid != 0 {
		account.Uid, account.Gid = st.Uid, st.Gid
	}
	return account
}

// await waits until the pooler accepts connections.
func (p *Pooler) await(ctx context.Context, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		conn, err := pgx.Connect(ctx, p.URL)
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-ended:
			return errors.New("it ended")
		case <-ctx.Done():
			return err
		case <-ticker.C:
		}
	}
}

// to is the URL of a database through the pooler.
func (p *Pooler) to(database string) string {
	return (&url.URL{Scheme: "postgres", Path: "/" + database, RawQuery: p.query}).String()
}

// Through turns the URL of a database of the same server into one through the pooler,
// which logs in as whoever it was started for.
func (p *Pooler) Through(tb testing.TB, direct string) string {
	tb.Helper()
	u, err := url.Parse(direct)
	if err != nil {
		tb.Fatal("pgtest: the URL of the database cannot be read")
	}
	to := p.to(strings.TrimPrefix(u.Path, "/"))
	if schema := u.Query().Get("schema"); schema != "" { // the service's own parameter
		to += "&schema=" + url.PathEscape(schema)
	}
	return to
}

// Transactions returns the number of transactions that the pooler has passed to the
// server.
func (p *Pooler) Transactions(tb testing.TB) int64 {
	tb.Helper()
	cfg, err := pgx.ParseConfig(p.to("pgbouncer"))
	if err != nil {
		tb.Fatalf("pgtest: %v", err)
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol // the console supports no other
	conn, err := pgx.ConnectConfig(tb.Context(), cfg)
	if err != nil {
		tb.Fatalf("pgtest: connect to the console of PgBouncer: %v", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(tb.Context())) }()
	var total int64
	rows, err := conn.Query(tb.Context(), "show totals")
	if err != nil {
		tb.Fatalf("pgtest: show totals: %v", err)
	}
	var name string
	var value int64
	if _, err := pgx.ForEachRow(rows, []any{&name, &value}, func() error {
		if name == "total_xact_count" {
			total = value
		}
		return nil
	}); err != nil {
		tb.Fatalf("pgtest: show totals: %v", err)
	}
	return total
}

// Log returns what the pooler has logged so far.
func (p *Pooler) Log() string {
	b, err := os.ReadFile(p.logFile())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (p *Pooler) logFile() string { return filepath.Join(p.dir, "pgbouncer.log") }

package mysqltest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/need"
)

// userName is the account in the servers, with all privileges.
const userName = "mirror"

// Options configures a server.
type Options struct {
	// Dir is where the server's folder is created, by default the system's folder
	// for temporary files. Every account must be able to pass through it.
	Dir string
	// Settings are variables of the server, such as "max_allowed_packet": "1M".
	// They override those of this package.
	Settings map[string]string
}

// Server is a MariaDB server, or one of MySQL, on a loopback port, which it keeps across restarts. It
// syncs every commit to disk, and dies with this process.
type Server struct {
	programs programs
	account  *syscall.Credential
	dir      string
	port     port
	ports    []port // all that are reserved
	password string

	mu  sync.Mutex
	run *run // the last one
}

// run is one life of a server.
type run struct {
	cmd    *exec.Cmd
	exited chan struct{}
	err    error // of the exit; set before exited is closed
}

// Start starts a server for tb alone, which may stop or kill it, and removes it
// when tb ends.
func Start(tb testing.TB, opt Options) *Server {
	tb.Helper()
	Need(tb, Own)
	if os.Getenv(galera) != "" {
		tb.Skip("NOT RUN: starts a server that is in no cluster, and " + galera + " chooses one; run without it too")
	}
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	s, err := Launch(ctx, opt)
	if err != nil {
		need.Own(tb, need.MySQL, err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("mysqltest: %v", err)
		}
	})
	return s
}

// Launch starts a server for a program that is not a test. The caller closes it.
func Launch(ctx context.Context, opt Options) (*Server, error) {
	s, err := newServer(opt.Dir)
	if err != nil {
		return nil, err
	}
	err = s.configure(opt.Settings)
	if err == nil {
		err = s.install(ctx)
	}
	if err == nil {
		err = s.Restart(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// newServer creates the folder of a server and reserves its port.
func newServer(parent string) (*Server, error) {
	p, err := findPrograms()
	if err != nil {
		return nil, err
	}
	account, err := chooseAccount()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(parent, "mysqltest-")
	if err != nil {
		return nil, err
	}
	s := &Server{programs: p, account: account, dir: dir, password: rand.Text()}
	if account != nil {
		err = os.Chown(dir, int(account.Uid), int(account.Gid))
	}
	if err == nil {
		s.port, err = s.reserve()
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// reserve reserves a port until the server is closed.
func (s *Server) reserve() (port, error) {
	p, err := reservePort()
	if err == nil {
		s.ports = append(s.ports, p)
	}
	return p, err
}

// configure writes the configuration file of the server.
func (s *Server) configure(settings map[string]string) error {
	all := map[string]string{
		"bind_address":      "127.0.0.1",
		"port":              s.port.String(),
		"socket":            s.Socket(),
		"datadir":           s.data(),
		"pid_file":          s.path("mariadbd.pid"),
		"tmpdir":            s.dir, // a server that starts deletes the temporary tables it finds, its neighbour's too
		"skip_name_resolve": "on",
		"max_connections":   "512",

		"character_set_server":           "utf8mb4",
		"max_allowed_packet":             "64M",
		"innodb_flush_log_at_trx_commit": "1",
		"innodb_buffer_pool_size":        "128M",
	}
	if s.programs.mariaDB() {
		all["basedir"] = s.programs.base
	} else {
		maps.Copy(all, map[string]string{
			"mysqlx": "off", "secure_file_priv": "NULL", "init_file": s.accountFile(),
		})
		if settings["log_bin"] == "" {
			all["skip_log_bin"] = "on"
		}
	}
	maps.Copy(all, settings)
	var b strings.Builder
	b.WriteString("[mysqld]\n")
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "%s = \"%s\"\n", name, all[name])
	}
	return s.writeFile(s.configFile(), b.String())
}

// writeFile writes a file that belongs to the server's account.
func (s *Server) writeFile(path, text string) error {
	err := os.WriteFile(path, []byte(text), 0o600)
	if err == nil && s.account != nil {
		err = os.Chown(path, int(s.account.Uid), int(s.account.Gid))
	}
	return err
}

// install creates the data folder with the account of the tests.
func (s *Server) install(ctx context.Context) error {
	account := fmt.Sprintf("create user if not exists %[1]s@'%%' identified by '%[2]s';\n"+
		"grant all on *.* to %[1]s@'%%' with grant option;\n", userName, s.password)
	if s.programs.mariaDB() { // the server that is run for it reads no grants at first
		account = "flush privileges;\n" + account
	}
	file := s.accountFile()
	if err := s.writeFile(file, account); err != nil {
		return fmt.Errorf("install: %w", err)
	}
	if !s.programs.mariaDB() { // it reads the file whenever it starts
		cmd := s.command(s.programs.server, "--defaults-file="+s.configFile(), "--initialize-insecure")
		if err := s.runToEnd(ctx, cmd); err != nil {
			return fmt.Errorf("install: %w", err)
		}
		return nil
	}
	cmd := s.command(s.programs.install, "--defaults-file="+s.configFile(), "--basedir="+s.programs.base,
		"--datadir="+s.data(),
		"--skip-test-db", "--auth-root-socket-user=mysql", "--extra-file="+file,
		// What is lost in a crash of the machine here is made again.
		"--innodb-flush-log-at-trx-commit=0", "--wsrep-on=off")
	if err := s.runToEnd(ctx, cmd); err != nil {
		return fmt.Errorf("install: %w", err)
	}
	return os.Remove(file)
}

// runToEnd runs a program.
func (s *Server) runToEnd(ctx context.Context, cmd *exec.Cmd) error {
	logged := len(s.Log())
	r, err := s.launch(cmd)
	if err != nil {
		return err
	}
	select {
	case <-r.exited:
		err = r.err
	case <-ctx.Done():
		r.kill()
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s: %w%s", filepath.Base(cmd.Path), err, s.reason(logged))
	}
	return nil
}

// Restart starts the server again after Kill or Stop, with the same data and port,
// and returns when it accepts connections.
func (s *Server) Restart(ctx context.Context) error { return s.boot(ctx) }

// boot launches the server and waits until it accepts connections. After an error
// no process is left.
func (s *Server) boot(ctx context.Context, args ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run.alive() {
		return errors.New("start the server: it is running")
	}
	logged := len(s.Log())
	r, err := s.launch(s.command(s.programs.server, append([]string{"--defaults-file=" + s.configFile()}, args...)...))
	if err != nil {
		return err
	}
	s.run = r
	if err := s.await(ctx, r); err != nil {
		r.kill()
		return fmt.Errorf("%w%s", err, s.reason(logged))
	}
	return nil
}

// await waits until the server accepts connections.
func (s *Server) await(ctx context.Context, r *run) error {
	db, err := open(s.URL(""))
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // there is nothing to flush
	return until(ctx, r, "the server to take connections", func() error { return db.PingContext(ctx) })
}

// until retries until there is no error, r exits or ctx ends.
func until(ctx context.Context, r *run, what string, ask func() error) error {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-r.exited:
			return fmt.Errorf("wait for %s: %s: %w", what, r.cmd.ProcessState, err)
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w (%w)", what, ctx.Err(), err)
		case <-ticker.C:
		}
	}
}

// command prepares a program to run as the server's account with a minimal
// environment.
func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = s.dir
	cmd.Env = []string{
		"PATH=" + filepath.Dir(s.programs.server) + ":" + os.Getenv("PATH") + ":/usr/sbin:/usr/bin:/bin",
		"LC_ALL=C", "TZ=UTC", "HOME=/nonexistent",
	}
	cmd.SysProcAttr = attr(s.account)
	return cmd
}

// launch starts a program, which writes to the server's log by itself, so that its
// last words are there.
func (s *Server) launch(cmd *exec.Cmd) (*run, error) {
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("launch: %w", err)
	}
	defer func() { _ = log.Close() }() // the program has its own by then
	cmd.Stdout, cmd.Stderr = log, log
	r := &run{cmd: cmd, exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		// Linux sends the death signal (see attr) when the thread that made the child
		// ends. So this goroutine keeps its thread, which ends with it.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			r.err = cmd.Wait()
			close(r.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("launch %s: %w", filepath.Base(cmd.Path), err)
	}
	return r, nil
}

func (r *run) alive() bool {
	if r == nil {
		return false
	}
	select {
	case <-r.exited:
		return false
	default:
		return true
	}
}

// kill ends the program and its children by SIGKILL.
func (r *run) kill() {
	if r == nil {
		return
	}
	if r.alive() {
		_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL) // fails only if it has just exited
	}
	<-r.exited
}

// Kill ends the server by SIGKILL, as a crash would, and returns when it is dead.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.run.kill()
}

// Stop shuts the server down and returns when it has written its data to disk. It
// kills the server when ctx ends.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.run.alive() {
		return nil
	}
	_ = s.run.cmd.Process.Signal(syscall.SIGTERM) // fails only if it has just exited
	select {
	case <-s.run.exited:
	case <-ctx.Done():
		s.run.kill()
		return fmt.Errorf("stop the server: %w", ctx.Err())
	}
	if s.run.err != nil {
		return fmt.Errorf("stop the server: %w", s.run.err)
	}
	return nil
}

// Close kills the server and removes its files.
func (s *Server) Close() error {
	s.Kill()
	err := os.RemoveAll(s.dir)
	for _, p := range s.ports {
		err = errors.Join(err, p.release())
	}
	s.ports = nil
	return err
}

// URL returns the URL of a database of the server, or of the server if database is
// empty.
func (s *Server) URL(database string) string {
	return (&url.URL{
		Scheme: "mysql", User: url.UserPassword(userName, s.password),
		Host: "127.0.0.1:" + s.port.String(), Path: "/" + database,
	}).String()
}

// Database creates an empty database of that name and returns its URL. It lasts as
// long as the server.
func (s *Server) Database(tb testing.TB, name string) string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	if err := create(ctx, s.URL(""), name); err != nil {
		tb.Fatalf("mysqltest: %v", err)
	}
	return s.URL(name)
}

// Socket returns the path of the server's Unix socket.
func (s *Server) Socket() string { return s.path("socket") }

// Pid returns the process id of the server, or 0 if it is not running.
func (s *Server) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.run.alive() {
		return 0
	}
	return s.run.cmd.Process.Pid
}

// Log returns what the server has logged, in all its runs.
func (s *Server) Log() string {
	b, err := os.ReadFile(s.logFile())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err.Error()
	}
	return string(b)
}

func (s *Server) path(name string) string { return filepath.Join(s.dir, name) }
func (s *Server) data() string            { return s.path("data") }
func (s *Server) logFile() string         { return s.path("log") }
func (s *Server) configFile() string      { return s.path("my.cnf") }
func (s *Server) accountFile() string     { return s.path("account.sql") }

// reason is what the server has said since its log had the given size about why it
// failed, for the end of an error.
func (s *Server) reason(since int) string {
	log := s.Log()
	lines := strings.Split(strings.TrimSpace(log[min(since, len(log)):]), "\n")
	errs := slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return !strings.Contains(line, "ERROR") })
	if len(errs) > 0 {
		lines = errs
	}
	return "; it said: " + strings.Join(lines[max(0, len(lines)-8):], " | ")
}

// open returns a pool of connections to the database of a URL.
func open(to string) (*sql.DB, error) {
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "mysql" {
		return nil, errors.New("the URL has to begin with mysql://") // without its text: it holds a password
	}
	cfg := mysql.NewConfig()
	cfg.Net, cfg.Addr, cfg.DBName = "tcp", u.Host, strings.TrimPrefix(u.Path, "/")
	cfg.User = u.User.Username()
	cfg.Passwd, _ = u.User.Password()
	cfg.TLSConfig = u.Query().Get("tls")
	cfg.Logger = &mysql.NopLogger{} // what goes wrong is returned
	cfg.Params = Session(u)
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	return sql.OpenDB(connector), nil
}

package pgembed

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/need"
)

// TestMain also is the program that tests run as a process of its own: one that
// starts a server, says where, and stops it when its standard input ends.
func TestMain(m *testing.M) {
	dir := os.Getenv("PGEMBED_TEST_HOLD")
	if dir == "" {
		m.Run()
		return
	}
	if err := hold(dir); err != nil {
		panic(err)
	}
}

// held is what the other process says of its server.
type held struct {
	URL string
	Pid int
}

func hold(dir string) error {
	ctx := context.Background()
	s, err := Start(ctx, Config{DataDir: dir, Settings: fast})
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(held{s.URL(), s.Pid()}); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return s.Stop(ctx)
}

// fast makes servers small; what they write stays safe from a kill, though not from
// a loss of power, which no test here causes.
var fast = map[string]string{"fsync": "off", "shared_buffers": "16MB"}

// holder is a process that holds a server.
type holder struct {
	held
	cmd   *exec.Cmd
	stdin io.Closer
}

// startHolder starts a server in another process, as the given account or as our own.
func startHolder(t *testing.T, dir string, account *syscall.Credential) *holder {
	t.Helper()
	// Another account cannot reach the test binary by its path, but can by this.
	program := "/proc/self/exe"
	if _, err := os.Stat(program); err != nil {
		if program, err = os.Executable(); err != nil {
			t.Fatalf("Executable = %v", err)
		}
	}
	cmd := exec.Command(program)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "PGEMBED_TEST_HOLD="+dir)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: account}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatalf("StdinPipe = %v", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatalf("StdoutPipe = %v", err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start another process = %v", err)
	}
	h := &holder{cmd: cmd, stdin: stdin}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	if err := json.NewDecoder(stdout).Decode(&h.held); err != nil {
		t.Fatalf("server in another process: %v", err)
	}
	return h
}

// stop lets the process stop its server and end.
func (h *holder) stop(t *testing.T) {
	t.Helper()
	_ = h.stdin.Close()
	if err := h.cmd.Wait(); err != nil {
		t.Fatalf("other process = %v; want a clean end", err)
	}
}

// kill ends the process without a chance to do anything.
func (h *holder) kill(t *testing.T) {
	t.Helper()
	if err := h.cmd.Process.Kill(); err != nil {
		t.Fatalf("kill other process = %v", err)
	}
	_ = h.cmd.Wait() // says that it was killed
}

// openDir is a path for data that every account can pass through to.
func openDir(t *testing.T) string {
	t.Helper()
	need.Server(t, need.Postgres)
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o711); err != nil {
			t.Fatalf("Chmod = %v", err)
		}
	}
	return filepath.Join(dir, "data")
}

// mustStart starts a server that is stopped when the test ends.
func mustStart(t *testing.T, cfg Config) *Server {
	t.Helper()
	need.Server(t, need.Postgres)
	if cfg.Settings == nil {
		cfg.Settings = fast
	}
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	s, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Start = %v", err)
	}
	t.Cleanup(func() { _ = s.Stop(context.Background()) })
	return s
}

func mustStop(t *testing.T, s *Server) {
	t.Helper()
	if err := s.Stop(t.Context()); err != nil {
		t.Fatalf("Stop = %v", err)
	}
	wantNoProcess(t, s.cluster)
}

// wantNoProcess fails if the cluster has a process.
func wantNoProcess(t *testing.T, c *cluster) {
	t.Helper()
	if servers, children := processes(t, c); len(servers)+len(children) > 0 {
		t.Fatalf("processes left = %v, %v; want none", servers, children)
	}
}

func processes(t *testing.T, c *cluster) (servers, children []int) {
	t.Helper()
	commands, err := commandLines(context.Background())
	if err != nil {
		t.Fatalf("commandLines = %v", err)
	}
	return c.members(commands)
}

// eventually tries until f succeeds. A recovery under a loaded machine takes seconds.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return
		}
		if clock.Sleep(ctx, 20*time.Millisecond) != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatalf("Connect = %v", err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// mustExec runs statements on a connection of their own.
func mustExec(t *testing.T, url, sql string) {
	t.Helper()
	conn := connect(t, url)
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s = %v", sql, err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Fatalf("Close = %v", err)
	}
}

// wantText fails if the query does not yield the one value.
func wantText(t *testing.T, url, query, want string) {
	t.Helper()
	conn := connect(t, url)
	defer func() { _ = conn.Close(context.Background()) }()
	var got string
	if err := conn.QueryRow(t.Context(), query).Scan(&got); err != nil || got != want {
		t.Fatalf("%s = %q, %v; want %q", query, got, err, want)
	}
}

const (
	createNotes = "create table note (id bigint primary key); insert into note values (1), (2)"
	sumNotes    = "select sum(id)::text from note"
)

// errUnless is for waits until something is so.
func errUnless(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}

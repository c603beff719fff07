package pgembed

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
)

// What was committed is there after the server is killed under load, again and again.
func TestKilledServerIsRestarted(t *testing.T) {
	t.Parallel()
	s := mustStart(t, Config{DataDir: openDir(t)})
	mustExec(t, s.URL(), createNotes)

	// A child that is busy does not notice that its server is gone, and keeps
	// the shared memory from the next one.
	busy := connect(t, s.URL())
	busyDone := make(chan error, 1)
	go func() {
		_, err := busy.Exec(t.Context(), "do $$ begin loop end loop; end $$")
		busyDone <- err
	}()
	eventually(t, "busy child", func() error {
		var n int
		err := connect(t, s.URL()).QueryRow(t.Context(),
			"select count(*) from pg_stat_activity where state = 'active' and query like 'do %'").Scan(&n)
		if err != nil {
			return err
		}
		return errUnless(n == 1, "%d busy children", n)
	})

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var acked atomic.Int64 // every id from 3 up to this one is committed
	acked.Store(2)
	writer := make(chan struct{})
	go func() {
		defer close(writer)
		for ctx.Err() == nil {
			conn, err := pgx.Connect(ctx, s.URL())
			for err == nil {
				next := acked.Load() + 1
				// The answer to a commit may have been lost: writing it again is fine.
				if _, err = conn.Exec(ctx, "insert into note values ($1) on conflict do nothing", next); err == nil {
					acked.Store(next)
				}
			}
			if conn != nil {
				_ = conn.Close(context.WithoutCancel(ctx))
			}
			_ = clock.Sleep(ctx, 5*time.Millisecond) // the loop ends with ctx
		}
	}()
	url := s.URL()
	for range 3 {
		before := acked.Load()
		eventually(t, "writes before the kill",
			func() error { return errUnless(acked.Load() > before+20, "%d acknowledged", acked.Load()) })
		pid := s.Pid()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatalf("kill server = %v", err)
		}
		eventually(t, "restart", func() error {
			now := s.Pid()
			return errUnless(now != 0 && now != pid, "pid is %d, was %d", now, pid)
		})
	}
	last := acked.Load()
	eventually(t, "writes after the kills",
		func() error { return errUnless(acked.Load() > last+20, "%d acknowledged", acked.Load()) })
	cancel()
	<-writer
	if err := <-busyDone; err == nil {
		t.Fatal("busy child ended without an error")
	}
	if s.URL() != url || s.Err() != nil {
		t.Fatalf("URL, Err after restarts = %s, %v; want %s, nil", s.URL(), s.Err(), url)
	}
	wantText(t, url, fmt.Sprintf("select count(*)::text from note where id <= %d", acked.Load()), fmt.Sprint(acked.Load()))
	mustStop(t, s)
}

func TestServerThatCannotRestart(t *testing.T) {
	t.Parallel()
	s := mustStart(t, Config{DataDir: openDir(t), restartWait: time.Millisecond})
	control := filepath.Join(s.cluster.pgdata, "global", "pg_control")
	if err := os.Rename(control, control+".gone"); err != nil {
		t.Fatalf("Rename = %v", err)
	}
	if err := syscall.Kill(s.Pid(), syscall.SIGKILL); err != nil {
		t.Fatalf("kill server = %v", err)
	}
	select {
	case <-s.Done():
	case <-time.After(time.Minute):
		t.Fatal("Done is open; want closed when the server cannot be restarted")
	}
	if err := s.Err(); err == nil || !strings.Contains(err.Error(), "restart failed 10 times in a row") ||
		!strings.Contains(err.Error(), "pg_control") {
		t.Fatalf("Err = %v; want what was tried, and the server's reason", err)
	}
	if err := os.Rename(control+".gone", control); err != nil {
		t.Fatalf("Rename = %v", err)
	}
	mustStop(t, mustStart(t, Config{DataDir: s.cluster.dir})) // the folder was given back
}

func TestStopBetweenRestarts(t *testing.T) {
	t.Parallel()
	s := mustStart(t, Config{DataDir: openDir(t), restartWait: time.Hour})
	if err := syscall.Kill(s.Pid(), syscall.SIGKILL); err != nil {
		t.Fatalf("kill server = %v", err)
	}
	eventually(t, "death", func() error { return errUnless(s.Pid() == 0, "pid is %d", s.Pid()) })
	if err := s.Stop(t.Context()); err != nil {
		t.Fatalf("Stop = %v", err)
	}
}

func TestKilledProcess(t *testing.T) {
	t.Parallel()
	for _, both := range []bool{false, true} {
		t.Run(fmt.Sprintf("server too %v", both), func(t *testing.T) {
			t.Parallel()
			dir := openDir(t)
			h := startHolder(t, dir, nil)
			mustExec(t, h.URL, createNotes)
			if both {
				// Stopped, our process cannot restart the server in between.
				if err := h.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
					t.Fatalf("SIGSTOP = %v", err)
				}
				if err := syscall.Kill(h.Pid, syscall.SIGKILL); err != nil {
					t.Fatalf("kill server = %v", err)
				}
			}
			h.kill(t)
			tag, err := clusterTag(filepath.Join(dir, "pgdata"))
			if err != nil {
				t.Fatalf("clusterTag = %v", err)
			}
			if runtime.GOOS == "linux" { // elsewhere, the next start ends it
				eventually(t, "server without its parent", func() error {
					servers, children := processes(t, &cluster{tag: tag})
					return errUnless(len(servers)+len(children) == 0, "left: %v, %v", servers, children)
				})
			}
			s := mustStart(t, Config{DataDir: dir})
			wantText(t, s.URL(), sumNotes, "3")
			mustStop(t, s)
		})
	}
}

// A live server of an earlier process of ours is shut down by the next start.
func TestLiveOrphan(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	s := mustStart(t, Config{DataDir: dir})
	mustExec(t, s.URL(), createNotes)
	mustStop(t, s)
	c, err := openCluster(t.Context(), Config{DataDir: dir, Settings: fast})
	if err != nil {
		t.Fatalf("openCluster = %v", err)
	}
	if err := c.freshSocketDir(); err != nil {
		t.Fatalf("freshSocketDir = %v", err)
	}
	orphan := c.id.command(context.Background(), c.dir, filepath.Join(c.bin, "postgres"), c.args...)
	if err := orphan.Start(); err != nil {
		t.Fatalf("start orphan = %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- orphan.Wait() }()
	eventually(t, "orphan", func() error { return connectable(t.Context(), c.url("mirror")) })
	mustExec(t, c.url("mirror"), "insert into note values (3)")
	c.close() // as if its process had died

	again := mustStart(t, Config{DataDir: dir})
	select {
	case err := <-ended:
		if err != nil {
			t.Fatalf("orphan = %v; want a clean shutdown", err)
		}
	default:
		t.Fatal("orphan is up beside the new server")
	}
	wantText(t, again.URL(), sumNotes, "6")
	mustStop(t, again)
}

func TestStalePidFiles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		program string // what the process that has the number now calls itself
		refused bool
	}{
		{name: "stranger", program: "stranger"},
		{name: "postgres", program: "postgres", refused: true}, // may be someone's, on this very data
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := openDir(t)
			s := mustStart(t, Config{DataDir: dir})
			mustExec(t, s.URL(), createNotes)
			mustStop(t, s)

			// The same account as the server's: of others it knows that they are others.
			stranger := s.cluster.id.command(t.Context(), "/", "/bin/sleep", "600")
			stranger.Args[0] = c.program
			if err := stranger.Start(); err != nil {
				t.Fatalf("start stranger = %v", err)
			}
			defer func() {
				_ = stranger.Process.Kill()
				_ = stranger.Wait()
			}()
			content := fmt.Sprintf("%d\n%s\n1700000000\n5432\n%s\n\n  1 1\nready\n", stranger.Process.Pid, s.cluster.pgdata,
				s.cluster.sock)
			for _, path := range []string{
				filepath.Join(s.cluster.pgdata, "postmaster.pid"),
				filepath.Join(s.cluster.sock, ".s.PGSQL.5432.lock"),
			} {
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatalf("WriteFile = %v", err)
				}
				if err := os.Chown(path, ownerOf(t, s.cluster.pgdata), -1); err != nil {
					t.Fatalf("Chown = %v", err)
				}
			}
			again, err := Start(t.Context(), Config{DataDir: dir, Settings: fast})
			if c.refused {
				if err == nil || !strings.Contains(err.Error(), "postmaster.pid") {
					t.Fatalf("Start = %v; want the server's refusal, naming the file", err)
				}
				return
			}
			if err != nil {
				t.Fatalf("Start = %v", err)
			}
			wantText(t, again.URL(), sumNotes, "3")
			mustStop(t, again)
			if err := stranger.Process.Signal(syscall.Signal(0)); err != nil {
				t.Fatalf("stranger = %v; want it alive", err)
			}
		})
	}
}

func ownerOf(t *testing.T, path string) int {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatalf("Stat = %v", err)
	}
	return int(st.Uid)
}

func TestEscalate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		age  time.Duration
		want syscall.Signal
	}{
		{0, syscall.SIGINT},
		{leftoverGrace - 1, syscall.SIGINT},
		{leftoverGrace, syscall.SIGQUIT},
		{leftoverQuit - 1, syscall.SIGQUIT},
		{leftoverQuit, syscall.SIGKILL},
		{leftoverLimit, syscall.SIGKILL},
	} {
		if got := escalate(c.age, syscall.SIGINT); got != c.want {
			t.Fatalf("escalate(%v) = %v; want %v", c.age, got, c.want)
		}
	}
}

func TestMembers(t *testing.T) {
	t.Parallel()
	c := &cluster{tag: "pgembed-01-02"}
	servers, children := c.members(map[int]string{
		10: "/usr/lib/postgresql/15/bin/postgres -D /data/pgdata -c cluster_name=pgembed-01-02 -c port=5432 ",
		11: "postgres: pgembed-01-02: checkpointer ",
		20: "/usr/lib/postgresql/15/bin/postgres -D /other/pgdata -c cluster_name=pgembed-01-03 ",
		21: "postgres: pgembed-01-03: checkpointer ",
		30: "postgres: 15/main: checkpointer ",
		40: "grep cluster_name=pgembed-01-02 ",
		41: "less postgres.log pgembed-01-02 ",
	})
	if len(servers) != 1 || servers[0] != 10 || len(children) != 1 || children[0] != 11 {
		t.Fatalf("members = %v, %v; want [10], [11]", servers, children)
	}
}

package pgembed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
)

// maxRestarts is the number of restarts in a row that may fail. With the delays
// between them that takes half a minute.
const maxRestarts = 10

// killAfter limits an immediate shutdown. The server itself kills children that
// have not obeyed after 5 s.
const killAfter = 10 * time.Second

// postmaster is one run of the server.
type postmaster struct {
	cmd    *exec.Cmd
	exited chan struct{}
	err    error // of the exit; set before exited is closed
}

// supervise runs the server until ctx ends and restarts it when it dies. It sends
// the result of the first start to started.
func (s *Server) supervise(ctx context.Context, database string, started chan<- error) {
	// Linux sends the death signal (see identity.attr) when the thread that created
	// the child ends. So this goroutine keeps its thread, which ends with it.
	runtime.LockOSThread()
	s.err = s.run(ctx, database, started)
	s.cluster.close()
	close(s.done)
}

func (s *Server) run(ctx context.Context, database string, started chan<- error) error {
	p, err := s.boot(ctx, database)
	started <- err
	if err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return p.shutdown(s.hurry)
		case <-p.exited:
		}
		if ended(ctx) {
			return nil
		}
		s.log.ErrorContext(ctx, "embedded postgres died; restarting it", slog.Any("error", p.err))
		p, err = s.restart(ctx, database)
		if err != nil && ended(ctx) {
			return nil // stopped between two attempts: nothing is running
		}
		if err != nil {
			s.log.ErrorContext(ctx, "embedded postgres could not be restarted", slog.Any("error", err))
			return err
		}
	}
}

// restart starts the server again after it died.
func (s *Server) restart(ctx context.Context, database string) (*postmaster, error) {
	died := time.Now()
	var err error
	for attempt := range maxRestarts {
		if clock.Sleep(ctx, min(s.restartWait<<attempt, 50*s.restartWait)) != nil {
			return nil, ctx.Err()
		}
		var p *postmaster
		if p, err = s.boot(ctx, database); err == nil {
			s.log.InfoContext(ctx, "embedded postgres restarted", slog.Duration("took", time.Since(died)))
			return p, nil
		}
		if !ended(ctx) {
			s.log.WarnContext(ctx, "restarting embedded postgres failed",
				slog.Int("attempt", attempt+1), slog.Any("error", err))
		}
	}
	return nil, fmt.Errorf("restart failed %d times in a row: %w", maxRestarts, err)
}

// boot removes leftovers, launches the server and waits until it serves the
// database. After an error no process is left.
func (s *Server) boot(ctx context.Context, database string) (*postmaster, error) {
	if err := s.cluster.endLeftovers(ctx); err != nil {
		return nil, err
	}
	if err := s.cluster.freshSocketDir(); err != nil {
		return nil, err
	}
	logged := s.cluster.log.size()
	p, err := s.launch(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.serve(ctx, p, database); err != nil {
		_ = p.shutdown(s.hurry) // err is the cause
		return nil, s.cluster.log.explain(err, logged)
	}
	return p, nil
}

// launch starts the server process. Only the supervising thread may call it.
func (s *Server) launch(ctx context.Context) (*postmaster, error) {
	c := s.cluster
	// The end of ctx means shutdown, not kill.
	cmd := c.id.command(context.WithoutCancel(ctx), c.dir, filepath.Join(c.bin, "postgres"), c.args...)
	cmd.Stdout, cmd.Stderr = c.log.file, c.log.file
	// A terminal sends Ctrl-C to the whole process group. It must not reach the
	// server before its clients have drained.
	cmd.SysProcAttr.Setpgid = true
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("launch: %w", err)
	}
	s.pid.Store(int64(cmd.Process.Pid))
	p := &postmaster{cmd: cmd, exited: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		s.pid.Store(0)
		close(p.exited)
	}()
	return p, nil
}

// serve waits until the server accepts connections, and creates the database.
func (s *Server) serve(ctx context.Context, p *postmaster, database string) error {
	conn, err := s.connect(ctx, p)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var exists bool
	if err := conn.QueryRow(ctx, "select exists (select from pg_database where datname = $1)",
		database).Scan(&exists); err != nil {
		return fmt.Errorf("look for database %q: %w", database, err)
	}
	if exists {
		return nil
	}
	if _, err := conn.Exec(ctx, "create database "+pgx.Identifier{database}.Sanitize()); err != nil {
		return fmt.Errorf("create database %q: %w", database, err)
	}
	return nil
}

// connect retries until the server answers or exits, or ctx ends.
func (s *Server) connect(ctx context.Context, p *postmaster) (*pgx.Conn, error) {
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		// The kernel accepts connections for a server that hangs, so limit each
		// attempt.
		try, cancel := context.WithTimeout(ctx, 10*time.Second)
		conn, err := pgx.Connect(try, s.cluster.url("postgres"))
		cancel()
		if err == nil {
			return conn, nil
		}
		select {
		case <-p.exited:
			return nil, fmt.Errorf("postgres exited: %w", exitError(p.err))
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for postgres: %w (%w)", ctx.Err(), err)
		case <-time.After(wait):
		}
	}
}

// shutdown stops the server: immediately once hurry is closed, otherwise after it
// has written its data to disk.
func (p *postmaster) shutdown(hurry <-chan struct{}) error {
	_ = p.cmd.Process.Signal(syscall.SIGINT) // fails only if it has exited
	select {
	case <-p.exited:
		return p.err
	case <-hurry:
	}
	_ = p.cmd.Process.Signal(syscall.SIGQUIT)
	select {
	case <-p.exited:
	case <-time.After(killAfter):
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
	return errors.New("stopped before it had written its data to disk; it recovers at the next start")
}

// exitError returns err, or an error for exit status 0.
func exitError(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// ended reports whether ctx has ended, which is the order to stop and not an error.
func ended(ctx context.Context) bool { return ctx.Err() != nil }

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
)

// maxRestarts is how often in a row a restart may fail. With the waits between
// them that is half a minute, by when only a person can help.
const maxRestarts = 10

// killAfter bounds an immediate shutdown. The server itself kills what has not
// obeyed it after 5 s.
const killAfter = 10 * time.Second

// postmaster is one run of the server.
type postmaster struct {
	cmd    *exec.Cmd
	exited chan struct{}
	err    error // of the exit; set before exited is closed
}

// supervise runs the server until ctx ends, restarting it when it dies.
// started gets the outcome of the first start.
func (s *Server) supervise(ctx context.Context, database string, started chan<- error) {
	// Linux sends the death signal (see identity.attr) when the thread that made
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
			return nil // asked to stop between two attempts: nothing is running
		}
		if err != nil {
			s.log.ErrorContext(ctx, "embedded postgres is down for good", slog.Any("error", err))
			return err
		}
	}
}

// restart boots the server again after it died.
func (s *Server) restart(ctx context.Context, database string) (*postmaster, error) {
	died := time.Now()
	var err error
	for attempt := range maxRestarts {
		if !sleep(ctx, min(s.restartWait<<attempt, 50*s.restartWait)) {
			return nil, ctx.Err()
		}
		var p *postmaster
		if p, err = s.boot(ctx, database); err == nil {
			s.log.InfoContext(ctx, "embedded postgres is back", slog.Duration("took", time.Since(died)))
			return p, nil
		}
		if !ended(ctx) {
			s.log.WarnContext(ctx, "embedded postgres did not restart",
				slog.Int("attempt", attempt+1), slog.Any("error", err))
		}
	}
	return nil, fmt.Errorf("restart failed %d times in a row: %w", maxRestarts, err)
}

// boot makes the way free, launches the server and waits until it serves the
// database. On an error no process is left.
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
		_ = p.shutdown(s.hurry) // the reason is err
		return nil, s.cluster.log.explain(err, logged)
	}
	return p, nil
}

// launch starts the server's process. Only the supervising thread may call it.
func (s *Server) launch(ctx context.Context) (*postmaster, error) {
	c := s.cluster
	// The end of ctx asks for a shutdown, not for a kill.
	cmd := c.id.command(context.WithoutCancel(ctx), c.dir, filepath.Join(c.bin, "postgres"), c.args...)
	cmd.Stdout, cmd.Stderr = c.log.file, c.log.file
	// A terminal's Ctrl-C goes to the whole group and must not reach the server
	// before its clients have drained.
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

// serve waits until the server takes connections and creates the database.
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

// connect tries until the server answers, exits, or ctx ends.
func (s *Server) connect(ctx context.Context, p *postmaster) (*pgx.Conn, error) {
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		// The kernel accepts for a server that hangs; without a limit we would too.
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

// shutdown ends the server: at once when hurry is closed, else when it has
// written everything out.
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
	return errors.New("cut off before it had written everything out; it recovers at the next start")
}

// exitError is err, or words for an exit that claims success.
func exitError(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// ended reports whether ctx has ended, which is no error here but an order.
func ended(ctx context.Context) bool { return ctx.Err() != nil }

// sleep waits for d and reports false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/app"
)

// stopTimeout is how long a process may take to end before it is killed.
const stopTimeout = 20 * time.Second

// process is a process of ours that is measured.
type process struct {
	cmd  *exec.Cmd
	in   io.WriteCloser // closing it ends a role
	out  *json.Decoder  // what a role says
	errs *os.File       // what it complains of
	done chan error

	// addr is where a server listens; of the service, its HTTP gateway.
	addr string
	// grpcAddr is where the service listens for gRPC.
	grpcAddr string
}

// launch starts cmd with its complaints in a file.
func (b *bench) launch(cmd *exec.Cmd, name string) (*process, error) {
	errs, err := os.Create(filepath.Join(b.dir, name+"-"+strconv.Itoa(b.started)+".log"))
	if err != nil {
		return nil, err
	}
	b.started++
	cmd.Stderr = errs
	p := &process{cmd: cmd, errs: errs, done: make(chan error, 1)}
	return p, nil
}

func (p *process) start() error {
	if err := p.cmd.Start(); err != nil {
		_ = p.errs.Close() // nothing is in it
		return err
	}
	go func() { p.done <- p.cmd.Wait() }() // stop waits for it
	return nil
}

// spawn starts this program again in a role.
func (b *bench) spawn(ctx context.Context, role string, cfg any) (_ *process, err error) {
	p, err := b.launch(exec.CommandContext(ctx, b.self, role), role)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	// Not a StdoutPipe, which Wait would close under a reader.
	out, child, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	p.out, p.cmd.Stdout = json.NewDecoder(out), child
	err = p.start()
	_ = child.Close() // the child has its own
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	if err := p.tell(cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", role, err), p.stop())
	}
	return p, nil
}

// tell sends a role something.
func (p *process) tell(v any) error { return json.NewEncoder(p.in).Encode(v) }

// hear waits for what a role says.
func (p *process) hear(v any) error {
	if err := p.out.Decode(v); err != nil {
		return fmt.Errorf("%w: %s", err, p.complaints())
	}
	return nil
}

// spawnServer starts a role that serves.
func (b *bench) spawnServer(ctx context.Context, role string, cfg any) (*process, error) {
	p, err := b.spawn(ctx, role, cfg)
	if err != nil {
		return nil, err
	}
	if err := p.hear(&p.addr); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", role, err), p.stop())
	}
	return p, nil
}

// serve is the other side of spawnServer: it serves until the input ends.
func serve(ctx context.Context, h http.Handler) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = s.Close()
	}()
	if err := json.NewEncoder(os.Stdout).Encode(l.Addr().String()); err != nil {
		return err
	}
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// startService starts the build that is measured.
func (b *bench) startService(ctx context.Context, env map[string]string) (*process, error) {
	return b.startBuild(ctx, b.service, env)
}

// startBuild starts a binary of the service and waits until it is ready.
func (b *bench) startBuild(ctx context.Context, binary string, env map[string]string) (*process, error) {
	ready := filepath.Join(b.dir, "ready-"+strconv.Itoa(b.started))
	cmd := exec.CommandContext(ctx, binary, "serve", "--ready-file", ready)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + b.dir}
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	p, err := b.launch(cmd, "service")
	if err != nil {
		return nil, fmt.Errorf("start the service: %w", err)
	}
	if err := p.start(); err != nil {
		return nil, fmt.Errorf("start the service: %w", err)
	}
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for range 6000 {
		if raw, err := os.ReadFile(ready); err == nil {
			var r app.Ready
			if err := json.Unmarshal(raw, &r); err != nil {
				return nil, errors.Join(fmt.Errorf("start the service: %w", err), p.stop())
			}
			p.addr, p.grpcAddr = r.HTTPAddr, r.GRPCAddr
			return p, nil
		}
		select {
		case err := <-p.done:
			p.done <- err
			return nil, fmt.Errorf("start the service: %w: %s", err, p.complaints())
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), p.stop())
		case <-ticker.C:
		}
	}
	return nil, errors.Join(errors.New("start the service: it does not get ready"), p.stop())
}

// stop ends the process in good order, or by force if that takes too long.
func (p *process) stop() error {
	defer func() { _ = p.errs.Close() }() // read before, if at all
	if p.in != nil {
		_ = p.in.Close() // the role may have ended by itself
	} else {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // likewise
	}
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case err := <-p.done:
		if err != nil {
			return fmt.Errorf("%s: %w: %s", filepath.Base(p.cmd.Path), err, p.complaints())
		}
		return nil
	case <-timer.C:
		_ = p.cmd.Process.Kill() // what is left is to wait
		<-p.done                 //nolint:errcheck // it was killed: there is nothing to learn
		return fmt.Errorf("%s did not end within %s", filepath.Base(p.cmd.Path), stopTimeout)
	}
}

// complaints is the end of what the process wrote to its standard error.
func (p *process) complaints() string {
	b, err := os.ReadFile(p.errs.Name())
	if err != nil {
		return err.Error()
	}
	if len(b) > 2000 {
		b = b[len(b)-2000:]
	}
	return strings.TrimSpace(string(b))
}

func (p *process) pid() int { return p.cmd.Process.Pid }

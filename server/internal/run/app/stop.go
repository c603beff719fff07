package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"google.golang.org/grpc"
)

// stopper runs the parts of the service and stops them in reverse order, each after
// the previous one has ended.
type stopper struct {
	log    *slog.Logger
	grace  time.Duration
	failed chan error // holds the first failure
	parts  []part
}

// errStopped means that a server ended without being told to.
var errStopped = errors.New("stopped unexpectedly")

type part struct {
	name string
	stop func(ctx context.Context)
	done chan struct{}
}

func newStopper(log *slog.Logger, grace time.Duration) *stopper {
	return &stopper{log: log, grace: grace, failed: make(chan error, 1)}
}

// goRun starts a part that runs until its context ends.
func (s *stopper) goRun(name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	s.start(name, func() error {
		err := run(ctx)
		if err == nil && ctx.Err() == nil {
			err = errStopped
		}
		return err
	}, func(context.Context) { cancel() })
}

// goServe starts a part that runs until it is shut down; stop must end it before
// its context ends.
func (s *stopper) goServe(name string, serve func() error, stop func(context.Context)) {
	s.start(name, func() error {
		if err := serve(); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, grpc.ErrServerStopped) {
			return err
		}
		return nil
	}, stop)
}

func (s *stopper) start(name string, run func() error, stop func(context.Context)) {
	p := part{name: name, stop: stop, done: make(chan struct{})}
	s.parts = append(s.parts, p)
	go func() { // all waits for it
		defer close(p.done)
		if err := run(); err != nil {
			// A failed part ends the process, so the platform restarts all of it.
			select {
			case s.failed <- fmt.Errorf("%s: %w", name, err):
			default:
			}
		}
	}()
}

// all stops every part within the grace period.
func (s *stopper) all() {
	ctx, cancel := context.WithTimeout(context.Background(), s.grace)
	defer cancel()
	for _, p := range slices.Backward(s.parts) {
		p.stop(ctx)
		select {
		case <-p.done:
		case <-ctx.Done():
			s.log.ErrorContext(ctx, "a part did not stop within the grace period", slog.String("part", p.name))
		}
	}
}

// stopHTTP waits for running requests and then cuts them off. A download takes as
// long as its reader, so they get half of the remaining grace period; the other
// parts need the rest.
func stopHTTP(ctx context.Context, s *http.Server) {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/2)
		defer cancel()
	}
	if err := s.Shutdown(ctx); err != nil {
		_ = s.Close() // nothing more can be done
	}
}

// stopGRPC waits for running calls and then cuts them off. Streams may never end by
// themselves, so they get half of the remaining grace period.
func stopGRPC(ctx context.Context, s *grpc.Server) {
	cut := func() {}
	if deadline, ok := ctx.Deadline(); ok {
		timer := time.AfterFunc(time.Until(deadline)/2, s.Stop)
		cut = func() { timer.Stop() }
	}
	s.GracefulStop()
	cut()
}

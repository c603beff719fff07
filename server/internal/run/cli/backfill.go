package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
)

const (
	// pollEvery is the interval of progress calls.
	pollEvery = time.Second
	// Watching ends when a service that has answered before is away for awayLimit, or
	// when a problem persists for problemLimit. The sweep itself goes on.
	awayLimit    = 10 * time.Minute
	problemLimit = time.Minute
)

// Backfill is the command that has everything fetched again.
type Backfill struct {
	Watch bool `name:"watch" help:"Start no sweep; only show the progress of the latest one."`

	Call
}

// Run starts a full sweep, unless it only watches, and shows the progress of the latest
// sweep until it is done. It survives a restart of the service.
func (c *Backfill) Run(ctx context.Context, std Streams) error {
	return c.run(ctx, 0, func(ctx context.Context, s *service) error {
		out := std.Out
		if c.JSON {
			out = std.Err
		}
		w := &watcher{service: s, screen: &screen{w: out, live: terminal(out)}}
		if c.JSON {
			w.polled = func(got *mirrorv1.GetBackfillResponse) error { return c.Print(std.Out, got, nil) }
		}
		defer w.screen.clear()
		return w.follow(ctx, !c.Watch)
	})
}

// follow shows the progress until the sweep is done.
func (w *watcher) follow(ctx context.Context, start bool) error {
	if start {
		callCtx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		if _, err := w.StartBackfill(callCtx, &mirrorv1.StartBackfillRequest{ProjectId: w.project}); err != nil {
			return err
		}
		w.answered = time.Now()
	}
	for {
		done, err := w.poll(ctx)
		if done || err != nil {
			return err
		}
		if clock.Sleep(ctx, pollEvery) != nil {
			return errors.New("interrupted; the backfill continues in the service")
		}
	}
}

// watcher follows the latest sweep.
type watcher struct {
	*service
	screen *screen
	// polled, if set, gets each answer.
	polled func(*mirrorv1.GetBackfillResponse) error
	// answered is the time of the service's last answer.
	answered time.Time
	// away means that the service does not answer.
	away bool
	// problem is the last one shown, and since the time it began.
	problem string
	since   time.Time
	// done is the number of resources last fetched, and moved the time when it last
	// changed or the watcher last asked why it does not.
	done  int64
	moved time.Time
	// hangs is why nothing is fetched, as last shown.
	hangs string
}

// poll shows the progress of the sweep, and reports whether it is done.
func (w *watcher) poll(ctx context.Context) (done bool, err error) {
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	got, err := w.GetBackfill(callCtx, &mirrorv1.GetBackfillRequest{ProjectId: w.project})
	switch code := status.Code(err); {
	case err == nil:
		w.answered, w.away = time.Now(), false
	case ctx.Err() != nil:
		return false, nil // the caller reports it
	case !w.answered.IsZero() && time.Since(w.answered) < awayLimit &&
		(code == codes.Unavailable || code == codes.DeadlineExceeded || code == codes.Canceled):
		if !w.away {
			w.away = true
			w.screen.line("the service does not respond; waiting for it to come back")
		}
		return false, nil
	default:
		return false, err
	}
	if w.polled != nil {
		if err := w.polled(got); err != nil {
			return false, err
		}
	}
	sweep := got.GetSweep()
	if sweep.GetSweepId() == "" {
		return false, errors.New("there has been no sweep yet; start one with `liveblocks-mirror backfill`")
	}
	if done = sweep.GetState() == mirrorv1.SweepState_SWEEP_STATE_DONE; done {
		w.screen.line(summary(sweep))
		for _, line := range w.leftOut(ctx) {
			w.screen.line(line)
		}
	} else {
		w.screen.progress(progress(sweep, w.screen.live))
		w.sayWhatHangs(ctx, sweep.GetResourcesDone())
	}
	problem := sweep.GetProblem()
	switch {
	case problem == "":
		w.problem, w.since = "", time.Time{}
		return done, nil
	case w.since.IsZero():
		w.since = time.Now()
	}
	if done || time.Since(w.since) >= problemLimit {
		return done, errors.New(problem)
	}
	if problem != w.problem {
		w.problem = problem
		w.screen.line(problem + "; retrying")
	}
	return false, nil
}

// sayWhatHangs shows once why nothing was fetched for a while.
func (w *watcher) sayWhatHangs(ctx context.Context, done int64) {
	switch {
	case w.moved.IsZero(), done != w.done:
		w.done, w.moved, w.hangs = done, time.Now(), ""
		return
	case time.Since(w.moved) < hangsAfter:
		return
	}
	w.moved = time.Now()
	if hangs := w.hanging(ctx); hangs != w.hangs {
		if w.hangs = hangs; hangs != "" {
			w.screen.line(hangs)
		}
	}
}

// progress describes a running sweep in one line.
func progress(s *mirrorv1.Sweep, live bool) string {
	done, total := s.GetResourcesDone(), s.GetResourcesDone()+s.GetResourcesPending()
	share := int64(0)
	if total > 0 {
		share = 100 * done / total
	}
	line := fmt.Sprintf("%d of %d fetched (%d%%)", done, total, share)
	if live {
		line = bar(done, total) + " " + line
	}
	if s.GetState() == mirrorv1.SweepState_SWEEP_STATE_LISTING {
		line += fmt.Sprintf(", listing rooms: %d so far", s.GetRoomsListed())
	}
	if rate := s.GetResourcesPerSecond(); rate > 0 {
		line += fmt.Sprintf(", %.0f per second", rate)
	}
	if left := s.GetRemainingDuration(); left != nil && s.GetState() != mirrorv1.SweepState_SWEEP_STATE_LISTING {
		line += ", " + left.AsDuration().Round(time.Second).String() + " left"
	}
	return line
}

// summary describes a finished sweep in one line.
func summary(s *mirrorv1.Sweep) string {
	took := s.GetEndTime().AsTime().Sub(s.GetBeginTime().AsTime()).Round(time.Second)
	return fmt.Sprintf("done: %d rooms listed in %s (%d new, %d gone), %d resources fetched",
		s.GetRoomsListed(), took, s.GetRoomsListed()-s.GetRoomsKnown(), s.GetRoomsVanished(), s.GetResourcesDone())
}

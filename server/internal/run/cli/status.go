package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// watchEvery is the time between two looks at the status.
const watchEvery = 2 * time.Second

// Status is the command that shows the status of the service.
type Status struct {
	Watch bool `name:"watch" help:"Show it again and again until an interrupt."`

	Call

	// pause is the time between two looks; zero but in tests.
	pause time.Duration
}

// Run shows the status.
func (c *Status) Run(ctx context.Context, std Streams) error {
	live := terminal(std.Out) && !c.JSON
	return c.run(ctx, 0, func(ctx context.Context, s *service) error {
		for {
			callCtx, cancel := context.WithTimeout(ctx, callTimeout)
			got, err := s.GetStatus(callCtx, &mirrorv1.GetStatusRequest{})
			cancel()
			if err != nil {
				return unlessInterrupted(ctx, c.Watch, err)
			}
			var text strings.Builder
			statusText(&text, got, s.address, s.project, time.Now())
			if c.Watch && live { // however many lines of the screen the last one took
				_, _ = io.WriteString(std.Out, "\x1b[H\x1b[J")
			}
			if err := c.Print(std.Out, got, func(w io.Writer) { _, _ = io.WriteString(w, text.String()) }); err != nil {
				return err
			}
			if !c.Watch || clock.Sleep(ctx, cmp.Or(c.pause, watchEvery)) != nil {
				return nil //nolint:nilerr // whoever interrupts it has seen enough
			}
		}
	})
}

// unlessInterrupted returns err, unless somebody has ended what goes on until then.
func unlessInterrupted(ctx context.Context, endless bool, err error) error {
	if endless && ctx.Err() != nil {
		return nil //nolint:nilerr // that is how it ends
	}
	return err
}

// statusText writes the status for people.
func statusText(w io.Writer, got *mirrorv1.GetStatusResponse, address, project string, now time.Time) {
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	ready := "ready"
	if !got.GetReady() {
		ready = "NOT READY"
	}
	line("%s at %s, %s, started %s, on %s", got.GetVersion(), address, ready, ago(got.GetStartTime(), now), got.GetStore())
	if d := got.GetDeliveries(); d != nil { // not of a caller that does not see all projects
		line("webhooks since the start: %d accepted, %d duplicate, %d refused, %d not recorded", d.GetAccepted(),
			d.GetDuplicate(), d.GetUnauthenticated(), d.GetUnavailable())
	}
	for _, p := range got.GetProjects() {
		if project != "" && p.GetProjectId() != project {
			continue
		}
		line("")
		pinned := "not pinned"
		if id := p.GetLiveblocksProjectId(); id != "" {
			pinned = "Liveblocks " + cell(id)
		}
		line("project %s (%s)", p.GetProjectId(), pinned)
		switch {
		case p.GetPauseReason() != "":
			line("  PAUSED %s: %s", ago(p.GetPauseTime(), now), p.GetPauseReason())
		case p.GetThrottledUntilTime() != nil:
			line("  fetching goes on %s: Liveblocks asked for that, or is not available",
				ago(p.GetThrottledUntilTime(), now))
		default:
			line("  fetching up to %.0f of %.0f calls per second", p.GetCallsPerSecondLimit(), p.GetMaxCallsPerSecondLimit())
		}
		due := ""
		if p.GetOldestDueTime() != nil {
			due = ", the oldest due " + ago(p.GetOldestDueTime(), now)
		}
		line("  tasks: %d pending, %d of them in the background, %d failed%s", p.GetPendingTasks(), p.GetBackgroundTasks(),
			p.GetFailedTasks(), due)
		line("  last event: %s", ago(p.GetLastEventTime(), now))
		line("  last sweep: %s", sweepText(p.GetLastSweep(), now))
		for _, u := range p.GetUnannouncedChanges() {
			line("  without an event: %d changes of %s, the last found %s", u.GetChangeCount(),
				word(u.GetKind().String(), "RESOURCE_KIND_"), ago(u.GetLastFindTime(), now))
		}
		for _, r := range p.GetRetention() {
			if r.GetKeepDuration() != nil {
				what := r.GetTable()
				if slices.Contains(store.Tombstones, store.Aging(what)) {
					what = "what was deleted in " + what
				}
				line("  kept of %s: %s, %d rows deleted since the start", what, r.GetKeepDuration().AsDuration(),
					r.GetDeletedRows())
			}
		}
		for _, warning := range p.GetWarnings() { // problems included
			line("  WARNING: %s\n    -> %s", warning.GetText(), warning.GetRunbook())
		}
	}
}

func sweepText(s *mirrorv1.Sweep, now time.Time) string {
	switch {
	case s.GetSweepId() == "":
		return "none yet"
	case s.GetState() == mirrorv1.SweepState_SWEEP_STATE_DONE:
		return fmt.Sprintf("done %s, %d rooms listed", ago(s.GetEndTime(), now), s.GetRoomsListed())
	}
	return progress(s, false)
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

// Verify is the command that compares the mirror with Liveblocks.
type Verify struct {
	Repair     bool   `name:"repair" help:"Fetch and rewrite whatever differs."`
	RoomPrefix string `name:"room-prefix" placeholder:"TEXT" help:"Compare only rooms whose id starts with this text."`

	Call
}

// Run writes differences to Out, one per line, and its progress to Err; as JSON it writes
// everything to Out. It returns [ErrDrift] if it found any, repaired or not, and another
// error if something could not be compared. Kinds that Liveblocks does not have are none of
// both.
func (c *Verify) Run(ctx context.Context, std Streams) error {
	return c.run(ctx, 0, func(ctx context.Context, s *service) error {
		show := &screen{w: std.Err, live: terminal(std.Err)}
		defer show.clear()
		return c.verify(ctx, s, std.Out, show)
	})
}

func (c *Verify) verify(ctx context.Context, s *service, out io.Writer, show *screen) error {
	stream, err := s.VerifyMirror(ctx, &mirrorv1.VerifyMirrorRequest{
		ProjectId: s.project, RoomIdPrefix: c.RoomPrefix, Repair: c.Repair,
	})
	if err != nil {
		return err
	}
	var summary *mirrorv1.VerifySummary
	for {
		got, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && summary != nil:
			return result(show, summary)
		case errors.Is(err, io.EOF):
			return errors.New("the service ended the verification early; run it again")
		case err != nil:
			return err
		}
		if c.JSON {
			if err := c.Print(out, got, nil); err != nil {
				return err
			}
			if got.GetSummary() == nil {
				continue
			}
		}
		switch report := got.GetReport().(type) {
		case *mirrorv1.VerifyMirrorResponse_Drift:
			show.clear()
			if _, err := fmt.Fprintln(out, driftLine(report.Drift)); err != nil {
				return fmt.Errorf("write a difference: %w", err)
			}
		case *mirrorv1.VerifyMirrorResponse_Progress:
			p := report.Progress
			line := fmt.Sprintf("%d of %d rooms and %d resources compared, %d differences",
				p.GetRoomsChecked(), p.GetRoomsListed(), p.GetResourcesChecked(), p.GetDrifts())
			if show.live {
				line = bar(p.GetRoomsChecked(), p.GetRoomsListed()) + " " + line
			}
			if p.GetWaiting() != "" {
				line += "; waiting for " + p.GetWaiting()
			}
			show.progress(line)
		case *mirrorv1.VerifyMirrorResponse_Skip:
			show.clear()
			if _, err := fmt.Fprintln(out, skipLine(report.Skip)); err != nil {
				return fmt.Errorf("write what was not compared: %w", err)
			}
		case *mirrorv1.VerifyMirrorResponse_Summary:
			summary = report.Summary
		}
	}
}

// driftLine describes a difference. Ids are quoted: they may contain line breaks.
func driftLine(d *mirrorv1.Drift) string {
	line := fmt.Sprintf("%s: %s: %s", word(d.GetKind().String(), "DRIFT_KIND_"),
		describe(d.GetResourceKind(), d.GetRoomId(), d.GetResourceId()), d.GetDetail())
	if d.GetRepairRequested() {
		line += " [repair requested]"
	}
	return line
}

// skipLine describes a resource that could not be compared.
func skipLine(s *mirrorv1.VerifySkip) string {
	line := fmt.Sprintf("not compared: %s: %s", describe(s.GetResourceKind(), s.GetRoomId(), s.GetResourceId()),
		s.GetReason())
	if status := s.GetHttpStatus(); status > 0 {
		line += fmt.Sprintf(" (HTTP status %d)", status)
	}
	return line
}

// result shows the summary, and returns an error unless everything is equal.
func result(show *screen, s *mirrorv1.VerifySummary) error {
	show.line(fmt.Sprintf("%d rooms and %d resources compared, %d differences, %d repairs requested",
		s.GetRoomsChecked(), s.GetResourcesChecked(), s.GetDrifts(), s.GetRepairsRequested()))
	if n := s.GetResourcesPending(); n > 0 {
		show.line(fmt.Sprintf("%d resources differ but have a fetch pending, or kept changing", n))
	}
	switch {
	case s.GetDrifts() > 0 && s.GetRepairsRequested() == s.GetDrifts():
		return fmt.Errorf("%w; %d repairs requested; run verify again to see that nothing differs any more", ErrDrift,
			s.GetRepairsRequested())
	case s.GetDrifts() > 0:
		return ErrDrift
	case s.GetResourcesSkipped() > 0:
		return fmt.Errorf("%d resources could not be compared: %s", s.GetResourcesSkipped(), s.GetSkipReason())
	default:
		return nil
	}
}

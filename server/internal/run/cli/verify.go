package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
)

// VerifyOptions says what to verify.
type VerifyOptions struct {
	// RoomPrefix limits the verification to rooms whose id starts with it.
	RoomPrefix string
	// Repair requests a repair of what differs.
	Repair bool
}

// Verify compares the mirror with Liveblocks. It writes one line for each
// difference to out, and its progress to progress. It returns [ErrDrift] if there
// were differences, repaired or not.
func Verify(ctx context.Context, cfg config.Client, o VerifyOptions, out io.Writer, progress *os.File) error {
	s, err := dial(cfg)
	if err != nil {
		return err
	}
	defer s.close()
	show := &screen{w: progress, live: terminal(progress)}
	defer show.clear()
	stream, err := s.VerifyMirror(ctx, &mirrorv1.VerifyMirrorRequest{ProjectId: s.project, RoomIdPrefix: o.RoomPrefix,
		Repair: o.Repair})
	if err != nil {
		return s.explain(err)
	}
	var summary *mirrorv1.VerifySummary
	for {
		got, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && summary != nil:
			return verdict(show, summary)
		case errors.Is(err, io.EOF):
			return errors.New("the service ended the verification early")
		case err != nil:
			return s.explain(err)
		}
		switch report := got.GetReport().(type) {
		case *mirrorv1.VerifyMirrorResponse_Drift:
			show.clear()
			if _, err := fmt.Fprintln(out, driftLine(report.Drift)); err != nil {
				return fmt.Errorf("write a difference: %w", err)
			}
		case *mirrorv1.VerifyMirrorResponse_Progress:
			p := report.Progress
			line := fmt.Sprintf("%d of %d rooms compared, %d resources, %d differences",
				p.GetRoomsChecked(), p.GetRoomsListed(), p.GetResourcesChecked(), p.GetDrifts())
			if show.live {
				line = bar(p.GetRoomsChecked(), p.GetRoomsListed()) + " " + line
			}
			show.progress(line)
		case *mirrorv1.VerifyMirrorResponse_Summary:
			summary = report.Summary
		}
	}
}

// driftLine describes a difference in one line. Ids are quoted because they can
// contain line breaks.
func driftLine(d *mirrorv1.Drift) string {
	word := func(s, prefix string) string { return strings.ToLower(strings.TrimPrefix(s, prefix)) }
	of := word(d.GetResourceKind().String(), "RESOURCE_KIND_")
	if id := d.GetResourceId(); id != "" {
		of += fmt.Sprintf(" %q", id)
	}
	line := fmt.Sprintf("%s: %s of room %q: %s", word(d.GetKind().String(), "DRIFT_KIND_"), of, d.GetRoomId(),
		d.GetDetail())
	if d.GetRepairRequested() {
		line += " [repair requested]"
	}
	return line
}

// verdict reports the result of a verification.
func verdict(show *screen, s *mirrorv1.VerifySummary) error {
	show.line(fmt.Sprintf("%d rooms with %d resources compared, %d differences, %d repairs requested",
		s.GetRoomsChecked(), s.GetResourcesChecked(), s.GetDrifts(), s.GetRepairsRequested()))
	if n := s.GetResourcesPending(); n > 0 {
		show.line(fmt.Sprintf("%d resources differ but are waiting for their next fetch or kept changing", n))
	}
	switch {
	case s.GetDrifts() > 0:
		return ErrDrift
	case s.GetResourcesSkipped() > 0:
		return fmt.Errorf("%d resources could not be compared: %s", s.GetResourcesSkipped(), s.GetSkipReason())
	default:
		return nil
	}
}

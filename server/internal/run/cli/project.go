package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
)

// pinTimeout bounds a call that looks through all recorded events.
const pinTimeout = 30 * time.Minute

// PinProject makes the service work the events of a Liveblocks project, those
// included that it has set aside.
func PinProject(ctx context.Context, cfg config.Client, liveblocksID string, out io.Writer) error {
	s, err := dial(cfg)
	if err != nil {
		return err
	}
	defer s.close()
	ctx, cancel := context.WithTimeout(ctx, pinTimeout)
	defer cancel()
	got, err := s.PinProject(ctx, &mirrorv1.PinProjectRequest{ProjectId: s.project, LiveblocksProjectId: liveblocksID})
	if err != nil {
		return s.explain(err)
	}
	return say(out, "the Liveblocks project is %q; %d events that were set aside are worked now", liveblocksID,
		got.GetEventsTakenUp())
}

// ConfirmKey tells the service that its secret key is that of the mirrored project.
func ConfirmKey(ctx context.Context, cfg config.Client, out io.Writer) error {
	s, err := dial(cfg)
	if err != nil {
		return err
	}
	defer s.close()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := s.ConfirmSecretKey(ctx, &mirrorv1.ConfirmSecretKeyRequest{ProjectId: s.project}); err != nil {
		return s.explain(err)
	}
	return say(out, "the secret key is taken to be that of the mirrored project")
}

// ConfirmDeletions tells the service that rooms and groups which Liveblocks' lists
// lack are really deleted.
func ConfirmDeletions(ctx context.Context, cfg config.Client, rooms, groups int64, out io.Writer) error {
	s, err := dial(cfg)
	if err != nil {
		return err
	}
	defer s.close()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = s.ConfirmDeletions(ctx, &mirrorv1.ConfirmDeletionsRequest{
		ProjectId: s.project, RoomsVanished: rooms, GroupsVanished: groups,
	})
	if err != nil {
		return s.explain(err)
	}
	return say(out, "confirmed that up to %d rooms and %d groups are deleted; "+
		"the sweep that confirms each of them has begun", rooms, groups)
}

// say writes the result of a command.
func say(out io.Writer, format string, args ...any) error {
	if _, err := fmt.Fprintf(out, format+"\n", args...); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

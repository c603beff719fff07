package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

// pinTimeout bounds a call that looks through all recorded events.
const pinTimeout = 30 * time.Minute

// Project are the commands that tell what an operator knows about the Liveblocks project.
type Project struct {
	ConfirmDeletions confirmDeletions `cmd:"" name:"confirm-deletions" help:"Believe that rooms or groups which Liveblocks' lists lack are deleted."`
	ConfirmKey       confirmKey       `cmd:"" name:"confirm-key" help:"Use the secret key although Liveblocks shows none of the mirrored rooms."`
	Pin              pin              `cmd:"" help:"Work the events of this Liveblocks project, those included that were set aside."`
	Unpin            unpin            `cmd:"" help:"Forget which Liveblocks project is mirrored. The next fetch decides."`
}

type pin struct {
	LiveblocksProjectID string `arg:"" name:"liveblocks-project-id" help:"Liveblocks' id of the project, as in the projectId of its events."`

	Call
}

// Run makes the service work the events of a Liveblocks project, those included that it
// has set aside.
func (c *pin) Run(ctx context.Context, std Streams) error {
	return c.run(ctx, pinTimeout, func(ctx context.Context, s *service) error {
		got, err := s.PinProject(ctx, &mirrorv1.PinProjectRequest{
			ProjectId: s.project, LiveblocksProjectId: c.LiveblocksProjectID,
		})
		if err != nil {
			return err
		}
		return c.Print(std.Out, got, func(w io.Writer) {
			_, _ = fmt.Fprintf(w, "the Liveblocks project is %q; %d events that were set aside are worked now\n",
				c.LiveblocksProjectID, got.GetEventsTakenUp())
		})
	})
}

type unpin struct{ Call }

// Run makes the service forget the Liveblocks project.
func (c *unpin) Run(ctx context.Context, std Streams) error {
	return once(ctx, &c.Call, std, func(ctx context.Context, s *service) (*mirrorv1.UnpinProjectResponse, error) {
		return s.UnpinProject(ctx, &mirrorv1.UnpinProjectRequest{ProjectId: s.project})
	}, func(w io.Writer, got *mirrorv1.UnpinProjectResponse) {
		_, _ = fmt.Fprintf(w, "the Liveblocks project was %q; the next fetch that shows what an event names decides\n",
			got.GetLiveblocksProjectId())
	})
}

type confirmKey struct{ Call }

// Run tells the service that its secret key is that of the mirrored project.
func (c *confirmKey) Run(ctx context.Context, std Streams) error {
	return once(ctx, &c.Call, std, func(ctx context.Context, s *service) (*mirrorv1.ConfirmSecretKeyResponse, error) {
		return s.ConfirmSecretKey(ctx, &mirrorv1.ConfirmSecretKeyRequest{ProjectId: s.project})
	}, func(w io.Writer, _ *mirrorv1.ConfirmSecretKeyResponse) {
		_, _ = fmt.Fprintln(w, "the secret key is taken to be that of the mirrored project")
	})
}

type confirmDeletions struct {
	Rooms  int64 `name:"rooms" placeholder:"NUMBER" help:"How many rooms are deleted: the number that the problem shows."`
	Groups int64 `name:"groups" placeholder:"NUMBER" help:"How many groups are deleted: the number that the problem shows."`

	Call
}

// Run tells the service that rooms and groups which Liveblocks' lists lack are really
// deleted.
func (c *confirmDeletions) Run(ctx context.Context, std Streams) error {
	return once(ctx, &c.Call, std, func(ctx context.Context, s *service) (*mirrorv1.ConfirmDeletionsResponse, error) {
		return s.ConfirmDeletions(ctx, &mirrorv1.ConfirmDeletionsRequest{
			ProjectId: s.project, RoomsVanished: c.Rooms, GroupsVanished: c.Groups,
		})
	}, func(w io.Writer, _ *mirrorv1.ConfirmDeletionsResponse) {
		_, _ = fmt.Fprintf(w, "confirmed that up to %d rooms and %d groups are deleted; "+
			"the sweep that confirms each of them has begun\n", c.Rooms, c.Groups)
	})
}

// Pause is the command that stops calls to Liveblocks.
type Pause struct {
	Reason string `arg:"" help:"Why, for people."`

	Call
}

// Run stops calls to Liveblocks.
func (c *Pause) Run(ctx context.Context, std Streams) error {
	return once(ctx, &c.Call, std, func(ctx context.Context, s *service) (*mirrorv1.PauseProjectResponse, error) {
		return s.PauseProject(ctx, &mirrorv1.PauseProjectRequest{ProjectId: s.project, Reason: c.Reason})
	}, func(w io.Writer, _ *mirrorv1.PauseProjectResponse) {
		_, _ = fmt.Fprintln(w, "nothing is fetched until `liveblocks-mirror resume`; other replicas stop within a minute")
	})
}

// Resume is the command that lets calls to Liveblocks go on.
type Resume struct{ Call }

// Run lets calls to Liveblocks go on.
func (c *Resume) Run(ctx context.Context, std Streams) error {
	return once(ctx, &c.Call, std, func(ctx context.Context, s *service) (*mirrorv1.ResumeProjectResponse, error) {
		return s.ResumeProject(ctx, &mirrorv1.ResumeProjectRequest{ProjectId: s.project})
	}, func(w io.Writer, _ *mirrorv1.ResumeProjectResponse) {
		_, _ = fmt.Fprintln(w, "fetching goes on; on other replicas within a minute")
	})
}

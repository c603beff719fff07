package cli

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc/status"

	"github.com/liveblocks-mirror/liveblocks-mirror/client/follow"
	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
)

// Follow is the command that prints what changes.
type Follow struct {
	From       string   `name:"from" default:"now" placeholder:"WHERE" help:"Where to start: now, earliest, snapshot (all that is mirrored, then what changes), or a token. When it ends, it prints the token to go on from; with --json each line has one."`
	Room       string   `name:"room" placeholder:"ID" help:"Only changes in this room."`
	RoomPrefix string   `name:"room-prefix" placeholder:"TEXT" help:"Only changes in rooms whose id begins with this text."`
	Kind       []string `name:"kind" placeholder:"KIND" help:"Only changes of resources of these kinds, separated by commas, such as storage,thread."`
	Include    string   `name:"include" default:"none" placeholder:"FORM" help:"What of each resource to print with its change: none, basic (as lists show it) or full. Needs --json, and a key that may read as well."`

	Call
}

// Run prints changes until an interrupt. It survives a restart of the service.
func (c *Follow) Run(ctx context.Context, std Streams) error {
	req := &mirrorv1.WatchChangesRequest{RoomId: c.Room, RoomIdPrefix: c.RoomPrefix}
	include, err := enumOf("--include", mirrorv1.ChangeInclude_CHANGE_INCLUDE_UNSPECIFIED, c.Include)
	if err != nil {
		return err
	}
	if req.Include = include; include > mirrorv1.ChangeInclude_CHANGE_INCLUDE_NONE && !c.JSON {
		return &config.Error{Setting: "--include", Problem: "needs --json"}
	}
	for _, word := range c.Kind {
		kind, err := enumOf("--kind", mirrorv1.ResourceKind_RESOURCE_KIND_UNSPECIFIED, word)
		if err != nil {
			return err
		}
		req.Kinds = append(req.Kinds, kind)
	}
	switch c.From {
	case "now":
	case "snapshot":
		req.Start = &mirrorv1.WatchChangesRequest_Position{Position: mirrorv1.ChangeStart_CHANGE_START_SNAPSHOT}
	case "earliest":
		req.Start = &mirrorv1.WatchChangesRequest_Position{Position: mirrorv1.ChangeStart_CHANGE_START_EARLIEST}
	default:
		req.Start = &mirrorv1.WatchChangesRequest_Token{Token: c.From}
	}
	token := ""
	err = c.run(ctx, 0, func(ctx context.Context, s *service) (err error) {
		req.ProjectId = s.project
		token, err = c.follow(ctx, s, req, std)
		return err
	})
	if token != "" && !c.JSON {
		_, _ = fmt.Fprintf(std.Err, "go on with --from %s\n", token) // an error would be about the end of standard error
	}
	return err
}

// follow prints changes and returns the last token. A service that has not answered yet is
// not waited for.
func (c *Follow) follow(ctx context.Context, s *service, req *mirrorv1.WatchChangesRequest, std Streams) (token string,
	err error,
) {
	runCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	away := false
	err = follow.Run(runCtx, mirrorv1.NewChangeServiceClient(s.conn), follow.Config{
		Request: req,
		Failed: func(err error) {
			if token == "" {
				cancel(err)
			} else if !away {
				away = true
				_, _ = fmt.Fprintf(std.Err, "the stream broke, trying again: %s\n",
					status.Convert(err).Message())
			}
		},
	}, func(_ context.Context, response *mirrorv1.WatchChangesResponse) error {
		away = false
		if c.JSON {
			if err := c.Print(std.Out, response, nil); err != nil {
				return err
			}
			token = response.GetToken()
			return nil
		}
		var lines strings.Builder
		for _, change := range response.GetChanges().GetChanges() {
			fmt.Fprintf(&lines, "%s  %-8s  %s\n", at(change.GetCommitTime()),
				word(change.GetChangeKind().String(), "CHANGE_KIND_"),
				describe(change.GetKind(), change.GetRoomId(), change.GetResourceId()))
		}
		for _, item := range response.GetSnapshotItems().GetItems() {
			fmt.Fprintf(&lines, "%-19s  %-8s  %s\n", at(item.GetCommitTime()), "mirrored",
				describe(item.GetKind(), item.GetRoomId(), item.GetResourceId()))
		}
		if response.GetSnapshotEnd() != nil {
			fmt.Fprintf(&lines, "%-19s  that was all; what changes follows\n", at(nil))
		}
		_, err := std.Out.WriteString(lines.String())
		if err == nil { // or whoever goes on from there would miss what was not printed
			token = response.GetToken()
		}
		return err
	})
	switch {
	case ctx.Err() != nil:
		return token, nil // whoever interrupts it has seen enough
	case runCtx.Err() != nil:
		return token, context.Cause(runCtx)
	}
	return token, err
}

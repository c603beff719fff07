package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

// Erase are the commands that erase data for good.
type Erase struct {
	User eraseUser `cmd:"" help:"Erase what only the mirror has of a user, and list what Liveblocks still has. Without --yes, only count it."`
	Room eraseRoom `cmd:"" help:"Erase what a deleted room has left. Without --yes, only count it."`
}

type eraseUser struct {
	UserID string `arg:"" name:"user-id" help:"Id of the user, as the application gives it to Liveblocks."`
	Yes    bool   `name:"yes" help:"Erase it for good."`

	Call
}

// Run erases a user, and prints the result as one message.
func (c *eraseUser) Run(ctx context.Context, std Streams) error {
	show := &screen{w: std.Err, live: terminal(std.Err)}
	defer show.clear()
	total := &mirrorv1.EraseUserResponse{}
	err := c.run(ctx, 0, func(ctx context.Context, s *service) error {
		stream, err := s.EraseUser(ctx, &mirrorv1.EraseUserRequest{ProjectId: s.project, UserId: c.UserID, Confirm: c.Yes})
		if err != nil {
			return err
		}
		for {
			got, err := stream.Recv()
			switch {
			case errors.Is(err, io.EOF) && total.GetDone():
				return nil
			case errors.Is(err, io.EOF):
				return errors.New("the service ended the erasure early; run it again, it goes on where nothing was erased")
			case err != nil:
				return err
			}
			got.Remaining = append(total.GetRemaining(), got.GetRemaining()...)
			total = got
			show.progress(fmt.Sprintf("%d of %d parts searched", total.GetBucketsDone(), total.GetBucketCount()))
		}
	})
	show.clear()
	if err != nil {
		return err
	}
	return c.print(std.Out, total, func(w io.Writer) {
		eraseTables(w, total.GetTables(), c.Yes)
		if len(total.GetRemaining()) == 0 {
			return
		}
		_, _ = fmt.Fprintln(w, "\nWhat remains is a copy of what Liveblocks has. Delete it there, and run this again:")
		rows := make([][]string, len(total.GetRemaining()))
		for i, r := range total.GetRemaining() {
			rows[i] = []string{
				word(r.GetKind().String(), "RESOURCE_KIND_"), r.GetRoomId(), r.GetResourceId(), r.GetDeletion(),
			}
		}
		table(w, "KIND | ROOM | ID | AT LIVEBLOCKS", rows)
	})
}

type eraseRoom struct {
	RoomID string `arg:"" name:"room-id" help:"Id of the room."`
	Yes    bool   `name:"yes" help:"Erase it for good."`

	Call
}

// Run erases a room.
func (c *eraseRoom) Run(ctx context.Context, std Streams) error {
	return within(ctx, &c.Call, std, 0, func(ctx context.Context, s *service) (*mirrorv1.EraseRoomResponse, error) {
		return s.EraseRoom(ctx, &mirrorv1.EraseRoomRequest{ProjectId: s.project, RoomId: c.RoomID, Confirm: c.Yes})
	}, func(w io.Writer, got *mirrorv1.EraseRoomResponse) { eraseTables(w, got.GetTables(), c.Yes) })
}

// eraseTables writes how many rows of which tables were erased, or would be.
func eraseTables(w io.Writer, tables []*mirrorv1.ErasedTable, erased bool) {
	rows, all := make([][]string, len(tables)), int64(0)
	for i, t := range tables {
		rows[i] = []string{
			t.GetTable(), strconv.FormatInt(t.GetErasedRows(), 10), strconv.FormatInt(t.GetRemainingRows(), 10),
		}
		all += t.GetErasedRows()
	}
	title := "ERASED"
	if !erased {
		title = "TO ERASE"
	}
	if len(rows) > 0 {
		table(w, "TABLE | "+title+" | REMAINING", rows)
	}
	switch {
	case all == 0:
		_, _ = fmt.Fprintln(w, "there is nothing to erase")
	case !erased:
		_, _ = fmt.Fprintln(w, "nothing was changed; run it again with --yes to erase it for good")
	}
}

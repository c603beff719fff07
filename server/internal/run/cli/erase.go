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
	User eraseUser `cmd:"" help:"Erase what only the mirror has of a user, and list what remains and why. Without --yes, only count it."`
	Room eraseRoom `cmd:"" help:"Erase what a deleted room has left. Without --yes, only count it."`
}

type eraseUser struct {
	UserID string `arg:"" name:"user-id" help:"Id of the user, as the application gives it to Liveblocks."`
	Yes    bool   `name:"yes" help:"Erase it for good."`

	Everywhere bool `name:"everywhere" help:"Erase it also in texts and properties of others that only the mirror has."`

	Call
}

// Run erases a user, and prints the result as one message.
func (c *eraseUser) Run(ctx context.Context, std Streams) error {
	show := &screen{w: std.Err, live: terminal(std.Err)}
	defer show.clear()
	total := &mirrorv1.EraseUserResponse{}
	err := c.run(ctx, 0, func(ctx context.Context, s *service) error {
		stream, err := s.EraseUser(ctx, &mirrorv1.EraseUserRequest{
			ProjectId: s.project, UserId: c.UserID, Confirm: c.Yes, Everywhere: c.Everywhere,
		})
		if err != nil {
			return err
		}
		for {
			got, err := stream.Recv()
			switch {
			case errors.Is(err, io.EOF) && total.GetDone():
				return nil
			case errors.Is(err, io.EOF):
				return errors.New("the service ended the erasure early; run it again, it finds what is left")
			case err != nil:
				return err
			}
			got.Remaining = append(total.GetRemaining(), got.GetRemaining()...)
			total = got
			show.progress(fmt.Sprintf("%d of %d parts searched", total.GetBucketsDone(), total.GetBucketCount()))
		}
	})
	show.clear()
	if err != nil && total.GetBucketsDone() == 0 {
		return err
	}
	// What was done before a failure is told too.
	return errors.Join(err, c.Print(std.Out, total, func(w io.Writer) {
		eraseTables(w, total.GetTables(), c.Yes)
		if n := total.GetRequestedResources(); n > 0 {
			will := "would be"
			if c.Yes {
				will = "are"
			}
			_, _ = fmt.Fprintf(w, "%d resources that Liveblocks has %s fetched again\n", n, will)
		}
		if len(total.GetRemaining()) == 0 {
			return
		}
		_, _ = fmt.Fprintln(w, "\nThese hold the id still. End it there, and run this again:")
		rows := make([][]string, len(total.GetRemaining()))
		for i, r := range total.GetRemaining() {
			holds := "as a part of a text"
			if r.GetExact() {
				holds = "as a value"
			}
			rows[i] = []string{
				word(r.GetKind().String(), "RESOURCE_KIND_"), r.GetRoomId(), r.GetResourceId(), holds, r.GetRemedy(),
			}
		}
		table(w, "KIND | ROOM | ID | HOLDS IT | WHAT ENDS IT", rows)
	}))
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
	var rows [][]string
	changed, living, others := int64(0), int64(0), int64(0)
	for _, t := range tables {
		row := []string{t.GetTable()}
		for _, n := range []int64{t.GetRemovedRows(), t.GetRewrittenRows(), t.GetLivingRows(), t.GetOtherRows()} {
			row = append(row, strconv.FormatInt(n, 10))
		}
		rows = append(rows, row)
		changed += t.GetRemovedRows() + t.GetRewrittenRows()
		living, others = living+t.GetLivingRows(), others+t.GetOtherRows()
	}
	title := "TABLE | REMOVED | REWRITTEN | AT LIVEBLOCKS | REMAIN"
	if !erased {
		title = "TABLE | TO REMOVE | TO REWRITE | AT LIVEBLOCKS | WOULD REMAIN"
	}
	if len(rows) > 0 {
		table(w, title, rows)
	}
	if changed == 0 {
		_, _ = fmt.Fprintln(w, "there is nothing to erase here")
	} else if !erased {
		_, _ = fmt.Fprintln(w, "nothing was changed; run it again with --yes to erase it for good")
	}
	if living > 0 {
		_, _ = fmt.Fprintf(w, "%d rows hold the id still, as copies of what Liveblocks has\n", living)
	}
	if others > 0 {
		_, _ = fmt.Fprintf(w, "%d rows hold the id still, in what belongs to others; "+
			"--everywhere is for ids that are no words\n", others)
	}
}

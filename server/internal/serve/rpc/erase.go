package rpc

import (
	"context"
	"net/url"
	"slices"

	"google.golang.org/grpc"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/erase"
)

// Eraser erases users and deleted rooms. User calls report from one goroutine at a time,
// and returns its error.
type Eraser interface {
	User(ctx context.Context, user erase.User, report func(erase.Report) error) error
	Room(ctx context.Context, room mirror.Resource, dryRun bool) (store.TableRows, error)
}

// remainingCopies is how many copies a message lists, so that it fits.
const remainingCopies = 500

// EraseUser erases what only the mirror has of a user.
func (a *adminService) EraseUser(req *mirrorv1.EraseUserRequest,
	stream grpc.ServerStreamingServer[mirrorv1.EraseUserResponse],
) error {
	project, err := a.project(stream.Context(), req.GetProjectId())
	if err != nil {
		return err
	}
	user := erase.User{Project: project, ID: req.GetUserId(), DryRun: !req.GetConfirm()}
	var sent error
	err = a.Eraser.User(stream.Context(), user, func(r erase.Report) error {
		resp := &mirrorv1.EraseUserResponse{
			BucketsDone: int32(r.Buckets), BucketCount: mirror.Buckets, //nolint:gosec // a small number
		}
		for _, t := range r.Tables {
			resp.Tables = append(resp.Tables, &mirrorv1.ErasedTable{
				Table: t.Name, ErasedRows: t.Erased, RemainingRows: t.Remaining,
			})
		}
		copies := make([]*mirrorv1.RemainingCopy, len(r.Remaining))
		for i, c := range r.Remaining {
			copies[i] = &mirrorv1.RemainingCopy{
				Kind: kinds[c.Resource.Kind], RoomId: string(c.Resource.Room), ResourceId: c.Resource.ID, Columns: c.Columns,
				Deletion: deletionOf(c),
			}
		}
		for len(copies) > remainingCopies && sent == nil {
			sent = stream.Send(&mirrorv1.EraseUserResponse{
				BucketsDone: resp.GetBucketsDone() - 1, BucketCount: mirror.Buckets, Tables: resp.GetTables(),
				Remaining: copies[:remainingCopies],
			})
			copies = copies[remainingCopies:]
		}
		if resp.Remaining = copies; sent == nil {
			resp.Done = r.Buckets == mirror.Buckets
			sent = stream.Send(resp)
		}
		return sent
	})
	if sent != nil { // gRPC's own error for the stream
		return sent
	}
	return err
}

// deletionOf says how somebody deletes at Liveblocks what a copy is of.
func deletionOf(c erase.Remaining) string {
	room := "/v2/rooms/" + url.PathEscape(string(c.Resource.Room))
	switch c.Resource.Kind {
	case mirror.KindRoom:
		if slices.Contains(c.Columns, "mirror_room.room_id") {
			return "DELETE " + room
		}
		return "POST " + room + " without the user in its accesses and metadata, or DELETE " + room
	case mirror.KindStorage:
		return "edit the document in the application, or DELETE " + room + "/storage"
	case mirror.KindYdoc:
		return "edit the document in the application, or DELETE " + room
	case mirror.KindThread:
		return "DELETE " + room + "/threads/" + url.PathEscape(c.Resource.ID)
	case mirror.KindGroup:
		return "POST /v2/groups/" + url.PathEscape(c.Resource.ID) + "/remove-members"
	default:
		return "nothing: it ends when the user leaves the room"
	}
}

// EraseRoom erases what a deleted room has left.
func (a *adminService) EraseRoom(ctx context.Context, req *mirrorv1.EraseRoomRequest) (*mirrorv1.EraseRoomResponse,
	error,
) {
	room, err := a.in(ctx, req.GetProjectId(), mirror.Resource{
		Room: mirror.RoomID(req.GetRoomId()), Kind: mirror.KindRoom,
	})
	if err != nil {
		return nil, roomNotMirrored(err, req.GetRoomId())
	}
	rows, err := a.Eraser.Room(ctx, room, !req.GetConfirm())
	if err != nil {
		return nil, roomNotMirrored(err, req.GetRoomId())
	}
	resp := &mirrorv1.EraseRoomResponse{}
	for _, table := range slices.Concat(store.RoomTables, []string{"mirror_event", "mirror_room"}) {
		if n := rows[table]; n > 0 {
			resp.Tables = append(resp.Tables, &mirrorv1.ErasedTable{Table: table, ErasedRows: n})
		}
	}
	return resp, nil
}

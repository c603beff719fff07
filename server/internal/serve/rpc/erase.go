package rpc

import (
	"context"
	"maps"
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

// remainingPerMessage is how many resources a message lists, so that it fits.
const remainingPerMessage = 500

// EraseUser erases what only the mirror has of a user.
func (a *adminService) EraseUser(req *mirrorv1.EraseUserRequest,
	stream grpc.ServerStreamingServer[mirrorv1.EraseUserResponse],
) error {
	project, err := a.project(stream.Context(), req.GetProjectId())
	if err != nil {
		return err
	}
	user := erase.User{
		Project: project, Subject: store.Subject{User: req.GetUserId(), Everywhere: req.GetEverywhere()},
		DryRun: !req.GetConfirm(),
	}
	var sent error
	err = a.Eraser.User(stream.Context(), user, func(r erase.Report) error {
		resp := &mirrorv1.EraseUserResponse{
			BucketsDone: int32(r.Buckets), BucketCount: mirror.Buckets, //nolint:gosec // a small number
			RequestedResources: r.Requested,
		}
		for _, t := range r.Tables {
			resp.Tables = append(resp.Tables, &mirrorv1.ErasedTable{
				Table: t.Name, RemovedRows: t.Removed, RewrittenRows: t.Rewritten, LivingRows: t.Living, OtherRows: t.Other,
			})
		}
		list := make([]*mirrorv1.RemainingResource, len(r.Remaining))
		for i, left := range r.Remaining {
			list[i] = &mirrorv1.RemainingResource{
				Kind: kinds[left.Resource.Kind], RoomId: string(left.Resource.Room), ResourceId: left.Resource.ID,
				Columns: left.Columns, Exact: left.Exact, Living: left.Lives, Remedy: remedyOf(left),
			}
		}
		for len(list) > remainingPerMessage && sent == nil {
			sent = stream.Send(&mirrorv1.EraseUserResponse{
				BucketsDone: resp.GetBucketsDone() - 1, BucketCount: mirror.Buckets, Tables: resp.GetTables(),
				RequestedResources: r.Requested, Remaining: list[:remainingPerMessage],
			})
			list = list[remainingPerMessage:]
		}
		if resp.Remaining = list; sent == nil {
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

// remedyOf says what ends that the id of a user remains.
func remedyOf(left erase.Remaining) string {
	room := "/v2/rooms/" + url.PathEscape(string(left.Resource.Room))
	switch {
	case left.RoomGone:
		return "EraseRoom of the room, which is deleted"
	case !left.Lives:
		return "EraseUser with everywhere, if what others wrote means the user; what is left of earlier rooms goes by itself"
	case left.Resource.Kind == mirror.KindNotification:
		return "nothing here: it is in the inbox of somebody else; end what it is about"
	case left.Resource.Kind == mirror.KindActiveUsers:
		return "nothing here: it ends when the user leaves the room"
	case left.Unreadable:
		return "VerifyMirror with repair: the copy is damaged, and only then can be searched"
	case !left.Exact && left.Resource.Kind != mirror.KindRoom:
		return "look whether the text means the user"
	case left.Resource.Kind == mirror.KindRoom && slices.Contains(left.Columns, "mirror_room.room_id"):
		return "DELETE " + room + " if the room is named after the user, then EraseRoom"
	case left.Resource.Kind == mirror.KindRoom:
		return "POST " + room + " without the user in accesses and metadata"
	case left.Resource.Kind == mirror.KindThread:
		return "DELETE " + room + "/threads/" + url.PathEscape(left.Resource.ID) +
			", or edit it: a deleted comment keeps its author"
	case left.Resource.Kind == mirror.KindGroup:
		return "POST /v2/groups/" + url.PathEscape(left.Resource.ID) + "/remove-members"
	}
	return "edit the document in the application, or DELETE " + room + ", then EraseRoom"
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
	for _, table := range slices.Sorted(maps.Keys(rows)) {
		erased := &mirrorv1.ErasedTable{Table: table}
		if slices.Contains(store.RoomTables, table) {
			erased.RemovedRows = rows[table]
		} else {
			erased.RewrittenRows = rows[table]
		}
		resp.Tables = append(resp.Tables, erased)
	}
	return resp, nil
}

package rpc

import (
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/erase"
)

func TestEraseUser(t *testing.T) {
	t.Parallel()
	h := start(t)
	call := func(req *mirrorv1.EraseUserRequest) (all []*mirrorv1.EraseUserResponse, err error) {
		stream, err := h.admin.EraseUser(t.Context(), req)
		for err == nil {
			var got *mirrorv1.EraseUserResponse
			if got, err = stream.Recv(); err == nil {
				all = append(all, got)
			}
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return all, err
	}
	got, err := call(&mirrorv1.EraseUserRequest{UserId: "ann"})
	if err != nil || len(got) != 2 || got[0].GetDone() || !got[1].GetDone() {
		t.Fatalf("EraseUser = %v, %v; want the progress and the end", got, err)
	}
	if want := (erase.User{Project: project, Subject: store.Subject{User: "ann"}, DryRun: true}); h.pinner.user != want {
		t.Errorf("without confirm it erases %+v; want %+v", h.pinner.user, want)
	}
	if got[0].GetBucketsDone() != 1 || got[0].GetBucketCount() != mirror.Buckets || len(got[0].GetTables()) != 1 {
		t.Errorf("progress = %v", got[0])
	}
	want := []*mirrorv1.ErasedTable{
		{Table: "mirror_event", RewrittenRows: 2},
		{Table: "mirror_comment", RemovedRows: 1, RewrittenRows: 2, LivingRows: 3, OtherRows: 4},
	}
	for i, table := range got[1].GetTables() {
		if !proto.Equal(table, want[i]) {
			t.Errorf("table = %v; want %v", table, want[i])
		}
	}
	for i, remedy := range []string{
		"DELETE /v2/rooms/a%2Fb if the room is named after the user, then EraseRoom",
		"POST /v2/rooms/a%2Fb without the user in accesses and metadata",
		"DELETE /v2/rooms/a%2Fb/threads/th_1, or edit it: a deleted comment keeps its author",
		"look whether the text means the user",
		"POST /v2/groups/g%2Fh/remove-members",
		"edit the document in the application, or DELETE /v2/rooms/a%2Fb, then EraseRoom",
		"nothing here: it ends when the user leaves the room",
		"nothing here: it is in the inbox of somebody else; end what it is about",
		"EraseRoom of the room, which is deleted",
		"EraseUser with everywhere, if what others wrote means the user; what is left of earlier rooms goes by itself",
		"VerifyMirror with repair: the copy is damaged, and only then can be searched",
	} {
		if got := got[1].GetRemaining()[i].GetRemedy(); got != remedy {
			t.Errorf("remedy = %q; want %q", got, remedy)
		}
	}
	if n := got[1].GetRequestedResources(); n != 5 {
		t.Errorf("requested resources = %d; want 5", n)
	}
	if left := got[1].GetRemaining()[0]; !left.GetExact() || !left.GetLiving() || left.GetRoomId() != "a/b" ||
		len(left.GetColumns()) != 1 || left.GetKind() != mirrorv1.ResourceKind_RESOURCE_KIND_ROOM {
		t.Errorf("remaining = %v", left)
	}
	if _, err := call(&mirrorv1.EraseUserRequest{UserId: "ann", Confirm: true}); err != nil || h.pinner.user.DryRun {
		t.Errorf("EraseUser with confirm = %v, dry run %t", err, h.pinner.user.DryRun)
	}
	_, err = call(&mirrorv1.EraseUserRequest{UserId: "ann", Everywhere: true})
	if err != nil || !h.pinner.user.Everywhere || !h.pinner.user.DryRun {
		t.Errorf("EraseUser everywhere = %v, %+v", err, h.pinner.user)
	}
	if _, err := call(&mirrorv1.EraseUserRequest{Confirm: true}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("EraseUser of nobody = %v; want INVALID_ARGUMENT", err)
	}
	_, err = call(&mirrorv1.EraseUserRequest{UserId: "ann", ProjectId: "x"})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("EraseUser in an unknown project = %v; want INVALID_ARGUMENT", err)
	}
}

func TestEraseRoom(t *testing.T) {
	t.Parallel()
	h := start(t)
	h.query.rooms = []mirror.Room{{Project: project, ID: "a/b"}}
	got, err := h.admin.EraseRoom(t.Context(), &mirrorv1.EraseRoomRequest{RoomId: "a/b"})
	want := &mirrorv1.EraseRoomResponse{Tables: []*mirrorv1.ErasedTable{
		{Table: "mirror_event", RewrittenRows: 4},
		{Table: "mirror_room", RewrittenRows: 1},
		{Table: "mirror_thread", RemovedRows: 2},
	}}
	if err != nil || !proto.Equal(got, want) || !h.pinner.dryRun || h.pinner.erased.Room != "a/b" {
		t.Errorf("EraseRoom = %v, %v, dry run %t; want %v and nothing erased", got, err, h.pinner.dryRun, want)
	}
	_, err = h.admin.EraseRoom(t.Context(), &mirrorv1.EraseRoomRequest{RoomId: "a/b", Confirm: true})
	if err != nil || h.pinner.dryRun {
		t.Errorf("EraseRoom with confirm = %v, dry run %t", err, h.pinner.dryRun)
	}
	_, err = h.admin.EraseRoom(t.Context(), &mirrorv1.EraseRoomRequest{RoomId: "nowhere"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("EraseRoom of an unknown room = %v; want NOT_FOUND", err)
	}
}

package follow_test

import (
	"context"
	"log"
	"maps"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/liveblocks-mirror/liveblocks-mirror/client/follow"
	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

// copies are rooms as a program holds them, by id.
type copies map[string]*held

type held struct {
	room *mirrorv1.Room
	// marked means that the room was held when a snapshot began, and has not come in it yet.
	marked bool
}

// handle keeps the copies as the mirror has them.
func (c copies) handle(_ context.Context, response *mirrorv1.WatchChangesResponse) error {
	switch {
	case response.GetSnapshotBegin() != nil:
		for _, h := range c {
			h.marked = true
		}
	case response.GetSnapshotEnd() != nil:
		maps.DeleteFunc(c, func(_ string, h *held) bool { return h.marked })
	}
	for _, item := range response.GetSnapshotItems().GetItems() {
		c.apply(item)
	}
	for _, change := range response.GetChanges().GetChanges() {
		c.apply(change)
	}
	return nil
}

func (c copies) apply(change *mirrorv1.Change) {
	id, room := change.GetRoomId(), change.GetRoom()
	h := c[id]
	switch {
	case change.GetChangeKind() == mirrorv1.ChangeKind_CHANGE_KIND_DELETED:
		delete(c, id)
	case room == nil && h != nil: // change.GetOmission() says why; often an earlier change has it
		h.marked = false
	case room == nil:
	case h == nil || h.marked || room.GetFreshness().GetRevision() > h.room.GetFreshness().GetRevision():
		c[id] = &held{room: room}
	}
}

// A program holds a copy of all rooms: first those that are there, then what changes. Marks and
// token are kept in the same place, here in memory.
func ExampleRun_snapshot() {
	conn, err := grpc.NewClient("127.0.0.1:9090", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+"KEY")
	err = follow.Run(ctx, mirrorv1.NewChangeServiceClient(conn), follow.Config{
		Request: &mirrorv1.WatchChangesRequest{
			Kinds:   []mirrorv1.ResourceKind{mirrorv1.ResourceKind_RESOURCE_KIND_ROOM},
			Include: mirrorv1.ChangeInclude_CHANGE_INCLUDE_FULL,
		},
		Store: &follow.Memory{}, Snapshot: true,
	}, make(copies).handle)
	log.Print(err)
}

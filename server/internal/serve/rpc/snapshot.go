package rpc

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// A snapshot is all copies that a request selects, kind by kind and in the order of their
// keys, between two markers. The position is taken first and kept until its end, so what
// changes while the pages are read is told again after them: a page can be newer than the
// position, never older. Nothing of it is kept between two pages, so it goes on from its
// token in any process.

// snapshotReaders is how many pages of snapshots are read at once: they must not take the
// database away from everything else.
const snapshotReaders = 4

// selection is which resources a request selects, in the scope of its caller.
type selection struct {
	scope  scope
	room   mirror.RoomID
	prefix string
	// kinds are in order; none selects all.
	kinds []mirror.Kind
}

func selectionOf(in scope, req changeRequest) selection {
	sel := selection{scope: in, room: mirror.RoomID(req.GetRoomId()), prefix: req.GetRoomIdPrefix()}
	for _, kind := range req.GetKinds() {
		if kind != mirrorv1.ResourceKind_RESOURCE_KIND_UNSPECIFIED {
			sel.kinds = append(sel.kinds, wordOf(kinds, kind))
		}
	}
	slices.Sort(sel.kinds)
	sel.kinds = slices.Compact(sel.kinds)
	return sel
}

// hash is equal for equal selections.
func (s *selection) hash() (sum [4]byte) {
	hash := sha256.New()
	fmt.Fprintf(hash, "%q %q %v %t %q", s.room, s.prefix, s.kinds, s.scope.rooms == nil, s.scope.rooms)
	copy(sum[:], hash.Sum(nil))
	return sum
}

// next returns the first selected kind after one, or zero if there is none.
func (s *selection) next(after mirror.Kind) mirror.Kind {
	for _, kind := range mirror.Kinds() {
		if kind > after && (len(s.kinds) == 0 || slices.Contains(s.kinds, kind)) {
			return kind
		}
	}
	return 0
}

// rooms are the prefixes of the rooms that can be selected.
func (s *selection) rooms() store.Prefixes {
	return store.Prefixes(s.scope.rooms).Within(s.prefix).Within(string(s.room))
}

// begin begins a snapshot.
func (f *following) begin() {
	f.in = &inSnapshot{filters: f.hash(), after: mirror.Resource{Kind: f.next(0)}}
}

// items returns the next items of the snapshot that f is in, at most limit, and moves f behind
// them. There can be none although more are to come. Behind the last one, f is in no snapshot.
func (s *changeService) items(ctx context.Context, f *following, limit int) ([]mirror.Change, error) {
	select {
	case s.snapshots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.snapshots }()
	after := f.in.after
	copies, err := s.Store.Copies(ctx, store.CopyFilter{
		Project: f.scope.project, Rooms: f.rooms(), Kind: after.Kind,
		AfterRoom: after.Room, AfterID: after.ID, Limit: limit,
	})
	if err != nil {
		return nil, fmt.Errorf("read a snapshot: %w", err)
	}
	more := len(copies) == limit
	if n := len(copies); n > 0 {
		after.Room, after.ID = copies[n-1].Resource.Room, copies[n-1].Resource.ID
		// The only room that is asked for comes before all others that begin with its id.
		more = more && (f.room == "" || after.Room == f.room)
	}
	if next := f.next(after.Kind); !more && next != 0 {
		after = mirror.Resource{Kind: next}
	} else if len(copies) == 0 {
		f.in = nil
		return nil, nil
	}
	f.in = &inSnapshot{filters: f.in.filters, after: after}
	return slices.DeleteFunc(copies, func(c mirror.Change) bool { return !f.match(&c) }), nil
}

func itemsToProto(items []mirror.Change) *mirrorv1.SnapshotItems {
	return &mirrorv1.SnapshotItems{Items: changesToProto(items)}
}

// hasToken reports whether a request starts from a token. An empty one is a damaged one: to
// begin now instead would skip changes.
func hasToken(req proto.Message) bool {
	message := req.ProtoReflect()
	return message.Has(message.Descriptor().Fields().ByName("token"))
}

package rpc

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/feed"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// A snapshot is all copies that a request selects, kind by kind and in the order of their
// keys, between two markers. The position is taken first and kept until its end, so what
// changes while the pages are read is told again after them: a page can be newer than the
// position, never older. Nothing of it is kept between two pages, so it goes on from its
// token in any process.

// snapshotReaders is how many pages of snapshots are read at once: they must not take the
// database away from everything else. No caller reads more than callerReaders of them, so none
// has to wait for all streams of another.
const (
	snapshotReaders = 4
	callerReaders   = 2
)

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

// next returns the first selected kind after one, or zero if there is none. Documents of all
// kinds come together.
func (s *selection) next(after mirror.Kind) mirror.Kind {
	if after == mirror.KindStorage {
		after = mirror.KindYdoc
	}
	for _, kind := range mirror.Kinds() {
		if kind > after && (len(s.kinds) == 0 || slices.Contains(s.kinds, kind)) {
			return kind
		}
	}
	return 0
}

// begin begins a snapshot.
func (f *following) begin() {
	f.in = &inSnapshot{filters: f.hash(), after: mirror.Resource{Kind: f.next(0)}}
}

// snapshotPage is a page of a snapshot.
type snapshotPage struct {
	items []mirror.Change
	// in is the place behind it; nil if the snapshot is whole and there are no items.
	in *inSnapshot
	// seen is how far the database was once it was read.
	seen mirror.Position
}

// readPage reads the next page of the snapshot that f is in. It looks at limit rows at most, so
// there can be no items although more are to come.
func (s *changeService) readPage(ctx context.Context, f *following, limit int) (page snapshotPage, err error) {
	for _, slots := range []chan struct{}{f.pages, s.snapshots} {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return page, ctx.Err()
		}
		defer func() { <-slots }()
	}
	after := f.in.after
	copies, err := s.Store.Copies(ctx, store.CopyFilter{
		Project: f.scope.project, Rooms: store.Prefixes(f.scope.rooms).Within(f.prefix), Room: f.room, Kind: after.Kind,
		AfterRoom: after.Room, AfterID: after.ID, Limit: limit,
	})
	if err != nil {
		return page, fmt.Errorf("read a snapshot: %w", err)
	}
	// Nothing in the page is newer than what is known now.
	if err = f.Look(ctx); err != nil {
		return page, fmt.Errorf("read a snapshot: %w", err)
	}
	page.seen = f.Known()
	page.items = slices.DeleteFunc(copies.Copies, func(c mirror.Change) bool { return !f.match(&c) })
	next := f.next(after.Kind)
	switch {
	case copies.More, next == 0 && len(page.items) > 0: // the end comes by itself
		page.in = &inSnapshot{filters: f.in.filters, after: copies.Last}
	case next != 0:
		page.in = &inSnapshot{filters: f.in.filters, after: mirror.Resource{Kind: next}}
	}
	return page, nil
}

// errOver means that a stream has lasted long enough.
var errOver = errors.New("the stream has lasted long enough")

// nextPage waits for a page, and moves f behind it. It sends heartbeats meanwhile, unless that is
// nil, and fails with errOver when that is due or when f may have another feed now: then it is
// the next call that finds out.
func (s *changeService) nextPage(ctx context.Context, f *following, limit int, over, quiet <-chan time.Time,
	heartbeat func() error,
) ([]mirror.Change, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var page snapshotPage
	read := make(chan error, 1)
	go func() {
		var err error
		page, err = s.readPage(ctx, f, limit)
		read <- err
	}()
	for {
		select {
		case err := <-read:
			if err != nil {
				return nil, err
			}
			if s.over(f) {
				return nil, errOver
			}
			f.in, f.seen = page.in, page.seen
			return page.items, nil
		case <-quiet:
			if err := heartbeat(); err != nil {
				return nil, err
			}
		case <-over:
			return nil, errOver
		case <-f.Stopped():
			return nil, feed.ErrStopped()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
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

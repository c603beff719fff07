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

// pageReaders is how many pages of snapshots, or of changes with resources, are read at once:
// they must not take the database away from everything else. No caller reads more than
// callerReaders of them, so none has to wait for all streams of another.
const (
	pageReaders   = 4
	callerReaders = 2
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
	items included
	// in is the place behind it; nil if the snapshot is whole and there are no items.
	in *inSnapshot
	// seen is how far the database was once it was read.
	seen mirror.Position
}

// turn waits for a turn to read the database for a page; leave ends it.
func (s *changeService) turn(ctx context.Context, f *following) (leave func(), err error) {
	for _, slots := range []chan struct{}{f.pages, s.pages} {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			if slots == s.pages {
				<-f.pages
			}
			return nil, ctx.Err()
		}
	}
	return func() { <-s.pages; <-f.pages }, nil
}

// readPage reads the next page of the snapshot that f is in. It looks at limit rows at most, so
// there can be no items although more are to come.
func (s *changeService) readPage(ctx context.Context, f *following, limit int, memory *includedMemory) (
	page snapshotPage, err error,
) {
	leave, err := s.turn(ctx, f)
	if err != nil {
		return page, err
	}
	defer leave()
	after := f.in.after
	copies, err := s.Store.Copies(ctx, store.CopyFilter{
		Project: f.scope.project, Rooms: store.Prefixes(f.scope.rooms).Within(f.prefix), Room: f.room, Kind: after.Kind,
		AfterRoom: after.Room, AfterID: after.ID, Limit: limit,
	})
	if err != nil {
		return page, fmt.Errorf("read a snapshot: %w", err)
	}
	items := slices.DeleteFunc(copies.Copies, func(c mirror.Change) bool { return !f.match(&c) })
	if page.items, err = s.include(ctx, f, items, memory); err != nil {
		return page, err
	}
	// Nothing in the page is newer than what is known now.
	if err = f.Look(ctx); err != nil {
		return page, fmt.Errorf("read a snapshot: %w", err)
	}
	page.seen = f.Known()
	next, n := f.next(after.Kind), len(page.items.changes)
	switch {
	case n < len(items): // the rest does not fit
		page.in = &inSnapshot{filters: f.in.filters, after: items[n-1].Resource}
	case copies.More, next == 0 && n > 0: // the end comes by itself
		page.in = &inSnapshot{filters: f.in.filters, after: copies.Last}
	case next != 0:
		page.in = &inSnapshot{filters: f.in.filters, after: mirror.Resource{Kind: next}}
	}
	return page, nil
}

// errOver means that a stream has lasted long enough.
var errOver = errors.New("the stream has lasted long enough")

// patience says what is done while something is waited for.
type patience struct {
	// over is when a stream has lasted long enough.
	over <-chan time.Time
	// heartbeat is sent when quiet is due.
	quiet     <-chan time.Time
	heartbeat func() error
}

// await does some work for f, which ends with its context. It fails with errOver when that is
// due or when f may have another feed now: then it is the next call that finds out.
func (s *changeService) await(ctx context.Context, f *following, p patience,
	work func(ctx context.Context) error,
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var failed error
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Nothing else would recover a panic here, such as of a decoder.
		failed = recovery(ctx, "", work)
	}()
	stop := func(err error) error {
		cancel()
		<-done
		return err
	}
	for {
		select {
		case <-done:
			if failed == nil && s.over(f) {
				return errOver
			}
			return failed
		case <-p.quiet:
			if err := p.heartbeat(); err != nil {
				return stop(err)
			}
		case <-p.over:
			return stop(errOver)
		case <-f.Stopped():
			return stop(feed.ErrStopped())
		case <-ctx.Done():
			return stop(ctx.Err())
		}
	}
}

// nextPage waits for a page, and moves f behind it. The items are to be released.
func (s *changeService) nextPage(ctx context.Context, f *following, limit int, p patience) (included, error) {
	var page snapshotPage
	var memory *includedMemory
	if err := s.await(ctx, f, p, func(ctx context.Context) (err error) {
		if memory, err = s.reserve(ctx, f); err != nil {
			return err
		}
		page, err = s.readPage(ctx, f, limit, memory)
		return err
	}); err != nil {
		memory.keep(0)
		return included{}, err
	}
	f.in, f.seen = page.in, page.seen
	return page.items, nil
}

// hasToken reports whether a request starts from a token. An empty one is a damaged one: to
// begin now instead would skip changes.
func hasToken(req proto.Message) bool {
	message := req.ProtoReflect()
	return message.Has(message.Descriptor().Fields().ByName("token"))
}

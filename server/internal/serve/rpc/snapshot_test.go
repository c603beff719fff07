package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/liveblocks-mirror/liveblocks-mirror/client/follow"
	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
)

var fromSnapshot = &mirrorv1.WatchChangesRequest_Position{Position: mirrorv1.ChangeStart_CHANGE_START_SNAPSHOT}

// copies is what a follower holds: the revision of each resource.
type copies struct {
	held   map[mirror.Resource]int64
	marked map[mirror.Resource]bool
	// begun and ended count the snapshots.
	begun, ended int
}

func newCopies() *copies { return &copies{held: make(map[mirror.Resource]int64)} }

// take handles a response as its documentation says.
func (h *copies) take(response *mirrorv1.WatchChangesResponse) {
	switch event := response.GetEvent().(type) {
	case *mirrorv1.WatchChangesResponse_SnapshotBegin:
		h.begun++
		h.marked = make(map[mirror.Resource]bool)
		for r := range h.held {
			h.marked[r] = true
		}
	case *mirrorv1.WatchChangesResponse_SnapshotItems:
		for _, c := range event.SnapshotItems.GetItems() {
			h.apply(c)
		}
	case *mirrorv1.WatchChangesResponse_Changes:
		for _, c := range event.Changes.GetChanges() {
			h.apply(c)
		}
	case *mirrorv1.WatchChangesResponse_SnapshotEnd:
		h.ended++
		for r := range h.marked {
			delete(h.held, r)
		}
		h.marked = nil
	}
}

func (h *copies) apply(c *mirrorv1.Change) {
	r := mirror.Resource{
		Project: mirror.ProjectID(c.GetProjectId()), Room: mirror.RoomID(c.GetRoomId()), Kind: wordOf(kinds, c.GetKind()),
		ID: c.GetResourceId(),
	}
	marked := h.marked[r]
	delete(h.marked, r)
	if c.GetRevision() < h.held[r] && !marked { // what is marked can be of another life of the database
		return
	}
	if h.held[r] = c.GetRevision(); c.GetChangeKind() == mirrorv1.ChangeKind_CHANGE_KIND_DELETED {
		delete(h.held, r)
	}
}

// mirrored is what the mirror holds of some rooms and kinds.
func (h *harness) mirrored(room, prefix string, only ...mirror.Kind) map[mirror.Resource]int64 {
	all := make(map[mirror.Resource]int64)
	for _, r := range h.feed.Live() {
		if r.Resource.Project == project && strings.HasPrefix(string(r.Resource.Room), prefix) &&
			(room == "" || r.Resource.Room == mirror.RoomID(room)) &&
			(len(only) == 0 || slices.Contains(only, r.Resource.Kind)) {
			all[r.Resource] = r.Number
		}
	}
	return all
}

// A snapshot brings all that is selected, kind by kind, over either call, and then the changes
// since.
func TestSnapshot(t *testing.T) {
	t.Parallel()
	h := start(t)
	for i := range 30 {
		room := mirror.RoomID(fmt.Sprintf("%s/%02d", []string{"a", "ab", "b"}[i%3], i))
		h.happens(resourceIn(project, room, mirror.KindRoom))
		h.happens(resourceIn(project, room, mirror.KindStorage))
		h.happens(resourceIn("other", room, mirror.KindStorage))
		for j := range i % 4 {
			h.happens(mirror.Resource{Project: project, Room: room, Kind: mirror.KindThread, ID: fmt.Sprint("th_", j)})
		}
	}
	h.happens(resourceIn(project, "a", mirror.KindRoom))
	h.happens(mirror.Resource{Project: project, Kind: mirror.KindGroup, ID: "g"})
	gone := resourceIn(project, "a/gone", mirror.KindRoom)
	h.happens(gone)
	h.deletes(gone)
	for what, test := range map[string]struct {
		room, prefix string
		kinds        []mirror.Kind
	}{
		"everything":         {},
		"a prefix":           {prefix: "a"},
		"a room":             {room: "a/03"},
		"the first of many":  {room: "a"},
		"no room":            {room: "nowhere"},
		"a room outside":     {room: "b/02", prefix: "a"},
		"threads":            {kinds: []mirror.Kind{mirror.KindThread}},
		"rooms and groups":   {kinds: []mirror.Kind{mirror.KindGroup, mirror.KindRoom}},
		"a kind of a prefix": {prefix: "ab", kinds: []mirror.Kind{mirror.KindStorage}},
		"history":            {kinds: []mirror.Kind{mirror.KindNotification}},
	} {
		req := &mirrorv1.WatchChangesRequest{
			RoomId: test.room, RoomIdPrefix: test.prefix, Kinds: kindsToProto(test.kinds), Start: fromSnapshot,
		}
		stream, err := h.change.WatchChanges(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		watched := newCopies()
		for watched.ended == 0 {
			response, err := stream.Recv()
			if err != nil || response.GetToken() == "" {
				t.Fatalf("Recv of %s = %v, %v; want a snapshot", what, response, err)
			}
			if watched.take(response); watched.begun != 1 {
				t.Fatalf("the first response of %s is %v; want the begin of a snapshot", what, response)
			}
		}
		want := h.mirrored(test.room, test.prefix, test.kinds...)
		if diff := gocmp.Diff(want, watched.held); diff != "" {
			t.Errorf("snapshot of %s (-want +got):\n%s", what, diff)
		}

		listed := newCopies()
		list := &mirrorv1.ListChangesRequest{
			RoomId: test.room, RoomIdPrefix: test.prefix, Kinds: kindsToProto(test.kinds), PageSize: 7,
			Start: &mirrorv1.ListChangesRequest_Position{Position: mirrorv1.ChangeStart_CHANGE_START_SNAPSHOT},
		}
		for calls := 0; listed.ended == 0; calls++ {
			page, err := h.change.ListChanges(t.Context(), list)
			if err != nil || len(page.GetSnapshotItems().GetItems()) > 7 || len(page.GetChanges()) > 0 || page.GetCaughtUp() ||
				calls > 100 {
				t.Fatalf("page %d of %s = %v, %v; want at most 7 items", calls, what, page, err)
			}
			listed.take(responseOf(page))
			list.Start = &mirrorv1.ListChangesRequest_Token{Token: page.GetNextToken()}
		}
		if diff := gocmp.Diff(want, listed.held); diff != "" || listed.begun != 1 {
			t.Errorf("%d listed snapshots of %s (-want +got):\n%s", listed.begun, what, diff)
		}
		page, err := h.change.ListChanges(t.Context(), list)
		if err != nil || len(page.GetChanges()) > 0 || page.GetSnapshot() != nil || !page.GetCaughtUp() {
			t.Errorf("after the snapshot of %s = %v, %v; want nothing more", what, page, err)
		}
	}
}

// responseOf is a page as a response of a stream.
func responseOf(page *mirrorv1.ListChangesResponse) *mirrorv1.WatchChangesResponse {
	out := &mirrorv1.WatchChangesResponse{Token: page.GetNextToken()}
	switch s := page.GetSnapshot().(type) {
	case *mirrorv1.ListChangesResponse_SnapshotBegin:
		out.Event = &mirrorv1.WatchChangesResponse_SnapshotBegin{SnapshotBegin: s.SnapshotBegin}
	case *mirrorv1.ListChangesResponse_SnapshotItems:
		out.Event = &mirrorv1.WatchChangesResponse_SnapshotItems{SnapshotItems: s.SnapshotItems}
	case *mirrorv1.ListChangesResponse_SnapshotEnd:
		out.Event = &mirrorv1.WatchChangesResponse_SnapshotEnd{SnapshotEnd: s.SnapshotEnd}
	default:
		out.Event = &mirrorv1.WatchChangesResponse_Changes{Changes: &mirrorv1.ChangeBatch{Changes: page.GetChanges()}}
	}
	return out
}

// The token of a place in a snapshot is good for the same selection by a caller who sees the
// same rooms. That of its end is as good as any other.
func TestSnapshotTokens(t *testing.T) {
	t.Parallel()
	h := start(t, func(c *Config) {
		c.Guard = callers(map[string]access.Caller{
			"all": access.Everything("all"),
			"some": {
				Name: "some", Scopes: access.AllScopes, Projects: []mirror.ProjectID{access.AnyProject}, Rooms: []string{"a"},
			},
		})
	})
	list := func(key string, req *mirrorv1.ListChangesRequest, token string) (*mirrorv1.ListChangesResponse, error) {
		req.Start = &mirrorv1.ListChangesRequest_Token{Token: token}
		if token == "" {
			req.Start = &mirrorv1.ListChangesRequest_Position{Position: mirrorv1.ChangeStart_CHANGE_START_SNAPSHOT}
		}
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+key)
		return h.change.ListChanges(ctx, req)
	}
	kinds := func(list ...mirror.Kind) *mirrorv1.ListChangesRequest {
		return &mirrorv1.ListChangesRequest{Kinds: kindsToProto(list)}
	}
	for _, room := range []mirror.RoomID{"a/1", "b/1", "a/2"} {
		h.happens(resourceIn(project, room, mirror.KindRoom))
	}
	page, err := list("all", kinds(mirror.KindRoom, mirror.KindStorage), "")
	if err != nil {
		t.Fatal(err)
	}
	in := page.GetNextToken()
	for what, same := range map[string]*mirrorv1.ListChangesRequest{
		"the same":            kinds(mirror.KindRoom, mirror.KindStorage),
		"in another order":    kinds(mirror.KindStorage, mirror.KindRoom, mirror.KindRoom),
		"with another number": {Kinds: kindsToProto([]mirror.Kind{mirror.KindRoom, mirror.KindStorage}), PageSize: 1},
	} {
		if page, err := list("all", same, in); err != nil || len(page.GetSnapshotItems().GetItems()) == 0 {
			t.Errorf("filters that are %s = %v, %v; want items", what, page, err)
		}
	}
	for _, other := range []*mirrorv1.ListChangesRequest{
		{},
		kinds(mirror.KindRoom),
		{RoomId: "a/1", Kinds: kindsToProto([]mirror.Kind{mirror.KindRoom, mirror.KindStorage})},
		{RoomIdPrefix: "a", Kinds: kindsToProto([]mirror.Kind{mirror.KindRoom, mirror.KindStorage})},
	} {
		_, err := list("all", other, in)
		wantStatus(t, err, codes.InvalidArgument, fault.ReasonChangeTokenMismatch)
	}
	_, err = list("some", kinds(mirror.KindRoom, mirror.KindStorage), in)
	wantStatus(t, err, codes.InvalidArgument, fault.ReasonChangeTokenMismatch)

	seen := newCopies()
	for token := ""; seen.ended == 0; token = page.GetNextToken() {
		if page, err = list("some", &mirrorv1.ListChangesRequest{}, token); err != nil {
			t.Fatal(err)
		}
		seen.take(responseOf(page))
	}
	if diff := gocmp.Diff(h.mirrored("", "a"), seen.held); diff != "" {
		t.Errorf("snapshot of who sees some rooms (-want +got):\n%s", diff)
	}
	if _, err = list("all", kinds(mirror.KindThread), page.GetNextToken()); err != nil {
		t.Errorf("ListChanges with other filters after the end = %v", err)
	}
}

// Whatever breaks while a snapshot is read, and whatever changes, a follower holds what the
// mirror holds: streams are cut after any response, and the follower forgets what it did not
// keep with its token.
func TestSnapshotUnderWrites(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			snapshotUnderWrites(t, seed)
		})
	}
}

func snapshotUnderWrites(t *testing.T, seed uint64) {
	t.Helper()
	const rooms, writers = 60, 3
	h := start(t, func(c *Config) { c.Change.Page = 7 })
	of := func(rng *rand.Rand) mirror.Resource {
		r := resourceIn(project, mirror.RoomID(fmt.Sprintf("%d/%d", rng.IntN(2), rng.IntN(rooms))), mirror.KindRoom)
		switch rng.IntN(3) {
		case 0:
			r.Kind = mirror.KindStorage
		case 1:
			r.Kind, r.ID = mirror.KindThread, fmt.Sprint("th_", rng.IntN(3))
		}
		return r
	}
	first := rand.New(rand.NewPCG(seed, 0))
	for range 4 * rooms {
		h.happens(of(first))
	}
	var writing, following sync.WaitGroup
	for n := range writers {
		rng := rand.New(rand.NewPCG(seed, uint64(n+1)))
		writing.Go(func() {
			for range 300 {
				if r := of(rng); rng.IntN(4) == 0 {
					h.deletes(r)
				} else {
					h.happens(r)
				}
			}
		})
	}
	settled, settle := context.WithCancel(t.Context())
	defer settle()
	for n := range 3 {
		rng := rand.New(rand.NewPCG(seed, uint64(100+n)))
		prefix := []string{"", "1", ""}[n]
		following.Go(func() {
			held, store := newCopies(), &follow.Memory{}
			client := cutClient{h.change, rng}
			for {
				last := settled.Err() != nil
				ctx, cancel := context.WithCancel(t.Context())
				stop := context.AfterFunc(settled, func() {
					if !last {
						cancel()
					}
				})
				crash := errors.New("crash")
				err := follow.Run(ctx, client, follow.Config{ //nolint:contextcheck // the context is that of the test
					Request: &mirrorv1.WatchChangesRequest{RoomIdPrefix: prefix}, Store: store, Snapshot: true,
				}, func(_ context.Context, response *mirrorv1.WatchChangesResponse) error {
					held.take(response)
					if last && response.GetProgress().GetCaughtUp() {
						return io.EOF
					}
					if rng.IntN(5) == 0 {
						return crash // before the token is kept: it comes again
					}
					return nil
				})
				interrupted := ctx.Err() != nil
				stop()
				cancel()
				if errors.Is(err, io.EOF) {
					break
				} else if !errors.Is(err, crash) && !interrupted {
					t.Errorf("Run = %v", err)
					return
				}
			}
			if diff := gocmp.Diff(h.mirrored("", prefix), held.held); diff != "" || held.ended == 0 {
				t.Errorf("follower %d after %d snapshots (-want +got):\n%s", n, held.ended, diff)
			}
		})
	}
	writing.Wait()
	settle()
	following.Wait()
}

// cutClient is a client whose streams break after some responses.
type cutClient struct {
	mirrorv1.ChangeServiceClient

	rng *rand.Rand
}

func (c cutClient) WatchChanges(ctx context.Context, req *mirrorv1.WatchChangesRequest, opts ...grpc.CallOption) (
	grpc.ServerStreamingClient[mirrorv1.WatchChangesResponse], error,
) {
	stream, err := c.ChangeServiceClient.WatchChanges(ctx, req, opts...)
	if err != nil {
		return nil, err
	}
	return &grpc.GenericClientStream[mirrorv1.WatchChangesRequest, mirrorv1.WatchChangesResponse]{
		ClientStream: &cutting{ClientStream: stream, left: 2 + c.rng.IntN(4)},
	}, nil
}

// A page of a snapshot is at most a page, however much there is: nothing of it is kept in the
// server.
func TestSnapshotComesInPages(t *testing.T) {
	t.Parallel()
	h := start(t)
	const rooms = 2500
	for i := range rooms {
		h.happens(resourceIn(project, mirror.RoomID(fmt.Sprintf("room-%04d", i)), mirror.KindRoom))
	}
	stream, err := h.change.WatchChanges(t.Context(), &mirrorv1.WatchChangesRequest{Start: fromSnapshot})
	if err != nil {
		t.Fatal(err)
	}
	sizes := make(map[int]int)
	for {
		response, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if response.GetSnapshotEnd() != nil {
			break
		}
		sizes[len(response.GetSnapshotItems().GetItems())]++
	}
	if want := map[int]int{0: 1, 1000: 2, 500: 1}; !maps.Equal(sizes, want) {
		t.Errorf("sizes of pages = %v; want %v", sizes, want)
	}
}

// listAll lists from a token until a snapshot is whole, and returns the token behind it.
func (h *harness) listAll(t *testing.T, held *copies, token string) string {
	t.Helper()
	for ends := held.ended; held.ended == ends; {
		page, err := h.change.ListChanges(t.Context(), listFrom(token))
		if err != nil {
			t.Fatal(err)
		}
		held.take(responseOf(page))
		token = page.GetNextToken()
	}
	return token
}

// listFrom is a request for small pages; with a snapshot first if there is no token.
func listFrom(token string) *mirrorv1.ListChangesRequest {
	req := &mirrorv1.ListChangesRequest{
		PageSize: 2, Start: &mirrorv1.ListChangesRequest_Position{Position: mirrorv1.ChangeStart_CHANGE_START_SNAPSHOT},
	}
	if token != "" {
		req.Start = &mirrorv1.ListChangesRequest_Token{Token: token}
	}
	return req
}

// A database that goes back in the middle of a snapshot or behind it, but not behind its begin,
// makes items untrue that were read. That is seen until the position is beyond them.
func TestDatabaseThatGoesBackInASnapshot(t *testing.T) {
	t.Parallel()
	for _, whole := range []bool{false, true} {
		h := start(t)
		room := resourceIn(project, "room", mirror.KindRoom)
		h.happens(room)
		page, err := h.change.ListChanges(t.Context(), listFrom(""))
		if err != nil {
			t.Fatal(err)
		}
		h.happens(room)
		token := page.GetNextToken()
		if whole {
			token = h.listAll(t, newCopies(), token)
		} else if page, err = h.change.ListChanges(t.Context(), listFrom(token)); err != nil {
			t.Fatal(err)
		} else {
			token = page.GetNextToken()
		}
		if _, err = h.change.ListChanges(t.Context(), listFrom(token)); err != nil {
			t.Errorf("ListChanges before the database has gone back = %v", err)
		}
		h.feed.Restore(int(room.Bucket()), 1)
		_, err = h.change.ListChanges(t.Context(), listFrom(token))
		wantStatus(t, err, codes.OutOfRange, fault.ReasonChangeTokenAhead)

		h.happens(room) // as many again, which nobody can tell
		if token = h.listAll(t, newCopies(), ""); token == "" {
			t.Fatal("no token")
		}
		if page, err = h.change.ListChanges(t.Context(), listFrom(token)); err != nil {
			t.Fatal(err)
		}
		h.happens(room)
		if page, err = h.change.ListChanges(t.Context(), listFrom(page.GetNextToken())); err != nil {
			t.Fatal(err)
		}
		// A position that is beyond all items is a mere position.
		if p, err := parseChangeToken(page.GetNextToken(), h.feedIdentity(t)); err != nil || p.beyond != (mirror.Position{}) {
			t.Errorf("place behind all items = %v, %v; want a position", p, err)
		}
	}
}

func (h *harness) feedIdentity(t *testing.T) feedIdentity {
	t.Helper()
	p, err := h.feed.Project(t.Context(), project)
	if err != nil {
		t.Fatal(err)
	}
	return p.Feed
}

// A stream that is in a snapshot ends when the database goes back, before another item.
func TestStreamOfADatabaseThatGoesBackInASnapshot(t *testing.T) {
	t.Parallel()
	h := start(t, func(c *Config) { c.Change.Page = 1 })
	room := resourceIn(project, "a", mirror.KindRoom)
	for _, id := range []mirror.RoomID{"a", "b", "c", "d", "e"} {
		h.happens(resourceIn(project, id, mirror.KindRoom))
	}
	looks := 0
	h.feed.AfterHeads(func() {
		switch looks++; looks {
		case 1: // after the begin
			h.feed.CommitOf(int(room.Bucket()), room)
		case 3: // after the second page
			h.feed.Restore(int(room.Bucket()), 1)
		}
	})
	stream, err := h.change.WatchChanges(t.Context(), &mirrorv1.WatchChangesRequest{Start: fromSnapshot})
	if err != nil {
		t.Fatal(err)
	}
	token, items := "", 0
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if response.GetSnapshotEnd() != nil {
			t.Fatal("the snapshot is whole; want that the stream ends before")
		}
		token, items = response.GetToken(), items+len(response.GetSnapshotItems().GetItems())
	}
	if items != 2 {
		t.Errorf("%d items; want the 2 that were read before", items)
	}
	h.feed.AfterHeads(nil)
	_, err = h.change.ListChanges(t.Context(), &mirrorv1.ListChangesRequest{
		Start: &mirrorv1.ListChangesRequest_Token{Token: token},
	})
	wantStatus(t, err, codes.OutOfRange, fault.ReasonChangeTokenAhead)
}

// After a restore, with another identity or without, numbers are lower than those that are held.
// A snapshot replaces them all the same.
func TestSnapshotAfterARestore(t *testing.T) {
	t.Parallel()
	for _, reset := range []bool{false, true} {
		h := start(t)
		room, other := resourceIn(project, "room", mirror.KindRoom), resourceIn(project, "room", mirror.KindStorage)
		for range 9 {
			h.happens(room)
			h.happens(other)
		}
		held := newCopies()
		token := h.listAll(t, held, "")
		h.feed.Restore(int(room.Bucket()), 10)
		want := codes.OutOfRange
		if reset {
			h.feed.Forget()
			want = codes.InvalidArgument
		}
		_, err := h.change.ListChanges(t.Context(), listFrom(token))
		if !reset {
			wantStatus(t, err, want, fault.ReasonChangeTokenAhead)
		} else if err == nil {
			t.Error("ListChanges from a token of before the reset did not fail")
		}
		token = h.listAll(t, held, "")
		if diff := gocmp.Diff(h.mirrored("", ""), held.held); diff != "" {
			t.Errorf("copies after a snapshot (-want +got):\n%s", diff)
		}
		h.happens(room)
		page, err := h.change.ListChanges(t.Context(), listFrom(token))
		if err != nil {
			t.Fatal(err)
		}
		held.take(responseOf(page))
		if diff := gocmp.Diff(h.mirrored("", ""), held.held); diff != "" {
			t.Errorf("copies after the next change (-want +got):\n%s", diff)
		}
	}
}

// A snapshot whose changes were trimmed is not read to its end first.
func TestTrimInASnapshot(t *testing.T) {
	t.Parallel()
	h := start(t)
	room := resourceIn(project, "room", mirror.KindRoom)
	page, err := h.change.ListChanges(t.Context(), listFrom(""))
	if err != nil {
		t.Fatal(err)
	}
	h.happens(room)
	h.happens(room)
	h.feed.TrimTo(int(room.Bucket()), 1)
	_, err = h.change.ListChanges(t.Context(), listFrom(page.GetNextToken()))
	wantStatus(t, err, codes.OutOfRange, fault.ReasonChangeTokenExpired)
}

// However long the database takes for a page, a stream ends in time, and so does the process.
func TestSnapshotOfADatabaseThatHangs(t *testing.T) {
	t.Parallel()
	t.Run("life", func(t *testing.T) {
		t.Parallel()
		h := start(t, func(c *Config) { c.Change.Life = 10 * time.Millisecond })
		h.feed.HangCopies(true)
		stream, err := h.change.WatchChanges(t.Context(), &mirrorv1.WatchChangesRequest{Start: fromSnapshot})
		if err != nil {
			t.Fatal(err)
		}
		response, err := stream.Recv()
		if response.GetSnapshotBegin() == nil {
			t.Fatalf("Recv = %v, %v; want the begin of a snapshot", response, err)
		}
		if response, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("Recv = %v, %v; want the end of the stream", response, err)
		}
	})
	t.Run("shutdown", func(t *testing.T) {
		t.Parallel()
		h := start(t)
		h.feed.HangCopies(true)
		stream, err := h.change.WatchChanges(t.Context(), &mirrorv1.WatchChangesRequest{Start: fromSnapshot})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		h.stopTailing()
		_, err = stream.Recv()
		wantStatus(t, err, codes.Unavailable, fault.ReasonShuttingDown)
	})
	t.Run("heartbeat", func(t *testing.T) {
		t.Parallel()
		h := start(t)
		h.feed.HangCopies(true)
		s := h.services.change
		f, err := s.follow(access.Into(t.Context(), access.Everything("one")), &mirrorv1.WatchChangesRequest{
			Start: fromSnapshot,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		f.begin()
		quiet, enough := make(chan time.Time, 1), errors.New("enough")
		beats := 0
		quiet <- noon
		_, err = s.nextPage(t.Context(), f, 1, patience{quiet: quiet, heartbeat: func() error {
			if beats++; beats == 3 {
				return enough
			}
			quiet <- noon
			return nil
		}})
		if !errors.Is(err, enough) || beats != 3 {
			t.Errorf("nextPage = %v after %d heartbeats; want 3", err, beats)
		}
	})
}

// However many streams a caller has, the pages of another do not wait for all of them.
func TestSnapshotsOfOneCaller(t *testing.T) {
	t.Parallel()
	h := start(t, func(c *Config) {
		c.Guard = callers(map[string]access.Caller{"one": access.Everything("one"), "two": access.Everything("two")})
	})
	h.feed.HangCopies(true)
	open := func(key string) {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+key)
		stream, err := h.change.WatchChanges(ctx, &mirrorv1.WatchChangesRequest{Start: fromSnapshot})
		if err == nil {
			_, err = stream.Recv()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	await := func(want int) {
		for h.feed.Hanging() < want {
			select {
			case <-time.After(time.Millisecond):
			case <-t.Context().Done():
				t.Fatal("the test is over")
			}
		}
	}
	for range 3 * pageReaders {
		open("one")
	}
	await(callerReaders)
	open("two")
	await(callerReaders + 1)
	if n := h.feed.Hanging(); n != callerReaders+1 {
		t.Errorf("%d pages are read; want %d of one caller and 1 of another", n, callerReaders)
	}
}

// A page of the only room reads nothing of other rooms, and a page of what is hidden goes on.
func TestSnapshotsOfFewCopies(t *testing.T) {
	t.Parallel()
	h := start(t)
	for i := range 100 {
		r := resourceIn(project, mirror.RoomID(fmt.Sprintf("a%03d", i)), mirror.KindRoom)
		h.happens(r)
		h.deletes(r)
	}
	h.happens(resourceIn(project, "z", mirror.KindRoom))
	h.happens(resourceIn(project, "a", mirror.KindStorage))
	held := newCopies()
	h.listAll(t, held, "")
	if diff := gocmp.Diff(h.mirrored("", ""), held.held); diff != "" {
		t.Errorf("copies behind many that are hidden (-want +got):\n%s", diff)
	}
	h.feed.Asked()
	req := &mirrorv1.ListChangesRequest{PageSize: 2, RoomId: "a", Start: listFrom("").GetStart()}
	only := newCopies()
	calls := 0
	for ; only.ended == 0; calls++ {
		page, err := h.change.ListChanges(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		only.take(responseOf(page))
		req.Start = &mirrorv1.ListChangesRequest_Token{Token: page.GetNextToken()}
	}
	if queries := h.feed.Asked(); len(only.held) != 1 || queries > 30 {
		t.Errorf("%d queries in %d calls for %v; want a few for one copy", queries, calls, only.held)
	}
}

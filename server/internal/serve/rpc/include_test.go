package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/documents"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/fresh"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

const (
	basic = mirrorv1.ChangeInclude_CHANGE_INCLUDE_BASIC
	full  = mirrorv1.ChangeInclude_CHANGE_INCLUDE_FULL

	omittedDeleted    = mirrorv1.ResourceOmission_RESOURCE_OMISSION_DELETED
	omittedEarlier    = mirrorv1.ResourceOmission_RESOURCE_OMISSION_EARLIER
	omittedTooLarge   = mirrorv1.ResourceOmission_RESOURCE_OMISSION_TOO_LARGE
	omittedUnreadable = mirrorv1.ResourceOmission_RESOURCE_OMISSION_UNREADABLE
	omittedHistory    = mirrorv1.ResourceOmission_RESOURCE_OMISSION_HISTORY
)

// current gives all that the mirror holds the revision of the latest change in its bucket.
func (h *harness) current() {
	of := func(f *mirror.Freshness, room mirror.RoomID) {
		f.Revision = int64(len(h.feed.Entries(int(mirror.Bucket(project, string(room))))))
	}
	h.query.change(func() {
		for i := range h.query.rooms {
			of(&h.query.rooms[i].Freshness, h.query.rooms[i].ID)
		}
		for i := range h.query.documents {
			of(&h.query.documents[i].Freshness, h.query.documents[i].Room)
		}
		for i := range h.query.threads {
			of(&h.query.threads[i].Freshness, h.query.threads[i].Room)
		}
		for i := range h.query.users {
			of(&h.query.users[i].Freshness, h.query.users[i].Room)
		}
		for i := range h.query.groups {
			of(&h.query.groups[i].Freshness, "")
		}
	})
}

func threadIn(room mirror.RoomID) mirror.Resource {
	return mirror.Resource{Project: project, Room: room, Kind: mirror.KindThread, ID: "th_1"}
}

// included lists all changes from the beginning with their resources.
func (h *harness) included(ctx context.Context, t *testing.T, include mirrorv1.ChangeInclude) []*mirrorv1.Change {
	t.Helper()
	var changes []*mirrorv1.Change
	h.current()
	req := &mirrorv1.ListChangesRequest{Start: fromEarliest, Include: include, PageSize: 1000}
	for {
		page, err := h.change.ListChanges(ctx, req)
		if err != nil {
			t.Fatalf("ListChanges = %v", err)
		}
		if size := proto.Size(page); size > includeBytes+maxIncluded+4096 {
			t.Errorf("a response has %d bytes", size)
		}
		changes = append(changes, page.GetChanges()...)
		if page.GetCaughtUp() {
			return changes
		}
		req.Start = &mirrorv1.ListChangesRequest_Token{Token: page.GetNextToken()}
	}
}

// What comes with a change is what reads return of the resource.
func TestIncludedResources(t *testing.T) {
	t.Parallel()
	h := start(t)
	stocked(h.query, "a", "b")
	for _, room := range []mirror.RoomID{"a", "b"} {
		for _, kind := range []mirror.Kind{mirror.KindRoom, mirror.KindStorage, mirror.KindYdoc, mirror.KindActiveUsers} {
			h.happens(resourceIn(project, room, kind))
		}
		h.happens(threadIn(room))
	}
	h.happens(mirror.Resource{Project: project, Kind: mirror.KindGroup, ID: "group-others"})
	must := func(m proto.Message, err error) proto.Message {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	ctx := t.Context()
	for _, include := range []mirrorv1.ChangeInclude{basic, full} {
		seen := 0
		changes := h.included(ctx, t, include)
		statements := h.query.statements
		most := 5
		if include == full {
			most *= (len(changes) + includeFull - 1) / includeFull
		}
		if h.query.statements = 0; statements < 5 || statements > most {
			t.Errorf("%d statements read %d resources of 5 kinds; want one of each kind", statements, len(changes))
		}
		for _, c := range changes {
			room := c.GetRoomId()
			var got, want proto.Message
			switch c.GetKind() { //nolint:exhaustive // those that come with changes
			case mirrorv1.ResourceKind_RESOURCE_KIND_ROOM:
				got = c.GetRoom()
				r, err := h.mirror.GetRoom(ctx, &mirrorv1.GetRoomRequest{RoomId: room})
				want = must(r.GetRoom(), err)
				if include == basic {
					r.GetRoom().SourceJson = nil
				}
			case mirrorv1.ResourceKind_RESOURCE_KIND_STORAGE:
				got = c.GetDocument()
				view := mirrorv1.DocumentView_DOCUMENT_VIEW_FULL
				if include == basic {
					view = mirrorv1.DocumentView_DOCUMENT_VIEW_BASIC
				}
				d, err := h.mirror.GetStorageDocument(ctx, &mirrorv1.GetStorageDocumentRequest{RoomId: room, View: view})
				want = must(d.GetDocument(), err)
			case mirrorv1.ResourceKind_RESOURCE_KIND_YDOC:
				got = c.GetDocument()
				view := mirrorv1.DocumentView_DOCUMENT_VIEW_FULL
				if include == basic {
					view = mirrorv1.DocumentView_DOCUMENT_VIEW_BASIC
				}
				d, err := h.mirror.GetYjsDocument(ctx, &mirrorv1.GetYjsDocumentRequest{RoomId: room, View: view})
				want = must(d.GetDocument(), err)
			case mirrorv1.ResourceKind_RESOURCE_KIND_THREAD:
				got = c.GetThread()
				view := mirrorv1.ThreadView_THREAD_VIEW_FULL
				if include == basic {
					view = mirrorv1.ThreadView_THREAD_VIEW_BASIC
				}
				r, err := h.mirror.GetThread(ctx, &mirrorv1.GetThreadRequest{RoomId: room, ThreadId: "th_1", View: view})
				want = must(r.GetThread(), err)
			case mirrorv1.ResourceKind_RESOURCE_KIND_ACTIVE_USERS:
				r, err := h.mirror.ListActiveUsers(ctx, &mirrorv1.ListActiveUsersRequest{RoomId: room})
				must(r, err)
				got = c.GetActiveUsers()
				want = &mirrorv1.ActiveUserList{ActiveUsers: r.GetActiveUsers(), Freshness: r.GetFreshness()}
			case mirrorv1.ResourceKind_RESOURCE_KIND_GROUP:
				got = c.GetGroup()
				r, err := h.mirror.GetGroup(ctx, &mirrorv1.GetGroupRequest{GroupId: c.GetResourceId()})
				want = must(r.GetGroup(), err)
			}
			if diff := gocmp.Diff(want, got, protocmp.Transform()); diff != "" || c.Omission != nil {
				t.Errorf("%v with %v, omitted because of %v (-want +got):\n%s", c, include, c.GetOmission(), diff)
			}
			seen++
		}
		if seen != 11 {
			t.Errorf("%d changes came; want 11", seen)
		}
		h.query.statements = 0
	}
	// The same in a stream, and in a snapshot.
	for what, req := range map[string]*mirrorv1.WatchChangesRequest{
		"stream": {Start: &mirrorv1.WatchChangesRequest_Position{
			Position: mirrorv1.ChangeStart_CHANGE_START_EARLIEST,
		}},
		"snapshot": {Start: fromSnapshot},
	} {
		req.Include = full
		stream, err := h.change.WatchChanges(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		for seen := 0; seen < 11; {
			response, err := stream.Recv()
			if err != nil {
				t.Fatalf("Recv of the %s = %v", what, err)
			}
			for _, c := range append(response.GetChanges().GetChanges(), response.GetSnapshotItems().GetItems()...) {
				if seen++; c.GetResource() == nil {
					t.Errorf("%v in a %s; want its resource", c, what)
				}
			}
		}
	}
	for _, c := range h.included(ctx, t, mirrorv1.ChangeInclude_CHANGE_INCLUDE_NONE) {
		if c.GetResource() != nil || c.Omission != nil {
			t.Errorf("%v came although nothing was to be included", c)
		}
	}
}

// What does not come says why. Whoever goes by the kinds and the epochs of changes, in order, holds
// in the end what is mirrored.
func TestOmittedResources(t *testing.T) {
	t.Parallel()
	h := start(t)
	stocked(h.query, "room", "large", "odd")
	long := []byte(`{"liveblocksType":"LiveObject","data":{"a":"` + strings.Repeat("x", maxIncluded) + `"}}`)
	for i := range h.query.documents {
		if d := &h.query.documents[i]; d.Room == "large" {
			d.Content, d.Size = long, int64(len(long))
		} else if d.Room == "odd" {
			d.Content, d.SHA256 = []byte("?"), [32]byte{9}
		}
	}
	for i := range h.query.threads {
		if th := &h.query.threads[i]; th.Room == "large" {
			th.Source = []byte(`{"id":"th_1","x":"` + strings.Repeat("x", maxIncluded) + `"}`)
		} else if th.Room == "odd" {
			th.Source = []byte("?")
		}
	}
	storage := resourceIn(project, "room", mirror.KindStorage)
	gone := resourceIn(project, "gone", mirror.KindStorage)
	const none = mirrorv1.ResourceOmission_RESOURCE_OMISSION_UNSPECIFIED
	type step struct {
		of      mirror.Resource
		deletes bool
		want    mirrorv1.ResourceOmission
	}
	steps := []step{
		// It is deleted, and comes back.
		{storage, false, omittedDeleted},
		{storage, true, omittedDeleted},
		{storage, false, none},
		{storage, false, omittedEarlier},
		// Nobody has told yet that it is.
		{gone, false, omittedDeleted},
		// It is there again.
		{threadIn("room"), false, omittedDeleted},
		{threadIn("room"), true, omittedDeleted},
		{resourceIn(project, "large", mirror.KindStorage), false, omittedTooLarge},
		{threadIn("large"), false, omittedTooLarge},
		{resourceIn(project, "odd", mirror.KindStorage), false, omittedUnreadable},
		{threadIn("odd"), false, omittedUnreadable},
		{resourceIn(project, "room", mirror.KindUserSessions), false, omittedHistory},
		{mirror.Resource{Project: project, Room: "room", Kind: mirror.KindNotification, ID: "n"}, false, omittedHistory},
	}
	type number struct {
		room     string
		revision int64
	}
	want := make(map[number]mirrorv1.ResourceOmission)
	for _, s := range steps {
		if s.deletes {
			c := h.feed.DeletionOf(int(s.of.Bucket()), s.of)
			h.tailer.Committed([]mirror.Change{c})
			want[number{string(s.of.Room), c.Number}] = s.want
		} else {
			want[number{string(s.of.Room), h.happens(s.of).GetRevision()}] = s.want
		}
	}
	for _, c := range h.included(t.Context(), t, full) {
		why := want[number{c.GetRoomId(), c.GetRevision()}]
		if c.GetOmission() != why || (c.GetResource() != nil) != (why == none) || (c.Omission != nil) != (why != none) {
			t.Errorf("%v of revision %d in %q = %v, resource %t; want %v", c.GetKind(), c.GetRevision(), c.GetRoomId(),
				c.GetOmission(), c.GetResource() != nil, why)
		}
	}
	for _, c := range h.included(t.Context(), t, basic) { // their descriptions are short
		if large := c.GetRoomId() == "large" || c.GetRoomId() == "odd"; large && c.GetResource() == nil {
			t.Errorf("%v in the basic form = %v; want the resource", c.GetKind(), c.GetOmission())
		}
	}
}

// A resource of a room's earlier incarnation is none of the later one.
func TestBearersOfIncarnations(t *testing.T) {
	t.Parallel()
	r := resourceIn(project, "room", mirror.KindStorage)
	of := func(epochs ...int64) (changes []mirror.Change) {
		for i, epoch := range epochs {
			changes = append(changes, mirror.Change{Resource: r, Epoch: epoch, Number: int64(i), Kind: mirror.ChangeUpserted})
		}
		return changes
	}
	for want, changes := range map[int][]mirror.Change{0: of(1, 1, 1), 2: of(1, 1, 3, 3)} {
		if got := bearersOf(changes)[r].at; got != want {
			t.Errorf("the bearer among %v is %d; want %d", changes, got, want)
		}
	}
}

// A response is bounded, however large the resources are, and what does not fit comes with the
// next one: each change once.
func TestIncludedResponsesAreBounded(t *testing.T) {
	t.Parallel()
	const rooms = 60
	h := start(t)
	var want []string
	for i := range rooms {
		room := mirror.RoomID(fmt.Sprint("room-", i))
		content := []byte(`{"liveblocksType":"LiveObject","data":{"a":"` + strings.Repeat("x", 200<<10) + `"}}`)
		h.query.documents = append(h.query.documents, mirror.Document{
			Project: project, Room: room, Kind: mirror.KindStorage, Content: content, Size: int64(len(content)),
			SHA256: [32]byte{byte(i + 1)},
		})
		h.happens(resourceIn(project, room, mirror.KindStorage))
		h.happens(resourceIn("other", room, mirror.KindStorage)) // not seen, and passed by
		want = append(want, string(room))
	}
	check := func(what string, changes []*mirrorv1.Change) {
		t.Helper()
		var got []string
		for _, c := range changes {
			if got = append(got, c.GetRoomId()); len(c.GetDocument().GetContent()) < 200<<10 {
				t.Errorf("%s: %s came with %v", what, c.GetRoomId(), c.GetOmission())
			}
		}
		slices.Sort(got)
		if diff := gocmp.Diff(slices.Sorted(slices.Values(want)), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	check("ListChanges", h.included(t.Context(), t, full))
	stream, err := h.change.WatchChanges(t.Context(), &mirrorv1.WatchChangesRequest{Include: full, Start: fromSnapshot})
	var items []*mirrorv1.Change
	tokens := make(map[string]bool)
	for err == nil && len(items) < rooms {
		var response *mirrorv1.WatchChangesResponse
		if response, err = stream.Recv(); err == nil {
			if size := proto.Size(response); size > includeBytes+maxIncluded+4096 || tokens[response.GetToken()] {
				t.Errorf("a response has %d bytes, and its token is new: %t", size, !tokens[response.GetToken()])
			}
			tokens[response.GetToken()] = true
			items = append(items, response.GetSnapshotItems().GetItems()...)
		}
	}
	check("snapshot", items)
	if err != nil {
		t.Fatal(err)
	}
}

// Only who may read gets resources, and only those that it sees.
func TestIncludedResourcesNeedTheirScope(t *testing.T) {
	t.Parallel()
	some := access.Caller{
		Name: "some", Scopes: access.ScopesOf(access.Watch, access.Read), Projects: []mirror.ProjectID{access.AnyProject},
		Rooms: []string{"a"},
	}
	watches := access.Everything("watches")
	watches.Scopes = access.ScopesOf(access.Watch)
	h := start(t, func(c *Config) {
		c.Guard = callers(map[string]access.Caller{"some": some, "watches": watches})
	})
	stocked(h.query, "a", "b")
	h.happens(resourceIn(project, "a", mirror.KindRoom))
	h.happens(resourceIn(project, "b", mirror.KindRoom))
	as := func(key string) context.Context { return withMetadata(t.Context(), "authorization", "Bearer "+key) }
	changes := h.included(as("some"), t, full)
	if len(changes) != 1 || changes[0].GetRoom().GetRoomId() != "a" {
		t.Errorf("with some rooms came %v; want those", changes)
	}
	for _, include := range []mirrorv1.ChangeInclude{basic, full} {
		_, err := h.change.ListChanges(as("watches"), &mirrorv1.ListChangesRequest{Start: fromEarliest, Include: include})
		wantStatus(t, err, codes.PermissionDenied, fault.ReasonScopeMissing)
		stream, err := h.change.WatchChanges(as("watches"), &mirrorv1.WatchChangesRequest{Include: include})
		if err == nil {
			_, err = stream.Recv()
		}
		wantStatus(t, err, codes.PermissionDenied, fault.ReasonScopeMissing)
	}
	if changes := h.included(as("watches"), t, 0); len(changes) != 2 {
		t.Errorf("without resources came %v; want two changes", changes)
	}
}

// A copy that is older than its change comes from a server that lags. A copy that is newer than
// the token is remembered in it: a database that has gone back since is noticed.
func TestIncludedResourcesAreNotOld(t *testing.T) {
	t.Parallel()
	h := start(t)
	r := resourceIn(project, "room", mirror.KindStorage)
	content := []byte(`{"liveblocksType":"LiveObject","data":{}}`)
	h.query.documents = []mirror.Document{{
		Project: project, Room: "room", Kind: mirror.KindStorage, Content: content, Size: int64(len(content)),
		SHA256: [32]byte{1},
	}}
	for range 3 {
		h.happens(r)
	}
	list := func(start *mirrorv1.ListChangesRequest) (*mirrorv1.ListChangesResponse, error) {
		start.Include, start.PageSize = full, 1
		return h.change.ListChanges(t.Context(), start)
	}
	first := &mirrorv1.ListChangesRequest{Start: fromEarliest}
	for revision, lags := range map[int64]bool{0: true, 1: false, 3: false} {
		h.query.change(func() { h.query.documents[0].Freshness.Revision = revision })
		if page, err := list(first); lags {
			wantStatus(t, err, codes.Unavailable, fault.ReasonStoreUnavailable)
		} else if err != nil || page.GetChanges()[0].GetDocument() == nil {
			t.Errorf("with a copy of revision %d: %v, %v; want it", revision, page, err)
		}
	}
	h.query.change(func() { h.query.documents[0].Freshness.Revision = 3 })
	page, err := list(first)
	if err != nil {
		t.Fatal(err)
	}
	next := &mirrorv1.ListChangesRequest{Start: &mirrorv1.ListChangesRequest_Token{Token: page.GetNextToken()}}
	if _, err := list(next); err != nil {
		t.Errorf("ListChanges from the token = %v", err)
	}
	h.feed.Restore(int(r.Bucket()), 1)
	_, err = list(next)
	wantStatus(t, err, codes.OutOfRange, fault.ReasonChangeTokenAhead)
}

// What panics while resources are read, such as a decoder, ends the call and not the service.
func TestPanicWhileResourcesAreRead(t *testing.T) {
	t.Parallel()
	h := start(t)
	stocked(h.query, "room")
	h.happens(resourceIn(project, "room", mirror.KindStorage))
	list := func() (*mirrorv1.ListChangesResponse, error) {
		return h.change.ListChanges(t.Context(), &mirrorv1.ListChangesRequest{Start: fromEarliest, Include: full})
	}
	h.query.change(func() { h.query.err = func(context.Context) error { panic("at the disco") } })
	_, err := list()
	wantStatus(t, err, codes.Internal, fault.ReasonInternal)
	h.query.change(func() { h.query.err = nil })
	h.current()
	if page, err := list(); err != nil || page.GetChanges()[0].GetDocument() == nil {
		t.Errorf("the next call = %v, %v; want the document", page, err)
	}
}

// What is damaged, or trips a decoder, comes without its resource, and those who follow get past it.
// The log says so.
func TestDamagedResources(t *testing.T) {
	t.Parallel()
	h := start(t)
	stocked(h.query, "before", "damaged", "behind")
	for i := range h.query.documents {
		if d := &h.query.documents[i]; d.Room == "damaged" && d.Kind == mirror.KindStorage {
			d.Content, d.Damage = nil, errors.New("unpack document: magic number mismatch")
		}
	}
	for _, room := range []mirror.RoomID{"before", "damaged", "behind"} {
		h.happens(resourceIn(project, room, mirror.KindStorage))
	}
	check := func(what string, changes []*mirrorv1.Change, include mirrorv1.ChangeInclude) {
		t.Helper()
		if len(changes) != 3 {
			t.Fatalf("%s: %d changes came; want 3", what, len(changes))
		}
		for _, c := range changes {
			left := c.GetRoomId() == "damaged" && include == full
			if left != (c.GetOmission() == omittedUnreadable) || left != (c.GetDocument() == nil) {
				t.Errorf("%s: %s with %v came with %v, %v", what, c.GetRoomId(), include, c.GetDocument(), c.GetOmission())
			}
		}
	}
	for _, include := range []mirrorv1.ChangeInclude{basic, full} {
		check("ListChanges", h.included(t.Context(), t, include), include)
		const told = "a resource is damaged"
		if log := h.log.String(); strings.Contains(log, told) != (include == full) ||
			include == full && !strings.Contains(log, "magic number mismatch") {
			t.Errorf("with %v the log is %s", include, log)
		}
	}
	stream, err := h.change.WatchChanges(t.Context(), &mirrorv1.WatchChangesRequest{
		Start: fromSnapshot, Include: full, Kinds: []mirrorv1.ResourceKind{mirrorv1.ResourceKind_RESOURCE_KIND_STORAGE},
	})
	var items []*mirrorv1.Change
	for end := false; err == nil && !end; {
		var response *mirrorv1.WatchChangesResponse
		if response, err = stream.Recv(); err == nil {
			items = append(items, response.GetSnapshotItems().GetItems()...)
			end = response.GetSnapshotEnd() != nil
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	check("snapshot", items, full)
	// Who reads it learns that it is a defect, and not to wait.
	_, err = h.mirror.GetStorageDocument(t.Context(), &mirrorv1.GetStorageDocumentRequest{
		RoomId: "damaged", View: mirrorv1.DocumentView_DOCUMENT_VIEW_FULL,
	})
	wantStatus(t, err, codes.Internal, fault.ReasonInternal)

	for what, r := range map[string]resource{
		"panic": {attach: func(*mirrorv1.Change) error { panic("at the disco") }},
		"error": {attach: func(c *mirrorv1.Change) error {
			c.Resource = &mirrorv1.Change_Thread{Thread: &mirrorv1.Thread{}}
			return errors.New("odd")
		}},
	} {
		c := mirror.Change{Resource: threadIn("room"), Kind: mirror.ChangeUpserted}
		message := &mirrorv1.Change{}
		damage := attach(message, map[mirror.Resource]resource{c.Resource: r}, &c, 0, 0, maxIncluded)
		if message.GetOmission() != omittedUnreadable || message.GetResource() != nil ||
			(damage != nil) != (what == "panic") {
			t.Errorf("%s: %v came with the damage %v", what, message, damage)
		}
	}
}

// A follower of large resources has few of them read in vain for each response.
func TestIncludedResourcesAreReadOnce(t *testing.T) {
	t.Parallel()
	const rooms = 60
	for _, size := range []int{5 << 10, 60 << 10, 120 << 10, 250 << 10} {
		h := start(t)
		for i := range rooms {
			room := mirror.RoomID(fmt.Sprint("room-", i))
			content := []byte(`{"liveblocksType":"LiveObject","data":{"a":"` + strings.Repeat("x", size) + `"}}`)
			h.query.documents = append(h.query.documents, mirror.Document{
				Project: project, Room: room, Kind: mirror.KindStorage, Content: content, Size: int64(len(content)),
				SHA256: [32]byte{0, byte(i + 1)},
			})
			h.happens(resourceIn(project, room, mirror.KindStorage))
		}
		h.current()
		// None is in the cache.
		h.services.change.documents = documents.New(uncached{h.query}, &fresh.Reader{}, documents.Memory{Long: 1 << 20})
		stream, err := h.change.WatchChanges(t.Context(), &mirrorv1.WatchChangesRequest{Include: full, Start: fromSnapshot})
		items, responses := 0, 0
		for err == nil && items < rooms {
			var response *mirrorv1.WatchChangesResponse
			response, err = stream.Recv()
			if n := len(response.GetSnapshotItems().GetItems()); n > 0 {
				items, responses = items+n, responses+1
			}
		}
		if err != nil || items != rooms {
			t.Fatalf("%d items came, %v; want %d", items, err, rooms)
		}
		// The first response does not know their size.
		sent, read := rooms*size, h.query.content
		if read > sent*12/10+includeFull*size || responses > sent/(includeBytes/2)+2 {
			t.Errorf("of %d KiB each, %d KiB were read for %d KiB in %d responses", size>>10, read>>10, sent>>10, responses)
		}
	}
}

// uncached says that each document has changed since it was read.
type uncached struct{ *fakeQuery }

func (u uncached) ReadDocuments(ctx context.Context, reads []store.DocumentRead, inline int64) ([]*mirror.Document,
	error,
) {
	for i := range reads {
		reads[i].Have = [32]byte{}
	}
	return u.fakeQuery.ReadDocuments(ctx, reads, inline)
}

// Resources are read while there is memory for them, and it is all given back.
func TestIncludedResourcesTakeMemory(t *testing.T) {
	t.Parallel()
	h := start(t, func(c *Config) { c.Change.Memory = 1 << 20 })
	stocked(h.query, "room")
	h.happens(resourceIn(project, "room", mirror.KindStorage))
	memory := h.services.change.memory
	if !memory.TryAcquire(1 << 20) {
		t.Fatal("memory is in use while nobody reads")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := h.change.ListChanges(ctx, &mirrorv1.ListChangesRequest{Start: fromEarliest, Include: full})
	wantStatus(t, err, codes.DeadlineExceeded, "")
	memory.Release(1 << 20)
	h.included(t.Context(), t, full)
	h.query.change(func() { h.query.err = func(context.Context) error { return errors.New("broken") } })
	if _, err := h.change.ListChanges(t.Context(), &mirrorv1.ListChangesRequest{
		Start: fromEarliest, Include: full,
	}); err == nil {
		t.Error("ListChanges of what cannot be read = nil")
	}
	stream, err := h.change.WatchChanges(t.Context(), &mirrorv1.WatchChangesRequest{Start: fromSnapshot, Include: full})
	for err == nil {
		_, err = stream.Recv()
	}
	if !memory.TryAcquire(1 << 20) {
		t.Error("memory is in use after the last response")
	}
}

// However long threads are, a statement reads few bytes of sources: none that is too long to come
// along, and for a description only short ones, since the metadata is stored beside them.
func TestSourcesOfIncludedThreadsAreBounded(t *testing.T) {
	t.Parallel()
	h := start(t)
	metadata := []byte(`{"a":"b"}`)
	for i := range 40 {
		room := mirror.RoomID(fmt.Sprint("room-", i))
		long := strings.Repeat("x", []int{1, 30 << 10, 200 << 10, 2 << 20}[i%4])
		h.query.threads = append(h.query.threads, mirror.Thread{
			Project: project, Room: room, ID: "th_1", Metadata: metadata, SHA256: [32]byte{1},
			Source: []byte(`{"id":"th_1","metadata":{"a":"b"},"comments":[],"x":"` + long + `"}`),
		})
		h.happens(threadIn(room))
	}
	// What cannot be stored for queries is in the source alone.
	h.query.threads[1].Metadata, h.query.threads[1].DataProblem = nil, "the metadata is odd"
	for include, most := range map[mirrorv1.ChangeInclude]int{basic: 100 * 16 << 10, full: 8 * 256 << 10} {
		h.query.sources = 0
		for _, c := range h.included(t.Context(), t, include) {
			var i int
			_, err := fmt.Sscanf(c.GetRoomId(), "room-%d", &i)
			if err != nil {
				t.Fatal(err)
			}
			left := include == full && i%4 == 3 || include == basic && i == 1
			if left != (c.GetOmission() == omittedTooLarge) || left != (c.GetThread() == nil) {
				t.Errorf("%v of %s came with %v", include, c.GetRoomId(), c.GetOmission())
			}
			if !left && c.GetThread().GetMetadata()["a"].GetStringValue() != "b" {
				t.Errorf("%v of %s has the metadata %v", include, c.GetRoomId(), c.GetThread().GetMetadata())
			}
		}
		if n := h.query.sources; n == 0 || n > most {
			t.Errorf("%v: a statement read %d bytes of sources; want %d at most", include, n, most)
		}
	}
}

// Who waits for memory keeps nobody from reading, and who has much of it leaves some to others.
func TestMemoryOfSlowFollowers(t *testing.T) {
	t.Parallel()
	h := start(t, func(c *Config) {
		c.Change.Memory = 16 << 20
		c.Guard = callers(map[string]access.Caller{
			"one": access.Everything("one"), "two": access.Everything("two"), "three": access.Everything("three"),
		})
	})
	stocked(h.query, "room")
	h.happens(resourceIn(project, "room", mirror.KindStorage))
	h.current()
	as := func(key string) context.Context { return withMetadata(t.Context(), "authorization", "Bearer "+key) }
	s := h.services.change

	// One has all that it can have.
	caller, leave, err := s.enter(&access.Caller{Name: "one"})
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	held, responses := int64(0), 0
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		memory, err := s.reserve(ctx, &following{followingCaller: caller, include: full})
		cancel()
		if err != nil {
			break
		}
		defer memory.keep(0)
		memory.keep(includeBytes) // it is sent
		held += includeBytes
		responses++
	}
	if held == 0 || held > s.Memory/2 {
		t.Errorf("%d responses of a caller have %d bytes of %d; want half at most", responses, held, s.Memory)
	}
	soon, end := context.WithTimeout(as("two"), 10*time.Second)
	defer end()
	page, err := h.change.ListChanges(soon, &mirrorv1.ListChangesRequest{Start: fromEarliest, Include: full})
	if err != nil || page.GetChanges()[0].GetDocument() == nil {
		t.Fatalf("ListChanges of another caller = %v, %v; want the resource", page, err)
	}

	// There is none left, and each of two callers waits for more than there are turns.
	rest := s.Memory - held
	if !s.memory.TryAcquire(rest) {
		t.Fatal("memory is in use after the last response")
	}
	defer s.memory.Release(rest)
	for what, req := range map[string]*mirrorv1.WatchChangesRequest{
		"a snapshot": {Start: fromSnapshot, Include: full},
		"changes": {Include: full, Start: &mirrorv1.WatchChangesRequest_Position{
			Position: mirrorv1.ChangeStart_CHANGE_START_EARLIEST,
		}},
	} {
		for range 2 * pageReaders {
			for _, key := range []string{"one", "two"} {
				stream, err := h.change.WatchChanges(as(key), req)
				if err == nil {
					_, err = stream.Recv()
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		select { // they wait for memory
		case <-time.After(50 * time.Millisecond):
		case <-t.Context().Done():
		}
		ctx, cancel := context.WithTimeout(as("three"), 10*time.Second)
		stream, err := h.change.WatchChanges(ctx, &mirrorv1.WatchChangesRequest{Start: fromSnapshot})
		for end := false; err == nil && !end; {
			var response *mirrorv1.WatchChangesResponse
			response, err = stream.Recv()
			end = response.GetSnapshotEnd() != nil
		}
		cancel()
		if err != nil {
			t.Errorf("a snapshot without resources beside those who wait for %s = %v; want its end", what, err)
		}
	}
}

// While resources are waited for, a stream has heartbeats whose token is before their changes.
func TestHeartbeatsWhileResourcesAreRead(t *testing.T) {
	t.Parallel()
	h := start(t)
	stocked(h.query, "room")
	h.happens(resourceIn(project, "room", mirror.KindStorage))
	h.query.change(func() {
		h.query.err = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	})
	stream, err := h.change.WatchChanges(t.Context(), &mirrorv1.WatchChangesRequest{
		Include: full, HeartbeatInterval: durationpb.New(5 * time.Second),
		Start: &mirrorv1.WatchChangesRequest_Position{Position: mirrorv1.ChangeStart_CHANGE_START_EARLIEST},
	})
	if err != nil {
		t.Fatal(err)
	}
	var beat *mirrorv1.WatchChangesResponse
	for range 2 { // the first one greets
		if beat, err = stream.Recv(); err != nil || beat.GetProgress() == nil || beat.GetProgress().GetCaughtUp() {
			t.Fatalf("Recv = %v, %v; want a heartbeat", beat, err)
		}
	}
	page, err := h.change.ListChanges(t.Context(), &mirrorv1.ListChangesRequest{
		Start: &mirrorv1.ListChangesRequest_Token{Token: beat.GetToken()},
	})
	if err != nil || len(page.GetChanges()) != 1 {
		t.Errorf("ListChanges from the heartbeat = %v, %v; want the change that was not sent", page, err)
	}
}

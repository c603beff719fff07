package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
)

// happens commits a change of a resource and tells of it.
func (h *harness) happens(r mirror.Resource) *mirrorv1.Change {
	c := h.feed.CommitOf(int(r.Bucket()), r)
	h.tailer.Committed([]mirror.Change{c})
	return changesToProto([]mirror.Change{c})[0]
}

// deletes commits the deletion of a resource and tells of it.
func (h *harness) deletes(r mirror.Resource) {
	h.tailer.Committed([]mirror.Change{h.feed.DeletionOf(int(r.Bucket()), r)})
}

func resourceIn(project mirror.ProjectID, room mirror.RoomID, kind mirror.Kind) mirror.Resource {
	return mirror.Resource{Project: project, Room: room, Kind: kind}
}

var fromEarliest = &mirrorv1.ListChangesRequest_Position{Position: mirrorv1.ChangeStart_CHANGE_START_EARLIEST}

func TestListChanges(t *testing.T) {
	t.Parallel()
	h := start(t)
	empty, err := h.change.ListChanges(t.Context(), &mirrorv1.ListChangesRequest{})
	if err != nil || len(empty.GetChanges()) > 0 || empty.GetNextToken() == "" || !empty.GetCaughtUp() ||
		time.Since(empty.GetReadTime().AsTime()).Abs() > time.Hour { // of the look, not of the answer
		t.Fatalf("ListChanges of nothing = %v, %v; want a token", empty, err)
	}
	var want []*mirrorv1.Change
	for i := range 250 {
		room := mirror.RoomID(fmt.Sprintf("room-%d", i%3))
		want = append(want, h.happens(resourceIn(project, room, mirror.KindStorage)))
		h.happens(resourceIn("other", room, mirror.KindStorage)) // shares buckets, and shows nowhere
	}
	for what, start := range map[string]*mirrorv1.ListChangesRequest{
		"the token":    {Start: &mirrorv1.ListChangesRequest_Token{Token: empty.GetNextToken()}},
		"the earliest": {Start: fromEarliest},
		"a time": {Start: &mirrorv1.ListChangesRequest_StartTime{
			StartTime: timestamppb.New(time.Now().Add(-time.Hour)),
		}},
	} {
		start.PageSize = 30
		byRoom := make(map[string][]*mirrorv1.Change)
		n := 0
		for {
			page, err := h.change.ListChanges(t.Context(), start)
			if err != nil || len(page.GetChanges()) > 30 {
				t.Fatalf("ListChanges from %s = %v, %v; want at most 30", what, page, err)
			}
			for _, c := range page.GetChanges() {
				byRoom[c.GetRoomId()] = append(byRoom[c.GetRoomId()], c)
				n++
			}
			if page.GetCaughtUp() {
				break
			}
			start.Start = &mirrorv1.ListChangesRequest_Token{Token: page.GetNextToken()}
		}
		wanted := make(map[string][]*mirrorv1.Change)
		for _, c := range want {
			wanted[c.GetRoomId()] = append(wanted[c.GetRoomId()], c)
		}
		if diff := gocmp.Diff(wanted, byRoom, protocmp.Transform()); diff != "" || n != len(want) {
			t.Errorf("changes from %s (-want +got):\n%s", what, diff)
		}
	}
	later := &mirrorv1.ListChangesRequest{Start: &mirrorv1.ListChangesRequest_StartTime{
		StartTime: timestamppb.New(time.Now().Add(time.Hour)),
	}}
	if page, err := h.change.ListChanges(t.Context(), later); err != nil || len(page.GetChanges()) > 0 {
		t.Errorf("ListChanges from later = %v, %v; want none", page, err)
	}
}

func TestChangeFilters(t *testing.T) {
	t.Parallel()
	h := start(t)
	a := h.happens(resourceIn(project, "a/1", mirror.KindRoom))
	b := h.happens(resourceIn(project, "a/1", mirror.KindStorage))
	c := h.happens(resourceIn(project, "a/2", mirror.KindRoom))
	d := h.happens(resourceIn(project, "", mirror.KindGroup))
	for i, test := range []struct {
		req  *mirrorv1.ListChangesRequest
		want []*mirrorv1.Change
	}{
		{&mirrorv1.ListChangesRequest{}, []*mirrorv1.Change{a, b, c, d}},
		{&mirrorv1.ListChangesRequest{RoomId: "a/1"}, []*mirrorv1.Change{a, b}},
		{&mirrorv1.ListChangesRequest{RoomId: "a/"}, nil},
		{&mirrorv1.ListChangesRequest{RoomIdPrefix: "a/"}, []*mirrorv1.Change{a, b, c}},
		{
			&mirrorv1.ListChangesRequest{Kinds: []mirrorv1.ResourceKind{
				mirrorv1.ResourceKind_RESOURCE_KIND_ROOM, mirrorv1.ResourceKind_RESOURCE_KIND_GROUP,
			}},
			[]*mirrorv1.Change{a, c, d},
		},
	} {
		test.req.Start = fromEarliest
		page, err := h.change.ListChanges(t.Context(), test.req)
		byPlace := protocmp.SortRepeated(func(a, b *mirrorv1.Change) bool {
			return a.GetRoomId()+a.GetKind().String() < b.GetRoomId()+b.GetKind().String()
		})
		if diff := gocmp.Diff(&mirrorv1.ListChangesResponse{Changes: test.want},
			&mirrorv1.ListChangesResponse{Changes: page.GetChanges()}, protocmp.Transform(), byPlace); err != nil || diff != "" {
			t.Errorf("filter %d: %v (-want +got):\n%s", i, err, diff)
		}
	}
}

// A call waits for a change that matches, and returns at the end of its wait without one.
func TestListChangesWaits(t *testing.T) {
	t.Parallel()
	h := start(t)
	first, err := h.change.ListChanges(t.Context(), &mirrorv1.ListChangesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	req := &mirrorv1.ListChangesRequest{
		RoomId: "wanted", Start: &mirrorv1.ListChangesRequest_Token{Token: first.GetNextToken()},
		WaitDuration: durationpb.New(time.Minute),
	}
	done := make(chan *mirrorv1.ListChangesResponse, 1)
	go func() {
		page, err := h.change.ListChanges(t.Context(), req)
		if err != nil {
			t.Errorf("ListChanges = %v", err)
		}
		done <- page
	}()
	for range 5 {
		h.happens(resourceIn(project, "another", mirror.KindRoom))
	}
	want := h.happens(resourceIn(project, "wanted", mirror.KindRoom))
	page := <-done
	if len(page.GetChanges()) != 1 || page.GetChanges()[0].GetRevision() != want.GetRevision() {
		t.Fatalf("ListChanges = %v; want %v", page, want)
	}
	req.Start = &mirrorv1.ListChangesRequest_Token{Token: page.GetNextToken()}
	req.WaitDuration = durationpb.New(time.Millisecond)
	page, err = h.change.ListChanges(t.Context(), req)
	if err != nil || len(page.GetChanges()) > 0 || !page.GetCaughtUp() {
		t.Fatalf("ListChanges = %v, %v; want nothing", page, err)
	}
}

func TestChangeTokensOverTheWire(t *testing.T) {
	t.Parallel()
	h := start(t, func(c *Config) { c.Projects = []mirror.ProjectID{project, "other"} })
	list := func(project mirror.ProjectID, token string) error {
		req := &mirrorv1.ListChangesRequest{ProjectId: string(project)}
		if token != "" {
			req.Start = &mirrorv1.ListChangesRequest_Token{Token: token}
		}
		_, err := h.change.ListChanges(t.Context(), req)
		return err
	}
	watch := func(token string) error {
		stream, err := h.change.WatchChanges(t.Context(), &mirrorv1.WatchChangesRequest{
			ProjectId: string(project), Start: &mirrorv1.WatchChangesRequest_Token{Token: token},
		})
		for err == nil {
			_, err = stream.Recv()
		}
		return err
	}
	page, err := h.change.ListChanges(t.Context(), &mirrorv1.ListChangesRequest{ProjectId: string(project)})
	if err != nil {
		t.Fatal(err)
	}
	beginning := page.GetNextToken()
	wantStatus(t, list(project, "AAAA"), codes.InvalidArgument, fault.ReasonChangeTokenInvalid)
	wantStatus(t, list(project, beginning[:len(beginning)-1]), codes.InvalidArgument, fault.ReasonChangeTokenInvalid)
	wantStatus(t, list("other", beginning), codes.InvalidArgument, fault.ReasonChangeTokenMismatch)
	wantStatus(t, watch("AAAA"), codes.InvalidArgument, fault.ReasonChangeTokenInvalid)
	wantStatus(t, watch(""), codes.InvalidArgument, fault.ReasonChangeTokenInvalid)
	_, err = h.change.ListChanges(t.Context(), &mirrorv1.ListChangesRequest{
		ProjectId: string(project), Start: &mirrorv1.ListChangesRequest_Token{},
	})
	wantStatus(t, err, codes.InvalidArgument, fault.ReasonChangeTokenInvalid)

	r := resourceIn(project, "room", mirror.KindRoom)
	for range 3 {
		h.happens(r)
	}
	h.feed.TrimTo(int(r.Bucket()), 2)
	wantStatus(t, list(project, beginning), codes.OutOfRange, fault.ReasonChangeTokenExpired)
	wantStatus(t, watch(beginning), codes.OutOfRange, fault.ReasonChangeTokenExpired)
	identity, err := h.feed.Project(t.Context(), project)
	if err != nil {
		t.Fatal(err)
	}
	var at mirror.Position
	at[r.Bucket()] = 4
	ahead := formatChangeToken(identity.Feed, &place{at: at})
	wantStatus(t, list(project, ahead), codes.OutOfRange, fault.ReasonChangeTokenAhead)
	wantStatus(t, watch(ahead), codes.OutOfRange, fault.ReasonChangeTokenAhead)
	at[r.Bucket()] = 2
	if err := list(project, formatChangeToken(identity.Feed, &place{at: at})); err != nil {
		t.Errorf("ListChanges of what is left = %v", err)
	}
}

// After a reset, the tokens from before are refused, by a service that runs too.
func TestFeedReset(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	h := start(t, func(c *Config) { c.Now = func() time.Time { return noon.Add(time.Duration(ahead.Load())) } })
	page, err := h.change.ListChanges(t.Context(), &mirrorv1.ListChangesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	from := &mirrorv1.ListChangesRequest{Start: &mirrorv1.ListChangesRequest_Token{Token: page.GetNextToken()}}
	h.feed.Forget()
	ahead.Store(int64(identityLife))
	_, err = h.change.ListChanges(t.Context(), from)
	wantStatus(t, err, codes.InvalidArgument, fault.ReasonChangeTokenMismatch)
	page, err = h.change.ListChanges(t.Context(), &mirrorv1.ListChangesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	from.Start = &mirrorv1.ListChangesRequest_Token{Token: page.GetNextToken()}
	if _, err := h.change.ListChanges(t.Context(), from); err != nil {
		t.Errorf("ListChanges from a new token = %v", err)
	}
}

// A token of the feed as it is now is good at a replica that still knew its old identity, and
// streams that began before the reset end then.
func TestFeedResetElsewhere(t *testing.T) {
	t.Parallel()
	h := start(t)
	old, err := h.change.WatchChanges(t.Context(), &mirrorv1.WatchChangesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	first, err := old.Recv()
	if err != nil {
		t.Fatal(err)
	}
	h.feed.Forget()
	identity, err := h.feed.IdentifyFeed(t.Context(), project, [16]byte{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	list := func(token string) error {
		_, err := h.change.ListChanges(t.Context(), &mirrorv1.ListChangesRequest{
			Start: &mirrorv1.ListChangesRequest_Token{Token: token},
		})
		return err
	}
	if err := list(formatChangeToken(identity, &place{})); err != nil {
		t.Errorf("ListChanges from a token of the new feed = %v", err)
	}
	h.happens(resourceIn(project, "room", mirror.KindRoom)) // wakes the stream
	if response, err := old.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("Recv of the old feed = %v, %v; want its end", response, err)
	}
	wantStatus(t, list(first.GetToken()), codes.InvalidArgument, fault.ReasonChangeTokenMismatch)
}

// One key cannot take the place of all others. Those of an administrator are not limited.
func TestFollowersOfOneKey(t *testing.T) {
	t.Parallel()
	caller := func(name string, scopes access.Scopes) access.Caller {
		c := access.Everything(name)
		c.Scopes = scopes
		return c
	}
	h := start(t, func(c *Config) {
		c.Change.PerCaller = 2
		c.Guard = callers(map[string]access.Caller{
			"one": caller("one", access.ScopesOf(access.Watch)), "another": caller("another", access.ScopesOf(access.Watch)),
			"admin": caller("admin", access.AllScopes),
		})
	})
	open := func(key string) (end func(), err error) {
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := h.change.WatchChanges(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+key),
			&mirrorv1.WatchChangesRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		return cancel, err
	}
	var ends []func()
	for _, key := range []string{"one", "another", "one", "admin", "admin", "admin"} {
		end, err := open(key)
		if err != nil {
			t.Fatalf("WatchChanges by %s = %v", key, err)
		}
		ends = append(ends, end)
	}
	end, err := open("one")
	end()
	wantStatus(t, err, codes.ResourceExhausted, fault.ReasonWatchersLimited)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer one")
	_, err = h.change.ListChanges(ctx, &mirrorv1.ListChangesRequest{})
	wantStatus(t, err, codes.ResourceExhausted, fault.ReasonWatchersLimited)
	for _, end := range ends {
		end()
	}
	for {
		_, err := h.change.ListChanges(ctx, &mirrorv1.ListChangesRequest{})
		if err == nil {
			break
		}
		wantStatus(t, err, codes.ResourceExhausted, fault.ReasonWatchersLimited)
		runtime.Gosched() // the streams are about to end
	}
}

func TestWatchChanges(t *testing.T) {
	t.Parallel()
	h := start(t)
	old := h.happens(resourceIn(project, "room", mirror.KindRoom))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watch := func(start any) func() *mirrorv1.WatchChangesResponse {
		t.Helper()
		req := &mirrorv1.WatchChangesRequest{RoomId: "room"}
		switch start := start.(type) {
		case string:
			req.Start = &mirrorv1.WatchChangesRequest_Token{Token: start}
		case mirrorv1.ChangeStart:
			req.Start = &mirrorv1.WatchChangesRequest_Position{Position: start}
		}
		stream, err := h.change.WatchChanges(ctx, req)
		if err != nil {
			t.Fatalf("WatchChanges = %v", err)
		}
		return func() *mirrorv1.WatchChangesResponse {
			t.Helper()
			message, err := stream.Recv()
			if err != nil || message.GetToken() == "" {
				t.Fatalf("Recv = %v, %v; want a message with a token", message, err)
			}
			return message
		}
	}
	wantProgress := func(m *mirrorv1.WatchChangesResponse, caughtUp bool) {
		t.Helper()
		if p := m.GetProgress(); p == nil || p.GetCaughtUp() != caughtUp ||
			time.Since(p.GetReadTime().AsTime()).Abs() > time.Hour { // of the look, not of the answer
			t.Fatalf("message = %v; want progress, caught up = %t", m, caughtUp)
		}
	}
	wantChange := func(m *mirrorv1.WatchChangesResponse, want *mirrorv1.Change) {
		t.Helper()
		if diff := gocmp.Diff([]*mirrorv1.Change{want}, m.GetChanges().GetChanges(), protocmp.Transform()); diff != "" {
			t.Fatalf("changes (-want +got):\n%s", diff)
		}
	}
	// The first message comes at once, before anything happens.
	now := watch(nil)
	first := now()
	wantProgress(first, true)
	earliest := watch(mirrorv1.ChangeStart_CHANGE_START_EARLIEST)
	wantProgress(earliest(), false)
	wantChange(earliest(), old)
	wantProgress(earliest(), true)

	h.happens(resourceIn(project, "another", mirror.KindRoom))
	fresh := h.happens(resourceIn(project, "room", mirror.KindStorage))
	wantChange(now(), fresh)
	last := earliest()
	wantChange(last, fresh)
	again := watch(first.GetToken())
	wantProgress(again(), false)
	wantChange(again(), fresh)
	wantProgress(again(), true)
	wantProgress(watch(last.GetToken())(), true)
}

// A stream ends by itself, with its last token.
func TestWatchEnds(t *testing.T) {
	t.Parallel()
	h := start(t, func(c *Config) { c.Change.Life = 1 })
	stream, err := h.change.WatchChanges(t.Context(), &mirrorv1.WatchChangesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := stream.Recv(); err != nil || m.GetToken() == "" {
		t.Fatalf("Recv = %v, %v; want a token", m, err)
	}
	if m, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Fatalf("Recv = %v, %v; want the end", m, err)
	}
}

// A stream ends in time although there always is something to send.
func TestWatchEndsUnderLoad(t *testing.T) {
	t.Parallel()
	h := start(t, func(c *Config) { c.Change.Life = time.Second })
	stream, err := h.change.WatchChanges(t.Context(), &mirrorv1.WatchChangesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for begun := time.Now(); time.Since(begun) < time.Minute; {
		h.happens(resourceIn(project, "room", mirror.KindRoom))
		if _, err = stream.Recv(); err != nil {
			break
		}
		h.happens(resourceIn(project, "room", mirror.KindRoom))
	}
	if !errors.Is(err, io.EOF) {
		t.Fatalf("Recv = %v; want the end", err)
	}
}

// A stream ends with the key of its watcher.
func TestWatchEndsWithItsKey(t *testing.T) {
	t.Parallel()
	h := start(t, func(c *Config) {
		c.Now, c.Guard = time.Now, access.NewGuard(access.GuardConfig{
			Now: time.Now, Log: slog.New(slog.DiscardHandler),
			Authenticators: []access.Authenticator{func(context.Context, access.Credential) (access.Caller, error) {
				brief := access.Everything("brief")
				brief.Expires = time.Now().Add(time.Second)
				return brief, nil
			}},
		})
	})
	ctx := withMetadata(t.Context(), "authorization", "Bearer brief")
	stream, err := h.change.WatchChanges(ctx, &mirrorv1.WatchChangesRequest{})
	for err == nil {
		_, err = stream.Recv()
	}
	if !errors.Is(err, io.EOF) {
		t.Fatalf("Recv = %v; want the end", err)
	}
}

// A watcher that does not read is ended, and says why; others go on.
func TestWatcherThatIsTooSlow(t *testing.T) {
	t.Parallel()
	h := start(t, func(c *Config) { c.Change.Stall = 2 * time.Second })
	slow, err := h.change.WatchChanges(t.Context(), &mirrorv1.WatchChangesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := slow.Recv(); err != nil {
		t.Fatal(err)
	}
	quick, err := h.change.WatchChanges(t.Context(), &mirrorv1.WatchChangesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := quick.Recv(); err != nil {
		t.Fatal(err)
	}
	for n := 0; !strings.Contains(h.log.String(), "ResourceExhausted"); n++ { // until the server gives up
		h.happens(resourceIn(project, mirror.RoomID(fmt.Sprintf("%0400d", n)), mirror.KindRoom))
		m, err := quick.Recv()
		if err != nil || len(m.GetChanges().GetChanges()) != 1 {
			t.Fatalf("Recv of who reads = %v, %v; want the change", m, err)
		}
	}
	for err == nil {
		_, err = slow.Recv()
	}
	wantStatus(t, err, codes.ResourceExhausted, fault.ReasonWatcherTooSlow)
}

package rpc

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/yjs"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/ledger"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/webhook"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

func delivery(body string) *mirrorv1.ReceiveWebhookRequest {
	return &mirrorv1.ReceiveWebhookRequest{Body: &httpbody.HttpBody{ContentType: "application/json", Data: []byte(body)}}
}

func TestReceiveWebhookHandsTheDeliveryOn(t *testing.T) {
	t.Parallel()
	h := start(t, func(d *Config) {
		d.Guard = guardOf("secret")
		d.Projects = []mirror.ProjectID{"one", "two"}
	})
	h.receiver.receipt = ledger.Receipt{EventID: "msg_1", Duplicate: true, Outcome: mirror.OutcomeUnknownType}
	body := "\ufeff {\"type\":\"x\"}\r\n\x00\xff"
	for prefix, project := range map[string]string{"webhook-": "", "svix-": "two"} {
		req := delivery(body)
		req.ProjectId = project
		ctx := withMetadata(t.Context(), prefix+"id", "msg_1", prefix+"timestamp", "12345", prefix+"signature", "v1,abc")
		begun := time.Now()
		resp, err := h.events.ReceiveWebhook(ctx, req)
		want := &mirrorv1.ReceiveWebhookResponse{
			EventId: "msg_1", Duplicate: true,
			Outcome: mirrorv1.EventOutcome_EVENT_OUTCOME_UNKNOWN_TYPE,
		}
		if diff := gocmp.Diff(want, resp, protocmp.Transform()); err != nil || diff != "" {
			t.Errorf("ReceiveWebhook = %v; -want +got:\n%s", err, diff)
		}
		if got, want := h.receiver.headers,
			(webhook.Headers{ID: "msg_1", Timestamp: "12345", Signature: "v1,abc"}); got != want {
			t.Errorf("headers = %+v; want %+v", got, want)
		}
		if string(h.receiver.body) != body || string(h.receiver.project) != project {
			t.Errorf("received %q for %q; want %q for %q", h.receiver.body, h.receiver.project, body, project)
		}
		if got := h.receiver.deadline.Add(-receiveTimeout); got.Before(begun) || got.After(time.Now()) {
			t.Errorf("deadline %v after the call began; want %v after the server got it", h.receiver.deadline.Sub(begun),
				receiveTimeout)
		}
	}
	if log := h.log.String(); strings.Contains(log, "v1,abc") || strings.Contains(log, "msg_1") ||
		strings.Contains(log, "type") {
		t.Errorf("the log shows the delivery:\n%s", log)
	}
}

func TestReceiveWebhookRefusals(t *testing.T) {
	t.Parallel()
	h := start(t)
	signed := withMetadata(t.Context(), "webhook-id", "i", "webhook-timestamp", "1", "webhook-signature", "s")

	_, err := h.events.ReceiveWebhook(t.Context(), delivery("{}"))
	wantStatus(t, err, codes.Unauthenticated, fault.ReasonSignatureMissing)
	_, err = h.events.ReceiveWebhook(withMetadata(signed, "svix-id", "i"), delivery("{}"))
	wantStatus(t, err, codes.Unauthenticated, fault.ReasonSignatureInvalid)
	if h.receiver.calls != 0 {
		t.Errorf("an unsigned delivery was handed on")
	}

	full := strings.Repeat("x", MaxWebhook)
	if _, err = h.events.ReceiveWebhook(signed, delivery(full)); err != nil || len(h.receiver.body) != MaxWebhook {
		t.Errorf("a body at the limit = %v", err)
	}
	_, err = h.events.ReceiveWebhook(signed, delivery(full+"x"))
	wantStatus(t, err, codes.InvalidArgument, fault.ReasonPayloadTooLarge)
	_, err = h.events.ReceiveWebhook(signed, delivery(full+full))
	wantStatus(t, err, codes.ResourceExhausted, "") // gRPC's own refusal, before it is read

	for _, c := range []struct {
		err    error
		code   codes.Code
		reason fault.Reason
	}{
		{
			fault.New(fault.Unauthentic, fault.ReasonTimestampOutOfTolerance, "too old"), codes.Unauthenticated,
			fault.ReasonTimestampOutOfTolerance,
		},
		{fault.New(fault.Unavailable, fault.ReasonSyncFailed, "not mirrored"), codes.Unavailable, fault.ReasonSyncFailed},
		{context.DeadlineExceeded, codes.Unavailable, fault.ReasonStoreUnavailable}, // our 10 s, not the caller's
	} {
		h.receiver.err = c.err
		_, err := h.events.ReceiveWebhook(signed, delivery("{}"))
		wantStatus(t, err, c.code, c.reason)
	}
}

func TestGetEvent(t *testing.T) {
	t.Parallel()
	h := start(t)
	h.query.events = []mirror.Event{{
		Project: project, ID: "msg_1", Type: "storageUpdated", Room: "r", User: "u", LiveblocksProject: "lb",
		Payload:  []byte("\x00\xff"),
		SendTime: noon, ReceiveTime: noon.Add(time.Microsecond), Outcome: mirror.OutcomeQueued,
		Thread: "th", Secret: "5ec4e7aa",
	}}
	resp, err := h.events.GetEvent(t.Context(), &mirrorv1.GetEventRequest{EventId: "msg_1"})
	want := &mirrorv1.Event{
		ProjectId: "default", EventId: "msg_1", Type: "storageUpdated", RoomId: "r", UserId: "u", LiveblocksProjectId: "lb",
		Payload:  []byte("\x00\xff"),
		SendTime: timestamppb.New(noon), ReceiveTime: timestamppb.New(noon.Add(time.Microsecond)),
		Outcome: mirrorv1.EventOutcome_EVENT_OUTCOME_QUEUED, ThreadId: "th", SecretFingerprint: "5ec4e7aa",
	}
	if diff := gocmp.Diff(want, resp.GetEvent(), protocmp.Transform()); err != nil || diff != "" {
		t.Errorf("GetEvent = %v; -want +got:\n%s", err, diff)
	}
}

// An event is shown with the tasks of what it makes stale, as they are now; one that is
// set aside makes nothing stale.
func TestGetEventShowsTasks(t *testing.T) {
	t.Parallel()
	reader := access.Everything("reader")
	reader.Scopes = access.ScopesOf(access.Events)
	h := start(t, func(c *Config) {
		c.Guard = callers(map[string]access.Caller{"operator": access.Everything("operator"), "reader": reader})
	})
	event := mirror.Event{
		Project: project, ID: "msg_1", Type: "storageUpdated", Room: "r", Outcome: mirror.OutcomeQueued,
		Payload: []byte(`{"type":"storageUpdated","data":{"projectId":"lb","roomId":"r","updatedAt":"2030-01-31T00:00:00Z"}}`),
	}
	h.query.events = []mirror.Event{event}
	storage := mirror.Resource{Project: project, Room: "r", Kind: mirror.KindStorage}
	other := mirror.Resource{Project: project, Room: "r", Kind: mirror.KindYdoc}
	room := mirror.Resource{Project: project, Room: "r", Kind: mirror.KindRoom}
	h.query.tasks = []mirror.Task{
		{Resource: storage, State: mirror.TaskFailed, LastError: "UPSTREAM_UNAVAILABLE: x"},
		{Resource: other},
		{Resource: room, State: mirror.TaskFailed, Applied: 1, LastError: "of another event"},
	}
	who := "operator"
	get := func() []*mirrorv1.Task {
		t.Helper()
		ctx := withMetadata(t.Context(), "authorization", "Bearer "+who)
		got, err := h.events.GetEvent(ctx, &mirrorv1.GetEventRequest{EventId: "msg_1"})
		if err != nil {
			t.Fatal(err)
		}
		return got.GetTasks()
	}
	if _ = get(); h.query.taskReads != 1 {
		t.Errorf("reads of tasks for one event = %d; want one", h.query.taskReads)
	}
	if got := get(); len(got) != 1 || got[0].GetKind() != mirrorv1.ResourceKind_RESOURCE_KIND_STORAGE ||
		got[0].GetState() != mirrorv1.TaskState_TASK_STATE_FAILED || got[0].GetLastError() == "" {
		t.Errorf("tasks = %v; want that of the storage, which has failed", got)
	}
	who = "reader"
	if got := get(); len(got) != 0 {
		t.Errorf("tasks = %v for a caller who may not call GetTask; want none", got)
	}
	who = "operator"
	h.query.tasks[2].MissingSince = noon
	if got := get(); len(got) != 2 {
		t.Errorf("tasks = %v; want that of the storage and that of its room, which is not found", got)
	}
	h.query.tasks[2].MissingSince = time.Time{}
	h.query.tasks[2].Applied = 0 // it was never mirrored, so it is fetched first
	if got := get(); len(got) != 2 {
		t.Errorf("tasks = %v; want that of the storage and that of its unknown room", got)
	}
	h.query.tasks = nil
	if got := get(); len(got) != 0 {
		t.Errorf("tasks = %v; want none, since there is none", got)
	}
	h.query.tasks = []mirror.Task{{Resource: storage, State: mirror.TaskDone}}
	h.query.events[0].Outcome = mirror.OutcomeForeignProject
	if got := get(); len(got) != 0 {
		t.Errorf("tasks = %v; want none of an event that is set aside", got)
	}
}

// Each word of the domain has one of the API and the reverse.
func TestEnumsAreComplete(t *testing.T) {
	t.Parallel()
	check := func(enum protoreflect.EnumDescriptor, shown []protoreflect.EnumNumber) {
		slices.Sort(shown)
		var want []protoreflect.EnumNumber
		for i := range enum.Values().Len() {
			if n := enum.Values().Get(i).Number(); n != 0 {
				want = append(want, n)
			}
		}
		if !slices.Equal(shown, want) {
			t.Errorf("%s: words stand for %v; want %v", enum.Name(), shown, want)
		}
	}
	var o, k, d, s, m, e, r []protoreflect.EnumNumber
	for _, v := range outcomes {
		o = append(o, v.Number())
	}
	for _, v := range kinds {
		k = append(k, v.Number())
	}
	for _, v := range documentKinds {
		d = append(d, v.Number())
	}
	for _, v := range taskStates {
		s = append(s, v.Number())
	}
	for _, v := range mentionKinds {
		m = append(m, v.Number())
	}
	for _, v := range sessionEnds {
		e = append(e, v.Number())
	}
	for _, v := range differenceKinds {
		r = append(r, v.Number())
	}
	check(mirrorv1.EventOutcome(0).Descriptor(), o)
	check(mirrorv1.MentionKind(0).Descriptor(), m)
	check(mirrorv1.SessionEndCause(0).Descriptor(), e)
	check(mirrorv1.DriftKind(0).Descriptor(), r)
	check(mirrorv1.ResourceKind(0).Descriptor(), k)
	check(mirrorv1.DocumentKind(0).Descriptor(), d)
	check(mirrorv1.TaskState(0).Descriptor(), s)
	for _, kind := range mirror.Kinds() {
		if kinds[kind] == mirrorv1.ResourceKind_RESOURCE_KIND_UNSPECIFIED {
			t.Errorf("the API has no name for kind %s", kind)
		}
	}
}

func TestGetRoomReadsTheSource(t *testing.T) {
	t.Parallel()
	h := start(t)
	source := `{"type":"room","id":"r","metadata":{"name":"N\u0000","tags":["a","b"],"none":[],"n":1.5,"yes":true,` +
		`"nil":null,"obj":{},"mixed":["a",1],"holes":["a",null],"huge":1e999,"lone":"\ud800"},"METADATA":{"x":"y"},` +
		`"defaultAccesses":["room:write"],"usersAccesses":{"bob":["room:read","room:presence:write"],"odd":"x"},"groupsAccesses":7}`
	h.query.rooms = []mirror.Room{{
		Project: project, ID: "r", Source: []byte(source), SHA256: sha256.Sum256([]byte(source)), CreateTime: noon,
		OrganizationID: "acme",
		Freshness:      mirror.Freshness{FetchTime: noon, Revision: 7, Stale: true, MissingSince: noon},
	}}
	text := func(s string) *mirrorv1.MetadataValue {
		return &mirrorv1.MetadataValue{Value: &mirrorv1.MetadataValue_StringValue{StringValue: s}}
	}
	texts := func(s ...string) *mirrorv1.MetadataValue {
		return &mirrorv1.MetadataValue{Value: &mirrorv1.MetadataValue_StringList{StringList: &mirrorv1.StringList{Values: s}}}
	}
	want := &mirrorv1.Room{
		ProjectId: "default", RoomId: "r", OrganizationId: "acme", CreateTime: timestamppb.New(noon),
		SourceJson: []byte(source),
		Metadata: map[string]*mirrorv1.MetadataValue{
			"name": text("N\x00"), "tags": texts("a", "b"), "none": texts(), "lone": text("\uFFFD"),
			"n":   {Value: &mirrorv1.MetadataValue_NumberValue{NumberValue: 1.5}},
			"yes": {Value: &mirrorv1.MetadataValue_BoolValue{BoolValue: true}},
		},
		DefaultAccesses: []string{"room:write"},
		UsersAccesses:   map[string]*mirrorv1.AccessList{"bob": {Scopes: []string{"room:read", "room:presence:write"}}},
		Freshness: &mirrorv1.Freshness{
			FetchTime: timestamppb.New(noon), Revision: 7, Stale: true, MissingSinceTime: timestamppb.New(noon),
			ContentSha256: fmt.Sprintf("%x", sha256.Sum256([]byte(source))),
		},
	}
	resp, err := h.mirror.GetRoom(t.Context(), &mirrorv1.GetRoomRequest{RoomId: "r"})
	if diff := gocmp.Diff(want, resp.GetRoom(), protocmp.Transform()); err != nil || diff != "" {
		t.Errorf("GetRoom = %v; -want +got:\n%s", err, diff)
	}
	want.SourceJson = nil
	list, err := h.mirror.ListRooms(t.Context(), &mirrorv1.ListRoomsRequest{})
	if diff := gocmp.Diff([]*mirrorv1.Room{want}, list.GetRooms(), protocmp.Transform()); err != nil || diff != "" {
		t.Errorf("ListRooms = %v; -want +got:\n%s", err, diff)
	}
}

func TestBrokenSourceIsShownAsItIs(t *testing.T) {
	t.Parallel()
	for _, source := range []string{
		"", "{", "null", "[]", `"x"`, "\xff", `{"metadata":[]}`,
		`{"metadata":null,"defaultAccesses":null}`, `{"usersAccesses":[]}`,
	} {
		room := roomToProto(&mirror.Room{Project: project, ID: "r", Source: []byte(source)}, true)
		want := &mirrorv1.Room{
			ProjectId: "default", RoomId: "r", SourceJson: []byte(source),
			Freshness: &mirrorv1.Freshness{ContentSha256: strings.Repeat("0", 64)},
		}
		if diff := gocmp.Diff(want, room, protocmp.Transform()); diff != "" {
			t.Errorf("room with source %q: -want +got:\n%s", source, diff)
		}
	}
}

func TestTombstonesAreShownOnRequest(t *testing.T) {
	t.Parallel()
	h := start(t)
	gone := mirror.Freshness{FetchTime: noon, DeleteTime: noon}
	h.query.rooms = []mirror.Room{{Project: project, ID: "r", Source: []byte("{}"), Freshness: gone}}
	h.query.documents = []mirror.Document{storageOf("r", `{}`, gone)}
	for _, shown := range []bool{false, true} {
		want := codes.NotFound
		if shown {
			want = codes.OK
		}
		_, err := h.mirror.GetRoom(t.Context(), &mirrorv1.GetRoomRequest{RoomId: "r", ShowDeleted: shown})
		if status.Code(err) != want {
			t.Errorf("GetRoom of a tombstone, shown %v = %v; want %v", shown, err, want)
		}
		_, err = h.mirror.GetStorageDocument(t.Context(),
			&mirrorv1.GetStorageDocumentRequest{RoomId: "r", ShowDeleted: shown})
		if status.Code(err) != want {
			t.Errorf("GetStorageDocument of a tombstone, shown %v = %v; want %v", shown, err, want)
		}
		_, _, err = readDocument(t.Context(), h, &mirrorv1.ReadDocumentRequest{RoomId: "r", ShowDeleted: shown})
		if status.Code(err) != want {
			t.Errorf("ReadDocument of a tombstone, shown %v = %v; want %v", shown, err, want)
		}
		list, err := h.mirror.ListRooms(t.Context(), &mirrorv1.ListRoomsRequest{ShowDeleted: shown})
		if err != nil || (len(list.GetRooms()) == 1) != shown {
			t.Errorf("ListRooms, shown %v = %v, %v", shown, list.GetRooms(), err)
		}
	}
}

func TestFreshness(t *testing.T) {
	t.Parallel()
	const age = 10 * time.Second
	copyAt := func(at time.Time, stale bool) []mirror.Document {
		return []mirror.Document{storageOf("r", `{"v":1}`, mirror.Freshness{FetchTime: at, Stale: stale})}
	}
	deleted := func(at time.Time) []mirror.Document {
		return []mirror.Document{storageOf("r", `{"v":1}`, mirror.Freshness{FetchTime: noon.Add(-time.Hour), DeleteTime: at})}
	}
	storage := mirror.Resource{Project: project, Room: "r", Kind: mirror.KindStorage}
	paused := fault.New(fault.Unavailable, fault.ReasonProjectPaused, "paused")
	for _, c := range []struct {
		name    string
		have    []mirror.Document
		req     *mirrorv1.GetStorageDocumentRequest
		refresh error // nil: the refresh brings version 2
		// What is refreshed, what is answered.
		refreshed []mirror.Resource
		want      string
		reason    fault.Reason
	}{
		{
			"no age asked for", copyAt(noon.Add(-time.Hour), true), &mirrorv1.GetStorageDocumentRequest{RequireFresh: true},
			nil, nil, `{"v":1}`, "",
		},
		{
			"young enough", copyAt(noon.Add(-age), false), &mirrorv1.GetStorageDocumentRequest{MaxAge: durationpb.New(age)},
			nil, nil, `{"v":1}`, "",
		},
		{
			"by a clock that was a little ahead", copyAt(noon.Add(age), false),
			&mirrorv1.GetStorageDocumentRequest{MaxAge: durationpb.New(age)}, nil, nil, `{"v":1}`, "",
		},
		{
			"by a clock that was ahead", copyAt(noon.Add(age+1), false),
			&mirrorv1.GetStorageDocumentRequest{MaxAge: durationpb.New(age)}, nil,
			[]mirror.Resource{storage},
			`{"v":2}`, "",
		},
		{
			"too old", copyAt(noon.Add(-age-1), false), &mirrorv1.GetStorageDocumentRequest{MaxAge: durationpb.New(age)}, nil,
			[]mirror.Resource{storage},
			`{"v":2}`, "",
		},
		{
			"known to be stale", copyAt(noon, true), &mirrorv1.GetStorageDocumentRequest{MaxAge: durationpb.New(age)}, nil,
			[]mirror.Resource{storage},
			`{"v":2}`, "",
		},
		{
			"zero age", copyAt(noon.Add(-1), false), &mirrorv1.GetStorageDocumentRequest{MaxAge: durationpb.New(0)}, nil,
			[]mirror.Resource{storage},
			`{"v":2}`, "",
		},
		{
			"never heard of", nil, &mirrorv1.GetStorageDocumentRequest{MaxAge: durationpb.New(age)}, nil,
			[]mirror.Resource{storage.RoomResource(), storage},
			`{"v":2}`, "",
		},
		{"never heard of, no age", nil, &mirrorv1.GetStorageDocumentRequest{}, nil, nil, "", fault.ReasonDocumentNotMirrored},
		{
			"never heard of and not to be had", nil, &mirrorv1.GetStorageDocumentRequest{MaxAge: durationpb.New(age)}, paused,
			[]mirror.Resource{storage.RoomResource(), storage},
			"", fault.ReasonDocumentNotMirrored,
		},
		{"never heard of, insisted", nil, &mirrorv1.GetStorageDocumentRequest{
			MaxAge:       durationpb.New(age),
			RequireFresh: true,
		}, paused, []mirror.Resource{storage.RoomResource(), storage}, "", fault.ReasonProjectPaused},
		{
			"deleted just now", deleted(noon.Add(-age)), &mirrorv1.GetStorageDocumentRequest{MaxAge: durationpb.New(age)}, nil,
			nil, "", fault.ReasonDocumentNotMirrored,
		},
		{
			"deleted long ago", deleted(noon.Add(-age - 1)), &mirrorv1.GetStorageDocumentRequest{MaxAge: durationpb.New(age)},
			nil,
			[]mirror.Resource{storage.RoomResource(), storage},
			`{"v":2}`, "",
		},
		{"deleted just now, shown", deleted(noon), &mirrorv1.GetStorageDocumentRequest{
			MaxAge:      durationpb.New(age),
			ShowDeleted: true,
		}, nil, nil, `{"v":1}`, ""},
		{
			"refresh fails", copyAt(noon.Add(-time.Hour), true),
			&mirrorv1.GetStorageDocumentRequest{MaxAge: durationpb.New(age)}, paused,
			[]mirror.Resource{storage},
			`{"v":1}`, "",
		},
		{
			"refresh fails, insisted", copyAt(noon.Add(-time.Hour), false),
			&mirrorv1.GetStorageDocumentRequest{MaxAge: durationpb.New(age), RequireFresh: true}, paused,
			[]mirror.Resource{storage},
			"", fault.ReasonProjectPaused,
		},
		{
			"refresh takes too long, insisted", copyAt(noon.Add(-time.Hour), false),
			&mirrorv1.GetStorageDocumentRequest{MaxAge: durationpb.New(age), RequireFresh: true}, context.DeadlineExceeded,
			[]mirror.Resource{storage},
			"", fault.ReasonRefreshFailed,
		},
		{
			"refresh fails oddly, insisted", copyAt(noon.Add(-time.Hour), false),
			&mirrorv1.GetStorageDocumentRequest{MaxAge: durationpb.New(age), RequireFresh: true}, store.ErrNotFound,
			[]mirror.Resource{storage},
			"", fault.ReasonRefreshFailed,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := start(t)
			h.query.documents = c.have
			h.worker.refresh = func(context.Context) error {
				if c.refresh == nil {
					h.query.change(func() {
						h.query.documents = []mirror.Document{storageOf("r", `{"v":2}`, mirror.Freshness{FetchTime: noon})}
					})
				}
				return c.refresh
			}
			c.req.RoomId = "r"
			resp, err := h.mirror.GetStorageDocument(t.Context(), c.req)
			switch c.reason {
			case "":
				wantStatus(t, err, codes.OK, "")
			case fault.ReasonDocumentNotMirrored:
				wantStatus(t, err, codes.NotFound, c.reason)
			default:
				wantStatus(t, err, codes.Unavailable, c.reason)
			}
			if got := string(resp.GetDocument().GetContent()); got != c.want {
				t.Errorf("content = %s; want %s", got, c.want)
			}
			why := ""
			if c.refresh != nil && c.reason == "" {
				why = string(fault.Of(c.refresh).Reason) + ": " + fault.Of(c.refresh).Public
			}
			if got := resp.GetDocument().GetFreshness().GetRefreshError(); got != why {
				t.Errorf("refresh_error = %q; want %q", got, why)
			}
			var refreshed []mirror.Resource
			if len(h.worker.refreshed) > 0 {
				refreshed = h.worker.refreshed[0]
			}
			if len(h.worker.refreshed) > 1 || !slices.Equal(refreshed, c.refreshed) {
				t.Errorf("refreshed %v; want %v once", h.worker.refreshed, c.refreshed)
			}
			if why == "" {
				return
			}
			_, header, err := readDocument(t.Context(), h, &mirrorv1.ReadDocumentRequest{
				RoomId: "r", Kind: mirrorv1.DocumentKind_DOCUMENT_KIND_STORAGE, MaxAge: c.req.GetMaxAge(),
			})
			if got := header.Get("mirror-refresh-error"); err != nil || !slices.Equal(got, []string{why}) {
				t.Errorf("ReadDocument = %v, mirror-refresh-error %q; want %q", err, got, why)
			}
		})
	}
}

// soonOver is a context that always has 40 ms left.
type soonOver struct {
	context.Context //nolint:containedctx // it is a context
}

func (soonOver) Deadline() (time.Time, bool) { return time.Now().Add(40 * time.Millisecond), true }

func TestRefreshKeepsTimeToAnswer(t *testing.T) {
	t.Parallel()
	h := start(t)
	h.worker.refresh = func(context.Context) error { return nil }
	ask := func(timeout, want time.Duration) {
		t.Helper()
		ctx, begun, n := t.Context(), time.Now(), len(h.worker.deadlines)
		if timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, timeout)
			defer cancel()
		}
		_, err := h.mirror.GetRoom(ctx, &mirrorv1.GetRoomRequest{RoomId: "r", MaxAge: durationpb.New(0)})
		wantStatus(t, err, codes.NotFound, fault.ReasonRoomNotMirrored)
		// A deadline travels as what is left of it, in whole milliseconds or less.
		early, late := begun.Add(want-time.Millisecond), time.Now().Add(want+time.Millisecond)
		if got := h.worker.deadlines[n]; got.Before(early) || got.After(late) {
			t.Errorf("with %v a refresh may take %v; want %v", timeout, got.Sub(begun), want)
		}
	}
	ask(0, 10*time.Second)
	ask(20*time.Second, 19*time.Second)
	ask(9*time.Second, 8100*time.Millisecond)
	ask(time.Minute, 59*time.Second)
	if got := h.worker.refreshed[0]; len(got) != 1 || got[0].Kind != mirror.KindRoom {
		t.Errorf("refreshed %v; want the room once", got)
	}
	// Too little is left to begin.
	ctx := soonOver{access.Into(t.Context(), access.Everything("test"))}
	_, err := h.services.mirror.GetRoom(ctx, &mirrorv1.GetRoomRequest{RoomId: "r", MaxAge: durationpb.New(0)})
	if !fault.Is(err, fault.ReasonRoomNotMirrored) || len(h.worker.refreshed) != 4 {
		t.Errorf("GetRoom with 40 ms left = %v after %d refreshes; want none", err, len(h.worker.refreshed))
	}
}

// A caller who left while the copy was refreshed is not told about refreshes.
func TestCallerLeavesDuringRefresh(t *testing.T) {
	t.Parallel()
	h := start(t)
	ctx, cancel := context.WithCancel(access.Into(t.Context(), access.Everything("test")))
	h.worker.refresh = func(ctx context.Context) error {
		cancel()
		<-ctx.Done()
		return fault.New(fault.Unavailable, fault.ReasonRefreshFailed, "told")
	}
	// Called directly: over the wire the client would not wait for the answer.
	_, err := h.services.mirror.GetRoom(ctx, &mirrorv1.GetRoomRequest{RoomId: "r", MaxAge: durationpb.New(0)})
	if !errors.Is(err, context.Canceled) || status.Code(toStatus(ctx, err)) != codes.Canceled {
		t.Errorf("GetRoom = %v; want the call to be cancelled", err)
	}
}

func storageOf(room mirror.RoomID, json string, f mirror.Freshness) mirror.Document {
	content := []byte(`{"liveblocksType":"LiveObject","data":` + json + `}`)
	return mirror.Document{
		Project: project, Room: room, Kind: mirror.KindStorage, Content: content, SHA256: sha256.Sum256(content),
		Size: int64(len(content)), DataProblem: "deep", Freshness: f,
	}
}

// jsonOf returns a JSON object of exactly n bytes.
func jsonOf(n int) string { return `{"a":"` + strings.Repeat("x", n-len(`{"a":""}`)) + `"}` }

// documentOf returns the plain JSON of a document of about n bytes.
func documentOf(n int) string {
	var b strings.Builder
	b.WriteString(`{"items":[`)
	for i := 0; b.Len() < n-60; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"id":%d,"text":"some text in an item","x":%d.5}`, i, i)
	}
	b.WriteString(`]}`)
	return b.String()
}

func TestGetStorageDocument(t *testing.T) {
	t.Parallel()
	h := start(t)
	doc := storageOf("r", `{"n":9007199254740993,"s":"\u0000\ud800"}`,
		mirror.Freshness{FetchTime: noon, SourceUpdateTime: noon, Revision: 3})
	h.query.documents = []mirror.Document{doc}
	describe := func() *mirrorv1.Document {
		return &mirrorv1.Document{
			ProjectId: "default", RoomId: "r", Kind: mirrorv1.DocumentKind_DOCUMENT_KIND_STORAGE,
			SourceSize: int64(len(doc.Content)), DataProblem: "deep",
			Freshness: &mirrorv1.Freshness{
				FetchTime: timestamppb.New(noon), SourceUpdateTime: timestamppb.New(noon), Revision: 3,
				ContentSha256: hex.EncodeToString(doc.SHA256[:]),
			},
		}
	}
	asJSON, asLSON := describe(), describe()
	asJSON.Content, asJSON.ContentType, asJSON.Format = []byte(`{"n":9007199254740993,"s":"\u0000\ud800"}`),
		"application/json", mirrorv1.DocumentFormat_DOCUMENT_FORMAT_JSON
	asLSON.Content, asLSON.ContentType, asLSON.Format = doc.Content, "application/json",
		mirrorv1.DocumentFormat_DOCUMENT_FORMAT_PLAIN_LSON
	for _, c := range []struct {
		req  *mirrorv1.GetStorageDocumentRequest
		want *mirrorv1.Document
	}{
		{&mirrorv1.GetStorageDocumentRequest{}, asJSON},
		{&mirrorv1.GetStorageDocumentRequest{
			Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_JSON,
			View:   mirrorv1.DocumentView_DOCUMENT_VIEW_FULL,
		}, asJSON},
		{&mirrorv1.GetStorageDocumentRequest{Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_PLAIN_LSON}, asLSON},
		{&mirrorv1.GetStorageDocumentRequest{View: mirrorv1.DocumentView_DOCUMENT_VIEW_BASIC}, describe()},
	} {
		c.req.RoomId = "r"
		resp, err := h.mirror.GetStorageDocument(t.Context(), c.req)
		if diff := gocmp.Diff(c.want, resp.GetDocument(), protocmp.Transform()); err != nil || diff != "" {
			t.Errorf("GetStorageDocument(%v) = %v; -want +got:\n%s", c.req, err, diff)
		}
	}
	list, err := h.mirror.ListDocuments(t.Context(),
		&mirrorv1.ListDocumentsRequest{Kind: mirrorv1.DocumentKind_DOCUMENT_KIND_STORAGE})
	if diff := gocmp.Diff([]*mirrorv1.Document{describe()}, list.GetDocuments(), protocmp.Transform()); err != nil ||
		diff != "" {
		t.Errorf("ListDocuments = %v; -want +got:\n%s", err, diff)
	}

	// What was derived for the reads before is of no use for another source.
	next := storageOf("r", `{"n":2}`, doc.Freshness)
	h.query.change(func() { h.query.documents = []mirror.Document{next} })
	resp, err := h.mirror.GetStorageDocument(t.Context(), &mirrorv1.GetStorageDocumentRequest{RoomId: "r"})
	if got := string(resp.GetDocument().GetContent()); err != nil || got != `{"n":2}` {
		t.Errorf("GetStorageDocument after a change = %s, %v; want the new content", got, err)
	}

	doc.Content = []byte(`{"secret`)
	doc.SHA256 = sha256.Sum256(doc.Content)
	h.query.change(func() { h.query.documents = []mirror.Document{doc} })
	_, err = h.mirror.GetStorageDocument(t.Context(), &mirrorv1.GetStorageDocumentRequest{RoomId: "r"})
	wantStatus(t, err, codes.FailedPrecondition, fault.ReasonDocumentUnreadable)
	if strings.Contains(h.log.String()+err.Error(), "secret") {
		t.Errorf("the log quotes the document")
	}
}

func TestDocumentsAtTheMessageLimit(t *testing.T) {
	t.Parallel()
	h := start(t)
	fits, over := jsonOf(DefaultMaxMessage-envelope), jsonOf(DefaultMaxMessage-envelope+1)
	long := mirror.RoomID(strings.Repeat("x", 512))
	h.query.documents = []mirror.Document{
		storageOf(long, fits, mirror.Freshness{}),
		storageOf("over", over, mirror.Freshness{}),
	}
	resp, err := h.mirror.GetStorageDocument(t.Context(), &mirrorv1.GetStorageDocumentRequest{RoomId: string(long)})
	if err != nil || string(resp.GetDocument().GetContent()) != fits {
		t.Errorf("a document at the limit = %v", err)
	}
	_, err = h.mirror.GetStorageDocument(t.Context(), &mirrorv1.GetStorageDocumentRequest{RoomId: "over"})
	wantStatus(t, err, codes.FailedPrecondition, fault.ReasonDocumentTooLarge)
	info := detail[*errdetails.ErrorInfo](err).GetMetadata()
	if info["size"] != strconv.Itoa(len(over)) || info["limit"] != strconv.Itoa(len(fits)) {
		t.Errorf("metadata = %v; want the size and the limit, one less", info)
	}
	if _, err = h.mirror.GetStorageDocument(t.Context(),
		&mirrorv1.GetStorageDocumentRequest{RoomId: "over", View: mirrorv1.DocumentView_DOCUMENT_VIEW_BASIC}); err != nil {
		t.Errorf("the basic view of a large document = %v", err)
	}
	content, _, err := readDocument(t.Context(), h, &mirrorv1.ReadDocumentRequest{RoomId: "over"})
	if err != nil || string(content) != over {
		t.Errorf("the stream of a large document = %v", err)
	}
}

// readDocument reads a whole stream and its header.
func readDocument(ctx context.Context, h *harness, req *mirrorv1.ReadDocumentRequest) (content []byte,
	header metadata.MD, err error,
) {
	stream, err := h.mirror.ReadDocument(ctx, req)
	if err != nil {
		return nil, nil, err
	}
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			header, err = stream.Header()
			return content, header, err
		}
		if err != nil {
			return nil, nil, err
		}
		if chunk.GetContentType() != "application/json" || len(chunk.GetData()) > chunkSize {
			return nil, nil, fmt.Errorf("chunk of %d bytes of type %q", len(chunk.GetData()), chunk.GetContentType())
		}
		content = append(content, chunk.GetData()...)
	}
}

func TestReadDocument(t *testing.T) {
	t.Parallel()
	h := start(t)
	json := documentOf(chunkSize*4 + 100)
	doc := storageOf("r", json, mirror.Freshness{FetchTime: noon.Add(time.Microsecond), Revision: 42})
	exact := storageOf("exact", jsonOf(chunkSize), mirror.Freshness{})
	tiny := storageOf("tiny", `{}`, mirror.Freshness{})
	h.query.documents = []mirror.Document{doc, exact, tiny, storageOf("stale", `{}`, mirror.Freshness{Stale: true})}
	source := hex.EncodeToString(doc.SHA256[:16])

	for _, c := range []struct {
		format mirrorv1.DocumentFormat
		want   string
		tag    string
	}{
		{mirrorv1.DocumentFormat_DOCUMENT_FORMAT_UNSPECIFIED, json, `"` + source + `-json-1"`},
		{mirrorv1.DocumentFormat_DOCUMENT_FORMAT_JSON, json, `"` + source + `-json-1"`},
		{mirrorv1.DocumentFormat_DOCUMENT_FORMAT_PLAIN_LSON, string(doc.Content), `"` + source + `-lson"`},
	} {
		req := &mirrorv1.ReadDocumentRequest{RoomId: "r", Format: c.format, Kind: mirrorv1.DocumentKind_DOCUMENT_KIND_STORAGE}
		content, header, err := readDocument(t.Context(), h, req)
		if err != nil || string(content) != c.want {
			t.Fatalf("ReadDocument(%v) = %d bytes, %v; want %d", c.format, len(content), err, len(c.want))
		}
		for key, want := range map[string]string{
			"mirror-content-length": strconv.Itoa(len(c.want)),
			"mirror-etag":           c.tag,
			"mirror-revision":       "42",
			"mirror-fetch-time":     "2026-11-22T12:00:00.000001Z",
		} {
			if got := header.Get(key); !slices.Equal(got, []string{want}) {
				t.Errorf("%s = %v; want %s", key, got, want)
			}
		}
		if got := header.Get("mirror-not-modified"); got != nil {
			t.Errorf("mirror-not-modified = %v; want none", got)
		}

		ctx := withMetadata(t.Context(), "if-none-match", `"other", `+c.tag)
		content, header, err = readDocument(ctx, h, req)
		if err != nil || content != nil || !slices.Equal(header.Get("mirror-not-modified"), []string{"1"}) ||
			!slices.Equal(header.Get("mirror-etag"), []string{c.tag}) {
			t.Errorf("ReadDocument of what the caller has = %d bytes, %v, %v; want not-modified", len(content), header, err)
		}
		if content, _, err = readDocument(withMetadata(t.Context(), "if-none-match", `"other"`), h, req); err != nil ||
			string(content) != c.want {
			t.Errorf("ReadDocument of another version = %d bytes, %v", len(content), err)
		}
	}
	for room, want := range map[string][]string{"tiny": nil, "stale": {"1"}} {
		if _, header, err := readDocument(t.Context(), h, &mirrorv1.ReadDocumentRequest{RoomId: room}); err != nil ||
			!slices.Equal(header.Get("mirror-stale"), want) {
			t.Errorf("mirror-stale of %s = %v, %v; want %v", room, header.Get("mirror-stale"), err, want)
		}
	}
	for room, want := range map[string]string{"exact": jsonOf(chunkSize), "tiny": "{}"} {
		content, _, err := readDocument(t.Context(), h, &mirrorv1.ReadDocumentRequest{RoomId: room})
		if err != nil || string(content) != want {
			t.Errorf("ReadDocument(%s) = %d bytes, %v; want %d", room, len(content), err, len(want))
		}
	}
}

func TestGetStatus(t *testing.T) {
	t.Parallel()
	h := start(t)
	h.query.projects = []mirror.Project{{
		ID: project, LiveblocksID: "lb", PauseReason: "key refused", PauseTime: noon,
		Foreign: mirror.ForeignEvents{LiveblocksID: "theirs", Count: 8, Time: noon.Add(-23 * time.Hour)},
	}, {ID: "removed"}}
	h.query.tasks = []mirror.Task{{
		Resource: mirror.Resource{Project: project, Kind: mirror.KindGroup}, State: mirror.TaskFailed,
		LastError: "UPSTREAM_ANSWER_INVALID: the list of groups lacks 21",
	}}
	h.query.counts = store.Counts{Pending: 3, Background: 2, Failed: 4, OldestDue: noon}
	h.query.lastEvents = mirror.LastEvents{Time: noon, ByType: map[string]time.Time{
		"ydocUpdated": noon.Add(-time.Hour), "threadCreated": noon.Add(-time.Minute), "unheardOf": noon,
	}}
	h.query.unannounced = []mirror.Unannounced{
		{Kind: mirror.KindThread, Count: 9, FirstTime: noon.Add(-time.Hour), LastTime: noon},
	}
	h.sweeper.backfill = mirror.Backfill{Sweep: mirror.Sweep{
		Project: project, ID: "sw_1",
		Problem: "21 of 30 rooms vanished",
	}}
	resp, err := h.admin.GetStatus(t.Context(), &mirrorv1.GetStatusRequest{})
	want := &mirrorv1.GetStatusResponse{
		Version: "v1.2.3", StartTime: timestamppb.New(noon.Add(-time.Hour)), Ready: true, Store: "FakeSQL 1.0",
		DocumentMemoryUsedBytes: 5 << 20, DocumentMemoryBytes: 1 << 30,
		Projects: []*mirrorv1.ProjectStatus{{
			ProjectId: "default", LiveblocksProjectId: "lb", PauseReason: "key refused", PauseTime: timestamppb.New(noon),
			PendingTasks: 3, FailedTasks: 4,
			OldestDueTime: timestamppb.New(noon), CallsPerSecondLimit: 8.5,
			ThrottledUntilTime: timestamppb.New(noon.Add(time.Minute)),
			BackgroundTasks:    2,
			LastSweep: &mirrorv1.Sweep{
				ProjectId: "default", SweepId: "sw_1", State: mirrorv1.SweepState_SWEEP_STATE_LISTING,
				Problem: "21 of 30 rooms vanished",
			},
			Problems: []string{
				`events of the Liveblocks project "theirs" are set aside, because the secret key is that of "lb"; if that ` +
					`is wrong, pin the right one`,
				"21 of 30 rooms vanished", "UPSTREAM_ANSWER_INVALID: the list of groups lacks 21",
			},
			ForeignEvents: &mirrorv1.ForeignEvents{
				LiveblocksProjectId: "theirs", EventCount: 8, LastReceiveTime: timestamppb.New(noon.Add(-23 * time.Hour)),
			},
			LastEventTime: timestamppb.New(noon),
			EventTypes: []*mirrorv1.EventTypeStatus{
				{EventType: "threadCreated", LastReceiveTime: timestamppb.New(noon.Add(-time.Minute))},
				{EventType: "ydocUpdated", LastReceiveTime: timestamppb.New(noon.Add(-time.Hour))},
			},
			UnannouncedChanges: []*mirrorv1.UnannouncedChanges{{
				Kind: mirrorv1.ResourceKind_RESOURCE_KIND_THREAD, ChangeCount: 9,
				FirstFindTime: timestamppb.New(noon.Add(-time.Hour)), LastFindTime: timestamppb.New(noon),
			}},
			Freshness: &mirrorv1.FreshnessPercentiles{
				ChangeCount: 7, P50Duration: durationpb.New(time.Second), P95Duration: durationpb.New(2 * time.Second),
				P99Duration: durationpb.New(3 * time.Second),
			},
			Lanes:               []*mirrorv1.LaneStatus{{Lane: "live", QueuedTasks: 3, RunningTasks: 2, More: true}},
			FailedTasksByReason: []*mirrorv1.FailedTasks{{Reason: "UPSTREAM_ANSWER_INVALID", TaskCount: 1}},
			Warnings: []*mirrorv1.Warning{
				{Text: "fetching is paused: key refused", Runbook: Operations + "fetching-is-paused"},
				{
					Text:    "sweeps found changes of which no event has come: 9 of kind thread",
					Runbook: Operations + "changes-without-an-event",
				},
				{
					Text: `events of the Liveblocks project "theirs" are set aside, because the secret key is that of "lb"; if that ` +
						`is wrong, pin the right one`,
					Runbook: Operations + "events-of-another-project",
				},
				{Text: "21 of 30 rooms vanished", Runbook: Operations + "a-sweep-has-a-problem"},
				{
					Text:    "UPSTREAM_ANSWER_INVALID: the list of groups lacks 21",
					Runbook: Operations + "a-sweep-has-a-problem",
				},
				{Text: "4 tasks have failed: 1 UPSTREAM_ANSWER_INVALID", Runbook: Operations + "a-task-has-failed"},
				{
					Text:    "old rows of mirror_event stay for 26h0m0s longer than they should",
					Runbook: Operations + "old-rows-stay",
				},
				{
					Text:    "old rows of mirror_change could not be deleted: the database refused it",
					Runbook: Operations + "old-rows-stay",
				},
			},
			Retention: []*mirrorv1.RetentionStatus{
				{
					Table: "mirror_event", KeepDuration: durationpb.New(72 * time.Hour), RunTime: timestamppb.New(noon),
					OldestTime: timestamppb.New(noon.Add(-98 * time.Hour)), DeletedRows: 11,
					BehindDuration: durationpb.New(26 * time.Hour),
				},
				{Table: "mirror_user_session"},
			},
		}},
		ChangeRetention: &mirrorv1.RetentionStatus{Table: "mirror_change", Problem: "the database refused it"},
		Deliveries: &mirrorv1.DeliveryCounts{
			Accepted: 1, Duplicate: 2, Unauthenticated: 3, Unavailable: 4, UnknownType: 5,
			Malformed: 6, ForeignProject: 7,
		},
		RemovedProjectIds: []string{"removed"},
	}
	if diff := gocmp.Diff(want, resp, protocmp.Transform()); err != nil || diff != "" {
		t.Errorf("GetStatus = %v; -want +got:\n%s", err, diff)
	}
	broken := start(t, func(d *Config) { d.Admin.Status = fakeStatus{err: store.ErrSchemaBehind} })
	_, err = broken.admin.GetStatus(t.Context(), &mirrorv1.GetStatusRequest{})
	wantStatus(t, err, codes.Unavailable, fault.ReasonSchemaBehind)
}

func TestProblems(t *testing.T) {
	t.Parallel()
	foreign := func(id string, count int64, age time.Duration) mirror.Project {
		return mirror.Project{
			LiveblocksID: "lb", Foreign: mirror.ForeignEvents{LiveblocksID: id, Count: count, Time: noon.Add(-age)},
		}
	}
	for name, c := range map[string]struct {
		project mirror.Project
		want    int
	}{
		"none":                      {mirror.Project{}, 0},
		"another project's event":   {foreign("theirs", 1, time.Hour), 1},
		"one of the day before":     {foreign("theirs", 1, foreignShown), 0},
		"one that is ours meantime": {foreign("lb", 1, time.Hour), 0},
	} {
		if got := problems(c.project, noon); len(got) != c.want {
			t.Errorf("%s: problems = %q; want %d", name, got, c.want)
		}
	}
}

func TestPinProject(t *testing.T) {
	t.Parallel()
	h := start(t)
	h.pinner.takenUp = 12
	got, err := h.admin.PinProject(t.Context(), &mirrorv1.PinProjectRequest{LiveblocksProjectId: "lb"})
	if err != nil || got.GetEventsTakenUp() != 12 || h.pinner.pinned != "default lb" {
		t.Errorf("PinProject = %v, %v, pinned %q; want it passed on", got, err, h.pinner.pinned)
	}
	for bad, reason := range map[string]fault.Reason{
		"": fault.ReasonRequestInvalid, strings.Repeat("x", 65): fault.ReasonRequestInvalid, "a\x00b": fault.ReasonIDInvalid,
	} {
		_, err := h.admin.PinProject(t.Context(), &mirrorv1.PinProjectRequest{LiveblocksProjectId: bad})
		wantStatus(t, err, codes.InvalidArgument, reason)
	}
	if _, err := h.admin.ConfirmSecretKey(t.Context(), &mirrorv1.ConfirmSecretKeyRequest{}); err != nil ||
		h.pinner.confirmed != project {
		t.Errorf("ConfirmSecretKey = %v, of %q; want it passed on", err, h.pinner.confirmed)
	}
	h.pinner.err = store.ErrSchemaBehind
	_, err = h.admin.ConfirmSecretKey(t.Context(), &mirrorv1.ConfirmSecretKeyRequest{})
	wantStatus(t, err, codes.Unavailable, fault.ReasonSchemaBehind)
	_, err = h.admin.PinProject(t.Context(), &mirrorv1.PinProjectRequest{LiveblocksProjectId: "lb"})
	wantStatus(t, err, codes.Unavailable, fault.ReasonSchemaBehind)
}

func TestUnpinPauseAndResume(t *testing.T) {
	t.Parallel()
	h := start(t)
	got, err := h.admin.UnpinProject(t.Context(), &mirrorv1.UnpinProjectRequest{})
	if err != nil || got.GetLiveblocksProjectId() != "lb" || h.pinner.unpinned != project {
		t.Errorf("UnpinProject = %v, %v, unpinned %q; want it passed on", got, err, h.pinner.unpinned)
	}
	_, err = h.admin.PauseProject(t.Context(), &mirrorv1.PauseProjectRequest{Reason: "move the database"})
	if err != nil || h.pinner.stopped != "default move the database" {
		t.Errorf("PauseProject = %v, stopped %q; want it passed on", err, h.pinner.stopped)
	}
	_, err = h.admin.PauseProject(t.Context(), &mirrorv1.PauseProjectRequest{})
	wantStatus(t, err, codes.InvalidArgument, fault.ReasonRequestInvalid)
	if _, err = h.admin.ResumeProject(t.Context(), &mirrorv1.ResumeProjectRequest{}); err != nil ||
		h.pinner.stopped != "default " {
		t.Errorf("ResumeProject = %v, stopped %q; want it passed on", err, h.pinner.stopped)
	}
	// What the operator has ordered is shown, whatever this replica has heard of it.
	h.query.projects = []mirror.Project{{
		ID: project, PauseReason: "key refused", PauseTime: noon, StopReason: "move", StopTime: noon.Add(time.Second),
	}}
	status, err := h.admin.GetStatus(t.Context(), &mirrorv1.GetStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	p := status.GetProjects()[0]
	if !strings.HasPrefix(p.GetPauseReason(), "by an operator: move; ") ||
		!p.GetPauseTime().AsTime().Equal(noon.Add(time.Second)) {
		t.Errorf("status = %v; want the pause of the operator", p)
	}
}

func TestReplayEvents(t *testing.T) {
	t.Parallel()
	h := start(t)
	for i := range 3 {
		h.query.events = append(h.query.events, mirror.Event{
			Project: project, ID: fmt.Sprint("msg_", i), Room: "r", ReceiveTime: noon.Add(time.Duration(i) * time.Second),
		})
	}
	replay := func(req *mirrorv1.ReplayEventsRequest) (all []*mirrorv1.ReplayEventsResponse, err error) {
		stream, err := h.admin.ReplayEvents(t.Context(), req)
		for err == nil {
			var got *mirrorv1.ReplayEventsResponse
			if got, err = stream.Recv(); err == nil {
				all = append(all, got)
			}
		}
		return all, err
	}
	req := &mirrorv1.ReplayEventsRequest{RoomId: "r", MaxEvents: 2, DryRun: true}
	got, err := replay(req)
	if !errors.Is(err, io.EOF) || len(got) != 2 || got[0].GetDone() || !got[1].GetDone() ||
		got[1].GetEventsRead() != 2 || got[1].GetEventsReplayed() != 2 || got[1].GetEventsSkipped() != 1 ||
		got[0].GetNextPageToken() == "" || got[1].GetNextPageToken() != got[0].GetNextPageToken() {
		t.Fatalf("ReplayEvents = %v, %v; want the progress and the end, with a token", got, err)
	}
	if r := h.pinner.replay; !r.DryRun || r.Filter.Room != "r" || r.Filter.Limit != 2 || !r.Filter.AfterTime.IsZero() {
		t.Errorf("replay = %+v; want what was asked for", r)
	}
	req.PageToken, req.MaxEvents, req.DryRun = got[1].GetNextPageToken(), 0, false
	got, err = replay(req)
	if !errors.Is(err, io.EOF) || got[1].GetEventsRead() != 1 || got[1].GetNextPageToken() != "" {
		t.Errorf("the next ReplayEvents = %v, %v; want what is left", got, err)
	}
	if r := h.pinner.replay; r.DryRun || r.Filter.Limit != 100_000 || r.Filter.AfterID != "msg_1" {
		t.Errorf("replay = %+v; want it after the token", r)
	}
	for _, bad := range []*mirrorv1.ReplayEventsRequest{
		{RoomId: "other", PageToken: req.GetPageToken()},
		{EventIds: []string{"msg_1"}, RoomId: "r"},
		{EventIds: []string{"msg_1"}, PageToken: req.GetPageToken()},
		{EventIds: []string{""}},
		{EventIds: []string{"msg_1", "msg_1"}},
		{MaxEvents: 100_001},
		{PageToken: "x"},
	} {
		if got, err := replay(bad); status.Code(err) != codes.InvalidArgument || got != nil {
			t.Errorf("ReplayEvents(%v) = %v, %v; want INVALID_ARGUMENT", bad, got, err)
		}
	}
	h.pinner.err = fault.New(fault.NotFound, fault.ReasonEventNotFound, "no such event")
	_, err = replay(&mirrorv1.ReplayEventsRequest{EventIds: []string{"msg_9"}})
	wantStatus(t, err, codes.NotFound, fault.ReasonEventNotFound)
}

func TestDiscardTask(t *testing.T) {
	t.Parallel()
	h := start(t)
	storage := mirror.Resource{Project: project, Room: "r", Kind: mirror.KindStorage}
	h.query.tasks = []mirror.Task{{Resource: storage, State: mirror.TaskFailed}}
	got, err := h.admin.DiscardTask(t.Context(), &mirrorv1.DiscardTaskRequest{TaskId: formatTaskID(storage)})
	if err != nil || got.GetTask().GetState() != mirrorv1.TaskState_TASK_STATE_WAITING {
		t.Errorf("DiscardTask = %v, %v; want it waiting", got, err)
	}
	_, err = h.admin.DiscardTask(t.Context(), &mirrorv1.DiscardTaskRequest{TaskId: "x"})
	wantStatus(t, err, codes.InvalidArgument, fault.ReasonIDInvalid)
	sweep := formatTaskID(mirror.Resource{Kind: mirror.KindSweep})
	_, err = h.admin.DiscardTask(t.Context(), &mirrorv1.DiscardTaskRequest{TaskId: sweep})
	wantStatus(t, err, codes.FailedPrecondition, fault.ReasonTaskNotDiscardable)
	storage.Room = "unknown"
	_, err = h.admin.DiscardTask(t.Context(), &mirrorv1.DiscardTaskRequest{TaskId: formatTaskID(storage)})
	wantStatus(t, err, codes.NotFound, fault.ReasonTaskNotFound)
	h.worker.retryErr = store.ErrNotDue
	_, err = h.admin.DiscardTask(t.Context(), &mirrorv1.DiscardTaskRequest{TaskId: formatTaskID(storage)})
	wantStatus(t, err, codes.FailedPrecondition, fault.ReasonTaskNotDiscardable)
}

func TestTasksAreShownAndRetried(t *testing.T) {
	t.Parallel()
	h := start(t)
	at := func(n int) time.Time { return noon.Add(time.Duration(n) * time.Second) }
	storage := mirror.Resource{Project: project, Room: "r", Kind: mirror.KindStorage}
	h.query.tasks = []mirror.Task{{
		Resource: storage, State: mirror.TaskFailed, Generation: 5, Applied: 4, DueTime: at(1), NotBefore: at(2),
		LeaseUntil: at(3),
		Attempts:   6, LastError: "refused", FailTime: at(4), FetchTime: at(5), MissingSince: at(6),
	}}
	id := formatTaskID(storage)
	want := &mirrorv1.Task{
		TaskId: id, ProjectId: "default", Kind: mirrorv1.ResourceKind_RESOURCE_KIND_STORAGE, RoomId: "r",
		State:      mirrorv1.TaskState_TASK_STATE_FAILED,
		Generation: 5, AppliedGeneration: 4, DueTime: timestamppb.New(at(1)), NotBeforeTime: timestamppb.New(at(2)),
		LeaseUntilTime: timestamppb.New(at(3)),
		Attempts:       6, LastError: "refused", FailTime: timestamppb.New(at(4)), FetchTime: timestamppb.New(at(5)),
		MissingSinceTime: timestamppb.New(at(6)),
	}
	got, err := h.admin.GetTask(t.Context(), &mirrorv1.GetTaskRequest{TaskId: id})
	if diff := gocmp.Diff(want, got.GetTask(), protocmp.Transform()); err != nil || diff != "" {
		t.Errorf("GetTask = %v; -want +got:\n%s", err, diff)
	}
	retried, err := h.admin.RetryTask(t.Context(), &mirrorv1.RetryTaskRequest{TaskId: id})
	if err != nil || retried.GetTask().GetState() != mirrorv1.TaskState_TASK_STATE_PENDING ||
		retried.GetTask().GetAttempts() != 0 {
		t.Errorf("RetryTask = %v, %v; want it pending", retried.GetTask(), err)
	}
	for state, want := range map[mirrorv1.TaskState]int{
		mirrorv1.TaskState_TASK_STATE_UNSPECIFIED: 1, mirrorv1.TaskState_TASK_STATE_FAILED: 1,
		mirrorv1.TaskState_TASK_STATE_DONE: 0,
	} {
		list, err := h.admin.ListTasks(t.Context(), &mirrorv1.ListTasksRequest{State: state, RoomId: "r"})
		if err != nil || len(list.GetTasks()) != want {
			t.Errorf("ListTasks(%v) = %v, %v; want %d", state, list.GetTasks(), err, want)
		}
	}
	for _, bad := range []string{"x", id + "=", id + "\n", "AQ"} {
		_, err := h.admin.GetTask(t.Context(), &mirrorv1.GetTaskRequest{TaskId: bad})
		wantStatus(t, err, codes.InvalidArgument, fault.ReasonIDInvalid)
		_, err = h.admin.RetryTask(t.Context(), &mirrorv1.RetryTaskRequest{TaskId: bad})
		wantStatus(t, err, codes.InvalidArgument, fault.ReasonIDInvalid)
	}
}

func TestRequestSync(t *testing.T) {
	t.Parallel()
	h := start(t)
	for _, c := range []struct {
		kind mirrorv1.ResourceKind
		id   string
		want []mirror.Resource // without project and room; none for a refusal
	}{
		{kind: mirrorv1.ResourceKind_RESOURCE_KIND_UNSPECIFIED, want: []mirror.Resource{
			{Kind: mirror.KindRoom},
			{Kind: mirror.KindStorage},
			{Kind: mirror.KindYdoc},
			{Kind: mirror.KindThread},
			{Kind: mirror.KindActiveUsers},
		}},
		{kind: mirrorv1.ResourceKind_RESOURCE_KIND_ROOM, want: []mirror.Resource{{Kind: mirror.KindRoom}}},
		{kind: mirrorv1.ResourceKind_RESOURCE_KIND_STORAGE, want: []mirror.Resource{{Kind: mirror.KindStorage}}},
		{
			kind: mirrorv1.ResourceKind_RESOURCE_KIND_YDOC, id: "guid",
			want: []mirror.Resource{{Kind: mirror.KindYdoc, ID: "guid"}},
		},
		{kind: mirrorv1.ResourceKind_RESOURCE_KIND_THREAD, want: []mirror.Resource{{Kind: mirror.KindThread}}},
		{
			kind: mirrorv1.ResourceKind_RESOURCE_KIND_THREAD, id: "th_1",
			want: []mirror.Resource{{Kind: mirror.KindThread, ID: "th_1"}},
		},
		{kind: mirrorv1.ResourceKind_RESOURCE_KIND_ACTIVE_USERS, want: []mirror.Resource{{Kind: mirror.KindActiveUsers}}},
		{
			kind: mirrorv1.ResourceKind_RESOURCE_KIND_NOTIFICATION, id: "in_1",
			want: []mirror.Resource{{Kind: mirror.KindNotification, ID: "in_1"}},
		},
		{kind: mirrorv1.ResourceKind_RESOURCE_KIND_UNSPECIFIED, id: "th_1"},
		{kind: mirrorv1.ResourceKind_RESOURCE_KIND_ROOM, id: "x"},
		{kind: mirrorv1.ResourceKind_RESOURCE_KIND_ACTIVE_USERS, id: "x"},
		{kind: mirrorv1.ResourceKind_RESOURCE_KIND_NOTIFICATION},
		{kind: mirrorv1.ResourceKind_RESOURCE_KIND_SWEEP},
	} {
		h.worker.requested = nil
		room := fmt.Sprintf("room for %v %s", c.kind, c.id)
		resp, err := h.admin.RequestSync(t.Context(),
			&mirrorv1.RequestSyncRequest{RoomId: room, Kind: c.kind, ResourceId: c.id})
		if c.want == nil {
			wantStatus(t, err, codes.InvalidArgument, fault.ReasonRequestInvalid)
			if fields := badFields(err); !slices.Equal(fields, []string{"resource_id"}) || h.worker.requested != nil {
				t.Errorf("RequestSync(%v, %q) names %v and raised %v", c.kind, c.id, fields, h.worker.requested)
			}
			continue
		}
		if err != nil || len(resp.GetTasks()) != len(c.want) {
			t.Fatalf("RequestSync(%v, %q) = %v, %v; want %d tasks", c.kind, c.id, resp.GetTasks(), err, len(c.want))
		}
		for i, r := range c.want {
			r.Project, r.Room = project, mirror.RoomID(room)
			if h.worker.requested[i] != r || resp.GetTasks()[i].GetTaskId() != formatTaskID(r) ||
				resp.GetTasks()[i].GetKind() != kinds[r.Kind] {
				t.Errorf("RequestSync(%v, %q) raised %v and shows %v; want %v", c.kind, c.id, h.worker.requested[i],
					resp.GetTasks()[i], r)
			}
		}
	}
}

// fill sets every field of a message, so that none can be forgotten.
func fill(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		switch {
		case field.IsList() || field.IsMap():
		case field.Kind() == protoreflect.MessageKind:
			fill(m.Mutable(field).Message())
		case field.Kind() == protoreflect.EnumKind:
			m.Set(field, protoreflect.ValueOfEnum(1))
		case field.Kind() == protoreflect.StringKind:
			m.Set(field, protoreflect.ValueOfString(string(field.Name())))
		case field.Kind() == protoreflect.BytesKind:
			m.Set(field, protoreflect.ValueOfBytes(bytes.Repeat([]byte{1, 2, 3}, 100_000)))
		case field.Kind() == protoreflect.BoolKind:
			m.Set(field, protoreflect.ValueOfBool(true))
		case field.Kind() == protoreflect.Int32Kind:
			m.Set(field, protoreflect.ValueOfInt32(int32(field.Number())))
		default:
			m.Set(field, protoreflect.ValueOfInt64(int64(field.Number())))
		}
	}
}

// What the codec sends is read by any protobuf library as the same message.
func TestCodecIsProtobuf(t *testing.T) {
	t.Parallel()
	c := newCodec()
	response, body := &mirrorv1.GetStorageDocumentResponse{}, &httpbody.HttpBody{}
	ydoc := &mirrorv1.GetYjsDocumentResponse{}
	fill(response.ProtoReflect())
	fill(ydoc.ProtoReflect())
	fill(body.ProtoReflect())
	small := proto.CloneOf(response)
	small.Document.Content = []byte("{}")
	unknown := proto.CloneOf(response)
	unknown.Document.ProtoReflect().SetUnknown([]byte{0xfa, 0x07, 0x01, 'x'}) // field 127
	for name, m := range map[string]proto.Message{
		"document": response, "ydoc": ydoc, "body": body, "small": small, "unknown field": unknown,
		"no document": &mirrorv1.GetStorageDocumentResponse{}, "no body": &httpbody.HttpBody{},
		"another message": &mirrorv1.GetRoomRequest{RoomId: "r"},
	} {
		before := proto.Clone(m)
		wire, err := c.Marshal(m)
		if err != nil {
			t.Fatalf("Marshal of %s: %v", name, err)
		}
		if !proto.Equal(m, before) {
			t.Errorf("Marshal changed %s", name)
		}
		got := m.ProtoReflect().New().Interface()
		if err := proto.Unmarshal(wire.Materialize(), got); err != nil {
			t.Fatalf("Unmarshal of %s: %v", name, err)
		}
		if !proto.Equal(got, m) {
			t.Errorf("%s came back as another message", name)
		}
		if (name == "document" || name == "ydoc" || name == "body") != (len(wire) == 2) {
			t.Errorf("%s is sent in %d pieces", name, len(wire))
		}
		again := m.ProtoReflect().New().Interface()
		if err := c.Unmarshal(wire, again); err != nil || !proto.Equal(again, m) {
			t.Errorf("the codec reads %s as another message: %v", name, err)
		}
	}
	bad := proto.CloneOf(response)
	bad.Document.RoomId = "\xff"
	if _, err := c.Marshal(bad); err == nil {
		t.Errorf("Marshal of a string that is not UTF-8 = nil; want an error")
	}
}

func BenchmarkGetStorageDocument(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10, 1 << 20} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			h := start(b, func(d *Config) { d.Log = discard })
			h.query.documents = []mirror.Document{storageOf("r", documentOf(size), mirror.Freshness{FetchTime: noon})}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := h.mirror.GetStorageDocument(b.Context(),
					&mirrorv1.GetStorageDocumentRequest{RoomId: "r"}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkReceiveWebhook(b *testing.B) {
	h := start(b, func(d *Config) { d.Log = discard })
	ctx := withMetadata(b.Context(), "webhook-id", "i", "webhook-timestamp", "1", "webhook-signature", "s")
	req := delivery(strings.Repeat("x", 300))
	intercept := h.services.UnaryInterceptor()
	b.Run("chain", func(b *testing.B) {
		ctx := metadata.NewIncomingContext(b.Context(), metadata.Pairs("webhook-id", "i", "webhook-timestamp", "1",
			"webhook-signature", "s"))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := intercept(ctx, req, receiveInfo,
				func(context.Context, any) (any, error) { return nil, nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("call", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := h.events.ReceiveWebhook(ctx, req); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func ydocOf(t *testing.T, room mirror.RoomID, guid, file string) mirror.Document {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "..", "decode", "yjs", "testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	return mirror.Document{
		Project: project, Room: room, Kind: mirror.KindYdoc, ID: guid, Content: content, SHA256: sha256.Sum256(content),
		Size: int64(len(content)),
	}
}

func TestYjsDocuments(t *testing.T) {
	t.Parallel()
	h := start(t)
	doc := ydocOf(t, "r", "", "ydoc-tiptap-real-binary.bin")
	inside := ydocOf(t, "r", "inside", "ydoc-subdoc-guid-binary.bin")
	broken := ydocOf(t, "broken", "", "ydoc-tiptap-real-binary-v2.bin")
	h.query.documents = []mirror.Document{doc, inside, broken}
	want := func(d mirror.Document, format mirrorv1.DocumentFormat) string {
		decoded, err := yjs.Decode(d.Content, yjs.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		var b []byte
		switch format {
		case mirrorv1.DocumentFormat_DOCUMENT_FORMAT_BINARY:
			b = d.Content
		case mirrorv1.DocumentFormat_DOCUMENT_FORMAT_TEXT:
			b = []byte(decoded.Text())
		case mirrorv1.DocumentFormat_DOCUMENT_FORMAT_EDITOR:
			b, err = decoded.Structure(nil)
		default:
			b, err = decoded.JSON(nil)
		}
		if err != nil || len(b) == 0 && d.ID == "" {
			t.Fatalf("%v of the document = %q, %v", format, b, err)
		}
		return string(b)
	}
	tags := make(map[string]bool)
	for format, mediaType := range map[mirrorv1.DocumentFormat]string{
		mirrorv1.DocumentFormat_DOCUMENT_FORMAT_UNSPECIFIED: "application/json",
		mirrorv1.DocumentFormat_DOCUMENT_FORMAT_BINARY:      "application/octet-stream",
		mirrorv1.DocumentFormat_DOCUMENT_FORMAT_TEXT:        "text/plain; charset=utf-8",
		mirrorv1.DocumentFormat_DOCUMENT_FORMAT_EDITOR:      "application/json",
	} {
		for _, d := range []mirror.Document{doc, inside} {
			for range 2 { // the second time from memory
				resp, err := h.mirror.GetYjsDocument(t.Context(),
					&mirrorv1.GetYjsDocumentRequest{RoomId: "r", Guid: d.ID, Format: format})
				got := resp.GetDocument()
				if err != nil || string(got.GetContent()) != want(d, format) || got.GetContentType() != mediaType ||
					got.GetGuid() != d.ID ||
					got.GetKind() != mirrorv1.DocumentKind_DOCUMENT_KIND_YDOC {
					t.Errorf("GetYjsDocument(%q, %v) = %+v, %v; want %q", d.ID, format, got, err, want(d, format))
				}
			}
			stream, err := h.mirror.ReadDocument(t.Context(), &mirrorv1.ReadDocumentRequest{
				RoomId: "r", Kind: mirrorv1.DocumentKind_DOCUMENT_KIND_YDOC, Guid: d.ID, Format: format,
			})
			if err != nil {
				t.Fatalf("ReadDocument = %v", err)
			}
			chunk, err := stream.Recv()
			if err != nil || string(chunk.GetData()) != want(d, format) || chunk.GetContentType() != mediaType {
				t.Errorf("ReadDocument(%q, %v) = %q of %s, %v; want %q", d.ID, format, chunk.GetData(), chunk.GetContentType(),
					err, want(d, format))
			}
			header, err := stream.Header()
			if err != nil || len(header.Get("mirror-etag")) != 1 || tags[header.Get("mirror-etag")[0]] {
				t.Errorf("ReadDocument(%q, %v) has tag %v, %v; want one of its own", d.ID, format, header.Get("mirror-etag"), err)
			}
			tags[header.Get("mirror-etag")[0]] = true
		}
	}

	_, err := h.mirror.GetYjsDocument(t.Context(), &mirrorv1.GetYjsDocumentRequest{RoomId: "r", Guid: "nobody's"})
	wantStatus(t, err, codes.NotFound, fault.ReasonDocumentNotMirrored)
	_, err = h.mirror.GetYjsDocument(t.Context(), &mirrorv1.GetYjsDocumentRequest{RoomId: "broken"})
	wantStatus(t, err, codes.FailedPrecondition, fault.ReasonDocumentUnreadable)
	resp, err := h.mirror.GetYjsDocument(t.Context(),
		&mirrorv1.GetYjsDocumentRequest{RoomId: "broken", Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_BINARY})
	if err != nil || string(resp.GetDocument().GetContent()) != string(broken.Content) {
		t.Errorf("GetYjsDocument of what cannot be decoded, as it is = %v; want its bytes", err)
	}
	_, err = h.mirror.GetYjsDocument(t.Context(),
		&mirrorv1.GetYjsDocumentRequest{RoomId: "r", Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_PLAIN_LSON})
	wantStatus(t, err, codes.InvalidArgument, fault.ReasonRequestInvalid)
	_, err = h.mirror.GetStorageDocument(t.Context(),
		&mirrorv1.GetStorageDocumentRequest{RoomId: "r", Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_BINARY})
	wantStatus(t, err, codes.InvalidArgument, fault.ReasonRequestInvalid)
	_, _, err = readDocument(t.Context(), h, &mirrorv1.ReadDocumentRequest{RoomId: "r", Guid: "inside"})
	wantStatus(t, err, codes.InvalidArgument, fault.ReasonRequestInvalid)
}

// What people read in the recorded Tiptap document in Storage, and its ProseMirror
// JSON.
const (
	wantTiptapText = "Release notes\nPlain, bold and italic-strike\nsecond line\none\ntwo\nfunc main() " +
		"{\n\tprintln(\"<hi & bye>\")\n}"
	wantTiptapEditor = `{"default":{"type":"doc","content":[` +
		`{"type":"heading","attrs":{"level":1},"content":[{"type":"text","text":"Release notes"}]},` +
		`{"type":"paragraph","content":[{"type":"text","text":"Plain, "},{"type":"text","marks":[{"type":"bold"}],"text":"bold"},` +
		`{"type":"text","text":" and "},{"type":"text","marks":[{"type":"italic"},{"type":"strike"}],"text":"italic-strike"},` +
		`{"type":"hardBreak"},{"type":"text","text":"second line"}]},` +
		`{"type":"bulletList","content":[{"type":"listItem","content":[{"type":"paragraph","content":[{"type":"text","text":"one"}]}]},` +
		`{"type":"listItem","content":[{"type":"paragraph","content":[{"type":"text","text":"two"}]}]}]},` +
		`{"type":"codeBlock","attrs":{"language":"go"},"content":[{"type":"text","text":"func main() {\n\tprintln(\"<hi & bye>\")\n}"}]}]}}`
)

// What an editor keeps in Storage can be read as from Yjs.
func TestEditorInStorage(t *testing.T) {
	t.Parallel()
	h := start(t)
	content, err := os.ReadFile(filepath.Join("..", "..", "decode", "lson", "testdata",
		"storage-tiptap-storage-plainlson.json"))
	if err != nil {
		t.Fatal(err)
	}
	doc := mirror.Document{
		Project: project, Room: "r", Kind: mirror.KindStorage, Content: content,
		SHA256: sha256.Sum256(content), Size: int64(len(content)),
	}
	broken := storageOf("broken", `{"_tiptap_docs"`, mirror.Freshness{})
	h.query.documents = []mirror.Document{doc, broken, storageOf("plain", `{"a":1}`, mirror.Freshness{})}
	const (
		text   = mirrorv1.DocumentFormat_DOCUMENT_FORMAT_TEXT
		editor = mirrorv1.DocumentFormat_DOCUMENT_FORMAT_EDITOR
	)
	tags := make(map[string]bool)
	for _, c := range []struct {
		room            string
		format          mirrorv1.DocumentFormat
		want, mediaType string
	}{
		{"r", text, wantTiptapText, "text/plain; charset=utf-8"},
		{"r", editor, wantTiptapEditor, "application/json"},
		{"plain", text, "", "text/plain; charset=utf-8"},
		{"plain", editor, "{}", "application/json"},
	} {
		for range 2 { // the second time from memory
			resp, err := h.mirror.GetStorageDocument(t.Context(),
				&mirrorv1.GetStorageDocumentRequest{RoomId: c.room, Format: c.format})
			got := resp.GetDocument()
			if err != nil || string(got.GetContent()) != c.want || got.GetContentType() != c.mediaType ||
				got.GetFormat() != c.format {
				t.Errorf("GetStorageDocument(%s, %v) = %v, %v; want %q", c.room, c.format, got, err, c.want)
			}
		}
		stream, err := h.mirror.ReadDocument(t.Context(), &mirrorv1.ReadDocumentRequest{RoomId: c.room, Format: c.format})
		if err != nil {
			t.Fatal(err)
		}
		chunk, err := stream.Recv()
		if err != nil || string(chunk.GetData()) != c.want || chunk.GetContentType() != c.mediaType {
			t.Errorf("ReadDocument(%s, %v) = %q, %v; want %q", c.room, c.format, chunk, err, c.want)
		}
		header, err := stream.Header()
		if err != nil || len(header.Get("mirror-etag")) != 1 || tags[header.Get("mirror-etag")[0]] {
			t.Fatalf("ReadDocument(%s, %v) has tag %v, %v; want one of its own", c.room, c.format, header.Get("mirror-etag"),
				err)
		}
		tags[header.Get("mirror-etag")[0]] = true
	}
	for _, format := range []mirrorv1.DocumentFormat{text, editor} {
		_, err := h.mirror.GetStorageDocument(t.Context(),
			&mirrorv1.GetStorageDocumentRequest{RoomId: "broken", Format: format})
		wantStatus(t, err, codes.FailedPrecondition, fault.ReasonDocumentUnreadable)
	}
}

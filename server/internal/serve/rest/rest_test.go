package rest

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/inproc"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/rest/query"
)

var (
	noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	// early is before the room was created.
	early = noon.Add(-2 * time.Hour)
)

// stub is a mirror with one room, "r", with what its fields hold.
type stub struct {
	mirrorv1.UnimplementedMirrorServiceServer

	fails   error
	threads []*mirrorv1.Thread
	// listed, if set, is called for each page of them.
	listed func()
	// ydocs are the Yjs documents by guid.
	ydocs map[string]string
	stale bool
	// staleYdocs are the guids of those of which a newer version is known.
	staleYdocs map[string]bool
	// tasks are those that fetch. The lists of threads and of groups have been fetched unless
	// they have one.
	tasks map[mirror.Resource]mirror.Task
	// lacks are the lists in which something is announced and not fetched.
	lacks map[mirror.Resource]bool
	// neverEntered means that who is in the room was not fetched.
	neverEntered bool
	// badToken is a token of pages that is refused.
	badToken string
	// notified are the notifications.
	notified []*mirrorv1.Notification
}

func (s *stub) ListNotifications(_ context.Context, req *mirrorv1.ListNotificationsRequest) (
	*mirrorv1.ListNotificationsResponse, error,
) {
	got := &mirrorv1.ListNotificationsResponse{}
	for _, n := range s.notified {
		if req.GetProjectId() == "p" && n.GetUserId() == req.GetUserId() && n.GetNotificationId() == req.GetNotificationId() {
			got.Notifications = append(got.Notifications, n)
		}
	}
	return got, s.fails
}

func (s *stub) state(_ context.Context, of mirror.Resource) (mirror.Task, bool, error) {
	if of.Project != "p" {
		return mirror.Task{}, false, status.Error(codes.Internal, "of no project")
	}
	of.Project = ""
	if task, ok := s.tasks[of]; ok {
		return task, true, nil
	}
	if of.ID == "" && (of.Kind == mirror.KindThread || of.Kind == mirror.KindGroup) {
		return mirror.Task{State: mirror.TaskDone, FetchTime: noon.Add(-time.Hour)}, true, nil
	}
	return mirror.Task{}, false, nil
}

func (s *stub) unfetched(_ context.Context, list mirror.Resource) (bool, error) {
	if list.Project != "p" {
		return false, status.Error(codes.Internal, "of no project")
	}
	list.Project = ""
	return s.lacks[list], nil
}

func (s *stub) ListActiveUsers(_ context.Context, req *mirrorv1.ListActiveUsersRequest) (
	*mirrorv1.ListActiveUsersResponse, error,
) {
	if req.GetRoomId() != "r" {
		return nil, absence(fault.ReasonRoomNotMirrored)
	}
	if s.neverEntered {
		return &mirrorv1.ListActiveUsersResponse{Freshness: &mirrorv1.Freshness{}}, nil
	}
	return &mirrorv1.ListActiveUsersResponse{Freshness: s.freshness()}, nil
}

func (s *stub) ListGroups(_ context.Context, req *mirrorv1.ListGroupsRequest) (*mirrorv1.ListGroupsResponse, error) {
	if s.badToken != "" && req.GetPageToken() == s.badToken {
		st, _ := status.New(codes.InvalidArgument, "no such token").WithDetails(
			&errdetails.ErrorInfo{Reason: string(fault.ReasonPageTokenInvalid)})
		return nil, st.Err()
	}
	return &mirrorv1.ListGroupsResponse{}, s.fails
}

func (s *stub) ListDocuments(_ context.Context, req *mirrorv1.ListDocumentsRequest) (*mirrorv1.ListDocumentsResponse,
	error,
) {
	got := &mirrorv1.ListDocumentsResponse{}
	for guid := range s.ydocs {
		got.Documents = append(got.Documents, &mirrorv1.Document{
			RoomId: req.GetRoomIdPrefix(), Guid: guid, Freshness: &mirrorv1.Freshness{Stale: s.staleYdocs[guid]},
		})
	}
	got.Documents = append(got.Documents, &mirrorv1.Document{
		RoomId: req.GetRoomIdPrefix() + "2", Freshness: &mirrorv1.Freshness{Stale: true},
	})
	return got, nil
}

func (s *stub) GetYjsDocument(_ context.Context, req *mirrorv1.GetYjsDocumentRequest) (*mirrorv1.GetYjsDocumentResponse,
	error,
) {
	content, ok := s.ydocs[req.GetGuid()]
	if req.GetRoomId() != "r" || !ok {
		return nil, absence(fault.ReasonDocumentNotMirrored)
	}
	return &mirrorv1.GetYjsDocumentResponse{Document: &mirrorv1.Document{
		SourceSize: int64(len(content)),
		Freshness: &mirrorv1.Freshness{
			FetchTime: timestamppb.New(noon), Revision: 7, Stale: s.staleYdocs[req.GetGuid()], ContentSha256: hashOf(content),
		},
	}}, nil
}

func hashOf(content string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(content))) }

func absence(reason fault.Reason) error {
	st, _ := status.New(codes.NotFound, "the mirror holds no such thing").WithDetails(
		&errdetails.ErrorInfo{Reason: string(reason)})
	return st.Err()
}

func (s *stub) freshness() *mirrorv1.Freshness {
	return &mirrorv1.Freshness{FetchTime: timestamppb.New(noon.Add(-time.Hour)), Revision: 7, Stale: s.stale}
}

func (s *stub) GetRoom(_ context.Context, req *mirrorv1.GetRoomRequest) (*mirrorv1.GetRoomResponse, error) {
	if s.fails != nil {
		return nil, s.fails
	}
	if req.GetRoomId() != "r" || req.GetProjectId() != "p" {
		return nil, absence(fault.ReasonRoomNotMirrored)
	}
	return &mirrorv1.GetRoomResponse{Room: &mirrorv1.Room{
		RoomId: "r", SourceJson: []byte(`{"id":"r" }`), Freshness: s.freshness(),
		CreateTime: timestamppb.New(noon.Add(-time.Hour)),
	}}, nil
}

func (s *stub) ListThreads(_ context.Context, req *mirrorv1.ListThreadsRequest) (*mirrorv1.ListThreadsResponse, error) {
	if s.listed != nil {
		s.listed()
	}
	// Pages of 25, so that there are several.
	begin := 0
	if token := req.GetPageToken(); token != "" {
		_, _ = fmt.Sscan(token, &begin)
	}
	end := min(begin+25, len(s.threads))
	got := &mirrorv1.ListThreadsResponse{Threads: s.threads[begin:end]}
	if end < len(s.threads) {
		got.NextPageToken = fmt.Sprint(end)
	}
	return got, nil
}

func (s *stub) ReadDocument(req *mirrorv1.ReadDocumentRequest,
	stream grpc.ServerStreamingServer[httpbody.HttpBody],
) error {
	content, ok := s.ydocs[req.GetGuid()]
	if req.GetRoomId() != "r" || req.GetKind() != mirrorv1.DocumentKind_DOCUMENT_KIND_YDOC || !ok {
		return absence(fault.ReasonDocumentNotMirrored)
	}
	if err := stream.SetHeader(metadata.Pairs("mirror-content-length", fmt.Sprint(len(content)), "mirror-etag", `"`+hashOf(content)[:32]+`-b"`,
		"mirror-fetch-time", noon.Format(time.RFC3339Nano), "mirror-revision", "7")); err != nil {
		return err
	}
	if s.staleYdocs[req.GetGuid()] {
		if err := stream.SetHeader(metadata.Pairs("mirror-stale", "1")); err != nil {
			return err
		}
	}
	for _, chunk := range []string{content[:1], content[1:]} {
		if err := stream.Send(&httpbody.HttpBody{ContentType: "application/octet-stream", Data: []byte(chunk)}); err != nil {
			return err
		}
	}
	return nil
}

// serve returns a handler over the stub.
func serve(s *stub, change ...func(*Config)) *Handler { return serveMirror(s, s, change...) }

// serveMirror returns a handler over a service, which knows the tasks of the stub.
func serveMirror(s *stub, service mirrorv1.MirrorServiceServer, change ...func(*Config)) *Handler {
	channel := inproc.New(nil, nil)
	mirrorv1.RegisterMirrorServiceServer(channel, service)
	cfg := Config{
		Conn:      channel,
		Authorize: func(r *http.Request) (context.Context, error) { return r.Context(), nil },
		Project:   func(context.Context) (string, error) { return "p", nil },
		Paused:    func(string) (time.Time, bool) { return time.Time{}, false },
		Failing:   func(string) time.Time { return time.Time{} },
		Refresh:   func(context.Context, mirror.Resource) error { return errors.New("no refresh") },
		State:     s.state,
		Unfetched: s.unfetched,
		Memory:    16 << 20,
		WarnAfter: 10 * time.Minute,
		Now:       func() time.Time { return noon },
		Logger:    slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&cfg)
	}
	return New(cfg)
}

func call(h http.Handler, method, path, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	return w
}

// A reader is warned of a copy that is behind, and told since when.
func TestWarnings(t *testing.T) {
	t.Parallel()
	paused := func(stopped bool) func(*Config) {
		return func(c *Config) {
			c.Paused = func(project string) (time.Time, bool) { return noon.Add(-time.Minute), stopped }
		}
	}
	failing := func(since time.Duration) func(*Config) {
		return func(c *Config) {
			c.Failing = func(string) time.Time { return noon.Add(-since) }
		}
	}
	for name, c := range map[string]struct {
		stub   *stub
		change func(*Config)
		want   string
	}{
		"fresh": {stub: &stub{}, want: ""},
		"stale": {stub: &stub{stale: true}, want: "This answer is a copy of 2026-11-22T11:00:00Z from a mirror that knows " +
			"of a newer version and has not got it from Liveblocks yet"},
		"stale, not for long": {stub: &stub{stale: true}, change: func(c *Config) { c.WarnAfter = time.Hour }},
		"no answer": {stub: &stub{}, change: failing(11 * time.Minute), want: "This answer is a copy of " +
			"2026-11-22T11:00:00Z from a mirror that has got no answer from Liveblocks since 2026-11-22T11:49:00Z"},
		"no answer, not for long": {stub: &stub{}, change: failing(9 * time.Minute), want: ""},
		"paused": {stub: &stub{}, change: paused(false), want: "This answer is a copy of 2026-11-22T11:00:00Z from a " +
			"mirror that has not called Liveblocks since 2026-11-22T11:59:00Z: Liveblocks refused a call"},
		"stopped": {stub: &stub{}, change: paused(true), want: "This answer is a copy of 2026-11-22T11:00:00Z from a " +
			"mirror that has not called Liveblocks since 2026-11-22T11:59:00Z: an operator paused it"},
	} {
		change := c.change
		if change == nil {
			change = func(*Config) {}
		}
		w := call(serve(c.stub, change), http.MethodGet, "/v2/rooms/r", "")
		stale := ""
		if c.stub.stale {
			stale = "1"
		}
		if got := w.Header().Get("X-LB-Warn"); w.Code != http.StatusOK || got != c.want ||
			w.Header().Get("mirror-stale") != stale || w.Header().Get("mirror-revision") != "7" ||
			w.Header().Get("mirror-fetch-time") != "2026-11-22T11:00:00Z" ||
			w.Body.String() != `{"id":"r" }` {
			t.Errorf("%s: %d %q %v; want the warning %q", name, w.Code, w.Body, w.Header(), c.want)
		}
	}
}

// What fails gets Liveblocks' form, and the status that clients understand.
func TestFailures(t *testing.T) {
	t.Parallel()
	with := func(code codes.Code, reason fault.Reason) error {
		st, err := status.New(code, "why").WithDetails(&errdetails.ErrorInfo{Reason: string(reason)},
			&errdetails.RetryInfo{RetryDelay: durationpb.New(1500 * time.Millisecond)})
		if err != nil {
			t.Fatal(err)
		}
		return st.Err()
	}
	for _, c := range []struct {
		err    error
		status int
		code   string
		retry  string
	}{
		{with(codes.Unauthenticated, fault.ReasonCredentialMissing), 401, "MISSING_SECRET_KEY", "2"},
		{with(codes.Unauthenticated, fault.ReasonCredentialInvalid), 403, "INVALID_SECRET_KEY", "2"},
		{with(codes.Unauthenticated, fault.ReasonCredentialExpired), 403, "INVALID_SECRET_KEY", "2"},
		{with(codes.PermissionDenied, fault.ReasonScopeMissing), 403, "FORBIDDEN", "2"},
		{with(codes.InvalidArgument, fault.ReasonProjectUnknown), 403, "FORBIDDEN", "2"},
		{with(codes.InvalidArgument, fault.ReasonPageTokenInvalid), 422, "UNPROCESSABLE_ENTITY", "2"},
		{with(codes.InvalidArgument, fault.ReasonRequestInvalid), 404, "ROOM_NOT_FOUND", ""},
		{with(codes.ResourceExhausted, fault.ReasonCredentialsLimited), 429, "TOO_MANY_REQUESTS", "2"},
		{with(codes.ResourceExhausted, fault.ReasonProjectPaused), 503, "UNAVAILABLE", "2"},
		{with(codes.ResourceExhausted, fault.ReasonUpstreamRateLimited), 503, "UNAVAILABLE", "2"},
		{with(codes.Unavailable, fault.ReasonStoreUnavailable), 503, "UNAVAILABLE", "2"},
		{status.Error(codes.DeadlineExceeded, "too late"), 503, "UNAVAILABLE", "1"},
		{with(codes.FailedPrecondition, fault.ReasonDocumentUnreadable), 501, "NOT_MIRRORED", ""},
		{errors.New("dial 10.0.0.1"), 500, "INTERNAL", ""},
		{status.Error(codes.Internal, "internal error"), 500, "INTERNAL", ""},
	} {
		w := call(serve(&stub{fails: c.err}), http.MethodGet, "/v2/rooms/r", "")
		var body struct{ Error, Message string }
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code != c.status || body.Error != c.code ||
			body.Message == "" || (c.status == 500) != (w.Header().Get("X-Request-Id") != "") ||
			c.status == 500 && body.Message != "internal error" || w.Header().Get("Retry-After") != c.retry ||
			w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%v = %d %s %v; want %d %s, Retry-After %q", c.err, w.Code, w.Body, w.Header(), c.status, c.code, c.retry)
		}
	}
}

// A document that has not been fetched is not shown as an empty one.
func TestDocumentsThatAreNotThere(t *testing.T) {
	t.Parallel()
	// A map "m" with the subdocument "inside".
	const parent = "\x01\x01\x01\x00\x29\x01\x01m\x01k\x06inside\x76\x00\x00"
	s := &stub{ydocs: map[string]string{"": parent}}
	ydoc := func(guid string) mirror.Resource { return mirror.Resource{Room: "r", Kind: mirror.KindYdoc, ID: guid} }
	// Another document names "inner", which waits, has failed, or is named no more.
	nested := func(state mirror.TaskState) *stub {
		return &stub{
			ydocs: map[string]string{"": parent, "outer": "\x00\x00"},
			tasks: map[mirror.Resource]mirror.Task{ydoc("inner"): {State: state}},
		}
	}
	behind := &stub{ydocs: map[string]string{"": parent}, staleYdocs: map[string]bool{"": true}}
	behindInside := &stub{
		ydocs: map[string]string{"": parent, "inside": "\x00\x00"}, staleYdocs: map[string]bool{"inside": true},
	}
	failed := &stub{tasks: map[mirror.Resource]mirror.Task{ydoc(""): {State: mirror.TaskFailed}}}
	waiting := &stub{ydocs: s.ydocs, tasks: map[mirror.Resource]mirror.Task{ydoc("inside"): {State: mirror.TaskWaiting}}}
	inside := &stub{ydocs: map[string]string{"": parent, "inside": strings.Replace(parent, "inside", "deeper", 1)}}
	settling := &stub{ydocs: s.ydocs, tasks: map[mirror.Resource]mirror.Task{ydoc(""): {State: mirror.TaskPending}}}
	many := &stub{ydocs: map[string]string{"": parent}}
	for i := range mirror.MaxSubdocuments {
		many.ydocs[fmt.Sprint(i)] = "\x00\x00"
	}
	for _, c := range []struct {
		stub   *stub
		path   string
		status int
		want   string
	}{
		{s, "/v2/rooms/r/ydoc-binary", 200, parent},
		{s, "/v2/rooms/r/ydoc-binary?guid=other", 200, "\x00\x00"},
		{s, "/v2/rooms/r/ydoc-binary?guid=" + strings.Repeat("x", 600), 200, "\x00\x00"},
		{s, "/v2/rooms/r/ydoc-binary?guid=root", 200, parent},
		{s, "/v2/rooms/r/ydoc?guid=root", 200, `{"m":{"k":{}}}`},
		{nested(mirror.TaskPending), "/v2/rooms/r/ydoc-binary?guid=inner", 503, "NOT_MIRRORED_YET"},
		{nested(mirror.TaskPending), "/v2/rooms/r/ydoc?guid=inner", 503, "NOT_MIRRORED_YET"},
		{nested(mirror.TaskFailed), "/v2/rooms/r/ydoc-binary?guid=inner", 501, "NOT_MIRRORED"},
		{nested(mirror.TaskDone), "/v2/rooms/r/ydoc-binary?guid=inner", 501, "NOT_MIRRORED"},
		{behind, "/v2/rooms/r/ydoc-binary?guid=other", 503, "NOT_MIRRORED_YET"},
		{behind, "/v2/rooms/r/ydoc?guid=other", 503, "NOT_MIRRORED_YET"},
		{behindInside, "/v2/rooms/r/ydoc-binary?guid=other", 503, "NOT_MIRRORED_YET"},
		{many, "/v2/rooms/r/ydoc-binary?guid=other", 501, "NOT_MIRRORED"},
		{inside, "/v2/rooms/r/ydoc-binary?guid=deeper", 501, "NOT_MIRRORED"}, // which the one inside names
		{inside, "/v2/rooms/r/ydoc-binary?guid=other", 200, "\x00\x00"},
		{settling, "/v2/rooms/r/ydoc-binary?guid=inside", 503, "NOT_MIRRORED_YET"},
		{&stub{ydocs: map[string]string{"": "\x01\x01\x01"}}, "/v2/rooms/r/ydoc", 501, "NOT_MIRRORED"},
		{failed, "/v2/rooms/r/ydoc", 501, "NOT_MIRRORED"},
		{s, "/v2/rooms/r/ydoc-binary?guid=inside", 501, "NOT_MIRRORED"}, // beyond what is mirrored
		{waiting, "/v2/rooms/r/ydoc-binary?guid=inside", 503, "NOT_MIRRORED_YET"},
		{s, "/v2/rooms/r/ydoc-binary?guid=a;b", 422, "UNPROCESSABLE_ENTITY"},
		{s, "/v2/rooms/r/ydoc-binary?guid=%zz", 422, "UNPROCESSABLE_ENTITY"},
		{s, "/v2/rooms/r/ydoc-binary?guid=%ff", 422, "UNPROCESSABLE_ENTITY"},
		{s, "/v2/rooms/r/threads?query=metadata[%22k%22]:%22a;b%22", 422, "UNPROCESSABLE_ENTITY"},
		{s, "/v2/rooms/r/ydoc-binary?encoder=v2", 501, "NOT_MIRRORED"},
		{s, "/v2/rooms/none/ydoc-binary", 404, "ROOM_NOT_FOUND"},
		{s, "/v2/rooms/none/ydoc-binary?guid=other", 404, "ROOM_NOT_FOUND"},
		{s, "/v2/rooms/r/ydoc", 200, `{"m":{"k":{}}}`},
		{s, "/v2/rooms/r/ydoc?guid=other", 200, `{}`},
		{s, "/v2/rooms/r/ydoc?guid=other&key=x", 200, `{"x":""}`},
		{s, "/v2/rooms/r/ydoc?guid=inside", 501, "NOT_MIRRORED"},
		{s, "/v2/rooms/r/storage", 503, "NOT_MIRRORED_YET"},
		{s, "/v2/rooms/none/storage", 404, "ROOM_NOT_FOUND"},
		{&stub{}, "/v2/rooms/r/ydoc-binary", 503, "NOT_MIRRORED_YET"},
		{&stub{}, "/v2/rooms/r/ydoc-binary?guid=other", 503, "NOT_MIRRORED_YET"},
		{&stub{}, "/v2/rooms/r/ydoc", 503, "NOT_MIRRORED_YET"},
	} {
		w := call(serve(c.stub), http.MethodGet, c.path, "")
		body := w.Body.String()
		if w.Code != c.status || body != c.want && !strings.Contains(body, `"error":"`+c.want+`"`) {
			t.Errorf("GET %s = %d %q; want %d %q", c.path, w.Code, body, c.status, c.want)
		}
		if w.Code == 200 && (w.Header().Get("Mirror-Fetch-Time") == "" || w.Header().Get("ETag") == "") {
			t.Errorf("GET %s without its age and tag: %v", c.path, w.Header())
		}
	}
}

// A list that has not been fetched is not shown as an empty one, and one that was has an
// age.
func TestListsThatAreNotThere(t *testing.T) {
	t.Parallel()
	threads := mirror.Resource{Room: "r", Kind: mirror.KindThread}
	groups := mirror.Resource{Kind: mirror.KindGroup}
	users := mirror.Resource{Room: "r", Kind: mirror.KindActiveUsers}
	with := func(of mirror.Resource, task mirror.Task) *stub {
		return &stub{neverEntered: of == users, tasks: map[mirror.Resource]mirror.Task{of: task}}
	}
	again := func(state mirror.TaskState) *stub { // of a room that was deleted and created again
		return with(threads, mirror.Task{State: state, FetchTime: early})
	}
	long := "/v2/users/" + strings.Repeat("x", mirror.MaxUserID+1) + "/groups"
	for _, c := range []struct {
		stub   *stub
		path   string
		status int
		want   string
		stale  string
	}{
		{&stub{}, "/v2/rooms/r/threads", 200, `{"data":[]}`, ""},
		{with(threads, mirror.Task{State: mirror.TaskPending}), "/v2/rooms/r/threads", 503, "NOT_MIRRORED_YET", ""},
		{with(threads, mirror.Task{State: mirror.TaskFailed}), "/v2/rooms/r/threads", 501, "NOT_MIRRORED", ""},
		{with(threads, mirror.Task{State: mirror.TaskRunning, FetchTime: noon}), "/v2/rooms/r/threads", 200, `{"data":[]}`, "1"},
		{with(threads, mirror.Task{State: mirror.TaskPending}), "/v2/rooms/none/threads", 404, "ROOM_NOT_FOUND", ""},
		{again(mirror.TaskPending), "/v2/rooms/r/threads", 503, "NOT_MIRRORED_YET", ""},
		{again(mirror.TaskFailed), "/v2/rooms/r/threads", 501, "NOT_MIRRORED", ""},
		{&stub{}, "/v2/groups", 200, `{"nextCursor":null,"data":[]}`, ""},
		{&stub{}, long, 200, `{"nextCursor":null,"data":[]}`, ""},
		{&stub{fails: absence(fault.ReasonRequestInvalid)}, long, 200, `{"nextCursor":null,"data":[]}`, ""},
		{&stub{fails: status.Error(codes.PermissionDenied, "no")}, long, 403, "FORBIDDEN", ""},
		{with(groups, mirror.Task{}), "/v2/groups", 503, "NOT_MIRRORED_YET", ""},
		{with(groups, mirror.Task{}), "/v2/users/alice/groups", 503, "NOT_MIRRORED_YET", ""},
		{&stub{}, "/v2/rooms/r/active_users", 200, `{"data":[]}`, ""},
		{&stub{neverEntered: true}, "/v2/rooms/r/active_users", 200, `{"data":[]}`, ""},
		{with(users, mirror.Task{State: mirror.TaskRunning}), "/v2/rooms/r/active_users", 503, "NOT_MIRRORED_YET", ""},
		{&stub{}, "/v2/rooms/none/active_users", 404, "ROOM_NOT_FOUND", ""},
	} {
		w := call(serve(c.stub), http.MethodGet, c.path, "")
		body := w.Body.String()
		if w.Code != c.status || body != c.want && !strings.Contains(body, `"error":"`+c.want+`"`) ||
			w.Header().Get("Mirror-Stale") != c.stale || w.Code == 200 && w.Header().Get("Mirror-Fetch-Time") == "" {
			t.Errorf("GET %s = %d %q %v; want %d %q with its age", c.path, w.Code, body, w.Header(), c.status, c.want)
		}
	}
}

// A thread that does not match but whose newest version may makes the list stale.
func TestStaleLists(t *testing.T) {
	t.Parallel()
	s := &stub{stale: true}
	s.threads = append(s.threads, &mirrorv1.Thread{ThreadId: "th", SourceJson: []byte(`{}`), Freshness: s.freshness()})
	if w := call(serve(s), http.MethodGet, "/v2/rooms/r/threads?query=resolved:true", ""); w.Body.String() != `{"data":[]}` ||
		w.Header().Get("Mirror-Stale") != "1" {
		t.Errorf("threads that may match = %s %v; want a stale list", w.Body, w.Header())
	}
}

// A list that lacks something announced says so, whatever is in it.
func TestListsOfWhatIsAnnounced(t *testing.T) {
	t.Parallel()
	lacking := func(kind mirror.Kind, room mirror.RoomID) *stub {
		return &stub{lacks: map[mirror.Resource]bool{{Room: room, Kind: kind}: true}}
	}
	for _, c := range []struct {
		stub  *stub
		path  string
		stale string
	}{
		{lacking(mirror.KindThread, "r"), "/v2/rooms/r/threads", "1"},
		{lacking(mirror.KindThread, "r"), "/v2/groups", ""},
		{lacking(mirror.KindGroup, ""), "/v2/groups", "1"},
		{lacking(mirror.KindGroup, ""), "/v2/users/alice/groups", "1"},
		{lacking(mirror.KindGroup, ""), "/v2/rooms/r/threads", ""},
	} {
		w := call(serve(c.stub), http.MethodGet, c.path, "")
		if w.Code != http.StatusOK || w.Header().Get("Mirror-Stale") != c.stale {
			t.Errorf("GET %s = %d %v; want mirror-stale %q", c.path, w.Code, w.Header(), c.stale)
		}
	}
}

// A failure has no header of a copy, although the answer had begun.
func TestFailureSaysNothingOfACopy(t *testing.T) {
	t.Parallel()
	update := "\x01\x01\x01\x00\x04\x01\x01t\x80\x80\x40" + strings.Repeat("\x01", 1<<20) + "\x00" // is longer as JSON
	h := serve(&stub{ydocs: map[string]string{"": update}, stale: true}, func(c *Config) { c.Memory = 8 << 20 })
	w := call(h, http.MethodGet, "/v2/rooms/r/ydoc", "")
	if w.Code != http.StatusNotImplemented {
		t.Fatalf("a rendering that is too long = %d %.200s; want 501", w.Code, w.Body)
	}
	for _, name := range []string{
		"Mirror-Source", "Mirror-Fetch-Time", "Mirror-Revision", "Mirror-Stale", "X-Lb-Warn", "ETag",
	} {
		if got := w.Header().Get(name); got != "" {
			t.Errorf("the failure has %s: %s", name, got)
		}
	}
}

// Who waits for memory holds nothing, and not for ever. Who has the answer already needs none.
func TestWaitingForMemory(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("x", 1<<20)
	ydoc := "\x01\x01\x01\x00\x04\x01\x01t\x80\x80\x40" + text + "\x00"
	synctest.Test(t, func(t *testing.T) {
		reads := 0
		s := &stub{ydocs: map[string]string{"": ydoc}}
		for i := range 100 {
			s.threads = append(s.threads, &mirrorv1.Thread{
				ThreadId: fmt.Sprint(i), SourceJson: []byte(`"` + text[:30_000] + `"`), CreateTime: timestamppb.New(noon),
			})
		}
		s.listed = func() { reads++ }
		h := serve(s, func(c *Config) { c.Memory = 8 << 20 })
		tag := call(h, http.MethodGet, "/v2/rooms/r/ydoc", "").Header().Get("ETag")
		if !h.long.memory.TryAcquire(8 << 20) {
			t.Fatal("the memory is not free")
		}
		for _, path := range []string{"/v2/rooms/r/threads", "/v2/rooms/r/ydoc"} {
			begin := time.Now()
			w := call(h, http.MethodGet, path, "")
			if took := time.Since(begin); w.Code != http.StatusServiceUnavailable || took != memoryWait ||
				w.Header().Get("Retry-After") == "" {
				t.Errorf("GET %s without memory = %d %s after %v; want 503 after %v", path, w.Code, w.Body, took, memoryWait)
			}
		}
		if reads != 2 { // until it was known that it needs memory
			t.Errorf("pages read = %d; want 2", reads)
		}
		r := httptest.NewRequest(http.MethodGet, "/v2/rooms/r/ydoc", nil)
		r.Header.Set("If-None-Match", tag)
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != http.StatusNotModified {
			t.Errorf("a rendering that its reader has = %d %s; want 304 without memory", w.Code, w.Body)
		}
		go func() {
			<-time.After(memoryWait / 2)
			h.long.memory.Release(8 << 20)
		}()
		if w := call(h, http.MethodGet, "/v2/rooms/r/threads", ""); w.Code != http.StatusOK || w.Body.Len() < 3_000_000 {
			t.Errorf("threads once there is memory = %d, %d bytes; want all", w.Code, w.Body.Len())
		}
	})
}

// Who may not read is told so before anything else about a read.
func TestScopeComesFirst(t *testing.T) {
	t.Parallel()
	h := serve(&stub{}, func(c *Config) {
		c.Project = func(context.Context) (string, error) { return "", status.Error(codes.PermissionDenied, "no") }
	})
	for _, path := range []string{
		"rooms", "rooms/r/threads?query=resolved", "rooms/r?a;b", "rooms/r/ydoc-binary?encoder=v2",
	} {
		if w := call(h, http.MethodGet, "/v2/"+path, ""); w.Code != http.StatusForbidden {
			t.Errorf("GET %s = %d %s; want 403", path, w.Code, w.Body)
		}
	}
}

// halting is a response whose body stays unsent until it is let go.
type halting struct {
	http.ResponseWriter

	writes chan struct{}
	goOn   chan struct{}
}

func (w *halting) Write(p []byte) (int, error) {
	w.writes <- struct{}{}
	<-w.goOn
	return len(p), nil
}

// Long answers are put together within a budget, which they hold until they are sent.
// Shorter ones and those that the client has already take none of it.
func TestMemory(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("x", 1<<20)
	thread := func(id string) *mirrorv1.Thread {
		return &mirrorv1.Thread{ThreadId: id, SourceJson: []byte(`"` + text + `"`), CreateTime: timestamppb.New(noon)}
	}
	// A text "t" of a MiB.
	ydoc := "\x01\x01\x01\x00\x04\x01\x01t\x80\x80\x40" + text + "\x00"
	s := &stub{threads: []*mirrorv1.Thread{thread("a"), thread("b")}, ydocs: map[string]string{"": ydoc}}
	small := func(c *Config) { c.Memory = 8 << 20 }
	for _, path := range []string{"/v2/rooms/r/threads", "/v2/rooms/r/ydoc"} {
		h := serve(s, small)
		whole := call(h, http.MethodGet, path, "")
		if whole.Code != http.StatusOK || whole.Body.Len() < 1<<20 {
			t.Fatalf("GET %s = %d, %d bytes, %.200s; want it whole", path, whole.Code, whole.Body.Len(), whole.Body)
		}
		// As long as readers hold more than half of the memory, nothing long is begun.
		let := make(chan struct{})
		var readers []*halting
		var all sync.WaitGroup
		for range 4 {
			w := &halting{httptest.NewRecorder(), make(chan struct{}, 100), let}
			readers = append(readers, w)
			all.Go(func() { h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil)) })
			select {
			case <-w.writes:
			case <-t.Context().Done():
			}
			if held := 8<<20 - free(h); held < int64(len(readers))<<20 {
				t.Errorf("GET %s: %d readers hold %d bytes", path, len(readers), held)
			}
			if free(h) < 4<<20 {
				break
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		w := httptest.NewRecorder()
		if free(h) < 4<<20 {
			h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil))
			if w.Code != http.StatusServiceUnavailable {
				t.Errorf("GET %s without memory = %d; want it to wait until its caller is gone", path, w.Code)
			}
		} else {
			t.Errorf("GET %s: %d readers hold %d bytes; want more than half", path, len(readers), 8<<20-free(h))
		}
		close(let)
		all.Wait()
		if got := free(h); got != 8<<20 {
			t.Errorf("GET %s: %d bytes are free afterwards", path, got)
		}
	}

	tiny := serve(s, func(c *Config) { c.Memory = 2 << 20 })
	for _, path := range []string{"/v2/rooms/r/threads", "/v2/rooms/r/ydoc"} {
		if w := call(tiny, http.MethodGet, path, ""); w.Code != http.StatusNotImplemented ||
			!strings.Contains(w.Body.String(), "longer than 1 MiB") {
			t.Errorf("GET %s beyond the most = %d %.200s; want 501", path, w.Code, w.Body)
		}
	}
}

// free returns how many bytes of the memory for long answers nobody holds.
func free(h *Handler) (n int64) {
	for step := h.cfg.Memory; step > 0; step /= 2 {
		for h.long.memory.TryAcquire(step) {
			n += step
		}
	}
	h.long.memory.Release(n)
	return n
}

// Who has a rendering already gets it no more, whichever it is.
func TestRenderingTags(t *testing.T) {
	t.Parallel()
	const parent = "\x01\x01\x01\x00\x29\x01\x01m\x01k\x06inside\x76\x00\x00"
	h := serve(&stub{ydocs: map[string]string{"": parent}})
	tags := map[string]string{}
	for _, query := range []string{"", "?formatting", "?key=m", "?key=other", "?key=m&type=ymap", "?key=m&type=ytext"} {
		tag := call(h, http.MethodGet, "/v2/rooms/r/ydoc"+query, "").Header().Get("ETag")
		if before, ok := tags[tag]; ok {
			t.Errorf("%q and %q have the tag %s", before, query, tag)
		}
		tags[tag] = query
		r := httptest.NewRequest(http.MethodGet, "/v2/rooms/r/ydoc"+query, nil)
		r.Header.Set("If-None-Match", tag)
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != http.StatusNotModified || w.Body.Len() > 0 {
			t.Errorf("%q again = %d %s; want 304", query, w.Code, w.Body)
		}
	}
}

// A room that exists is no write.
func TestExistingRooms(t *testing.T) {
	t.Parallel()
	h := serve(&stub{})
	for _, c := range []struct {
		path, body string
		status     int
	}{
		{"/v2/rooms?idempotent", `{"id":"r","defaultAccesses":[]}`, 200},
		{"/v2/rooms?idempotent", `{"id":"new","defaultAccesses":[]}`, 405},
		{"/v2/rooms?idempotent", `{`, 405},
		{"/v2/rooms", `{"id":"r"}`, 405},
	} {
		w := call(h, http.MethodPost, c.path, c.body)
		if w.Code != c.status || w.Code == 405 && w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("POST %s %s = %d %s %v; want %d", c.path, c.body, w.Code, w.Body, w.Header(), c.status)
		}
	}
}

// Threads are those that a plain filter finds, whatever the query, across pages, and in the
// order of their creation.
func TestThreadsByQuery(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	type thread struct {
		id       string
		resolved bool
		metadata map[string]any
	}
	var all []thread
	s := &stub{}
	for i := range 60 {
		one := thread{id: fmt.Sprintf("th_%03d", i), resolved: r.IntN(2) == 0, metadata: map[string]any{}}
		shown := map[string]*mirrorv1.MetadataValue{}
		if color := []string{"red", "reddish", "blue", ""}[r.IntN(4)]; color != "" {
			one.metadata["color"] = color
			shown["color"] = &mirrorv1.MetadataValue{Value: &mirrorv1.MetadataValue_StringValue{StringValue: color}}
		}
		if r.IntN(3) > 0 {
			n := float64(r.IntN(5)) - 1.5
			one.metadata["n"] = n
			shown["n"] = &mirrorv1.MetadataValue{Value: &mirrorv1.MetadataValue_NumberValue{NumberValue: n}}
		}
		if r.IntN(3) > 0 {
			done := r.IntN(2) == 0
			one.metadata["done"] = done
			shown["done"] = &mirrorv1.MetadataValue{Value: &mirrorv1.MetadataValue_BoolValue{BoolValue: done}}
		}
		all = append(all, one)
		s.threads = append(s.threads, &mirrorv1.Thread{
			ThreadId: one.id, Resolved: one.resolved, Metadata: shown, Visibility: "public", Freshness: s.freshness(),
			CreateTime: timestamppb.New(noon), SourceJson: []byte(`{"id":"` + one.id + `"}`),
		})
	}
	r.Shuffle(len(s.threads), func(i, j int) { s.threads[i], s.threads[j] = s.threads[j], s.threads[i] })
	h := serve(s)
	terms := []string{
		"resolved:true", "resolved:false", `visibility:"public"`, `visibility^"p"`, `metadata["color"]:"red"`,
		`metadata["color"]^"red"`, `metadata["color"]:null`, `metadata["n"]>0`, `metadata["n"]>=0.5`, `metadata["n"]<0.5`,
		`metadata["n"]<=-1.5`, `metadata["n"]:1.5`, `metadata["n"]:null`, `metadata["done"]:true`, `metadata["done"]:false`,
		`metadata["other"]:null`, `metadata["color"]:true`,
	}
	for range 1_000 {
		var parts []string
		for range 1 + r.IntN(3) {
			parts = append(parts, terms[r.IntN(len(terms))])
		}
		text := strings.Join(parts, " ")
		parsed, err := query.Threads.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{}
		for _, one := range all {
			if !slices.ContainsFunc(parsed, func(term query.Term) bool {
				have := any("public")
				switch term.Field {
				case "resolved":
					have = one.resolved
				case "metadata":
					have = one.metadata[*term.Key]
				}
				n, number := have.(float64)
				bound, _ := term.Value.(float64)
				text, isText := have.(string)
				begin, _ := term.Value.(string)
				return !map[query.Op]bool{
					query.Equal: have == term.Value, query.Prefix: isText && strings.HasPrefix(text, begin),
					query.Less: number && n < bound, query.LessOrEqual: number && n <= bound,
					query.Greater: number && n > bound, query.GreaterOrEqual: number && n >= bound,
				}[term.Op]
			}) {
				want = append(want, one.id)
			}
		}
		w := call(h, http.MethodGet, "/v2/rooms/r/threads?query="+url.QueryEscape(text), "")
		var list struct{ Data []struct{ ID string } }
		if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil {
			t.Fatalf("threads with %q = %d %s", text, w.Code, w.Body)
		}
		got := []string{}
		for _, one := range list.Data {
			got = append(got, one.ID)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("threads with %q = %q; want %q", text, got, want)
		}
	}
}

// A write is refused as one, whoever may do what, and nothing is asked of the mirror.
func TestWritesAreRefused(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/v2/rooms/r/threads", "/v2/rooms/r/storage", "/v2/groups"} {
		w := call(serve(&stub{fails: status.Error(codes.Internal, "it was asked")}), http.MethodPost, path, "{}")
		if w.Code != http.StatusMethodNotAllowed || !strings.Contains(w.Body.String(), `"error":"READ_ONLY_MIRROR"`) {
			t.Errorf("POST %s = %d %s; want 405 READ_ONLY_MIRROR", path, w.Code, w.Body)
		}
	}
}

// What was said of a copy that was looked at before is not said of another.
func TestHeadIsOfOneCopy(t *testing.T) {
	t.Parallel()
	h := serve(&stub{})
	w := httptest.NewRecorder()
	h.head(w, "p", age{fetched: noon.Add(-time.Hour), revision: 7, stale: true})
	h.head(w, "p", age{})
	for _, name := range headersOfCopies {
		if got := w.Header().Get(name); got != "" && name != headerSource {
			t.Errorf("%s = %q; want nothing of the copy before", name, got)
		}
	}
}

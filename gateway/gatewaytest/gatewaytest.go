// Package gatewaytest tests the gateway over any kind of connection to the service.
package gatewaytest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/liveblocks-mirror/liveblocks-mirror/gateway"
	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

// Dial connects to a server with the services that register adds, until the test
// ends.
type Dial func(t testing.TB, register func(grpc.ServiceRegistrar)) grpc.ClientConnInterface

type testCase struct {
	name string
	run  func(*testing.T, Dial)
}

// Run tests a gateway over connections of dial.
func Run(t *testing.T, dial Dial) {
	t.Helper()
	for _, cases := range [][]testCase{
		idCases, webhookCases, accessCases, routeCases, answerCases, documentCases,
		streamCases, changeCases,
	} {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				c.run(t, dial)
			})
		}
	}
}

// rig is a running gateway in front of an echo of the services.
type rig struct {
	*echo
	url        string // of Handler
	webhookURL string // of WebhookHandler
	metricsURL string // of MetricsHandler
	client     *http.Client
	traffic    traffic
}

// traffic is the state of the rig's servers.
type traffic struct{ requests, bytes atomic.Int64 }

// watch counts the requests that h is handling, and the bytes it has read of
// bodies.
func (tr *traffic) watch(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tr.requests.Add(1)
		defer tr.requests.Add(-1)
		seen := r.WithContext(r.Context()) // a copy: net/http looks at the body of its own when it closes
		seen.Body = watched{r.Body, tr}
		h.ServeHTTP(w, seen)
	})
}

type watched struct {
	io.ReadCloser
	traffic *traffic
}

func (b watched) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.traffic.bytes.Add(int64(n))
	return n, err
}

// maxBody is the limit on webhook bodies unless a test sets another.
const maxBody = 1 << 20

func newRig(t testing.TB, dial Dial, change func(*gateway.Config)) *rig {
	t.Helper()
	r := &rig{echo: new(echo)}
	cfg := gateway.Config{
		Conn: dial(t, r.register), MaxBody: maxBody, OpenAPI: []byte(`{"openapi":"3.1.0"}`),
		Descriptors: []byte("a set"),
		Storable:    func(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") },
	}
	if change != nil {
		change(&cfg)
	}
	g, err := gateway.New(cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	serve := func(h http.Handler) string {
		s := httptest.NewUnstartedServer(r.traffic.watch(h))
		s.Config.ErrorLog = nil
		s.Start()
		t.Cleanup(s.Close)
		return s.URL
	}
	r.url, r.webhookURL, r.metricsURL = serve(g.Handler()), serve(g.WebhookHandler()), serve(g.MetricsHandler())
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	r.client = &http.Client{Transport: transport}
	return r
}

// answer is the response to a request.
type answer struct {
	request string // in the words of a failed test
	code    int
	header  http.Header
	body    []byte
	err     error // of reading the body
}

// do sends a request. Header fields come in pairs.
func (r *rig) do(t testing.TB, method, url string, body io.Reader, fields ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatalf("NewRequest(%s): %v", url, err)
	}
	for i := 0; i < len(fields); i += 2 {
		req.Header.Add(fields[i], fields[i+1])
	}
	resp, err := r.client.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return answer{request: method + " " + url, code: resp.StatusCode, header: resp.Header, body: data, err: err}
}

func (r *rig) get(t testing.TB, path string, fields ...string) answer {
	t.Helper()
	return r.do(t, http.MethodGet, r.url+path, nil, fields...)
}

func (r *rig) post(t testing.TB, path, body string, fields ...string) answer {
	t.Helper()
	return r.do(t, http.MethodPost, r.url+path, bytes.NewReader([]byte(body)), fields...)
}

// failure is the part of an error body that the tests check.
type failure struct {
	Code    int
	Message string
	Details []struct {
		Type     string `json:"@type"`
		Reason   string
		Domain   string
		Metadata map[string]string
	}
}

// failure reads the error body of a.
func (a answer) failure(t testing.TB) failure {
	t.Helper()
	var f failure
	if err := json.Unmarshal(a.body, &f); err != nil {
		t.Fatalf("error body %q: %v", a.body, err)
	}
	if got := a.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type = %q; want application/json", got)
	}
	return f
}

// refused checks that a is an error with the code and reason; an empty reason means
// none.
func (a answer) refused(t testing.TB, code int, reason string) {
	t.Helper()
	if a.code != code {
		t.Fatalf("%s = %d %s; want %d", a.request, a.code, a.body, code)
	}
	f := a.failure(t)
	if f.Code == 0 || f.Message == "" {
		t.Errorf("error body %s lacks code or message", a.body)
	}
	got := ""
	for _, d := range f.Details {
		if d.Type == "type.googleapis.com/google.rpc.ErrorInfo" {
			got = d.Reason
			if d.Domain != "liveblocks.mirror.v1" {
				t.Errorf("domain = %q; want liveblocks.mirror.v1", d.Domain)
			}
		}
	}
	if got != reason {
		t.Errorf("%s: reason = %q; want %q", a.request, got, reason)
	}
}

// accepted checks that a is a success and reads its body into v, if given.
func (a answer) accepted(t testing.TB, v any) {
	t.Helper()
	if a.code != http.StatusOK || a.err != nil {
		t.Fatalf("%s = %d, %v, %s; want 200", a.request, a.code, a.err, a.body)
	}
	if v == nil {
		return
	}
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatalf("body %q: %v", a.body, err)
	}
}

// call is one call received by the echo.
type call struct {
	req any
	md  metadata.MD
}

// echo responds to every call with its request, unless configured otherwise.
type echo struct {
	mu      sync.Mutex
	calls   []call
	receive receiveFunc
	getRoom getRoomFunc
	read    readFunc
	verify  verifyFunc
	watch   watchFunc
}

type (
	receiveFunc = func(context.Context, *mirrorv1.ReceiveWebhookRequest) (*mirrorv1.ReceiveWebhookResponse, error)
	getRoomFunc = func(context.Context, *mirrorv1.GetRoomRequest) (*mirrorv1.GetRoomResponse, error)
	readFunc    = func(*mirrorv1.ReadDocumentRequest, grpc.ServerStreamingServer[httpbody.HttpBody]) error
	watchStream = grpc.ServerStreamingServer[mirrorv1.WatchChangesResponse]
	watchFunc   = func(*mirrorv1.WatchChangesRequest, watchStream) error
	verifyFunc  = func(*mirrorv1.VerifyMirrorRequest, grpc.ServerStreamingServer[mirrorv1.VerifyMirrorResponse]) error
)

// onReceive, onGetRoom, onRead, onVerify and onWatch set the response to later calls.
func (e *echo) onReceive(f receiveFunc) { e.script(func() { e.receive = f }) }
func (e *echo) onGetRoom(f getRoomFunc) { e.script(func() { e.getRoom = f }) }
func (e *echo) onRead(f readFunc)       { e.script(func() { e.read = f }) }
func (e *echo) onVerify(f verifyFunc)   { e.script(func() { e.verify = f }) }
func (e *echo) onWatch(f watchFunc)     { e.script(func() { e.watch = f }) }

func (e *echo) script(set func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	set()
}

func (e *echo) register(to grpc.ServiceRegistrar) {
	mirrorv1.RegisterEventServiceServer(to, eventEcho{echo: e})
	mirrorv1.RegisterMirrorServiceServer(to, mirrorEcho{echo: e})
	mirrorv1.RegisterChangeServiceServer(to, changeEcho{echo: e})
	mirrorv1.RegisterAdminServiceServer(to, adminEcho{echo: e})
}

// heard records a call and returns the configured response.
func (e *echo) heard(ctx context.Context, req any) (receiveFunc, getRoomFunc, readFunc) {
	md, _ := metadata.FromIncomingContext(ctx)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls = append(e.calls, call{req: req, md: md})
	return e.receive, e.getRoom, e.read
}

// takeCalls returns the calls received since the last takeCalls.
func (e *echo) takeCalls() []call {
	e.mu.Lock()
	defer e.mu.Unlock()
	calls := e.calls
	e.calls = nil
	return calls
}

// onlyCall returns the only call received since takeCalls or onlyCall.
func (e *echo) onlyCall(t testing.TB) call {
	t.Helper()
	calls := e.takeCalls()
	if len(calls) != 1 {
		t.Fatalf("%d calls; want 1", len(calls))
	}
	return calls[0]
}

// noCall checks that no call was received.
func (e *echo) noCall(t testing.TB) {
	t.Helper()
	if calls := e.takeCalls(); len(calls) != 0 {
		t.Errorf("the service was called: %v", calls[0].req)
	}
}

type eventEcho struct {
	mirrorv1.UnimplementedEventServiceServer
	*echo
}

func (e eventEcho) ReceiveWebhook(ctx context.Context,
	req *mirrorv1.ReceiveWebhookRequest,
) (*mirrorv1.ReceiveWebhookResponse, error) {
	if receive, _, _ := e.heard(ctx, req); receive != nil {
		return receive(ctx, req)
	}
	md, _ := metadata.FromIncomingContext(ctx)
	resp := &mirrorv1.ReceiveWebhookResponse{Outcome: mirrorv1.EventOutcome_EVENT_OUTCOME_QUEUED}
	if id := md.Get("webhook-id"); len(id) == 1 {
		resp.EventId = id[0]
	}
	return resp, nil
}

func (e eventEcho) GetEvent(ctx context.Context, req *mirrorv1.GetEventRequest) (*mirrorv1.GetEventResponse, error) {
	e.heard(ctx, req)
	return &mirrorv1.GetEventResponse{Event: &mirrorv1.Event{EventId: req.GetEventId(), ProjectId: req.GetProjectId()}},
		nil
}

func (e eventEcho) ListEvents(ctx context.Context, req *mirrorv1.ListEventsRequest) (*mirrorv1.ListEventsResponse,
	error,
) {
	e.heard(ctx, req)
	return &mirrorv1.ListEventsResponse{Events: []*mirrorv1.Event{{RoomId: req.GetRoomId()}}}, nil
}

type mirrorEcho struct {
	mirrorv1.UnimplementedMirrorServiceServer
	*echo
}

func (e mirrorEcho) GetRoom(ctx context.Context, req *mirrorv1.GetRoomRequest) (*mirrorv1.GetRoomResponse, error) {
	if _, getRoom, _ := e.heard(ctx, req); getRoom != nil {
		return getRoom(ctx, req)
	}
	return &mirrorv1.GetRoomResponse{Room: &mirrorv1.Room{
		RoomId: req.GetRoomId(), ProjectId: req.GetProjectId(), Freshness: &mirrorv1.Freshness{Revision: 1<<53 + 1},
	}}, nil
}

func (e mirrorEcho) ListRooms(ctx context.Context, req *mirrorv1.ListRoomsRequest) (*mirrorv1.ListRoomsResponse,
	error,
) {
	e.heard(ctx, req)
	return &mirrorv1.ListRoomsResponse{}, nil
}

func (e mirrorEcho) GetStorageDocument(ctx context.Context,
	req *mirrorv1.GetStorageDocumentRequest,
) (*mirrorv1.GetStorageDocumentResponse, error) {
	e.heard(ctx, req)
	return &mirrorv1.GetStorageDocumentResponse{Document: &mirrorv1.Document{RoomId: req.GetRoomId()}}, nil
}

func (e mirrorEcho) GetYjsDocument(ctx context.Context,
	req *mirrorv1.GetYjsDocumentRequest,
) (*mirrorv1.GetYjsDocumentResponse, error) {
	e.heard(ctx, req)
	return &mirrorv1.GetYjsDocumentResponse{Document: &mirrorv1.Document{RoomId: req.GetRoomId()}}, nil
}

func (e mirrorEcho) ReadDocument(req *mirrorv1.ReadDocumentRequest,
	stream grpc.ServerStreamingServer[httpbody.HttpBody],
) error {
	if _, _, read := e.heard(stream.Context(), req); read != nil {
		return read(req, stream)
	}
	return stream.Send(&httpbody.HttpBody{ContentType: "text/plain", Data: []byte(req.GetRoomId())})
}

func (e mirrorEcho) ListDocuments(ctx context.Context,
	req *mirrorv1.ListDocumentsRequest,
) (*mirrorv1.ListDocumentsResponse, error) {
	e.heard(ctx, req)
	return &mirrorv1.ListDocumentsResponse{}, nil
}

func (e mirrorEcho) GetThread(ctx context.Context, req *mirrorv1.GetThreadRequest) (*mirrorv1.GetThreadResponse,
	error,
) {
	e.heard(ctx, req)
	return &mirrorv1.GetThreadResponse{Thread: &mirrorv1.Thread{ThreadId: req.GetThreadId()}}, nil
}

func (e mirrorEcho) ListThreads(ctx context.Context, req *mirrorv1.ListThreadsRequest) (*mirrorv1.ListThreadsResponse,
	error,
) {
	e.heard(ctx, req)
	return &mirrorv1.ListThreadsResponse{}, nil
}

func (e mirrorEcho) GetComment(ctx context.Context, req *mirrorv1.GetCommentRequest) (*mirrorv1.GetCommentResponse,
	error,
) {
	e.heard(ctx, req)
	return &mirrorv1.GetCommentResponse{Comment: &mirrorv1.Comment{CommentId: req.GetCommentId()}}, nil
}

func (e mirrorEcho) ListComments(ctx context.Context,
	req *mirrorv1.ListCommentsRequest,
) (*mirrorv1.ListCommentsResponse, error) {
	e.heard(ctx, req)
	return &mirrorv1.ListCommentsResponse{}, nil
}

func (e mirrorEcho) ListActiveUsers(ctx context.Context,
	req *mirrorv1.ListActiveUsersRequest,
) (*mirrorv1.ListActiveUsersResponse, error) {
	e.heard(ctx, req)
	return &mirrorv1.ListActiveUsersResponse{}, nil
}

func (e mirrorEcho) ListUserSessions(ctx context.Context,
	req *mirrorv1.ListUserSessionsRequest,
) (*mirrorv1.ListUserSessionsResponse, error) {
	e.heard(ctx, req)
	return &mirrorv1.ListUserSessionsResponse{}, nil
}

func (e mirrorEcho) GetFlow(ctx context.Context, req *mirrorv1.GetFlowRequest) (*mirrorv1.GetFlowResponse, error) {
	e.heard(ctx, req)
	return &mirrorv1.GetFlowResponse{Flow: &mirrorv1.Flow{StorageKey: req.GetStorageKey()}}, nil
}

func (e mirrorEcho) ListFlows(ctx context.Context, req *mirrorv1.ListFlowsRequest) (*mirrorv1.ListFlowsResponse,
	error,
) {
	e.heard(ctx, req)
	return &mirrorv1.ListFlowsResponse{}, nil
}

func (e mirrorEcho) GetGroup(ctx context.Context, req *mirrorv1.GetGroupRequest) (*mirrorv1.GetGroupResponse, error) {
	e.heard(ctx, req)
	return &mirrorv1.GetGroupResponse{Group: &mirrorv1.Group{GroupId: req.GetGroupId()}}, nil
}

func (e mirrorEcho) ListGroups(ctx context.Context, req *mirrorv1.ListGroupsRequest) (*mirrorv1.ListGroupsResponse,
	error,
) {
	e.heard(ctx, req)
	return &mirrorv1.ListGroupsResponse{}, nil
}

func (e mirrorEcho) ListNotifications(ctx context.Context,
	req *mirrorv1.ListNotificationsRequest,
) (*mirrorv1.ListNotificationsResponse, error) {
	e.heard(ctx, req)
	return &mirrorv1.ListNotificationsResponse{}, nil
}

type changeEcho struct {
	mirrorv1.UnimplementedChangeServiceServer
	*echo
}

func (e changeEcho) ListChanges(ctx context.Context, req *mirrorv1.ListChangesRequest) (*mirrorv1.ListChangesResponse,
	error,
) {
	e.heard(ctx, req)
	return &mirrorv1.ListChangesResponse{NextToken: "t"}, nil
}

func (e changeEcho) WatchChanges(req *mirrorv1.WatchChangesRequest, stream watchStream) error {
	e.heard(stream.Context(), req)
	e.mu.Lock()
	watch := e.watch
	e.mu.Unlock()
	if watch == nil {
		return nil
	}
	return watch(req, stream)
}

type adminEcho struct {
	mirrorv1.UnimplementedAdminServiceServer
	*echo
}

func (e adminEcho) GetStatus(ctx context.Context, req *mirrorv1.GetStatusRequest) (*mirrorv1.GetStatusResponse, error) {
	e.heard(ctx, req)
	return &mirrorv1.GetStatusResponse{Ready: true}, nil
}

func (e adminEcho) ListTasks(ctx context.Context, req *mirrorv1.ListTasksRequest) (*mirrorv1.ListTasksResponse, error) {
	e.heard(ctx, req)
	return &mirrorv1.ListTasksResponse{}, nil
}

func (e adminEcho) GetTask(ctx context.Context, req *mirrorv1.GetTaskRequest) (*mirrorv1.GetTaskResponse, error) {
	e.heard(ctx, req)
	return &mirrorv1.GetTaskResponse{Task: &mirrorv1.Task{TaskId: req.GetTaskId()}}, nil
}

func (e adminEcho) RetryTask(ctx context.Context, req *mirrorv1.RetryTaskRequest) (*mirrorv1.RetryTaskResponse, error) {
	e.heard(ctx, req)
	return &mirrorv1.RetryTaskResponse{Task: &mirrorv1.Task{TaskId: req.GetTaskId()}}, nil
}

func (e adminEcho) DiscardTask(ctx context.Context,
	req *mirrorv1.DiscardTaskRequest,
) (*mirrorv1.DiscardTaskResponse, error) {
	e.heard(ctx, req)
	return &mirrorv1.DiscardTaskResponse{Task: &mirrorv1.Task{TaskId: req.GetTaskId()}}, nil
}

func (e adminEcho) UnpinProject(ctx context.Context,
	req *mirrorv1.UnpinProjectRequest,
) (*mirrorv1.UnpinProjectResponse, error) {
	e.heard(ctx, req)
	return &mirrorv1.UnpinProjectResponse{}, nil
}

func (e adminEcho) PauseProject(ctx context.Context,
	req *mirrorv1.PauseProjectRequest,
) (*mirrorv1.PauseProjectResponse, error) {
	e.heard(ctx, req)
	return &mirrorv1.PauseProjectResponse{}, nil
}

func (e adminEcho) ResumeProject(ctx context.Context,
	req *mirrorv1.ResumeProjectRequest,
) (*mirrorv1.ResumeProjectResponse, error) {
	e.heard(ctx, req)
	return &mirrorv1.ResumeProjectResponse{}, nil
}

func (e adminEcho) ReplayEvents(req *mirrorv1.ReplayEventsRequest,
	stream grpc.ServerStreamingServer[mirrorv1.ReplayEventsResponse],
) error {
	e.heard(stream.Context(), req)
	return stream.Send(&mirrorv1.ReplayEventsResponse{Done: true})
}

func (e adminEcho) EraseUser(req *mirrorv1.EraseUserRequest,
	stream grpc.ServerStreamingServer[mirrorv1.EraseUserResponse],
) error {
	e.heard(stream.Context(), req)
	return stream.Send(&mirrorv1.EraseUserResponse{Done: true})
}

func (e adminEcho) EraseRoom(ctx context.Context, req *mirrorv1.EraseRoomRequest) (*mirrorv1.EraseRoomResponse, error) {
	e.heard(ctx, req)
	return &mirrorv1.EraseRoomResponse{}, nil
}

func (e adminEcho) RequestSync(ctx context.Context, req *mirrorv1.RequestSyncRequest) (*mirrorv1.RequestSyncResponse,
	error,
) {
	e.heard(ctx, req)
	return &mirrorv1.RequestSyncResponse{Tasks: []*mirrorv1.Task{{RoomId: req.GetRoomId(), Kind: req.GetKind()}}}, nil
}

func (e adminEcho) PinProject(ctx context.Context,
	req *mirrorv1.PinProjectRequest,
) (*mirrorv1.PinProjectResponse, error) {
	e.heard(ctx, req)
	return &mirrorv1.PinProjectResponse{}, nil
}

func (e adminEcho) ConfirmSecretKey(ctx context.Context,
	req *mirrorv1.ConfirmSecretKeyRequest,
) (*mirrorv1.ConfirmSecretKeyResponse, error) {
	e.heard(ctx, req)
	return &mirrorv1.ConfirmSecretKeyResponse{}, nil
}

func (e adminEcho) ConfirmDeletions(ctx context.Context,
	req *mirrorv1.ConfirmDeletionsRequest,
) (*mirrorv1.ConfirmDeletionsResponse, error) {
	e.heard(ctx, req)
	return &mirrorv1.ConfirmDeletionsResponse{}, nil
}

func (e adminEcho) StartBackfill(ctx context.Context,
	req *mirrorv1.StartBackfillRequest,
) (*mirrorv1.StartBackfillResponse, error) {
	e.heard(ctx, req)
	return &mirrorv1.StartBackfillResponse{}, nil
}

func (e adminEcho) GetBackfill(ctx context.Context, req *mirrorv1.GetBackfillRequest) (*mirrorv1.GetBackfillResponse,
	error,
) {
	e.heard(ctx, req)
	return &mirrorv1.GetBackfillResponse{}, nil
}

func (e adminEcho) ListAuditEntries(ctx context.Context,
	req *mirrorv1.ListAuditEntriesRequest,
) (*mirrorv1.ListAuditEntriesResponse, error) {
	e.heard(ctx, req)
	return &mirrorv1.ListAuditEntriesResponse{}, nil
}

func (e adminEcho) VerifyMirror(req *mirrorv1.VerifyMirrorRequest,
	stream grpc.ServerStreamingServer[mirrorv1.VerifyMirrorResponse],
) error {
	e.heard(stream.Context(), req)
	e.mu.Lock()
	verify := e.verify
	e.mu.Unlock()
	if verify != nil {
		return verify(req, stream)
	}
	summary := &mirrorv1.VerifyMirrorResponse_Summary{Summary: &mirrorv1.VerifySummary{}}
	return stream.Send(&mirrorv1.VerifyMirrorResponse{Report: summary})
}

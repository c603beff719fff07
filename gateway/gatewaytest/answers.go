package gatewaytest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/liveblocks-mirror/liveblocks-mirror/gateway"
	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

var answerCases = []testCase{
	{"JSON", jsonForm},
	{"DocumentsInJSON", documentsInJSON},
	{"QueryParameters", queryParameters},
	{"WordsInQueries", wordsInQueries},
	{"JSONBodies", jsonBodies},
	{"ErrorBodies", errorBodies},
	{"RequestIDComesBack", requestID},
	{"ReaderThatStalls", readerStalls},
	{"AnswersAfterAPause", answersAfterPause},
}

// fail returns an error as the service returns it.
func fail(code codes.Code, reason string, retry time.Duration) error {
	st := status.New(code, "no luck")
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{
		Reason: reason, Domain: "liveblocks.mirror.v1",
		Metadata: map[string]string{"room_id": "r"},
	}}
	if retry > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(retry)})
	}
	st, err := st.WithDetails(details...)
	if err != nil {
		return err
	}
	return st.Err()
}

func jsonForm(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	a := r.get(t, "/v1/rooms/r")
	var got struct{ Room map[string]any }
	a.accepted(t, &got)
	want := map[string]any{
		"projectId": "", "roomId": "r", "organizationId": "", "metadata": map[string]any{}, "defaultAccesses": []any{},
		"usersAccesses": map[string]any{}, "groupsAccesses": map[string]any{},
		// Empty values are there, absent ones are not, and int64 is a string.
		"freshness": map[string]any{"revision": "9007199254740993", "contentSha256": "", "stale": false, "refreshError": ""},
	}
	if diff := cmp.Diff(want, got.Room); diff != "" {
		t.Errorf("room (-want +got):\n%s", diff)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Cache-Control": "no-store",
		"X-Content-Type-Options": "nosniff",
	} {
		if got := a.header.Get(name); got != want {
			t.Errorf("%s = %q; want %q", name, got, want)
		}
	}
	if len(a.header["Content-Length"]) != 1 || len(a.header["Access-Control-Allow-Origin"]) != 0 {
		t.Errorf("header = %v; want a length and no CORS", a.header)
	}
}

func documentsInJSON(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	r.onGetRoom(func(context.Context, *mirrorv1.GetRoomRequest) (*mirrorv1.GetRoomResponse, error) {
		value := func(s string) *mirrorv1.MetadataValue {
			return &mirrorv1.MetadataValue{Value: &mirrorv1.MetadataValue_StringValue{StringValue: s}}
		}
		tags := &mirrorv1.MetadataValue_StringList{StringList: &mirrorv1.StringList{Values: []string{"a", "b"}}}
		return &mirrorv1.GetRoomResponse{Room: &mirrorv1.Room{
			Metadata:   map[string]*mirrorv1.MetadataValue{"name": value("x"), "tags": {Value: tags}},
			SourceJson: []byte(`{"n": 9007199254740993.50}`),
		}}, nil
	})
	a := r.get(t, "/v1/rooms/r")
	a.accepted(t, nil)
	for _, want := range []string{
		`"metadata":{"name":"x","tags":["a","b"]},`, `"sourceJson":{"n": 9007199254740993.50}}`,
	} {
		if !strings.Contains(string(a.body), want) {
			t.Errorf("room = %s; want it with %s", a.body, want)
		}
	}
	// What is not JSON after all is a string, and the answer is JSON.
	r.onGetRoom(func(context.Context, *mirrorv1.GetRoomRequest) (*mirrorv1.GetRoomResponse, error) {
		return &mirrorv1.GetRoomResponse{Room: &mirrorv1.Room{SourceJson: []byte("{\xff")}}, nil
	})
	var got struct{ Room struct{ SourceJSON any } }
	r.get(t, "/v1/rooms/r").accepted(t, &got)
	if got.Room.SourceJSON != "{\ufffd" {
		t.Errorf("bytes that are not JSON = %v; want them as a string", got.Room.SourceJSON)
	}
}

func queryParameters(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	r.get(t, "/v1/events?project_id=p&room_id=r&type=storageUpdated&user_id=u&start_time=2026-01-02T03:04:05Z"+
		"&page_size=7&page_token=t&view=EVENT_VIEW_FULL").accepted(t, nil)
	want := &mirrorv1.ListEventsRequest{
		ProjectId: "p", RoomId: "r", Type: "storageUpdated", UserId: "u", PageSize: 7, PageToken: "t",
		View:      mirrorv1.EventView_EVENT_VIEW_FULL,
		StartTime: timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)),
	}
	if diff := cmp.Diff(want, r.onlyCall(t).req, protocmp.Transform()); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	r.get(t, "/v1/rooms/r?maxAge=1.5s&requireFresh=true&showDeleted=true&projectId=p").accepted(t, nil)
	room := &mirrorv1.GetRoomRequest{
		ProjectId: "p", RoomId: "r", ShowDeleted: true, RequireFresh: true, MaxAge: durationpb.New(1500 * time.Millisecond),
	}
	if diff := cmp.Diff(room, r.onlyCall(t).req, protocmp.Transform()); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	for _, query := range []string{
		"room=r", "Room_Id=r", "room_id.x=r", "page_size=x", "page_size=1&page_size=2", "page_size=1&pageSize=2",
		"view=NOPE", "start_time=now", "%zz", "a;b", "%ff=1", "start_time.sekonds=5", "[a]",
	} {
		r.get(t, "/v1/events?"+query).refused(t, http.StatusBadRequest, "REQUEST_INVALID")
	}
	// What the path or the body says, the query does not say again.
	r.get(t, "/v1/rooms/r?room_id=s").refused(t, http.StatusBadRequest, "REQUEST_INVALID")
	r.post(t, "/v1/admin/rooms/r/sync:request?kind=RESOURCE_KIND_ROOM", "").refused(t, http.StatusBadRequest,
		"REQUEST_INVALID")
	r.noCall(t)
}

// Every enum in every query is read as a word, as in the .proto file and as a number.
func wordsInQueries(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	checked := 0
	eachQuery(func(path string, field protoreflect.FieldDescriptor) {
		enum := field.Enum()
		if enum == nil {
			return
		}
		prefix := strings.TrimSuffix(string(enum.Values().ByNumber(0).Name()), "UNSPECIFIED")
		ask := path + "?" + field.JSONName() + "="
		r.get(t, ask+"nope").refused(t, http.StatusBadRequest, "REQUEST_INVALID")
		r.noCall(t)
		for i := range enum.Values().Len() {
			value := enum.Values().Get(i)
			word := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(string(value.Name()), prefix), "_", "-"))
			codes := map[int]bool{}
			for _, spelling := range []string{word, string(value.Name())} {
				a := r.get(t, ask+spelling)
				codes[a.code] = true
				if a.code != http.StatusOK && strings.Contains(path, ":read") { // a document has a kind, and not all formats
					a.refused(t, http.StatusBadRequest, "REQUEST_INVALID")
					continue
				}
				a.accepted(t, nil)
				req, _ := r.onlyCall(t).req.(proto.Message)
				if got := req.ProtoReflect().Get(field).Enum(); got != value.Number() {
					t.Errorf("%s%s asks for %d; want %d", ask, spelling, got, value.Number())
				}
				checked++
			}
			if len(codes) != 1 {
				t.Errorf("%s answers %s and %s differently", ask, word, value.Name())
			}
		}
	})
	if checked < 50 {
		t.Errorf("%d values asked for; want those of all routes", checked)
	}
	a := r.get(t, "/v1/admin/tasks?state=FAILED")
	a.refused(t, http.StatusBadRequest, "REQUEST_INVALID")
	if got, want := a.failure(t).Message, "state is one of done, failed, pending, running, waiting"; got != want {
		t.Errorf("error of an unknown word = %q; want %q", got, want)
	}
}

// eachQuery calls f for the query parameters of every GET route of the API, with a path
// that the route takes.
func eachQuery(f func(path string, field protoreflect.FieldDescriptor)) {
	variable := regexp.MustCompile(`\{(\w+)\}`)
	for _, file := range []protoreflect.FileDescriptor{
		mirrorv1.File_liveblocks_mirror_v1_admin_service_proto,
		mirrorv1.File_liveblocks_mirror_v1_event_service_proto,
		mirrorv1.File_liveblocks_mirror_v1_mirror_service_proto,
	} {
		methods := file.Services().Get(0).Methods()
		for i := range methods.Len() {
			rule, _ := proto.GetExtension(methods.Get(i).Options(), annotations.E_Http).(*annotations.HttpRule)
			for _, binding := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
				fields := methods.Get(i).Input().Fields()
				for j := range fields.Len() {
					if path := binding.GetGet(); path != "" && !strings.Contains(path, "{"+fields.Get(j).TextName()+"}") {
						f(variable.ReplaceAllString(path, "$1"), fields.Get(j))
					}
				}
			}
		}
	}
}

func jsonBodies(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	const path = "/v1/admin/rooms/a%2Fb/sync:request"
	for body, kind := range map[string]mirrorv1.ResourceKind{
		"": 0, "{}": 0, `{"kind":"RESOURCE_KIND_STORAGE"}`: mirrorv1.ResourceKind_RESOURCE_KIND_STORAGE,
		`{"kind":"active-users"}`: mirrorv1.ResourceKind_RESOURCE_KIND_ACTIVE_USERS,
		` {"kind" : 1} `:          mirrorv1.ResourceKind_RESOURCE_KIND_ROOM,
		// The path has the last word.
		`{"roomId":"other"}`: 0,
	} {
		r.post(t, path, body, "Content-Type", "text/plain").accepted(t, nil)
		want := &mirrorv1.RequestSyncRequest{RoomId: "a/b", Kind: kind}
		if diff := cmp.Diff(want, r.onlyCall(t).req, protocmp.Transform()); diff != "" {
			t.Errorf("request of %s (-want +got):\n%s", body, diff)
		}
	}
	for _, body := range []string{
		"{", "null", "[]", `{"kindd":1}`, `{"kind":"X"}`, "{} {}", `{"kind":1,"kind":1}`,
		"\xff", "kind=1",
	} {
		a := r.post(t, path, body)
		a.request = "a body of " + body
		a.refused(t, http.StatusBadRequest, "REQUEST_INVALID")
		if strings.Contains(string(a.body), "\u00a0") {
			t.Errorf("error %s holds a space that comes and goes", a.body)
		}
	}
	r.noCall(t)
}

func errorBodies(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	failWith := func(err error) {
		r.onGetRoom(func(context.Context, *mirrorv1.GetRoomRequest) (*mirrorv1.GetRoomResponse, error) { return nil, err })
	}
	failWith(fail(codes.Unavailable, "REFRESH_FAILED", 90*time.Second))
	a := r.get(t, "/v1/rooms/r")
	a.refused(t, http.StatusServiceUnavailable, "REFRESH_FAILED")
	var got any
	if err := json.Unmarshal(a.body, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"code": 14.0, "message": "no luck", "details": []any{
		map[string]any{
			"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "REFRESH_FAILED",
			"domain": "liveblocks.mirror.v1", "metadata": map[string]any{"room_id": "r"},
		},
		map[string]any{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "90s"},
	}}
	if diff := cmp.Diff(any(want), got); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
	if after := a.header.Get("Retry-After"); after != "90" {
		t.Errorf("Retry-After = %q; want 90", after)
	}
	for _, c := range []struct {
		err    error
		code   int
		reason string
	}{
		{fail(codes.NotFound, "ROOM_NOT_MIRRORED", 0), 404, "ROOM_NOT_MIRRORED"},
		{fail(codes.InvalidArgument, "ID_INVALID", 0), 400, "ID_INVALID"},
		{fail(codes.FailedPrecondition, "DOCUMENT_TOO_LARGE", 0), 400, "DOCUMENT_TOO_LARGE"},
		{fail(codes.OutOfRange, "CHANGE_TOKEN_EXPIRED", 0), 410, "CHANGE_TOKEN_EXPIRED"},
		{status.Error(codes.Unimplemented, "not here"), 501, ""},
		{status.Error(codes.Unavailable, "dial tcp 10.0.0.1: secret"), 503, ""},
		{errors.New("pq: secret"), 500, "INTERNAL"},
		{status.Error(codes.Internal, "secret"), 500, "INTERNAL"},
	} {
		failWith(c.err)
		a := r.get(t, "/v1/rooms/r")
		a.refused(t, c.code, c.reason)
		if strings.Contains(string(a.body), "secret") {
			t.Errorf("%v reached the caller as %s", c.err, a.body)
		}
	}
	// Mutating an error of the gateway's own would show here.
	for range 2 {
		r.get(t, "/nowhere").refused(t, http.StatusNotFound, "ROUTE_NOT_FOUND")
	}
}

func requestID(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	for _, failure := range []error{nil, fail(codes.NotFound, "ROOM_NOT_MIRRORED", 0)} {
		r.onGetRoom(func(ctx context.Context, _ *mirrorv1.GetRoomRequest) (*mirrorv1.GetRoomResponse, error) {
			if err := grpc.SetHeader(ctx, metadata.Pairs("x-request-id", "one", "x-internal", "two")); err != nil {
				return nil, err
			}
			return &mirrorv1.GetRoomResponse{}, failure
		})
		a := r.get(t, "/v1/rooms/r")
		if got := a.header.Get("X-Request-Id"); got != "one" {
			t.Errorf("X-Request-Id = %q; want one", got)
		}
		for name := range a.header {
			if strings.Contains(strings.ToLower(name), "internal") {
				t.Errorf("%s reached the caller", name)
			}
		}
	}
}

// readerStalls checks that a client that does not read its response is
// disconnected, for every kind of response.
func readerStalls(t *testing.T, dial Dial) {
	const big = 3 << 20
	for name, request := range map[string]string{
		"a call":     "GET /v1/rooms/r HTTP/1.1\r\nHost: x\r\n\r\n",
		"a document": "GET " + document + " HTTP/1.1\r\nHost: x\r\n\r\n",
		// None of these fills a buffer, so it is net/http that is stuck, behind the handler.
		"many small answers": strings.Repeat("GET /v1/rooms HTTP/1.1\r\nHost: x\r\n\r\n", 2000),
		"many webhooks":      strings.Repeat("POST "+hook+" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 2000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := new(echo)
			e.onGetRoom(func(context.Context, *mirrorv1.GetRoomRequest) (*mirrorv1.GetRoomResponse, error) {
				return &mirrorv1.GetRoomResponse{Room: &mirrorv1.Room{SourceJson: make([]byte, big)}}, nil
			})
			e.onRead(chunked(make([]byte, big), 64<<10, nil))
			g, err := gateway.New(gateway.Config{Conn: dial(t, e.register), MaxBody: maxBody, WriteStall: 50 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			s := httptest.NewUnstartedServer(g.Handler())
			closed := make(chan struct{})
			s.Config.ErrorLog = nil
			s.Config.ConnState = func(conn net.Conn, state http.ConnState) {
				switch tcp, ok := conn.(*net.TCPConn); {
				case state == http.StateNew && ok: // buffers that are soon full
					_ = tcp.SetWriteBuffer(4 << 10)
				case state == http.StateClosed:
					close(closed)
				}
			}
			s.Start()
			t.Cleanup(s.Close)
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if tcp, ok := conn.(*net.TCPConn); !ok || tcp.SetReadBuffer(4<<10) != nil {
				t.Fatal("the client's buffer cannot be made small")
			}
			if _, err := io.WriteString(conn, request); err != nil {
				t.Fatal(err)
			}
			select {
			case <-closed:
			case <-time.After(20 * time.Second):
				t.Error("the connection is held by a client that reads nothing")
			}
		})
	}
}

// answersAfterPause checks that the write deadline applies to one write: not to the
// call before it, nor to the next response on the connection.
func answersAfterPause(t *testing.T, dial Dial) {
	const stall = 300 * time.Millisecond
	r := newRig(t, dial, func(cfg *gateway.Config) { cfg.WriteStall = stall })
	pause := func() {
		timer := time.NewTimer(stall + 100*time.Millisecond)
		defer timer.Stop()
		<-timer.C
	}
	r.onGetRoom(func(context.Context, *mirrorv1.GetRoomRequest) (*mirrorv1.GetRoomResponse, error) {
		pause() // a call may take longer than its answer
		return &mirrorv1.GetRoomResponse{}, nil
	})
	r.onRead(func(_ *mirrorv1.ReadDocumentRequest, stream grpc.ServerStreamingServer[httpbody.HttpBody]) error {
		for range 3 { // a document that comes steadily may take longer as well
			if err := stream.Send(&httpbody.HttpBody{Data: []byte("x")}); err != nil {
				return err
			}
			pause()
		}
		return nil
	})
	for range 2 {
		r.get(t, "/v1/rooms/r").accepted(t, nil)
		r.get(t, document).accepted(t, nil)
		pause()
	}
}

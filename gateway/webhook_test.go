package gateway

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	mirrorgw "github.com/liveblocks-mirror/liveblocks-mirror/gen/gateway/liveblocks/mirror/v1"
	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

// oneAnswer is a service that answers everything alike and remembers the call.
type oneAnswer struct {
	grpc.ClientConnInterface

	resp   *mirrorv1.ReceiveWebhookResponse
	err    error
	header metadata.MD

	heard []string // what the service got to see, in words
	req   proto.Message
	md    metadata.MD
}

func (o *oneAnswer) Invoke(ctx context.Context, method string, req, reply any, opts ...grpc.CallOption) error {
	deadline := "none"
	if at, ok := ctx.Deadline(); ok {
		deadline = time.Until(at).Round(time.Minute).String()
	}
	o.heard = append(o.heard, fmt.Sprintf("%s, deadline %s, %v", method, deadline, ctx.Err()))
	from, to, err := messages(req, reply)
	if err != nil {
		return err
	}
	o.req = proto.Clone(from)
	o.md, _ = metadata.FromOutgoingContext(ctx)
	for _, opt := range opts {
		if h, ok := opt.(grpc.HeaderCallOption); ok {
			*h.HeaderAddr = o.header
		}
	}
	if o.err == nil {
		proto.Merge(to, o.resp)
	}
	return o.err
}

func messages(req, reply any) (from, to proto.Message, err error) {
	from, ok := req.(proto.Message)
	to, ok2 := reply.(proto.Message)
	if !ok || !ok2 {
		return nil, nil, fmt.Errorf("a call from %T to %T", req, reply)
	}
	return from, to, nil
}

// generated is how a delivery would be handled without a handler of our own.
func generated(t testing.TB, g *Gateway, conn grpc.ClientConnInterface) http.Handler {
	t.Helper()
	mux := runtime.NewServeMux(
		runtime.WithUnescapingMode(runtime.UnescapingModeAllExceptSlash),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
		runtime.WithMarshalerOption(runtime.MIMEWildcard, marshaler{}),
		runtime.WithIncomingHeaderMatcher(matchIncoming),
		runtime.WithOutgoingHeaderMatcher(matchOutgoing),
		runtime.WithErrorHandler(func(ctx context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter,
			_ *http.Request, err error,
		) {
			md, _ := runtime.ServerMetadataFromContext(ctx)
			g.answerFailure(ctx, w, md.HeaderMD, err, true)
		}),
		runtime.WithWriteContentLength(),
	)
	if err := mirrorgw.RegisterEventServiceHandlerClient(t.Context(), mux,
		mirrorv1.NewEventServiceClient(conn)); err != nil {
		t.Fatal(err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secure(w.Header())
		data, p := g.readBody(w, r, g.maxBody)
		if p != nil {
			t.Fatalf("body: %s", p.text)
		}
		in := r.WithContext(r.Context())
		in.Host = ""
		in.Header = make(http.Header)
		for _, name := range append(signatureHeaders[:], "Grpc-Timeout") {
			if v, ok := r.Header[name]; ok {
				in.Header[name] = v
			}
		}
		in.Body = &body{data: data}
		mux.ServeHTTP(w, in)
	})
}

// The handler of deliveries does what the generated one would: the service sees the
// same call and the sender the same answer, byte for byte.
func TestWebhookEqualsGenerated(t *testing.T) {
	t.Parallel()
	if n := (*mirrorv1.ReceiveWebhookResponse)(nil).ProtoReflect().Descriptor().Fields().Len(); n != 3 {
		t.Fatalf("an answer to a delivery has %d fields; receipts writes 3", n)
	}
	conn := new(oneAnswer)
	g, err := New(Config{Conn: conn, MaxBody: 1 << 10})
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := g.Handler(), generated(t, g, conn)

	targets := rapid.SampledFrom([]string{
		"/v1/webhooks/liveblocks", "/api/liveblocks-webhook", "/v1/projects/blue/webhooks/liveblocks",
		"/v1/projects//webhooks/liveblocks",
		"/v1/projects/a%2Fb%25%20c/webhooks/liveblocks", "/v1/projects/a%252Fb/webhooks/liveblocks",
		"/v1/projects/:x/webhooks/liveblocks",
	})
	queries := rapid.SampledFrom([]string{
		"", "", "", "?project_id=red", "?projectId=red", "?project_id=red&project_id=blue", "?project_id=red&projectId=blue",
		"?project_id=",
		"?utm=x", "?body=x", "?body.data=aGk=", "?body.content_type=x", "?project_id[x]=y", "?project_id.x=y",
	})
	ids := rapid.OneOf(rapid.String(), rapid.StringMatching(`msg_[A-Za-z0-9]{8}`),
		rapid.SampledFrom([]string{`"`, `\`, "<&>", "\x7f", "ü", "", "\xff", "the id"}))
	headers := rapid.SampledFrom([]string{
		"Webhook-Id: msg_1", "Webhook-Timestamp: 1", "Webhook-Signature: v1,x v1,y",
		"Svix-Id: msg_2", "Webhook-Id: ",
	})
	others := rapid.SampledFrom([]string{
		"Authorization: Bearer x", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Host: x", "Grpc-Metadata-Webhook-Id: x",
		"Cookie: x", "Te: trailers",
		"X-Request-Id: x", "Content-Type: application/x-www-form-urlencoded", "Grpc-Timeout: 5M", "Grpc-Timeout: soon",
		"Grpc-Timeout: 0S", "X-Http-Method-Override: GET",
	})
	failures := rapid.SampledFrom([]error{
		status.Error(codes.Unavailable, "away"), status.Error(codes.Unauthenticated, "no"),
		status.Error(codes.Internal, "oops"),
		context.DeadlineExceeded,
		problem{code: codes.InvalidArgument, reason: mirrorv1.ErrorReason_ERROR_REASON_EVENT_ID_INVALID, text: "no"}.err(),
		problem{
			code: codes.Unavailable, reason: mirrorv1.ErrorReason_ERROR_REASON_ACCEPT_QUEUE_FULL, text: "full",
			retry: time.Minute,
		}.err(),
	})
	rapid.Check(t, func(rt *rapid.T) {
		lines := rapid.SliceOfNDistinct(headers, 0, 4, func(line string) string { return line[:len("Webhook-I")] }).Draw(rt,
			"signature")
		lines = append(lines, rapid.SliceOfNDistinct(others, 0, 3, func(line string) string { return line[:5] }).Draw(rt,
			"other headers")...)
		sent := rapid.SliceOfN(rapid.Byte(), 0, 64).Draw(rt, "body")
		request := fmt.Sprintf("POST %s%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n%s",
			targets.Draw(rt, "target"), queries.Draw(rt, "query"), len(sent), strings.Join(append(lines, ""), "\r\n"), sent)
		remote := rapid.SampledFrom([]string{"192.0.2.7:1234", "[2001:db8::1]:1", "[fe80::1%eth0]:1", "pipe", ""}).Draw(rt,
			"peer")

		conn.resp = &mirrorv1.ReceiveWebhookResponse{
			EventId: ids.Draw(rt, "id"), Duplicate: rapid.Bool().Draw(rt, "duplicate"),
			Outcome: mirrorv1.EventOutcome(rapid.Int32Range(-1, 9).Draw(rt, "outcome")),
		}
		conn.err, conn.header = nil, nil
		if rapid.IntRange(0, 3).Draw(rt, "fails") == 0 {
			conn.err = failures.Draw(rt, "failure")
		}
		if rapid.Bool().Draw(rt, "header") {
			conn.header = metadata.Pairs("x-request-id", "one", "x-internal", "two")
		}

		type outcome struct {
			heard  []string
			req    proto.Message
			md     metadata.MD
			code   int
			header http.Header
			answer string
		}
		handle := func(h http.Handler) outcome {
			r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(request)))
			if err != nil {
				rt.Fatalf("%q: %v", request, err)
			}
			r.RemoteAddr = remote
			conn.heard, conn.req, conn.md = nil, nil, nil
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return outcome{
				heard: conn.heard, req: conn.req, md: conn.md, code: w.Code, header: w.Header(),
				answer: w.Body.String(),
			}
		}
		want, got := handle(theirs), handle(ours)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(outcome{}), cmpopts.EquateEmpty(),
			protocmp.Transform()); diff != "" {
			rt.Errorf("%q (-generated +ours):\n%s", request, diff)
		}
	})
}

// err is p as the service would return it.
func (p problem) err() error { return status.FromProto(p.status()).Err() }

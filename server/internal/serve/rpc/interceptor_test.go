package rpc

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	otelcodes "go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/tracing"
)

func TestOrderOfTheChain(t *testing.T) {
	t.Parallel()
	var got []string
	for _, i := range New(Config{}).interceptors() {
		got = append(got, i.name)
	}
	want := []string{"request id", "log", "metrics", "recovery", "errors", "auth", "audit", "validate", "record"}
	if !slices.Equal(got, want) {
		t.Errorf("interceptors = %v; want %v", got, want)
	}
}

// Interceptors run in the order they are listed, for unary calls and streams.
func TestInterceptorsRunInOrder(t *testing.T) {
	t.Parallel()
	var trace []string
	around := func(name string) func(context.Context, string, func(context.Context) error) error {
		return func(ctx context.Context, _ string, next func(context.Context) error) error {
			trace = append(trace, name)
			err := next(ctx)
			trace = append(trace, "/"+name)
			return err
		}
	}
	chain := []interceptor{
		{name: "a", around: around("a")},
		{name: "b", request: func(context.Context, any) error { trace = append(trace, "b"); return nil }},
		{name: "c", around: around("c")},
	}
	handler := func(context.Context) error { trace = append(trace, "handler"); return nil }
	if err := run(t.Context(), chain, "/m", "request", handler); err != nil {
		t.Fatal(err)
	}
	if want := "a b c handler /c /a"; strings.Join(trace, " ") != want {
		t.Errorf("unary ran %v; want %s", trace, want)
	}

	trace = nil
	if err := run(t.Context(), chain, "/m", nil, handler); err != nil {
		t.Fatal(err)
	}
	if want := "a c handler /c /a"; strings.Join(trace, " ") != want {
		t.Errorf("stream ran %v; want %s", trace, want)
	}
	trace = nil
	s := &checkedStream{ServerStream: silentStream{}, chain: chain}
	if err := s.RecvMsg("request"); err != nil || strings.Join(trace, " ") != "b" {
		t.Errorf("RecvMsg = %v and ran %v; want b", err, trace)
	}
}

type silentStream struct{ grpc.ServerStream }

func (silentStream) RecvMsg(any) error { return nil }

// Refusals and panics are logged with the code that was sent, and
// who may not call is not told what is wrong with his request.
func TestEveryEndIsSeen(t *testing.T) {
	t.Parallel()
	h := start(t, func(d *Config) { d.Guard = guardOf("good") })
	bad := t.Context()
	good := withMetadata(bad, "authorization", "Bearer good", "x-request-id", "my-id")
	h.query.rooms = []mirror.Room{{Project: project, ID: "r", Source: []byte(`{}`)}}
	panicking := func(context.Context) error { panic("at the disco") }

	for _, c := range []struct {
		token  bool
		room   string
		err    func(context.Context) error
		code   codes.Code
		reason fault.Reason
	}{
		{false, "", nil, codes.Unauthenticated, fault.ReasonCredentialMissing},
		{true, "", nil, codes.InvalidArgument, fault.ReasonRequestInvalid},
		{true, "r", nil, codes.OK, ""},
		{true, "r", panicking, codes.Internal, fault.ReasonInternal},
	} {
		ctx := bad
		if c.token {
			ctx = good
		}
		h.query.err = c.err
		_, err := h.mirror.GetRoom(ctx, &mirrorv1.GetRoomRequest{RoomId: c.room})
		wantStatus(t, err, c.code, c.reason)
		_, _, err = readDocument(ctx, h, &mirrorv1.ReadDocumentRequest{RoomId: c.room})
		if c.code == codes.OK { // there is no document
			c.code, c.reason = codes.NotFound, fault.ReasonDocumentNotMirrored
		}
		wantStatus(t, err, c.code, c.reason)
	}
	log := h.log.String()
	if got := strings.Count(log, "msg=rpc"); got != 8 {
		t.Errorf("%d lines for 8 calls:\n%s", got, log)
	}
	if strings.Count(log, "level=WARN") != 2 || strings.Count(log, "at the disco") != 2 ||
		!strings.Contains(log, "rpc_test.go") {
		t.Errorf("the panics are not logged once each with their stacks:\n%s", log)
	}
	if strings.Count(log, "request_id=my-id") != 6 {
		t.Errorf("the caller's request id is not in every line of his:\n%s", log)
	}
	if strings.Contains(log, "Bearer") || strings.Contains(log, "good") {
		t.Errorf("the log shows a token:\n%s", log)
	}
}

func TestForgedRequestIDIsReplaced(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]bool{
		"a-B_3.x": true, "": false, "a b": false, "a=b": false, strings.Repeat("a", 65): false, "ü": false,
	} {
		if got := plainWord(id); got != want {
			t.Errorf("plainWord(%q) = %v; want %v", id, got, want)
		}
	}
}

// Every RPC of the server, those of reflection included, needs a token, except the
// one that is guarded by a signature, and those of health.
func TestEveryRPCNeedsAToken(t *testing.T) {
	t.Parallel()
	h := start(t, func(d *Config) { d.Guard = guardOf("old", "new") })
	call := func(ctx context.Context, method string) error {
		stream, err := h.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
		if err != nil {
			return err
		}
		_ = stream.SendMsg(&emptypb.Empty{})
		_ = stream.CloseSend()
		return stream.RecvMsg(&emptypb.Empty{})
	}
	var seen int
	for service, info := range h.server.GetServiceInfo() {
		for _, method := range info.Methods {
			full := "/" + service + "/" + method.Name
			seen++
			if service == healthv1.Health_ServiceDesc.ServiceName {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second) // Watch waits for more
				if err := call(ctx, full); status.Code(err) == codes.Unauthenticated {
					t.Errorf("%s without a token = %v", full, err)
				}
				cancel()
				continue
			}
			without := call(t.Context(), full)
			if full == mirrorv1.EventService_ReceiveWebhook_FullMethodName {
				wantStatus(t, without, codes.Unauthenticated, fault.ReasonSignatureMissing)
				continue
			}
			wantStatus(t, without, codes.Unauthenticated, fault.ReasonCredentialMissing)
			wantStatus(t, call(withMetadata(t.Context(), "authorization", "Bearer wrong"), full), codes.Unauthenticated,
				fault.ReasonCredentialInvalid)
			twice := withMetadata(t.Context(), "authorization", "Bearer wrong", "authorization", "Bearer new")
			wantStatus(t, call(twice, full), codes.Unauthenticated, fault.ReasonCredentialInvalid)
			ctx, cancel := context.WithTimeout(withMetadata(t.Context(), "authorization", "Bearer new"), time.Second)
			if err := call(ctx, full); status.Code(err) == codes.Unauthenticated {
				t.Errorf("%s with a token = %v", full, err)
			}
			cancel()
		}
	}
	// 3 + 17 + 2 + 19 of ours, 3 of health (Check, List, Watch), 1 of each reflection.
	if seen != 46 {
		t.Errorf("saw %d RPCs; want 46", seen)
	}
}

func TestReflectionAndHealth(t *testing.T) {
	t.Parallel()
	h := start(t)
	stream, err := reflectionv1.NewServerReflectionClient(h.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(&reflectionv1.ServerReflectionRequest{
		MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{ListServices: "*"},
	})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	_ = stream.CloseSend()
	var services []string
	for _, s := range answer.GetListServicesResponse().GetService() {
		services = append(services, s.GetName())
	}
	want := []string{
		"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
		"liveblocks.mirror.v1.AdminService", "liveblocks.mirror.v1.ChangeService", "liveblocks.mirror.v1.EventService",
		"liveblocks.mirror.v1.MirrorService",
	}
	if slices.Sort(services); !slices.Equal(services, want) {
		t.Errorf("services = %v; want %v", services, want)
	}

	client := healthv1.NewHealthClient(h.conn)
	for _, serving := range []bool{false, true, false} {
		state := healthv1.HealthCheckResponse_NOT_SERVING
		if serving {
			state = healthv1.HealthCheckResponse_SERVING
		}
		h.services.SetServing(serving)
		for _, service := range []string{"", "liveblocks.mirror.v1.EventService", "liveblocks.mirror.v1.AdminService"} {
			got, err := client.Check(t.Context(), &healthv1.HealthCheckRequest{Service: service})
			if err != nil || got.GetStatus() != state {
				t.Errorf("Check(%q) = %v, %v; want %v", service, got.GetStatus(), err, state)
			}
		}
	}
	_, err = client.Check(t.Context(), &healthv1.HealthCheckRequest{Service: "no such"})
	wantStatus(t, err, codes.NotFound, "")
}

// A span fails with what went wrong at the server, and not with a caller's mistake. No
// caller decides whether he is traced.
func TestSpansOfCalls(t *testing.T) {
	t.Parallel()
	failing := []codes.Code{
		codes.Unknown, codes.DeadlineExceeded, codes.Unimplemented, codes.Internal, codes.Unavailable, codes.DataLoss,
	}
	const method = mirrorv1.MirrorService_GetRoom_FullMethodName
	for code := range codes.Unauthenticated + 1 {
		spans := tracetest.NewInMemoryExporter()
		provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
		s := &Services{tracer: &tracing.Tracer{Tracer: provider.Tracer("test")}, types: methodTypes()}
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("traceparent",
			"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"))
		err := s.trace(ctx, method, func(context.Context) error { return status.Error(code, "text") })
		got := spans.GetSpans()
		if status.Code(err) != code || len(got) != 1 || got[0].Parent.IsValid() || len(got[0].Links) != 1 {
			t.Fatalf("%s: %v, with the spans %v; want one without a parent", code, err, got)
		}
		if failed := got[0].Status.Code == otelcodes.Error; failed != slices.Contains(failing, code) {
			t.Errorf("%s: the span has failed: %t", code, failed)
		}
	}
}

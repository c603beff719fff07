package inproc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is a service whose two calls are given by the test.
type script struct {
	mirrorv1.UnimplementedMirrorServiceServer
	get  func(context.Context, *mirrorv1.GetRoomRequest) (*mirrorv1.GetRoomResponse, error)
	read func(*mirrorv1.ReadDocumentRequest, grpc.ServerStreamingServer[httpbody.HttpBody]) error
}

func (s *script) GetRoom(ctx context.Context, req *mirrorv1.GetRoomRequest) (*mirrorv1.GetRoomResponse, error) {
	return s.get(ctx, req)
}

func (s *script) ReadDocument(req *mirrorv1.ReadDocumentRequest,
	stream grpc.ServerStreamingServer[httpbody.HttpBody],
) error {
	return s.read(req, stream)
}

// interceptors are passed by every call of the tests.
type interceptors struct{ unary, stream atomic.Int64 }

func (i *interceptors) onUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo,
	handler grpc.UnaryHandler,
) (any, error) {
	i.unary.Add(1)
	if info.FullMethod != mirrorv1.MirrorService_GetRoom_FullMethodName {
		return nil, fmt.Errorf("intercepted %s", info.FullMethod)
	}
	return handler(ctx, req)
}

func (i *interceptors) onStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo,
	handler grpc.StreamHandler,
) error {
	i.stream.Add(1)
	if info.FullMethod != mirrorv1.MirrorService_ReadDocument_FullMethodName || !info.IsServerStream ||
		info.IsClientStream {
		return fmt.Errorf("intercepted %+v", info)
	}
	return handler(srv, ss)
}

func overWire(t testing.TB, s *script, i *interceptors) grpc.ClientConnInterface {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.UnaryInterceptor(i.onUnary), grpc.StreamInterceptor(i.onStream))
	mirrorv1.RegisterMirrorServiceServer(server, s)
	return dial(t, server, l, "passthrough:///bufconn", grpc.WithContextDialer(
		func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
}

func dial(t testing.TB, server *grpc.Server, l net.Listener, target string,
	opts ...grpc.DialOption,
) grpc.ClientConnInterface {
	t.Helper()
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	conn, err := grpc.NewClient(target, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatalf("NewClient: %v", err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		server.Stop()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return conn
}

func inProcess(_ testing.TB, s *script, i *interceptors) grpc.ClientConnInterface {
	c := New(i.onUnary, i.onStream)
	mirrorv1.RegisterMirrorServiceServer(c, s)
	return c
}

// eachWay runs a test over the wire and in process. What holds for both shows
// that a caller cannot tell them apart.
func eachWay(t *testing.T, test func(t *testing.T, s *script, i *interceptors, client mirrorv1.MirrorServiceClient)) {
	t.Helper()
	for name, connect := range map[string]func(testing.TB, *script, *interceptors) grpc.ClientConnInterface{
		"wire": overWire, "inproc": inProcess,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, i := new(script), new(interceptors)
			test(t, s, i, mirrorv1.NewMirrorServiceClient(connect(t, s, i)))
		})
	}
}

// only keeps the keys the tests use: a wire adds some of its own.
func only(md metadata.MD) metadata.MD {
	kept := metadata.MD{}
	for k, v := range md {
		if strings.HasPrefix(k, "x-") {
			kept[k] = v
		}
	}
	return kept
}

type ctxKey struct{}

func TestUnary(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, s *script, i *interceptors, client mirrorv1.MirrorServiceClient) {
		s.get = func(ctx context.Context, req *mirrorv1.GetRoomRequest) (*mirrorv1.GetRoomResponse, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			if diff := cmp.Diff(metadata.MD{"x-one": {"1"}, "x-two": {"2", "3"}, "x-raw-bin": {"\x00\xff"}},
				only(md)); diff != "" {
				return nil, status.Errorf(codes.Internal, "incoming metadata (-want +got):\n%s", diff)
			}
			if out, ok := metadata.FromOutgoingContext(ctx); ok {
				return nil, status.Errorf(codes.Internal, "outgoing metadata reached the service: %v", out)
			}
			if v := ctx.Value(ctxKey{}); v != nil {
				return nil, status.Errorf(codes.Internal, "a value of the caller's context reached the service: %v", v)
			}
			if _, ok := ctx.Deadline(); !ok {
				return nil, status.Error(codes.Internal, "no deadline")
			}
			if p, ok := peer.FromContext(ctx); !ok || p.Addr == nil {
				return nil, status.Error(codes.Internal, "no peer")
			}
			if m, ok := grpc.Method(ctx); !ok || m != mirrorv1.MirrorService_GetRoom_FullMethodName {
				return nil, status.Errorf(codes.Internal, "Method = %q", m)
			}
			if err := errors.Join(
				grpc.SetHeader(ctx, metadata.Pairs("x-h", "a")),
				grpc.SendHeader(ctx, metadata.Pairs("x-h", "b")),
				grpc.SetTrailer(ctx, metadata.Pairs("x-t", "c")),
			); err != nil {
				return nil, err
			}
			if err := grpc.SetHeader(ctx, metadata.Pairs("x-late", "d")); err == nil {
				return nil, status.Error(codes.Internal, "SetHeader after SendHeader succeeded")
			}
			return &mirrorv1.GetRoomResponse{Room: &mirrorv1.Room{RoomId: req.GetRoomId()}}, nil
		}
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), ctxKey{}, "secret"), time.Minute)
		defer cancel()
		ctx = metadata.NewOutgoingContext(ctx, metadata.MD{"x-one": {"1"}, "te": {"dropped"}})
		ctx = metadata.AppendToOutgoingContext(ctx, "x-two", "2", "X-Two", "3", "x-raw-bin", "\x00\xff")
		var header, trailer metadata.MD
		var from peer.Peer
		finished := errors.New("never finished")
		resp, err := client.GetRoom(ctx, &mirrorv1.GetRoomRequest{RoomId: "a/b"},
			grpc.Header(&header), grpc.Trailer(&trailer), grpc.Peer(&from), grpc.OnFinish(func(err error) { finished = err }))
		if err != nil {
			t.Fatalf("GetRoom: %v", err)
		}
		if diff := cmp.Diff(&mirrorv1.GetRoomResponse{Room: &mirrorv1.Room{RoomId: "a/b"}}, resp,
			protocmp.Transform()); diff != "" {
			t.Errorf("GetRoom (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(metadata.MD{"x-h": {"a", "b"}}, only(header)); diff != "" {
			t.Errorf("header (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(metadata.MD{"x-t": {"c"}}, only(trailer)); diff != "" {
			t.Errorf("trailer (-want +got):\n%s", diff)
		}
		if from.Addr == nil || finished != nil || i.unary.Load() != 1 {
			t.Errorf("peer %v, finished with %v, %d interceptions; want an address, nil, 1", from.Addr, finished, i.unary.Load())
		}
	})
}

func TestErrors(t *testing.T) {
	t.Parallel()
	detailed, err := status.New(codes.NotFound,
		"no such room").WithDetails(&errdetails.ErrorInfo{Reason: "ROOM_NOT_MIRRORED"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ err, want error }{
		"status":         {detailed.Err(), detailed.Err()},
		"wrapped status": {fmt.Errorf("get: %w", detailed.Err()), wrapped(detailed, "get: ")},
		"plain":          {errors.New("boom"), status.Error(codes.Unknown, "boom")},
		"cancelled": {
			fmt.Errorf("query: %w", context.Canceled),
			status.Error(codes.Canceled, "query: context canceled"),
		},
		"deadline": {context.DeadlineExceeded, status.Error(codes.DeadlineExceeded, "context deadline exceeded")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachWay(t, func(t *testing.T, s *script, _ *interceptors, client mirrorv1.MirrorServiceClient) {
				s.get = func(ctx context.Context, _ *mirrorv1.GetRoomRequest) (*mirrorv1.GetRoomResponse, error) {
					_ = grpc.SetTrailer(ctx, metadata.Pairs("x-t", "c"))
					return nil, c.err
				}
				s.read = func(*mirrorv1.ReadDocumentRequest, grpc.ServerStreamingServer[httpbody.HttpBody]) error { return c.err }
				var trailer metadata.MD
				_, err := client.GetRoom(t.Context(), &mirrorv1.GetRoomRequest{}, grpc.Trailer(&trailer))
				if diff := cmp.Diff(status.Convert(c.want).Proto(), status.Convert(err).Proto(), protocmp.Transform()); diff != "" {
					t.Errorf("GetRoom (-want +got):\n%s", diff)
				}
				if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("GetRoom = %v, which still holds the service's own error", err)
				}
				if diff := cmp.Diff(metadata.MD{"x-t": {"c"}}, only(trailer)); diff != "" {
					t.Errorf("trailer (-want +got):\n%s", diff)
				}
				stream, err := client.ReadDocument(t.Context(), &mirrorv1.ReadDocumentRequest{})
				if err != nil {
					t.Fatalf("ReadDocument: %v", err)
				}
				for range 2 { // an ended stream stays ended
					_, err = stream.Recv()
					if diff := cmp.Diff(status.Convert(c.want).Proto(), status.Convert(err).Proto(),
						protocmp.Transform()); diff != "" {
						t.Errorf("Recv (-want +got):\n%s", diff)
					}
				}
			})
		})
	}
}

func wrapped(st *status.Status, prefix string) error {
	p := st.Proto()
	p.Message = prefix + st.Err().Error()
	return status.FromProto(p).Err()
}

// okError claims to be an error and a success at once.
type okError struct{}

func (okError) Error() string              { return "odd" }
func (okError) GRPCStatus() *status.Status { return status.New(codes.OK, "") }

func TestErrorNeverBecomesSuccess(t *testing.T) {
	t.Parallel()
	s := &script{get: func(context.Context, *mirrorv1.GetRoomRequest) (*mirrorv1.GetRoomResponse, error) {
		return nil, okError{}
	}}
	client := mirrorv1.NewMirrorServiceClient(inProcess(t, s, new(interceptors)))
	if _, err := client.GetRoom(t.Context(), &mirrorv1.GetRoomRequest{}); status.Code(err) != codes.Unknown {
		t.Errorf("GetRoom = %v; want UNKNOWN", err)
	}
}

func TestUnknownMethods(t *testing.T) {
	t.Parallel()
	eachWayConn(t, func(t *testing.T, conn grpc.ClientConnInterface) {
		for method, want := range map[string]string{
			"/no.such.Service/M":                    "unknown service no.such.Service",
			"/liveblocks.mirror.v1.MirrorService/M": "unknown method M for service liveblocks.mirror.v1.MirrorService",
		} {
			err := conn.Invoke(t.Context(), method, &mirrorv1.GetRoomRequest{}, &mirrorv1.GetRoomResponse{})
			if st := status.Convert(err); st.Code() != codes.Unimplemented || st.Message() != want {
				t.Errorf("Invoke(%s) = %v; want UNIMPLEMENTED %s", method, err, want)
			}
			stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, method)
			if err == nil { // the wire only tells when asked for an answer
				err = stream.RecvMsg(&httpbody.HttpBody{})
			}
			if st := status.Convert(err); st.Code() != codes.Unimplemented || st.Message() != want {
				t.Errorf("NewStream(%s) = %v; want UNIMPLEMENTED %s", method, err, want)
			}
		}
	})
}

func eachWayConn(t *testing.T, test func(*testing.T, grpc.ClientConnInterface)) {
	t.Helper()
	t.Run("wire", func(t *testing.T) { t.Parallel(); test(t, overWire(t, new(script), new(interceptors))) })
	t.Run("inproc", func(t *testing.T) { t.Parallel(); test(t, inProcess(t, new(script), new(interceptors))) })
}

func TestClientStreamsAreRefused(t *testing.T) {
	t.Parallel()
	c := New(nil, nil)
	c.RegisterService(&grpc.ServiceDesc{
		ServiceName: "x.Y",
		Streams: []grpc.StreamDesc{{
			StreamName: "Up", ClientStreams: true,
			Handler: func(any, grpc.ServerStream) error { return nil },
		}},
	}, nil)
	if _, err := c.NewStream(t.Context(), nil, "/x.Y/Up"); status.Code(err) != codes.Unimplemented {
		t.Errorf("NewStream = %v; want UNIMPLEMENTED", err)
	}
}

func TestRegisterServicePanics(t *testing.T) {
	t.Parallel()
	c := New(nil, nil)
	mirrorv1.RegisterMirrorServiceServer(c, new(script))
	for name, register := range map[string]func(){
		"twice":         func() { mirrorv1.RegisterMirrorServiceServer(c, new(script)) },
		"wrong service": func() { c.RegisterService(&mirrorv1.EventService_ServiceDesc, new(script)) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: RegisterService did not panic", name)
				}
			}()
			register()
		}()
	}
}

func TestEndedContextReachesNobody(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, s *script, _ *interceptors, client mirrorv1.MirrorServiceClient) {
		s.get = func(context.Context, *mirrorv1.GetRoomRequest) (*mirrorv1.GetRoomResponse, error) {
			return nil, errors.New("called")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := client.GetRoom(ctx, &mirrorv1.GetRoomRequest{}); status.Code(err) != codes.Canceled {
			t.Errorf("GetRoom = %v; want CANCELED", err)
		}
		if _, err := client.ReadDocument(ctx, &mirrorv1.ReadDocumentRequest{}); status.Code(err) != codes.Canceled {
			t.Errorf("ReadDocument = %v; want CANCELED", err)
		}
	})
}

func TestCancellationReachesTheService(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, s *script, _ *interceptors, client mirrorv1.MirrorServiceClient) {
		began := make(chan struct{})
		s.get = func(ctx context.Context, _ *mirrorv1.GetRoomRequest) (*mirrorv1.GetRoomResponse, error) {
			// A context the service derives has to end as well.
			derived, cancel := context.WithTimeout(ctx, time.Hour)
			defer cancel()
			close(began)
			<-derived.Done()
			return nil, derived.Err()
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-began; cancel() }()
		if _, err := client.GetRoom(ctx, &mirrorv1.GetRoomRequest{}); status.Code(err) != codes.Canceled {
			t.Errorf("GetRoom = %v; want CANCELED", err)
		}

		began = make(chan struct{})
		ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if _, err := client.GetRoom(ctx, &mirrorv1.GetRoomRequest{}); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("GetRoom = %v; want DEADLINE_EXCEEDED", err)
		}
	})
}

// A service may hand work to goroutines bound to its context; it ends with the
// call even if the caller's goes on.
func TestServiceContextEndsWithTheCall(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, s *script, _ *interceptors, client mirrorv1.MirrorServiceClient) {
		ended := make(chan struct{})
		s.get = func(ctx context.Context, _ *mirrorv1.GetRoomRequest) (*mirrorv1.GetRoomResponse, error) {
			context.AfterFunc(ctx, func() { close(ended) })
			return &mirrorv1.GetRoomResponse{}, nil
		}
		if _, err := client.GetRoom(t.Context(), &mirrorv1.GetRoomRequest{}); err != nil {
			t.Fatalf("GetRoom: %v", err)
		}
		<-ended

		ended = make(chan struct{})
		s.read = func(_ *mirrorv1.ReadDocumentRequest, stream grpc.ServerStreamingServer[httpbody.HttpBody]) error {
			context.AfterFunc(stream.Context(), func() { close(ended) })
			return nil
		}
		if _, err := client.ReadDocument(t.Context(), &mirrorv1.ReadDocumentRequest{}); err != nil {
			t.Fatalf("ReadDocument: %v", err)
		}
		<-ended // although nobody has asked for an answer
	})
}

func TestAnswersAreNotShared(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, s *script, _ *interceptors, client mirrorv1.MirrorServiceClient) {
		kept := &mirrorv1.GetRoomResponse{Room: &mirrorv1.Room{
			RoomId: "r", SourceJson: []byte("{}"), DefaultAccesses: []string{"room:read"},
			Metadata: map[string]*mirrorv1.MetadataValue{"k": {Value: &mirrorv1.MetadataValue_StringValue{StringValue: "v"}}},
		}}
		want := proto.CloneOf(kept)
		s.get = func(context.Context, *mirrorv1.GetRoomRequest) (*mirrorv1.GetRoomResponse, error) { return kept, nil }
		got, err := client.GetRoom(t.Context(), &mirrorv1.GetRoomRequest{})
		if err != nil {
			t.Fatalf("GetRoom: %v", err)
		}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Fatalf("GetRoom (-want +got):\n%s", diff)
		}
		got.Room.SourceJson[0] = '!'
		got.Room.DefaultAccesses[0] = "!"
		got.Room.Metadata["k"].Value = nil
		if diff := cmp.Diff(want, kept, protocmp.Transform()); diff != "" {
			t.Errorf("the service's message changed (-want +got):\n%s", diff)
		}
	})
}

func TestRequestIsHandedOverUncopied(t *testing.T) {
	t.Parallel()
	var got *mirrorv1.GetRoomRequest
	s := &script{get: func(_ context.Context, req *mirrorv1.GetRoomRequest) (*mirrorv1.GetRoomResponse, error) {
		got = req
		return &mirrorv1.GetRoomResponse{}, nil
	}}
	req := &mirrorv1.GetRoomRequest{RoomId: "r"}
	if _, err := mirrorv1.NewMirrorServiceClient(inProcess(t, s, new(interceptors))).GetRoom(t.Context(),
		req); err != nil {
		t.Fatalf("GetRoom: %v", err)
	}
	if got != req {
		t.Error("the service got a copy of the request")
	}
}

func TestWrongTypesAreInternalErrors(t *testing.T) {
	t.Parallel()
	s := &script{get: func(context.Context, *mirrorv1.GetRoomRequest) (*mirrorv1.GetRoomResponse, error) {
		return &mirrorv1.GetRoomResponse{}, nil
	}}
	c := inProcess(t, s, new(interceptors))
	method := mirrorv1.MirrorService_GetRoom_FullMethodName
	if err := c.Invoke(t.Context(), method, &mirrorv1.ListRoomsRequest{},
		&mirrorv1.GetRoomResponse{}); status.Code(err) != codes.Internal {
		t.Errorf("Invoke with a foreign request = %v; want INTERNAL", err)
	}
	if err := c.Invoke(t.Context(), method, &mirrorv1.GetRoomRequest{},
		&mirrorv1.ListRoomsResponse{}); status.Code(err) != codes.Internal {
		t.Errorf("Invoke with a foreign answer = %v; want INTERNAL", err)
	}
	none := New(func(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) { return nil, nil }, nil)
	mirrorv1.RegisterMirrorServiceServer(none, s)
	if err := none.Invoke(t.Context(), method, &mirrorv1.GetRoomRequest{},
		&mirrorv1.GetRoomResponse{}); status.Code(err) != codes.Internal {
		t.Errorf("Invoke without an answer = %v; want INTERNAL", err)
	}
}

func TestPanicsEndTheCallOnly(t *testing.T) {
	t.Parallel()
	s := &script{
		get: func(context.Context, *mirrorv1.GetRoomRequest) (*mirrorv1.GetRoomResponse, error) { panic("ouch") },
		read: func(_ *mirrorv1.ReadDocumentRequest, stream grpc.ServerStreamingServer[httpbody.HttpBody]) error {
			if err := stream.Send(&httpbody.HttpBody{Data: []byte("x")}); err != nil {
				return err
			}
			panic("ouch")
		},
	}
	client := mirrorv1.NewMirrorServiceClient(inProcess(t, s, new(interceptors)))
	check := func(err error) {
		t.Helper()
		if st := status.Convert(err); st.Code() != codes.Internal || st.Message() != "internal error" {
			t.Errorf("status = %v; want INTERNAL and nothing of the panic", st)
		}
		if err == nil || !strings.Contains(err.Error(), "ouch") || !strings.Contains(err.Error(), "inproc_test.go") {
			t.Errorf("error = %v; want the panic and its stack, for the log", err)
		}
	}
	_, err := client.GetRoom(t.Context(), &mirrorv1.GetRoomRequest{})
	check(err)
	stream, err := client.ReadDocument(t.Context(), &mirrorv1.ReadDocumentRequest{})
	if err != nil {
		t.Fatalf("ReadDocument: %v", err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatalf("Recv: %v", err)
	}
	_, err = stream.Recv()
	check(err)
}

func TestStream(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, s *script, i *interceptors, client mirrorv1.MirrorServiceClient) {
		s.read = func(req *mirrorv1.ReadDocumentRequest, stream grpc.ServerStreamingServer[httpbody.HttpBody]) error {
			ctx := stream.Context()
			md, _ := metadata.FromIncomingContext(ctx)
			if diff := cmp.Diff(metadata.MD{"x-one": {"1"}}, only(md)); diff != "" {
				return status.Errorf(codes.Internal, "incoming metadata (-want +got):\n%s", diff)
			}
			if v := ctx.Value(ctxKey{}); v != nil {
				return status.Errorf(codes.Internal, "a value of the caller's context reached the service: %v", v)
			}
			if m, ok := grpc.Method(ctx); !ok || m != mirrorv1.MirrorService_ReadDocument_FullMethodName {
				return status.Errorf(codes.Internal, "Method = %q", m)
			}
			if err := errors.Join(stream.SetHeader(metadata.Pairs("x-h", "a")),
				grpc.SetHeader(ctx, metadata.Pairs("X-H", "b"))); err != nil {
				return err
			}
			stream.SetTrailer(metadata.Pairs("x-t", "c"))
			// One message, used again for every chunk.
			chunk := &httpbody.HttpBody{Data: []byte("0" + req.GetRoomId())}
			for n := range 3 {
				chunk.Data[0] = '0' + byte(n)
				if err := stream.Send(chunk); err != nil {
					return err
				}
			}
			if err := stream.SetHeader(metadata.Pairs("x-late", "d")); err == nil {
				return status.Error(codes.Internal, "SetHeader after a message succeeded")
			}
			return nil
		}
		ctx := metadata.AppendToOutgoingContext(context.WithValue(t.Context(), ctxKey{}, "secret"), "x-one", "1")
		var header, trailer metadata.MD
		finished := errors.New("never finished")
		stream, err := client.ReadDocument(ctx, &mirrorv1.ReadDocumentRequest{RoomId: "r"},
			grpc.Header(&header), grpc.Trailer(&trailer), grpc.OnFinish(func(err error) { finished = err }))
		if err != nil {
			t.Fatalf("ReadDocument: %v", err)
		}
		early, err := stream.Header()
		if err != nil {
			t.Fatalf("Header: %v", err)
		}
		var got []string
		for {
			chunk, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("Recv: %v", err)
			}
			got = append(got, string(chunk.GetData()))
		}
		if diff := cmp.Diff([]string{"0r", "1r", "2r"}, got); diff != "" {
			t.Errorf("chunks (-want +got):\n%s", diff)
		}
		for _, md := range []metadata.MD{early, header} {
			if diff := cmp.Diff(metadata.MD{"x-h": {"a", "b"}}, only(md)); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
		}
		for _, md := range []metadata.MD{stream.Trailer(), trailer} {
			if diff := cmp.Diff(metadata.MD{"x-t": {"c"}}, only(md)); diff != "" {
				t.Errorf("trailer (-want +got):\n%s", diff)
			}
		}
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("Recv after the end = %v; want EOF", err)
		}
		if finished != nil || i.stream.Load() != 1 {
			t.Errorf("finished with %v after %d interceptions; want nil after 1", finished, i.stream.Load())
		}
	})
}

func TestEmptyStream(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, s *script, _ *interceptors, client mirrorv1.MirrorServiceClient) {
		s.read = func(_ *mirrorv1.ReadDocumentRequest, stream grpc.ServerStreamingServer[httpbody.HttpBody]) error {
			return stream.SendHeader(metadata.Pairs("x-h", "a"))
		}
		stream, err := client.ReadDocument(t.Context(), &mirrorv1.ReadDocumentRequest{})
		if err != nil {
			t.Fatalf("ReadDocument: %v", err)
		}
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("Recv = %v; want EOF", err)
		}
		if header, err := stream.Header(); err != nil || only(header).Get("x-h") == nil {
			t.Errorf("Header = %v, %v; want x-h", header, err)
		}
	})
}

// A reader that gives up frees the service, whether it was about to send or
// waited for something else.
func TestCancelledStream(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, s *script, _ *interceptors, client mirrorv1.MirrorServiceClient) {
		for _, read := range []int{0, 1} {
			began, ended := make(chan struct{}), make(chan error, 1)
			s.read = func(_ *mirrorv1.ReadDocumentRequest, stream grpc.ServerStreamingServer[httpbody.HttpBody]) error {
				chunk := &httpbody.HttpBody{Data: make([]byte, 256<<10)}
				close(began)
				for {
					if err := stream.Send(chunk); err != nil {
						<-stream.Context().Done()
						ended <- err
						return err
					}
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			stream, err := client.ReadDocument(ctx, &mirrorv1.ReadDocumentRequest{})
			if err != nil {
				t.Fatalf("ReadDocument: %v", err)
			}
			for range read {
				if _, err := stream.Recv(); err != nil {
					t.Fatalf("Recv: %v", err)
				}
			}
			<-began
			cancel()
			if err := <-ended; status.Code(err) != codes.Canceled && status.Code(err) != codes.Unavailable {
				t.Errorf("Send = %v; want CANCELED", err)
			}
			for err = nil; err == nil; {
				_, err = stream.Recv()
			}
			if status.Code(err) != codes.Canceled {
				t.Errorf("Recv = %v; want CANCELED", err)
			}
		}
	})
}

func TestStreamIsNeverAheadOfItsReader(t *testing.T) {
	t.Parallel()
	var sent atomic.Int64
	s := &script{read: func(_ *mirrorv1.ReadDocumentRequest, stream grpc.ServerStreamingServer[httpbody.HttpBody]) error {
		for range 5 {
			if err := stream.Send(&httpbody.HttpBody{}); err != nil {
				return err
			}
			sent.Add(1)
		}
		return nil
	}}
	client := mirrorv1.NewMirrorServiceClient(inProcess(t, s, new(interceptors)))
	for range 500 { // the end of a stream races with its last message
		sent.Store(0)
		stream, err := client.ReadDocument(t.Context(), &mirrorv1.ReadDocumentRequest{})
		if err != nil {
			t.Fatalf("ReadDocument: %v", err)
		}
		var received int64
		for ; ; received++ {
			if n := sent.Load(); n > received {
				t.Fatalf("%d messages sent to a reader of %d", n, received)
			}
			if _, err = stream.Recv(); err != nil {
				break
			}
		}
		if !errors.Is(err, io.EOF) || received != 5 {
			t.Fatalf("%d messages, then %v; want 5, then EOF", received, err)
		}
	}
}

func TestStreamTakesOneRequest(t *testing.T) {
	t.Parallel()
	s := &script{read: func(*mirrorv1.ReadDocumentRequest,
		grpc.ServerStreamingServer[httpbody.HttpBody],
	) error {
		return nil
	}}
	c := inProcess(t, s, new(interceptors))
	stream, err := c.NewStream(t.Context(), nil, mirrorv1.MirrorService_ReadDocument_FullMethodName)
	if err != nil {
		t.Fatalf("NewStream: %v", err)
	}
	if err := stream.RecvMsg(&httpbody.HttpBody{}); status.Code(err) != codes.Internal {
		t.Errorf("RecvMsg before SendMsg = %v; want INTERNAL", err)
	}
	stream, err = c.NewStream(t.Context(), nil, mirrorv1.MirrorService_ReadDocument_FullMethodName)
	if err != nil {
		t.Fatalf("NewStream: %v", err)
	}
	if err := stream.SendMsg(&mirrorv1.ReadDocumentRequest{}); err != nil {
		t.Errorf("SendMsg = %v; want nil", err)
	}
	if err := stream.SendMsg(&mirrorv1.ReadDocumentRequest{}); status.Code(err) != codes.Internal {
		t.Errorf("second SendMsg = %v; want INTERNAL", err)
	}
	if err := stream.RecvMsg(&httpbody.HttpBody{}); !errors.Is(err, io.EOF) {
		t.Errorf("RecvMsg = %v; want EOF", err)
	}
}

// token is a credential that travels as metadata.
type token string

func (c token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if c == "" {
		return nil, errors.New("no token")
	}
	return map[string]string{"authorization": string(c)}, nil
}

func (token) RequireTransportSecurity() bool { return false }

func TestPerCallCredentials(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, s *script, _ *interceptors, client mirrorv1.MirrorServiceClient) {
		s.get = func(ctx context.Context, _ *mirrorv1.GetRoomRequest) (*mirrorv1.GetRoomResponse, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			return nil, status.Errorf(codes.NotFound, "%v", md.Get("authorization"))
		}
		_, err := client.GetRoom(t.Context(), &mirrorv1.GetRoomRequest{}, grpc.PerRPCCredentials(token("secret")))
		if got := status.Convert(err).Message(); got != "[secret]" {
			t.Errorf("authorization = %s; want [secret]", got)
		}
		if _, err := client.GetRoom(t.Context(), &mirrorv1.GetRoomRequest{}, grpc.PerRPCCredentials(token(""))); err == nil {
			t.Error("GetRoom without the credential it was to use succeeded")
		}
	})
}

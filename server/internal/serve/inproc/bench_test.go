package inproc

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/liveblocks-mirror/liveblocks-mirror/gateway"
	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

func overTCP(b testing.TB, s *script, i *interceptors) grpc.ClientConnInterface {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(i.onUnary), grpc.StreamInterceptor(i.onStream))
	mirrorv1.RegisterMirrorServiceServer(server, s)
	return dial(b, server, l, "passthrough:///"+l.Addr().String())
}

// BenchmarkUnary compares the ways to make one small call.
func BenchmarkUnary(b *testing.B) {
	for _, way := range []struct {
		name    string
		connect func(testing.TB, *script, *interceptors) grpc.ClientConnInterface
	}{{"inproc", inProcess}, {"bufconn", overWire}, {"tcp", overTCP}} {
		b.Run(way.name, func(b *testing.B) {
			s := &script{get: func(_ context.Context, req *mirrorv1.GetRoomRequest) (*mirrorv1.GetRoomResponse, error) {
				return &mirrorv1.GetRoomResponse{Room: &mirrorv1.Room{RoomId: req.GetRoomId()}}, nil
			}}
			client := mirrorv1.NewMirrorServiceClient(way.connect(b, s, new(interceptors)))
			req := &mirrorv1.GetRoomRequest{RoomId: "room"}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := client.GetRoom(b.Context(), req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkFill compares the deep copy of an answer with setting its top-level
// fields one by one, which would share what they point to.
func BenchmarkFill(b *testing.B) {
	for _, size := range []int{1 << 10, 1 << 20} {
		src := &mirrorv1.GetStorageDocumentResponse{Document: &mirrorv1.Document{
			ProjectId: "default", RoomId: "room", Content: make([]byte, size), Freshness: &mirrorv1.Freshness{Revision: 1},
		}}
		b.Run("deep/"+strconv.Itoa(size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := fill(new(mirrorv1.GetStorageDocumentResponse), src); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("fieldwise/"+strconv.Itoa(size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var dst proto.Message = new(mirrorv1.GetStorageDocumentResponse)
				to := dst.ProtoReflect()
				src.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
					to.Set(fd, v)
					return true
				})
			}
		})
	}
}

// hook is a webhook endpoint that records nothing.
type hook struct {
	mirrorv1.UnimplementedEventServiceServer
}

func (hook) ReceiveWebhook(ctx context.Context, _ *mirrorv1.ReceiveWebhookRequest) (*mirrorv1.ReceiveWebhookResponse,
	error,
) {
	md, _ := metadata.FromIncomingContext(ctx)
	return &mirrorv1.ReceiveWebhookResponse{
		EventId: md.Get("webhook-id")[0],
		Outcome: mirrorv1.EventOutcome_EVENT_OUTCOME_QUEUED,
	}, nil
}

// nowhere is a ResponseWriter for one answer.
type nowhere struct{ header http.Header }

func (w nowhere) Header() http.Header         { return w.header }
func (w nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (w nowhere) WriteHeader(int)             {}

// BenchmarkWebhook measures what the gateway and the channel add to a delivery,
// beside HTTP and the service.
func BenchmarkWebhook(b *testing.B) {
	c := New(nil, nil)
	mirrorv1.RegisterEventServiceServer(c, hook{})
	g, err := gateway.New(gateway.Config{Conn: c, MaxBody: 1 << 20})
	if err != nil {
		b.Fatal(err)
	}
	h := g.Handler()
	payload := bytes.Repeat([]byte("x"), 300)
	req := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/v1/webhooks/liveblocks", nil)
	for name, value := range map[string]string{
		"Webhook-Id": "msg_2b7Cq", "Webhook-Timestamp": "1767225600",
		"Webhook-Signature": "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
		"Content-Type":      "application/json", "User-Agent": "Svix-Webhooks/1.0", "Accept": "*/*", "Svix-Id": "msg_2b7Cq",
		"Svix-Timestamp": "1767225600",
		"Svix-Signature": "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
	} {
		req.Header.Set(name, value)
	}
	req.ContentLength = int64(len(payload))
	body := bytes.NewReader(payload)
	req.Body = io.NopCloser(body)
	b.ReportAllocs()
	for b.Loop() {
		body.Reset(payload)
		h.ServeHTTP(nowhere{make(http.Header)}, req)
	}
}

package blackbox_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

const (
	token    = "the token of the closed tests"
	newToken = "another-token-while-one-is-rotated"
)

// route is a method and a path.
type route struct{ method, path string }

var pathParameter = regexp.MustCompile(`\{[^}]*\}`)

// apiRoutes reads the routes from the OpenAPI file the service serves.
func apiRoutes(t *testing.T, openAPI []byte) (guarded, webhooks []route) {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(openAPI, &doc); err != nil {
		t.Fatal(err)
	}
	for path, methods := range doc.Paths {
		for method := range methods {
			r := route{strings.ToUpper(method), pathParameter.ReplaceAllString(path, "default")}
			if strings.Contains(path, "webhook") {
				webhooks = append(webhooks, r)
			} else {
				guarded = append(guarded, r)
			}
		}
	}
	if len(guarded) < 12 || len(webhooks) != 3 {
		t.Fatalf("the OpenAPI file has %d calls and %d webhook paths; want 12 or more, and 3", len(guarded), len(webhooks))
	}
	return guarded, webhooks
}

// startClosed starts the service with tokens and with a second listener.
func startClosed(t *testing.T) *harness.Service {
	t.Helper()
	s, _ := start(t, map[string]string{
		"MIRROR_API_TOKEN": token + "," + newToken, "MIRROR_API_TOKENS": token, "MIRROR_WEBHOOK_ADDR": "127.0.0.1:0",
		// Each wrong credential comes from an address of its own: of one there may not be as many.
		"MIRROR_TRUSTED_PROXIES": "127.0.0.1",
	})
	if log := s.Log(); !strings.Contains(log, "variable=MIRROR_API_TOKENS") || strings.Contains(log, token) {
		t.Errorf("the log does not tell of a misspelt variable, or shows its value: %s", log)
	}
	return s
}

// anyAddress returns an address.
func anyAddress() string {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, rand.Uint32()))).String()
}

func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

// Every route but the webhook paths, the probes and the description of the API asks for a token once one is set.
func TestClosedOverHTTP(t *testing.T) {
	t.Parallel()
	s := startClosed(t)
	spec := send(t, http.MethodGet, s.URL("/openapi.json"), nil, nil)
	if spec.status != http.StatusOK {
		t.Fatalf("/openapi.json answered %d", spec.status)
	}
	guarded, webhooks := apiRoutes(t, spec.body)
	guarded = append(guarded, route{"GET", "//"}, route{"GET", "/nowhere"},
		route{"DELETE", "/v1/rooms/default"}, route{"GET", "/v1/webhooks"}, route{"GET", "/healthz/"},
		route{"GET", "/v1/rooms/%2e%2e%2f%2e%2e%2fhealthz"})
	for _, r := range guarded {
		for name, header := range map[string]http.Header{
			"no token":              nil,
			"an empty token":        bearer(""),
			"a wrong token":         bearer(token + "x"),
			"the beginning of it":   bearer(token[:len(token)-1]),
			"both tokens as one":    bearer(token + "," + newToken),
			"another scheme":        {"Authorization": {"Basic " + token}},
			"the header twice":      {"Authorization": {"Bearer " + token, "Bearer " + token}},
			"grpc metadata instead": {"Grpc-Metadata-Authorization": {"Bearer " + token}},
		} {
			if header = header.Clone(); header == nil {
				header = http.Header{}
			}
			header.Set("X-Forwarded-For", anyAddress())
			got := send(t, r.method, s.URL(r.path), header, nil)
			if got.status != http.StatusUnauthorized || got.header.Get("WWW-Authenticate") != "Bearer" ||
				!slices.Contains([]string{"CREDENTIAL_MISSING", "CREDENTIAL_INVALID"}, got.reason()) {
				t.Errorf("%s %s with %s: %d %s; want 401", r.method, r.path, name, got.status, got.body)
			}
		}
		if strings.HasSuffix(r.path, ":watch") { // such an answer has no end
			continue
		}
		for _, valid := range []string{token, newToken} {
			if got := send(t, r.method, s.URL(r.path), bearer(valid), nil); got.status == http.StatusUnauthorized {
				t.Errorf("%s %s with a token: 401 %s", r.method, r.path, got.body)
			}
		}
	}
	for _, public := range []string{"/healthz", "/readyz", "/", "/mirror.binpb"} {
		if got := send(t, http.MethodGet, s.URL(public), nil, nil); got.status != http.StatusOK {
			t.Errorf("%s without a token: %d; want 200", public, got.status)
		}
	}
	for _, r := range webhooks {
		checkWebhookDoor(t, s.URL(r.path))
	}
}

// checkWebhookDoor makes sure that a path takes a signed delivery and nothing else, and
// asks for no token.
func checkWebhookDoor(t *testing.T, url string) {
	t.Helper()
	d := harness.SignEvent(t, fake.Event{Type: fake.StorageUpdated, RoomID: "closed", Time: time.Now()})
	if status, body, err := d.Do(t.Context(), url); err != nil || status != http.StatusOK {
		t.Errorf("signed delivery to %s: %d %s %v; want 200", url, status, body, err)
	}
	if got := send(t, http.MethodPost, url, bearer(token),
		strings.NewReader("{}")); got.status != http.StatusUnauthorized {
		t.Errorf("delivery to %s with a token and no signature: %d; want 401", url, got.status)
	}
	if got := send(t, http.MethodGet, url, nil, nil); got.status != http.StatusMethodNotAllowed {
		t.Errorf("GET %s: %d; want 405", url, got.status)
	}
}

// The second listener serves the webhook paths and /healthz, whatever it is shown.
func TestWebhookAddr(t *testing.T) {
	t.Parallel()
	s := startClosed(t)
	guarded, webhooks := apiRoutes(t, send(t, http.MethodGet, s.URL("/openapi.json"), bearer(token), nil).body)
	guarded = append(guarded, route{"GET", "/readyz"}, route{"GET", "/openapi.json"}, route{"GET", "/mirror.binpb"},
		route{"GET", "/"}, route{"GET", "/metrics"}, route{"GET", "/debug/pprof/"})
	base := "http://" + s.WebhookAddr
	for _, r := range guarded {
		for _, header := range []http.Header{nil, bearer(token)} {
			if got := send(t, r.method, base+r.path, header, nil); got.status != http.StatusNotFound {
				t.Errorf("%s %s on the webhook address: %d %s; want 404", r.method, r.path, got.status, got.body)
			}
		}
	}
	if got := send(t, http.MethodGet, base+"/healthz", nil, nil); got.status != http.StatusOK {
		t.Errorf("/healthz on the webhook address: %d; want 200", got.status)
	}
	for _, r := range webhooks {
		checkWebhookDoor(t, base+r.path)
	}

	// It is as narrow without a token.
	open, _ := start(t, map[string]string{"MIRROR_WEBHOOK_ADDR": "127.0.0.1:0"})
	for _, r := range guarded {
		if got := send(t, r.method, "http://"+open.WebhookAddr+r.path, nil, nil); got.status != http.StatusNotFound {
			t.Errorf("%s %s on the webhook address without a token set: %d; want 404", r.method, r.path, got.status)
		}
	}
}

// reflected asks the service's own reflection for every method of every service.
func reflected(ctx context.Context, t *testing.T, conn *grpc.ClientConn) []protoreflect.MethodDescriptor {
	t.Helper()
	stream, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	list := &reflectionv1.ServerReflectionRequest_ListServices{}
	if err := stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: list}); err != nil {
		t.Fatal(err)
	}
	resp, err := stream.Recv()
	if err != nil {
		t.Fatalf("list services: %v", err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	var methods []protoreflect.MethodDescriptor
	for _, service := range resp.GetListServicesResponse().GetService() {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service.GetName()))
		if err != nil {
			if service.GetName() == "grpc.reflection.v1alpha.ServerReflection" {
				continue // the same again under its old name, walked by name below
			}
			t.Fatalf("service %s: %v", service.GetName(), err)
		}
		sd, ok := d.(protoreflect.ServiceDescriptor)
		if !ok {
			t.Fatalf("%s is no service", service.GetName())
		}
		for i := range sd.Methods().Len() {
			methods = append(methods, sd.Methods().Get(i))
		}
	}
	return methods
}

// callMethod calls a method with an empty message and returns how it ended. A stream
// that answers is left at its first message.
func callMethod(ctx context.Context, t *testing.T, conn *grpc.ClientConn, name string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, name)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(&emptypb.Empty{}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if err := stream.RecvMsg(&emptypb.Empty{}); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// Every RPC but health asks for a token once one is set, reflection included.
func TestClosedOverGRPC(t *testing.T) {
	t.Parallel()
	s := startClosed(t)
	conn := s.Dial(t)
	carrying := func(credentials ...string) context.Context {
		return metadata.NewOutgoingContext(t.Context(), metadata.MD{"authorization": credentials})
	}
	names := []string{
		"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
	}
	for _, m := range reflected(carrying("Bearer "+token), t, conn) {
		names = append(names, "/"+string(m.Parent().FullName())+"/"+string(m.Name()))
	}
	for _, want := range []string{
		mirrorv1.MirrorService_ReadDocument_FullMethodName, mirrorv1.AdminService_RequestSync_FullMethodName,
		mirrorv1.EventService_ReceiveWebhook_FullMethodName, healthv1.Health_Check_FullMethodName,
		healthv1.Health_Watch_FullMethodName,
		reflectionv1.ServerReflection_ServerReflectionInfo_FullMethodName,
	} {
		if !slices.Contains(names, want) {
			t.Fatalf("reflection does not know %s; it knows %v", want, names)
		}
	}
	for _, name := range names {
		if name == healthv1.Health_Check_FullMethodName || name == healthv1.Health_Watch_FullMethodName ||
			name == healthv1.Health_List_FullMethodName {
			continue // probes have no token
		}
		credential := []string{"CREDENTIAL_MISSING", "CREDENTIAL_INVALID"}
		if name == mirrorv1.EventService_ReceiveWebhook_FullMethodName {
			credential = []string{"SIGNATURE_MISSING"} // its credential is the signature
		}
		for what, ctx := range map[string]context.Context{
			"no token":       t.Context(),
			"a wrong token":  carrying("Bearer " + token + "x"),
			"another scheme": carrying("Basic " + token),
			"the token bare": carrying(token),
			"two tokens":     carrying("Bearer "+token, "Bearer "+newToken),
			"the cookie way": metadata.AppendToOutgoingContext(t.Context(), "cookie", "authorization=Bearer "+token),
		} {
			err := callMethod(metadata.AppendToOutgoingContext(ctx, "x-forwarded-for", anyAddress()), t, conn, name)
			if status.Code(err) != codes.Unauthenticated || !slices.Contains(credential, reasonOf(err)) {
				t.Errorf("%s with %s = %v; want UNAUTHENTICATED", name, what, err)
			}
		}
		for _, valid := range []string{token, newToken} {
			err := callMethod(carrying("bearer "+valid), t, conn, name)
			refused := status.Code(err) == codes.Unauthenticated && reasonOf(err) != "SIGNATURE_MISSING"
			if refused || status.Code(err) == codes.Unimplemented || status.Code(err) == codes.DeadlineExceeded {
				t.Errorf("%s with a token = %v", name, err)
			}
		}
	}

	// A signed delivery needs no token over gRPC either.
	d := harness.SignEvent(t, fake.Event{Type: fake.StorageUpdated, RoomID: "closed", Time: time.Now()})
	ctx := metadata.AppendToOutgoingContext(t.Context(), "webhook-id", d.ID,
		"webhook-timestamp", d.Header.Get("Webhook-Timestamp"), "webhook-signature", d.Header.Get("Webhook-Signature"))
	req := &mirrorv1.ReceiveWebhookRequest{Body: &httpbody.HttpBody{Data: d.Body}}
	if resp, err := mirrorv1.NewEventServiceClient(conn).ReceiveWebhook(ctx, req); err != nil ||
		resp.GetEventId() != d.ID {
		t.Errorf("signed ReceiveWebhook = %v, %v", resp, err)
	}
	health, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil || health.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("health without a token = %v, %v; want SERVING", health, err)
	}
	if strings.Contains(s.Log(), token) || strings.Contains(s.Log(), newToken) {
		t.Error("the log holds a token")
	}
}

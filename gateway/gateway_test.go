package gateway_test

import (
	"context"
	"net"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/liveblocks-mirror/liveblocks-mirror/gateway"
	"github.com/liveblocks-mirror/liveblocks-mirror/gateway/gatewaytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The same suite runs over the in-process channel, beside that.
func TestGateway(t *testing.T) {
	t.Parallel()
	gatewaytest.Run(t, dial)
}

// dial connects through a real gRPC client and server.
func dial(t testing.TB, register func(grpc.ServiceRegistrar)) grpc.ClientConnInterface {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	register(server)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///bufconn", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
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

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	conn := dial(t, func(grpc.ServiceRegistrar) {})
	for name, cfg := range map[string]gateway.Config{
		"no connection":    {MaxBody: 1},
		"no body limit":    {Conn: conn},
		"negative body":    {Conn: conn, MaxBody: -1},
		"negative timeout": {Conn: conn, MaxBody: 1, BodyTimeout: -1},
		"negative stall":   {Conn: conn, MaxBody: 1, WriteStall: -1},
		"negative budget":  {Conn: conn, MaxBody: 1, BodyBudget: -1},
		"budget below one": {Conn: conn, MaxBody: 2, BodyBudget: 1},
	} {
		if _, err := gateway.New(cfg); err == nil {
			t.Errorf("%s: New succeeded", name)
		}
	}
}

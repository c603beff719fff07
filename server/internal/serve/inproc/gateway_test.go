package inproc

import (
	"testing"

	"google.golang.org/grpc"

	"github.com/liveblocks-mirror/liveblocks-mirror/gateway/gatewaytest"
)

// The gateway is the channel's main user: what it promises must hold in process
// as it does over the wire.
func TestGateway(t *testing.T) {
	t.Parallel()
	gatewaytest.Run(t, func(_ testing.TB, register func(grpc.ServiceRegistrar)) grpc.ClientConnInterface {
		c := New(nil, nil)
		register(c)
		return c
	})
}

package rpc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/liveblocks-mirror/liveblocks-mirror/client/follow"
	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// cutting breaks streams, each after some responses.
type cutting struct {
	grpc.ClientStream

	left int
}

func (c *cutting) RecvMsg(m any) error {
	if c.left--; c.left < 0 {
		return status.Error(codes.Unavailable, "cut")
	}
	return c.ClientStream.RecvMsg(m)
}

// The Go client sees each change at least once and those of a room in order, whatever breaks:
// streams after any response, connections, and the program of the consumer after it handled
// a response, before the token was kept.
func TestGoClientMissesNothing(t *testing.T) {
	t.Parallel()
	const rooms, each = 5, 200
	h := start(t)
	var listener atomic.Pointer[bufconn.Listener]
	serve := func() (stop func()) {
		server, done := NewServer(h.services), make(chan error, 1)
		l := bufconn.Listen(1 << 16)
		listener.Store(l)
		go func() { done <- server.Serve(l) }()
		return func() {
			server.Stop()
			if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
				t.Errorf("Serve = %v", err)
			}
		}
	}
	stop := serve()
	defer func() { stop() }()

	var writers, followers sync.WaitGroup
	written := make(chan struct{}, rooms*each)
	for room := range rooms {
		writers.Go(func() {
			for range each {
				h.happens(resourceIn(project, mirror.RoomID(fmt.Sprint("room-", room)), mirror.KindStorage))
				written <- struct{}{}
			}
		})
	}
	for n := range 4 {
		rng := rand.New(rand.NewPCG(1, uint64(n)))
		conn, err := grpc.NewClient("passthrough:///mirror", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				return listener.Load().DialContext(ctx)
			}),
			grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string,
				streamer grpc.Streamer, opts ...grpc.CallOption,
			) (grpc.ClientStream, error) {
				stream, err := streamer(ctx, desc, cc, method, opts...)
				return &cutting{ClientStream: stream, left: 1 + rng.IntN(8)}, err
			}))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		followers.Go(func() {
			cfg := follow.Config{
				Request: &mirrorv1.WatchChangesRequest{Start: &mirrorv1.WatchChangesRequest_Position{
					Position: mirrorv1.ChangeStart_CHANGE_START_EARLIEST,
				}},
				Store: &follow.Memory{},
			}
			crash, last, seen := errors.New("crash"), make(map[string]int64), make(map[string]int)
			for done := 0; done < rooms; {
				err := follow.Run(t.Context(), mirrorv1.NewChangeServiceClient(conn), cfg,
					func(_ context.Context, response *mirrorv1.WatchChangesResponse) error {
						for i, c := range response.GetChanges().GetChanges() {
							room := c.GetRoomId()
							if c.GetRevision() > last[room] {
								last[room] = c.GetRevision()
								if seen[room]++; seen[room] == each {
									done++
								}
							} else if i > 0 && response.GetChanges().GetChanges()[i-1].GetRevision() >= c.GetRevision() &&
								response.GetChanges().GetChanges()[i-1].GetRoomId() == room {
								t.Errorf("follower %d saw %v in a wrong place", n, c)
							}
						}
						if done == rooms || rng.IntN(10) == 0 {
							return crash
						}
						return nil
					})
				if !errors.Is(err, crash) {
					t.Errorf("Run = %v", err)
					return
				}
			}
			for room, got := range seen {
				if got != each {
					t.Errorf("follower %d saw %d new changes of %s; want %d", n, got, room, each)
				}
			}
		})
	}
	for i := range rooms * each {
		<-written
		if i%250 == 249 { // a restart
			stop()
			stop = serve()
		}
	}
	writers.Wait()
	followers.Wait()
}

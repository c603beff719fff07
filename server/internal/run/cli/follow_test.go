package cli

import (
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

// serveGRPC serves until the test ends.
func serveGRPC(t *testing.T, register func(*grpc.Server)) (address string) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	register(server)
	go func() { _ = server.Serve(listener) }() // until it is stopped
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

// changesService sends its pages one by one, each when it is asked to.
type changesService struct {
	mirrorv1.UnimplementedChangeServiceServer

	pages chan *mirrorv1.WatchChangesResponse
}

func (c *changesService) WatchChanges(_ *mirrorv1.WatchChangesRequest,
	stream grpc.ServerStreamingServer[mirrorv1.WatchChangesResponse],
) error {
	for {
		select {
		case page := <-c.pages:
			if err := stream.Send(page); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// The token that follow names is that of the last changes that were printed, not of the last
// that came: whoever goes on from it misses nothing.
func TestFollowNamesTheTokenOfWhatWasPrinted(t *testing.T) {
	t.Parallel()
	for _, asJSON := range []bool{false, true} {
		service := &changesService{pages: make(chan *mirrorv1.WatchChangesResponse)}
		command := &Follow{From: "now"}
		command.JSON = asJSON
		command.Server = serveGRPC(t, func(s *grpc.Server) { mirrorv1.RegisterChangeServiceServer(s, service) })
		reader, out, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		told, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- command.Run(t.Context(), Streams{Out: out, Err: told}) }()
		page := func(token string) *mirrorv1.WatchChangesResponse {
			return &mirrorv1.WatchChangesResponse{Token: token, Event: &mirrorv1.WatchChangesResponse_Changes{
				Changes: &mirrorv1.ChangeBatch{Changes: []*mirrorv1.Change{{RoomId: token}}},
			}}
		}
		service.pages <- page("printed")
		if line, err := io.ReadAll(io.LimitReader(reader, 1)); err != nil || len(line) == 0 {
			t.Fatalf("nothing was printed: %v", err)
		}
		if err := out.SetWriteDeadline(time.Unix(1, 0)); err != nil { // what comes next cannot be written
			t.Fatal(err)
		}
		service.pages <- page("lost")
		if err := <-ended; err == nil {
			t.Error("Run = nil; want that it could not print")
		}
		_, _ = out.Close(), reader.Close()
		text, err := os.ReadFile(told.Name())
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "lost") || strings.Contains(string(text), "go on with --from printed") == asJSON {
			t.Errorf("with JSON %t it told %q; want the token of what was printed, which JSON has in each line", asJSON, text)
		}
	}
}

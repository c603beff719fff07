package cli

import (
	"context"
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

// eventsOf returns an event without tasks, and tells whether its caller may read tasks.
type eventsOf struct {
	mirrorv1.UnimplementedEventServiceServer
	mirrorv1.UnimplementedAdminServiceServer

	outcome mirrorv1.EventOutcome
	tasks   error
}

func (e *eventsOf) GetEvent(context.Context, *mirrorv1.GetEventRequest) (*mirrorv1.GetEventResponse, error) {
	return &mirrorv1.GetEventResponse{Event: &mirrorv1.Event{
		EventId: "msg_1", RoomId: "plan", Outcome: e.outcome, Payload: []byte("{}"),
	}}, nil
}

func (e *eventsOf) ListTasks(_ context.Context, req *mirrorv1.ListTasksRequest) (*mirrorv1.ListTasksResponse, error) {
	if req.GetRoomId() != "plan" || req.GetPageSize() != 1 {
		return nil, status.Error(codes.InvalidArgument, "more is asked for than is needed")
	}
	return &mirrorv1.ListTasksResponse{}, e.tasks
}

// Whoever may not read tasks learns that none are shown to them, and others that there are
// none.
func TestShowTellsWhyItHasNoTasks(t *testing.T) {
	t.Parallel()
	const hint, queued = "the key needs the scope admin.read", mirrorv1.EventOutcome_EVENT_OUTCOME_QUEUED
	for _, c := range []struct {
		name    string
		outcome mirrorv1.EventOutcome
		tasks   error
		json    bool
		hints   int
	}{
		{"may not", queued, status.Error(codes.PermissionDenied, "the key lacks the scope"), false, 1},
		{"may", queued, nil, false, 0},
		{"cannot now", queued, status.Error(codes.Unavailable, "the database is away"), false, 0},
		{
			"makes nothing stale", mirrorv1.EventOutcome_EVENT_OUTCOME_UNKNOWN_TYPE,
			status.Error(codes.PermissionDenied, ""), false, 0,
		},
		{"JSON", queued, status.Error(codes.PermissionDenied, ""), true, 0},
	} {
		service := &eventsOf{outcome: c.outcome, tasks: c.tasks}
		command := &eventShow{EventID: "msg_1"}
		command.JSON = c.json
		command.Server = serveGRPC(t, func(s *grpc.Server) {
			mirrorv1.RegisterEventServiceServer(s, service)
			mirrorv1.RegisterAdminServiceServer(s, service)
		})
		out, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		if err := command.Run(t.Context(), Streams{Out: out, Err: out}); err != nil {
			t.Errorf("%s: Run = %v", c.name, err)
		}
		b, err := os.ReadFile(out.Name())
		text := string(b)
		if got := strings.Count(text, hint); err != nil || got != c.hints || !strings.Contains(text, "msg_1") {
			t.Errorf("%s: %d hints, %v; want %d in\n%s", c.name, got, err, c.hints, text)
		}
	}
}

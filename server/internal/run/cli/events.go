package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

// Events are the commands about recorded webhooks.
type Events struct {
	List   eventList   `cmd:"" help:"List recorded events, newest first."`
	Show   eventShow   `cmd:"" help:"Show an event with its payload."`
	Replay eventReplay `cmd:"" help:"Work recorded events once more. Without --yes, only count them."`
}

// EventFilter are the flags that select events.
type EventFilter struct {
	Room  string `name:"room" placeholder:"ID" help:"Only events that name this room."`
	Type  string `name:"type" placeholder:"TYPE" help:"Only events of this type, such as storageUpdated."`
	User  string `name:"user" placeholder:"ID" help:"Only events that name this user."`
	Since string `name:"since" placeholder:"WHEN" help:"Only events received since then: a duration such as 24h, a date or a time."`
	Until string `name:"until" placeholder:"WHEN" help:"Only events received before then."`
}

// span returns the times that the flags name; absent ones are nil.
func (f *EventFilter) span(now time.Time) (since, until *timestamppb.Timestamp, err error) {
	if since, err = past("--since", f.Since, now); err == nil {
		until, err = past("--until", f.Until, now)
	}
	return since, until, err
}

type eventList struct {
	EventFilter
	Thread  string `name:"thread" placeholder:"ID" help:"Only events that name this thread."`
	Outcome string `name:"outcome" placeholder:"WORD" help:"Only events with this outcome: queued, unknown_type, malformed, id_invalid or foreign_project; recorded only in events of earlier versions."`
	Limit   int    `name:"limit" default:"50" help:"Maximum number of events. 0 lists all."`

	Call
}

// Run lists events.
func (c *eventList) Run(ctx context.Context, std Streams) error {
	since, until, err := c.span(time.Now())
	if err != nil {
		return err
	}
	outcome, err := enumOf("--outcome", mirrorv1.EventOutcome_EVENT_OUTCOME_UNSPECIFIED, c.Outcome)
	if err != nil {
		return err
	}
	return within(ctx, &c.Call, std, 0, func(ctx context.Context, s *service) (*mirrorv1.ListEventsResponse, error) {
		return collect(ctx, c.Limit, func(p *mirrorv1.ListEventsResponse) int { return len(p.GetEvents()) },
			func(ctx context.Context, size int32, token string) (*mirrorv1.ListEventsResponse, error) {
				return s.events.ListEvents(ctx, &mirrorv1.ListEventsRequest{
					ProjectId: s.project, RoomId: c.Room, Type: c.Type, UserId: c.User, StartTime: since, EndTime: until,
					ThreadId: c.Thread, Outcome: outcome, PageSize: size, PageToken: token,
				})
			})
	}, func(w io.Writer, list *mirrorv1.ListEventsResponse) {
		rows := make([][]string, len(list.GetEvents()))
		for i, e := range list.GetEvents() {
			rows[i] = []string{
				at(e.GetReceiveTime()), e.GetType(), e.GetRoomId(), e.GetUserId(),
				word(e.GetOutcome().String(), "EVENT_OUTCOME_"), e.GetEventId(),
			}
		}
		table(w, "RECEIVED | TYPE | ROOM | USER | OUTCOME | EVENT", rows)
		more(std, list)
	})
}

type eventShow struct {
	EventID string `arg:"" name:"event-id" help:"Id of the event: the webhook-id of its delivery."`

	Call
}

// Run shows an event.
func (c *eventShow) Run(ctx context.Context, std Streams) error {
	hidden := false
	return once(ctx, &c.Call, std, func(ctx context.Context, s *service) (*mirrorv1.GetEventResponse, error) {
		got, err := s.events.GetEvent(ctx, &mirrorv1.GetEventRequest{ProjectId: s.project, EventId: c.EventID})
		if err == nil && !c.JSON && len(got.GetTasks()) == 0 &&
			got.GetEvent().GetOutcome() == mirrorv1.EventOutcome_EVENT_OUTCOME_QUEUED {
			// The answer leaves out what its caller may not read. Why there is none only a call
			// for tasks tells; if it fails otherwise, nothing is said.
			_, denied := s.ListTasks(ctx, &mirrorv1.ListTasksRequest{
				ProjectId: s.project, RoomId: got.GetEvent().GetRoomId(), PageSize: 1,
			})
			hidden = status.Code(denied) == codes.PermissionDenied
		}
		return got, err
	}, func(w io.Writer, got *mirrorv1.GetEventResponse) {
		e := got.GetEvent()
		table(w, "EVENT | "+cell(e.GetEventId()), [][]string{
			{"type", e.GetType()},
			{"room", e.GetRoomId()},
			{"user", e.GetUserId()},
			{"thread", e.GetThreadId()},
			{"Liveblocks project", e.GetLiveblocksProjectId()},
			{"sent", at(e.GetSendTime())},
			{"received", at(e.GetReceiveTime())},
			{"happened", at(e.GetSourceTime())},
			{"outcome", word(e.GetOutcome().String(), "EVENT_OUTCOME_")},
			{"verified by the secret", e.GetSecretFingerprint()},
			{"payload", string(e.GetPayload())},
		})
		if len(got.GetTasks()) > 0 {
			_, _ = fmt.Fprintln(w, "\nWhat it makes stale, as it is now:")
			taskTable(w, got.GetTasks())
		}
		if hidden {
			_, _ = fmt.Fprintln(w, "\nTo see what it makes stale, the key needs the scope admin.read.")
		}
	})
}

type eventReplay struct {
	EventID []string `arg:"" optional:"" name:"event-id" help:"Ids of the events, instead of a filter."`
	EventFilter
	Yes bool `name:"yes" help:"Replay them."`

	Call
}

// Run replays events, of which one call takes so many only.
func (c *eventReplay) Run(ctx context.Context, std Streams) error {
	since, until, err := c.span(time.Now())
	if err != nil {
		return err
	}
	show := &screen{w: std.Err, live: terminal(std.Err)}
	defer show.clear()
	total := &mirrorv1.ReplayEventsResponse{}
	err = c.run(ctx, 0, func(ctx context.Context, s *service) error {
		req := &mirrorv1.ReplayEventsRequest{
			ProjectId: s.project, EventIds: c.EventID, RoomId: c.Room, Type: c.Type, UserId: c.User, StartTime: since,
			EndTime: until, DryRun: !c.Yes,
		}
		for {
			done, err := replay(ctx, s, req, total, show)
			if err != nil {
				return err
			}
			total = done
			if req.PageToken = done.GetNextPageToken(); req.PageToken == "" {
				return nil
			}
		}
	})
	show.clear()
	if err != nil {
		return err
	}
	return c.Print(std.Out, total, func(w io.Writer) {
		verb, hint := "replayed", ""
		if !c.Yes {
			verb, hint = "would be replayed", "; nothing was changed, --yes replays them"
		}
		_, _ = fmt.Fprintf(w, "%d of %d events %s, %d skipped%s\n", total.GetEventsReplayed(), total.GetEventsRead(), verb,
			total.GetEventsSkipped(), hint)
	})
}

// replay makes one call, and returns what it has done in addition to what was done before.
func replay(ctx context.Context, s *service, req *mirrorv1.ReplayEventsRequest, before *mirrorv1.ReplayEventsResponse,
	show *screen,
) (*mirrorv1.ReplayEventsResponse, error) {
	stream, err := s.ReplayEvents(ctx, req)
	if err != nil {
		return nil, err
	}
	done := proto.CloneOf(before)
	for ended := false; ; {
		got, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && ended:
			return done, nil
		case errors.Is(err, io.EOF):
			return nil, errors.New("the service ended the replay early; run it again, an event may be replayed twice")
		case err != nil:
			return nil, err
		}
		ended = got.GetDone()
		done = &mirrorv1.ReplayEventsResponse{
			EventsRead:     before.GetEventsRead() + got.GetEventsRead(),
			EventsReplayed: before.GetEventsReplayed() + got.GetEventsReplayed(),
			EventsSkipped:  before.GetEventsSkipped() + got.GetEventsSkipped(),
			NextPageToken:  got.GetNextPageToken(), Done: ended,
		}
		show.progress(fmt.Sprintf("%d events read", done.GetEventsRead()))
	}
}

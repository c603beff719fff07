package rpc

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/metadata"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/ledger"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/webhook"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// EventDeps holds the dependencies of the event service.
type EventDeps struct {
	Query    EventQuery
	Receiver Receiver
}

// EventQuery reads recorded events, and the tasks of what they make stale.
type EventQuery interface {
	store.EventQuery
	Tasks(ctx context.Context, resources []mirror.Resource, now time.Time) ([]mirror.Task, error)
}

// Receiver verifies and records a webhook delivery. It returns once the event is
// durable. If project is empty, the secret that verifies the signature decides.
type Receiver interface {
	Receive(ctx context.Context, project mirror.ProjectID, h webhook.Headers, body []byte) (ledger.Receipt, error)
	// Refused counts a delivery whose headers are refused, and tells why.
	Refused(ctx context.Context, err error)
}

const (
	receiveWebhook = mirrorv1.EventService_ReceiveWebhook_FullMethodName
	// MaxWebhook is the maximum size of a delivery's body in bytes. Liveblocks'
	// events take a few hundred; the largest are notifications with their text.
	MaxWebhook = 1 << 20
	// receiveTimeout ends a delivery that cannot be recorded. Svix waits 15 s, and
	// a response in time says more than none.
	receiveTimeout = 10 * time.Second
)

// eventService receives deliveries and returns recorded events.
type eventService struct {
	mirrorv1.UnimplementedEventServiceServer
	common
	EventDeps
}

// ReceiveWebhook passes the body on unchanged and unread.
func (e *eventService) ReceiveWebhook(ctx context.Context,
	req *mirrorv1.ReceiveWebhookRequest,
) (*mirrorv1.ReceiveWebhookResponse, error) {
	body := req.GetBody().GetData()
	if len(body) > MaxWebhook {
		return nil, fault.New(fault.Invalid, fault.ReasonPayloadTooLarge, "the body is over the limit")
	}
	headers, err := webhook.HeadersFrom(func(key string) []string {
		return metadata.ValueFromIncomingContext(ctx, key)
	})
	if err != nil {
		e.Receiver.Refused(ctx, err)
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, receiveTimeout)
	defer cancel()
	// A project that is not configured has no secrets, so its deliveries are refused like
	// others with a wrong signature: senders need no credential to ask.
	receipt, err := e.Receiver.Receive(ctx, mirror.ProjectID(req.GetProjectId()), headers, body)
	if err != nil {
		return nil, err
	}
	return &mirrorv1.ReceiveWebhookResponse{
		EventId:   receipt.EventID,
		Duplicate: receipt.Duplicate,
		Outcome:   outcomes[receipt.Outcome],
	}, nil
}

// GetEvent returns one event with its payload.
func (e *eventService) GetEvent(ctx context.Context, req *mirrorv1.GetEventRequest) (*mirrorv1.GetEventResponse,
	error,
) {
	in, err := e.scope(ctx, req.GetProjectId())
	if err != nil {
		return nil, err
	}
	event, err := e.Query.Event(ctx, in.project, req.GetEventId())
	if err == nil && !in.sees(event.Room) {
		err = store.ErrNotFound
	}
	if err != nil {
		return nil, fault.Translate(err, store.ErrNotFound, fault.New(fault.NotFound, fault.ReasonEventNotFound,
			"no such event was recorded").With("event_id", req.GetEventId()))
	}
	var tasks []*mirrorv1.Task
	if in.caller.Allows(access.AdminRead) { // as for GetTask
		if tasks, err = e.tasks(ctx, &event); err != nil {
			return nil, err
		}
	}
	return &mirrorv1.GetEventResponse{Event: eventToProto(&event), Tasks: tasks}, nil
}

// tasks returns the tasks of what an event makes stale.
func (e *eventService) tasks(ctx context.Context, event *mirror.Event) (list []*mirrorv1.Task, err error) {
	if event.Outcome == mirror.OutcomeForeignProject {
		return nil, nil
	}
	d := webhook.Decode(event.Project, event.ID, event.Payload, event.SendTime, event.ReceiveTime)
	resources := make([]mirror.Resource, len(d.Invalidations)) // all of one room
	for n, i := range d.Invalidations {
		resources[n] = i.Resource
	}
	tasks, err := e.Query.Tasks(ctx, resources, e.now())
	if err != nil {
		return nil, err
	}
	for _, i := range d.Invalidations {
		n := slices.IndexFunc(tasks, func(t mirror.Task) bool { return t.Resource == i.Resource })
		switch {
		case n < 0: // it needed no fetch, or was purged
		case i.IfUnknown && tasks[n].Applied > 0 && tasks[n].MissingSince.IsZero():
			// It is mirrored, and nothing waits for it.
		default:
			list = append(list, taskToProto(&tasks[n]))
		}
	}
	return list, nil
}

// payloadBatch is the maximum number of payloads, up to 1 MiB each, of one query.
const payloadBatch = 16

// ListEvents lists events, newest first.
func (e *eventService) ListEvents(ctx context.Context, req *mirrorv1.ListEventsRequest) (*mirrorv1.ListEventsResponse,
	error,
) {
	full := req.GetView() == mirrorv1.EventView_EVENT_VIEW_FULL
	l := listing[mirror.Event, *mirrorv1.Event]{
		list: listEvents,
		fetch: func(ctx context.Context, in scope, after cursor, limit int) ([]mirror.Event, error) {
			return e.Query.Events(ctx, store.EventFilter{
				Project:   in.project,
				Rooms:     in.rooms,
				Room:      mirror.RoomID(req.GetRoomId()),
				Type:      req.GetType(),
				User:      req.GetUserId(),
				Thread:    req.GetThreadId(),
				Outcome:   outcomeOf(req.GetOutcome()),
				From:      bound(req.GetStartTime()),
				To:        bound(req.GetEndTime()),
				AfterTime: after.Time,
				AfterID:   after.ID,
				NoPayload: !full,
				Limit:     limit,
			})
		},
		key:     func(row *mirror.Event) cursor { return cursor{Time: row.ReceiveTime, ID: row.ID} },
		toProto: eventToProto,
	}
	if full {
		l.batch = payloadBatch
	}
	events, next, err := page(ctx, &e.common, req, l)
	if err != nil {
		return nil, err
	}
	return &mirrorv1.ListEventsResponse{Events: events, NextPageToken: next}, nil
}

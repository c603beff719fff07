package postgres

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

type eventKey struct {
	project mirror.ProjectID
	id      string
}

// Accept is one statement and so one round trip and one commit for the batch.
func (s *Store) Accept(ctx context.Context, batch []mirror.Arrival) ([]store.Accepted, error) {
	// The order of the keys is the order in which rows are locked.
	order := make([]int, len(batch))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return compareEvents(batch[a].Event, batch[b].Event) })

	arg := acceptParams(batch, order)
	var rows []dbq.AcceptEventsRow
	err := retry(ctx, func() (err error) {
		rows, err = s.q.AcceptEvents(ctx, arg)
		return err
	})
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("accept %d events: %w", len(batch), err))
	}

	fresh := make(map[eventKey]bool, len(batch))
	generation := make(map[mirror.Resource]int64, len(rows))
	for _, r := range rows {
		if r.EventID != "" {
			fresh[eventKey{mirror.ProjectID(r.ProjectID), r.EventID}] = true
			continue
		}
		generation[mirror.Resource{
			Project: mirror.ProjectID(r.ProjectID),
			Room:    mirror.RoomID(r.RoomID),
			Kind:    mirror.Kind(r.Kind),
			ID:      r.ResourceID,
		}] = r.Generation
	}
	answers := make([]store.Accepted, len(batch))
	var duplicates []int
	for i, a := range batch {
		if !fresh[eventKey{a.Event.Project, a.Event.ID}] {
			duplicates = append(duplicates, i)
			continue
		}
		answers[i] = store.Accepted{Fresh: true, Outcome: a.Event.Outcome}
		for _, h := range a.Hints {
			if n, ok := generation[h.Resource]; ok {
				answers[i].Raised = append(answers[i].Raised, mirror.Raised{Resource: h.Resource, Generation: n})
			}
		}
	}
	if len(duplicates) > 0 {
		if err := s.recall(ctx, batch, duplicates, answers); err != nil {
			return nil, err
		}
	}
	return answers, nil
}

// recall fills in what became of deliveries that were recorded before.
func (s *Store) recall(ctx context.Context, batch []mirror.Arrival, duplicates []int, answers []store.Accepted) error {
	var arg dbq.EventOutcomesParams
	var resources []mirror.Resource
	for _, i := range duplicates {
		e := batch[i].Event
		arg.Bucket = append(arg.Bucket, mirror.Bucket(e.Project, e.ID))
		arg.ProjectID = append(arg.ProjectID, string(e.Project))
		arg.EventID = append(arg.EventID, e.ID)
		for _, h := range batch[i].Hints {
			resources = append(resources, h.Resource)
		}
	}
	rows, err := s.q.EventOutcomes(ctx, arg)
	if err != nil {
		return classify(ctx, fmt.Errorf("read outcomes of duplicates: %w", err))
	}
	outcome := make(map[eventKey]mirror.Outcome, len(rows))
	for _, r := range rows {
		outcome[eventKey{mirror.ProjectID(r.ProjectID), r.EventID}] = mirror.Outcome(r.Outcome)
	}
	states, err := s.states(ctx, resources)
	if err != nil {
		return err
	}
	for _, i := range duplicates {
		answers[i].Outcome = outcome[eventKey{batch[i].Event.Project, batch[i].Event.ID}]
		for _, h := range batch[i].Hints {
			if st, ok := states[h.Resource]; ok && !h.IfUnknown {
				answers[i].Raised = append(answers[i].Raised, mirror.Raised{Resource: h.Resource, Generation: st.Generation})
			}
		}
	}
	return nil
}

func compareEvents(a, b mirror.Event) int {
	return cmp.Or(
		cmp.Compare(mirror.Bucket(a.Project, a.ID), mirror.Bucket(b.Project, b.ID)),
		cmp.Compare(a.Project, b.Project),
		cmp.Compare(a.ID, b.ID),
	)
}

func acceptParams(batch []mirror.Arrival, order []int) dbq.AcceptEventsParams {
	n := len(batch)
	p := dbq.AcceptEventsParams{
		Bucket:              make([]int16, 0, n),
		ProjectID:           make([]string, 0, n),
		EventID:             make([]string, 0, n),
		Type:                make([]string, 0, n),
		RoomID:              make([]string, 0, n),
		UserID:              make([]string, 0, n),
		LiveblocksProjectID: make([]string, 0, n),
		Payload:             make([][]byte, 0, n),
		SendTime:            make([]pgtype.Timestamptz, 0, n),
		ReceiveTime:         make([]pgtype.Timestamptz, 0, n),
		SourceTime:          make([]pgtype.Timestamptz, 0, n),
		Outcome:             make([]string, 0, n),
	}
	for _, i := range order {
		e := batch[i].Event
		p.Bucket = append(p.Bucket, mirror.Bucket(e.Project, e.ID))
		p.ProjectID = append(p.ProjectID, string(e.Project))
		p.EventID = append(p.EventID, e.ID)
		p.Type = append(p.Type, e.Type)
		p.RoomID = append(p.RoomID, string(e.Room))
		p.UserID = append(p.UserID, e.User)
		p.LiveblocksProjectID = append(p.LiveblocksProjectID, e.LiveblocksProject)
		payload := e.Payload
		if payload == nil {
			payload = []byte{} // an empty body, not a null
		}
		p.Payload = append(p.Payload, payload)
		p.SendTime = append(p.SendTime, at(e.SendTime))
		p.ReceiveTime = append(p.ReceiveTime, at(e.ReceiveTime))
		p.SourceTime = append(p.SourceTime, at(e.SourceTime))
		p.Outcome = append(p.Outcome, string(e.Outcome))
		for _, h := range batch[i].Hints {
			p.HintProjectID = append(p.HintProjectID, string(h.Resource.Project))
			p.HintEventID = append(p.HintEventID, e.ID)
			p.HintBucket = append(p.HintBucket, h.Resource.Bucket())
			p.HintRoomID = append(p.HintRoomID, string(h.Resource.Room))
			p.HintKind = append(p.HintKind, int16(h.Resource.Kind))
			p.HintResourceID = append(p.HintResourceID, h.Resource.ID)
			p.HintIfUnknown = append(p.HintIfUnknown, h.IfUnknown)
			p.HintDeleted = append(p.HintDeleted, h.Deleted)
			p.HintTime = append(p.HintTime, at(e.SourceTime))
			p.HintNow = append(p.HintNow, at(e.ReceiveTime))
			p.HintMinInterval = append(p.HintMinInterval, pgtype.Interval{Microseconds: h.MinInterval.Microseconds(), Valid: true})
		}
	}
	return p
}

// PinProject lets the first writer win.
func (s *Store) PinProject(ctx context.Context, project mirror.ProjectID, liveblocksID string) (string, error) {
	pinned, err := s.q.PinProject(ctx, dbq.PinProjectParams{ProjectID: string(project), LiveblocksProjectID: liveblocksID})
	if err != nil {
		return "", classify(ctx, fmt.Errorf("pin project: %w", err))
	}
	return pinned, nil
}

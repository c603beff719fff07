package postgres

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
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
func (s *Store) Accept(ctx context.Context, batch []mirror.Delivery) ([]store.Accepted, error) {
	arg, events := acceptParams(batch)
	var rows []dbq.AcceptEventsRow
	err := retry(ctx, func() (err error) {
		rows, err = dbq.New(unboxed{s.accepting}).AcceptEvents(ctx, arg)
		return err
	})
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("accept %d events: %w", len(batch), err))
	}

	answers := make([]store.Accepted, len(batch))
	for i := range batch {
		answers[i] = store.Accepted{Fresh: true, Outcome: batch[i].Event.Outcome}
	}
	var duplicates []int
	pending := make(map[mirror.Resource]int64, len(rows))
	for _, r := range rows {
		if r.Place > 0 {
			i := events[r.Place-1].place
			duplicates = append(duplicates, i)
			answers[i] = store.Accepted{}
			continue
		}
		pending[mirror.Resource{
			Project: mirror.ProjectID(r.ProjectID),
			Room:    mirror.RoomID(r.RoomID),
			Kind:    mirror.Kind(r.Kind),
			ID:      r.ResourceID,
		}] = r.Generation
	}
	for i := range batch {
		if !answers[i].Fresh {
			continue
		}
		for _, h := range batch[i].Invalidations {
			if n, ok := pending[h.Resource]; ok {
				answers[i].Pending = append(answers[i].Pending, mirror.Pending{Resource: h.Resource, Generation: n})
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
func (s *Store) recall(ctx context.Context, batch []mirror.Delivery, duplicates []int, answers []store.Accepted) error {
	var arg dbq.EventOutcomesParams
	var resources []mirror.Resource
	for _, i := range duplicates {
		e := batch[i].Event
		arg.Bucket = append(arg.Bucket, mirror.Bucket(e.Project, e.ID))
		arg.ProjectID = append(arg.ProjectID, string(e.Project))
		arg.EventID = append(arg.EventID, e.ID)
		for _, h := range batch[i].Invalidations {
			resources = append(resources, h.Resource)
		}
	}
	q := dbq.New(s.accepting)
	rows, err := q.EventOutcomes(ctx, arg)
	if err != nil {
		return classify(ctx, fmt.Errorf("read outcomes of duplicates: %w", err))
	}
	outcome := make(map[eventKey]mirror.Outcome, len(rows))
	for _, r := range rows {
		outcome[eventKey{mirror.ProjectID(r.ProjectID), r.EventID}] = mirror.Outcome(r.Outcome)
	}
	states, err := readStates(ctx, q, resources)
	if err != nil {
		return err
	}
	for _, i := range duplicates {
		answers[i].Outcome = outcome[eventKey{batch[i].Event.Project, batch[i].Event.ID}]
		for _, h := range batch[i].Invalidations {
			if st, ok := states[h.Resource]; ok && !h.IfUnknown {
				answers[i].Pending = append(answers[i].Pending, mirror.Pending{Resource: h.Resource, Generation: st.Generation})
			}
		}
	}
	return nil
}

// keyed is an event of a batch by its place there, with the first part of its
// key.
type keyed struct {
	bucket int16
	place  int
}

// acceptParams puts the events in key order, the order in which rows are locked,
// and returns that order too.
func acceptParams(batch []mirror.Delivery) (dbq.AcceptEventsParams, []keyed) {
	n, invalidations := len(batch), 0
	events := make([]keyed, n)
	for i := range batch {
		events[i] = keyed{mirror.Bucket(batch[i].Event.Project, batch[i].Event.ID), i}
		invalidations += len(batch[i].Invalidations)
	}
	slices.SortFunc(events, func(x, y keyed) int {
		a, b := &batch[x.place].Event, &batch[y.place].Event
		return cmp.Or(cmp.Compare(x.bucket, y.bucket), cmp.Compare(a.Project, b.Project), cmp.Compare(a.ID, b.ID))
	})
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
		HintEvent:           make([]int32, 0, invalidations),
		HintBucket:          make([]int16, 0, invalidations),
		HintProjectID:       make([]string, 0, invalidations),
		HintRoomID:          make([]string, 0, invalidations),
		HintKind:            make([]int16, 0, invalidations),
		HintResourceID:      make([]string, 0, invalidations),
		HintIfUnknown:       make([]bool, 0, invalidations),
		HintDeleted:         make([]bool, 0, invalidations),
		HintTime:            make([]pgtype.Timestamptz, 0, invalidations),
		HintNow:             make([]pgtype.Timestamptz, 0, invalidations),
		HintMinIntervalUs:   make([]int64, 0, invalidations),
		FoldBucket:          []int16{},
		FoldProjectID:       []string{},
		FoldRoomID:          []string{},
		FoldKind:            []int16{},
		FoldResourceID:      []string{},
		FoldEventID:         []string{},
		FoldType:            []string{},
		FoldPayload:         [][]byte{},
		FoldSourceTime:      []pgtype.Timestamptz{},
		FoldReceiveTime:     []pgtype.Timestamptz{},
	}
	for i, k := range events {
		e := &batch[k.place].Event
		p.Bucket = append(p.Bucket, k.bucket)
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
		p.SendTime = append(p.SendTime, nullTime(e.SendTime))
		p.ReceiveTime = append(p.ReceiveTime, nullTime(e.ReceiveTime))
		p.SourceTime = append(p.SourceTime, nullTime(e.SourceTime))
		p.Outcome = append(p.Outcome, string(e.Outcome))
		for _, h := range batch[k.place].Invalidations {
			p.HintEvent = append(p.HintEvent, int32(i+1))
			p.HintBucket = append(p.HintBucket, h.Resource.Bucket())
			p.HintProjectID = append(p.HintProjectID, string(h.Resource.Project))
			p.HintRoomID = append(p.HintRoomID, string(h.Resource.Room))
			p.HintKind = append(p.HintKind, int16(h.Resource.Kind))
			p.HintResourceID = append(p.HintResourceID, h.Resource.ID)
			p.HintIfUnknown = append(p.HintIfUnknown, h.IfUnknown)
			p.HintDeleted = append(p.HintDeleted, h.Deleted)
			p.HintTime = append(p.HintTime, p.SourceTime[i])
			p.HintNow = append(p.HintNow, p.ReceiveTime[i])
			p.HintMinIntervalUs = append(p.HintMinIntervalUs, h.MinInterval.Microseconds())
			if !h.Fold {
				continue
			}
			p.FoldBucket = append(p.FoldBucket, h.Resource.Bucket())
			p.FoldProjectID = append(p.FoldProjectID, string(h.Resource.Project))
			p.FoldRoomID = append(p.FoldRoomID, string(h.Resource.Room))
			p.FoldKind = append(p.FoldKind, int16(h.Resource.Kind))
			p.FoldResourceID = append(p.FoldResourceID, h.Resource.ID)
			p.FoldEventID = append(p.FoldEventID, e.ID)
			p.FoldType = append(p.FoldType, e.Type)
			p.FoldPayload = append(p.FoldPayload, payload)
			p.FoldSourceTime = append(p.FoldSourceTime, p.SourceTime[i])
			p.FoldReceiveTime = append(p.FoldReceiveTime, p.ReceiveTime[i])
		}
	}
	return p, events
}

// unboxed gives pgx the elements of long arrays by address. From a plain slice
// it takes each as a value of its own on the heap, or by reflection.
type unboxed struct{ dbq.DBTX }

func (u unboxed) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	for i, arg := range args {
		switch arg := arg.(type) {
		case []string:
			args[i] = elements[string]{arg, func(e *string) any { return (*textElement)(e) }}
		case [][]byte:
			args[i] = elements[[]byte]{arg, func(e *[]byte) any { return (*bytesElement)(e) }}
		case []pgtype.Timestamptz:
			args[i] = elements[pgtype.Timestamptz]{arg, func(e *pgtype.Timestamptz) any { return e }}
		}
	}
	return u.DBTX.Query(ctx, sql, args...)
}

// elements is an array for pgx.
type elements[T any] struct {
	of []T
	as func(*T) any
}

func (e elements[T]) Dimensions() []pgtype.ArrayDimension {
	return []pgtype.ArrayDimension{{Length: int32(len(e.of)), LowerBound: 1}} //nolint:gosec // a batch is small
}
func (e elements[T]) Index(i int) any { return e.as(&e.of[i]) }
func (e elements[T]) IndexType() any  { return e.as(new(T)) }

type (
	textElement  string
	bytesElement []byte
)

func (e *textElement) TextValue() (pgtype.Text, error) {
	return pgtype.Text{String: string(*e), Valid: true}, nil
}
func (e *bytesElement) BytesValue() ([]byte, error) { return *e, nil }

// PinProject lets the first writer win.
func (s *Store) PinProject(ctx context.Context, project mirror.ProjectID, liveblocksID string) (string, error) {
	pinned, err := dbq.New(s.accepting).PinProject(ctx,
		dbq.PinProjectParams{ProjectID: string(project), LiveblocksProjectID: liveblocksID})
	if err != nil {
		return "", classify(ctx, fmt.Errorf("pin project: %w", err))
	}
	return pinned, nil
}

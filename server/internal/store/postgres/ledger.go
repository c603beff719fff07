package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

type eventKey struct {
	project mirror.ProjectID
	id      string
}

// Accept uses one statement, so one round trip and one commit for the batch.
func (s *Store) Accept(ctx context.Context, batch []mirror.Delivery) ([]store.Accepted, error) {
	return store.AcceptUnlocked(batch, func(part []mirror.Delivery, wait time.Duration) ([]store.Accepted, error) {
		return s.accept(ctx, part, wait)
	})
}

func (s *Store) accept(ctx context.Context, batch []mirror.Delivery, wait time.Duration) ([]store.Accepted, error) {
	arg, events := acceptParams(batch, store.StaleByEvent)
	arg.LockTimeout = fmt.Sprintf("%dms", wait.Milliseconds())
	var rows []dbq.MarkStaleRow
	err := retry(ctx, func() (err error) {
		rows, err = dbq.New(unboxed{s.names.on(s.accepting)}).MarkStale(ctx, arg)
		return err
	})
	if err := locked(err); err != nil {
		return nil, err
	}
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
		p := pendingOf(r)
		pending[p.Resource] = p.Generation
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

// locked returns ErrLocked or ErrEventLocked if the server gave up waiting for a row.
// The server names the table in the context of the error; if it does not, it is that
// of the states, as nearly always.
func locked(err error) error {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case !ok || pg.Code != lockedCode:
		return nil
	case strings.Contains(pg.Where, "mirror_event") || strings.Contains(pg.Where, "mirror_unfolded_event"):
		return store.ErrEventLocked
	default:
		return store.ErrLocked
	}
}

func pendingOf(r dbq.MarkStaleRow) mirror.Pending {
	return mirror.Pending{Generation: r.Generation, Resource: mirror.Resource{
		Project: mirror.ProjectID(r.ProjectID), Room: mirror.RoomID(r.RoomID), Kind: mirror.Kind(r.Kind), ID: r.ResourceID,
	}}
}

// recall reads the outcomes of deliveries that were recorded before.
func (s *Store) recall(ctx context.Context, batch []mirror.Delivery, duplicates []int, answers []store.Accepted) error {
	var arg dbq.EventOutcomesParams
	var resources []mirror.Resource
	for _, i := range duplicates {
		e := batch[i].Event
		arg.Bucket = append(arg.Bucket, e.Bucket())
		arg.ProjectID = append(arg.ProjectID, string(e.Project))
		arg.EventID = append(arg.EventID, e.ID)
		for _, h := range batch[i].Invalidations {
			resources = append(resources, h.Resource)
		}
	}
	q := dbq.New(s.names.on(s.accepting))
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

// keyed is the index of an event in a batch with the first part of its key.
type keyed struct {
	bucket int16
	place  int
}

// acceptParams sorts the events in key order, which is the lock order, and returns
// that order too. stale says how they make something stale.
func acceptParams(batch []mirror.Delivery, stale func(mirror.Event, mirror.Invalidation) store.Stale,
) (dbq.MarkStaleParams, []keyed) {
	n, invalidations := len(batch), 0
	events := make([]keyed, n)
	for i := range batch {
		events[i] = keyed{batch[i].Event.Bucket(), i}
		invalidations += len(batch[i].Invalidations)
	}
	slices.SortFunc(events, func(x, y keyed) int {
		a, b := &batch[x.place].Event, &batch[y.place].Event
		return cmp.Or(cmp.Compare(x.bucket, y.bucket), cmp.Compare(a.Project, b.Project), cmp.Compare(a.ID, b.ID))
	})
	p := dbq.MarkStaleParams{
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
		ThreadID:            make([]string, 0, n),
		SecretSha:           make([]string, 0, n),
	}
	growStale(&p, invalidations)
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
			payload = []byte{} // an empty body, not null
		}
		p.Payload = append(p.Payload, payload)
		p.SendTime = append(p.SendTime, nullTime(e.SendTime))
		p.ReceiveTime = append(p.ReceiveTime, nullTime(e.ReceiveTime))
		p.SourceTime = append(p.SourceTime, nullTime(e.SourceTime))
		p.Outcome = append(p.Outcome, string(e.Outcome))
		p.ThreadID = append(p.ThreadID, e.Thread)
		p.SecretSha = append(p.SecretSha, e.Secret)
		for _, h := range batch[k.place].Invalidations {
			addStale(&p, int32(i+1), stale(*e, h))
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

// staleParams returns the parameters of MarkStale without events.
func staleParams(list []store.Stale) (p dbq.MarkStaleParams) {
	growStale(&p, len(list))
	for _, w := range list {
		addStale(&p, 0, w)
	}
	return p
}

// growStale allocates space for n resources.
func growStale(p *dbq.MarkStaleParams, n int) {
	p.StaleEvent = make([]int32, 0, n)
	p.StaleBucket = make([]int16, 0, n)
	p.StaleProjectID = make([]string, 0, n)
	p.StaleRoomID = make([]string, 0, n)
	p.StaleKind = make([]int16, 0, n)
	p.StaleResourceID = make([]string, 0, n)
	p.StaleNow = make([]pgtype.Timestamptz, 0, n)
	p.StaleMinIntervalUs = make([]int64, 0, n)
	p.StaleSourceTime = make([]pgtype.Timestamptz, 0, n)
	p.StaleNoticeTime = make([]pgtype.Timestamptz, 0, n)
	p.StaleFlags = make([]int16, 0, n)
}

// addStale adds a stale resource, caused by the event at an index or by none.
func addStale(p *dbq.MarkStaleParams, event int32, w store.Stale) {
	p.StaleEvent = append(p.StaleEvent, event)
	p.StaleBucket = append(p.StaleBucket, w.Resource.Bucket())
	p.StaleProjectID = append(p.StaleProjectID, string(w.Resource.Project))
	p.StaleRoomID = append(p.StaleRoomID, string(w.Resource.Room))
	p.StaleKind = append(p.StaleKind, int16(w.Resource.Kind))
	p.StaleResourceID = append(p.StaleResourceID, w.Resource.ID)
	p.StaleNow = append(p.StaleNow, nullTime(w.Now))
	p.StaleMinIntervalUs = append(p.StaleMinIntervalUs, w.MinInterval.Microseconds())
	p.StaleSourceTime = append(p.StaleSourceTime, nullTime(w.SourceTime))
	p.StaleNoticeTime = append(p.StaleNoticeTime, nullTime(w.NoticeTime))
	var flags int16
	for i, set := range [...]bool{!w.IfUnknown, w.Deleted, !w.Background, w.Lift, !w.SameGeneration, w.Event} {
		if set {
			flags |= 1 << i
		}
	}
	p.StaleFlags = append(p.StaleFlags, flags)
}

// unboxed passes the elements of long arrays to pgx by address. From a plain slice,
// pgx allocates each element or uses reflection.
//
// The statement gets a name that distinguishes it from its other uses in the
// server's activity view and log.
type unboxed struct{ dbq.DBTX }

// acceptEvents is that statement.
var acceptEvents atomic.Value

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
	named, ok := acceptEvents.Load().(string)
	if !ok {
		named = "-- name: AcceptEvents\n" + sql
		acceptEvents.Store(named)
	}
	return u.DBTX.Query(ctx, named, args...)
}

// elements is an array parameter for pgx.
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

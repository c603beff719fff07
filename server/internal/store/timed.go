package store

import (
	"context"
	"errors"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/tracing"
)

// Timed returns a store that tells how long its operations take, and gives each a span in
// the trace of its context: those that deliveries, tasks and readers of documents wait for.
// The others pass through.
func Timed(s Store, observe func(operation string, took time.Duration)) Store {
	return &timed{Store: s, observe: observe}
}

type timed struct {
	Store

	observe func(operation string, took time.Duration)
}

// operation begins an operation; what it returns ends it with its error.
func (t *timed) operation(ctx context.Context, name string) (context.Context, func(*error)) {
	ctx, span := tracing.Begin(ctx, name)
	begun := time.Now()
	return ctx, func(err *error) {
		t.observe(name, time.Since(begun))
		if outcome(*err) {
			span.End(nil)
		} else {
			span.End(*err)
		}
	}
}

// outcome reports whether an error is one of the regular outcomes of an operation.
func outcome(err error) bool {
	return errors.Is(err, ErrNotDue) || errors.Is(err, ErrNotFound) || errors.Is(err, ErrCopyChanged) ||
		errors.Is(err, ErrEpochChanged) || errors.Is(err, ErrLeaseLost)
}

func (t *timed) Accept(ctx context.Context, batch []mirror.Delivery) (_ []Accepted, err error) {
	ctx, end := t.operation(ctx, "accept")
	defer end(&err)
	return t.Store.Accept(ctx, batch)
}

func (t *timed) Due(ctx context.Context, look Look) (_ DueList, err error) {
	ctx, end := t.operation(ctx, "due")
	defer end(&err)
	return t.Store.Due(ctx, look)
}

func (t *timed) Claim(ctx context.Context, resource mirror.Resource, token [16]byte, now time.Time,
	ttl time.Duration,
) (_ mirror.Lease, err error) {
	ctx, end := t.operation(ctx, "claim")
	defer end(&err)
	return t.Store.Claim(ctx, resource, token, now, ttl)
}

func (t *timed) Renew(ctx context.Context, lease mirror.Lease, until time.Time) (err error) {
	ctx, end := t.operation(ctx, "renew")
	defer end(&err)
	return t.Store.Renew(ctx, lease, until)
}

func (t *timed) Park(ctx context.Context, lease mirror.Lease, now time.Time) (_ mirror.Applied, err error) {
	ctx, end := t.operation(ctx, "park")
	defer end(&err)
	return t.Store.Park(ctx, lease, now)
}

func (t *timed) Fail(ctx context.Context, lease mirror.Lease, failure Failure) (_ mirror.Applied, err error) {
	ctx, end := t.operation(ctx, "fail")
	defer end(&err)
	return t.Store.Fail(ctx, lease, failure)
}

func (t *timed) Request(ctx context.Context, requests []mirror.Request, now time.Time) (_ []mirror.Pending, err error) {
	ctx, end := t.operation(ctx, "request")
	defer end(&err)
	return t.Store.Request(ctx, requests, now)
}

func (t *timed) Generations(ctx context.Context, resources []mirror.Resource) (_ []Progress, err error) {
	ctx, end := t.operation(ctx, "generations")
	defer end(&err)
	return t.Store.Generations(ctx, resources)
}

func (t *timed) ApplyRoom(ctx context.Context, lease mirror.Lease, room mirror.RoomContent, now time.Time,
	settle time.Duration,
) (_ mirror.Applied, err error) {
	ctx, end := t.operation(ctx, "apply_room")
	defer end(&err)
	return t.Store.ApplyRoom(ctx, lease, room, now, settle)
}

func (t *timed) ApplyDocument(ctx context.Context, lease mirror.Lease, doc mirror.DocumentContent,
	now time.Time, settle time.Duration,
) (_ mirror.Applied, err error) {
	ctx, end := t.operation(ctx, "apply_document")
	defer end(&err)
	return t.Store.ApplyDocument(ctx, lease, doc, now, settle)
}

func (t *timed) ApplyMissing(ctx context.Context, lease mirror.Lease, failure Failure,
	settle time.Duration,
) (_ mirror.Applied, err error) {
	ctx, end := t.operation(ctx, "apply_missing")
	defer end(&err)
	return t.Store.ApplyMissing(ctx, lease, failure, settle)
}

func (t *timed) ApplyItem(ctx context.Context, lease mirror.Lease, item Item, fetchTime, now time.Time,
	settle time.Duration,
) (_ mirror.Applied, err error) {
	ctx, end := t.operation(ctx, "apply_item")
	defer end(&err)
	return t.Store.ApplyItem(ctx, lease, item, fetchTime, now, settle)
}

func (t *timed) ApplyItemMissing(ctx context.Context, lease mirror.Lease, now time.Time,
	settle time.Duration,
) (_ mirror.Applied, err error) {
	ctx, end := t.operation(ctx, "apply_item_missing")
	defer end(&err)
	return t.Store.ApplyItemMissing(ctx, lease, now, settle)
}

func (t *timed) ApplyListed(ctx context.Context, lease mirror.Lease, fetchTime time.Time, stale []Stale,
	now time.Time, settle time.Duration,
) (_ mirror.Applied, err error) {
	ctx, end := t.operation(ctx, "apply_listed")
	defer end(&err)
	return t.Store.ApplyListed(ctx, lease, fetchTime, stale, now, settle)
}

func (t *timed) ApplyActiveUsers(ctx context.Context, lease mirror.Lease, users mirror.ActiveUsersContent,
	absentBefore, now time.Time, settle time.Duration,
) (_ mirror.Applied, err error) {
	ctx, end := t.operation(ctx, "apply_active_users")
	defer end(&err)
	return t.Store.ApplyActiveUsers(ctx, lease, users, absentBefore, now, settle)
}

func (t *timed) ApplySessions(ctx context.Context, lease mirror.Lease, fold mirror.SessionFold,
	now time.Time,
) (_ mirror.Applied, err error) {
	ctx, end := t.operation(ctx, "apply_sessions")
	defer end(&err)
	return t.Store.ApplySessions(ctx, lease, fold, now)
}

func (t *timed) ApplyNotification(ctx context.Context, lease mirror.Lease, fold mirror.NotificationFold,
	now time.Time, settle time.Duration,
) (_ mirror.Applied, err error) {
	ctx, end := t.operation(ctx, "apply_notification")
	defer end(&err)
	return t.Store.ApplyNotification(ctx, lease, fold, now, settle)
}

func (t *timed) SaveSweep(ctx context.Context, lease mirror.Lease, sweep mirror.Sweep) (err error) {
	ctx, end := t.operation(ctx, "save_sweep")
	defer end(&err)
	return t.Store.SaveSweep(ctx, lease, sweep)
}

func (t *timed) ApplySweep(ctx context.Context, lease mirror.Lease, sweep mirror.Sweep, next,
	now time.Time,
) (_ mirror.Applied, err error) {
	ctx, end := t.operation(ctx, "apply_sweep")
	defer end(&err)
	return t.Store.ApplySweep(ctx, lease, sweep, next, now)
}

func (t *timed) ReadDocuments(
	ctx context.Context, reads []DocumentRead, inline int64,
) (_ []*mirror.Document, err error) {
	ctx, end := t.operation(ctx, "read_documents")
	defer end(&err)
	return t.Store.ReadDocuments(ctx, reads, inline)
}

func (t *timed) Ping(ctx context.Context) (err error) {
	ctx, end := t.operation(ctx, "ping")
	defer end(&err)
	return t.Store.Ping(ctx)
}

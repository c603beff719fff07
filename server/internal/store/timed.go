package store

import (
	"context"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// Timed returns a store that tells how long its operations take: those that deliveries,
// tasks and readers of documents wait for. The others pass through.
func Timed(s Store, observe func(operation string, took time.Duration)) Store {
	return &timed{Store: s, observe: observe}
}

type timed struct {
	Store

	observe func(operation string, took time.Duration)
}

// time begins to measure; what it returns ends that.
func (t *timed) time(operation string) func() {
	begun := time.Now()
	return func() { t.observe(operation, time.Since(begun)) }
}

func (t *timed) Accept(ctx context.Context, batch []mirror.Delivery) ([]Accepted, error) {
	defer t.time("accept")()
	return t.Store.Accept(ctx, batch)
}

func (t *timed) Due(ctx context.Context, look Look) (DueList, error) {
	defer t.time("due")()
	return t.Store.Due(ctx, look)
}

func (t *timed) Claim(ctx context.Context, resource mirror.Resource, token [16]byte, now time.Time,
	ttl time.Duration,
) (mirror.Lease, error) {
	defer t.time("claim")()
	return t.Store.Claim(ctx, resource, token, now, ttl)
}

func (t *timed) Renew(ctx context.Context, lease mirror.Lease, until time.Time) error {
	defer t.time("renew")()
	return t.Store.Renew(ctx, lease, until)
}

func (t *timed) Park(ctx context.Context, lease mirror.Lease, now time.Time) (mirror.Applied, error) {
	defer t.time("park")()
	return t.Store.Park(ctx, lease, now)
}

func (t *timed) Fail(ctx context.Context, lease mirror.Lease, failure Failure) (mirror.Applied, error) {
	defer t.time("fail")()
	return t.Store.Fail(ctx, lease, failure)
}

func (t *timed) Request(ctx context.Context, requests []mirror.Request, now time.Time) ([]mirror.Pending, error) {
	defer t.time("request")()
	return t.Store.Request(ctx, requests, now)
}

func (t *timed) Generations(ctx context.Context, resources []mirror.Resource) ([]Progress, error) {
	defer t.time("generations")()
	return t.Store.Generations(ctx, resources)
}

func (t *timed) ApplyRoom(ctx context.Context, lease mirror.Lease, room mirror.RoomContent, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	defer t.time("apply_room")()
	return t.Store.ApplyRoom(ctx, lease, room, now, settle)
}

func (t *timed) ApplyDocument(ctx context.Context, lease mirror.Lease, doc mirror.DocumentContent,
	now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	defer t.time("apply_document")()
	return t.Store.ApplyDocument(ctx, lease, doc, now, settle)
}

func (t *timed) ApplyMissing(ctx context.Context, lease mirror.Lease, failure Failure,
	settle time.Duration,
) (mirror.Applied, error) {
	defer t.time("apply_missing")()
	return t.Store.ApplyMissing(ctx, lease, failure, settle)
}

func (t *timed) ApplyItem(ctx context.Context, lease mirror.Lease, item Item, fetchTime, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	defer t.time("apply_item")()
	return t.Store.ApplyItem(ctx, lease, item, fetchTime, now, settle)
}

func (t *timed) ApplyItemMissing(ctx context.Context, lease mirror.Lease, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	defer t.time("apply_item_missing")()
	return t.Store.ApplyItemMissing(ctx, lease, now, settle)
}

func (t *timed) ApplyListed(ctx context.Context, lease mirror.Lease, fetchTime time.Time, stale []Stale,
	now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	defer t.time("apply_listed")()
	return t.Store.ApplyListed(ctx, lease, fetchTime, stale, now, settle)
}

func (t *timed) ApplyActiveUsers(ctx context.Context, lease mirror.Lease, users mirror.ActiveUsersContent,
	absentBefore, now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	defer t.time("apply_active_users")()
	return t.Store.ApplyActiveUsers(ctx, lease, users, absentBefore, now, settle)
}

func (t *timed) ApplySessions(ctx context.Context, lease mirror.Lease, fold mirror.SessionFold,
	now time.Time,
) (mirror.Applied, error) {
	defer t.time("apply_sessions")()
	return t.Store.ApplySessions(ctx, lease, fold, now)
}

func (t *timed) ApplyNotification(ctx context.Context, lease mirror.Lease, fold mirror.NotificationFold,
	now time.Time, settle time.Duration,
) (mirror.Applied, error) {
	defer t.time("apply_notification")()
	return t.Store.ApplyNotification(ctx, lease, fold, now, settle)
}

func (t *timed) SaveSweep(ctx context.Context, lease mirror.Lease, sweep mirror.Sweep) error {
	defer t.time("save_sweep")()
	return t.Store.SaveSweep(ctx, lease, sweep)
}

func (t *timed) ApplySweep(ctx context.Context, lease mirror.Lease, sweep mirror.Sweep, next,
	now time.Time,
) (mirror.Applied, error) {
	defer t.time("apply_sweep")()
	return t.Store.ApplySweep(ctx, lease, sweep, next, now)
}

func (t *timed) ReadDocuments(ctx context.Context, reads []DocumentRead, inline int64) ([]*mirror.Document, error) {
	defer t.time("read_documents")()
	return t.Store.ReadDocuments(ctx, reads, inline)
}

func (t *timed) Ping(ctx context.Context) error {
	defer t.time("ping")()
	return t.Store.Ping(ctx)
}

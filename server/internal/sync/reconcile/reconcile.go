// Package reconcile brings one resource up to date: it fetches the latest state
// and applies it. Events are only invalidations; what is stored is always what was read.
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/derive"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// Fetcher reads the latest state from Liveblocks. Failures are faults; that
// there is no such resource is reason UPSTREAM_NOT_FOUND, with Liveblocks' own
// code in the metadata.
type Fetcher interface {
	Room(ctx context.Context, id mirror.RoomID) (mirror.RoomContent, error)
	Storage(ctx context.Context, id mirror.RoomID) (mirror.Fetched, error)
	// Ydoc reads a Yjs document: the room's own, or with a guid one inside it.
	Ydoc(ctx context.Context, id mirror.RoomID, guid string) (mirror.Fetched, error)
	// Threads reads all threads of a room, with their comments.
	Threads(ctx context.Context, id mirror.RoomID) (mirror.Fetched, error)
	Thread(ctx context.Context, id mirror.RoomID, thread string) (mirror.Fetched, error)
	ActiveUsers(ctx context.Context, id mirror.RoomID) (mirror.Fetched, error)
	InboxNotification(ctx context.Context, user, id string) (mirror.Fetched, error)
}

// Liveblocks' words for a room that is not there, and for something else that is
// not. Any other 404 may come from a proxy or a wrong path and proves nothing.
const (
	codeRoomNotFound     = "ROOM_NOT_FOUND"
	codeResourceNotFound = "RESOURCE_NOT_FOUND"
)

// cleanBatch bounds one clean-up transaction.
const cleanBatch = 100

// Config is what a Reconciler works with.
type Config struct {
	Mirror  store.Mirror
	Tasks   store.Tasks
	Fetcher Fetcher
	// Failure judges a failed attempt; see queue.Policy.
	Failure func(mirror.Lease, error, time.Time) store.Failure
	// Settle is how long after a burst of events the last fetch comes.
	Settle time.Duration
	// ActiveUsersInterval keeps that fetch of a room's active users at least this
	// long after the one before it.
	ActiveUsersInterval time.Duration
	// Sweep does the task of comparing all rooms; nil if somebody else does.
	Sweep func(context.Context, mirror.Lease) (mirror.Applied, error)
	// MaxData is the largest document in bytes for which the queryable JSON is
	// kept.
	MaxData int
	Now     func() time.Time
	Logger  *slog.Logger
}

// Reconciler does tasks.
type Reconciler struct{ cfg Config }

// New returns a Reconciler.
func New(cfg Config) *Reconciler { return &Reconciler{cfg: cfg} }

// Do does the task that lease is for. No transaction is open while it fetches.
func (r *Reconciler) Do(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
	switch lease.Resource.Kind {
	case mirror.KindRoom:
		return r.room(ctx, lease)
	case mirror.KindUserSessions:
		return r.sessions(ctx, lease)
	case mirror.KindNotification:
		return r.notification(ctx, lease)
	case mirror.KindSweep:
		if r.cfg.Sweep == nil {
			return unserved(lease)
		}
		return r.cfg.Sweep(ctx, lease)
	case mirror.KindStorage, mirror.KindYdoc, mirror.KindThread, mirror.KindActiveUsers:
	}
	if lease.Epoch == 0 || lease.Gone {
		// Whose incarnation would it belong to? The room comes first.
		return r.cfg.Tasks.Park(ctx, lease, r.cfg.Now())
	}
	switch lease.Resource.Kind {
	case mirror.KindStorage:
		return r.storage(ctx, lease)
	case mirror.KindYdoc:
		return r.ydoc(ctx, lease)
	case mirror.KindThread:
		if lease.Resource.ID == "" {
			return r.threads(ctx, lease)
		}
		return r.thread(ctx, lease)
	case mirror.KindActiveUsers:
		return r.activeUsers(ctx, lease)
	default:
		return unserved(lease)
	}
}

func unserved(lease mirror.Lease) (mirror.Applied, error) {
	return mirror.Applied{}, fault.New(fault.Precondition, fault.ReasonInternal,
		fmt.Sprintf("this version does not mirror kind %d", lease.Resource.Kind))
}

func (r *Reconciler) room(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
	room, err := r.cfg.Fetcher.Room(ctx, lease.Resource.Room)
	if err != nil {
		return r.missing(ctx, lease, err)
	}
	_, room.DataProblem = derive.JSON(room.Source)
	ctx, done := beyondLease(ctx)
	defer done()
	applied, err := r.cfg.Mirror.ApplyRoom(ctx, lease, room, r.cfg.Now(), r.cfg.Settle)
	if err != nil {
		return applied, fmt.Errorf("apply room: %w", err)
	}
	if applied.Stale {
		r.clean(ctx, lease.Resource)
	}
	return applied, nil
}

// clean removes what earlier incarnations left behind. It shows nowhere, so a
// failure only leaves it lying a while longer.
func (r *Reconciler) clean(ctx context.Context, room mirror.Resource) {
	for {
		n, err := r.cfg.Mirror.CleanRoom(ctx, room, cleanBatch)
		if err != nil {
			r.cfg.Logger.WarnContext(ctx, "earlier incarnation of a room not cleaned up", slog.Any("error", err))
		}
		if n < cleanBatch {
			return
		}
	}
}

func (r *Reconciler) storage(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
	fetched, err := r.cfg.Fetcher.Storage(ctx, lease.Resource.Room)
	if err != nil {
		return r.missing(ctx, lease, err)
	}
	return r.apply(ctx, lease, derive.Storage(fetched.Body, r.cfg.MaxData), fetched.FetchTime)
}

// ydoc fetches a Yjs document. An event never says which of a room's documents
// has changed, so the room's own brings those inside it.
func (r *Reconciler) ydoc(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
	fetched, err := r.cfg.Fetcher.Ydoc(ctx, lease.Resource.Room, lease.Resource.ID)
	if err != nil {
		return r.missing(ctx, lease, err)
	}
	doc, guids := derive.Ydoc(fetched.Body, r.cfg.MaxData)
	inside := subdocuments(lease, guids)
	// Before this one is settled: nobody would ask for them again.
	if len(inside) > 0 {
		if _, err := r.cfg.Tasks.Request(ctx, requests(lease, inside), r.cfg.Now()); err != nil {
			return mirror.Applied{}, fmt.Errorf("request documents inside: %w", err)
		}
	}
	applied, err := r.apply(ctx, lease, doc, fetched.FetchTime)
	applied.AlsoDue = append(applied.AlsoDue, inside...)
	return applied, err
}

// subdocuments are the documents inside the one that was fetched. Those deeper
// down are brought once, by the first fetch of the one around them: they may
// contain each other, and would never come to rest.
func subdocuments(lease mirror.Lease, guids []string) []mirror.Resource {
	if lease.Resource.ID != "" && lease.Applied > 0 {
		return nil
	}
	var inside []mirror.Resource
	for _, guid := range guids {
		if len(inside) < mirror.MaxSubdocuments && guid != lease.Resource.ID && mirror.ValidID(guid, mirror.MaxResourceID) {
			r := lease.Resource
			r.ID = guid
			inside = append(inside, r)
		}
	}
	return inside
}

// requests asks for resources as urgently as for that of the lease.
func requests(lease mirror.Lease, resources []mirror.Resource) []mirror.Request {
	out := make([]mirror.Request, len(resources))
	for i, r := range resources {
		out[i] = mirror.Request{Resource: r, Background: lease.Background}
	}
	return out
}

// beyondLease returns a context for applying a result, which goes on although
// the lease seems to have ended. Applying locks the very row a renewal waits for,
// so a large document on a slow database would be cut off time and again. Whether
// the lease still holds is decided in the transaction, by its token.
func beyondLease(ctx context.Context) (context.Context, func()) {
	out, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if cause := context.Cause(ctx); !errors.Is(cause, store.ErrLeaseLost) {
			cancel(cause)
		}
	})
	return out, func() {
		stop()
		cancel(nil)
	}
}

// apply stores a document.
func (r *Reconciler) apply(ctx context.Context, lease mirror.Lease, doc mirror.DocumentContent,
	fetchTime time.Time) (mirror.Applied, error) {
	doc.FetchTime = fetchTime
	ctx, done := beyondLease(ctx)
	defer done()
	applied, err := r.cfg.Mirror.ApplyDocument(ctx, lease, doc, r.cfg.Now(), r.cfg.Settle)
	if err != nil {
		return applied, fmt.Errorf("apply %s: %w", lease.Resource.Kind, err)
	}
	return applied, nil
}

// missing settles the answer that there is no such room; other failures go on
// to the caller.
func (r *Reconciler) missing(ctx context.Context, lease mirror.Lease, err error) (mirror.Applied, error) {
	code, again := denied(err)
	if code != codeRoomNotFound {
		return mirror.Applied{}, again
	}
	now := r.cfg.Now()
	ctx, done := beyondLease(ctx)
	defer done()
	applied, err := r.cfg.Mirror.ApplyMissing(ctx, lease, r.cfg.Failure(lease, again, now), r.cfg.Settle)
	if err != nil {
		return applied, fmt.Errorf("apply missing %s: %w", lease.Resource.Kind, err)
	}
	return applied, nil
}

// denied returns the code with which Liveblocks denied knowing what was asked
// for, if that is what err says, and err as the failure of an attempt: not for
// good, since the next one may find it.
func denied(err error) (code string, again error) {
	if !fault.Is(err, fault.ReasonUpstreamNotFound) {
		return "", err
	}
	f := fault.Of(err)
	return f.Meta["code"], fault.Wrap(f.Err, fault.Unavailable, f.Reason, f.Public)
}

// unreadable is the failure of an attempt whose answer made no sense. Its cause
// does not quote the answer.
func unreadable(what string, err error) error {
	return fault.Wrap(fmt.Errorf("read %s: %w", what, err),
		fault.Unavailable, fault.ReasonUpstreamAnswerInvalid, "the answer of Liveblocks cannot be used")
}

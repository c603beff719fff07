// Package reconcile updates one resource: it fetches the current state and applies
// it. Events only invalidate; what is stored was always fetched.
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/derive"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/yjs"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/memory"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/items"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/queue"
)

// Fetcher reads the current state from Liveblocks. Failures are faults, whose
// reasons say what does not exist.
type Fetcher interface {
	items.Fetcher
	Room(ctx context.Context, id mirror.RoomID) (mirror.RoomContent, error)
	Storage(ctx context.Context, id mirror.RoomID) (mirror.Fetched, error)
	// Ydoc reads a Yjs document: the room's own or, with a guid, a subdocument.
	Ydoc(ctx context.Context, id mirror.RoomID, guid string) (mirror.Fetched, error)
	ActiveUsers(ctx context.Context, id mirror.RoomID) (mirror.Fetched, error)
	InboxNotification(ctx context.Context, user, id string) (mirror.Fetched, error)
}

// cleanBatch is the maximum number of resources of one clean-up transaction.
const cleanBatch = 100

// Config configures a Reconciler.
type Config struct {
	Mirror  store.Mirror
	Tasks   store.Tasks
	Fetcher Fetcher
	// Project reads what an operator has confirmed.
	Project func(ctx context.Context, project mirror.ProjectID) (mirror.Project, error)
	// Policy is the same as the queue's.
	Policy queue.Policy
	// Settle is the time between a burst of events and the settle fetch.
	Settle time.Duration
	// ActiveUsersInterval is the minimal time between two fetches of a room's
	// active users.
	ActiveUsersInterval time.Duration
	// MaxData is the maximum size in bytes of a document with queryable JSON.
	MaxData int
	Now     func() time.Time
	Logger  *slog.Logger
}

// Reconciler runs tasks.
type Reconciler struct{ cfg Config }

// New returns a Reconciler.
func New(cfg Config) *Reconciler { return &Reconciler{cfg: cfg} }

// fetch reads the current state of a resource and returns a function that decodes
// and writes it. No transaction is open meanwhile.
type fetch func(ctx context.Context, lease mirror.Lease) (apply, error)

// apply decodes and writes what was fetched.
type apply = queue.Apply

// Handlers returns the handlers by kind, except that of sweeps.
func (r *Reconciler) Handlers() map[mirror.Kind]queue.Handler {
	return map[mirror.Kind]queue.Handler{
		mirror.KindRoom:         r.handler(r.room),
		mirror.KindStorage:      r.handler(r.storage),
		mirror.KindYdoc:         r.handler(r.ydoc),
		mirror.KindThread:       r.handler(r.item),
		mirror.KindActiveUsers:  r.handler(r.activeUsers),
		mirror.KindUserSessions: r.handler(r.sessions),
		mirror.KindNotification: r.handler(r.notification),
		mirror.KindGroup:        r.handler(r.item),
	}
}

// handler returns a handler that fetches and applies. If Liveblocks has no such
// room, it applies that to the resource.
func (r *Reconciler) handler(fetch fetch) queue.Handler {
	return func(ctx context.Context, lease mirror.Lease) (queue.Apply, error) {
		apply, err := fetch(mirror.WithAttempts(ctx, lease.Attempts), lease)
		if fault.Is(err, fault.ReasonUpstreamNotFound) {
			// Not final: the next attempt may find it.
			f := fault.Of(err)
			err = fault.Wrap(f.Err, fault.Unavailable, f.Reason, f.Public)
			if f.Reason == fault.ReasonUpstreamRoomNotFound && !lease.Resource.Kind.Traits().OutlivesRoom {
				apply, err = r.missing(err), nil
			}
		}
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			ctx, done := beyondLease(ctx)
			defer done()
			applied, err := apply(ctx, lease)
			if err != nil {
				return applied, fmt.Errorf("apply %s: %w", lease.Resource.Kind, err)
			}
			return applied, nil
		}, nil
	}
}

// missing applies the failure of an attempt whose room does not exist.
func (r *Reconciler) missing(err error) apply {
	return func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
		return r.cfg.Mirror.ApplyMissing(ctx, lease, r.cfg.Policy.Failure(lease, err, r.cfg.Now()), r.cfg.Settle)
	}
}

func (r *Reconciler) room(ctx context.Context, lease mirror.Lease) (apply, error) {
	room, err := r.cfg.Fetcher.Room(ctx, lease.Resource.Room)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
		_, room.DataProblem = derive.JSON(room.Source)
		if lease.Epoch > 1 {
			if err := r.clean(ctx, lease.Resource); err != nil {
				return mirror.Applied{}, err
			}
		}
		return r.cfg.Mirror.ApplyRoom(ctx, lease, room, r.cfg.Now(), r.cfg.Settle)
	}, nil
}

// clean deletes the rows of earlier incarnations, which are hidden. Each task of a
// room that has any does so, and the one after a new incarnation begins at once.
func (r *Reconciler) clean(ctx context.Context, room mirror.Resource) error {
	for {
		n, err := r.cfg.Mirror.CleanRoom(ctx, room, cleanBatch)
		if err != nil {
			return fmt.Errorf("clean up earlier incarnations: %w", err)
		}
		if n < cleanBatch {
			return nil
		}
	}
}

// storage fetches a Storage document. One that is the copy is not decoded; for others
// there is memory before a worker takes them, so no worker waits for that.
func (r *Reconciler) storage(ctx context.Context, lease mirror.Lease) (apply, error) {
	fetched, err := r.cfg.Fetcher.Storage(ctx, lease.Resource.Room)
	if err != nil {
		return nil, err
	}
	doc, same := store.Unchanged(lease, fetched.Body, derive.StorageVersion)
	if !same {
		if err := memory.ForDecoding(ctx, derive.StorageWeight*int64(len(fetched.Body))); err != nil {
			return nil, err
		}
	}
	return func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
		if !same {
			doc = derive.Storage(fetched.Body, r.cfg.MaxData)
		}
		return r.document(ctx, lease, doc, fetched.FetchTime)
	}, nil
}

// ydoc fetches a Yjs document. Events do not say which of a room's documents has
// changed, so the room's own also requests its subdocuments, in the background: they
// can be many, and few of them have changed. It does so when no settle fetch
// follows, thus once for a burst of events.
func (r *Reconciler) ydoc(ctx context.Context, lease mirror.Lease) (apply, error) {
	fetched, err := r.cfg.Fetcher.Ydoc(ctx, lease.Resource.Room, lease.Resource.ID)
	if err != nil {
		return nil, err
	}
	names := lease.Applied == 0 || store.Settled(lease, fetched.FetchTime, r.cfg.Settle)
	doc, same := store.Unchanged(lease, fetched.Body, derive.YdocVersion)
	decode := !same || names && yjs.MayHaveSubdocuments(fetched.Body)
	if decode {
		if err := memory.ForDecoding(ctx, derive.YdocWeight*int64(len(fetched.Body))); err != nil {
			return nil, err
		}
	}
	return func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
		var guids []string
		if decode {
			doc, guids = derive.Ydoc(fetched.Body, r.cfg.MaxData)
		}
		var inside []mirror.Resource
		if names {
			inside = subdocuments(lease, guids)
		}
		// Before this one is applied: nothing else would request them.
		if len(inside) > 0 {
			if _, err := r.cfg.Tasks.Request(ctx, inBackground(inside), r.cfg.Now()); err != nil {
				return mirror.Applied{}, fmt.Errorf("request subdocuments: %w", err)
			}
		}
		applied, err := r.document(ctx, lease, doc, fetched.FetchTime)
		applied.AlsoBackground = append(applied.AlsoBackground, inside...)
		return applied, err
	}, nil
}

func (r *Reconciler) document(
	ctx context.Context, lease mirror.Lease, doc mirror.DocumentContent, fetchTime time.Time,
) (mirror.Applied, error) {
	doc.FetchTime = fetchTime
	return r.cfg.Mirror.ApplyDocument(ctx, lease, doc, r.cfg.Now(), r.cfg.Settle)
}

// subdocuments returns the subdocuments of a fetched document. Nested ones are
// requested once, by the first fetch of their parent: they can contain each other,
// and would otherwise never come to rest.
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

// inBackground returns requests for resources that can wait.
func inBackground(resources []mirror.Resource) []mirror.Request {
	out := make([]mirror.Request, len(resources))
	for i, r := range resources {
		out[i] = mirror.Request{Resource: r, Background: true}
	}
	return out
}

// beyondLease returns a context for applying a result that does not end with the
// lease. Applying locks the row that a renewal waits for, so a large document on a
// slow database would be cancelled again and again. The transaction checks by its
// token whether the lease still holds.
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

// unreadable returns the failure for a response that is not valid. Its cause does
// not quote the response.
func unreadable(what string, err error) error {
	return fault.Wrap(fmt.Errorf("read %s: %w", what, err),
		fault.Unavailable, fault.ReasonUpstreamAnswerInvalid, "the response of Liveblocks is not valid")
}

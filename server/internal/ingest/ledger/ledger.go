// Package ledger records webhook deliveries: it verifies the signature over the
// raw bytes, reads what the event makes stale, and writes both in one commit
// that many deliveries share. A delivery is answered only after that commit.
package ledger

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/batch"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/webhook"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// Limits of the queue of deliveries that wait for a commit. At 10,000 events a
// second, 4,096 are less than half a second of work: a sender that finds the
// queue full is better served by trying again. The bytes keep 4,096 deliveries
// of 1 MiB from filling the memory.
const (
	MaxQueue      = 4096
	MaxQueueBytes = 128 << 20
	// MaxBatch bounds one commit, and so what a slow one makes everybody wait.
	MaxBatch = 512
)

// knownLimit bounds the resources remembered as known; beyond it the memory
// begins anew, which costs a look-up for each.
const knownLimit = 100_000

// commitTimeout bounds one commit. The sender of a webhook waits 15 s, and our
// own answer goes out after 10.
const commitTimeout = 9 * time.Second

// Config is what a Ledger works with.
type Config struct {
	Store    store.Ledger
	Verifier *webhook.Verifier
	// Raised hands freshly raised resources to the workers of this process.
	Pending func([]mirror.Pending)
	// Failed is told when the database failed to record deliveries.
	Failed func()
	// Wait, if set, holds the answer back until what the event made stale is
	// mirrored.
	Wait   func(context.Context, []mirror.Pending) error
	Now    func() time.Time
	Logger *slog.Logger
}

// Ledger records deliveries.
type Ledger struct {
	cfg     Config
	commits *batch.Batcher[*mirror.Delivery, store.Accepted]
	bytes   atomic.Int64 // of the deliveries that wait or are being committed
	counts  counters

	mu     sync.Mutex
	pinned map[mirror.ProjectID]string

	// known are resources that have a state, which they keep for ever. Only commits
	// use it, one at a time.
	known map[mirror.Resource]struct{}
}

// Receipt is the answer to a delivery.
type Receipt struct {
	EventID   string
	Duplicate bool
	Outcome   mirror.Outcome
}

// Counts are numbers of deliveries since the process started.
type Counts struct {
	Accepted, Duplicate, Unauthenticated, Unavailable int64
	UnknownType, Malformed, ForeignProject            int64
}

type counters struct {
	accepted, duplicate, unauthenticated, unavailable atomic.Int64
	unknownType, malformed, foreignProject            atomic.Int64
}

// New returns a Ledger.
func New(cfg Config) *Ledger {
	l := &Ledger{
		cfg:    cfg,
		pinned: make(map[mirror.ProjectID]string),
		known:  make(map[mirror.Resource]struct{}),
	}
	l.commits = batch.New(batch.Config[*mirror.Delivery, store.Accepted]{
		Do: l.accept, Size: MaxBatch, Timeout: commitTimeout, Queue: MaxQueue,
		Failed: func(ctx context.Context, calls int, err error) {
			cfg.Logger.ErrorContext(ctx, "deliveries not recorded", slog.Int("count", calls), slog.Any("error", err))
			l.failed(err)
		},
		Release: func(d *mirror.Delivery) { l.bytes.Add(-int64(len(d.Event.Payload))) },
	})
	return l
}

// Counts returns the numbers so far.
func (l *Ledger) Counts() Counts {
	return Counts{
		Accepted:        l.counts.accepted.Load(),
		Duplicate:       l.counts.duplicate.Load(),
		Unauthenticated: l.counts.unauthenticated.Load(),
		Unavailable:     l.counts.unavailable.Load(),
		UnknownType:     l.counts.unknownType.Load(),
		Malformed:       l.counts.malformed.Load(),
		ForeignProject:  l.counts.foreignProject.Load(),
	}
}

// Receive verifies and records one delivery. It returns nil only when the event
// is durable, and for a duplicate too. project is empty if the URL named none;
// body is kept and must not be changed afterwards.
func (l *Ledger) Receive(ctx context.Context, project mirror.ProjectID, h webhook.Headers, body []byte) (
	receipt Receipt, err error) {
	defer func() { l.countFailure(err) }()
	now := l.cfg.Now()
	project, sendTime, err := l.cfg.Verifier.Verify(project, h, body, now)
	if err != nil {
		return Receipt{}, err
	}
	d := webhook.Decode(project, h.ID, body, sendTime, now)
	if err := l.checkProject(ctx, &d); err != nil {
		return Receipt{}, err
	}
	accepted, err := l.commit(ctx, &d)
	if err != nil {
		return Receipt{}, err
	}
	l.count(accepted)
	if now := fetchedNow(d.Invalidations, accepted.Pending); l.cfg.Wait != nil && len(now) > 0 {
		if err := l.cfg.Wait(ctx, now); err != nil {
			return Receipt{}, fault.Wrap(err, fault.Unavailable, fault.ReasonSyncFailed,
				"the event is recorded, and what it changed could not be mirrored in time")
		}
	}
	return Receipt{EventID: h.ID, Duplicate: !accepted.Fresh, Outcome: accepted.Outcome}, nil
}

// fetchedNow are those of the raised resources that are fetched as soon as can be.
// What keeps an interval may be due only after the sender has given up.
func fetchedNow(invalidations []mirror.Invalidation, pending []mirror.Pending) []mirror.Pending {
	return slices.DeleteFunc(slices.Clone(pending), func(r mirror.Pending) bool {
		return slices.ContainsFunc(invalidations, func(h mirror.Invalidation) bool {
			return h.Resource == r.Resource &&
				h.MinInterval > 0
		})
	})
}

// checkProject holds events of another Liveblocks project than the first one
// apart: they are kept and lead to nothing.
func (l *Ledger) checkProject(ctx context.Context, a *mirror.Delivery) error {
	id := a.Event.LiveblocksProject
	if id == "" {
		return nil
	}
	l.mu.Lock()
	pinned, ok := l.pinned[a.Event.Project]
	l.mu.Unlock()
	if !ok {
		// Without the lock: while the database is away, nobody queues for it here.
		var err error
		if pinned, err = l.cfg.Store.PinProject(ctx, a.Event.Project, id); err != nil {
			l.failed(err)
			return err
		}
		l.mu.Lock()
		l.pinned[a.Event.Project] = pinned
		l.mu.Unlock()
	}
	if pinned != id {
		a.Event.Outcome, a.Invalidations = mirror.OutcomeForeignProject, nil
	}
	return nil
}

// commit has d recorded in the next commit and returns what became of it.
func (l *Ledger) commit(ctx context.Context, d *mirror.Delivery) (store.Accepted, error) {
	size := int64(len(d.Event.Payload))
	if l.bytes.Add(size) > MaxQueueBytes {
		l.bytes.Add(-size)
		return store.Accepted{}, errQueueFull()
	}
	accepted, err := l.commits.Do(ctx, d)
	switch {
	case errors.Is(err, batch.ErrFull):
		return accepted, errQueueFull()
	case errors.Is(err, batch.ErrClosed):
		return accepted, fault.Wrap(err, fault.Unavailable, fault.ReasonShuttingDown, "the service is stopping")
	}
	return accepted, err
}

// failed passes on that the database failed, if that is what err says.
func (l *Ledger) failed(err error) {
	if fault.Of(err).Kind == fault.Unavailable {
		l.cfg.Failed()
	}
}

func errQueueFull() error {
	return fault.New(fault.Unavailable, fault.ReasonAcceptQueueFull,
		"too many deliveries are waiting to be recorded").After(time.Second)
}

func (l *Ledger) countFailure(err error) {
	switch {
	case err == nil:
	case fault.Of(err).Kind == fault.Unauthentic:
		l.counts.unauthenticated.Add(1)
	case fault.Of(err).Kind != fault.Invalid:
		l.counts.unavailable.Add(1)
	}
}

func (l *Ledger) count(a store.Accepted) {
	if !a.Fresh {
		l.counts.duplicate.Add(1)
		return
	}
	l.counts.accepted.Add(1)
	switch a.Outcome {
	case mirror.OutcomeUnknownType:
		l.counts.unknownType.Add(1)
	case mirror.OutcomeMalformed, mirror.OutcomeIDInvalid:
		l.counts.malformed.Add(1)
	case mirror.OutcomeForeignProject:
		l.counts.foreignProject.Add(1)
	case mirror.OutcomeQueued, mirror.OutcomeRecorded:
	}
}

// Run returns when ctx has ended and everything taken in before is committed.
// Deliveries that come later are refused.
func (l *Ledger) Run(ctx context.Context) error {
	<-ctx.Done()
	l.commits.Close()
	return nil
}

// accept records deliveries in one commit, and hands what they made stale to the
// workers.
func (l *Ledger) accept(ctx context.Context, received []*mirror.Delivery) ([]store.Accepted, error) {
	type key struct {
		project mirror.ProjectID
		id      string
	}
	// A commit holds an event once; its other deliveries share the answer.
	index := make(map[key]int, len(received))
	deliveries := make([]mirror.Delivery, 0, len(received))
	for _, d := range received {
		k := key{d.Event.Project, d.Event.ID}
		if _, ok := index[k]; !ok {
			index[k] = len(deliveries)
			deliveries = append(deliveries, mirror.Delivery{Event: d.Event, Invalidations: l.unknown(d.Invalidations)})
		}
	}
	accepted, err := l.cfg.Store.Accept(ctx, deliveries)
	if err != nil {
		return nil, err
	}
	// Of a duplicate too: the attempt before it may have been committed without our
	// knowledge, or by a replica that died of it, and nobody else would look for its
	// work before the safety poll.
	var pending []mirror.Pending
	for i := range accepted {
		pending = append(pending, accepted[i].Pending...)
	}
	answers := make([]store.Accepted, len(received))
	for i, d := range received {
		first := &accepted[index[key{d.Event.Project, d.Event.ID}]]
		answers[i] = *first
		first.Fresh = false // whoever comes next in this batch is a duplicate
		l.remember(d.Invalidations)
	}
	if len(pending) > 0 {
		l.cfg.Pending(pending)
	}
	return answers, nil
}

// unknown leaves out invalidations that only want a resource to be known, and it is.
func (l *Ledger) unknown(invalidations []mirror.Invalidation) []mirror.Invalidation {
	dropped := func(h mirror.Invalidation) bool {
		_, ok := l.known[h.Resource]
		return ok && h.IfUnknown
	}
	if !slices.ContainsFunc(invalidations, dropped) {
		return invalidations
	}
	return slices.DeleteFunc(slices.Clone(invalidations), dropped)
}

// remember notes the resources of recorded invalidations, which have a state by now.
func (l *Ledger) remember(invalidations []mirror.Invalidation) {
	for _, h := range invalidations {
		if !h.IfUnknown {
			continue
		}
		if len(l.known) >= knownLimit {
			clear(l.known)
		}
		l.known[h.Resource] = struct{}{}
	}
}

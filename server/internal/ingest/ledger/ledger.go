// Package ledger records webhook deliveries: it verifies the signature over the
// raw bytes, reads what the event makes stale, and writes both in one commit
// that many deliveries share. A delivery is answered only after that commit.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

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

// Ledger records deliveries. Its Run has to be running.
type Ledger struct {
	cfg     Config
	queue   chan *delivery
	bytes   atomic.Int64
	stopped chan struct{}
	counts  counters

	mu     sync.Mutex
	pinned map[mirror.ProjectID]string

	// known are resources that have a state, and those are for ever. Only the
	// committer uses it.
	known map[mirror.Resource]struct{}
}

// delivery is one caller that waits for the commit.
type delivery struct {
	delivery mirror.Delivery
	done     chan struct{}
	accepted store.Accepted
	err      error
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
	return &Ledger{
		cfg:     cfg,
		queue:   make(chan *delivery, MaxQueue),
		stopped: make(chan struct{}),
		pinned:  make(map[mirror.ProjectID]string),
		known:   make(map[mirror.Resource]struct{}),
	}
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
func (l *Ledger) Receive(ctx context.Context, project mirror.ProjectID, h webhook.Headers, body []byte) (Receipt,
	error) {
	receipt, err := l.receive(ctx, project, h, body)
	switch {
	case err == nil:
	case fault.Of(err).Kind == fault.Unauthentic:
		l.counts.unauthenticated.Add(1)
	case fault.Of(err).Kind != fault.Invalid:
		l.counts.unavailable.Add(1)
	}
	return receipt, err
}

func (l *Ledger) receive(ctx context.Context, project mirror.ProjectID, h webhook.Headers, body []byte) (Receipt,
	error) {
	now := l.cfg.Now()
	project, sendTime, err := l.cfg.Verifier.Verify(project, h, body, now)
	if err != nil {
		return Receipt{}, err
	}
	d := &delivery{delivery: webhook.Decode(project, h.ID, body, sendTime, now), done: make(chan struct{})}
	if err := l.checkProject(ctx, &d.delivery); err != nil {
		return Receipt{}, err
	}
	if err := l.commit(ctx, d); err != nil {
		return Receipt{}, err
	}
	l.count(d.accepted)
	if now := fetchedNow(d.delivery.Invalidations, d.accepted.Pending); l.cfg.Wait != nil && len(now) > 0 {
		if err := l.cfg.Wait(ctx, now); err != nil {
			return Receipt{}, fault.Wrap(err, fault.Unavailable, fault.ReasonSyncFailed,
				"the event is recorded, and what it changed could not be mirrored in time")
		}
	}
	return Receipt{EventID: h.ID, Duplicate: !d.accepted.Fresh, Outcome: d.accepted.Outcome}, nil
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

// commit hands d to the committer and waits for its answer.
func (l *Ledger) commit(ctx context.Context, d *delivery) error {
	size := int64(len(d.delivery.Event.Payload))
	if l.bytes.Add(size) > MaxQueueBytes {
		l.bytes.Add(-size)
		return errQueueFull()
	}
	select {
	case l.queue <- d:
	default:
		l.bytes.Add(-size)
		return errQueueFull()
	}
	select {
	case <-d.done:
		return d.err
	case <-ctx.Done():
		return fmt.Errorf("wait for the commit: %w", context.Cause(ctx))
	case <-l.stopped:
		// The committer may have answered just before it stopped.
		select {
		case <-d.done:
			return d.err
		default:
			return fault.New(fault.Unavailable, fault.ReasonShuttingDown, "the service is stopping")
		}
	}
}

// answer lets the caller of d go on. Only now are its bytes out of memory, also
// if the caller has gone away long before.
func (l *Ledger) answer(d *delivery) {
	l.bytes.Add(-int64(len(d.delivery.Event.Payload)))
	close(d.done)
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

// Run commits what is received until ctx ends and nothing waits any more. While
// one commit is under way the next batch gathers; an idle ledger commits at
// once.
func (l *Ledger) Run(ctx context.Context) error {
	defer close(l.stopped)
	for {
		select {
		case d := <-l.queue:
			l.commitBatch(ctx, d)
		case <-ctx.Done():
			for {
				select {
				case d := <-l.queue:
					l.commitBatch(ctx, d)
				default:
					return nil
				}
			}
		}
	}
}

// commitBatch commits first and everything that waits behind it.
func (l *Ledger) commitBatch(ctx context.Context, first *delivery) {
	type key struct {
		project mirror.ProjectID
		id      string
	}
	// A batch holds an event once; its other deliveries share the answer.
	seen := make(map[key]int)
	var batch []*delivery
	var twins [][]*delivery
	add := func(d *delivery) {
		k := key{d.delivery.Event.Project, d.delivery.Event.ID}
		if i, ok := seen[k]; ok {
			twins[i] = append(twins[i], d)
			return
		}
		seen[k] = len(batch)
		batch = append(batch, d)
		twins = append(twins, nil)
	}
	add(first)
gather:
	for len(batch) < MaxBatch {
		select {
		case d := <-l.queue:
			add(d)
		default:
			break gather
		}
	}

	// The deliveries' own contexts do not count: a sender that hung up would undo
	// the commit of the others.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	l.accept(ctx, batch)
	var pending []mirror.Pending
	for i, d := range batch {
		if d.err == nil {
			// Of a duplicate too: the attempt before it may have been committed without
			// our knowledge, or by a replica that died of it, and nobody else would
			// look for its work before the safety poll.
			pending = append(pending, d.accepted.Pending...)
		}
		for _, twin := range twins[i] {
			twin.err, twin.accepted = d.err, d.accepted
			twin.accepted.Fresh = false
			l.answer(twin)
		}
		l.answer(d)
	}
	if len(pending) > 0 {
		l.cfg.Pending(pending)
	}
}

// accept fills in every delivery's answer.
func (l *Ledger) accept(ctx context.Context, batch []*delivery) {
	deliveries := make([]mirror.Delivery, len(batch))
	for i, d := range batch {
		deliveries[i] = mirror.Delivery{Event: d.delivery.Event, Invalidations: l.unknown(d.delivery.Invalidations)}
	}
	answers, err := l.cfg.Store.Accept(ctx, deliveries)
	if err == nil {
		for i, d := range batch {
			d.accepted = answers[i]
			l.remember(d.delivery.Invalidations)
		}
		return
	}
	if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
		err = fault.Wrap(err, fault.Unavailable, fault.ReasonStoreUnavailable, "the database did not answer in time")
	}
	if len(batch) > 1 && fault.Of(err).Kind == fault.Internal {
		// The database did not fail: it refuses something in this batch. One by one,
		// only the delivery that is the cause is refused.
		for _, d := range batch {
			l.accept(ctx, []*delivery{d})
		}
		return
	}
	l.cfg.Logger.ErrorContext(ctx, "deliveries not recorded", slog.Int("count", len(batch)), slog.Any("error", err))
	l.failed(err)
	for _, d := range batch {
		d.err = err
	}
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

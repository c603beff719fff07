// Package ledger records webhook deliveries. It verifies the signature over the raw
// bytes, determines what the event makes stale, and writes both in one commit,
// which concurrent deliveries share. It answers a delivery only after that commit.
package ledger

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/batch"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/webhook"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/tracing"
)

// Limits of the queue of deliveries that wait for a commit. At 10,000 events per
// second, 4,096 are less than half a second of work; a sender that finds the queue
// full had better retry. The byte limit keeps 4,096 deliveries of 1 MiB from
// filling the memory.
const (
	MaxQueue      = 4096
	MaxQueueBytes = 128 << 20
	// MaxBatch bounds one commit, and so the wait that a slow one causes.
	MaxBatch = 512
	// maxApart bounds the deliveries that wait for a locked row.
	maxApart = 1024
)

// lockedFor is how long a row is assumed to be locked unless something shows that it
// is not. It exceeds the time between two attempts of deliveries that wait for it.
const lockedFor = 2 * commitTimeout

// knownLimit bounds the set of resources remembered as known. At the limit the set
// is emptied, which costs one look-up for each resource.
const knownLimit = 100_000

// commitTimeout bounds one commit. The sender of a webhook waits 15 s; this service
// answers within 10.
const commitTimeout = 9 * time.Second

// Config configures a Ledger.
type Config struct {
	Store    Store
	Verifier *webhook.Verifier
	// Pending passes resources that became stale to the workers of this process.
	Pending func([]mirror.Pending)
	// Replayed does the same in the background.
	Replayed func([]mirror.Pending)
	// Failed is called when the database could not record deliveries, and Recorded when
	// it has recorded some.
	Failed   func(error)
	Recorded func(context.Context)
	// Wait, if set, delays the answer until what the event made stale is mirrored.
	Wait func(context.Context, []mirror.Pending) error
	// Answered, if set, is called with each answer, and Committed with how many
	// deliveries a commit has recorded.
	Answered  func(Answer)
	Committed func(deliveries int)
	// Tracer names the events in the spans of deliveries; nil if nothing is traced.
	Tracer *tracing.Tracer
	Now    func() time.Time
	Logger *slog.Logger
}

// Answer is how a delivery was answered.
type Answer struct {
	// Project is the one whose secret verified the delivery; empty if none did.
	Project mirror.ProjectID
	// Result is the outcome of the event, "duplicate", or why the delivery was refused:
	// "unauthenticated", "unavailable" or "invalid", or "not_synced" if the event is
	// recorded, but its change was not mirrored in time.
	Result string
	// Fresh means that the event was recorded for the first time.
	Fresh bool
	// Took is how long it took to record the event or to refuse it, and Age how old the
	// signature was. It is negative if the clock of the sender is ahead.
	Took, Age time.Duration
}

// The results of deliveries that have no outcome of their own.
const (
	ResultDuplicate       = "duplicate"
	ResultUnauthenticated = "unauthenticated"
	ResultUnavailable     = "unavailable"
	ResultInvalid         = "invalid"
	ResultNotSynced       = "not_synced"
)

// Store is the part of the store that a Ledger uses.
type Store interface {
	store.Ledger
	store.Projects
	store.EventQuery
}

// Ledger records deliveries.
type Ledger struct {
	cfg     Config
	commits *batch.Batcher[delivery, store.Accepted]
	// apart commits deliveries that need a row which another session has locked, so
	// that the others do not wait for it.
	apart  *batch.Batcher[delivery, store.Accepted]
	bytes  atomic.Int64 // of the deliveries that wait or are being committed
	counts counters
	// missed is what Missed returns, in nanoseconds since 1970; 0 if zero.
	missed atomic.Int64
	hints  hints
	told   sync.Map // the projects of which deliveries are recorded

	projects projects

	mu sync.Mutex
	// known holds resources that have a state. States are permanent.
	known map[mirror.Resource]struct{}
	// locked holds resources whose state is probably locked, and how long to assume
	// so.
	locked map[mirror.Resource]time.Time
}

// delivery is one that waits for a commit.
type delivery struct {
	*mirror.Delivery

	span tracing.Span
}

// Receipt is the answer to a delivery.
type Receipt struct {
	EventID   string
	Duplicate bool
	Outcome   mirror.Outcome
}

// Counts holds the numbers of deliveries since the process started.
type Counts struct {
	Accepted, Duplicate, Unauthenticated, Unavailable int64
	UnknownType, Malformed, ForeignProject            int64
	// OutOfTolerance counts those of Unauthenticated that were rightly signed, and
	// Conflicting those of Duplicate that had another body than the recorded event.
	OutOfTolerance, Conflicting int64
}

type counters struct {
	accepted, duplicate, unauthenticated, unavailable atomic.Int64
	unknownType, malformed, foreignProject            atomic.Int64
	outOfTolerance, conflicting                       atomic.Int64
}

// New returns a Ledger.
func New(cfg Config) *Ledger {
	l := &Ledger{
		cfg:    cfg,
		known:  make(map[mirror.Resource]struct{}),
		locked: make(map[mirror.Resource]time.Time),
	}
	commits := func(queue int) *batch.Batcher[delivery, store.Accepted] {
		return batch.New(batch.Config[delivery, store.Accepted]{
			Do: l.accept, Size: MaxBatch, Timeout: commitTimeout, Queue: queue,
			Failed: func(ctx context.Context, calls int, err error) {
				l.tellFailed(ctx, calls, err)
				l.failed(err)
			},
			Release: func(d delivery) { l.bytes.Add(-int64(len(d.Event.Payload))) },
		})
	}
	l.commits, l.apart = commits(MaxQueue), commits(maxApart)
	return l
}

// Counts returns the current numbers.
func (l *Ledger) Counts() Counts {
	return Counts{
		Accepted:        l.counts.accepted.Load(),
		Duplicate:       l.counts.duplicate.Load(),
		Unauthenticated: l.counts.unauthenticated.Load(),
		Unavailable:     l.counts.unavailable.Load(),
		UnknownType:     l.counts.unknownType.Load(),
		Malformed:       l.counts.malformed.Load(),
		ForeignProject:  l.counts.foreignProject.Load(),
		OutOfTolerance:  l.counts.outOfTolerance.Load(),
		Conflicting:     l.counts.conflicting.Load(),
	}
}

// Missed returns when the latest delivery was answered with a failure of the service,
// so that it comes again; zero if none was since the start.
func (l *Ledger) Missed() time.Time {
	if n := l.missed.Load(); n != 0 {
		return time.Unix(0, n)
	}
	return time.Time{}
}

// Receive verifies and records one delivery. It returns nil only once the event is
// durable, also for a duplicate. project is empty if the URL names none. Receive
// keeps body, which must not be modified.
func (l *Ledger) Receive(ctx context.Context, project mirror.ProjectID, h webhook.Headers, body []byte) (
	receipt Receipt, err error,
) {
	now := l.cfg.Now()
	verified, err := l.cfg.Verifier.Verify(project, h, body, now)
	project = verified.Project
	told := Answer{Age: now.Sub(verified.SendTime)}
	defer func() {
		l.countFailure(ctx, err)
		told.Project = project
		l.answered(told, receipt, err, now)
	}()
	if err != nil {
		return Receipt{}, err
	}
	d := webhook.Decode(project, h.ID, body, verified.SendTime, now)
	d.Event.Secret = verified.Secret
	l.cfg.Tracer.Name(ctx, mirror.Resource{Room: d.Event.Room}, d.Event.ID)
	if err := l.checkProject(ctx, &d); err != nil {
		return Receipt{}, err
	}
	accepted, err := l.record(ctx, &d)
	if err != nil {
		return Receipt{}, err
	}
	l.count(accepted)
	told.Fresh, told.Took = accepted.Fresh, l.cfg.Now().Sub(now)
	l.tellFirst(ctx, project)
	if !accepted.Fresh {
		l.compare(ctx, d.Event)
	}
	if accepted.Outcome == mirror.OutcomeForeignProject {
		if accepted, err = l.setAside(ctx, d.Event, accepted); err != nil {
			return Receipt{}, err
		}
	}
	if now := fetchedNow(d.Invalidations, accepted.Pending); l.cfg.Wait != nil && len(now) > 0 {
		if err := l.cfg.Wait(ctx, now); err != nil {
			return Receipt{}, fault.Wrap(err, fault.Unavailable, fault.ReasonSyncFailed,
				"the event is recorded, but its change could not be mirrored in time")
		}
	}
	return Receipt{EventID: h.ID, Duplicate: !accepted.Fresh, Outcome: accepted.Outcome}, nil
}

// record commits one delivery. If it needs a locked row, it tries again, apart from
// the deliveries that do not, until commitTimeout has passed.
func (l *Ledger) record(ctx context.Context, d *mirror.Delivery) (store.Accepted, error) {
	end := l.cfg.Now().Add(commitTimeout)
	for apart := l.needsLocked(d); ; apart = true {
		commits := l.commits
		if apart {
			commits = l.apart
		}
		if size := int64(len(d.Event.Payload)); l.bytes.Add(size) > MaxQueueBytes {
			l.bytes.Add(-size)
			return store.Accepted{}, errQueueFull()
		}
		accepted, err := commits.Do(ctx, delivery{d, tracing.From(ctx)})
		switch {
		case errors.Is(err, batch.ErrFull) && apart:
			return accepted, errLocked()
		case errors.Is(err, batch.ErrFull):
			return accepted, errQueueFull()
		case errors.Is(err, batch.ErrClosed):
			return accepted, fault.Wrap(err, fault.Unavailable, fault.ReasonShuttingDown, "the service is stopping")
		case err != nil:
			return accepted, err
		case accepted.Err != nil:
			return accepted, accepted.Err
		case !accepted.Locked:
			return accepted, nil
		case l.cfg.Now().After(end):
			l.cfg.Logger.WarnContext(ctx, "delivery not recorded: another session holds a lock on a row that it needs",
				inProject(d.Event.Project), slog.String("event_id", d.Event.ID))
			return accepted, errLocked()
		}
	}
}

// errLocked does not mean that the database is away.
func errLocked() error {
	return fault.New(fault.Unavailable, fault.ReasonStoreUnavailable,
		"another session of the database holds a lock on a row that this event needs").After(time.Second)
}

// needsLocked reports whether the delivery needs a row that is probably locked.
func (l *Ledger) needsLocked(d *mirror.Delivery) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.locked) == 0 {
		return false
	}
	now := l.cfg.Now()
	return slices.ContainsFunc(d.Invalidations, func(i mirror.Invalidation) bool {
		return !l.moot(i) && now.Before(l.locked[i.Resource])
	})
}

// learn remembers what the result for a delivery shows of the rows that it needs. The
// caller holds the lock.
func (l *Ledger) learn(d *mirror.Delivery, locked bool) {
	var until time.Time
	if locked {
		now := l.cfg.Now()
		maps.DeleteFunc(l.locked, func(_ mirror.Resource, until time.Time) bool { return now.After(until) })
		until = now.Add(lockedFor)
	}
	for _, i := range d.Invalidations {
		if l.moot(i) {
			continue
		}
		if locked {
			l.locked[i.Resource] = until
			continue
		}
		delete(l.locked, i.Resource)
		if !i.IfUnknown {
			continue
		}
		if len(l.known) >= knownLimit {
			clear(l.known)
		}
		l.known[i.Resource] = struct{}{} // now it has a state
	}
}

// fetchedNow returns the resources that are fetched as soon as possible. Those with
// a minimal interval may become due only after the sender has given up.
func fetchedNow(invalidations []mirror.Invalidation, pending []mirror.Pending) []mirror.Pending {
	return slices.DeleteFunc(slices.Clone(pending), func(r mirror.Pending) bool {
		return slices.ContainsFunc(invalidations, func(h mirror.Invalidation) bool {
			return h.Resource == r.Resource &&
				h.MinInterval > 0
		})
	})
}

// failed calls Failed if err is a failure of the database.
func (l *Ledger) failed(err error) {
	if fault.Of(err).Kind == fault.Unavailable {
		l.cfg.Failed(err)
	}
}

func errQueueFull() error {
	return fault.New(fault.Unavailable, fault.ReasonAcceptQueueFull,
		"too many deliveries are waiting to be recorded").After(time.Second)
}

// answered tells of an answer.
func (l *Ledger) answered(a Answer, r Receipt, err error, received time.Time) {
	if l.cfg.Answered == nil {
		return
	}
	if a.Took == 0 {
		a.Took = l.cfg.Now().Sub(received)
	}
	a.Result = string(r.Outcome)
	switch {
	case r.Duplicate:
		a.Result = ResultDuplicate
	case err == nil:
	case fault.Of(err).Kind == fault.Unauthentic:
		a.Result = ResultUnauthenticated
	case fault.Of(err).Kind == fault.Invalid:
		a.Result = ResultInvalid
	case fault.Of(err).Reason == fault.ReasonSyncFailed:
		a.Result = ResultNotSynced
	default:
		a.Result = ResultUnavailable
	}
	l.cfg.Answered(a)
}

func (l *Ledger) countFailure(ctx context.Context, err error) {
	switch {
	case err == nil:
	case fault.Of(err).Kind == fault.Unauthentic:
		l.counts.unauthenticated.Add(1)
		l.refused(ctx, fault.Of(err))
	case fault.Of(err).Kind != fault.Invalid && fault.Of(err).Reason != fault.ReasonSyncFailed: // else it is recorded
		l.counts.unavailable.Add(1)
		l.missed.Store(l.cfg.Now().UnixNano())
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

// Run returns once ctx has ended and all deliveries accepted before are committed.
// Later deliveries are refused.
func (l *Ledger) Run(ctx context.Context) error {
	<-ctx.Done()
	l.commits.Close()
	l.apart.Close()
	return nil
}

// accept records deliveries in one commit, and passes what they made stale to the
// workers.
func (l *Ledger) accept(ctx context.Context, received []delivery) (_ []store.Accepted, err error) {
	ctx, span := together(ctx, received)
	defer func() { span.End(err) }()
	type key struct {
		project mirror.ProjectID
		id      string
	}
	// A commit contains an id once; other deliveries of the event share the answer. A
	// delivery of another event, which is in another bucket, comes with a later commit.
	index := make(map[key]int, len(received))
	deliveries := make([]mirror.Delivery, 0, len(received))
	spans := make([]tracing.Span, 0, len(received)) // of the deliveries
	later := make(map[int]bool)
	l.mu.Lock()
	for i, d := range received {
		k := key{d.Event.Project, d.Event.ID}
		if at, ok := index[k]; !ok {
			index[k] = len(deliveries)
			deliveries = append(deliveries, mirror.Delivery{Event: d.Event, Invalidations: l.needed(d.Invalidations)})
			spans = append(spans, d.span)
		} else if deliveries[at].Event.Bucket() != d.Event.Bucket() {
			later[i] = true
		}
	}
	l.mu.Unlock()
	accepted, err := l.cfg.Store.Accept(ctx, deliveries)
	if err != nil {
		return nil, err
	}
	failed := slices.DeleteFunc(slices.Clone(accepted), func(a store.Accepted) bool { return a.Err == nil })
	if len(failed) > 0 { // a shard is away; the service stays ready for the others
		l.tellFailed(ctx, len(failed), failed[0].Err)
	}
	if len(failed) < len(accepted) {
		l.cfg.Recorded(ctx)
		if l.cfg.Committed != nil {
			l.cfg.Committed(len(received))
		}
	}
	// For duplicates too: an earlier attempt may have been committed without a
	// reply, or by a replica that has died. Otherwise its work would wait for the
	// safety poll.
	var pending []mirror.Pending
	for i := range accepted {
		cause := spans[i].Ref()
		for _, p := range accepted[i].Pending {
			p.Cause = cause
			pending = append(pending, p)
		}
	}
	answers := make([]store.Accepted, len(received))
	l.mu.Lock()
	for i, d := range received {
		if later[i] {
			answers[i] = store.Accepted{Locked: true}
			continue
		}
		first := &accepted[index[key{d.Event.Project, d.Event.ID}]]
		answers[i] = *first
		first.Fresh = false // later ones in this batch are duplicates
		if first.Err == nil {
			l.learn(d.Delivery, answers[i].Locked)
		}
	}
	l.mu.Unlock()
	if len(pending) > 0 {
		l.cfg.Pending(pending)
	}
	return answers, nil
}

// together begins the span of a commit.
func together(ctx context.Context, received []delivery) (context.Context, tracing.Span) {
	var spans []tracing.Span
	for _, d := range received {
		if d.span.On() {
			spans = append(spans, d.span)
		}
	}
	if spans == nil {
		return ctx, tracing.Span{}
	}
	ctx, span := tracing.Together(ctx, "commit deliveries", spans)
	span.Count("mirror.deliveries", len(received))
	return ctx, span
}

// tellFailed tells of deliveries of one commit that were not recorded: once a minute while
// the database or one of its shards is away, because their senders repeat them all that time.
func (l *Ledger) tellFailed(ctx context.Context, count int, err error) {
	f := fault.Of(err)
	if f.Kind == fault.Unavailable && !l.hints.due(f.Reason, l.cfg.Now()) {
		return
	}
	l.cfg.Logger.ErrorContext(ctx, "deliveries not recorded", slog.Int("count", count), slog.Any("error", err))
}

// needed leaves out moot invalidations. The caller holds the lock.
func (l *Ledger) needed(invalidations []mirror.Invalidation) []mirror.Invalidation {
	if !slices.ContainsFunc(invalidations, l.moot) {
		return invalidations
	}
	return slices.DeleteFunc(slices.Clone(invalidations), l.moot)
}

// moot reports whether an invalidation is limited to unknown resources, and this one is
// known. The caller holds the lock.
func (l *Ledger) moot(i mirror.Invalidation) bool {
	if !i.IfUnknown {
		return false
	}
	_, ok := l.known[i.Resource]
	return ok
}

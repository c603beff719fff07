// Package queue runs the tasks of one project. It finds due tasks, leases them,
// passes them to the handlers of their kinds, and records the results. It knows
// nothing about the work itself.
package queue

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// Handler runs a task of one kind and applies the result under its lease. Its error
// decides what follows: a fault of kind Busy is retried without counting as an
// attempt; Invalid, NotFound and Precondition fail for good; any other error is
// retried with a growing delay.
type Handler func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error)

// Limiter decides when Liveblocks may be called. The pool takes a turn before it
// leases a task, so no lease is held while nothing can be done, and passes it to the
// task's first call. Further calls of the task take their own.
type Limiter interface {
	// Wait blocks until one call may be made, and takes the turn for it.
	Wait(ctx context.Context) error
	// WithTurn returns a context that carries a turn for the first call made with
	// it. spent reports whether a call has used it.
	WithTurn(ctx context.Context) (with context.Context, spent func() bool)
	// UntilPaused returns a context that also ends when work is paused, with a fault
	// of reason PROJECT_PAUSED as its cause. release must be called.
	UntilPaused(ctx context.Context) (pausable context.Context, release func())
}

// Config configures a Pool. Every field must be set.
type Config struct {
	Project mirror.ProjectID
	Tasks   store.Tasks
	Limiter Limiter
	Policy  Policy
	// Workers is the number of concurrent tasks.
	Workers int
	// LeaseTTL is how long a crashed worker blocks a task. Leases are renewed at a
	// third of it.
	LeaseTTL time.Duration
	// BusyPoll is how often the database is queried for due tasks while there are
	// any. It finds what other replicas left behind.
	BusyPoll time.Duration
	// SafetyPoll is the same while there are none.
	SafetyPoll time.Duration
	// StopGrace is how long running tasks may take to finish at shutdown.
	StopGrace time.Duration
	Now       func() time.Time
	Logger    *slog.Logger
}

// lane is the urgency of a resource: lower lanes go first.
type lane int

const (
	// laneApart is for tasks that take minutes. Each has its own worker.
	laneApart lane = iota
	// laneLive is for events and requests.
	laneLive
	// laneBackground is for tasks that run while nothing else is ready.
	laneBackground
	lanes
)

const (
	// memoryLimit is the maximum number of resources remembered in each lane. The
	// rest is found by querying the database.
	memoryLimit = 20_000
	// scanLimit is the maximum number of due resources of one query.
	scanLimit = 500
	// scanGap is the minimal time between two queries, however much becomes due.
	scanGap = 100 * time.Millisecond
	// recordTimeout limits one statement that records the result of a task.
	recordTimeout = 10 * time.Second
)

// errStopped is the cause of contexts cancelled at the end of the grace period.
var errStopped = errors.New("queue: the grace period is over")

// errLeaseLost is the cause of contexts of tasks that lost their lease.
var errLeaseLost = fmt.Errorf("queue: %w", store.ErrLeaseLost)

// Pool runs the workers of one project.
type Pool struct {
	cfg      Config
	handlers map[mirror.Kind]Handler // set by Run
	wake     chan struct{}
	wg       sync.WaitGroup // one for each running task; Run waits
	rate     rate           // of background tasks

	mu       sync.Mutex
	ready    [lanes][]mirror.Resource // may contain resources that have moved to another lane
	queued   map[mirror.Resource]lane // the lane of each ready resource
	running  map[mirror.Resource]*run
	busy     [lanes]int // running tasks of each lane
	turns    int        // turns taken for tasks that made no call
	more     bool       // more background tasks are due than the last query returned
	nextScan time.Time
	lastScan time.Time
	waiters  map[mirror.Resource]map[*waiter]struct{}
}

// run is a running task.
type run struct {
	lane lane
	// again is the lane in which the resource was pushed meanwhile; lanes if it was
	// not.
	again lane
}

// New returns a Pool. [Pool.Run] also does what was pushed before.
func New(cfg Config) *Pool {
	return &Pool{
		cfg:     cfg,
		wake:    make(chan struct{}, 1),
		queued:  make(map[mirror.Resource]lane),
		running: make(map[mirror.Resource]*run),
		waiters: make(map[mirror.Resource]map[*waiter]struct{}),
	}
}

// Push tells the pool that resources became due and are urgent.
func (p *Pool) Push(pending []mirror.Pending) { p.enqueue(laneLive, pending) }

// PushBackground tells the pool that resources became due at the lowest priority.
func (p *Pool) PushBackground(pending []mirror.Pending) { p.enqueue(laneBackground, pending) }

func (p *Pool) enqueue(l lane, pending []mirror.Pending) {
	resources := resourcesOf(pending)
	p.mu.Lock()
	p.push(l, resources)
	p.mu.Unlock()
	p.signal()
}

func (p *Pool) push(wanted lane, resources []mirror.Resource) {
	if len(resources) > 0 {
		// Another replica may have left work behind.
		p.scanBy(p.cfg.Now().Add(p.cfg.BusyPoll))
	}
	for _, r := range resources {
		l := wanted
		if r.Kind.Traits().Apart {
			l = laneApart
		}
		if run, ok := p.running[r]; ok {
			run.again = min(run.again, l)
			continue
		}
		if at, ok := p.queued[r]; ok && at <= l {
			continue
		}
		if len(p.ready[l]) >= memoryLimit {
			continue
		}
		p.queued[r] = l
		p.ready[l] = append(p.ready[l], r)
	}
}

// next returns the most urgent lane with a resource and a free worker.
func (p *Pool) next() (lane, bool) {
	for l := range lanes {
		for len(p.ready[l]) > 0 {
			if at, ok := p.queued[p.ready[l][0]]; ok && at == l {
				break
			}
			p.ready[l] = p.ready[l][1:] // it moved to a more urgent lane
		}
		if len(p.ready[l]) > 0 && (l == laneApart || p.busy[laneLive]+p.busy[laneBackground] < p.cfg.Workers) {
			return l, true
		}
	}
	return 0, false
}

// begin removes and returns the next resource, if there is one.
func (p *Pool) begin() (r mirror.Resource, ok bool) {
	l, ok := p.next()
	if !ok {
		return r, false
	}
	r = p.ready[l][0]
	p.ready[l] = p.ready[l][1:]
	delete(p.queued, r)
	p.running[r] = &run{lane: l, again: lanes}
	p.busy[l]++
	return r, true
}

// scanBy schedules the next query for due tasks at t at the latest.
func (p *Pool) scanBy(t time.Time) {
	if p.nextScan.After(t) {
		p.nextScan = t
	}
}

func (p *Pool) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Run runs tasks with the handlers of their kinds until ctx ends. Then it waits for
// running tasks within the grace period and cancels the rest.
func (p *Pool) Run(ctx context.Context, handlers map[mirror.Kind]Handler) error {
	p.handlers = handlers
	work, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	timer := time.NewTimer(0) // query immediately: a crash may have left work behind
	defer timer.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-p.wake:
		case <-timer.C:
		}
		p.dispatch(ctx, work)
		p.mu.Lock()
		if p.mayScan() {
			timer.Reset(max(p.nextScan.Sub(p.cfg.Now()), 0))
		} else {
			timer.Stop() // the end of any task wakes the loop
		}
		p.mu.Unlock()
	}

	done := make(chan struct{})
	go func() { p.wg.Wait(); close(done) }() // Run waits for it below
	grace := time.NewTimer(p.cfg.StopGrace)
	defer grace.Stop()
	select {
	case <-done:
	case <-grace.C:
		cut(errStopped)
		<-done
	}
	return nil
}

// dispatch starts ready tasks while workers are free, and queries for more.
func (p *Pool) dispatch(ctx, work context.Context) {
	for {
		p.scan(ctx)
		p.mu.Lock()
		_, ready := p.next()
		spare := p.turns > 0
		p.mu.Unlock()
		if !ready || !spare && p.cfg.Limiter.Wait(ctx) != nil || ctx.Err() != nil {
			return
		}
		p.mu.Lock()
		if !spare {
			p.turns++
		}
		r, ok := p.begin() // only now: something urgent may have arrived
		if ok {
			p.turns--
		}
		p.mu.Unlock()
		if ok {
			p.wg.Go(func() {
				ctx, spent := p.cfg.Limiter.WithTurn(work)
				p.do(ctx, r, spent)
			})
		}
	}
}

// mayScan reports whether a query for due tasks is useful. It is not while urgent
// tasks are ready or occupy all workers. Background tasks are no reason not to
// query.
func (p *Pool) mayScan() bool {
	return len(p.ready[laneLive]) == 0 && p.busy[laneLive] < p.cfg.Workers
}

// scan queries the database for due tasks if it is time.
func (p *Pool) scan(ctx context.Context) {
	now := p.cfg.Now()
	p.mu.Lock()
	if p.more && len(p.ready[laneBackground]) == 0 {
		p.scanBy(now)
	}
	wanted := p.mayScan() && !now.Before(p.nextScan)
	if wanted && now.Sub(p.lastScan) < scanGap {
		p.nextScan = p.lastScan.Add(scanGap)
		wanted = false
	}
	if wanted {
		p.lastScan = now
		p.nextScan = now.Add(p.cfg.SafetyPoll)
		p.more = false
	}
	p.mu.Unlock()
	if !wanted || ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	list, err := p.cfg.Tasks.Due(ctx, p.cfg.Project, now, scanLimit)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		if context.Cause(ctx) == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
			p.cfg.Logger.ErrorContext(ctx, "cannot look for due work", slog.Any("error", err))
		}
		p.scanBy(now.Add(p.cfg.BusyPoll))
		return
	}
	ours := func(r mirror.Resource) bool {
		_, ours := p.running[r] // chosen but not claimed yet
		return ours
	}
	p.push(laneLive, slices.DeleteFunc(list.Resources, ours))
	p.push(laneBackground, slices.DeleteFunc(list.Background, ours))
	switch {
	case list.Next.IsZero():
	case list.Next.After(now) || len(list.Background) == 0:
		p.scanBy(list.Next)
	default:
		p.more = true // query again when these are done
	}
}

// do leases and runs one task.
func (p *Pool) do(ctx context.Context, r mirror.Resource, spent func() bool) {
	applied, background := p.attempt(ctx, r)
	p.mu.Lock()
	if !spent() {
		p.turns++
	}
	run := p.running[r]
	delete(p.running, r)
	p.busy[run.lane]--
	l := laneLive
	if background {
		l = laneBackground
	}
	now := p.cfg.Now()
	switch {
	case applied.Due.IsZero():
	case applied.Due.After(now):
		p.scanBy(applied.Due)
	default:
		run.again = min(run.again, l)
	}
	if run.again < lanes {
		p.push(run.again, []mirror.Resource{r})
	}
	p.push(l, applied.AlsoDue)
	p.notify(r, applied.Generation)
	p.mu.Unlock()
	p.signal()
}

// attempt runs the task and returns the result, and whether it was a background
// task.
func (p *Pool) attempt(ctx context.Context, r mirror.Resource) (applied mirror.Applied, background bool) {
	var token [16]byte
	_, _ = rand.Read(token[:]) // never fails by its own contract
	claimCtx, cancel := context.WithTimeout(ctx, recordTimeout)
	lease, err := p.cfg.Tasks.Claim(claimCtx, r, token, p.cfg.Now(), p.cfg.LeaseTTL)
	cancel()
	if err != nil {
		// Another worker has it, or the database is down: query again later.
		if !errors.Is(err, store.ErrNotDue) {
			p.cfg.Logger.ErrorContext(ctx, "cannot claim a task", slog.Any("error", err))
		}
		return p.lookAgain(), false
	}
	applied, err = p.handle(ctx, lease)
	switch {
	case err != nil:
		applied = p.fail(ctx, lease, err)
	case lease.Background && !r.Kind.Traits().Apart:
		p.rate.count(p.cfg.Now())
	}
	return applied, lease.Background
}

// handler returns the handler for the task of a lease.
func (p *Pool) handler(lease mirror.Lease) Handler {
	kind := lease.Resource.Kind
	handler, served := p.handlers[kind]
	switch {
	case !served:
		return func(context.Context, mirror.Lease) (mirror.Applied, error) {
			return mirror.Applied{}, fault.New(fault.Precondition, fault.ReasonInternal,
				fmt.Sprintf("this version does not mirror kind %d", kind))
		}
	case kind.Traits().NeedsRoom && (lease.Epoch == 0 || lease.Gone):
		// Without the room, its incarnation is unknown: the room comes first.
		return func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			return p.cfg.Tasks.Park(ctx, lease, p.cfg.Now())
		}
	default:
		return handler
	}
}

// BackgroundRate returns the recent number of background tasks per second.
func (p *Pool) BackgroundRate() float64 { return p.rate.perSecond(p.cfg.Now()) }

// handle runs the handler and renews its lease meanwhile.
func (p *Pool) handle(ctx context.Context, lease mirror.Lease) (applied mirror.Applied, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	renewing := make(chan struct{})
	go func() { // handle waits for it
		defer close(renewing)
		p.renew(ctx, lease, cancel)
	}()
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("task panicked: %v", v)
			p.cfg.Logger.ErrorContext(ctx, "task panicked", slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
		}
		cancel(nil)
		<-renewing
	}()
	applied, err = p.handler(lease)(ctx, lease)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	return applied, err
}

// renew renews the lease until ctx ends. It cancels the task when the lease is lost
// or has expired because renewals failed.
func (p *Pool) renew(ctx context.Context, lease mirror.Lease, cancel context.CancelCauseFunc) {
	end := time.AfterFunc(lease.Until.Sub(p.cfg.Now()), func() { cancel(errLeaseLost) })
	defer end.Stop()
	ticker := time.NewTicker(p.cfg.LeaseTTL / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		until := p.cfg.Now().Add(p.cfg.LeaseTTL)
		renewCtx, done := context.WithTimeout(ctx, p.cfg.LeaseTTL/3)
		err := p.cfg.Tasks.Renew(renewCtx, lease, until)
		done()
		switch {
		case err == nil:
			end.Reset(until.Sub(p.cfg.Now()))
		case errors.Is(err, store.ErrLeaseLost):
			cancel(errLeaseLost)
			return
		}
	}
}

// fail records a failure and releases the lease.
func (p *Pool) fail(ctx context.Context, lease mirror.Lease, err error) mirror.Applied {
	log := p.cfg.Logger.With(slog.String("kind", lease.Resource.Kind.String()),
		slog.String("room", string(lease.Resource.Room)))
	if errors.Is(err, store.ErrLeaseLost) {
		log.WarnContext(ctx, "lease lost, result dropped")
		return p.lookAgain()
	}
	f := p.cfg.Policy.Failure(lease, err, p.cfg.Now())
	switch {
	case f.Final:
		log.ErrorContext(ctx, "task failed for good", slog.Any("error", err))
	case !f.Uncounted:
		log.WarnContext(ctx, "task failed, will be tried again", slog.Any("error", err),
			slog.Int("attempts", lease.Attempts+1), slog.Time("next", f.NotBefore))
	}
	// Also at shutdown: a released task need not wait for the lease to expire.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	applied, ferr := p.cfg.Tasks.Fail(ctx, lease, f)
	switch {
	case ferr == nil:
		return applied
	case !errors.Is(ferr, store.ErrLeaseLost):
		log.ErrorContext(ctx, "cannot record a failed task; it is tried again when its lease ends", slog.Any("error", ferr))
	}
	return p.lookAgain()
}

// lookAgain schedules a query for a task that was lost: the worker that took it
// over will finish it, but perhaps there is none.
func (p *Pool) lookAgain() mirror.Applied {
	return mirror.Applied{Due: p.cfg.Now().Add(p.cfg.BusyPoll)}
}

// Policy says how to handle failures.
type Policy struct {
	// MaxAttempts is the number of attempts before a task fails for good.
	MaxAttempts int
	// BackoffMin and BackoffMax limit the delay between two attempts, which doubles
	// each time.
	BackoffMin, BackoffMax time.Duration
}

// Failure classifies err.
func (p Policy) Failure(lease mirror.Lease, err error, now time.Time) store.Failure {
	f := fault.Of(err)
	failure := store.Failure{Now: now, Cause: cause(err)}
	switch {
	// Not a failure of the task: another incarnation, or a shutdown.
	case errors.Is(err, store.ErrEpochChanged):
		failure.Uncounted, failure.NotBefore, failure.Cause = true, now, "the room was deleted or created again meanwhile"
	case errors.Is(err, errStopped):
		failure.Uncounted, failure.NotBefore, failure.Cause = true, now, "the service stopped"
	case f.Kind == fault.Busy, f.Reason == fault.ReasonUpstreamOutage:
		failure.Uncounted, failure.NotBefore = true, now.Add(cmp.Or(f.RetryAfter, p.BackoffMin))
	case f.Kind == fault.Invalid, f.Kind == fault.NotFound, f.Kind == fault.Precondition:
		failure.Final, failure.NotBefore = true, now
	default:
		failure.Final = lease.Attempts+1 >= p.MaxAttempts
		failure.NotBefore = now.Add(max(p.backoff(lease.Attempts), f.RetryAfter))
	}
	return failure
}

// cause returns the text that the task shows to an operator: the public sentence if
// there is one, because other errors may quote anything.
func cause(err error) string {
	f := fault.Of(err)
	if f.Kind == fault.Internal {
		return "internal error; see the log"
	}
	return string(f.Reason.Public()) + ": " + f.Public
}

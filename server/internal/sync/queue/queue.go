// Package queue does the tasks of one project: it finds what is due, leases it,
// lets a handler do the work, and records how that went. It knows nothing of
// what the work is.
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

// Handler does the tasks of one kind: it does what the lease is for and applies
// the result under it. Its error says what to do: a fault of kind Busy is tried
// again without counting as an attempt; Invalid, NotFound and Precondition fail
// for good; anything else is tried again with a growing delay.
type Handler func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error)

// Limiter says when work may begin. Work waits there before it is leased, so that
// nothing is held while nothing can be done.
type Limiter interface {
	// Wait blocks until one piece of work may begin.
	Wait(ctx context.Context) error
	// UntilPaused returns a context that also ends when work is paused, with a fault
	// of reason PROJECT_PAUSED as its cause. release must be called.
	UntilPaused(ctx context.Context) (pausable context.Context, release func())
}

// Config is what a Pool works with. Every field must be set.
type Config struct {
	Project mirror.ProjectID
	Tasks   store.Tasks
	Limiter Limiter
	Policy  Policy
	// Workers is the number of tasks done at once.
	Workers int
	// LeaseTTL is how long a crashed worker keeps a task to itself. Leases are
	// renewed at a third of it.
	LeaseTTL time.Duration
	// BusyPoll is how often the database is asked for due work while there is
	// any; it finds what another replica left behind.
	BusyPoll time.Duration
	// SafetyPoll is the same while there is none.
	SafetyPoll time.Duration
	// StopGrace is how long work in flight may take to finish at shutdown.
	StopGrace time.Duration
	Now       func() time.Time
	Logger    *slog.Logger
}

// lane is how urgent a resource is: a lower one goes first.
type lane int

const (
	// laneApart is for what takes minutes. Each has a worker of its own beside the
	// others.
	laneApart lane = iota
	// laneLive is for what somebody wants at once.
	laneLive
	// laneBackground is for what is done while nothing else is ready.
	laneBackground
	lanes
)

const (
	// memoryLimit bounds the resources remembered in each lane; what is beyond is
	// found by asking the database.
	memoryLimit = 20_000
	// scanLimit bounds one look for due work.
	scanLimit = 500
	// scanGap keeps two looks apart, however much becomes due.
	scanGap = 100 * time.Millisecond
	// recordTimeout bounds one statement that records how a task went.
	recordTimeout = 10 * time.Second
)

// errStopped is the cause of contexts cut at the end of the grace period.
var errStopped = errors.New("queue: the grace period is over")

// errLeaseLost is the cause of contexts of tasks whose lease is gone.
var errLeaseLost = fmt.Errorf("queue: %w", store.ErrLeaseLost)

// Pool is the workers of one project.
type Pool struct {
	cfg      Config
	handlers map[mirror.Kind]Handler // set by Run
	wake     chan struct{}
	wg       sync.WaitGroup // one for each running task; Run waits
	rate     rate           // of work done in the background

	mu       sync.Mutex
	ready    [lanes][]mirror.Resource // may hold what has moved to another lane since
	queued   map[mirror.Resource]lane // where a ready resource stands
	running  map[mirror.Resource]*run
	busy     [lanes]int // how many of each lane are running
	more     bool       // more background work is due than the last look has returned
	nextScan time.Time
	lastScan time.Time
	waiters  map[mirror.Resource]map[*waiter]struct{}
}

// run is a task that is being done.
type run struct {
	lane lane
	// again is where the resource came up meanwhile; lanes if it did not.
	again lane
}

// New returns a Pool. What is pushed before [Pool.Run] is done by it.
func New(cfg Config) *Pool {
	return &Pool{
		cfg:     cfg,
		wake:    make(chan struct{}, 1),
		queued:  make(map[mirror.Resource]lane),
		running: make(map[mirror.Resource]*run),
		waiters: make(map[mirror.Resource]map[*waiter]struct{}),
	}
}

// Push tells the pool that resources became due and are wanted at once.
func (p *Pool) Push(pending []mirror.Pending) { p.enqueue(laneLive, pending) }

// PushBackground tells the pool that resources became due and can wait for
// everything else.
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
		// Where there is work, another replica may have left some behind.
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

// next returns the most urgent lane with a resource that a worker is free for.
func (p *Pool) next() (lane, bool) {
	for l := range lanes {
		for len(p.ready[l]) > 0 {
			if at, ok := p.queued[p.ready[l][0]]; ok && at == l {
				break
			}
			p.ready[l] = p.ready[l][1:] // it went to a more urgent lane
		}
		if len(p.ready[l]) > 0 && (l == laneApart || p.busy[laneLive]+p.busy[laneBackground] < p.cfg.Workers) {
			return l, true
		}
	}
	return 0, false
}

// begin takes the next resource, if there is one.
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

// scanBy sees to it that the database is asked for due work at t at the latest.
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

// Run works until ctx ends and every task in flight has come to an end, by
// itself within the grace period or cut off after it. It has the tasks of each
// kind done by the handler for it.
func (p *Pool) Run(ctx context.Context, handlers map[mirror.Kind]Handler) error {
	p.handlers = handlers
	work, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	timer := time.NewTimer(0) // look at once: a crash may have left work behind
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
			timer.Stop() // the end of any task wakes us
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

// dispatch starts ready tasks while workers are free, and looks for more.
func (p *Pool) dispatch(ctx, work context.Context) {
	for {
		p.scan(ctx)
		p.mu.Lock()
		_, ready := p.next()
		p.mu.Unlock()
		if !ready || p.cfg.Limiter.Wait(ctx) != nil || ctx.Err() != nil {
			return
		}
		p.mu.Lock()
		r, ok := p.begin() // now, since something urgent may have come meanwhile
		p.mu.Unlock()
		if ok {
			p.wg.Go(func() { p.do(work, r) })
		}
	}
}

// mayScan reports whether to look for due work at all: as long as something wanted
// at once is known, or all workers are at such work, there is no use for more. Work
// in the background is no reason not to look.
func (p *Pool) mayScan() bool {
	return len(p.ready[laneLive]) == 0 && p.busy[laneLive] < p.cfg.Workers
}

// scan asks the database for due work if it is time to.
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
		_, ours := p.running[r] // between choice and claim
		return ours
	}
	p.push(laneLive, slices.DeleteFunc(list.Resources, ours))
	p.push(laneBackground, slices.DeleteFunc(list.Background, ours))
	switch {
	case list.Next.IsZero():
	case list.Next.After(now) || len(list.Background) == 0:
		p.scanBy(list.Next)
	default:
		p.more = true // worth another look when these are done
	}
}

// do leases and does one task.
func (p *Pool) do(ctx context.Context, r mirror.Resource) {
	applied, background := p.attempt(ctx, r)
	p.mu.Lock()
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

// attempt returns what came of the task, and whether it was one of the background.
func (p *Pool) attempt(ctx context.Context, r mirror.Resource) (applied mirror.Applied, background bool) {
	var token [16]byte
	_, _ = rand.Read(token[:]) // never fails by its own contract
	claimCtx, cancel := context.WithTimeout(ctx, recordTimeout)
	lease, err := p.cfg.Tasks.Claim(claimCtx, r, token, p.cfg.Now(), p.cfg.LeaseTTL)
	cancel()
	if err != nil {
		// Somebody else has it, or the database is away: look again later.
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

// handler returns what does the task of a lease.
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
		// Which incarnation would it belong to? The room comes first.
		return func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			return p.cfg.Tasks.Park(ctx, lease, p.cfg.Now())
		}
	default:
		return handler
	}
}

// BackgroundRate is how many tasks a second were done in the background lately.
func (p *Pool) BackgroundRate() float64 { return p.rate.perSecond(p.cfg.Now()) }

// handle runs the handler and keeps its lease alive meanwhile.
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

// renew moves the lease's end until ctx ends, and ends the task when the lease
// is lost or, for want of renewals, has run out.
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

// fail records a failure and gives the lease back.
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
	// Also at shutdown: what is given back need not wait for the lease to end.
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

// lookAgain has the database asked before long what became of a task that
// slipped from our hands: whoever took it over finishes it, but perhaps nobody
// did.
func (p *Pool) lookAgain() mirror.Applied {
	return mirror.Applied{Due: p.cfg.Now().Add(p.cfg.BusyPoll)}
}

// Policy says how failures are answered.
type Policy struct {
	// MaxAttempts is how often a task is tried before it fails for good.
	MaxAttempts int
	// BackoffMin and BackoffMax bound the delay between two attempts, which
	// doubles each time.
	BackoffMin, BackoffMax time.Duration
}

// Failure judges err.
func (p Policy) Failure(lease mirror.Lease, err error, now time.Time) store.Failure {
	f := fault.Of(err)
	failure := store.Failure{Now: now, Cause: cause(err)}
	switch {
	// Nothing went wrong: another incarnation, or our own shutdown.
	case errors.Is(err, store.ErrEpochChanged):
		failure.Uncounted, failure.NotBefore, failure.Cause = true, now, "the room was deleted or created anew meanwhile"
	case errors.Is(err, errStopped):
		failure.Uncounted, failure.NotBefore, failure.Cause = true, now, "the service stopped"
	case f.Kind == fault.Busy:
		failure.Uncounted, failure.NotBefore = true, now.Add(cmp.Or(f.RetryAfter, p.BackoffMin))
	case f.Kind == fault.Invalid, f.Kind == fault.NotFound, f.Kind == fault.Precondition:
		failure.Final, failure.NotBefore = true, now
	default:
		failure.Final = lease.Attempts+1 >= p.MaxAttempts
		failure.NotBefore = now.Add(max(p.backoff(lease.Attempts), f.RetryAfter))
	}
	return failure
}

// cause is what an operator reads in the task: the public sentence where there
// is one, since other errors may quote anything.
func cause(err error) string {
	f := fault.Of(err)
	if f.Kind == fault.Internal {
		return "internal error; see the log"
	}
	return string(f.Reason.Public()) + ": " + f.Public
}

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

// Handler does one task and applies the result under the lease. Its error says
// what to do: a fault of kind Busy is tried again without counting as an
// attempt; Invalid, NotFound and Precondition fail for good; anything else is
// tried again with a growing delay.
type Handler func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error)

// Gate says when work may begin. Work waits there before it is leased, so that
// nothing is held while nothing can be done.
type Gate interface {
	// Wait blocks until one piece of work may begin.
	Wait(ctx context.Context) error
}

// Config is what a Pool works with. Zero values mean the defaults named.
type Config struct {
	Project mirror.ProjectID
	Tasks   store.Tasks
	Handler Handler
	Gate    Gate
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

// The defaults of Config.
const (
	DefaultWorkers    = 8
	DefaultLeaseTTL   = 30 * time.Second
	DefaultBusyPoll   = 3 * time.Second
	DefaultSafetyPoll = time.Hour
	DefaultStopGrace  = 10 * time.Second
)

const (
	// memoryLimit bounds the resources remembered in memory; what is beyond is
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
	cfg  Config
	wake chan struct{}
	wg   sync.WaitGroup // one for each running task; Run waits

	mu       sync.Mutex
	ready    []mirror.Resource
	queued   map[mirror.Resource]bool
	running  map[mirror.Resource]bool // true: came up again meanwhile
	nextScan time.Time
	lastScan time.Time
	waiters  map[mirror.Resource]map[*waiter]struct{}
}

// New returns a Pool.
func New(cfg Config) *Pool {
	cfg.Workers = cmp.Or(cfg.Workers, DefaultWorkers)
	cfg.LeaseTTL = cmp.Or(cfg.LeaseTTL, DefaultLeaseTTL)
	cfg.BusyPoll = cmp.Or(cfg.BusyPoll, DefaultBusyPoll)
	cfg.SafetyPoll = cmp.Or(cfg.SafetyPoll, DefaultSafetyPoll)
	cfg.StopGrace = cmp.Or(cfg.StopGrace, DefaultStopGrace)
	cfg.Policy = cfg.Policy.withDefaults()
	return &Pool{
		cfg:     cfg,
		wake:    make(chan struct{}, 1),
		queued:  make(map[mirror.Resource]bool),
		running: make(map[mirror.Resource]bool),
		waiters: make(map[mirror.Resource]map[*waiter]struct{}),
	}
}

// Push tells the pool that resources became due.
func (p *Pool) Push(resources ...mirror.Resource) {
	p.mu.Lock()
	p.push(resources)
	p.mu.Unlock()
	p.signal()
}

func (p *Pool) push(resources []mirror.Resource) {
	if len(resources) > 0 {
		// Where there is work, another replica may have left some behind.
		p.scanBy(p.cfg.Now().Add(p.cfg.BusyPoll))
	}
	for _, r := range resources {
		if _, ok := p.running[r]; ok {
			p.running[r] = true
			continue
		}
		if p.queued[r] {
			continue
		}
		if len(p.ready) >= memoryLimit {
			continue
		}
		p.queued[r] = true
		p.ready = append(p.ready, r)
	}
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
// itself within the grace period or cut off after it.
func (p *Pool) Run(ctx context.Context) error {
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
		p.scan(ctx)
		p.dispatch(ctx, work)
		p.mu.Lock()
		timer.Reset(max(p.nextScan.Sub(p.cfg.Now()), 0))
		if len(p.running) >= p.cfg.Workers {
			timer.Stop() // the end of any of them wakes us
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

// dispatch starts ready tasks while workers are free.
func (p *Pool) dispatch(ctx, work context.Context) {
	for {
		p.mu.Lock()
		free := len(p.ready) > 0 && len(p.running) < p.cfg.Workers
		p.mu.Unlock()
		if !free || p.cfg.Gate.Wait(ctx) != nil || ctx.Err() != nil {
			return
		}
		p.mu.Lock()
		r := p.ready[0]
		p.ready = p.ready[1:]
		delete(p.queued, r)
		p.running[r] = false
		p.mu.Unlock()
		p.wg.Go(func() { p.do(work, r) })
	}
}

// scan asks the database for due work if it is time to and there is a worker
// for it.
func (p *Pool) scan(ctx context.Context) {
	now := p.cfg.Now()
	p.mu.Lock()
	wanted := len(p.ready) == 0 && len(p.running) < p.cfg.Workers && !now.Before(p.nextScan)
	if wanted && now.Sub(p.lastScan) < scanGap {
		p.nextScan = p.lastScan.Add(scanGap)
		wanted = false
	}
	if wanted {
		p.lastScan = now
		p.nextScan = now.Add(p.cfg.SafetyPoll)
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
	p.push(slices.DeleteFunc(list.Resources, func(r mirror.Resource) bool {
		_, ours := p.running[r] // between choice and claim
		return ours
	}))
	if !list.Next.IsZero() {
		p.scanBy(list.Next)
	}
}

// do leases and does one task.
func (p *Pool) do(ctx context.Context, r mirror.Resource) {
	applied := p.attempt(ctx, r)
	p.mu.Lock()
	again := p.running[r]
	delete(p.running, r)
	now := p.cfg.Now()
	switch {
	case applied.Due.IsZero():
	case applied.Due.After(now):
		p.scanBy(applied.Due)
	default:
		again = true
	}
	if again {
		p.push([]mirror.Resource{r})
	}
	p.push(applied.Woken)
	p.notify(r, applied.Generation)
	p.mu.Unlock()
	p.signal()
}

// attempt returns what came of the task.
func (p *Pool) attempt(ctx context.Context, r mirror.Resource) mirror.Applied {
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
		return p.lookAgain()
	}
	applied, err := p.handle(ctx, lease)
	if err != nil {
		return p.fail(ctx, lease, err)
	}
	return applied
}

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
	applied, err = p.cfg.Handler(ctx, lease)
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
	log := p.cfg.Logger.With(slog.String("kind", lease.Resource.Kind.String()), slog.String("room", string(lease.Resource.Room)))
	if errors.Is(err, store.ErrLeaseLost) {
		log.WarnContext(ctx, "lease lost, result dropped")
		return p.lookAgain()
	}
	f := p.cfg.Policy.Failure(lease, err, p.cfg.Now())
	switch {
	case f.Final:
		log.ErrorContext(ctx, "task failed for good", slog.Any("error", err))
	case !f.Spare:
		log.WarnContext(ctx, "task failed, will be tried again", slog.Any("error", err), slog.Int("attempts", lease.Attempts+1), slog.Time("next", f.NotBefore))
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

// Policy says how failures are answered. Zero values mean the defaults named.
type Policy struct {
	// MaxAttempts is how often a task is tried before it fails for good.
	MaxAttempts int
	// BackoffMin and BackoffMax bound the delay between two attempts, which
	// doubles each time.
	BackoffMin, BackoffMax time.Duration
}

// The defaults of Policy: ten attempts over about a quarter of an hour, longer
// than a deployment or a failover upstream takes.
const (
	DefaultMaxAttempts = 10
	DefaultBackoffMin  = time.Second
	DefaultBackoffMax  = 5 * time.Minute
)

func (p Policy) withDefaults() Policy {
	p.MaxAttempts = cmp.Or(p.MaxAttempts, DefaultMaxAttempts)
	p.BackoffMin = cmp.Or(p.BackoffMin, DefaultBackoffMin)
	p.BackoffMax = cmp.Or(p.BackoffMax, DefaultBackoffMax)
	return p
}

// Failure judges err.
func (p Policy) Failure(lease mirror.Lease, err error, now time.Time) store.Failure {
	p = p.withDefaults()
	f := fault.Of(err)
	failure := store.Failure{Now: now, Cause: cause(err)}
	switch {
	// Nothing went wrong: another incarnation, or our own shutdown.
	case errors.Is(err, store.ErrEpochChanged):
		failure.Spare, failure.NotBefore, failure.Cause = true, now, "the room was deleted or created anew meanwhile"
	case errors.Is(err, errStopped):
		failure.Spare, failure.NotBefore, failure.Cause = true, now, "the service stopped"
	case f.Kind == fault.Busy:
		failure.Spare, failure.NotBefore = true, now.Add(cmp.Or(f.RetryAfter, p.BackoffMin))
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
	return string(f.Reason) + ": " + f.Public
}

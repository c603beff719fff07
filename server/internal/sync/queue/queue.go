// Package queue runs the tasks of one project. It finds due tasks, leases them,
// passes them to the handlers of their kinds, and records the results. It knows
// nothing about the work itself.
package queue

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/memory"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/tracing"
)

// Handler does the part of a task that needs no worker, above all the calls to
// Liveblocks, and returns the rest. Its error decides what follows: a fault of kind
// Busy is retried without counting as an attempt; Invalid, NotFound and Precondition
// fail for good; any other error is retried with a growing delay.
type Handler func(ctx context.Context, lease mirror.Lease) (Apply, error)

// Apply does the rest of a task: it decodes and writes the result. It gets the lease
// as it is by then: that of a room has its Joined, and that of a child which joined
// its room has the room's new epoch. Its error is like that of a Handler.
type Apply func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error)

// Whole returns the handler of a task that cannot be divided.
func Whole(do Apply) Handler {
	return func(context.Context, mirror.Lease) (Apply, error) { return do, nil }
}

// Limiter decides when Liveblocks may be called. The pool takes a turn before it
// leases a task, so no lease is held while nothing can be done, and passes it to the
// task's first call. Further calls of the task take their own.
type Limiter interface {
	// Wait blocks until one call may be made, and takes the turn for it.
	Wait(ctx context.Context) error
	// WithTurn returns a context that carries a turn for the first call made with
	// it. spent reports whether a call has used it.
	WithTurn(ctx context.Context) (with context.Context, spent func() bool)
	// WithoutTurn returns a context with which calls fail at once, with a fault of
	// kind Busy.
	WithoutTurn(ctx context.Context) context.Context
	// UntilPaused returns a context that also ends when work is paused, with a fault
	// of reason PROJECT_PAUSED as its cause. release must be called.
	UntilPaused(ctx context.Context) (pausable context.Context, release func())
}

// Config configures a Pool. Every field must be set unless stated otherwise.
type Config struct {
	Project mirror.ProjectID
	// Shared is what the pools of all projects share, with the same Workers and Fetches;
	// nil if there is one pool.
	Shared  *Shared
	Tasks   store.Tasks
	Limiter Limiter
	Policy  Policy
	// Workers is the number of tasks that use the database or decode at once.
	Workers int
	// Fetches is the number of tasks that may be waiting for answers of Liveblocks or
	// for a worker to apply them. A room has at most an eighth of them, but at least
	// four.
	Fetches int
	// Memory bounds what fetches hold until they are applied; nil is without limit.
	Memory *memory.Budget
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
	// Swept, if set, is called with the result of each task that only a sweep has
	// requested.
	Swept func(lease mirror.Lease, applied mirror.Applied)
	// Looked, if set, is called after each query for due tasks: the database is awake.
	Looked func()
	// Ended, if set, is called at the end of each attempt of a task.
	Ended func(Attempt)
	// Committed, if set, is called with the change entries that a task has written, and
	// Doubt when a task failed while it may have written some.
	Committed func(changes []mirror.Change)
	Doubt     func()
	// Tracer begins a trace for each attempt, linked to the deliveries that it is for. It
	// knows those that reached this process since its start. nil begins none.
	Tracer *tracing.Tracer
	Now    func() time.Time
	Logger *slog.Logger
}

const (
	// memoryLimit is the maximum number of resources remembered in each lane. The
	// rest is found by querying the database.
	memoryLimit = 20_000
	// scanLimit is the maximum number of due resources of one query, in each lane.
	// They are remembered even beyond the memoryLimit, because they come first.
	scanLimit = 500
	// scanGap is the minimal time between two queries, however much becomes due.
	scanGap = 250 * time.Millisecond
	// recordTimeout limits one statement that records the result of a task.
	recordTimeout = 10 * time.Second
	// turnPatience is how long a task waits for its turn before the part of it begins
	// that needs no call.
	turnPatience = 250 * time.Millisecond
	// liveInARow is the number of urgent tasks that begin while others wait in the
	// background before one of those does.
	liveInARow = 15
	// settlePatience is how much longer than others settle fetches wait.
	settlePatience = 10 * time.Second
	// A room has at most one in so many fetches, but at least shareLeast.
	roomShare, shareLeast = 8, 4
	// At most one in so many fetches is that of a child which waits for its room.
	joinShare = 2
)

// errStopped is the cause of contexts cancelled at the end of the grace period.
var errStopped = errors.New("queue: the grace period is over")

// Pool runs the workers of one project.
type Pool struct {
	cfg      Config
	handlers map[mirror.Kind]Handler // set by Run
	wake     chan struct{}
	wg       sync.WaitGroup // one for each running task, turn and query; Run waits
	rate     rate           // of background tasks
	fresh    freshness

	mu      sync.Mutex
	lines   lines
	running map[mirror.Resource]*run
	inRoom  map[mirror.RoomID]int // fetches of each room
	shared  *Shared
	workers *share // tasks that use the database or decode
	fetches *share
	joined  int // tasks fetched together with their rooms
	// applying wait for a worker to apply what was fetched.
	applying []chan struct{}
	turns    int  // turns taken and not spent
	asking   bool // a turn is being taken
	late     bool // the turn has been waited for longer than turnPatience
	live     int  // urgent tasks begun in a row while others waited
	alone    bool // a task runs that allows no other beside it
	// more says that more of a lane is due in the database than is remembered,
	// behind what is due at the horizon.
	more     [lanes]bool
	horizon  [lanes]time.Time
	scanning bool
	nextScan time.Time
	lastScan time.Time
	waiters  map[mirror.Resource]map[*waiter]struct{}
	// unclaimed are the causes of tasks that could not be claimed, such as one whose next
	// attempt is due later: until a query finds them again.
	unclaimed map[mirror.Resource][]mirror.Span
	owed      debts
}

// unclaimedLimit is the maximum number of unclaimed tasks whose causes are remembered.
const unclaimedLimit = 1000

// unlinked remembers why a task that could not be claimed became due. Another process may
// do it, so what is remembered is dropped at the limit.
func (p *Pool) unlinked(r mirror.Resource, causes []mirror.Span) {
	if len(causes) == 0 {
		return
	}
	if len(p.unclaimed) >= unclaimedLimit {
		clear(p.unclaimed)
	}
	p.unclaimed[r] = causes
}

// run is a running task.
type run struct {
	lane lane
	// due is when the task was due.
	due time.Time
	// fetch means that it has a place among the fetches.
	fetch bool
	// partly means that it began without a turn.
	partly bool
	alone  bool
	// again is the lane in which the resource was pushed meanwhile, lanes if it was
	// not; againDue is when that is due and againClass what it needs.
	again      lane
	againDue   time.Time
	againClass class
	// joined are tasks of the room's children that are fetched together with it.
	// They cannot join any more once closed.
	joined []*joined
	closed bool
	// causes are the spans of the deliveries that the task is for, againCauses of those
	// that came meanwhile.
	causes, againCauses []mirror.Span
}

// repeat makes the task due again when it ends.
func (r *run) repeat(at lane, c class, due time.Time, causes ...mirror.Span) {
	r.againCauses = tracing.Join(r.againCauses, causes...)
	if r.again == lanes || due.Before(r.againDue) {
		r.againDue = due
	}
	r.again, r.againClass = min(r.again, at), min(r.againClass, c)
}

// New returns a Pool. [Pool.Run] also does what was pushed before.
func New(cfg Config) *Pool {
	p := &Pool{
		cfg:     cfg,
		wake:    make(chan struct{}, 1),
		lines:   newLines(),
		running: make(map[mirror.Resource]*run),
		inRoom:  make(map[mirror.RoomID]int),
		waiters: make(map[mirror.Resource]map[*waiter]struct{}), unclaimed: make(map[mirror.Resource][]mirror.Span),
		shared: cfg.Shared,
	}
	if p.shared == nil {
		p.shared = new(Shared)
	}
	p.workers, p.fetches = p.shared.join(p)
	return p
}

// Push tells the pool that resources became due and are urgent.
func (p *Pool) Push(pending []mirror.Pending) { p.enqueue(laneLive, pending) }

// PushBackground tells the pool that resources became due at the lowest priority.
func (p *Pool) PushBackground(pending []mirror.Pending) { p.enqueue(laneBackground, pending) }

func (p *Pool) enqueue(l lane, pending []mirror.Pending) {
	now := p.cfg.Now()
	p.mu.Lock()
	for _, r := range pending {
		p.push(l, classOf(r.Resource.Kind), r.Resource, now, memoryLimit, r.Cause)
	}
	if len(pending) > 0 {
		// Another replica may have left work behind.
		p.scanBy(now.Add(p.cfg.BusyPoll))
	}
	p.mu.Unlock()
	p.signal()
}

// push remembers a resource unless its lane has reached the limit.
func (p *Pool) push(at lane, c class, r mirror.Resource, due time.Time, limit int, causes ...mirror.Span) {
	if r.Kind.Traits().Apart {
		at = laneApart
	}
	if run, ok := p.running[r]; ok {
		run.repeat(at, c, due, causes...)
		return
	}
	if e, ok := p.lines.queued[r]; ok {
		p.lines.hasten(e, at, c, due)
		e.causes = tracing.Join(e.causes, causes...)
		return
	}
	if p.lines.count[at] >= limit {
		p.missed(at, due)
		p.scanBy(maxTime(due, p.cfg.Now().Add(p.cfg.BusyPoll)))
		return
	}
	causes = tracing.Join(p.unclaimed[r], causes...)
	delete(p.unclaimed, r)
	p.lines.add(r, at, c, due, false, causes)
}

// missed says that something of the lane is due at t, and not remembered.
func (p *Pool) missed(at lane, t time.Time) {
	if at == laneSettle {
		at = laneLive // a query finds both in one list
	}
	if !p.more[at] || t.Before(p.horizon[at]) {
		p.more[at], p.horizon[at] = true, t
	}
}

func maxTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// pick returns the next entry that can begin, nil if there is none, and whether it is to
// be fetched. It has taken the places that the task needs.
func (p *Pool) pick(now time.Time) (e *entry, fetch bool) {
	if p.alone || len(p.lines.alone) > 0 {
		return p.pickAlone()
	}
	if e := p.lines.head(laneApart); e != nil && !e.due.After(now) && p.turns > 0 {
		return e, false
	}
	if !p.applyNext() {
		return nil, false
	}
	e, live := p.next(now, true)
	if fetch = e != nil && e.class != classFree && p.turns > 0; fetch && !p.fetches.take(false) {
		e, live = p.next(now, false)
		fetch = false
	}
	switch {
	case e == nil:
		p.workers.done()
		return nil, false
	case !p.workers.take(false):
		if fetch {
			p.fetches.give()
		}
		return nil, false
	}
	p.live = live
	return e, fetch
}

// pickAlone is pick while an entry waits to begin alone, or has begun.
func (p *Pool) pickAlone() (e *entry, fetch bool) {
	if !p.applyNext() {
		return nil, false
	}
	p.workers.done()
	if p.alone {
		return nil, false
	}
	e = p.lines.alone[0]
	if e.class == classCall && p.turns == 0 || !p.shared.beAlone(p) {
		return nil, false
	}
	if e.lane == laneApart {
		return e, false
	}
	fetch = e.class != classFree && p.turns > 0
	if fetch {
		p.fetches.take(true)
	}
	p.workers.take(true)
	return e, fetch
}

// next returns the entry of the lanes with workers that comes next, nil if there is none,
// and how many urgent ones have then begun in a row. fetch means that it may be one that
// is to be fetched.
func (p *Pool) next(now time.Time, fetch bool) (e *entry, inARow int) {
	ready := func(e *entry) *entry {
		if e == nil || e.due.After(now) {
			return nil
		}
		return e
	}
	in := func(l lane) *entry {
		free := ready(p.lines.of[l][classFree].head())
		part := ready(p.lines.of[l][classPart].head())
		if p.late {
			free = first(free, part)
		}
		if p.turns == 0 || !fetch {
			return free
		}
		return first(free, first(part, ready(p.call(l))))
	}
	live, background := in(laneLive), in(laneBackground)
	if s := in(laneSettle); s != nil && (live == nil || s.due.Add(settlePatience).Before(live.due)) {
		live = s
	}
	switch {
	case background == nil:
		return live, p.live
	case live == nil, p.live >= liveInARow:
		return background, 0
	default:
		return live, p.live + 1
	}
}

// call returns the first entry of a lane that needs a call and whose room has not
// its share of the fetches. It sets others aside.
func (p *Pool) call(l lane) *entry {
	for {
		e := p.lines.of[l][classCall].head()
		if e == nil || e.resource.Room == "" || p.inRoom[e.resource.Room] < p.share() {
			return e
		}
		p.lines.setAside(e)
	}
}

// share is the number of fetches that a room may have.
func (p *Pool) share() int { return max(p.fetches.most()/roomShare, shareLeast) }

// begin removes an entry and starts its task, for which pick has taken the places.
func (p *Pool) begin(work context.Context, e *entry, fetch bool) {
	p.lines.remove(e)
	if _, served := p.handlers[e.resource.Kind]; !served { // it is for a replica of another version
		if e.lane != laneApart {
			p.leave()
		}
		if fetch {
			p.fetches.give()
		}
		return
	}
	r := &run{
		lane: e.lane, due: e.due, fetch: fetch, alone: e.alone, again: lanes, againClass: classes, causes: e.causes,
	}
	turn := fetch || e.lane == laneApart
	if turn {
		p.turns--
	}
	r.partly = e.class == classPart && !turn
	if fetch {
		p.inRoom[e.resource.Room]++
	}
	p.alone = e.alone
	p.running[e.resource] = r
	p.wg.Go(func() {
		ctx, spent := work, func() bool { return true }
		switch {
		case turn:
			ctx, spent = p.cfg.Limiter.WithTurn(work)
		case r.partly:
			ctx = p.cfg.Limiter.WithoutTurn(work)
		}
		p.do(ctx, e.resource, r, spent)
	})
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
// running tasks within the grace period and cancels the rest. Tasks of kinds without
// a handler are left to replicas of other versions.
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
		if ctx.Err() == nil {
			timer.Reset(p.dispatch(ctx, work))
		}
	}

	p.mu.Lock()
	p.owed.next = time.Time{} // the last chance
	p.pay(work, p.cfg.Now())
	p.mu.Unlock()
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

// dispatch begins what can begin, and returns when to do so again if nothing
// happens until then.
func (p *Pool) dispatch(ctx, work context.Context) time.Duration {
	now := p.cfg.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		e, fetch := p.pick(now)
		if e == nil {
			break
		}
		p.begin(work, e, fetch)
	}
	p.ask(ctx, now)
	p.scan(ctx, now)
	p.pay(work, now)
	next := p.nextScan
	if p.scanning {
		next = now.Add(p.cfg.SafetyPoll) // its end wakes the loop
	}
	if len(p.owed.list) > 0 && !p.owed.paying && p.owed.next.Before(next) {
		next = p.owed.next
	}
	for l := range lanes {
		for _, line := range p.lines.of[l] {
			if e := line.head(); e != nil && e.due.After(now) && e.due.Before(next) {
				next = e.due
			}
		}
	}
	return max(next.Sub(now), 0)
}

// ask takes a turn if a task needs one to begin.
func (p *Pool) ask(ctx context.Context, now time.Time) {
	needed := false
	for l := range lanes {
		for _, c := range []class{classPart, classCall} {
			e := p.lines.of[l][c].head()
			needed = needed || e != nil && !e.due.After(now) && (l == laneApart || p.fetches.free())
		}
	}
	needed = needed || len(p.lines.alone) > 0 && p.lines.alone[0].class == classCall
	if p.asking || p.turns > 0 || !needed {
		return
	}
	p.asking = true
	p.wg.Go(func() {
		late := time.AfterFunc(turnPatience, func() {
			p.mu.Lock()
			p.late = p.asking
			p.mu.Unlock()
			p.signal()
		})
		err := p.cfg.Limiter.Wait(ctx)
		late.Stop()
		p.mu.Lock()
		if p.asking, p.late = false, false; err == nil {
			p.turns++
		}
		p.mu.Unlock()
		p.signal()
	})
}

// scan queries the database for due tasks if it is time. What is due first there
// also comes first here, so nothing waits behind what came later, however much that
// is: each query brings the tasks that are due first, and the next one follows when
// they have begun.
func (p *Pool) scan(ctx context.Context, now time.Time) {
	for l := range lanes {
		e := p.lines.head(l)
		if l == laneLive {
			e = first(e, p.lines.head(laneSettle))
		}
		if p.more[l] && (e == nil || e.due.After(p.horizon[l])) {
			p.scanBy(now)
		}
	}
	if p.nextScan.After(now) || p.scanning {
		return
	}
	if now.Sub(p.lastScan) < scanGap {
		p.nextScan = p.lastScan.Add(scanGap)
		return
	}
	p.scanning = true
	p.lastScan, p.nextScan = now, now.Add(p.cfg.SafetyPoll)
	p.more = [lanes]bool{}
	// While Liveblocks cannot be called, what needs no call must not be hidden
	// behind what does.
	late := p.late
	p.wg.Go(func() {
		p.look(ctx, now, slices.Sorted(maps.Keys(p.handlers)), late)
		p.mu.Lock()
		p.scanning = false
		p.mu.Unlock()
		p.signal()
	})
}

// look queries the database for due tasks of some kinds.
func (p *Pool) look(ctx context.Context, now time.Time, kinds []mirror.Kind, late bool) {
	queryCtx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	list, err := p.cfg.Tasks.Due(queryCtx, store.Look{
		Project: p.cfg.Project, Kinds: kinds, Now: now, LeaseTTL: p.cfg.LeaseTTL, Limit: scanLimit,
	})
	if ctx.Err() != nil {
		return
	}
	p.mu.Lock()
	before := len(p.lines.queued)
	p.found(laneLive, list.Resources, list.More)
	p.found(laneBackground, list.Background, list.MoreBackground)
	if err != nil {
		p.scanBy(now.Add(p.cfg.BusyPoll))
		p.mu.Unlock()
		p.cfg.Logger.ErrorContext(ctx, "cannot look for due work", slog.Any("error", err))
		return
	}
	if p.cfg.Looked != nil {
		p.cfg.Looked()
	}
	if len(p.lines.queued) > before {
		p.scanBy(now.Add(p.cfg.BusyPoll))
	}
	if !list.Next.IsZero() {
		p.scanBy(list.Next)
	}
	p.mu.Unlock()
	if free := slices.DeleteFunc(slices.Clone(kinds), func(k mirror.Kind) bool { return classOf(k) == classCall }); late &&
		list.More && len(free) < len(kinds) {
		p.look(ctx, now, free, false)
	}
}

// found remembers what a query has returned.
func (p *Pool) found(l lane, list []store.DueResource, more bool) {
	for _, r := range list {
		if _, here := p.running[r.Resource]; here {
			continue // it was chosen and not claimed yet
		}
		c := classOf(r.Kind)
		if e, waits := p.lines.queued[r.Resource]; waits {
			c = e.class // perhaps what needs no call is done already
		}
		p.push(laneOf(l, r.Resource, r.Settles), c, r.Resource, r.Due, memoryLimit+scanLimit)
	}
	if more && len(list) > 0 {
		p.missed(l, list[len(list)-1].Due)
	}
}

// do leases and runs one task.
func (p *Pool) do(ctx context.Context, r mirror.Resource, run *run, spent func() bool) {
	end := p.traced(ctx, r, run)
	p.mu.Lock()
	defer p.signal()
	defer p.mu.Unlock()
	delete(p.running, r)
	if end.result == "" {
		p.unlinked(r, run.causes)
	}
	if !spent() {
		p.turns = min(p.turns+1, p.cfg.Workers) // more would be a burst
	}
	if run.lane != laneApart && !end.stopped {
		p.leave()
	}
	if run.fetch {
		p.fetches.give()
		if p.inRoom[r.Room]--; p.inRoom[r.Room] == 0 {
			delete(p.inRoom, r.Room)
		}
		p.lines.returnOne(r.Room)
	}
	if run.alone {
		p.alone = false
		p.shared.wasAlone()
	}
	for _, j := range run.joined {
		j.decide(end.applied)
	}
	l, c := laneLive, classOf(r.Kind)
	if end.background {
		l = laneBackground
	}
	if run.partly {
		c = classCall // what needs no call is done
	}
	if due := end.applied.Due; !due.IsZero() {
		causes := run.causes
		if end.result == Applied && !end.applied.Settles {
			causes = nil // they are done with: what comes next is for others
		}
		run.repeat(laneOf(l, r, end.applied.Settles), c, due, causes...)
	}
	switch {
	case end.alone && run.again < lanes:
		p.lines.add(r, min(run.again, l), min(run.againClass, c), run.againDue, true, run.againCauses)
	case run.again < lanes:
		p.push(run.again, run.againClass, r, run.againDue, memoryLimit, run.againCauses...)
	}
	for _, also := range end.applied.AlsoDue {
		// In front of what became due later than this one.
		p.push(l, classOf(also.Kind), also, run.due, memoryLimit, run.causes...)
	}
	for _, also := range end.applied.AlsoBackground {
		p.push(laneBackground, classOf(also.Kind), also, p.cfg.Now(), memoryLimit, run.causes...)
	}
	p.notify(r, end.applied.Generation, nil)
	if end.failed != nil {
		p.notify(r, end.generation, end.failed)
	}
}

// lookAgain schedules a query for a task that was lost: the worker that took it
// over will finish it, but perhaps there is none.
func (p *Pool) lookAgain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.scanBy(p.cfg.Now().Add(p.cfg.BusyPoll))
}

// enter waits for a worker, and reports false if ctx ends first.
func (p *Pool) enter(ctx context.Context) bool {
	p.mu.Lock()
	if len(p.applying) == 0 && p.workers.take(true) {
		p.mu.Unlock()
		return true
	}
	free := make(chan struct{})
	p.applying = append(p.applying, free)
	p.mu.Unlock()
	select {
	case <-free:
		return true
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	at := slices.Index(p.applying, free)
	if at < 0 {
		return true // a worker became free at the same moment
	}
	p.applying = slices.Delete(p.applying, at, at+1)
	p.signal()
	return false
}

// leave gives a worker back. p.mu is held. What was fetched goes before what is to
// be fetched.
func (p *Pool) leave() {
	p.workers.give()
	p.applyNext()
}

// applyNext lets as many as possible go on that wait for a worker, and reports whether
// all do. p.mu is held.
func (p *Pool) applyNext() bool {
	for len(p.applying) > 0 {
		if !p.workers.take(true) {
			return false
		}
		close(p.applying[0])
		p.applying = p.applying[1:]
	}
	return true
}

// BackgroundRate returns the recent number of background tasks per second.
func (p *Pool) BackgroundRate() float64 { return p.rate.perSecond(p.cfg.Now()) }

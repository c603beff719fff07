package liveblocks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
)

const (
	// startRate is the rate of a new process, as far as the ceiling allows: what
	// Liveblocks takes of this project is not known yet.
	startRate = 50
	// minRate keeps a few calls going, which detect that Liveblocks has recovered.
	minRate = 0.5
	// shrinkEvery is the minimal time between two reductions of the rate: one burst
	// of refusals counts once.
	shrinkEvery = time.Second
	// growEvery and growSteps let the rate grow to the maximum in about 20 s of
	// successful calls. Below startRate it doubles: a new process would begin there, and
	// after an outage it takes some 7 s from the minimum.
	growEvery = time.Second
	growSteps = 20
	// A 429 tells where the limit of Liveblocks is. For the time of kneeFor the rate
	// grows by slowFactor at most once it comes near, at the share kneeShare of the
	// rate that was refused.
	kneeFor    = time.Minute
	kneeShare  = 0.9
	slowFactor = 1.005
	// After a 429 the rate is multiplied by refusedFactor: other processes may use the
	// same key, and the refused rate was reached in small steps. Trouble of the whole
	// upstream, which has no such limit, counts by troubleFactor.
	refusedFactor = 0.7
	troubleFactor = 0.5
	// closeMin and closeMax limit for how long trouble closes the limiter if
	// Liveblocks does not say it. The time doubles until a call is answered.
	closeMin = time.Second
	closeMax = 10 * time.Second
	// burst is how long calls may be ahead of the rate, so that the first ones after an
	// idle time do not wait for each other.
	burst = 100 * time.Millisecond
	// probeFor is how long the others wait for the first call after such a time.
	probeFor = time.Second
	// lookEvery is how often a call or a caller of Wait looks whether an operator has
	// stopped calls. Without either nothing is looked up.
	lookEvery = time.Minute
	// outageKnown is how long a failed call tells that Liveblocks is not available. While
	// something waits, calls are made more often; if nothing does, others may have been
	// answered.
	outageKnown = 5 * time.Minute
	// uncheckedWait is how long a call that is made while the key is unchecked is put
	// off.
	uncheckedWait = 10 * time.Second
)

// Limiter decides when calls may be made: not while the key is refused or an operator has
// stopped them, not before the time that Liveblocks requested, and no faster than a rate. The rate starts low,
// grows while calls wait for it and nothing is refused, and shrinks after a 429 and
// when Liveblocks as a whole is in trouble; a single failed call does not change it.
// The limit is that of this process.
//
// It uses the clock of package time, because only durations matter.
type Limiter struct {
	ceiling float64
	log     *slog.Logger
	// turn is held by the next caller of take. The others hold no reservation yet,
	// so a change of the rate applies to all of them.
	turn chan struct{}

	mu   sync.Mutex
	rate float64   // calls per second
	next time.Time // when the next call may be made, unless calls may be ahead
	// changed is closed and replaced when reason, stopped, until or strikes changes.
	changed chan struct{}
	reason  string // why calls are paused; empty if they are not
	since   time.Time
	// stopped is why an operator has stopped calls; empty if none has.
	stopped      string
	stoppedSince time.Time
	lookedAt     time.Time // when stopped was last looked up
	until        time.Time // no calls before this time
	// unchecked means that no call is made until the key is checked.
	unchecked bool
	outage    time.Time // when Liveblocks failed first since a call was answered; zero if it did not
	outageAt  time.Time // when it failed last
	strikes   int       // how often trouble closed the limiter since a call was answered
	probe     time.Time // when the last caller of Wait was let through despite strikes
	shrunkAt  time.Time
	grownAt   time.Time
	pressed   bool    // calls have waited for the rate since it grew
	knee      float64 // where growing becomes slow; 0 if nothing was refused
	kneeAt    time.Time
}

// Status is a snapshot of the limiter.
type Status struct {
	// PauseReason says why calls are paused; empty if they are not.
	PauseReason string
	// PausedSince is when the pause began; zero if there is none.
	PausedSince time.Time
	// Stopped means that an operator has stopped the calls.
	Stopped bool
	// RatePerSecond is the current limit on the calls of this process.
	RatePerSecond float64
	// MaxRatePerSecond is the ceiling of RatePerSecond.
	MaxRatePerSecond float64
	// FailingSince is when the first call failed because of an outage of Liveblocks since one
	// was answered; zero if the last one was, or was made too long ago to tell.
	FailingSince time.Time
	// ThrottledUntil is when calls may continue after a 429 or an outage; zero if
	// they may be made now.
	ThrottledUntil time.Time
}

func newLimiter(ceiling float64, log *slog.Logger) *Limiter {
	return &Limiter{
		ceiling: ceiling,
		rate:    min(startRate, ceiling),
		log:     log,
		turn:    make(chan struct{}, 1),
		changed: make(chan struct{}),
	}
}

// Wait blocks until a call may be made or ctx ends, and takes the turn for it.
// Every call takes one by itself, so only who wants to have it before the call
// needs Wait: workers take one before they claim a task, so no lease is held
// meanwhile, and pass it on with [Client.WithTurn].
func (c *Client) Wait(ctx context.Context) error { return c.limiter.wait(ctx, c.lookSometimes) }

// Look looks up whether an operator has stopped calls, and heeds it.
func (c *Client) Look(ctx context.Context) error {
	c.looking.Lock()
	defer c.looking.Unlock()
	return c.look(ctx)
}

// lookSometimes looks unless somebody has done so within lookEvery, or does now. If it
// cannot find out, what is known stays.
func (c *Client) lookSometimes(ctx context.Context) {
	if c.cfg.Stopped == nil || !c.limiter.lookDue() || !c.looking.TryLock() {
		return
	}
	defer c.looking.Unlock()
	_ = c.look(ctx) // the database is away: then nothing is claimed either
}

// look is Look. c.looking is held, so that no old answer replaces a newer one.
func (c *Client) look(ctx context.Context) error {
	reason, since, err := c.cfg.Stopped(ctx)
	if err != nil {
		return err
	}
	if c.limiter.stop(reason, since) {
		c.cfg.Logger.InfoContext(ctx, "an operator has paused or resumed fetching", slog.String("reason", reason))
	}
	return nil
}

// turn is a turn taken by Wait.
type turn struct{ spent atomic.Bool }

type turnKey struct{}

// WithTurn returns a context that carries a turn taken by Wait: the first call made
// with it does not wait. spent reports whether a call has used the turn; an unused
// one may be passed on again.
func (c *Client) WithTurn(ctx context.Context) (with context.Context, spent func() bool) {
	t := new(turn)
	return context.WithValue(ctx, turnKey{}, t), t.spent.Load
}

// WithoutTurn returns a context whose calls fail at once, as while the limiter is
// closed. It is for tasks of which a part needs no call.
func (c *Client) WithoutTurn(ctx context.Context) context.Context {
	return context.WithValue(ctx, turnKey{}, (*turn)(nil))
}

// takeTurn returns nil when the call may be made: at once if the context carries a
// turn. It fails at once if the limiter is closed, or closes meanwhile: who holds a
// lease must not wait until it opens again.
func (c *Client) takeTurn(ctx context.Context, op string) error {
	t, given := ctx.Value(turnKey{}).(*turn)
	if given && t == nil {
		return notSent(op, fault.New(fault.Busy, fault.ReasonUpstreamRateLimited, "waiting for a turn to call Liveblocks"))
	}
	c.lookSometimes(ctx)
	taken := given && !t.spent.Swap(true) // also if it is of no use: the limiter has closed since
	if f := c.held(); f != nil {
		return notSent(op, f)
	}
	if taken {
		return nil
	}
	err := c.limiter.take(ctx)
	if f := c.held(); errors.Is(err, errClosed) && f != nil {
		return notSent(op, f)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return nil
}

// UntilPaused returns a context that also ends when calls are paused, with a fault of
// reason PROJECT_PAUSED as its cause: the pause lasts until an operator fixes the key or
// lets calls go on, so callers should not wait for it. The caller must call release.
func (c *Client) UntilPaused(ctx context.Context) (pausable context.Context, release func()) {
	c.lookSometimes(ctx)
	pausable, cancel := context.WithCancelCause(ctx)
	if reason, _ := c.limiter.closed(); reason != "" {
		cancel(pausedFault(fault.Unavailable, reason))
	}
	watched := make(chan struct{})
	go func() { // release waits for it
		defer close(watched)
		if reason, ok := c.limiter.await(pausable, c.limiter.paused); ok {
			cancel(pausedFault(fault.Unavailable, reason))
		}
	}()
	return pausable, func() { cancel(nil); <-watched }
}

// Status returns a snapshot of the limiter.
func (c *Client) Status() Status { return c.limiter.Status() }

// Run probes Liveblocks while the key is refused, and opens the limiter again when
// it is accepted. Only Run ends a pause. When ctx ends, it closes the idle
// connections and returns nil.
func (c *Client) Run(ctx context.Context) error {
	defer c.Close()
	if c.check != nil && !c.awaitCheck(ctx) {
		return nil
	}
	for {
		reason, ok := c.limiter.await(ctx, func() string { return c.limiter.reason })
		if !ok {
			return nil
		}
		c.cfg.Logger.ErrorContext(ctx, "fetching is paused: Liveblocks refuses the secret key",
			slog.String("reason", reason))
		c.cfg.OnPause(reason)
		if !c.probe(ctx) {
			return nil
		}
		c.limiter.resume()
		c.cfg.Logger.InfoContext(ctx, "fetching continues: Liveblocks accepts the secret key")
		c.cfg.OnPause("")
	}
}

// Hold keeps the limiter closed until check finds that the key may be used. Run
// calls it at once and then at growing intervals, and when again is closed or
// receives. It returns a problem if the key must not be used, which pauses the
// project, or an error if that is not known yet. Hold must be called before Run.
func (c *Client) Hold(again <-chan struct{}, check func(context.Context) (problem string, err error)) {
	c.again, c.check = again, check
	c.limiter.mu.Lock()
	c.limiter.unchecked = true
	c.limiter.mu.Unlock()
}

// awaitCheck calls the check until it lets the key be used, and reports false if ctx
// ended first.
func (c *Client) awaitCheck(ctx context.Context) bool {
	paused := ""
	for wait := c.cfg.ProbeMin; ; wait = min(2*wait, c.cfg.ProbeMax) {
		problem, err := c.check(ctx)
		if fault.Is(err, fault.ReasonProjectPaused) {
			problem, err = fault.Of(err).Err.Error(), nil
		}
		switch {
		case ctx.Err() != nil:
			return false
		case err != nil:
			c.cfg.Logger.WarnContext(ctx, "cannot check the secret key yet", slog.Any("error", err))
		case problem == "":
			c.limiter.resume()
			if paused != "" {
				c.cfg.Logger.InfoContext(ctx, "fetching continues: the secret key is that of the mirrored project")
				c.cfg.OnPause("")
			}
			return true
		case problem != paused:
			paused = problem
			c.limiter.pause(problem)
			c.cfg.Logger.ErrorContext(ctx, "fetching is paused: the secret key must not be used", slog.String("reason", problem))
			c.cfg.OnPause(problem)
		}
		select {
		case <-time.After(wait):
		case <-c.again:
		case <-ctx.Done():
			return false
		}
	}
}

// probe pings at growing intervals until the key is accepted, and reports false
// if ctx ended first.
func (c *Client) probe(ctx context.Context) bool {
	for wait := c.cfg.ProbeMin; ; wait = min(2*wait, c.cfg.ProbeMax) {
		if clock.Sleep(ctx, wait) != nil {
			return false
		}
		if c.lookSometimes(ctx); c.limiter.isStopped() {
			continue // no call at all, also not this one
		}
		err := c.Ping(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		c.cfg.Logger.WarnContext(ctx, "fetching stays paused", slog.Any("error", err))
		if told := fault.Of(err).RetryAfter; told > wait {
			if clock.Sleep(ctx, told-wait) != nil {
				return false
			}
		}
	}
}

// wait blocks until a call may be made, or ctx ends, and takes its turn. Meanwhile it
// calls look again and again.
func (l *Limiter) wait(ctx context.Context, look func(context.Context)) error {
	for {
		if err := l.awaitOpen(ctx, look); err != nil {
			return err
		}
		if err := l.take(ctx); !errors.Is(err, errClosed) {
			return err
		}
	}
}

// awaitOpen blocks until the limiter is open. After trouble it lets one caller through,
// and the others when a call was answered.
func (l *Limiter) awaitOpen(ctx context.Context, look func(context.Context)) error {
	for {
		look(ctx)
		l.mu.Lock()
		now := time.Now()
		stopped, paused, until, changed := l.stopped != "", l.reason != "" || l.unchecked, l.until, l.changed
		if next := l.probe.Add(probeFor); l.strikes > 0 && until.Before(next) {
			until = next
		}
		open := !stopped && !paused && !now.Before(until)
		if open {
			l.probe = now
		}
		l.mu.Unlock()
		if open {
			return ctx.Err()
		}
		var elapsed <-chan time.Time
		switch {
		case stopped:
			elapsed = time.After(lookEvery)
		case !paused:
			elapsed = time.After(until.Sub(now))
		}
		select {
		case <-elapsed:
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// errClosed means that the limiter closed before a call had its turn.
var errClosed = errors.New("the limiter is closed")

// take waits for the turn of one call, at the rate. It fails with errClosed once the
// limiter is closed, or with the error of ctx.
func (l *Limiter) take(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-l.turn }()
	l.mu.Lock()
	closed, changed := l.isClosed(), l.changed
	delay := time.Duration(0)
	if !closed {
		delay = l.reserve()
		l.pressed = l.pressed || delay > 0
	}
	l.mu.Unlock()
	switch {
	case closed:
		return errClosed
	case delay == 0:
		return ctx.Err()
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return nil
		case <-changed:
			l.mu.Lock()
			closed, changed = l.isClosed(), l.changed
			l.mu.Unlock()
			if closed {
				return errClosed // and the calls after it begin anew
			}
		case <-ctx.Done():
			l.mu.Lock()
			l.next = l.next.Add(-l.interval())
			l.mu.Unlock()
			return ctx.Err()
		}
	}
}

// interval is the time between two calls. l.mu is held.
func (l *Limiter) interval() time.Duration { return time.Duration(float64(time.Second) / l.rate) }

// reserve counts a call and returns when it may be made. l.mu is held.
func (l *Limiter) reserve() time.Duration {
	now := time.Now()
	if ahead := now.Add(min(0, l.interval()-burst)); l.next.Before(ahead) {
		l.next = ahead
	}
	delay := max(l.next.Sub(now), 0)
	l.next = l.next.Add(l.interval())
	return delay
}

// spend counts a call that does not wait for its turn.
func (l *Limiter) spend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reserve()
}

// calm reports whether the limiter is open and no trouble has closed it since the
// last answered call.
func (l *Limiter) calm() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.isClosed() && l.strikes == 0
}

// isClosed reports whether no call may be made. l.mu is held.
func (l *Limiter) isClosed() bool {
	return l.paused() != "" || l.unchecked || time.Now().Before(l.until)
}

// isStopped reports whether an operator has stopped calls.
func (l *Limiter) isStopped() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stopped != ""
}

// paused returns why calls are paused, whoever paused them. l.mu is held.
func (l *Limiter) paused() string { return cmp.Or(l.stopped, l.reason) }

// lookDue reports whether it is time to look up what an operator has ordered, and counts
// that as done.
func (l *Limiter) lookDue() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.lookedAt) < lookEvery {
		return false
	}
	l.lookedAt = now
	return true
}

// stop stops calls, or lets them go on if reason is empty, and reports whether that is
// new.
func (l *Limiter) stop(reason string, since time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lookedAt = time.Now()
	if l.stopped == reason {
		return false
	}
	l.stopped, l.stoppedSince = reason, since
	l.announce()
	return true
}

// Status returns a snapshot of the limiter.
func (l *Limiter) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Status{
		PauseReason:   l.paused(),
		PausedSince:   l.since,
		RatePerSecond: l.rate, MaxRatePerSecond: l.ceiling,
	}
	if time.Since(l.outageAt) < outageKnown {
		s.FailingSince = l.outage
	}
	if l.stopped != "" {
		s.PausedSince, s.Stopped = l.stoppedSince, true
	}
	if time.Until(l.until) > 0 {
		s.ThrottledUntil = l.until
	}
	return s
}

// closed returns why calls are paused, empty if they are not, and until when calls
// are deferred.
func (l *Limiter) closed() (reason string, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unchecked {
		return l.paused(), time.Now().Add(uncheckedWait)
	}
	return l.paused(), l.until
}

// await blocks until there is a reason and returns it, or false if ctx ended first. It
// calls of with l.mu held.
func (l *Limiter) await(ctx context.Context, of func() string) (string, bool) {
	for {
		l.mu.Lock()
		reason, changed := of(), l.changed
		l.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return "", false
		case reason != "":
			return reason, true
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// note adjusts the limiter to the result of a call. It returns for how long calls are
// deferred if the result is trouble of the whole upstream.
func (l *Limiter) note(ctx context.Context, r result) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case r.outcome == outcomeKeyRefused:
		if l.reason == "" {
			l.reason = fault.Of(r.err).Err.Error()
			l.since = time.Now()
			l.announce()
		}
	case r.outcome == outcomeRateLimited:
		l.outage = time.Time{}
		l.shrink(ctx, r.outcome, refusedFactor)
		return l.close(r.retryAfter)
	case r.upstream:
		l.outageAt = time.Now()
		if l.outage.IsZero() {
			l.outage = l.outageAt
		}
		l.shrink(ctx, r.outcome, troubleFactor)
		return l.close(r.retryAfter)
	case r.answered():
		l.outage = time.Time{}
		reopened := l.strikes > 0
		// The others have waited for this call, unless it began before the limiter closed.
		l.pressed = l.pressed || reopened && !time.Now().Before(l.until)
		l.strikes = 0
		l.grow()
		if reopened {
			l.announce()
		}
	}
	return 0
}

// close defers calls for as long as Liveblocks told or, without that, for longer and
// longer until a call is answered, and returns how long that is. Calls that were under
// way when it closed do not count again. l.mu is held.
func (l *Limiter) close(told time.Duration) time.Duration {
	now := time.Now()
	left := l.until.Sub(now)
	if told == 0 {
		if left > 0 {
			return left
		}
		told = min(closeMin<<min(l.strikes, 10), closeMax)
		told += rand.N(told / 2) // replicas need not come back together
	}
	if left <= 0 {
		l.strikes++
	}
	if told > left {
		l.until = now.Add(told)
		l.next = l.until // without calls in advance
		l.announce()
	}
	return max(told, left)
}

// resume ends a pause.
func (l *Limiter) resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reason, l.since, l.unchecked = "", time.Time{}, false
	l.announce()
}

// pause stops all calls.
func (l *Limiter) pause(reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reason == "" {
		l.since = time.Now()
	}
	l.reason = reason
	l.announce()
}

// announce wakes all waiters. l.mu is held.
func (l *Limiter) announce() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// shrink multiplies the rate, once for each burst of failures. l.mu is held.
func (l *Limiter) shrink(ctx context.Context, why outcome, factor float64) {
	now := time.Now()
	floor := min(minRate, l.ceiling)
	if now.Sub(l.shrunkAt) < shrinkEvery || l.rate <= floor {
		return
	}
	if why == outcomeRateLimited {
		l.knee, l.kneeAt = l.rate*kneeShare, now
	}
	l.shrunkAt, l.grownAt, l.pressed = now, now, false
	l.rate = max(l.rate*factor, floor)
	l.log.WarnContext(ctx, "calls to Liveblocks slow down",
		slog.String("outcome", string(why)), slog.Float64("calls_per_second", l.rate))
}

// grow increases the rate by one step, if calls have waited for it. l.mu is held.
func (l *Limiter) grow() {
	now := time.Now()
	if l.rate >= l.ceiling || !l.pressed || now.Sub(l.grownAt) < growEvery {
		return
	}
	rps := l.rate + max(l.ceiling/growSteps, min(l.rate, startRate-l.rate))
	if now.Sub(l.kneeAt) < kneeFor {
		rps = min(rps, max(l.knee, l.rate*slowFactor))
	}
	l.grownAt, l.pressed = now, false
	l.rate = min(rps, l.ceiling)
}

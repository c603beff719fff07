package liveblocks

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
)

const (
	// minRate keeps a few calls going, which detect that Liveblocks has recovered.
	minRate = 0.5
	// shrinkEvery is the minimal time between two reductions of the rate: one burst
	// of refusals counts once.
	shrinkEvery = time.Second
	// growEvery and growSteps let the rate grow from the minimum to the maximum in
	// about 20 s of successful calls.
	growEvery = time.Second
	growSteps = 20
	// uncheckedWait is how long a call that is made while the key is unchecked is put
	// off.
	uncheckedWait = 10 * time.Second
)

// Limiter decides when calls may be made: not while the key is refused, not before
// the time that Liveblocks requested, and no faster than a rate that is halved when
// Liveblocks is overloaded and grows back while it answers.
//
// It uses the clock of package time, because only durations matter.
type Limiter struct {
	ceiling float64
	rate    *rate.Limiter
	log     *slog.Logger
	// turn is held by the next caller of Wait. The others hold no reservation yet,
	// so a change of the rate applies to all of them.
	turn chan struct{}

	mu sync.Mutex
	// changed is closed and replaced when reason or until changes.
	changed chan struct{}
	reason  string // why calls are paused; empty if they are not
	since   time.Time
	until   time.Time // no calls before this time
	// unchecked means that no call is made until the key is checked.
	unchecked bool
	shrunkAt  time.Time
	grownAt   time.Time
}

// Status is a snapshot of the limiter.
type Status struct {
	// PauseReason says why calls are paused; empty if they are not.
	PauseReason string
	// PausedSince is when the pause began; zero if there is none.
	PausedSince time.Time
	// RatePerSecond is the current call rate.
	RatePerSecond float64
	// ThrottledUntil is when calls may continue, as Liveblocks requested; zero if
	// it did not.
	ThrottledUntil time.Time
}

func newLimiter(ceiling float64, log *slog.Logger) *Limiter {
	// A burst of a tenth of a second's calls is allowed, so the first calls after
	// an idle time do not wait for each other.
	burst := max(1, int(math.Ceil(ceiling/10)))
	return &Limiter{
		ceiling: ceiling,
		rate:    rate.NewLimiter(rate.Limit(ceiling), burst),
		log:     log,
		turn:    make(chan struct{}, 1),
		changed: make(chan struct{}),
	}
}

// Wait blocks until a call may be made or ctx ends, and takes the turn for it.
// Every call takes one by itself, so only who wants to have it before the call
// needs Wait: workers take one before they claim a task, so no lease is held
// meanwhile, and pass it on with [Client.WithTurn].
func (c *Client) Wait(ctx context.Context) error { return c.limiter.Wait(ctx) }

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

// takeTurn returns when the call may be made: at once if the context carries a turn
// or the limiter is closed, for which the result is the call's.
func (c *Client) takeTurn(ctx context.Context, op string) result {
	t, given := ctx.Value(turnKey{}).(*turn)
	if given && t == nil {
		return notSent(op, fault.New(fault.Busy, fault.ReasonUpstreamRateLimited, "waiting for a turn to call Liveblocks"))
	}
	if r := c.held(op); r.err != nil {
		return r
	}
	if given && !t.spent.Swap(true) {
		return result{}
	}
	open, release := c.limiter.whileOpen(ctx)
	defer release()
	err := c.limiter.Wait(open)
	if r := c.held(op); err != nil && ctx.Err() == nil && r.err != nil {
		return r
	}
	if err != nil {
		return result{outcome: outcomeCancelled, err: fmt.Errorf("%s: %w", op, err)}
	}
	return result{}
}

// UntilPaused returns a context that also ends when the key is refused, with a
// fault of reason PROJECT_PAUSED as its cause: the pause lasts until an operator
// fixes the key, so callers should not wait for it. The caller must call release.
func (c *Client) UntilPaused(ctx context.Context) (pausable context.Context, release func()) {
	pausable, cancel := context.WithCancelCause(ctx)
	paused := fault.New(fault.Unavailable, fault.ReasonProjectPaused,
		"fetching is paused; the pause_reason of the status says why")
	if reason, _ := c.limiter.closed(); reason != "" {
		cancel(paused)
	}
	watched := make(chan struct{})
	go func() { // release waits for it
		defer close(watched)
		if _, ok := c.limiter.awaitPause(pausable); ok {
			cancel(paused)
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
		reason, ok := c.limiter.awaitPause(ctx)
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

// Wait blocks until a call may be made, or ctx ends.
func (l *Limiter) Wait(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-l.turn }()
	for {
		if err := l.awaitOpen(ctx); err != nil {
			return err
		}
		r := l.rate.Reserve()
		if err := clock.Sleep(ctx, r.Delay()); err != nil {
			r.Cancel()
			return err
		}
		if reason, until := l.closed(); reason == "" && time.Until(until) <= 0 {
			return nil
		}
	}
}

// Status returns a snapshot of the limiter.
func (l *Limiter) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Status{
		PauseReason:   l.reason,
		PausedSince:   l.since,
		RatePerSecond: float64(l.rate.Limit()),
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
		return l.reason, time.Now().Add(uncheckedWait)
	}
	return l.reason, l.until
}

// awaitOpen blocks until the limiter is open.
func (l *Limiter) awaitOpen(ctx context.Context) error {
	for {
		l.mu.Lock()
		reason, left, changed, unchecked := l.reason, time.Until(l.until), l.changed, l.unchecked
		l.mu.Unlock()
		if reason == "" && left <= 0 && !unchecked {
			return ctx.Err()
		}
		var elapsed <-chan time.Time
		if reason == "" && !unchecked {
			elapsed = time.After(left)
		}
		select {
		case <-elapsed:
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// whileOpen returns a context that also ends when the limiter closes: who holds a
// lease must not wait until it opens again. The caller must call release.
func (l *Limiter) whileOpen(ctx context.Context) (open context.Context, release func()) {
	open, cancel := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() { // release waits for it
		defer close(watched)
		defer cancel()
		for open.Err() == nil {
			l.mu.Lock()
			closed, changed := l.reason != "" || time.Until(l.until) > 0, l.changed
			l.mu.Unlock()
			if closed {
				return
			}
			select {
			case <-changed:
			case <-open.Done():
			}
		}
	}()
	return open, func() { cancel(); <-watched }
}

// awaitPause blocks until the limiter is paused and returns the reason, or false
// if ctx ended first.
func (l *Limiter) awaitPause(ctx context.Context) (string, bool) {
	for {
		l.mu.Lock()
		reason, changed := l.reason, l.changed
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

// note adjusts the limiter to the result of a call.
func (l *Limiter) note(ctx context.Context, r result) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch r.outcome {
	case outcomeOK, outcomeNotFound, outcomeAccessDenied, outcomeTooLarge:
		l.grow()
	case outcomeRateLimited, outcomeServerError, outcomeNoAnswer:
		if r.status != 501 { // the dev server lacks this call; it is not overloaded
			l.shrink(ctx, r.outcome)
		}
		if until := time.Now().Add(r.retryAfter); r.retryAfter > 0 && until.After(l.until) {
			l.until = until
			l.announce()
		}
	case outcomeKeyRefused:
		if l.reason == "" {
			l.reason = fault.Of(r.err).Err.Error()
			l.since = time.Now()
			l.announce()
		}
	case outcomeForbidden, outcomeTruncated, outcomeInvalid, outcomeCancelled, outcomeHeld:
		// They say nothing about load.
	}
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

// shrink halves the rate, once for each burst of failures. l.mu is held.
func (l *Limiter) shrink(ctx context.Context, why outcome) {
	now, old := time.Now(), float64(l.rate.Limit())
	floor := min(minRate, l.ceiling)
	if now.Sub(l.shrunkAt) < shrinkEvery || old <= floor {
		return
	}
	l.shrunkAt, l.grownAt = now, now
	rps := max(old/2, floor)
	l.rate.SetLimit(rate.Limit(rps))
	l.log.WarnContext(ctx, "calls to Liveblocks slow down",
		slog.String("outcome", string(why)), slog.Float64("calls_per_second", rps))
}

// grow increases the rate by one step. l.mu is held.
func (l *Limiter) grow() {
	now, old := time.Now(), float64(l.rate.Limit())
	if old >= l.ceiling || now.Sub(l.grownAt) < growEvery {
		return
	}
	l.grownAt = now
	l.rate.SetLimit(rate.Limit(min(old+l.ceiling/growSteps, l.ceiling)))
}

package liveblocks

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
)

const (
	// minRate keeps a trickle of calls going, or nothing would ever find out
	// that Liveblocks has recovered.
	minRate = 0.5
	// shrinkEvery is how often the rate may be halved: one burst of refusals is
	// one piece of news.
	shrinkEvery = time.Second
	// growEvery and growSteps let the rate climb from the floor to the ceiling
	// in some 20 s of calls that were answered.
	growEvery = time.Second
	growSteps = 20
)

// Limiter says when calls may be made: not while the key is refused, not before
// the time that Liveblocks told us to wait for, and no faster than a rate that
// is halved when Liveblocks is overloaded and grows back while it answers.
//
// Its times are those of package time; only durations matter here.
type Limiter struct {
	ceiling float64
	rate    *rate.Limiter
	log     *slog.Logger
	// turn is held by the one caller of Wait that is next. The others have no
	// place in the limiter yet, so a change of rate concerns all of them.
	turn chan struct{}

	mu sync.Mutex
	// changed is closed and replaced when reason or until changes.
	changed  chan struct{}
	reason   string // why calls are paused, empty if they are not
	since    time.Time
	until    time.Time // calls are put off until then
	shrunkAt time.Time
	grownAt  time.Time
}

// Status is a snapshot of the limiter.
type Status struct {
	// PauseReason says why no calls are made; empty if they are.
	PauseReason string
	// PausedSince is when the pause began; zero without one.
	PausedSince time.Time
	// RatePerSecond is the rate at which calls are let through now.
	RatePerSecond float64
	// ThrottledUntil is when calls may go on that Liveblocks put off; zero if
	// it did not.
	ThrottledUntil time.Time
}

func newLimiter(ceiling float64, log *slog.Logger) *Limiter {
	// A tenth of a second's calls may go at once, so that the first calls after
	// a quiet spell do not wait for each other.
	burst := max(1, int(math.Ceil(ceiling/10)))
	return &Limiter{
		ceiling: ceiling,
		rate:    rate.NewLimiter(rate.Limit(ceiling), burst),
		log:     log,
		turn:    make(chan struct{}, 1),
		changed: make(chan struct{}),
	}
}

// Wait blocks until a call may be made, or ctx ends. Workers wait before they
// claim a task, so that no lease runs down meanwhile.
func (c *Client) Wait(ctx context.Context) error { return c.limiter.Wait(ctx) }

// UntilPaused returns a context that also ends when the key is found refused, with
// a fault of reason PROJECT_PAUSED as its cause: a pause lasts until somebody mends
// the key, and nobody should be kept waiting for that. release must be called.
func (c *Client) UntilPaused(ctx context.Context) (pausable context.Context, release func()) {
	pausable, cancel := context.WithCancelCause(ctx)
	paused := fault.New(fault.Unavailable, fault.ReasonProjectPaused,
		"nothing is fetched, because Liveblocks refuses the project's key")
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

// Status tells where the limiter stands.
func (c *Client) Status() Status { return c.limiter.Status() }

// Run probes Liveblocks while the key is refused and opens the limiter again when
// it is accepted. It alone ends a pause. When ctx ends, it closes the idle
// connections and returns nil.
func (c *Client) Run(ctx context.Context) error {
	defer c.Close()
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
		c.cfg.Logger.InfoContext(ctx, "fetching goes on: Liveblocks accepts the secret key")
		c.cfg.OnPause("")
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

// Status tells where the limiter stands.
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

// closed returns why calls are paused, empty if they are not, and until when
// they are put off.
func (l *Limiter) closed() (reason string, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reason, l.until
}

// awaitOpen blocks until the limiter is neither paused nor put off.
func (l *Limiter) awaitOpen(ctx context.Context) error {
	for {
		l.mu.Lock()
		reason, left, changed := l.reason, time.Until(l.until), l.changed
		l.mu.Unlock()
		if reason == "" && left <= 0 {
			return ctx.Err()
		}
		var elapsed <-chan time.Time
		if reason == "" {
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

// note draws the conclusions from a call.
func (l *Limiter) note(ctx context.Context, r result) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch r.outcome {
	case outcomeOK, outcomeNotFound, outcomeAccessDenied, outcomeTooLarge:
		l.grow()
	case outcomeRateLimited, outcomeServerError, outcomeNoAnswer:
		if r.status != 501 { // a call the dev server does not have, not overload
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
		// They tell nothing about load.
	}
}

// resume ends a pause.
func (l *Limiter) resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reason, l.since = "", time.Time{}
	l.announce()
}

// announce wakes whoever waits for the limiter to change. l.mu is held.
func (l *Limiter) announce() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// shrink halves the rate, once for each burst of trouble. l.mu is held.
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

// grow raises the rate by one step. l.mu is held.
func (l *Limiter) grow() {
	now, old := time.Now(), float64(l.rate.Limit())
	if old >= l.ceiling || now.Sub(l.grownAt) < growEvery {
		return
	}
	l.grownAt = now
	l.rate.SetLimit(rate.Limit(min(old+l.ceiling/growSteps, l.ceiling)))
}

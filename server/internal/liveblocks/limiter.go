package liveblocks

import (
	"context"
	"log/slog"
	"maps"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"

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
	lim     *rate.Limiter
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
	calls    map[Outcome]int64
}

// Status is a snapshot of the limiter and of the calls so far.
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
	// Calls counts the calls by outcome.
	Calls map[Outcome]int64
}

func newLimiter(ceiling float64, log *slog.Logger) *Limiter {
	// A tenth of a second's calls may go at once, so that the first calls after
	// a quiet spell do not wait for each other.
	burst := max(1, int(math.Ceil(ceiling/10)))
	return &Limiter{
		ceiling: ceiling,
		lim:     rate.NewLimiter(rate.Limit(ceiling), burst),
		log:     log,
		turn:    make(chan struct{}, 1),
		changed: make(chan struct{}),
		calls:   make(map[Outcome]int64),
	}
}

// Wait blocks until a call may be made, or ctx ends. Workers wait before they
// claim a task, so that no lease runs down meanwhile.
func (c *Client) Wait(ctx context.Context) error { return c.limiter.Wait(ctx) }

// Status tells where the limiter stands.
func (c *Client) Status() Status { return c.limiter.Status() }

// Run probes Liveblocks while the key is refused and opens the limiter again when
// it is accepted. It alone ends a pause. It returns nil when ctx ends.
func (c *Client) Run(ctx context.Context) error {
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
		c.cfg.OnResume()
	}
}

// probe pings at growing intervals until the key is accepted, and reports false
// if ctx ended first.
func (c *Client) probe(ctx context.Context) bool {
	for wait := c.cfg.ProbeMin; ; wait = min(2*wait, c.cfg.ProbeMax) {
		if sleep(ctx, wait) != nil {
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
			if sleep(ctx, told-wait) != nil {
				return false
			}
		}
	}
}

// Wait blocks until a call may be made, or ctx ends.
func (g *Limiter) Wait(ctx context.Context) error {
	select {
	case g.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-g.turn }()
	for {
		if err := g.awaitOpen(ctx); err != nil {
			return err
		}
		r := g.lim.Reserve()
		if err := sleep(ctx, r.Delay()); err != nil {
			r.Cancel()
			return err
		}
		if reason, until := g.closed(); reason == "" && time.Until(until) <= 0 {
			return nil
		}
	}
}

// Status tells where the limiter stands.
func (g *Limiter) Status() Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := Status{
		PauseReason:   g.reason,
		PausedSince:   g.since,
		RatePerSecond: float64(g.lim.Limit()),
		Calls:         maps.Clone(g.calls),
	}
	if time.Until(g.until) > 0 {
		s.ThrottledUntil = g.until
	}
	return s
}

// closed returns why calls are paused, empty if they are not, and until when
// they are put off.
func (g *Limiter) closed() (reason string, until time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reason, g.until
}

// awaitOpen blocks until the limiter is neither paused nor put off.
func (g *Limiter) awaitOpen(ctx context.Context) error {
	for {
		g.mu.Lock()
		reason, left, changed := g.reason, time.Until(g.until), g.changed
		g.mu.Unlock()
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
func (g *Limiter) awaitPause(ctx context.Context) (string, bool) {
	for {
		g.mu.Lock()
		reason, changed := g.reason, g.changed
		g.mu.Unlock()
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

// note counts a call and draws the conclusions.
func (g *Limiter) note(ctx context.Context, v verdict) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls[v.outcome]++
	switch v.outcome {
	case OutcomeOK, OutcomeNotFound, OutcomeAccessDenied, OutcomeTooLarge:
		g.grow()
	case OutcomeRateLimited, OutcomeServerError, OutcomeNoAnswer:
		if v.status != 501 { // a call the dev server does not have, not overload
			g.shrink(ctx, v.outcome)
		}
		if until := time.Now().Add(v.retryAfter); v.retryAfter > 0 && until.After(g.until) {
			g.until = until
			g.announce()
		}
	case OutcomeKeyRefused:
		if g.reason == "" {
			g.reason = fault.Of(v.err).Err.Error()
			g.since = time.Now()
			g.announce()
		}
	case OutcomeForbidden, OutcomeTruncated, OutcomeInvalid, OutcomeCancelled, OutcomeHeld:
		// They tell nothing about load.
	}
}

// resume ends a pause.
func (g *Limiter) resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reason, g.since = "", time.Time{}
	g.announce()
}

// announce wakes whoever waits for the limiter to change. g.mu is held.
func (g *Limiter) announce() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// shrink halves the rate, once for each burst of trouble. g.mu is held.
func (g *Limiter) shrink(ctx context.Context, why Outcome) {
	now, old := time.Now(), float64(g.lim.Limit())
	floor := min(minRate, g.ceiling)
	if now.Sub(g.shrunkAt) < shrinkEvery || old <= floor {
		return
	}
	g.shrunkAt, g.grownAt = now, now
	rps := max(old/2, floor)
	g.lim.SetLimit(rate.Limit(rps))
	g.log.WarnContext(ctx, "calls to Liveblocks slow down",
		slog.String("outcome", string(why)), slog.Float64("calls_per_second", rps))
}

// grow raises the rate by one step. g.mu is held.
func (g *Limiter) grow() {
	now, old := time.Now(), float64(g.lim.Limit())
	if old >= g.ceiling || now.Sub(g.grownAt) < growEvery {
		return
	}
	g.grownAt = now
	g.lim.SetLimit(rate.Limit(min(old+g.ceiling/growSteps, g.ceiling)))
}

// sleep waits for d, or returns ctx's error if it ends first.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

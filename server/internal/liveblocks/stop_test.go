package liveblocks

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// order is what an operator has ordered, as the database has it.
type order struct {
	reason atomic.Value
	looks  atomic.Int64
	away   atomic.Bool
}

func (o *order) stopped(context.Context) (string, time.Time, error) {
	o.looks.Add(1)
	if o.away.Load() {
		return "", time.Time{}, errors.New("the database is away")
	}
	reason, _ := o.reason.Load().(string)
	return reason, time.Now().Add(-time.Hour), nil
}

func TestOperatorStopsCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var o order
		upstream, c := newBubble(t, func(cfg *Config) { cfg.Stopped = o.stopped })
		pass := func(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // of the bubble
		work(t, c, 100)
		if n := o.looks.Load(); n != 1 {
			t.Fatalf("100 calls looked %d times; want once", n)
		}
		pass(time.Hour)
		if n := o.looks.Load(); n != 1 {
			t.Fatalf("%d looks while nothing was called; want none", n-1)
		}

		// This replica is told at once. What waits goes on when it is told to.
		waits := func() chan error {
			done := make(chan error, 1)
			go func() { done <- c.Wait(t.Context()) }() // the test receives what it sends
			synctest.Wait()
			return done
		}
		o.reason.Store("by an operator: move")
		if err := c.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := upstream.Calls("", "")
		_, err := c.Storage(t.Context(), "r")
		f := asFault(t, err, fault.Busy, fault.ReasonProjectPaused)
		if !strings.Contains(f.Public, "by an operator: move") {
			t.Errorf("error = %v; want why", f)
		}
		paused, release := c.UntilPaused(t.Context())
		if !fault.Is(context.Cause(paused), fault.ReasonProjectPaused) {
			t.Errorf("UntilPaused = %v; want PROJECT_PAUSED", context.Cause(paused))
		}
		release()
		s := c.Status()
		if s.PauseReason != "by an operator: move" || time.Since(s.PausedSince) != time.Hour || !s.Stopped {
			t.Errorf("status = %+v; want the pause", s)
		}
		done := waits()
		select {
		case err := <-done:
			t.Fatalf("Wait = %v while calls are stopped", err)
		default:
		}
		o.reason.Store("")
		if err := c.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil || c.Status().PauseReason != "" {
			t.Fatalf("Wait = %v, status %+v; want it to go on", err, c.Status())
		}

		// Another replica has no other way than to look: within a minute.
		pass(lookEvery)
		o.reason.Store("by an operator: again")
		done = waits() // and looks
		begin := time.Now()
		pass(time.Second)
		o.reason.Store("")
		if err := <-done; err != nil || time.Since(begin) > lookEvery {
			t.Fatalf("Wait = %v after %v; want it to go on within a minute", err, time.Since(begin))
		}
		if n := upstream.Calls("", ""); n != before {
			t.Fatalf("%d calls were made while they were stopped", n-before)
		}

		// What is known counts while nothing can be found out.
		o.reason.Store("by an operator: outage")
		if err := c.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
		o.away.Store(true)
		pass(2 * lookEvery)
		if _, err := c.Storage(t.Context(), "r"); !fault.Is(err, fault.ReasonProjectPaused) {
			t.Errorf("call = %v; want that it is still stopped", err)
		}
		if err := c.Look(t.Context()); err == nil {
			t.Error("Look did not say that it cannot find out")
		}
	})
}

// A replica that has nothing to do hears that calls may go on from whoever would wait.
func TestIdleReplicaHearsOfTheEndOfAStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var o order
		_, c := newBubble(t, func(cfg *Config) { cfg.Stopped = o.stopped })
		o.reason.Store("by an operator: move")
		if err := c.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
		o.reason.Store("")
		time.Sleep(lookEvery) //nolint:forbidigo // of the bubble
		pausable, release := c.UntilPaused(t.Context())
		defer release()
		if err := context.Cause(pausable); err != nil {
			t.Errorf("UntilPaused = %v; want calls to go on", err)
		}
	})
}

// While an operator has stopped calls, not even the refused key is tried again.
func TestStopEndsProbes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var o order
		upstream, c := newBubble(t, func(cfg *Config) { cfg.Stopped = o.stopped })
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()
		upstream.Script(fake.Match{}, fake.Status(401, "MISSING_SECRET_KEY").Always())
		_, _ = c.Storage(t.Context(), "r") // refused, and then the key is probed
		o.reason.Store("by an operator: move")
		if err := c.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		before := upstream.Calls("", "")
		time.Sleep(time.Hour) //nolint:forbidigo // of the bubble
		if n := upstream.Calls("", ""); n != before {
			t.Errorf("%d calls were made while they were stopped", n-before)
		}
		o.reason.Store("")
		time.Sleep(time.Hour) //nolint:forbidigo // of the bubble
		if n := upstream.Calls("", ""); n == before {
			t.Error("the key is not tried again after the stop")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

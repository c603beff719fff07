package app

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
)

// healthBench is the health of a database that the test lets fail.
type healthBench struct {
	*testing.T

	health *storeHealth
	log    bytes.Buffer
	pings  atomic.Pointer[error] // nil if they are answered
}

func inHealth(t *testing.T, test func(b *healthBench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &healthBench{T: t}
		ping := func(context.Context) error {
			if err := b.pings.Load(); err != nil {
				return *err
			}
			return nil
		}
		b.health = newStoreHealth(ping, true, slog.New(slog.NewTextHandler(&b.log, nil)))
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- b.health.Run(ctx) }() // awaited below
		test(b)
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

// fails lets deliveries fail for a while, one a second.
func (b *healthBench) fails(n int, err error) {
	for range n {
		b.health.down(err)
		b.pass(time.Second)
		synctest.Wait()
	}
}

// pass lets time pass.
func (b *healthBench) pass(d time.Duration) {
	b.Helper()
	if err := clock.Sleep(b.Context(), d); err != nil {
		b.Fatal(err)
	}
}

func (b *healthBench) wantTold(text string, times int) {
	b.Helper()
	if n := strings.Count(b.log.String(), text); n != times {
		b.Fatalf("the log has %q %d times; want %d:\n%s", text, n, times, &b.log)
	}
}

// A full disk refuses writes and answers pings. That is told with its cause, and not
// again with every delivery; reads work, so the service stays ready.
func TestDatabaseThatCannotWrite(t *testing.T) {
	t.Parallel()
	inHealth(t, func(b *healthBench) {
		full := errors.New("could not extend file: No space left on device")
		b.fails(30, full)
		const told = "deliveries cannot be recorded"
		b.wantTold(told, 1)
		b.wantTold("No space left on device", 1)
		b.wantTold("is not available", 0)
		b.wantTold("again", 0)
		if !b.health.ok() {
			b.Fatal("not ready although the database answers")
		}
		b.fails(60, full)
		b.wantTold(told, 2)
		b.health.wrote(b.Context())
		b.health.wrote(b.Context())
		b.wantTold("deliveries are recorded again", 1)
		b.fails(1, full)
		b.wantTold(told, 3)
	})
}

// An outage is told with its cause, and its end, but once a minute if nothing is
// recorded in between.
func TestDatabaseThatIsAway(t *testing.T) {
	t.Parallel()
	inHealth(t, func(b *healthBench) {
		refused := errors.New("connection refused")
		b.pings.Store(&refused)
		b.fails(10, errors.New("server closed the connection"))
		if b.health.ok() || b.health.problem() != "the database is not available" {
			b.Fatalf("ready = %t, problem = %q during an outage", b.health.ok(), b.health.problem())
		}
		b.pings.Store(nil)
		b.pass(2 * pingEvery)
		synctest.Wait()
		b.wantTold(`error="server closed the connection"`, 1)
		b.wantTold("is not available", 1)
		b.wantTold("is available again", 1)
		if !b.health.ok() {
			b.Fatal("not ready after the outage")
		}
		for range 10 { // it comes and goes
			b.pings.Store(&refused)
			b.fails(1, errors.New("terminated"))
			b.pings.Store(nil)
			b.pass(2 * pingEvery)
		}
		b.wantTold("is not available", 1)
		b.wantTold("is available again", 1)
	})
}

package liveblocks

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// No call is made until the check lets the key be used: without a verdict it is made
// again, a problem pauses the project, and a hint makes it look again at once.
func TestNoCallBeforeTheKeyIsChecked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var pauses []string
		upstream, c := newBubble(t, func(cfg *Config) {
			cfg.ProbeMin, cfg.ProbeMax = time.Minute, time.Hour
			cfg.OnPause = func(reason string) { pauses = append(pauses, reason) }
		})
		type verdict struct {
			problem string
			err     error
		}
		var result atomic.Pointer[verdict]
		result.Store(&verdict{err: errors.New("no answer")})
		again := make(chan struct{}, 1)
		var checks atomic.Int64
		c.Hold(again, func(context.Context) (string, error) {
			checks.Add(1)
			v := result.Load()
			return v.problem, v.err
		})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }() // received below
		began := make(chan error, 1)
		go func() { began <- c.Wait(ctx) }() // received below

		time.Sleep(2 * time.Minute) //nolint:forbidigo // the bubble's clock, moved by hand
		synctest.Wait()
		if _, err := c.Room(t.Context(), "r"); fault.Of(err).Kind != fault.Busy || checks.Load() != 2 {
			t.Fatalf("call = %v after %d checks; want it put off after two", err, checks.Load())
		}
		if got := c.Status(); got.PauseReason != "" {
			t.Fatalf("Status = %+v; want no pause without a verdict", got)
		}
		result.Store(&verdict{problem: "that of another project"})
		time.Sleep(time.Hour) //nolint:forbidigo // the bubble's clock, moved by hand
		synctest.Wait()
		if got := c.Status(); got.PauseReason != "that of another project" || upstream.Calls("", fake.EndpointRoom) != 0 {
			t.Fatalf("Status = %+v; want a pause", got)
		}
		if _, err := c.Room(t.Context(), "r"); !fault.Is(err, fault.ReasonProjectPaused) {
			t.Fatalf("call = %v; want it refused by the pause", err)
		}
		select {
		case err := <-began:
			t.Fatalf("Wait = %v; want it to wait", err)
		default:
		}
		result.Store(&verdict{})
		begin := time.Now()
		again <- struct{}{}
		if err := <-began; err != nil || time.Since(begin) != 0 {
			t.Fatalf("Wait = %v after %v; want it at once", err, time.Since(begin))
		}
		synctest.Wait()
		if want := []string{"that of another project", ""}; !slices.Equal(pauses, want) {
			t.Fatalf("pauses = %q; want %q", pauses, want)
		}
		if _, err := c.Room(t.Context(), "r"); err != nil {
			t.Fatalf("call = %v; want it made", err)
		}
		stop()
		if err := <-done; err != nil {
			t.Fatalf("Run = %v", err)
		}
	})
}

package sqllist

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
)

// A read that ends because of its time says whose limit it was: that of the settings,
// which can be raised, or the caller's. It makes no difference whether this process or
// the server notices first.
func TestWhoseTimeLimit(t *testing.T) {
	t.Parallel()
	const ours = 10 * time.Second
	interrupted := errors.New("interrupted")
	for name, c := range map[string]struct {
		caller time.Duration // zero means no deadline
		server bool          // notices first
	}{
		"ours, this process":   {},
		"ours, the server":     {server: true},
		"ours is earlier":      {caller: 2 * ours, server: true},
		"caller, this process": {caller: ours / 2},
		"caller, the server":   {caller: ours / 2, server: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				run := func(ctx context.Context, _ string, _ []any, _ func(Row) error) error {
					if c.server {
						return interrupted
					}
					<-ctx.Done()
					return ctx.Err()
				}
				classify := func(_ context.Context, err error) error { return err }
				timedOut := func(err error) bool { return errors.Is(err, interrupted) }
				r := NewReader(Dialect{TimedOut: timedOut}, run, classify, nil, ours)
				ctx := t.Context()
				if c.caller > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.caller)
					defer cancel()
				}
				read := func(ctx context.Context) error { return r.read(ctx, "list rooms", &statement{}, nil) }
				for what, err := range map[string]error{"read": read(ctx), "several": r.within(ctx, "page", read)} {
					setting := fault.Of(err).Kind == fault.Unavailable
					caller := !setting && errors.Is(err, context.DeadlineExceeded)
					if c.caller > 0 && c.caller < ours != caller || setting == caller {
						t.Errorf("%s = %v (%q)", what, err, fault.Of(err).Public)
					}
				}
			})
		})
	}
}

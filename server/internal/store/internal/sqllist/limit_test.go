package sqllist

import (
	"context"
	"errors"
	"strings"
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
		none   bool          // there is no limit of ours
		want   string
	}{
		"ours, this process":   {want: "ours"},
		"ours, the server":     {server: true, want: "ours"},
		"ours is earlier":      {caller: 2 * ours, server: true, want: "ours"},
		"caller, this process": {caller: ours / 2, want: "the caller's"},
		"caller, the server":   {caller: ours / 2, server: true, want: "the caller's"},
		"caller alone":         {caller: ours, server: true, none: true, want: "the caller's"},
		"the server alone":     {server: true, none: true, want: "the server's"},
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
				outage := fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "the database is not available")
				classify := func(ctx context.Context, err error) error {
					if ctx.Err() == nil {
						return outage
					}
					return err
				}
				timedOut := func(err error) bool { return errors.Is(err, interrupted) }
				limit := ours
				if c.none {
					limit = 0
				}
				r := NewReader(Dialect{TimedOut: timedOut}, run, classify, nil, limit)
				read := func(ctx context.Context) error { return r.read(ctx, "list rooms", &statement{}, nil) }
				for what, call := range map[string]func(context.Context) error{
					"read":    read,
					"several": func(ctx context.Context) error { return r.within(ctx, "page", read) },
				} {
					ctx, cancel := t.Context(), context.CancelFunc(func() {})
					if c.caller > 0 {
						ctx, cancel = context.WithTimeout(ctx, c.caller)
					}
					err := call(ctx)
					cancel()
					got := "no known"
					switch f := fault.Of(err); {
					case errors.Is(err, outage):
						got = "the server's"
					case f.Kind == fault.Unavailable && strings.Contains(f.Public, "MIRROR_READ_TIMEOUT"):
						got = "ours"
					case errors.Is(err, context.DeadlineExceeded):
						got = "the caller's"
					}
					if got != c.want {
						t.Errorf("%s = %v; want it to be %s limit", what, err, c.want)
					}
				}
			})
		})
	}
}

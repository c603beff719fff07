package liveblocks

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// A kind that the server does not have is asked for once, by whatever call, and told
// once. After a while one call finds out whether it has it by now.
func TestUnsupportedKindIsAskedForOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		upstream, c := newBubble(t, func(cfg *Config) { cfg.Logger = slog.New(slog.NewTextHandler(&logged, nil)) })
		upstream.Script(fake.Match{Endpoint: fake.EndpointThreads}, fake.Status(501, "Not implemented").Always())
		later := func() {
			if err := clock.Sleep(t.Context(), askAgain); err != nil {
				t.Fatal(err)
			}
		}
		threads := func() error {
			_, err := c.Threads(t.Context(), "r")
			return err
		}
		want := func(calls int, unsupported ...mirror.Kind) {
			t.Helper()
			if n := upstream.Calls("", fake.EndpointThreads); n != calls {
				t.Fatalf("lists of threads asked for = %d; want %d", n, calls)
			}
			if got := c.Unsupported(); !slices.Equal(got, unsupported) {
				t.Fatalf("Unsupported = %v; want %v", got, unsupported)
			}
		}
		for range 5 {
			if err := threads(); !fault.Is(err, fault.ReasonUpstreamUnsupported) || fault.Of(err).Meta["status"] != "501" {
				t.Fatalf("Threads = %v; want UPSTREAM_UNSUPPORTED with status 501", err)
			}
		}
		if _, err := c.Thread(t.Context(), "r", "th_1"); !fault.Is(err, fault.ReasonUpstreamUnsupported) {
			t.Fatalf("Thread = %v; want UPSTREAM_UNSUPPORTED", err)
		}
		want(1, mirror.KindThread)
		if _, err := c.Storage(t.Context(), "r"); err != nil {
			t.Fatalf("Storage = %v; want it as before", err)
		}
		later()
		for range 3 {
			_ = threads()
		}
		want(2, mirror.KindThread)
		if n := strings.Count(logged.String(), "does not have resources of this kind"); n != 1 {
			t.Fatalf("told %d times; want once: %s", n, &logged)
		}
		upstream.ClearScripts()
		later()
		for range 3 {
			if err := threads(); err != nil {
				t.Fatalf("Threads = %v once the server has them", err)
			}
		}
		want(5)
		if n := strings.Count(logged.String(), "has resources of this kind now"); n != 1 {
			t.Fatalf("told %d times that it has them; want once: %s", n, &logged)
		}
		wantRate(t, c, 50)
	})
}

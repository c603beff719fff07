package traces

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/tracing"
)

// start starts sending to a collector that answers with h.
func start(t *testing.T, log *slog.Logger, h http.HandlerFunc) *Traces {
	t.Helper()
	collector := httptest.NewServer(h)
	t.Cleanup(collector.Close)
	cfg := config.Defaults().Traces
	cfg.OTLPEndpoint = collector.URL
	traces, err := Start(t.Context(), cfg, "test", log)
	if err != nil {
		t.Fatal(err)
	}
	return traces
}

// lines is a log that may be written at any time.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// span makes one span.
func span(t *testing.T, tracer *tracing.Tracer) {
	t.Helper()
	_, s := tracer.Follow(t.Context(), "a span", nil)
	s.End(nil)
}

// The exporter prints no variable that it cannot read: a credential is in it. Its log is
// the process's, so the test starts one.
func TestExporterPrintsNoHeaders(t *testing.T) {
	t.Parallel()
	const child = "MIRROR_TEST_EXPORTER"
	if os.Getenv(child) != "" {
		start(t, slog.New(slog.DiscardHandler), func(http.ResponseWriter, *http.Request) {}).Discard(t.Context())
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestExporterPrintsNoHeaders$")
	cmd.Env = append(os.Environ(), child+"=1", "OTEL_EXPORTER_OTLP_TRACES_HEADERS=HIDDEN",
		"OTEL_EXPORTER_OTLP_HEADERS=HIDDEN")
	if out, err := cmd.CombinedOutput(); err != nil || bytes.Contains(out, []byte("HIDDEN")) {
		t.Errorf("%v; it prints %s", err, out)
	}
}

// The log says what failed, in a line of bounded length, and not what the collector answers.
func TestAnswersOfTheCollectorAreNotLogged(t *testing.T) {
	t.Parallel()
	traces := start(t, slog.New(slog.DiscardHandler), func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write(bytes.Repeat([]byte("HIDDEN"), 1<<16))
	})
	for _, c := range []struct{ text, want string }{
		{"failed to send to http://h: 403 Forbidden (body: HIDDEN)", "failed to send to http://h: 403 Forbidden"},
		{"retry-able request failure: body: HIDDEN", "retry-able request failure"},
		{"OTLP partial success: HIDDEN (7 spans rejected) (3 spans rejected)", "OTLP partial success: (3 spans rejected)"},
		{strings.Repeat("x", 1<<20), strings.Repeat("x", maxText) + "..."},
	} {
		if got := text(errors.New(c.text)); got != c.want {
			t.Errorf("text(%.80q) = %q; want %q", c.text, got, c.want)
		}
	}
	span(t, traces.Tracer())
	err := traces.provider.ForceFlush(t.Context())
	if err == nil {
		t.Fatal("the collector refuses the span, and there is no error")
	}
	var out bytes.Buffer
	(&reporter{ctx: t.Context(), log: slog.New(slog.NewTextHandler(&out, nil)), now: time.Now}).Handle(err)
	traces.Discard(t.Context())
	got := out.String()
	if !strings.Contains(got, "403 Forbidden") || strings.Contains(got, "HIDDEN") || len(got) > 4*maxText {
		t.Errorf("the log is %.2000s", got)
	}
}

// A collector that hangs takes half of what is left of the time to stop, and never more than
// a few seconds.
func TestStopDoesNotWaitForTheCollector(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	traces := start(t, slog.New(slog.DiscardHandler), func(http.ResponseWriter, *http.Request) { <-release })
	t.Cleanup(func() { close(release) }) // before the collector is closed
	span(t, traces.Tracer())
	// The exporter gives up by itself after ten seconds, which would be too late.
	ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
	defer cancel()
	traces.Stop(ctx) // the collector answers only after Stop
	if err := ctx.Err(); err != nil {
		t.Errorf("all of the time is used up: %v", err)
	}
	if got := patience(t.Context()); got != 5*time.Second {
		t.Errorf("without an end it waits %s; want 5s", got)
	}
	synctest.Test(t, func(t *testing.T) {
		for left, want := range map[time.Duration]time.Duration{time.Hour: 5 * time.Second, 2 * time.Second: time.Second} {
			ctx, cancel := context.WithTimeout(t.Context(), left)
			defer cancel()
			if got := patience(ctx); got != want {
				t.Errorf("of %s it waits %s; want %s", left, got, want)
			}
		}
	})
}

// After a start that failed nothing is left running, also if it failed because its time was
// over: the worker ends by sending what it has.
func TestDiscardEndsTheWorker(t *testing.T) {
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000") // milliseconds: only its end makes the worker send
	sent := make(chan struct{}, 10)
	traces := start(t, slog.New(slog.DiscardHandler), func(http.ResponseWriter, *http.Request) { sent <- struct{}{} })
	span(t, traces.Tracer())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	traces.Discard(ctx)
	select {
	case <-sent:
	case <-time.After(time.Minute): // Discard itself waits for a second
		t.Fatal("the worker has not ended")
	}
	(*Traces)(nil).Discard(ctx)
}

// What becomes of each span is counted. Those that find the queue full are told, once a
// minute.
func TestDroppedSpansAreCounted(t *testing.T) {
	t.Parallel()
	const made = 6000
	release := make(chan struct{})
	var log lines // errors of all exporters of the process come to the latest
	traces := start(t, slog.New(slog.NewTextHandler(&log, nil)), func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release: // until then, it hangs
		case <-r.Context().Done():
		}
	})
	for range made {
		span(t, traces.Tracer())
	}
	held := traces.Spans()
	// Some were taken from the queue to be sent.
	if n := held["dropped"]; n < made-2*2048 || n > made-2048 || held["sent"]+held["failed"] != 0 {
		t.Errorf("spans while the collector hangs = %v; want all dropped that the queue has no room for", held)
	}
	close(release)
	traces.Stop(t.Context())
	got := traces.Spans()
	if got["dropped"] != held["dropped"] || got["sent"] != made-got["dropped"] || got["failed"] != 0 {
		t.Errorf("spans = %v; want the others sent", got)
	}
	if n := strings.Count(log.String(), "spans are dropped"); n != 1 {
		t.Errorf("log = %s; want one line about it", log.String())
	}

	refused := start(t, slog.New(slog.DiscardHandler), func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
	})
	for range 3 {
		span(t, refused.Tracer())
	}
	refused.Stop(t.Context())
	if got := refused.Spans(); got["failed"] != 3 || got["sent"] != 0 {
		t.Errorf("spans that the collector refuses = %v; want 3 failed", got)
	}
	if got := (*Traces)(nil).Spans(); got != nil {
		t.Errorf("spans without traces = %v; want none", got)
	}
}

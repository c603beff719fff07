// Package traces sends traces to a collector by OTLP. Only it knows OpenTelemetry's SDK.
package traces

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/tracing"
)

// Traces sends spans in the background.
type Traces struct {
	tracer   *tracing.Tracer
	provider *sdktrace.TracerProvider
	spans    *spans
	log      *slog.Logger
}

// Start starts sending; it returns nil if no collector is set. It does not wait for the
// collector, and nothing ever does: what the queue cannot hold is dropped.
func Start(ctx context.Context, cfg config.Traces, version string, log *slog.Logger) (*Traces, error) {
	endpoint := cfg.Endpoint()
	if endpoint == "" {
		return nil, nil //nolint:nilnil // off is no failure
	}
	headers, err := cfg.Headers()
	if err != nil {
		return nil, err
	}
	// The exporter reads its variables itself, and its own log would print those that it
	// cannot read, with the credentials in them.
	otel.SetLogger(logr.Discard())
	lasting := context.WithoutCancel(ctx)
	otel.SetErrorHandler(&reporter{ctx: lasting, log: log, now: time.Now})
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(endpoint), otlptracehttp.WithHeaders(headers))
	if err != nil {
		return nil, fmt.Errorf("send traces: %w", err)
	}
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithFromEnv(), resource.WithAttributes(
		attribute.String("service.name", cfg.ServiceName), attribute.String("service.version", version)))
	if err != nil {
		return nil, &config.Error{Setting: "OTEL_RESOURCE_ATTRIBUTES", Problem: fmt.Sprintf(
			"cannot be used: %v; it must look like deployment.environment.name=production,team=docs", err)}
	}
	sent := &spans{full: reporter{ctx: lasting, log: log, now: time.Now}}
	queue := sdktrace.NewBatchSpanProcessor(counting{exporter, sent})
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithSpanProcessor(bounded{queue, sent, queueSize()}), sdktrace.WithResource(about),
		sdktrace.WithSampler(followed{sampler(cfg)}),
	)
	log.InfoContext(ctx, "traces are on", slog.String("sampler", cfg.Sampler), slog.Bool("ids", cfg.TraceIDs))
	return &Traces{
		tracer:   &tracing.Tracer{Tracer: provider.Tracer(tracing.Name), IDs: cfg.TraceIDs},
		provider: provider, spans: sent, log: log,
	}, nil
}

// Spans returns how many spans were sent, could not be sent, and were dropped because too
// many waited; nil if t is.
func (t *Traces) Spans() map[string]int64 {
	if t == nil {
		return nil
	}
	return map[string]int64{
		"sent": t.spans.sent.Load(), "failed": t.spans.failed.Load(), "dropped": t.spans.dropped.Load(),
	}
}

// spans counts those that have ended and are traced, by what became of them.
type spans struct {
	waiting, sent, failed, dropped atomic.Int64
	full                           reporter
}

// queueSize is how many spans wait to be sent: the SDK has the same variable and default.
func queueSize() int64 {
	if n, err := strconv.ParseInt(os.Getenv("OTEL_BSP_MAX_QUEUE_SIZE"), 10, 32); err == nil && n > 0 {
		return n
	}
	return sdktrace.DefaultMaxQueueSize
}

// bounded hands spans to the queue of the SDK while it has room, and counts the others: the
// SDK would drop them without a sign.
type bounded struct {
	sdktrace.SpanProcessor

	spans *spans
	size  int64
}

// OnEnd is part of [sdktrace.SpanProcessor].
func (b bounded) OnEnd(s sdktrace.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	if b.spans.waiting.Add(1) <= b.size {
		b.SpanProcessor.OnEnd(s)
		return
	}
	b.spans.waiting.Add(-1)
	dropped := b.spans.dropped.Add(1)
	if full := &b.spans.full; full.due() {
		full.log.WarnContext(full.ctx, "spans are dropped, because they are not sent as fast as they are made",
			slog.Int64("dropped", dropped))
	}
}

// counting counts what leaves the queue.
type counting struct {
	sdktrace.SpanExporter

	spans *spans
}

// ExportSpans is part of [sdktrace.SpanExporter].
func (c counting) ExportSpans(ctx context.Context, list []sdktrace.ReadOnlySpan) error {
	n := int64(len(list))
	c.spans.waiting.Add(-n)
	err := c.SpanExporter.ExportSpans(ctx, list)
	if err != nil {
		c.spans.failed.Add(n)
	} else {
		c.spans.sent.Add(n)
	}
	return err
}

// Tracer returns the tracer for all parts of the service, nil if t is.
func (t *Traces) Tracer() *tracing.Tracer {
	if t == nil {
		return nil
	}
	return t.tracer
}

// Stop sends what is left, and says what it could not send. A collector that hangs gets
// little of the time until ctx ends: the database is still to be closed.
func (t *Traces) Stop(ctx context.Context) {
	within, cancel := context.WithTimeout(ctx, patience(ctx))
	defer cancel()
	if err := t.provider.Shutdown(within); err != nil {
		t.log.WarnContext(ctx, "the last traces were not delivered", slog.String("error", text(err)))
	}
}

// patience is how long the end of the service waits for the collector.
func patience(ctx context.Context) time.Duration {
	const most = 5 * time.Second
	if deadline, ok := ctx.Deadline(); ok {
		return min(most, time.Until(deadline)/2)
	}
	return most
}

// Discard stops after a start that failed; a nil t is none.
func (t *Traces) Discard(ctx context.Context) {
	if t == nil {
		return
	}
	// The start may have failed because ctx has ended, and then nothing would be shut down.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = t.provider.Shutdown(ctx) // the failure of the start is told
}

// sampler is that of the settings. What is within a span is as that: no span has a parent
// in another process.
func sampler(cfg config.Traces) sdktrace.Sampler {
	return sdktrace.ParentBased(map[string]sdktrace.Sampler{
		"always_on": sdktrace.AlwaysSample(), "always_off": sdktrace.NeverSample(),
		"traceidratio": sdktrace.TraceIDRatioBased(cfg.Share()),
	}[strings.TrimPrefix(cfg.Sampler, "parentbased_")])
}

// followed is a sampler that also takes what follows on something traced: the fetch after
// a delivery. Otherwise a part of all would be deliveries without fetches, and the reverse.
type followed struct{ sdktrace.Sampler }

// ShouldSample is part of [sdktrace.Sampler].
func (f followed) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	for _, l := range p.Links {
		if l.SpanContext.IsSampled() {
			return sdktrace.AlwaysSample().ShouldSample(p)
		}
	}
	return f.Sampler.ShouldSample(p)
}

// reporter tells of traces that are not delivered, once a minute: nothing else depends on
// them.
type reporter struct {
	ctx context.Context //nolint:containedctx // the interface has none
	log *slog.Logger
	now func() time.Time

	mu   sync.Mutex
	next time.Time
}

// Handle is part of [otel.ErrorHandler].
func (r *reporter) Handle(err error) {
	if r.due() {
		r.log.WarnContext(r.ctx, "traces are not delivered", slog.String("error", text(err)))
	}
}

// due reports whether a minute has passed since the last line.
func (r *reporter) due() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if now.Before(r.next) {
		return false
	}
	r.next = now.Add(time.Minute)
	return true
}

// maxText is the maximum size of an error in the log, in bytes.
const maxText = 300

var rejected = regexp.MustCompile(`\(\d+ spans rejected\)`)

// text is what the log says of an error of the exporter. The collector's answer, of up to
// 4 MiB, is left out: it may repeat what was sent, and can be anything.
func text(err error) string {
	s := err.Error()
	if before, _, ok := strings.Cut(s, "body: "); ok {
		s = strings.TrimRight(before, " (:")
	}
	const partial = "partial success: "
	if before, after, ok := strings.Cut(s, partial); ok {
		s = before + partial
		if counts := rejected.FindAllString(after, -1); len(counts) > 0 {
			s += counts[len(counts)-1] // what is before it is the collector's text
		}
	}
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "..."
	}
	return s
}

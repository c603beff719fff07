// Package tracing makes the spans of traces. Where nothing is traced it does nothing,
// allocates nothing and costs the look-up of a value in a context: the parts of the
// service need not know whether traces are on.
//
// A span holds names, numbers and codes. Texts of errors, statements, URLs and contents
// are never in one; ids are only where [Tracer.IDs] is set. Traces go to systems with
// other readers and other retention than the database, and an erasure does not reach them.
package tracing

import (
	"context"
	"log/slog"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// Tracer begins traces. A nil one begins none.
type Tracer struct {
	Tracer trace.Tracer
	// IDs lets spans hold the ids of rooms, of resources in them, and of events.
	IDs bool
}

// Span is a part of a trace. The zero Span does nothing.
type Span struct{ span trace.Span }

// MaxLinks is the maximum number of links of a span: a burst of deliveries ends in one
// fetch.
const MaxLinks = 16

// Begin begins a span within that of ctx; none if ctx has none.
func Begin(ctx context.Context, name string) (context.Context, Span) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, Span{}
	}
	return begin(ctx, tracerOf(parent), name, trace.WithSpanKind(trace.SpanKindInternal))
}

// BeginCall is Begin for a call to another system.
func BeginCall(ctx context.Context, name string) (context.Context, Span) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, Span{}
	}
	return begin(ctx, tracerOf(parent), name, trace.WithSpanKind(trace.SpanKindClient))
}

// Name is that of the instrumentation.
const Name = "github.com/liveblocks-mirror/liveblocks-mirror"

func tracerOf(span trace.Span) trace.Tracer { return span.TracerProvider().Tracer(Name) }

func begin(ctx context.Context, t trace.Tracer, name string, options ...trace.SpanStartOption) (context.Context, Span) {
	ctx, span := t.Start(ctx, name, options...) //nolint:spancheck // its caller ends it
	return ctx, Span{span}                      //nolint:spancheck // its caller ends it
}

// Follow begins a trace of its own for work that others asked for, and links it to their
// spans.
func (t *Tracer) Follow(ctx context.Context, name string, causes []mirror.Span) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	return begin(ctx, t.Tracer, name, trace.WithNewRoot(), trace.WithLinks(links(causes)...))
}

func links(causes []mirror.Span) []trace.Link {
	list := make([]trace.Link, len(causes))
	for i, c := range causes {
		list[i].SpanContext = trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: c.Trace, SpanID: c.ID, TraceFlags: trace.FlagsSampled,
		})
	}
	return list
}

// Join adds causes to a list, each once. Of more than MaxLinks the oldest are dropped: what
// somebody looks for is mostly the last delivery.
func Join(list []mirror.Span, causes ...mirror.Span) []mirror.Span {
	for _, c := range causes {
		switch {
		case c == (mirror.Span{}), slices.Contains(list, c):
		case len(list) >= MaxLinks:
			list = append(slices.Clone(list[1:]), c) // a copy: others may have the list
		default:
			list = append(list, c)
		}
	}
	return list
}

// Serve begins the span of a request. Within the process it continues the trace of ctx.
// What comes from outside begins a trace of its own, linked to that of the caller, whose
// headers get reads: nobody has shown a credential yet, and strangers must not decide what
// is traced.
func (t *Tracer) Serve(ctx context.Context, name string, get func(key string) string) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	options := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer)}
	if !trace.SpanContextFromContext(ctx).IsValid() {
		from := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(ctx, carrier(get)))
		if from.IsValid() {
			// Not as sampled: the link must not decide either. And without the caller's
			// state, which is free text.
			options = append(options, trace.WithLinks(trace.Link{SpanContext: trace.NewSpanContext(
				trace.SpanContextConfig{TraceID: from.TraceID(), SpanID: from.SpanID(), Remote: true},
			)}))
		}
	}
	return begin(ctx, t.Tracer, name, options...)
}

// carrier reads the headers of a request.
type carrier func(key string) string

func (c carrier) Get(key string) string { return c(key) }

func (carrier) Set(string, string) {} // nothing is sent

func (carrier) Keys() []string { return nil }

// Name adds the ids of a resource and of an event to the span of ctx, if ids are wanted.
func (t *Tracer) Name(ctx context.Context, r mirror.Resource, event string) {
	if t == nil || !t.IDs {
		return
	}
	span := Span{trace.SpanFromContext(ctx)}
	for _, id := range [...]struct{ key, value string }{
		{"mirror.room_id", string(r.Room)}, {"mirror.resource_id", r.ID}, {"mirror.event_id", event},
	} {
		if id.value != "" {
			span.Set(id.key, id.value)
		}
	}
}

// On reports whether something is traced.
func (s Span) On() bool { return s.span != nil }

// Set adds an attribute: a name or a code, never a text of somebody else's.
func (s Span) Set(key, value string) {
	if s.span != nil {
		s.span.SetAttributes(attribute.String(key, value))
	}
}

// Count adds a number.
func (s Span) Count(key string, value int) {
	if s.span != nil {
		s.span.SetAttributes(attribute.Int(key, value))
	}
}

// Fail says why the work of the span failed, in one word.
func (s Span) Fail(reason string) {
	if s.span != nil {
		s.span.SetStatus(codes.Error, reason)
	}
}

// End ends the span. Of an error it keeps the reason.
func (s Span) End(err error) {
	if s.span == nil {
		return
	}
	if err != nil {
		s.Fail(string(fault.Of(err).Reason))
	}
	s.span.End()
}

// From returns the span of ctx.
func From(ctx context.Context) Span {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		return Span{span}
	}
	return Span{}
}

// Ref returns what links to the span need; zero if it is not traced.
func (s Span) Ref() mirror.Span {
	if s.span == nil || !s.span.SpanContext().IsSampled() {
		return mirror.Span{}
	}
	c := s.span.SpanContext()
	return mirror.Span{Trace: c.TraceID(), ID: c.SpanID()}
}

// Together begins a span of work for several others: within the first of their spans, and
// linked with the rest both ways.
func Together(ctx context.Context, name string, spans []Span) (context.Context, Span) {
	spans = slices.DeleteFunc(spans, func(s Span) bool { return s.span == nil })
	if len(spans) == 0 {
		return ctx, Span{}
	}
	others := make([]mirror.Span, 0, min(len(spans)-1, MaxLinks))
	for _, s := range spans[1:min(len(spans), MaxLinks+1)] {
		others = Join(others, s.Ref())
	}
	ctx, all := begin(trace.ContextWithSpan(ctx, spans[0].span), tracerOf(spans[0].span), name,
		trace.WithLinks(links(others)...))
	for _, s := range spans[1:] {
		s.span.AddLink(trace.Link{SpanContext: all.span.SpanContext()})
	}
	return ctx, all
}

// Carry returns to with the span of from: for calls within the process.
func Carry(from, to context.Context) context.Context {
	// Also of one that is not traced: that has been decided.
	if span := trace.SpanFromContext(from); span.SpanContext().IsValid() {
		return trace.ContextWithSpan(to, span)
	}
	return to
}

// Without returns a context whose work is in no trace: what takes minutes makes too many
// spans for one.
func Without(ctx context.Context) context.Context {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return ctx
	}
	return trace.ContextWithSpan(ctx, nil)
}

// Logs returns a handler that adds the id of the trace to the lines of h.
func Logs(h slog.Handler) slog.Handler { return logs{h} }

type logs struct{ slog.Handler }

// Handle is part of [slog.Handler].
func (l logs) Handle(ctx context.Context, r slog.Record) error {
	if c := trace.SpanContextFromContext(ctx); c.IsSampled() && c.HasTraceID() {
		r = r.Clone()
		r.AddAttrs(slog.String("trace_id", c.TraceID().String()))
	}
	return l.Handler.Handle(ctx, r)
}

// WithAttrs is part of [slog.Handler].
func (l logs) WithAttrs(attrs []slog.Attr) slog.Handler { return logs{l.Handler.WithAttrs(attrs)} }

// WithGroup is part of [slog.Handler].
func (l logs) WithGroup(name string) slog.Handler { return logs{l.Handler.WithGroup(name)} }

package tracing_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/tracing"
)

// recorded returns a tracer, and what it has recorded by name.
func recorded(
	ids bool, options ...sdktrace.TracerProviderOption,
) (*tracing.Tracer, func() map[string]tracetest.SpanStub) {
	spans := tracetest.NewInMemoryExporter()
	p := sdktrace.NewTracerProvider(append(options, sdktrace.WithSyncer(spans))...)
	return &tracing.Tracer{Tracer: p.Tracer(tracing.Name), IDs: ids}, func() map[string]tracetest.SpanStub {
		byName := make(map[string]tracetest.SpanStub)
		for _, s := range spans.GetSpans() {
			byName[s.Name] = s
		}
		return byName
	}
}

func none(string) string { return "" }

type anyKey struct{}

// Where nothing is traced, nothing is allocated.
func TestOffCostsNothing(t *testing.T) { //nolint:paralleltest // it counts allocations
	ctx, failure := context.WithValue(t.Context(), anyKey{}, 1), errors.New("no")
	var off *tracing.Tracer
	if n := testing.AllocsPerRun(1000, func() {
		ctx, served := off.Serve(ctx, "call", none)
		ctx = tracing.Carry(ctx, ctx)
		off.Name(ctx, mirror.Resource{Room: "room"}, "event")
		ctx, followed := off.Follow(ctx, "fetch", nil)
		ctx, inner := tracing.Begin(ctx, "apply")
		ctx, call := tracing.BeginCall(tracing.Without(ctx), "get room")
		call.Set("key", "value")
		call.Count("key", 1)
		if tracing.From(ctx).On() || tracing.From(ctx).Ref() != (mirror.Span{}) || tracing.Join(nil, mirror.Span{}) != nil {
			t.Error("something is traced")
		}
		call.End(failure)
		inner.End(nil)
		followed.End(nil)
		served.End(nil)
	}); n != 0 {
		t.Errorf("%v allocations for each request; want none", n)
	}
}

// A trace keeps the reason of a failure and never its text, and ids only if they are wanted.
func TestNothingOfContentIsTraced(t *testing.T) {
	t.Parallel()
	for _, ids := range []bool{false, true} {
		tracer, spans := recorded(ids)
		ctx, outer := tracer.Serve(t.Context(), "call", none)
		tracer.Name(ctx, mirror.Resource{Room: "the room", ID: "the thread"}, "the event")
		_, inner := tracing.Begin(ctx, "apply")
		inner.End(fault.Wrap(errors.New("content of the room"), fault.Unavailable, fault.ReasonStoreUnavailable, "public"))
		_, other := tracing.Begin(ctx, "other")
		other.End(errors.New("more content"))
		outer.End(nil)
		got := spans()
		if s := got["apply"].Status.Description; s != "STORE_UNAVAILABLE" || len(got["apply"].Events) > 0 {
			t.Errorf("the failure is %q, with events %v", s, got["apply"].Events)
		}
		if s := got["other"].Status.Description; s != "INTERNAL" {
			t.Errorf("the other failure is %q", s)
		}
		named := attribute.NewSet(got["call"].Attributes...)
		room, ok := named.Value("mirror.room_id")
		if ok != ids || ok && (room.AsString() != "the room" || named.Len() != 3) {
			t.Errorf("with ids %t the attributes are %v", ids, got["call"].Attributes)
		}
	}
}

// No caller decides whether he is traced: each request begins a trace that is only linked to
// his, and a call within the process continues it.
func TestParentOfRequest(t *testing.T) {
	t.Parallel()
	const caller = "0af7651916cd43dd8448eb211c80319c"
	for flags, sampler := range map[string]sdktrace.Sampler{
		"00": sdktrace.AlwaysSample(), "01": sdktrace.NeverSample(), // what the caller asks for is the reverse
	} {
		tracer, spans := recorded(false, sdktrace.WithSampler(sdktrace.ParentBased(sampler)))
		header := http.Header{
			"Traceparent": {"00-" + caller + "-b7ad6b7169203331-" + flags}, "Tracestate": {"vendor=text"},
		}
		ctx, s := tracer.Serve(t.Context(), "call", header.Get)
		_, inner := tracer.Serve(tracing.Carry(ctx, t.Context()), "inner", header.Get)
		inner.End(nil)
		s.End(nil)
		got := spans()
		call, ok := got["call"]
		if ok != (flags == "00") {
			t.Errorf("with the flags %s the call is traced: %t", flags, ok)
		}
		if !ok {
			continue
		}
		if call.Parent.IsValid() || call.SpanContext.TraceID().String() == caller || len(call.Links) != 1 {
			t.Fatalf("the call has the parent %v and links %v; want none and one", call.Parent, call.Links)
		}
		if l := call.Links[0].SpanContext; l.TraceID().String() != caller || l.IsSampled() || l.TraceState().Len() > 0 {
			t.Errorf("the link is %v; want the caller's trace, neither sampled nor with state", l)
		}
		if got["inner"].Parent.SpanID() != call.SpanContext.SpanID() || len(got["inner"].Links) > 0 {
			t.Errorf("the call in the process has the parent %v; want the request", got["inner"].Parent)
		}
	}
}

// What was decided not to be traced is not traced further on within the process.
func TestNotTracedIsCarried(t *testing.T) {
	t.Parallel()
	tracer, spans := recorded(false, sdktrace.WithSampler(onlyNamed("inner")))
	ctx, s := tracer.Serve(t.Context(), "outer", none)
	_, inner := tracer.Serve(tracing.Carry(ctx, t.Context()), "inner of a trace", none)
	inner.End(nil)
	s.End(nil)
	if got := spans(); len(got) != 0 {
		t.Errorf("traced: %v", got)
	}
}

// onlyNamed samples roots of a name, and what belongs to them.
type onlyNamed string

func (o onlyNamed) Description() string { return string(o) }

func (o onlyNamed) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	return sdktrace.ParentBased(map[bool]sdktrace.Sampler{
		true: sdktrace.AlwaysSample(), false: sdktrace.NeverSample(),
	}[strings.HasPrefix(p.Name, string(o))]).ShouldSample(p)
}

// The span of a commit is in the trace of its first delivery, and linked with the others.
func TestTogether(t *testing.T) {
	t.Parallel()
	tracer, spans := recorded(false)
	var of []tracing.Span
	for _, name := range []string{"first", "second", "third"} {
		ctx, s := tracer.Serve(t.Context(), name, none)
		of = append(of, tracing.From(ctx))
		defer s.End(nil)
	}
	_, all := tracing.Together(t.Context(), "commit", append(of, tracing.Span{}))
	all.End(nil)
	for _, s := range of {
		s.End(nil)
	}
	got := spans()
	c := got["commit"]
	if c.Parent.SpanID() != got["first"].SpanContext.SpanID() || len(c.Links) != 2 ||
		c.Links[1].SpanContext.SpanID() != got["third"].SpanContext.SpanID() {
		t.Errorf("the commit has the parent %v and links %v", c.Parent, c.Links)
	}
	if l := got["second"].Links; len(l) != 1 || l[0].SpanContext.SpanID() != c.SpanContext.SpanID() {
		t.Errorf("the second delivery has the links %v; want the commit", l)
	}
	if ctx, none := tracing.Together(t.Context(), "commit", nil); none.On() || ctx != t.Context() {
		t.Error("a commit without traced deliveries is traced")
	}
}

// A burst of deliveries leaves a bounded number of links, to the last ones. Nothing changes in
// a list that somebody else has.
func TestJoin(t *testing.T) {
	t.Parallel()
	var list []mirror.Span
	var before []mirror.Span
	for i := range 100 {
		if i == tracing.MaxLinks {
			before = list
		}
		c := mirror.Span{ID: [8]byte{1, byte(i)}}
		list = tracing.Join(list, c, c, mirror.Span{})
	}
	if len(list) != tracing.MaxLinks || list[0].ID[1] != 100-tracing.MaxLinks || list[tracing.MaxLinks-1].ID[1] != 99 {
		t.Errorf("Join = %d spans %v; want the last %d, each once", len(list), list, tracing.MaxLinks)
	}
	if before[0].ID[1] != 0 {
		t.Errorf("another list begins with %v; want it as it was", before[0])
	}
}

// Lines of a trace have its id, others none.
func TestLogs(t *testing.T) {
	t.Parallel()
	tracer, _ := recorded(false)
	var out bytes.Buffer
	log := slog.New(tracing.Logs(slog.NewJSONHandler(&out, nil))).With(slog.String("project", "default"))
	ctx, s := tracer.Serve(t.Context(), "call", none)
	log.InfoContext(ctx, "in a trace")
	ref := tracing.From(ctx).Ref()
	s.End(nil)
	want := `"trace_id":"` + hex.EncodeToString(ref.Trace[:]) + `"`
	if !strings.Contains(out.String(), want) || !strings.Contains(out.String(), `"project":"default"`) {
		t.Errorf("the line is %s; want %s in it", out.String(), want)
	}
	out.Reset()
	log.InfoContext(t.Context(), "in none")
	if strings.Contains(out.String(), "trace_id") {
		t.Errorf("the line is %s", out.String())
	}
}

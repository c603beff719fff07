package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	otelcodes "go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/tracing"
)

// An attempt is linked to all deliveries since the last one, and a further attempt also to
// those of the one that failed.
func TestFetchesAreLinkedToTheirDeliveries(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		spans := tracetest.NewInMemoryExporter()
		provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
		delivery := func(n byte) mirror.Pending {
			return mirror.Pending{Resource: resource(0), Cause: mirror.Span{Trace: [16]byte{n}, ID: [8]byte{n}}}
		}
		var pool *Pool
		failed := false
		pool, _ = b.start(func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			if lease.Resource == resource(0) && !failed {
				failed = true
				pool.Push([]mirror.Pending{delivery(3)})
				return mirror.Applied{}, errors.New("no answer")
			}
			return b.tasks.apply(ctx, lease)
		}, func(c *Config) {
			c.Workers, c.Tracer = 1, &tracing.Tracer{Tracer: provider.Tracer("test")}
		})
		b.limiter.close()
		b.tasks.raise(time.Now(), resource(0), resource(1))
		pool.Push([]mirror.Pending{delivery(1)})
		pool.Push([]mirror.Pending{delivery(2), delivery(1), {Resource: resource(1)}})
		b.limiter.open()
		pass(time.Minute)
		b.wantDone(resource(0), resource(1))

		var got []string
		for _, s := range spans.GetSpans() {
			var to []byte
			for _, l := range s.Links {
				id := l.SpanContext.SpanID()
				to = append(to, id[0])
			}
			if result := s.Attributes[len(s.Attributes)-1]; s.Parent.IsValid() || result.Key != "mirror.result" {
				t.Errorf("the span has the parent %v and attributes %v", s.Parent, s.Attributes)
			} else {
				got = append(got, fmt.Sprintf("%s %s %v", s.Name, result.Value.AsString(), to))
			}
		}
		slices.Sort(got)
		want := []string{
			"fetch storage applied [3 1 2]", "fetch storage applied []", "fetch storage retried [1 2]",
		}
		// Pushed again before it may be tried again, a task cannot be claimed.
		got = slices.DeleteFunc(got, func(s string) bool { return strings.HasPrefix(s, "fetch storage not_claimed") })
		if !slices.Equal(got, want) {
			t.Errorf("attempts = %q; want %q", got, want)
		}
	})
}

// What has been applied is done with: the next fetch, for what another replica has recorded
// meanwhile, is not linked to it. One that only looks once more is for the same deliveries.
func TestLinksEndWithTheApply(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		settles bool
		want    []int // the links of each fetch
	}{
		"a further event": {false, []int{1, 0}},
		"a settle fetch":  {true, []int{1, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(b *bench) {
				spans := tracetest.NewInMemoryExporter()
				provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
				fetches := 0
				pool, _ := b.start(func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
					fetches++
					if fetches > 1 {
						return b.tasks.apply(ctx, lease)
					}
					if !c.settles {
						b.tasks.raise(time.Now(), lease.Resource)
						return b.tasks.apply(ctx, lease)
					}
					applied, err := b.tasks.apply(ctx, lease)
					b.settling(lease.Resource)
					applied.Due, applied.Settles = time.Now(), true
					return applied, err
				}, func(c *Config) { c.Tracer = &tracing.Tracer{Tracer: provider.Tracer("test")} })
				b.tasks.raise(time.Now(), resource(0))
				pool.Push([]mirror.Pending{{Resource: resource(0), Cause: mirror.Span{Trace: [16]byte{1}, ID: [8]byte{1}}}})
				pass(time.Minute)
				var got []int
				for _, s := range spans.GetSpans() {
					got = append(got, len(s.Links))
				}
				if !slices.Equal(got, c.want) {
					t.Errorf("the fetches have %v links; want %v", got, c.want)
				}
			})
		})
	}
}

// A claim that fails because the database is away is a failure in its trace; one of a task
// that somebody else has is none.
func TestFailedClaimsAreFailures(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		problem error
		want    otelcodes.Code
	}{
		"the database is away": {errors.New("no database"), otelcodes.Error},
		"not due":              {store.ErrNotDue, otelcodes.Unset},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(b *bench) {
				spans := tracetest.NewInMemoryExporter()
				provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
				pool, _ := b.start(func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
					return b.tasks.apply(ctx, lease)
				}, func(c *Config) { c.Tracer = &tracing.Tracer{Tracer: provider.Tracer("test")} })
				b.tasks.failing(func(call string) error {
					if call == "Claim" {
						return c.problem
					}
					return nil
				})
				b.tasks.raise(time.Now(), resource(0))
				pool.Push([]mirror.Pending{{Resource: resource(0)}})
				pass(time.Second)
				all := spans.GetSpans()
				if len(all) == 0 || all[0].Status.Code != c.want {
					t.Errorf("spans = %+v; want the status %v", all, c.want)
				}
			})
		})
	}
}

package app

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/tracing"
)

// Callers put no text of theirs into names, streams of hours have no span, and a request
// whose connection is cut off has failed.
func TestSpansOfRequests(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		method, path string
		handler      http.HandlerFunc
		want         string // the name and why it failed; empty if there is no span
	}{
		{"GET", "/v1/rooms/r", func(http.ResponseWriter, *http.Request) {}, "HTTP GET: "},
		{"SECRET", "/v1/rooms/r", func(http.ResponseWriter, *http.Request) {}, "HTTP _OTHER: "},
		{"SECRET", "/v1/webhooks/liveblocks", func(http.ResponseWriter, *http.Request) {}, "HTTP _OTHER webhook: "},
		{"GET", "/v1/changes:watch", func(http.ResponseWriter, *http.Request) {}, ""},
		{"GET", "/v1/changes%3Awatch", func(http.ResponseWriter, *http.Request) {}, ""},
		{"GET", "/healthz", func(http.ResponseWriter, *http.Request) {}, ""},
		{
			"GET", "/v1/rooms/r", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
			"HTTP GET: Bad Gateway",
		},
		{"GET", "/v1/rooms/r", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "HTTP GET: aborted"},
	} {
		spans := tracetest.NewInMemoryExporter()
		provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
		h := traced(&tracing.Tracer{Tracer: provider.Tracer("test")}, c.handler)
		func() {
			defer func() {
				if v := recover(); (v != nil) != (c.want == "HTTP GET: aborted") {
					t.Errorf("%s %s: the panic is %v", c.method, c.path, v)
				}
			}()
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), c.method, c.path, http.NoBody))
		}()
		got := ""
		for _, s := range spans.GetSpans() {
			got += fmt.Sprintf("%s: %s", s.Name, s.Status.Description)
		}
		if got != c.want {
			t.Errorf("%s %s: the span is %q; want %q", c.method, c.path, got, c.want)
		}
	}
}

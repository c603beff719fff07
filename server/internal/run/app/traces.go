package app

import (
	"net/http"
	"strings"

	"github.com/liveblocks-mirror/liveblocks-mirror/gateway"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/rest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/tracing"
)

// traced gives requests over HTTP a span, if anything is traced.
func (a *App) traced(h http.Handler) http.Handler {
	if tracer := a.traces.Tracer(); tracer != nil {
		return traced(tracer, h)
	}
	return h
}

// traced gives webhooks and calls of the API that arrive over HTTP a span; its name has no
// path, which holds ids. Probes and scrapes have none, nor has who follows the changes, which
// takes hours.
func traced(tracer *tracing.Tracer, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := "HTTP " + method(r.Method)
		switch {
		case gateway.IsWebhook(r.URL.EscapedPath()):
			name += " webhook"
		case !strings.HasPrefix(r.URL.Path, "/v1/") && !strings.HasPrefix(r.URL.Path, rest.Prefix),
			r.URL.Path == "/v1/changes:watch":
			h.ServeHTTP(w, r)
			return
		}
		ctx, span := tracer.Serve(r.Context(), name, r.Header.Get)
		answer := &answered{ResponseWriter: w, status: http.StatusOK}
		ended := false
		// Also if the handler panics to cut the connection off: the server recovers from that.
		defer func() {
			span.Count("http.response.status_code", answer.status)
			switch {
			case !ended:
				span.Fail("aborted")
			case answer.status >= http.StatusInternalServerError:
				span.Fail(http.StatusText(answer.status))
			}
			span.End(nil)
		}()
		h.ServeHTTP(answer, r.WithContext(ctx))
		ended = true
	})
}

// method is that of a request in the name of a span: callers may send any text, and names
// are few.
func method(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodOptions:
		return m
	}
	return "_OTHER"
}

// answered remembers the status of an answer.
type answered struct {
	http.ResponseWriter

	status int
}

// WriteHeader sends the header.
func (a *answered) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

// Unwrap gives an [http.ResponseController] access to the connection.
func (a *answered) Unwrap() http.ResponseWriter { return a.ResponseWriter }

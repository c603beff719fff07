package app

import (
	"net/http"
	"strings"

	"github.com/liveblocks-mirror/liveblocks-mirror/gateway"
)

// traced gives webhooks and calls of the API that arrive over HTTP a span; its name has no
// path, which holds ids. Probes and scrapes have none.
func (a *App) traced(h http.Handler) http.Handler {
	tracer := a.traces.Tracer()
	if tracer == nil {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := "HTTP " + r.Method
		switch {
		case gateway.IsWebhook(r.URL.EscapedPath()):
			name += " webhook"
		case !strings.HasPrefix(r.URL.Path, "/v1/"):
			h.ServeHTTP(w, r)
			return
		}
		ctx, span := tracer.Serve(r.Context(), name, r.Header.Get)
		answer := &answered{ResponseWriter: w, status: http.StatusOK}
		// Also if the handler panics to cut the connection off.
		defer func() {
			span.Count("http.response.status_code", answer.status)
			if answer.status >= http.StatusInternalServerError {
				span.Fail(http.StatusText(answer.status))
			}
			span.End(nil)
		}()
		h.ServeHTTP(answer, r.WithContext(ctx))
	})
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

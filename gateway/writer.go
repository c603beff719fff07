package gateway

import (
	"net/http"
	"time"
)

// writer sets a deadline on every write. A client that does not read its response
// must not block the handler forever, nor net/http, which flushes its buffers after
// the handler has returned. For that flush the last deadline stays; net/http
// removes it when the response is sent.
type writer struct {
	http.ResponseWriter

	control *http.ResponseController
	stall   time.Duration
}

func newWriter(w http.ResponseWriter, stall time.Duration) *writer {
	return &writer{ResponseWriter: w, control: http.NewResponseController(w), stall: stall}
}

// Unwrap gives an [http.ResponseController] access to the connection.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader sends the header.
func (w *writer) WriteHeader(httpCode int) {
	w.extend()
	w.ResponseWriter.WriteHeader(httpCode)
}

// Write sends a part of the response.
func (w *writer) Write(p []byte) (int, error) {
	w.extend()
	return w.ResponseWriter.Write(p)
}

// extend moves the deadline. Without deadlines in the ResponseWriter no client can
// stall, so ignore the error.
func (w *writer) extend() {
	_ = w.control.SetWriteDeadline(time.Now().Add(w.stall))
}

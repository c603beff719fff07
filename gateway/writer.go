package gateway

import (
	"net/http"
	"time"
)

// writer gives every write a deadline: a client that takes nothing of its answer
// must not hold the handler for ever, nor net/http, which sends what it has
// buffered once the handler has returned. For that last part the deadline stays
// when the answer is written; net/http lifts it when the answer is out.
type writer struct {
	http.ResponseWriter

	control *http.ResponseController
	stall   time.Duration
}

func newWriter(w http.ResponseWriter, stall time.Duration) *writer {
	return &writer{ResponseWriter: w, control: http.NewResponseController(w), stall: stall}
}

// Unwrap lets a [http.ResponseController] see the connection.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader sends the header fields.
func (w *writer) WriteHeader(httpCode int) {
	w.extend()
	w.ResponseWriter.WriteHeader(httpCode)
}

// Write sends a part of the answer.
func (w *writer) Write(p []byte) (int, error) {
	w.extend()
	return w.ResponseWriter.Write(p)
}

// extend moves the deadline. Not every ResponseWriter has one; where there is
// none, no client can stall.
func (w *writer) extend() {
	_ = w.control.SetWriteDeadline(time.Now().Add(w.stall))
}

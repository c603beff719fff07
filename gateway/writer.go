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

// maxWrite is the most that is written with one deadline: a client on a slow link that reads
// all the time is not stalled.
const maxWrite = 256 << 10

// Write sends a part of the response.
func (w *writer) Write(p []byte) (n int, err error) {
	for {
		w.extend()
		m, err := w.ResponseWriter.Write(p[n:min(n+maxWrite, len(p))])
		if n += m; err != nil || n == len(p) {
			return n, err
		}
	}
}

// extend moves the deadline. Without deadlines in the ResponseWriter no client can
// stall, so ignore the error.
func (w *writer) extend() {
	_ = w.control.SetWriteDeadline(time.Now().Add(w.stall))
}

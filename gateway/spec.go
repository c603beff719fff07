package gateway

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strings"
)

// spec is the OpenAPI description, also compressed: it is long, and most of it comes
// again and again.
type spec struct{ plain, packed []byte }

func newSpec(plain []byte) (spec, error) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(plain); err != nil {
		return spec{}, err
	}
	err := w.Close()
	return spec{plain: plain, packed: packed.Bytes()}, err
}

// send responds with the description.
func (s spec) send(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Vary", "Accept-Encoding")
	for _, encoding := range strings.Split(strings.Join(r.Header["Accept-Encoding"], ","), ",") {
		if strings.TrimSpace(encoding) == "gzip" { // clients that weigh encodings can do without
			h.Set("Content-Encoding", "gzip")
			writeJSON(w, http.StatusOK, s.packed)
			return
		}
	}
	writeJSON(w, http.StatusOK, s.plain)
}

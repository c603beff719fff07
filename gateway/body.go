package gateway

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// readBody reads the whole body of r, or returns what is wrong with it. The caller
// owns the bytes: they are not pooled, because the service may keep them.
func (g *Gateway) readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, *problem) {
	if r.ContentLength == 0 {
		return nil, nil
	}
	if r.ContentLength > limit {
		w.Header().Set("Connection", "close") // do not read the rest
		return nil, &payloadTooLarge
	}
	// This limits the body only: net/http removes the deadline once the body has
	// been read. Not every ResponseWriter supports deadlines, so ignore the error.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(g.bodyTimeout))
	held := g.budget.open()
	defer held.close()
	data, err := held.readAll(r.Body, r.ContentLength, limit)
	switch {
	case err == nil:
		return data, nil
	case errors.Is(err, errTooMany):
		w.Header().Set("Connection", "close")
		return nil, &bodiesTooMany
	case errors.Is(err, errTooLarge):
		w.Header().Set("Connection", "close")
		return nil, &payloadTooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.Header().Set("Connection", "close")
		return nil, &bodyTooSlow
	default:
		w.Header().Set("Connection", "close")
		return nil, &bodyBroken
	}
}

var (
	errTooLarge = errors.New("too large")
	errTooMany  = errors.New("too many at once")
)

// budget is the memory still available for bodies that are arriving.
type budget struct{ left atomic.Int64 }

func (b *budget) open() share { return share{budget: b} }

// share is the part of the budget that one body uses.
type share struct {
	budget *budget
	taken  int64
}

func (s *share) take(n int64) bool {
	if s.budget.left.Add(-n) < 0 {
		s.budget.left.Add(n)
		return false
	}
	s.taken += n
	return true
}

// close returns the share.
func (s *share) close() {
	if s.taken > 0 {
		s.budget.left.Add(s.taken)
	}
}

// freeBody is the part of a body that does not count against the budget. net/http
// buffers as much for each connection, and nearly every event is smaller.
const freeBody = 4 << 10

// readAll reads r to its end. It reserves memory and budget as bytes arrive, not as
// announced: to exhaust the budget, a client must send half as many bytes.
func (s *share) readAll(r io.Reader, size, limit int64) ([]byte, error) {
	// One more byte, so EOF is seen without growing.
	most := limit + 1
	if size >= 0 {
		most = size + 1
	}
	data := make([]byte, 0, min(most, freeBody))
	for {
		n, err := r.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		switch {
		case int64(len(data)) == most:
			return nil, errTooLarge
		case errors.Is(err, io.EOF):
			return data, nil
		case err != nil:
			return nil, err
		}
		if len(data) < cap(data) {
			continue
		}
		grown := min(2*int64(cap(data)), most)
		if !s.take(grown - int64(cap(data))) {
			return nil, errTooMany
		}
		data = append(make([]byte, 0, grown), data...)
	}
}

// body is a request body in memory. The decoder uses its bytes without copying.
type body struct {
	data []byte
	off  int
}

// Read reads the remaining bytes.
func (b *body) Read(p []byte) (int, error) {
	if b.off == len(b.data) {
		return 0, io.EOF
	}
	n := copy(p, b.data[b.off:])
	b.off += n
	return n, nil
}

// Close does nothing.
func (*body) Close() error { return nil }

// take returns the remaining bytes and empties the body.
func (b *body) take() []byte {
	b.off = len(b.data)
	return b.data
}

// marshaler uses proto3 JSON, except that it decodes a body into a
// google.api.HttpBody as raw bytes.
type marshaler struct{ *runtime.JSONPb }

// newMarshaler defines the JSON of the API: lowerCamelCase names and int64 as
// strings, as in proto3 JSON. It writes false, zero and empty values, so clients
// need not know the defaults, and omits absent ones instead of writing null. It
// refuses requests with unknown fields: ignoring a misspelled filter would return
// the wrong results.
func newMarshaler() marshaler {
	return marshaler{&runtime.JSONPb{MarshalOptions: protojson.MarshalOptions{EmitDefaultValues: true}}}
}

// NewDecoder returns a decoder of one message from r.
func (m marshaler) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		b, ok := r.(*body)
		if !ok {
			return m.JSONPb.NewDecoder(r).Decode(v)
		}
		switch to := v.(type) {
		case **httpbody.HttpBody:
			*to = &httpbody.HttpBody{Data: b.take()}
			return nil
		case proto.Message:
			data := b.take()
			if len(data) == 0 {
				return io.EOF // the generated code treats this as an empty message
			}
			if err := m.UnmarshalOptions.Unmarshal(data, to); err != nil {
				// protojson randomises its spaces to keep its errors from being
				// parsed.
				return errors.New(strings.ReplaceAll(err.Error(), "\u00a0", " "))
			}
			return nil
		default:
			return m.JSONPb.NewDecoder(r).Decode(v)
		}
	})
}

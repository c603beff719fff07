package gateway

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/protobuf/proto"

	"github.com/liveblocks-mirror/liveblocks-mirror/gateway/apijson"
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

// marshaler reads and writes the JSON of the API, and decodes a body into a
// google.api.HttpBody as raw bytes.
type marshaler struct{}

// ContentType returns that of JSON.
func (marshaler) ContentType(any) string { return jsonType[0] }

// Marshal returns the JSON of a message, or of one in the envelope in which grpc-gateway
// sends the messages of a stream.
func (marshaler) Marshal(v any) ([]byte, error) {
	switch v := v.(type) {
	case proto.Message:
		return apijson.Marshal(v)
	case map[string]any:
		for name, member := range v {
			if m, ok := member.(proto.Message); ok && len(v) == 1 {
				return envelope(name, m)
			}
		}
	case map[string]proto.Message:
		for name, m := range v {
			if len(v) == 1 {
				return envelope(name, m)
			}
		}
	}
	return nil, fmt.Errorf("the API has no JSON for %T", v)
}

func envelope(name string, m proto.Message) ([]byte, error) {
	data, err := apijson.Append([]byte(`{"`+name+`":`), m)
	return append(data, '}'), err
}

// NewEncoder returns an encoder to w.
func (m marshaler) NewEncoder(w io.Writer) runtime.Encoder {
	return runtime.EncoderFunc(func(v any) error {
		data, err := m.Marshal(v)
		if err == nil {
			_, err = w.Write(data)
		}
		return err
	})
}

// Unmarshal reads a message.
func (marshaler) Unmarshal(data []byte, v any) error {
	to, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("the API has no JSON for %T", v)
	}
	return apijson.Unmarshal(data, to)
}

// NewDecoder returns a decoder of one message from r.
func (m marshaler) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		b, ok := r.(*body)
		if !ok {
			data, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			b = &body{data: data}
		}
		data := b.take()
		if to, ok := v.(**httpbody.HttpBody); ok {
			*to = &httpbody.HttpBody{Data: data}
			return nil
		}
		if len(data) == 0 {
			return io.EOF // the generated code treats this as an empty message
		}
		return m.Unmarshal(data, v)
	})
}

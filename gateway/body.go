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

// readBody reads the whole body of r, or says what is wrong with it. The bytes
// are the caller's to keep: they are not pooled, since the service holds on to
// them for as long as it likes.
func (g *Gateway) readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, *problem) {
	if r.ContentLength == 0 {
		return nil, nil
	}
	if r.ContentLength > limit {
		w.Header().Set("Connection", "close") // the rest is not worth reading
		return nil, &payloadTooLarge
	}
	// This times the body alone: net/http lifts the deadline once the body has been
	// read to its end. Not every ResponseWriter can do it, so an error is no concern.
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

// budget is the memory that bodies may still take together while they arrive.
type budget struct{ left atomic.Int64 }

func (b *budget) open() share { return share{budget: b} }

// share is what one body has taken of the budget.
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

// close gives everything back.
func (s *share) close() {
	if s.taken > 0 {
		s.budget.left.Add(s.taken)
	}
}

// freeBody is how much of a body is not counted: net/http keeps as much for the
// connection itself, and nearly every event is smaller.
const freeBody = 4 << 10

// readAll reads r to its end. A size that is only announced takes neither memory
// nor budget: it costs a caller as much to fill ours as to send half the bytes.
func (s *share) readAll(r io.Reader, size, limit int64) ([]byte, error) {
	// One byte more, so that the end is seen without growing.
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

// body is a request's body that has been read. The decoder takes the bytes as
// they are.
type body struct {
	data []byte
	off  int
}

// Read reads what has not been taken.
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

// take returns all bytes and leaves none.
func (b *body) take() []byte {
	b.off = len(b.data)
	return b.data
}

// marshaler speaks proto3 JSON, except that it takes a body for a
// google.api.HttpBody as it is: its fields are not in the JSON, it is.
type marshaler struct{ *runtime.JSONPb }

// newMarshaler decides how our JSON looks: lowerCamelCase names and int64 as
// strings, as proto3 JSON has it. False, zero and empty are spelled out, so that
// readers need not know the defaults; what is absent, such as the deletion time
// of a room that lives, is left out rather than null, which fewer readers mind.
// Requests with fields we do not know are refused: a misspelled filter that is
// ignored answers a question nobody asked.
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
				return io.EOF // which the generated code takes for an empty message
			}
			if err := m.UnmarshalOptions.Unmarshal(data, to); err != nil {
				// protojson varies its spaces lest somebody parse its errors.
				return errors.New(strings.ReplaceAll(err.Error(), "\u00a0", " "))
			}
			return nil
		default:
			return m.JSONPb.NewDecoder(r).Decode(v)
		}
	})
}

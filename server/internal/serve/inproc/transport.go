package inproc

import (
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// transport holds the headers and trailers that a service sends. grpc.SetHeader and
// similar functions find it in the service's context.
type transport struct {
	method string
	// begun, if not nil, is closed when the headers are complete.
	begun chan struct{}

	mu              sync.Mutex
	header, trailer metadata.MD
	sent, ended     bool
}

// Method returns the called method.
func (t *transport) Method() string { return t.method }

// SetHeader adds to the headers that go out with the first message.
func (t *transport) SetHeader(md metadata.MD) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.addHeader(md)
}

// SendHeader adds to the headers and sends them.
func (t *transport) SendHeader(md metadata.MD) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.addHeader(md); err != nil {
		return err
	}
	t.markSent()
	return nil
}

// SetTrailer adds to the trailers.
func (t *transport) SetTrailer(md metadata.MD) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return status.Error(codes.Internal, "set trailer: the call is over")
	}
	t.trailer = added(t.trailer, md)
	return nil
}

// flush sends the headers if they are not sent yet.
func (t *transport) flush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.markSent()
}

// end fixes headers and trailers.
func (t *transport) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.markSent()
	t.ended = true
}

// headerMD returns the headers if they have been sent. They do not change
// afterwards.
func (t *transport) headerMD() metadata.MD {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.sent {
		return nil
	}
	return t.header
}

// trailerMD returns the trailers of a completed call.
func (t *transport) trailerMD() metadata.MD {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		return nil
	}
	return t.trailer
}

func (t *transport) addHeader(md metadata.MD) error {
	if t.sent {
		return status.Error(codes.Internal, "set header: the headers are sent")
	}
	t.header = added(t.header, md)
	return nil
}

func (t *transport) markSent() {
	if t.sent {
		return
	}
	t.sent = true
	if t.begun != nil {
		close(t.begun)
	}
}

// added returns to with copies of md's values under lower-case keys.
func added(to, md metadata.MD) metadata.MD {
	for key, values := range md {
		key = strings.ToLower(key)
		if reserved(key) {
			continue
		}
		if to == nil {
			to = make(metadata.MD, len(md))
		}
		to[key] = append(to[key], values...)
	}
	return to
}

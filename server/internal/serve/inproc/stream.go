package inproc

import (
	"context"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// NewStream starts a server stream. See [grpc.ClientConnInterface]. The service
// starts when the request is sent, and ends with ctx or when the stream has been
// read to its end. As with any gRPC stream, a caller that stops reading early must
// cancel ctx.
func (c *Channel) NewStream(ctx context.Context, _ *grpc.StreamDesc, method string,
	opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	p := &pipe{
		transport: transport{method: method, begun: make(chan struct{})},
		opts:      opts,
		want:      make(chan any),
		filled:    make(chan error, 1),
		done:      make(chan struct{}),
	}
	if err := c.open(ctx, p); err != nil {
		finish(opts, &p.transport, err)
		return nil, err
	}
	return &clientStream{pipe: p}, nil
}

func (c *Channel) open(ctx context.Context, p *pipe) error {
	m, ok := c.streams[p.method]
	if !ok {
		return c.unknown(p.method)
	}
	if m.desc.ClientStreams {
		return status.Errorf(codes.Unimplemented, "%s: streams from the client do not run in process", p.method)
	}
	var err error
	if p.server, p.cancel, err = c.serverContext(ctx, &p.transport, p.opts); err != nil {
		return err
	}
	p.client = ctx
	p.handler = func(s grpc.ServerStream) error {
		if c.stream == nil {
			return m.desc.Handler(m.service, s)
		}
		info := &grpc.StreamServerInfo{FullMethod: p.method, IsServerStream: m.desc.ServerStreams}
		return c.stream(m.service, s, info, m.desc.Handler)
	}
	return nil
}

// pipe is shared by the two ends of a stream.
//
// The client passes a message to fill through want; the server copies the next
// response into it and signals filled. So a response is copied once, and a service
// is at most one message ahead of its reader.
type pipe struct {
	transport

	opts    []grpc.CallOption
	handler func(grpc.ServerStream) error
	client  context.Context    //nolint:containedctx // a gRPC stream has to hand out its context
	server  context.Context    //nolint:containedctx // a gRPC stream has to hand out its context
	cancel  context.CancelFunc // cancels only server

	request any // set before the service starts
	want    chan any
	filled  chan error
	done    chan struct{} // closed when the service has returned
	result  error         // set before done is closed
}

// run is the service's side of the call, in its own goroutine. It signals its end
// through done.
func (p *pipe) run() {
	defer close(p.done)
	defer p.end()
	defer p.cancel() // as a server's context ends with its handler
	defer recovered(p.method, &p.result)
	if err := p.handler(&serverStream{pipe: p}); err != nil {
		p.result = toStatus(err)
	}
}

// wait returns when the service has filled the message, which takes no longer than
// copying it, or has panicked.
func (p *pipe) wait() error {
	select {
	case err := <-p.filled:
		return err
	case <-p.done:
	}
	select { // it may have returned right after: the first select is random
	case err := <-p.filled:
		return err
	default:
		return p.result
	}
}

// clientStream is the caller's end. As with any gRPC stream, one goroutine may send
// while another receives.
type clientStream struct {
	pipe     *pipe
	started  bool
	finished error // io.EOF after a success
}

// SendMsg passes the request to the service and starts it.
func (s *clientStream) SendMsg(m any) error {
	if s.started {
		return status.Errorf(codes.Internal, "%s takes one request", s.pipe.method)
	}
	s.started = true
	s.pipe.request = m
	go s.pipe.run()
	return nil
}

// CloseSend does nothing: there is one request.
func (s *clientStream) CloseSend() error { return nil }

// RecvMsg waits for the next response and copies it to m.
func (s *clientStream) RecvMsg(m any) error {
	if s.finished != nil {
		return s.finished
	}
	p := s.pipe
	if !s.started {
		return s.finish(status.Errorf(codes.Internal, "%s was sent no request", p.method))
	}
	select {
	case p.want <- m:
		if err := p.wait(); err != nil {
			return s.finish(err)
		}
		return nil
	case <-p.done:
		return s.finish(p.result)
	case <-p.client.Done():
		return s.finish(status.FromContextError(p.client.Err()).Err())
	}
}

func (s *clientStream) finish(err error) error {
	s.pipe.cancel()
	finish(s.pipe.opts, &s.pipe.transport, err)
	s.finished = err
	if err == nil {
		s.finished = io.EOF
	}
	return s.finished
}

// Header waits for the service's headers. Both results are nil if it ended without
// headers.
func (s *clientStream) Header() (metadata.MD, error) {
	p := s.pipe
	select {
	case <-p.begun:
		return p.headerMD(), nil
	case <-p.client.Done():
		return nil, status.FromContextError(p.client.Err()).Err()
	}
}

// Trailer returns the service's trailers once RecvMsg has returned an error.
func (s *clientStream) Trailer() metadata.MD { return s.pipe.trailerMD() }

// Context returns the caller's context.
func (s *clientStream) Context() context.Context { return s.pipe.client }

// serverStream is the service's end.
type serverStream struct {
	pipe     *pipe
	received bool
}

// RecvMsg fills m with the request, once.
func (s *serverStream) RecvMsg(m any) error {
	if s.received {
		return io.EOF
	}
	s.received = true
	return fill(m, s.pipe.request)
}

// SendMsg waits until the client is receiving and copies m to its message.
func (s *serverStream) SendMsg(m any) error {
	p := s.pipe
	p.flush()
	select {
	case target := <-p.want:
		err := fill(target, m)
		p.filled <- err
		return err
	case <-p.server.Done():
		return status.FromContextError(p.server.Err()).Err()
	}
}

// SetHeader adds to the headers, which are sent with the first response.
func (s *serverStream) SetHeader(md metadata.MD) error { return s.pipe.SetHeader(md) }

// SendHeader sends the headers.
func (s *serverStream) SendHeader(md metadata.MD) error { return s.pipe.SendHeader(md) }

// SetTrailer adds to the trailers.
func (s *serverStream) SetTrailer(md metadata.MD) {
	_ = s.pipe.SetTrailer(md) // fails only after the call, when no one reads them
}

// Context returns the context of the call.
func (s *serverStream) Context() context.Context { return s.pipe.server }

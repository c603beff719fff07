package rpc

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/tracing"
)

// interceptor serves unary calls and streams alike.
type interceptor struct {
	name string
	// around runs the call by calling next, at most once. It is nil for interceptors
	// that only check requests.
	around func(ctx context.Context, method string, next func(context.Context) error) error
	// request checks a message from the client before the handler sees it.
	request func(ctx context.Context, message any) error
}

// interceptors returns the interceptors of every call, outermost first. The trace, the
// log and the metrics are outermost, so they see the final code, including refusals and panics.
// Authentication comes before validation, so unauthenticated callers learn nothing
// about the request.
func (s *Services) interceptors() []interceptor {
	chain := []interceptor{
		{name: "request id", around: identify},
		{name: "log", around: s.log},
		{name: "metrics", around: s.watch},
		{name: "recovery", around: recovery},
		{name: "errors", around: classified},
		{name: "auth", around: s.authenticate},
		{name: "audit", around: s.audited},
		{name: "validate", request: func(_ context.Context, message any) error { return s.validate.check(message) }},
		{name: "record", request: s.record},
	}
	if s.tracer != nil {
		chain = append([]interceptor{{name: "trace", around: s.trace}}, chain...)
	}
	return chain
}

// UnaryInterceptor returns the chain for unary calls.
func (s *Services) UnaryInterceptor() grpc.UnaryServerInterceptor {
	chain := s.interceptors()
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		var resp any
		err := run(ctx, chain, info.FullMethod, req, func(ctx context.Context) (err error) {
			resp, err = handler(ctx, req)
			return err
		})
		if err != nil {
			return nil, err
		}
		return resp, nil
	}
}

// StreamInterceptor returns the same chain for streams.
func (s *Services) StreamInterceptor() grpc.StreamServerInterceptor {
	chain := s.interceptors()
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		return run(stream.Context(), chain, info.FullMethod, nil, func(ctx context.Context) error {
			return handler(srv, &checkedStream{ServerStream: stream, ctx: ctx, chain: chain})
		})
	}
}

// run calls the chain, the first interceptor outermost, with handle innermost. A
// stream has no request yet.
func run(ctx context.Context, chain []interceptor, method string, req any, handle func(context.Context) error) error {
	// One function serves as the next of all interceptors: each calls it once.
	var next func(context.Context) error
	next = func(ctx context.Context) error {
		for len(chain) > 0 {
			first := chain[0]
			chain = chain[1:]
			if first.around != nil {
				return first.around(ctx, method, next)
			}
			if req != nil {
				if err := first.request(ctx, req); err != nil {
					return err
				}
			}
		}
		return handle(ctx)
	}
	return next(ctx)
}

// checkedStream checks the requests of a stream as they arrive.
type checkedStream struct {
	grpc.ServerStream
	ctx   context.Context //nolint:containedctx // the interface returns the context
	chain []interceptor
}

// Context returns the context of the chain.
func (s *checkedStream) Context() context.Context { return s.ctx }

// RecvMsg receives a message and passes it through the chain's checks.
func (s *checkedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	for _, i := range s.chain {
		if i.request == nil {
			continue
		}
		if err := i.request(s.ctx, m); err != nil {
			return err
		}
	}
	return nil
}

type requestIDKey struct{}

// requestID returns the id of the call, empty outside of one.
func requestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// identify gives the call an id: the caller's x-request-id if it is a plain word,
// which cannot forge log lines, otherwise a random one.
func identify(ctx context.Context, _ string, next func(context.Context) error) error {
	var id string
	if given := metadata.ValueFromIncomingContext(ctx, "x-request-id"); len(given) == 1 && plainWord(given[0]) {
		id = given[0]
	} else {
		id = strconv.FormatUint(rand.Uint64(), 16)
	}
	return next(context.WithValue(ctx, requestIDKey{}, id))
}

func plainWord(s string) bool {
	return s != "" && len(s) <= 64 &&
		strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == ""
}

// log writes one line for each call: the method and the result, never the content.
// It is the only place that reports the cause of an internal error.
func (s *Services) log(ctx context.Context, method string, next func(context.Context) error) error {
	start := time.Now()
	err := next(ctx)
	code := status.Code(err)
	level := slog.LevelDebug
	if code == codes.Internal || code == codes.Unknown {
		level = slog.LevelWarn
	}
	if !s.logger.Enabled(ctx, level) {
		return err
	}
	attrs := []slog.Attr{
		slog.String("method", method),
		slog.String("code", code.String()),
		slog.Duration("took", time.Since(start)),
		slog.String("request_id", requestID(ctx)),
	}
	if failed, ok := err.(*statusError); ok { //nolint:errorlint // a statusError is never wrapped
		attrs = append(attrs, slog.Any("error", failed.cause))
	} else if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	s.logger.LogAttrs(ctx, level, "rpc", attrs...)
	return err
}

// CallWatcher is told of calls: for metrics.
type CallWatcher interface {
	// Of returns what is told of the calls of a method. It keeps nothing of the method
	// before the first call.
	Of(method Method) MethodWatcher
}

// MethodWatcher is told of the calls of a method.
type MethodWatcher interface {
	Begun()
	Ended(code codes.Code, took time.Duration)
}

// Method names a method.
type Method struct {
	// Type is "unary", "server_stream" or "bidi_stream".
	Type string
	// Service is the full name of the service, Name the name of the method in it.
	Service, Name string
}

// watcherOf returns what is told of the calls of a method, by its full name.
func (s *Services) watcherOf(full string) MethodWatcher {
	service, name, _ := strings.Cut(strings.TrimPrefix(full, "/"), "/")
	return s.calls.Of(Method{Type: cmp.Or(s.types[full], "bidi_stream"), Service: service, Name: name})
}

// methodTypes returns the types of all methods that are not "bidi_stream", by full name.
func methodTypes() map[string]string {
	types := make(map[string]string)
	for _, desc := range append(serviceDescs(), &healthv1.Health_ServiceDesc) {
		for _, m := range desc.Methods {
			types["/"+desc.ServiceName+"/"+m.MethodName] = "unary"
		}
		for _, m := range desc.Streams {
			if !m.ClientStreams {
				types["/"+desc.ServiceName+"/"+m.StreamName] = "server_stream"
			}
		}
	}
	return types
}

// watch tells of the call.
func (s *Services) watch(ctx context.Context, method string, next func(context.Context) error) error {
	if s.calls == nil {
		return next(ctx)
	}
	watcher, ok := s.watchers[method]
	if !ok { // reflection
		watcher = s.watcherOf(method)
	}
	watcher.Begun()
	begun := time.Now()
	err := next(ctx)
	watcher.Ended(status.Code(err), time.Since(begun))
	return err
}

// trace gives the call a span.
func (s *Services) trace(ctx context.Context, method string, next func(context.Context) error) error {
	switch {
	case s.types[method] == "", strings.HasPrefix(method, "/"+healthv1.Health_ServiceDesc.ServiceName+"/"):
		return next(ctx)
	case method == mirrorv1.ChangeService_WatchChanges_FullMethodName: // it goes on for days
		return next(tracing.Without(ctx))
	}
	header := func(key string) string {
		return strings.Join(metadata.ValueFromIncomingContext(ctx, key), ",")
	}
	ctx, span := s.tracer.Serve(ctx, strings.TrimPrefix(method, "/"), header)
	err := next(ctx)
	span.Set("rpc.system.name", "grpc")
	span.Set("rpc.response.status_code", status.Code(err).String())
	if code := status.Code(err); ours(code) {
		span.Fail(code.String())
	}
	span.End(nil)
	return err
}

// ours reports whether a call with the code has failed at the server, as OpenTelemetry's
// conventions have it. What the caller did wrong is no failure of the service.
func ours(code codes.Code) bool {
	switch code {
	case codes.Unknown, codes.DeadlineExceeded, codes.Unimplemented, codes.Internal, codes.Unavailable, codes.DataLoss:
		return true
	default:
		return false
	}
}

// recovery converts a panic to an internal error with the stack as its cause.
func recovery(ctx context.Context, _ string, next func(context.Context) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = toStatus(ctx, fmt.Errorf("panic: %v\n%s", v, debug.Stack()))
		}
	}()
	return next(ctx)
}

// classified converts every error to a status.
func classified(ctx context.Context, _ string, next func(context.Context) error) error {
	if err := next(ctx); err != nil {
		return toStatus(ctx, err)
	}
	return nil
}

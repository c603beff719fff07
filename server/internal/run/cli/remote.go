// Package cli implements the commands that talk to a running service. They call it
// over gRPC and show the progress on a terminal or in plain lines.
package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
)

// ErrDrift means that the mirror differs from Liveblocks.
var ErrDrift = errors.New("the mirror differs from Liveblocks")

const (
	// plainEvery is the time between progress lines if the output is not a
	// terminal.
	plainEvery = 5 * time.Second
	// callTimeout limits one call that is answered from the database.
	callTimeout = 30 * time.Second
)

// service is a running service.
type service struct {
	mirrorv1.AdminServiceClient
	address string
	project string
	conn    *grpc.ClientConn
}

// dial prepares a connection. The first call establishes it.
func dial(cfg config.Client) (*service, error) {
	address, secure := strings.CutPrefix(cfg.Server, "https://")
	creds := insecure.NewCredentials()
	if secure {
		creds = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithUserAgent("liveblocks-mirror"),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2,
				MaxDelay: 3 * time.Second},
			MinConnectTimeout: 10 * time.Second,
		}),
		// Detect a service that vanished silently. The service allows a ping every
		// ten seconds.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 20 * time.Second}),
	}
	if len(cfg.APIToken) > 0 {
		bearer := "Bearer " + cfg.APIToken[0]
		options = append(options,
			grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn,
				invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
				return invoke(metadata.AppendToOutgoingContext(ctx, "authorization", bearer), method, req, reply, cc, opts...)
			}),
			grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string,
				stream grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
				return stream(metadata.AppendToOutgoingContext(ctx, "authorization", bearer), desc, cc, method, opts...)
			}))
	}
	conn, err := grpc.NewClient(address, options...)
	if err != nil {
		return nil, fmt.Errorf("MIRROR_SERVER %s cannot be used: %w", address, err)
	}
	return &service{AdminServiceClient: mirrorv1.NewAdminServiceClient(conn), address: address, project: cfg.ProjectID,
		conn: conn}, nil
}

func (s *service) close() { _ = s.conn.Close() } // nothing depends on the error

// explain returns an error text for a failed call.
func (s *service) explain(err error) error {
	switch st := status.Convert(err); st.Code() {
	case codes.Unavailable:
		if len(st.Details()) == 0 { // not from the service
			return fmt.Errorf("no service answers at %s: start it with `liveblocks-mirror serve`, or name "+
				"its gRPC address with --server", s.address)
		}
		return errors.New(st.Message())
	case codes.Unauthenticated:
		return errors.New("the service requires a token: set MIRROR_API_TOKEN to one of the service's tokens")
	case codes.Unimplemented:
		return fmt.Errorf("the service at %s does not support this call: it is older than this program, or a different "+
			"one", s.address)
	case codes.Canceled:
		return errors.New("interrupted")
	default:
		return errors.New(st.Message())
	}
}

// terminal reports whether f is a terminal that supports carriage returns.
func terminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb" && os.Getenv("TERM") != ""
}

// screen shows progress.
type screen struct {
	w    io.Writer
	live bool
	// shown is the length of the current line on a terminal; told is when the last
	// line was written to anything else.
	shown int
	told  time.Time
}

// progress replaces the current line on a terminal, and otherwise writes a line at
// intervals.
func (s *screen) progress(line string) {
	switch {
	case s.live:
		_, _ = fmt.Fprintf(s.w, "\r%s%s", line, strings.Repeat(" ", max(s.shown-len([]rune(line)), 0)))
		s.shown = len([]rune(line))
	case time.Since(s.told) >= plainEvery:
		s.told = time.Now()
		_, _ = fmt.Fprintln(s.w, line)
	}
}

// line writes a permanent line.
func (s *screen) line(line string) {
	s.clear()
	_, _ = fmt.Fprintln(s.w, line)
}

// clear removes the progress line.
func (s *screen) clear() {
	if s.shown > 0 {
		_, _ = fmt.Fprintf(s.w, "\r%s\r", strings.Repeat(" ", s.shown))
		s.shown = 0
	}
}

// bar draws a progress bar.
func bar(done, total int64) string {
	const width = 30
	full := int64(0)
	if total > 0 {
		full = min(width*done/total, width)
	}
	return "[" + strings.Repeat("=", int(full)) + strings.Repeat(" ", int(width-full)) + "]"
}

// wait waits for d and reports false if ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

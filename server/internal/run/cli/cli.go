// Package cli implements the commands that call a running service over gRPC, and those
// for the keys file. They show progress on a terminal, or as plain lines elsewhere.
package cli

import (
	"context"
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
	"google.golang.org/grpc/status"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/tlsfiles"
)

// ErrDrift is returned when the mirror differs from Liveblocks.
var ErrDrift = errors.New("the mirror differs from Liveblocks")

const (
	// plainEvery is the interval of progress lines outside a terminal.
	plainEvery = 5 * time.Second
	// callTimeout bounds a unary call.
	callTimeout = 30 * time.Second
)

// service is a running service.
type service struct {
	mirrorv1.AdminServiceClient
	events  mirrorv1.EventServiceClient
	address string
	project string
	// secure means that it is called with TLS.
	secure bool
	conn   *grpc.ClientConn
}

// bearer sends a token with every call.
type bearer struct{ token config.Secret }

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.token.Reveal()}, nil
}

func (bearer) RequireTransportSecurity() bool { return false }

// dial prepares calls to a service; the first of them connects.
func dial(cfg config.Client) (*service, error) {
	address, secure := strings.CutPrefix(cfg.Server, "https://")
	creds := insecure.NewCredentials()
	if secure {
		settings, err := tlsfiles.Client(cfg)
		if err != nil {
			return nil, err
		}
		creds = credentials.NewTLS(settings)
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithUserAgent("liveblocks-mirror"),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2,
				MaxDelay: 3 * time.Second,
			},
			MinConnectTimeout: 10 * time.Second,
		}),
		// Detects a dead service. The service accepts a ping every ten seconds.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 20 * time.Second}),
	}
	if len(cfg.APIToken) > 0 {
		options = append(options, grpc.WithPerRPCCredentials(bearer{cfg.APIToken[0]}))
	}
	conn, err := grpc.NewClient(address, options...)
	if err != nil {
		return nil, fmt.Errorf("MIRROR_SERVER %s cannot be used: %w", address, err)
	}
	return &service{
		AdminServiceClient: mirrorv1.NewAdminServiceClient(conn), events: mirrorv1.NewEventServiceClient(conn),
		address: address, project: cfg.ProjectID, secure: secure, conn: conn,
	}, nil
}

func (s *service) close() { _ = s.conn.Close() } // no call is open any more

// explain turns the status of a failed call into a sentence that says what to do. Other
// errors say that themselves.
func (s *service) explain(err error) error {
	if _, ok := status.FromError(err); !ok {
		return err
	}
	switch st := status.Convert(err); st.Code() {
	case codes.Unavailable:
		if problem := s.tlsProblem(st.Message()); problem != "" && len(st.Details()) == 0 {
			return errors.New(problem)
		}
		if len(st.Details()) == 0 && otherService(st.Message()) {
			return fmt.Errorf("something answers at %s, but it is not the gRPC port of a service: it may be the HTTP port, or "+
				"%s; set --server to the gRPC address of the service", s.address, s.otherTLS())
		}
		if len(st.Details()) == 0 { // not from the service
			return noServiceError{s.address}
		}
		return errors.New(st.Message())
	case codes.Unknown, codes.Internal:
		if len(st.Details()) == 0 && otherService(st.Message()) {
			return fmt.Errorf("something answers at %s, but it does not speak gRPC; set --server to the gRPC address of the "+
				"service", s.address)
		}
		return errors.New(st.Message())
	case codes.Unauthenticated:
		return errors.New("the service requires a token or a key; set MIRROR_API_TOKEN to one that is valid")
	case codes.PermissionDenied:
		return fmt.Errorf("%s; set MIRROR_API_TOKEN to a token, or to a key that may do this", st.Message())
	case codes.Unimplemented:
		return fmt.Errorf("the service at %s does not support this call; it is an older version, or a different service",
			s.address)
	case codes.Canceled:
		return errors.New("interrupted")
	default:
		return errors.New(st.Message())
	}
}

// noServiceError is that nothing listens at an address.
type noServiceError struct{ address string }

func (e noServiceError) Error() string {
	return fmt.Sprintf("no service answers at %s; start one with `liveblocks-mirror serve`, or set --server to its "+
		"gRPC address", e.address)
}

// tlsProblem says what is wrong with a certificate according to the text of gRPC's own
// error; empty if nothing is.
func (s *service) tlsProblem(text string) string {
	if _, why, ok := strings.Cut(text, "x509: "); ok {
		return fmt.Sprintf("the certificate of the service at %s is not accepted: %s; set MIRROR_SERVER_CA to the PEM file "+
			"of its authority, and --server to a name in the certificate", s.address, strings.TrimRight(why, `"`))
	}
	if _, why, ok := strings.Cut(text, "remote error: tls: "); ok {
		return fmt.Sprintf("the service at %s refuses the TLS connection: %s; if it accepts client certificates, "+
			"MIRROR_CLIENT_CERT must name one of its authority that has not expired", s.address, strings.TrimRight(why, `"`))
	}
	return ""
}

// otherService reports whether the text of gRPC's own error says that something answers
// which is no gRPC server, or with or without TLS against expectation.
func otherService(text string) bool {
	for _, part := range []string{
		"server preface", "http2: ", "HTTP/1", "unexpected HTTP status", "content-type", "tls: ", "authentication handshake",
	} {
		if strings.Contains(text, part) {
			return true
		}
	}
	return false
}

// otherTLS says what may be wrong about TLS.
func (s *service) otherTLS() string {
	if s.secure {
		return "it has no TLS: then leave out https://"
	}
	return "it needs TLS: then begin with https://"
}

// terminal reports whether f is a terminal that supports carriage returns.
func terminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb" && os.Getenv("TERM") != ""
}

// screen shows progress.
type screen struct {
	w io.Writer
	// live means that w is a terminal.
	live bool
	// shown is the length of the progress line on a terminal.
	shown int
	// written is the time of the last progress line elsewhere.
	written time.Time
}

// progress replaces the progress line on a terminal. Elsewhere it writes a new one
// every [plainEvery].
func (s *screen) progress(line string) {
	switch {
	case s.live:
		_, _ = fmt.Fprintf(s.w, "\r%s%s", line, strings.Repeat(" ", max(s.shown-len([]rune(line)), 0)))
		s.shown = len([]rune(line))
	case time.Since(s.written) >= plainEvery:
		s.written = time.Now()
		_, _ = fmt.Fprintln(s.w, line)
	}
}

// line writes a permanent line.
func (s *screen) line(line string) {
	s.clear()
	_, _ = fmt.Fprintln(s.w, line)
}

// clear erases the progress line.
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

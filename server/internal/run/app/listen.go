package app

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
)

// listeners are the open listeners.
type listeners struct{ http, grpc, webhook, metrics net.Listener }

func listen(ctx context.Context, cfg config.Addresses) (l listeners, err error) {
	for _, want := range []struct {
		listener *net.Listener
		flag     string
		addr     string
	}{
		{&l.http, "--http-addr", cfg.HTTPAddr},
		{&l.grpc, "--grpc-addr", cfg.GRPCAddr},
		{&l.webhook, "--webhook-addr", cfg.WebhookAddr},
		{&l.metrics, "--metrics-addr", cfg.MetricsAddr},
	} {
		if want.addr == "" {
			continue
		}
		var lc net.ListenConfig
		if *want.listener, err = lc.Listen(ctx, "tcp", want.addr); err != nil {
			l.close()
			return listeners{}, fmt.Errorf(
				"cannot listen on %s; stop the process that uses it, or choose another address with %s (port 0 picks a free "+
					"port): %w",
				want.addr, want.flag, err)
		}
	}
	return l, nil
}

// CheckAddresses returns an error if an address cannot be listened on now.
func CheckAddresses(ctx context.Context, cfg config.Addresses) error {
	l, err := listen(ctx, cfg)
	l.close()
	return err
}

func (l listeners) close() {
	for _, c := range []net.Listener{l.http, l.grpc, l.webhook, l.metrics} {
		if c != nil {
			_ = c.Close()
		}
	}
}

// newHTTPServer sets no WriteTimeout, which would cut off long streams; the gateway
// limits requests. Without settings for TLS it speaks plain HTTP.
func newHTTPServer(h http.Handler, idle time.Duration, secured *tls.Config, log *slog.Logger) *http.Server {
	if idle == 0 {
		idle = -1 // no limit; 0 would mean that of a request
	}
	return &http.Server{
		Handler:           h,
		TLSConfig:         secured,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       idle,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// serveHTTP serves the connections of l until s is shut down.
func serveHTTP(s *http.Server, l net.Listener) error {
	if s.TLSConfig != nil {
		return s.ServeTLS(l, "", "")
	}
	return s.Serve(l)
}

// Ready is the content of the ready file.
type Ready struct {
	PID         int    `json:"pid"`
	HTTPAddr    string `json:"http_addr"`
	GRPCAddr    string `json:"grpc_addr"`
	WebhookAddr string `json:"webhook_addr,omitempty"`
	MetricsAddr string `json:"metrics_addr,omitempty"`
}

// Addresses returns the addresses in use.
func (a *App) Addresses() Ready {
	r := Ready{PID: os.Getpid(), HTTPAddr: a.listeners.http.Addr().String(), GRPCAddr: a.listeners.grpc.Addr().String()}
	if a.listeners.webhook != nil {
		r.WebhookAddr = a.listeners.webhook.Addr().String()
	}
	if a.listeners.metrics != nil {
		r.MetricsAddr = a.listeners.metrics.Addr().String()
	}
	return r
}

// write writes the file atomically. It does nothing if path is empty.
func (r Ready) write(path string) error {
	if path == "" {
		return nil
	}
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write ready file: %w", err)
	}
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write ready file: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write ready file: %w", err)
	}
	return nil
}

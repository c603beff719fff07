// Package tlsfiles reads the certificates of listeners and clients from files. Those of
// listeners it reads again when the files change.
package tlsfiles

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
)

// checkEvery is the time between two readings of the files. What is new is used when two
// readings in a row found the same: a certificate and its key are two files, which do not
// change at one moment, and a file may be half written.
const checkEvery = 5 * time.Second

// files are a certificate, its key and a list of authorities.
type files struct{ cert, key, authorities file }

// file is one that a setting names. The path is empty if none is named.
type file struct{ setting, path string }

// contents are those of files. The problem is that of one which cannot be read.
type contents struct {
	cert, key, authorities string
	problem                config.Error
}

// loaded is what contents hold.
type loaded struct {
	contents

	pairs []tls.Certificate // at most one
	pool  *x509.CertPool    // nil without authorities
}

func (f files) read() (c contents) {
	for _, one := range []struct {
		file
		to *string
	}{{f.cert, &c.cert}, {f.key, &c.key}, {f.authorities, &c.authorities}} {
		if one.path == "" {
			continue
		}
		b, err := os.ReadFile(one.path)
		*one.to = string(b)
		switch {
		case err != nil:
			c.problem = config.Error{Setting: one.setting, Problem: unreadable(one.path, err)}
		case len(b) == 0:
			c.problem = config.Error{Setting: one.setting, Problem: fmt.Sprintf("is %q, which is empty", one.path)}
		}
	}
	return c
}

// unreadable says why a file cannot be read. It does not quote what is a key instead of a
// path: the variable with _FILE appended may name the file.
func unreadable(path string, err error) string {
	if strings.Contains(path, "-----BEGIN") {
		return "contains PEM; it must be the path of a PEM file"
	}
	if cause, ok := errors.AsType[*os.PathError](err); ok {
		err = cause.Err
	}
	return fmt.Sprintf("is %q, which cannot be read (%v); it must be a PEM file that this user may read", path, err)
}

func (f files) load(c contents) (*loaded, error) {
	if c.problem != (config.Error{}) {
		return nil, &c.problem
	}
	l := &loaded{contents: c}
	if f.cert.path != "" {
		pair, err := tls.X509KeyPair([]byte(c.cert), []byte(c.key))
		if err != nil {
			return nil, &config.Error{Setting: f.cert.setting + " and " + f.key.setting, Problem: fmt.Sprintf(
				"cannot be used: %v; they must name a certificate, followed by its intermediates, and its key, without a "+
					"passphrase, in PEM", err)}
		}
		l.pairs = []tls.Certificate{pair}
	}
	if f.authorities.path != "" {
		l.pool = x509.NewCertPool()
		if !l.pool.AppendCertsFromPEM([]byte(c.authorities)) {
			return nil, &config.Error{
				Setting: f.authorities.setting, Problem: "names a file without a certificate; it must be in PEM",
			}
		}
	}
	return l, nil
}

// Server is the TLS of the listeners. New connections use what was last read and can be
// used; open ones keep what they began with.
type Server struct {
	files files
	log   *slog.Logger
	now   func() time.Time

	used   atomic.Pointer[loaded]
	seen   contents // by the last reading
	judged contents // the last that were tried
	warned bool     // that the certificate in use expires
}

// NewServer reads the files for the first time. It returns nil if the settings name none.
func NewServer(cfg config.TLS, now func() time.Time, log *slog.Logger) (*Server, error) {
	if !cfg.Enabled() {
		return nil, nil //nolint:nilnil // which means "no TLS"
	}
	s := &Server{now: now, log: log, files: files{
		cert: file{"MIRROR_TLS_CERT", cfg.TLSCert}, key: file{"MIRROR_TLS_KEY", cfg.TLSKey},
		authorities: file{"MIRROR_TLS_CLIENT_CA", cfg.TLSClientCA},
	}}
	first, err := s.files.load(s.files.read())
	if err != nil {
		return nil, err
	}
	s.use(first)
	return s, nil
}

// Certificate returns the certificate in use.
func (s *Server) Certificate() *x509.Certificate { return s.used.Load().pairs[0].Leaf }

func (s *Server) use(l *loaded) {
	s.used.Store(l)
	s.seen, s.judged, s.warned = l.contents, l.contents, false
}

// Run reads the files until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	ticker := time.NewTicker(checkEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			s.check(ctx)
		}
	}
}

// check reads the files and uses what is new and stays so.
func (s *Server) check(ctx context.Context) {
	s.warnOfExpiry(ctx)
	got := s.files.read()
	stays := got == s.seen
	s.seen = got
	if !stays || got == s.judged {
		return
	}
	s.judged = got
	next, err := s.files.load(got)
	if err != nil {
		s.log.WarnContext(ctx, "the new TLS files cannot be used; those read before stay in use", slog.Any("error", err))
		return
	}
	s.use(next)
	s.log.InfoContext(ctx, "the new TLS files are in use", slog.Time("not_after", next.pairs[0].Leaf.NotAfter))
}

// warnOfExpiry tells once of a certificate of whose time less than a tenth is left.
func (s *Server) warnOfExpiry(ctx context.Context) {
	leaf := s.Certificate()
	if s.warned || leaf.NotAfter.Sub(s.now()) > leaf.NotAfter.Sub(leaf.NotBefore)/10 {
		return
	}
	s.warned = true
	s.log.WarnContext(ctx, "the TLS certificate expires soon, or has expired", slog.Time("not_after", leaf.NotAfter))
}

// Config returns the settings of a listener that speaks one of the protocols, the best
// first. With clients it accepts client certificates, if it has authorities of such. One that is
// shown must be valid; a client that shows none needs another credential.
func (s *Server) Config(clients bool, protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: protocols,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			used := s.used.Load()
			c := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: protocols, Certificates: used.pairs}
			if clients && used.pool != nil {
				c.ClientAuth, c.ClientCAs = tls.VerifyClientCertIfGiven, used.pool
				// A resumed session would go on although the authority of its certificate was removed.
				c.SessionTicketsDisabled = true
			}
			return c, nil
		},
	}
}

// Client returns the settings of a client of a service.
func Client(cfg config.Client) (*tls.Config, error) {
	f := files{
		cert: file{"MIRROR_CLIENT_CERT", cfg.ClientCert}, key: file{"MIRROR_CLIENT_KEY", cfg.ClientKey},
		authorities: file{"MIRROR_SERVER_CA", cfg.ServerCA},
	}
	l, err := f.load(f.read())
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: l.pool, Certificates: l.pairs}, nil
}

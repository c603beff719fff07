package tlsfiles

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/tlsfiles/tlstest"
)

// rig is a server with its files, and a client of it.
type rig struct {
	*Server
	dir       string
	paths     config.TLS
	authority *tlstest.Authority
	log       bytes.Buffer
	client    *tls.Config
}

// newRig makes a server whose certificate is at 127.0.0.1, for clients of the same authority.
func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{dir: t.TempDir(), authority: tlstest.NewAuthority(t)}
	r.paths = config.TLS{
		TLSCert: filepath.Join(r.dir, "cert"), TLSKey: filepath.Join(r.dir, "key"),
		TLSClientCA: r.write(t, "ca", r.authority.PEM),
	}
	r.replace(t, r.authority.Issue(t, x509.Certificate{}))
	r.client = &tls.Config{
		RootCAs: pool(r.authority), ServerName: "127.0.0.1", NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS10,
	}
	var err error
	if r.Server, err = NewServer(r.paths, time.Now, slog.New(slog.NewTextHandler(&r.log, nil))); err != nil {
		t.Fatal(err)
	}
	return r
}

func pool(a *tlstest.Authority) *x509.CertPool {
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(a.PEM)
	return p
}

func (r *rig) write(t *testing.T, name string, content []byte) string {
	t.Helper()
	return tlstest.Write(t, r.dir, name, content)
}

func (r *rig) replace(t *testing.T, pair tlstest.Pair) {
	t.Helper()
	r.write(t, "cert", pair.Cert)
	r.write(t, "key", pair.Key)
}

// checks reads the files n times.
func (r *rig) checks(t *testing.T, n int) {
	t.Helper()
	for range n {
		r.check(t.Context())
	}
}

// connect makes a connection with the client's settings. It returns what each side saw,
// and the client's error, or else the server's.
func (r *rig) connect(t *testing.T) (client, server tls.ConnectionState, err error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	served := make(chan error, 1)
	there := tls.Server(b, r.Config(true, "h2"))
	go func() {
		defer b.Close()
		err := there.HandshakeContext(t.Context())
		if err == nil {
			_, err = there.Write([]byte("hello"))
		}
		served <- err
	}()
	here := tls.Client(a, r.client)
	text := make([]byte, 5)
	_, err = io.ReadFull(here, text)
	_ = a.Close()
	err = errors.Join(err, <-served)
	return here.ConnectionState(), there.ConnectionState(), err
}

// serves checks that new connections get the certificate of pair.
func (r *rig) serves(t *testing.T, pair tlstest.Pair) {
	t.Helper()
	got, _, err := r.connect(t)
	if err != nil {
		t.Fatalf("connect = %v", err)
	}
	if want, _ := pem.Decode(pair.Cert); !bytes.Equal(got.PeerCertificates[0].Raw, want.Bytes) {
		t.Fatal("the connection has another certificate")
	}
}

func TestNewFilesAreUsed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	next := r.authority.Issue(t, x509.Certificate{})
	r.replace(t, next)
	r.checks(t, 2)
	r.serves(t, next)
	if log := r.log.String(); strings.Count(log, "\n") != 1 || !strings.Contains(log, "the new TLS files are in use") {
		t.Errorf("log = %s; want one line", log)
	}
}

// A file that is being written is used once it stays the same.
func TestHalfWrittenFilesWait(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	first := tlstest.Pair{Cert: []byte(r.seen.cert), Key: []byte(r.seen.key)}
	next, other := r.authority.Issue(t, x509.Certificate{}), tlstest.NewAuthority(t)
	for _, step := range []struct {
		name    string
		content []byte
	}{
		{"cert", next.Cert[:len(next.Cert)/2]},
		{"cert", next.Cert}, // with the old key
		{"key", next.Key[:10]},
		{"ca", nil},
	} {
		r.write(t, step.name, step.content)
		r.checks(t, 1)
		r.serves(t, first)
	}
	r.write(t, "key", next.Key)
	r.write(t, "ca", append(other.PEM, r.authority.PEM...))
	r.checks(t, 1)
	r.serves(t, first)
	r.checks(t, 1)
	r.serves(t, next)
	if log := r.log.String(); strings.Contains(log, "WARN") {
		t.Errorf("log = %s; want no warning of files that were half written", log)
	}
}

func TestBrokenFilesKeepTheOld(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	first := tlstest.Pair{Cert: []byte(r.seen.cert), Key: []byte(r.seen.key)}
	for name, breaks := range map[string]func(){
		"no PEM":          func() { r.write(t, "cert", []byte("no PEM")) },
		"another's key":   func() { r.write(t, "key", r.authority.Issue(t, x509.Certificate{}).Key) },
		"empty":           func() { r.write(t, "key", nil) },
		"no authority":    func() { r.write(t, "ca", []byte("no PEM")) },
		"empty authority": func() { r.write(t, "ca", nil) },
		"missing": func() {
			if err := os.Remove(filepath.Join(r.dir, "cert")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		r.log.Reset()
		breaks()
		r.checks(t, 5)
		r.serves(t, first)
		if log := r.log.String(); strings.Count(log, "\n") != 1 || !strings.Contains(log, "level=WARN") ||
			!strings.Contains(log, "MIRROR_TLS_") {
			t.Errorf("%s: log = %s; want one warning that names the setting", name, log)
		}
		// The old files again, as after a deployment that was taken back.
		r.replace(t, first)
		r.write(t, "ca", r.authority.PEM)
		r.checks(t, 2)
		r.serves(t, first)
	}
}

func TestClientCertificates(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	present := func(p tlstest.Pair) {
		t.Helper()
		pair, err := tls.X509KeyPair(p.Cert, p.Key)
		if err != nil {
			t.Fatal(err)
		}
		// Also one whose authority the server does not name.
		r.client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	if _, got, err := r.connect(t); err != nil || len(got.VerifiedChains) != 0 {
		t.Errorf("without a certificate: %v, %d chains", err, len(got.VerifiedChains))
	}
	valid := r.authority.Issue(t, x509.Certificate{DNSNames: []string{"reader"}})
	present(valid)
	if _, got, err := r.connect(t); err != nil || got.VerifiedChains[0][0].DNSNames[0] != "reader" {
		t.Errorf("with a certificate: %v", err)
	}
	now := time.Now()
	for name, pair := range map[string]tlstest.Pair{
		"another authority": tlstest.NewAuthority(t).Issue(t, x509.Certificate{}),
		"expired":           r.authority.Issue(t, x509.Certificate{NotAfter: now.Add(-time.Minute)}),
		"not yet valid":     r.authority.Issue(t, x509.Certificate{NotBefore: now.Add(time.Hour)}),
		"for servers": r.authority.Issue(t, x509.Certificate{
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}),
	} {
		present(pair)
		if _, _, err := r.connect(t); err == nil {
			t.Errorf("%s: the connection was accepted", name)
		}
	}

	// An authority that is removed is believed no more, not even about a session that began
	// with it.
	present(valid)
	r.client.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	if _, _, err := r.connect(t); err != nil {
		t.Fatal(err)
	}
	r.write(t, "ca", tlstest.NewAuthority(t).PEM)
	r.checks(t, 2)
	if _, got, err := r.connect(t); err == nil {
		t.Errorf("after its authority was removed, the certificate was accepted; resumed: %v", got.DidResume)
	}
}

func TestProtocols(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		r.client.MaxVersion = version
		if got, _, err := r.connect(t); err != nil || got.Version != version || got.NegotiatedProtocol != "h2" {
			t.Errorf("%s: %v, %s", tls.VersionName(version), err, got.NegotiatedProtocol)
		}
	}
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		r.client.MaxVersion = version
		if _, _, err := r.connect(t); err == nil {
			t.Errorf("%s was accepted", tls.VersionName(version))
		}
	}
	r.client.MaxVersion, r.client.NextProtos = 0, []string{"spdy/3"}
	if _, _, err := r.connect(t); err == nil {
		t.Error("a protocol that is not spoken was accepted")
	}
}

func TestExpiryIsTold(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	leaf := r.used.Load().pairs[0].Leaf
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	at := func(share float64) {
		moment := leaf.NotBefore.Add(time.Duration(share * float64(life)))
		r.now = func() time.Time { return moment }
		r.checks(t, 3)
	}
	at(0.85)
	if log := r.log.String(); log != "" {
		t.Errorf("early: log = %s", log)
	}
	at(0.95)
	at(1.05)
	if log := r.log.String(); strings.Count(log, "\n") != 1 || !strings.Contains(log, "expires") {
		t.Errorf("late: log = %s; want one warning", log)
	}
	r.log.Reset()
	r.replace(t, r.authority.Issue(t, x509.Certificate{NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter}))
	at(0.95)
	if log := r.log.String(); strings.Count(log, "WARN") != 1 {
		t.Errorf("the next certificate: log = %s; want a warning of its own", log)
	}
}

// Run finds new files by itself.
func TestRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		next := r.authority.Issue(t, x509.Certificate{})
		r.replace(t, next)
		time.Sleep(2*checkEvery + time.Nanosecond) //nolint:forbidigo // synctest's clock
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v", err)
		}
		if r.used.Load().cert != string(next.Cert) {
			t.Error("the new certificate is not in use")
		}
	})
}

func TestWrongFiles(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	secret := string(r.authority.Issue(t, x509.Certificate{}).Key)
	other := r.write(t, "other", []byte(secret))
	text := r.write(t, "text", []byte("no PEM"))
	for _, c := range []struct {
		cert, key, ca string
		want          string
	}{
		{"/nowhere", r.paths.TLSKey, "", "MIRROR_TLS_CERT is \"/nowhere\", which cannot be read"},
		{r.paths.TLSCert, r.dir, "", "MIRROR_TLS_KEY is "},
		{r.paths.TLSCert, secret, "", "MIRROR_TLS_KEY contains PEM; it must be the path"},
		{r.paths.TLSCert, "Bag Attributes\n" + secret, "", "MIRROR_TLS_KEY contains PEM; it must be the path"},
		{text, r.paths.TLSKey, "", "MIRROR_TLS_CERT and MIRROR_TLS_KEY cannot be used"},
		{r.paths.TLSCert, other, "", "MIRROR_TLS_CERT and MIRROR_TLS_KEY cannot be used"},
		{r.paths.TLSKey, r.paths.TLSKey, "", "MIRROR_TLS_CERT and MIRROR_TLS_KEY cannot be used"},
		{r.paths.TLSCert, r.paths.TLSKey, "/nowhere", "MIRROR_TLS_CLIENT_CA is \"/nowhere\""},
		{r.paths.TLSCert, r.paths.TLSKey, text, "MIRROR_TLS_CLIENT_CA names a file without a certificate"},
		{r.paths.TLSCert, r.paths.TLSKey, other, "MIRROR_TLS_CLIENT_CA names a file without a certificate"},
	} {
		_, err := NewServer(config.TLS{TLSCert: c.cert, TLSKey: c.key, TLSClientCA: c.ca}, time.Now,
			slog.New(slog.DiscardHandler))
		if _, ok := errors.AsType[*config.Error](err); !ok || !strings.HasPrefix(err.Error(), c.want) ||
			strings.Contains(err.Error(), "PRIVATE KEY") {
			t.Errorf("NewServer = %v; want %q", err, c.want)
		}
		if c.ca != "" {
			continue
		}
		_, err = Client(config.Client{ClientCert: c.cert, ClientKey: c.key})
		want := strings.ReplaceAll(c.want, "TLS_", "CLIENT_")
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "PRIVATE KEY") {
			t.Errorf("Client = %v; want %q", err, want)
		}
	}
	for _, ca := range []string{"/nowhere", text} {
		if _, err := Client(config.Client{ServerCA: ca}); err == nil || !strings.HasPrefix(err.Error(), "MIRROR_SERVER_CA") {
			t.Errorf("Client with the authority %s = %v", ca, err)
		}
	}
	if s, err := NewServer(config.TLS{}, time.Now, slog.New(slog.DiscardHandler)); s != nil || err != nil {
		t.Errorf("NewServer without settings = %v, %v; want nothing", s, err)
	}
}

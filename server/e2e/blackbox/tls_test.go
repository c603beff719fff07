package blackbox_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/tlsfiles/tlstest"
)

// secured is a service with TLS on all its addresses.
type secured struct {
	*harness.Service

	dir       string
	authority *tlstest.Authority
	tls       *tls.Config // of clients
}

// startSecured starts the service with a certificate in files.
func startSecured(t *testing.T) *secured {
	t.Helper()
	s := &secured{dir: t.TempDir(), authority: tlstest.NewAuthority(t)}
	s.tls = &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	s.tls.RootCAs.AppendCertsFromPEM(s.authority.PEM)
	s.replace(t)
	s.Service, _ = start(t, map[string]string{
		"MIRROR_API_TOKEN": token, "MIRROR_WEBHOOK_ADDR": "127.0.0.1:0",
		"MIRROR_TLS_CERT": filepath.Join(s.dir, "cert"), "MIRROR_TLS_KEY": filepath.Join(s.dir, "key"),
	})
	return s
}

// replace writes files with a new certificate and returns it.
func (s *secured) replace(t *testing.T) (cert []byte) {
	t.Helper()
	pair := s.authority.Issue(t, x509.Certificate{})
	tlstest.Write(t, s.dir, "cert", pair.Cert)
	tlstest.Write(t, s.dir, "key", pair.Key)
	block, _ := pem.Decode(pair.Cert)
	return block.Bytes
}

// client returns an HTTP client with connections of its own.
func (s *secured) client(keepAlive bool) *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		TLSClientConfig: s.tls.Clone(), ForceAttemptHTTP2: true, DisableKeepAlives: !keepAlive,
	}}
}

// call makes a request and returns the status and the version of HTTP of its answer, and an
// error unless that is 200.
func call(ctx context.Context, c *http.Client, method, url string, header http.Header, body []byte) (
	status, version int, _ error,
) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, 0, err
	}
	req.Header = header
	resp, err := c.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s = %s: %s", method, url, resp.Status, text)
	}
	return resp.StatusCode, resp.ProtoMajor, err
}

// dial returns a connection of its own over gRPC.
func (s *secured) dial() (*grpc.ClientConn, error) {
	return grpc.NewClient(s.GRPCAddr, grpc.WithTransportCredentials(credentials.NewTLS(s.tls.Clone())))
}

func getStatus(ctx context.Context, conn *grpc.ClientConn) error {
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	_, err := mirrorv1.NewAdminServiceClient(conn).GetStatus(ctx, &mirrorv1.GetStatusRequest{})
	return err
}

// Every address speaks TLS and nothing else, and gives the same answers as without.
func TestTLSOnEveryAddress(t *testing.T) {
	t.Parallel()
	s := startSecured(t)
	for _, url := range []string{
		"https://" + s.HTTPAddr + "/v1/rooms", "https://" + s.HTTPAddr + "/readyz", "https://" + s.WebhookAddr + "/healthz",
	} {
		_, version, err := call(t.Context(), s.client(true), http.MethodGet, url, bearer(token), nil)
		if err != nil || version != 2 {
			t.Errorf("%s: %v; want 200 over HTTP/2", url, err)
		}
		// A client that knows HTTP/1.1 only.
		old := &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: s.tls.Clone()}}
		if _, version, err := call(t.Context(), old, http.MethodGet, url, bearer(token), nil); err != nil || version != 1 {
			t.Errorf("%s: %v; want 200 over HTTP/1.1", url, err)
		}
		plain := strings.Replace(url, "https", "http", 1)
		if _, _, err := call(t.Context(), client, http.MethodGet, plain, bearer(token), nil); err == nil {
			t.Errorf("%s was answered; want no plain HTTP", plain)
		}
		if _, _, err := call(t.Context(), client, http.MethodGet, url, nil, nil); err == nil {
			t.Errorf("%s was answered to a client that does not know the authority", url)
		}
	}
	if status, _, err := call(t.Context(), s.client(true), http.MethodGet, "https://"+s.HTTPAddr+"/v1/rooms", nil,
		nil); status != http.StatusUnauthorized {
		t.Errorf("without a token: %v; want 401", err)
	}
	d := harness.SignEvent(t, fake.Event{Type: fake.StorageUpdated, RoomID: "room", Time: time.Now()})
	if _, _, err := call(t.Context(), s.client(true), http.MethodPost,
		"https://"+s.WebhookAddr+"/v1/webhooks/liveblocks", d.Header, d.Body); err != nil {
		t.Errorf("webhook: %v", err)
	}
	conn, err := s.dial()
	must(t, err)
	defer conn.Close()
	if err := getStatus(t.Context(), conn); err != nil {
		t.Errorf("GetStatus = %v", err)
	}
	if err := getStatus(t.Context(), s.Dial(t)); err == nil {
		t.Error("plaintext gRPC was answered")
	}

	ca := tlstest.Write(t, s.dir, "ca", s.authority.PEM)
	env := map[string]string{"MIRROR_API_TOKEN": token, "MIRROR_SERVER": "https://" + s.GRPCAddr}
	if got := command(t, with(env, "MIRROR_SERVER_CA", ca), "backfill"); got.code != 0 {
		t.Errorf("backfill with TLS = %+v", got)
	}
	for _, c := range []struct{ server, ca, want string }{
		{"https://" + s.GRPCAddr, "", "set MIRROR_SERVER_CA"},
		{"https://" + strings.Replace(s.GRPCAddr, "127.0.0.1", "localhost", 1), ca, "not valid for any names"},
		{s.GRPCAddr, "", "begin with https://"},
	} {
		env := map[string]string{"MIRROR_API_TOKEN": token, "MIRROR_SERVER": c.server, "MIRROR_SERVER_CA": c.ca}
		if got := command(t, env, "verify"); got.code != 1 || !strings.Contains(got.told, c.want) ||
			strings.Count(got.told, "\n") != 1 {
			t.Errorf("verify at %s = %+v; want %q in one line", c.server, got, c.want)
		}
	}
}

// A new certificate is used without a restart, and no call fails meanwhile: neither on
// open connections nor on new ones.
func TestCertificateRotation(t *testing.T) {
	t.Parallel()
	s := startSecured(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var calls, failed atomic.Int64
	var load sync.WaitGroup
	every := func(what string, f func() error) {
		load.Go(func() {
			for ctx.Err() == nil {
				if err := f(); err != nil && ctx.Err() == nil {
					failed.Add(1)
					t.Errorf("%s: %v", what, err)
				}
				calls.Add(1)
			}
		})
	}
	for _, keep := range []bool{true, false} {
		c := s.client(keep)
		t.Cleanup(c.CloseIdleConnections)
		every("read", func() error {
			_, _, err := call(ctx, c, http.MethodGet, "https://"+s.HTTPAddr+"/v1/rooms", bearer(token), nil)
			return err
		})
		every("webhook", func() error {
			d := harness.SignEvent(t, fake.Event{Type: fake.StorageUpdated, RoomID: "room", Time: time.Now()})
			_, _, err := call(ctx, c, http.MethodPost, "https://"+s.WebhookAddr+"/v1/webhooks/liveblocks", d.Header, d.Body)
			return err
		})
	}
	conn, err := s.dial()
	must(t, err)
	defer conn.Close()
	every("open gRPC", func() error { return getStatus(ctx, conn) })
	every("new gRPC", func() error {
		conn, err := s.dial()
		if err != nil {
			return err
		}
		return errors.Join(getStatus(ctx, conn), conn.Close())
	})
	for range 2 {
		want := s.replace(t)
		for _, addr := range []string{s.HTTPAddr, s.GRPCAddr, s.WebhookAddr} {
			harness.Eventually(t, patience, func() error {
				plain, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
				if err != nil {
					return err
				}
				conn := tls.Client(plain, &tls.Config{
					RootCAs: s.tls.RootCAs, ServerName: "127.0.0.1", NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12,
				})
				defer conn.Close()
				if err := conn.HandshakeContext(ctx); err != nil {
					return err
				}
				if got := conn.ConnectionState().PeerCertificates[0].Raw; !bytes.Equal(got, want) {
					return fmt.Errorf("%s has the old certificate", addr)
				}
				return nil
			})
		}
	}
	stop()
	load.Wait()
	if calls.Load() < 100 || failed.Load() > 0 {
		t.Errorf("%d of %d calls failed; want none of 100 or more", failed.Load(), calls.Load())
	}
	if log := s.Log(); strings.Contains(log, "WARN") || strings.Count(log, "the new TLS files are in use") != 2 {
		t.Errorf("log = %s; want two certificates taken over without a warning", log)
	}
}

// The commands on TLS and on client certificates work as they stand there.
func TestPageOnTLS(t *testing.T) {
	t.Parallel()
	needServers(t)
	own := blocks(t, "TLS.md", "Certificates of the service")
	clients := blocks(t, "TLS.md", "Client certificates")
	for name, commands := range map[string][]string{"service": own, "clients": slices.Concat(own[:1], clients)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := runPage(t, t.TempDir(), commands, nil)
			want := []string{`"status":"ready"`, `"status": "SERVING"`, "done: 1 rooms listed"}
			if name == "clients" {
				want = []string{`"roomId":"team-a:1"`, `"roomId": "team-a:1"`, "done: 1 rooms listed"}
			}
			for _, want := range want {
				if !strings.Contains(got, want) {
					t.Errorf("the commands print %s; want %s in it", got, want)
				}
			}
		})
	}
}

// blocks returns the indented blocks of a section of a document.
func blocks(t *testing.T, document, section string) (list []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../../docs", document))
	must(t, err)
	_, of, ok := strings.Cut(string(text), "\n## "+section+"\n")
	if !ok && section != "" {
		t.Fatalf("%s has no section %s", document, section)
	}
	if section == "" {
		of = string(text)
	}
	of, _, _ = strings.Cut(of, "\n## ")
	inside := false
	for line := range strings.Lines(of) {
		command, ok := strings.CutPrefix(line, "    ")
		switch {
		case ok && !inside:
			list = append(list, command)
		case ok:
			list[len(list)-1] += command
		}
		inside = ok
	}
	return list
}

// runPage runs commands of a document in a folder, one after the other, and returns them with what they
// print. The service that they start has a database and a Liveblocks with one room.
func runPage(t *testing.T, dir string, commands []string, replace []string) string {
	t.Helper()
	upstream := harness.NewFake(t)
	must(t, upstream.CreateRoom("team-a:1", fake.RoomOptions{Storage: storage("1")}))
	ready, mirrored := filepath.Join(dir, "ready"), filepath.Join(dir, "mirrored")
	grpcAddr, httpAddr := freeAddr(t), freeAddr(t)
	script := strings.NewReplacer(append(replace, "localhost:9090", "localhost"+port(grpcAddr),
		"localhost:8080", "localhost"+port(httpAddr))...).Replace(strings.Join(commands, ""))
	prelude := fmt.Sprintf(`
grpcurl() { %[1]q "$@"; }
mirror() {
	if [ "$1" != serve ]; then %[2]q "$@"; return; fi
	%[2]q "$@" >log 2>&1 &
	until [ -e %[3]q ] && [ -e %[4]q ]; do kill -0 $! || { cat log; exit 1; }; sleep 0.1; done
}
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT
set -v
`, grpcurl(t), harness.Binary(t), ready, mirrored)
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	url := database(t)
	db := dbtest.Postgres.Connect(t, url)
	var wg sync.WaitGroup
	defer func() { cancel(); wg.Wait() }()
	wg.Go(func() { // the first sweep requests the room, which is fetched a little later
		for rooms := 0; rooms == 0; {
			if clock.Sleep(ctx, 50*time.Millisecond) != nil {
				return
			}
			_ = db.QueryRowContext(ctx, "select count(*) from mirror_room").Scan(&rooms) // fails until there is the table
		}
		if err := os.WriteFile(mirrored, nil, 0o600); err != nil {
			t.Error(err)
		}
	})
	cmd := exec.CommandContext(ctx, "bash", "-euc", prelude+script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DATABASE_URL="+url, "LIVEBLOCKS_BASE_URL="+upstream.URL,
		"LIVEBLOCKS_SECRET_KEY="+harness.SecretKey, "LIVEBLOCKS_WEBHOOK_SECRET="+harness.WebhookSecret,
		"MIRROR_READY_FILE="+ready, "MIRROR_HTTP_ADDR="+httpAddr, "MIRROR_GRPC_ADDR="+grpcAddr)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func port(addr string) string { return addr[strings.LastIndexByte(addr, ':'):] }

// A client certificate says who calls, over HTTP and gRPC, until its entry is removed.
func TestClientCertificate(t *testing.T) {
	t.Parallel()
	needServers(t)
	dir, authority := t.TempDir(), tlstest.NewAuthority(t)
	own := authority.Issue(t, x509.Certificate{})
	entry := func(name string) []byte {
		return []byte("keys: [{id: reports1, name: reports, certificates: ['" + name +
			"'], scopes: [read], projects: ['*'], room_prefixes: ['team-a:']}]\n")
	}
	file := tlstest.Write(t, dir, "keys", entry("DNS:reports"))
	service, _ := start(t, map[string]string{
		"MIRROR_TLS_CERT": tlstest.Write(t, dir, "cert", own.Cert), "MIRROR_TLS_KEY": tlstest.Write(t, dir, "key", own.Key),
		"MIRROR_TLS_CLIENT_CA": tlstest.Write(t, dir, "ca", authority.PEM), "MIRROR_KEYS_FILE": file,
		"MIRROR_API_TOKEN": token,
	})
	s := &secured{Service: service, tls: &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}}
	s.tls.RootCAs.AppendCertsFromPEM(authority.PEM)
	with := func(names ...string) *secured {
		pair := authority.Issue(t, x509.Certificate{DNSNames: names})
		certificate, err := tls.X509KeyPair(pair.Cert, pair.Key)
		must(t, err)
		c := *s
		c.tls = s.tls.Clone()
		c.tls.Certificates = []tls.Certificate{certificate}
		return &c
	}
	statusOf := func(c *http.Client, path string, header http.Header) int {
		status, _, err := call(t.Context(), c, http.MethodGet, "https://"+s.HTTPAddr+path, header, nil)
		if status == 0 {
			t.Fatal(err)
		}
		return status
	}
	reports := with("reports").client(true)
	defer reports.CloseIdleConnections()
	for _, c := range []struct {
		what   string
		client *http.Client
		path   string
		header http.Header
		want   int
	}{
		{"its scope", reports, "/v1/rooms", nil, 200},
		{"another scope", reports, "/v1/events", nil, 403},
		{"the token counts", reports, "/v1/events", bearer(token), 200},
		{"a wrong token counts", reports, "/v1/rooms", bearer(token + "x"), 401},
		{"no certificate", s.client(false), "/v1/rooms", nil, 401},
		{"another name", with("other").client(false), "/v1/rooms", nil, 401},
		{"a part of the name", with("reports.example.com").client(false), "/v1/rooms", nil, 401},
		{"a probe", s.client(false), "/readyz", nil, 200},
	} {
		if got := statusOf(c.client, c.path, c.header); got != c.want {
			t.Errorf("%s: %d; want %d", c.what, got, c.want)
		}
	}
	list := func(conn *grpc.ClientConn) error {
		_, err := mirrorv1.NewMirrorServiceClient(conn).ListRooms(t.Context(), &mirrorv1.ListRoomsRequest{})
		return err
	}
	conn, err := with("reports").dial()
	must(t, err)
	defer conn.Close()
	if err := list(conn); err != nil {
		t.Errorf("ListRooms with a certificate = %v", err)
	}
	nobody, err := with("other").dial()
	must(t, err)
	defer nobody.Close()
	if err := list(nobody); reasonOf(err) != "CREDENTIAL_INVALID" {
		t.Errorf("ListRooms with another certificate = %v; want CREDENTIAL_INVALID", err)
	}

	// What the file no longer has is refused on open connections too.
	tlstest.Write(t, dir, "keys", entry("DNS:other"))
	harness.Eventually(t, patience, func() error {
		if got := statusOf(reports, "/v1/rooms", nil); got != 401 {
			return fmt.Errorf("the removed certificate over HTTP: %d; want 401", got)
		}
		return nil
	})
	if err := list(conn); reasonOf(err) != "CREDENTIAL_INVALID" {
		t.Errorf("ListRooms with the removed certificate = %v; want CREDENTIAL_INVALID", err)
	}
	if err := list(nobody); err != nil {
		t.Errorf("ListRooms with the certificate that was added = %v", err)
	}
}

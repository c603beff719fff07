// Package harness runs the real binary for the end-to-end tests. It builds the
// binary once, starts it against a database and an upstream, signs and posts
// webhooks, and stops or kills it.
package harness

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/pgtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/webhook"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/app"
)

const (
	// SecretKey is the API key the fake accepts and the service is given.
	SecretKey = "sk_test_harness"
	// WebhookSecret signs the webhooks. It is that of the recorded vectors.
	WebhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	// LiveblocksProject is how webhooks name their project.
	LiveblocksProject = "605a50b01a36d5ea7a2e9104"
	// startTimeout bounds the start of the binary, schema included, on a machine
	// that runs other tests as well.
	startTimeout = 60 * time.Second
)

// built is the folder that build made; empty until the program is needed.
var built string

var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "liveblocks-mirror-e2e-")
	if err != nil {
		return "", err
	}
	built = dir
	if err := os.Chmod(dir, 0o711); err != nil { // for tests that run it as another account
		return "", err
	}
	bin := filepath.Join(dir, "liveblocks-mirror")
	out, err := exec.Command("go", "build", "-o", bin,
		"github.com/liveblocks-mirror/liveblocks-mirror/server/cmd/liveblocks-mirror").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w: %s", err, out)
	}
	return bin, nil
})

// Clean removes the program, if it was built. It is for the end of a TestMain.
func Clean() {
	if built != "" {
		_ = os.RemoveAll(built)
	}
}

// Binary builds the program once for the test binary and returns its path.
func Binary(t testing.TB) string {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// Fake is a fake Liveblocks behind a real listener.
type Fake struct {
	*fake.Server
	URL string

	listener *httptest.Server
}

// Close ends all connections and the listener, as in an outage.
func (f *Fake) Close() {
	f.listener.CloseClientConnections()
	f.listener.Close()
}

// NewFake starts a fake that ends with the test.
func NewFake(t testing.TB) *Fake {
	t.Helper()
	f := &Fake{Server: fake.New(SecretKey)}
	s := httptest.NewServer(f.Server)
	t.Cleanup(s.Close)
	f.URL, f.listener = s.URL, s
	return f
}

// Options say how to start the service. Env adds to and overrides the defaults;
// an empty value leaves a variable out. Args follow `serve`.
type Options struct {
	DatabaseURL string
	UpstreamURL string
	Env         map[string]string
	Args        []string
	// Credential is the account to run as; nil means our own.
	Credential *syscall.Credential
}

// Dir makes a folder that belongs to an account, ours if it is nil, and that
// every account may pass through, unlike that of [testing.T.TempDir].
func Dir(t testing.TB, owner *syscall.Credential) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "liveblocks-mirror-e2e-") //nolint:usetesting // other accounts have to reach it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The embedded server of a service that was killed may still write there, until it misses its
		// own files.
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		for err := os.RemoveAll(dir); err != nil; err = os.RemoveAll(dir) {
			if clock.Sleep(ctx, 50*time.Millisecond) != nil {
				t.Errorf("remove folder: %v", err)
				return
			}
		}
	})
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	if owner != nil {
		if err := os.Chown(dir, int(owner.Uid), int(owner.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Service is a running binary.
type Service struct {
	app.Ready
	cmd  *exec.Cmd
	log  *lockedBuffer
	done chan struct{}
	err  error
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Command prepares the binary with a clean environment plus env, whose empty
// values are left out.
func Command(ctx context.Context, t testing.TB, env map[string]string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(ctx, Binary(t), args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	for k, v := range env {
		if v != "" {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
	}
	return cmd
}

// Start starts `serve` and returns once it is ready. It is killed at the end of
// the test if it still runs then.
func Start(t testing.TB, o Options) *Service {
	t.Helper()
	home := Dir(t, o.Credential)
	ready := filepath.Join(home, "ready.json")
	database := o.DatabaseURL
	if strings.HasPrefix(database, "postgres") {
		database, _ = pgtest.Front(t, database)
	}
	env := map[string]string{
		"DATABASE_URL":              database,
		"LIVEBLOCKS_BASE_URL":       o.UpstreamURL,
		"LIVEBLOCKS_SECRET_KEY":     SecretKey,
		"LIVEBLOCKS_WEBHOOK_SECRET": WebhookSecret,
		"MIRROR_HTTP_ADDR":          "127.0.0.1:0",
		"MIRROR_GRPC_ADDR":          "127.0.0.1:0",
		"MIRROR_READY_FILE":         ready,
		"HOME":                      home,
		"MIRROR_MIGRATE":            "true",
		"MIRROR_LOG_LEVEL":          "debug", // checkSecrets reads it
		"MIRROR_LEASE_TTL":          "3s",
		"MIRROR_SETTLE":             "200ms",
		"MIRROR_BUSY_POLL":          "500ms",
		"MIRROR_BACKOFF_MIN":        "50ms",
		"MIRROR_BACKOFF_MAX":        "1s",
		// Tests want the fake, not the limit, to be what is slow.
		"MIRROR_LIVEBLOCKS_CALLS_PER_SECOND": "5000",
		"MIRROR_STOP_GRACE":                  "10s",
		// Tests count calls, and let them wait.
		"MIRROR_LIVEBLOCKS_HEDGE_SHARE":  "0",
		"MIRROR_LIVEBLOCKS_IDLE_TIMEOUT": "10m",
		// Sweeps would mend what a test wants to see mended by something else.
		"MIRROR_SWEEP_INTERVAL":      "0",
		"MIRROR_FULL_SWEEP_INTERVAL": "0",
	}
	if dbtest.Admin(o.DatabaseURL) != o.DatabaseURL { // the service's role may not migrate, and need not
		env["MIRROR_MIGRATE"] = ""
	}
	for k, v := range o.Env {
		env[k] = v
	}
	args := append([]string{"serve"}, o.Args...)
	s := &Service{cmd: Command(context.Background(), t, env, args...), log: &lockedBuffer{}, done: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if o.Credential != nil {
		s.cmd.Dir = home
		s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: o.Credential}
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.err = s.cmd.Wait(); close(s.done) }() // Kill and Stop wait for it
	t.Cleanup(func() {
		s.Kill()
		checkSecrets(t, env, s.log.String())
		if t.Failed() {
			t.Logf("log of the service:\n%s", s.log.String())
		}
	})
	Eventually(t, startTimeout, func() error {
		select {
		case <-s.done:
			t.Fatalf("the service ended while starting: %v\n%s", s.err, s.log.String())
		default:
		}
		b, err := os.ReadFile(ready)
		if err != nil {
			return err
		}
		return json.Unmarshal(b, &s.Ready)
	})
	return s
}

// secrets are those that tests have made up beside the settings.
var secrets sync.Map

// Secret makes every later check of a log look for a secret, and returns it.
func Secret(secret string) string {
	secrets.Store(secret, nil)
	return secret
}

// checkSecrets makes sure that no secret of the settings, nor one made known by [Secret],
// is in what a process has printed.
func checkSecrets(t testing.TB, env map[string]string, printed string) {
	t.Helper()
	check := func(what, secret string) {
		if len(secret) >= 8 && strings.Contains(printed, secret) {
			t.Errorf("the service printed %s", what)
		}
	}
	for _, name := range []string{"LIVEBLOCKS_SECRET_KEY", "LIVEBLOCKS_WEBHOOK_SECRET", "MIRROR_API_TOKEN"} {
		for secret := range strings.SplitSeq(env[name], ",") {
			check(name, secret)
			check(name, strings.TrimPrefix(secret, "whsec_"))
		}
	}
	for _, name := range []string{"DATABASE_URL", "DATABASE_DIRECT_URL"} {
		if u, err := url.Parse(env[name]); err == nil {
			password, _ := u.User.Password()
			check("the password of "+name, password)
		}
	}
	secrets.Range(func(secret, _ any) bool {
		check("a secret of a test", fmt.Sprint(secret))
		return true
	})
}

// Kill ends the process with SIGKILL and waits until it is gone.
func (s *Service) Kill() {
	_ = s.cmd.Process.Kill()
	<-s.done
}

// Stop asks the process to stop and returns how it ended and how long it took.
func (s *Service) Stop(t testing.TB) (time.Duration, error) {
	t.Helper()
	begin := time.Now()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-s.done
	return time.Since(begin), s.err
}

// Pid is the process id.
func (s *Service) Pid() int { return s.cmd.Process.Pid }

// Log is what the process has printed so far.
func (s *Service) Log() string { return s.log.String() }

// URL leads to a path of the HTTP gateway.
func (s *Service) URL(path string) string { return "http://" + s.HTTPAddr + path }

// Dial connects over gRPC; the connection ends with the test.
func (s *Service) Dial(t testing.TB) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(s.GRPCAddr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// Mirror is a client of the MirrorService.
func (s *Service) Mirror(t testing.TB) mirrorv1.MirrorServiceClient {
	t.Helper()
	return mirrorv1.NewMirrorServiceClient(s.Dial(t))
}

// Admin is a client of the AdminService.
func (s *Service) Admin(t testing.TB) mirrorv1.AdminServiceClient {
	t.Helper()
	return mirrorv1.NewAdminServiceClient(s.Dial(t))
}

// Delivery is a signed webhook.
type Delivery struct {
	ID     string
	Body   []byte
	Header http.Header
}

// Sign signs body as of now under a fresh id.
func Sign(t testing.TB, body []byte) Delivery {
	t.Helper()
	return SignAs(t, "msg_"+rand.Text(), time.Now(), body)
}

// SignAs signs body under an id and a time.
func SignAs(t testing.TB, id string, at time.Time, body []byte) Delivery {
	t.Helper()
	return SignWith(t, WebhookSecret, id, at, body)
}

// SignWith signs body with a secret, under an id and a time.
func SignWith(t testing.TB, secret, id string, at time.Time, body []byte) Delivery {
	t.Helper()
	signature, err := webhook.Sign(secret, id, at, body)
	if err != nil {
		t.Fatal(err)
	}
	return Delivery{ID: id, Body: body, Header: http.Header{
		"Content-Type":      {"application/json"},
		"Webhook-Id":        {id},
		"Webhook-Timestamp": {strconv.FormatInt(at.Unix(), 10)},
		"Webhook-Signature": {signature},
	}}
}

// SignEvent signs the webhook of an event of the fake.
func SignEvent(t testing.TB, ev fake.Event) Delivery {
	t.Helper()
	return Sign(t, fake.Payload(ev, LiveblocksProject))
}

var client = &http.Client{
	Timeout:   30 * time.Second,
	Transport: &http.Transport{MaxIdleConnsPerHost: 256},
}

// Do posts the delivery and returns status and body of the answer.
func (d Delivery) Do(ctx context.Context, url string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(d.Body))
	if err != nil {
		return 0, nil, err
	}
	req.Header = d.Header.Clone()
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// Post posts the delivery to the guides' path and returns the status.
func (s *Service) Post(t testing.TB, d Delivery) int {
	t.Helper()
	status, _, err := d.Do(t.Context(), s.URL("/api/liveblocks-webhook"))
	if err != nil {
		t.Fatal(err)
	}
	return status
}

// Get reads a path over HTTP.
func (s *Service) Get(t testing.TB, path string) (int, http.Header, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL(path), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, body
}

// Eventually calls f until it returns nil, and fails the test with its last
// error when that takes longer than timeout.
func Eventually(t testing.TB, timeout time.Duration, f func() error) {
	t.Helper()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("not within %s: %v", timeout, err)
		case <-t.Context().Done():
			t.Fatal(errors.Join(err, t.Context().Err()))
		case <-ticker.C:
		}
	}
}

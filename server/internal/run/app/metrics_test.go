package app_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/app"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/metrics"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
)

// service is one that runs in the process of the test, on PostgreSQL unless the test names
// another database.
type service struct {
	app.Ready

	// stop ends it, and waits for the end.
	stop     func()
	upstream *fake.Server
	client   *http.Client
}

func serve(t *testing.T, change func(cfg *config.Serve)) *service {
	t.Helper()
	return serveWith(t, change, func(ctx context.Context, cfg config.Serve) error {
		return app.Run(ctx, cfg, "test", slog.New(slog.DiscardHandler))
	})
}

func serveWith(t *testing.T, change func(cfg *config.Serve), run func(context.Context, config.Serve) error) *service {
	t.Helper()
	s := &service{upstream: fake.New(apiKey), client: &http.Client{Transport: &http.Transport{}, Timeout: patience}}
	api := httptest.NewServer(s.upstream)
	t.Cleanup(api.Close)
	cfg := config.Defaults()
	cfg.HTTPAddr, cfg.GRPCAddr = "127.0.0.1:0", "127.0.0.1:0"
	cfg.ReadyFile = filepath.Join(t.TempDir(), "ready.json")
	cfg.SecretKey, cfg.BaseURL, cfg.CallsPerSecond = config.NewSecret(apiKey), api.URL, 5000
	cfg.WebhookSecret = []config.Secret{config.NewSecret(secret)}
	cfg.Settle, cfg.Sweep, cfg.FullSweep, cfg.StopGrace = 0, 0, 0, 10*time.Second
	change(&cfg)
	if cfg.DatabaseURL.Reveal() == "" {
		dbtest.Postgres.Need(t)
		cfg.DatabaseURL = config.NewSecret(dbtest.Postgres.Database(t))
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, cfg) }() // awaited below
	s.stop = sync.OnceFunc(func() {
		s.client.CloseIdleConnections()
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v; want nil", err)
		}
	})
	t.Cleanup(s.stop)
	eventually(t, func() error {
		b, err := os.ReadFile(cfg.ReadyFile)
		if err != nil {
			return err
		}
		return json.Unmarshal(b, &s.Ready)
	})
	return s
}

// get reads a path of an address.
func (s *service) get(t *testing.T, addr, path, token string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// series returns the series of a scrape, without their values.
func series(scrape string) []string {
	var list []string
	for line := range strings.Lines(scrape) {
		if name, _, ok := strings.Cut(line, " "); ok && !strings.HasPrefix(line, "#") {
			list = append(list, name)
		}
	}
	return list
}

// A thousand rooms and users have as many series as ten, none of which names one of
// them, and only metrics that are documented.
func TestSeriesDoNotGrow(t *testing.T) {
	t.Parallel()
	s := serve(t, func(*config.Serve) {})
	conn, err := grpc.NewClient(s.GRPCAddr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	admin, reads := mirrorv1.NewAdminServiceClient(conn), mirrorv1.NewMirrorServiceClient(conn)

	// live lets people enter rooms, and returns the series once all is mirrored and read.
	live := func(from, to int) []string {
		t.Helper()
		var group errgroup.Group
		group.SetLimit(16)
		for n := from; n < to; n++ {
			room, user := fmt.Sprintf("marked-room-%d", n), fmt.Sprintf("marked-user-%d", n)
			group.Go(func() error {
				if err := s.upstream.CreateRoom(room, fake.RoomOptions{
					Storage: []byte(`{"liveblocksType":"LiveObject","data":{"v":1}}`),
				}); err != nil {
					return err
				}
				for _, event := range []fake.Event{
					{Type: fake.RoomCreated, RoomID: room, Time: time.Now()},
					{Type: fake.UserEntered, RoomID: room, UserID: user, ConnectionID: 1, ActiveUsers: 1, Time: time.Now()},
				} {
					id := fmt.Sprintf("marked-event-%s-%d", event.Type, n)
					if status := deliverAs(t, s.client, "http://"+s.HTTPAddr+"/api/liveblocks-webhook", id, event); status != 200 {
						return fmt.Errorf("the delivery %s was answered with %d; want 200", id, status)
					}
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		// Six tasks for each room take seconds, and minutes with the race detector on a busy machine.
		within(t, 8*patience, func() error {
			got, err := admin.GetStatus(t.Context(), &mirrorv1.GetStatusRequest{})
			if err == nil && got.GetProjects()[0].GetPendingTasks() > 0 {
				err = fmt.Errorf("%d tasks are pending", got.GetProjects()[0].GetPendingTasks())
			}
			return err
		})
		for n := from; n < to; n++ {
			room := fmt.Sprintf("marked-room-%d", n)
			if _, err := reads.GetRoom(t.Context(), &mirrorv1.GetRoomRequest{RoomId: room}); err != nil {
				t.Fatal(err)
			}
		}
		status, scrape := s.get(t, s.HTTPAddr, "/metrics", "")
		if status != http.StatusOK || strings.Contains(scrape, "marked") {
			t.Fatalf("/metrics = %d; want no id in it:\n%s", status, scrape)
		}
		return series(scrape)
	}
	few := live(0, 10)
	many := live(10, 1000)
	var added []string
	for _, name := range many {
		if !slices.Contains(few, name) {
			added = append(added, name)
		}
	}
	t.Logf("%d series with 10 rooms and users, %d with 1,000; new: %q", len(few), len(many), added)
	// Few are new, such as a result that did not occur before: not one for each room.
	if len(added) > 100 {
		t.Errorf("%d series with 10 rooms and users, %d with 1,000; want about as many; new: %q", len(few), len(many), added)
	}

	documented := map[string]bool{}
	for _, d := range metrics.Definitions() {
		documented[d.Name] = true
	}
	suffix := regexp.MustCompile(`_(bucket|sum|count)$`)
	for _, name := range many {
		name, _, _ = strings.Cut(name, "{")
		if !documented[name] && !documented[suffix.ReplaceAllString(name, "")] && !strings.HasPrefix(name, "go_") &&
			!strings.HasPrefix(name, "process_") {
			t.Errorf("%s is in a scrape, and not documented", name)
		}
	}
}

// The metrics need the scope on both addresses, and an address of their own serves
// nothing else.
func TestMetricsNeedTheScope(t *testing.T) {
	t.Parallel()
	keys := map[string]string{}
	entry := func(name string, scope string, projects []mirror.ProjectID, prefixes ...string) access.KeyEntry {
		key, _ := access.NewKey()
		keys[name] = key
		e := access.NewEntry(key)
		e.Name, e.Scopes, e.Projects, e.RoomPrefixes = name, []string{scope}, projects, prefixes
		return e
	}
	text, err := access.FormatKeys([]access.KeyEntry{
		entry("metrics", "metrics", []mirror.ProjectID{"*"}), entry("other project", "metrics", []mirror.ProjectID{"other"}),
		entry("some rooms", "metrics", []mirror.ProjectID{"*"}, "a:"), entry("read", "read", []mirror.ProjectID{"*"}),
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "keys.yaml")
	if err := os.WriteFile(file, []byte("keys:\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, addr := range map[string]string{"on the HTTP address": "", "apart": "127.0.0.1:0"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, func(cfg *config.Serve) { cfg.KeysFile, cfg.MetricsAddr = file, addr })
			at := s.HTTPAddr
			if addr != "" {
				at = s.MetricsAddr
				for path, on := range map[string]string{"/metrics": s.HTTPAddr, "/healthz": at, "/v1/rooms": at, "/": at} {
					if status, body := s.get(t, on, path, keys["metrics"]); status != http.StatusNotFound {
						t.Errorf("%s on the wrong address = %d %s; want 404", path, status, body)
					}
				}
			}
			for _, c := range []struct {
				key    string
				status int
				want   string
			}{
				{"", http.StatusUnauthorized, "CREDENTIAL_MISSING"},
				{"read", http.StatusForbidden, "SCOPE_MISSING"},
				{"some rooms", http.StatusForbidden, "ROOMS_LIMITED"},
				{"other project", http.StatusOK, "mirror_ready 1"},
				{"metrics", http.StatusOK, `mirror_upstream_paused{project="default"} 0`},
				{"metrics", http.StatusOK, `mirror_auth_failures_total{reason="SCOPE_MISSING"} 1`},
			} {
				status, body := s.get(t, at, "/metrics", keys[c.key])
				if status != c.status || !strings.Contains(body, c.want) {
					t.Errorf("/metrics with the key %q = %d %s; want %d %s", c.key, status, body, c.status, c.want)
				}
				if c.key == "other project" && strings.Contains(body, `project="default"`) {
					t.Errorf("/metrics shows a project that the key does not see:\n%s", body)
				}
			}
		})
	}
}

// lockedLog can be read while it is written.
type lockedLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// A type of event that is not chosen in the dashboard, and an endpoint that is switched
// off, are told by the status, the log, the metrics and an alert: sweeps find the changes.
func TestPromtoolAlertsOfChangesWithoutEvent(t *testing.T) {
	t.Parallel()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal("promtool is not on the PATH; install it: apt-get install --no-install-recommends prometheus")
	}
	for name, c := range map[string]struct {
		off       bool // no event comes at all
		paragraph string
	}{
		"Yjs events do not come": {false, "changes-without-an-event"},
		"the endpoint is off":    {true, "events-do-not-arrive"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// How long the event of a change may take; otherwise ten minutes.
			const underway = 3 * time.Second
			var log lockedLog
			s := serveWith(t, func(cfg *config.Serve) {
				cfg.Sweep, cfg.FullSweep = 500*time.Millisecond, 500*time.Millisecond
			}, func(ctx context.Context, cfg config.Serve) error {
				return app.RunImpatiently(ctx, cfg, slog.New(slog.NewTextHandler(&log, nil)), underway)
			})
			conn, err := grpc.NewClient(s.GRPCAddr, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			admin, deliveries := mirrorv1.NewAdminServiceClient(conn), 0
			tell := func(event string) error {
				deliveries++
				status := deliverAs(t, s.client, "http://"+s.HTTPAddr+"/api/liveblocks-webhook", fmt.Sprint("msg_", deliveries),
					fake.Event{Type: event, RoomID: "room", Time: time.Now()})
				if status != http.StatusOK {
					return fmt.Errorf("the delivery of %s was answered with %d; want 200", event, status)
				}
				return nil
			}
			change := func(n int) error {
				return errors.Join(
					s.upstream.SetYdoc("room", "", fmt.Appendf(nil, "\x01\x01\x01\x00\x04\x01\x04note\x05%05d\x00", n)),
					s.upstream.SetStorage("room", fmt.Appendf(nil, `{"liveblocksType":"LiveObject","data":{"v":%d}}`, n)))
			}
			begun := s.upstream.CreateRoom("room", fake.RoomOptions{})
			if err := errors.Join(begun, change(0), tell(fake.RoomCreated)); err != nil {
				t.Fatal(err)
			}
			_, before := s.get(t, s.HTTPAddr, "/metrics", "")
			changes, next := 0, time.Now()
			eventually(t, func() error {
				if !time.Now().Before(next) { // at most one change for each sweep
					changes, next = changes+1, time.Now().Add(time.Second)
					err := change(changes)
					if !c.off {
						err = errors.Join(err, tell(fake.StorageUpdated))
					}
					if err != nil {
						return err
					}
				}
				got, err := admin.GetStatus(t.Context(), &mirrorv1.GetStatusRequest{})
				if err != nil {
					return err
				}
				for _, w := range got.GetProjects()[0].GetWarnings() {
					if strings.HasSuffix(w.GetRunbook(), "#"+c.paragraph) && strings.Contains(w.GetText(), "of kind ydoc") &&
						strings.Contains(w.GetText(), "of kind storage") == c.off {
						return nil
					}
				}
				return fmt.Errorf("warnings = %v; want %s", got.GetProjects()[0].GetWarnings(), c.paragraph)
			})
			_, scrape := s.get(t, s.HTTPAddr, "/metrics", "")
			for kind, want := range map[string]bool{"ydoc": true, "storage": c.off, "thread": false} {
				_, rest, ok := strings.Cut(scrape, `mirror_unannounced_changes_total{kind="`+kind+`",project="default"} `)
				if !ok || strings.HasPrefix(rest, "0\n") == want {
					t.Errorf("the metric of %s = %.20q; want it above zero: %t", kind, rest, want)
				}
			}
			if !strings.Contains(log.String(), `level=WARN msg="sweeps found changes of which no event has come"`) {
				t.Errorf("the log does not tell of it:\n%s", log.String())
			}
			fires := map[string]bool{"ydoc": true, "storage": c.off, "thread": false}
			if out, err := alertsOf(t, promtool, before, scrape, fires); err != nil {
				t.Errorf("promtool: %v\n%s", err, out)
			}
		})
	}
}

// alertsOf lets promtool evaluate the alerts on what two scrapes of a service have of
// changes without an event, a few minutes apart, and compares of which kinds they fire.
func alertsOf(t *testing.T, promtool, before, after string, kinds map[string]bool) (out []byte, err error) {
	t.Helper()
	rules, err := filepath.Abs("../../../../deploy/prometheus/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	series := regexp.MustCompile(`(?m)^(mirror_unannounced_changes_total\{.*\}) (\d+)$`)
	first := map[string]string{}
	for _, m := range series.FindAllStringSubmatch(before, -1) {
		first[m[1]] = m[2]
	}
	var text strings.Builder
	fmt.Fprintf(&text, "rule_files: ['%s']\nevaluation_interval: 1m\ntests:\n  - interval: 1m\n    input_series:\n", rules)
	for _, m := range series.FindAllStringSubmatch(after, -1) {
		fmt.Fprintf(&text, "      - {series: '%s', values: '%sx5 %sx10'}\n", m[1], first[m[1]], m[2])
	}
	text.WriteString("    promql_expr_test:\n")
	for kind, fires := range kinds {
		samples := ""
		if fires {
			samples = "{labels: '{}', value: 1}"
		}
		fmt.Fprintf(&text, "      - expr: count(ALERTS{alertname=\"MirrorChangesWithoutEvent\", alertstate=\"firing\", "+
			"kind=%q})\n        eval_time: 10m\n        exp_samples: [%s]\n", kind, samples)
	}
	file := filepath.Join(t.TempDir(), "test.yml")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return exec.CommandContext(t.Context(), promtool, "test", "rules", file).CombinedOutput()
}

package blackbox_test

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

const alertRules = "../../../deploy/prometheus/alerts.yml"

// scraped is what Prometheus reads from a service at a time: series and whether they are
// counters. A service that does not answer has none.
type scraped struct {
	at       time.Time
	values   map[string]float64
	counters map[string]bool
}

// scrape reads those metrics of a service of which there are alerts.
func scrape(t *testing.T, s *harness.Service) scraped {
	t.Helper()
	got := scraped{time.Now(), map[string]float64{}, map[string]bool{}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL("/metrics"), nil)
	must(t, err)
	req.Header = bearer(token)
	resp, err := client.Do(req)
	if err != nil {
		got.values["up{}"] = 0
		return got
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("/metrics = %d %s", resp.StatusCode, body)
	}
	got.values["up{}"] = 1
	used := string(mustRead(t, alertRules))
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) counter$`).FindAllSubmatch(body, -1) {
		got.counters[string(m[1])] = true
	}
	for _, m := range regexp.MustCompile(`(?m)^(\w+)(\{.*\})? (\S+)$`).FindAllSubmatch(body, -1) {
		if !strings.Contains(used, string(m[1])) {
			continue
		}
		value, err := strconv.ParseFloat(string(m[3]), 64)
		must(t, err)
		labels := string(m[2])
		if labels == "" {
			labels = "{}"
		}
		got.values[string(m[1])+labels] = value
		if strings.HasSuffix(string(m[1]), "_bucket") {
			got.counters[string(m[1])] = true
		}
	}
	return got
}

// quietMinutes is how long a service is as it was before, in the eyes of Prometheus.
const quietMinutes = 20

// fire checks that alerts fire once a service has been for some minutes as it became, and not
// before. What was counted between the two scrapes is counted in each of these minutes, an
// age grows, and everything else stays.
func fire(t *testing.T, before, after scraped, minutes int, alerts []string) {
	t.Helper()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal("promtool is not on the PATH; install it: apt-get install --no-install-recommends prometheus")
	}
	rules, err := filepath.Abs(alertRules)
	must(t, err)
	number := func(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
	var text strings.Builder
	fmt.Fprintf(&text, "rule_files: ['%s']\nevaluation_interval: 1m\ntests:\n", rules)
	text.WriteString("  - interval: 1m\n    input_series:\n")
	names := maps.Clone(before.values)
	maps.Copy(names, after.values)
	for _, series := range slices.Sorted(maps.Keys(names)) {
		name, labels, _ := strings.Cut(strings.TrimSuffix(series, "}"), "{")
		if labels != "" {
			labels += ","
		}
		first, known := before.values[series]
		last, lasts := after.values[series]
		if strings.HasSuffix(name, "_timestamp_seconds") && first != 0 { // promtool's clock begins with 0
			first -= float64(before.at.Unix()) - 60
			last = first
		}
		quiet, then := fmt.Sprintf("_x%d", quietMinutes), fmt.Sprintf("_x%d", minutes)
		if known {
			quiet = fmt.Sprintf("%s+0x%d", number(first), quietMinutes-1)
		}
		if step := 0.0; lasts {
			switch {
			case before.counters[name] || after.counters[name]:
				step = last - first
			case last > first && (name == "mirror_oldest_due_seconds" || name == "mirror_sweep_age_seconds"):
				step = 60
			}
			then = fmt.Sprintf("%s+%sx%d", number(last), number(step), minutes)
		}
		labels += `job="liveblocks-mirror",instance="a"`
		fmt.Fprintf(&text, "      - {series: '%s{%s}', values: '%s %s'}\n", name, labels, quiet, then)
	}
	text.WriteString("    promql_expr_test:\n")
	for _, alert := range alerts {
		expr := fmt.Sprintf(`count(ALERTS{alertname="%s", alertstate="firing"}) > bool 0`, alert)
		fmt.Fprintf(&text, "      - {expr: '%s', eval_time: %dm, exp_samples: []}\n", expr, quietMinutes-1)
		fmt.Fprintf(&text, "      - {expr: '%s', eval_time: %dm, exp_samples: [{labels: '{}', value: 1}]}\n", expr,
			quietMinutes+minutes)
	}
	file := filepath.Join(t.TempDir(), "test.yml")
	must(t, os.WriteFile(file, []byte(text.String()), 0o600))
	if out, err := exec.CommandContext(t.Context(), promtool, "test", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("want %q to fire: promtool: %v\n%s", alerts, err, out)
	}
}

// provoked says what makes alerts fire. Each function makes the service so, and returns once
// the metrics show it.
var provoked = map[string]struct {
	alerts []string
	// minutes is how long the trouble lasts; 60 if zero.
	minutes int
	env     map[string]string
	// silent is a service that no event has come to.
	silent  bool
	provoke func(t *testing.T, p *provocation)
}{
	"nothing comes": {
		alerts: []string{"MirrorNoEvents"}, minutes: 1600, silent: true, provoke: func(*testing.T, *provocation) {},
	},
	"events cease": {alerts: []string{"MirrorNoEvents"}, minutes: 1600, provoke: func(*testing.T, *provocation) {}},
	"the service dies": {
		alerts:  []string{"MirrorDown"},
		provoke: func(_ *testing.T, p *provocation) { p.s.Kill() },
	},
	"an operator pauses": {
		alerts: []string{"MirrorPaused"},
		provoke: func(t *testing.T, p *provocation) {
			t.Helper()
			p.post(t, "/v1/admin/project:pause", `{"reason":"a test"}`)
		},
	},
	"the database takes no writes": {
		alerts: []string{"MirrorNotReady", "MirrorDeliveriesNotRecorded", "MirrorCallsFail"},
		provoke: func(t *testing.T, p *provocation) {
			t.Helper()
			p.database.Refuse(true)
			harness.Eventually(t, patience, func() error {
				status := p.s.Post(t, harness.SignEvent(t, storageUpdated("plan")))
				if ready := p.scrape(t).values["mirror_ready{}"]; status != http.StatusServiceUnavailable || ready != 0 {
					return fmt.Errorf("a delivery was answered %d, mirror_ready is %v; want 503 and 0", status, ready)
				}
				return nil
			})
		},
	},
	"callers and senders are wrong": {
		alerts: []string{"MirrorCredentialsRefused", "MirrorDeliveriesUnauthenticated"},
		provoke: func(t *testing.T, p *provocation) {
			t.Helper()
			for range 60 {
				send(t, http.MethodGet, p.s.URL("/v1/rooms"), bearer("wrong"), nil)
			}
			for range 10 {
				body := fake.Payload(storageUpdated("plan"), harness.LiveblocksProject)
				p.s.Post(t, harness.SignWith(t, "whsec_d3JvbmcgYnV0IGxvbmcgZW5vdWdo", "msg_wrong", time.Now(), body))
			}
		},
	},
	"events of another project come": {
		alerts: []string{"MirrorForeignEvents"},
		provoke: func(t *testing.T, p *provocation) {
			t.Helper()
			p.post(t, "/v1/admin/project:pin", `{"liveblocksProjectId":"`+harness.LiveblocksProject+`"}`)
			other := harness.Sign(t, fake.Payload(storageUpdated("plan"), "another"))
			if status := p.s.Post(t, other); status != http.StatusOK {
				t.Fatalf("the event of another project was answered %d", status)
			}
		},
	},
	"Liveblocks fails": {
		alerts: []string{"MirrorLiveblocksFails", "MirrorTasksFail"},
		env:    map[string]string{"MIRROR_MAX_ATTEMPTS": "2"},
		provoke: func(t *testing.T, p *provocation) {
			t.Helper()
			p.upstream.Script(fake.Match{Endpoint: fake.EndpointStorage}, broken())
			p.tell(t, storageUpdated("plan"))
			p.await(t, `mirror_task_attempts_total{kind="storage",project="default",result="failed"}`, 0)
		},
	},
	"Liveblocks does not answer": {
		alerts: []string{"MirrorBehind"},
		provoke: func(t *testing.T, p *provocation) {
			t.Helper()
			hold := fake.NewHold()
			t.Cleanup(hold.Release)
			p.upstream.Script(fake.Match{Endpoint: fake.EndpointStorage}, hold.Step().Always())
			p.tell(t, storageUpdated("plan"))
			const age = `mirror_oldest_due_seconds{project="default"}`
			p.await(t, age, p.before.values[age]+0.5)
		},
	},
	"events come late": {
		alerts: []string{"MirrorLate"},
		provoke: func(t *testing.T, p *provocation) {
			t.Helper()
			const changes = `mirror_freshness_seconds_bucket{kind="storage",project="default",le="+Inf"}`
			before := p.scrape(t).values[changes]
			ev := storageUpdated("plan")
			ev.Time = time.Now().Add(-4 * time.Minute)
			must(t, p.upstream.SetStorage("plan", storage("2")))
			p.tell(t, ev)
			p.await(t, changes, before)
		},
	},
	"no sweep ends": {
		alerts: []string{"MirrorSweepLate"}, minutes: 300,
		env: map[string]string{"MIRROR_SWEEP_INTERVAL": "100ms"},
		provoke: func(t *testing.T, p *provocation) {
			t.Helper()
			p.upstream.Script(fake.Match{Endpoint: fake.EndpointListRooms}, broken())
			// A sweep that began before may still end well, and another one begins only then.
			harness.Eventually(t, patience, func() error {
				calls := p.upstream.Log()
				for _, c := range calls {
					if c.Endpoint == fake.EndpointListRooms && c.Status == http.StatusInternalServerError {
						return nil
					}
				}
				return fmt.Errorf("no list of rooms has failed in %d calls", len(calls))
			})
			const age = `mirror_sweep_age_seconds{project="default"}`
			p.await(t, age, p.before.values[age]+1)
		},
	},
	"the mirror differs": {
		alerts: []string{"MirrorDrift"},
		provoke: func(t *testing.T, p *provocation) {
			t.Helper()
			must(t, p.upstream.SetStorage("plan", storage("3")))
			p.post(t, "/v1/admin/mirror:verify", "")
		},
	},
	"connections are short": {
		alerts: []string{"MirrorConnectionsShort"},
		provoke: func(t *testing.T, p *provocation) {
			t.Helper()
			const waited = `mirror_store_pool_wait_seconds_total{use="read"}`
			// What waits is counted when it has waited, so rounds of calls wait until it is enough.
			harness.Eventually(t, patience, func() error {
				p.readsWait(t)
				if got := p.scrape(t).values[waited] - p.before.values[waited]; got <= 90 {
					return fmt.Errorf("calls have waited for %v seconds in all; want more than 90", got)
				}
				return nil
			})
		},
	},
}

// unprovoked says why an alert is not provoked here.
var unprovoked = map[string]string{
	"MirrorChangesWithoutEvent": "a change counts ten minutes after it was found; in-process, with less: " +
		"TestPromtoolAlertsOfChangesWithoutEvent",
	"MirrorMemoryFull": "large documents fill the memory for seconds, not for 30 minutes; that it is told then: " +
		"TestLargeDocumentsAtOnce",
}

func broken() fake.Step { return fake.Status(http.StatusInternalServerError, "BROKEN").Always() }

// provocation is a service whose alerts are provoked.
type provocation struct {
	s        *harness.Service
	upstream *harness.Fake
	database *dbtest.Guarded
	db       *dbtest.DB
	// before is what was scraped before the trouble.
	before scraped
}

func (p *provocation) scrape(t *testing.T) scraped { t.Helper(); return scrape(t, p.s) }

func (p *provocation) post(t *testing.T, path, body string) {
	t.Helper()
	got := send(t, http.MethodPost, p.s.URL(path), bearer(token), strings.NewReader(body))
	if got.status != http.StatusOK {
		t.Fatalf("%s = %d %s", path, got.status, got.body)
	}
}

func (p *provocation) tell(t *testing.T, ev fake.Event) {
	t.Helper()
	deliver(t, p.s, ev)
}

// readsWait makes a hundred calls that read a locked table, which is free two seconds later,
// and awaits them.
func (p *provocation) readsWait(t *testing.T) {
	t.Helper()
	unlock := p.db.LockTable(t, "mirror_room", "access exclusive")
	free := time.AfterFunc(2*time.Second, unlock)
	defer free.Stop()
	var calls sync.WaitGroup
	for range 100 {
		calls.Go(func() {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.s.URL("/v1/rooms"), nil)
			if err != nil {
				t.Error(err)
				return
			}
			req.Header = bearer(token)
			if resp, err := client.Do(req); err == nil { // else it was not let in
				_ = resp.Body.Close()
			}
		})
	}
	calls.Wait()
}

// await waits until a series is above a value.
func (p *provocation) await(t *testing.T, series string, above float64) {
	t.Helper()
	harness.Eventually(t, patience, func() error {
		if got := p.scrape(t).values; got[series] <= above {
			return fmt.Errorf("%s = %v; want more than %v of %v", series, got[series], above, slices.Sorted(maps.Keys(got)))
		}
		return nil
	})
}

// Each alert fires on the metrics of a service that has its trouble, as Prometheus' own tool
// evaluates it. Time is the tool's.
func TestPromtoolAlertsOfTheService(t *testing.T) {
	t.Parallel()
	needServers(t)
	shown := maps.Clone(unprovoked)
	for name, c := range provoked {
		for _, alert := range c.alerts {
			shown[alert] = name
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &provocation{upstream: harness.NewFake(t)}
			var url string
			if slices.Contains(c.alerts, "MirrorNotReady") {
				p.database = dbtest.Postgres.Guarded(t)
				url = p.database.URL
			} else {
				url = database(t)
				p.db = dbtest.Postgres.Connect(t, url)
			}
			env := map[string]string{"MIRROR_API_TOKEN": token, "MIRROR_MIGRATE": ""}
			maps.Copy(env, c.env)
			p.s = harness.Start(t, harness.Options{DatabaseURL: url, UpstreamURL: p.upstream.URL, Env: env})
			if !c.silent {
				must(t, p.upstream.CreateRoom("plan", fake.RoomOptions{Storage: storage("1")}))
				p.tell(t, fake.Event{Type: fake.RoomCreated, RoomID: "plan", Time: time.Now().Add(-time.Hour)})
				harness.Eventually(t, patience, func() error {
					got := send(t, http.MethodGet, p.s.URL("/v1/admin/tasks?roomId=plan"), bearer(token), nil)
					if !strings.Contains(string(got.body), `"tasks":[]`) { // there may be one of a sweep
						return fmt.Errorf("tasks are left: %s", got.body)
					}
					return nil
				})
			}
			p.before = p.scrape(t)
			c.provoke(t, p)
			fire(t, p.before, p.scrape(t), cmp.Or(c.minutes, 60), c.alerts)
		})
	}
	for _, m := range regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(string(mustRead(t, alertRules)), -1) {
		if shown[m[1]] == "" {
			t.Errorf("nothing provokes %s", m[1])
		}
		delete(shown, m[1])
	}
	if len(shown) > 0 {
		t.Errorf("there are no alerts %v", shown)
	}
}

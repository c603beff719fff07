package metrics

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/grpc/codes"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/ledger"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/rpc"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/queue"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// retained has deleted some rows of each project, and some changes.
type retained struct{}

func (retained) Status(mirror.ProjectID) []mirror.Retention {
	return []mirror.Retention{{Table: "mirror_event", Deleted: 5, Behind: time.Minute, Problem: "no"}}
}

func (retained) Changes() mirror.Retention {
	return mirror.Retention{Table: "mirror_change", Deleted: 6}
}

// everything has happened once in the projects a and b.
func everything() *Metrics {
	m := New("v1", func() time.Time { return now })
	s := Sources{
		Ready:   func() bool { return true },
		Refused: func() map[fault.Reason]int64 { return map[fault.Reason]int64{fault.ReasonScopeMissing: 7} },
		Pools: func() []store.Pool {
			return []store.Pool{{Use: "work", Max: 9, InUse: 2, Idle: 1, Waits: 4, Waited: 3 * time.Second}}
		},
		MemoryUsed: func() int64 { return 1 }, Memory: 2, Retention: retained{},
		Spans: func() map[string]int64 { return map[string]int64{"sent": 5, "failed": 0, "dropped": 1} },
	}
	for _, id := range []mirror.ProjectID{"a", "b"} {
		s.Projects = append(s.Projects, Source{
			ID:      id,
			Limiter: func() liveblocks.Status { return liveblocks.Status{RatePerSecond: 50, PauseReason: "key"} },
			Queue: func() queue.Stats {
				return queue.Stats{
					Lanes:     []queue.Lane{{Name: "live", Queued: 3, Running: 2, More: true}},
					OldestDue: now.Add(-5 * time.Second),
				}
			},
		})
		m.Begin(id)
		m.Answered(ledger.Answer{Project: id, Result: "queued", Fresh: true, Took: time.Second, Age: time.Second})
		m.Answered(ledger.Answer{Project: id, Result: ledger.ResultNotSynced, Took: time.Second, Age: time.Second})
		m.Answered(ledger.Answer{Project: id, Result: ledger.ResultDuplicate, Took: time.Second, Age: -time.Second})
		m.Called(id)(liveblocks.Call{Route: "get_room", Code: "200", Took: time.Second})
		m.Attempted(queue.Attempt{
			Lease: mirror.Lease{
				Resource:   mirror.Resource{Project: id, Room: "secret room", Kind: mirror.KindStorage},
				Generation: 2, Applied: 1, NoticeTime: now.Add(-2 * time.Second), SourceTime: now.Add(-4 * time.Second),
			},
			Applied: mirror.Applied{Changed: true}, Result: queue.Applied,
		})
		m.Listed(id)(20)
		m.Swept(id, now.Add(-time.Hour))
		m.Unannounced(id)(mirror.KindYdoc, 3)
		m.Differs(mirror.Resource{Project: id, Room: "secret room", Kind: mirror.KindThread})
	}
	m.Answered(ledger.Answer{Result: ledger.ResultUnauthenticated})
	m.Committed(3)
	m.Stored("claim", time.Millisecond)
	store.CountRetry("40001")
	method := m.Of(rpc.Method{Type: "unary", Service: "s", Name: "m"})
	method.Begun()
	method.Ended(codes.NotFound, time.Second)
	for range 2 {
		method.Begun()
		method.Ended(codes.OK, time.Second)
	}
	m.Read(s)
	return m
}

// A project to which no event has ever come has a series for the alert that says so.
func TestNoEventYet(t *testing.T) {
	t.Parallel()
	m := New("test", time.Now)
	m.Begin("a")
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got, ok := value(families, "mirror_last_webhook_timestamp_seconds", map[string]string{"project": "a"})
	if !ok || got != 0 {
		t.Errorf("before the first event the series is there: %t, and is %v; want 0", ok, got)
	}
}

// TestMetricsAreAsDefined compares a scrape after which everything has happened with the
// definitions, from which the documentation is made: none is missing on either side.
func TestMetricsAreAsDefined(t *testing.T) {
	t.Parallel()
	families, err := everything().registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []Definition
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "go_") || strings.HasPrefix(f.GetName(), "process_") {
			continue
		}
		labels := map[string]bool{}
		for _, one := range f.GetMetric() {
			for _, l := range one.GetLabel() {
				labels[l.GetName()] = true
			}
		}
		got = append(got, Definition{
			Name: f.GetName(), Type: strings.ToLower(f.GetType().String()), Labels: slices.Sorted(maps.Keys(labels)),
			Help: f.GetHelp(),
		})
	}
	want := Definitions()
	for i := range want {
		want[i].Labels = slices.Sorted(slices.Values(want[i].Labels))
		want[i].Help = strings.ReplaceAll(want[i].Help, "`", "")
	}
	slices.SortFunc(want, func(a, b Definition) int { return strings.Compare(a.Name, b.Name) })
	if diff := cmp.Diff(want, got); diff != "" || len(got) < 25 {
		t.Errorf("metrics (-defined +scraped):\n%s", diff)
	}
}

// value returns the value of the one series with these labels, and whether there is one.
func value(families []*dto.MetricFamily, name string, labels map[string]string) (float64, bool) {
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, one := range f.GetMetric() {
			has := map[string]string{}
			for _, l := range one.GetLabel() {
				has[l.GetName()] = l.GetValue()
			}
			if maps.Equal(has, labels) {
				h := one.GetHistogram()
				return one.GetCounter().GetValue() + one.GetGauge().GetValue() + h.GetSampleSum(), true
			}
		}
	}
	return 0, false
}

func TestValues(t *testing.T) {
	t.Parallel()
	families, err := everything().registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	type labels = map[string]string
	for _, c := range []struct {
		name   string
		labels labels
		want   float64
	}{
		{"mirror_webhook_deliveries_total", labels{"project": "a", "outcome": "queued"}, 1},
		{"mirror_webhook_deliveries_total", labels{"project": "", "outcome": "unauthenticated"}, 1},
		{"mirror_webhook_ack_seconds", labels{}, 6},
		{"mirror_webhook_signature_age_seconds", labels{}, 4}, // a clock that is ahead counts as 0
		{"mirror_last_webhook_timestamp_seconds", labels{"project": "a"}, float64(now.Unix())},
		{"mirror_upstream_requests_total", labels{"project": "b", "route": "get_room", "code": "200"}, 1},
		{"mirror_upstream_paused", labels{"project": "a"}, 1},
		{"mirror_freshness_seconds", labels{"project": "a", "kind": "storage"}, 4},
		{"mirror_task_attempts_total", labels{"project": "a", "kind": "storage", "result": "applied"}, 1},
		{"mirror_apply_total", labels{"project": "a", "kind": "storage", "changed": "true"}, 1},
		{"mirror_tasks", labels{"project": "a", "lane": "live", "state": "queued"}, 3},
		{"mirror_tasks", labels{"project": "a", "lane": "live", "state": "running"}, 2},
		{"mirror_tasks_beyond", labels{"project": "a", "lane": "live"}, 1},
		{"mirror_oldest_due_seconds", labels{"project": "a"}, 5},
		{"mirror_sweep_rooms_total", labels{"project": "a"}, 20},
		{"mirror_sweep_age_seconds", labels{"project": "a"}, 3600},
		{"mirror_unannounced_changes_total", labels{"project": "a", "kind": "ydoc"}, 3},
		{"mirror_unannounced_changes_total", labels{"project": "a", "kind": "storage"}, 0},
		{"mirror_webhook_deliveries_total", labels{"project": "a", "outcome": "foreign_project"}, 0},
		{"mirror_task_attempts_total", labels{"project": "a", "kind": "ydoc", "result": "failed"}, 0},
		{"mirror_drift_total", labels{"project": "a", "kind": "room"}, 0},
		{"mirror_drift_total", labels{"project": "a", "kind": "thread"}, 1},
		{"mirror_auth_failures_total", labels{"reason": "SCOPE_MISSING"}, 7},
		{"mirror_store_pool_connections", labels{"use": "work", "state": "in_use"}, 2},
		{"mirror_store_pool_wait_seconds_total", labels{"use": "work"}, 3},
		{"grpc_server_handled_total", labels{
			"grpc_type": "unary", "grpc_service": "s", "grpc_method": "m", "grpc_code": "NotFound",
		}, 1},
		{"grpc_server_handled_total", labels{
			"grpc_type": "unary", "grpc_service": "s", "grpc_method": "m", "grpc_code": "OK",
		}, 2},
		{"grpc_server_started_total", labels{"grpc_type": "unary", "grpc_service": "s", "grpc_method": "m"}, 3},
	} {
		if got, ok := value(families, c.name, c.labels); !ok || got != c.want {
			t.Errorf("%s%v = %v (there: %t); want %v", c.name, c.labels, got, ok, c.want)
		}
	}
}

// Of a project that the caller does not see, there is no series. What is about all projects
// together is shown to those who see all of them.
func TestProjectsAreSeenByTheirCallers(t *testing.T) {
	t.Parallel()
	for seen, lacks := range map[string]string{"b": `project="a"`, "ab": "secret room"} {
		w := httptest.NewRecorder()
		everything().Handler(func(id mirror.ProjectID) bool { return strings.Contains(seen, string(id)) }).ServeHTTP(w,
			httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody))
		text := w.Body.String()
		if strings.Contains(text, lacks) {
			t.Errorf("the metrics for %q show what the caller does not see:\n%s", seen, text)
		}
		for want, always := range map[string]bool{
			`mirror_upstream_paused{project="b"} 1`: true, `mirror_ready 1`: true, `mirror_build_info`: true,
			`{outcome="unauthenticated",project=""} 1`: false, `mirror_webhook_ack_seconds_count`: false,
			`mirror_auth_failures_total`: false, `process_cpu_seconds_total`: false,
		} {
			if strings.Contains(text, want) != (always || seen == "ab") {
				t.Errorf("the metrics for %q have %s: %t:\n%s", seen, want, !always && seen != "ab", text)
			}
		}
	}
}

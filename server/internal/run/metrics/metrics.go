// Package metrics counts and measures what the service does, for Prometheus. It is the
// only package that knows Prometheus: the others call functions of their settings, which
// package app connects with the methods here.
//
// A scrape reads memory and nothing else. Labels have few values: projects, kinds, routes,
// codes and the like, never the id of a room, a user or an event.
package metrics

import (
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
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

// Sources are read at each scrape. They answer from memory.
type Sources struct {
	// Ready reports whether the service is ready.
	Ready func() bool
	// Refused counts calls that were refused because of their caller.
	Refused func() map[fault.Reason]int64
	// Pools describes the pools of database connections.
	Pools func() []store.Pool
	// MemoryUsed is what responses and documents in work take, in bytes.
	MemoryUsed func() int64
	// Memory is the memory for them.
	Memory   int64
	Projects []Source
	// Retention says what became of old rows.
	Retention Retention
	// Spans counts spans of traces by what became of them; nil if nothing is traced.
	Spans func() map[string]int64
}

// Retention says what became of the old rows of a project, and of the entries of the feed.
type Retention interface {
	Status(project mirror.ProjectID) []mirror.Retention
	Changes() mirror.Retention
}

// Source is what is read of one project.
type Source struct {
	ID      mirror.ProjectID
	Limiter func() liveblocks.Status
	Queue   func() queue.Stats
}

// Metrics are the metrics of a service.
type Metrics struct {
	definer

	now     func() time.Time
	sources Sources

	deliveries                 *prometheus.CounterVec
	ack, age, batch            prometheus.Observer // of the one series without labels
	lastDelivery               *prometheus.GaugeVec
	calls                      *prometheus.CounterVec
	callSeconds                *prometheus.HistogramVec
	freshness                  *prometheus.HistogramVec
	attempts, applied          *prometheus.CounterVec
	listed, unannounced, drift *prometheus.CounterVec
	storeSeconds               *prometheus.HistogramVec
	started, handled           *prometheus.CounterVec
	handling                   *prometheus.HistogramVec

	mu sync.Mutex
	// swept holds when the latest sweep of each project ended.
	swept map[mirror.ProjectID]time.Time
}

// Buckets of histograms, in seconds.
var (
	// quick is for what takes milliseconds.
	quick = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	// slow is for what waits for others.
	slow = []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
	// ages is for the age of what is shown.
	ages = []float64{.05, .1, .25, .5, 1, 2, 3, 5, 10, 30, 60, 300, 1800, 7200, 28800}
)

// New returns the metrics of a service of a version.
func New(version string, now func() time.Time) *Metrics {
	m := &Metrics{
		definer: definer{registry: prometheus.NewRegistry()}, now: now, swept: make(map[mirror.ProjectID]time.Time),
	}
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	m.define()
	m.gauge("mirror_build_info", "Always 1. Tells the version of the binary and of Go.", "version", "goversion").
		WithLabelValues(version, runtime.Version()).Set(1)
	m.defineRead()
	return m
}

// define defines what is counted and measured when it happens.
func (m *Metrics) define() {
	m.deliveries = m.counter("mirror_webhook_deliveries_total",
		"Webhook deliveries by what became of them: the outcome of the event (`queued`, `recorded`, `unknown_type`, "+
			"`malformed`, `id_invalid`, `foreign_project`), `duplicate`, or why the delivery was refused (`unauthenticated`, "+
			"`unavailable`, `invalid`), or `not_synced`: recorded, but with `MIRROR_ACK=synced` the change was not mirrored in "+
			"time. `project` is empty if no secret verified the delivery.", "project", "outcome")
	m.ack = m.histogram("mirror_webhook_ack_seconds",
		"Time from the arrival of a delivery until it is recorded or known as a duplicate, of those that were.", quick).
		WithLabelValues()
	m.age = m.histogram("mirror_webhook_signature_age_seconds",
		"Age of the signature of a verified delivery at its arrival; a clock that is ahead counts as 0.",
		[]float64{.5, 1, 2, 5, 10, 30, 60, 120, 240, 300}).WithLabelValues()
	m.lastDelivery = m.gauge("mirror_last_webhook_timestamp_seconds",
		"When the latest event was received, in seconds since 1970; 0 if none ever was. A process that starts reads it from "+
			"the database; later ones are those that it received itself, so of several replicas the largest value counts.",
		"project")
	m.batch = m.histogram("mirror_ledger_batch_events", "Deliveries that shared one commit.",
		[]float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512}).WithLabelValues()

	m.calls = m.counter("mirror_upstream_requests_total",
		"Calls to Liveblocks by route and status. Without a response that can be used, `code` says why: `no_answer`, "+
			"`truncated`, `too_large`, `invalid` or `cancelled`. The route `ping` checks the key.", "project", "route", "code")
	m.callSeconds = m.histogram("mirror_upstream_seconds",
		"Duration of calls to Liveblocks, including the body and the wait for memory.", slow, "route")

	m.freshness = m.histogram("mirror_freshness_seconds",
		"Time from a change, as its event tells it, until the mirror shows it. What sweeps and readers requested is left "+
			"out.", ages, "project", "kind")
	m.attempts = m.counter("mirror_task_attempts_total",
		"Attempts of tasks by how they ended: `applied`, `parked` (the room comes first), `retried`, `postponed` (not to be "+
			"blamed on the task), `failed` (for good), `unsupported` or `lost` (the lease).", "project", "kind", "result")
	m.applied = m.counter("mirror_apply_total",
		"Results that were written, by whether they changed anything.", "project", "kind", "changed")

	m.listed = m.counter("mirror_sweep_rooms_total", "Rooms that sweeps have read from Liveblocks' list.", "project")
	m.unannounced = m.counter("mirror_unannounced_changes_total",
		"Changes that sweeps found although no event told of them, 10 to 20 minutes later.", "project", "kind")
	m.drift = m.counter("mirror_drift_total", "Differences that verifications found.", "project", "kind")

	m.storeSeconds = m.histogram("mirror_store_seconds",
		"Duration of operations of the database that deliveries, tasks and readers of documents wait for, including the "+
			"wait for a connection.", quick, "operation")

	m.started = m.counter("grpc_server_started_total", "Calls that began, over gRPC and HTTP.", "grpc_type",
		"grpc_service", "grpc_method")
	m.handled = m.counter("grpc_server_handled_total", "Calls that ended, over gRPC and HTTP, by code.", "grpc_type",
		"grpc_service", "grpc_method", "grpc_code")
	m.handling = m.histogram("grpc_server_handling_seconds", "Duration of calls, over gRPC and HTTP.", quick, "grpc_type",
		"grpc_service", "grpc_method")
}

// defineRead defines what is read at each scrape.
func (m *Metrics) defineRead() {
	each := func(read func(p Source, emit func(v float64, labels ...string))) func(func(float64, ...string)) {
		return func(emit func(float64, ...string)) {
			for _, p := range m.sources.Projects {
				read(p, func(v float64, labels ...string) { emit(v, append([]string{string(p.ID)}, labels...)...) })
			}
		}
	}
	m.read(gauge, "mirror_ready", "1 if the service takes deliveries and reads, otherwise 0.", nil,
		func(emit func(float64, ...string)) {
			if m.sources.Ready != nil {
				emit(truth(m.sources.Ready()))
			}
		})
	m.read(gauge, "mirror_upstream_limit_calls_per_second",
		"Current limit on the calls of this process to Liveblocks.", []string{"project"},
		each(func(p Source, emit func(float64, ...string)) { emit(p.Limiter().RatePerSecond) }))
	m.read(gauge, "mirror_upstream_paused",
		"1 while fetching is paused, by an operator or because of the secret key, otherwise 0.", []string{"project"},
		each(func(p Source, emit func(float64, ...string)) { emit(truth(p.Limiter().PauseReason != "")) }))
	m.read(gauge, "mirror_upstream_throttled_seconds",
		"How long no call is made to Liveblocks, after a 429 or an outage.", []string{"project"},
		each(func(p Source, emit func(float64, ...string)) {
			emit(max(time.Until(p.Limiter().ThrottledUntil), 0).Seconds())
		}))
	m.read(gauge, "mirror_tasks",
		"Tasks in the memory of this process, by lane and by whether they are `queued` or `running`. What is due later or "+
			"beyond 20,000 tasks of a lane is known to the database alone; see `mirror_tasks_beyond`.",
		[]string{"project", "lane", "state"}, each(func(p Source, emit func(float64, ...string)) {
			for _, l := range p.Queue().Lanes {
				emit(float64(l.Queued), l.Name, "queued")
				emit(float64(l.Running), l.Name, "running")
			}
		}))
	m.read(gauge, "mirror_tasks_beyond",
		"1 if more tasks of the lane are due than this process has in memory, otherwise 0.",
		[]string{"project", "lane"}, each(func(p Source, emit func(float64, ...string)) {
			for _, l := range p.Queue().Lanes {
				emit(truth(l.More), l.Name)
			}
		}))
	m.read(gauge, "mirror_oldest_due_seconds",
		"For how long the task of this process has been due that waits longest or is being done, without those of "+
			"sweeps; 0 if there is none.",
		[]string{"project"}, each(func(p Source, emit func(float64, ...string)) {
			if due := p.Queue().OldestDue; due.IsZero() {
				emit(0)
			} else {
				emit(m.now().Sub(due).Seconds())
			}
		}))
	m.read(gauge, "mirror_sweep_age_seconds",
		"Time since the latest sweep ended. At the start of a process during a sweep: since that began; before the first: "+
			"since the start. Of several replicas the smallest value counts.",
		[]string{"project"}, each(func(p Source, emit func(float64, ...string)) {
			m.mu.Lock()
			end, ok := m.swept[p.ID]
			m.mu.Unlock()
			if ok {
				emit(m.now().Sub(end).Seconds())
			}
		}))
	m.read(counter, "mirror_auth_failures_total",
		"Calls that were refused because of their caller, by the reason that the caller got.", []string{"reason"},
		func(emit func(float64, ...string)) {
			if m.sources.Refused == nil {
				return
			}
			for reason, n := range m.sources.Refused() {
				emit(float64(n), string(reason))
			}
		})
	m.read(counter, "mirror_store_retries_total",
		"Transactions that ran again, by the database's code of the error: another one was in their way, or their session "+
			"was of before a failover (`session`).", []string{"code"}, func(emit func(float64, ...string)) {
			for code, n := range store.Retries() {
				emit(float64(n), code)
			}
		})
	m.definePools()
	m.defineRetention()
	m.read(counter, "mirror_trace_spans_total",
		"Spans of traces that were `sent` to the collector, that could not be sent (`failed`), or that were `dropped` "+
			"because they are not sent as fast as they are made. Absent if nothing is traced.",
		[]string{"result"}, func(emit func(float64, ...string)) {
			if m.sources.Spans == nil {
				return
			}
			for result, n := range m.sources.Spans() {
				emit(float64(n), result)
			}
		})
	m.read(gauge, "mirror_document_memory_bytes", "Memory for responses and documents in work, and what of it is used.",
		[]string{"state"}, func(emit func(float64, ...string)) {
			if m.sources.MemoryUsed != nil {
				emit(float64(m.sources.Memory), "limit")
				emit(float64(m.sources.MemoryUsed()), "used")
			}
		})
}

func (m *Metrics) defineRetention() {
	tables := func(read func(r mirror.Retention) float64) func(func(float64, ...string)) {
		return func(emit func(float64, ...string)) {
			if m.sources.Retention == nil {
				return
			}
			for _, p := range m.sources.Projects {
				for _, r := range m.sources.Retention.Status(p.ID) {
					emit(read(r), string(p.ID), r.Table)
				}
			}
			r := m.sources.Retention.Changes()
			emit(read(r), "", r.Table)
		}
	}
	m.read(counter, "mirror_retention_deleted_rows_total",
		"Old rows that this process has deleted, by table. `project` is empty for the entries of the feed, which projects "+
			"share.", []string{"project", "table"}, tables(func(r mirror.Retention) float64 { return float64(r.Deleted) }))
	m.read(gauge, "mirror_retention_behind_seconds",
		"How much longer than they should the oldest rows stay that are left to delete; 0 if none is left.",
		[]string{"project", "table"}, tables(func(r mirror.Retention) float64 { return r.Behind.Seconds() }))
	m.read(gauge, "mirror_retention_failed",
		"1 if old rows of the table could not be deleted the last time, otherwise 0.", []string{"project", "table"},
		tables(func(r mirror.Retention) float64 { return truth(r.Problem != "") }))
}

func (m *Metrics) definePools() {
	pools := func(read func(p store.Pool, emit func(v float64, labels ...string))) func(func(float64, ...string)) {
		return func(emit func(float64, ...string)) {
			if m.sources.Pools == nil {
				return
			}
			for _, p := range m.sources.Pools() {
				read(p, func(v float64, labels ...string) { emit(v, append([]string{p.Use}, labels...)...) })
			}
		}
	}
	m.read(gauge, "mirror_store_pool_max_connections",
		"Limit on open database connections, by what they are for: `work`, `accept`, `renew`, `read`.", []string{"use"},
		pools(func(p store.Pool, emit func(float64, ...string)) { emit(float64(p.Max)) }))
	m.read(gauge, "mirror_store_pool_connections", "Open database connections, by whether they are `in_use` or `idle`.",
		[]string{"use", "state"}, pools(func(p store.Pool, emit func(float64, ...string)) {
			emit(float64(p.InUse), "in_use")
			emit(float64(p.Idle), "idle")
		}))
	m.read(counter, "mirror_store_pool_waits_total", "How often something had to wait for a database connection.",
		[]string{"use"}, pools(func(p store.Pool, emit func(float64, ...string)) { emit(float64(p.Waits)) }))
	m.read(counter, "mirror_store_pool_wait_seconds_total", "Time that all of them have waited for one.",
		[]string{"use"}, pools(func(p store.Pool, emit func(float64, ...string)) { emit(p.Waited.Seconds()) }))
}

func truth(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// Definitions returns the definitions of all metrics but those of Go and of the process.
func Definitions() []Definition { return New("", time.Now).definitions }

// Read sets what is read at each scrape. It must be called before the first one.
func (m *Metrics) Read(s Sources) { m.sources = s }

// Handler returns what serves the metrics. It leaves out series of projects for which sees
// returns false. If there are such, it also leaves out series that are about all projects
// together: they would tell how busy the others are.
func (m *Metrics) Handler(sees func(mirror.ProjectID) bool) http.Handler {
	whole := !slices.ContainsFunc(m.sources.Projects, func(p Source) bool { return !sees(p.ID) })
	gather := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		families, err := m.registry.Gather()
		for _, f := range families {
			shown := whole || f.GetName() == "mirror_ready" || f.GetName() == "mirror_build_info"
			f.Metric = slices.DeleteFunc(f.GetMetric(), func(one *dto.Metric) bool {
				for _, l := range one.GetLabel() {
					if l.GetName() == "project" && l.GetValue() != "" {
						return !sees(mirror.ProjectID(l.GetValue()))
					}
				}
				return !shown
			})
		}
		return slices.DeleteFunc(families, func(f *dto.MetricFamily) bool { return len(f.GetMetric()) == 0 }), err
	})
	return promhttp.HandlerFor(gather, promhttp.HandlerOpts{})
}

// Begin lets what is rare and alerts are of begin at zero, so that the first time is an
// increase.
func (m *Metrics) Begin(project mirror.ProjectID) {
	p := string(project)
	m.lastDelivery.WithLabelValues(p)
	m.deliveries.WithLabelValues("", ledger.ResultUnauthenticated)
	m.deliveries.WithLabelValues(p, ledger.ResultUnavailable)
	m.deliveries.WithLabelValues(p, string(mirror.OutcomeForeignProject))
	for _, kind := range mirror.Kinds() {
		m.attempts.WithLabelValues(p, kind.String(), string(queue.Failed))
		if kind.Traits().Events != mirror.EventsSome {
			m.unannounced.WithLabelValues(p, kind.String())
		}
		if kind.Traits().Verified {
			m.drift.WithLabelValues(p, kind.String())
		}
	}
}

// Answered counts a delivery.
func (m *Metrics) Answered(a ledger.Answer) {
	m.deliveries.WithLabelValues(string(a.Project), a.Result).Inc()
	if a.Project != "" && a.Result != ledger.ResultUnauthenticated && a.Result != ledger.ResultInvalid {
		m.age.Observe(max(a.Age, 0).Seconds())
	}
	switch a.Result {
	case ledger.ResultUnauthenticated, ledger.ResultInvalid, ledger.ResultUnavailable:
		return
	}
	m.ack.Observe(a.Took.Seconds())
	if a.Fresh {
		m.Received(a.Project, m.now())
	}
}

// Received sets when the latest event of a project was received; a zero time is none.
func (m *Metrics) Received(project mirror.ProjectID, at time.Time) {
	if !at.IsZero() {
		m.lastDelivery.WithLabelValues(string(project)).Set(seconds(at))
	}
}

func seconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }

// Committed counts a commit of so many deliveries.
func (m *Metrics) Committed(deliveries int) { m.batch.Observe(float64(deliveries)) }

// Called returns what counts the calls of a project to Liveblocks.
func (m *Metrics) Called(project mirror.ProjectID) func(liveblocks.Call) {
	return func(c liveblocks.Call) {
		m.calls.WithLabelValues(string(project), c.Route, c.Code).Inc()
		m.callSeconds.WithLabelValues(c.Route).Observe(c.Took.Seconds())
	}
}

// Attempted counts an attempt of a task.
func (m *Metrics) Attempted(a queue.Attempt) {
	project, kind := string(a.Lease.Resource.Project), a.Lease.Resource.Kind.String()
	m.attempts.WithLabelValues(project, kind, string(a.Result)).Inc()
	if a.Result != queue.Applied {
		return
	}
	m.applied.WithLabelValues(project, kind, strconv.FormatBool(a.Applied.Changed)).Inc()
	if at, ok := a.Announced(); ok {
		m.freshness.WithLabelValues(project, kind).Observe(max(m.now().Sub(at), 0).Seconds())
	}
}

// Listed returns what counts the rooms that the sweeps of a project have read.
func (m *Metrics) Listed(project mirror.ProjectID) func(rooms int) {
	c := m.listed.WithLabelValues(string(project))
	return func(rooms int) { c.Add(float64(rooms)) }
}

// Swept notes when the latest sweep of a project ended; a zero time is none.
func (m *Metrics) Swept(project mirror.ProjectID, at time.Time) {
	if at.IsZero() {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.swept[project] = at
}

// Unannounced returns what counts the changes of a project that no event told of.
func (m *Metrics) Unannounced(project mirror.ProjectID) func(kind mirror.Kind, changes int64) {
	return func(kind mirror.Kind, changes int64) {
		m.unannounced.WithLabelValues(string(project), kind.String()).Add(float64(changes))
	}
}

// Differs counts a difference that a verification found.
func (m *Metrics) Differs(r mirror.Resource) {
	m.drift.WithLabelValues(string(r.Project), r.Kind.String()).Inc()
}

// Stored measures an operation of the database.
func (m *Metrics) Stored(operation string, took time.Duration) {
	m.storeSeconds.WithLabelValues(operation).Observe(took.Seconds())
}

// Of is part of [rpc.CallWatcher].
func (m *Metrics) Of(c rpc.Method) rpc.MethodWatcher {
	handled := func(code codes.Code) prometheus.Counter {
		return m.handled.WithLabelValues(c.Type, c.Service, c.Name, code.String())
	}
	return &method{
		started: sync.OnceValue(func() prometheus.Counter { return m.started.WithLabelValues(c.Type, c.Service, c.Name) }),
		handling: sync.OnceValue(func() prometheus.Observer {
			return m.handling.WithLabelValues(c.Type, c.Service, c.Name)
		}),
		handled: handled, ok: sync.OnceValue(func() prometheus.Counter { return handled(codes.OK) }),
	}
}

// method counts the calls of a method. Looking up a series takes longer than counting.
type method struct {
	started, ok func() prometheus.Counter
	handling    func() prometheus.Observer
	handled     func(codes.Code) prometheus.Counter
}

// Begun is part of [rpc.MethodWatcher].
func (w *method) Begun() { w.started().Inc() }

// Ended is part of [rpc.MethodWatcher].
func (w *method) Ended(code codes.Code, took time.Duration) {
	if code == codes.OK {
		w.ok().Inc()
	} else {
		w.handled(code).Inc()
	}
	w.handling().Observe(took.Seconds())
}

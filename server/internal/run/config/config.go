// Package config is the one table of settings. A field's tags give the flag, the
// environment variable, the default and the help text; [Resolver] finds the value.
// What holds a credential is a [Secret].
package config

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/alecthomas/kong"

	"github.com/liveblocks-mirror/liveblocks-mirror/gateway"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/tracing"
)

// Database says where the data is kept.
type Database struct {
	DatabaseURL       Secret        `name:"database-url" env:"DATABASE_URL" placeholder:"URL" help:"PostgreSQL or MySQL database, such as postgres://user:password@host/name?sslmode=require or mysql://user:password@host/name. If empty, the service runs its own PostgreSQL in the data directory."`
	DatabaseDirectURL Secret        `name:"database-direct-url" env:"DATABASE_DIRECT_URL" placeholder:"URL" help:"The same PostgreSQL database without a connection pooler; used for migrations. If set, DATABASE_URL is assumed to be pooled. If empty, DATABASE_URL is used."`
	DatabaseSchema    string        `name:"database-schema" env:"MIRROR_DATABASE_SCHEMA" placeholder:"NAME" help:"Schema of the PostgreSQL database that holds the tables and views, such as liveblocks; migrate creates it. If empty, they are in the first schema of the search path, which is public by default."`
	DatabasePooled    bool          `name:"database-pooled" env:"MIRROR_DATABASE_POOLED" help:"DATABASE_URL goes through a transaction-mode pooler. The poolers of Neon and Supabase and PgBouncer's default port are detected automatically."`
	DatabaseMaxConns  int           `name:"database-max-conns" env:"MIRROR_DATABASE_MAX_CONNS" default:"16" help:"Maximum number of open database connections. They are divided among deliveries, lease renewals, reads and workers; see OPERATIONS.md."`
	DatabaseWait      time.Duration `name:"database-wait" env:"MIRROR_DATABASE_WAIT" default:"0s" help:"How long to wait at the start for a database that cannot be reached yet, such as one that is started together with the service. 0 gives up at once."`
	ReadTimeout       time.Duration `name:"read-timeout" env:"MIRROR_READ_TIMEOUT" default:"10s" help:"Maximum time of a statement that only reads, such as one page of a list. The database ends it after that. 0 means no limit."`
	DataDir           string        `name:"data-dir" env:"MIRROR_DATA_DIR" placeholder:"DIR" help:"Directory of the embedded PostgreSQL. Default: /var/lib/liveblocks-mirror for root, otherwise ~/.local/share/liveblocks-mirror."`
	PGBin             string        `name:"pg-bin" env:"MIRROR_PG_BIN" placeholder:"DIR" help:"Directory with the programs postgres and initdb for the embedded PostgreSQL. If empty, the usual places are searched."`
}

// Roles are the accounts of the database that migrate --print-grants makes.
type Roles struct {
	OwnerRole   string `name:"owner-role" env:"MIRROR_OWNER_ROLE" default:"mirror_owner" placeholder:"NAME" help:"Database role that owns the tables and runs migrate."`
	ServiceRole string `name:"service-role" env:"MIRROR_SERVICE_ROLE" default:"mirror_app" placeholder:"NAME" help:"Database role that the service runs as. migrate does not warn of its rights."`
	ReaderRole  string `name:"reader-role" env:"MIRROR_READER_ROLE" default:"mirror_reader" placeholder:"NAME" help:"Database role that reads the views. migrate does not warn of its rights."`
}

// Validate checks the names.
func (r Roles) Validate() error {
	for _, role := range []struct{ setting, name string }{
		{"MIRROR_OWNER_ROLE", r.OwnerRole}, {"MIRROR_SERVICE_ROLE", r.ServiceRole}, {"MIRROR_READER_ROLE", r.ReaderRole},
	} {
		if role.name == "" || len(role.name) > 63 || strings.ContainsFunc(role.name, unicode.IsControl) {
			return wrong(role.setting, "is %q; it must be 1 to 63 bytes without control characters", role.name)
		}
	}
	return nil
}

// Log says what is logged and how.
type Log struct {
	LogLevel  slog.Level `name:"log-level" env:"MIRROR_LOG_LEVEL" default:"info" help:"Minimum log level: debug, info, warn or error."`
	LogFormat string     `name:"log-format" env:"MIRROR_LOG_FORMAT" default:"text" enum:"text,json" help:"Log format: text or json."`
}

// Logger returns a logger that writes to w.
func (l Log) Logger(w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: l.LogLevel, ReplaceAttr: withUnits}
	if l.LogFormat == "json" {
		return slog.New(tracing.Logs(slog.NewJSONHandler(w, opts)))
	}
	return slog.New(tracing.Logs(slog.NewTextHandler(w, opts)))
}

// withUnits writes durations with their units, which JSON would leave out.
func withUnits(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// Listen holds the addresses that every service listens on.
type Listen struct {
	HTTPAddr string `name:"http-addr" env:"MIRROR_HTTP_ADDR" default:"127.0.0.1:8080" help:"Listen address of the HTTP gateway. Port 0 picks a free port."`
	GRPCAddr string `name:"grpc-addr" env:"MIRROR_GRPC_ADDR" default:"127.0.0.1:9090" help:"Listen address of the gRPC server. Port 0 picks a free port."`
}

// TLS names the files of the certificates of every address, all in PEM.
type TLS struct {
	TLSCert     string `name:"tls-cert" env:"MIRROR_TLS_CERT" placeholder:"FILE" help:"PEM file of the certificate, followed by its intermediates, for all addresses. With it they speak TLS only. The file is read again when it changes."`
	TLSKey      string `name:"tls-key" env:"MIRROR_TLS_KEY" placeholder:"FILE" help:"PEM file of the certificate's private key. Read again when it changes."`
	TLSClientCA string `name:"tls-client-ca" env:"MIRROR_TLS_CLIENT_CA" placeholder:"FILE" help:"PEM file of the authorities whose client certificates are accepted on the HTTP and gRPC addresses. Read again when it changes."`
}

// Enabled reports whether the addresses speak TLS.
func (t TLS) Enabled() bool { return t.TLSCert != "" }

// Addresses says where the service listens, and to whom it answers.
type Addresses struct {
	Listen
	TLS
	WebhookAddr     string        `name:"webhook-addr" env:"MIRROR_WEBHOOK_ADDR" placeholder:"ADDR" help:"Second HTTP listen address that serves only the webhook paths and /healthz. Expose this one to the internet."`
	MetricsAddr     string        `name:"metrics-addr" env:"MIRROR_METRICS_ADDR" placeholder:"ADDR" help:"HTTP listen address that serves /metrics and nothing else; then the address of the gateway does not serve it. It needs the same credentials. See METRICS.md."`
	APIToken        []Secret      `name:"api-token" env:"MIRROR_API_TOKEN" placeholder:"TOKEN" help:"Bearer tokens, separated by commas. Every call must carry one of them, or another credential of MIRROR_KEYS_FILE, except webhooks, probes (/healthz, /readyz, gRPC health), /openapi.json and /mirror.binpb. This or MIRROR_KEYS_FILE is required to listen beyond loopback. A token may do everything."`
	KeysFile        string        `name:"keys-file" env:"MIRROR_KEYS_FILE" placeholder:"FILE" help:"File with the keys, client certificates and issuers of tokens that callers may use besides MIRROR_API_TOKEN, and what each of them may do. It holds no secrets. The service reads it again when it changes. See ACCESS.md."`
	TrustedProxies  Networks      `name:"trusted-proxies" env:"MIRROR_TRUSTED_PROXIES" placeholder:"CIDRS" help:"Addresses of the proxies in front of the service, separated by commas, such as 10.0.0.0/8. From them X-Forwarded-For is believed, which is read from the right."`
	WebhookAllow    Networks      `name:"webhook-allow" env:"MIRROR_WEBHOOK_ALLOW" placeholder:"CIDRS" help:"Addresses from which webhooks are accepted, separated by commas. If empty, from everywhere: the signature decides. Behind a proxy, MIRROR_TRUSTED_PROXIES is needed too."`
	Insecure        string        `name:"insecure" env:"MIRROR_INSECURE" placeholder:"behind-proxy" help:"Set it to behind-proxy to listen beyond loopback without TLS, where only a proxy that ends TLS can reach the addresses."`
	HTTPIdleTimeout time.Duration `name:"http-idle-timeout" env:"MIRROR_HTTP_IDLE_TIMEOUT" default:"2m" help:"How long an idle HTTP connection is kept open. Raise it above that of a load balancer in front, which may otherwise use a connection that is just being closed. 0 keeps it until the client closes it."`
	ReadyFile       string        `name:"ready-file" env:"MIRROR_READY_FILE" placeholder:"FILE" help:"File that receives the listen addresses as JSON once the service is ready."`
}

// Liveblocks says how to talk to Liveblocks.
type Liveblocks struct {
	ProjectsFile   string        `name:"projects-file" env:"MIRROR_PROJECTS_FILE" placeholder:"FILE" help:"YAML file of several projects, each with its key, secrets and settings; see PROJECTS.md. It takes the place of MIRROR_PROJECT_ID, LIVEBLOCKS_SECRET_KEY and LIVEBLOCKS_WEBHOOK_SECRET."`
	ProjectID      string        `name:"project-id" env:"MIRROR_PROJECT_ID" default:"default" help:"Local id of the Liveblocks project: lower-case letters, digits and dashes."`
	SecretKey      Secret        `name:"liveblocks-secret-key" env:"LIVEBLOCKS_SECRET_KEY" placeholder:"sk_..." help:"Required. Secret key of the project, from the Liveblocks dashboard under API keys."`
	WebhookSecret  []Secret      `name:"liveblocks-webhook-secret" env:"LIVEBLOCKS_WEBHOOK_SECRET" placeholder:"whsec_..." help:"Required. Signing secret of the webhook endpoint, from the Liveblocks dashboard under Webhooks. During a rotation, several separated by commas."`
	BaseURL        string        `name:"liveblocks-base-url" env:"LIVEBLOCKS_BASE_URL" perproject:"" default:"https://api.liveblocks.io" help:"Base URL of the Liveblocks API."`
	CallsPerSecond float64       `name:"liveblocks-calls-per-second" env:"MIRROR_LIVEBLOCKS_CALLS_PER_SECOND" perproject:"" default:"200" help:"Maximum calls per second of this process to the Liveblocks API. The service starts at 50 or at this value, whichever is less, goes faster while nothing is refused, and slows down by itself when Liveblocks asks it to. Replicas do not share it: divide it by their number."`
	CallTimeout    time.Duration `name:"liveblocks-call-timeout" env:"MIRROR_LIVEBLOCKS_CALL_TIMEOUT" perproject:"" default:"30s" help:"Timeout of one call to the Liveblocks API. A body may take longer while it arrives at 64 KiB per second or more."`
	IdleTimeout    time.Duration `name:"liveblocks-idle-timeout" env:"MIRROR_LIVEBLOCKS_IDLE_TIMEOUT" perproject:"" default:"5s" help:"How long a call to the Liveblocks API may go on without a byte. It doubles with every failed attempt of the resource, up to MIRROR_LIVEBLOCKS_CALL_TIMEOUT."`
	HedgeShare     float64       `name:"liveblocks-hedge-share" env:"MIRROR_LIVEBLOCKS_HEDGE_SHARE" perproject:"" default:"0.05" help:"Share of calls to the Liveblocks API that may get a second attempt, and a third, because their answer is later than 99 of 100 recent ones. The first answer counts. Calls that hang do not use up the share. 0 disables further attempts."`
	MaxAnswer      int64         `name:"liveblocks-max-answer" env:"MIRROR_LIVEBLOCKS_MAX_ANSWER" perproject:"" default:"67108864" help:"Maximum response size from the Liveblocks API, in bytes."`
	ProbeMin       time.Duration `name:"liveblocks-probe-min" env:"MIRROR_LIVEBLOCKS_PROBE_MIN" default:"5s" help:"Delay before a refused key is tried again. It doubles up to five minutes."`
}

// Work says how the mirror is kept up to date.
type Work struct {
	Ack         string        `name:"ack" env:"MIRROR_ACK" perproject:"" default:"durable" enum:"durable,synced" help:"When to acknowledge a webhook: durable, once its event is recorded; synced, once its changes are mirrored as well."`
	Workers     int           `name:"workers" env:"MIRROR_WORKERS" default:"8" help:"Maximum number of resources decoded and written to the database at the same time."`
	Fetches     int           `name:"fetches" env:"MIRROR_FETCHES" default:"64" help:"Maximum number of resources fetched from Liveblocks at the same time. A room has at most an eighth of them, but at least four."`
	Settle      time.Duration `name:"settle" env:"MIRROR_SETTLE" perproject:"" default:"3s" help:"Delay after the last event of a resource before it is fetched once more, because a response right after an event may be older than the event. 0 disables this fetch."`
	LeaseTTL    time.Duration `name:"lease-ttl" env:"MIRROR_LEASE_TTL" default:"6s" help:"How long a resource stays reserved for a replica that has crashed."`
	MaxAttempts int           `name:"max-attempts" env:"MIRROR_MAX_ATTEMPTS" perproject:"" default:"10" help:"Attempts before a task fails permanently."`
	BackoffMin  time.Duration `name:"backoff-min" env:"MIRROR_BACKOFF_MIN" perproject:"" default:"1s" help:"Delay after the first failed attempt. It doubles with every attempt."`
	BackoffMax  time.Duration `name:"backoff-max" env:"MIRROR_BACKOFF_MAX" perproject:"" default:"5m" help:"Maximum delay between two attempts."`
	BusyPoll    time.Duration `name:"busy-poll" env:"MIRROR_BUSY_POLL" default:"3s" help:"How often to poll the database for due work while there is some."`
	SafetyPoll  time.Duration `name:"safety-poll" env:"MIRROR_SAFETY_POLL" default:"1h" help:"How often to poll the database for due work while there is none. Between these polls, an idle service sends no query."`
	FeedPoll    time.Duration `name:"feed-poll" env:"MIRROR_FEED_POLL" default:"0s" help:"How often to look for changes that other replicas have written, while somebody follows the changes. With 0, a replica looks when it finds that another one has written, and after growing pauses. Set 1s with several replicas."`
	FeedCallers int           `name:"feed-watchers-per-caller" env:"MIRROR_FEED_WATCHERS_PER_CALLER" default:"100" help:"How many calls with one key may follow the changes at once, of the 2,000 that a process serves, so that no key takes the place of all others. Keys that may administer the service are not limited. 0 sets no limit."`
	Sweep       time.Duration `name:"sweep-interval" env:"MIRROR_SWEEP_INTERVAL" perproject:"" default:"1h" help:"Pause between two sweeps. A sweep compares the mirror with the list of all rooms and finds what no webhook reported. 0 disables sweeps."`
	FullSweep   time.Duration `name:"full-sweep-interval" env:"MIRROR_FULL_SWEEP_INTERVAL" perproject:"" default:"24h" help:"How often a sweep fetches everything in every room again. The first sweep does, and so imports the rooms that existed before. 0 disables full sweeps."`
	MaxData     int           `name:"max-data" env:"MIRROR_MAX_DATA" perproject:"" default:"16777216" help:"Maximum size of a document, in bytes of JSON, that is also stored as queryable JSON."`
	StopGrace   time.Duration `name:"stop-grace" env:"MIRROR_STOP_GRACE" default:"20s" help:"Maximum time to finish running work at shutdown."`

	Retention `group:"Retention"`
}

// Retention says how long rows are kept that would pile up.
type Retention struct {
	RetentionEvents        time.Duration `name:"retention-events" env:"MIRROR_RETENTION_EVENTS" perproject:"" default:"0s" help:"How long events are kept, with their payloads, since they were received; such as 2160h for 90 days. An event that waits to become part of a session or notification stays. At least 48h, because Liveblocks repeats deliveries for 28 hours and a repeated one must be known. 0 keeps them for ever."`
	RetentionSessions      time.Duration `name:"retention-sessions" env:"MIRROR_RETENTION_SESSIONS" perproject:"" default:"0s" help:"How long the sessions of users are kept since they ended; at least 48h. 0 keeps them for ever."`
	RetentionNotifications time.Duration `name:"retention-notifications" env:"MIRROR_RETENTION_NOTIFICATIONS" perproject:"" default:"0s" help:"How long notifications are kept since they were created; at least 48h. 0 keeps them for ever."`
	RetentionTombstones    time.Duration `name:"retention-tombstones" env:"MIRROR_RETENTION_TOMBSTONES" perproject:"" default:"0s" help:"How long the content of deleted rooms, and deleted threads and groups are kept since they were found to be deleted; at least 48h. What tells late events that they are deleted stays. 0 keeps them for ever."`
	RetentionAudit         time.Duration `name:"retention-audit" env:"MIRROR_RETENTION_AUDIT" perproject:"" default:"8760h" help:"How long the audit keeps the calls that change something for operators, and those that were refused; at least 48h. 0 keeps them for ever."`
	RetentionChanges       time.Duration `name:"retention-changes" env:"MIRROR_RETENTION_CHANGES" default:"720h" help:"How long the entries of the change feed are kept. A follower that was away for longer gets CHANGE_TOKEN_EXPIRED and reads everything again. At least 48h; 0 keeps them for ever. The same for all projects, which share their numbers."`
}

// minRetention is the shortest time that rows are kept. Liveblocks delivers again for about
// 28 hours, and what comes late must find what it belongs to.
const minRetention = 48 * time.Hour

// validate checks the times.
func (r Retention) validate() error {
	for _, s := range []struct {
		setting string
		keep    time.Duration
	}{
		{"MIRROR_RETENTION_EVENTS", r.RetentionEvents},
		{"MIRROR_RETENTION_SESSIONS", r.RetentionSessions},
		{"MIRROR_RETENTION_NOTIFICATIONS", r.RetentionNotifications},
		{"MIRROR_RETENTION_TOMBSTONES", r.RetentionTombstones},
		{"MIRROR_RETENTION_AUDIT", r.RetentionAudit},
		{"MIRROR_RETENTION_CHANGES", r.RetentionChanges},
	} {
		if s.keep != 0 && s.keep < minRetention {
			return wrong(s.setting, "is %s; it must be at least 48h, or 0 to keep everything", s.keep)
		}
	}
	return nil
}

// Traces says where traces are sent. OpenTelemetry's SDK itself reads further variables;
// see OPERATIONS.md. All but the last are standard variables, which platforms set for every
// program: while nothing is traced, none of them is wrong.
type Traces struct {
	OTLPEndpoint       string `name:"otlp-endpoint" env:"OTEL_EXPORTER_OTLP_ENDPOINT" placeholder:"URL" help:"OpenTelemetry collector that receives traces by OTLP over HTTP, such as http://localhost:4318; /v1/traces is appended. If empty, nothing is traced. See OPERATIONS.md."`
	OTLPTracesEndpoint string `name:"otlp-traces-endpoint" env:"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" placeholder:"URL" help:"The same as a whole URL, which is used as it is."`
	OTLPProtocol       string `name:"otlp-protocol" env:"OTEL_EXPORTER_OTLP_PROTOCOL" default:"http/protobuf" help:"Protocol of the collector. Only http/protobuf is spoken."`
	OTLPTracesProtocol string `name:"otlp-traces-protocol" env:"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL" placeholder:"PROTOCOL" help:"The same for traces alone; it comes first."`
	OTLPHeaders        Secret `name:"otlp-headers" env:"OTEL_EXPORTER_OTLP_HEADERS" placeholder:"PAIRS" help:"Headers for the collector, as KEY=VALUE pairs separated by commas, such as authorization=Bearer%20TOKEN."`
	OTLPTracesHeaders  Secret `name:"otlp-traces-headers" env:"OTEL_EXPORTER_OTLP_TRACES_HEADERS" placeholder:"PAIRS" help:"The same for traces alone; if set, the others are not sent."`
	ServiceName        string `name:"otel-service-name" env:"OTEL_SERVICE_NAME" default:"liveblocks-mirror" help:"Name of the service in traces."`
	SDKDisabled        string `name:"otel-sdk-disabled" env:"OTEL_SDK_DISABLED" default:"false" help:"With true nothing is traced, whatever else is set."`
	Exporter           string `name:"traces-exporter" env:"OTEL_TRACES_EXPORTER" default:"otlp" help:"How traces are sent: otlp, or none, with which nothing is traced."`
	Sampler            string `name:"traces-sampler" env:"OTEL_TRACES_SAMPLER" default:"parentbased_always_on" help:"What is traced: always_on, always_off, traceidratio, or one of them with parentbased_ in front, which is the same here: callers of the service do not decide it. The fetch that follows on a traced delivery is always traced too."`
	SamplerArg         string `name:"traces-sampler-arg" env:"OTEL_TRACES_SAMPLER_ARG" default:"1" help:"Share of the traces that traceidratio takes, from 0 to 1."`
	TraceIDs           bool   `name:"trace-ids" env:"MIRROR_TRACE_IDS" help:"Put the ids of rooms, threads and events into traces. Without it a trace has the kinds of resources alone, since whoever reads traces may not be allowed to see who works on what, and an erasure does not reach them."`
}

// Endpoint is where traces are sent; empty if nowhere.
func (t Traces) Endpoint() string {
	switch {
	case strings.EqualFold(t.SDKDisabled, "true"), t.Exporter == "none":
		return ""
	case t.OTLPTracesEndpoint != "" || t.OTLPEndpoint == "":
		return t.OTLPTracesEndpoint
	}
	return strings.TrimRight(t.OTLPEndpoint, "/") + "/v1/traces"
}

var samplers = []string{
	"always_on", "always_off", "traceidratio",
	"parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio",
}

// Validate checks the settings of traces, if anything is traced.
func (t Traces) Validate() error {
	if t.Endpoint() == "" {
		return nil
	}
	err := cmp.Or(collector("OTEL_EXPORTER_OTLP_ENDPOINT", t.OTLPEndpoint),
		collector("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", t.OTLPTracesEndpoint), t.protocol())
	if err != nil {
		return err
	}
	switch {
	case len(t.ServiceName) > 255 || strings.ContainsFunc(t.ServiceName, unicode.IsControl):
		return wrong("OTEL_SERVICE_NAME", "must be at most 255 bytes without control characters")
	case !strings.EqualFold(t.SDKDisabled, "false"):
		return wrong("OTEL_SDK_DISABLED", "is %q; it must be true or false", t.SDKDisabled)
	case t.Exporter != "otlp":
		return wrong("OTEL_TRACES_EXPORTER", "is %q; it must be otlp or none", t.Exporter)
	case !slices.Contains(samplers, t.Sampler):
		return wrong("OTEL_TRACES_SAMPLER", "is %q; it must be %s", t.Sampler, strings.Join(samplers, " or "))
	}
	if share := t.Share(); !(share >= 0 && share <= 1) { // NaN is neither
		return wrong("OTEL_TRACES_SAMPLER_ARG", "is %q; it must be a number from 0 to 1", t.SamplerArg)
	}
	_, err = t.Headers()
	return err
}

// Share is the part of the traces that traceidratio takes; NaN if the setting is no number.
func (t Traces) Share() float64 {
	share, err := strconv.ParseFloat(t.SamplerArg, 64)
	if err != nil {
		return math.NaN()
	}
	return share
}

// protocol refuses what the exporter does not speak: a collector that expects it has
// another port.
func (t Traces) protocol() error {
	setting, value := "OTEL_EXPORTER_OTLP_PROTOCOL", t.OTLPProtocol
	if t.OTLPTracesProtocol != "" {
		setting, value = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", t.OTLPTracesProtocol
	}
	if value == "http/protobuf" {
		return nil
	}
	return wrong(setting, "is %q, but only http/protobuf is spoken; set that, and the address at which the collector "+
		"receives OTLP over HTTP, usually port 4318, or OTEL_TRACES_EXPORTER=none", value)
}

// Headers returns the headers for the collector.
func (t Traces) Headers() (map[string]string, error) {
	headers := make(map[string]string)
	setting, text := "OTEL_EXPORTER_OTLP_HEADERS", t.OTLPHeaders.Reveal()
	if own := t.OTLPTracesHeaders.Reveal(); own != "" {
		setting, text = "OTEL_EXPORTER_OTLP_TRACES_HEADERS", own
	}
	for pair := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if key = strings.TrimSpace(key); !ok || err != nil || key == "" {
			return nil, wrong(setting, "must be KEY=VALUE pairs separated by commas, with values "+
				"percent-encoded, such as authorization=Bearer%%20TOKEN")
		}
		headers[key] = value
	}
	return headers, nil
}

func collector(setting, value string) error {
	if value == "" {
		return nil
	}
	u, err := url.Parse(value)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return wrong(setting, "must be a URL that begins with https:// or http:// and names a host, such as "+
			"http://localhost:4318")
	case u.User != nil:
		return wrong(setting, "must not have a user; send credentials in OTEL_EXPORTER_OTLP_HEADERS")
	case u.RawQuery != "", u.ForceQuery, strings.Contains(value, "#"): // the exporter would drop them
		return wrong(setting, "must not have a query or a fragment, which would not be sent; send tokens and the like in "+
			"OTEL_EXPORTER_OTLP_HEADERS")
	}
	return nil
}

// REST says how Liveblocks' own REST API is served.
type REST struct {
	RESTMode      string        `name:"rest" env:"MIRROR_REST" default:"off" enum:"off,read,write" help:"Serve Liveblocks' own REST API below /v2/ of the HTTP address, so that their packages for servers read from the mirror: read answers what is mirrored and refuses writes, write forwards them to Liveblocks. See REST.md."`
	RESTUpstream  string        `name:"rest-upstream" env:"MIRROR_REST_UPSTREAM" default:"on" enum:"on,off" help:"Whether reads of the REST API that the mirror cannot answer are passed on to Liveblocks, for keys with the scope rest.upstream."`
	RESTWarnAfter time.Duration `name:"rest-warn-after" env:"MIRROR_REST_WARN_AFTER" default:"10m" help:"How old a copy may be before a reader of the REST API is warned that a newer version is known, and how long Liveblocks may give no answer before one is warned of that."`
}

// Validate checks the settings of the REST API.
func (r REST) Validate() error {
	if r.RESTWarnAfter < 0 {
		return wrong("MIRROR_REST_WARN_AFTER", "is %s; it must not be negative", r.RESTWarnAfter)
	}
	return nil
}

// Serve is everything the service needs.
type Serve struct {
	Database   `group:"Database"`
	Migrate    bool `group:"Database" name:"migrate" env:"MIRROR_MIGRATE" help:"Migrate the database schema at start. The embedded PostgreSQL is always migrated."`
	Roles      `group:"Database"`
	Liveblocks `group:"Liveblocks"`
	Addresses  `group:"Addresses"`
	REST       `group:"REST"`
	Work       `group:"Work"`
	Traces     `group:"Traces"`
}

// Keys says where the keys are, for the commands that work on them.
type Keys struct {
	KeysFile string `name:"keys-file" env:"MIRROR_KEYS_FILE" placeholder:"FILE" help:"The keys file."`
}

// DefaultServer is where a running service is called by default.
const DefaultServer = "127.0.0.1:9090"

// Client is what a command needs that calls a running service.
type Client struct {
	Server     string   `name:"server" env:"MIRROR_SERVER" default:"127.0.0.1:9090" placeholder:"ADDR" help:"gRPC address of the running service. For TLS, https://host:9090."`
	ServerCA   string   `name:"server-ca" env:"MIRROR_SERVER_CA" placeholder:"FILE" help:"PEM file of the authorities of the service's certificate. If empty, those of this machine."`
	ClientCert string   `name:"client-cert" env:"MIRROR_CLIENT_CERT" placeholder:"FILE" help:"PEM file of a client certificate, for a service that accepts one."`
	ClientKey  string   `name:"client-key" env:"MIRROR_CLIENT_KEY" placeholder:"FILE" help:"PEM file of the client certificate's private key."`
	APIToken   []Secret `name:"api-token" env:"MIRROR_API_TOKEN" placeholder:"TOKEN" help:"Bearer token of the service, if it requires one. Of several, separated by commas, the first is used."`
	ProjectID  string   `name:"project-id" env:"MIRROR_PROJECT_ID" placeholder:"ID" help:"Local id of the Liveblocks project. Not needed if there is only one."`
}

// Settings returns the flags of all settings of the service, in order.
func Settings() []*kong.Flag {
	return flags(&struct {
		Serve
		Log `group:"Log"`
	}{})
}

// Defaults returns the settings of a service for which nothing is set.
func Defaults() Serve {
	var s Serve
	for _, f := range flags(&s) {
		if err := f.Parse(kong.ScanFromTokens(kong.Token{Type: kong.FlagValueToken, Value: f.Default}),
			f.Target); f.HasDefault && err != nil {
			panic(err) // a tag above is wrong
		}
	}
	return s
}

func flags(target any) []*kong.Flag {
	return slices.DeleteFunc(kong.Must(target).Model.Flags, func(f *kong.Flag) bool { return len(f.Envs) == 0 }) // --help
}

// Error says that a setting has a value that cannot be used.
type Error struct {
	// Setting is the name of the environment variable or the flag.
	Setting string
	// Problem completes a sentence that begins with the name, and says what to do. It
	// quotes no secret.
	Problem string
}

// Error returns the sentence.
func (e *Error) Error() string { return e.Setting + " " + e.Problem }

func wrong(setting, problem string, args ...any) error {
	return &Error{Setting: setting, Problem: fmt.Sprintf(problem, args...)}
}

// DefaultProject is the id of the project if nothing else is set.
const DefaultProject = "default"

// Positive returns an error unless v is above 0, which NaN is not.
func Positive[T int | int64 | float64 | time.Duration](setting string, v T) error {
	if v > 0 {
		return nil
	}
	return wrong(setting, "is %v; it must be above 0", v)
}

// notNegative returns an error if v is; at 0 something is disabled.
func notNegative[N int | time.Duration](setting string, v N, disabled string) error {
	if v >= 0 {
		return nil
	}
	return wrong(setting, "is %v; it must not be negative (0 disables %s)", v, disabled)
}

// Validate checks the settings of a client.
func (c Client) Validate() error {
	if _, _, err := net.SplitHostPort(strings.TrimPrefix(c.Server, "https://")); err != nil {
		return wrong("MIRROR_SERVER", "is %q; it must be host:port, such as 127.0.0.1:9090, or https://host:9090", c.Server)
	}
	switch {
	case (c.ClientCert == "") != (c.ClientKey == ""):
		return wrong("MIRROR_CLIENT_CERT and MIRROR_CLIENT_KEY", "must both be set, or neither")
	case (c.ClientCert != "" || c.ServerCA != "") && !strings.HasPrefix(c.Server, "https://"):
		return wrong("MIRROR_SERVER", "is %q, which is without TLS, but MIRROR_SERVER_CA or MIRROR_CLIENT_CERT is set; "+
			"begin with https://", c.Server)
	}
	return nil
}

// Pooled reports whether DATABASE_URL is known to go through a pooler.
func (d Database) Pooled() bool { return d.DatabasePooled || d.DatabaseDirectURL.Reveal() != "" }

// URL leads to the database.
func (d Database) URL() string { return d.inSchema(d.DatabaseURL.Reveal()) }

// DirectURL leads to the database without a pooler, as far as one is known.
func (d Database) DirectURL() string {
	return d.inSchema(cmp.Or(d.DatabaseDirectURL.Reveal(), d.DatabaseURL.Reveal()))
}

func (d Database) inSchema(url string) string {
	if d.DatabaseSchema == "" || url == "" {
		return url
	}
	return engine.WithSchema(url, d.DatabaseSchema)
}

// driverDSN is the form of MySQL addresses that Go's driver defines.
var driverDSN = regexp.MustCompile(`^[^/]*@(tcp|unix)\([^()]+\)/`)

// Validate checks the database settings.
func (d Database) Validate() error {
	pooled, direct := d.DatabaseURL.Reveal(), d.DatabaseDirectURL.Reveal()
	err := cmp.Or(databaseURL("DATABASE_URL", pooled), databaseURL("DATABASE_DIRECT_URL", direct), d.validSchema())
	switch {
	case err != nil:
		return err
	case direct != "" && pooled == "":
		return wrong("DATABASE_DIRECT_URL", "is set, but DATABASE_URL is not; set both, or neither for the "+
			"embedded PostgreSQL")
	case direct != "" && engine.IsPostgres(direct) != engine.IsPostgres(pooled):
		return wrong("DATABASE_DIRECT_URL", "must lead to the same database as DATABASE_URL, but only one of them is a "+
			"PostgreSQL URL")
	case d.DatabaseMaxConns < 2:
		return wrong("MIRROR_DATABASE_MAX_CONNS", "is %d; it must be at least 2, because one connection is reserved for "+
			"recording deliveries", d.DatabaseMaxConns)
	}
	if err := notNegative("MIRROR_DATABASE_WAIT", d.DatabaseWait, "the wait"); err != nil {
		return err
	}
	return notNegative("MIRROR_READ_TIMEOUT", d.ReadTimeout, "the limit")
}

// validSchema checks the name of the schema.
func (d Database) validSchema() error {
	const setting = "MIRROR_DATABASE_SCHEMA"
	name, url := d.DatabaseSchema, d.DatabaseURL.Reveal()
	switch {
	case name == "":
		return nil
	case url != "" && !engine.IsPostgres(url):
		return wrong(setting, "is %q, but DATABASE_URL leads to MySQL, where the database is the schema; leave it empty, "+
			"and name the database in the URL", name)
	case len(name) > 63, strings.ContainsFunc(name, unicode.IsControl), strings.HasPrefix(name, "pg_"),
		name == "information_schema":
		return wrong(setting, "is %q; it must be at most 63 bytes without control characters, and not one of PostgreSQL's "+
			"own schemas", name)
	}
	for _, url := range []string{d.URL(), d.DirectURL()} {
		if url == "" {
			continue
		}
		if err := engine.CheckURL(url); err != nil {
			return wrong(setting, "cannot be used: %v", err)
		}
	}
	return nil
}

func databaseURL(setting, value string) error {
	if value == "" || driverDSN.MatchString(value) {
		return nil
	}
	if !engine.Known(value) {
		return wrong(setting, "must begin with postgres://, postgresql:// or mysql://")
	}
	if _, err := url.Parse(value); err != nil { // the cause repeats the password
		return wrong(setting, "is not a URL; in the user name and the password, write %%40 for @, %%3A for :, %%2F for / "+
			"and %%25 for %%")
	}
	if err := engine.CheckURL(value); err != nil {
		return wrong(setting, "cannot be used: %v", err)
	}
	return nil
}

// Validate refuses to serve beyond this machine without a token.
func (a Addresses) Validate() error {
	for _, t := range Reveal(a.APIToken) {
		if strings.TrimSpace(t) != t {
			return wrong("MIRROR_API_TOKEN", "contains a token with leading or trailing spaces; separate tokens by commas only")
		}
		if len(t) < 16 {
			return wrong("MIRROR_API_TOKEN", "contains a token of fewer than 16 characters; generate one with "+
				"`openssl rand -hex 32`")
		}
	}
	if info, err := os.Stat(filepath.Dir(a.ReadyFile)); a.ReadyFile != "" && (err != nil || !info.IsDir()) {
		return wrong("MIRROR_READY_FILE", "is %q, whose directory does not exist; create it, or choose another file",
			a.ReadyFile)
	}
	switch {
	case (a.TLSCert == "") != (a.TLSKey == ""):
		return wrong("MIRROR_TLS_CERT and MIRROR_TLS_KEY", "must both be set, or neither")
	case a.Insecure != "" && a.Insecure != "behind-proxy":
		return wrong("MIRROR_INSECURE", "is %q; it must be behind-proxy or empty", a.Insecure)
	case a.TLSClientCA != "" && !a.Enabled():
		return wrong("MIRROR_TLS_CLIENT_CA", "is set, but MIRROR_TLS_CERT is not; client certificates need TLS")
	case a.TLSClientCA != "" && a.KeysFile == "":
		return wrong(
			"MIRROR_TLS_CLIENT_CA",
			"is set, but MIRROR_KEYS_FILE is not, which says what a client certificate may do",
		)
	}
	open := !a.Credentials()
	err := cmp.Or(notNegative("MIRROR_HTTP_IDLE_TIMEOUT", a.HTTPIdleTimeout, "the limit"),
		a.address("MIRROR_HTTP_ADDR", a.HTTPAddr, open), a.address("MIRROR_GRPC_ADDR", a.GRPCAddr, open))
	if err == nil && a.WebhookAddr != "" {
		err = a.address("MIRROR_WEBHOOK_ADDR", a.WebhookAddr, false)
	}
	if err == nil && a.MetricsAddr != "" {
		err = a.address("MIRROR_METRICS_ADDR", a.MetricsAddr, open)
	}
	return err
}

// Credentials reports whether callers need a credential.
func (a Addresses) Credentials() bool { return len(a.APIToken) > 0 || a.KeysFile != "" }

// address checks where to listen. Whoever reaches an open address can read the
// mirror, and whoever is on the way to one without TLS can read the tokens.
func (a Addresses) address(setting, addr string, open bool) error {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return wrong(setting, "is %q; it must be host:port, such as 127.0.0.1:8080", addr)
	}
	if open && !gateway.Loopback(addr) {
		return wrong(
			setting,
			"is %q, which other machines can reach, and neither MIRROR_API_TOKEN nor MIRROR_KEYS_FILE is set; set one, or "+
				"listen on 127.0.0.1 and expose only --webhook-addr",
			addr,
		)
	}
	if !a.Enabled() && a.Insecure == "" && !gateway.Loopback(addr) {
		return wrong(setting, "is %q, which other machines can reach without TLS; set MIRROR_TLS_CERT and MIRROR_TLS_KEY, "+
			"or listen on 127.0.0.1, or set MIRROR_INSECURE=behind-proxy if only a proxy that ends TLS can reach it", addr)
	}
	return nil
}

// Validate checks the settings of the work.
func (w Work) Validate() error {
	switch {
	case w.LeaseTTL < time.Second:
		return wrong("MIRROR_LEASE_TTL", "is %s; it must be at least 1s", w.LeaseTTL)
	case w.BackoffMax < w.BackoffMin:
		return wrong("MIRROR_BACKOFF_MAX", "is %s; it must be at least MIRROR_BACKOFF_MIN, which is %s", w.BackoffMax,
			w.BackoffMin)
	}
	return cmp.Or(
		Positive("MIRROR_WORKERS", w.Workers),
		Positive("MIRROR_FETCHES", w.Fetches),
		Positive("MIRROR_MAX_ATTEMPTS", w.MaxAttempts),
		Positive("MIRROR_BACKOFF_MIN", w.BackoffMin),
		Positive("MIRROR_BUSY_POLL", w.BusyPoll),
		Positive("MIRROR_SAFETY_POLL", w.SafetyPoll),
		Positive("MIRROR_STOP_GRACE", w.StopGrace),
		Positive("MIRROR_MAX_DATA", w.MaxData),
		notNegative("MIRROR_FEED_POLL", w.FeedPoll, "regular looks"),
		notNegative("MIRROR_FEED_WATCHERS_PER_CALLER", w.FeedCallers, "the limit"),
		notNegative("MIRROR_SETTLE", w.Settle, "the second fetch"),
		notNegative("MIRROR_SWEEP_INTERVAL", w.Sweep, "sweeps"),
		notNegative("MIRROR_FULL_SWEEP_INTERVAL", w.FullSweep, "full sweeps"),
		w.validate(),
	)
}

// check checks the settings of one project. What is in the key, the signing secrets and
// the base URL is checked by those who use them. The parser must not call it: there may be
// a file of projects.
func (l Liveblocks) check() error {
	switch {
	case !mirror.ValidProjectID(l.ProjectID):
		return wrong("MIRROR_PROJECT_ID", "is %q; it must be 1 to 64 lower-case letters, digits and dashes", l.ProjectID)
	case l.SecretKey.Reveal() == "" && len(l.WebhookSecret) == 0:
		return wrong("LIVEBLOCKS_SECRET_KEY and LIVEBLOCKS_WEBHOOK_SECRET", "are not set; copy the secret key (sk_...) from "+
			"the Liveblocks dashboard under API keys and the signing secret (whsec_...) under Webhooks, or try "+
			"`liveblocks-mirror demo`, which needs neither")
	case l.SecretKey.Reveal() == "":
		return wrong("LIVEBLOCKS_SECRET_KEY", "is not set; copy the secret key (sk_...) from the Liveblocks dashboard "+
			"under API keys, or try `liveblocks-mirror demo`, which needs none")
	case len(l.WebhookSecret) == 0:
		return wrong("LIVEBLOCKS_WEBHOOK_SECRET", "is not set; copy the signing secret (whsec_...) from the Liveblocks "+
			"dashboard under Webhooks")
	case l.CallsPerSecond > liveblocks.MaxRatePerSecond:
		return wrong("MIRROR_LIVEBLOCKS_CALLS_PER_SECOND", "is %v; it must be at most %d", l.CallsPerSecond,
			liveblocks.MaxRatePerSecond)
	}
	if !(l.HedgeShare >= 0 && l.HedgeShare <= 1) { // NaN is neither
		return wrong("MIRROR_LIVEBLOCKS_HEDGE_SHARE", "is %v; it must be from 0 to 1 (0 disables further attempts)",
			l.HedgeShare)
	}
	return cmp.Or(
		Positive("MIRROR_LIVEBLOCKS_CALLS_PER_SECOND", l.CallsPerSecond),
		Positive("MIRROR_LIVEBLOCKS_CALL_TIMEOUT", l.CallTimeout),
		Positive("MIRROR_LIVEBLOCKS_IDLE_TIMEOUT", l.IdleTimeout),
		Positive("MIRROR_LIVEBLOCKS_MAX_ANSWER", l.MaxAnswer),
		Positive("MIRROR_LIVEBLOCKS_PROBE_MIN", l.ProbeMin),
	)
}

// Validate checks every group and returns the first error.
func (s Serve) Validate() error {
	err := s.Database.Validate()
	if err == nil {
		_, err = s.Projects()
	}
	return cmp.Or(err, s.Roles.Validate(), s.Addresses.Validate(), s.REST.Validate(), s.Work.Validate(),
		s.Traces.Validate())
}

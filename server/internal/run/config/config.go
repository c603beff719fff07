// Package config is the one table of settings. A field's tags give the flag,
// the environment variable, the default and the help text; [Resolver] finds the
// value in the environment, in a file named by the variable with _FILE added, or
// in a configuration file. A field tagged secret is never printed.
package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/gateway"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/webhook"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// Database says where the data is kept.
type Database struct {
	DatabaseURL       string `name:"database-url" env:"DATABASE_URL" secret:"" placeholder:"URL" help:"PostgreSQL or MySQL database, such as postgres://user:password@host/name?sslmode=require or mysql://user:password@host/name. Empty runs a PostgreSQL of our own in the data folder."`
	DatabaseDirectURL string `name:"database-direct-url" env:"DATABASE_DIRECT_URL" secret:"" placeholder:"URL" help:"The same PostgreSQL database without a connection pooler in between; used for migrations. Empty uses DATABASE_URL. If it is set, DATABASE_URL is taken to be pooled."`
	DatabasePooled    bool   `name:"database-pooled" env:"MIRROR_DATABASE_POOLED" help:"DATABASE_URL leads through a pooler in transaction mode. Neon's and Supabase's poolers and PgBouncer's usual port are recognised without it."`
	DatabaseMaxConns  int    `name:"database-max-conns" env:"MIRROR_DATABASE_MAX_CONNS" default:"16" help:"Most connections to keep open."`
	DataDir           string `name:"data-dir" env:"MIRROR_DATA_DIR" placeholder:"DIR" help:"Folder of the embedded PostgreSQL. Default: /var/lib/liveblocks-mirror for root, else ~/.local/share/liveblocks-mirror."`
	PGBin             string `name:"pg-bin" env:"MIRROR_PG_BIN" placeholder:"DIR" help:"Folder that holds postgres and initdb for the embedded PostgreSQL. Empty searches the usual places."`
}

// Log says what is logged and how.
type Log struct {
	LogLevel  slog.Level `name:"log-level" env:"MIRROR_LOG_LEVEL" default:"info" help:"Least level to log: debug, info, warn or error."`
	LogFormat string     `name:"log-format" env:"MIRROR_LOG_FORMAT" default:"text" enum:"text,json" help:"Form of log lines: text or json."`
}

// Addresses says where the service listens.
type Addresses struct {
	HTTPAddr    string   `name:"http-addr" env:"MIRROR_HTTP_ADDR" default:"127.0.0.1:8080" help:"Address of the HTTP gateway. Port 0 takes a free one."`
	GRPCAddr    string   `name:"grpc-addr" env:"MIRROR_GRPC_ADDR" default:"127.0.0.1:9090" help:"Address of the gRPC server. Port 0 takes a free one."`
	WebhookAddr string   `name:"webhook-addr" env:"MIRROR_WEBHOOK_ADDR" placeholder:"ADDR" help:"Second HTTP address that serves the webhook paths and /healthz and nothing else: the one to expose."`
	APIToken    []string `name:"api-token" env:"MIRROR_API_TOKEN" secret:"" placeholder:"TOKEN" help:"Bearer tokens, separated by commas, one of which every call but webhooks and /healthz must carry. Needed to listen beyond loopback."`
	ReadyFile   string   `name:"ready-file" env:"MIRROR_READY_FILE" placeholder:"FILE" help:"File to write the taken addresses to, as JSON, once the service is ready."`
}

// Liveblocks says how to talk to Liveblocks.
type Liveblocks struct {
	ProjectID      string        `name:"project-id" env:"MIRROR_PROJECT_ID" default:"default" help:"Local id of the Liveblocks project: lower-case letters, digits and dashes."`
	SecretKey      string        `name:"liveblocks-secret-key" env:"LIVEBLOCKS_SECRET_KEY" secret:"" placeholder:"sk_..." help:"The project's secret key, from the dashboard under API keys."`
	WebhookSecret  []string      `name:"liveblocks-webhook-secret" env:"LIVEBLOCKS_WEBHOOK_SECRET" secret:"" placeholder:"whsec_..." help:"The webhook endpoint's signing secret, from the dashboard under Webhooks; several separated by commas while one is rotated."`
	BaseURL        string        `name:"liveblocks-base-url" env:"LIVEBLOCKS_BASE_URL" default:"https://api.liveblocks.io" help:"Where the Liveblocks API is."`
	CallsPerSecond float64       `name:"liveblocks-calls-per-second" env:"MIRROR_LIVEBLOCKS_CALLS_PER_SECOND" default:"50" help:"Most calls a second to the Liveblocks API. The service goes below it by itself when Liveblocks asks for fewer."`
	CallTimeout    time.Duration `name:"liveblocks-call-timeout" env:"MIRROR_LIVEBLOCKS_CALL_TIMEOUT" default:"30s" help:"Longest time one call may take, body included."`
	MaxAnswer      int64         `name:"liveblocks-max-answer" env:"MIRROR_LIVEBLOCKS_MAX_ANSWER" default:"67108864" help:"Largest answer to take from the Liveblocks API, in bytes."`
	ProbeMin       time.Duration `name:"liveblocks-probe-min" env:"MIRROR_LIVEBLOCKS_PROBE_MIN" default:"5s" help:"First wait before a refused key is tried again; it doubles up to five minutes."`
}

// Work says how the mirror is kept up to date.
type Work struct {
	Ack         string        `name:"ack" env:"MIRROR_ACK" default:"durable" enum:"durable,synced" help:"When a webhook is answered: durable, once its event is recorded; synced, once what it changed is mirrored too."`
	Workers     int           `name:"workers" env:"MIRROR_WORKERS" default:"8" help:"Resources fetched at once."`
	Settle      time.Duration `name:"settle" env:"MIRROR_SETTLE" default:"3s" help:"How long after the last event of a resource it is fetched once more, since an answer right after an event may be older than it. 0 leaves that out."`
	LeaseTTL    time.Duration `name:"lease-ttl" env:"MIRROR_LEASE_TTL" default:"30s" help:"How long a crashed replica keeps a resource to itself."`
	MaxAttempts int           `name:"max-attempts" env:"MIRROR_MAX_ATTEMPTS" default:"10" help:"Attempts before a task fails for good."`
	BackoffMin  time.Duration `name:"backoff-min" env:"MIRROR_BACKOFF_MIN" default:"1s" help:"Delay after the first failed attempt; it doubles each time."`
	BackoffMax  time.Duration `name:"backoff-max" env:"MIRROR_BACKOFF_MAX" default:"5m" help:"Longest delay between two attempts."`
	BusyPoll    time.Duration `name:"busy-poll" env:"MIRROR_BUSY_POLL" default:"3s" help:"How often the database is asked for due work while there is some."`
	SafetyPoll  time.Duration `name:"safety-poll" env:"MIRROR_SAFETY_POLL" default:"1h" help:"How often the database is asked for due work while there is none. In between, an idle service sends no query."`
	Sweep       time.Duration `name:"sweep-interval" env:"MIRROR_SWEEP_INTERVAL" default:"1h" help:"How long after one sweep the next begins: the comparison with the list of all rooms, which finds what no webhook told of. 0 means never."`
	FullSweep   time.Duration `name:"full-sweep-interval" env:"MIRROR_FULL_SWEEP_INTERVAL" default:"24h" help:"How often a sweep has everything in every room fetched anew. The first one does, and brings the rooms that existed before. 0 means never."`
	MaxData     int           `name:"max-data" env:"MIRROR_MAX_DATA" default:"16777216" help:"Largest document, in bytes of JSON, that is also kept as queryable JSON."`
	StopGrace   time.Duration `name:"stop-grace" env:"MIRROR_STOP_GRACE" default:"20s" help:"Longest time to finish what is under way when asked to stop."`
}

// Serve is everything the service needs.
type Serve struct {
	Database   `group:"Database"`
	Liveblocks `group:"Liveblocks"`
	Addresses  `group:"Addresses"`
	Work       `group:"Work"`
	Migrate    bool `name:"migrate" env:"MIRROR_MIGRATE" help:"Bring the database schema up to date first. The embedded PostgreSQL always is."`
}

// Client is what a command needs that talks to a running service.
type Client struct {
	Server    string   `name:"server" env:"MIRROR_SERVER" default:"127.0.0.1:9090" placeholder:"ADDR" help:"gRPC address of the running service, or https://host:443 where it is reached through TLS."`
	APIToken  []string `name:"api-token" env:"MIRROR_API_TOKEN" secret:"" placeholder:"TOKEN" help:"Bearer token of the service, if it asks for one. Of several, separated by commas, the first is used."`
	ProjectID string   `name:"project-id" env:"MIRROR_PROJECT_ID" placeholder:"ID" help:"Local id of the Liveblocks project. Empty means the only one."`
}

// Validate checks the address.
func (c Client) Validate() error {
	if _, _, err := net.SplitHostPort(strings.TrimPrefix(c.Server, "https://")); err != nil {
		return fmt.Errorf("MIRROR_SERVER is %q and should be host:port, such as 127.0.0.1:9090, or https://host:443",
			c.Server)
	}
	return nil
}

// Pooled reports whether DATABASE_URL is known to lead through a pooler.
func (d Database) Pooled() bool { return d.DatabasePooled || d.DatabaseDirectURL != "" }

// DirectURL leads to the database without a pooler, as far as it is known.
func (d Database) DirectURL() string {
	if d.DatabaseDirectURL != "" {
		return d.DatabaseDirectURL
	}
	return d.DatabaseURL
}

// driverDSN is the form of MySQL addresses that Go's driver defines.
var driverDSN = regexp.MustCompile(`^[^/]*@(tcp|unix)\([^()]+\)/`)

// Validate checks the database settings.
func (d Database) Validate() error {
	for _, c := range []struct{ name, url string }{{"DATABASE_URL", d.DatabaseURL},
		{"DATABASE_DIRECT_URL", d.DatabaseDirectURL}} {
		if c.url == "" || driverDSN.MatchString(c.url) {
			continue
		}
		if scheme, _, ok := strings.Cut(c.url, "://"); !ok || !slices.Contains([]string{"postgres", "postgresql", "mysql"},
			scheme) {
			return fmt.Errorf("%s must begin with postgres://, postgresql:// or mysql://", c.name)
		}
		if _, err := url.Parse(c.url); err != nil { // which would repeat the password
			return fmt.Errorf("%s is not a URL; in a user name or password, write %%40 for @, %%3A for :, %%2F for / and "+
				"%%25 for %%", c.name)
		}
	}
	if d.DatabaseDirectURL != "" && d.DatabaseURL != "" &&
		strings.HasPrefix(d.DatabaseDirectURL, "postgres") != strings.HasPrefix(d.DatabaseURL, "postgres") {
		return errors.New("DATABASE_DIRECT_URL and DATABASE_URL must lead to the same database: one of them is " +
			"PostgreSQL's and the other MySQL's")
	}
	if d.DatabaseURL == "" && d.DatabaseDirectURL != "" {
		return errors.New("DATABASE_DIRECT_URL is set and DATABASE_URL is not; set both, or neither for the embedded " +
			"PostgreSQL")
	}
	if d.DatabaseMaxConns < 2 {
		return errors.New("MIRROR_DATABASE_MAX_CONNS must be at least 2: one to record deliveries while another works")
	}
	return nil
}

// secretKeyForm is what the Liveblocks client takes as a key.
var secretKeyForm = regexp.MustCompile(`^sk_[\w-]+$`)

// maxCallsPerSecond is more than one process could ever send.
const maxCallsPerSecond = 100_000

// Validate checks the settings of Liveblocks without ever repeating a secret.
func (l Liveblocks) Validate() error {
	if !mirror.ValidProjectID(l.ProjectID) {
		return errors.New("MIRROR_PROJECT_ID must be 1 to 64 lower-case letters, digits and dashes")
	}
	if l.SecretKey == "" {
		return errors.New("LIVEBLOCKS_SECRET_KEY is not set; take the secret key (sk_...) from the Liveblocks dashboard " +
			"under API keys, or try `liveblocks-mirror demo`, which needs none")
	}
	if !strings.HasPrefix(l.SecretKey, "sk_") {
		return errors.New("LIVEBLOCKS_SECRET_KEY must begin with sk_; what begins with pk_ is the public key")
	}
	if !secretKeyForm.MatchString(l.SecretKey) {
		return errors.New(`LIVEBLOCKS_SECRET_KEY must be sk_ followed by letters, digits, "_" and "-"; look for blanks, quotes or a line break in it`)
	}
	const whereSecret = "take the signing secret (whsec_...) from the Liveblocks dashboard under Webhooks"
	if len(l.WebhookSecret) == 0 {
		return errors.New("LIVEBLOCKS_WEBHOOK_SECRET is not set; " + whereSecret)
	}
	secrets := make([]webhook.Secret, len(l.WebhookSecret))
	for i, s := range l.WebhookSecret {
		secrets[i] = webhook.Secret{Project: mirror.ProjectID(l.ProjectID), Secret: s}
	}
	if _, err := webhook.NewVerifier(secrets, time.Second); err != nil {
		return fmt.Errorf("LIVEBLOCKS_WEBHOOK_SECRET cannot be used; %s: %w", whereSecret, err)
	}
	u, err := url.Parse(l.BaseURL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("LIVEBLOCKS_BASE_URL must be a URL that begins with https:// or http://")
	}
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return errors.New("LIVEBLOCKS_BASE_URL must not have a user, a query or a fragment; leave out what is before @ " +
			"and behind ? or #")
	}
	switch {
	case !(l.CallsPerSecond > 0 && l.CallsPerSecond <= maxCallsPerSecond): // NaN is refused as well
		return fmt.Errorf("MIRROR_LIVEBLOCKS_CALLS_PER_SECOND must be above 0 and at most %d", maxCallsPerSecond)
	case l.CallTimeout <= 0:
		return errors.New("MIRROR_LIVEBLOCKS_CALL_TIMEOUT must be above 0")
	case l.MaxAnswer <= 0:
		return errors.New("MIRROR_LIVEBLOCKS_MAX_ANSWER must be above 0")
	case l.ProbeMin <= 0:
		return errors.New("MIRROR_LIVEBLOCKS_PROBE_MIN must be above 0")
	}
	return nil
}

// Validate refuses to serve beyond this machine without a credential.
func (a Addresses) Validate() error {
	for _, t := range a.APIToken {
		if strings.TrimSpace(t) != t {
			return errors.New("MIRROR_API_TOKEN holds a token with a blank before or behind it; separate tokens by commas alone")
		}
		if len(t) < 16 {
			return errors.New("MIRROR_API_TOKEN holds a token of fewer than 16 characters; make one with `openssl rand -hex 32`")
		}
	}
	for _, c := range []struct{ name, addr string }{
		{"MIRROR_HTTP_ADDR", a.HTTPAddr}, {"MIRROR_GRPC_ADDR", a.GRPCAddr}, {"MIRROR_WEBHOOK_ADDR", a.WebhookAddr},
	} {
		name, addr := c.name, c.addr
		if addr == "" && name == "MIRROR_WEBHOOK_ADDR" {
			continue
		}
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return fmt.Errorf("%s is %q and should be host:port, such as 127.0.0.1:8080", name, addr)
		}
		if name != "MIRROR_WEBHOOK_ADDR" && len(a.APIToken) == 0 && !gateway.Loopback(host) {
			return fmt.Errorf("%s listens beyond this machine (%s) and MIRROR_API_TOKEN is not set: anybody could read the "+
				"mirror; set a token, or bind to 127.0.0.1 and expose only --webhook-addr", name, addr)
		}
	}
	return nil
}

// Validate checks the settings of the work.
func (w Work) Validate() error {
	for _, c := range []struct {
		name string
		ok   bool
	}{
		{"MIRROR_WORKERS", w.Workers > 0},
		{"MIRROR_MAX_ATTEMPTS", w.MaxAttempts > 0},
		{"MIRROR_BACKOFF_MIN", w.BackoffMin > 0},
		{"MIRROR_BUSY_POLL", w.BusyPoll > 0},
		{"MIRROR_SAFETY_POLL", w.SafetyPoll > 0},
		{"MIRROR_STOP_GRACE", w.StopGrace > 0},
		{"MIRROR_MAX_DATA", w.MaxData > 0},
	} {
		if !c.ok {
			return fmt.Errorf("%s must be above 0", c.name)
		}
	}
	if w.LeaseTTL < time.Second {
		return errors.New("MIRROR_LEASE_TTL must be at least 1s, since a lease is renewed at a third of it")
	}
	for name, interval := range map[string]time.Duration{"MIRROR_SWEEP_INTERVAL": w.Sweep,
		"MIRROR_FULL_SWEEP_INTERVAL": w.FullSweep} {
		if interval < 0 {
			return fmt.Errorf("%s must not be negative; 0 leaves these sweeps out", name)
		}
	}
	if w.Settle < 0 {
		return errors.New("MIRROR_SETTLE must not be negative; 0 leaves the settle fetch out")
	}
	if w.BackoffMax < w.BackoffMin {
		return errors.New("MIRROR_BACKOFF_MAX must not be below MIRROR_BACKOFF_MIN")
	}
	return nil
}

// Validate checks every group and names the first setting that is wrong.
func (s Serve) Validate() error {
	for _, group := range []interface{ Validate() error }{s.Database, s.Liveblocks, s.Addresses, s.Work} {
		if err := group.Validate(); err != nil {
			return err
		}
	}
	return nil
}

package doctor_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/app"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/cli"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/doctor"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/rpc"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
)

const (
	secretKey     = "sk_dev_of-the-tests"
	webhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	password      = "a-password-of-the-tests"
	version       = "v1"
)

// patience is more than any answer takes.
const patience = 20 * time.Second

// place is an installation that a test breaks and mends.
type place struct {
	t        *testing.T
	engine   *dbtest.Engine
	env      map[string]string
	upstream *fake.Server
	status   *mirrorv1.GetStatusResponse // nil: no service runs
	offset   time.Duration               // of the clock of this machine
	free     int64
	limit    time.Duration
	unknown  config.Unknown
	rest     bool
}

// newPlace makes an installation in order, without a database of its own.
func newPlace(t *testing.T, e *dbtest.Engine) *place {
	t.Helper()
	upstream := fake.New(secretKey)
	server := httptest.NewServer(upstream)
	t.Cleanup(server.Close)
	return &place{
		t: t, engine: e, upstream: upstream, free: 1 << 40, limit: patience,
		status: &mirrorv1.GetStatusResponse{Ready: true, Version: version, Store: "a database"},
		env: map[string]string{
			"LIVEBLOCKS_SECRET_KEY": secretKey, "LIVEBLOCKS_WEBHOOK_SECRET": webhookSecret, "LIVEBLOCKS_BASE_URL": server.URL,
			"MIRROR_HTTP_ADDR": "127.0.0.1:0", "MIRROR_GRPC_ADDR": "127.0.0.1:0", "MIRROR_DATA_DIR": t.TempDir(),
		},
	}
}

// upstreamURL is where the fake is.
func (p *place) upstreamURL() string { return p.env["LIVEBLOCKS_BASE_URL"] }

// settings are all that there are.
type settings struct {
	config.Serve
}

// Validate is not that of the settings: a command begins with wrong ones.
func (settings) Validate() error { return nil }

// look makes the checks.
func (p *place) look() []doctor.Finding {
	p.t.Helper()
	resolver, _ := config.NewResolver(func(name string) (string, bool) { // the doctor tells the error
		v, ok := p.env[name]
		return v, ok
	}, p.env["MIRROR_CONFIG"])
	found := doctor.Run(p.t.Context(), doctor.Config{
		Resolver: resolver, App: kong.Must(&settings{}).Model, Unknown: p.unknown, PublicURL: p.env["MIRROR_PUBLIC_URL"],
		REST: p.rest, Limit: p.limit, Version: version, Now: func() time.Time { return time.Now().Add(p.offset) },
		Free: func(string) (int64, int64, error) { return p.free, 1 << 41, nil },
		Status: func(context.Context, config.Client) (*mirrorv1.GetStatusResponse, error) {
			if p.status == nil {
				return nil, fmt.Errorf("%w: no service answers at 127.0.0.1:9090", doctor.ErrNoService)
			}
			return p.status, nil
		},
	})
	for _, f := range found {
		text := fmt.Sprintf("%+v", f)
		for _, secret := range []string{secretKey, webhookSecret, password, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"} {
			if strings.Contains(text, secret) {
				p.t.Errorf("a finding shows a secret: %s", text)
			}
		}
		if bad := f.Verdict == doctor.Warn || f.Verdict == doctor.Fail; bad != (f.Advice != "") || bad != (f.Runbook != "") {
			p.t.Errorf("%s; want what to do, and where that is said, if something is wrong", text)
		}
		anchors.check(p.t, f.Runbook)
	}
	return found
}

// one returns the finding of a check that is wrong. Of each check there must be one at most.
func (p *place) one(check string, want doctor.Verdict) doctor.Finding {
	p.t.Helper()
	all := p.look()
	var found []doctor.Finding
	for _, f := range all {
		if f.Check == check && f.Verdict == want {
			found = append(found, f)
		}
	}
	if len(found) != 1 {
		p.t.Fatalf("%d checks of %q end with %s; want one of\n%+v", len(found), check, want, all)
	}
	return found[0]
}

// well fails the test unless nothing is wrong any more with what was checked.
func (p *place) well(check string) {
	p.t.Helper()
	all := p.look()
	seen := false
	for _, f := range all {
		if f.Check == check {
			seen = true
			if f.Verdict != doctor.OK {
				p.t.Errorf("after the advice was followed: %+v", f)
			}
		}
	}
	if !seen {
		p.t.Errorf("%q was not checked:\n%+v", check, all)
	}
}

// anchored reads the paragraphs of a document.
type anchored struct{ names map[string]bool }

var anchors = func() anchored {
	text, err := os.ReadFile("../../../../docs/OPERATIONS.md")
	if err != nil {
		panic(err)
	}
	a := anchored{map[string]bool{}}
	for _, m := range regexp.MustCompile(`(?m)^### (.+)$`).FindAllStringSubmatch(string(text), -1) {
		a.names[strings.ReplaceAll(strings.ToLower(m[1]), " ", "-")] = true
	}
	return a
}()

func (a anchored) check(t *testing.T, runbook string) {
	t.Helper()
	anchor, ok := strings.CutPrefix(runbook, rpc.Operations)
	if runbook != "" && (!ok || !a.names[anchor]) {
		t.Errorf("OPERATIONS.md has no paragraph %q", runbook)
	}
}

// program and statement are what advice asks to run.
var (
	program   = regexp.MustCompile("`liveblocks-mirror ([^`]+)`")
	statement = regexp.MustCompile(`, run: ([^;]+)`)
)

// follow does what advice says to run.
func (p *place) follow(advice string) {
	p.t.Helper()
	ctx := p.t.Context()
	if m := statement.FindStringSubmatch(advice); m != nil {
		p.exec(m[1])
		return
	}
	m := program.FindStringSubmatch(advice)
	if m == nil {
		p.t.Fatalf("%q says nothing to run", advice)
	}
	db := config.Defaults().Database
	db.DatabaseURL = config.NewSecret(p.env["DATABASE_URL"])
	log := slog.New(slog.DiscardHandler)
	var err error
	switch args := strings.Fields(m[1]); {
	case m[1] == "migrate":
		err = app.Migrate(ctx, db, config.Defaults().Roles, log)
	case len(args) == 4 && args[0] == "projects" && args[1] == "purge" && args[3] == "--yes":
		_, err = app.PurgeProject(ctx, db, []mirror.ProjectID{"default"}, args[2], true, io.Discard, log)
	case m[1] == "resume":
		err = p.store().Stop(ctx, "default", "", time.Now())
	case m[1] == "keys new --add":
		err = cli.NewKey(cli.KeyOptions{Name: "new", Scopes: []string{"read"}, Projects: []string{"default"}},
			p.env["MIRROR_KEYS_FILE"], true, time.Now(), cli.Format{}, io.Discard, io.Discard)
	default:
		p.t.Fatalf("%q is not a command that this test knows", m[1])
	}
	if err != nil {
		p.t.Fatalf("%s: %v", advice, err)
	}
}

// exec runs a statement as an administrator.
func (p *place) exec(text string) {
	p.t.Helper()
	db := p.engine.Connect(p.t, dbtest.Admin(p.env["DATABASE_URL"]))
	if _, err := db.Exec(p.t.Context(), text); err != nil {
		p.t.Fatalf("%s: %v", text, err)
	}
}

// store opens the database.
func (p *place) store() store.Store {
	p.t.Helper()
	s, err := engine.Open(p.t.Context(), engine.Config{URL: p.env["DATABASE_URL"], MaxConns: 2})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(s.Close)
	return s
}

// set sets a variable to the value that advice names it for.
func (p *place) set(advice, name, value string) {
	p.t.Helper()
	if !strings.Contains(advice, name) {
		p.t.Errorf("%q does not name %s", advice, name)
	}
	p.env[name] = value
}

// With everything in order no check fails or warns, whether the service runs or not.
func TestNothingIsWrong(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		p := newPlace(t, e)
		p.env["DATABASE_URL"] = e.Database(t)
		s := p.store()
		if _, err := s.Accept(t.Context(), []mirror.Delivery{{Event: mirror.Event{
			Project: "default", ID: "e", Type: "roomCreated", SendTime: time.Now(), ReceiveTime: time.Now(),
			Outcome: mirror.OutcomeRecorded,
		}}}); err != nil {
			t.Fatal(err)
		}
		for _, f := range p.look() {
			if f.Verdict == doctor.Warn || f.Verdict == doctor.Fail {
				t.Errorf("%+v; want nothing wrong", f)
			}
		}
	})
}

// broken is one thing that is broken, and how the advice about it is followed.
type broken struct {
	name  string
	check string
	want  doctor.Verdict
	make  func(p *place)
	mend  func(p *place, f doctor.Finding)
}

func (b broken) run(t *testing.T, e *dbtest.Engine) {
	t.Helper()
	p := newPlace(t, e)
	b.make(p)
	b.mend(p, p.one(b.check, b.want))
	p.well(b.check)
}

// run follows the advice by running what it says.
func run(p *place, f doctor.Finding) {
	p.t.Helper()
	p.follow(f.Advice)
}

// Of the database, each thing is broken once.
func TestDatabaseIsWrong(t *testing.T) {
	t.Parallel()
	for _, b := range []broken{
		{
			"no tables", "schema", doctor.Fail,
			func(p *place) { p.env["DATABASE_URL"] = p.engine.Empty(p.t) }, run,
		},
		{
			"rights", "database rights", doctor.Fail,
			func(p *place) { p.env["DATABASE_URL"] = asReader(p) },
			func(p *place, f doctor.Finding) {
				reader := p.env["DATABASE_URL"]
				p.env["DATABASE_URL"] = p.env["admin"]
				p.follow(f.Advice)
				p.env["DATABASE_URL"] = reader
			},
		},
		{
			"ids", "ids", doctor.Fail,
			func(p *place) {
				p.env["DATABASE_URL"] = p.engine.Own(p.t)
				if p.engine == dbtest.Postgres {
					p.exec(`alter table mirror_event alter column room_id type text collate "default"`)
				} else {
					p.exec("alter table mirror_event modify room_id varchar(500) character set utf8mb4 not null")
				}
			}, run,
		},
		{
			"removed project", "removed projects", doctor.Warn,
			func(p *place) {
				p.env["DATABASE_URL"] = p.engine.Database(p.t)
				if _, err := p.store().PinProject(p.t.Context(), "gone", "x"); err != nil {
					p.t.Fatal(err)
				}
			}, run,
		},
		{
			"operator's pause", "fetching", doctor.Warn,
			func(p *place) {
				p.env["DATABASE_URL"] = p.engine.Database(p.t)
				if err := p.store().Stop(p.t.Context(), "default", "moving", time.Now()); err != nil {
					p.t.Fatal(err)
				}
			}, run,
		},
		{
			"no webhooks", "webhooks", doctor.Fail,
			func(p *place) {
				p.env["DATABASE_URL"] = p.engine.Database(p.t)
				if err := p.store().NoteUnannounced(p.t.Context(), "default", mirror.KindStorage, 3,
					time.Now().Add(-25*time.Hour)); err != nil {
					p.t.Fatal(err)
				}
				if err := p.store().NoteUnannounced(p.t.Context(), "default", mirror.KindStorage, 3, time.Now()); err != nil {
					p.t.Fatal(err)
				}
			},
			func(p *place, f doctor.Finding) {
				if !strings.Contains(f.Seen, "none has ever come, and sweeps found 3 changes") ||
					!strings.Contains(f.Advice, "endpoint is enabled") {
					p.t.Errorf("finding = %+v", f)
				}
				// The endpoint is enabled: an event comes, and a day later no change is without one.
				if _, err := p.store().Accept(p.t.Context(), []mirror.Delivery{{Event: mirror.Event{
					Project: "default", ID: "e", Type: "storageUpdated", SendTime: time.Now(), ReceiveTime: time.Now(),
					Outcome: mirror.OutcomeRecorded,
				}}}); err != nil {
					p.t.Fatal(err)
				}
				p.offset = 25 * time.Hour
			},
		},
		{
			"gone", "database", doctor.Fail,
			func(p *place) {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					p.t.Fatal(err)
				}
				scheme := map[*dbtest.Engine]string{dbtest.Postgres: "postgres", dbtest.MySQL: "mysql"}[p.engine]
				p.env["DATABASE_URL"] = scheme + "://someone:" + password + "@" + l.Addr().String() + "/name"
				_ = l.Close() // nothing listens there any more
			},
			func(p *place, f doctor.Finding) { p.set(f.Advice, "DATABASE_URL", p.engine.Database(p.t)) },
		},
		{
			"hangs", "database", doctor.Fail,
			func(p *place) {
				l, err := net.Listen("tcp", "127.0.0.1:0") // which answers nothing
				if err != nil {
					p.t.Fatal(err)
				}
				p.t.Cleanup(func() { _ = l.Close() })
				scheme := map[*dbtest.Engine]string{dbtest.Postgres: "postgres", dbtest.MySQL: "mysql"}[p.engine]
				p.env["DATABASE_URL"] = scheme + "://someone:" + password + "@" + l.Addr().String() + "/name"
				p.limit = 300 * time.Millisecond
			},
			func(p *place, f doctor.Finding) {
				p.limit = patience
				p.set(f.Advice, "DATABASE_URL", p.engine.Database(p.t))
			},
		},
	} {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			dbtest.Each(t, b.run)
		})
	}
}

// asReader makes a user who may only read, and returns the URL of the database as it has
// it. p.env["admin"] is that of an administrator.
func asReader(p *place) string {
	p.t.Helper()
	if p.engine == dbtest.MySQL {
		mysqltest.Need(p.t, mysqltest.Users)
	}
	admin := p.engine.Own(p.t)
	u, err := url.Parse(admin)
	if err != nil {
		p.t.Fatal(err)
	}
	name := "doctor_" + strings.ToLower(rand.Text()[:8])
	database := strings.Trim(u.Path, "/")
	statements := []string{
		"create user " + name + " identified by '" + password + "'",
		"grant select on `" + strings.ReplaceAll(database, "_", `\_`) + "`.* to " + name,
	}
	drop := []string{"drop user " + name}
	if p.engine == dbtest.Postgres {
		statements = []string{
			"create role " + name + " login password '" + password + "'", "grant usage on schema public to " + name,
			"grant select on all tables in schema public to " + name,
		}
		drop = []string{"drop owned by " + name, "drop role " + name}
	}
	db := p.engine.Connect(p.t, admin)
	for _, s := range statements {
		if _, err := db.Exec(p.t.Context(), s); err != nil {
			p.t.Fatalf("%s: %v", s, err)
		}
	}
	p.t.Cleanup(func() {
		for _, s := range drop {
			if _, err := db.Exec(context.Background(), s); err != nil {
				p.t.Errorf("%s: %v", s, err)
			}
		}
	})
	p.env["admin"] = admin
	if q := u.Query(); q.Has("user") { // over a socket
		q.Set("user", name)
		q.Set("password", password)
		u.RawQuery = q.Encode()
	} else {
		u.User = url.UserPassword(name, password)
	}
	return u.String()
}

// MySQL's packets limit the documents.
func TestPacketIsSmall(t *testing.T) {
	t.Parallel()
	dbtest.MySQL.Need(t)
	server := dbtest.MySQL.Server(t)
	p := newPlace(t, dbtest.MySQL)
	p.env["DATABASE_URL"] = server.URL
	p.exec("set global max_allowed_packet = 1048576")
	p.follow(p.one("max_allowed_packet", doctor.Warn).Advice)
	p.well("max_allowed_packet")
}

// Of the settings, the files and the network, each thing is broken once. No database is
// needed for that.
func TestSettingsAreWrong(t *testing.T) {
	t.Parallel()
	file := func(p *place, name, text string) string {
		p.t.Helper()
		path := filepath.Join(p.t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			p.t.Fatal(err)
		}
		return path
	}
	// variable breaks a setting with a value, and mends it with another.
	variable := func(name, check, variable, bad, good string) broken {
		return broken{
			name, check, doctor.Fail, func(p *place) { p.env[variable] = bad },
			func(p *place, f doctor.Finding) { p.set(f.Seen+f.Advice, variable, good) },
		}
	}
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "<html>")
	}))
	t.Cleanup(other.Close)
	// upstream breaks the way to Liveblocks.
	upstream := func(name, bad string) broken {
		return broken{
			name, "liveblocks", doctor.Fail,
			func(p *place) { p.env["good"], p.env["LIVEBLOCKS_BASE_URL"] = p.upstreamURL(), bad },
			func(p *place, f doctor.Finding) { p.set(f.Advice, "LIVEBLOCKS_BASE_URL", p.env["good"]) },
		}
	}
	for _, b := range []broken{
		variable("no number", "settings", "MIRROR_WORKERS", "many", "8"),
		variable("out of range", "settings", "MIRROR_LEASE_TTL", "1ms", "1s"),
		variable("unreadable file", "settings", "MIRROR_API_TOKEN_FILE", "/nowhere", ""),
		variable("odd database", "settings", "DATABASE_URL", "oracle://x:"+password+"@y", ""),
		variable("odd server", "settings", "MIRROR_SERVER", "odd", "127.0.0.1:9090"),
		variable("beyond loopback", "listeners", "MIRROR_HTTP_ADDR", "0.0.0.0:8080", "127.0.0.1:0"),
		variable("no key", "secrets", "LIVEBLOCKS_SECRET_KEY", "", secretKey),
		variable("public key", "secrets", "LIVEBLOCKS_SECRET_KEY", "pk_public", secretKey),
		variable("no signing secret", "secrets", "LIVEBLOCKS_WEBHOOK_SECRET", "", webhookSecret),
		variable("cut off", "secrets", "LIVEBLOCKS_WEBHOOK_SECRET", webhookSecret[:20], webhookSecret),
		variable("no directory", "database", "MIRROR_DATA_DIR", "/dev/null", t.TempDir()),
		upstream("not Liveblocks", other.URL),
		upstream("nobody", "http://127.0.0.1:1"),
		{
			"itself", "liveblocks", doctor.Fail,
			func(p *place) {
				p.env["good"], p.env["LIVEBLOCKS_BASE_URL"] = p.upstreamURL(), "http://127.0.0.1:8080"
				p.env["MIRROR_HTTP_ADDR"] = "127.0.0.1:8080"
			},
			func(p *place, f doctor.Finding) { p.set(f.Advice, "LIVEBLOCKS_BASE_URL", p.env["good"]) },
		},
		{
			"refused key", "liveblocks", doctor.Fail,
			func(p *place) { p.env["LIVEBLOCKS_SECRET_KEY"] = "sk_prod_of-another" },
			func(p *place, f doctor.Finding) { p.set(f.Advice, "LIVEBLOCKS_SECRET_KEY", secretKey) },
		},
		{
			"configuration file", "settings", doctor.Fail,
			func(p *place) { p.env["MIRROR_CONFIG"] = "/nowhere" },
			func(p *place, f doctor.Finding) {
				if !strings.Contains(f.Advice, "it must exist") {
					p.t.Errorf("finding = %+v", f)
				}
				p.env["MIRROR_CONFIG"] = file(p, "config", "MIRROR_WORKERS=8\n")
			},
		},
		{
			"misspelt in the file", "settings", doctor.Fail,
			func(p *place) { p.env["MIRROR_CONFIG"] = file(p, "config", "MIRROR_WORKER=8\n") },
			func(p *place, f doctor.Finding) {
				if !strings.Contains(f.Seen, "MIRROR_WORKER,") {
					p.t.Errorf("finding = %+v", f)
				}
				p.env["MIRROR_CONFIG"] = file(p, "config", "MIRROR_WORKERS=8\n")
			},
		},
		{
			"misspelt in the environment", "settings", doctor.Warn,
			func(p *place) { p.unknown = config.Unknown{"MIRROR_WORKER"} },
			func(p *place, f doctor.Finding) {
				if !strings.Contains(f.Seen, "MIRROR_WORKER ") || !strings.Contains(f.Advice, "unset it") {
					p.t.Errorf("finding = %+v", f)
				}
				p.unknown = nil
			},
		},
		{
			"clock", "clock", doctor.Fail,
			func(p *place) { p.offset = 10 * time.Minute },
			func(p *place, f doctor.Finding) {
				if !strings.Contains(f.Advice, "set the clock of this machine") || !strings.Contains(f.Seen, "10m") {
					p.t.Errorf("finding = %+v", f)
				}
				p.offset = 0
			},
		},
		{
			"full disk", "disk", doctor.Fail,
			func(p *place) { p.free = 1 << 20 },
			func(p *place, f doctor.Finding) {
				if !strings.Contains(f.Advice, "free some space") {
					p.t.Errorf("finding = %+v", f)
				}
				p.free = 1 << 40
			},
		},
		{
			"keys file", "keys", doctor.Fail,
			func(p *place) { p.env["MIRROR_KEYS_FILE"] = "/nowhere" },
			func(p *place, f doctor.Finding) { p.set(f.Advice, "MIRROR_KEYS_FILE", file(p, "keys", "keys: []\n")) },
		},
		{
			"key that ends", "keys", doctor.Warn,
			func(p *place) {
				p.env["MIRROR_KEYS_FILE"] = filepath.Join(p.t.TempDir(), "keys")
				if err := cli.NewKey(cli.KeyOptions{
					Name: "old", Scopes: []string{"read"}, Projects: []string{"default"}, Expires: "24h",
				}, p.env["MIRROR_KEYS_FILE"], true, time.Now(), cli.Format{}, io.Discard, io.Discard); err != nil {
					p.t.Fatal(err)
				}
			},
			func(p *place, f doctor.Finding) {
				path := p.env["MIRROR_KEYS_FILE"]
				old, err := os.ReadFile(path)
				if err != nil {
					p.t.Fatal(err)
				}
				p.follow(f.Advice)
				both, err := os.ReadFile(path)
				if err != nil || !strings.Contains(f.Advice, "remove the old entry from "+path) {
					p.t.Fatalf("finding = %+v, %v", f, err)
				}
				fresh := strings.TrimPrefix(string(both), string(old))
				if err := os.WriteFile(path, []byte("keys:\n"+fresh), 0o600); err != nil {
					p.t.Fatal(err)
				}
			},
		},
		{
			"no service", "service", doctor.Warn,
			func(p *place) { p.status = nil },
			func(p *place, f doctor.Finding) {
				if !strings.Contains(f.Advice, "`liveblocks-mirror serve`") {
					p.t.Errorf("finding = %+v", f)
				}
				p.status = &mirrorv1.GetStatusResponse{Ready: true, Version: version}
			},
		},
		{
			"not ready", "service", doctor.Fail,
			func(p *place) { p.status.Ready = false },
			func(p *place, f doctor.Finding) {
				if !strings.Contains(f.Advice, "wait if it is starting") {
					p.t.Errorf("finding = %+v", f)
				}
				p.status.Ready = true
			},
		},
		{
			"address in use", "service", doctor.Fail,
			func(p *place) {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					p.t.Fatal(err)
				}
				p.t.Cleanup(func() { _ = l.Close() })
				p.status, p.env["MIRROR_HTTP_ADDR"] = nil, l.Addr().String()
			},
			func(p *place, f doctor.Finding) {
				if !strings.Contains(f.Advice, "choose another address with --http-addr (port 0 picks a free port)") {
					p.t.Errorf("finding = %+v", f)
				}
				p.env["MIRROR_HTTP_ADDR"] = "127.0.0.1:0"
				p.status = &mirrorv1.GetStatusResponse{Ready: true, Version: version}
			},
		},
	} {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			b.run(t, nil)
		})
	}
}

// What the running service warns of is told, unless it was found already.
func TestServiceWarns(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	p.status.Projects = []*mirrorv1.ProjectStatus{{
		ProjectId: "default",
		Warnings:  []*mirrorv1.Warning{{Text: "the mirror is behind", Runbook: rpc.Operations + "the-mirror-is-behind"}},
	}}
	p.status.RemovedProjectIds = []string{"gone"}
	if f := p.one("service warning", doctor.Warn); f.Seen != "the mirror is behind" || f.Project != "default" {
		t.Errorf("finding = %+v; want what the service says", f)
	}
	if f := p.one("removed projects", doctor.Warn); !strings.Contains(f.Seen, "project gone ") {
		t.Errorf("finding = %+v; want what the service says", f)
	}
}

// Two projects are checked apart, and what is wrong with one is said of it.
func TestProjectsAreCheckedApart(t *testing.T) {
	t.Parallel()
	p := newPlace(t, nil)
	delete(p.env, "LIVEBLOCKS_SECRET_KEY")
	delete(p.env, "LIVEBLOCKS_WEBHOOK_SECRET")
	dir := t.TempDir()
	for name, text := range map[string]string{
		"good": secretKey, "bad": "sk_dev_refused", "secret-a": webhookSecret,
		"secret-b": "whsec_" + base64.StdEncoding.EncodeToString([]byte("0123456789abcdef01234567")),
		"projects.yaml": "projects:\n" +
			"  - {id: a, secret_key: {file: good}, webhook_secrets: [{file: secret-a}]}\n" +
			"  - {id: b, secret_key: {file: bad}, webhook_secrets: [{file: secret-b}]}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.env["MIRROR_PROJECTS_FILE"] = filepath.Join(dir, "projects.yaml")
	if f := p.one("liveblocks", doctor.Fail); f.Project != "b" {
		t.Errorf("finding = %+v; want it of b", f)
	}
	all := p.look()
	if !slices.ContainsFunc(all, func(f doctor.Finding) bool {
		return f.Check == "liveblocks" && f.Project == "a" && f.Verdict == doctor.OK
	}) {
		t.Errorf("findings = %+v; want project a in order", all)
	}
}

// The lines for an application are shown, with what keeps them from working.
func TestRESTIsTried(t *testing.T) {
	t.Parallel()
	const key = "sk_mirror_abcdefgh_of-the-tests"
	known := []string{key, "sk_mirror_reads_only", "sk_mirror_paused"}
	rest := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !strings.HasPrefix(r.URL.Path, "/v2/rooms/"):
			w.WriteHeader(http.StatusBadRequest)
		case r.Header.Get("Authorization") == "Bearer sk_mirror_reads_only" && strings.HasSuffix(r.URL.Path, "/versions"):
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"error":"FORBIDDEN"}`)
		case r.Header.Get("Authorization") == "Bearer sk_mirror_paused" && strings.HasSuffix(r.URL.Path, "/versions"):
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"error":"UNAVAILABLE"}`)
		case slices.Contains(known, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")):
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"error":"ROOM_NOT_FOUND","message":"Room not found."}`)
		case r.Header.Get("Authorization") == "Bearer sk_mirror_off":
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"code":5,"message":"there is no such path"}`)
		default:
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"error":"INVALID_SECRET_KEY"}`)
		}
	}))
	defer rest.Close()
	address := strings.TrimPrefix(rest.URL, "http://")
	for _, c := range []struct {
		name, mode, token, address string
		want                       doctor.Verdict
		seen                       string
	}{
		{"off", "off", key, address, doctor.Fail, "MIRROR_REST is off"},
		{
			"works", "read", key, address, doctor.OK,
			"secret: process.env.MIRROR_API_TOKEN,\n        baseUrl: \"" + rest.URL + "\",",
		},
		{"passes on", "read", key, address, doctor.OK, "passes other reads on to Liveblocks and refuses writes; the lines"},
		{"forwards", "write", key, address, doctor.OK, "passes other reads on to Liveblocks and forwards writes for"},
		{"may not", "read", "sk_mirror_reads_only", address, doctor.OK, "refuses other reads, for which the key needs"},
		{"paused", "read", "sk_mirror_paused", address, doctor.OK, "gets no answer for other reads from Liveblocks now"},
		{"wrong key", "read", "sk_mirror_abcdefgh_another", address, doctor.Fail, "refuses the key (403 INVALID_SECRET_KEY)"},
		{"key of another form", "read", "a-token-of-sixteen", address, doctor.Fail, "keys of the form sk_..."},
		{"not served", "read", "sk_mirror_off", address, doctor.Fail, "not as Liveblocks does"},
		{"not there", "read", key, "127.0.0.1:1", doctor.Fail, "no answer"},
	} {
		p := newPlace(t, dbtest.Postgres)
		p.rest = true
		p.env["MIRROR_REST"], p.env["MIRROR_API_TOKEN"], p.env["MIRROR_HTTP_ADDR"] = c.mode, c.token, c.address
		f := p.one("rest", c.want)
		if !strings.Contains(f.Seen, c.seen) || strings.Contains(f.Seen+f.Advice, c.token) {
			t.Errorf("%s: %+v; want %q, without the key", c.name, f, c.seen)
		}
	}
}

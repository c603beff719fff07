// Package demo runs the service on one machine, without an account and without a
// database. A fake Liveblocks edits its own rooms and sends signed webhooks to a real
// service on an embedded PostgreSQL.
package demo

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/webhook"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/app"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/cli"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/pgembed"
)

// Config holds the settings of the demo. It reads none of those that say where the
// data of the service is: the demo must never write into that.
type Config struct {
	config.Listen

	DatabaseURL config.Secret `name:"database-url" placeholder:"URL" help:"PostgreSQL or MySQL database to write to, best an empty one: the demo migrates its schema and leaves its rows there. If empty, the demo runs its own PostgreSQL."`
	DataDir     string        `name:"data-dir" placeholder:"DIR" help:"Directory of the demo's own PostgreSQL, to keep the data: a new one, or that of an earlier demo. If empty, a temporary one is used."`
	PGBin       string        `name:"pg-bin" env:"MIRROR_PG_BIN" placeholder:"DIR" help:"Directory with the programs postgres and initdb. If empty, the usual places are searched."`
	Every       time.Duration `name:"every" default:"2s" help:"Time between two edits."`
	Edits       int           `name:"edits" default:"0" help:"Number of edits before the demo ends. 0 runs it until it is interrupted."`
}

// Validate checks the settings.
func (c Config) Validate() error {
	if c.Edits < 0 {
		return &config.Error{Setting: "--edits", Problem: "must not be negative"}
	}
	err := c.database().Validate()
	if wrong, ok := errors.AsType[*config.Error](err); ok {
		err = &config.Error{Setting: "--database-url", Problem: wrong.Problem} // the only one that it can be
	}
	return cmp.Or(config.Positive("--every", c.Every), config.Addresses{Listen: c.Listen}.Validate(), err)
}

// database are the settings of the database, if the demo is given one.
func (c Config) database() config.Database {
	d := config.Defaults().Database
	d.DatabaseURL = c.DatabaseURL
	return d
}

const (
	// mirrorTimeout limits the wait for an edit to appear in the mirror.
	mirrorTimeout = 15 * time.Second
	// verifyTimeout limits the comparison at the end.
	verifyTimeout = 30 * time.Second
	// stopPatience is how long the database may take to write its data to disk at the end.
	stopPatience = 10 * time.Second
)

// projectID is the Liveblocks project in the fake's webhooks.
const projectID = "demo"

type demo struct {
	screen   screen
	upstream *fake.Server
	base     string // of the service's HTTP gateway
	secret   string
	client   *http.Client
	events   chan fake.Event
	rows     []row
}

// Run runs the demo until ctx ends or the edits are done. Then it compares the mirror
// with the fake Liveblocks, and returns [cli.ErrDrift] if they differ. It returns nil if
// it is interrupted before it has begun.
func Run(ctx context.Context, cfg Config, version string, out io.Writer, log *slog.Logger) error {
	key := make([]byte, 24)
	_, _ = rand.Read(key) // never returns an error
	d := &demo{
		screen: newScreen(out),
		secret: "whsec_" + base64.StdEncoding.EncodeToString(key),
		client: &http.Client{Timeout: mirrorTimeout},
		events: make(chan fake.Event, 64),
	}
	d.screen.line(bold, "liveblocks-mirror %s", version)
	err := d.run(ctx, cfg, "sk_demo_"+hex.EncodeToString(key), version, log)
	if ctx.Err() != nil && !errors.Is(err, cli.ErrDrift) {
		return nil
	}
	return err
}

func (d *demo) run(ctx context.Context, cfg Config, apiKey, version string, log *slog.Logger) error {
	// Before PostgreSQL is perhaps downloaded.
	if err := app.CheckAddresses(ctx, config.Addresses{Listen: cfg.Listen}); err != nil {
		return err
	}
	url := cfg.DatabaseURL.Reveal()
	if url == "" {
		server, err := d.startPostgres(ctx, cfg, log)
		if err != nil {
			return err
		}
		defer server.stop()
		url = server.URL()
	}
	d.upstream = fake.New(apiKey)
	d.upstream.OnEvent(func(ev fake.Event) { d.events <- ev })
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("demo: listen for the fake Liveblocks: %w", err)
	}
	upstream := &http.Server{Handler: d.upstream, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan struct{})
	go func() { defer close(served); _ = upstream.Serve(listener) }() // ends by Close below
	defer func() { _ = upstream.Close(); <-served }()

	service, err := app.New(ctx, d.serveConfig(cfg, url, apiKey, "http://"+listener.Addr().String()), version, log)
	if err != nil {
		// The demo reads no such variable.
		return errors.New(strings.ReplaceAll(err.Error(), "DATABASE_URL", "--database-url"))
	}
	// The service goes on after an interrupt, for the comparison.
	serveCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	stopped := make(chan error, 1)
	go func() { stopped <- service.Serve(serveCtx) }() // awaited below
	addrs := service.Addresses()
	d.base = "http://" + addrs.HTTPAddr
	d.printHead(addrs, cfg, url)

	err = d.edit(ctx, cfg, stopped)
	if err == nil && len(stopped) == 0 {
		err = d.conclude(serveCtx, service)
	}
	stop()
	if serr := <-stopped; serr != nil {
		err = serr
	}
	return err
}

// postgres is the demo's own PostgreSQL.
type postgres struct {
	*pgembed.Server
	stop func()
}

// startPostgres starts PostgreSQL in the data folder, or in a temporary one.
func (d *demo) startPostgres(ctx context.Context, cfg Config, log *slog.Logger) (_ postgres, err error) {
	remove := func() {}
	defer func() {
		if err != nil {
			remove()
		}
	}()
	if cfg.DataDir == "" {
		dir, err := os.MkdirTemp("", "mirror-demo-") // short: it is in a command that is printed
		if err != nil {
			return postgres{}, fmt.Errorf("demo: %w", err)
		}
		remove = func() { _ = os.RemoveAll(dir) }
		// PostgreSQL runs as another account, which must reach its directory.
		if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // only passing through is allowed
			return postgres{}, fmt.Errorf("demo: %w", err)
		}
		cfg.DataDir = dir
	}
	server, err := pgembed.Start(ctx, pgembed.Config{
		DataDir: cfg.DataDir, BinDir: cfg.PGBin, Demo: true, Logger: slog.New(steps{log.Handler(), d.screen}),
	})
	if errors.Is(err, pgembed.ErrNoBinaries) {
		err = fmt.Errorf("%w, or set --database-url to use your own server", err)
	}
	if err != nil {
		return postgres{}, err
	}
	return postgres{server, func() {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
		defer cancel()
		_ = server.Stop(limited) // the data is thrown away, or recovered by the next start
		remove()
	}}, nil
}

// steps prints what is done, and passes on what goes wrong.
type steps struct {
	slog.Handler

	screen screen
}

// Enabled reports whether something is printed or passed on.
func (s steps) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || s.Handler.Enabled(ctx, level)
}

// Handle prints the message, and the reason if it has one.
func (s steps) Handle(ctx context.Context, r slog.Record) error {
	if s.Handler.Enabled(ctx, r.Level) {
		return s.Handler.Handle(ctx, r)
	}
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "reason" {
			text += ": " + a.Value.String()
		}
		return true
	})
	s.screen.line(dim, "%s", text)
	return nil
}

// serveConfig are the settings of the service: the defaults, without sweeps, which
// would find what the demo shows before its webhook arrives.
func (d *demo) serveConfig(cfg Config, databaseURL, apiKey, baseURL string) config.Serve {
	s := config.Defaults()
	s.Database, s.Listen, s.Migrate = cfg.database(), cfg.Listen, true
	s.DatabaseURL = config.NewSecret(databaseURL)
	// What an earlier demo has left in the database is no part of this one.
	s.ProjectID = "demo-" + strings.ToLower(rand.Text()[:8])
	s.BaseURL, s.SecretKey = baseURL, config.NewSecret(apiKey)
	s.WebhookSecret = []config.Secret{config.NewSecret(d.secret)}
	s.Sweep, s.FullSweep = 0, 0
	return s
}

func (d *demo) printHead(addrs app.Ready, cfg Config, databaseURL string) {
	if cfg.DatabaseURL.Reveal() != "" {
		databaseURL = "" // it may hold a password
	}
	dir, err := os.Getwd()
	if err != nil {
		dir = "" // nothing is found there
	}
	fmt.Fprintf(d.screen, `
This is a demo. Users of a fake Liveblocks draw, comment and get notifications.
It sends a signed webhook for each event; the service records the event, fetches
what changed, and mirrors it.

%s
Press Ctrl-C to stop.

`, commands(addrs, databaseURL, dir, onPath))
	d.screen.header()
}

// conclude compares the mirror with the fake Liveblocks.
func (d *demo) conclude(ctx context.Context, service *app.App) error {
	fmt.Fprintf(d.screen, "\n%s\nComparing the mirror with the fake Liveblocks ...\n", totals(d.rows))
	ctx, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	for {
		s, err := service.Verify(ctx)
		switch {
		case err != nil:
			fmt.Fprintf(d.screen, "It could not be compared: %v\n", err)
			return nil
		case s.Pending > 0 && clock.Sleep(ctx, 500*time.Millisecond) == nil:
			continue // a resource is fetched once more some time after its event
		}
		what := fmt.Sprintf("%s and %s compared: %s", count(int(s.Rooms), "room"),
			count(int(s.Resources-s.Rooms), "other resource"), count(int(s.Differences), "difference"))
		if left := s.Pending + s.Skipped; left > 0 {
			what += fmt.Sprintf(", %d could not be compared %s", left, s.SkipReason)
		}
		if s.Differences > 0 {
			d.screen.line(red, "%s", what)
			return cli.ErrDrift
		}
		d.screen.line(green, "%s", what)
		return nil
	}
}

// edit makes edits and shows the result of each.
func (d *demo) edit(ctx context.Context, cfg Config, stopped <-chan error) error {
	ticker := time.NewTicker(cfg.Every)
	defer ticker.Stop()
	for n := 0; cfg.Edits == 0 || n < cfg.Edits; n++ {
		if err := d.change(n); err != nil {
			return fmt.Errorf("demo: edit: %w", err)
		}
		for len(d.events) > 0 { // an interrupt loses none
			if err := d.show(context.WithoutCancel(ctx), <-d.events); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if len(stopped) > 0 {
			return nil // Run returns the error
		}
	}
	return nil
}

// show delivers the webhook of ev and waits until the mirror reflects it.
func (d *demo) show(ctx context.Context, ev fake.Event) error {
	r := row{time: time.Now(), event: ev.Type, room: ev.RoomID}
	id := "msg_" + rand.Text()
	var err error
	if r.status, err = d.deliver(ctx, id, ev); err != nil {
		return fmt.Errorf("demo: deliver webhook: %w", err)
	}
	r.ack = time.Since(r.time)
	seen, found := d.await(ctx, id, ev)
	r.seen, r.lag = seen, time.Since(r.time)
	if !found {
		r.lag = -1
	}
	d.rows = append(d.rows, r)
	d.screen.row(r)
	return nil
}

func (d *demo) deliver(ctx context.Context, id string, ev fake.Event) (int, error) {
	body := fake.Payload(ev, projectID)
	now := time.Now()
	signature, err := webhook.Sign(d.secret, id, now, body)
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.base+"/api/liveblocks-webhook", bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Webhook-Id", id)
	req.Header.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	req.Header.Set("Webhook-Signature", signature)
	resp, err := d.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

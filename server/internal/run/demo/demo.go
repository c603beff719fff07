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
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/webhook"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/app"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
)

// Config holds the settings of the demo.
type Config struct {
	config.Listen

	DataDir string        `name:"data-dir" env:"MIRROR_DATA_DIR" placeholder:"DIR" help:"Directory of the embedded PostgreSQL. If empty, a temporary one is used."`
	PGBin   string        `name:"pg-bin" env:"MIRROR_PG_BIN" placeholder:"DIR" help:"Directory with the programs postgres and initdb. If empty, the usual places are searched."`
	Every   time.Duration `name:"every" default:"2s" help:"Time between two edits."`
	Edits   int           `name:"edits" default:"0" help:"Number of edits before the demo ends. 0 runs it until it is interrupted."`
}

// Validate checks the settings.
func (c Config) Validate() error {
	if c.Edits < 0 {
		return &config.Error{Setting: "--edits", Problem: "must not be negative"}
	}
	return cmp.Or(config.Positive("--every", c.Every), config.Addresses{Listen: c.Listen}.Validate())
}

// mirrorTimeout limits the wait for an edit to appear in the mirror.
const mirrorTimeout = 15 * time.Second

// projectID is the Liveblocks project in the fake's webhooks.
const projectID = "demo"

type demo struct {
	out      io.Writer
	upstream *fake.Server
	base     string // of the service's HTTP gateway
	secret   string
	client   *http.Client
	events   chan fake.Event
}

// Run runs the demo until ctx ends or the edits are done.
func Run(ctx context.Context, cfg Config, version string, out io.Writer, log *slog.Logger) error {
	if cfg.DataDir == "" {
		dir, err := os.MkdirTemp("", "liveblocks-mirror-demo-")
		if err != nil {
			return fmt.Errorf("demo: %w", err)
		}
		defer os.RemoveAll(dir)
		// PostgreSQL runs as another account, which must reach its directory.
		if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // only passing through is allowed
			return fmt.Errorf("demo: %w", err)
		}
		cfg.DataDir = filepath.Join(dir, "postgres")
	}
	key := make([]byte, 24)
	_, _ = rand.Read(key) // never returns an error
	d := &demo{
		out:    out,
		secret: "whsec_" + base64.StdEncoding.EncodeToString(key),
		client: &http.Client{Timeout: mirrorTimeout},
		events: make(chan fake.Event, 64),
	}
	apiKey := "sk_demo_" + hex.EncodeToString(key)
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

	service, err := app.New(ctx, d.serveConfig(cfg, apiKey, "http://"+listener.Addr().String()), version, log)
	if err != nil {
		return err
	}
	serveCtx, stop := context.WithCancel(ctx)
	defer stop()
	stopped := make(chan error, 1)
	go func() { stopped <- service.Serve(serveCtx) }() // awaited below
	addrs := service.Addresses()
	d.base = "http://" + addrs.HTTPAddr
	d.printHead(addrs, service.DatabaseURL())

	err = d.edit(serveCtx, cfg, stopped)
	stop()
	if serr := <-stopped; err == nil {
		err = serr
	}
	if ctx.Err() != nil || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// serveConfig are the settings of the service: the defaults, without sweeps, which
// would find what the demo shows before its webhook arrives.
func (d *demo) serveConfig(cfg Config, apiKey, baseURL string) config.Serve {
	s := config.Defaults()
	s.Listen, s.DataDir, s.PGBin = cfg.Listen, cfg.DataDir, cfg.PGBin
	s.BaseURL, s.SecretKey = baseURL, config.NewSecret(apiKey)
	s.WebhookSecret = []config.Secret{config.NewSecret(d.secret)}
	s.Sweep, s.FullSweep = 0, 0
	return s
}

// firstRoom is in the printed commands. The demo never deletes it.
const firstRoom = "team:whiteboard"

func (d *demo) printHead(addrs app.Ready, databaseURL string) {
	room := url.PathEscape(firstRoom)
	fmt.Fprintf(d.out, `
This is the liveblocks-mirror demo. Users of a fake Liveblocks draw, comment and get
notifications. It sends a signed webhook for each event; the service records the event,
fetches what changed, and mirrors it. In another terminal, try:

  curl -s http://%[1]s/v1/rooms
  curl -s http://%[1]s/v1/rooms/%[3]s/storage:read
  curl -s http://%[1]s/v1/rooms/%[3]s/flows/flow
  curl -s http://%[1]s/v1/rooms/%[3]s/threads
  curl -s http://%[1]s/v1/rooms/%[3]s/user-sessions
  curl -s http://%[1]s/v1/notifications
  curl -s 'http://%[1]s/v1/events?page_size=3'
  grpcurl -plaintext %[2]s list
  grpcurl -plaintext -d '{"room_id":"%[4]s"}' %[2]s liveblocks.mirror.v1.MirrorService/GetRoom
  grpcurl -plaintext %[2]s liveblocks.mirror.v1.AdminService/GetStatus
  psql '%[5]s' -c "select room_id, updated_at, data->>'title' from liveblocks_documents"
  psql '%[5]s' -c 'select room_id, user_id, text from liveblocks_comments'

Press Ctrl-C to stop.

`, addrs.HTTPAddr, addrs.GRPCAddr, room, firstRoom, databaseURL)
	fmt.Fprintf(d.out, "%-10s %-24s %-20s %-16s %s\n", "time", "event", "room", "webhook", "mirror")
}

// edit makes edits and shows the result of each.
func (d *demo) edit(ctx context.Context, cfg Config, stopped <-chan error) error {
	ticker := time.NewTicker(cfg.Every)
	defer ticker.Stop()
	for n := 0; cfg.Edits == 0 || n < cfg.Edits; n++ {
		if err := d.change(n); err != nil {
			return fmt.Errorf("demo: edit: %w", err)
		}
		for len(d.events) > 0 {
			if err := d.show(ctx, <-d.events); err != nil {
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
	begin := time.Now()
	id := "msg_" + rand.Text()
	status, err := d.deliver(ctx, id, ev)
	if err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // interrupted
		}
		return fmt.Errorf("demo: deliver webhook: %w", err)
	}
	took := time.Since(begin)
	seen := d.await(ctx, id, ev)
	fmt.Fprintf(d.out, "%-10s %-24s %-20s %-16s %s\n",
		begin.Format("15:04:05"), ev.Type, ev.RoomID, fmt.Sprintf("%d in %s", status, took.Round(100*time.Microsecond)), seen)
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

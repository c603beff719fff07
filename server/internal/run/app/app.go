// Package app builds the service out of its parts, and starts and stops them in
// order.
package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/gateway"
	"github.com/liveblocks-mirror/liveblocks-mirror/gen/openapi"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/ledger"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/webhook"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/inproc"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/rpc"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/queue"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/reconcile"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/sweep"
)

// startTimeout bounds what has to happen before the service is ready: a crash
// recovery of the embedded PostgreSQL, migrations, the first connection.
const startTimeout = 2 * time.Minute

// Ready is what the ready file holds.
type Ready struct {
	PID         int    `json:"pid"`
	HTTPAddr    string `json:"http_addr"`
	GRPCAddr    string `json:"grpc_addr"`
	WebhookAddr string `json:"webhook_addr,omitempty"`
}

// App is one running service.
type App struct {
	cfg     config.Serve
	log     *slog.Logger
	version string
	started time.Time
	project mirror.ProjectID

	listeners listeners
	db        *database
	client    *liveblocks.Client
	pool      *queue.Pool
	sweeper   *sweep.Sweeper
	verifier  *sweep.Verifier
	ledger    *ledger.Ledger
	services  *rpc.Services
	front     *gateway.Gateway
	engine    string
	health    *storeHealth
	serving   atomic.Bool
}

// Run starts the service, waits until ctx ends or a part of it fails, and stops
// it in order. It returns nil after an orderly stop.
func Run(ctx context.Context, cfg config.Serve, version string, log *slog.Logger) error {
	a, err := New(ctx, cfg, version, log)
	if err != nil {
		return err
	}
	return a.Serve(ctx)
}

// New builds the service up to the point where it can serve: addresses are
// taken, the database is there and its schema is current.
func New(ctx context.Context, cfg config.Serve, version string, log *slog.Logger) (*App, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	a := &App{
		cfg: cfg, log: log, version: version, started: time.Now(), project: mirror.ProjectID(cfg.ProjectID),
	}
	if err := a.build(ctx); err != nil {
		a.listeners.close()
		if a.db != nil {
			a.db.close(context.WithoutCancel(ctx))
		}
		return nil, err
	}
	return a, nil
}

func (a *App) build(ctx context.Context) (err error) {
	// Cheap checks first, and the addresses before the database: a port in use
	// is known at once.
	signatures, err := a.signatures()
	if err != nil {
		return err
	}
	if a.client, err = a.liveblocks(); err != nil {
		return &config.Error{Setting: "LIVEBLOCKS_SECRET_KEY or LIVEBLOCKS_BASE_URL",
			Problem: "cannot be used: " + err.Error()}
	}
	if a.listeners, err = listen(ctx, a.cfg.Addresses); err != nil {
		return err
	}
	if a.db, err = openDatabase(ctx, a.cfg.Database, a.cfg.Migrate, a.log); err != nil {
		return err
	}
	if a.engine, err = a.db.store.Engine(ctx); err != nil {
		return err
	}
	if err = a.forgetPause(ctx); err != nil {
		return err
	}

	policy := queue.Policy{MaxAttempts: a.cfg.MaxAttempts, BackoffMin: a.cfg.BackoffMin, BackoffMax: a.cfg.BackoffMax}
	reconciler := reconcile.New(reconcile.Config{
		Mirror: a.db.store, Tasks: a.db.store, Fetcher: a.client, Failure: policy.Failure,
		Settle: a.cfg.Settle, ActiveUsersInterval: mirror.ActiveUsersInterval, MaxData: a.cfg.MaxData, Now: time.Now,
		Logger: a.log,
	})
	a.sweeper = sweep.New(sweep.Config{
		Project: a.project, Store: a.db.store, Lister: a.client, Limiter: a.client, Interval: a.cfg.Sweep,
		FullInterval: a.cfg.FullSweep,
		RetryMin:     a.cfg.BackoffMin, RetryMax: a.cfg.BackoffMax, Now: time.Now, Logger: a.log,
	})
	a.pool = queue.New(queue.Config{
		Project: a.project, Tasks: a.db.store, Handler: a.sweeper.Handle(reconciler.Do), Limiter: a.client, Policy: policy,
		Workers: a.cfg.Workers, LeaseTTL: a.cfg.LeaseTTL, BusyPoll: a.cfg.BusyPoll, SafetyPoll: a.cfg.SafetyPoll,
		StopGrace: a.cfg.StopGrace / 2, Now: time.Now, Logger: a.log,
	})
	a.sweeper.Use(a.pool)
	a.verifier = sweep.NewVerifier(sweep.VerifierConfig{
		Store: a.db.store, Fetcher: a.client, Limiter: a.client, Workers: a.pool, MaxData: a.cfg.MaxData, Now: time.Now,
	})
	if err = a.sweeper.Begin(ctx); err != nil {
		return err
	}
	a.health = newStoreHealth(a.db.store.Ping, a.log)
	lc := ledger.Config{
		Store: a.db.store, Verifier: signatures, Pending: a.pending, Failed: a.health.down, Now: time.Now, Logger: a.log,
	}
	if a.cfg.Ack == "synced" {
		lc.Wait = a.await
	}
	a.ledger = ledger.New(lc)

	auth := rpc.NewAuthenticator(config.Reveal(a.cfg.APIToken))
	a.services = rpc.New(rpc.Config{
		Log: a.log, Now: time.Now, Projects: []mirror.ProjectID{a.project}, Auth: auth,
		Event:  rpc.EventDeps{Query: a.db.store, Receiver: a.ledger},
		Mirror: rpc.MirrorDeps{Query: a.db.store, Refresher: a},
		Admin: rpc.AdminDeps{
			Query: a.db.store, Requester: a.pool, Sweeper: a.sweeper, Verifier: a, Status: a, Version: a.version,
			StartTime: a.started,
		},
	})
	// The gateway speaks gRPC to the services without leaving the process, and
	// through the same interceptors as calls from outside.
	channel := inproc.New(a.services.UnaryInterceptor(), a.services.StreamInterceptor())
	a.services.Register(channel)
	a.front, err = gateway.New(gateway.Config{
		Conn: channel, MaxBody: rpc.MaxWebhook, Storable: mirror.Storable, Authorize: auth.Check,
		LocalOnly: auth.Open(), Ready: a.ready, OpenAPI: openapi.JSON, Logger: a.log,
	})
	return err
}

// forgetPause takes back what an earlier process has recorded of its key: the
// remedy for a refused one is a restart with another. Should this one be refused
// as well, that is recorded anew.
func (a *App) forgetPause(ctx context.Context) error {
	project, err := a.db.store.Project(ctx, a.project)
	if err != nil || project.PauseReason == "" {
		return err
	}
	return a.db.store.Pause(ctx, a.project, "", time.Now())
}

func (a *App) signatures() (*webhook.Verifier, error) {
	secrets := make([]webhook.Secret, 0, len(a.cfg.WebhookSecret))
	for _, s := range config.Reveal(a.cfg.WebhookSecret) {
		secrets = append(secrets, webhook.Secret{Project: a.project, Secret: s})
	}
	v, err := webhook.NewVerifier(secrets, tolerance)
	if err != nil {
		return nil, &config.Error{Setting: "LIVEBLOCKS_WEBHOOK_SECRET", Problem: fmt.Sprintf("cannot be used: %v; copy the "+
			"signing secret (whsec_...) from the Liveblocks dashboard under Webhooks", err)}
	}
	return v, nil
}

func (a *App) liveblocks() (*liveblocks.Client, error) {
	pause := func(reason string) {
		ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
		defer cancel()
		if err := a.db.store.Pause(ctx, a.project, reason, time.Now()); err != nil {
			a.log.ErrorContext(ctx, "cannot record that the project is paused or resumed", slog.Any("error", err))
		}
	}
	return liveblocks.New(liveblocks.Config{
		BaseURL: a.cfg.BaseURL, SecretKey: a.cfg.SecretKey.Reveal(), Timeout: a.cfg.CallTimeout, MaxBody: a.cfg.MaxAnswer,
		RatePerSecond: a.cfg.CallsPerSecond, ProbeMin: a.cfg.ProbeMin, MaxIdleConns: a.cfg.Workers,
		UserAgent: "liveblocks-mirror/" + a.version, Now: time.Now, Logger: a.log,
		OnPause: pause, OnResume: func() { pause("") },
	})
}

// tolerance is how far a delivery's timestamp may be from our clock, either way:
// the figure of Svix and of Liveblocks' own packages.
const tolerance = 5 * time.Minute

// recordTimeout bounds the record of a pause.
const recordTimeout = 10 * time.Second

func (a *App) pending(pending []mirror.Pending) {
	resources := make([]mirror.Resource, len(pending))
	for i, r := range pending {
		resources[i] = r.Resource
	}
	a.pool.Push(resources...)
}

// ready answers from memory: asking the database would keep it awake.
func (a *App) ready() (bool, string) {
	switch {
	case !a.serving.Load():
		return false, "starting or stopping"
	case !a.health.ok():
		return false, "the database is not available"
	default:
		return true, ""
	}
}

// Status is the process's part of the status.
func (a *App) Status(context.Context) (rpc.Status, error) {
	ready, _ := a.ready()
	limiter := a.client.Status()
	return rpc.Status{
		Ready:      ready,
		Engine:     a.engine,
		Deliveries: a.ledger.Counts(),
		Limiters: map[mirror.ProjectID]rpc.Limiter{
			a.project: {
				CallsPerSecond: limiter.RatePerSecond, ThrottledUntil: limiter.ThrottledUntil,
				PauseReason: limiter.PauseReason, PausedSince: limiter.PausedSince,
			},
		},
	}, nil
}

// Addresses are the ones taken.
func (a *App) Addresses() Ready {
	r := Ready{PID: os.Getpid(), HTTPAddr: a.listeners.http.Addr().String(), GRPCAddr: a.listeners.grpc.Addr().String()}
	if a.listeners.webhook != nil {
		r.WebhookAddr = a.listeners.webhook.Addr().String()
	}
	return r
}

// Serve runs every part until ctx ends or one of them fails, and stops them so
// that nothing loses what it stands on: first the doors, then the ledger, then
// the workers, then the database.
func (a *App) Serve(ctx context.Context) error {
	grpcServer := rpc.NewServer(a.services)
	httpServer := newHTTPServer(a.front.Handler(), a.log)
	stop := newStopper(a.log, a.cfg.StopGrace)

	// In the order of starting; they stop the other way round.
	stop.goRun("liveblocks client", a.client.Run)
	stop.goRun("workers", a.pool.Run)
	stop.goRun("ledger", a.ledger.Run)
	stop.goRun("store health", a.health.Run)
	stop.goServe("gRPC server", func() error { return grpcServer.Serve(a.listeners.grpc) }, func(ctx context.Context) {
		stopGRPC(ctx, grpcServer)
	})
	if a.listeners.webhook != nil {
		s := newHTTPServer(a.front.WebhookHandler(), a.log)
		stop.goServe("webhook server", func() error { return s.Serve(a.listeners.webhook) },
			func(ctx context.Context) { stopHTTP(ctx, s) })
	}
	stop.goServe("HTTP server", func() error { return httpServer.Serve(a.listeners.http) },
		func(ctx context.Context) { stopHTTP(ctx, httpServer) })

	a.serving.Store(true)
	a.services.SetServing(true)
	addrs := a.Addresses()
	a.log.InfoContext(ctx, "ready", slog.String("version", a.version), slog.String("store", a.engine),
		slog.String("http_addr", addrs.HTTPAddr), slog.String("grpc_addr", addrs.GRPCAddr),
		slog.String("webhook_addr", addrs.WebhookAddr))
	err := a.writeReadyFile(addrs)
	if err == nil {
		var gone <-chan struct{}
		if a.db.embedded != nil {
			gone = a.db.embedded.Done()
		}
		select {
		case <-ctx.Done():
		case err = <-stop.failed:
		case <-gone:
			err = fmt.Errorf("embedded PostgreSQL: %w", a.db.embedded.Err())
		}
	}

	a.serving.Store(false)
	a.services.SetServing(false)
	a.log.InfoContext(ctx, "stopping", slog.Any("cause", err))
	stop.all()
	a.client.Close()
	a.db.close(context.WithoutCancel(ctx))
	if a.cfg.ReadyFile != "" {
		_ = os.Remove(a.cfg.ReadyFile) // whoever waits for it must not find a stale one
	}
	a.log.InfoContext(ctx, "stopped")
	return err
}

// writeReadyFile writes a whole file or none.
func (a *App) writeReadyFile(r Ready) error {
	if a.cfg.ReadyFile == "" {
		return nil
	}
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write ready file: %w", err)
	}
	tmp := filepath.Join(filepath.Dir(a.cfg.ReadyFile), "."+filepath.Base(a.cfg.ReadyFile)+".tmp")
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write ready file: %w", err)
	}
	if err := os.Rename(tmp, a.cfg.ReadyFile); err != nil {
		return fmt.Errorf("write ready file: %w", err)
	}
	return nil
}

// listeners are the addresses taken.
type listeners struct{ http, grpc, webhook net.Listener }

func listen(ctx context.Context, cfg config.Addresses) (l listeners, err error) {
	for _, want := range []struct {
		listener *net.Listener
		flag     string
		addr     string
	}{
		{&l.http, "--http-addr", cfg.HTTPAddr},
		{&l.grpc, "--grpc-addr", cfg.GRPCAddr},
		{&l.webhook, "--webhook-addr", cfg.WebhookAddr},
	} {
		if want.addr == "" {
			continue
		}
		var lc net.ListenConfig
		if *want.listener, err = lc.Listen(ctx, "tcp", want.addr); err != nil {
			l.close()
			return listeners{}, fmt.Errorf(
				"cannot listen on %s; stop the process that uses it, or choose another address with %s (port 0 picks a free "+
					"port): %w",
				want.addr, want.flag, err)
		}
	}
	return l, nil
}

func (l listeners) close() {
	for _, c := range []net.Listener{l.http, l.grpc, l.webhook} {
		if c != nil {
			_ = c.Close()
		}
	}
}

// newHTTPServer has no WriteTimeout, which would cut long streams; requests are
// bounded by the gateway.
func newHTTPServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// errStopped tells that a server ended although nobody asked it to.
var errStopped = errors.New("ended unasked")

// DatabaseURL leads to the embedded PostgreSQL; empty if there is none.
func (a *App) DatabaseURL() string {
	if a.db.embedded == nil {
		return ""
	}
	return a.db.embedded.URL()
}

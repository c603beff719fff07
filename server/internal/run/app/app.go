// Package app composes the service from its parts, and starts and stops them in
// order.
package app

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/liveblocks-mirror/liveblocks-mirror/gateway"
	"github.com/liveblocks-mirror/liveblocks-mirror/gen/descriptors"
	"github.com/liveblocks-mirror/liveblocks-mirror/gen/openapi"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/ledger"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/webhook"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/metrics"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/tlsfiles"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/documents"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/inproc"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/rpc"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/keycheck"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/queue"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/reconcile"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/sweep"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/verify"
)

// startTimeout limits the time until the service is ready: crash recovery of the
// embedded PostgreSQL, migrations, the first connection.
const startTimeout = 2 * time.Minute

// App is one running service.
type App struct {
	cfg       config.Serve
	log       *slog.Logger
	listeners listeners
	tls       *tlsfiles.Server // nil without TLS
	db        *database
	status    *status
	services  *rpc.Services
	front     *gateway.Gateway
	metrics   *metrics.Metrics
	// underway is how long the event of a change may take; zero but in tests.
	underway time.Duration
	verifier *verify.Verifier
	// background holds the parts without a listener, in the order of starting.
	background []component
}

// component is a part of the service that runs until its context ends.
type component struct {
	name string
	run  func(context.Context) error
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

// New prepares the service to serve: it listens on the addresses, opens the
// database and checks that its schema is current.
func New(ctx context.Context, cfg config.Serve, version string, log *slog.Logger) (*App, error) {
	a := &App{cfg: cfg, log: log, metrics: metrics.New(version, time.Now)}
	if err := a.prepare(ctx, version); err != nil {
		return nil, err
	}
	return a, nil
}

// prepare builds the parts, or leaves nothing open.
func (a *App) prepare(ctx context.Context, version string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout+a.cfg.DatabaseWait)
	defer cancel()
	if err := a.build(ctx, version); err != nil {
		a.listeners.close()
		if a.db != nil {
			a.db.close(context.WithoutCancel(ctx))
		}
		return err
	}
	return nil
}

func (a *App) build(ctx context.Context, version string) error {
	// Cheap checks come first, and the addresses before the database: a port in use
	// is detected immediately.
	started, project := time.Now(), mirror.ProjectID(a.cfg.ProjectID)
	signatures, err := a.signatures(project)
	if err != nil {
		return err
	}
	guard, err := a.newGuard()
	if err != nil {
		return err
	}
	client, toCheck, err := a.liveblocks(project, version)
	if err != nil {
		return err
	}
	if a.tls, err = tlsfiles.NewServer(a.cfg.TLS, time.Now, a.log); err != nil {
		return err
	}
	if a.listeners, err = listen(ctx, a.cfg.Addresses); err != nil {
		return err
	}
	if a.db, err = openDatabase(ctx, a.cfg.Database, a.cfg.Roles, a.cfg.Migrate, a.log); err != nil {
		return err
	}
	a.db.store = store.Timed(a.db.store, a.metrics.Stored)
	engine, err := a.db.store.Engine(ctx)
	if err != nil {
		return err
	}

	key := keycheck.New(keycheck.Config{
		Project: project, Key: a.cfg.SecretKey.Reveal(), Store: a.db.store, Fetcher: toCheck, Now: time.Now,
	})
	switch changed, err := key.Changed(ctx); {
	case err != nil:
		return err
	case changed:
		client.Hold(key.Again(), key.Check)
	}

	var events *ledger.Ledger
	watch := sweep.NewWatch(sweep.WatchConfig{
		Project: project, Store: a.db.store, Now: time.Now, Logger: a.log,
		Since: func() time.Time {
			if missed := events.Missed(); missed.After(started) {
				return missed
			}
			return started
		},
		Underway: a.underway, Counted: a.metrics.Unannounced(project),
	})
	policy := queue.Policy{MaxAttempts: a.cfg.MaxAttempts, BackoffMin: a.cfg.BackoffMin, BackoffMax: a.cfg.BackoffMax}
	budget, reads := budgets(debug.SetMemoryLimit(-1))
	pool := queue.New(queue.Config{
		Project: project, Tasks: a.db.store, Limiter: client, Policy: policy,
		Workers: a.cfg.Workers, Fetches: a.cfg.Fetches, Memory: budget, LeaseTTL: a.cfg.LeaseTTL,
		BusyPoll: a.cfg.BusyPoll, SafetyPoll: a.cfg.SafetyPoll, StopGrace: a.cfg.StopGrace / 2,
		Swept: watch.Swept, Ended: a.metrics.Attempted, Now: time.Now, Logger: a.log,
	})
	shown := &shownFetcher{Fetcher: client, project: project}
	reconciler := reconcile.New(reconcile.Config{
		Mirror: a.db.store, Tasks: a.db.store, Fetcher: shown, Project: a.db.store.Project, Policy: policy,
		Settle:              a.cfg.Settle,
		ActiveUsersInterval: mirror.ActiveUsersInterval, MaxData: a.cfg.MaxData, Now: time.Now, Logger: a.log,
	})
	counting := store.CountSeldom(a.db.store, time.Now) // for GetStatus and the progress of backfills
	sweeper := sweep.New(sweep.Config{
		Project: project, Store: counting, Lister: client, Pool: pool, Key: key, Interval: a.cfg.Sweep,
		FullInterval: a.cfg.FullSweep, RetryMin: a.cfg.BackoffMin, RetryMax: a.cfg.BackoffMax, Now: time.Now, Logger: a.log,
		Listed: a.metrics.Listed(project), Ended: func(at time.Time) { a.metrics.Swept(project, at) },
	})
	if err := a.remember(ctx, project); err != nil {
		return err
	}
	begin := func(ctx context.Context) error {
		if err := a.forgetPause(ctx, project); err != nil {
			return err
		}
		if err := key.Remember(ctx); err != nil {
			return err
		}
		return sweeper.Begin(ctx)
	}
	if !a.db.readOnly {
		if err := begin(ctx); err != nil {
			return err
		}
	}
	a.verifier = verify.New(verify.Config{
		Store: a.db.store, Fetcher: client, Limiter: client, Workers: pool, Memory: budget, MaxData: a.cfg.MaxData,
		Now: time.Now,
	})
	health := newStoreHealth(a.db.store.Ping, !a.db.readOnly, a.log)
	deliveries := ledger.Config{
		Store: a.db.store, Verifier: signatures, Pending: pool.Push, Failed: health.down, Recorded: health.wrote,
		Answered: a.metrics.Answered, Committed: a.metrics.Committed,
		Now: time.Now, Logger: a.log,
	}
	if a.cfg.Ack == "synced" {
		deliveries.Wait = pool.Await
	}
	events = ledger.New(deliveries)
	shown.shown = events.Shown
	a.status = &status{
		project: project, version: version, engine: engine, health: health, events: events, client: client, memory: budget,
		guard: guard, pool: pool,
	}

	a.metrics.Read(metrics.Sources{
		Ready: func() bool { ok, _ := a.status.ready(); return ok }, Refused: guard.Refused, Pools: a.db.store.Pools,
		MemoryUsed: budget.Used, Memory: budget.Size(),
		Projects: []metrics.Source{{ID: project, Limiter: client.Status, Queue: pool.Stats}},
	})

	proxies := access.Networks(a.cfg.TrustedProxies.Ranges)
	a.services = rpc.New(rpc.Config{
		Log: a.log, Now: time.Now, Projects: []mirror.ProjectID{project},
		Guard: guard, Proxies: proxies, WebhookAllow: access.Networks(a.cfg.WebhookAllow.Ranges), Calls: a.metrics,
		Event: rpc.EventDeps{Query: a.db.store, Receiver: events},
		Mirror: rpc.MirrorDeps{
			Query: a.db.store, Refresher: pool, Documents: documents.Memory{Long: reads, Decoding: budget},
		},
		Admin: rpc.AdminDeps{
			Query: counting, Requester: pool, Pinner: events, Key: key, Sweeper: sweeper,
			Verifier: countingVerifier{a.verifier, a.metrics.Differs},
			Status:   a.status, Version: version, StartTime: started,
		},
	})
	// The gateway calls the services in process, through the same interceptors as
	// calls from outside.
	channel := inproc.New(a.services.UnaryInterceptor(), a.services.StreamInterceptor())
	channel.Carry = access.Carry
	a.services.Register(channel)
	door := &entrance{guard: guard, proxies: proxies, services: a.services}
	spec, err := openapi.JSON(version)
	if err != nil {
		return err
	}
	a.front, err = gateway.New(gateway.Config{
		Conn: channel, MaxBody: rpc.MaxWebhook, Storable: mirror.Storable, Authorize: door.authorize, LocalOnly: guard.Open(),
		Deliver: door.deliver, Metrics: door.metrics(a.metrics), MetricsApart: a.cfg.MetricsAddr != "",
		Ready: a.status.ready, OpenAPI: spec, Descriptors: descriptors.Set, Version: version,
		Logger: a.log,
	})
	work := handlers(reconciler, sweeper)
	a.background = append(a.background,
		component{"liveblocks client", client.Run},
		component{"workers", func(ctx context.Context) error { return pool.Run(ctx, work) }},
		component{"ledger", events.Run},
		component{"store health", health.Run},
		component{"watch for changes without events", watch.Run},
	)
	if a.tls != nil {
		a.background = append(a.background, component{"TLS files", a.tls.Run})
	}
	if a.db.readOnly {
		a.background = append(a.background, component{"start", func(ctx context.Context) error {
			for begin(ctx) != nil && clock.Sleep(ctx, pingEvery) == nil {
			}
			<-ctx.Done()
			return nil
		}})
	}
	return err
}

// handlers returns the handler of each kind of task.
func handlers(reconciler *reconcile.Reconciler, sweeper *sweep.Sweeper) map[mirror.Kind]queue.Handler {
	handlers := reconciler.Handlers()
	handlers[mirror.KindSweep] = queue.Whole(sweeper.Do)
	return handlers
}

func (a *App) signatures(project mirror.ProjectID) (*webhook.Verifier, error) {
	secrets := make([]webhook.Secret, 0, len(a.cfg.WebhookSecret))
	for i, s := range config.Reveal(a.cfg.WebhookSecret) {
		if webhook.CutOff(s) {
			return nil, &config.Error{Setting: "LIVEBLOCKS_WEBHOOK_SECRET", Problem: fmt.Sprintf("cannot be used: secret %d "+
				"has been cut off; copy the whole signing secret (whsec_...) from the Liveblocks dashboard under Webhooks", i+1)}
		}
		secrets = append(secrets, webhook.Secret{Project: project, Secret: s})
	}
	v, err := webhook.NewVerifier(secrets, tolerance)
	if err != nil {
		return nil, &config.Error{Setting: "LIVEBLOCKS_WEBHOOK_SECRET", Problem: fmt.Sprintf("cannot be used: %v; copy the "+
			"signing secret (whsec_...) from the Liveblocks dashboard under Webhooks", err)}
	}
	return v, nil
}

// tolerance is the maximum difference between a delivery's timestamp and the clock,
// as in Svix and Liveblocks' own packages.
const tolerance = 5 * time.Minute

// Serve runs every part until ctx ends or one of them fails. It stops them in the
// order of dependence: first the listeners, then the ledger, then the workers, then
// the database.
func (a *App) Serve(ctx context.Context) error {
	var overTLS []grpc.ServerOption
	var forHTTP, forWebhooks *tls.Config
	if a.tls != nil {
		overTLS = append(overTLS, grpc.Creds(credentials.NewTLS(a.tls.Config(true, "h2"))))
		forHTTP, forWebhooks = a.tls.Config(true, "h2", "http/1.1"), a.tls.Config(false, "h2", "http/1.1")
	}
	grpcServer := rpc.NewServer(a.services, overTLS...)
	httpServer := newHTTPServer(a.front.Handler(), a.cfg.HTTPIdleTimeout, forHTTP, a.log)
	stop := newStopper(a.log, a.cfg.StopGrace)

	// In the order of starting; they stop in reverse.
	for _, c := range a.background {
		stop.goRun(c.name, c.run)
	}
	stop.goServe("gRPC server", func() error { return grpcServer.Serve(a.listeners.grpc) }, func(ctx context.Context) {
		stopGRPC(ctx, grpcServer)
	})
	if a.listeners.webhook != nil {
		s := newHTTPServer(a.front.WebhookHandler(), a.cfg.HTTPIdleTimeout, forWebhooks, a.log)
		stop.goServe("webhook server", func() error { return serveHTTP(s, a.listeners.webhook) },
			func(ctx context.Context) { stopHTTP(ctx, s) })
	}
	if a.listeners.metrics != nil {
		s := newHTTPServer(a.front.MetricsHandler(), a.cfg.HTTPIdleTimeout, forHTTP, a.log)
		stop.goServe("metrics server", func() error { return serveHTTP(s, a.listeners.metrics) },
			func(ctx context.Context) { stopHTTP(ctx, s) })
	}
	stop.goServe("HTTP server", func() error { return serveHTTP(httpServer, a.listeners.http) },
		func(ctx context.Context) { stopHTTP(ctx, httpServer) })

	a.serving(true)
	err := a.await(ctx, stop.failed)

	a.serving(false)
	if err != nil {
		a.log.InfoContext(ctx, "stopping", slog.Any("cause", err))
	} else {
		a.log.InfoContext(ctx, "stopping")
	}
	stop.all()
	a.db.close(context.WithoutCancel(ctx))
	if a.cfg.ReadyFile != "" {
		_ = os.Remove(a.cfg.ReadyFile) // a waiting process must not find a stale file
	}
	a.log.InfoContext(ctx, "stopped")
	return err
}

// await waits until ctx ends or a part fails. It tells those who wait once the
// service is ready: a database that takes no writes yet delays that.
func (a *App) await(ctx context.Context, failed <-chan error) error {
	addrs, ready := a.Addresses(), a.status.health.worked
	var gone <-chan struct{}
	if a.db.embedded != nil {
		gone = a.db.embedded.Done()
	}
	for {
		select {
		case <-ready:
			ready = nil
			a.log.InfoContext(ctx, "ready", slog.String("version", a.status.version), slog.String("store", a.status.engine),
				slog.String("http_addr", addrs.HTTPAddr), slog.String("grpc_addr", addrs.GRPCAddr),
				slog.String("webhook_addr", addrs.WebhookAddr), slog.String("metrics_addr", addrs.MetricsAddr),
				slog.Bool("tls", a.tls != nil))
			if err := addrs.write(a.cfg.ReadyFile); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-gone:
			return fmt.Errorf("embedded PostgreSQL: %w", a.db.embedded.Err())
		}
	}
}

// Verify compares the mirror with Liveblocks while the service runs. It repairs nothing.
func (a *App) Verify(ctx context.Context) (mirror.VerifySummary, error) {
	var summary mirror.VerifySummary
	err := a.verifier.Verify(ctx, mirror.VerifyOptions{Project: mirror.ProjectID(a.cfg.ProjectID)},
		func(r mirror.VerifyReport) error {
			if r.Summary != nil {
				summary = *r.Summary
			}
			return nil
		})
	return summary, err
}

// serving sets whether the service reports that it accepts calls.
func (a *App) serving(yes bool) {
	a.status.serving.Store(yes)
	a.services.SetServing(yes)
}

// Package app composes the service from its parts, and starts and stops them in
// order.
package app

import (
	"context"
	"crypto/tls"
	"errors"
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
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/ledger"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/webhook"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/metrics"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/tlsfiles"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/traces"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/audit"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/documents"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/feed"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/inproc"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/rpc"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/erase"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/queue"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/reconcile"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/sweep"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/tracing"
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
	traces    *traces.Traces // nil if nothing is traced
	// underway is how long the event of a change may take; zero but in tests.
	underway time.Duration
	projects projects
	feed     *feed.Tailer
	audit    *audit.Log // set before anything is served
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
		a.traces.Discard(ctx)
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
	started := time.Now()
	if err := a.newProjects(version); err != nil {
		return err
	}
	guard, err := a.newGuard()
	if err != nil {
		return err
	}
	signatures, err := a.signatures()
	if err != nil {
		return err
	}
	if a.tls, err = tlsfiles.NewServer(a.cfg.TLS, time.Now, a.log); err != nil {
		return err
	}
	if a.listeners, err = listen(ctx, a.cfg.Addresses); err != nil {
		return err
	}
	if a.traces, err = traces.Start(ctx, a.cfg.Traces, version, a.log); err != nil {
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

	budget, reads := budgets(debug.SetMemoryLimit(-1))
	a.feed = feed.New(feed.Config{
		Feed: a.db.store, Now: time.Now, Poll: a.cfg.FeedPoll, SafetyPoll: a.cfg.SafetyPoll, Logger: a.log,
	})
	a.audit = audit.New(audit.Config{Store: a.db.store, Projects: a.projects.ids(), Now: time.Now, Logger: a.log})
	all := &shared{
		started: started, places: new(queue.Shared), memory: budget,
		counts: store.CountSeldom(a.db.store, time.Now), // for GetStatus and the progress of backfills
		old:    a.newRetention(),
	}
	for _, p := range a.projects {
		if err := a.compose(ctx, p, all); err != nil {
			return err
		}
	}
	if err := a.tellRemoved(ctx); err != nil {
		return err
	}
	health := newStoreHealth(a.db.store.Ping, !a.db.readOnly, a.log)
	events := ledger.New(ledger.Config{
		Store: a.db.store, Verifier: signatures, Pending: a.projects.Push, Replayed: a.projects.PushBackground,
		Failed: health.down, Recorded: health.wrote,
		Wait: a.projects.Await, Answered: a.metrics.Answered, Committed: a.metrics.Committed, Tracer: a.traces.Tracer(),
		Now: time.Now, Logger: a.log,
	})
	all.events = events
	for _, p := range a.projects {
		p.shown.shown = events.Shown
	}
	a.status = &status{
		projects: a.projects, version: version, engine: engine, health: health, events: events, memory: budget,
		guard: guard, old: all.old,
	}

	a.metrics.Read(metrics.Sources{
		Ready: func() bool { ok, _ := a.status.ready(); return ok }, Refused: guard.Refused, Pools: a.db.store.Pools,
		MemoryUsed: budget.Used, Memory: budget.Size(),
		Projects: a.projects.measured(), Retention: all.old, Spans: a.traces.Spans,
	})

	a.services = rpc.New(rpc.Config{
		Log: a.log, Now: time.Now, Projects: a.projects.ids(),
		Guard: guard, Audit: a.audit, Proxies: access.Networks(a.cfg.TrustedProxies.Ranges),
		Calls: a.metrics, Tracer: a.traces.Tracer(),
		WebhookAllow: access.Networks(a.cfg.WebhookAllow.Ranges),
		Event:        rpc.EventDeps{Query: a.db.store, Receiver: events},
		Mirror: rpc.MirrorDeps{
			Query: a.db.store, Refresher: a.projects, Documents: documents.Memory{Long: reads - reads/4, Decoding: budget},
		},
		Change: rpc.ChangeDeps{
			Store: a.db.store, Tailer: a.feed, PerCaller: a.cfg.FeedCallers, Resources: a.db.store, Memory: max(reads/4, 1),
		},
		Admin: rpc.AdminDeps{
			Query: all.counts, Requester: a.projects, Pinner: events, Replayer: events, Key: keys(a.projects),
			Stopper: brakes{a.projects, a.db.store},
			Eraser: erase.New(erase.Config{
				Store: a.db.store, Committed: a.feed.Committed, Pending: a.projects.PushBackground, Now: time.Now,
			}),
			Sweeper:  sweepers(a.projects),
			Verifier: countingVerifier{a.projects, a.metrics.Differs},
			Status:   a.status, Version: version, StartTime: started,
		},
	})
	// The gateway calls the services in process, through the same interceptors as
	// calls from outside.
	channel := inproc.New(a.services.UnaryInterceptor(), a.services.StreamInterceptor())
	channel.Carry = func(from, to context.Context) context.Context {
		return tracing.Carry(from, access.Carry(from, to))
	}
	a.services.Register(channel)
	door := &entrance{guard: guard, services: a.services}
	spec, err := openapi.JSON(version)
	if err != nil {
		return err
	}
	a.front, err = gateway.New(gateway.Config{
		Conn: channel, MaxBody: rpc.MaxWebhook, Storable: mirror.Storable, Authorize: door.authorize, LocalOnly: guard.Open(),
		Deliver: door.deliver, Metrics: door.metrics(a.metrics), MetricsApart: a.cfg.MetricsAddr != "",
		REST:  a.rest(channel, door, budget, reads),
		Ready: a.status.ready, OpenAPI: spec, Descriptors: descriptors.Set, Version: version,
		Logger: a.log,
	})
	a.background = append(a.background,
		component{"liveblocks client", a.projects.each(func(ctx context.Context, p *project) error {
			return p.client.Run(ctx)
		})},
		component{"workers", a.projects.each(func(ctx context.Context, p *project) error {
			return p.pool.Run(ctx, p.handlers)
		})},
		component{"ledger", events.Run},
		component{"store health", health.Run},
		component{"retention", all.old.Run},
		component{"audit", a.audit.Run},
		component{"watch for changes without events", a.projects.each(func(ctx context.Context, p *project) error {
			return p.watch.Run(ctx)
		})},
	)
	if a.db.migrated {
		a.background = append(a.background, component{"index of lists", a.indexLists})
	}
	if a.tls != nil {
		a.background = append(a.background, component{"TLS files", a.tls.Run})
	}
	if a.db.readOnly {
		a.background = append(a.background, component{"start", a.projects.each(a.beginLater)})
	}
	return err
}

// handlers returns the handler of each kind of task.
func handlers(reconciler *reconcile.Reconciler, sweeper *sweep.Sweeper) map[mirror.Kind]queue.Handler {
	handlers := reconciler.Handlers()
	handlers[mirror.KindSweep] = queue.Whole(sweeper.Do)
	return handlers
}

// signatures returns what verifies deliveries for all projects.
func (a *App) signatures() (*webhook.Verifier, error) {
	configured := make([]config.Project, len(a.projects))
	for i, p := range a.projects {
		configured[i] = p.cfg
	}
	return Verifier(configured)
}

// Verifier returns what verifies deliveries for some projects, or says which secret cannot
// be used.
func Verifier(projects []config.Project) (*webhook.Verifier, error) {
	var secrets []webhook.Secret
	v, err := webhook.NewVerifier(nil, tolerance)
	for _, p := range projects {
		for i, s := range config.Reveal(p.WebhookSecret) {
			if webhook.CutOff(s) {
				return nil, p.Wrong("LIVEBLOCKS_WEBHOOK_SECRET", fmt.Sprintf("cannot be used: secret %d has been cut off; "+
					"copy the whole signing secret (whsec_...) from the Liveblocks dashboard under Webhooks", i+1))
			}
			secrets = append(secrets, webhook.Secret{Project: p.ID(), Secret: s})
		}
		if v, err = webhook.NewVerifier(secrets, tolerance); err != nil {
			return nil, p.Wrong("LIVEBLOCKS_WEBHOOK_SECRET", fmt.Sprintf("cannot be used: %v; copy the signing secret "+
				"(whsec_...) from the Liveblocks dashboard under Webhooks", err))
		}
	}
	return v, err
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
	httpServer := newHTTPServer(a.traced(a.front.Handler()), a.cfg.HTTPIdleTimeout, forHTTP, a.log)
	stop := newStopper(a.log, a.cfg.StopGrace)

	// In the order of starting; they stop in reverse.
	if a.traces != nil {
		sent := make(chan struct{})
		stop.goServe("traces", func() error { <-sent; return nil }, func(ctx context.Context) {
			a.traces.Stop(ctx)
			close(sent)
		})
	}
	for _, c := range a.background {
		stop.goRun(c.name, c.run)
	}
	stop.goServe("gRPC server", func() error { return grpcServer.Serve(a.listeners.grpc) }, func(ctx context.Context) {
		stopGRPC(ctx, grpcServer)
	})
	if a.listeners.webhook != nil {
		s := newHTTPServer(a.traced(a.front.WebhookHandler()), a.cfg.HTTPIdleTimeout, forWebhooks, a.log)
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
	// It stops first: those who follow the changes would keep the servers waiting.
	stop.goRun("feed", a.feed.Run)

	a.serving(true)
	err := a.await(ctx, stop.failed)

	a.serving(false)
	if err := notify(context.WithoutCancel(ctx), stateStopping); err != nil {
		a.log.DebugContext(ctx, "cannot tell systemd that the service stops", slog.Any("error", err))
	}
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
			if err := errors.Join(addrs.write(a.cfg.ReadyFile), notify(ctx, stateReady)); err != nil {
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

// Verify compares the mirror of the first project with Liveblocks while the service runs.
// It repairs nothing.
func (a *App) Verify(ctx context.Context) (mirror.VerifySummary, error) {
	var summary mirror.VerifySummary
	err := a.projects.Verify(ctx, mirror.VerifyOptions{Project: a.projects[0].id},
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

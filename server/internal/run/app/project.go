package app

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/ledger"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/memory"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/metrics"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/keycheck"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/queue"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/reconcile"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/retention"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/sweep"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/verify"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/tracing"
)

// project is what runs for one project: its calls to Liveblocks, its tasks, its sweeps.
type project struct {
	cfg config.Project
	id  mirror.ProjectID
	log *slog.Logger

	client *liveblocks.Client
	// toCheck returns clients for checks of the key.
	toCheck func() keycheck.Fetcher

	shown    *shownFetcher
	key      *keycheck.Checker
	watch    *sweep.Watch
	pool     *queue.Pool
	sweeper  *sweep.Sweeper
	verifier *verify.Verifier
	handlers map[mirror.Kind]queue.Handler
}

// projects are all projects of the service, in the order of the settings. What it is
// asked about one of them goes to its parts; others must not be asked about.
type projects []*project

// of returns the project with the id.
func (ps projects) of(id mirror.ProjectID) *project {
	for _, p := range ps {
		if p.id == id {
			return p
		}
	}
	panic("app: not a configured project: " + string(id)) // the services and the ledger refuse others
}

func (ps projects) ids() []mirror.ProjectID {
	ids := make([]mirror.ProjectID, len(ps))
	for i, p := range ps {
		ids[i] = p.id
	}
	return ids
}

// measured are the projects of the metrics.
func (ps projects) measured() []metrics.Source {
	sources := make([]metrics.Source, len(ps))
	for i, p := range ps {
		sources[i] = metrics.Source{ID: p.id, Limiter: p.client.Status, Queue: p.pool.Stats}
	}
	return sources
}

// newRetention returns what deletes old rows.
func (a *App) newRetention() *retention.Runner {
	cfg := retention.Config{Store: a.db.store, Changes: a.cfg.RetentionChanges, Now: time.Now, Logger: a.log}
	for _, p := range a.projects {
		keep := map[store.Aging]time.Duration{
			store.AgingEvents: p.cfg.RetentionEvents, store.AgingSessions: p.cfg.RetentionSessions,
			store.AgingNotifications: p.cfg.RetentionNotifications, store.AgingAudit: p.cfg.RetentionAudit,
		}
		for _, table := range store.Tombstones {
			keep[table] = p.cfg.RetentionTombstones
		}
		cfg.Projects = append(cfg.Projects, retention.Project{ID: p.id, Keep: keep})
	}
	// Refused calls that are of no single project, perhaps from when there were several.
	cfg.Projects = append(cfg.Projects, retention.Project{Keep: map[store.Aging]time.Duration{
		store.AgingAudit: a.cfg.RetentionAudit,
	}})
	return retention.New(cfg)
}

// tellRemoved tells of projects that are not configured any more.
func (a *App) tellRemoved(ctx context.Context) error {
	stored, err := a.db.store.ProjectIDs(ctx)
	if err != nil {
		return err
	}
	if gone := removed(stored, a.projects.ids()); len(gone) > 0 {
		a.log.WarnContext(ctx, "the database has rows of projects that are not configured; they are neither served nor "+
			"fetched", slog.Any("projects", gone))
	}
	return nil
}

// newProjects sets a.projects to the configured projects, with their clients.
func (a *App) newProjects(version string) error {
	configured, err := a.cfg.Projects()
	if err != nil {
		return err
	}
	for _, cfg := range configured {
		p := &project{cfg: cfg, id: cfg.ID(), log: a.log.With(slog.String("project", cfg.ProjectID))}
		if err := a.connect(p, version); err != nil {
			return err
		}
		a.projects = append(a.projects, p)
	}
	return nil
}

// shared is what all projects share.
type shared struct {
	started time.Time
	events  *ledger.Ledger // set before anything runs
	places  *queue.Shared
	memory  *memory.Budget
	counts  store.Store // counts seldom
	old     *retention.Runner
}

// compose puts a project together.
func (a *App) compose(ctx context.Context, p *project, s *shared) error {
	p.key = keycheck.New(keycheck.Config{
		Project: p.id, Key: p.cfg.SecretKey.Reveal(), Store: a.db.store, Fetcher: p.toCheck, Now: time.Now,
	})
	switch changed, err := p.key.Changed(ctx); {
	case err != nil:
		return err
	case changed:
		p.client.Hold(p.key.Again(), p.key.Check)
	}
	p.watch = sweep.NewWatch(sweep.WatchConfig{
		Project: p.id, Store: a.db.store, Now: time.Now, Logger: p.log,
		Since: func() time.Time {
			if missed := s.events.Missed(); missed.After(s.started) {
				return missed
			}
			return s.started
		},
		Underway: a.underway, Counted: a.metrics.Unannounced(p.id),
	})
	policy := queue.Policy{MaxAttempts: p.cfg.MaxAttempts, BackoffMin: p.cfg.BackoffMin, BackoffMax: p.cfg.BackoffMax}
	p.pool = queue.New(queue.Config{
		Project: p.id, Tasks: a.db.store, Limiter: p.client, Policy: policy, Shared: s.places,
		Workers: p.cfg.Workers, Fetches: p.cfg.Fetches, Memory: s.memory, LeaseTTL: p.cfg.LeaseTTL,
		BusyPoll: p.cfg.BusyPoll, SafetyPoll: p.cfg.SafetyPoll, StopGrace: p.cfg.StopGrace / 2,
		Looked: func() { s.old.Wake(); a.audit.Wake() }, Swept: p.watch.Swept, Ended: a.metrics.Attempted,
		Tracer:    a.traces.Tracer(),
		Committed: a.feed.Committed, Doubt: a.feed.Doubt, Now: time.Now, Logger: p.log,
	})
	p.shown = &shownFetcher{Fetcher: p.client, project: p.id}
	reconciler := reconcile.New(reconcile.Config{
		Mirror: a.db.store, Tasks: a.db.store, Fetcher: p.shown, Project: a.db.store.Project, Policy: policy,
		Settle:              p.cfg.Settle,
		ActiveUsersInterval: mirror.ActiveUsersInterval, MaxData: p.cfg.MaxData, Now: time.Now, Logger: p.log,
	})
	p.sweeper = sweep.New(sweep.Config{
		Project: p.id, Store: s.counts, Lister: p.client, Pool: p.pool, Key: p.key, Interval: p.cfg.Sweep,
		FullInterval: p.cfg.FullSweep, RetryMin: p.cfg.BackoffMin, RetryMax: p.cfg.BackoffMax, Now: time.Now, Logger: p.log,
		Listed: a.metrics.Listed(p.id), Ended: func(at time.Time) { a.metrics.Swept(p.id, at) },
	})
	p.handlers = handlers(reconciler, p.sweeper)
	p.verifier = verify.New(verify.Config{
		Store: a.db.store, Fetcher: p.client, Limiter: p.client, Workers: p.pool, Memory: s.memory, MaxData: p.cfg.MaxData,
		Now: time.Now,
	})
	if err := a.remember(ctx, p.id); err != nil || a.db.readOnly {
		return err
	}
	return a.begin(ctx, p)
}

// begin writes what the start of a project writes.
func (a *App) begin(ctx context.Context, p *project) error {
	if err := a.forgetPause(ctx, p.id); err != nil {
		return err
	}
	if err := p.client.Look(ctx); err != nil {
		return err
	}
	if err := p.key.Remember(ctx); err != nil {
		return err
	}
	return p.sweeper.Begin(ctx)
}

// beginLater begins once the database takes writes.
func (a *App) beginLater(ctx context.Context, p *project) error {
	for a.begin(ctx, p) != nil && clock.Sleep(ctx, pingEvery) == nil {
	}
	<-ctx.Done()
	return nil
}

// each returns what runs a part of every project until its context ends. If one fails,
// the others end too.
func (ps projects) each(run func(context.Context, *project) error) func(context.Context) error {
	return func(ctx context.Context) error {
		group, ctx := errgroup.WithContext(ctx)
		for _, p := range ps {
			group.Go(func() error {
				if err := run(ctx, p); err != nil {
					return fmt.Errorf("project %s: %w", p.id, err)
				}
				return nil
			})
		}
		return group.Wait()
	}
}

// Push passes what became stale to the workers of its project.
func (ps projects) Push(pending []mirror.Pending) { ps.push(pending, (*queue.Pool).Push) }

// PushBackground does the same at the lowest priority.
func (ps projects) PushBackground(pending []mirror.Pending) {
	ps.push(pending, (*queue.Pool).PushBackground)
}

func (ps projects) push(pending []mirror.Pending, to func(*queue.Pool, []mirror.Pending)) {
	if len(ps) == 1 {
		to(ps[0].pool, pending)
		return
	}
	of := make(map[mirror.ProjectID][]mirror.Pending)
	for _, p := range pending {
		of[p.Resource.Project] = append(of[p.Resource.Project], p)
	}
	for id, pending := range of {
		to(ps.of(id).pool, pending)
	}
}

// Await waits until what became stale is mirrored, if the project acknowledges no sooner.
func (ps projects) Await(ctx context.Context, pending []mirror.Pending) error {
	p := ps.of(pending[0].Resource.Project) // a delivery is of one project
	if p.cfg.Ack != "synced" {
		return nil
	}
	return p.pool.Await(ctx, pending)
}

// Refresh is part of [fresh.Refresher].
func (ps projects) Refresh(ctx context.Context, resources ...mirror.Resource) error {
	return ps.of(resources[0].Project).pool.Refresh(ctx, resources...)
}

// Request is part of [rpc.Requester].
func (ps projects) Request(ctx context.Context, resources []mirror.Resource) ([]mirror.Pending, error) {
	return ps.of(resources[0].Project).pool.Request(ctx, resources)
}

// Retry is part of [rpc.Requester].
func (ps projects) Retry(ctx context.Context, resource mirror.Resource) (mirror.Task, error) {
	return ps.of(resource.Project).pool.Retry(ctx, resource)
}

// Discard is part of [rpc.Requester].
func (ps projects) Discard(ctx context.Context, resource mirror.Resource) (mirror.Task, error) {
	return ps.of(resource.Project).pool.Discard(ctx, resource)
}

// Verify is part of [rpc.Verifier].
func (ps projects) Verify(ctx context.Context, options mirror.VerifyOptions,
	report func(mirror.VerifyReport) error,
) error {
	return ps.of(options.Project).verifier.Verify(tracing.Without(ctx), options, report)
}

// keys is [rpc.Key] for all projects.
type keys projects

func (ks keys) Confirm(ctx context.Context, project mirror.ProjectID) error {
	return projects(ks).of(project).key.Confirm(ctx, project)
}

// sweepers is [rpc.Sweeper] for all projects.
type sweepers projects

func (ss sweepers) Start(ctx context.Context, project mirror.ProjectID) (mirror.Backfill, error) {
	return projects(ss).of(project).sweeper.Start(ctx, project)
}

func (ss sweepers) Status(ctx context.Context, project mirror.ProjectID) (mirror.Backfill, error) {
	return projects(ss).of(project).sweeper.Status(ctx, project)
}

func (ss sweepers) Confirm(ctx context.Context, project mirror.ProjectID, rooms, groups int64) (mirror.Backfill,
	error,
) {
	return projects(ss).of(project).sweeper.Confirm(ctx, project, rooms, groups)
}

// brakes is [rpc.Stopper] for all projects.
type brakes struct {
	projects projects
	store    store.Projects
}

func (bs brakes) Stop(ctx context.Context, project mirror.ProjectID, reason string) error {
	if err := bs.store.Stop(ctx, project, reason, time.Now()); err != nil {
		return err
	}
	return bs.projects.of(project).client.Look(ctx)
}

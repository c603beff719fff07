package app

import (
	"context"
	"sync/atomic"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/ledger"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/memory"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/rpc"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/retention"
)

// status is the state of the process.
type status struct {
	projects projects
	version  string
	engine   string
	health   *storeHealth
	events   *ledger.Ledger
	memory   *memory.Budget
	guard    *access.Guard
	old      *retention.Runner
	serving  atomic.Bool
}

// ready answers from memory: a query would keep the database awake.
func (s *status) ready() (bool, string) {
	switch {
	case !s.serving.Load():
		return false, "starting or stopping"
	case !s.health.ok():
		return false, s.health.problem()
	default:
		return true, ""
	}
}

// Status returns the process's part of the status.
func (s *status) Status(context.Context) (rpc.Status, error) {
	ready, _ := s.ready()
	limiters := make(map[mirror.ProjectID]rpc.Limiter, len(s.projects))
	work := make(map[mirror.ProjectID]rpc.Work, len(s.projects))
	for _, p := range s.projects {
		limiter := p.client.Status()
		limiters[p.id] = rpc.Limiter{
			CallsPerSecond: limiter.RatePerSecond, MaxCallsPerSecond: limiter.MaxRatePerSecond,
			ThrottledUntil: limiter.ThrottledUntil, PauseReason: limiter.PauseReason, PausedSince: limiter.PausedSince,
			Unsupported: p.client.Unsupported(),
		}
		work[p.id] = rpc.Work{Lanes: p.pool.Stats().Lanes, Freshness: p.pool.Freshness(), Retention: s.old.Status(p.id)}
	}
	return rpc.Status{
		Ready:      ready,
		Engine:     s.engine,
		Deliveries: s.events.Counts(),
		Refused:    s.guard.Refused(),
		MemoryUsed: s.memory.Used(), Memory: s.memory.Size(),
		Limiters: limiters, Work: work, Changes: s.old.Changes(),
	}, nil
}

package app

import (
	"context"
	"sync/atomic"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/ledger"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/memory"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/rpc"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/queue"
)

// status is the state of the process.
type status struct {
	project mirror.ProjectID
	version string
	engine  string
	health  *storeHealth
	events  *ledger.Ledger
	client  *liveblocks.Client
	pool    *queue.Pool
	memory  *memory.Budget
	guard   *access.Guard
	serving atomic.Bool
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
	limiter := s.client.Status()
	return rpc.Status{
		Ready:      ready,
		Engine:     s.engine,
		Deliveries: s.events.Counts(),
		Refused:    s.guard.Refused(),
		MemoryUsed: s.memory.Used(), Memory: s.memory.Size(),
		Limiters: map[mirror.ProjectID]rpc.Limiter{
			s.project: {
				CallsPerSecond: limiter.RatePerSecond, MaxCallsPerSecond: limiter.MaxRatePerSecond,
				ThrottledUntil: limiter.ThrottledUntil, PauseReason: limiter.PauseReason, PausedSince: limiter.PausedSince,
				Unsupported: s.client.Unsupported(),
			},
		},
		Work: map[mirror.ProjectID]rpc.Work{s.project: {Lanes: s.pool.Stats().Lanes, Freshness: s.pool.Freshness()}},
	}, nil
}

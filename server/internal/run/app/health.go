package app

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// storeHealth remembers whether the database works. The ledger reports outages;
// storeHealth queries the database only during one, so an idle service sends no
// query.
type storeHealth struct {
	ping  func(context.Context) error
	log   *slog.Logger
	bad   atomic.Bool
	fresh chan struct{}
}

// pingEvery is the time between two pings of the database during an outage.
const pingEvery = time.Second

func newStoreHealth(ping func(context.Context) error, log *slog.Logger) *storeHealth {
	return &storeHealth{ping: ping, log: log, fresh: make(chan struct{}, 1)}
}

func (h *storeHealth) ok() bool { return !h.bad.Load() }

// down records that the database failed.
func (h *storeHealth) down() {
	if h.bad.Swap(true) {
		return
	}
	select {
	case h.fresh <- struct{}{}:
	default:
	}
}

// Run waits for outages and for their end.
func (h *storeHealth) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.fresh:
		}
		h.log.ErrorContext(ctx, "the database is not available; deliveries are answered 503 until it is")
		ticker := time.NewTicker(pingEvery)
		for h.bad.Load() && ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-ticker.C:
				pctx, cancel := context.WithTimeout(ctx, 5*pingEvery)
				if h.ping(pctx) == nil {
					h.bad.Store(false)
					h.log.InfoContext(ctx, "the database is available again")
				}
				cancel()
			}
		}
		ticker.Stop()
	}
}

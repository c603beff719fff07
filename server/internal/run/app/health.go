package app

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// storeHealth remembers whether the database works. The ledger reports outages;
// storeHealth queries the database only during one, so an idle service sends no
// query.
type storeHealth struct {
	ping     func(context.Context) error
	log      *slog.Logger
	bad      atomic.Bool
	readOnly atomic.Bool // according to the last ping of an outage
	fresh    chan struct{}
	// worked is closed once the database has worked.
	worked chan struct{}
	first  sync.Once
}

// pingEvery is the time between two pings of the database during an outage.
const pingEvery = time.Second

// newStoreHealth returns the health of a database that works now or does not yet.
func newStoreHealth(ping func(context.Context) error, works bool, log *slog.Logger) *storeHealth {
	h := &storeHealth{ping: ping, log: log, fresh: make(chan struct{}, 1), worked: make(chan struct{})}
	if works {
		h.up()
	} else {
		h.down()
	}
	return h
}

func (h *storeHealth) ok() bool { return !h.bad.Load() }

// problem says what is wrong with the database during an outage.
func (h *storeHealth) problem() string {
	if h.readOnly.Load() {
		return "the database takes no writes"
	}
	return "the database is not available"
}

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

// up records that the database works.
func (h *storeHealth) up() {
	h.bad.Store(false)
	h.first.Do(func() { close(h.worked) })
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
				h.check(ctx)
			}
		}
		ticker.Stop()
	}
}

// check pings the database, and ends the outage if it answers and takes writes.
func (h *storeHealth) check(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*pingEvery)
	defer cancel()
	err := h.ping(ctx)
	readOnly := errors.Is(err, store.ErrReadOnly)
	if readOnly && !h.readOnly.Load() {
		h.log.ErrorContext(ctx, "the database takes no writes: it is a standby, or was set read-only",
			slog.Any("error", err))
	}
	h.readOnly.Store(readOnly)
	if err == nil {
		h.up()
		h.log.InfoContext(ctx, "the database is available again")
	}
}

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

// storeHealth remembers whether the database works. The ledger reports what it could
// not record and what it could; storeHealth queries the database only after a failure,
// so an idle service sends no query.
type storeHealth struct {
	ping     func(context.Context) error
	log      *slog.Logger
	bad      atomic.Bool
	readOnly atomic.Bool // according to the last ping of an outage
	// unwritable means that the database answers, but deliveries could not be recorded
	// since: its disk may be full. Reads work, so the service stays ready.
	unwritable atomic.Bool
	// recorded means that a delivery was recorded since the last failure was told.
	recorded atomic.Bool
	cause    atomic.Pointer[error] // of the last failure
	fresh    chan struct{}
	// worked is closed once the database has worked.
	worked chan struct{}
	first  sync.Once
}

const (
	// pingEvery is the time between two pings of the database during an outage.
	pingEvery = time.Second
	// tellEvery is the minimal time between two log lines of failures while nothing is
	// recorded between them: every delivery that is tried again fails again.
	tellEvery = time.Minute
)

// newStoreHealth returns the health of a database that works now or does not yet.
func newStoreHealth(ping func(context.Context) error, works bool, log *slog.Logger) *storeHealth {
	h := &storeHealth{ping: ping, log: log, fresh: make(chan struct{}, 1), worked: make(chan struct{})}
	if works {
		h.up()
	} else {
		h.down(store.ErrReadOnly)
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

// down records that the database failed, and why.
func (h *storeHealth) down(err error) {
	h.cause.Store(&err)
	if !h.unwritable.Load() && h.bad.Swap(true) {
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

// wrote records that deliveries were recorded.
func (h *storeHealth) wrote(ctx context.Context) {
	h.recorded.Store(true)
	if h.unwritable.CompareAndSwap(true, false) {
		h.log.InfoContext(ctx, "deliveries are recorded again")
	}
}

// Run waits for failures, and for the end of outages.
func (h *storeHealth) Run(ctx context.Context) error {
	var told time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.fresh:
		}
		cause := *h.cause.Load()
		tell := h.recorded.Swap(false) || time.Since(told) >= tellEvery
		if tell {
			told = time.Now()
		}
		// What fails although a ping is answered is writing.
		if !errors.Is(cause, store.ErrReadOnly) && h.pinged(ctx) == nil {
			h.unwritable.Store(true)
			h.up()
			if tell {
				h.log.ErrorContext(ctx, "the database answers, but deliveries cannot be recorded; they are answered 503",
					slog.Any("error", cause))
			}
			continue
		}
		h.unwritable.Store(false)
		h.bad.Store(true)
		if tell {
			h.log.ErrorContext(ctx, "the database is not available; deliveries are answered 503 until it is",
				slog.Any("error", cause))
		}
		ticker := time.NewTicker(pingEvery)
		for h.bad.Load() && ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-ticker.C:
				h.check(ctx, tell)
			}
		}
		ticker.Stop()
	}
}

func (h *storeHealth) pinged(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*pingEvery)
	defer cancel()
	return h.ping(ctx)
}

// check pings the database, and ends the outage if it answers and takes writes.
func (h *storeHealth) check(ctx context.Context, tell bool) {
	err := h.pinged(ctx)
	readOnly := errors.Is(err, store.ErrReadOnly)
	if readOnly && !h.readOnly.Load() {
		h.log.ErrorContext(ctx, "the database takes no writes: it is a standby, or was set read-only",
			slog.Any("error", err))
	}
	h.readOnly.Store(readOnly)
	if err == nil {
		h.up()
		if tell {
			h.log.InfoContext(ctx, "the database is available again")
		}
	}
}

package sweep

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/listing"
)

const (
	// underway is how long the event of a change may take: Liveblocks throttles those
	// of documents, and delivers one again after 5 minutes if the first two attempts
	// failed. Clocks and reads of an old state may differ by as much.
	underway = 10 * time.Minute
	// maxFound bounds the changes that are remembered until then.
	maxFound = 10_000
)

// WatchStore is the part of the store that a Watch uses.
type WatchStore interface {
	Generations(ctx context.Context, resources []mirror.Resource) ([]store.Progress, error)
	RoomsByID(ctx context.Context, project mirror.ProjectID, ids []mirror.RoomID, source bool) ([]mirror.Room, error)
	NoteUnannounced(ctx context.Context, project mirror.ProjectID, kind mirror.Kind, count int64, now time.Time) error
}

// WatchConfig configures a Watch.
type WatchConfig struct {
	Project mirror.ProjectID
	Store   WatchStore
	// Since returns since when this process has recorded every delivery that it can
	// know of. Events of changes before that may still come, hours later.
	Since func() time.Time
	// Underway is how long the event of a change may take; zero means ten minutes.
	Underway time.Duration
	// Counted, if set, is called with the changes of a kind that were counted.
	Counted func(kind mirror.Kind, changes int64)
	Now     func() time.Time
	Logger  *slog.Logger
}

// Watch counts the changes that sweeps find and no event reports: a sign that
// deliveries have ceased, or that the endpoint does not get all types of events.
//
// A change counts if the resource was fetched before and after it while this process
// recorded all deliveries, only sweeps requested the second fetch, and no event about
// the resource came from shortly before the first one until long enough after the
// second. New rooms count too. Other replicas may have failed to record a
// delivery, which then comes again.
type Watch struct {
	cfg  WatchConfig
	wake chan struct{}

	mu sync.Mutex
	// found holds when the resources of the changes were fetched before; zero for a
	// new room.
	found map[mirror.Resource]time.Time
}

// NewWatch returns a Watch.
func NewWatch(cfg WatchConfig) *Watch {
	cfg.Underway = cmp.Or(cfg.Underway, underway)
	return &Watch{cfg: cfg, wake: make(chan struct{}, 1), found: make(map[mirror.Resource]time.Time)}
}

// Swept learns the result of a task that only a sweep has requested.
func (w *Watch) Swept(lease mirror.Lease, applied mirror.Applied) {
	changed := applied.Added
	born := lease.Resource.Kind.Traits().Events == mirror.EventsBirth && lease.Epoch == 0
	if applied.Changed && (born || lease.Resource.Announced()) {
		changed = []mirror.Resource{lease.Resource}
	}
	before := lease.FetchTime
	w.mu.Lock()
	for _, r := range changed {
		switch {
		case born:
			before = time.Time{}
		case !r.Announced() || !before.After(w.cfg.Since()) || before.After(w.cfg.Now()):
			continue
		}
		if len(w.found) < maxFound {
			w.found[r] = before
		}
	}
	n := len(w.found)
	w.mu.Unlock()
	if n > 0 {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// Run counts what was found until ctx ends. Without that it does nothing.
func (w *Watch) Run(ctx context.Context) error {
	var batch map[mirror.Resource]time.Time
	for {
		if len(batch) == 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-w.wake:
			}
			// What the same sweep finds later is counted together with it.
			if !passes(ctx, w.cfg.Underway) {
				return nil
			}
			w.mu.Lock()
			batch, w.found = w.found, make(map[mirror.Resource]time.Time)
			w.mu.Unlock()
		}
		if !passes(ctx, w.cfg.Underway) {
			return nil
		}
		if w.count(ctx, batch) == nil { // else the database is away
			batch = nil
		}
	}
}

// passes waits, and reports whether ctx goes on.
func passes(ctx context.Context, d time.Duration) bool { return clock.Sleep(ctx, d) == nil }

// count counts the changes of which no event has come.
func (w *Watch) count(ctx context.Context, batch map[mirror.Resource]time.Time) error {
	counts := make(map[mirror.Kind]int64)
	all := slices.SortedFunc(maps.Keys(batch), mirror.Resource.Compare)
	for some := range slices.Chunk(all, listing.Batch) {
		progress, err := w.cfg.Store.Generations(ctx, some)
		if err != nil {
			return fmt.Errorf("look for the events of changes: %w", err)
		}
		var born []mirror.RoomID
		for i, r := range some {
			before, noticed := batch[r], progress[i].NoticeTime
			switch {
			case before.IsZero() && noticed.IsZero():
				born = append(born, r.Room)
			case !before.IsZero() && before.After(w.cfg.Since()) && noticed.Before(before.Add(-w.cfg.Underway)):
				counts[r.Kind]++
			}
		}
		rooms, err := w.cfg.Store.RoomsByID(ctx, w.cfg.Project, born, false)
		if err != nil {
			return fmt.Errorf("look for new rooms: %w", err)
		}
		for _, r := range rooms {
			if r.CreateTime.Add(-w.cfg.Underway).After(w.cfg.Since()) {
				counts[mirror.KindRoom]++
			}
		}
	}
	if len(counts) == 0 {
		return nil
	}
	var attrs []any
	for _, kind := range slices.SortedFunc(maps.Keys(counts), cmp.Compare) {
		if err := w.cfg.Store.NoteUnannounced(ctx, w.cfg.Project, kind, counts[kind], w.cfg.Now()); err != nil {
			return fmt.Errorf("note changes without events: %w", err)
		}
		if w.cfg.Counted != nil {
			w.cfg.Counted(kind, counts[kind])
		}
		attrs = append(attrs, slog.Int64(kind.String(), counts[kind]))
	}
	w.cfg.Logger.WarnContext(ctx, "sweeps found changes of which no event has come", attrs...)
	return nil
}

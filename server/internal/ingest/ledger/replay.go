package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/webhook"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/tracing"
)

// replayBatch is how many events, of up to 1 MiB each, are read at once and replayed in
// one transaction.
const replayBatch = 50

// replayLook is how many events are looked for at once, without their bodies, where a look
// reads all that are in some rooms.
const replayLook = 5000

// Replay says which events to replay.
type Replay struct {
	// Filter selects the events. Its Limit is how many are read at most.
	Filter store.EventFilter
	// IDs, if there are any, name the events. They must be of the project and the rooms of
	// the Filter, of which the rest does not count.
	IDs []string
	// DryRun replays nothing.
	DryRun bool
}

// Replayed is how far a replay is.
type Replayed struct {
	// Read counts the events that were read, Replayed those that make something stale, and
	// Skipped those that were set aside or have lost their body, also since they were read.
	Read, Replayed, Skipped int64
	// LastTime and LastID are the receive time and the id of the last event that was read,
	// and Left means that others may follow.
	LastTime time.Time
	LastID   string
	Left     bool
}

// Replay works recorded events once more, and calls report after each part. Whatever it
// has done when it fails may be done again. It has no trace: one of thousands of events would
// have too many spans to be read.
func (l *Ledger) Replay(ctx context.Context, r Replay, report func(Replayed) error) error {
	ctx = tracing.Without(ctx)
	if len(r.IDs) > 0 {
		return l.replayByID(ctx, r, report)
	}
	var done Replayed
	filter := r.Filter
	if filter.Rooms != nil && filter.Room == "" && filter.User == "" {
		return l.replayOfRooms(ctx, r, report)
	}
	for left := filter.Limit; left > 0; left -= replayBatch {
		filter.Limit = min(left, replayBatch)
		events, err := l.cfg.Store.Events(ctx, filter)
		if err != nil {
			return fmt.Errorf("read events to replay: %w", err)
		}
		done.Left = len(events) == filter.Limit
		if err := l.replay(ctx, events, r.DryRun, &done); err != nil {
			return err
		}
		if err := report(done); err != nil || !done.Left {
			return err
		}
		filter.AfterTime, filter.AfterID = done.LastTime, done.LastID
	}
	return nil
}

// replayOfRooms is for prefixes of rooms, whose events no index has by time: each page reads
// all of them, so it takes large pages, and then each event by its key.
func (l *Ledger) replayOfRooms(ctx context.Context, r Replay, report func(Replayed) error) error {
	var done Replayed
	filter := r.Filter
	filter.NoPayload = true
	for left, more := filter.Limit, true; left > 0 && more; left -= replayLook {
		filter.Limit = min(left, replayLook)
		found, err := l.cfg.Store.Events(ctx, filter)
		if err != nil {
			return fmt.Errorf("look for events to replay: %w", err)
		}
		more = len(found) == filter.Limit
		parts := slices.Collect(slices.Chunk(found, replayBatch))
		if len(parts) == 0 {
			return report(done)
		}
		for i, part := range parts {
			var events []mirror.Event
			for _, e := range part {
				e, err := l.whole(ctx, e)
				switch {
				case errors.Is(err, store.ErrNotFound): // its time is over
				case err != nil:
					return fmt.Errorf("read an event to replay: %w", err)
				default:
					events = append(events, e)
				}
			}
			if err := l.replay(ctx, events, r.DryRun, &done); err != nil {
				return err
			}
			last := part[len(part)-1]
			done.LastTime, done.LastID, done.Left = last.ReceiveTime, last.ID, more || i < len(parts)-1
			if err := report(done); err != nil {
				return err
			}
		}
		filter.AfterTime, filter.AfterID = done.LastTime, done.LastID
	}
	return nil
}

// replayByID looks for all events before it replays one.
func (l *Ledger) replayByID(ctx context.Context, r Replay, report func(Replayed) error) error {
	find := func(id string) (mirror.Event, error) {
		e, err := l.cfg.Store.Event(ctx, r.Filter.Project, id)
		if err == nil && !r.Filter.Rooms.Select(e.Room) {
			err = store.ErrNotFound
		}
		return e, fault.Translate(err, store.ErrNotFound, fault.New(fault.NotFound, fault.ReasonEventNotFound,
			"no such event was recorded").With("event_id", id))
	}
	for _, id := range r.IDs {
		if _, err := find(id); err != nil {
			return err
		}
	}
	var done Replayed
	for ids := range slices.Chunk(r.IDs, replayBatch) {
		events := make([]mirror.Event, len(ids))
		for i, id := range ids {
			var err error
			if events[i], err = find(id); err != nil {
				return err
			}
		}
		if err := l.replay(ctx, events, r.DryRun, &done); err != nil {
			return err
		}
		if err := report(done); err != nil {
			return err
		}
	}
	return nil
}

// replay works events in one transaction, and adds them to what is done.
func (l *Ledger) replay(ctx context.Context, events []mirror.Event, dryRun bool, done *Replayed) error {
	var batch []mirror.Delivery
	for _, e := range events {
		done.Read++
		done.LastTime, done.LastID = e.ReceiveTime, e.ID
		if e.Outcome == mirror.OutcomeForeignProject || len(e.Payload) == 0 || string(e.Payload) == store.Purged {
			done.Skipped++
			continue
		}
		d := webhook.Decode(e.Project, e.ID, e.Payload, e.SendTime, e.ReceiveTime)
		if len(d.Invalidations) > 0 {
			batch = append(batch, d)
		}
	}
	replayed := len(batch)
	if !dryRun && len(batch) > 0 {
		pending, n, err := l.cfg.Store.Replay(ctx, batch, l.cfg.Now())
		if len(pending) > 0 {
			l.cfg.Replayed(pending)
		}
		if err != nil {
			return err
		}
		replayed = n
	}
	done.Replayed += int64(replayed)
	done.Skipped += int64(len(batch) - replayed)
	return nil
}

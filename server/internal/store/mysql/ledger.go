package mysql

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

type eventKey struct {
	project mirror.ProjectID
	id      string
}

func keyOf(e mirror.Event) eventKey { return eventKey{e.Project, e.ID} }

// Accept uses one transaction of four statements if every event is new: events, locks
// on the states, states, commit. Otherwise it also reads what is stored, because
// MySQL does not report which rows of an insert were new.
//
// On a sharded server, each bucket has such a transaction.
func (s *Store) Accept(ctx context.Context, batch []mirror.Delivery) ([]store.Accepted, error) {
	sharded, err := s.sharded(ctx)
	switch {
	case err != nil:
		return nil, err
	case sharded:
		answers, err := store.AcceptByBucket(ctx, batch, s.lanes, s.acceptUnlocked)
		if err != nil && (fault.Of(err).Kind != fault.Unavailable || s.pingShards(ctx, err) != nil) {
			return nil, err
		}
		return answers, nil // what is away is a shard, and not the database
	}
	return s.acceptUnlocked(ctx, batch)
}

func (s *Store) acceptUnlocked(ctx context.Context, batch []mirror.Delivery) ([]store.Accepted, error) {
	return store.AcceptUnlocked(batch, func(part []mirror.Delivery, wait time.Duration) ([]store.Accepted, error) {
		if len(part) == 0 {
			return nil, nil
		}
		begin := time.Now()
		for {
			answers, err := s.accept(ctx, part, wait)
			if !errors.Is(err, store.ErrLocked) || time.Since(begin) >= wait || clock.Sleep(ctx, lockPoll) != nil {
				return answers, err
			}
		}
	})
}

// lockPoll is the time between two looks at a locked row. No lock is held meanwhile.
const lockPoll = 10 * time.Millisecond

// accept records deliveries in one transaction, or returns ErrLocked without waiting
// for the row of a state.
func (s *Store) accept(ctx context.Context, batch []mirror.Delivery, wait time.Duration) ([]store.Accepted, error) {
	// Key order is lock order.
	events := make([]mirror.Event, len(batch))
	for i, a := range batch {
		events[i] = a.Event
	}
	slices.SortFunc(events, compareEvents)

	var answers []store.Accepted
	err := retry(ctx, func() error {
		return s.once(ctx, s.accepting, func(q *queries) (err error) {
			answers, err = s.record(ctx, q, batch, events, wait < store.LockWait)
			return err
		})
	})
	if err != nil && !errors.Is(err, store.ErrLocked) && !errors.Is(err, store.ErrEventLocked) {
		err = classify(ctx, fmt.Errorf("accept %d events: %w", len(batch), err))
	}
	return answers, err
}

// unlessLocked returns instead if err says that a row is locked.
func unlessLocked(err, instead error) error {
	switch number(err) {
	case 1205, 3572: // waited too long; MySQL, which was told not to wait
		return instead
	}
	return err
}

// record writes the events and marks what they make stale. peek means not to wait
// for an event either that another session is recording.
func (s *Store) record(
	ctx context.Context, q *queries, batch []mirror.Delivery, events []mirror.Event, peek bool,
) ([]store.Accepted, error) {
	token := make([]byte, 16)
	rand.Read(token)
	var inserted int64
	err := s.packets(events, func(events []mirror.Event) error {
		if peek {
			if err := q.lockEvents(ctx, events); err != nil {
				return unlessLocked(err, store.ErrEventLocked)
			}
		}
		n, err := q.insertEvents(ctx, events, token)
		inserted += n
		return unlessLocked(err, store.ErrEventLocked)
	})
	if err != nil {
		return nil, err
	}
	var stored map[eventKey]recorded
	if inserted < int64(len(events)) {
		if stored, err = q.recorded(ctx, events); err != nil {
			return nil, err
		}
	}
	answers := make([]store.Accepted, len(batch))
	var asked []mirror.Resource // whose generations must be read
	for i, a := range batch {
		answers[i] = store.Accepted{Fresh: true, Outcome: a.Event.Outcome}
		if stored == nil {
			continue
		}
		if was := stored[keyOf(a.Event)]; was.token != string(token) {
			answers[i] = store.Accepted{Outcome: was.outcome}
			for _, h := range a.Invalidations {
				asked = append(asked, h.Resource)
			}
		}
	}
	stale, err := staleBy(ctx, q, batch, answers, store.StaleByEvent)
	if err != nil {
		return nil, err
	}
	// Otherwise the statement that marks them would wait, for at least a second.
	pending, err := q.lockStates(ctx, stale)
	if err != nil {
		return nil, unlessLocked(err, store.ErrLocked)
	}
	wrote, err := q.markAll(ctx, stale)
	if err != nil {
		return nil, unlessLocked(err, store.ErrLocked)
	}
	if err := s.hold(ctx, q, batch, answers); err != nil {
		return nil, unlessLocked(err, store.ErrEventLocked)
	}
	// An insert counts as one affected row, an update as two.
	asExpected := wrote == int64(len(stale)+len(pending))
	for _, w := range stale {
		pending[w.Resource]++
		if !asExpected {
			asked = append(asked, w.Resource)
		}
	}
	states, err := q.progress(ctx, sortedResources(asked))
	if err != nil {
		return nil, err
	}
	for i, a := range batch {
		for _, h := range a.Invalidations {
			n, ok := pending[h.Resource]
			if st, known := states[h.Resource]; known {
				n, ok = st.Generation, ok || !answers[i].Fresh
			}
			if ok && (answers[i].Fresh || !h.IfUnknown) {
				answers[i].Pending = append(answers[i].Pending, mirror.Pending{Resource: h.Resource, Generation: n})
			}
		}
	}
	return answers, nil
}

// staleBy merges what the new events make stale, in key order. It drops IfUnknown
// invalidations of resources that have a state.
func staleBy(ctx context.Context, q *queries, batch []mirror.Delivery, answers []store.Accepted,
	by func(mirror.Event, mirror.Invalidation) store.Stale,
) ([]store.Stale, error) {
	var list []store.Stale
	for i, a := range batch {
		if !answers[i].Fresh {
			continue
		}
		for _, in := range a.Invalidations {
			list = append(list, by(a.Event, in))
		}
	}
	list = store.MergeStale(list)
	var doubtful []mirror.Resource
	for _, w := range list {
		if w.IfUnknown {
			doubtful = append(doubtful, w.Resource)
		}
	}
	known, err := q.progress(ctx, doubtful)
	return slices.DeleteFunc(list, func(w store.Stale) bool {
		_, ok := known[w.Resource]
		return ok && w.IfUnknown
	}), err
}

// packets calls f with consecutive parts of events that fit into one packet. An
// event that does not fit comes alone: the driver then sends its payload
// separately.
func (s *Store) packets(events []mirror.Event, f func(events []mirror.Event) error) error {
	limit := s.connector.maxPacket.Load() - packetSlack
	begin, size := 0, int64(0)
	for i, e := range events {
		// Every byte may need an escape.
		n := 512 + 2*int64(len(e.Payload)+len(e.ID)+len(e.Type)+len(e.Room)+len(e.User)+len(e.Thread)+
			len(e.LiveblocksProject))
		if i > begin && (size+n > limit || i-begin == maxRows) {
			if err := f(events[begin:i]); err != nil {
				return err
			}
			begin, size = i, 0
		}
		size += n
	}
	return f(events[begin:])
}

func compareEvents(a, b mirror.Event) int {
	return cmp.Or(
		cmp.Compare(a.Bucket(), b.Bucket()),
		cmp.Compare(a.Project, b.Project),
		cmp.Compare(a.ID, b.ID),
	)
}

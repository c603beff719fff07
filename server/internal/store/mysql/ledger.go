package mysql

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"slices"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

type eventKey struct {
	project mirror.ProjectID
	id      string
}

func keyOf(e mirror.Event) eventKey { return eventKey{e.Project, e.ID} }

// Accept uses one transaction of three statements if everything is new: events,
// states, commit. Otherwise it also reads what is stored, because MySQL does not
// report which rows of an insert were new.
func (s *Store) Accept(ctx context.Context, batch []mirror.Delivery) ([]store.Accepted, error) {
	if len(batch) == 0 {
		return nil, nil
	}
	// Key order is lock order.
	events := make([]mirror.Event, len(batch))
	for i, a := range batch {
		events[i] = a.Event
	}
	slices.SortFunc(events, compareEvents)

	var answers []store.Accepted
	err := s.tx(ctx, fmt.Sprintf("accept %d events", len(batch)), func(q *queries) (err error) {
		answers, err = s.accept(ctx, q, batch, events)
		return err
	})
	if err != nil {
		return nil, err
	}
	return answers, nil
}

func (s *Store) accept(ctx context.Context, q *queries, batch []mirror.Delivery,
	events []mirror.Event,
) ([]store.Accepted, error) {
	token := make([]byte, 16)
	rand.Read(token)
	var inserted int64
	err := s.packets(events, func(events []mirror.Event) error {
		n, err := q.insertEvents(ctx, events, token)
		inserted += n
		return err
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
	stale, err := staleBy(ctx, q, batch, answers)
	if err != nil {
		return nil, err
	}
	allNew, err := q.markAll(ctx, stale)
	if err != nil {
		return nil, err
	}
	if err := s.hold(ctx, q, batch, answers); err != nil {
		return nil, err
	}
	pending := make(map[mirror.Resource]int64, len(stale))
	for _, w := range stale {
		pending[w.Resource] = 1
		if !allNew {
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
func staleBy(ctx context.Context, q *queries, batch []mirror.Delivery, answers []store.Accepted) ([]store.Stale,
	error,
) {
	var list []store.Stale
	for i, a := range batch {
		if !answers[i].Fresh {
			continue
		}
		for _, in := range a.Invalidations {
			list = append(list, store.StaleByEvent(a.Event, in))
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
		n := 512 + 2*int64(len(e.Payload)+len(e.ID)+len(e.Type)+len(e.Room)+len(e.User)+len(e.LiveblocksProject))
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
		cmp.Compare(mirror.Bucket(a.Project, a.ID), mirror.Bucket(b.Project, b.ID)),
		cmp.Compare(a.Project, b.Project),
		cmp.Compare(a.ID, b.ID),
	)
}

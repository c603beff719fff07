package store

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

const (
	// cheapCount is how long a count may take to be made at every call.
	cheapCount = 50 * time.Millisecond
	// countShare is the part of the time that longer counts may take: one in so many.
	countShare = 20
	// countAge bounds how old a count gets on a server that is slow for a moment.
	countAge = 10 * time.Second
)

// CountSeldom returns a store whose [TaskQuery.Counts] uses little of the database's
// time, however often it is called: a count that took long is returned again until 19
// times as much time has passed, but for ten seconds at most, and until a sweep
// begins or ends: together with the end of a sweep an older count would say that all it
// requested is done. Concurrent callers share a count.
func CountSeldom(s Store, now func() time.Time) Store {
	return &seldom{Store: s, now: now, last: make(map[mirror.ProjectID]*lastCount)}
}

type seldom struct {
	Store

	now func() time.Time

	mu   sync.Mutex
	last map[mirror.ProjectID]*lastCount
}

// lastCount is the last count of a project. turn holds a value while somebody counts, so
// that a project whose count takes long delays only those who ask for it.
type lastCount struct {
	turn chan struct{}
	count
}

func (s *seldom) of(project mirror.ProjectID) *lastCount {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.last[project]
	if last == nil {
		last = &lastCount{turn: make(chan struct{}, 1)}
		s.last[project] = last
	}
	return last
}

// count is a count, the latest sweep when it was made, and until when it is returned
// again.
type count struct {
	Counts

	sweep string
	done  bool
	until time.Time
}

// Counts counts, or returns the last counts.
func (s *seldom) Counts(ctx context.Context, project mirror.ProjectID) (Counts, error) {
	last := s.of(project)
	select {
	case last.turn <- struct{}{}:
		defer func() { <-last.turn }()
	case <-ctx.Done():
		return Counts{}, fmt.Errorf("count tasks: %w", ctx.Err())
	}
	sweep, err := s.Sweep(ctx, project)
	if err != nil {
		return Counts{}, err
	}
	began := s.now()
	if last.sweep == sweep.ID && last.done == sweep.Done && began.Before(last.until) {
		return last.Counts, nil
	}
	counts, err := s.Store.Counts(ctx, project)
	if err != nil {
		return Counts{}, err
	}
	end := s.now()
	if took := end.Sub(began); took >= cheapCount {
		last.count = count{counts, sweep.ID, sweep.Done, end.Add(min((countShare-1)*took, countAge))}
	}
	return counts, nil
}

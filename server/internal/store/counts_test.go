package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// slowCounts is a store whose counts take time.
type slowCounts struct {
	store.Store

	now   time.Time
	took  time.Duration
	n     int64
	sweep mirror.Sweep
}

func (s *slowCounts) Sweep(context.Context, mirror.ProjectID) (mirror.Sweep, error) {
	return s.sweep, nil
}

func (s *slowCounts) Counts(context.Context, mirror.ProjectID) (store.Counts, error) {
	s.n++
	s.now = s.now.Add(s.took)
	return store.Counts{Pending: s.n}, nil
}

// Whoever asks each second, a count that takes 0.1 s is made every other time, a long
// one is ten seconds old at most, and short ones are always new.
func TestCountSeldom(t *testing.T) {
	t.Parallel()
	for took, want := range map[time.Duration]int64{
		0: 600, 49 * time.Millisecond: 600, 100 * time.Millisecond: 300, 5 * time.Second: 60,
	} {
		s := &slowCounts{now: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), took: took}
		seldom := store.CountSeldom(s, func() time.Time { return s.now })
		for range 600 {
			if got, err := seldom.Counts(t.Context(), "default"); err != nil || got.Pending != s.n {
				t.Fatalf("Counts = %+v, %v; want the last count, %d", got, err, s.n)
			}
			s.now = s.now.Add(time.Second)
		}
		if s.n != want {
			t.Errorf("counts that take %v are made %d times in 10 minutes; want %d", took, s.n, want)
		}
		before := s.n
		if _, err := seldom.Counts(t.Context(), "other"); err != nil || s.n != before+1 {
			t.Errorf("Counts of another project = %v, counted %d times; want once", err, s.n-before)
		}
	}
}

// A count from before the end of a sweep is not repeated after it: what the sweep
// requested is missing in it, so all would seem done.
func TestCountAfterSweep(t *testing.T) {
	t.Parallel()
	s := &slowCounts{now: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), took: 5 * time.Second}
	seldom := store.CountSeldom(s, func() time.Time { return s.now })
	want := int64(0)
	for _, sweep := range []mirror.Sweep{{}, {ID: "1"}, {ID: "1", Done: true}, {ID: "2"}, {ID: "3", Done: true}} {
		s.sweep = sweep
		want++
		for range 2 {
			if got, err := seldom.Counts(t.Context(), "default"); err != nil || got.Pending != want {
				t.Errorf("Counts = %+v, %v after sweep %+v; want the count made after it, %d", got, err, sweep, want)
			}
		}
	}
}

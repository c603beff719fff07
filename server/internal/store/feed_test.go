package store_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

func TestRanges(t *testing.T) {
	t.Parallel()
	at := func(numbers map[int]int64) (p mirror.Position) {
		for bucket, n := range numbers {
			p[bucket] = n
		}
		return p
	}
	for what, c := range map[string]struct {
		from, to mirror.Position
		limit    int
		want     []store.ChangeRange
	}{
		"nothing": {limit: 10},
		"all of it": {
			at(map[int]int64{3: 1}), at(map[int]int64{3: 4, 255: 2}), 10,
			[]store.ChangeRange{{3, 1, 4}, {255, 0, 2}},
		},
		"a share of each": {
			at(nil), at(map[int]int64{0: 100, 1: 2, 2: 100}), 10,
			[]store.ChangeRange{{0, 0, 3}, {1, 0, 2}, {2, 0, 5}},
		},
		"fewer than buckets: those that are furthest behind": {
			at(nil), at(map[int]int64{0: 3, 1: 2, 2: 100}), 2,
			[]store.ChangeRange{{0, 0, 1}, {2, 0, 1}},
		},
		"one that is ahead": {at(map[int]int64{7: 5}), at(map[int]int64{7: 4, 8: 1}), 10, []store.ChangeRange{{8, 0, 1}}},
	} {
		if d := cmp.Diff(c.want, store.Ranges(c.from, c.to, c.limit)); d != "" {
			t.Errorf("Ranges of %s (-want +got):\n%s", what, d)
		}
	}
}

// What is read range by range is everything, and no more at a time than asked for.
func TestRangesLeadToTheEnd(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var from, to mirror.Position
		for range rng.IntN(40) {
			bucket := rng.IntN(len(from))
			from[bucket] = rng.Int64N(50)
			to[bucket] = from[bucket] + rng.Int64N(50)
		}
		limit := 1 + rng.IntN(60)
		at := from
		for ranges := store.Ranges(at, to, limit); len(ranges) > 0; ranges = store.Ranges(at, to, limit) {
			read := entriesOf(ranges)
			if len(read) == 0 || len(read) > limit {
				t.Fatalf("ranges %v are %d entries; want some, at most %d", ranges, len(read), limit)
			}
			if passed, err := store.Advance(&at, ranges, read); err != nil || len(passed) != len(read) {
				t.Fatalf("Advance = %v, %v; want all of %v", passed, err, read)
			}
		}
		if at != to {
			t.Fatalf("from %v, read up to %v; want %v", from, at, to)
		}
	}
}

// A reader that asks for the heads before each page gets to every bucket, although all of
// them grow as fast as it reads.
func TestNoBucketStarves(t *testing.T) {
	t.Parallel()
	var at, heads mirror.Position
	for range 10 * len(heads) {
		for bucket := range heads {
			heads[bucket]++
		}
		ranges := store.Ranges(at, heads, 100)
		if _, err := store.Advance(&at, ranges, entriesOf(ranges)); err != nil {
			t.Fatal(err)
		}
	}
	for bucket, n := range at {
		if n == 0 {
			t.Fatalf("nothing was read of bucket %d", bucket)
		}
	}
}

func entriesOf(ranges []store.ChangeRange) (entries []mirror.Change) {
	for _, r := range ranges {
		for n := r.After + 1; n <= r.To; n++ {
			entries = append(entries, mirror.Change{Bucket: r.Bucket, Number: n})
		}
	}
	return entries
}

// Whatever entry is missing, no position is after it.
func TestAdvanceSeesEveryGap(t *testing.T) {
	t.Parallel()
	ranges := []store.ChangeRange{{1, 4, 7}, {2, 0, 1}, {200, 9, 12}}
	all := entriesOf(ranges)
	for mask := range 1 << len(all) {
		var read []mirror.Change
		var want mirror.Position
		trimmed := false
		for i, c := range all {
			if mask&(1<<i) != 0 {
				read = append(read, c)
			}
		}
		for _, r := range ranges {
			n := r.After
			for slices.ContainsFunc(read, func(c mirror.Change) bool { return c.Bucket == r.Bucket && c.Number == n+1 }) {
				n++
			}
			trimmed, want[r.Bucket] = trimmed || n == r.After, n
		}
		at := mirror.Position{}
		passed, err := store.Advance(&at, ranges, read)
		for _, c := range passed {
			if c.Number > at[c.Bucket] {
				t.Fatalf("Advance with %v passed %v, after %v", read, c, at)
			}
		}
		if trimmed != errors.Is(err, store.ErrTrimmed) || err == nil && at != want {
			t.Fatalf("Advance with %v = %v, %v; want %v, trimmed = %t", read, at, err, want, trimmed)
		}
	}
}

package store

import (
	"cmp"
	"errors"
	"slices"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// ErrTrimmed means that entries of the feed that were asked for have been trimmed.
var ErrTrimmed = errors.New("store: changes were trimmed")

// Ranges returns what is to be read to get from one position to a later one: at most limit
// entries, of each bucket that has some, or of those that are furthest behind: the others
// come first the next time, also if the later position moves on. A bucket that is ahead of
// the later position has none; see [Ahead].
func Ranges(from, to mirror.Position, limit int) []ChangeRange {
	var ranges []ChangeRange
	for bucket := range from {
		if from[bucket] < to[bucket] {
			ranges = append(ranges, ChangeRange{Bucket: int16(bucket), After: from[bucket], To: to[bucket]})
		}
	}
	if len(ranges) > limit {
		slices.SortFunc(ranges, func(a, b ChangeRange) int { return cmp.Compare(b.To-b.After, a.To-a.After) })
		ranges = ranges[:limit]
		slices.SortFunc(ranges, func(a, b ChangeRange) int { return cmp.Compare(a.Bucket, b.Bucket) })
	}
	for i := range ranges {
		r := &ranges[i]
		share := max(1, limit/(len(ranges)-i)) // of what is left
		r.To = min(r.To, r.After+int64(share))
		limit -= int(r.To - r.After)
	}
	return ranges
}

// Ahead reports whether a position is beyond the heads of the database in any bucket: then
// the database has gone back, as after a restore or the failover to a replica that lacked
// the last commits, and numbers are given a second time.
func Ahead(position, heads *mirror.Position) bool {
	for bucket := range position {
		if position[bucket] > heads[bucket] {
			return true
		}
	}
	return false
}

// Advance moves a position over ranges that were read, up to the end or, of a range with a
// gap inside, to what a later read goes on from, and returns the entries up to there. It
// returns ErrTrimmed if the first entry of a range is missing. Heads has told of the ends, so
// only a trim takes that away, or a server that lags behind the one that was asked for the
// heads; a check before the read could miss it.
func Advance(position *mirror.Position, ranges []ChangeRange, read []mirror.Change) (passed []mirror.Change,
	err error,
) {
	passed = make([]mirror.Change, 0, len(read))
	for _, r := range ranges {
		n := r.After
		for len(read) > 0 && read[0].Bucket == r.Bucket {
			if read[0].Number == n+1 {
				n++
				passed = append(passed, read[0])
			}
			read = read[1:]
		}
		if n == r.After {
			return nil, ErrTrimmed
		}
		position[r.Bucket] = n
	}
	return passed, nil
}

package store

import (
	"errors"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// ErrTrimmed means that entries of the feed that were asked for have been trimmed.
var ErrTrimmed = errors.New("store: changes were trimmed")

// Ranges returns what is to be read to get from one position to a later one: at most limit
// entries, of each bucket that has some. A bucket that is ahead of the later position has
// none.
func Ranges(from, to mirror.Position, limit int) []ChangeRange {
	var ranges []ChangeRange
	for bucket := range from {
		if from[bucket] < to[bucket] {
			ranges = append(ranges, ChangeRange{Bucket: int16(bucket), After: from[bucket], To: to[bucket]})
		}
	}
	if len(ranges) > limit {
		ranges = ranges[:limit]
	}
	for i := range ranges {
		r := &ranges[i]
		share := max(1, limit/(len(ranges)-i)) // of what is left
		r.To = min(r.To, r.After+int64(share))
		limit -= int(r.To - r.After)
	}
	return ranges
}

// Advance moves a position over ranges that were read, up to the end or, of a range with a
// gap inside, to what a later read goes on from. It returns ErrTrimmed if the first entry of
// a range is missing. Heads has told of the ends, so only a trim takes that away; a check
// before the read could miss it.
func Advance(position *mirror.Position, ranges []ChangeRange, read []mirror.Change) error {
	for _, r := range ranges {
		n := r.After
		for len(read) > 0 && read[0].Bucket == r.Bucket {
			if read[0].Number == n+1 {
				n++
			}
			read = read[1:]
		}
		if n == r.After {
			return ErrTrimmed
		}
		position[r.Bucket] = n
	}
	return nil
}

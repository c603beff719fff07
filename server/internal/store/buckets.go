package store

import (
	"cmp"
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// ByBucket divides what is sorted by bucket into a part for each bucket.
func ByBucket[E any](sorted []E, bucket func(E) int16) (parts [][]E) {
	for len(sorted) > 0 {
		end := 1
		for end < len(sorted) && bucket(sorted[end]) == bucket(sorted[0]) {
			end++
		}
		parts = append(parts, sorted[:end])
		sorted = sorted[end:]
	}
	return parts
}

// maxPart is the longest time that one bucket of a batch may take. The next batch, which
// has those of other shards, waits for it.
const maxPart = 2 * time.Second

// partTime returns how long the next part of a batch may take, so that the parts of a
// shard that hangs leave time for those of the others.
func partTime(left time.Duration, parts, lanes int) time.Duration {
	return min(left*time.Duration(lanes)/time.Duration(parts), maxPart)
}

// AcceptByBucket records a batch on a sharded server, where no transaction may span
// shards. accept records deliveries of one bucket in one transaction; at most lanes of
// them run at once, and each has a part of the time until ctx ends. A transaction that
// fails leaves the others alone: its deliveries are reported with [Accepted.Err], and
// those of one that is refused are tried one by one. If all fail, AcceptByBucket also
// returns the error of one.
func AcceptByBucket(
	ctx context.Context, batch []mirror.Delivery, lanes int,
	accept func(ctx context.Context, part []mirror.Delivery) ([]Accepted, error),
) ([]Accepted, error) {
	bucket := func(place int) int16 { return batch[place].Event.Bucket() }
	places := make([]int, len(batch))
	for i := range places {
		places[i] = i
	}
	slices.SortStableFunc(places, func(a, b int) int { return cmp.Compare(bucket(a), bucket(b)) })
	answers := make([]Accepted, len(batch))
	var record func(ctx context.Context, places []int)
	record = func(ctx context.Context, places []int) {
		part := make([]mirror.Delivery, len(places))
		for i, place := range places {
			part[i] = batch[place]
		}
		got, err := guarded(part, func(part []mirror.Delivery) ([]Accepted, error) { return accept(ctx, part) })
		switch {
		case err == nil:
			for i, place := range places {
				answers[place] = got[i]
			}
			return
		case ctx.Err() != nil:
			err = fault.Wrap(err, fault.Unavailable, fault.ReasonStoreUnavailable, "the database did not answer in time")
		case len(places) > 1 && fault.Of(err).Kind == fault.Internal:
			for i := range places {
				record(ctx, places[i:i+1])
			}
			return
		}
		for _, place := range places {
			answers[place] = Accepted{Err: err}
		}
	}
	lanes = max(lanes, 1)
	free := make(chan struct{}, lanes)
	var running sync.WaitGroup
	parts := ByBucket(places, bucket)
	for i, places := range parts {
		free <- struct{}{}
		ctx, cancel := ctx, context.CancelFunc(func() {})
		if end, ok := ctx.Deadline(); ok { // else the caller waits for as long as it takes
			ctx, cancel = context.WithTimeout(ctx, partTime(time.Until(end), len(parts)-i, lanes))
		}
		running.Go(func() {
			defer cancel()
			record(ctx, places)
			<-free
		})
	}
	running.Wait()
	for i := range answers {
		if answers[i].Err == nil {
			return answers, nil
		}
	}
	if len(answers) == 0 {
		return nil, nil
	}
	return answers, answers[0].Err
}

// guarded converts a panic to an error: no other function recovers in this goroutine.
func guarded(part []mirror.Delivery, accept func([]mirror.Delivery) ([]Accepted, error)) (got []Accepted, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("accept panicked: %v\n%s", v, debug.Stack())
		}
	}()
	return accept(part)
}

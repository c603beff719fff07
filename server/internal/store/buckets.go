package store

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// AcceptByBucket records a batch on a sharded server, where no transaction may span
// shards. accept records deliveries of one bucket in one transaction; at most lanes of
// them run at once. A transaction that fails leaves the others alone: its deliveries are
// reported with [Accepted.Err], and those of one that is refused are tried one by one. If
// all fail, AcceptByBucket returns the error of one.
func AcceptByBucket(
	ctx context.Context, batch []mirror.Delivery, lanes int,
	accept func(part []mirror.Delivery) ([]Accepted, error),
) ([]Accepted, error) {
	parts := make(map[int16][]int)
	for i := range batch {
		bucket := batch[i].Event.Bucket()
		parts[bucket] = append(parts[bucket], i)
	}
	answers := make([]Accepted, len(batch))
	var record func(places []int)
	record = func(places []int) {
		part := make([]mirror.Delivery, len(places))
		for i, place := range places {
			part[i] = batch[place]
		}
		got, err := guarded(part, accept)
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
				record(places[i : i+1])
			}
			return
		}
		for _, place := range places {
			answers[place] = Accepted{Err: err}
		}
	}
	free := make(chan struct{}, max(lanes, 1))
	var running sync.WaitGroup
	for _, places := range parts {
		free <- struct{}{}
		running.Go(func() {
			record(places)
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
	return nil, answers[0].Err
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

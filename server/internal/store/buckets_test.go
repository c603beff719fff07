package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// eventsOfRooms are two events of each of n rooms.
func eventsOfRooms(n int) (batch []mirror.Delivery) {
	for i := range 2 * n {
		batch = append(batch, mirror.Delivery{Event: mirror.Event{
			Project: "default", ID: fmt.Sprint("msg_", i), Room: mirror.RoomID(fmt.Sprint("room ", i%n)),
			Outcome: mirror.Outcome(fmt.Sprint("outcome ", i)),
		}})
	}
	return batch
}

func accepted(part []mirror.Delivery) (answers []store.Accepted) {
	for _, d := range part {
		answers = append(answers, store.Accepted{Fresh: true, Outcome: d.Event.Outcome})
	}
	return answers
}

// No part has two buckets, no more parts run at once than there are lanes, and the
// answers are in the order of the batch.
func TestAcceptByBucket(t *testing.T) {
	t.Parallel()
	const lanes = 3
	batch := eventsOfRooms(40)
	var running, parts atomic.Int32
	full := make(chan struct{})
	var once sync.Once
	accept := func(_ context.Context, part []mirror.Delivery) ([]store.Accepted, error) {
		defer running.Add(-1)
		if n := running.Add(1); n == lanes {
			once.Do(func() { close(full) })
		} else if n > lanes {
			t.Errorf("%d parts run at once; want at most %d", n, lanes)
		}
		parts.Add(1)
		for _, d := range part {
			if d.Event.Bucket() != part[0].Event.Bucket() {
				t.Errorf("a part has events of the buckets %d and %d", d.Event.Bucket(), part[0].Event.Bucket())
			}
		}
		<-full // as soon as as many run as may
		return accepted(part), nil
	}
	answers, err := store.AcceptByBucket(t.Context(), batch, lanes, accept)
	if err != nil || len(answers) != len(batch) {
		t.Fatalf("AcceptByBucket = %d answers, %v; want %d", len(answers), err, len(batch))
	}
	for i := range answers {
		if answers[i].Err != nil || !answers[i].Fresh || answers[i].Outcome != batch[i].Event.Outcome {
			t.Errorf("answer %d = %+v; want that to %+v", i, answers[i], batch[i].Event)
		}
	}
	if n := parts.Load(); n < 20 || n > 40 {
		t.Errorf("there were %d parts; want one for each bucket", n)
	}
	answers, err = store.AcceptByBucket(t.Context(), nil, lanes, nil)
	if err != nil || len(answers) != 0 {
		t.Errorf("AcceptByBucket of nothing = %+v, %v", answers, err)
	}
}

// What fails, or panics, fails for its own bucket only.
func TestPartsFailApart(t *testing.T) {
	t.Parallel()
	away := fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "a shard is away")
	refused := errors.New("refused")
	batch := eventsOfRooms(8)
	rooms := map[mirror.RoomID]error{"room 1": away, "room 2": refused, "room 3": nil}
	tried := make(map[string]int)
	var mu sync.Mutex
	accept := func(_ context.Context, part []mirror.Delivery) ([]store.Accepted, error) {
		mu.Lock()
		defer mu.Unlock()
		for _, d := range part {
			tried[d.Event.ID]++
		}
		for _, d := range part {
			switch d.Event.ID {
			case "msg_1", "msg_9":
				return nil, away
			case "msg_2":
				return nil, refused
			case "msg_3":
				panic("a defect")
			}
		}
		return accepted(part), nil
	}
	answers, err := store.AcceptByBucket(t.Context(), batch, 2, accept)
	if err != nil {
		t.Fatalf("AcceptByBucket = %v; want the failures in the answers", err)
	}
	for i, d := range batch {
		want := rooms[d.Event.Room]
		if d.Event.ID == "msg_10" { // beside one that is refused
			want = nil
		}
		got := answers[i].Err
		switch {
		case d.Event.ID == "msg_3" && got != nil && !answers[i].Fresh:
		case !errors.Is(got, want), answers[i].Fresh != (got == nil):
			t.Errorf("answer to %s of %s = %+v; want %v", d.Event.ID, d.Event.Room, answers[i], want)
		}
	}
	if tried["msg_1"] != 1 || tried["msg_2"] != 2 || tried["msg_10"] != 2 {
		t.Errorf("tried %v; want what is away once, and what is refused alone too", tried)
	}

	allAway := func(context.Context, []mirror.Delivery) ([]store.Accepted, error) { return nil, away }
	answers, err = store.AcceptByBucket(t.Context(), batch, 2, allAway)
	if !errors.Is(err, away) || len(answers) != len(batch) ||
		slices.ContainsFunc(answers, func(a store.Accepted) bool { return !errors.Is(a.Err, away) }) {
		t.Errorf("AcceptByBucket while all are away = %+v, %v; want an error, also for each", answers, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	answers, err = store.AcceptByBucket(ctx, batch, 1,
		func(ctx context.Context, part []mirror.Delivery) ([]store.Accepted, error) {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			cancel()
			return accepted(part), nil
		})
	if err != nil || !slices.ContainsFunc(answers, func(a store.Accepted) bool {
		return fault.Is(a.Err, fault.ReasonStoreUnavailable)
	}) {
		t.Errorf("AcceptByBucket that takes too long = %+v, %v; want what was not recorded told as unavailable", answers, err)
	}
}

// A shard that hangs takes only its own deliveries with it, however many buckets it has.
func TestShardThatHangs(t *testing.T) {
	t.Parallel()
	for _, lanes := range []int{1, 2, 5} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
			defer cancel()
			batch := eventsOfRooms(200)
			hangs := func(d mirror.Delivery) bool { return d.Event.Bucket()%4 == 0 }
			answers, err := store.AcceptByBucket(ctx, batch, lanes,
				func(ctx context.Context, part []mirror.Delivery) ([]store.Accepted, error) {
					if hangs(part[0]) {
						<-ctx.Done()
						return nil, ctx.Err()
					}
					return accepted(part), clock.Sleep(ctx, 10*time.Millisecond)
				})
			if err != nil {
				t.Fatalf("AcceptByBucket = %v; want the failures in the answers", err)
			}
			for i, d := range batch {
				if hangs(d) != fault.Is(answers[i].Err, fault.ReasonStoreUnavailable) || hangs(d) == answers[i].Fresh {
					t.Errorf("with %d lanes, the answer for bucket %d is %+v", lanes, d.Event.Bucket(), answers[i])
				}
			}
		})
	}
}

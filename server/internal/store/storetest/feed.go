package storetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

var feedCases = []testCase{
	{"changes come in order from a number on", changesFrom},
	{"buckets are counted apart", changesByBucket},
	{"what fails takes no number", changesWithoutGaps},
	{"reader that follows writers misses nothing", changesFollowed},
}

func changesFrom(e *env) {
	ids := inOneBucket(5)
	bucket := roomOf(ids[0]).Bucket()
	e.want("Changes of nothing", e.changes(bucket), []mirror.Change{})
	var want []mirror.Change
	for i, id := range ids {
		e.mirrorRoom(id, e.roomContent(`{}`))
		want = append(want, entry(int64(i+1), roomOf(id), mirror.ChangeUpserted, e.now))
		e.pass(time.Second)
	}
	e.deleteRoom(ids[0])
	want = append(want, entry(6, roomOf(ids[0]), mirror.ChangeDeleted, e.now))
	for after := range int64(8) {
		for _, limit := range []int{1, 2, 100} {
			got, err := e.Changes(e.ctx(), bucket, after, limit)
			e.must("Changes", err)
			from := min(int(after), len(want))
			e.want(fmt.Sprintf("Changes after %d, at most %d", after, limit), got, want[from:min(from+limit, len(want))])
		}
	}
}

func changesByBucket(e *env) {
	for i := range 40 {
		e.mirrorRoom(mirror.RoomID(fmt.Sprintf("room-%d", i)), e.roomContent(`{}`))
	}
	total := 0
	for bucket := range int16(mirror.Buckets) {
		for i, c := range e.changes(bucket) {
			if c.Bucket != bucket || c.Resource.Bucket() != bucket || c.Number != int64(i+1) {
				e.Fatalf("entry %d of bucket %d = %+v; want its number to be %d", i, bucket, c, i+1)
			}
			total++
		}
	}
	if total != 40 {
		e.Fatalf("entries of all buckets = %d; want 40", total)
	}
}

func changesWithoutGaps(e *env) {
	e.mirrorBoth("room")
	for i := range 3 {
		e.raise(storageOf("room"))
		lease := e.claim(storageOf("room"))
		content := e.roomContent(`{}`)
		content.CreateTime = e.now
		e.pass(time.Second)
		e.mirrorRoom("room", content)
		e.wantEpochChanged(lease)
		e.mirrorDocument(storageOf("room"), fmt.Sprintf(`{"a":"\u0000","v":%d}`, i)) // retried without its data
		wantLeaseLost(e, lease)
		e.mirrorDocument(storageOf("room"), fmt.Sprintf(`{"a":"\u0000","v":%d}`, i)) // nothing new
	}
	for i, c := range e.changes(roomOf("room").Bucket()) {
		if c.Number != int64(i+1) {
			e.Fatalf("entry %d has number %d; want no gaps", i, c.Number)
		}
	}
	if n := e.lastChange(roomOf("room").Bucket()); n != 8 {
		e.Fatalf("last change = %d; want 8: two at first and six later", n)
	}
}

// Numbers handed out before the commit become visible in any order, and a reader
// that stores the last one it saw misses those that come late. Here a reader
// follows writers of one bucket from two stores.
func changesFollowed(e *env) {
	const writers, each = 8, 25
	ids := inOneBucket(writers + 1)
	shared, own := ids[writers], ids[:writers]
	bucket := roomOf(shared).Bucket()
	stores := []store.Store{e.Store, e.another()}
	e.mirrorRoom(shared, e.roomContent(`{}`))
	var written atomic.Int64
	written.Add(1)

	reading, stop := context.WithCancel(e.ctx())
	defer stop()
	var seen []mirror.Change
	var readErr error
	read := func(limit int) bool {
		after := int64(0)
		if len(seen) > 0 {
			after = seen[len(seen)-1].Number
		}
		page, err := stores[1].Changes(e.ctx(), bucket, after, limit)
		if err != nil {
			readErr = err
			return false
		}
		seen = append(seen, page...)
		return len(page) > 0
	}
	var reader sync.WaitGroup
	reader.Go(func() {
		for reading.Err() == nil && readErr == nil {
			read(1 + len(seen)%7)
		}
		for readErr == nil && read(100) { // what is left
		}
	})

	parallel(writers, func(w int) {
		s, rng := stores[w%2], rand.New(rand.NewPCG(uint64(w), 1))
		for i := range each {
			// Each has a room of its own and now and then writes into a common one,
			// so that some transactions fail and some have nothing to say.
			r := roomOf(own[w])
			if rng.IntN(4) == 0 {
				r = documentOf(shared, fmt.Sprintf("doc-%d", rng.IntN(3)))
			}
			if _, err := s.Request(e.ctx(), requestsFor(r), e.now); err != nil {
				e.Errorf("Request = %v; want no error", err)
				return
			}
			lease, err := s.Claim(e.ctx(), r, newToken(), e.now, leaseTTL)
			if err != nil {
				continue // somebody else has it
			}
			var applied mirror.Applied
			if r.Kind == mirror.KindRoom {
				applied, err = s.ApplyRoom(e.ctx(), lease, e.roomContent(fmt.Sprintf(`{"v":%d}`, i/2)), e.now, 0)
			} else {
				applied, err = s.ApplyDocument(e.ctx(), lease, e.documentContent(fmt.Sprintf(`{"v":%d}`, rng.IntN(4))), e.now, 0)
			}
			if err != nil {
				e.Errorf("Apply = %v; want no error", err)
				return
			}
			if applied.Changed {
				written.Add(1)
			}
		}
	})
	stop()
	reader.Wait()
	e.must("Changes", readErr)
	for i, c := range seen {
		if c.Number != int64(i+1) {
			e.Fatalf("entry %d that the reader saw has number %d; want %d: each once, in order", i, c.Number, i+1)
		}
	}
	if int64(len(seen)) != written.Load() || written.Load() < writers*each/4 {
		e.Fatalf("the reader saw %d entries; want the %d that were written", len(seen), written.Load())
	}
	e.want("Changes read at the end", e.changes(bucket), seen)
}

package engine_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
)

// piecewise times the transactions of a list.
type piecewise struct {
	store.Store
	longest time.Duration
}

func (s *piecewise) AddItems(ctx context.Context, lease mirror.Lease, items []store.Item, fetchTime,
	now time.Time,
) ([]mirror.Change, error) {
	begin := time.Now()
	defer func() { s.longest = max(s.longest, time.Since(begin)) }()
	return s.Store.AddItems(ctx, lease, items, fetchTime, now)
}

// listedThread is a thread with ten comments.
func listedThread(id string) mirror.Thread {
	t := mirror.Thread{ID: id, Source: fmt.Appendf(nil, `{"id":%q}`, id), CreateTime: testTime}
	t.SHA256 = sha256.Sum256(t.Source)
	for i := range 10 {
		t.Comments = append(t.Comments, mirror.Comment{
			ID: fmt.Sprintf("cm_%d", i), UserID: "alice", Source: make([]byte, 400), CreateTime: testTime,
			Body: []byte(`{"content":[]}`), Reactions: []mirror.Reaction{{Emoji: "+1", UserID: "bob"}},
			Mentions: []mirror.Mention{{Kind: "user", ID: "bob"}},
		})
	}
	return t
}

// BenchmarkAcceptBesideList tells how long events wait while the list of a room with
// 2,000 threads is applied: those of other rooms in units of an undisturbed run, those
// of its own threads, and how long the longest of its transactions takes.
func BenchmarkAcceptBesideList(b *testing.B) {
	const threads = 2000
	for _, e := range dbtest.Engines() {
		b.Run(e.Name, func(b *testing.B) {
			s := open(b, engine.Config{URL: e.Database(b)})
			parse := func(source []byte) (store.Item, error) { return store.ThreadItem(listedThread(string(source))), nil }
			clock := func() time.Time { return testTime }
			events := 0
			// accept sends events of resources, one after the other, and returns how long 99 of 100
			// took at most, and the longest.
			accept := func(ctx context.Context, id string, next func(i int) mirror.Resource) (p99, longest time.Duration) {
				var took []time.Duration
				for i := 0; ctx.Err() == nil; i++ {
					d := deliveryOf(fmt.Sprintf("%s-%d", id, i), next(i))
					begin := time.Now()
					if _, err := s.Accept(context.WithoutCancel(ctx), []mirror.Delivery{d}); err != nil {
						b.Errorf("Accept = %v", err)
					}
					took = append(took, time.Since(begin))
				}
				slices.Sort(took)
				return took[len(took)*99/100], took[len(took)-1]
			}
			other := func(i int) mirror.Resource {
				room := mirror.RoomID(fmt.Sprint("other-", i%50))
				return mirror.Resource{Project: "default", Room: room, Kind: mirror.KindStorage}
			}
			var alone, beside, own, longest time.Duration
			for range b.N {
				events++
				room := mirror.RoomID(fmt.Sprint("room-", events))
				lease := leaseOfList(b, s, room)
				list := mirror.List{FetchTime: testTime}
				for i := range threads {
					t := listedThread(fmt.Sprintf("th_%04d", i))
					list.Items = append(list.Items, mirror.Listed{ID: t.ID, SHA256: t.SHA256, Source: []byte(t.ID)})
				}
				ctx, stop := context.WithTimeout(b.Context(), time.Second)
				p99, _ := accept(ctx, "alone-"+string(room), other)
				stop()
				alone += p99
				ctx, stop = context.WithCancel(b.Context())
				var wg sync.WaitGroup
				wg.Go(func() {
					p99, _ := accept(ctx, "beside-"+string(room), other)
					beside += p99
				})
				wg.Go(func() {
					_, most := accept(ctx, "own-"+string(room), func(i int) mirror.Resource {
						r := lease.Resource
						r.ID = fmt.Sprintf("th_%04d", i*7%threads)
						return r
					})
					own = max(own, most)
				})
				pieces := &piecewise{Store: s}
				_, err := store.ApplyList(b.Context(), pieces, lease, list, parse, clock, 0)
				stop()
				wg.Wait()
				if err != nil {
					b.Fatalf("ApplyList = %v", err)
				}
				longest = max(longest, pieces.longest)
			}
			b.ReportMetric(float64(beside)/float64(alone), "p99/undisturbed")
			b.ReportMetric(float64(own.Milliseconds()), "own-max-ms")
			b.ReportMetric(float64(longest.Milliseconds()), "longest-tx-ms")
		})
	}
}

// leaseOfList mirrors a room and claims the list of its threads.
func leaseOfList(b *testing.B, s store.Store, room mirror.RoomID) mirror.Lease {
	b.Helper()
	r := mirror.Resource{Project: "default", Room: room, Kind: mirror.KindRoom}
	if _, err := s.Request(b.Context(), requestsFor(r), testTime); err != nil {
		b.Fatalf("Request = %v", err)
	}
	lease, err := s.Claim(b.Context(), r, [16]byte{1}, testTime, time.Hour)
	if err != nil {
		b.Fatalf("Claim = %v", err)
	}
	content := mirror.RoomContent{FetchTime: testTime, Source: []byte(`{}`), CreateTime: testTime}
	if _, err := s.ApplyRoom(b.Context(), lease, content, testTime, 0); err != nil {
		b.Fatalf("ApplyRoom = %v", err)
	}
	r.Kind = mirror.KindThread
	if lease, err = s.Claim(b.Context(), r, [16]byte{2}, testTime, time.Hour); err != nil {
		b.Fatalf("Claim = %v", err)
	}
	return lease
}

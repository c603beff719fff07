package blackbox_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"

	feed "github.com/liveblocks-mirror/liveblocks-mirror/client/follow"
	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

var snapshotRooms = flag.Int("snapshot-rooms", 150, "rooms of TestSnapshotUnderWrites")

// copyKey names what a follower holds, and copyOf says which version that is.
type (
	copyKey struct {
		room, id string
		kind     mirrorv1.ResourceKind
	}
	copyOf struct{ revision, epoch int64 }
)

// holding is a follower that holds what is mirrored, as docs/CHANGES.md says.
type holding struct {
	mu             sync.Mutex
	held           map[copyKey]copyOf
	byRoom         map[string]map[copyKey]bool
	marked         map[copyKey]bool
	begun, ended   int
	items, changes int
}

func (h *holding) take(response *mirrorv1.WatchChangesResponse) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if response.GetSnapshotBegin() != nil {
		h.begun++
		h.marked = make(map[copyKey]bool)
		for key := range h.held {
			h.marked[key] = true
		}
	}
	for _, c := range response.GetSnapshotItems().GetItems() {
		h.items++
		h.apply(c)
	}
	for _, c := range response.GetChanges().GetChanges() {
		h.changes++
		h.apply(c)
	}
	if response.GetSnapshotEnd() != nil {
		h.ended++
		for key := range h.marked {
			h.drop(key)
		}
		h.marked = nil
	}
}

func (h *holding) drop(key copyKey) {
	delete(h.held, key)
	delete(h.byRoom[key.room], key)
}

func (h *holding) apply(c *mirrorv1.Change) {
	key := copyKey{c.GetRoomId(), c.GetResourceId(), c.GetKind()}
	marked := h.marked[key]
	delete(h.marked, key)
	for other := range h.byRoom[key.room] { // what an earlier room held is gone
		if h.held[other].epoch < c.GetRoomEpoch() {
			h.drop(other)
		}
	}
	if old := h.held[key]; c.GetRevision() < old.revision && !marked {
		return
	}
	if c.GetChangeKind() == mirrorv1.ChangeKind_CHANGE_KIND_DELETED {
		h.drop(key)
		return
	}
	if h.byRoom[key.room] == nil {
		h.byRoom[key.room] = make(map[copyKey]bool)
	}
	h.byRoom[key.room][key], h.held[key] = true, copyOf{c.GetRevision(), c.GetRoomEpoch()}
}

// revisions are those of the rooms, documents and threads that are held.
func (h *holding) revisions() map[copyKey]int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make(map[copyKey]int64, len(h.held))
	for key, c := range h.held {
		switch key.kind {
		case mirrorv1.ResourceKind_RESOURCE_KIND_ACTIVE_USERS, mirrorv1.ResourceKind_RESOURCE_KIND_USER_SESSIONS:
		default:
			out[key] = c.revision
		}
	}
	return out
}

// mirroredNow is the same of the mirror, by its lists.
func mirroredNow(t *testing.T, s *harness.Service) map[copyKey]int64 {
	t.Helper()
	m, out := s.Mirror(t), make(map[copyKey]int64)
	for token, more := "", true; more; more = token != "" {
		page, err := m.ListRooms(t.Context(), &mirrorv1.ListRoomsRequest{PageSize: 500, PageToken: token})
		must(t, err)
		for _, r := range page.GetRooms() {
			out[copyKey{r.GetRoomId(), "", mirrorv1.ResourceKind_RESOURCE_KIND_ROOM}] = r.GetFreshness().GetRevision()
		}
		token = page.GetNextPageToken()
	}
	for token, more := "", true; more; more = token != "" {
		page, err := m.ListDocuments(t.Context(), &mirrorv1.ListDocumentsRequest{PageSize: 500, PageToken: token})
		must(t, err)
		for _, d := range page.GetDocuments() {
			kind := mirrorv1.ResourceKind_RESOURCE_KIND_STORAGE
			if d.GetKind() == mirrorv1.DocumentKind_DOCUMENT_KIND_YDOC {
				kind = mirrorv1.ResourceKind_RESOURCE_KIND_YDOC
			}
			out[copyKey{d.GetRoomId(), d.GetGuid(), kind}] = d.GetFreshness().GetRevision()
		}
		token = page.GetNextPageToken()
	}
	for token, more := "", true; more; more = token != "" {
		page, err := m.ListThreads(t.Context(), &mirrorv1.ListThreadsRequest{PageSize: 500, PageToken: token})
		must(t, err)
		for _, th := range page.GetThreads() {
			key := copyKey{th.GetRoomId(), th.GetThreadId(), mirrorv1.ResourceKind_RESOURCE_KIND_THREAD}
			out[key] = th.GetFreshness().GetRevision()
		}
		token = page.GetNextPageToken()
	}
	return out
}

// However often a snapshot is interrupted, and whatever is written meanwhile, the follower
// holds in the end what is mirrored. With -snapshot-rooms=10000 it shows the memory that a
// large one takes.
func TestSnapshotUnderWrites(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		upstream := harness.NewFake(t)
		rooms := numbered("room-", *snapshotRooms)
		populate(t, upstream, rooms...)
		for i := 0; i < len(rooms); i += 5 {
			if _, err := upstream.CreateThread(rooms[i], fake.ThreadOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		s := harness.Start(t, harness.Options{DatabaseURL: e.Database(t), UpstreamURL: upstream.URL, Env: map[string]string{
			"MIRROR_SWEEP_INTERVAL": "1h", "MIRROR_FULL_SWEEP_INTERVAL": "24h", "MIRROR_SETTLE": "0s",
			"MIRROR_LIVEBLOCKS_CALLS_PER_SECOND": "5000", "MIRROR_WORKERS": "8", "MIRROR_FETCHES": "16",
		}})
		if _, err := s.Admin(t).StartBackfill(t.Context(), &mirrorv1.StartBackfillRequest{}); err != nil {
			t.Fatal(err)
		}
		harness.Eventually(t, backfillPatience+time.Duration(*snapshotRooms)*100*time.Millisecond, func() error {
			sweep, err := s.Admin(t).GetBackfill(t.Context(), &mirrorv1.GetBackfillRequest{})
			if err == nil && sweep.GetSweep().GetState() != mirrorv1.SweepState_SWEEP_STATE_DONE {
				err = fmt.Errorf("the backfill is %v", sweep)
			}
			return err
		})

		rng := rand.New(rand.NewPCG(14, 1))
		client := cutClient{mirrorv1.NewChangeServiceClient(s.Dial(t)), rng}
		before := resident(t, s.Pid())
		var memory runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&memory)
		heap := memory.HeapInuse
		whole, crash := make(chan struct{}), errors.New("crash")
		var once sync.Once
		var cuts atomic.Int64
		h := &holding{held: make(map[copyKey]copyOf), byRoom: make(map[string]map[copyKey]bool)}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			store := &feed.Memory{}
			var err error
			for err == nil || errors.Is(err, crash) {
				err = feed.Run(ctx, client, feed.Config{
					Store: store, Snapshot: true, Failed: func(error) { cuts.Add(1) },
				}, func(_ context.Context, response *mirrorv1.WatchChangesResponse) error {
					h.take(response)
					if response.GetSnapshotEnd() != nil {
						once.Do(func() { close(whole) })
					} else if rng.IntN(6) == 0 {
						cuts.Add(1)
						return crash // before its token was kept
					}
					return nil
				})
			}
			ended <- err
		}()
		writes := 120
		if *snapshotRooms > 1000 {
			writes = 1000 // a longer snapshot
		}
		choose := rand.New(rand.NewPCG(14, 2))
		for n := range writes {
			writeSomething(t, s, upstream, choose.IntN(len(rooms)), n)
		}
		select {
		case <-whole:
		case err := <-ended:
			t.Fatalf("Run = %v; want the end of a snapshot", err)
		}
		awaitIdle(t, s, mirrorv1.ResourceKind_RESOURCE_KIND_SWEEP)
		want := mirroredNow(t, s)
		harness.Eventually(t, patience, func() error {
			if diff := cmp.Diff(want, h.revisions()); diff != "" {
				return fmt.Errorf("the follower holds something else than is mirrored (-want +got):\n%s", diff)
			}
			return nil
		})
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v; want the end of its context", err)
		}
		runtime.GC()
		runtime.ReadMemStats(&memory)
		t.Logf("%d copies equal after %d snapshots, %d items, %d changes and %d cuts; the service had %d MiB and has %d "+
			"MiB; the test had %d MiB and has %d MiB", len(want), h.ended, h.items, h.changes, cuts.Load(),
			before>>20, resident(t, s.Pid())>>20, heap>>20, memory.HeapInuse>>20)
		if h.changes == 0 {
			t.Error("nothing has changed meanwhile; want changes while the snapshot was read")
		}
		if h.begun == 0 || len(want) < 3*len(rooms)/2 {
			t.Errorf("%d snapshots of %d copies; want some", h.begun, len(want))
		}
	})
}

// cutClient is a client whose streams break after some responses.
type cutClient struct {
	mirrorv1.ChangeServiceClient

	rng *rand.Rand
}

func (c cutClient) WatchChanges(ctx context.Context, req *mirrorv1.WatchChangesRequest, opts ...grpc.CallOption) (
	grpc.ServerStreamingClient[mirrorv1.WatchChangesResponse], error,
) {
	stream, err := c.ChangeServiceClient.WatchChanges(ctx, req, opts...)
	return &cutting{ServerStreamingClient: stream, left: 1 + c.rng.IntN(5)}, err
}

// writeSomething changes, deletes or creates a room.
func writeSomething(t *testing.T, s *harness.Service, upstream *harness.Fake, i, n int) {
	t.Helper()
	room := fmt.Sprintf("room-%05d", i)
	_, exists := upstream.RoomSource(room)
	switch {
	case !exists:
		must(t, upstream.RecreateRoom(room, fake.RoomOptions{Storage: storage(fmt.Sprint(n))}))
		tell(t, s, fake.RoomCreated, room)
	case n%5 == 0:
		must(t, upstream.DeleteRoom(room))
		tell(t, s, fake.RoomDeleted, room)
	case n%5 == 1:
		create(t, s, upstream, fmt.Sprintf("new-%05d", n), fake.RoomOptions{Storage: storage(fmt.Sprint(n))})
	default:
		must(t, upstream.SetStorage(room, storage(fmt.Sprint(n))))
		tell(t, s, fake.StorageUpdated, room)
	}
}

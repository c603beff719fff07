package blackbox_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	feed "github.com/liveblocks-mirror/liveblocks-mirror/client/follow"
	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/pgtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// seeds is how many walks of [TestWatchersOfTwoReplicas] there are, and seed is the first.
var (
	seeds = flag.Uint64("seeds", 1, "walks of watchers")
	seed  = flag.Uint64("seed", 1, "the first walk of watchers")
)

// served is the name of an engine, and what is in front of it.
func served(e *dbtest.Engine) string {
	if e == dbtest.Postgres && pgtest.Fronted() {
		return e.Name + " behind PgBouncer"
	}
	return e.Name
}

// Eight writers at two replicas, and four watchers whose streams break after any response,
// two of them with filters, while the beginning of the feed is trimmed. Each sees exactly
// the changes that are stored, those of a room in order, or learns that it cannot and reads
// all anew, as two of them do anyway now and then: then it sees what came after that. In the
// end what each holds equals the mirror.
func TestWatchersOfTwoReplicas(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		for n := range *seeds {
			t.Run(fmt.Sprint("seed ", *seed+n), func(t *testing.T) { t.Parallel(); walk(t, e, *seed+n) })
		}
	})
}

const (
	walkWriters = 8
	// walkRooms is how many rooms each writes.
	walkRooms = 2
	walkSteps = 9
)

// walker is one walk.
type walker struct {
	t        *testing.T
	upstream *harness.Fake
	replicas []*harness.Service
	clients  []mirrorv1.ChangeServiceClient
	mirror   mirrorv1.MirrorServiceClient
	db       *dbtest.DB

	// stored are all changes that were ever stored, with the room of each.
	stored map[change]bool
	// trims is closed, and replaced, when changes have been trimmed.
	mu    sync.Mutex
	trims chan struct{}
}

// change names a change: numbers are those of a bucket, so a room has each once.
type change struct {
	room     string
	revision int64
	kind     mirrorv1.ResourceKind
}

func walk(t *testing.T, e *dbtest.Engine, seed uint64) {
	t.Helper()
	w := &walker{t: t, upstream: harness.NewFake(t), stored: make(map[change]bool), trims: make(chan struct{})}
	o := harness.Options{DatabaseURL: e.Database(t), UpstreamURL: w.upstream.URL, Env: map[string]string{
		"MIRROR_FEED_POLL": "1s",
	}}
	for range 2 {
		s := harness.Start(t, o)
		w.replicas, w.clients = append(w.replicas, s), append(w.clients, mirrorv1.NewChangeServiceClient(s.Dial(t)))
	}
	w.mirror, w.db = w.replicas[0].Mirror(t), e.Connect(t, o.DatabaseURL)
	first, err := w.clients[0].ListChanges(t.Context(), &mirrorv1.ListChangesRequest{})
	must(t, err)

	ctx, cancel := context.WithCancel(t.Context())
	watchers := make([]*watcher, 4)
	var following sync.WaitGroup
	for n := range watchers {
		watchers[n] = w.watcher(n, seed)
		following.Go(func() {
			one := watchers[n]
			request := proto.CloneOf(one.request)
			for ctx.Err() == nil {
				err := feed.Run(ctx, one, feed.Config{Request: request, Store: &feed.Memory{}, Anew: one.readAnew}, one.handle)
				if ctx.Err() == nil && !errors.Is(err, errForgets) {
					t.Errorf("watcher %d ended: %v", n, err)
					return
				}
				request.Start = nil
			}
		})
	}
	rng := rand.New(rand.NewPCG(seed, 100))
	w.each(func(rooms []string) {
		for _, room := range rooms {
			create(t, w.replicas[rng.IntN(2)], w.upstream, room, fake.RoomOptions{Storage: storage("0")})
		}
	})
	for i := 1; i <= walkSteps; i++ {
		w.step(rng, fmt.Sprint(i))
		if i%3 == 0 {
			w.trim(rng)
		}
	}
	awaitIdle(t, w.replicas[0])
	w.read()
	before := maps.Clone(w.stored)
	second, err := w.clients[1].ListChanges(t.Context(), &mirrorv1.ListChangesRequest{})
	must(t, err)
	w.step(rng, fmt.Sprint(walkSteps+1))
	awaitIdle(t, w.replicas[0])
	w.read()

	mirrored := w.resources(t.Context(), "")
	anew := 0
	harness.Eventually(t, patience, func() error {
		anew = 0
		for n, one := range watchers {
			times, err := one.equals(mirrored)
			if err != nil {
				return fmt.Errorf("watcher %d: %w", n, err)
			}
			anew += times
		}
		return nil
	})
	cancel()
	following.Wait()
	for n, one := range watchers {
		// Nobody follows any more, so nothing is kept in memory of what was trimmed.
		harness.Eventually(t, patience, func() error {
			got, err := w.list(one.request, n%2, first.GetNextToken())
			if reasonOf(err) != "CHANGE_TOKEN_EXPIRED" {
				return fmt.Errorf("from before the trims watcher %d gets %v, %w; want CHANGE_TOKEN_EXPIRED", n, got, err)
			}
			return nil
		})
		want := make(map[change]bool)
		for c := range w.stored {
			if !before[c] && one.wants(c.room, c.kind) {
				want[c] = true
			}
		}
		got, err := w.list(one.request, n%2, second.GetNextToken())
		must(t, err)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(change{})); diff != "" {
			t.Errorf("after the trims watcher %d gets other changes than are stored (-want +got):\n%s", n, diff)
		}
	}
	t.Logf("%s: %d changes, %d times a watcher read all anew", served(e), len(w.stored), anew)
}

// list asks for all changes after a token, a few at a time.
func (w *walker) list(as *mirrorv1.WatchChangesRequest, replica int, token string) (map[change]bool, error) {
	got := make(map[change]bool)
	for {
		page, err := w.clients[replica].ListChanges(w.t.Context(), &mirrorv1.ListChangesRequest{
			RoomIdPrefix: as.GetRoomIdPrefix(), Kinds: as.GetKinds(), PageSize: 3,
			Start: &mirrorv1.ListChangesRequest_Token{Token: token},
		})
		if err != nil {
			return got, err
		}
		for _, c := range page.GetChanges() {
			got[change{c.GetRoomId(), c.GetRevision(), c.GetKind()}] = true
		}
		if token = page.GetNextToken(); page.GetCaughtUp() && len(page.GetChanges()) == 0 {
			return got, nil
		}
	}
}

// each hands each writer its rooms.
func (w *walker) each(write func(rooms []string)) {
	for n := range walkWriters {
		rooms := make([]string, walkRooms)
		for i := range rooms {
			rooms[i] = fmt.Sprintf("%s %d/%d", []string{"even", "odd"}[n%2], n, i)
		}
		write(rooms)
	}
}

// step has all writers write at once: a document or two, or a room that goes and comes
// back. It waits until the mirror shows all of it.
func (w *walker) step(rng *rand.Rand, value string) {
	w.t.Helper()
	var writing sync.WaitGroup
	failed := make(chan error, walkWriters)
	var awaited []string
	w.each(func(rooms []string) {
		var events []fake.Event
		for _, room := range rooms[:1+rng.IntN(walkRooms)] {
			if rng.IntN(8) == 0 {
				must(w.t, w.upstream.DeleteRoom(room))
				events = append(events, fake.Event{Type: fake.RoomDeleted, RoomID: room, Time: time.Now()})
				must(w.t, w.upstream.CreateRoom(room, fake.RoomOptions{Storage: storage(value)}))
				events = append(events, fake.Event{Type: fake.RoomCreated, RoomID: room, Time: time.Now()})
			} else {
				must(w.t, w.upstream.SetStorage(room, storage(value)))
				events = append(events, fake.Event{Type: fake.StorageUpdated, RoomID: room, Time: time.Now()})
			}
			awaited = append(awaited, room)
		}
		deliveries := make([]func() error, len(events))
		for i, event := range events {
			d, to := harness.SignEvent(w.t, event), w.replicas[rng.IntN(2)].URL("/v1/webhooks/liveblocks")
			deliveries[i] = func() error {
				code, body, err := d.Do(w.t.Context(), to)
				if err == nil && code != http.StatusOK {
					err = fmt.Errorf("a webhook was answered with %d %s", code, body)
				}
				return err
			}
		}
		writing.Go(func() {
			for _, deliver := range deliveries {
				if err := deliver(); err != nil {
					failed <- err
					return
				}
			}
		})
	})
	writing.Wait()
	select {
	case err := <-failed:
		w.t.Fatal(err)
	default:
	}
	for _, room := range awaited {
		awaitStorage(w.t, w.replicas[0], room, storage(value))
	}
}

// read reads what is stored.
func (w *walker) read() (last map[int16]int64) {
	w.t.Helper()
	last = make(map[int16]int64)
	must(w.t, w.db.Each(w.t.Context(), "select bucket, n, room_id, kind from mirror_change",
		func(scan func(dest ...any) error) error {
			var bucket int16
			var c change
			if err := scan(&bucket, &c.revision, &c.room, &c.kind); err != nil {
				return err
			}
			last[bucket] = max(last[bucket], c.revision)
			w.stored[c] = true
			return nil
		}))
	return last
}

// trim deletes changes as a job of the service does: the latest of each bucket stays.
func (w *walker) trim(rng *rand.Rand) {
	w.t.Helper()
	for bucket, n := range w.read() {
		_, err := w.db.Exec(w.t.Context(), "delete from mirror_change where bucket = ? and n < ?", bucket, n-rng.Int64N(3))
		must(w.t, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.trims)
	w.trims = make(chan struct{})
}

// resource names what a watcher holds.
type resource struct {
	room string
	kind mirrorv1.ResourceKind
}

// resources are the rooms and documents of the mirror with their revisions.
func (w *walker) resources(ctx context.Context, prefix string) map[resource]int64 {
	w.t.Helper()
	held := make(map[resource]int64)
	rooms, err := w.mirror.ListRooms(ctx, &mirrorv1.ListRoomsRequest{RoomIdPrefix: prefix, PageSize: 100})
	if err == nil {
		for _, r := range rooms.GetRooms() {
			held[resource{r.GetRoomId(), mirrorv1.ResourceKind_RESOURCE_KIND_ROOM}] = r.GetFreshness().GetRevision()
		}
		var documents *mirrorv1.ListDocumentsResponse
		documents, err = w.mirror.ListDocuments(ctx, &mirrorv1.ListDocumentsRequest{RoomIdPrefix: prefix, PageSize: 100})
		for _, d := range documents.GetDocuments() {
			if d.GetKind() == mirrorv1.DocumentKind_DOCUMENT_KIND_STORAGE {
				held[resource{d.GetRoomId(), mirrorv1.ResourceKind_RESOURCE_KIND_STORAGE}] = d.GetFreshness().GetRevision()
			}
		}
	}
	if err != nil && ctx.Err() == nil {
		w.t.Errorf("list the mirror: %v", err)
	}
	return held
}

// watcher follows, and holds the revisions of rooms and their Storage.
type watcher struct {
	*walker

	rng *rand.Rand
	// dozes makes it wait for the next trim now and then. Otherwise it forgets all now and
	// then, and reads it anew while others write.
	dozes   bool
	request *mirrorv1.WatchChangesRequest

	mu    sync.Mutex
	held  map[resource]int64
	lives []*lifetime
	// copies are the revisions of what came with changes, if the watcher has asked for it.
	copies map[resource]int64
}

// lifetime is from when a watcher read all, or from the beginning, until it does so again.
type lifetime struct {
	// floor is what was held then; it is nil at the beginning.
	floor map[resource]int64
	seen  map[change]bool
	// first and last are the revisions of a room that were seen first and last.
	first, last map[string]int64
}

func newLifetime(floor map[resource]int64) *lifetime {
	return &lifetime{
		floor: floor, seen: make(map[change]bool), first: make(map[string]int64), last: make(map[string]int64),
	}
}

// see takes a change of the feed.
func (l *lifetime) see(c change) {
	if l.last[c.room] == 0 {
		l.first[c.room] = c.revision
	}
	l.last[c.room], l.seen[c] = c.revision, true
}

// misses returns whether a change that was stored should have been seen and was not. An
// earlier life has ended somewhere; in order within a room there was no gap before that.
func (l *lifetime) misses(c change, latest bool) bool {
	floor, ok := l.floor[resource{c.room, c.kind}]
	// What was not there when all was read says nothing about what came before, but where the
	// watcher began, the feed has all that comes after what it gave first.
	if first, begun := l.first[c.room]; !ok && l.floor != nil && begun {
		floor, ok = first, true
	}
	return (ok || l.floor == nil) && c.revision > floor && (latest || c.revision <= l.last[c.room]) && !l.seen[c]
}

// The check of the walk knows each gap in what a watcher saw.
func TestMissedChanges(t *testing.T) {
	t.Parallel()
	const storage = mirrorv1.ResourceKind_RESOURCE_KIND_STORAGE
	read := map[resource]int64{{"held", storage}: 4}
	for _, c := range []struct {
		name    string
		floor   map[resource]int64
		seen    []int64
		room    string
		missing int64
		latest  bool
		want    bool
	}{
		{"before the first, from the beginning", nil, []int64{5}, "new", 4, false, true},
		{"after the last of an earlier life", nil, []int64{5}, "new", 6, false, false},
		{"after the last of the latest life", nil, []int64{5}, "new", 6, true, true},
		{"already read", read, []int64{5}, "held", 4, true, false},
		{"after what was read, before the first", read, []int64{6}, "held", 5, true, true},
		{"perhaps before all was read", read, []int64{6}, "new", 5, true, false},
		{"never seen, perhaps before all was read", read, nil, "new", 5, true, false},
		{"between two, not there when all was read", read, []int64{6, 8}, "new", 7, false, true},
		{"after the last, not there when all was read", read, []int64{6, 8}, "new", 9, true, true},
		{"after the last of an earlier life, not there when all was read", read, []int64{6, 8}, "new", 9, false, false},
	} {
		l := newLifetime(c.floor)
		for _, revision := range c.seen {
			l.see(change{c.room, revision, storage})
		}
		if got := l.misses(change{c.room, c.missing, storage}, c.latest); got != c.want {
			t.Errorf("%s: misses = %t; want %t", c.name, got, c.want)
		}
	}
}

// errForgets makes a watcher begin as a new one would.
var errForgets = errors.New("the watcher has forgotten all")

// watcher returns one that has not begun.
func (w *walker) watcher(n int, seed uint64) *watcher {
	one := &watcher{
		walker: w, rng: rand.New(rand.NewPCG(seed, uint64(n))), dozes: n%2 == 0,
		held: make(map[resource]int64), lives: []*lifetime{newLifetime(nil)}, copies: make(map[resource]int64),
	}
	one.request = &mirrorv1.WatchChangesRequest{Start: &mirrorv1.WatchChangesRequest_Position{
		Position: mirrorv1.ChangeStart_CHANGE_START_EARLIEST,
	}}
	switch n {
	case 1:
		one.request.Include = mirrorv1.ChangeInclude_CHANGE_INCLUDE_FULL
	case 2:
		one.request.RoomIdPrefix = "even "
	case 3:
		one.request.Kinds = []mirrorv1.ResourceKind{
			mirrorv1.ResourceKind_RESOURCE_KIND_ROOM, mirrorv1.ResourceKind_RESOURCE_KIND_STORAGE,
		}
	}
	return one
}

// cutting breaks a stream after some responses.
type cutting struct {
	grpc.ServerStreamingClient[mirrorv1.WatchChangesResponse]

	left int
}

func (c *cutting) Recv() (*mirrorv1.WatchChangesResponse, error) {
	if c.left--; c.left < 0 {
		return nil, status.Error(codes.Unavailable, "cut")
	}
	return c.ServerStreamingClient.Recv()
}

// WatchChanges opens a stream at either replica, as behind a balancer, that will be cut.
func (w *watcher) WatchChanges(ctx context.Context, req *mirrorv1.WatchChangesRequest, opts ...grpc.CallOption) (
	grpc.ServerStreamingClient[mirrorv1.WatchChangesResponse], error,
) {
	stream, err := w.clients[w.rng.IntN(2)].WatchChanges(ctx, req, opts...)
	return &cutting{ServerStreamingClient: stream, left: 1 + w.rng.IntN(5)}, err
}

// ListChanges is not used.
func (w *watcher) ListChanges(context.Context, *mirrorv1.ListChangesRequest, ...grpc.CallOption) (
	*mirrorv1.ListChangesResponse, error,
) {
	return nil, errors.ErrUnsupported
}

func (w *watcher) readAnew(ctx context.Context) error {
	held := w.resources(ctx, w.request.GetRoomIdPrefix())
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.copies)
	w.held, w.lives = held, append(w.lives, newLifetime(maps.Clone(held)))
	return ctx.Err()
}

func (w *watcher) handle(ctx context.Context, response *mirrorv1.WatchChangesResponse) error {
	w.walker.mu.Lock()
	trims := w.trims
	w.walker.mu.Unlock()
	if w.dozes && w.rng.IntN(6) == 0 && len(response.GetChanges().GetChanges()) > 0 {
		select {
		case <-trims:
		case <-time.After(2 * time.Second): // there may be none any more
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.lives[len(w.lives)-1]
	for _, c := range response.GetChanges().GetChanges() {
		if last := now.last[c.GetRoomId()]; c.GetRevision() <= last {
			w.t.Errorf("a watcher saw %v after revision %d", c, last)
		}
		now.see(change{c.GetRoomId(), c.GetRevision(), c.GetKind()})
		w.apply(c)
		w.applyCopy(c)
	}
	if !w.dozes && w.rng.IntN(10) == 0 {
		return errForgets
	}
	return nil
}

// apply does with a change what docs/CHANGES.md tells consumers to.
func (w *watcher) apply(c *mirrorv1.Change) {
	of := resource{c.GetRoomId(), c.GetKind()}
	switch {
	case c.GetChangeKind() != mirrorv1.ChangeKind_CHANGE_KIND_DELETED:
		w.held[of] = max(w.held[of], c.GetRevision())
	case of.kind != mirrorv1.ResourceKind_RESOURCE_KIND_ROOM:
		if w.held[of] < c.GetRevision() {
			delete(w.held, of)
		}
	default: // and all in it
		for r, revision := range w.held {
			if r.room == of.room && revision < c.GetRevision() {
				delete(w.held, r)
			}
		}
	}
}

// applyCopy takes what comes with a change. It goes by the kinds of the changes alone.
func (w *watcher) applyCopy(c *mirrorv1.Change) {
	of := resource{c.GetRoomId(), c.GetKind()}
	revision := int64(0)
	switch copied := c.GetResource().(type) {
	case *mirrorv1.Change_Room:
		revision = copied.Room.GetFreshness().GetRevision()
	case *mirrorv1.Change_Document:
		if revision = copied.Document.GetFreshness().GetRevision(); len(copied.Document.GetContent()) == 0 {
			w.t.Errorf("%v came without its content", of)
		}
	}
	switch {
	case c.GetChangeKind() == mirrorv1.ChangeKind_CHANGE_KIND_DELETED:
		for r := range w.copies {
			if r == of || r.room == of.room && of.kind == mirrorv1.ResourceKind_RESOURCE_KIND_ROOM {
				delete(w.copies, r)
			}
		}
	case revision > 0 && revision < c.GetRevision():
		w.t.Errorf("a watcher got revision %d of %v with the change to revision %d", revision, of, c.GetRevision())
	case revision > 0:
		w.copies[of] = revision
	}
}

// wants tells whether the watcher follows a resource.
func (w *watcher) wants(room string, kind mirrorv1.ResourceKind) bool {
	return strings.HasPrefix(room, w.request.GetRoomIdPrefix()) &&
		(w.request.GetKinds() == nil || slices.Contains(w.request.GetKinds(), kind))
}

// equals tells whether the watcher holds what the mirror has, and saw all that was stored
// since it last read all anew. It returns how often it did.
func (w *watcher) equals(mirrored map[resource]int64) (anew int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	want, held := make(map[resource]int64), make(map[resource]int64)
	for r, revision := range mirrored {
		if w.wants(r.room, r.kind) {
			want[r] = revision
		}
	}
	for r, revision := range w.held {
		if r.kind == mirrorv1.ResourceKind_RESOURCE_KIND_ROOM || r.kind == mirrorv1.ResourceKind_RESOURCE_KIND_STORAGE {
			held[r] = revision
		}
	}
	if diff := cmp.Diff(want, held, cmp.AllowUnexported(resource{})); diff != "" {
		return 0, fmt.Errorf("it holds something else than the mirror (-want +got):\n%s", diff)
	}
	if w.request.GetInclude() != 0 { // but for what it has seen no change of since it read all
		now := w.lives[len(w.lives)-1]
		for r, revision := range want {
			if w.copies[r] != revision && now.seen[change{r.room, revision, r.kind}] {
				return 0, fmt.Errorf("it got revision %d of %v with its changes; want %d", w.copies[r], r, revision)
			}
		}
	}
	for n, l := range w.lives {
		for c := range l.seen {
			if !w.stored[c] {
				return 0, fmt.Errorf("it saw %v, which was never stored", c)
			}
		}
		for c := range w.stored {
			if w.wants(c.room, c.kind) && l.misses(c, n == len(w.lives)-1) {
				return 0, fmt.Errorf("it did not see %v after it had read all %d times", c, n)
			}
		}
	}
	return len(w.lives) - 1, nil
}

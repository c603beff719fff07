package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/webhook"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/storetest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/queue"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/reconcile"
)

const (
	project = mirror.ProjectID("default")
	apiKey  = "sk_test_key"
	settle  = 200 * time.Millisecond
	// patience bounds every wait for something that has to come.
	patience = time.Minute
)

func roomOf(id string) mirror.Resource {
	return mirror.Resource{Project: project, Room: mirror.RoomID(id), Kind: mirror.KindRoom}
}

func storageOf(id string) mirror.Resource {
	return mirror.Resource{Project: project, Room: mirror.RoomID(id), Kind: mirror.KindStorage}
}

// bench is a fake Liveblocks and a database, and the replicas between them.
type bench struct {
	testing.TB
	upstream *fake.Server
	// front answers the calls; it is the fake unless a test puts something before it.
	front atomic.Pointer[http.HandlerFunc]
	api   string
	// engine is the kind of the database at url.
	engine *dbtest.Engine
	url    string
	// store is for looking; the replicas have their own.
	store  store.Store
	events atomic.Int64

	mu       sync.Mutex
	replicas []*replica
}

func newBench(t testing.TB, e *dbtest.Engine) *bench {
	t.Helper()
	b := &bench{TB: t, upstream: fake.New(apiKey), engine: e, url: e.Database(t)}
	b.before(b.upstream.ServeHTTP)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter,
		r *http.Request,
	) {
		(*b.front.Load())(w, r)
	}))
	t.Cleanup(server.Close)
	b.api = server.URL
	b.store = b.open()
	t.Cleanup(b.store.Close)
	return b
}

func (b *bench) before(h http.HandlerFunc) { b.front.Store(&h) }

func (b *bench) open() store.Store {
	b.Helper()
	s, err := engine.Open(b.Context(), engine.Config{URL: b.url, MaxConns: 8})
	if err != nil {
		b.Fatalf("Open = %v", err)
	}
	return s
}

// replica is one process of the service, as far as it matters here.
type replica struct {
	store  store.Store
	client *liveblocks.Client
	pool   *queue.Pool
	stop   func()
}

// parts are what a test may change about a replica before it starts.
type parts struct {
	client    liveblocks.Config
	reconcile reconcile.Config
	queue     queue.Config
	// wrap, if set, goes around every handler.
	wrap func(queue.Handler) queue.Handler
}

// early makes every fetch begin right after the event, however slow the machine is:
// later ones need no settle fetch.
func early(p *parts) {
	p.client.Now = func() time.Time { return time.Now().Add(-10 * time.Second) }
}

// start runs a replica until stop, or the end of the test.
func (b *bench) start(change ...func(*parts)) *replica {
	b.Helper()
	r := &replica{store: b.open()}
	pause := func(reason string) {
		if err := r.store.Pause(context.Background(), project, reason, time.Now()); err != nil {
			b.Errorf("Pause = %v", err)
		}
	}
	p := parts{
		client: b.clientConfig(),
		reconcile: reconcile.Config{
			Mirror: r.store, Tasks: r.store, Settle: settle, ActiveUsersInterval: between, MaxData: 16 << 20, Now: time.Now,
			Logger: slog.New(slog.DiscardHandler),
		},
		queue: queue.Config{
			Project: project, Tasks: r.store, Workers: 8, Fetches: 32, LeaseTTL: 10 * time.Second,
			BusyPoll: 100 * time.Millisecond, SafetyPoll: time.Hour, StopGrace: 10 * time.Second, Now: time.Now,
			Policy: queue.Policy{MaxAttempts: 5, BackoffMin: 10 * time.Millisecond, BackoffMax: 50 * time.Millisecond},
			Logger: slog.New(slog.DiscardHandler),
		},
	}
	p.client.OnPause = pause
	for _, f := range change {
		f(&p)
	}
	r.client = liveblocks.New(p.client)
	if p.reconcile.Fetcher == nil {
		p.reconcile.Fetcher = r.client
	}
	p.reconcile.Policy = p.queue.Policy
	handlers := reconcile.New(p.reconcile).Handlers()
	if p.wrap != nil {
		for kind, handle := range handlers {
			handlers[kind] = p.wrap(handle)
		}
	}
	p.queue.Limiter = r.client
	r.pool = queue.New(p.queue)

	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup // stop waits for both
	wg.Go(func() {
		if err := r.pool.Run(ctx, handlers); err != nil {
			b.Errorf("Run of the pool = %v", err)
		}
	})
	wg.Go(func() {
		if err := r.client.Run(ctx); err != nil {
			b.Errorf("Run of the client = %v", err)
		}
	})
	r.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		r.client.Close()
		r.store.Close()
	})
	b.Cleanup(r.stop)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.replicas = append(b.replicas, r)
	return r
}

// deliver records events in one batch, as the ledger does, and hands what they
// make stale to the replica that took them in.
func (b *bench) deliver(r *replica, events ...fake.Event) {
	b.Helper()
	batch := make([]mirror.Delivery, len(events))
	for i, ev := range events {
		batch[i] = b.delivery(fmt.Sprintf("msg_%d", b.events.Add(1)), ev)
	}
	b.accept(r, batch...)
}

func (b *bench) delivery(id string, ev fake.Event) mirror.Delivery {
	return sooner(decode(id, string(fake.Payload(ev, "6605")), time.Now()))
}

// sooner makes ten seconds as long as tests can wait.
func sooner(a mirror.Delivery) mirror.Delivery {
	for i, h := range a.Invalidations {
		if h.MinInterval == mirror.ActiveUsersInterval {
			a.Invalidations[i].MinInterval = between
		}
	}
	return a
}

func (b *bench) accept(r *replica, batch ...mirror.Delivery) {
	b.Helper()
	answers, err := storetest.Accept(b.Context(), b.store, batch)
	if err != nil {
		b.Fatalf("Accept = %v", err)
	}
	for _, a := range answers {
		if a.Fresh && r != nil {
			r.pool.Push(a.Pending)
		}
	}
}

func event(kind, room string) fake.Event {
	return fake.Event{Type: kind, RoomID: room, Time: time.Now()}
}

// created creates a room with a document and has it mirrored.
func (b *bench) created(r *replica, id, storage string) {
	b.Helper()
	b.create(id, storage)
	b.deliver(r, event(fake.RoomCreated, id))
	b.quiet()
	b.wantDocument(id, storage)
}

func (b *bench) create(id, storage string) {
	b.Helper()
	if err := b.upstream.CreateRoom(id, fake.RoomOptions{Storage: []byte(storage)}); err != nil {
		b.Fatalf("CreateRoom = %v", err)
	}
}

func (b *bench) setStorage(id, storage string) {
	b.Helper()
	if err := b.upstream.SetStorage(id, []byte(storage)); err != nil {
		b.Fatalf("SetStorage = %v", err)
	}
}

func (b *bench) remove(id string) {
	b.Helper()
	if err := b.upstream.DeleteRoom(id); err != nil {
		b.Fatalf("DeleteRoom = %v", err)
	}
}

// edited changes a document and tells the replica.
func (b *bench) edited(r *replica, id, storage string) {
	b.Helper()
	b.setStorage(id, storage)
	b.deliver(r, event(fake.StorageUpdated, id))
}

// eventually waits until cond holds.
func (b *bench) eventually(what string, cond func() bool) {
	b.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(patience); !cond(); {
		select {
		case <-tick.C:
		case <-limit:
			b.Fatalf("waited %v in vain: %s; tasks: %s", patience, what, b.tasks())
		}
	}
}

// during checks cond again and again for a while in which nothing else is
// awaited.
func (b *bench) during(d time.Duration, cond func()) {
	b.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(d); ; {
		cond()
		select {
		case <-tick.C:
		case <-end:
			return
		}
	}
}

// quiet waits until nothing is due any more.
func (b *bench) quiet() {
	b.Helper()
	b.eventually("the queue is empty", func() bool {
		counts, err := b.store.Counts(b.Context(), project)
		if err != nil {
			b.Fatalf("Counts = %v", err)
		}
		return counts.Pending == 0
	})
}

// tasks describes what is not done.
func (b *bench) tasks() string {
	list, err := b.store.TaskList(b.Context(), store.TaskFilter{Project: project, Now: time.Now(), Limit: 50})
	if err != nil {
		return err.Error()
	}
	var out strings.Builder
	for _, t := range list {
		fmt.Fprintf(&out, "\n%+v", t)
	}
	return out.String()
}

func (b *bench) task(r mirror.Resource) mirror.Task {
	b.Helper()
	task, err := b.store.Task(b.Context(), r, time.Now())
	if err != nil {
		b.Fatalf("Task of %q = %v", r.Room, err)
	}
	return task
}

func (b *bench) wantState(r mirror.Resource, state mirror.TaskState, reason string) mirror.Task {
	b.Helper()
	task := b.task(r)
	if task.State != state || !strings.HasPrefix(task.LastError, reason) {
		b.Fatalf("task %s of %q = %+v; want it %s because of %q", r.Kind, r.Room, task, state, reason)
	}
	return task
}

func (b *bench) room(id string, deleted bool) (mirror.Room, bool) {
	b.Helper()
	room, err := b.store.Room(b.Context(), roomOf(id), deleted)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		b.Fatalf("Room %q = %v", id, err)
	}
	return room, err == nil
}

func (b *bench) document(id string) (mirror.Document, bool) {
	b.Helper()
	doc, err := b.store.Document(b.Context(), storageOf(id), false)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		b.Fatalf("Document of %q = %v", id, err)
	}
	return doc, err == nil
}

func (b *bench) wantDocument(id, want string) mirror.Document {
	b.Helper()
	doc, ok := b.document(id)
	if !ok || string(doc.Content) != want {
		b.Fatalf("document of %q = %.200q, there: %v; want %.200q; tasks: %s", id, doc.Content, ok, want, b.tasks())
	}
	return doc
}

func (b *bench) wantTombstone(id string) mirror.Room {
	b.Helper()
	if room, ok := b.room(id, false); ok {
		b.Fatalf("room %q = %+v; want it deleted", id, room)
	}
	room, ok := b.room(id, true)
	if !ok || room.Freshness.DeleteTime.IsZero() {
		b.Fatalf("room %q, deleted or not = %+v, there: %v; want its tombstone", id, room, ok)
	}
	if doc, ok := b.document(id); ok {
		b.Fatalf("document of the deleted room %q = %q; want none", id, doc.Content)
	}
	return room
}

// calls is the number of fetches of a room's document.
func (b *bench) calls(id string) int { return b.upstream.Calls(id, fake.EndpointStorage) }

// hold keeps the next fetch of a room's part under way.
func (b *bench) hold(id string, endpoint fake.Endpoint) *fake.Hold {
	h := fake.NewHold()
	b.upstream.Script(fake.Match{Room: id, Endpoint: endpoint}, h.Step())
	b.Cleanup(h.Release)
	return h
}

// arrived waits until a call has reached the hold.
func (b *bench) arrived(h *fake.Hold) {
	b.Helper()
	select {
	case <-h.Arrived():
	case <-time.After(patience):
		b.Fatalf("no call reached the hold; tasks: %s", b.tasks())
	}
}

// client is one more client of the fake.
func (b *bench) client() *liveblocks.Client {
	b.Helper()
	c := liveblocks.New(b.clientConfig())
	b.Cleanup(c.Close)
	return c
}

func (b *bench) clientConfig() liveblocks.Config {
	b.Helper()
	key, err := liveblocks.ParseKey(apiKey)
	if err != nil {
		b.Fatalf("ParseKey = %v", err)
	}
	url, err := liveblocks.ParseBaseURL(b.api)
	if err != nil {
		b.Fatalf("ParseBaseURL = %v", err)
	}
	return liveblocks.Config{
		BaseURL: url, SecretKey: key, Timeout: 30 * time.Second, MaxBody: 64 << 20, RatePerSecond: 10_000,
		ProbeMin: 50 * time.Millisecond, ProbeMax: 50 * time.Millisecond, UserAgent: "test", Now: time.Now,
		Logger: slog.New(slog.DiscardHandler), OnPause: func(string) {}, Transport: liveblocks.NewTransport(8),
	}
}

// decode is an event with a body of any kind.
func decode(id, body string, now time.Time) mirror.Delivery {
	return webhook.Decode(project, id, []byte(body), now, now)
}

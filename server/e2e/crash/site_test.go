package crash_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/pgtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// site is one mirror under test: a fake Liveblocks, a database, and a sender
// that delivers every event of the fake as Svix does, under one id until it is
// accepted.
type site struct {
	t        *testing.T
	upstream *harness.Fake
	words    words
	db       *dbtest.DB // straight to the database
	url      string     // what the service is given
	proxy    *proxy     // in front of the database
	env      map[string]string
	as       *syscall.Credential // account of the service; nil means ours
	http     *http.Client

	held     *fake.Hold // what a test holds back across its steps
	released time.Time

	targets  atomic.Pointer[[]*harness.Service] // where deliveries go
	slots    chan struct{}                      // bounds the deliveries under way
	senders  sync.WaitGroup
	onAnswer atomic.Pointer[func(status int, h http.Header)]
	acked    atomic.Int64

	mu    sync.Mutex
	rooms []string // ids that may exist
	sent  map[string]*sent
	stray []string // answers that no delivery should get
}

// sent is one delivery.
type sent struct {
	body  []byte
	acked bool
}

const (
	// initialRooms is how many rooms are mirrored before anything goes wrong.
	initialRooms = 30
	// senderSlots is how many deliveries are under way at once.
	senderSlots = 12
)

// newSite makes a site with a database of its own, which has its schema.
func newSite(t *testing.T, e *dbtest.Engine) *site {
	t.Helper()
	return newSiteAt(t, e, e.Database(t))
}

// newSiteAt makes a site on a database. The service goes there through the site's
// proxy. An empty direct means that the service brings a database of its own, or
// that the test sees to both.
func newSiteAt(t *testing.T, e *dbtest.Engine, direct string) *site {
	t.Helper()
	e.Need(t)
	s := &site{
		t: t, upstream: harness.NewFake(t), words: wordsOf[e],
		// So long that a task that a test holds keeps its lease, also on a slow machine.
		env:   map[string]string{"MIRROR_MIGRATE": "false", "MIRROR_LEASE_TTL": "6s"},
		http:  &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: senderSlots}},
		slots: make(chan struct{}, senderSlots), sent: make(map[string]*sent),
	}
	s.targets.Store(&[]*harness.Service{})
	if direct != "" {
		s.db = e.Connect(t, direct)
		s.through(newProxy(t, e, direct))
		if s.proxy.pooled { // or what waits for a lock could have all that the pooler has
			s.env["MIRROR_DATABASE_MAX_CONNS"] = strconv.Itoa(pgtest.PoolerSize)
		}
	}
	s.upstream.OnEvent(func(ev fake.Event) {
		d := harness.SignEvent(t, ev)
		select {
		case s.slots <- struct{}{}:
		case <-t.Context().Done():
			return
		}
		s.senders.Go(func() {
			s.deliver(d)
			<-s.slots
		})
	})
	t.Cleanup(func() {
		s.senders.Wait() // they end with the test's context
		s.http.CloseIdleConnections()
	})
	return s
}

// through lets services go to the database through a proxy.
func (s *site) through(p *proxy) { s.proxy, s.url = p, p.url }

// start starts a service, with additions to the environment; deliveries go to
// all that were started and not killed.
func (s *site) start(extra ...string) *harness.Service {
	s.t.Helper()
	env := maps.Clone(s.env)
	for _, pair := range extra {
		k, v, _ := strings.Cut(pair, "=")
		env[k] = v
	}
	service := harness.Start(s.t, harness.Options{
		DatabaseURL: s.url, UpstreamURL: s.upstream.URL, Env: env,
		Credential: s.as,
	})
	s.aim(append(slices.Clone(*s.targets.Load()), service)...)
	return service
}

// aim says where deliveries go from now on.
func (s *site) aim(services ...*harness.Service) { s.targets.Store(&services) }

// kill ends a service with SIGKILL.
func (s *site) kill(service *harness.Service) {
	service.Kill()
	s.aim(slices.DeleteFunc(slices.Clone(*s.targets.Load()), func(o *harness.Service) bool { return o == service })...)
}

// signal sends a service a signal.
func (s *site) signal(service *harness.Service, what syscall.Signal) {
	s.t.Helper()
	if err := syscall.Kill(service.Pid(), what); err != nil {
		s.t.Fatalf("%v = %v", what, err)
	}
}

// deliver posts d until it is accepted or the test ends.
func (s *site) deliver(d harness.Delivery) {
	s.mu.Lock()
	entry := &sent{body: d.Body}
	s.sent[d.ID] = entry
	s.mu.Unlock()
	for s.t.Context().Err() == nil {
		if s.attempt(d) {
			s.mu.Lock()
			entry.acked = true
			s.mu.Unlock()
			s.acked.Add(1)
			return
		}
		pause(s.t.Context(), 20*time.Millisecond)
	}
}

// attempt posts d once and reports whether it was accepted.
func (s *site) attempt(d harness.Delivery) bool {
	targets := *s.targets.Load()
	if len(targets) == 0 {
		return false
	}
	code, header, err := s.post(targets[rand.IntN(len(targets))], d)
	if err != nil {
		return false // nobody is there, or whoever was has died
	}
	if f := s.onAnswer.Load(); f != nil {
		(*f)(code, header)
	}
	if code/100 != 2 && (code != http.StatusServiceUnavailable || header.Get("Retry-After") == "") {
		s.mu.Lock()
		s.stray = append(s.stray, fmt.Sprintf("%d, Retry-After %q", code, header.Get("Retry-After")))
		s.mu.Unlock()
	}
	return code/100 == 2
}

// post posts d once.
func (s *site) post(to *harness.Service, d harness.Delivery) (int, http.Header, error) {
	code, header, _, err := s.exchange(to, d)
	return code, header, err
}

func (s *site) exchange(to *harness.Service, d harness.Delivery) (int, http.Header, []byte, error) {
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, to.URL("/api/liveblocks-webhook"),
		bytes.NewReader(d.Body))
	if err != nil {
		return 0, nil, nil, err
	}
	req.Header = d.Header.Clone()
	resp, err := s.http.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, body, err
}

// unanswered are the ids of the deliveries that were not accepted yet.
func (s *site) unanswered() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []string
	for id, d := range s.sent {
		if !d.acked {
			ids = append(ids, id)
		}
	}
	return ids
}

// caught are the unanswered deliveries that a held statement carries.
func (s *site) caught(tr *trap) []string {
	s.t.Helper()
	ids := slices.DeleteFunc(s.unanswered(), func(id string) bool { return !tr.holds(id) })
	if len(ids) == 0 {
		s.t.Fatal("the statement that is held carries no delivery that waits for its answer")
	}
	return ids
}

// populate creates the initial rooms and waits until they are mirrored.
func (s *site) populate(by *harness.Service) {
	s.t.Helper()
	// Ids are bytes: these are all different rooms.
	ids := []string{"plan", "Plan", "plan ", "pl\u00e4n", "pla\u0308n", "a/b?c#d%e", "..", ":read"}
	for i := len(ids); i < initialRooms; i++ {
		ids = append(ids, fmt.Sprintf("room-%02d", i))
	}
	for i, id := range ids {
		s.create(id, document(i))
	}
	s.converge(by)
}

// create creates a room in the fake.
func (s *site) create(id string, lson []byte) {
	s.t.Helper()
	s.mu.Lock()
	s.rooms = append(s.rooms, id)
	s.mu.Unlock()
	if err := s.upstream.CreateRoom(id, fake.RoomOptions{Storage: lson, Ydoc: ydoc(string(lson))}); err != nil {
		s.t.Fatalf("CreateRoom = %v", err)
	}
}

// document is a Storage document; each n has its own. Some hold what SQL's JSON
// refuses, and all hold a number that no float can. They are small enough for
// the fake to send nothing before it has noted the end of the call.
func document(n int) []byte {
	text := "plain"
	if n%5 == 0 {
		text = `\u0000 \ud800`
	}
	return fmt.Appendf(nil,
		`{"liveblocksType":"LiveObject","data":{"n":%d,"big":9007199254740993,"text":"%s","pad":"%s"}}`,
		n, text, strings.Repeat("x", n*37%1500))
}

// ydoc is a Yjs document, with a text in it. Each text makes another one, by which
// [written] tells them apart.
func ydoc(text string) []byte {
	update := []byte("\x01\x01\x01\x00\x04\x01\x04text") // one item of client 1: a string, first in the root "text"
	update = binary.AppendUvarint(update, uint64(len(text)))
	return append(append(update, text...), 0)
}

// load changes rooms until the returned function is called, which waits until
// every event is delivered.
func (s *site) load() (stop func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	seed := rand.Uint64()
	s.t.Logf("load with seed %d", seed)
	s.mu.Lock()
	ids := slices.Clone(s.rooms)
	s.mu.Unlock()
	var changers sync.WaitGroup
	const n = 2
	for i := range n {
		var mine []string
		for j := i; j < len(ids); j += n {
			mine = append(mine, ids[j])
		}
		changers.Go(func() { s.change(ctx, rand.New(rand.NewPCG(seed, uint64(i))), mine) })
	}
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			changers.Wait()
			s.senders.Wait()
		})
	}
	s.t.Cleanup(stop)
	return stop
}

// change changes rooms that nobody else does.
func (s *site) change(ctx context.Context, rng *rand.Rand, ids []string) {
	for pause(ctx, 10*time.Millisecond) {
		id := ids[rng.IntN(len(ids))]
		_, exists := s.upstream.RoomSource(id)
		lson := document(rng.IntN(1 << 20))
		opts := fake.RoomOptions{Storage: lson, Ydoc: ydoc(string(lson))}
		var err error
		switch p := rng.IntN(100); {
		case !exists:
			err = s.upstream.CreateRoom(id, opts)
		case p < 6:
			err = s.upstream.DeleteRoom(id)
		case p < 10:
			err = s.upstream.RecreateRoom(id, opts)
		case p < 30:
			err = s.upstream.SetYdoc(id, "", opts.Ydoc)
		default:
			err = s.upstream.SetStorage(id, lson)
		}
		if err != nil {
			s.t.Errorf("change room %q = %v", id, err)
			return
		}
	}
}

// more waits until n more deliveries were accepted.
func (s *site) more(n int64) {
	s.t.Helper()
	want := s.acked.Load() + n
	eventually(s.t, func() error {
		return unless(s.acked.Load() >= want, "%d deliveries accepted; want %d", s.acked.Load(), want)
	})
}

// converge waits until nothing is left to do, and checks that nothing that was
// accepted is lost and that the mirror is equal to the fake. No change may be
// under way.
func (s *site) converge(by *harness.Service) {
	s.t.Helper()
	s.senders.Wait()
	s.quiet()
	s.wantEvents()
	s.mu.Lock()
	rooms, stray := slices.Clone(s.rooms), slices.Clone(s.stray)
	s.mu.Unlock()
	if len(stray) > 0 {
		s.t.Errorf("answers to deliveries = %v; want 2xx, or 503 with Retry-After", stray)
	}
	client := by.Mirror(s.t)
	for _, id := range rooms {
		s.wantRoom(client, id)
	}
}

// quiet waits until no task is due or leased, and none has failed.
func (s *site) quiet() {
	s.t.Helper()
	eventually(s.t, func() error {
		n, err := queryOne[int](s, "select count(*) from mirror_resource_state where due_time is not null")
		if err != nil {
			return err
		}
		return unless(n == 0, "%d tasks are pending", n)
	})
	s.each("select room_id, last_error from mirror_resource_state where fail_time is not null",
		func(scan func(dest ...any) error) error {
			var room, why string
			if err := scan(&room, &why); err != nil {
				return err
			}
			s.t.Errorf("a task of room %q failed: %s", room, why)
			return nil
		})
}

// idle waits until the services have sent no statement for as long as d.
func (s *site) idle(d time.Duration) {
	s.t.Helper()
	n, since := s.proxy.total(), time.Now()
	eventually(s.t, func() error {
		if now := s.proxy.total(); now != n {
			n, since = now, time.Now()
		}
		return unless(time.Since(since) >= d, "the services have sent %d statements, the last one %s ago", n,
			time.Since(since))
	})
}

// wantEvents checks the ledger: every delivery, all of which were accepted in
// the end, is in it once with its bytes, and nothing else is.
func (s *site) wantEvents() {
	s.t.Helper()
	s.mu.Lock()
	sent := maps.Clone(s.sent)
	s.mu.Unlock()
	have := make(map[string]int)
	s.each("select event_id, payload from mirror_event", func(scan func(dest ...any) error) error {
		var id string
		var payload []byte
		if err := scan(&id, &payload); err != nil {
			return err
		}
		have[id]++
		switch d := sent[id]; {
		case d == nil:
			s.t.Errorf("event %s is in the ledger and was never sent", id)
		case !bytes.Equal(d.body, payload):
			s.t.Errorf("payload of event %s = %s; want %s", id, payload, d.body)
		}
		return nil
	})
	for id, d := range sent {
		if !d.acked || have[id] != 1 {
			s.t.Errorf("event %s, accepted: %v, is in the ledger %d times; want it accepted and there once", id, d.acked,
				have[id])
		}
	}
}

// wantRoom checks a room and its documents against the fake.
func (s *site) wantRoom(client mirrorv1.MirrorServiceClient, id string) {
	s.t.Helper()
	ctx := s.t.Context()
	source, exists := s.upstream.RoomSource(id)
	lson, _ := s.upstream.Storage(id)
	update, _ := s.upstream.Ydoc(id, "")
	room, err := client.GetRoom(ctx, &mirrorv1.GetRoomRequest{RoomId: id})
	doc, docErr := client.GetStorageDocument(ctx, &mirrorv1.GetStorageDocumentRequest{
		RoomId: id, Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_PLAIN_LSON,
		View: mirrorv1.DocumentView_DOCUMENT_VIEW_FULL,
	})
	yjs, yjsErr := client.GetYjsDocument(ctx,
		&mirrorv1.GetYjsDocumentRequest{RoomId: id, Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_BINARY})
	if !exists {
		if status.Code(err) != codes.NotFound || status.Code(docErr) != codes.NotFound ||
			status.Code(yjsErr) != codes.NotFound {
			s.t.Errorf("deleted room %q and its documents = %v, %v, %v; want NOT_FOUND", id, err, docErr, yjsErr)
		}
		stone, err := client.GetRoom(ctx, &mirrorv1.GetRoomRequest{RoomId: id, ShowDeleted: true})
		if err != nil || stone.GetRoom().GetFreshness().GetDeleteTime() == nil {
			s.t.Errorf("tombstone of room %q = %v, %v; want one", id, stone.GetRoom().GetFreshness(), err)
		}
		return
	}
	if err := errors.Join(err, docErr, yjsErr); err != nil {
		s.t.Errorf("room %q and its documents = %v; want all", id, err)
		return
	}
	if got := room.GetRoom(); !bytes.Equal(got.GetSourceJson(), source) || got.GetFreshness().GetStale() {
		s.t.Errorf("room %q = %s, stale %v; want %s", id, got.GetSourceJson(), got.GetFreshness().GetStale(), source)
	}
	if got := doc.GetDocument(); !bytes.Equal(got.GetContent(), lson) || got.GetFreshness().GetStale() {
		s.t.Errorf("document of room %q = %s, stale %v; want %s", id, got.GetContent(), got.GetFreshness().GetStale(), lson)
	}
	if got := yjs.GetDocument(); !bytes.Equal(got.GetContent(), update) || got.GetFreshness().GetStale() {
		s.t.Errorf("Yjs document of room %q = %q, stale %v; want %q", id, got.GetContent(), got.GetFreshness().GetStale(),
			update)
	}
}

// queryOne reads one value straight from the database.
func queryOne[V any](s *site, sql string, args ...any) (V, error) {
	return dbtest.Value[V](s.t.Context(), s.db, sql, args...)
}

// one is queryOne for what has to work.
func one[V any](s *site, sql string, args ...any) V {
	s.t.Helper()
	v, err := queryOne[V](s, sql, args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return v
}

// each reads rows straight from the database.
func (s *site) each(sql string, row func(scan func(dest ...any) error) error, args ...any) {
	s.t.Helper()
	if err := s.db.Each(s.t.Context(), sql, row, args...); err != nil {
		s.t.Fatal(err)
	}
}

// unless is an error unless ok.
func unless(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}

// pause waits for d and reports whether ctx still lives.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/trace"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/ingest/webhook"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

const (
	project = mirror.ProjectID("default")
	secret  = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
)

var down = fault.Wrap(errors.New("connection refused"), fault.Unavailable, fault.ReasonStoreUnavailable,
	"the database is not available")

// events is a store.Ledger in memory.
type events struct {
	store.Projects // what is not used here

	t      testing.TB
	mu     sync.Mutex
	stored map[string]mirror.Delivery
	pinned map[mirror.ProjectID]string
	// batches are the sizes of all batches, refused ones included.
	batches []int
	pins    int
	// replays are the sizes of all batches that were replayed.
	replays []int
	looks   int
	// locked are the rooms whose states another session has locked.
	locked map[mirror.RoomID]bool
	// away are the rooms whose shard does not answer.
	away map[mirror.RoomID]bool
	// accept, if set, is asked before a batch is stored.
	accept func(ctx context.Context, batch []mirror.Delivery) error
	// pin, if set, is asked before the pinned project is read; pins counts the reads.
	pin func(ctx context.Context) error
	// foreign are the projects of events that were set aside.
	foreign []string
	// erasing is the id of an event that is erased when a replay has read it.
	erasing string
}

func (e *events) Accept(ctx context.Context, batch []mirror.Delivery) ([]store.Accepted, error) {
	e.mu.Lock()
	e.batches = append(e.batches, len(batch))
	ask := e.accept
	waits := slices.ContainsFunc(batch, func(d mirror.Delivery) bool { return e.locked[d.Event.Room] })
	e.mu.Unlock()
	if waits {
		if err := clock.Sleep(ctx, store.LockWait); err != nil {
			return nil, err
		}
	}
	if ask != nil {
		if err := ask(ctx, batch); err != nil {
			return nil, err
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	answers := make([]store.Accepted, len(batch))
	once := map[string]bool{}
	for i, a := range batch {
		if once[a.Event.ID] {
			e.t.Errorf("a batch holds event %s twice", a.Event.ID)
		}
		once[a.Event.ID] = true
		if e.locked[a.Event.Room] {
			answers[i] = store.Accepted{Locked: true}
			continue
		}
		if e.away[a.Event.Room] {
			answers[i] = store.Accepted{Err: down}
			continue
		}
		first, known := e.stored[a.Event.ID]
		if !known {
			e.stored[a.Event.ID], first = a, a
		}
		answers[i] = store.Accepted{Fresh: !known, Outcome: first.Event.Outcome}
		for _, h := range a.Invalidations {
			answers[i].Pending = append(answers[i].Pending, mirror.Pending{Resource: h.Resource, Generation: 1})
		}
	}
	return answers, nil
}

func (e *events) Project(ctx context.Context, project mirror.ProjectID) (mirror.Project, error) {
	e.mu.Lock()
	e.pins++
	ask := e.pin
	e.mu.Unlock()
	if ask != nil {
		if err := ask(ctx); err != nil {
			return mirror.Project{}, err
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return mirror.Project{ID: project, LiveblocksID: e.pinned[project]}, nil
}

func (e *events) PinProject(_ context.Context, project mirror.ProjectID, id string) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.pinned[project] == "" {
		e.pinned[project] = id
	}
	return e.pinned[project], nil
}

func (e *events) RepinProject(_ context.Context, project mirror.ProjectID, id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pinned[project] = id
	return nil
}

func (e *events) NoteForeign(_ context.Context, _ mirror.ProjectID, foreign mirror.ForeignEvents) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.foreign = append(e.foreign, foreign.LiveblocksID)
	return nil
}

func (e *events) TakeUp(_ context.Context, batch []mirror.Delivery) (pending []mirror.Pending, _ error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, d := range batch {
		if e.stored[d.Event.ID].Event.Outcome != mirror.OutcomeForeignProject {
			continue
		}
		e.stored[d.Event.ID] = d
		for _, h := range d.Invalidations {
			pending = append(pending, mirror.Pending{Resource: h.Resource, Generation: 1})
		}
	}
	return pending, nil
}

func (e *events) Event(_ context.Context, _ mirror.ProjectID, id string) (mirror.Event, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	d, ok := e.stored[id]
	if !ok {
		return mirror.Event{}, store.ErrNotFound
	}
	return d.Event, nil
}

// erase sets what is stored as the body of an event.
func (e *events) erase(id, payload string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	d := e.stored[id]
	d.Event.Payload = []byte(payload)
	e.stored[id] = d
}

func (e *events) Replay(_ context.Context, batch []mirror.Delivery, _ time.Time) (pending []mirror.Pending, n int,
	_ error,
) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.replays = append(e.replays, len(batch))
	for _, d := range batch {
		if e.erasing == d.Event.ID { // between the read and this
			continue
		}
		n++
		for _, h := range d.Invalidations {
			pending = append(pending, mirror.Pending{Resource: h.Resource, Generation: 2})
		}
	}
	return pending, n, nil
}

func (e *events) EventOf(ctx context.Context, p mirror.ProjectID, _ mirror.RoomID, id string) (mirror.Event, error) {
	return e.Event(ctx, p, id)
}

func (e *events) Events(ctx context.Context, f store.EventFilter) (list []mirror.Event, _ error) {
	if trace.SpanContextFromContext(ctx).IsValid() {
		e.t.Error("a replay reads its events in a trace; want none, as they may be thousands")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.looks++
	order := func(a, b mirror.Event) int {
		if c := b.ReceiveTime.Compare(a.ReceiveTime); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	}
	after := mirror.Event{ReceiveTime: f.AfterTime, ID: f.AfterID}
	for _, d := range e.stored {
		if ev := d.Event; f.Rooms.Select(ev.Room) && (f.AfterID == "" || order(ev, after) > 0) {
			if f.NoPayload {
				ev.Payload = nil
			}
			list = append(list, ev)
		}
	}
	slices.SortFunc(list, order)
	return list[:min(f.Limit, len(list))], nil
}

// lock locks or unlocks the states of a room.
func (e *events) lock(room mirror.RoomID, locked bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.locked[room] = locked
}

func (e *events) sizes() []int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]int(nil), e.batches...)
}

// bench is a ledger on a store in memory, in a bubble.
type bench struct {
	*testing.T
	events *events
	log    bytes.Buffer
	cfg    Config

	mu      sync.Mutex
	pending []mirror.Pending
	// replayed became stale by replays.
	replayed []mirror.Pending
	failed   int
}

func bubble(t *testing.T, test func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{
			T: t,
			events: &events{
				t: t, stored: map[string]mirror.Delivery{}, pinned: map[mirror.ProjectID]string{},
				locked: map[mirror.RoomID]bool{},
			},
		}
		verifier, err := webhook.NewVerifier([]webhook.Secret{{Project: project, Secret: secret}}, 5*time.Minute)
		if err != nil {
			t.Fatalf("NewVerifier = %v", err)
		}
		b.cfg = Config{
			Store: b.events, Verifier: verifier, Now: time.Now,
			Pending: func(pending []mirror.Pending) {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.pending = append(b.pending, pending...)
			},
			Replayed: func(pending []mirror.Pending) {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.replayed = append(b.replayed, pending...)
			},
			Failed: func(error) {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.failed++
			},
			Recorded: func(context.Context) {},
			Logger:   slog.New(slog.NewJSONHandler(&b.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		}
		test(b)
	})
}

// start runs the ledger; stop ends it and waits, as the end of the test does.
func (b *bench) start() (l *Ledger, stop func()) {
	l = New(b.cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }() // stop waits for it
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.Errorf("Run = %v; want nil", err)
		}
	})
	b.Cleanup(stop)
	return l, stop
}

func (b *bench) failures() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed
}

// storageUpdated is the body of an event on room i.
func storageUpdated(i int) []byte {
	return fmt.Appendf(nil,
		`{"type":"storageUpdated","data":{"projectId":"6605","roomId":"room-%d","updatedAt":"2000-01-01T00:00:00.000Z"}}`, i)
}

func signed(t testing.TB, id string, body []byte) webhook.Headers {
	t.Helper()
	now := time.Now()
	signature, err := webhook.Sign(secret, id, now, body)
	if err != nil {
		t.Fatalf("Sign = %v", err)
	}
	return webhook.Headers{ID: id, Timestamp: strconv.FormatInt(now.Unix(), 10), Signature: signature}
}

// answer is what a call of Receive came to.
type answer struct {
	receipt Receipt
	err     error
}

// receive delivers in the background.
func (b *bench) receive(ctx context.Context, l *Ledger, id string, body []byte) <-chan answer {
	b.Helper()
	h := signed(b, id, body)
	out := make(chan answer, 1)
	go func() { // whoever receives waits for it
		r, err := l.Receive(ctx, "", h, body)
		out <- answer{r, err}
	}()
	return out
}

func (b *bench) receiveMany(l *Ledger, from, to int) []<-chan answer {
	b.Helper()
	var out []<-chan answer
	for i := from; i < to; i++ {
		out = append(out, b.receive(b.Context(), l, fmt.Sprintf("msg_%d", i), storageUpdated(i)))
	}
	synctest.Wait()
	return out
}

func (b *bench) wantAll(answers []<-chan answer, duplicate bool) {
	b.Helper()
	for i, a := range answers {
		got := <-a
		if got.err != nil || got.receipt.Duplicate != duplicate || got.receipt.Outcome != mirror.OutcomeQueued {
			b.Fatalf("answer %d = %+v, %v; want it recorded, duplicate %v", i, got.receipt, got.err, duplicate)
		}
	}
}

func (b *bench) wantPending(answers ...<-chan answer) {
	b.Helper()
	synctest.Wait()
	for i, a := range answers {
		select {
		case got := <-a:
			b.Fatalf("answer %d = %+v, %v already; want it to wait", i, got.receipt, got.err)
		default:
		}
	}
}

// blocked lets every commit wait until it is released, one by one.
func (b *bench) blocked() (release chan struct{}) {
	release = make(chan struct{})
	b.events.accept = func(ctx context.Context, _ []mirror.Delivery) error {
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return release
}

// An idle ledger commits at once; what comes while a commit is under way shares
// the next one. Nobody is answered before his own commit.
func TestGroupCommit(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		release := b.blocked()
		l, _ := b.start()
		begun := time.Now()
		first := b.receiveMany(l, 0, 1)
		others := b.receiveMany(l, 1, 41)
		if d := cmp.Diff([]int{1}, b.events.sizes()); d != "" {
			b.Fatalf("batches during the first commit (-want +got):\n%s", d)
		}
		b.wantPending(append(first, others...)...)
		release <- struct{}{}
		b.wantAll(first, false)
		b.wantPending(others...)
		release <- struct{}{}
		b.wantAll(others, false)
		if d := cmp.Diff([]int{1, 40}, b.events.sizes()); d != "" {
			b.Fatalf("batches (-want +got):\n%s", d)
		}
		if took := time.Since(begun); took != 0 {
			b.Fatalf("the ledger added a delay of %v", took)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.pending) != 82 { // storage, and the room if unknown
			b.Fatalf("resources handed to the workers = %d; want 82", len(b.pending))
		}
	})
}

func TestBatchIsBounded(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		release := b.blocked()
		l, _ := b.start()
		answers := b.receiveMany(l, 0, 1)
		answers = append(answers, b.receiveMany(l, 1, MaxBatch+102)...)
		for range 3 {
			release <- struct{}{}
		}
		b.wantAll(answers, false)
		if d := cmp.Diff([]int{1, MaxBatch, 101}, b.events.sizes()); d != "" {
			b.Fatalf("batches (-want +got):\n%s", d)
		}
	})
}

// Invariant 3: one delivery, one event, also if it comes many times at once.
func TestDuplicatesWithinABatchShareTheAnswer(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		release := b.blocked()
		l, _ := b.start()
		first := b.receiveMany(l, 0, 1)
		var same []<-chan answer
		for range 10 {
			same = append(same, b.receive(b.Context(), l, "msg_same", storageUpdated(7)))
		}
		synctest.Wait()
		release <- struct{}{}
		b.wantAll(first, false)
		release <- struct{}{}
		fresh := 0
		for _, a := range same {
			got := <-a
			if got.err != nil || got.receipt.Outcome != mirror.OutcomeQueued {
				b.Fatalf("answer = %+v, %v", got.receipt, got.err)
			}
			if !got.receipt.Duplicate {
				fresh++
			}
		}
		if fresh != 1 {
			b.Fatalf("answers that claim to be the first = %d; want 1", fresh)
		}
		close(release)
		b.wantAll([]<-chan answer{b.receive(b.Context(), l, "msg_same", storageUpdated(7))}, true)
		want := Counts{Accepted: 2, Duplicate: 10}
		if got := l.Counts(); got != want {
			b.Fatalf("Counts = %+v; want %+v", got, want)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.pending) != 5 {
			b.Fatalf("resources handed to the workers = %d; want those of two events, and once more the storage of the late "+
				"duplicate", len(b.pending))
		}
	})
}

func TestQueueFull(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		release := b.blocked()
		l, _ := b.start()
		answers := b.receiveMany(l, 0, 1)
		answers = append(answers, b.receiveMany(l, 1, 1+MaxQueue)...)
		got := <-b.receive(b.Context(), l, "msg_more", storageUpdated(0))
		f := fault.Of(got.err)
		if f.Kind != fault.Unavailable || f.Reason != fault.ReasonAcceptQueueFull || f.RetryAfter <= 0 {
			b.Fatalf("answer with a full queue = %v; want ACCEPT_QUEUE_FULL with a time to wait", got.err)
		}
		close(release)
		b.wantAll(answers, false)
		if got := <-b.receive(b.Context(), l, "msg_more", storageUpdated(0)); got.err != nil || got.receipt.Duplicate {
			b.Fatalf("answer later = %+v, %v; want it recorded", got.receipt, got.err)
		}
		if got := l.Counts(); got.Unavailable != 1 || got.Accepted != MaxQueue+2 {
			b.Fatalf("Counts = %+v", got)
		}
		if l.bytes.Load() != 0 {
			b.Fatalf("bytes counted with an empty queue = %d", l.bytes.Load())
		}
	})
}

// The bytes of deliveries count until they are out of memory, which is when
// they are committed and not when their sender hangs up.
func TestQueueIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		release := b.blocked()
		l, _ := b.start()
		big := []byte(`{"type":"storageUpdated","data":{"roomId":"r","x":"` + strings.Repeat("x", 10_000) + `"}}`)
		others := MaxQueueBytes - 16*int64(len(big)) - 1000 // as if the rest of the memory were taken
		l.bytes.Add(others)
		ctx, hangUp := context.WithCancel(b.Context())
		var gone []<-chan answer
		for i := range 16 {
			gone = append(gone, b.receive(ctx, l, fmt.Sprintf("msg_%d", i), big))
			synctest.Wait()
		}
		b.wantPending(gone...)
		hangUp()
		for _, a := range gone {
			if got := <-a; !errors.Is(got.err, context.Canceled) {
				b.Fatalf("answer to who hung up = %v; want the context's error", got.err)
			}
		}
		if got := <-b.receive(b.Context(), l, "msg_more", big); !fault.Is(got.err, fault.ReasonAcceptQueueFull) {
			b.Fatalf("answer with the memory full = %v; want ACCEPT_QUEUE_FULL", got.err)
		}
		small := b.receive(b.Context(), l, "msg_small", storageUpdated(1))
		b.wantPending(small)
		close(release)
		synctest.Wait()
		b.wantAll([]<-chan answer{small, b.receive(b.Context(), l, "msg_more", big)}, false)
		if len(b.events.stored) != 18 {
			b.Fatalf("events stored = %d; want 18, those of the senders that hung up too", len(b.events.stored))
		}
		if l.bytes.Load() != others {
			b.Fatalf("bytes counted with an empty queue = %d", l.bytes.Load()-others)
		}
	})
}

// Deliveries that need a locked row wait for it; the others are acknowledged
// meanwhile, and only the first of them wait for a moment.
func TestLockedRowHoldsUpItsDeliveriesOnly(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		l, _ := b.start()
		b.events.lock("room-0", true)
		begun := time.Now()
		held := b.receiveMany(l, 0, 1)
		first := b.receiveMany(l, 1, 3)
		b.wantPending(append(held, first...)...)
		b.wantAll(first, false)
		if took := time.Since(begun); took != store.LockWait {
			b.Fatalf("deliveries beside the first for a locked row took %v; want %v", took, store.LockWait)
		}
		begun = time.Now()
		for i := 10; i < 40; i++ {
			held = append(held, b.receive(b.Context(), l, fmt.Sprintf("msg_0_%d", i), storageUpdated(0)))
			b.wantAll(b.receiveMany(l, i, i+1), false)
		}
		if took := time.Since(begun); took != 0 {
			b.Fatalf("deliveries beside later ones for a locked row took %v; want no time", took)
		}
		b.wantPending(held...)
		if err := clock.Sleep(b.Context(), commitTimeout-time.Second); err != nil {
			b.Fatalf("Sleep = %v", err)
		}
		b.wantPending(held...)
		b.events.lock("room-0", false)
		begun = time.Now()
		b.wantAll(held, false)
		if took := time.Since(begun); took > store.LockWait {
			b.Fatalf("deliveries took %v after the release; want at most %v", took, store.LockWait)
		}
		// The row is not avoided any longer.
		b.wantAll([]<-chan answer{b.receive(b.Context(), l, "msg_after", storageUpdated(0))}, false)
		if len(l.locked) != 0 || l.bytes.Load() != 0 || b.failures() != 0 {
			b.Fatalf("locked = %v, bytes = %d, failures = %d; want none", l.locked, l.bytes.Load(), b.failures())
		}
	})
}

// A row that stays locked does not mean that the database is away. Its deliveries are
// refused before their senders give up, and are still kept apart afterwards.
func TestRowThatStaysLocked(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		l, stop := b.start()
		b.events.lock("room-0", true)
		for i := range 3 {
			begun := time.Now()
			got := <-b.receive(b.Context(), l, fmt.Sprintf("msg_0_%d", i), storageUpdated(0))
			f := fault.Of(got.err)
			if f.Kind != fault.Unavailable || f.RetryAfter <= 0 || !strings.Contains(f.Public, "lock") {
				b.Fatalf("answer = %v; want that a row is locked, with a time to wait", got.err)
			}
			if took := time.Since(begun); took < commitTimeout || took > commitTimeout+2*store.LockWait {
				b.Fatalf("answer after %v; want about %v", took, commitTimeout)
			}
			begun = time.Now()
			b.wantAll(b.receiveMany(l, 10+i, 11+i), false)
			if took := time.Since(begun); took != 0 {
				b.Fatalf("another delivery took %v; want no time", took)
			}
		}
		if b.failures() != 0 {
			b.Fatalf("the database was reported as away %d times", b.failures())
		}
		if n := strings.Count(b.log.String(), "another session holds a lock"); n != 3 {
			b.Fatalf("log names %d refused deliveries; want 3:\n%s", n, b.log.String())
		}
		// Waiting deliveries do not delay the end of the service.
		waiting := b.receive(b.Context(), l, "msg_waiting", storageUpdated(0))
		b.wantPending(waiting)
		stop()
		if got := <-waiting; !fault.Is(got.err, fault.ReasonShuttingDown) {
			b.Fatalf("answer at the end = %v; want SHUTTING_DOWN", got.err)
		}
	})
}

// Too many deliveries for locked rows take no place from others.
func TestManyDeliveriesForALockedRow(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		l, _ := b.start()
		b.events.lock("room-0", true)
		var held []<-chan answer
		for i := range maxApart + 2*MaxBatch {
			held = append(held, b.receive(b.Context(), l, fmt.Sprintf("msg_0_%d", i), storageUpdated(0)))
			if i == 0 {
				if err := clock.Sleep(b.Context(), 2*store.LockWait); err != nil {
					b.Fatalf("Sleep = %v", err)
				}
			}
		}
		synctest.Wait()
		refused := 0
		for _, h := range held {
			select {
			case got := <-h:
				if !strings.Contains(fault.Of(got.err).Public, "lock") {
					b.Fatalf("answer = %+v, %v; want that a row is locked", got.receipt, got.err)
				}
				refused++
			default:
			}
		}
		if refused == 0 || refused > 2*MaxBatch {
			b.Fatalf("refused at once = %d; want those beyond %d", refused, maxApart)
		}
		begun := time.Now()
		b.wantAll(b.receiveMany(l, 1, 2), false)
		if took := time.Since(begun); took != 0 {
			b.Fatalf("another delivery took %v; want no time", took)
		}
		b.events.lock("room-0", false)
	})
}

// A delivery the database refuses takes none of its neighbours with it.
func TestPoisonIsRefusedAlone(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		blocked := make(chan struct{})
		poison := errors.New("ERROR: program limit exceeded (SQLSTATE 54000)")
		b.events.accept = func(_ context.Context, batch []mirror.Delivery) error {
			<-blocked
			for _, a := range batch {
				if a.Event.ID == "msg_17" {
					return poison
				}
			}
			return nil
		}
		l, _ := b.start()
		first := b.receiveMany(l, 100, 101)
		answers := b.receiveMany(l, 0, 50)
		close(blocked)
		b.wantAll(first, false)
		for i, a := range answers {
			got := <-a
			switch {
			case i == 17 && (!errors.Is(got.err, poison) || fault.Of(got.err).Kind != fault.Internal):
				b.Fatalf("answer to the poison = %v; want the refusal", got.err)
			case i != 17 && (got.err != nil || got.receipt.Duplicate):
				b.Fatalf("answer %d = %+v, %v; want it recorded", i, got.receipt, got.err)
			}
		}
		if len(b.events.stored) != 50 {
			b.Fatalf("events stored = %d; want 49 and the first", len(b.events.stored))
		}
		if b.failures() != 0 {
			b.Fatal("the database was said to have failed; it did not")
		}
		if sizes := b.events.sizes(); len(sizes) != 52 {
			b.Fatalf("batches = %v; want 1, 50, then one by one", sizes)
		}
	})
}

// While the database is away everybody is told to come back, and nothing is
// tried one by one.
func TestOutageRefusesTheWholeBatch(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{
		"fault":    fmt.Errorf("accept: %w", down),
		"deadline": fmt.Errorf("accept: %w", context.DeadlineExceeded),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(b *bench) {
				blocked := make(chan struct{})
				var mu sync.Mutex
				failing := err
				b.events.accept = func(context.Context, []mirror.Delivery) error {
					<-blocked
					mu.Lock()
					defer mu.Unlock()
					return failing
				}
				l, _ := b.start()
				answers := append(b.receiveMany(l, 0, 1), b.receiveMany(l, 1, 50)...)
				close(blocked)
				for i, a := range answers {
					if got := <-a; !fault.Is(got.err, fault.ReasonStoreUnavailable) || fault.Of(got.err).Kind != fault.Unavailable {
						b.Fatalf("answer %d = %v; want STORE_UNAVAILABLE", i, got.err)
					}
				}
				if d := cmp.Diff([]int{1, 49}, b.events.sizes()); d != "" {
					b.Fatalf("batches (-want +got):\n%s", d)
				}
				if b.failures() != 2 {
					b.Fatalf("Failed called %d times; want once a commit", b.failures())
				}
				mu.Lock()
				failing = nil
				mu.Unlock()
				missed := time.Now()
				time.Sleep(time.Minute) //nolint:forbidigo // the bubble's clock
				b.wantAll(b.receiveMany(l, 0, 50), false)
				if got := l.Counts(); got.Unavailable != 50 || got.Accepted != 50 {
					b.Fatalf("Counts = %+v; want 50 refused and 50 recorded", got)
				}
				if got := l.Missed(); !got.Equal(missed) {
					b.Fatalf("Missed = %v; want the time of the refusals, %v", got, missed)
				}
			})
		})
	}
}

// Two events with one id, in rooms of different buckets, are both recorded, although they
// come at the same time.
func TestOneIDInTwoRooms(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		release := b.blocked()
		l, _ := b.start()
		first := b.receiveMany(l, 100, 101)
		synctest.Wait()
		answers := []<-chan answer{
			b.receive(b.Context(), l, "msg_1", storageUpdated(1)), b.receive(b.Context(), l, "msg_1", storageUpdated(2)),
		}
		synctest.Wait()
		close(release)
		b.wantAll(first, false)
		for i, a := range answers {
			if got := <-a; got.err != nil {
				b.Fatalf("answer %d = %v; want it recorded", i, got.err)
			}
		}
		if got := b.events.sizes(); !slices.Equal(got, []int{1, 1, 1}) {
			b.Fatalf("batches = %v; want one for each event", got)
		}
	})
}

// If one of several shards is away, only its rooms' senders come back, and the service
// stays ready for the others.
func TestShardThatIsAway(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		b.events.away = map[mirror.RoomID]bool{"room-17": true}
		release := b.blocked()
		l, _ := b.start()
		first := b.receiveMany(l, 100, 101)
		answers := b.receiveMany(l, 0, 50)
		close(release)
		b.wantAll(first, false)
		for i, a := range answers {
			got := <-a
			switch {
			case i == 17 && !fault.Is(got.err, fault.ReasonStoreUnavailable):
				b.Fatalf("answer for the shard that is away = %v; want STORE_UNAVAILABLE", got.err)
			case i != 17 && (got.err != nil || got.receipt.Duplicate):
				b.Fatalf("answer %d = %+v, %v; want it recorded", i, got.receipt, got.err)
			}
		}
		if got := l.Counts(); got.Unavailable != 1 || got.Accepted != 50 || b.failures() != 0 {
			b.Fatalf("Counts = %+v, and Failed called %d times; want one refused, and nothing said of the database", got,
				b.failures())
		}
		if !strings.Contains(b.log.String(), `"deliveries not recorded","count":1`) {
			b.Fatalf("log = %s; want it to tell of the delivery", b.log.String())
		}
		for _, want := range []struct {
			wait  time.Duration
			lines int
		}{{hintInterval - time.Second, 1}, {time.Second, 2}} {
			if err := clock.Sleep(b.Context(), want.wait); err != nil {
				b.Fatal(err)
			}
			if got := <-b.receiveMany(l, 17, 18)[0]; !fault.Is(got.err, fault.ReasonStoreUnavailable) {
				b.Fatalf("answer while the shard is away = %v; want STORE_UNAVAILABLE", got.err)
			}
			if n := b.lines("deliveries not recorded"); n != want.lines {
				b.Fatalf("lines = %d: %s; want one a minute, so %d", n, b.log.String(), want.lines)
			}
		}
		b.events.mu.Lock()
		b.events.away = nil
		b.events.mu.Unlock()
		b.wantAll(b.receiveMany(l, 17, 18), false)
		if asked := b.events.stored["msg_17"].Invalidations; len(asked) != 2 {
			b.Fatalf("the room that was away is asked for by %+v; want it not taken for known", asked)
		}
	})
}

// A database that hangs must not hang the senders: the commit has an end of its
// own, below the 10 s in which an answer goes out.
func TestHangingCommitEnds(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		b.blocked() // never released
		l, _ := b.start()
		begun := time.Now()
		got := <-b.receive(b.Context(), l, "msg_1", storageUpdated(1))
		if took := time.Since(begun); !fault.Is(got.err, fault.ReasonStoreUnavailable) || took != commitTimeout {
			b.Fatalf("answer = %v after %v; want STORE_UNAVAILABLE after %v", got.err, took, commitTimeout)
		}
		if b.failures() != 1 {
			b.Fatalf("Failed called %d times; want once", b.failures())
		}
	})
}

func TestSenderThatHangsUpUndoesNobodysCommit(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		release := b.blocked()
		l, _ := b.start()
		ctx, hangUp := context.WithCancel(b.Context())
		first := b.receive(ctx, l, "msg_first", storageUpdated(0)) // its commit is under way
		synctest.Wait()
		second := b.receive(ctx, l, "msg_second", storageUpdated(1)) // gathers
		others := b.receiveMany(l, 1, 5)
		hangUp()
		for _, a := range []<-chan answer{first, second} {
			if got := <-a; !errors.Is(got.err, context.Canceled) {
				b.Fatalf("answer to who hung up = %v; want the context's error", got.err)
			}
		}
		close(release)
		b.wantAll(others, false)
		for _, id := range []string{"msg_first", "msg_second"} {
			b.wantAll([]<-chan answer{b.receive(b.Context(), l, id, storageUpdated(0))}, true) // it was recorded
		}
	})
}

// What was taken in before the stop is committed and answered; what comes later
// is refused and so sent again.
func TestStopDrainsAndThenRefuses(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		release := b.blocked()
		l, stop := b.start()
		answers := append(b.receiveMany(l, 0, 1), b.receiveMany(l, 1, 4000)...) // eight batches
		stopped := make(chan struct{})
		go func() { stop(); close(stopped) }() // received below
		synctest.Wait()
		select {
		case <-stopped:
			b.Fatal("Run ended with deliveries waiting")
		default:
		}
		close(release)
		<-stopped
		b.wantAll(answers, false)
		got := <-b.receive(b.Context(), l, "msg_late", storageUpdated(1))
		if f := fault.Of(got.err); f.Kind != fault.Unavailable || f.Reason != fault.ReasonShuttingDown {
			b.Fatalf("answer after the stop = %v; want SHUTTING_DOWN", got.err)
		}
		if len(b.events.stored) != 4000 {
			b.Fatalf("events stored = %d; want 4,000", len(b.events.stored))
		}
	})
}

// While the pin cannot be read nothing is recorded, every sender keeps to
// his own time, and the database is known to have failed.
func TestOutageBeforeThePin(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		hang := true
		b.events.pin = func(ctx context.Context) error {
			if hang {
				<-ctx.Done()
				return fmt.Errorf("read project: %w", ctx.Err())
			}
			return nil
		}
		l, _ := b.start()
		begun := time.Now()
		var answers []<-chan answer
		for i := range 20 {
			ctx, cancel := context.WithTimeout(b.Context(), 10*time.Second)
			defer cancel()
			answers = append(answers, b.receive(ctx, l, fmt.Sprintf("msg_%d", i), storageUpdated(i)))
		}
		for _, a := range answers {
			if got := <-a; !errors.Is(got.err, context.DeadlineExceeded) {
				b.Fatalf("answer = %v; want the deadline", got.err)
			}
		}
		if took := time.Since(begun); took != 10*time.Second {
			b.Fatalf("20 senders waited %v; want 10 s each, side by side", took)
		}
		b.events.pin = func(context.Context) error { return down }
		if got := <-b.receive(b.Context(), l, "msg_1", storageUpdated(1)); !errors.Is(got.err, down) || b.failures() != 1 {
			b.Fatalf("answer = %v, Failed called %d times; want the outage told once", got.err, b.failures())
		}
		b.events.pin = nil
		b.wantAll(b.receiveMany(l, 0, 20), false)
	})
}

func TestSyncedWaitsForTheMirror(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		mirrored := make(chan struct{})
		var mu sync.Mutex
		var waited [][]mirror.Pending
		b.cfg.Wait = func(ctx context.Context, pending []mirror.Pending) error {
			mu.Lock()
			waited = append(waited, pending)
			mu.Unlock()
			select {
			case <-mirrored:
				return nil
			case <-ctx.Done():
				return fmt.Errorf("wait for the mirror: %w", context.Cause(ctx))
			}
		}
		l, _ := b.start()
		first := b.receive(b.Context(), l, "msg_1", storageUpdated(1))
		b.wantPending(first)
		duplicate := b.receive(b.Context(), l, "msg_1", storageUpdated(1))
		b.wantPending(first, duplicate) // it waits like the first
		mu.Lock()
		if len(waited) != 2 || len(waited[0]) != 2 || !cmp.Equal(waited[0][1:], waited[1]) {
			b.Fatalf("waited for %v; want room and storage, and then the storage again, the room being known", waited)
		}
		mu.Unlock()

		// What makes nothing stale has nothing to wait for.
		nothing := []byte(`{"type":"somethingNew","data":{"projectId":"6605","userId":"u"}}`)
		if got := <-b.receive(b.Context(), l, "msg_nothing", nothing); got.err != nil ||
			got.receipt.Outcome != mirror.OutcomeUnknownType {
			b.Fatalf("answer to an event without a resource = %+v, %v", got.receipt, got.err)
		}

		// Nor has what keeps an interval: it may be due only after the sender gave up.
		other := []byte(`{"type":"somethingNew","data":{"projectId":"6605","roomId":"r"}}`)
		if got := <-b.receive(b.Context(), l, "msg_other", other); got.err != nil {
			b.Fatalf("answer to an event whose resources keep an interval = %v; want it at once", got.err)
		}

		ctx, cancel := context.WithTimeout(b.Context(), 10*time.Second)
		defer cancel()
		got := <-b.receive(ctx, l, "msg_2", storageUpdated(2))
		if f := fault.Of(got.err); f.Kind != fault.Unavailable || f.Reason != fault.ReasonSyncFailed {
			b.Fatalf("answer without the mirror = %v; want SYNC_FAILED", got.err)
		}
		if _, stored := b.events.stored["msg_2"]; !stored {
			b.Fatal("the event is not recorded")
		}
		close(mirrored)
		b.wantAll([]<-chan answer{first}, false)
		b.wantAll([]<-chan answer{duplicate, b.receive(b.Context(), l, "msg_2", storageUpdated(2))}, true)
	})
}

func TestCounts(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		l, _ := b.start()
		for id, body := range map[string]string{
			"msg_ok":      `{"type":"storageUpdated","data":{"roomId":"r"}}`,
			"msg_unknown": `{"type":"somethingNew","data":{"roomId":"r"}}`,
			"msg_odd":     `[]`,
			"msg_text":    `hello`,
			"msg_id":      `{"type":"storageUpdated","data":{"roomId":"\u0000"}}`,
		} {
			if got := <-b.receive(b.Context(), l, id, []byte(body)); got.err != nil {
				b.Fatalf("answer to %s = %v; want it recorded", id, got.err)
			}
		}
		body := storageUpdated(1)
		forged := signed(b, "msg_forged", body)
		forged.Signature = "v1," + strings.Repeat("A", 43) + "="
		for _, h := range []webhook.Headers{forged, {}, {ID: "x", Timestamp: "1", Signature: "v1,x"}} {
			_, err := l.Receive(b.Context(), "", h, body)
			if fault.Of(err).Kind != fault.Unauthentic {
				b.Fatalf("Receive of a forged delivery = %v; want it unauthentic", err)
			}
		}
		if _, err := l.Receive(b.Context(), "other", signed(b, "msg_x", body),
			body); fault.Of(err).Kind != fault.Unauthentic {
			b.Fatalf("Receive for another project = %v; want it unauthentic", err)
		}
		long := strings.Repeat("x", mirror.MaxEventID+1)
		if _, err := l.Receive(b.Context(), "", signed(b, long, body), body); !fault.Is(err, fault.ReasonEventIDInvalid) {
			b.Fatalf("Receive with a long id = %v; want ID_INVALID", err)
		}
		want := Counts{Accepted: 5, UnknownType: 1, Malformed: 3, Unauthenticated: 4}
		if got := l.Counts(); got != want {
			b.Fatalf("Counts = %+v; want %+v", got, want)
		}
		if len(b.events.stored) != 5 {
			b.Fatalf("events stored = %d; want 5", len(b.events.stored))
		}
	})
}

// Each answer is told with its result, how long it took and how old the signature was, and
// each commit with its deliveries.
func TestEveryAnswerIsTold(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		var told []Answer
		var commits []int
		b.cfg.Answered = func(a Answer) { told = append(told, a) }
		b.cfg.Committed = func(n int) { commits = append(commits, n) }
		var err error
		b.events.accept = func(ctx context.Context, _ []mirror.Delivery) error {
			return errors.Join(clock.Sleep(ctx, 2*time.Second), err)
		}
		l, _ := b.start()
		known, unknown := storageUpdated(1), []byte(`{"type":"somethingNew","data":{"roomId":"r"}}`)
		first, forged := signed(b, "msg_1", known), signed(b, "msg_2", known)
		forged.Signature = "v1," + strings.Repeat("A", 43) + "="
		if err := clock.Sleep(b.Context(), 3*time.Second); err != nil {
			b.Fatal(err)
		}
		for _, d := range []struct {
			headers webhook.Headers
			body    []byte
			fails   error
		}{
			{first, known, nil},
			{first, known, nil},
			{signed(b, "msg_3", unknown), unknown, nil},
			{forged, known, nil},
			{signed(b, strings.Repeat("x", mirror.MaxEventID+1), known), known, nil},
			{signed(b, "msg_4", known), known, down},
		} {
			err = d.fails
			_, _ = l.Receive(b.Context(), "", d.headers, d.body)
		}
		took := 2 * time.Second
		want := []Answer{
			{Project: project, Result: "queued", Took: took, Age: 3 * time.Second, Fresh: true},
			{Project: project, Result: ResultDuplicate, Took: took, Age: 5 * time.Second},
			{Project: project, Result: "unknown_type", Took: took, Age: 4 * time.Second, Fresh: true},
			{Result: ResultUnauthenticated},
			{Result: ResultInvalid},
			{Project: project, Result: ResultUnavailable, Took: took, Age: 6 * time.Second},
		}
		for i := range told {
			if told[i].Project == "" {
				told[i].Age = 0 // of no account
			}
		}
		if diff := cmp.Diff(want, told); diff != "" {
			b.Errorf("told (-want +got):\n%s", diff)
		}
		if !slices.Equal(commits, []int{1, 1, 1}) {
			b.Errorf("commits = %v; want three of one delivery", commits)
		}
	})
}

// A delivery whose change could not be mirrored in time is recorded: it has a result of its
// own, it is not counted as unavailable, and the wait is no part of how long recording took.
func TestNotSyncedIsRecorded(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		var told []Answer
		b.cfg.Answered = func(a Answer) { told = append(told, a) }
		b.events.accept = func(ctx context.Context, _ []mirror.Delivery) error { return clock.Sleep(ctx, 2*time.Second) }
		fails := true
		b.cfg.Wait = func(ctx context.Context, _ []mirror.Pending) error {
			if err := clock.Sleep(ctx, 5*time.Second); err != nil || !fails {
				return err
			}
			return errors.New("not mirrored")
		}
		l, _ := b.start()
		first, body := signed(b, "msg_1", storageUpdated(1)), storageUpdated(1)
		for range 2 {
			if _, err := l.Receive(b.Context(), "", first, body); !fault.Is(err, fault.ReasonSyncFailed) {
				b.Fatalf("Receive = %v; want SYNC_FAILED", err)
			}
		}
		fails = false
		if _, err := l.Receive(b.Context(), "", signed(b, "msg_2", storageUpdated(2)), storageUpdated(2)); err != nil {
			b.Fatal(err)
		}
		took := 2 * time.Second
		want := []Answer{
			{Project: project, Result: "not_synced", Took: took, Fresh: true},
			{Project: project, Result: "not_synced", Took: took, Age: 7 * time.Second},
			{Project: project, Result: "queued", Took: took, Fresh: true},
		}
		if diff := cmp.Diff(want, told); diff != "" {
			b.Errorf("told (-want +got):\n%s", diff)
		}
		if c := l.Counts(); c.Unavailable != 0 || c.Accepted != 2 || !l.Missed().IsZero() {
			b.Errorf("Counts = %+v, missed at %v; want nothing unavailable", c, l.Missed())
		}
	})
}

// Invariant 2: what is recorded is what was signed, byte for byte.
func TestPayloadIsKeptByteForByte(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		l, _ := b.start()
		body := []byte(" {\"type\" : \"storageUpdated\",\r\n" +
			" \"data\":{\"roomId\":\"r\\u00f6m\", \"n\":1e400, \"x\":\"\\ud800\"} } ")
		at := time.Now()
		got := <-b.receive(b.Context(), l, "msg_1", body)
		if got.err != nil || got.receipt.EventID != "msg_1" {
			b.Fatalf("answer = %+v, %v", got.receipt, got.err)
		}
		ev := b.events.stored["msg_1"].Event
		if !bytes.Equal(ev.Payload, body) || ev.Room != "röm" || ev.Project != project || !ev.ReceiveTime.Equal(at) ||
			ev.SendTime.Unix() != at.Unix() {
			b.Fatalf("event = %+v", ev)
		}
	})
}

// Invariant 14, in the worst case: everything that can fail has failed, at the
// lowest level of logging.
func TestNothingSecretIsLogged(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		b.cfg.Wait = func(context.Context, []mirror.Pending) error { return errors.New("no") }
		l, _ := b.start()
		body := []byte(`{"type":"storageUpdated","data":{"projectId":"6605","roomId":"room-1","x":"PAYLOADMARK"}}`)
		h := signed(b, "msg_1", body)
		var texts []string
		try := func(h webhook.Headers) {
			if _, err := l.Receive(b.Context(), "", h, body); err != nil {
				texts = append(texts, err.Error(), fault.Of(err).Public, fmt.Sprintf("%+v", err))
			}
		}
		try(h)
		b.events.accept = func(context.Context, []mirror.Delivery) error { return down }
		try(h)
		b.events.accept = func(context.Context, []mirror.Delivery) error { return errors.New("refused") }
		try(h)
		forged := h
		forged.Signature = "v1,FORGEDMARK" + strings.Repeat("A", 33) + "="
		try(forged)
		old := signed(b, "msg_2", body)
		old.Timestamp = "1"
		try(old)
		if len(texts) != 15 {
			b.Fatalf("failures = %d; want all five to fail", len(texts)/3)
		}
		all := strings.Join(append(texts, b.log.String()), "\n")
		if !strings.Contains(b.log.String(), "deliveries not recorded") {
			b.Fatalf("log = %s; want the outage in it", b.log.String())
		}
		for _, s := range []string{
			"PAYLOADMARK", strings.TrimPrefix(secret, "whsec_"),
			strings.TrimPrefix(h.Signature, "v1,"), "FORGEDMARK",
		} {
			if strings.Contains(all, s) {
				b.Fatalf("%q is in a log line or an error:\n%s", s, all)
			}
		}
	})
}

// The vectors are signed by the vendor's own library.
func TestSignedVectorsAreRecorded(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../webhook/testdata/signed-vectors.json")
	if err != nil {
		t.Fatalf("ReadFile = %v", err)
	}
	var vectors []struct{ Name, Secret, ID, Timestamp, Body, Signature string }
	if err := json.Unmarshal(raw, &vectors); err != nil {
		t.Fatalf("Unmarshal = %v", err)
	}
	if len(vectors) != 20 {
		t.Fatalf("vectors = %d; want 20", len(vectors))
	}
	bubble(t, func(b *bench) {
		seconds, err := strconv.ParseInt(vectors[0].Timestamp, 10, 64)
		if err != nil {
			b.Fatalf("timestamp = %v", err)
		}
		now := time.Unix(seconds, 0).Add(time.Minute)
		b.cfg.Now = func() time.Time { return now }
		l, _ := b.start()
		for _, v := range vectors {
			if v.Secret != secret || v.Timestamp != vectors[0].Timestamp {
				b.Fatalf("vector %s is made with another secret or time", v.Name)
			}
			h := webhook.Headers{ID: v.ID, Timestamp: v.Timestamp, Signature: v.Signature}
			receipt, err := l.Receive(b.Context(), project, h, []byte(v.Body))
			if err != nil || receipt.Duplicate || receipt.EventID != v.ID {
				b.Fatalf("Receive %s = %+v, %v; want it recorded", v.Name, receipt, err)
			}
			ev := b.events.stored[v.ID].Event
			if string(ev.Payload) != v.Body || !strings.HasPrefix(v.Name, ev.Type) || ev.Type == "" ||
				ev.Outcome == mirror.OutcomeMalformed || ev.Outcome == mirror.OutcomeUnknownType {
				b.Fatalf("event of %s = %+v", v.Name, ev)
			}
		}
		if got := l.Counts(); got != (Counts{Accepted: 20}) {
			b.Fatalf("Counts = %+v; want 20 recorded", got)
		}
	})
}

// A room that has a state is not asked for again with every edit of what is in
// it; a batch that was not recorded teaches nothing.
func TestKnownRoomsAreNotAskedForAgain(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		var asked []int
		down := fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "down")
		var outage error = down
		b.events.accept = func(_ context.Context, batch []mirror.Delivery) error {
			for _, a := range batch {
				asked = append(asked, len(a.Invalidations))
			}
			return outage
		}
		l, _ := b.start()
		if got := <-b.receive(b.Context(), l, "msg_0", storageUpdated(1)); !errors.Is(got.err, down) {
			b.Fatalf("answer = %v; want the outage", got.err)
		}
		outage = nil
		for _, id := range []string{"msg_0", "msg_1", "msg_2"} {
			b.wantAll([]<-chan answer{b.receive(b.Context(), l, id, storageUpdated(1))}, false)
		}
		b.wantAll([]<-chan answer{b.receive(b.Context(), l, "msg_3", storageUpdated(2))}, false)
		if d := cmp.Diff([]int{2, 2, 1, 1, 2}, asked); d != "" {
			b.Fatalf("hints handed to the store, by delivery (-want +got):\n%s", d)
		}
	})
}

package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

var concurrencyCases = []testCase{
	{"one resource is claimed by one", claimRace},
	{"4,000 tasks are claimed once each", claimAll},
	{"overlapping batches get through", overlappingBatches},
	{"nothing parked sleeps for ever", parkRace},
	{"nothing parked sleeps for ever where the room was never heard of", parkRaceUnknown},
	{"one of two applies under one token wins", applyRace},
	{"deletion against what is in the room", tombstoneRace},
	{"the mirror converges", converge},
}

func claimRace(e *env) {
	stores := []store.Store{e.Store, e.another()}
	for round := range 20 {
		r := storageOf(mirror.RoomID(fmt.Sprintf("room-%d", round)))
		e.raise(r)
		var won atomic.Int64
		parallel(8, func(i int) {
			_, err := stores[i%2].Claim(e.ctx(), r, newToken(), e.now, leaseTTL)
			switch {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, store.ErrNotDue):
				e.Errorf("Claim = %v; want %v", err, store.ErrNotDue)
			}
		})
		if won.Load() != 1 {
			e.Fatalf("%d of 8 claimed one resource; want 1", won.Load())
		}
	}
}

func claimAll(e *env) {
	const tasks, workers = 4000, 16
	stores := []store.Store{e.Store, e.another()}
	for b := range 8 {
		var batch []mirror.Delivery
		for i := range tasks / 8 {
			batch = append(batch, e.delivery(invalidatedAt(storageOf(mirror.RoomID(fmt.Sprintf("room-%d", b*tasks/8+i))))))
		}
		e.accept(batch...)
	}
	var mu sync.Mutex
	claimed := make(map[mirror.Resource]int)
	parallel(workers, func(w int) {
		s := stores[w%2]
		rng := rand.New(rand.NewPCG(uint64(w), 2))
		for {
			list, err := s.Due(e.ctx(), lookAt(project, e.now, 500))
			if err != nil {
				e.Errorf("Due = %v; want no error", err)
				return
			}
			if len(list.Resources) == 0 {
				return
			}
			// All see the same list, so everyone begins somewhere else.
			rng.Shuffle(len(list.Resources), func(i, j int) {
				list.Resources[i], list.Resources[j] = list.Resources[j], list.Resources[i]
			})
			for _, r := range list.Resources[:min(60, len(list.Resources))] {
				_, err := s.Claim(e.ctx(), r.Resource, newToken(), e.now, leaseTTL)
				if errors.Is(err, store.ErrNotDue) {
					continue
				}
				if err != nil {
					e.Errorf("Claim = %v; want no error", err)
					return
				}
				mu.Lock()
				claimed[r.Resource]++
				mu.Unlock()
			}
		}
	})
	for r, n := range claimed {
		if n != 1 {
			e.Fatalf("storage of room %q was claimed %d times; want once", r.Room, n)
		}
	}
	if len(claimed) != tasks {
		e.Fatalf("%d tasks were claimed; want %d", len(claimed), tasks)
	}
}

func overlappingBatches(e *env) {
	const writers, batches, rooms, events = 8, 12, 12, 60
	stores := []store.Store{e.Store, e.another()}
	// Every batch is about nearly all rooms, so that batches overlap in events and in
	// rooms, in any order.
	pool := make([]mirror.Delivery, events)
	for i := range pool {
		id := mirror.RoomID(fmt.Sprintf("room-%d", i*7%rooms))
		pool[i] = e.delivery(mirror.Invalidation{Resource: roomOf(id), IfUnknown: i%3 == 0},
			invalidatedAt(storageOf(id)), invalidatedAt(ydocOf(id)))
	}
	var fresh [events]atomic.Int64
	parallel(writers, func(w int) {
		rng := rand.New(rand.NewPCG(uint64(w), 3))
		for range batches {
			var batch []mirror.Delivery
			picked := rng.Perm(events)[:20]
			for _, i := range picked {
				batch = append(batch, pool[i])
			}
			answers, err := Accept(e.ctx(), stores[w%2], batch)
			if err != nil {
				e.Errorf("Accept = %v; want no error", err)
				return
			}
			for k, i := range picked {
				if answers[k].Fresh {
					fresh[i].Add(1)
				}
			}
		}
	})
	for i := range fresh {
		if n := fresh[i].Load(); n > 1 {
			e.Fatalf("event %d was fresh %d times; want at most once", i, n)
		}
	}
	for i, got := range e.accept(pool...) {
		if n := fresh[i].Load(); got.Fresh != (n == 0) {
			e.Fatalf("event %d at last is fresh = %t, and was so %d times before", i, got.Fresh, n)
		}
	}
	list, err := e.Events(e.ctx(), store.EventFilter{Project: project, Limit: 1000})
	e.must("Events", err)
	if len(list) != events {
		e.Fatalf("events = %d; want %d", len(list), events)
	}
}

func parkRace(e *env)        { raceParks(e, true) }
func parkRaceUnknown(e *env) { raceParks(e, false) }

// raceParks parks children while their rooms are being mirrored. Where the room
// is not known, its event comes at the same time.
func raceParks(e *env, known bool) {
	const rooms = 60
	other := e.another()
	var late, early int
	for i := range rooms {
		id := mirror.RoomID(fmt.Sprintf("room-%d", i))
		e.raise(storageOf(id))
		if known {
			e.raise(roomOf(id))
		}
		child := e.claim(storageOf(id))
		delivery := e.delivery(invalidatedAt(roomOf(id)))
		delay := time.Duration(i%6) * 200 * time.Microsecond
		parallel(2, func(n int) {
			if n == 0 {
				e.spend(delay)
				if _, err := e.Park(e.ctx(), child, e.now); err != nil {
					e.Errorf("Park = %v; want no error", err)
				}
				return
			}
			if !known {
				if _, err := Accept(e.ctx(), other, []mirror.Delivery{delivery}); err != nil {
					e.Errorf("Accept = %v; want no error", err)
				}
			}
			lease, err := other.Claim(e.ctx(), roomOf(id), newToken(), e.now, leaseTTL)
			if err == nil {
				_, err = other.ApplyRoom(e.ctx(), lease, e.roomContent(`{}`), e.now, 0)
			}
			if err != nil {
				e.Errorf("Claim and ApplyRoom = %v; want no error", err)
			}
		})
		// Once the room has nothing more to do, the child has to be awake.
		for e.task(roomOf(id)).State != mirror.TaskDone {
			e.applyRoom(e.claim(roomOf(id)), e.roomContent(`{}`))
			late++
		}
		e.wantState(storageOf(id), mirror.TaskPending)
		if lease := e.claim(storageOf(id)); lease.Epoch != 1 {
			e.Fatalf("lease = %+v; want epoch 1", lease)
		} else if lease.Generation > 1 {
			early++
		}
	}
	e.Logf("of %d children %d were raised by the room, and %d rooms were woken by a child", rooms, early, late)
}

// spend lets time pass, unless the case ends.
func (e *env) spend(d time.Duration) {
	_ = clock.Sleep(e.ctx(), d) // the case finds out by itself
}

func applyRace(e *env) {
	other := e.another()
	e.mirrorRoom("room", e.roomContent(`{}`))
	for round := range 10 {
		for _, r := range []mirror.Resource{storageOf("room"), roomOf("room")} {
			e.raise(r)
			lease := e.claim(r)
			before := e.lastChange(r.Bucket())
			var won atomic.Int64
			parallel(4, func(i int) {
				s := []store.Store{e.Store, other}[i%2]
				body := fmt.Sprintf(`{"round":%d,"by":%d}`, round, i)
				var err error
				if r.Kind == mirror.KindRoom {
					_, err = s.ApplyRoom(e.ctx(), lease, e.roomContent(body), e.now, 0)
				} else {
					_, err = s.ApplyDocument(e.ctx(), lease, e.documentContent(body), e.now, 0)
				}
				switch {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, store.ErrLeaseLost):
					e.Errorf("Apply = %v; want %v", err, store.ErrLeaseLost)
				}
			})
			if won.Load() != 1 || e.lastChange(r.Bucket()) != before+1 {
				e.Fatalf("%d of 4 applied under one token and wrote %d changes; want one", won.Load(),
					e.lastChange(r.Bucket())-before)
			}
		}
	}
}

// tombstoneRace deletes rooms while their documents are applied. Either the
// document was first, and is buried with the room, or it was refused.
func tombstoneRace(e *env) {
	other := e.another()
	var applied, refused int
	for i := range 60 {
		id := mirror.RoomID(fmt.Sprintf("room-%d", i))
		e.mirrorBoth(id)
		e.raise(storageOf(id))
		e.raiseDeleted(id)
		child, room := e.claim(storageOf(id)), e.claim(roomOf(id))
		var errDoc, errRoom error
		delay := time.Duration(i/2%10) * 100 * time.Microsecond
		parallel(2, func(n int) {
			if n == i%2 {
				e.spend(delay)
			}
			if n == 0 {
				_, errDoc = e.ApplyDocument(e.ctx(), child, e.documentContent(`{"late":true}`), e.now, settle)
				return
			}
			_, errRoom = other.ApplyMissing(e.ctx(), room, e.failure(), settle)
		})
		e.must("ApplyMissing", errRoom)
		want := `{"late":true}`
		switch {
		case errDoc == nil:
			applied++
		case errors.Is(errDoc, store.ErrEpochChanged):
			want = `{"a":1}`
			refused++
		default:
			e.Fatalf("ApplyDocument = %v; want nothing or %v", errDoc, store.ErrEpochChanged)
		}
		e.wantNoDocument(storageOf(id))
		buried, err := e.Document(e.ctx(), storageOf(id), true)
		e.must("Document, deleted or not", err)
		if string(buried.Content) != want {
			e.Fatalf("document of the tombstone = %s; want %s", buried.Content, want)
		}
		e.wantState(storageOf(id), mirror.TaskDone)
	}
	e.Logf("%d documents were applied before the deletion, %d refused after it", applied, refused)
}

// source plays Liveblocks: rooms that come, change and go, with a document each,
// and a thread that does so too.
type source struct {
	mu    sync.Mutex
	rooms map[mirror.RoomID]sourceRoom
}

type sourceRoom struct {
	lives    bool
	born     time.Time
	version  int
	document int
	// thread is its version, below zero if it is deleted.
	thread int
}

// threads are what the list of threads shows.
func (r sourceRoom) threads() []mirror.Thread {
	if r.thread <= 0 {
		return nil
	}
	return []mirror.Thread{threadIn("th", r.thread, commentIn("cm", r.thread))}
}

func (s *source) get(id mirror.RoomID) sourceRoom {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rooms[id]
}

// converge runs workers of two replicas against a source that goes on changing.
// Events are delivered twice, out of order and late, leases end in the middle,
// and fetches fail; when the source is quiet and the queue is empty, the mirror
// equals it. All the while no copy is older than one that was there before.
func converge(e *env) {
	const rounds, rooms, writers, changes, workers = 6, 4, 3, 15, 6
	start := e.now
	stores := []store.Store{e.Store, e.another()}
	src := &source{rooms: make(map[mirror.RoomID]sourceRoom)}
	id := func(i int) mirror.RoomID { return mirror.RoomID(fmt.Sprintf("room-%d", i)) }

	// The clock moves with every look, by more than a lease now and then.
	var ticks atomic.Int64
	clock := func() time.Time { return start.Add(time.Duration(ticks.Add(1)) * time.Second) }

	var writing, serial atomic.Int64
	write := func(w int, rng *rand.Rand) {
		defer writing.Add(-1)
		var held []mirror.Delivery
		deliver := func(batch []mirror.Delivery) {
			if _, err := Accept(e.ctx(), stores[w%2], batch); err != nil {
				e.Errorf("Accept = %v; want no error", err)
			}
		}
		for range changes {
			e.spend(time.Duration(rng.IntN(3)) * time.Millisecond)
			room := id(rng.IntN(rooms))
			now := clock()
			var invalidations []mirror.Invalidation
			src.mu.Lock()
			r := src.rooms[room]
			switch n := rng.IntN(10); {
			case !r.lives:
				r = sourceRoom{
					lives: true, born: now, version: r.version + 1, document: r.document + 1,
					thread: max(r.thread, -r.thread) + 1,
				}
				invalidations = []mirror.Invalidation{invalidatedAt(roomOf(room)), invalidatedAt(storageOf(room))}
			case n == 0:
				r.lives = false
				invalidations = []mirror.Invalidation{{Resource: roomOf(room), Deleted: true}}
			case n < 3:
				r.version++
				invalidations = []mirror.Invalidation{invalidatedAt(roomOf(room))}
			case n == 3:
				r.thread = -max(r.thread, -r.thread)
				invalidations = []mirror.Invalidation{
					{Resource: roomOf(room), IfUnknown: true},
					{Resource: threadOf(room, "th"), Deleted: true},
				}
			case n == 4:
				r.thread = max(r.thread, -r.thread) + 1
				invalidations = []mirror.Invalidation{
					{Resource: roomOf(room), IfUnknown: true},
					invalidatedAt(threadOf(room, "th")),
				}
			case n == 5:
				invalidations = []mirror.Invalidation{{Resource: roomOf(room), IfUnknown: true}, invalidatedAt(threadOf(room, ""))}
			default:
				r.document++
				invalidations = []mirror.Invalidation{{Resource: roomOf(room), IfUnknown: true}, invalidatedAt(storageOf(room))}
			}
			src.rooms[room] = r
			src.mu.Unlock()
			a := mirror.Delivery{Invalidations: invalidations, Event: mirror.Event{
				Project: project, ID: fmt.Sprintf("change_%d", serial.Add(1)), Room: room, Outcome: mirror.OutcomeQueued,
				SendTime: now, ReceiveTime: now, SourceTime: now,
			}}
			held = append(held, a)
			if rng.IntN(3) == 0 { // late and shuffled, and some of it twice
				rng.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
				deliver(held)
				held = held[:rng.IntN(2)*len(held)/2]
			}
		}
		deliver(held)
	}

	var fetches, lost, epochs, parked atomic.Int64
	step := func(s store.Store, rng *rand.Rand, r mirror.Resource) error {
		lease, err := s.Claim(e.ctx(), r, newToken(), clock(), 20*time.Second)
		if err != nil {
			return err
		}
		if r.Kind != mirror.KindRoom && (lease.Epoch == 0 || lease.Gone) {
			parked.Add(1)
			_, err = s.Park(e.ctx(), lease, clock())
			return err
		}
		fetchTime := clock()
		got := src.get(r.Room)
		fetches.Add(1)
		if rng.IntN(8) == 0 {
			ticks.Add(30) // slow: the lease has ended, and maybe somebody else has it
		}
		e.spend(time.Duration(rng.IntN(3)) * time.Millisecond)
		if rng.IntN(10) == 0 {
			now := clock()
			_, err = s.Fail(e.ctx(), lease, store.Failure{Now: now, NotBefore: now.Add(5 * time.Second), Cause: "made up"})
			return err
		}
		now := clock()
		switch {
		case !got.lives:
			_, err = s.ApplyMissing(e.ctx(), lease, store.Failure{
				Now: now, NotBefore: now.Add(5 * time.Second),
				Cause: "not found",
			}, settle)
		case r.Kind == mirror.KindRoom:
			_, err = s.ApplyRoom(e.ctx(), lease, mirror.RoomContent{
				FetchTime: fetchTime, CreateTime: got.born, Source: fmt.Appendf(nil, `{"version":%d}`, got.version),
			}, now, settle)
		case r.Kind == mirror.KindThread && r.ID == "":
			_, err = applyThreads(e.ctx(), s, lease, fetchTime, got.threads(), now, settle)
		case r.Kind == mirror.KindThread && got.thread <= 0:
			_, err = s.ApplyItemMissing(e.ctx(), lease, now, settle)
		case r.Kind == mirror.KindThread:
			_, err = s.ApplyItem(e.ctx(), lease, store.ThreadItem(got.threads()[0]), fetchTime, now, settle)
		default:
			_, err = s.ApplyDocument(e.ctx(), lease, mirror.DocumentContent{
				FetchTime: fetchTime, Content: fmt.Appendf(nil, `{"document":%d}`, got.document), DeriveVersion: 1,
			}, now, settle)
		}
		if errors.Is(err, store.ErrEpochChanged) {
			epochs.Add(1)
			_, err = s.Fail(e.ctx(), lease, store.Failure{
				Now: now, NotBefore: now, Uncounted: true,
				Cause: "another incarnation",
			})
		}
		return err
	}
	work := func(w int, rng *rand.Rand) {
		s := stores[w%2]
		for e.ctx().Err() == nil {
			quiet := writing.Load() == 0 // asked before looking: what is written is then all there
			list, err := s.Due(e.ctx(), lookAt(project, clock(), 3))
			if err != nil {
				e.Errorf("Due = %v; want no error", err)
				return
			}
			if len(list.Resources) == 0 {
				if quiet && list.Next.IsZero() {
					return
				}
				e.spend(time.Millisecond)
				continue
			}
			switch err := step(s, rng, list.Resources[rng.IntN(len(list.Resources))].Resource); {
			case errors.Is(err, store.ErrLeaseLost):
				lost.Add(1)
			case err != nil && !errors.Is(err, store.ErrNotDue):
				e.Errorf("step = %v; want no error", err)
				return
			}
		}
	}
	newest := make(map[mirror.RoomID]int)
	revision := make(map[mirror.RoomID]int64)
	read := func() {
		for i := 0; writing.Load() > 0; i++ {
			room := id(i % rooms)
			doc, err := stores[i%2].Document(e.ctx(), storageOf(room), false)
			if errors.Is(err, store.ErrNotFound) {
				continue
			}
			var version int
			if err == nil {
				_, err = fmt.Sscanf(string(doc.Content), `{"document":%d}`, &version)
			}
			if err != nil {
				e.Errorf("Document = %q, %v; want no error", doc.Content, err)
				return
			}
			if version < newest[room] || doc.Freshness.Revision < revision[room] {
				e.Errorf("document of %s went from version %d, revision %d to %d, %d; want it never to go back",
					room, newest[room], revision[room], version, doc.Freshness.Revision)
				return
			}
			newest[room], revision[room] = version, doc.Freshness.Revision
		}
	}
	for round := range rounds {
		writing.Store(writers)
		parallel(writers+workers+1, func(i int) {
			rng := rand.New(rand.NewPCG(uint64(round), uint64(i)))
			switch {
			case i < writers:
				write(i, rng)
			case i < writers+workers:
				work(i, rng)
			default:
				read()
			}
		})
		e.wantMirrorOf(src)
	}
	e.Logf("%d changes, %d fetches, %d leases lost, %d incarnations over, %d parked",
		serial.Load(), fetches.Load(), lost.Load(), epochs.Load(), parked.Load())
}

// wantMirrorOf compares the mirror with a source that is quiet.
func (e *env) wantMirrorOf(src *source) {
	e.Helper()
	for id, want := range src.rooms {
		room, err := e.Room(e.ctx(), roomOf(id), false)
		if !want.lives {
			if err == nil && room.Freshness.MissingSince.IsZero() {
				e.Fatalf("%s is gone at the source and neither deleted nor missing in the mirror: %+v", id, room)
			}
			continue
		}
		e.must("Room", err)
		doc := e.document(storageOf(id))
		got := []string{string(room.Source), room.CreateTime.Format(time.RFC3339Nano), string(doc.Content)}
		e.want("the mirror of "+string(id), got, []string{
			fmt.Sprintf(`{"version":%d}`, want.version), want.born.Format(time.RFC3339Nano),
			fmt.Sprintf(`{"document":%d}`, want.document),
		})
		t, err := e.Thread(e.ctx(), threadOf(id, "th"), false)
		switch {
		case want.thread > 0:
			e.must("Thread", err)
			e.want("the thread of "+string(id), string(t.Source), string(want.threads()[0].Source))
			e.want("its comments", e.tables(threadOf(id, "th")).parts(), storedOf(want.threads()[0]).parts())
		case err == nil && t.Freshness.MissingSince.IsZero():
			e.Fatalf("the thread of %s is gone at the source and neither deleted nor missing in the mirror: %+v", id, t)
		}
		if room.Freshness.Stale || t.Freshness.Stale || doc.Freshness.Stale {
			e.Fatalf("%s = %+v, %+v, %+v; want nothing stale when the queue is empty", id, room.Freshness, doc.Freshness,
				t.Freshness)
		}
	}
}

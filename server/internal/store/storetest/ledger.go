package storetest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

var ledgerCases = []testCase{
	{"event is read back as it was given", eventRoundTrip},
	{"payload is kept byte for byte", eventPayload},
	{"times are kept to the microsecond in UTC", eventTimes},
	{"event of unknown make is recorded", eventWithoutHints},
	{"empty batch is fine", acceptNothing},
	{"duplicate writes nothing", acceptDuplicate},
	{"duplicate reports generations of now", duplicateGenerations},
	{"one id in two projects is two events", eventsByProject},
	{"one id in two rooms is two events", eventsByRoom},
	{"concurrent duplicates are one event", concurrentDuplicates},
	{"answers come in the order of the batch", acceptOrder},
	{"several events on one resource in one batch", oneResourceOneBatch},
	{"batch of 500", acceptLargeBatch},
	{"event that is refused is reported", acceptRefused},
	{"raised resource is due at once", raisedIsDue},
	{"raised resource waits for its backoff", raisedKeepsBackoff},
	{"failed resource is revived", raisedRevives},
	{"hint may only want the resource known", hintIfUnknown},
	{"minimal interval is kept", hintMinInterval},
	{"minimal interval is kept by what comes in during a fetch", hintMinIntervalLeased},
	{"source time never goes back", sourceTime},
	{"odd ids stay apart", oddEventIDs},
}

func eventRoundTrip(e *env) {
	a := e.delivery(invalidatedAt(storageOf("room")))
	a.Event.User, a.Event.LiveblocksProject, a.Event.Outcome = "user ", "6605A", mirror.OutcomeUnknownType
	a.Event.Thread, a.Event.Secret = "th_1 ", "5ec4e7aa"
	a.Event.SendTime, a.Event.SourceTime = e.now.Add(-time.Second), e.now.Add(-time.Hour)
	e.want("Accept", e.accept(a), []store.Accepted{{
		Fresh: true, Outcome: mirror.OutcomeUnknownType,
		Pending: []mirror.Pending{{Resource: storageOf("room"), Generation: 1}},
	}})
	got, err := e.Event(e.ctx(), project, a.Event.ID)
	e.must("Event", err)
	e.want("Event", got, a.Event)

	bare := mirror.Delivery{Event: mirror.Event{
		Project: project, ID: "x", ReceiveTime: e.now, SendTime: e.now,
		Outcome: mirror.OutcomeMalformed,
	}}
	e.accept(bare)
	got, err = e.Event(e.ctx(), project, "x")
	e.must("Event", err)
	e.want("Event with nothing in it", got, bare.Event)
	if !got.SourceTime.IsZero() {
		e.Fatalf("SourceTime = %v; want none", got.SourceTime)
	}
	_, err = e.Event(e.ctx(), project, "y")
	e.wantErr("Event never seen", err, store.ErrNotFound)
}

func eventPayload(e *env) {
	noise := make([]byte, 1<<20)
	rng := rand.NewChaCha8([32]byte{7})
	_, _ = rng.Read(noise) // never fails
	payloads := [][]byte{
		nil,
		{},
		{0},
		[]byte("a\x00b"),
		{0xff, 0xfe, 0x80},
		[]byte(" {\r\n}\t"), []byte("\xef\xbb\xbf{}"), []byte(`{"a":"\u0000","a":1e400}`),
		[]byte(`\x41`), []byte(`'"\`), noise,
	}
	var batch []mirror.Delivery
	for _, p := range payloads {
		a := e.delivery()
		a.Event.Payload = p
		batch = append(batch, a)
	}
	e.accept(batch...)
	for i, a := range batch {
		got, err := e.Event(e.ctx(), project, a.Event.ID)
		e.must("Event", err)
		if !bytes.Equal(got.Payload, payloads[i]) {
			e.Fatalf("payload %d = %d bytes %.40q; want %d bytes %.40q", i, len(got.Payload), got.Payload, len(payloads[i]),
				payloads[i])
		}
	}
}

func eventTimes(e *env) {
	zone := time.FixedZone("elsewhere", -5*3600-1800)
	a := e.delivery()
	a.Event.ReceiveTime = time.Date(2026, 2, 28, 23, 59, 59, 999_999_999, zone)
	a.Event.SendTime = time.Date(1970, 1, 1, 0, 0, 0, 1_999, time.UTC)
	a.Event.SourceTime = time.Date(9998, 12, 31, 23, 59, 59, 123_456_789, time.UTC)
	e.accept(a)
	got, err := e.Event(e.ctx(), project, a.Event.ID)
	e.must("Event", err)
	for _, c := range []struct {
		what      string
		got, want time.Time
	}{
		{"ReceiveTime", got.ReceiveTime, time.Date(2026, 3, 1, 5, 29, 59, 999_999_000, time.UTC)},
		{"SendTime", got.SendTime, time.Date(1970, 1, 1, 0, 0, 0, 1_000, time.UTC)},
		{"SourceTime", got.SourceTime, time.Date(9998, 12, 31, 23, 59, 59, 123_456_000, time.UTC)},
	} {
		if c.got != c.want { // as values, not as instants: the zone counts
			e.Fatalf("%s = %v; want %v", c.what, c.got, c.want)
		}
	}
}

func eventWithoutHints(e *env) {
	a := e.delivery()
	a.Event.Outcome = mirror.OutcomeMalformed
	for _, fresh := range []bool{true, false} {
		e.want("Accept", e.accept(a), []store.Accepted{{Fresh: fresh, Outcome: mirror.OutcomeMalformed}})
	}
	counts, err := e.Counts(e.ctx(), project)
	e.must("Counts", err)
	e.want("Counts", counts, store.Counts{})
}

func acceptNothing(e *env) { e.accept() }

func acceptDuplicate(e *env) {
	a := e.delivery(invalidatedAt(roomOf("room")), invalidatedAt(storageOf("room")))
	first := e.accept(a)
	e.want("first Accept", first, []store.Accepted{{Fresh: true, Outcome: mirror.OutcomeQueued, Pending: []mirror.Pending{
		{Resource: roomOf("room"), Generation: 1}, {Resource: storageOf("room"), Generation: 1},
	}}})
	before := e.task(storageOf("room"))

	again := a
	again.Event.Payload, again.Event.Outcome, again.Event.ReceiveTime = []byte("other"), mirror.OutcomeRecorded,
		e.now.Add(time.Hour)
	want := first
	want[0].Fresh = false
	e.want("Accept of a duplicate", e.accept(again), want)
	e.want("task after a duplicate", e.task(storageOf("room")), before)
	got, err := e.Event(e.ctx(), project, a.Event.ID)
	e.must("Event", err)
	e.want("event after a duplicate", got, a.Event)
	events, err := e.Events(e.ctx(), store.EventFilter{Project: project, Limit: 10})
	e.must("Events", err)
	e.want("events after a duplicate", events, []mirror.Event{a.Event})
}

func duplicateGenerations(e *env) {
	a := e.delivery(invalidatedAt(storageOf("room")))
	e.accept(a)
	e.raise(storageOf("room"))
	got := e.accept(a)
	if got[0].Fresh || len(got[0].Pending) != 1 || got[0].Pending[0].Generation != 2 {
		e.Fatalf("Accept of a duplicate after another event = %+v; want generation 2", got[0])
	}
}

func eventsByProject(e *env) {
	a := e.delivery(invalidatedAt(storageOf("room")))
	b := a
	b.Event.Project = "other"
	b.Invalidations = []mirror.Invalidation{{Resource: mirror.Resource{
		Project: "other", Room: "room",
		Kind: mirror.KindStorage,
	}}}
	b.Event.Payload = []byte("b")
	for i, got := range e.accept(a, b) {
		if !got.Fresh || len(got.Pending) != 1 || got.Pending[0].Generation != 1 {
			e.Fatalf("Accept of event %d = %+v; want it fresh and generation 1", i, got)
		}
	}
	got, err := e.Event(e.ctx(), "other", a.Event.ID)
	e.must("Event", err)
	e.want("event of the other project", got, b.Event)
}

func eventsByRoom(e *env) {
	rooms := inTwoBuckets()
	first := e.delivery(invalidatedAt(storageOf(rooms[0])))
	second := e.delivery(invalidatedAt(storageOf(rooms[1])))
	second.Event.ID, second.Event.Payload = first.Event.ID, []byte("second")
	second.Event.ReceiveTime = e.now.Add(time.Second)
	for _, fresh := range []bool{true, false} {
		for _, a := range []mirror.Delivery{first, second} {
			e.want("Accept", e.accept(a), []store.Accepted{{
				Fresh: fresh, Outcome: a.Event.Outcome,
				Pending: []mirror.Pending{{Resource: a.Invalidations[0].Resource, Generation: 1}},
			}})
			got, err := e.EventOf(e.ctx(), project, a.Event.Room, a.Event.ID)
			e.must("EventOf", err)
			e.want("EventOf", got, a.Event)
		}
	}
	got, err := e.Event(e.ctx(), project, first.Event.ID)
	e.must("Event", err)
	e.want("Event", got, first.Event)
	_, err = e.EventOf(e.ctx(), "other", rooms[0], first.Event.ID)
	e.wantErr("EventOf in another project", err, store.ErrNotFound)
	_, err = e.EventOf(e.ctx(), project, rooms[0], "never seen")
	e.wantErr("EventOf of an event never seen", err, store.ErrNotFound)
}

func concurrentDuplicates(e *env) {
	const n = 16
	stores := []store.Store{e.Store, e.another()}
	a := e.delivery(invalidatedAt(storageOf("room")))
	answers := make([][]store.Accepted, n)
	errs := make([]error, n)
	parallel(n, func(i int) {
		// Each batch has an event of its own, so that batches differ.
		own := e.delivery()
		answers[i], errs[i] = Accept(e.ctx(), stores[i%2], []mirror.Delivery{own, a})
	})
	fresh := 0
	for i := range n {
		e.must("Accept", errs[i])
		if !answers[i][0].Fresh {
			e.Fatalf("event of its own = %+v; want it fresh", answers[i][0])
		}
		got := answers[i][1]
		if got.Fresh {
			fresh++
		}
		got.Fresh = true
		e.want("Accept", got, store.Accepted{
			Fresh: true, Outcome: mirror.OutcomeQueued,
			Pending: []mirror.Pending{{Resource: storageOf("room"), Generation: 1}},
		})
	}
	if fresh != 1 {
		e.Fatalf("%d of %d deliveries of one event were fresh; want 1", fresh, n)
	}
}

func acceptOrder(e *env) {
	var batch []mirror.Delivery
	for i := range 20 {
		a := e.delivery(invalidatedAt(storageOf(mirror.RoomID(fmt.Sprintf("room-%d", i)))))
		a.Event.Outcome = mirror.Outcome(fmt.Sprintf("outcome_%d", i))
		batch = append(batch, a)
	}
	e.accept(batch[3], batch[17], batch[8])
	seen := map[int]bool{3: true, 17: true, 8: true}
	for i, got := range e.accept(batch...) {
		e.want(fmt.Sprintf("answer %d", i), got, store.Accepted{
			Fresh: !seen[i], Outcome: batch[i].Event.Outcome,
			Pending: []mirror.Pending{{Resource: batch[i].Invalidations[0].Resource, Generation: 1}},
		})
	}
}

func oneResourceOneBatch(e *env) {
	a, b, c := e.delivery(invalidatedAt(storageOf("room"))), e.delivery(invalidatedAt(storageOf("room"))),
		e.delivery(invalidatedAt(storageOf("room")))
	e.accept(a)
	old := e.task(storageOf("room")).Generation
	var generation int64
	for i, got := range e.accept(a, b, c) {
		if got.Fresh != (i > 0) || len(got.Pending) != 1 {
			e.Fatalf("answer %d = %+v; want it raised, and fresh unless it is the first", i, got)
		}
		generation = got.Pending[0].Generation
		if task := e.task(storageOf("room")); generation <= old || generation > task.Generation {
			e.Fatalf("generation = %d; want one of this batch, above %d and at most %d", generation, old, task.Generation)
		}
	}
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.applyDocument(e.claim(storageOf("room")), e.documentContent(`{}`))
	if task := e.task(storageOf("room")); task.State != mirror.TaskDone || task.Applied < generation {
		e.Fatalf("task after one fetch = %+v; want all events settled by it", task)
	}
}

func acceptLargeBatch(e *env) {
	const n = 500
	var batch []mirror.Delivery
	for i := range n {
		id := mirror.RoomID(fmt.Sprintf("room-%d", i))
		batch = append(batch, e.delivery(mirror.Invalidation{Resource: roomOf(id), IfUnknown: true},
			invalidatedAt(storageOf(id))))
	}
	for i, got := range e.accept(batch...) {
		if !got.Fresh || len(got.Pending) != 2 {
			e.Fatalf("answer %d = %+v; want it fresh with two resources raised", i, got)
		}
	}
	counts, err := e.Counts(e.ctx(), project)
	e.must("Counts", err)
	e.want("Counts", counts, store.Counts{Pending: 2 * n, OldestDue: e.now, OldestLive: e.now})
}

// A time that no column takes stands for whatever an engine may refuse.
func acceptRefused(e *env) {
	good, bad := e.delivery(invalidatedAt(storageOf("room"))), e.delivery(invalidatedAt(storageOf("other")))
	bad.Event.ReceiveTime = time.Time{}
	got, err := e.Accept(e.ctx(), []mirror.Delivery{good, bad})
	if err == nil && (len(got) != 2 || got[1].Err == nil) {
		e.Fatalf("Accept of an event without a receive time = %+v; want an error", got)
	}
	_, err2 := e.Event(e.ctx(), project, bad.Event.ID)
	e.wantErr("Event that was refused", err2, store.ErrNotFound)
	_, err2 = e.Task(e.ctx(), storageOf("other"), e.now)
	e.wantErr("Task of an event that was refused", err2, store.ErrNotFound)
	recorded := err == nil && got[0].Err == nil
	if !recorded {
		_, err = e.Event(e.ctx(), project, good.Event.ID)
		e.wantErr("Event beside one that was refused", err, store.ErrNotFound)
		_, err = e.Task(e.ctx(), storageOf("room"), e.now)
		e.wantErr("Task of an event beside one that was refused", err, store.ErrNotFound)
	}
	if got := e.accept(good); got[0].Fresh == recorded {
		e.Fatalf("Accept of the good event alone = %+v; want it fresh unless it was recorded, as reported: %t", got[0],
			recorded)
	}
}

func raisedIsDue(e *env) {
	e.raise(storageOf("room"))
	task := e.task(storageOf("room"))
	e.want("task", task, mirror.Task{
		Resource: storageOf("room"), State: mirror.TaskPending, Generation: 1,
		DueTime: e.now,
	})
	// What is due already keeps its place in the line.
	first := e.now
	e.pass(time.Second)
	e.raise(storageOf("room"))
	if task = e.task(storageOf("room")); task.Generation != 2 || !task.DueTime.Equal(first) {
		e.Fatalf("task raised again = %+v; want generation 2, due since the first event", task)
	}
}

func raisedKeepsBackoff(e *env) {
	e.raise(storageOf("room"))
	f := e.failure()
	e.fail(e.claim(storageOf("room")), f)
	e.raise(storageOf("room"))
	if task := e.task(storageOf("room")); task.Generation != 2 || !task.DueTime.Equal(f.NotBefore) {
		e.Fatalf("task raised during its backoff = %+v; want generation 2, due at %v", task, f.NotBefore)
	}
	e.wantNotDue(storageOf("room"))
	e.now = f.NotBefore
	e.claim(storageOf("room"))
}

func raisedRevives(e *env) {
	e.raise(storageOf("room"))
	f := e.failure()
	f.Final = true
	e.fail(e.claim(storageOf("room")), f)
	e.wantState(storageOf("room"), mirror.TaskFailed)
	e.raise(storageOf("room"))
	task := e.task(storageOf("room"))
	if task.State != mirror.TaskPending || !task.DueTime.Equal(e.now) || task.Attempts != 0 || !task.FailTime.IsZero() {
		e.Fatalf("failed task after an event = %+v; want it pending at once with all its attempts", task)
	}
	if lease := e.claim(storageOf("room")); lease.Attempts != 0 || lease.Generation != 2 {
		e.Fatalf("lease = %+v; want generation 2 and no attempts", lease)
	}
}

func hintIfUnknown(e *env) {
	known := mirror.Invalidation{Resource: roomOf("room"), IfUnknown: true}
	got := e.accept(e.delivery(known))
	e.want("Accept on an unknown room", got[0].Pending, []mirror.Pending{{Resource: roomOf("room"), Generation: 1}})
	got = e.accept(e.delivery(known), e.delivery(invalidatedAt(storageOf("room")), known))
	e.want("Accept on a pending room", [][]mirror.Pending{got[0].Pending, got[1].Pending},
		[][]mirror.Pending{nil, {{Resource: storageOf("room"), Generation: 1}}})
	e.applyRoom(e.claim(roomOf("room")), e.roomContent(`{}`))
	if got = e.accept(e.delivery(known)); len(got[0].Pending) != 0 {
		e.Fatalf("Accept on a mirrored room = %+v; want nothing raised", got[0])
	}
	if task := e.task(roomOf("room")); task.State != mirror.TaskDone || task.Generation != 1 {
		e.Fatalf("task of a mirrored room = %+v; want it done, generation 1", task)
	}

	// Two strangers in one batch are raised once, and a invalidation that means it wins.
	got = e.accept(e.delivery(mirror.Invalidation{Resource: roomOf("new"), IfUnknown: true}),
		e.delivery(mirror.Invalidation{Resource: roomOf("new"), IfUnknown: true}))
	e.want("two events on an unknown room", [][]mirror.Pending{got[0].Pending, got[1].Pending},
		[][]mirror.Pending{{{Resource: roomOf("new"), Generation: 1}}, {{Resource: roomOf("new"), Generation: 1}}})
	e.accept(e.delivery(known), e.delivery(invalidatedAt(roomOf("room"))))
	if task := e.task(roomOf("room")); task.State != mirror.TaskPending || task.Generation != 2 {
		e.Fatalf("task = %+v; want the plain hint to have raised it", task)
	}
}

func hintMinInterval(e *env) {
	const interval = 10 * time.Minute
	slow := mirror.Invalidation{Resource: roomOf("room"), MinInterval: interval}
	e.accept(e.delivery(slow))
	e.applyRoom(e.claim(roomOf("room")), e.roomContent(`{}`)) // due at once: it was never fetched
	fetched := e.now

	e.pass(time.Minute)
	for range 3 {
		e.accept(e.delivery(slow))
		if task := e.task(roomOf("room")); !task.DueTime.Equal(fetched.Add(interval)) {
			e.Fatalf("task = %+v; want it due %v after its last fetch, at %v", task, interval, fetched.Add(interval))
		}
		e.pass(time.Minute)
	}
	e.wantNotDue(roomOf("room"))
	e.raise(roomOf("room"))
	if task := e.task(roomOf("room")); !task.DueTime.Equal(e.now) {
		e.Fatalf("task after an event without interval = %+v; want it due at once", task)
	}
	e.accept(e.delivery(slow))
	e.applyRoom(e.claim(roomOf("room")), e.roomContent(`{}`))

	// Of several in one batch the shortest counts.
	e.accept(e.delivery(slow), e.delivery(mirror.Invalidation{Resource: roomOf("room"), MinInterval: time.Second}))
	if task := e.task(roomOf("room")); !task.DueTime.Equal(e.now.Add(time.Second)) {
		e.Fatalf("task = %+v; want it due after a second", task)
	}
	e.pass(time.Hour)
	e.applyRoom(e.claim(roomOf("room")), e.roomContent(`{}`))
	e.pass(time.Hour)
	e.accept(e.delivery(slow))
	if task := e.task(roomOf("room")); !task.DueTime.Equal(e.now) {
		e.Fatalf("task long after its last fetch = %+v; want it due at once", task)
	}
}

func hintMinIntervalLeased(e *env) {
	const interval = 10 * time.Minute
	slow := mirror.Invalidation{Resource: roomOf("room"), MinInterval: interval}
	e.accept(e.delivery(slow))
	lease := e.claim(roomOf("room"))
	e.accept(e.delivery(slow))
	applied := e.applyRoom(lease, e.roomContent(`{}`))
	if applied.Due.Before(e.now.Add(interval)) {
		e.Fatalf("ApplyRoom = %+v; want it due no sooner than %v", applied, e.now.Add(interval))
	}
	e.wantNotDue(roomOf("room"))

	// An event in a hurry is not held back by one that is not, in either order.
	for _, invalidations := range [][]mirror.Invalidation{
		{slow, invalidatedAt(roomOf("room"))},
		{invalidatedAt(roomOf("room")), slow},
	} {
		e.raise(roomOf("room"))
		lease = e.claim(roomOf("room"))
		for _, h := range invalidations {
			e.accept(e.delivery(h))
		}
		if applied = e.applyRoom(lease, e.roomContent(`{}`)); !applied.Due.Equal(e.now) {
			e.Fatalf("ApplyRoom after an event in a hurry = %+v; want it due at once", applied)
		}
	}
	// Nor is a request.
	lease = e.claim(roomOf("room"))
	e.accept(e.delivery(slow))
	e.request(requestsFor(roomOf("room"))...)
	if applied = e.applyRoom(lease, e.roomContent(`{}`)); !applied.Due.Equal(e.now) {
		e.Fatalf("ApplyRoom after a request = %+v; want it due at once", applied)
	}
	// A lease that nobody gave back takes its interval with it.
	e.claim(roomOf("room"))
	e.accept(e.delivery(slow))
	e.pass(2 * leaseTTL)
	lease = e.claim(roomOf("room"))
	e.accept(e.delivery(slow))
	if applied = e.applyRoom(lease, e.roomContent(`{}`)); applied.Due.Before(e.now.Add(interval)) {
		e.Fatalf("ApplyRoom after a takeover = %+v; want it due no sooner than %v", applied, e.now.Add(interval))
	}
}

func sourceTime(e *env) {
	late, early := e.now.Add(-time.Second), e.now.Add(-time.Hour)
	for _, at := range []time.Time{late, early, {}} {
		a := e.delivery(invalidatedAt(roomOf("room")))
		a.Event.SourceTime = at
		e.accept(a)
	}
	lease := e.claim(roomOf("room"))
	if !lease.SourceTime.Equal(late) {
		e.Fatalf("SourceTime of the lease = %v; want the latest, %v", lease.SourceTime, late)
	}
	e.applyRoom(lease, e.roomContent(`{}`))
	if got := e.room("room").Freshness.SourceUpdateTime; !got.Equal(late) {
		e.Fatalf("SourceUpdateTime = %v; want %v", got, late)
	}
	e.accept(e.delivery(invalidatedAt(storageOf("other"))))
	a := e.delivery(invalidatedAt(storageOf("silent")))
	a.Event.SourceTime = time.Time{}
	e.accept(a)
	if lease = e.claim(storageOf("silent")); !lease.SourceTime.IsZero() {
		e.Fatalf("SourceTime of a lease = %v; want none where no event told of one", lease.SourceTime)
	}
}

func oddEventIDs(e *env) {
	var batch []mirror.Delivery
	for i, id := range oddIDs() {
		a := e.delivery(invalidatedAt(storageOf(id)))
		a.Event.Payload = fmt.Append(nil, i)
		a.Event.User = string(id)
		a.Event.Type = string(id)
		if len(id) <= mirror.MaxEventID {
			a.Event.ID, a.Event.Thread = string(id), string(id)
		}
		batch = append(batch, a)
	}
	for i, got := range e.accept(batch...) {
		if !got.Fresh || len(got.Pending) != 1 || got.Pending[0].Generation != 1 ||
			got.Pending[0].Resource != batch[i].Invalidations[0].Resource {
			e.Fatalf("Accept of event %q = %+v; want it fresh, its own resource raised to 1", batch[i].Event.ID, got)
		}
	}
	for _, a := range batch {
		got, err := e.Event(e.ctx(), project, a.Event.ID)
		e.must("Event", err)
		e.want("Event", got, a.Event)
		for what, filter := range map[string]store.EventFilter{
			"room": {Project: project, Room: a.Event.Room, Limit: 9},
			"user": {Project: project, User: a.Event.User, Limit: 9},
			"type": {Project: project, Type: a.Event.Type, Limit: 9},
		} {
			list, err := e.Events(e.ctx(), filter)
			e.must("Events", err)
			e.want(fmt.Sprintf("Events by %s %q", what, a.Event.Room), list, []mirror.Event{a.Event})
		}
	}
	tasks, err := e.TaskList(e.ctx(), store.TaskFilter{Project: project, Now: e.now, Limit: 1000})
	e.must("TaskList", err)
	var listed []mirror.RoomID
	for _, task := range tasks {
		listed = append(listed, task.Resource.Room)
	}
	e.want("rooms of TaskList", listed, oddIDs())
	due := e.dueList(1000).Resources
	slices.SortFunc(due, func(a, b mirror.Resource) int { return bytes.Compare([]byte(a.Room), []byte(b.Room)) })
	var rooms []mirror.RoomID
	for _, r := range due {
		rooms = append(rooms, r.Room)
	}
	e.want("rooms of Due", rooms, oddIDs())
}

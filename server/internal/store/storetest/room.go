package storetest

import (
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

var roomCases = []testCase{
	{"new room begins an epoch", newRoom},
	{"new room wakes in key order", newRoomOrder},
	{"unchanged room moves its times alone", unchangedRoom},
	{"changed room writes a change", changedRoom},
	{"other creation time begins an epoch", recreatedRoom},
	{"child fetched together with its new room", joinedRoom},
	{"child fetched together with its room, perhaps of an earlier incarnation", joinedEarlierRoom},
	{"room source is kept byte for byte", roomSource},
	{"room fields may hold anything", roomFields},
	{"delete event and 404 make a tombstone", deletedRoom},
	{"delete event during the fetch counts", deletedDuringFetch},
	{"delete event after the 404 waits for the next", deletedAfterMissing},
	{"404 alone deletes nothing", missingRoom},
	{"404 of a room never mirrored", missingUnknownRoom},
	{"404 of a tombstone writes nothing more", missingTombstone},
	{"404 settles like a success", missingSettles},
	{"delete event contradicted by a fetch is void", contradictedDelete},
	{"delete event after the fetch began is not", uncontradictedDelete},
	{"delete event outlives a fetch that may be old", deleteOutlivesEarlyFetch},
	{"room that was missing is back", missingRoomBack},
	{"tombstone quiets children", tombstoneQuiets},
	{"room is reborn with the same creation time", rebornSame},
	{"room is reborn with another creation time", rebornOther},
	{"earlier epochs are cleaned up", cleanRoom},
}

func entry(n int64, r mirror.Resource, kind mirror.ChangeKind, epoch int64, at time.Time) mirror.Change {
	return mirror.Change{Bucket: r.Bucket(), Number: n, Resource: r, Kind: kind, Epoch: epoch, CommitTime: at}
}

func newRoom(e *env) {
	r := roomOf("room")
	e.raise(r)
	lease := e.claim(r)
	content := mirror.RoomContent{
		FetchTime: e.now.Add(-time.Second), Source: []byte(`{"type":"room","id":"room","metadata":{"a":["b"]}}`),
		CreateTime:         born,
		LastConnectionTime: born.Add(time.Hour), OrganizationID: "org_1",
	}
	applied := e.applyRoom(lease, content)
	e.want("ApplyRoom", applied, mirror.Applied{Changed: true, AlsoDue: childrenOf("room")})
	e.want("Room", e.room("room"), mirror.Room{
		Project: project, ID: "room", Epoch: 1, Source: content.Source, SHA256: sha256.Sum256(content.Source),
		CreateTime:         born,
		LastConnectionTime: born.Add(time.Hour), OrganizationID: "org_1",
		Freshness: mirror.Freshness{FetchTime: content.FetchTime, SourceUpdateTime: lease.SourceTime, Revision: 1},
	})
	e.want("Changes", e.changes(r.Bucket()), []mirror.Change{entry(1, r, mirror.ChangeUpserted, 1, e.now)})
	task := e.task(storageOf("room"))
	e.want("task of the storage", task, mirror.Task{
		Resource: storageOf("room"), State: mirror.TaskPending, Generation: 1,
		DueTime: e.now,
	})
	if lease := e.claim(storageOf("room")); lease.Epoch != 1 || lease.Gone {
		e.Fatalf("lease of the storage = %+v; want epoch 1", lease)
	}
	_, err := e.Document(e.ctx(), storageOf("room"), false)
	e.wantErr("Document not fetched yet", err, store.ErrNotFound)
}

func newRoomOrder(e *env) {
	known := []mirror.Resource{threadOf("room", "th_1"), activeUsersOf("room"), ydocOf("room")}
	e.raise(known...)
	woken := append(childrenOf("room"), threadOf("room", "th_1"), activeUsersOf("room"))
	e.want("resources woken by the room", e.mirrorRoom("room", e.roomContent(`{}`)).AlsoDue, woken)
}

func unchangedRoom(e *env) {
	e.mirrorRoom("room", e.roomContent(`{"a":1}`))
	before := e.room("room")
	e.pass(time.Hour)
	applied := e.mirrorRoom("room", e.roomContent(`{"a":1}`))
	e.want("ApplyRoom", applied, mirror.Applied{})
	want := before
	want.Freshness.FetchTime, want.Freshness.SourceUpdateTime = e.now, e.now.Add(-time.Millisecond)
	e.want("Room", e.room("room"), want)
	if n := e.lastChange(roomOf("room").Bucket()); n != 1 {
		e.Fatalf("last change = %d; want 1, for nothing changed", n)
	}
}

func changedRoom(e *env) {
	e.mirrorBoth("room")
	document := e.snapshot(storageOf("room"))
	e.pass(time.Hour)
	applied := e.mirrorRoom("room", e.roomContent(`{"a":2}`))
	e.want("ApplyRoom", applied, mirror.Applied{Changed: true})
	room := e.room("room")
	if room.Epoch != 1 || string(room.Source) != `{"a":2}` ||
		room.Freshness.Revision != e.lastChange(roomOf("room").Bucket()) {
		e.Fatalf("Room = %+v; want the new source, the same epoch, and the last change as its revision", room)
	}
	after := e.snapshot(storageOf("room"))
	e.want("document", after.Document, document.Document)
	e.want("task of the document", after.Task, document.Task)
}

// A child that is fetched together with its room, which is not mirrored yet, is not
// fetched again if an event shows that it is of the same incarnation.
func joinedRoom(e *env) {
	e.raise(roomOf("room"), storageOf("room"), ydocOf("room"))
	room, storage, ydoc := e.claim(roomOf("room")), e.claim(storageOf("room")), e.claim(ydocOf("room"))
	stranger := ydoc
	stranger.Token = newToken() // its lease was taken over
	room.Joined = []mirror.Lease{storage, stranger}
	content := e.roomContent(`{"id":"r"}`)
	content.CreateTime = storage.SourceTime
	applied, err := e.ApplyRoom(e.ctx(), room, content, e.now, 0)
	e.must("ApplyRoom", err)
	applied.Generation = 0
	e.want("ApplyRoom", applied, mirror.Applied{
		Changed: true, Epoch: 1, Joined: []mirror.Resource{storageOf("room")}, AlsoDue: childrenOf("room")[1:],
	})
	storage.Epoch = applied.Epoch
	if applied := e.applyDocument(storage, e.documentContent(`{"a":1}`)); !applied.Due.IsZero() || !applied.Changed {
		e.Fatalf("ApplyDocument of what was fetched with the room = %+v; want it mirrored", applied)
	}
	e.wantState(storageOf("room"), mirror.TaskDone)
	e.document(storageOf("room"))
	applied = e.applyDocument(func() mirror.Lease { ydoc.Epoch = 1; return ydoc }(), e.documentContent(`{}`))
	if !applied.Due.Equal(e.now) {
		e.Fatalf("ApplyDocument of another = %+v; want it stale with the room", applied)
	}
}

// Without such an event it may have been fetched from an earlier incarnation.
func joinedEarlierRoom(e *env) {
	e.raise(roomOf("room"), storageOf("room"))
	e.request(requestsFor(ydocOf("room"))...)
	room, storage, ydoc := e.claim(roomOf("room")), e.claim(storageOf("room")), e.claim(ydocOf("room"))
	room.Joined = []mirror.Lease{storage, ydoc}
	content := e.roomContent(`{"id":"r"}`)
	content.CreateTime = storage.SourceTime.Add(time.Microsecond)
	applied, err := e.ApplyRoom(e.ctx(), room, content, e.now, 0)
	e.must("ApplyRoom", err)
	applied.Generation = 0
	e.want("ApplyRoom", applied, mirror.Applied{Changed: true, AlsoDue: childrenOf("room")})
	_, err = e.ApplyDocument(e.ctx(), storage, e.documentContent(`{}`), e.now, 0)
	e.wantErr("ApplyDocument", err, store.ErrEpochChanged)
	applied, err = e.Park(e.ctx(), storage, e.now)
	e.must("Park", err)
	if !applied.Due.Equal(e.now) {
		e.Fatalf("Park = %+v; want the child fetched again at once", applied)
	}
}

func recreatedRoom(e *env) {
	e.mirrorBoth("room")
	content := e.roomContent(`{"id":"r"}`) // not a byte differs
	content.CreateTime = born.Add(time.Microsecond)
	applied := e.mirrorRoom("room", content)
	e.want("ApplyRoom", applied, mirror.Applied{ // the next task cleans up
		Changed: true, Due: e.now, AlsoDue: childrenOf("room"),
	})
	room := e.room("room")
	if room.Epoch != 2 || !room.CreateTime.Equal(content.CreateTime) {
		e.Fatalf("Room = %+v; want epoch 2, created at %v", room, content.CreateTime)
	}
	e.wantNoDocument(storageOf("room"))
	e.wantState(storageOf("room"), mirror.TaskPending)
	if docs := e.documents(); len(docs) != 0 {
		e.Fatalf("Documents = %+v; want none of an earlier epoch", docs)
	}
	applied = e.applyDocument(e.claim(storageOf("room")), e.documentContent(`{"a":1}`)) // the same bytes again
	if !applied.Changed {
		e.Fatalf("ApplyDocument in a new epoch = %+v; want a change", applied)
	}
	e.document(storageOf("room"))
	applied = e.mirrorRoom("room", content)
	e.want("ApplyRoom of the same again", applied, mirror.Applied{})
}

// sources are valid and invalid, and none may be altered.
func sources() map[string]string {
	nested := func(n int) string {
		b := make([]byte, 0, 10*n)
		for range n {
			b = append(b, `{"a":[`...)
		}
		for range n {
			b = append(b, `]}`...)
		}
		return string(b)
	}
	return map[string]string{
		"empty":            "",
		"not JSON":         "<html>502</html>",
		"not UTF-8":        "{\"a\":\"\xff\xfe\"}",
		"a NUL":            "{\"a\":\"\x00\"}",
		"an escaped NUL":   `{"a":"\u0000","\u0000":1}`,
		"lone surrogates":  `{"a":"\ud800","b":"\udc00\ud800"}`,
		"2^53+1":           `{"a":9007199254740993,"b":1.000000000000000000000001,"c":-0.0,"d":1E+2}`,
		"1e400":            `{"a":1e400,"b":1e-400}`,
		"1e200000":         `{"a":1e200000}`,
		"duplicate keys":   `{"b":1,"a":2,"b":3}`,
		"white space":      " {\r\n\t\"a\" : 1 }\n",
		"a BOM":            "\ufeff{}",
		"both forms":       "{\"e\u0301\":\"\u00e9\"}",
		"escapes":          `{"a":"\u00e9\/\\\"\b"}`,
		"a scalar":         `"\u0041"`,
		"60 levels":        nested(30),
		"150 levels":       nested(75),
		"20,000 levels":    nested(10_000),
		"SQL":              `'; drop table mirror_room; --`,
		"null":             "null",
		"lines separators": "{\"a\":\"\u2028\u2029\u0085\"}",
	}
}

func roomSource(e *env) {
	for what, source := range sources() {
		id := mirror.RoomID(what)
		e.mirrorRoom(id, e.roomContent(source))
		room := e.room(id)
		if string(room.Source) != source || room.SHA256 != sha256.Sum256([]byte(source)) {
			e.Fatalf("source of a room with %s = %.60q (hash %x); want %.60q", what, room.Source, room.SHA256, source)
		}
		e.wantState(roomOf(id), mirror.TaskDone)
		if applied := e.mirrorRoom(id, e.roomContent(source)); applied.Changed {
			e.Fatalf("ApplyRoom with %s again = %+v; want no change", what, applied)
		}
	}
}

func roomFields(e *env) {
	content := mirror.RoomContent{
		FetchTime: e.now, Source: []byte(`{"organizationId":"\u0000"}`),
		OrganizationID: "a\x00b\xff", DataProblem: "has \x00 in it",
	}
	e.mirrorRoom("room", content) // no creation time either
	if room := e.room("room"); !room.CreateTime.IsZero() || !room.LastConnectionTime.IsZero() {
		e.Fatalf("Room = %+v; want no times", room)
	}
	e.wantState(roomOf("room"), mirror.TaskDone)
	if applied := e.mirrorRoom("room", content); applied.Changed {
		e.Fatalf("ApplyRoom of the same again = %+v; want no change", applied)
	}
}

func deletedRoom(e *env) {
	e.mirrorBoth("room")
	e.pass(time.Minute)
	last := e.room("room")
	doc := e.document(storageOf("room"))
	applied := e.deleteRoom("room")
	e.want("ApplyMissing", applied, mirror.Applied{Changed: true})
	e.wantNoRoom("room")
	e.wantNoDocument(storageOf("room"))
	if rooms := e.rooms(); len(rooms) != 0 || len(e.documents()) != 0 {
		e.Fatalf("Rooms = %+v, Documents = %+v; want none", rooms, e.documents())
	}

	n := e.lastChange(roomOf("room").Bucket())
	want := last
	want.Epoch++
	want.Freshness.DeleteTime, want.Freshness.Revision = e.now, n
	e.want("Room, deleted or not", e.tombstone("room"), want)
	buried, err := e.Document(e.ctx(), storageOf("room"), true)
	e.must("Document, deleted or not", err)
	doc.Freshness.DeleteTime = e.now
	e.want("Document, deleted or not", buried, doc)
	entries := e.changes(roomOf("room").Bucket())
	e.want("last change", entries[len(entries)-1], entry(n, roomOf("room"), mirror.ChangeDeleted, 2, e.now))
	e.wantState(roomOf("room"), mirror.TaskDone)
	e.wantState(storageOf("room"), mirror.TaskDone)
}

func deletedDuringFetch(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.raise(roomOf("room"))
	lease := e.claim(roomOf("room"))
	e.raiseDeleted("room")
	applied := e.applyMissing(lease)
	if !applied.Changed || !applied.Due.Equal(e.now) {
		e.Fatalf("ApplyMissing = %+v; want a tombstone, and a look at what came in meanwhile", applied)
	}
	e.wantNoRoom("room")
	applied = e.applyMissing(e.claim(roomOf("room")))
	e.want("ApplyMissing again", applied, mirror.Applied{})
}

func deletedAfterMissing(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.raise(roomOf("room"))
	e.applyMissing(e.claim(roomOf("room")))
	e.room("room")
	applied := e.deleteRoom("room")
	if !applied.Changed {
		e.Fatalf("ApplyMissing after the event = %+v; want a tombstone", applied)
	}
	e.wantNoRoom("room")
	if f := e.tombstone("room").Freshness; !f.MissingSince.IsZero() || !f.DeleteTime.Equal(e.now) {
		e.Fatalf("Freshness = %+v; want it deleted, no longer missing", f)
	}
}

func missingRoom(e *env) {
	e.mirrorBoth("room")
	before := e.snapshot(roomOf("room"))
	child := e.snapshot(storageOf("room"))
	since := e.now.Add(time.Minute)
	for range 3 {
		e.pass(time.Minute)
		e.raise(roomOf("room"))
		applied := e.applyMissing(e.claim(roomOf("room")))
		e.want("ApplyMissing", applied, mirror.Applied{})
		after := e.snapshot(roomOf("room"))
		want := before.Room
		want.Freshness.MissingSince = since
		e.want("Room", after.Room, want)
		e.want("changes", after.Changes, before.Changes)
		if after.Task.State != mirror.TaskDone || !after.Task.MissingSince.Equal(since) ||
			after.Task.Applied != after.Task.Generation {
			e.Fatalf("task = %+v; want it done, missing since %v", after.Task, since)
		}
		storage := e.snapshot(storageOf("room"))
		e.want("document", storage.Document, child.Document)
		e.want("task of the document", storage.Task, child.Task)
	}
	if rooms := e.rooms(); len(rooms) != 1 || !rooms[0].Freshness.MissingSince.Equal(since) {
		e.Fatalf("Rooms = %+v; want the room, missing since %v", rooms, since)
	}
}

func missingUnknownRoom(e *env) {
	for i, raise := range []func(){
		func() { e.raise(roomOf("room"), storageOf("room")) },
		func() { e.raiseDeleted("room"); e.raise(storageOf("room")) },
	} {
		raise()
		applied := e.applyMissing(e.claim(roomOf("room")))
		e.want(fmt.Sprintf("ApplyMissing %d", i), applied, mirror.Applied{})
		_, err := e.Room(e.ctx(), roomOf("room"), true)
		e.wantErr("Room", err, store.ErrNotFound)
		e.wantState(roomOf("room"), mirror.TaskDone)
		e.wantState(storageOf("room"), mirror.TaskDone)
		e.want("changes", e.changes(roomOf("room").Bucket()), []mirror.Change{})
	}
	e.mirrorRoom("room", e.roomContent(`{}`))
	if room := e.room("room"); room.Epoch != 1 || !room.Freshness.MissingSince.IsZero() {
		e.Fatalf("Room = %+v; want epoch 1, not missing", room)
	}
	// The delete event spoke of what was never mirrored.
	e.raise(roomOf("room"))
	e.applyMissing(e.claim(roomOf("room")))
	e.room("room")
}

func missingTombstone(e *env) {
	e.mirrorBoth("room")
	e.deleteRoom("room")
	before := e.snapshot(roomOf("room"))
	e.pass(time.Hour)
	for range 2 {
		e.raiseDeleted("room")
		e.want("ApplyMissing", e.applyMissing(e.claim(roomOf("room"))), mirror.Applied{})
		after := e.snapshot(roomOf("room"))
		e.want("Room", after.Room, before.Room)
		e.want("changes", after.Changes, before.Changes)
	}
}

func missingSettles(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.raise(roomOf("room"))
	applied, err := e.ApplyMissing(e.ctx(), e.claim(roomOf("room")), e.failure(), settle)
	e.must("ApplyMissing", err)
	e.want("ApplyMissing", applied, mirror.Applied{Due: e.now.Add(settle)})
	e.now = applied.Due
	lease := e.claim(roomOf("room"))
	e.raise(roomOf("room"))
	applied, err = e.ApplyMissing(e.ctx(), lease, e.failure(), settle)
	e.must("ApplyMissing", err)
	e.want("ApplyMissing with news", applied, mirror.Applied{Due: e.now})
}

func contradictedDelete(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.raiseDeleted("room")
	e.applyRoom(e.claim(roomOf("room")), e.roomContent(`{}`)) // it began after the event, and the room was there
	e.raise(roomOf("room"))
	e.want("ApplyMissing", e.applyMissing(e.claim(roomOf("room"))), mirror.Applied{})
	if e.room("room").Freshness.MissingSince.IsZero() {
		e.Fatalf("the room is not missing; want it so, and not deleted")
	}
}

func uncontradictedDelete(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.raise(roomOf("room"))
	lease := e.claim(roomOf("room"))
	e.raiseDeleted("room")
	e.applyRoom(lease, e.roomContent(`{}`)) // it began before the event, and proves nothing
	applied := e.applyMissing(e.claim(roomOf("room")))
	if !applied.Changed {
		e.Fatalf("ApplyMissing = %+v; want a tombstone", applied)
	}
	e.wantNoRoom("room")
}

// The fetch at an event may read the state before it; the settle fetch decides.
func deleteOutlivesEarlyFetch(e *env) {
	for _, id := range []mirror.RoomID{"deleted", "alive"} {
		e.mirrorRoom(id, e.roomContent(`{}`))
		e.raiseDeleted(id)
		if applied := e.fetch(roomOf(id)); !applied.Due.Equal(e.now.Add(settle)) {
			e.Fatalf("ApplyRoom = %+v; want a settle fetch", applied)
		}
	}
	e.pass(settle)
	if applied := e.applyMissing(e.claim(roomOf("deleted"))); !applied.Changed {
		e.Fatalf("settle ApplyMissing = %+v; want a tombstone", applied)
	}
	e.wantNoRoom("deleted")
	e.fetch(roomOf("alive"))
	e.raise(roomOf("alive"))
	e.applyMissing(e.claim(roomOf("alive")))
	e.room("alive")
}

func missingRoomBack(e *env) {
	e.mirrorBoth("room")
	e.raise(roomOf("room"))
	e.applyMissing(e.claim(roomOf("room")))
	e.raise(storageOf("room"))
	e.applyMissing(e.claim(storageOf("room"))) // in a missing room: nothing more to do
	e.wantState(storageOf("room"), mirror.TaskDone)
	e.pass(time.Hour)
	applied := e.mirrorRoom("room", e.roomContent(`{"id":"r"}`))
	e.want("ApplyRoom", applied, mirror.Applied{AlsoDue: childrenOf("room")})
	if room := e.room("room"); room.Epoch != 1 || !room.Freshness.MissingSince.IsZero() ||
		!room.Freshness.FetchTime.Equal(e.now) {
		e.Fatalf("Room = %+v; want the same epoch, no longer missing", room)
	}
	e.applyDocument(e.claim(storageOf("room")), e.documentContent(`{"a":1}`))
	if f := e.document(storageOf("room")).Freshness; !f.MissingSince.IsZero() {
		e.Fatalf("Freshness of the document = %+v; want it no longer missing", f)
	}
}

func tombstoneQuiets(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	pending, failed, backing, leased := storageOf("room"), storageOf("room"), storageOf("room"), storageOf("room")
	failed.ID, backing.ID, leased.ID = "failed", "backing", "leased"
	e.raise(pending, failed, backing, leased)
	f := e.failure()
	e.fail(e.claim(backing), f)
	f.Final = true
	e.fail(e.claim(failed), f)
	lease := e.claim(leased)
	e.deleteRoom("room")
	for _, r := range []mirror.Resource{pending, failed, backing, leased} {
		task := e.task(r)
		if task.State != mirror.TaskDone || task.Applied != task.Generation || !task.DueTime.IsZero() {
			e.Fatalf("task %q in a deleted room = %+v; want nothing more to do", r.ID, task)
		}
	}
	e.want("Due", e.dueList(10), dueList{})
	counts, err := e.Counts(e.ctx(), project)
	e.must("Counts", err)
	e.want("Counts", counts, store.Counts{})

	// What was under way ends without a trace, however it ends.
	_, err = e.ApplyDocument(e.ctx(), lease, e.documentContent(`{}`), e.now, settle)
	e.wantErr("ApplyDocument", err, store.ErrEpochChanged)
	applied := e.fail(lease, e.failure())
	e.want("Fail", applied, mirror.Applied{})
	e.wantState(leased, mirror.TaskDone)
}

func rebornSame(e *env) {
	e.mirrorBoth("room")
	e.deleteRoom("room")
	applied := e.mirrorRoom("room", e.roomContent(`{"id":"r"}`))
	e.want("ApplyRoom", applied, mirror.Applied{
		Changed: true, Due: e.now, AlsoDue: childrenOf("room"),
	})
	room := e.room("room")
	if room.Epoch <= 2 || !room.Freshness.DeleteTime.IsZero() {
		e.Fatalf("Room = %+v; want an epoch above that of the tombstone, and no delete time", room)
	}
	e.wantNoDocument(storageOf("room"))
	_, err := e.Document(e.ctx(), storageOf("room"), true)
	e.wantErr("Document of an earlier epoch", err, store.ErrNotFound)
	e.applyDocument(e.claim(storageOf("room")), e.documentContent(`{"a":1}`))
	e.document(storageOf("room"))
	// The delete event of then says nothing about now.
	e.raise(roomOf("room"))
	e.applyMissing(e.claim(roomOf("room")))
	e.room("room")
}

func rebornOther(e *env) {
	e.mirrorBoth("room")
	e.deleteRoom("room")
	buried := e.tombstone("room")
	content := e.roomContent(`{"id":"r"}`)
	content.CreateTime = born.Add(time.Hour)
	e.mirrorRoom("room", content)
	room := e.room("room")
	if room.Epoch <= buried.Epoch || room.Freshness.Revision <= buried.Freshness.Revision ||
		!room.CreateTime.Equal(content.CreateTime) {
		e.Fatalf("Room = %+v; want epoch and revision above those of %+v", room, buried)
	}
	e.wantNoDocument(storageOf("room"))
}

func cleanRoom(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.mirrorBoth("other")
	var old []mirror.Resource
	for i := range 5 {
		r := storageOf("room")
		r.ID = fmt.Sprintf("doc-%d", i)
		old = append(old, r)
		e.mirrorDocument(r, `{"a":1}`)
	}
	clean := func(limit, want int) {
		e.Helper()
		got, err := e.CleanRoom(e.ctx(), roomOf("room"), limit)
		e.must("CleanRoom", err)
		if got != want {
			e.Fatalf("CleanRoom at most %d = %d; want %d", limit, got, want)
		}
	}
	clean(10, 0)
	e.deleteRoom("room")
	clean(10, 0) // a tombstone keeps what was in it
	_, err := e.Document(e.ctx(), old[0], true)
	e.must("Document, deleted or not", err)
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.applyDocument(e.claim(old[0]), e.documentContent(`{"a":2}`))
	clean(3, 3)
	clean(3, 1)
	clean(3, 0)
	if doc := e.document(old[0]); string(doc.Content) != `{"a":2}` {
		e.Fatalf("document of the living epoch = %q; want it kept", doc.Content)
	}
	e.document(storageOf("other"))
	if task := e.task(old[1]); task.Generation < 2 {
		e.Fatalf("task of a document cleaned up = %+v; want its generation kept", task)
	}
}

func (e *env) rooms() []mirror.Room {
	e.Helper()
	rooms, err := e.Rooms(e.ctx(), store.RoomFilter{Project: project, Limit: 1000})
	e.must("Rooms", err)
	return rooms
}

func (e *env) documents() []mirror.Document {
	e.Helper()
	docs, err := e.Documents(e.ctx(), store.DocumentFilter{Project: project, Limit: 1000})
	e.must("Documents", err)
	return docs
}

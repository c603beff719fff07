package storetest

import (
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

var purgeCases = []testCase{
	{"purge leaves nothing of a deleted room", purgeDeleted},
	{"purge spares a room that is not deleted", purgeSpares},
	{"purged room comes back", purgedComesBack},
}

// fullRoom mirrors a room with something of everything. It returns one of its events.
func (e *env) fullRoom(id mirror.RoomID) mirror.Delivery {
	e.Helper()
	event := e.delivery(invalidatedAt(roomOf(id)))
	e.accept(event)
	e.applyRoom(e.claim(roomOf(id)), e.roomContent(`{"id":"r","metadata":{"name":"Plan"}}`))
	e.mirrorDocument(storageOf(id), `{"a":1}`)
	e.mirrorThread(id, threadIn("th_1", 1, fullComment("cm_1", 1), commentIn("cm_2", 2)))
	e.mirrorUsers(id, mirror.ActiveUser{ConnectionID: 1, UserID: "ann"})
	e.upsertSessions(e.session(id, "msg_s_"+string(id), 1))
	r := notificationOf(id, "in_1")
	e.applyNotification(r, mirror.NotificationFold{
		FetchTime: e.now, Rows: []mirror.Notification{e.notification(r, "msg_n_"+string(id))},
	})
	e.foldEvent(userSessionsOf(id), e.now)
	return event
}

// purge purges a room in batches and returns how many rows it changed.
func (e *env) purge(id mirror.RoomID, before time.Time) int64 {
	e.Helper()
	const limit = 3
	for all := int64(0); ; {
		n, err := e.PurgeRoom(e.ctx(), roomOf(id), before, limit)
		e.must("PurgeRoom", err)
		if n < 0 || n > limit {
			e.Fatalf("PurgeRoom at most %d = %d", limit, n)
		}
		if all += int64(n); n == 0 {
			return all
		}
	}
}

func (e *env) remains(id mirror.RoomID) int64 {
	e.Helper()
	n, err := e.Remains(e.ctx(), roomOf(id))
	e.must("Remains", err)
	return n
}

func (e *env) deletedRooms(before time.Time, after mirror.RoomID, limit int) []mirror.RoomID {
	e.Helper()
	ids, err := e.DeletedRooms(e.ctx(), project, before, after, limit)
	e.must("DeletedRooms", err)
	return ids
}

func purgeDeleted(e *env) {
	event := e.fullRoom("room")
	e.fullRoom("Room")
	aside := e.setAside(invalidatedAt(roomOf("room")))
	e.accept(aside)
	e.deleteRoom("room")
	states, changes := e.task(storageOf("room")), e.changes(roomOf("room").Bucket())
	e.pass(time.Hour)

	want := e.remains("room")
	if want < 12 {
		e.Fatalf("Remains = %d; want all that was mirrored", want)
	}
	if n := e.purge("room", e.now); n != want {
		e.Fatalf("purged rows = %d; want the %d that were counted", n, want)
	}
	if n := e.remains("room"); n != 0 {
		e.Fatalf("Remains of a purged room = %d; want none", n)
	}
	e.want("JSON of the room", string(e.tombstone("room").Source), store.Purged)
	_, err := e.Document(e.ctx(), storageOf("room"), true)
	e.wantErr("Document of a purged room", err, store.ErrNotFound)
	e.wantNoThread(threadOf("room", "th_1"), true)
	e.want("comments", e.comments(store.CommentFilter{Room: "room", Deleted: true}), []string(nil))
	e.want("active users", len(e.activeUsers("room", true).Users), 0)
	e.want("sessions", len(e.sessions(store.SessionFilter{Room: "room"})), 0)
	e.want("notifications", len(e.notifications(store.NotificationFilter{Room: "room"})), 0)
	e.want("waiting events", len(e.unfolded(userSessionsOf("room"), 10)), 0)
	events, err := e.Events(e.ctx(), store.EventFilter{Project: project, Room: "room", Limit: 100})
	e.must("Events", err)
	for _, ev := range events {
		payload := store.Purged
		if ev.ID == aside.Event.ID {
			payload = string(aside.Event.Payload)
		}
		e.want("body of event "+ev.ID, string(ev.Payload), payload)
	}
	// A repeated delivery is still known, and what was known of the room.
	if again := e.accept(event); again[0].Fresh {
		e.Fatalf("repeated delivery = %+v; want it known", again[0])
	}
	e.want("task of the document", e.task(storageOf("room")), states)
	e.want("changes", e.changes(roomOf("room").Bucket()), changes)
	// Nothing else was touched.
	e.want("thread of another room", e.readThread(threadOf("Room", "th_1"), false).ID, "th_1")
	e.want("sessions of another room", len(e.sessions(store.SessionFilter{Room: "Room"})), 1)
}

func purgeSpares(e *env) {
	e.fullRoom("room")
	e.fullRoom("alive")
	e.deleteRoom("room")
	deleted := e.now
	e.pass(time.Hour)
	living, left := e.remains("alive"), e.remains("room")
	e.want("DeletedRooms", e.deletedRooms(e.now, "", 10), []mirror.RoomID{"room"})
	e.want("DeletedRooms before", e.deletedRooms(deleted, "", 10), []mirror.RoomID(nil))
	e.want("DeletedRooms after", e.deletedRooms(e.now, "room", 10), []mirror.RoomID(nil))
	e.want("no DeletedRooms", e.deletedRooms(e.now, "", 0), []mirror.RoomID(nil))
	e.want("purged rows of a living room", e.purge("alive", e.now), int64(0))
	e.want("purged rows of a room deleted later", e.purge("room", deleted), int64(0))
	e.want("purged rows of no room", e.purge("nowhere", e.now), int64(0))
	foreign := roomOf("room")
	foreign.Project = "other"
	n, err := e.PurgeRoom(e.ctx(), foreign, e.now, 100)
	e.must("PurgeRoom", err)
	e.want("purged rows of another project", n, 0)
	e.want("what is left of the living room", e.remains("alive"), living)
	e.want("what is left of the room", e.remains("room"), left)
	// One that came back is alive.
	e.mirrorRoom("room", e.roomContent(`{"id":"again"}`))
	e.want("purged rows of a room that came back", e.purge("room", e.now.Add(time.Hour)), int64(0))
}

func purgedComesBack(e *env) {
	e.fullRoom("room")
	e.deleteRoom("room")
	e.pass(time.Hour)
	e.purge("room", e.now)
	// A late event does not resurrect it.
	e.raise(storageOf("room"))
	e.wantNoRoom("room")
	e.mirrorRoom("room", e.roomContent(`{"id":"r","metadata":{"name":"Plan"}}`))
	e.mirrorDocument(storageOf("room"), `{"a":1}`)
	e.want("JSON of the room", string(e.room("room").Source), `{"id":"r","metadata":{"name":"Plan"}}`)
	e.want("document", string(e.document(storageOf("room")).Content), `{"a":1}`)
}

package storetest

import (
	"fmt"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

var purgeCases = []testCase{
	{"purge leaves nothing of a deleted room", purgeDeleted},
	{"purge spares a room that is not deleted", purgeSpares},
	{"purge ends what is being folded", purgeFences},
	{"purge spares a room that may be back", purgeSparesWaiting},
	{"purged room comes back", purgedComesBack},
	{"purge leaves nothing of a project", purgeProject},
	{"purge of a project leaves the others, and the numbers of changes", purgeOneProject},
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

// purge purges a room in batches and returns how many rows of which tables it changed.
func (e *env) purge(id mirror.RoomID, before time.Time) store.TableRows {
	e.Helper()
	const limit = 3
	for all := make(store.TableRows); ; {
		rows, err := e.PurgeRoom(e.ctx(), roomOf(id), before, limit)
		e.must("PurgeRoom", err)
		if n := rows.All(); n > limit {
			e.Fatalf("PurgeRoom at most %d = %d", limit, n)
		}
		if all.Add(rows); len(rows) == 0 {
			return all
		}
	}
}

// wantNoPurge checks that a room is not purged.
func (e *env) wantNoPurge(what string, room mirror.Resource, before time.Time) {
	e.Helper()
	rows, err := e.PurgeRoom(e.ctx(), room, before, 100)
	e.wantErr("PurgeRoom of "+what, err, store.ErrNotFound)
	e.want("purged rows of "+what, len(rows), 0)
}

func (e *env) remains(id mirror.RoomID) int64 {
	e.Helper()
	return e.remaining(id).All()
}

func (e *env) remaining(id mirror.RoomID) store.TableRows {
	e.Helper()
	rows, err := e.Remains(e.ctx(), roomOf(id))
	e.must("Remains", err)
	return rows
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

	want := e.remaining("room")
	if want.All() < 12 {
		e.Fatalf("Remains = %v; want all that was mirrored", want)
	}
	e.want("purged rows, as they were counted", e.purge("room", e.now), want)
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
		e.want("user of event "+ev.ID, ev.User, map[bool]string{true: aside.Event.User}[ev.ID == aside.Event.ID])
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
	e.wantNoPurge("a living room", roomOf("alive"), e.now)
	e.wantNoPurge("a room deleted later", roomOf("room"), deleted)
	e.wantNoPurge("no room", roomOf("nowhere"), e.now)
	foreign := roomOf("room")
	foreign.Project = "other"
	e.wantNoPurge("another project", foreign, e.now)
	e.want("what is left of the living room", e.remains("alive"), living)
	e.want("what is left of the room", e.remains("room"), left)
	// One that came back is alive.
	e.mirrorRoom("room", e.roomContent(`{"id":"again"}`))
	e.wantNoPurge("a room that came back", roomOf("room"), e.now.Add(time.Hour))
}

// Sessions and notifications outlive their room, so who folds them is not stopped by its
// deletion.
func purgeSparesWaiting(e *env) {
	e.fullRoom("room")
	e.deleteRoom("room")
	e.pass(time.Hour)
	e.raise(roomOf("room"))
	e.waits(userSessionsOf("room"), "userEntered", `{"userId":"ann","connectionId":1}`)
	before := e.remains("room")
	e.wantNoPurge("a room that may be back", roomOf("room"), e.now)
	e.want("what is left of the room", e.remains("room"), before)
	e.want("events that wait", len(e.unfolded(userSessionsOf("room"), 10)), 2)
	e.applyMissing(e.claim(roomOf("room")))
	e.pass(time.Second)
	e.purge("room", e.now)
	e.want("what is left of a room that is not back", e.remains("room"), int64(0))
}

func purgeFences(e *env) {
	e.fullRoom("room")
	e.fullRoom("Room")
	sessions, notification, other := userSessionsOf("room"), notificationOf("room", "in_1"), userSessionsOf("Room")
	for _, r := range []mirror.Resource{sessions, other} {
		e.waits(r, "userLeft", `{"userId":"ann","connectionId":1}`)
	}
	e.waits(notification, "notification", `{"userId":"ann","inboxNotificationId":"in_1"}`)
	e.deleteRoom("room")
	first, second, spared := e.claim(sessions), e.claim(notification), e.claim(other)
	e.wantNoPurge("a room that lives", roomOf("Room"), e.now.Add(time.Hour))
	e.purge("room", e.now.Add(time.Microsecond))
	_, err := e.ApplySessions(e.ctx(), first, mirror.SessionFold{
		Upserts: []mirror.UserSession{e.session("room", "msg_x", 1)},
	}, e.now)
	e.wantErr("ApplySessions of what was read before", err, store.ErrLeaseLost)
	_, err = e.ApplyNotification(e.ctx(), second, mirror.NotificationFold{
		Rows: []mirror.Notification{e.notification(notification, "msg_y")},
	}, e.now, 0)
	e.wantErr("ApplyNotification of what was read before", err, store.ErrLeaseLost)
	e.want("what is left of the room", e.remains("room"), int64(0))
	_, err = e.ApplySessions(e.ctx(), spared, mirror.SessionFold{}, e.now)
	e.must("ApplySessions of a room that lives", err)
	// What comes later is folded.
	e.waits(sessions, "userLeft", `{"userId":"ann","connectionId":1}`)
	e.applySessions(sessions, mirror.SessionFold{})
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

// purgeAll purges a project in batches and returns how many rows that changed.
func (e *env) purgeAll(p mirror.ProjectID) (all int64) {
	e.Helper()
	const limit = 3
	for bucket := range int16(mirror.Buckets) {
		for n := limit; n > 0; all += int64(n) {
			var err error
			n, err = e.PurgeProject(e.ctx(), p, bucket, limit)
			e.must("PurgeProject", err)
			if n < 0 || n > limit {
				e.Fatalf("PurgeProject at most %d = %d", limit, n)
			}
		}
	}
	return all
}

func (e *env) remainsOf(p mirror.ProjectID) (all int64) {
	e.Helper()
	for bucket := range int16(mirror.Buckets) {
		n, err := e.RemainsOfProject(e.ctx(), p, bucket)
		e.must("RemainsOfProject", err)
		all += n
	}
	return all
}

func (e *env) projectIDs() []mirror.ProjectID {
	e.Helper()
	ids, err := e.ProjectIDs(e.ctx())
	e.must("ProjectIDs", err)
	return ids
}

// known makes a project known, with something in each of its tables without a bucket.
func (e *env) knownProject(p mirror.ProjectID) {
	e.Helper()
	_, err := e.PinProject(e.ctx(), p, "6605")
	e.must("PinProject", err)
	_, err = e.PlanSweep(e.ctx(), p, "sweep", true, e.now)
	e.must("PlanSweep", err)
	e.must("NoteUnannounced", e.NoteUnannounced(e.ctx(), p, mirror.KindRoom, 1, e.now))
}

func purgeProject(e *env) {
	e.want("projects", e.projectIDs(), []mirror.ProjectID(nil))
	e.knownProject(project)
	e.fullRoom("room")
	e.fullRoom("Room")
	e.deleteRoom("Room")
	e.accept(e.setAside(invalidatedAt(roomOf("room"))))
	e.want("projects", e.projectIDs(), []mirror.ProjectID{project})

	want := e.remainsOf(project)
	if want < 40 {
		e.Fatalf("RemainsOfProject = %d; want all that was mirrored", want)
	}
	if n := e.purgeAll(project); n != want {
		e.Fatalf("purged rows = %d; want the %d that were counted", n, want)
	}
	e.want("what is left", e.remainsOf(project), int64(0))
	e.want("projects before it is forgotten", e.projectIDs(), []mirror.ProjectID{project})
	e.must("ForgetProject", e.ForgetProject(e.ctx(), project))
	e.want("projects", e.projectIDs(), []mirror.ProjectID(nil))

	events, err := e.Events(e.ctx(), store.EventFilter{Project: project, Limit: 10})
	e.must("Events", err)
	e.want("events", len(events), 0)
	rooms, err := e.Rooms(e.ctx(), store.RoomFilter{Project: project, Deleted: true, Limit: 10})
	e.must("Rooms", err)
	e.want("rooms", len(rooms), 0)
	tasks, err := e.TaskList(e.ctx(), store.TaskFilter{Project: project, Now: e.now, Limit: 10})
	e.must("TaskList", err)
	e.want("tasks", len(tasks), 0)
	e.want("sessions", len(e.sessions(store.SessionFilter{})), 0)
	e.want("notifications", len(e.notifications(store.NotificationFilter{})), 0)
	sweep, err := e.Sweep(e.ctx(), project)
	e.must("Sweep", err)
	e.want("sweep", sweep, mirror.Sweep{Project: project})
	unannounced, err := e.Unannounced(e.ctx(), project)
	e.must("Unannounced", err)
	e.want("unannounced changes", len(unannounced), 0)
	for _, c := range e.changes(roomOf("room").Bucket()) {
		e.want("what a change names", c.Resource, mirror.Resource{Kind: c.Resource.Kind})
	}
	// It can be set up again.
	e.fullRoom("room")
	e.want("document", string(e.document(storageOf("room")).Content), `{"a":1}`)
}

func purgeOneProject(e *env) {
	const other = mirror.ProjectID("other")
	e.knownProject(project)
	e.knownProject(other)
	// The other project has a room with the same id, and one that shares a bucket.
	twin := mirror.Resource{Project: other, Kind: mirror.KindRoom}
	for i := 0; twin.Room == "" || twin.Bucket() != roomOf("room").Bucket(); i++ {
		twin.Room = mirror.RoomID(fmt.Sprintf("twin-%d", i))
	}
	same := mirror.Resource{Project: other, Room: "room", Kind: mirror.KindRoom}
	documents := map[mirror.RoomID]string{twin.Room: `{"of":"twin"}`, same.Room: `{"of":"other"}`}
	for i, r := range []mirror.Resource{twin, same} {
		e.accept(e.delivery(invalidatedAt(r)))
		e.applyRoom(e.claim(r), e.roomContent(`{"id":"other"}`))
		if i == 0 {
			e.fullRoom("room") // its changes come between
		}
		r.Kind = mirror.KindStorage
		e.raise(r)
		e.applyDocument(e.claim(r), e.documentContent(documents[r.Room]))
	}
	before, left := e.changes(twin.Bucket()), e.remainsOf(other)

	e.purgeAll(project)
	e.must("ForgetProject", e.ForgetProject(e.ctx(), project))
	e.want("projects", e.projectIDs(), []mirror.ProjectID{other})
	e.want("rows of the other project", e.remainsOf(other), left)
	for _, r := range []mirror.Resource{twin, same} {
		room, err := e.Room(e.ctx(), r, false)
		e.must("Room", err)
		e.want("room of the other project", string(room.Source), `{"id":"other"}`)
		r.Kind = mirror.KindStorage
		doc, err := e.Document(e.ctx(), r, false)
		e.must("Document", err)
		e.want("document of the other project", string(doc.Content), documents[r.Room])
	}
	sweep, err := e.Sweep(e.ctx(), other)
	e.must("Sweep", err)
	e.want("sweep of the other project", sweep.ID, "sweep")
	for i := range before {
		if before[i].Resource.Project == project {
			before[i].Resource = mirror.Resource{Kind: before[i].Resource.Kind}
		}
	}
	e.want("changes", e.changes(twin.Bucket()), before)
}

package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

var retentionCases = []testCase{
	{"events expire by age, in batches", eventsExpire},
	{"event that waits does not expire", waitingStays},
	{"repeated delivery is known until its event expires", duplicatesKnown},
	{"sessions expire by their end", sessionsExpire},
	{"notifications expire by age", notificationsExpire},
	{"late event after all has expired revives nothing", expiredRevivesNothing},
	{"expiry beside all other work loses nothing that is needed", expiryBesideWork},
	{"deleted threads expire with what belongs to them", deletedThreadsExpire},
	{"deleted groups expire with their members", deletedGroupsExpire},
	{"deleted rooms are emptied by age", deletedRoomsExpire},
	{"room that comes back between two pieces of its expiry keeps nothing of before", expiryBeforeRebirth},
	{"room that comes back while deleted ones expire is whole", expiryBesideRebirth},
}

func (e *env) allThreads() []string {
	e.Helper()
	return e.threads(store.ThreadFilter{Deleted: true})
}

func deletedThreadsExpire(e *env) {
	e.want("expired of nothing", e.expire(store.AgingThreads, e.now.Add(time.Hour)), 0)
	e.mirrorRoom("room", e.roomContent(`{}`))
	e.mirrorRoom("Room", e.roomContent(`{}`))
	old, waits := threadOf("room", "th_old"), threadOf("room", "th_waits")
	for _, r := range []mirror.Resource{
		old, waits, threadOf("room", "th_alive"), threadOf("room", "th_young"), threadOf("Room", "th_old_too"),
	} {
		e.mirrorThread(r.Room, threadIn(r.ID, 1, fullComment("cm_1", 1), commentIn("cm_2", 2)))
	}
	begin := e.now
	e.deleteThread(old)
	e.deleteThread(threadOf("Room", "th_old_too"))
	e.deleteThread(waits)
	e.pass(time.Hour)
	e.deleteThread(threadOf("room", "th_young"))
	e.raise(waits) // it may be there after all
	state, changes, rows := e.task(old), e.changes(old.Bucket()), e.remainsOf(project)
	e.want("Oldest", e.oldest(project)[store.AgingThreads], begin)
	e.want("expired before the first", e.expire(store.AgingThreads, begin), 0)

	n := e.expire(store.AgingThreads, e.now)
	e.want("threads left", e.allThreads(), []string{"room/th_alive", "room/th_waits", "room/th_young"})
	e.want("comments left", e.comments(store.CommentFilter{Deleted: true}), []string{
		"room/th_alive/cm_1", "room/th_alive/cm_2", "room/th_waits/cm_1", "room/th_waits/cm_2", "room/th_young/cm_1",
		"room/th_young/cm_2",
	})
	e.want("rows left", e.remainsOf(project), rows-int64(n))
	if n < 20 {
		e.Fatalf("expired = %d; want the rows of two threads and of their comments", n)
	}
	e.want("task", e.task(old), state)
	e.want("changes", e.changes(old.Bucket()), changes)
	e.want("Oldest left", e.oldest(project)[store.AgingThreads], begin)
	other, err := e.Expire(e.ctx(), store.Expiry{
		Project: "other", Table: store.AgingThreads, Before: e.now.Add(time.Hour), Limit: 100,
	})
	e.must("Expire", err)
	e.want("expired of another project", other, store.Expired{})

	// What comes late finds no thread, unless it is there again.
	e.raise(old)
	e.want("ApplyThreadMissing", e.missThread(old), mirror.Applied{})
	e.wantNoThread(old, true)
	e.want("changes", e.changes(old.Bucket()), changes)
	again := threadIn(old.ID, 2, commentIn("cm_3", 3))
	e.mirrorThread("room", again)
	e.want("thread that is there again", e.tables(old), storedOf(again))
	if got := e.task(old); got.Generation <= state.Generation {
		e.Fatalf("generation = %d; want more than the %d of before", got.Generation, state.Generation)
	}
	// What waited is not there, so it goes.
	e.missThread(waits)
	if n := e.expire(store.AgingThreads, e.now); n < 10 {
		e.Fatalf("expired of what waited = %d; want all of it", n)
	}
	e.want("threads left", e.allThreads(), []string{"room/th_alive", "room/th_old", "room/th_young"})
}

func deletedGroupsExpire(e *env) {
	kit := itemKits[mirror.KindGroup]
	alive := groupIn("alive", 1, "alice", "bob")
	e.mirrorGroup(alive)
	e.mirrorGroup(groupIn("design", 1, "alice", "bob", "carol", "dave"))
	_, err := e.listItems(kit, store.GroupItem(alive))
	e.must("ApplyList", err)
	e.missItem(groupOf("design"))
	begin, rows, state := e.now, e.remainsOf(project), e.task(groupOf("design"))
	e.pass(time.Hour)
	e.want("Oldest", e.oldest(project)[store.AgingGroups], begin)
	e.want("expired before it was deleted", e.expire(store.AgingGroups, begin), 0)
	e.want("expired", e.expire(store.AgingGroups, e.now), 5)
	e.want("rows left", e.remainsOf(project), rows-5)
	e.want("task", e.task(groupOf("design")), state)
	e.want("groups left", e.groupIDs(store.GroupFilter{Deleted: true}), []string{"alive"})
	e.wantStored(kit, store.GroupItem(alive))
	e.want("Oldest left", e.oldest(project), map[store.Aging]time.Time{})
	e.mirrorGroup(groupIn("design", 2, "bob"))
	e.wantStored(kit, store.GroupItem(groupIn("design", 2, "bob")))
}

func deletedRoomsExpire(e *env) {
	event := e.fullRoom("room")
	for _, id := range []mirror.RoomID{"Room", "waits", "young", "alive"} {
		e.fullRoom(id)
	}
	e.raise(storageOf("room"))
	earlier := e.claim(storageOf("room"))
	begin := e.now
	e.deleteRoom("room")
	e.deleteRoom("Room")
	e.deleteRoom("waits")
	e.pass(time.Hour)
	e.deleteRoom("young")
	e.raise(roomOf("waits")) // it may be there after all
	left := make(map[mirror.RoomID]int64)
	for _, id := range []mirror.RoomID{"room", "Room", "waits", "young", "alive"} {
		left[id] = e.remains(id)
	}
	state, changes, room := e.task(storageOf("room")), e.changes(roomOf("room").Bucket()), e.tombstone("room")
	e.want("Oldest", e.oldest(project)[store.AgingRooms], begin)

	n := e.expire(store.AgingRooms, e.now)
	gone := int64(0)
	for id, was := range left {
		now := e.remains(id)
		if gone += was - now; id != "room" && id != "Room" && now != was {
			e.Fatalf("rows of room %q = %d; want %d as before", id, now, was)
		}
	}
	if int64(n) != gone || n < 20 {
		e.Fatalf("expired = %d, rows that are gone = %d; want all of two rooms", n, gone)
	}
	got := e.tombstone("room")
	e.want("JSON of the room", string(got.Source), store.Purged)
	e.want("time of its deletion", got.Freshness.DeleteTime, room.Freshness.DeleteTime)
	_, err := e.Document(e.ctx(), storageOf("room"), true)
	e.wantErr("Document", err, store.ErrNotFound)
	e.wantNoThread(threadOf("room", "th_1"), true)
	e.want("comments", e.comments(store.CommentFilter{Room: "room", Deleted: true}), []string(nil))
	// What events told has times of its own, and what tells of the deletion stays.
	e.want("sessions", len(e.sessions(store.SessionFilter{Room: "room"})), 1)
	e.want("notifications", len(e.notifications(store.NotificationFilter{Room: "room"})), 1)
	e.want("waiting events", len(e.unfolded(userSessionsOf("room"), 10)), 1)
	kept, err := e.EventOf(e.ctx(), project, "room", event.Event.ID)
	e.must("EventOf", err)
	e.want("body of an event", string(kept.Payload), string(event.Event.Payload))
	e.want("task of the document", e.task(storageOf("room")), state)
	e.want("changes", e.changes(roomOf("room").Bucket()), changes)
	e.want("expired again", e.expire(store.AgingRooms, e.now), 0)

	// What waited is not there; what came back lives.
	e.want("Oldest left", e.oldest(project)[store.AgingRooms], begin)
	e.applyMissing(e.claim(roomOf("waits")))
	e.mirrorRoom("young", e.roomContent(`{"id":"again"}`))
	e.mirrorDocument(storageOf("young"), `{"a":2}`)
	e.pass(time.Hour)
	if n := e.expire(store.AgingRooms, e.now); n < 10 {
		e.Fatalf("expired of what waited = %d; want all of it", n)
	}
	e.want("document of a room that came back", string(e.document(storageOf("young")).Content), `{"a":2}`)
	e.want("Oldest of none", e.oldest(project)[store.AgingRooms], time.Time{})

	// Nothing late takes the room for a new one, nor what was fetched before for the new one.
	e.accept(event)
	e.raise(storageOf("room"))
	e.wantNoRoom("room")
	e.mirrorRoom("room", e.roomContent(`{"id":"r","metadata":{"name":"Plan"}}`))
	e.want("JSON of the room", string(e.room("room").Source), `{"id":"r","metadata":{"name":"Plan"}}`)
	_, err = e.ApplyDocument(e.ctx(), earlier, e.documentContent(`{"late":1}`), e.now, 0)
	if err == nil {
		e.Fatalf("ApplyDocument of what was fetched before the deletion = nil; want an error")
	}
	entries := e.changes(roomOf("room").Bucket())
	epoch := int64(0)
	for _, c := range entries {
		if c.Resource == roomOf("room") {
			if c.Epoch < epoch {
				e.Fatalf("epoch %d follows %d; want it to rise", c.Epoch, epoch)
			}
			epoch = c.Epoch
		}
	}
	e.want("epoch", epoch, int64(3))
}

// Comments have no epoch: of a room that comes back, only the threads that are still there
// tell which comments are to be deleted.
func expiryBeforeRebirth(e *env) {
	again := func(id mirror.RoomID) int64 {
		e.mirrorRoom(id, e.roomContent(`{"id":"again"}`))
		for cleaned := 1; cleaned > 0; {
			var err error
			cleaned, err = e.CleanRoom(e.ctx(), roomOf(id), 10)
			e.must("CleanRoom", err)
		}
		return e.remains(id)
	}
	e.fullRoom("whole")
	e.deleteRoom("whole")
	want := again("whole")

	e.fullRoom("room")
	e.deleteRoom("room")
	e.pass(time.Hour)
	x := store.Expiry{Project: project, Table: store.AgingRooms, Before: e.now, Limit: 1}
	for there := true; there; {
		out, err := e.Expire(e.ctx(), x)
		e.must("Expire", err)
		if !out.More {
			e.Fatalf("Expire = %+v; want it to be cut off before the thread is gone", out)
		}
		_, err = e.Thread(e.ctx(), threadOf("room", "th_1"), true)
		there = err == nil
	}
	e.want("rows of the room that came back", again("room"), want)
}

// A room is deleted and comes back again and again, with threads that are deleted too,
// while two stores let all expire that is deleted.
func expiryBesideRebirth(e *env) {
	const rounds = 12
	working, stop := context.WithCancel(e.ctx())
	var others sync.WaitGroup
	defer others.Wait() // also when the case fails
	defer stop()
	var expired atomic.Int64
	expireSome := func(s store.Store, table store.Aging) error {
		out, err := s.Expire(e.ctx(), store.Expiry{
			Project: project, Table: table, Before: e.now.Add(time.Hour), Limit: 2,
		})
		expired.Add(int64(out.Deleted))
		return err
	}
	for _, s := range []store.Store{e.Store, e.another()} {
		others.Go(func() {
			for working.Err() == nil {
				err := errors.Join(expireSome(s, store.AgingRooms), expireSome(s, store.AgingThreads))
				if err != nil {
					e.Errorf("Expire = %v; want no error", err)
					return
				}
			}
		})
	}
	for i := range rounds {
		e.mirrorRoom("room", e.roomContent(fmt.Sprintf(`{"id":"room","n":%d}`, i)))
		e.mirrorDocument(storageOf("room"), fmt.Sprintf(`{"n":%d}`, i))
		for _, id := range []string{"th_1", "th_2"} {
			thread := threadIn(id, i, fullComment("cm_1", 1), commentIn("cm_2", 2))
			e.mirrorThread("room", thread)
			e.want("thread", e.tables(threadOf("room", id)), storedOf(thread))
		}
		e.deleteThread(threadOf("room", "th_1"))
		again := threadIn("th_1", i, fullComment("cm_3", 1))
		e.mirrorThread("room", again)
		e.want("thread that is there again", e.tables(threadOf("room", "th_1")), storedOf(again))
		e.want("document", string(e.document(storageOf("room")).Content), fmt.Sprintf(`{"n":%d}`, i))
		e.want("JSON of the room", string(e.room("room").Source), fmt.Sprintf(`{"id":"room","n":%d}`, i))
		if i < rounds-1 {
			e.deleteRoom("room")
		}
	}
	stop()
	others.Wait()
	if expired.Load() == 0 {
		e.Fatalf("nothing expired; want some beside the work")
	}
	e.want("threads", e.allThreads(), []string{"room/th_1", "room/th_2"})
}

// expire has rows of a table expire in batches, and returns how many went.
func (e *env) expire(table store.Aging, before time.Time) (all int) {
	e.Helper()
	const limit = 3
	x := store.Expiry{Project: project, Table: table, Before: before, Limit: limit}
	for more := true; more; {
		out, err := e.Expire(e.ctx(), x)
		e.must("Expire", err)
		if out.Deleted < 0 || out.Deleted > limit {
			e.Fatalf("Expire at most %d = %+v", limit, out)
		}
		if out.More && (out.Oldest.IsZero() || !out.Oldest.Before(before)) {
			e.Fatalf("Expire = %+v; want it to tell what it looked at first", out)
		}
		all += out.Deleted
		cut := len(table.Columns().Parts) > 0 && out.Deleted == limit // the next look begins where this one did
		if more = out.More; more && out.Last == x.After && !cut {
			e.Fatalf("Expire after %+v = %+v; want it to get on", x.After, out)
		}
		x.After = out.Last
	}
	return all
}

func (e *env) eventsOf(p mirror.ProjectID) (ids []string) {
	e.Helper()
	events, err := e.Events(e.ctx(), store.EventFilter{Project: p, Limit: 10_000})
	e.must("Events", err)
	for _, ev := range events {
		ids = append(ids, ev.ID)
	}
	slices.Sort(ids)
	return ids
}

func (e *env) oldest(p mirror.ProjectID) map[store.Aging]time.Time {
	e.Helper()
	oldest, err := e.Oldest(e.ctx(), p)
	e.must("Oldest", err)
	return oldest
}

func eventsExpire(e *env) {
	begin := e.now
	e.want("Oldest of nothing", e.oldest(project), map[store.Aging]time.Time{})
	e.want("expired of nothing", e.expire(store.AgingEvents, e.now.Add(time.Hour)), 0)
	var young []string
	for i := range 20 {
		var batch []mirror.Delivery
		for n := range 1 + i%5 { // several of one time, in several buckets
			d := e.delivery(invalidatedAt(roomOf(mirror.RoomID(fmt.Sprintf("room-%d-%d", i, n)))))
			if n == 3 {
				d = e.delivery() // of no room
			}
			if batch = append(batch, d); i >= 10 {
				young = append(young, d.Event.ID)
			}
		}
		e.accept(batch...)
		e.pass(time.Minute)
	}
	foreign := e.delivery()
	foreign.Event.Project, foreign.Event.ReceiveTime = "other", begin
	e.accept(foreign)
	all := e.eventsOf(project)
	e.want("Oldest", e.oldest(project)[store.AgingEvents], begin)

	e.want("expired before the first", e.expire(store.AgingEvents, begin), 0)
	one, err := e.Expire(e.ctx(), store.Expiry{Project: project, Table: store.AgingEvents, Before: e.now, Limit: 0})
	e.must("Expire", err)
	e.want("Expire none", one, store.Expired{})
	e.want("events that nothing has expired of", e.eventsOf(project), all)
	e.want("expired", e.expire(store.AgingEvents, begin.Add(10*time.Minute)), len(all)-len(young))
	e.want("events left", e.eventsOf(project), young)
	e.want("Oldest left", e.oldest(project)[store.AgingEvents], begin.Add(10*time.Minute))
	e.want("events of another project", e.eventsOf("other"), []string{foreign.Event.ID})
	e.want("expired again", e.expire(store.AgingEvents, begin.Add(10*time.Minute)), 0)
	// Nothing else went with them.
	tasks, err := e.TaskList(e.ctx(), store.TaskFilter{Project: project, Now: e.now, Limit: 1000})
	e.must("TaskList", err)
	if len(tasks) < 50 {
		e.Fatalf("tasks = %d; want those of all rooms", len(tasks))
	}
}

func waitingStays(e *env) {
	r := userSessionsOf("room")
	waits := e.foldEvent(r, e.now)
	e.accept(e.delivery(invalidatedAt(roomOf("room"))))
	other := e.foldEvent(userSessionsOf("Room"), e.now)
	e.pass(time.Hour)
	e.want("expired", e.expire(store.AgingEvents, e.now), 1)
	e.want("events that wait", e.eventsOf(project), []string{waits.ID, other.ID})
	lease := e.claim(r)
	_, err := e.ApplySessions(e.ctx(), lease,
		mirror.SessionFold{Upserts: []mirror.UserSession{e.session("room", waits.ID, 1)}, Folded: []string{waits.ID}}, e.now)
	e.must("ApplySessions", err)
	e.want("expired once folded", e.expire(store.AgingEvents, e.now), 1)
	e.want("event that waits still", e.eventsOf(project), []string{other.ID})
	e.want("events that wait at the other room", eventIDs(e.unfolded(userSessionsOf("Room"), 10)), []string{other.ID})
	e.want("sessions", sessionIDs(e.sessions(store.SessionFilter{})), []string{waits.ID})
}

func duplicatesKnown(e *env) {
	first := e.delivery(invalidatedAt(storageOf("room")))
	e.accept(first)
	e.pass(time.Hour)
	e.want("expired before it is old", e.expire(store.AgingEvents, first.Event.ReceiveTime), 0)
	before := e.task(storageOf("room"))
	if again := e.accept(first); again[0].Fresh {
		e.Fatalf("repeated delivery = %+v; want it known", again[0])
	}
	e.want("task after a repeated delivery", e.task(storageOf("room")), before)
	e.want("expired", e.expire(store.AgingEvents, e.now), 1)
	if again := e.accept(first); !again[0].Fresh {
		e.Fatalf("delivery after its event expired = %+v; want it to count as new", again[0])
	}
}

// sessionOf is one that began and, unless it is open, ended some hours ago.
func (e *env) sessionOf(room mirror.RoomID, id string, began, ended int) mirror.UserSession {
	s := e.session(room, id, int64(len(id)))
	s.EnterTime = e.now.Add(time.Duration(-began) * time.Hour)
	if ended >= 0 {
		s.LeaveTime, s.End = e.now.Add(time.Duration(-ended)*time.Hour), mirror.SessionLeft
	}
	return s
}

func sessionsExpire(e *env) {
	e.upsertSessions(
		e.sessionOf("room", "a-old", 9, 8), e.sessionOf("room", "b-older", 20, 19), e.sessionOf("Room", "c-old-too", 9, 8),
		e.sessionOf("room", "d-long", 9, 1), e.sessionOf("room", "e-open", 20, -1), e.sessionOf("Room", "f-young", 1, 0),
		e.sessionOf("Room", "g-ends-at-the-time", 9, 5),
	)
	gone := e.session("room", "h-no-enter", 9)
	gone.EnterTime, gone.LeaveTime, gone.End = time.Time{}, e.now.Add(-7*time.Hour), mirror.SessionLeft
	e.upsertSessions(gone)
	e.want("Oldest", e.oldest(project)[store.AgingSessions], e.now.Add(-20*time.Hour))
	e.want("expired", e.expire(store.AgingSessions, e.now.Add(-5*time.Hour)), 4)
	ids := sessionIDs(e.sessions(store.SessionFilter{}))
	slices.Sort(ids)
	e.want("sessions left", ids, []string{"d-long", "e-open", "f-young", "g-ends-at-the-time"})
	e.want("expired of another project", func() int {
		out, err := e.Expire(e.ctx(), store.Expiry{Project: "other", Table: store.AgingSessions, Before: e.now, Limit: 100})
		e.must("Expire", err)
		return out.Deleted
	}(), 0)
	// What is folded later goes on from what is left.
	left := e.sessionOf("room", "e-open", 20, 0)
	e.upsertSessions(left)
	e.want("session that ended", e.sessions(store.SessionFilter{Open: true}), []mirror.UserSession(nil))
}

func notificationsExpire(e *env) {
	r, odd := notificationOf("room", "in_1"), notificationOf("", "in_2")
	for i := range 4 {
		for _, r := range []mirror.Resource{r, odd} {
			n := e.notification(r, fmt.Sprintf("msg_%s_%d", r.ID, i))
			n.CreateTime = e.now.Add(time.Duration(-i) * time.Hour)
			e.applyNotification(r, mirror.NotificationFold{FetchTime: e.now, Rows: []mirror.Notification{n}})
		}
	}
	e.want("Oldest", e.oldest(project)[store.AgingNotifications], e.now.Add(-3*time.Hour))
	e.want("expired", e.expire(store.AgingNotifications, e.now.Add(-time.Hour)), 4)
	var ids []string
	for _, n := range e.notifications(store.NotificationFilter{}) {
		ids = append(ids, n.EventID)
	}
	slices.Sort(ids)
	e.want("notifications left", ids, []string{"msg_in_1_0", "msg_in_1_1", "msg_in_2_0", "msg_in_2_1"})
	// One that comes later belongs to it all the same.
	e.applyNotification(r, mirror.NotificationFold{
		FetchTime: e.now, Rows: []mirror.Notification{e.notification(r, "msg_late")},
	})
	e.want("notifications with a later one", len(e.notifications(store.NotificationFilter{Room: "room"})), 3)
}

func expiredRevivesNothing(e *env) {
	deleted := e.fullRoom("room")
	e.deleteRoom("room")
	e.foldAll("room")
	states, room := e.task(storageOf("room")), e.tombstone("room")
	e.pass(72 * time.Hour)
	if n := e.expire(store.AgingEvents, e.now); n < 8 {
		e.Fatalf("expired = %d; want all events", n)
	}
	e.expire(store.AgingSessions, e.now)
	e.expire(store.AgingNotifications, e.now)
	e.want("sessions left", len(e.sessions(store.SessionFilter{Room: "room"})), 0)
	e.want("tombstone", e.tombstone("room"), room)
	e.want("task of the document", e.task(storageOf("room")), states)

	// A delivery of long ago, and one that was never seen.
	for _, d := range []mirror.Delivery{deleted, e.delivery(invalidatedAt(storageOf("room")))} {
		e.accept(d)
		e.wantNoRoom("room")
	}
	lease := e.claim(storageOf("room"))
	if lease.Generation <= states.Generation {
		e.Fatalf("generation %d follows %d; want it higher", lease.Generation, states.Generation)
	}
	_, err := e.ApplyDocument(e.ctx(), lease, e.documentContent(`{"late":1}`), e.now, 0)
	e.wantErr("ApplyDocument", err, store.ErrEpochChanged)
	e.wantNoDocument(storageOf("room"))
}

// foldAll folds what waits at the sessions of a room.
func (e *env) foldAll(room mirror.RoomID) {
	e.Helper()
	r := userSessionsOf(room)
	_, err := e.ApplySessions(e.ctx(), e.claim(r), mirror.SessionFold{Folded: eventIDs(e.unfolded(r, 100))}, e.now)
	e.must("ApplySessions", err)
}

// Deliveries, folds, applies and a follower of the feed go on while rows expire and
// changes are trimmed, by two stores at once. Nothing goes that is young or waits, what
// is folded arrives, and a follower sees every change or is told that it cannot.
func expiryBesideWork(e *env) {
	const writers, each = 4, 40
	const keep = 20 * time.Second
	var ticks atomic.Int64
	now := func() time.Time { return e.now.Add(time.Duration(ticks.Add(1)) * time.Second / 4) }
	rooms := inOneBucket(writers)
	rooms[writers-1] = "elsewhere"
	bucket := roomOf(rooms[0]).Bucket()
	stores := []store.Store{e.Store, e.another()}
	for _, id := range rooms {
		e.mirrorRoom(id, e.roomContent(`{}`))
	}

	var latest atomic.Int64 // before when something may have expired
	var expired atomic.Int64
	expireSome := func(s store.Store) error {
		before := now().Add(-keep)
		for at := latest.Load(); at < before.UnixMicro() && !latest.CompareAndSwap(at, before.UnixMicro()); {
			at = latest.Load()
		}
		out, err := s.Expire(e.ctx(), store.Expiry{
			Project: project, Table: store.AgingEvents, Before: before, Limit: 7,
		})
		if err != nil {
			return err
		}
		expired.Add(int64(out.Deleted))
		heads, err := s.Heads(e.ctx())
		if err != nil {
			return err
		}
		at, err := s.Earliest(e.ctx())
		if err != nil || at[bucket] >= heads[bucket] {
			return err
		}
		entries, err := s.Changes(e.ctx(), []store.ChangeRange{
			{Bucket: bucket, After: at[bucket], To: min(at[bucket]+5, heads[bucket])},
		})
		if through := store.TrimThrough(entries, heads[bucket], before); err == nil && through > 0 {
			_, err = s.Trim(e.ctx(), bucket, through, 5)
		}
		return err
	}

	working, stop := context.WithCancel(e.ctx())
	var others sync.WaitGroup
	defer others.Wait() // also when the case fails
	defer stop()
	for _, s := range stores {
		others.Go(func() {
			for working.Err() == nil {
				if err := expireSome(s); err != nil {
					e.Errorf("expire and trim = %v; want no error", err)
					return
				}
			}
		})
	}
	seen, missed := int64(0), int64(0)
	follow := func() (bool, error) {
		heads, err := stores[1].Heads(e.ctx())
		if err != nil {
			return false, err
		}
		at := mirror.Position{}
		at[bucket] = seen + missed
		of := mirror.Position{}
		of[bucket] = heads[bucket]
		ranges := store.Ranges(at, of, 4)
		page, err := stores[1].Changes(e.ctx(), ranges)
		if err != nil || len(ranges) == 0 {
			return false, err
		}
		passed, err := store.Advance(&at, ranges, page)
		if errors.Is(err, store.ErrTrimmed) {
			earliest, err := stores[1].Earliest(e.ctx())
			if earliest[bucket] <= seen+missed {
				return false, fmt.Errorf("changes after %d were trimmed, but the first is after %d", seen+missed, earliest[bucket])
			}
			missed = earliest[bucket] - seen
			return true, err
		}
		for i, c := range passed {
			if c.Number != seen+missed+1 && err == nil {
				err = fmt.Errorf("entry %d of the page is %+v; want number %d", i, c, seen+missed+1)
			}
			seen++
		}
		return true, err
	}
	var followErr error
	others.Go(func() {
		for working.Err() == nil && followErr == nil {
			_, followErr = follow()
		}
	})

	var mu sync.Mutex
	received := make(map[string]time.Time)
	folds := 0
	fold := func(s store.Store, room mirror.RoomID) (int, error) {
		r := userSessionsOf(room)
		lease, err := s.Claim(e.ctx(), r, newToken(), now(), leaseTTL)
		if errors.Is(err, store.ErrNotDue) {
			return 0, nil // nothing waits
		}
		if err != nil {
			return 0, err
		}
		waits, err := s.Unfolded(e.ctx(), r, 5)
		var f mirror.SessionFold
		for _, ev := range waits {
			if _, gone := s.EventOf(e.ctx(), project, room, ev.ID); gone != nil {
				return 0, fmt.Errorf("event %s waits, and reading it gives %w", ev.ID, gone)
			}
			f.Upserts = append(f.Upserts, e.session(room, ev.ID, 1))
			f.Folded = append(f.Folded, ev.ID)
		}
		if err == nil {
			_, err = s.ApplySessions(e.ctx(), lease, f, now())
		}
		return len(waits), err
	}
	parallel(writers, func(w int) {
		s, rng, room := stores[w%2], rand.New(rand.NewPCG(uint64(w), 7)), rooms[w]
		for i := range each {
			d := e.delivery(mirror.Invalidation{Resource: userSessionsOf(room), Fold: true})
			if rng.IntN(2) == 0 {
				d = e.delivery(invalidatedAt(storageOf(room)))
			}
			d.Event.ReceiveTime = now()
			answers, err := Accept(e.ctx(), s, []mirror.Delivery{d})
			if err != nil || !answers[0].Fresh {
				e.Errorf("Accept = %+v, %v; want it fresh", answers, err)
				return
			}
			mu.Lock()
			received[d.Event.ID] = d.Event.ReceiveTime
			if d.Invalidations[0].Fold {
				folds++
			}
			mu.Unlock()
			if i%8 == 7 {
				if _, err := fold(s, room); err != nil {
					e.Errorf("fold = %v; want no error", err)
					return
				}
			}
			if lease, err := s.Claim(e.ctx(), storageOf(room), newToken(), now(), leaseTTL); err == nil {
				content := e.documentContent(fmt.Sprintf(`{"v":%d}`, i))
				if _, err := s.ApplyDocument(e.ctx(), lease, content, now(), 0); err != nil {
					e.Errorf("ApplyDocument = %v; want no error", err)
					return
				}
			}
		}
	})
	stop()
	others.Wait()
	e.must("follow", followErr)
	for more := true; more; {
		var err error
		more, err = follow()
		e.must("follow", err)
	}
	e.want("changes that were seen, or told to be missed", seen+missed, e.lastChange(bucket))

	left := make(map[string]bool)
	for _, id := range e.eventsOf(project) {
		left[id] = true
	}
	bound := time.UnixMicro(latest.Load())
	for id, at := range received {
		if !left[id] && !at.Before(bound) {
			e.Fatalf("event %s of %v is gone; want all since %v", id, at, bound)
		}
	}
	if expired.Load() == 0 {
		e.Fatalf("no event expired; want some beside the work")
	}
	e.now = now()
	for _, room := range rooms {
		for n := 1; n > 0; {
			var err error
			n, err = fold(e.Store, room)
			e.must("fold", err)
		}
	}
	e.want("sessions", len(e.sessions(store.SessionFilter{})), folds)
	e.want("expired at the end", e.expire(store.AgingEvents, e.now), len(left))
}

package storetest

import (
	"slices"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

var erasureCases = []testCase{
	{"erasure finds every row once, as it was written", erasureFinds},
	{"erased events are still known", erasedEvents},
	{"erasure ends what is being folded", erasureFences},
	{"erased sessions and notifications are gone, and readers are told", erasedSessions},
	{"erasure spares what lives", erasureSpares},
	{"erasure leaves nothing of what is deleted", erasedDead},
	{"erasure leaves nothing of earlier incarnations", erasedEarlier},
	{"erasure of one project leaves the others", erasureOfOneProject},
}

func personal(name string) *store.PersonalTable {
	return store.Personal[slices.IndexFunc(store.Personal, func(t *store.PersonalTable) bool { return t.Name == name })]
}

// personalRows reads all rows of a table, two at a time.
func (e *env) personalRows(p mirror.ProjectID, table string) (rows []store.PersonalRow) {
	e.Helper()
	const limit = 2
	for bucket := range int16(mirror.Buckets) {
		for after := []any(nil); ; {
			page, err := e.PersonalRows(e.ctx(), p, personal(table), bucket, after, limit)
			e.must("PersonalRows of "+table, err)
			if rows = append(rows, page...); len(page) < limit {
				break
			}
			after = page[limit-1].Key
		}
	}
	return rows
}

// naming lists the columns that name a user, by table and row.
func (e *env) naming(user string) (found []string) {
	e.Helper()
	for _, t := range store.Personal {
		for _, row := range e.personalRows(project, t.Name) {
			for _, c := range t.Find(row, user) {
				found = append(found, t.Name+"."+c.Name)
			}
		}
	}
	slices.Sort(found)
	return found
}

// eraseRows erases the rows of a table that name a user.
func (e *env) eraseRows(table, user string) (changes []mirror.Change) {
	e.Helper()
	t := personal(table)
	rows := make(map[int16][]store.ErasedRow)
	for _, row := range e.personalRows(project, table) {
		columns := t.Find(row, user)
		if len(columns) == 0 {
			continue
		}
		bucket := t.Resource(project, row.Key).Bucket()
		if table == "mirror_event" {
			bucket = roomOf("room").Bucket()
		}
		whole := slices.ContainsFunc(columns, func(c store.PersonalColumn) bool { return c.Whole })
		rows[bucket] = append(rows[bucket], store.ErasedRow{Key: row.Key, Whole: whole})
	}
	if len(rows) == 0 {
		e.Fatalf("%s has no row that names %q", table, user)
	}
	for bucket, list := range rows {
		some, err := e.EraseRows(e.ctx(), project, t, bucket, list, e.now)
		e.must("EraseRows of "+table, err)
		changes = append(changes, some...)
	}
	return changes
}

// eraseDead erases a resource in batches, and returns how many rows that were.
func (e *env) eraseDead(r mirror.Resource) (all int, lives bool) {
	e.Helper()
	const limit = 2
	for {
		n, lives, err := e.EraseDead(e.ctx(), r, limit)
		e.must("EraseDead", err)
		if n < 0 || n > limit {
			e.Fatalf("EraseDead at most %d = %d", limit, n)
		}
		if all += n; lives || n == 0 {
			return all, lives
		}
	}
}

// annotated mirrors a room in which ann and bob have left something everywhere.
func (e *env) annotated(id mirror.RoomID) {
	e.Helper()
	event := e.delivery(invalidatedAt(roomOf(id)))
	event.Event.User, event.Event.Payload = "ann", []byte(`{"type":"x","data":{"userId":"ann"}}`)
	e.accept(event)
	e.applyRoom(e.claim(roomOf(id)), e.roomContent(`{"id":"r","usersAccesses":{"ann":["room:write"],"bob":[]}}`))
	e.mirrorDocument(storageOf(id), `{"by":"ann"}`)
	for _, t := range []mirror.Thread{
		threadIn("th_ann", 1, fullComment("cm_1", 1), commentIn("cm_2", 2)), threadIn("th_bob", 1, commentIn("cm_3", 1)),
	} {
		user := strings.TrimPrefix(t.ID, "th_")
		t.Source = []byte(`{"id":"` + t.ID + `","by":"` + user + `"}`)
		for i := range t.Comments {
			t.Comments[i].UserID = user
		}
		e.mirrorThread(id, t)
	}
	e.mirrorUsers(id, mirror.ActiveUser{ConnectionID: 1, UserID: "ann"}, mirror.ActiveUser{ConnectionID: 2, UserID: "bob"})
}

// sessionsOfTwo has ann and bob be in a room.
func (e *env) sessionsOfTwo(id mirror.RoomID) {
	e.Helper()
	ann, bob := e.session(id, "msg_ann", 1), e.session(id, "msg_bob", 2)
	ann.UserID, bob.UserID = "ann", "bob"
	ann.Info, bob.Info = []byte(`{"name":"Ann"}`), []byte(`{"boss":"ann"}`)
	e.upsertSessions(ann, bob)
}

func erasureFinds(e *env) {
	for _, id := range []mirror.RoomID{"room", "Room", "room "} {
		e.annotated(id)
	}
	var rooms []string
	for _, row := range e.personalRows(project, "mirror_thread") {
		room, _ := row.Key[0].(string)
		thread, _ := row.Key[1].(string)
		e.want("source of a thread", string(row.Values[0]), `{"id":"`+thread+`","by":"`+strings.TrimPrefix(thread, "th_")+`"}`)
		rooms = append(rooms, room+"/"+thread)
	}
	slices.Sort(rooms)
	e.want("threads", rooms, []string{
		"Room/th_ann", "Room/th_bob", "room /th_ann", "room /th_bob", "room/th_ann", "room/th_bob",
	})
	documents := e.personalRows(project, "mirror_document")
	e.want("documents", len(documents), 3)
	for _, row := range documents {
		e.want("content of a document", string(row.Values[0]), `{"by":"ann"}`)
		e.want("kind of a document", personal("mirror_document").Resource(project, row.Key).Kind, mirror.KindStorage)
	}
	e.want("rows of another project", len(e.personalRows("other", "mirror_thread")), 0)
	none, err := e.PersonalRows(e.ctx(), project, personal("mirror_room"), roomOf("room").Bucket(), nil, 0)
	e.must("PersonalRows", err)
	e.want("no rows", len(none), 0)
}

func erasedEvents(e *env) {
	of, other := e.delivery(invalidatedAt(roomOf("room"))), e.delivery(invalidatedAt(roomOf("room")))
	of.Event.User, of.Event.Payload = "ann", []byte(`{"userId":"ann"}`)
	other.Event.User, other.Event.Payload = "bob", []byte(`{"userId":"bob"}`)
	aside := e.delivery()
	aside.Event.Room, aside.Event.Payload = "room", []byte(`{"userId":"\u0061nn"}`)
	aside.Event.Outcome = mirror.OutcomeForeignProject
	e.accept(of, other, aside)
	before := e.task(roomOf("room"))

	e.want("changes", len(e.eraseRows("mirror_event", "ann")), 0)
	for id, want := range map[string]mirror.Event{
		of.Event.ID: {Payload: []byte(store.Purged)}, aside.Event.ID: {Payload: []byte(store.Purged)},
		other.Event.ID: other.Event,
	} {
		got, err := e.EventOf(e.ctx(), project, "room", id)
		e.must("EventOf", err)
		e.want("user of event "+id, got.User, want.User)
		e.want("payload of event "+id, string(got.Payload), string(want.Payload))
		e.want("room of event "+id, got.Room, mirror.RoomID("room"))
	}
	again := e.accept(of)
	e.want("repeated delivery is fresh", again[0].Fresh, false)
	e.want("task", e.task(roomOf("room")), before)
	e.want("what still names her", e.naming("ann"), []string(nil))
}

func erasureFences(e *env) {
	e.mirrorRoom("room", e.roomContent(`{"id":"r"}`))
	sessions := userSessionsOf("room")
	waits := e.delivery(mirror.Invalidation{Resource: sessions, Fold: true})
	waits.Event.Payload = []byte(`{"userId":"ann"}`)
	e.accept(waits)
	lease := e.claim(sessions)
	e.want("waiting events", len(e.unfolded(sessions, 10)), 1)
	e.eraseRows("mirror_unfolded_event", "ann")
	e.want("waiting events", len(e.unfolded(sessions, 10)), 0)
	ann := e.session("room", "msg_ann", 1)
	_, err := e.ApplySessions(e.ctx(), lease, mirror.SessionFold{Upserts: []mirror.UserSession{ann}}, e.now)
	e.wantErr("ApplySessions of what was read before", err, store.ErrLeaseLost)
	e.want("sessions", len(e.sessions(store.SessionFilter{Room: "room"})), 0)
	// What else waits is folded.
	e.wantState(sessions, mirror.TaskPending)
	e.applySessions(sessions, mirror.SessionFold{})
}

func erasedSessions(e *env) {
	e.mirrorRoom("room", e.roomContent(`{"id":"r"}`))
	e.sessionsOfTwo("room")
	for id, user := range map[string]string{"in_ann": "ann", "in_bob": "bob"} {
		r := notificationOf("room", id)
		n := e.notification(r, "msg_"+id)
		n.UserID = user
		e.applyNotification(r, mirror.NotificationFold{FetchTime: e.now, Rows: []mirror.Notification{n}, Inbox: mirror.Inbox{
			Source: []byte(`{"id":"` + id + `","activityData":{"by":"ann"}}`), ReadTime: e.now,
		}})
	}
	e.pass(time.Minute)
	bucket := roomOf("room").Bucket()
	before := e.lastChange(bucket)
	changes := slices.Concat(e.eraseRows("mirror_user_session", "ann"), e.eraseRows("mirror_notification", "ann"))
	e.want("entries of the feed", e.entries(bucket, before, e.lastChange(bucket)), changes)
	var told []mirror.Resource
	for _, c := range changes {
		e.want("kind of change", c.Kind, mirror.ChangeUpserted)
		told = append(told, c.Resource)
	}
	e.want("what readers are told of", told, []mirror.Resource{
		userSessionsOf("room"), notificationOf("room", "in_ann"), notificationOf("room", "in_bob"),
	})

	left := e.sessions(store.SessionFilter{Room: "room"})
	e.want("sessions", len(left), 1)
	e.want("session", left[0].ID, "msg_bob")
	e.want("user of the session", left[0].UserID, "bob")
	e.want("info of the session", string(left[0].Info), "")
	notifications := e.notifications(store.NotificationFilter{Room: "room"})
	e.want("notifications", len(notifications), 1)
	e.want("user of the notification", notifications[0].UserID, "bob")
	e.want("inbox of the notification", string(notifications[0].Inbox.Source), "")
	e.want("what still names her", e.naming("ann"), []string(nil))
	// Once more changes nothing.
	last := e.lastChange(bucket)
	gone, err := e.EraseRows(e.ctx(), project, personal("mirror_user_session"), bucket,
		[]store.ErasedRow{}, e.now)
	e.must("EraseRows of nothing", err)
	e.want("changes", len(gone), 0)
	e.want("last change", e.lastChange(bucket), last)
}

func erasureSpares(e *env) {
	e.annotated("room")
	e.mirrorGroup(groupIn("g_1", 1, "ann"))
	e.pass(time.Hour)
	before := e.naming("ann")
	for _, r := range []mirror.Resource{
		roomOf("room"), storageOf("room"), threadOf("room", "th_ann"), activeUsersOf("room"), groupOf("g_1"),
	} {
		n, lives := e.eraseDead(r)
		e.want("erased rows of what lives", n, 0)
		e.want("it lives", lives, true)
	}
	e.want("what names her", e.naming("ann"), before)
	e.want("document", string(e.document(storageOf("room")).Content), `{"by":"ann"}`)
	e.want("thread", e.readThread(threadOf("room", "th_ann"), false).ID, "th_ann")
}

func erasedDead(e *env) {
	e.annotated("room")
	e.mirrorGroup(groupIn("g_1", 1, "ann"))
	_, err := e.listItems(itemKits[mirror.KindGroup])
	e.must("ApplyList", err)
	e.missItem(groupOf("g_1"))
	e.deleteThread(threadOf("room", "th_ann"))
	e.pass(time.Hour)

	// A limit of zero only tells.
	n, lives, err := e.EraseDead(e.ctx(), threadOf("room", "th_ann"), 0)
	e.must("EraseDead", err)
	e.want("rows of a deleted thread, without a limit", n, 0)
	e.want("a deleted thread lives", lives, false)
	e.want("deleted thread", e.readThread(threadOf("room", "th_ann"), true).ID, "th_ann")

	state := e.task(threadOf("room", "th_ann"))
	if n, lives := e.eraseDead(threadOf("room", "th_ann")); n < 5 || lives {
		e.Fatalf("EraseDead of a deleted thread = %d, %t; want all its rows", n, lives)
	}
	e.wantNoThread(threadOf("room", "th_ann"), true)
	e.want("state of the thread", e.task(threadOf("room", "th_ann")), state)
	e.want("comments", e.comments(store.CommentFilter{Room: "room", Deleted: true}), []string{"room/th_bob/cm_3"})
	if _, lives := e.eraseDead(threadOf("room", "th_bob")); !lives {
		e.Fatalf("the other thread does not live")
	}
	e.eraseDead(groupOf("g_1"))
	e.want("groups", e.groupIDs(store.GroupFilter{Deleted: true}), []string(nil))
	// A list that lacks the thread changes nothing, one that has it brings it back.
	e.listThreads("room", threadIn("th_bob", 1, commentIn("cm_3", 1)))
	e.wantNoThread(threadOf("room", "th_ann"), true)

	e.deleteRoom("room")
	e.pass(time.Hour)
	for _, r := range []mirror.Resource{
		roomOf("room"), storageOf("room"), threadOf("room", "th_bob"), activeUsersOf("room"),
	} {
		if n, lives := e.eraseDead(r); n < 1 || lives {
			e.Fatalf("EraseDead of %v in a deleted room = %d, %t; want its rows", r, n, lives)
		}
		n, _ := e.eraseDead(r)
		e.want("rows erased again", n, 0)
	}
	e.want("JSON of the room", string(e.tombstone("room").Source), store.Purged)
	e.eraseRows("mirror_event", "ann")
	e.want("what still names her", e.naming("ann"), []string(nil))
	e.want("what still names him", e.naming("bob"), []string(nil))
	// A late event does not bring the room back, the room itself does.
	e.raise(storageOf("room"))
	e.wantNoRoom("room")
	e.mirrorRoom("room", e.roomContent(`{"id":"again"}`))
	e.want("JSON of the room", string(e.room("room").Source), `{"id":"again"}`)
}

func erasedEarlier(e *env) {
	e.annotated("room")
	e.deleteRoom("room")
	e.pass(time.Hour)
	e.mirrorRoom("room", e.roomContent(`{"id":"again"}`))
	e.mirrorThread("room", threadIn("th_new", 1, commentIn("cm_9", 1)))
	for _, r := range []mirror.Resource{storageOf("room"), threadOf("room", "th_ann"), activeUsersOf("room")} {
		if n, lives := e.eraseDead(r); n < 1 || lives {
			e.Fatalf("EraseDead of %v of an earlier incarnation = %d, %t; want its rows", r, n, lives)
		}
	}
	if _, lives := e.eraseDead(threadOf("room", "th_new")); !lives {
		e.Fatalf("the thread of the room as it is does not live")
	}
	e.want("thread", e.readThread(threadOf("room", "th_new"), false).ID, "th_new")
	// What waits for the clean-up of the room is the other thread, with its comment.
	var comments []any
	for _, row := range e.personalRows(project, "mirror_comment") {
		comments = append(comments, row.Key[2])
	}
	e.want("comments", comments, []any{"cm_3", "cm_9"})
	e.mirrorDocument(storageOf("room"), `{"a":1}`)
	e.want("document", string(e.document(storageOf("room")).Content), `{"a":1}`)
}

func erasureOfOneProject(e *env) {
	const other = mirror.ProjectID("other")
	same := mirror.Resource{Project: other, Room: "room", Kind: mirror.KindRoom}
	d := e.delivery(invalidatedAt(same))
	d.Event.User, d.Event.Payload = "ann", []byte(`{"userId":"ann"}`)
	e.accept(d)
	e.applyRoom(e.claim(same), e.roomContent(`{"by":"ann"}`))
	e.annotated("room")
	e.deleteRoom("room")
	e.eraseRows("mirror_event", "ann")
	e.eraseDead(roomOf("room"))
	event, err := e.EventOf(e.ctx(), other, "room", d.Event.ID)
	e.must("EventOf", err)
	e.want("user of the event of another project", event.User, "ann")
	e.want("payload of the event of another project", string(event.Payload), `{"userId":"ann"}`)
	room, err := e.Room(e.ctx(), same, false)
	e.must("Room", err)
	e.want("room of another project", string(room.Source), `{"by":"ann"}`)
	if _, lives := e.eraseDead(same); !lives {
		e.Fatalf("the room of the other project does not live")
	}
}

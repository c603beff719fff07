package storetest

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

var erasureCases = []testCase{
	{"erasure finds every row once, as it was written", erasureFinds},
	{"erased events are still known, and those of others mean what they meant", erasedEvents},
	{"erasure ends what is being folded", erasureFences},
	{"erased sessions and notifications are gone, and readers are told", erasedSessions},
	{"erasure spares what lives", erasureSpares},
	{"erasure of what is deleted leaves what others wrote", erasedDead},
	{"erasure everywhere takes words of others in what is deleted", erasedEverywhere},
	{"erasure of earlier incarnations spares the room as it is", erasedEarlier},
	{"erasure takes many attachments of a comment in pieces", erasedAttachments},
	{"erasure of one project leaves the others", erasureOfOneProject},
}

func personal(name string) *store.PersonalTable {
	return store.Personal[slices.IndexFunc(store.Personal, func(t *store.PersonalTable) bool { return t.Name == name })]
}

// erasedBuckets are those of the rooms of these cases, and of groups.
func erasedBuckets() (list []int16) {
	for _, r := range []mirror.Resource{roomOf("room"), roomOf("Room"), roomOf("room "), groupOf("g")} {
		list = append(list, r.Bucket())
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// personalRows reads all rows of a table, in pages that are small at first: some tables are long.
func (e *env) personalRows(p mirror.ProjectID, t *store.PersonalTable, bucket int16) (rows []store.PersonalRow) {
	e.Helper()
	after := []any(nil)
	for limit := 2; ; limit = min(2*limit, 500) {
		page, err := e.PersonalRows(e.ctx(), p, t, bucket, after, limit, 1<<20)
		e.must("PersonalRows of "+t.Name, err)
		if len(page) > limit {
			e.Fatalf("PersonalRows at most %d = %d rows", limit, len(page))
		}
		if rows = append(rows, page...); len(page) == 0 {
			return rows
		}
		after = page[len(page)-1].Key
	}
}

// naming lists the columns that hold an id, by table.
func (e *env) naming(user string) (found []string) {
	e.Helper()
	for _, t := range store.Personal {
		for _, bucket := range erasedBuckets() {
			for _, row := range e.personalRows(project, t, bucket) {
				// As if all of it lived: then nothing is erased.
				all := *t
				all.Columns = slices.Clone(t.Columns)
				for i := range all.Columns {
					all.Columns[i].Kept = true
				}
				all.Owner, all.Copy = "", false
				for _, c := range all.Judge(row, store.Life{}, store.Subject{User: user}).Remain {
					found = append(found, t.Name+"."+c)
				}
			}
		}
	}
	slices.Sort(found)
	return found
}

// erasure is what an erasure does.
type erasure struct {
	// Rows are how many rows went or were rewritten, by table.
	Rows store.TableRows
	// Remain are the columns that hold the id of the user then, by table, and what lives.
	Remain, Lives []string
	Changes       []mirror.Change
}

func (e *env) erase(p mirror.ProjectID, user string, dryRun bool) erasure {
	e.Helper()
	return e.eraseSubject(p, store.Subject{User: user}, dryRun)
}

func (e *env) eraseSubject(p mirror.ProjectID, subject store.Subject, dryRun bool) erasure {
	e.Helper()
	out := erasure{Rows: make(store.TableRows)}
	for _, t := range store.Personal {
		for _, bucket := range erasedBuckets() {
			var keys [][]any
			for _, row := range e.personalRows(p, t, bucket) {
				if t.Find(row, subject.User) {
					keys = append(keys, row.Key)
				}
			}
			for len(keys) > 0 {
				erased, err := e.EraseRows(e.ctx(), p, t, bucket, keys, subject, dryRun, e.now)
				e.must("EraseRows of "+t.Name, err)
				if len(erased.Judged) != len(keys) {
					e.Fatalf("EraseRows of %d keys = %d judgements", len(keys), len(erased.Judged))
				}
				for _, j := range erased.Judged {
					if j.Erase != store.EraseNothing {
						out.Rows[t.Name]++
					}
					for _, c := range j.Remain {
						out.Remain = append(out.Remain, t.Name+"."+c)
					}
					if j.Lives {
						out.Lives = append(out.Lives, t.Name)
					}
				}
				if erased.Parts > 0 {
					out.Rows["mirror_comment_attachment"] += erased.Parts
				}
				out.Changes = append(out.Changes, erased.Changes...)
				keys = erased.Again
			}
		}
	}
	slices.Sort(out.Remain)
	slices.Sort(out.Lives)
	out.Remain, out.Lives = slices.Compact(out.Remain), slices.Compact(out.Lives)
	return out
}

// eraseAnn erases ann, after a dry run that has to say the same and to change nothing.
func (e *env) eraseAnn() erasure {
	e.Helper()
	before, heads := e.naming("ann"), e.heads()
	dry := e.erase(project, "ann", true)
	e.want("what names her after a dry run", e.naming("ann"), before)
	e.want("changes after a dry run", e.heads(), heads)
	done := e.erase(project, "ann", false)
	dry.Changes = done.Changes
	e.want("the erasure, as the dry run told", done, dry)
	e.want("what names her, as the erasure told", slices.Compact(e.naming("ann")), done.Remain)
	again := e.erase(project, "ann", false)
	e.want("rows of another erasure", again.Rows, store.TableRows{})
	e.want("changes of another erasure", len(again.Changes), 0)
	e.want("what remains after another erasure", again.Remain, done.Remain)
	return done
}

// annotated mirrors a room in which ann and bob have left something everywhere.
func (e *env) annotated(id mirror.RoomID) {
	e.Helper()
	event := e.delivery(invalidatedAt(roomOf(id)))
	event.Event.User, event.Event.Payload = "ann", []byte(`{"type":"x","data":{"userId":"ann"}}`)
	e.accept(event)
	e.applyRoom(e.claim(roomOf(id)), e.roomContent(`{"id":"r","usersAccesses":{"ann":["room:write"],"bob":[]}}`))
	e.mirrorDocument(storageOf(id), `{"by":"ann"}`)
	e.mirrorThread(id, annotatedThread())
	e.mirrorUsers(id, mirror.ActiveUser{ConnectionID: 1, UserID: "ann"},
		mirror.ActiveUser{ConnectionID: 2, UserID: "bob", Info: []byte(`{"boss":"ann","userId":"ann"}`)})
}

// annotatedThread has a comment of ann's and one of bob's.
func annotatedThread() mirror.Thread {
	of := func(id, user, other string) mirror.Comment {
		c := fullComment(id, 1)
		c.UserID, c.Text, c.Markdown = user, "about annotation", "about annotation"
		c.Source = []byte(`{"id":"` + id + `","userId":"` + user + `","deletedBy":"` + other + `","by":"` + other + `"}`)
		c.Body = []byte(`{"content":[{"text":"about annotation"},{"id":"` + other + `","type":"mention"},{"text":"` + other + `"}]}`)
		c.Metadata = []byte(`{"for":"` + other + `","userId":"` + other + `"}`)
		c.Reactions = []mirror.Reaction{{Emoji: "+1", UserID: "ann"}, {Emoji: "+1", UserID: "bob"}}
		c.Attachments = []mirror.Attachment{{ID: "at_" + id, Name: "annotation.pdf", MIMEType: "text/plain"}}
		c.Mentions = []mirror.Mention{{Kind: "user", ID: "ann"}, {Kind: "user", ID: "bob"}, {Kind: "group", ID: "ann"}}
		return c
	}
	t := threadIn("th_1", 1, of("cm_ann", "ann", "bob"), of("cm_bob", "bob", "ann"))
	t.Source = []byte(`{"id":"th_1","comments":[{"userId":"ann","body":{"text":"secret"}},{"userId":"bob","body":{"text":"hers"}}],` +
		`"metadata":{"owner":"ann","createdBy":"ann"}}`)
	t.Metadata = []byte(`{"createdBy":"ann","owner":"ann","topic":"annotation"}`)
	return t
}

func erasureFinds(e *env) {
	for _, id := range []mirror.RoomID{"room", "Room", "room "} {
		e.annotated(id)
	}
	var threads []string
	documents := 0
	for _, bucket := range erasedBuckets() {
		for _, row := range e.personalRows(project, personal("mirror_comment"), bucket) {
			room, _ := row.Key[0].(string)
			comment, _ := row.Key[2].(string)
			e.want("user of a comment", "cm_"+string(row.Values[0]), comment)
			threads = append(threads, room+"/"+comment)
		}
		for _, row := range e.personalRows(project, personal("mirror_document"), bucket) {
			documents++
			e.want("content of a document", string(row.Values[0]), `{"by":"ann"}`)
			e.want("kind of a document", personal("mirror_document").Resource(project, row.Key).Kind, mirror.KindStorage)
			e.want("epoch of a document", row.Epoch, int64(1))
		}
		e.want("rows of another project", len(e.personalRows("other", personal("mirror_thread"), bucket)), 0)
	}
	slices.Sort(threads)
	e.want("comments", threads, []string{
		"Room/cm_ann", "Room/cm_bob", "room /cm_ann", "room /cm_bob", "room/cm_ann", "room/cm_bob",
	})
	e.want("documents", documents, 3)

	// What is long is read alone, what is short together.
	const long = 1 << 18
	t, room := personal("mirror_event"), roomOf("room")
	for i := range 6 {
		d := e.delivery(invalidatedAt(room))
		d.Event.ID, d.Event.Payload = fmt.Sprintf("l_%d", i), []byte(`"`+strings.Repeat("x", i/3*long)+`"`)
		e.accept(d)
	}
	for size, want := range map[int64]int{1: 1, 2*long + 8: 1, 4*long + 100: 2, 6*long + 100: 3} {
		page, err := e.PersonalRows(e.ctx(), project, t, room.Bucket(), []any{"l_2"}, 100, size)
		e.must("PersonalRows", err)
		e.want(fmt.Sprintf("rows of at most %d bytes", size), min(len(page), 3), want)
	}
	page, err := e.PersonalRows(e.ctx(), project, t, room.Bucket(), []any{"l_"}, 4, 2*long+100)
	e.must("PersonalRows", err)
	e.want("short rows and the first long one", len(page), 4)
	none, err := e.PersonalRows(e.ctx(), project, t, room.Bucket(), nil, 0, 1)
	e.must("PersonalRows", err)
	e.want("no rows", len(none), 0)
}

func erasedEvents(e *env) {
	deliver := func(user, payload string) mirror.Delivery {
		d := e.delivery(invalidatedAt(roomOf("room")))
		d.Event.User, d.Event.Payload = user, []byte(payload)
		return d
	}
	of := deliver("ann", `{"type":"x","data":{"userId":"ann","text":"secret"}}`)
	others := deliver("bob", `{"data":{"createdBy":"\u0061nn","userId":"bob", "n":1.50}}`)
	word := deliver("bob", `{"data":{"userId":"joann","roomId":"ann"}}`)
	odd := deliver("", `ann is no JSON`)
	aside := e.delivery()
	aside.Event.Room, aside.Event.User, aside.Event.Payload = "room", "ann", []byte(`{"data":{"userId":"ann"}}`)
	aside.Event.Outcome = mirror.OutcomeForeignProject
	e.accept(of, others, word, odd, aside)
	before := e.task(roomOf("room"))

	done := e.eraseAnn()
	e.want("rows", done.Rows, store.TableRows{"mirror_event": 3})
	e.want("what remains", done.Remain, []string{"mirror_event.payload"})
	e.want("changes", len(done.Changes), 0)
	for d, want := range map[*mirror.Delivery]mirror.Event{
		&of: {Payload: []byte(store.Purged)}, &aside: {Payload: []byte(store.Purged)},
		&others: {User: "bob", Payload: []byte(`{"data":{"createdBy":"","userId":"bob", "n":1.50}}`)},
		&word:   word.Event, &odd: odd.Event,
	} {
		got, err := e.EventOf(e.ctx(), project, "room", d.Event.ID)
		e.must("EventOf", err)
		e.want("user of event "+got.ID, got.User, want.User)
		e.want("payload of event "+got.ID, string(got.Payload), string(want.Payload))
		e.want("room of event "+got.ID, got.Room, mirror.RoomID("room"))
		e.want("outcome of event "+got.ID, got.Outcome, d.Event.Outcome)
	}
	again := e.accept(of)
	e.want("repeated delivery is fresh", again[0].Fresh, false)
	e.want("task", e.task(roomOf("room")), before)
}

// waits has an event wait at a resource.
func (e *env) waits(r mirror.Resource, typ, data string) mirror.Delivery {
	e.Helper()
	d := e.delivery(mirror.Invalidation{Resource: r, Fold: true})
	d.Event.Type, d.Event.Payload = typ, []byte(`{"type":"`+typ+`","data":`+data+`}`)
	e.accept(d)
	return d
}

func erasureFences(e *env) {
	e.mirrorRoom("room", e.roomContent(`{"id":"r"}`))
	sessions, notification := userSessionsOf("room"), notificationOf("room", "in_bob")
	e.waits(sessions, "userEntered", `{"userId":"\u0061nn","connectionId":1}`)
	bob := e.waits(sessions, "userLeft", `{"userId":"bob","connectionId":2}`)
	subject := e.waits(notification, "notification", `{"userId":"bob","subjectId":"ann","createdBy":"ann","inboxNotificationId":"in_bob"}`)
	lease, second := e.claim(sessions), e.claim(notification)
	e.want("waiting events", len(e.unfolded(sessions, 10)), 2)
	done := e.eraseAnn()
	e.want("rows", done.Rows, store.TableRows{"mirror_unfolded_event": 2, "mirror_event": 2})
	e.want("changes of what waits", len(done.Changes), 0)
	e.want("waiting sessions", eventIDs(e.unfolded(sessions, 10)), []string{bob.Event.ID})
	left := e.unfolded(notification, 10)
	e.want("waiting notifications", eventIDs(left), []string{subject.Event.ID})
	e.want("what waits", string(left[0].Payload),
		`{"type":"notification","data":{"userId":"bob","subjectId":"ann","createdBy":"","inboxNotificationId":"in_bob"}}`)

	_, err := e.ApplySessions(e.ctx(), lease, mirror.SessionFold{
		Upserts: []mirror.UserSession{e.session("room", "msg_ann", 1)},
	}, e.now)
	e.wantErr("ApplySessions of what was read before", err, store.ErrLeaseLost)
	row := e.notification(notification, subject.Event.ID)
	row.SubjectID = "ann"
	_, err = e.ApplyNotification(e.ctx(), second, mirror.NotificationFold{Rows: []mirror.Notification{row}}, e.now, 0)
	e.wantErr("ApplyNotification of what was read before", err, store.ErrLeaseLost)
	e.want("sessions", len(e.sessions(store.SessionFilter{Room: "room"})), 0)
	// What else waits is folded.
	e.wantState(sessions, mirror.TaskPending)
	e.applySessions(sessions, mirror.SessionFold{})
}

func erasedSessions(e *env) {
	e.mirrorRoom("room", e.roomContent(`{"id":"r"}`))
	ann, bob, carol := e.session("room", "msg_ann", 1), e.session("room", "msg_bob", 2), e.session("room", "msg_carol", 3)
	ann.UserID, bob.UserID, carol.UserID = "ann", "bob", "joann"
	ann.Info, bob.Info, carol.Info = []byte(`{"n":1}`), []byte(`{"boss": "ann","like":"annotation","userId":"ann"}`), []byte(`{"n":"joann"}`)
	e.upsertSessions(ann, bob, carol)
	for id, user := range map[string]string{"in_ann": "ann", "in_bob": "bob", "in_carol": "carol"} {
		r := notificationOf("room", id)
		n := e.notification(r, "msg_"+id)
		n.UserID = user
		rows := []mirror.Notification{n}
		if user == "bob" {
			rows[0].SubjectID = "ann"
			n.EventID, n.UserID = "msg_too", "ann"
			rows = append(rows, n)
		}
		e.applyNotification(r, mirror.NotificationFold{FetchTime: e.now, Rows: rows, Inbox: mirror.Inbox{
			Source: []byte(`{"id":"` + id + `","activityData":{"by":"ann"}}`), ReadTime: e.now,
		}})
	}
	e.pass(time.Minute)
	bucket := roomOf("room").Bucket()
	before := e.lastChange(bucket)
	done := e.eraseAnn()
	e.want("rows", done.Rows, store.TableRows{"mirror_user_session": 2, "mirror_notification": 2})
	e.want("what remains", done.Remain, []string{
		"mirror_notification.inbox", "mirror_notification.inbox_json", "mirror_notification.subject_id",
		"mirror_user_session.info",
		"mirror_user_session.info_json", "mirror_user_session.user_id",
	})
	e.want("entries of the feed", e.entries(bucket, before, e.lastChange(bucket)), done.Changes)
	told := make(map[mirror.Resource]mirror.ChangeKind)
	for _, c := range done.Changes {
		told[c.Resource] = c.Kind
	}
	e.want("what readers are told of", told, map[mirror.Resource]mirror.ChangeKind{
		userSessionsOf("room"): mirror.ChangeUpserted, notificationOf("room", "in_ann"): mirror.ChangeDeleted,
		notificationOf("room", "in_bob"): mirror.ChangeUpserted, // others have it too
	})

	left := e.sessions(store.SessionFilter{Room: "room"})
	e.want("sessions", sessionIDs(left), []string{"msg_bob", "msg_carol"})
	e.want("user of the session", left[0].UserID, "bob")
	e.want("info of the session", string(left[0].Info), `{"boss": "ann","like":"annotation","userId":""}`)
	e.want("info of another session", string(left[1].Info), `{"n":"joann"}`)
	notifications := e.notifications(store.NotificationFilter{Room: "room"})
	e.want("notifications", len(notifications), 2)
	for _, n := range notifications {
		if n.UserID == "bob" { // what the application says it is about
			e.want("subject of the notification", n.SubjectID, "ann")
		}
		// It is a copy of what Liveblocks has.
		e.want("inbox of the notification", string(n.Inbox.Source), `{"id":"in_`+n.UserID+`","activityData":{"by":"ann"}}`)
	}
}

func erasureSpares(e *env) {
	e.annotated("room")
	e.mirrorGroup(groupIn("g", 1, "ann"))
	e.pass(time.Hour)
	before := slices.DeleteFunc(e.naming("ann"), func(c string) bool {
		return c == "mirror_event.user_id" || c == "mirror_event.payload"
	})
	done := e.eraseAnn()
	e.want("rows", done.Rows, store.TableRows{"mirror_event": 1})
	e.want("what names her", e.naming("ann"), before)
	e.want("what lives", done.Lives, []string{
		"mirror_active_user", "mirror_comment", "mirror_comment_attachment", "mirror_comment_mention",
		"mirror_comment_reaction", "mirror_document", "mirror_group_member", "mirror_room", "mirror_thread",
	})
	e.want("changes", len(done.Changes), 0)
	e.want("document", string(e.document(storageOf("room")).Content), `{"by":"ann"}`)
	e.want("source of the thread", string(e.readThread(threadOf("room", "th_1"), false).Source),
		string(annotatedThread().Source))
	// A long thread that is being written has no epoch yet, but will live.
	const long = 6000
	t := annotatedThread()
	t.ID = "th_2"
	for i := range long {
		t.Comments = append(t.Comments, commentIn(fmt.Sprintf("cm_%04d", i), i))
	}
	e.raise(threadOf("room", "th_2"))
	item := store.ThreadItem(t)
	more, err := e.PrepareItem(e.ctx(), e.claim(threadOf("room", "th_2")), &item)
	e.must("PrepareItem", err)
	e.want("PrepareItem of a long thread", more, true)
	e.want("rows of a thread that is being written", e.erase(project, "ann", false).Rows, store.TableRows{})
}

// leftByBob checks what is left of a thread of ann and bob that was deleted.
func (e *env) leftByBob() {
	e.Helper()
	t := e.readThread(threadOf("room", "th_1"), true)
	e.want("source of the thread", string(t.Source), `{"id":"th_1","comments":[{"userId":"","body":null},`+
		`{"userId":"bob","body":{"text":"hers"}}],"metadata":{"owner":"ann","createdBy":""}}`)
	e.want("hash of the thread", t.SHA256, sha256.Sum256(t.Source))
	e.want("metadata of the thread", strings.ReplaceAll(string(t.Metadata), ": ", ":"), `{"createdBy":"","owner":"ann","topic":"annotation"}`)
	for id, want := range map[string]mirror.Comment{
		"cm_ann": {Source: []byte(store.Purged)},
		"cm_bob": {
			UserID: "bob", Source: []byte(`{"id":"cm_bob","userId":"bob","deletedBy":"","by":"ann"}`), Text: "about annotation",
			Markdown: "about annotation",
		},
	} {
		c, err := e.Comment(e.ctx(), threadOf("room", "th_1"), id, true)
		e.must("Comment", err)
		e.want("user of comment "+id, c.UserID, want.UserID)
		e.want("source of comment "+id, string(c.Source), string(want.Source))
	}
	rows := func(table string) (keys []string) {
		for _, row := range e.personalRows(project, personal(table), roomOf("room").Bucket()) {
			keys = append(keys, fmt.Sprint(row.Key[2:]...))
		}
		return keys
	}
	e.want("reactions", rows("mirror_comment_reaction"), []string{"cm_ann+1bob", "cm_bob+1bob"})
	e.want("attachments", rows("mirror_comment_attachment"), []string{"cm_bobat_cm_bob"})
	var mentions []string
	for _, row := range rows("mirror_comment_mention") {
		if !strings.Contains(row, "group") {
			mentions = append(mentions, row)
		}
	}
	e.want("mentions of users", mentions, []string{"cm_annuserbob", "cm_bobuserbob"})
	for _, row := range e.personalRows(project, personal("mirror_comment"), roomOf("room").Bucket()) {
		texts := fmt.Sprintf("%s %s", row.Values[3], row.Values[4])
		if id, _ := row.Key[2].(string); strings.HasPrefix(id, "cm_ann") {
			e.want("texts of her comment", texts, " ")
			e.want("JSON of her comment", row.Values[2] == nil && row.Values[5] == nil, true)
		} else {
			e.want("texts of his comment", texts, "about annotation about annotation")
			tight := strings.NewReplacer(": ", ":", ", ", ",")
			e.want("metadata of his comment", tight.Replace(string(row.Values[5])), `{"for":"ann","userId":""}`)
			e.want("body of his comment", tight.Replace(string(row.Values[2])),
				`{"content":[{"text":"about annotation"},{"id":"","type":"mention"},{"text":"ann"}]}`)
		}
	}
}

func erasedDead(e *env) {
	e.annotated("room")
	g := groupIn("g", 1, "ann", "bob")
	g.Source = []byte(`{"id":"g","members":[{"id":"ann"},{"id":"bob"}]}`)
	e.mirrorGroup(g)
	_, err := e.listItems(itemKits[mirror.KindGroup])
	e.must("ApplyList", err)
	e.missItem(groupOf("g"))
	e.deleteThread(threadOf("room", "th_1"))
	e.pass(time.Hour)
	state := e.task(threadOf("room", "th_1"))
	done := e.eraseAnn()
	e.want("rows", done.Rows, store.TableRows{
		"mirror_event": 1, "mirror_comment_reaction": 2, "mirror_comment_mention": 2, "mirror_comment_attachment": 1,
		"mirror_comment": 2, "mirror_thread": 1, "mirror_group": 1, "mirror_group_member": 1,
	})
	e.leftByBob()
	e.want("state of the thread", e.task(threadOf("room", "th_1")), state)
	// What is fetched again is written again, and all of it.
	e.mirrorThread("room", annotatedThread())
	e.want("source of the thread", string(e.readThread(threadOf("room", "th_1"), false).Source),
		string(annotatedThread().Source))
	back, err := e.Comment(e.ctx(), threadOf("room", "th_1"), "cm_ann", false)
	e.must("Comment", err)
	e.want("source of her comment", string(back.Source), string(annotatedThread().Comments[0].Source))
	e.mirrorGroup(g)
	groups := e.groups(store.GroupFilter{User: "ann"})
	e.want("groups of hers", len(groups), 1)

	e.deleteRoom("room")
	e.pass(time.Hour)
	done = e.eraseAnn()
	e.want("rows", done.Rows, store.TableRows{
		"mirror_comment_reaction": 2, "mirror_comment_mention": 2, "mirror_comment_attachment": 1, "mirror_comment": 2,
		"mirror_thread": 1, "mirror_active_user": 2, "mirror_room": 1,
	})
	e.want("what lives", done.Lives, []string{"mirror_group", "mirror_group_member"})
	e.leftByBob()
	e.want("JSON of the room", string(e.tombstone("room").Source), `{"id":"r","usersAccesses":{"bob":[]}}`)
	users := e.activeUsers("room", true).Users
	e.want("active users", len(users), 1)
	e.want("info of an active user", string(users[0].Info), `{"boss":"ann","userId":""}`)
	// A document is nobody's. It is told.
	if !slices.Contains(done.Remain, "mirror_document.content") {
		e.Fatalf("what remains = %q; want the document among it", done.Remain)
	}
	// A late event does not bring the room back, the room itself does.
	e.raise(storageOf("room"))
	e.wantNoRoom("room")
	e.mirrorRoom("room", e.roomContent(`{"id":"again"}`))
	e.want("JSON of the room", string(e.room("room").Source), `{"id":"again"}`)
}

func erasedEverywhere(e *env) {
	e.annotated("room")
	bob := e.session("room", "msg_bob", 2)
	bob.UserID, bob.Info = "bob", []byte(`{"boss": "ann","like":"annotation","ann":1}`)
	e.upsertSessions(bob)
	e.annotated("Room")
	e.deleteRoom("room")
	e.pass(time.Hour)
	ann := store.Subject{User: "ann", Everywhere: true}
	dry := e.eraseSubject(project, ann, true)
	done := e.eraseSubject(project, ann, false)
	dry.Changes = done.Changes
	e.want("the erasure, as the dry run told", done, dry)
	e.want("rows", done.Rows, store.TableRows{
		"mirror_event": 2, "mirror_user_session": 1, "mirror_comment_reaction": 2, "mirror_comment_mention": 2,
		"mirror_comment_attachment": 1, "mirror_comment": 2, "mirror_thread": 1, "mirror_active_user": 2,
		"mirror_document": 1, "mirror_room": 1,
	})
	e.want("what readers are told of", len(done.Changes), 1)
	left := e.sessions(store.SessionFilter{Room: "room"})
	e.want("info of the session", string(left[0].Info), `{"boss": "","like":"annotation"}`)
	rows := func(table string) []store.PersonalRow {
		all := e.personalRows(project, personal(table), roomOf("room").Bucket())
		return slices.DeleteFunc(all, func(r store.PersonalRow) bool { return r.Key[0] != "room" })
	}
	e.want("documents", len(rows("mirror_document")), 0)
	tight := strings.NewReplacer(": ", ":", ", ", ",")
	for _, row := range rows("mirror_comment") {
		if row.Key[2] == "cm_bob" {
			e.want("JSON of his comment", string(row.Values[1]), `{"id":"cm_bob","userId":"bob","deletedBy":"","by":""}`)
			e.want("body of his comment", tight.Replace(string(row.Values[2])),
				`{"content":[{"text":"about annotation"},{"id":"","type":"mention"},{"text":""}]}`)
			e.want("text of his comment", string(row.Values[3]), "about annotation")
			e.want("metadata of his comment", tight.Replace(string(row.Values[5])), `{"for":"","userId":""}`)
		}
	}
	e.want("source of the thread", string(e.readThread(threadOf("room", "th_1"), true).Source),
		`{"id":"th_1","comments":[{"userId":"","body":null},{"userId":"bob","body":{"text":"hers"}}],`+
			`"metadata":{"owner":"","createdBy":""}}`)
	// What lives stays, and what is deleted comes back whole.
	e.want("document of a room that lives", string(e.document(storageOf("Room")).Content), `{"by":"ann"}`)
	e.want("source of a thread that lives", string(e.readThread(threadOf("Room", "th_1"), false).Source),
		string(annotatedThread().Source))
	e.mirrorRoom("room", e.roomContent(`{"id":"again"}`))
	e.mirrorDocument(storageOf("room"), `{"by":"ann"}`)
	e.want("document of a room that came back", string(e.document(storageOf("room")).Content), `{"by":"ann"}`)
}

func erasedEarlier(e *env) {
	e.annotated("room")
	e.deleteRoom("room")
	e.pass(time.Hour)
	e.mirrorRoom("room", e.roomContent(`{"id":"again","usersAccesses":{"ann":[]}}`))
	now := annotatedThread()
	now.ID = "th_new"
	e.mirrorThread("room", now)
	done := e.eraseAnn()
	e.want("rows", done.Rows, store.TableRows{
		"mirror_event": 1, "mirror_comment_reaction": 2, "mirror_comment_mention": 2, "mirror_comment_attachment": 1,
		"mirror_comment": 2, "mirror_thread": 1, "mirror_active_user": 2,
	})
	e.want("thread", string(e.readThread(threadOf("room", "th_new"), false).Source), string(now.Source))
	e.want("JSON of the room", string(e.room("room").Source), `{"id":"again","usersAccesses":{"ann":[]}}`)
}

func erasedAttachments(e *env) {
	e.mirrorRoom("room", e.roomContent(`{"id":"r"}`))
	t := annotatedThread()
	second := t.Comments[0]
	second.ID, second.Attachments = "cm_ann2", nil
	second.Reactions, second.Mentions = nil, nil
	t.Comments = append(t.Comments, second)
	const each = store.EraseAttachments*3/4 + 1
	const many = 2*each + 1
	for i := range each {
		for c, of := range []int{0, 2} {
			t.Comments[of].Attachments = append(t.Comments[of].Attachments, mirror.Attachment{
				ID: fmt.Sprintf("at_%d_%04d", c, i), Name: "x", MIMEType: "text/plain",
			})
		}
	}
	e.mirrorThread("room", t)
	e.deleteThread(threadOf("room", "th_1"))
	table := personal("mirror_comment")
	keys := [][]any{{"room", "th_1", "cm_ann"}, {"room", "th_1", "cm_ann2"}, {"room", "th_1", "cm_bob"}}
	left := int64(many)
	for _, c := range []struct {
		parts  int
		again  int
		erased []store.Erase
	}{
		{store.EraseAttachments, 2, []store.Erase{store.EraseRewrite, store.EraseNothing, store.EraseNothing}},
		{many - store.EraseAttachments, 0, []store.Erase{store.EraseRewrite, store.EraseRewrite}},
	} {
		ann := store.Subject{User: "ann"}
		got, err := e.EraseRows(e.ctx(), project, table, roomOf("room").Bucket(), keys, ann, false, e.now)
		e.must("EraseRows", err)
		e.want("attachments of a piece", got.Parts, int64(c.parts))
		e.want("what is left", len(got.Again), c.again)
		var erased []store.Erase
		for _, j := range got.Judged {
			erased = append(erased, j.Erase)
		}
		e.want("comments", erased, c.erased)
		left -= got.Parts
		if keys = got.Again; c.again > 0 {
			// Whoever begins anew finds it.
			e.want("attachments that a dry run counts", e.erase(project, "ann", true).Rows[store.AttachmentTable], left)
		}
	}
	e.eraseAnn()
	e.leftByBob()
}

func erasureOfOneProject(e *env) {
	const other = mirror.ProjectID("other")
	same := mirror.Resource{Project: other, Room: "room", Kind: mirror.KindRoom}
	d := e.delivery(invalidatedAt(same))
	d.Event.User, d.Event.Payload = "ann", []byte(`{"data":{"userId":"ann"}}`)
	e.accept(d)
	e.applyRoom(e.claim(same), e.roomContent(`{"by":"ann"}`))
	e.annotated("room")
	e.deleteRoom("room")
	e.eraseAnn()
	// Whatever keys are named.
	t := personal("mirror_event")
	erased, err := e.EraseRows(e.ctx(), project, t, same.Bucket(), [][]any{{d.Event.ID}}, store.Subject{User: "ann"},
		false, e.now)
	e.must("EraseRows", err)
	e.want("erased rows of another project", erased.Judged, []store.Judgement{{}})
	event, err := e.EventOf(e.ctx(), other, "room", d.Event.ID)
	e.must("EventOf", err)
	e.want("user of the event of another project", event.User, "ann")
	e.want("payload of the event of another project", string(event.Payload), `{"data":{"userId":"ann"}}`)
	room, err := e.Room(e.ctx(), same, false)
	e.must("Room", err)
	e.want("room of another project", string(room.Source), `{"by":"ann"}`)
}

package storetest

import (
	"fmt"
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

var notificationCases = []testCase{
	{"notification without a room", notificationNoRoom},
	{"notification rows keep all they are told", notificationFields},
	{"inbox is that of all rows of a notification", notificationInbox},
	{"unchanged notification moves its times alone", notificationUnchanged},
	{"changed row of a notification is a change", notificationChanged},
	{"only the lease writes notifications", notificationLease},
	{"notification is due again while events wait", notificationRest},
	{"notification settles after events", notificationSettles},
	{"user of a notification", notificationUser},
	{"notifications outlive their room", notificationRoomDeleted},
	{"notifications by filter", notificationsFiltered},
	{"notifications in pages", notificationPages},
	{"inbox is kept byte for byte", notificationSource},
}

func notificationOf(room mirror.RoomID, id string) mirror.Resource {
	return mirror.Resource{Project: project, Room: room, Kind: mirror.KindNotification, ID: id}
}

// notification is one row of the notification of r.
func (e *env) notification(r mirror.Resource, event string) mirror.Notification {
	return mirror.Notification{
		Project: r.Project, Room: r.Room, EventID: event, ID: r.ID, Channel: "email", Kind: "thread", UserID: "ann",
		CreateTime: e.now, TriggerTime: e.now.Add(-time.Minute),
	}
}

// applyNotification raises a notification and applies what was folded.
func (e *env) applyNotification(r mirror.Resource, fold mirror.NotificationFold) mirror.Applied {
	e.Helper()
	e.raise(r)
	lease := e.claim(r)
	applied, err := e.ApplyNotification(e.ctx(), lease, fold, e.now, 0)
	e.must("ApplyNotification", err)
	return e.caughtUp(lease, applied)
}

func (e *env) notifications(f store.NotificationFilter) []mirror.Notification {
	e.Helper()
	f.Project = project
	if f.Limit == 0 {
		f.Limit = 1000
	}
	list, err := e.Notifications(e.ctx(), f)
	e.must("Notifications", err)
	return list
}

// rowsOf are the rows of a list without what is known of their freshness.
func rowsOf(list []mirror.Notification) []mirror.Notification {
	rows := slices.Clone(list)
	for i := range rows {
		rows[i].Freshness = mirror.Freshness{}
	}
	return rows
}

func notificationNoRoom(e *env) {
	r := notificationOf("", "in_1")
	a := e.delivery(mirror.Invalidation{Resource: r, Fold: true})
	e.accept(a)
	e.want("what waits", eventIDs(e.unfolded(r, 10)), []string{a.Event.ID})
	row := e.notification(r, a.Event.ID)
	row.Kind = "$custom"
	lease := e.claim(r)
	if lease.Epoch != 0 || lease.Gone {
		e.Fatalf("lease = %+v; want it of no room", lease)
	}
	applied, err := e.ApplyNotification(e.ctx(), lease, mirror.NotificationFold{
		FetchTime: e.now.Add(-time.Second), Rows: []mirror.Notification{row}, Folded: []string{a.Event.ID},
	}, e.now, 0)
	e.must("ApplyNotification", err)
	e.want("ApplyNotification", e.caughtUp(lease, applied), mirror.Applied{Changed: true})
	row.Freshness = mirror.Freshness{FetchTime: e.now.Add(-time.Second), SourceUpdateTime: lease.SourceTime, Revision: 1}
	e.want("Notifications", e.notifications(store.NotificationFilter{}), []mirror.Notification{row})
	e.want("changes", e.changes(r.Bucket()), []mirror.Change{entry(1, r, mirror.ChangeUpserted, 0, e.now)})
	e.want("what waits", e.unfolded(r, 10), []mirror.Event{})
	e.wantState(r, mirror.TaskDone)
	e.wantNoRoom("")
}

func notificationFields(e *env) {
	r := notificationOf("room", "in_1")
	full := mirror.Notification{
		Project: project, Room: "room", EventID: "msg_full", ID: "in_1", Channel: "webPush", Kind: "textMention",
		UserID:   "Änn ",
		ThreadID: "th_1", MentionID: "me_1", SubjectID: "su_1", CreateTime: e.now, TriggerTime: e.now.Add(-time.Microsecond),
		Inbox: mirror.Inbox{
			Source: []byte(`{"id":"in_1"}`), ReadTime: e.now.Add(-time.Second),
			NotifyTime: e.now.Add(-time.Minute),
		},
	}
	bare := mirror.Notification{
		Project: project, Room: "room", EventID: "msg_bare", ID: "in_1", Channel: "slack",
		CreateTime: e.now.Add(-time.Second), Inbox: full.Inbox,
	}
	e.want("ApplyNotification", e.applyNotification(r, mirror.NotificationFold{
		FetchTime: e.now, Rows: []mirror.Notification{bare, full}, Inbox: full.Inbox,
	}), mirror.Applied{Changed: true})
	e.want("Notifications", rowsOf(e.notifications(store.NotificationFilter{})), []mirror.Notification{full, bare})
}

func notificationInbox(e *env) {
	r, other, elsewhere := notificationOf("room", "in_1"), notificationOf("room", "in_2"), notificationOf("Room", "in_1")
	unread := mirror.Inbox{Source: []byte(`{"readAt":null}`), NotifyTime: e.now}
	read := mirror.Inbox{Source: []byte(`{"readAt":"now"}`), NotifyTime: e.now, ReadTime: e.now.Add(time.Second)}
	first, second, third := e.notification(r, "msg_1"), e.notification(r, "msg_2"), e.notification(r, "msg_3")
	stays, stays2 := e.notification(other, "msg_4"), e.notification(elsewhere, "msg_5")
	stays.Inbox, stays2.Inbox = unread, unread
	apply := func(r mirror.Resource, inbox mirror.Inbox, rows ...mirror.Notification) {
		e.Helper()
		e.want("ApplyNotification",
			e.applyNotification(r, mirror.NotificationFold{FetchTime: e.now, Rows: rows, Inbox: inbox}),
			mirror.Applied{Changed: true})
	}
	want := func(inbox mirror.Inbox, rows ...mirror.Notification) {
		e.Helper()
		for i := range rows {
			rows[i].Inbox = inbox
		}
		e.want("Notifications", rowsOf(e.notifications(store.NotificationFilter{})), append(rows, stays, stays2))
	}
	apply(other, unread, stays)
	apply(elsewhere, unread, stays2)
	apply(r, unread, first, second)
	want(unread, first, second)
	apply(r, read, third)
	want(read, first, second, third)
	apply(r, unread) // marked as unread again, without an event
	want(unread, first, second, third)
	// Where the inbox could not be asked, what is known of it stays.
	e.raise(r)
	lease := e.claim(r)
	fourth := e.notification(r, "msg_31")
	applied, err := e.ApplyNotification(e.ctx(), lease, mirror.NotificationFold{Rows: []mirror.Notification{fourth}},
		e.now, 0)
	e.must("ApplyNotification", err)
	e.want("ApplyNotification without the inbox", applied,
		mirror.Applied{Generation: lease.Generation, Changed: true, Due: e.now})
	rows := rowsOf(e.notifications(store.NotificationFilter{}))
	first.Inbox, second.Inbox, third.Inbox = unread, unread, unread
	e.want("Notifications", rows, []mirror.Notification{first, second, third, fourth, stays, stays2})
	apply(r, mirror.Inbox{}) // and taken out of the inbox
	want(mirror.Inbox{}, first, second, third, fourth)
}

func notificationUnchanged(e *env) {
	r := notificationOf("room", "in_1")
	fold := mirror.NotificationFold{
		FetchTime: e.now, Rows: []mirror.Notification{e.notification(r, "msg_1")},
		Inbox: mirror.Inbox{Source: []byte(`{}`), ReadTime: e.now},
	}
	e.applyNotification(r, fold)
	before := e.notifications(store.NotificationFilter{})
	e.pass(time.Hour)
	fold.FetchTime = e.now
	e.want("ApplyNotification of the same", e.applyNotification(r, fold), mirror.Applied{})
	fold.Rows = nil
	e.want("ApplyNotification of the same inbox", e.applyNotification(r, fold), mirror.Applied{})
	before[0].Freshness.FetchTime, before[0].Freshness.SourceUpdateTime = e.now, e.now.Add(-time.Millisecond)
	e.want("Notifications", e.notifications(store.NotificationFilter{}), before)
	if n := e.lastChange(r.Bucket()); n != 1 {
		e.Fatalf("last change = %d; want 1, for nothing changed", n)
	}
}

// What an event tells may be read anew, and then tell more.
func notificationChanged(e *env) {
	r := notificationOf("room", "in_1")
	row := e.notification(r, "msg_1")
	fold := mirror.NotificationFold{FetchTime: e.now, Inbox: mirror.Inbox{Source: []byte(`{}`)}}
	for i, alter := range []func(n *mirror.Notification){
		func(*mirror.Notification) {},
		func(n *mirror.Notification) { n.Channel = "teams" },
		func(n *mirror.Notification) { n.Kind = "textMention" },
		func(n *mirror.Notification) { n.UserID = "bob" },
		func(n *mirror.Notification) { n.ThreadID = "th_1" },
		func(n *mirror.Notification) { n.MentionID = "me_1" },
		func(n *mirror.Notification) { n.SubjectID = "su_1" },
		func(n *mirror.Notification) { n.CreateTime = n.CreateTime.Add(time.Second) },
		func(n *mirror.Notification) { n.TriggerTime = time.Time{} },
	} {
		alter(&row)
		fold.Rows = []mirror.Notification{row}
		e.want("ApplyNotification of another row", e.applyNotification(r, fold), mirror.Applied{Changed: true})
		e.want("ApplyNotification of the same row", e.applyNotification(r, fold), mirror.Applied{})
		want := row
		want.Inbox = fold.Inbox
		list := e.notifications(store.NotificationFilter{})
		e.want("Notifications", rowsOf(list), []mirror.Notification{want})
		if n := int64(i + 1); e.lastChange(r.Bucket()) != n || list[0].Freshness.Revision != n {
			e.Fatalf("last change = %d, revision = %d; want %d", e.lastChange(r.Bucket()), list[0].Freshness.Revision, n)
		}
	}
}

func notificationLease(e *env) {
	r := notificationOf("room", "in_1")
	ev := e.foldEvent(r, e.now)
	old := e.claim(r)
	e.now = old.Until
	e.claim(r)
	_, err := e.ApplyNotification(e.ctx(), old, mirror.NotificationFold{
		FetchTime: e.now, Rows: []mirror.Notification{e.notification(r, ev.ID)}, Folded: []string{ev.ID},
	}, e.now, settle)
	e.wantErr("ApplyNotification under an old token", err, store.ErrLeaseLost)
	e.want("what waits", e.unfolded(r, 10), []mirror.Event{ev})
	e.want("Notifications", e.notifications(store.NotificationFilter{}), []mirror.Notification{})
	e.wantState(r, mirror.TaskRunning)
}

func notificationRest(e *env) {
	r := notificationOf("", "in_1")
	first, second := e.foldEvent(r, e.now), e.foldEvent(r, e.now)
	same := e.foldEvent(notificationOf("", "in_2"), e.now)
	lease := e.claim(r)
	applied, err := e.ApplyNotification(e.ctx(), lease, mirror.NotificationFold{
		Rows: []mirror.Notification{e.notification(r, first.ID)}, Folded: []string{first.ID, same.ID},
	}, e.now, settle)
	e.must("ApplyNotification", err)
	e.want("ApplyNotification with one left", e.caughtUp(lease, applied), mirror.Applied{Changed: true, Due: e.now})
	e.want("what waits", eventIDs(e.unfolded(r, 10)), []string{second.ID})
	e.want("what waits elsewhere", eventIDs(e.unfolded(notificationOf("", "in_2"), 10)), []string{same.ID})
}

func notificationSettles(e *env) {
	r := notificationOf("room", "in_1")
	ev := e.foldEvent(r, e.now)
	fold := mirror.NotificationFold{
		FetchTime: e.now, Rows: []mirror.Notification{e.notification(r, ev.ID)},
		Folded: []string{ev.ID},
	}
	lease := e.claim(r)
	applied, err := e.ApplyNotification(e.ctx(), lease, fold, e.now, settle)
	e.must("ApplyNotification", err)
	e.want("ApplyNotification", e.caughtUp(lease, applied), mirror.Applied{Changed: true, Due: e.now.Add(settle)})
	e.pass(settle)
	lease = e.claim(r)
	applied, err = e.ApplyNotification(e.ctx(), lease, mirror.NotificationFold{FetchTime: e.now}, e.now, settle)
	e.must("ApplyNotification", err)
	e.want("ApplyNotification again", e.caughtUp(lease, applied), mirror.Applied{})
}

func notificationUser(e *env) {
	r := notificationOf("room", "in_1")
	user := func(r mirror.Resource) string {
		e.Helper()
		user, err := e.NotificationUser(e.ctx(), r)
		e.must("NotificationUser", err)
		return user
	}
	if got := user(r); got != "" {
		e.Fatalf("NotificationUser of nothing = %q; want nobody", got)
	}
	nobody := e.notification(r, "msg_0")
	nobody.UserID = "" // none that could be stored
	last := nobody
	last.EventID = "msg_9"
	e.applyNotification(r, mirror.NotificationFold{
		FetchTime: e.now,
		Rows:      []mirror.Notification{nobody, e.notification(r, "msg_1"), last},
	})
	if got := user(r); got != "ann" {
		e.Fatalf("NotificationUser = %q; want ann", got)
	}
	foreign := r
	foreign.Project = "other"
	for _, r := range []mirror.Resource{
		notificationOf("room", "in_2"), notificationOf("", "in_1"),
		notificationOf("Room", "in_1"), foreign,
	} {
		if got := user(r); got != "" {
			e.Fatalf("NotificationUser of %+v = %q; want nobody", r, got)
		}
	}
}

func notificationRoomDeleted(e *env) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	r := notificationOf("room", "in_1")
	e.applyNotification(r, mirror.NotificationFold{
		FetchTime: e.now,
		Rows:      []mirror.Notification{e.notification(r, "msg_1")},
	})
	before := e.notifications(store.NotificationFilter{})
	e.deleteRoom("room")
	e.want("Notifications of a deleted room", e.notifications(store.NotificationFilter{Room: "room"}), before)
	e.mirrorRoom("room", e.roomContent(`{}`))
	if n, err := e.CleanRoom(e.ctx(), roomOf("room"), 100); err != nil || n != 0 {
		e.Fatalf("CleanRoom = %d, %v; want nothing, for notifications are history", n, err)
	}
	e.want("Notifications of a room reborn", e.notifications(store.NotificationFilter{}), before)
	e.applyNotification(r, mirror.NotificationFold{
		FetchTime: e.now,
		Rows:      []mirror.Notification{e.notification(r, "msg_2")},
	})
	if n := len(e.notifications(store.NotificationFilter{})); n != 2 {
		e.Fatalf("Notifications = %d; want both", n)
	}
}

// manyNotifications are 12 rows of rooms, users, channels and kinds, the latest first.
func (e *env) manyNotifications() []mirror.Notification {
	e.Helper()
	var all []mirror.Notification
	for i := range 12 {
		r := notificationOf([]mirror.RoomID{"room", "", "Room"}[i%3], fmt.Sprintf("in_%d", i%4))
		n := e.notification(r, fmt.Sprintf("msg_n%02d", i))
		n.CreateTime = e.now.Add(-time.Duration(i/2) * time.Minute) // two at a time
		n.UserID = []string{"ann", "bob", ""}[i%5%3]
		n.Channel = []string{"email", "teams"}[i%2]
		n.Kind = []string{"thread", "textMention", "$a"}[i%7%3]
		if n.Kind == "thread" {
			n.ThreadID = fmt.Sprintf("th_%d", i%2)
		}
		all = append(all, n)
	}
	for i := range all {
		n := all[len(all)-1-i]
		e.applyNotification(notificationOf(n.Room, n.ID), mirror.NotificationFold{Rows: []mirror.Notification{n}})
	}
	return all
}

func notificationsFiltered(e *env) {
	all := e.manyNotifications()
	minute := func(n int) time.Time { return e.now.Add(time.Duration(n) * time.Minute) }
	for _, f := range []store.NotificationFilter{
		{},
		{Room: "room"},
		{Room: "room "},
		{User: "ann"},
		{User: "Ann"},
		{Channel: "teams"},
		{Channel: "team"},
		{Kind: "$a"},
		{ID: "in_1"},
		{ID: "IN_1"},
		{User: "ann", ID: "in_2"},
		{Thread: "th_1"},
		{From: minute(-2)},
		{To: minute(-2)},
		{From: minute(-4), To: minute(-1)},
		{Room: "room", User: "bob"},
		{Room: "room", Channel: "email", Kind: "thread"},
		{User: "ann", Channel: "email", Kind: "thread", Thread: "th_0"},
		{Room: "Room", User: "ann", From: minute(-5), To: minute(0)},
	} {
		var want []mirror.Notification
		for _, n := range all {
			if (f.Room == "" || n.Room == f.Room) && (f.User == "" || n.UserID == f.User) &&
				(f.ID == "" || n.ID == f.ID) && (f.Channel == "" || n.Channel == f.Channel) &&
				(f.Kind == "" || n.Kind == f.Kind) && (f.Thread == "" || n.ThreadID == f.Thread) &&
				(f.From.IsZero() || !n.CreateTime.Before(f.From)) && (f.To.IsZero() || n.CreateTime.Before(f.To)) {
				want = append(want, n)
			}
		}
		e.want(fmt.Sprintf("Notifications %+v", f), rowsOf(e.notifications(f)), want)
		f.Limit = 2
		e.want(fmt.Sprintf("Notifications %+v", f), rowsOf(e.notifications(f)), want[:min(2, len(want))])
	}
	for _, p := range []mirror.ProjectID{"", "other", "Default"} {
		got, err := e.Notifications(e.ctx(), store.NotificationFilter{Project: p, Limit: 10})
		e.must("Notifications", err)
		e.want(fmt.Sprintf("Notifications of project %q", p), got, []mirror.Notification{})
	}
}

func notificationPages(e *env) {
	e.manyNotifications()
	for what, f := range map[string]store.NotificationFilter{
		"all": {}, "a room's": {Room: "room"},
		"a user's": {User: "ann"}, "a channel's": {Channel: "email"},
	} {
		var ids []string
		for _, n := range e.notifications(f) {
			ids = append(ids, n.EventID)
		}
		extra := 0
		insert := func() {
			if extra++; extra > 3 {
				return
			}
			for i, at := range []time.Time{e.now.Add(-3 * time.Minute), e.now.Add(time.Second), e.now.Add(-time.Hour)} {
				r := notificationOf("room", "in_new")
				n := e.notification(r, fmt.Sprintf("msg_%s_%d_%d", what, extra, i))
				n.CreateTime = at
				e.applyNotification(r, mirror.NotificationFold{Rows: []mirror.Notification{n}})
			}
		}
		pages(e, "Notifications, "+what, ids, func(n mirror.Notification) string { return n.EventID }, insert,
			func(last *mirror.Notification, limit int) ([]mirror.Notification, error) {
				f := f
				f.Project, f.Limit = project, limit
				if last != nil {
					f.AfterTime, f.AfterID = last.CreateTime, last.EventID
				}
				return e.Notifications(e.ctx(), f)
			})
	}
}

func notificationSource(e *env) {
	for what, source := range sources() {
		r := notificationOf(mirror.RoomID(what), "in_1")
		fold := mirror.NotificationFold{
			FetchTime: e.now, Rows: []mirror.Notification{e.notification(r, "msg_1")},
			Inbox: mirror.Inbox{Source: []byte(source)},
		}
		e.want("ApplyNotification with "+what, e.applyNotification(r, fold), mirror.Applied{Changed: true})
		got := e.notifications(store.NotificationFilter{Room: r.Room})
		if len(got) != 1 || string(got[0].Inbox.Source) != source {
			e.Fatalf("inbox with %s = %+v; want %.60q", what, got, source)
		}
		e.want("ApplyNotification with "+what+" again", e.applyNotification(r, fold), mirror.Applied{})
	}
}

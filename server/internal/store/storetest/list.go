package storetest

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

var listCases = []testCase{
	{"list of events by any filters", eventList},
	{"list of rooms by any filters", roomList},
	{"list of documents by any filters", documentList},
	{"list of threads by any filters", threadList},
	{"list of comments by any filters", commentList},
	{"list of sessions by any filters", sessionList},
	{"list of notifications by any filters", notificationList},
	{"list of tasks by any filters", taskList},
}

// listing is one of the lists, with filters F and rows R.
type listing[F, R any] struct {
	list func(context.Context, F) ([]R, error)
	key  func(R) string
	// order is that of the rows.
	order func(a, b R) int
	// page has a filter list at most so many rows, behind one if it is not nil.
	page func(f *F, limit int, after *R)
	// room is that of a row, and within limits a filter to rooms.
	room   func(R) mirror.RoomID
	within func(f *F, rooms store.Prefixes)
}

// hold checks that filters select together what each of them selects by itself, that
// rows are in order, and that a page begins behind any row. Filters named in widen
// make a list longer, and are checked without and with.
func (l listing[F, R]) hold(e *env, what string, full F, widen ...string) {
	e.Helper()
	keys := func(f F) (keys []string) {
		e.Helper()
		rows, err := l.list(e.ctx(), f)
		e.must(what, err)
		if !slices.IsSortedFunc(rows, l.order) {
			e.Fatalf("%s by %+v are not in order: %+v", what, f, rows)
		}
		for _, r := range rows {
			keys = append(keys, l.key(r))
		}
		return keys
	}
	alone := make(map[int]map[string]bool)
	var all []string
	for set, f := range combinations(full, widen...) {
		got := keys(f)
		if set == 0 {
			all = got
		}
		if set&(set-1) == 0 {
			alone[set] = make(map[string]bool)
			for _, k := range got {
				alone[set][k] = true
			}
			if len(got) == 0 {
				e.Fatalf("%s by %+v are none; want some", what, f)
			}
		}
		want := slices.DeleteFunc(slices.Clone(all), func(k string) bool {
			for bit, selected := range alone {
				if set&bit != 0 && !selected[k] {
					return true
				}
			}
			return false
		})
		e.want(fmt.Sprintf("%s by %+v", what, f), got, want)
		if set != 0 {
			continue
		}
		rows, err := l.list(e.ctx(), f)
		e.must(what, err)
		l.holdWithin(e, what, f, rows)
		l.page(&f, 0, nil)
		e.want(what+" on a page of none", keys(f), []string{})
		l.page(&f, math.MaxInt32, nil)
		e.want(what+" on the largest page", keys(f), all)
		for i := range rows {
			l.page(&f, math.MaxInt32, &rows[i])
			e.want(fmt.Sprintf("%s behind %q", what, all[i]), keys(f), all[i+1:])
			l.page(&f, 1, &rows[i])
			e.want(fmt.Sprintf("%s behind %q, at most one", what, all[i]), keys(f), all[i+1:min(i+2, len(all))])
		}
	}
}

// holdWithin checks that a list that is limited to rooms has those of its rows that are
// in them, on a page that begins behind any row of the list.
func (l listing[F, R]) holdWithin(e *env, what string, f F, all []R) {
	e.Helper()
	for _, rooms := range []store.Prefixes{
		{}, {"a"}, {"R", "a ", "b", "room"}, {"A", "B", "ab", "roo"}, {"W", "waiting "}, {"nowhere", "w"},
	} {
		for after := -1; after < len(all); after++ {
			want := []string{}
			for _, r := range all[after+1:] {
				if rooms.Select(l.room(r)) {
					want = append(want, l.key(r))
				}
			}
			const limit = 3
			limited := f
			l.within(&limited, rooms)
			l.page(&limited, limit, nil)
			if after >= 0 {
				l.page(&limited, limit, &all[after])
			}
			rows, err := l.list(e.ctx(), limited)
			e.must(what, err)
			got := []string{}
			for _, r := range rows {
				got = append(got, l.key(r))
			}
			e.want(fmt.Sprintf("%s in rooms with %q by %+v", what, rooms, limited), got, want[:min(limit, len(want))])
		}
	}
}

// shortIDs are odd ids of at most so many bytes, in order.
func shortIDs(limit int) (ids []string) {
	for _, id := range oddIDs() {
		if len(id) <= limit {
			ids = append(ids, string(id))
		}
	}
	return ids
}

func eventList(e *env) {
	e.manyEvents()
	middle := e.now.Add(time.Second)
	for i, id := range shortIDs(mirror.MaxEventID) {
		a := e.delivery()
		a.Event.ID, a.Event.ReceiveTime = id, middle
		a.Event.Room, a.Event.User, a.Event.Type = "room", "ann", []string{"one", "two"}[i%2]
		a.Event.Thread = []string{"th_1", "th_1", "th_2"}[i%3]
		a.Event.Outcome = []mirror.Outcome{mirror.OutcomeQueued, mirror.OutcomeIDInvalid}[i/2%2]
		e.accept(a)
	}
	listing[store.EventFilter, mirror.Event]{
		e.Events, func(ev mirror.Event) string { return ev.ID },
		func(a, b mirror.Event) int {
			return cmp.Or(b.ReceiveTime.Compare(a.ReceiveTime), strings.Compare(a.ID, b.ID))
		},
		func(f *store.EventFilter, limit int, after *mirror.Event) {
			if f.Limit = limit; after != nil {
				f.AfterTime, f.AfterID = after.ReceiveTime, after.ID
			}
		},
		func(ev mirror.Event) mirror.RoomID { return ev.Room },
		func(f *store.EventFilter, rooms store.Prefixes) { f.Rooms = rooms },
	}.hold(e, "Events", store.EventFilter{
		Project:   project,
		Rooms:     store.Prefixes{"R", "roo"},
		Room:      "room",
		Type:      "one",
		User:      "ann",
		Thread:    "th_1",
		Outcome:   mirror.OutcomeQueued,
		From:      middle,
		To:        middle.Add(time.Microsecond),
		AfterTime: middle,
		AfterID:   "b",
		NoPayload: true,
		Limit:     100,
	})
}

func roomList(e *env) {
	for _, id := range []mirror.RoomID{"a", "a ", "a%", "A", "ab", "á", "b", "B"} {
		e.mirrorRoom(id, e.roomContent(`{}`))
	}
	e.deleteRoom("ab")
	l := listing[store.RoomFilter, mirror.Room]{
		e.Rooms, func(r mirror.Room) string { return string(r.ID) },
		func(a, b mirror.Room) int { return cmp.Compare(a.ID, b.ID) },
		func(f *store.RoomFilter, limit int, after *mirror.Room) {
			if f.Limit = limit; after != nil {
				f.After = after.ID
			}
		},
		func(r mirror.Room) mirror.RoomID { return r.ID },
		func(f *store.RoomFilter, rooms store.Prefixes) { f.Rooms = rooms },
	}
	for _, deleted := range []bool{false, true} {
		l.hold(e, "Rooms", store.RoomFilter{
			Project: project, Rooms: store.Prefixes{"a ", "ab", "b"}, Prefix: "a", Deleted: deleted, After: "a!", Limit: 100,
		},
			"Deleted")
	}
}

func documentList(e *env) {
	for _, room := range []mirror.RoomID{"a", "a ", "A", "b"} {
		e.mirrorRoom(room, e.roomContent(`{}`))
		for _, id := range []string{"", "a", "B", "a "} {
			e.mirrorDocument(documentOf(room, id), `{}`)
		}
		e.fetch(mirror.Resource{Project: project, Room: room, Kind: mirror.KindYdoc})
	}
	listing[store.DocumentFilter, mirror.Document]{
		e.Documents, func(d mirror.Document) string { return fmt.Sprintf("%q/%d/%q", d.Room, d.Kind, d.ID) },
		func(a, b mirror.Document) int {
			return cmp.Or(cmp.Compare(a.Room, b.Room), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID))
		},
		func(f *store.DocumentFilter, limit int, after *mirror.Document) {
			if f.Limit = limit; after != nil {
				f.AfterRoom, f.AfterKind, f.AfterID = after.Room, after.Kind, after.ID
			}
		},
		func(d mirror.Document) mirror.RoomID { return d.Room },
		func(f *store.DocumentFilter, rooms store.Prefixes) { f.Rooms = rooms },
	}.hold(e, "Documents", store.DocumentFilter{
		Project:   project,
		Rooms:     store.Prefixes{"a ", "b"},
		Prefix:    "a",
		Kind:      mirror.KindStorage,
		AfterRoom: "a",
		AfterKind: mirror.KindStorage,
		AfterID:   "a",
		Limit:     100,
	})
}

func threadList(e *env) {
	e.manyThreads()
	for _, id := range shortIDs(mirror.MaxResourceID) {
		e.mirrorThread("b", threadIn(id, 2, commentIn("cm_1", 2)))
	}
	e.deleteThread(threadOf("a", "t2"))
	no := false
	l := listing[store.ThreadFilter, mirror.Thread]{
		e.Threads, func(t mirror.Thread) string { return fmt.Sprintf("%q/%q", t.Room, t.ID) },
		func(a, b mirror.Thread) int { return cmp.Or(cmp.Compare(a.Room, b.Room), cmp.Compare(a.ID, b.ID)) },
		func(f *store.ThreadFilter, limit int, after *mirror.Thread) {
			if f.Limit = limit; after != nil {
				f.AfterRoom, f.AfterID = after.Room, after.ID
			}
		},
		func(t mirror.Thread) mirror.RoomID { return t.Room },
		func(f *store.ThreadFilter, rooms store.Prefixes) { f.Rooms = rooms },
	}
	for _, deleted := range []bool{false, true} {
		l.hold(e, "Threads", store.ThreadFilter{
			Project:      project,
			Rooms:        store.Prefixes{"A", "b"},
			Room:         "b",
			Resolved:     &no,
			Metadata:     map[string]string{"n": "2"},
			Author:       "alice",
			Mentioned:    "erin",
			UpdatedSince: born.Add(time.Second),
			Deleted:      deleted,
			AfterRoom:    "a",
			AfterID:      "t1",
			Limit:        100,
		}, "Deleted")
	}
}

func commentList(e *env) {
	e.manyThreads()
	var comments []mirror.Comment
	for i, id := range shortIDs(mirror.MaxResourceID) {
		c := commentIn(id, 7)
		c.Mentions = []mirror.Mention{{Kind: "user", ID: "erin"}}
		if i%5 == 0 {
			c.CreateTime = time.Time{}
		}
		if i%7 == 0 {
			c.DeleteTime = born.Add(time.Hour)
		}
		comments = append(comments, c)
	}
	e.mirrorThread("b", threadIn("odd", 2, comments...))
	l := listing[store.CommentFilter, mirror.Comment]{
		e.Comments, func(c mirror.Comment) string { return fmt.Sprintf("%q/%q/%q", c.Room, c.Thread, c.ID) },
		func(a, b mirror.Comment) int {
			return cmp.Or(cmp.Compare(a.Room, b.Room), cmp.Compare(a.Thread, b.Thread), a.CreateTime.Compare(b.CreateTime),
				cmp.Compare(a.ID, b.ID))
		},
		func(f *store.CommentFilter, limit int, after *mirror.Comment) {
			if f.Limit = limit; after != nil {
				f.AfterRoom, f.AfterThread, f.AfterTime, f.AfterID = after.Room, after.Thread, after.CreateTime, after.ID
			}
		},
		func(c mirror.Comment) mirror.RoomID { return c.Room },
		func(f *store.CommentFilter, rooms store.Prefixes) { f.Rooms = rooms },
	}
	for _, deleted := range []bool{false, true} {
		l.hold(e, "Comments", store.CommentFilter{
			Project:      project,
			Rooms:        store.Prefixes{"A", "b"},
			Room:         "b",
			Thread:       "odd",
			Author:       "alice",
			Mentioned:    "erin",
			UpdatedSince: born.Add(time.Second),
			Deleted:      deleted,
			AfterRoom:    "b",
			AfterThread:  "odd",
			AfterTime:    born.Add(7 * time.Second),
			AfterID:      "b",
			Limit:        100,
		}, "Deleted")
	}
}

func sessionList(e *env) {
	e.manySessions()
	middle := e.now.Add(-2 * time.Minute)
	var sessions []mirror.UserSession
	for i, id := range shortIDs(mirror.MaxEventID) {
		s := e.session("room", id, int64(i))
		if s.EnterTime = middle; i%2 == 1 {
			s.EnterTime, s.LeaveTime, s.LeaveEventID, s.End = time.Time{}, middle, id, mirror.SessionLeft
		}
		sessions = append(sessions, s)
	}
	e.upsertSessions(sessions...)
	listing[store.SessionFilter, mirror.UserSession]{
		e.UserSessions, func(s mirror.UserSession) string { return s.ID },
		func(a, b mirror.UserSession) int {
			return cmp.Or(b.BeginTime().Compare(a.BeginTime()), strings.Compare(a.ID, b.ID))
		},
		func(f *store.SessionFilter, limit int, after *mirror.UserSession) {
			if f.Limit = limit; after != nil {
				f.AfterTime, f.AfterID = after.BeginTime(), after.ID
			}
		},
		func(s mirror.UserSession) mirror.RoomID { return s.Room },
		func(f *store.SessionFilter, rooms store.Prefixes) { f.Rooms = rooms },
	}.hold(e, "UserSessions", store.SessionFilter{
		Project:   project,
		Rooms:     store.Prefixes{"R", "roo"},
		Room:      "room",
		User:      "ann",
		Open:      true,
		From:      middle,
		To:        middle.Add(time.Microsecond),
		AfterTime: middle,
		AfterID:   "b",
		Limit:     100,
	})
}

func notificationList(e *env) {
	e.manyNotifications()
	middle := e.now.Add(-2 * time.Minute)
	r := notificationOf("room", "in_odd")
	var fold mirror.NotificationFold
	for i, id := range shortIDs(mirror.MaxEventID) {
		n := e.notification(r, id)
		n.CreateTime, n.Channel, n.ThreadID = middle, []string{"email", "teams"}[i%2], "th_1"
		fold.Rows = append(fold.Rows, n)
	}
	e.applyNotification(r, fold)
	listing[store.NotificationFilter, mirror.Notification]{
		e.Notifications, func(n mirror.Notification) string { return n.EventID },
		func(a, b mirror.Notification) int {
			return cmp.Or(b.CreateTime.Compare(a.CreateTime), strings.Compare(a.EventID, b.EventID))
		},
		func(f *store.NotificationFilter, limit int, after *mirror.Notification) {
			if f.Limit = limit; after != nil {
				f.AfterTime, f.AfterID = after.CreateTime, after.EventID
			}
		},
		func(n mirror.Notification) mirror.RoomID { return n.Room },
		func(f *store.NotificationFilter, rooms store.Prefixes) { f.Rooms = rooms },
	}.hold(e, "Notifications", store.NotificationFilter{
		Project:   project,
		Rooms:     store.Prefixes{"R", "roo"},
		Room:      "room",
		User:      "ann",
		ID:        "in_odd",
		Channel:   "email",
		Kind:      "thread",
		Thread:    "th_1",
		From:      middle,
		To:        middle.Add(time.Microsecond),
		AfterTime: middle,
		AfterID:   "b",
		Limit:     100,
	})
}

func taskList(e *env) {
	e.tasksOfEveryState()
	for _, room := range []mirror.RoomID{"waiting", "Waiting", "waiting ", ""} {
		for _, id := range []string{"a", "B", "a "} {
			e.raise(documentOf(room, id))
		}
	}
	listing[store.TaskFilter, mirror.Task]{
		e.TaskList, func(t mirror.Task) string {
			return fmt.Sprintf("%q/%d/%q", t.Resource.Room, t.Resource.Kind, t.Resource.ID)
		},
		func(a, b mirror.Task) int {
			return cmp.Or(cmp.Compare(a.Resource.Room, b.Resource.Room), cmp.Compare(a.Resource.Kind, b.Resource.Kind),
				cmp.Compare(a.Resource.ID, b.Resource.ID))
		},
		func(f *store.TaskFilter, limit int, after *mirror.Task) {
			if f.Limit = limit; after != nil {
				f.AfterRoom, f.AfterKind, f.AfterID = after.Resource.Room, after.Resource.Kind, after.Resource.ID
			}
		},
		func(t mirror.Task) mirror.RoomID { return t.Resource.Room },
		func(f *store.TaskFilter, rooms store.Prefixes) { f.Rooms = rooms },
	}.hold(e, "TaskList", store.TaskFilter{
		Project:   project,
		Rooms:     store.Prefixes{"W", "waiting"},
		Room:      "waiting",
		State:     mirror.TaskPending,
		Now:       e.now,
		AfterRoom: "waiting",
		AfterKind: mirror.KindStorage,
		AfterID:   "B",
		Limit:     100,
	})
}

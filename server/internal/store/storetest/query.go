package storetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

var queryCases = []testCase{
	{"odd ids stay apart in rooms and documents", oddRoomIDs},
	{"rooms by prefix", roomsByPrefix},
	{"rooms in pages", roomPages},
	{"rooms hide tombstones unless asked", roomsDeleted},
	{"documents in pages", documentPages},
	{"documents by prefix and kind", documentsFiltered},
	{"documents of other epochs never show", documentsOtherEpochs},
	{"resources are read by their keys", resourcesByKey},
	{"events latest first", eventsOrder},
	{"events by filter", eventsFiltered},
	{"events in pages", eventPages},
	{"events without payload", eventsNoPayload},
	{"latest events by type", lastEvents},
	{"tasks by state", tasksByState},
	{"tasks in pages", taskPages},
	{"task is told as of now", taskNow},
	{"stale is told", staleFlag},
	{"project is paused and resumed", pauseProject},
	{"counts", counts},
	{"nothing shows in another project", otherProject},
	{"engine tells its name", engineName},
	{"server is described", inspected},
	{"cancelled call says so", cancelled},
	{"second store sees what the first wrote", secondStore},
}

func oddRoomIDs(e *env) {
	ids := oddIDs()
	for i, id := range ids {
		e.mirrorRoom(id, e.roomContent(fmt.Sprintf(`{"n":%d}`, i)))
		e.mirrorDocument(storageOf(id), fmt.Sprintf(`{"n":%d}`, i))
	}
	var rooms, docs []mirror.RoomID
	for _, r := range e.rooms() {
		rooms = append(rooms, r.ID)
	}
	for _, d := range e.documents() {
		docs = append(docs, d.Room)
	}
	e.want("Rooms", rooms, ids)
	e.want("Documents", docs, ids)
	for i, id := range ids {
		want := fmt.Sprintf(`{"n":%d}`, i)
		if got := e.room(id); got.ID != id || string(got.Source) != want {
			e.Fatalf("Room %q = %q %s; want %s", id, got.ID, got.Source, want)
		}
		if got := e.document(storageOf(id)); string(got.Content) != want {
			e.Fatalf("Document of %q = %s; want %s", id, got.Content, want)
		}
		if after := ids[i+1:]; len(after) > 0 {
			page, err := e.Rooms(e.ctx(), store.RoomFilter{Project: project, After: id, Limit: 1})
			e.must("Rooms", err)
			if len(page) != 1 || page[0].ID != after[0] {
				e.Fatalf("Rooms after %q = %+v; want %q", id, page, after[0])
			}
		}
		var prefixed []mirror.RoomID
		for _, other := range ids {
			if strings.HasPrefix(string(other), string(id)) {
				prefixed = append(prefixed, other)
			}
		}
		rooms, docs = nil, nil
		page, err := e.Rooms(e.ctx(), store.RoomFilter{Project: project, Prefix: string(id), Limit: 1000})
		e.must("Rooms", err)
		for _, r := range page {
			rooms = append(rooms, r.ID)
		}
		e.want(fmt.Sprintf("Rooms with prefix %q", id), rooms, prefixed)
		list, err := e.Documents(e.ctx(), store.DocumentFilter{Project: project, Prefix: string(id), Limit: 1000})
		e.must("Documents", err)
		for _, d := range list {
			docs = append(docs, d.Room)
		}
		e.want(fmt.Sprintf("Documents with prefix %q", id), docs, prefixed)
	}
	// Deleting one deletes that one.
	e.deleteRoom("room")
	e.wantNoRoom("room")
	if got := len(e.rooms()); got != len(ids)-1 {
		e.Fatalf("rooms after deleting one = %d; want %d", got, len(ids)-1)
	}
}

// wantRoomIDs checks that the ids of a list are those of its rooms.
func (e *env) wantRoomIDs(filter store.RoomFilter) {
	e.Helper()
	rooms, err := e.Rooms(e.ctx(), filter)
	e.must("Rooms", err)
	want := make([]mirror.RoomID, 0, len(rooms))
	for _, r := range rooms {
		want = append(want, r.ID)
	}
	got, err := e.RoomIDs(e.ctx(), filter)
	e.must("RoomIDs", err)
	e.want(fmt.Sprintf("RoomIDs %+v", filter), got, want)
}

func roomsByPrefix(e *env) {
	for _, id := range []mirror.RoomID{"a", "a%", "a_", "a\U0010FFFF", "a\U0010FFFFz", "ab", "abc", "b", "\\"} {
		e.mirrorRoom(id, e.roomContent(`{}`))
	}
	for prefix, want := range map[string][]mirror.RoomID{
		"":            {"\\", "a", "a%", "a_", "ab", "abc", "a\U0010FFFF", "a\U0010FFFFz", "b"},
		"a":           {"a", "a%", "a_", "ab", "abc", "a\U0010FFFF", "a\U0010FFFFz"},
		"a%":          {"a%"},
		"a_":          {"a_"},
		"ab":          {"ab", "abc"},
		"a\U0010FFFF": {"a\U0010FFFF", "a\U0010FFFFz"},
		"\\":          {"\\"},
		"A":           nil,
		"abcd":        nil,
	} {
		page, err := e.Rooms(e.ctx(), store.RoomFilter{Project: project, Prefix: prefix, Limit: 100})
		e.must("Rooms", err)
		e.wantRoomIDs(store.RoomFilter{Project: project, Prefix: prefix, Limit: 100})
		var got []mirror.RoomID
		for _, r := range page {
			got = append(got, r.ID)
		}
		slices.Sort(want)
		e.want(fmt.Sprintf("Rooms with prefix %q", prefix), got, want)
	}
}

// pages walks a list to its end, one page after the other. After each page
// something new is inserted: before, at and behind the place where it stands.
func pages[R any, K comparable](e *env, what string, before []K, key func(R) K, insert func(),
	list func(last *R, limit int) ([]R, error),
) {
	e.Helper()
	for _, size := range []int{1, 2, 3, len(before), 100} {
		var got []K
		var last *R
		seen := make(map[K]bool)
		for n := 1; ; n++ {
			if n > 100 {
				e.Fatalf("%s in pages of %d do not end", what, size)
			}
			page, err := list(last, size)
			e.must(what, err)
			if len(page) > size {
				e.Fatalf("%s gave %d rows; want at most %d", what, len(page), size)
			}
			for _, r := range page {
				if seen[key(r)] {
					e.Fatalf("%s in pages of %d show %v twice", what, size, key(r))
				}
				seen[key(r)] = true
				if slices.Contains(before, key(r)) {
					got = append(got, key(r))
				}
			}
			if len(page) < size {
				break
			}
			last = &page[len(page)-1]
			insert()
		}
		e.want(fmt.Sprintf("%s in pages of %d", what, size), got, before)
	}
}

func roomPages(e *env) {
	var ids []mirror.RoomID
	for i := range 7 {
		id := mirror.RoomID(fmt.Sprintf("room-%d5", i))
		ids = append(ids, id)
		e.mirrorRoom(id, e.roomContent(`{}`))
	}
	extra := 0
	insert := func() {
		if extra++; extra > 12 {
			return
		}
		e.mirrorRoom(mirror.RoomID(fmt.Sprintf("room-%d5-%d", extra%8, extra)), e.roomContent(`{}`))
		e.mirrorRoom(mirror.RoomID(fmt.Sprintf("room-%d4-%d", extra%8, extra)), e.roomContent(`{}`))
	}
	pages(e, "Rooms", ids, func(r mirror.Room) mirror.RoomID { return r.ID }, insert,
		func(last *mirror.Room, limit int) ([]mirror.Room, error) {
			f := store.RoomFilter{Project: project, Limit: limit}
			if last != nil {
				f.After = last.ID
			}
			return e.Rooms(e.ctx(), f)
		})
}

func roomsDeleted(e *env) {
	for _, id := range []mirror.RoomID{"a", "b", "c"} {
		e.mirrorRoom(id, e.roomContent(`{}`))
	}
	e.deleteRoom("b")
	list := func(deleted bool) (ids []mirror.RoomID, dead int) {
		rooms, err := e.Rooms(e.ctx(), store.RoomFilter{Project: project, Deleted: deleted, Limit: 10})
		e.must("Rooms", err)
		for _, r := range rooms {
			ids = append(ids, r.ID)
			if !r.Freshness.DeleteTime.IsZero() {
				dead++
			}
		}
		return ids, dead
	}
	if ids, dead := list(false); !slices.Equal(ids, []mirror.RoomID{"a", "c"}) || dead != 0 {
		e.Fatalf("Rooms = %q, %d deleted; want a and c", ids, dead)
	}
	if ids, dead := list(true); !slices.Equal(ids, []mirror.RoomID{"a", "b", "c"}) || dead != 1 {
		e.Fatalf("Rooms, deleted too = %q, %d deleted; want a, b and c, one deleted", ids, dead)
	}
	for _, filter := range []store.RoomFilter{
		{Project: project, Limit: 10},
		{Project: project, Limit: 10, Deleted: true},
		{Project: project, Limit: 1},
		{Project: project, Limit: 1, After: "a"},
		{Project: project, Limit: 10, After: "c"},
		{Project: "other", Limit: 10},
	} {
		e.wantRoomIDs(filter)
	}
	page, err := e.Rooms(e.ctx(), store.RoomFilter{Project: project, Limit: 1, After: "a"})
	e.must("Rooms", err)
	if len(page) != 1 || page[0].ID != "c" {
		e.Fatalf("Rooms after a = %+v; want c: a tombstone takes no place on the page", page)
	}
}

func documentOf(room mirror.RoomID, id string) mirror.Resource {
	r := storageOf(room)
	r.ID = id
	return r
}

func keyOf(d mirror.Document) mirror.Resource {
	return mirror.Resource{Project: d.Project, Room: d.Room, Kind: d.Kind, ID: d.ID}
}

func documentPages(e *env) {
	var keys []mirror.Resource
	for _, room := range []mirror.RoomID{"a", "b", "c"} {
		e.mirrorRoom(room, e.roomContent(`{}`))
		for _, id := range []string{"", "B", "a"} {
			keys = append(keys, documentOf(room, id))
			e.mirrorDocument(documentOf(room, id), `{}`)
		}
	}
	extra := 0
	insert := func() {
		if extra++; extra > 10 {
			return
		}
		e.mirrorDocument(documentOf([]mirror.RoomID{"a", "b", "c"}[extra%3], fmt.Sprintf("B%d", extra)), `{}`)
	}
	pages(e, "Documents", keys, keyOf, insert, func(last *mirror.Document, limit int) ([]mirror.Document, error) {
		f := store.DocumentFilter{Project: project, Limit: limit}
		if last != nil {
			f.AfterRoom, f.AfterKind, f.AfterID = last.Room, last.Kind, last.ID
		}
		return e.Documents(e.ctx(), f)
	})
}

func documentsFiltered(e *env) {
	for _, id := range []mirror.RoomID{"a", "ab", "b"} {
		e.mirrorBoth(id)
	}
	for _, c := range []struct {
		filter store.DocumentFilter
		want   int
	}{
		{store.DocumentFilter{}, 3},
		{store.DocumentFilter{Prefix: "a"}, 2},
		{store.DocumentFilter{Prefix: "ab"}, 1},
		{store.DocumentFilter{Kind: mirror.KindStorage}, 3},
		{store.DocumentFilter{Kind: mirror.KindStorage, Prefix: "b"}, 1},
		{store.DocumentFilter{Kind: 99}, 0},
	} {
		c.filter.Project, c.filter.Limit = project, 10
		docs, err := e.Documents(e.ctx(), c.filter)
		e.must("Documents", err)
		if len(docs) != c.want {
			e.Fatalf("Documents(%+v) = %+v; want %d", c.filter, docs, c.want)
		}
		for _, d := range docs {
			if d.Content != nil {
				e.Fatalf("Documents list the content %q; want none", d.Content)
			}
		}
	}
}

func documentsOtherEpochs(e *env) {
	e.mirrorBoth("living")
	e.mirrorBoth("deleted")
	e.mirrorBoth("reborn")
	e.deleteRoom("deleted")
	content := e.roomContent(`{}`)
	content.CreateTime = born.Add(time.Hour)
	e.mirrorRoom("reborn", content)
	docs := e.documents()
	if len(docs) != 1 || docs[0].Room != "living" {
		e.Fatalf("Documents = %+v; want that of the living room", docs)
	}
	for _, deleted := range []bool{false, true} {
		_, err := e.Document(e.ctx(), storageOf("reborn"), deleted)
		e.wantErr("Document of an earlier epoch", err, store.ErrNotFound)
	}
	e.deleteRoom("reborn")
	_, err := e.Document(e.ctx(), storageOf("reborn"), true)
	e.wantErr("Document of an epoch before that of the tombstone", err, store.ErrNotFound)
}

// manyEvents accepts events of two rooms, users and types, some at one time,
// and returns them latest first.
func (e *env) manyEvents() []mirror.Event {
	e.Helper()
	var batch []mirror.Delivery
	var events []mirror.Event
	for i := range 12 {
		a := e.delivery()
		a.Event.Room = []mirror.RoomID{"room", "Room", ""}[i%3]
		a.Event.User = []string{"ann", "Ann", ""}[i/3%3]
		a.Event.Thread = []string{"th_1", "Th_1", "", "th_1"}[i%4]
		a.Event.Type = []string{"one", "two"}[i%2]
		a.Event.Outcome = []mirror.Outcome{mirror.OutcomeQueued, mirror.OutcomeMalformed, mirror.OutcomeQueued}[i/2%3]
		a.Event.ReceiveTime = e.now.Add(time.Duration(i/4) * time.Second) // four at a time
		batch = append(batch, a)
		events = append(events, a.Event)
	}
	e.accept(batch...)
	slices.SortFunc(events, func(a, b mirror.Event) int {
		if c := b.ReceiveTime.Compare(a.ReceiveTime); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return events
}

func eventsOrder(e *env) {
	want := e.manyEvents()
	got, err := e.Events(e.ctx(), store.EventFilter{Project: project, Limit: 100})
	e.must("Events", err)
	e.want("Events", got, want)
	got, err = e.Events(e.ctx(), store.EventFilter{Project: project, Limit: 5})
	e.must("Events", err)
	e.want("Events, at most 5", got, want[:5])
}

func lastEvents(e *env) {
	want := func(types []string, want mirror.LastEvents) {
		e.Helper()
		got, err := e.LastEvents(e.ctx(), project, types)
		e.must("LastEvents", err)
		e.want("LastEvents", got, want)
	}
	want([]string{"one"}, mirror.LastEvents{ByType: map[string]time.Time{}})
	all := e.manyEvents()
	last := mirror.LastEvents{Time: all[0].ReceiveTime, ByType: map[string]time.Time{}}
	want(nil, last)
	for _, ev := range all {
		last.ByType[ev.Type] = latestOf(last.ByType[ev.Type], ev.ReceiveTime)
	}
	untyped := e.delivery()
	untyped.Event.Type, untyped.Event.ReceiveTime = "", all[0].ReceiveTime.Add(time.Second)
	foreign := e.delivery()
	foreign.Event.Project, foreign.Event.Type = "other", "one"
	foreign.Event.ReceiveTime = untyped.Event.ReceiveTime.Add(time.Second)
	e.accept(untyped, foreign)
	last.Time = untyped.Event.ReceiveTime
	want([]string{"two", "One", "one", ""}, last)
}

func latestOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func eventsFiltered(e *env) {
	all := e.manyEvents()
	second := e.now.Add(time.Second)
	for what, c := range map[string]struct {
		filter store.EventFilter
		keep   func(ev mirror.Event) bool
	}{
		"room":   {store.EventFilter{Room: "room"}, func(ev mirror.Event) bool { return ev.Room == "room" }},
		"user":   {store.EventFilter{User: "Ann"}, func(ev mirror.Event) bool { return ev.User == "Ann" }},
		"type":   {store.EventFilter{Type: "two"}, func(ev mirror.Event) bool { return ev.Type == "two" }},
		"thread": {store.EventFilter{Thread: "th_1"}, func(ev mirror.Event) bool { return ev.Thread == "th_1" }},
		"thread, room and user": {
			store.EventFilter{Thread: "th_1", Room: "Room", User: "Ann"},
			func(ev mirror.Event) bool { return ev.Thread == "th_1" && ev.Room == "Room" && ev.User == "Ann" },
		},
		"outcome": {
			store.EventFilter{Outcome: mirror.OutcomeMalformed},
			func(ev mirror.Event) bool { return ev.Outcome == mirror.OutcomeMalformed },
		},
		"room, type and outcome": {
			store.EventFilter{Room: "room", Type: "one", Outcome: mirror.OutcomeQueued},
			func(ev mirror.Event) bool {
				return ev.Room == "room" && ev.Type == "one" && ev.Outcome == mirror.OutcomeQueued
			},
		},
		"room and user": {
			store.EventFilter{Room: "room", User: "ann"},
			func(ev mirror.Event) bool { return ev.Room == "room" && ev.User == "ann" },
		},
		"room and type": {
			store.EventFilter{Room: "room", Type: "one"},
			func(ev mirror.Event) bool { return ev.Room == "room" && ev.Type == "one" },
		},
		"user and type": {
			store.EventFilter{User: "ann", Type: "one"},
			func(ev mirror.Event) bool { return ev.User == "ann" && ev.Type == "one" },
		},
		"from": {
			store.EventFilter{From: second},
			func(ev mirror.Event) bool { return !ev.ReceiveTime.Before(second) },
		},
		"to": {
			store.EventFilter{To: second},
			func(ev mirror.Event) bool { return ev.ReceiveTime.Before(second) },
		},
		"from, to": {
			store.EventFilter{From: second, To: second.Add(time.Microsecond)},
			func(ev mirror.Event) bool { return ev.ReceiveTime.Equal(second) },
		},
		"room, from, to": {
			store.EventFilter{Room: "Room", From: second, To: second.Add(time.Second)},
			func(ev mirror.Event) bool { return ev.Room == "Room" && ev.ReceiveTime.Equal(second) },
		},
		"user, from": {
			store.EventFilter{User: "ann", From: second},
			func(ev mirror.Event) bool { return ev.User == "ann" && !ev.ReceiveTime.Before(second) },
		},
		"nothing": {store.EventFilter{Room: "ROOM"}, func(mirror.Event) bool { return false }},
	} {
		c.filter.Project, c.filter.Limit = project, 100
		got, err := e.Events(e.ctx(), c.filter)
		e.must("Events", err)
		want := slices.DeleteFunc(slices.Clone(all), func(ev mirror.Event) bool { return !c.keep(ev) })
		e.want("Events by "+what, got, want)
	}
}

func eventPages(e *env) {
	e.manyEvents()
	for what, filter := range map[string]store.EventFilter{
		"all": {}, "a room's": {Room: "room"},
		"a user's": {User: "ann"}, "a type's": {Type: "one"}, "an outcome's": {Outcome: mirror.OutcomeQueued},
		"a thread's": {Thread: "th_1"},
	} {
		filter.Project, filter.Limit = project, 100
		all, err := e.Events(e.ctx(), filter)
		e.must("Events", err)
		var ids []string
		for _, ev := range all {
			ids = append(ids, ev.ID)
		}
		extra := 0
		insert := func() {
			if extra++; extra > 4 {
				return
			}
			for _, at := range []time.Time{e.now.Add(-time.Minute), e.now.Add(time.Second), e.now.Add(time.Hour)} {
				a := e.delivery()
				a.Event.Room, a.Event.User, a.Event.Type, a.Event.ReceiveTime = "room", "ann", "one", at
				e.accept(a)
			}
		}
		pages(e, "Events, "+what, ids, func(ev mirror.Event) string { return ev.ID }, insert,
			func(last *mirror.Event, limit int) ([]mirror.Event, error) {
				f := filter
				f.Limit = limit
				if last != nil {
					f.AfterTime, f.AfterID = last.ReceiveTime, last.ID
				}
				return e.Events(e.ctx(), f)
			})
	}
}

func eventsNoPayload(e *env) {
	want := e.manyEvents()
	for i := range want {
		want[i].Payload = nil
	}
	for _, filter := range []store.EventFilter{{}, {Room: "room"}, {User: "ann"}} {
		filter.Project, filter.Limit, filter.NoPayload = project, 100, true
		got, err := e.Events(e.ctx(), filter)
		e.must("Events", err)
		e.want("Events without payload", got, slices.DeleteFunc(slices.Clone(want), func(ev mirror.Event) bool {
			return filter.Room != "" && ev.Room != filter.Room || filter.User != "" && ev.User != filter.User
		}))
	}
}

// tasksOfEveryState makes a task of each state and returns them by state.
func (e *env) tasksOfEveryState() map[mirror.TaskState]mirror.Resource {
	e.Helper()
	rooms := map[mirror.TaskState]mirror.Resource{
		mirror.TaskPending: storageOf("pending"), mirror.TaskRunning: storageOf("running"),
		mirror.TaskWaiting: storageOf("waiting"),
		mirror.TaskFailed:  storageOf("failed"), mirror.TaskDone: roomOf("done"),
	}
	e.mirrorRoom("done", e.roomContent(`{}`))
	for _, child := range childrenOf("done") {
		e.fetch(child)
	}
	e.raise(rooms[mirror.TaskPending], rooms[mirror.TaskRunning], rooms[mirror.TaskWaiting], rooms[mirror.TaskFailed])
	e.claim(rooms[mirror.TaskRunning])
	e.park(e.claim(rooms[mirror.TaskWaiting]))
	f := e.failure()
	f.Final = true
	e.fail(e.claim(rooms[mirror.TaskFailed]), f)
	return rooms
}

func (e *env) taskKeys(f store.TaskFilter) []mirror.Resource {
	e.Helper()
	f.Project, f.Now = project, e.now
	if f.Limit == 0 {
		f.Limit = 100
	}
	tasks, err := e.TaskList(e.ctx(), f)
	e.must("TaskList", err)
	var keys []mirror.Resource
	for _, task := range tasks {
		keys = append(keys, task.Resource)
		one, err := e.Task(e.ctx(), task.Resource, e.now)
		e.must("Task", err)
		e.want("Task of what TaskList shows", one, task)
		if f.State != "" && task.State != f.State {
			e.Fatalf("TaskList of %s tasks shows %+v", f.State, task)
		}
	}
	return keys
}

func tasksByState(e *env) {
	by := e.tasksOfEveryState()
	parkRoom := roomOf("waiting") // woken by the parked child
	for state, want := range map[mirror.TaskState][]mirror.Resource{
		mirror.TaskPending: {by[mirror.TaskPending], parkRoom},
		mirror.TaskRunning: {by[mirror.TaskRunning]},
		mirror.TaskWaiting: {by[mirror.TaskWaiting]},
		mirror.TaskFailed:  {by[mirror.TaskFailed]},
		mirror.TaskDone:    append([]mirror.Resource{by[mirror.TaskDone]}, childrenOf("done")...),
		"": {
			by[mirror.TaskFailed], by[mirror.TaskPending], by[mirror.TaskRunning], parkRoom,
			by[mirror.TaskWaiting],
		},
	} {
		e.want(fmt.Sprintf("TaskList of %q", state), e.taskKeys(store.TaskFilter{State: state}), want)
	}
	e.want("TaskList of a room", e.taskKeys(store.TaskFilter{Room: "waiting"}),
		[]mirror.Resource{parkRoom, by[mirror.TaskWaiting]})
	e.want("TaskList of a room, by state", e.taskKeys(store.TaskFilter{Room: "waiting", State: mirror.TaskWaiting}),
		[]mirror.Resource{by[mirror.TaskWaiting]})
	e.want("TaskList of a room that differs by case", e.taskKeys(store.TaskFilter{Room: "Waiting"}),
		[]mirror.Resource(nil))
	e.pass(leaseTTL)
	e.want("TaskList of pending, when the lease has ended", e.taskKeys(store.TaskFilter{State: mirror.TaskPending}),
		[]mirror.Resource{by[mirror.TaskPending], by[mirror.TaskRunning], parkRoom})
	e.want("TaskList of running, when the lease has ended", e.taskKeys(store.TaskFilter{State: mirror.TaskRunning}),
		[]mirror.Resource(nil))
}

func taskPages(e *env) {
	var keys []mirror.Resource
	for _, room := range []mirror.RoomID{"a", "b", "b ", "c"} {
		for _, r := range []mirror.Resource{roomOf(room), storageOf(room), documentOf(room, "B"), documentOf(room, "a")} {
			keys = append(keys, r)
			e.raise(r)
		}
	}
	extra := 0
	insert := func() {
		if extra++; extra <= 10 {
			e.raise(documentOf([]mirror.RoomID{"a", "b", "c"}[extra%3], fmt.Sprintf("B%d", extra)))
		}
	}
	key := func(task mirror.Task) mirror.Resource { return task.Resource }
	pages(e, "TaskList", keys, key, insert, func(last *mirror.Task, limit int) ([]mirror.Task, error) {
		f := store.TaskFilter{Project: project, Now: e.now, Limit: limit}
		if last != nil {
			f.AfterRoom, f.AfterKind, f.AfterID = last.Resource.Room, last.Resource.Kind, last.Resource.ID
		}
		return e.TaskList(e.ctx(), f)
	})
}

func taskNow(e *env) {
	e.raise(storageOf("room"))
	lease := e.claim(storageOf("room"))
	for _, c := range []struct {
		now  time.Time
		want mirror.TaskState
	}{
		{e.now, mirror.TaskRunning},
		{lease.Until.Add(-time.Microsecond), mirror.TaskRunning},
		{lease.Until, mirror.TaskPending},
	} {
		task, err := e.Task(e.ctx(), storageOf("room"), c.now)
		e.must("Task", err)
		if task.State != c.want {
			e.Fatalf("task at %v = %+v; want it %s", c.now, task, c.want)
		}
	}
	_, err := e.Task(e.ctx(), storageOf("never heard of"), e.now)
	e.wantErr("Task", err, store.ErrNotFound)
}

func staleFlag(e *env) {
	want := func(what string, stale bool) {
		e.Helper()
		got := []bool{
			e.room("room").Freshness.Stale, e.rooms()[0].Freshness.Stale,
			e.document(storageOf("room")).Freshness.Stale, e.documents()[0].Freshness.Stale,
		}
		e.want("stale "+what, got, []bool{stale, stale, stale, stale})
	}
	e.mirrorBoth("room")
	want("when all is applied", false)
	e.raise(roomOf("room"), storageOf("room"))
	want("when both were raised", true)
	e.fetch(roomOf("room"))
	e.fetch(storageOf("room"))
	want("when only the settle fetch is left", false)
	e.request(requestsFor(roomOf("room"), storageOf("room"))...)
	want("when both were requested", true)
}

func pauseProject(e *env) {
	want := func(what string, want mirror.Project) {
		e.Helper()
		got, err := e.Project(e.ctx(), project)
		e.must("Project", err)
		e.want("project "+what, got, want)
	}
	pause := func(reason string) {
		e.Helper()
		e.must("Pause", e.Pause(e.ctx(), project, reason, e.now))
	}
	want("of which nothing is stored", mirror.Project{ID: project})
	pause("key refused")
	want("paused", mirror.Project{ID: project, PauseReason: "key refused", PauseTime: e.now})
	_, err := e.PinProject(e.ctx(), project, "6605")
	e.must("PinProject", err)
	want("paused and pinned", mirror.Project{
		ID: project, LiveblocksID: "6605", PauseReason: "key refused",
		PauseTime: e.now,
	})
	e.pass(time.Hour)
	pause("odd \x00 \xff")
	e.pass(time.Hour)
	pause("")
	want("resumed", mirror.Project{ID: project, LiveblocksID: "6605"})
	pause("")
	want("resumed twice", mirror.Project{ID: project, LiveblocksID: "6605"})
	got, err := e.Project(e.ctx(), "other")
	e.must("Project", err)
	e.want("other project", got, mirror.Project{ID: "other"})
}

func counts(e *env) {
	want := func(what string, want store.Counts) {
		e.Helper()
		got, err := e.Counts(e.ctx(), project)
		e.must("Counts", err)
		e.want("Counts "+what, got, want)
	}
	want("of nothing", store.Counts{})
	first := e.now
	e.tasksOfEveryState()
	// Pending, running and the room of the parked child, and the failed one.
	want("of every state", store.Counts{Pending: 3, Failed: 1, OldestDue: first, OldestLive: first})
	e.accept(e.delivery(invalidatedAt(mirror.Resource{Project: "other", Room: "room", Kind: mirror.KindRoom})))
	want("beside another project", store.Counts{Pending: 3, Failed: 1, OldestDue: first, OldestLive: first})
}

func otherProject(e *env) {
	e.mirrorBoth("room")
	e.tasksOfEveryState()
	for _, p := range []mirror.ProjectID{"", "other", "defaul", "default-", "Default"} {
		events, err := e.Events(e.ctx(), store.EventFilter{Project: p, Limit: 10})
		e.must("Events", err)
		rooms, err := e.Rooms(e.ctx(), store.RoomFilter{Project: p, Deleted: true, Limit: 10})
		e.must("Rooms", err)
		docs, err := e.Documents(e.ctx(), store.DocumentFilter{Project: p, Limit: 10})
		e.must("Documents", err)
		tasks, err := e.TaskList(e.ctx(), store.TaskFilter{Project: p, Now: e.now, Limit: 10})
		e.must("TaskList", err)
		due, err := e.Due(e.ctx(), lookAt(p, e.now.Add(time.Hour), 10))
		e.must("Due", err)
		got, err := e.Counts(e.ctx(), p)
		e.must("Counts", err)
		if len(events)+len(rooms)+len(docs)+len(tasks)+len(due.Resources) != 0 || got != (store.Counts{}) {
			e.Fatalf("project %q shows %d events, %d rooms, %d documents, %d tasks, %+v, %+v; want nothing",
				p, len(events), len(rooms), len(docs), len(tasks), due, got)
		}
		for _, r := range []mirror.Resource{
			{Project: p, Room: "room", Kind: mirror.KindRoom},
			{Project: p, Room: "room", Kind: mirror.KindStorage},
		} {
			_, err = e.Task(e.ctx(), r, e.now)
			e.wantErr("Task", err, store.ErrNotFound)
			_, err = e.Room(e.ctx(), r, true)
			e.wantErr("Room", err, store.ErrNotFound)
			_, err = e.Document(e.ctx(), r, true)
			e.wantErr("Document", err, store.ErrNotFound)
		}
	}
}

func engineName(e *env) {
	e.must("Ping", e.Ping(e.ctx()))
	name, err := e.Engine(e.ctx())
	e.must("Engine", err)
	if engine, version, ok := strings.Cut(name, " "); !ok || engine == "" || !strings.ContainsAny(version, "0123456789") {
		e.Fatalf("Engine = %q; want a name and a version", name)
	}
}

func inspected(e *env) {
	engine, err := e.Engine(e.ctx())
	e.must("Engine", err)
	before, err := e.Inspect(e.ctx())
	e.must("Inspect", err)
	after, err := e.Inspect(e.ctx())
	e.must("Inspect", err)
	switch {
	case before.Engine != engine:
		e.Fatalf("Inspect says %q; want what Engine says, %q", before.Engine, engine)
	case before.Wanted == 0 || before.Schema != before.Wanted:
		e.Fatalf("Inspect says schema %d of %d; want the last of those that there are", before.Schema, before.Wanted)
	case before.Now.IsZero() || after.Now.Before(before.Now) || before.Now.Location() != time.UTC:
		e.Fatalf("Inspect says %v, then %v; want the time of the server, in UTC", before.Now, after.Now)
	case len(before.Inexact) > 0:
		e.Fatalf("Inspect says that %+v do not compare bytes; none is so", before.Inexact)
	}
}

func cancelled(e *env) {
	e.raise(storageOf("room"))
	lease := e.claim(storageOf("room"))
	ctx, cancel := context.WithCancel(e.ctx())
	cancel()
	_, errAccept := e.Accept(ctx, []mirror.Delivery{e.delivery()})
	_, errFail := e.Fail(ctx, lease, e.failure())
	_, errRoom := e.Room(ctx, roomOf("room"), false)
	for what, err := range map[string]error{"Accept": errAccept, "Fail": errFail, "Room": errRoom, "Ping": e.Ping(ctx)} {
		if !errors.Is(err, context.Canceled) {
			e.Fatalf("%s with a cancelled context = %v; want it to say so", what, err)
		}
	}
	e.wantState(storageOf("room"), mirror.TaskRunning)
}

func secondStore(e *env) {
	other := e.another()
	e.mirrorBoth("room")
	want := e.document(storageOf("room"))
	got, err := other.Document(e.ctx(), storageOf("room"), false)
	e.must("Document", err)
	e.want("Document read by another store", got, want)
	e.raise(storageOf("room"))
	lease, err := other.Claim(e.ctx(), storageOf("room"), newToken(), e.now, leaseTTL)
	e.must("Claim", err)
	_, err = other.ApplyDocument(e.ctx(), lease, e.documentContent(`{"a":2}`), e.now, 0)
	e.must("ApplyDocument", err)
	if got := e.document(storageOf("room")); string(got.Content) != `{"a":2}` {
		e.Fatalf("document = %q; want what the other store wrote", got.Content)
	}
}

// Reads of many keys return what reads of each return, once, in any order. Of what is deleted or
// was never there they return nothing.
func resourcesByKey(e *env) {
	var threads, rooms []mirror.Resource
	for i, id := range []mirror.RoomID{"a", "A", "gone", "none"} {
		threads = append(threads, threadOf(id, "th_1"), threadOf(id, "TH_1"), threadOf(id, "th_2"))
		rooms = append(rooms, activeUsersOf(id))
		if id == "none" {
			continue
		}
		e.mirrorRoom(id, e.roomContent(`{}`))
		e.mirrorThread(id, threadIn("th_1", i))
		e.mirrorThread(id, threadIn("th_2", i))
		ann, own := mirror.ActiveUser{ConnectionID: 1, UserID: "ann"}, mirror.ActiveUser{ConnectionID: 2, UserID: string(id)}
		e.mirrorUsers(id, ann, own)
	}
	e.deleteThread(threadOf("A", "th_2"))
	e.deleteRoom("gone")
	e.mirrorRoom("empty", e.roomContent(`{}`))
	rooms = append(rooms, activeUsersOf("empty"))
	groups := []mirror.Resource{groupOf("g_1"), groupOf("g_2"), groupOf("G_1")}
	e.mirrorGroup(groupIn("g_1", 1))
	e.mirrorGroup(groupIn("g_2", 1))

	threads, rooms, groups = append(threads, threads[0]), append(rooms, rooms[0]), append(groups, groups[0])
	gotThreads, err := e.ThreadsByID(e.ctx(), project, threads, math.MaxInt64)
	e.must("ThreadsByID", err)
	wantByKey(e, "ThreadsByID", threads, gotThreads, e.Thread, func(t mirror.Thread) string {
		return string(t.Room) + " " + t.ID
	})
	// A source comes if it is no longer than asked for, and all else in any case.
	long := slices.MaxFunc(gotThreads, func(a, b mirror.Thread) int { return len(a.Source) - len(b.Source) })
	for inline, comes := range map[int]bool{len(long.Source): true, len(long.Source) - 1: false, 0: false} {
		got, err := e.ThreadsByID(e.ctx(), project, []mirror.Resource{threadOf(long.Room, long.ID)}, int64(inline))
		e.must("ThreadsByID", err)
		want := long
		if !comes {
			want.Source = nil
		}
		e.want(fmt.Sprintf("a thread of %d bytes with sources of up to %d", len(long.Source), inline), got,
			[]mirror.Thread{want})
	}
	gotRooms, err := e.ActiveUsersByRoom(e.ctx(), project, rooms)
	e.must("ActiveUsersByRoom", err)
	wantByKey(e, "ActiveUsersByRoom", rooms, gotRooms, e.ActiveUsers, func(u mirror.ActiveUsers) string {
		return string(u.Room)
	})
	gotGroups, err := e.GroupsByID(e.ctx(), project, groups)
	e.must("GroupsByID", err)
	wantByKey(e, "GroupsByID", groups, gotGroups, e.Group, func(g mirror.Group) string { return g.ID })
	e.want("threads, rooms and groups", []int{len(gotThreads), len(gotRooms), len(gotGroups)}, []int{3, 3, 2})

	none, err := e.ThreadsByID(e.ctx(), "other", []mirror.Resource{threadOf("a", "th_1")}, 1<<20)
	e.must("ThreadsByID", err)
	e.want("threads of another project", len(none), 0)
	for _, read := range []func() (int, error){
		func() (int, error) { all, err := e.ThreadsByID(e.ctx(), project, nil, 0); return len(all), err },
		func() (int, error) { all, err := e.ActiveUsersByRoom(e.ctx(), project, nil); return len(all), err },
		func() (int, error) { all, err := e.GroupsByID(e.ctx(), project, nil); return len(all), err },
	} {
		n, err := read()
		e.must("a read of no keys", err)
		e.want("rows of no keys", n, 0)
	}
}

// wantByKey compares the rows of many keys with those that a read of each key returns.
func wantByKey[T any](e *env, what string, keys []mirror.Resource, got []T,
	read func(context.Context, mirror.Resource, bool) (T, error), name func(T) string,
) {
	e.Helper()
	want, found := make(map[string]T), make(map[string]T)
	for _, r := range keys {
		row, err := read(e.ctx(), r, false)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		e.must("a read by key", err)
		want[name(row)] = row
	}
	for _, row := range got {
		found[name(row)] = row
	}
	e.want(what, found, want)
	e.want("number of rows of "+what, len(got), len(want))
}

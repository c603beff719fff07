package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// large is how many of everything the contract wants in one place.
const large = 70

// largeCases hold an engine to the contract with n of everything in one place. On a
// server that refuses statements about so many rows, no room may be too large.
func largeCases(n int) []testCase {
	with := func(run func(e *env, n int)) func(e *env) { return func(e *env) { run(e, n) } }
	return []testCase{
		{"room of many threads", with(manyThreadsInRoom)},
		{"thread of many rows", with(manyRowsInThread)},
		{"room of many users and sessions", with(manyUsersInRoom)},
		{"notification of many events", with(manyEventsOfNotification)},
		{"group of many members", with(manyMembersOfGroup)},
	}
}

// RunLarge runs the cases about n of everything in one place.
func RunLarge(t *testing.T, n int, open Opener) {
	t.Helper()
	group{"large", largeCases(n)}.run(t, open)
}

// pageOf is a size of pages that divides n rows into a few.
func pageOf(n int) int { return n/3 + 1 }

func (e *env) pending() int64 {
	e.Helper()
	counts, err := e.Counts(e.ctx(), project)
	e.must("Counts", err)
	return counts.Pending
}

func manyThreadsInRoom(e *env, n int) {
	e.mirrorRoom("room", e.roomContent(`{}`))
	threads := make([]mirror.Thread, n)
	ids := make([]string, n)
	for i := range threads {
		ids[i] = fmt.Sprintf("th_%06d", i)
		threads[i] = threadIn(ids[i], 1)
	}
	e.want("list of new threads", e.listThreads("room", threads...), added("room", ids...))
	known, err := e.KnownItems(e.ctx(), threadOf("room", ""))
	e.must("KnownItems", err)
	for i, id := range ids {
		want := store.Known{HasState: true, Copy: store.ItemCopy{Epoch: 1, SHA256: threads[i].SHA256}}
		if known[id] != want {
			e.Fatalf("KnownItems of %s = %+v; want %+v", id, known[id], want)
		}
	}
	e.want("number of KnownItems", len(known), n)
	e.want("list of known threads", e.listThreads("room", threads...), mirror.Applied{})

	// All of them become stale with the room.
	content := e.roomContent(`{}`)
	content.CreateTime = born.Add(time.Hour)
	var due []string
	for _, r := range e.mirrorRoom("room", content).AlsoDue {
		if r.Kind == mirror.KindThread && r.ID != "" {
			due = append(due, r.ID)
		}
	}
	e.want("threads due with their room", due, ids)
	if got := e.pending(); got < int64(n) {
		e.Fatalf("pending tasks = %d; want at least the %d threads", got, n)
	}

	// Nothing is left to do in a deleted room.
	e.deleteRoom("room")
	e.want("pending tasks of a deleted room", e.pending(), int64(0))
	for _, id := range []string{ids[0], ids[n/2], ids[n-1]} {
		task := e.task(threadOf("room", id))
		if task.State != mirror.TaskDone || task.Generation != 2 || task.Applied != 2 {
			e.Fatalf("task of thread %s = %+v; want it done", id, task)
		}
	}
	e.pass(time.Hour)
	left := e.remains("room")
	for left > 0 {
		purged, err := e.PurgeRoom(e.ctx(), roomOf("room"), e.now, pageOf(n))
		e.must("PurgeRoom", err)
		if purged.All() < 1 {
			e.Fatalf("PurgeRoom = %v; want some of the %d rows left", purged, left)
		}
		left -= purged.All()
	}
	e.want("Remains", e.remains("room"), int64(0))
}

// manyRows is a version of a thread with n comments that mention the same user. The
// first of them has n of everything.
func manyRows(n, version int) mirror.Thread {
	comments := make([]mirror.Comment, n)
	for i := range comments {
		comments[i] = commentIn(fmt.Sprintf("cm_%06d", i), i)
		comments[i].Mentions = []mirror.Mention{{Kind: "user", ID: "bob"}}
	}
	first := &comments[0]
	for i := range n {
		first.Reactions = append(first.Reactions, mirror.Reaction{
			Emoji: "x", UserID: fmt.Sprintf("user-%06d", i), CreateTime: born.Add(time.Duration(version) * time.Second),
		})
		first.Attachments = append(first.Attachments, mirror.Attachment{ID: fmt.Sprintf("at_%06d", i)})
	}
	all := mirror.Mention{Kind: "group", ID: "all"}
	for _, r := range first.Reactions {
		all.UserIDs = append(all.UserIDs, r.UserID)
	}
	first.Mentions = append(first.Mentions, all)
	return threadIn("th_1", version, comments...)
}

func manyRowsInThread(e *env, n int) {
	r := threadOf("room", "th_1")
	e.mirrorRoom("room", e.roomContent(`{}`))
	first, second := manyRows(n, 1), manyRows(n, 2)
	e.want("ApplyThread", e.mirrorThread("room", first), mirror.Applied{Changed: true})
	e.want("rows", e.tables(r), storedOf(first))
	e.want("ApplyThread of the same", e.mirrorThread("room", first), mirror.Applied{})

	// Readers find all of them, by what all have in common too.
	var want, got []string
	for _, c := range first.Comments {
		want = append(want, c.ID)
	}
	f := store.CommentFilter{Project: project, Room: "room", Mentioned: "bob", Limit: pageOf(n)}
	for {
		page, err := e.Comments(e.ctx(), f)
		e.must("Comments", err)
		for _, c := range page {
			got = append(got, c.ID)
			f.AfterRoom, f.AfterThread, f.AfterTime, f.AfterID = c.Room, c.Thread, c.CreateTime, c.ID
		}
		if len(page) < f.Limit {
			break
		}
	}
	e.want("comments that mention a user", got, want)

	second.Comments = slices.Delete(second.Comments, 1, n) // which hold a mention each
	e.want("ApplyThread of another version", e.mirrorThread("room", second), mirror.Applied{Changed: true})
	e.want("rows", e.tables(r), storedOf(second))
	e.must("Invalidate", e.Invalidate(e.ctx(), r))
	e.want("ApplyThread of one not trusted", e.mirrorThread("room", second), mirror.Applied{Changed: true})
	e.want("rows", e.tables(r), storedOf(second))

	content := e.roomContent(`{}`)
	content.CreateTime = born.Add(time.Hour)
	e.mirrorRoom("room", content)
	cleaned, err := e.CleanRoom(e.ctx(), roomOf("room"), 10)
	e.must("CleanRoom", err)
	e.want("CleanRoom", cleaned, 1)
	again := threadIn("th_1", 3)
	e.mirrorThread("room", again)
	e.want("rows of a thread of the same id", e.tables(r).parts(), storedOf(again).parts())
}

func manyUsersInRoom(e *env, n int) {
	const perConnection = 3
	e.mirrorRoom("room", e.roomContent(`{}`))
	users := make([]mirror.ActiveUser, n)
	sessions := make([]mirror.UserSession, n)
	connections := make([]int64, 0, n)
	for i := range users {
		users[i] = mirror.ActiveUser{
			ConnectionID: int64(i), UserID: fmt.Sprintf("user-%d", i), Info: fmt.Appendf(nil, `{"n":%d}`, i),
		}
		sessions[i] = e.session("room", fmt.Sprintf("msg_%06d", i), int64(i/perConnection))
		if i%perConnection == 0 {
			connections = append(connections, int64(i/perConnection))
		}
	}
	open := func() int {
		e.Helper()
		return len(e.sessions(store.SessionFilter{Room: "room", Open: true, Limit: pageOf(n)}))
	}
	e.upsertSessions(sessions...)
	of, err := e.SessionsOf(e.ctx(), userSessionsOf("room"), connections, perConnection)
	e.must("SessionsOf", err)
	e.want("sessions of connections", len(of), n)

	e.want("ApplyActiveUsers", e.mirrorUsers("room", users...), mirror.Applied{Changed: true})
	e.want("active users", e.activeUsers("room", false).Users, users)
	e.want("ApplyActiveUsers of the same", e.mirrorUsers("room", users...), mirror.Applied{})
	// None of them is there under its own name.
	e.pass(time.Hour)
	e.mirrorUsers("room", users...)
	e.want("open sessions", open(), 0)
	e.want("ApplyActiveUsers of some", e.mirrorUsers("room", users[n-1:]...), mirror.Applied{Changed: true})
	e.want("active users", e.activeUsers("room", false).Users, users[n-1:])

	for i := range sessions {
		sessions[i].ID = fmt.Sprintf("msg_again_%06d", i)
	}
	e.upsertSessions(sessions...)
	e.want("open sessions", open(), pageOf(n))
	e.deleteRoom("room")
	e.want("open sessions in a deleted room", open(), 0)
}

func manyEventsOfNotification(e *env, n int) {
	r := notificationOf("room", "in_1")
	rows := make([]mirror.Notification, n)
	for i := range rows {
		rows[i] = e.notification(r, fmt.Sprintf("msg_%06d", i))
	}
	for _, inbox := range []string{`{"id":"in_1"}`, `{"id":"in_1","readAt":"now"}`} {
		for i := range rows {
			rows[i].Inbox.Source = []byte(inbox)
		}
		fold := mirror.NotificationFold{FetchTime: e.now, Rows: rows, Inbox: rows[0].Inbox}
		e.want("ApplyNotification", e.applyNotification(r, fold), mirror.Applied{Changed: true})
		e.want("ApplyNotification of the same", e.applyNotification(r, fold), mirror.Applied{})
		var got []mirror.Notification
		f := store.NotificationFilter{Project: project, Room: "room", Limit: pageOf(n)}
		for {
			page := e.notifications(f)
			if got = append(got, page...); len(page) < f.Limit {
				break
			}
			last := page[len(page)-1]
			f.AfterTime, f.AfterID = last.CreateTime, last.EventID
		}
		e.want("notifications", rowsOf(got), rows)
	}
}

func manyMembersOfGroup(e *env, n int) {
	k := itemKits[mirror.KindGroup]
	members := make([]string, n)
	for i := range members {
		members[i] = fmt.Sprintf("user-%06d", i)
	}
	for version, members := range [][]string{members, members[n-1:]} {
		item := k.item("all", version, members...)
		e.want("ApplyItem", e.mirrorItem(k, item), mirror.Applied{Changed: true})
		e.wantStored(k, item)
	}
}

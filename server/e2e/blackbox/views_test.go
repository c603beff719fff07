package blackbox_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// The views show what the API lists, whatever was deleted and created again.
func TestViewsShowWhatTheAPILists(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		if e == dbtest.MySQL {
			mysqltest.Need(t, mysqltest.Views)
		}
		upstream := harness.NewFake(t)
		url := e.Database(t)
		s := harness.Start(t, harness.Options{DatabaseURL: url, UpstreamURL: upstream.URL})
		follow(t, s, upstream)
		const seed = 7
		l := life{upstream: upstream, chance: rand.New(rand.NewPCG(seed, seed))}
		for range 250 {
			must(t, l.change())
		}
		upstream.PutGroup("designers", "alice", "bob")
		upstream.PutGroup("gone", "carol")
		awaitIdle(t, s)

		db := e.Connect(t, url)
		compare := func() {
			t.Helper()
			for view, listed := range l.listed(t, s) {
				wantShown(t, db, view, listed)
			}
		}
		compare()
		statements := documented(t)
		if len(statements) < 3 {
			t.Fatalf("statements of the documents = %q; want several", statements)
		}
		for _, statement := range statements {
			if e == dbtest.MySQL && strings.ContainsAny(statement, ">@") {
				continue // Postgres' operators
			}
			rows := 0
			err := db.Each(t.Context(), statement, func(func(...any) error) error { rows++; return nil })
			if err != nil {
				t.Errorf("a documented statement fails: %v", err)
			}
			if statement != "select room_id, text from liveblocks_comments where user_id = 'alice'" {
				continue
			}
			of, err := s.Mirror(t).ListComments(t.Context(), &mirrorv1.ListCommentsRequest{AuthorUserId: "alice", PageSize: 500})
			if n := len(of.GetComments()); err != nil || rows != n || n == 0 {
				t.Errorf("%s = %d rows; want %d, %v", statement, rows, n, err)
			}
		}
		// Rows of earlier incarnations are hidden before they are deleted.
		for table, view := range map[string]string{
			"mirror_thread": "liveblocks_threads", "mirror_document": "liveblocks_ydocs",
			"mirror_active_user": "liveblocks_active_users",
		} {
			// The inner select lets MySQL read what it updates.
			n, err := db.Exec(t.Context(), "update "+table+" set epoch = epoch - 1 where room_id in "+
				"(select id from (select min(room_id) as id from "+view+") first_room)")
			if err != nil || n == 0 {
				t.Fatalf("rows of %s that are made older = %d, %v", table, n, err)
			}
		}
		compare()
	})
}

// documented returns the statements of the README and of DATABASE.md that read views.
func documented(t *testing.T) (statements []string) {
	t.Helper()
	for _, file := range []string{"../../../README.md", "../../../docs/DATABASE.md"} {
		text, err := os.ReadFile(file)
		must(t, err)
		for _, found := range regexp.MustCompile(`(?m)^ {4,6}(select [^;]*liveblocks_[^;]*);(.*)`).FindAllSubmatch(text, -1) {
			if !bytes.Contains(found[2], []byte("MySQL")) {
				statements = append(statements, string(found[1]))
			}
		}
	}
	return statements
}

// wantShown checks that a view shows what is listed.
func wantShown(t *testing.T, db *dbtest.DB, view string, listed list) {
	t.Helper()
	var shown []string
	columns := strings.Count(listed.columns, ",") + 1
	err := db.Each(t.Context(), "select "+listed.columns+" from "+view, func(scan func(dest ...any) error) error {
		row, dest := make([]string, columns), make([]any, columns)
		for i := range row {
			dest[i] = &row[i]
		}
		err := scan(dest...)
		shown = append(shown, strings.Join(row, " "))
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v", view, err)
	}
	slices.Sort(shown)
	slices.Sort(listed.rows)
	if len(shown) == 0 {
		t.Errorf("%s shows nothing", view)
	}
	if d := cmp.Diff(listed.rows, shown); d != "" {
		t.Errorf("%s (-API +view):\n%s", view, d)
	}
}

// life lets people work in a few rooms, at random.
type life struct {
	upstream *harness.Fake
	chance   *rand.Rand
}

// change makes one change. Much is deleted, and rooms come back under their ids.
func (l *life) change() error {
	room, user := fmt.Sprint("room ", l.chance.IntN(5)), []string{"alice", "bob", "carol"}[l.chance.IntN(3)]
	if _, there := l.upstream.RoomSource(room); !there {
		return l.upstream.CreateRoom(room, fake.RoomOptions{Storage: []byte(`{"liveblocksType":"LiveObject","data":{}}`)})
	}
	threads := l.upstream.Threads(room)
	act := l.chance.IntN(30)
	switch {
	case act == 0:
		return l.upstream.DeleteRoom(room)
	case act == 1:
		return l.upstream.RecreateRoom(room, fake.RoomOptions{})
	case act < 4:
		connection := int64(l.chance.IntN(3))
		if slices.ContainsFunc(l.upstream.Connections(room), func(c fake.Connection) bool { return c.ID == connection }) {
			return l.upstream.Leave(room, connection)
		}
		return l.upstream.Enter(room, fake.Connection{ID: connection, UserID: user})
	case act < 6:
		l.upstream.Notify(fake.Notification{UserID: user, RoomID: room, SubjectID: "th"})
		return nil
	case act < 11 || len(threads) == 0:
		first := fake.Comment{UserID: user, Text: "begun by " + user}
		_, err := l.upstream.CreateThread(room, fake.ThreadOptions{Comment: first})
		return err
	}
	thread := threads[l.chance.IntN(len(threads))]
	comments := l.upstream.Comments(room, thread)
	comment := comments[l.chance.IntN(len(comments))]
	switch {
	case act == 11:
		return l.upstream.DeleteThread(room, thread)
	case act < 15:
		return l.upstream.DeleteComment(room, thread, comment)
	case act < 17:
		return l.upstream.SetResolved(room, thread, l.chance.IntN(2) == 0, user)
	case act < 21:
		return l.upstream.AddReaction(room, thread, comment, "👍", user)
	default:
		_, err := l.upstream.CreateComment(room, thread, fake.Comment{UserID: user, Text: "written by " + user})
		return err
	}
}

// list is what the API lists, with the columns of the view that hold the same.
type list struct {
	columns string
	rows    []string
}

// listed asks for everything that has a view, by its name.
func (l *life) listed(t *testing.T, s *harness.Service) map[string]list {
	t.Helper()
	ctx, client := t.Context(), s.Mirror(t)
	const size = 500
	rooms, err := client.ListRooms(ctx, &mirrorv1.ListRoomsRequest{PageSize: size})
	documents, errDocuments := client.ListDocuments(ctx, &mirrorv1.ListDocumentsRequest{PageSize: size})
	threads, errThreads := client.ListThreads(ctx, &mirrorv1.ListThreadsRequest{PageSize: size})
	comments, errComments := client.ListComments(ctx, &mirrorv1.ListCommentsRequest{PageSize: size})
	sessions, errSessions := client.ListUserSessions(ctx, &mirrorv1.ListUserSessionsRequest{PageSize: size})
	notifications, errNotifications := client.ListNotifications(ctx, &mirrorv1.ListNotificationsRequest{PageSize: size})
	groups, errGroups := client.ListGroups(ctx, &mirrorv1.ListGroupsRequest{PageSize: size})
	must(t, errors.Join(err, errDocuments, errThreads, errComments, errSessions, errNotifications, errGroups))
	out := make(map[string]list)
	add := func(view, columns string, values ...any) {
		of := out[view]
		row := strings.TrimSuffix(fmt.Sprintln(values...), "\n")
		out[view] = list{columns, append(of.rows, row)}
	}
	flag := map[bool]int{true: 1}
	for _, r := range rooms.GetRooms() {
		add("liveblocks_rooms", "room_id, organization_id", r.GetRoomId(), r.GetOrganizationId())
		users, err := client.ListActiveUsers(ctx, &mirrorv1.ListActiveUsersRequest{RoomId: r.GetRoomId()})
		must(t, err)
		for _, u := range users.GetActiveUsers() {
			add("liveblocks_active_users", "room_id, connection_id, user_id", r.GetRoomId(), u.GetConnectionId(), u.GetUserId())
		}
	}
	for _, d := range documents.GetDocuments() {
		if d.GetKind() == mirrorv1.DocumentKind_DOCUMENT_KIND_YDOC {
			add("liveblocks_ydocs", "room_id, guid", d.GetRoomId(), d.GetGuid())
		} else {
			add("liveblocks_documents", "room_id", d.GetRoomId())
		}
	}
	for _, th := range threads.GetThreads() {
		add("liveblocks_threads", "room_id, thread_id, case when resolved then 1 else 0 end",
			th.GetRoomId(), th.GetThreadId(), flag[th.GetResolved()])
	}
	for _, c := range comments.GetComments() {
		add("liveblocks_comments", "room_id, thread_id, comment_id, user_id, text", c.GetRoomId(), c.GetThreadId(),
			c.GetCommentId(), c.GetUserId(), c.GetText())
		for _, r := range c.GetReactions() {
			add("liveblocks_reactions", "room_id, thread_id, comment_id, emoji, user_id", c.GetRoomId(), c.GetThreadId(),
				c.GetCommentId(), r.GetEmoji(), r.GetUserId())
		}
	}
	for _, u := range sessions.GetUserSessions() {
		add("liveblocks_user_sessions", "room_id, session_id, user_id", u.GetRoomId(), u.GetSessionId(), u.GetUserId())
	}
	for _, n := range notifications.GetNotifications() {
		add("liveblocks_notifications", "notification_id, event_id, channel, user_id", n.GetNotificationId(), n.GetEventId(),
			n.GetChannel(), n.GetUserId())
	}
	for _, g := range groups.GetGroups() {
		add("liveblocks_groups", "group_id, organization_id", g.GetGroupId(), g.GetOrganizationId())
		for _, m := range g.GetMembers() {
			add("liveblocks_group_members", "group_id, user_id", g.GetGroupId(), m.GetUserId())
		}
	}
	return out
}

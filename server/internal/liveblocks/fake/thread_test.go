package fake

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	noThread = `{"error":"RESOURCE_NOT_FOUND","message":"Thread not found"}`
	noRoom   = `{"error":"ROOM_NOT_FOUND","message":"Room with id \"r\" not found."}`
)

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	must(t, err)
	return b
}

func wantJSON(t *testing.T, what string, got []byte, want []byte) {
	t.Helper()
	var g, w any
	must(t, json.Unmarshal(got, &g))
	must(t, json.Unmarshal(want, &w))
	if diff := cmp.Diff(w, g); diff != "" {
		t.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}

// What the fake serves is what the published types say.
func TestThreadsAreAsPublished(t *testing.T) {
	t.Parallel()
	s := newFake(t, "mirror:storage")
	now := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)
	s.SetClock(func() time.Time { return now })
	var body struct {
		Comments []struct{ Body json.RawMessage }
	}
	want := readFile(t, "thread.json")
	must(t, json.Unmarshal(want, &body))

	id, err := s.CreateThread("mirror:storage", ThreadOptions{
		ID: "th_1", Metadata: map[string]any{"x": 10, "color": "blue", "open": true}, Visibility: "public",
		Comment: Comment{
			ID: "cm_1", UserID: "alice", Body: body.Comments[0].Body, Metadata: map[string]any{"priority": 1},
			Attachments: []Attachment{{ID: "at_1", Name: "plan.pdf", Size: 12345, MIMEType: "application/pdf"}},
		},
	})
	must(t, err)
	_, err = s.CreateComment("mirror:storage", id, Comment{ID: "cm_2", UserID: "bob", Text: "soon gone"})
	must(t, err)
	must(t, s.EditComment("mirror:storage", id, "cm_2", "sooner"))
	must(t, s.DeleteComment("mirror:storage", id, "cm_2"))
	must(t, s.AddReaction("mirror:storage", id, "cm_1", "👍", "bob"))
	must(t, s.AddReaction("mirror:storage", id, "cm_1", "👍", "carol"))
	must(t, s.AddReaction("mirror:storage", id, "cm_1", "🎉", "carol"))
	must(t, s.RemoveReaction("mirror:storage", id, "cm_1", "🎉", "carol"))
	_, got := do(t, s, "GET", "/v2/rooms/mirror:storage/threads/th_1", "")
	wantJSON(t, "thread", []byte(got), want)
	_, list := do(t, s, "GET", "/v2/rooms/mirror:storage/threads", "")
	if list != `{"data":[`+got+`]}` {
		t.Fatalf("list = %s; want the thread in it", list)
	}
	if source, ok := s.ThreadSource("mirror:storage", id); !ok || string(source) != got {
		t.Fatalf("ThreadSource = %s, %t; want what is served", source, ok)
	}

	s.SetFlatReactions(true)
	_, got = do(t, s, "GET", "/v2/rooms/mirror:storage/threads/th_1", "")
	var flat struct{ Comments []json.RawMessage }
	must(t, json.Unmarshal([]byte(got), &flat))
	wantJSON(t, "comment with flat reactions", flat.Comments[0], readFile(t, "comment-flat-reactions.json"))
}

func TestThreads(t *testing.T) {
	t.Parallel()
	s := newFake(t)
	read := func(path string) string {
		_, body := do(t, s, "GET", "/v2/rooms/r/threads"+path, "")
		return body
	}
	want := func(path, what string) {
		t.Helper()
		if got := read(path); got != what {
			t.Fatalf("GET threads%s = %s; want %s", path, got, what)
		}
	}
	want("", noRoom)
	want("/th", noRoom)
	must(t, s.CreateRoom("r", RoomOptions{}))
	want("", `{"data":[]}`)
	want("/th", noThread)
	one, err := s.CreateThread("r", ThreadOptions{Comment: Comment{UserID: "u", Text: `"<1>"`}})
	must(t, err)
	odd, err := s.CreateThread("r", ThreadOptions{ID: "a/b ?#%", Comment: Comment{}})
	must(t, err)
	first, _ := s.ThreadSource("r", one)
	second, _ := s.ThreadSource("r", odd)
	want("", fmt.Sprintf(`{"data":[%s,%s]}`, first, second))
	want("/"+one, string(first))
	want("/a%2Fb%20%3F%23%25", string(second))
	if !strings.Contains(string(first), `{"version":1,"content":[{"type":"paragraph","children":[{"text":"\"<1>\""}]}]}`) {
		t.Fatalf("thread = %s; want its text in a paragraph", first)
	}

	// A deleted thread leaves the room, and may come back.
	must(t, s.DeleteThread("r", odd))
	want("/a%2Fb%20%3F%23%25", noThread)
	want("", fmt.Sprintf(`{"data":[%s]}`, first))
	s.Script(Match{Room: "r", Thread: odd}, Stale(1))
	want("/a%2Fb%20%3F%23%25", string(second))
	s.Script(Match{Room: "r", Endpoint: EndpointThreads}, Stale(1))
	want("", fmt.Sprintf(`{"data":[%s,%s]}`, first, second))
	_, err = s.CreateThread("r", ThreadOptions{ID: odd})
	must(t, err)
	s.Script(Match{Thread: odd}, Stale(1))
	want("/a%2Fb%20%3F%23%25", noThread)

	// With the last comment the thread goes.
	reply, err := s.CreateComment("r", one, Comment{UserID: "v"})
	must(t, err)
	ids := s.Comments("r", one)
	must(t, s.DeleteComment("r", one, ids[0]))
	if diff := cmp.Diff([]string{reply}, s.Comments("r", one)); diff != "" {
		t.Fatalf("Comments (-want +got):\n%s", diff)
	}
	must(t, s.DeleteComment("r", one, reply))
	want("/"+one, noThread)
	if diff := cmp.Diff([]string{odd}, s.Threads("r")); diff != "" {
		t.Fatalf("Threads (-want +got):\n%s", diff)
	}

	// Bytes are served as they were given, and in the list too.
	must(t, s.SetThreadSource("r", odd, []byte(`{"id": "x", "n":1e2}`)))
	want("/a%2Fb%20%3F%23%25", `{"id": "x", "n":1e2}`)
	want("", `{"data":[{"id": "x", "n":1e2}]}`)

	// A new incarnation knows nothing of the threads of the one before, except when
	// what was before the change is asked for.
	must(t, s.RecreateRoom("r", RoomOptions{}))
	want("", `{"data":[]}`)
	want("/a%2Fb%20%3F%23%25", noThread)
	s.Script(Match{}, Stale(2))
	want("/a%2Fb%20%3F%23%25", `{"id": "x", "n":1e2}`)
	want("", `{"data":[{"id": "x", "n":1e2}]}`)
	must(t, s.DeleteRoom("r"))
	want("", noRoom)
	want("/th", noRoom)
}

func TestChangesOfMissingThreads(t *testing.T) {
	t.Parallel()
	s := newFake(t, "r")
	id, err := s.CreateThread("r", ThreadOptions{Comment: Comment{ID: "cm"}})
	must(t, err)
	_, inRoom := s.CreateThread("R", ThreadOptions{})
	_, inThread := s.CreateComment("r", "none", Comment{})
	for name, err := range map[string]error{
		"CreateComment":      inThread,
		"EditComment":        s.EditComment("r", id, "none", ""),
		"SetCommentBody":     s.SetCommentBody("r", id, "none", nil),
		"SetCommentMetadata": s.SetCommentMetadata("r", id, "none", nil, "u"),
		"AddReaction":        s.AddReaction("r", "none", "cm", "x", "u"),
		"RemoveReaction":     s.RemoveReaction("r", "none", "cm", "x", "u"),
		"DeleteComment":      s.DeleteComment("r", id, "none"),
		"SetThreadMetadata":  s.SetThreadMetadata("r", "none", nil, "u"),
		"SetResolved":        s.SetResolved("r", "none", true, "u"),
		"SetThreadSource":    s.SetThreadSource("r", "none", nil),
		"DeleteThread":       s.DeleteThread("r", "none"),
	} {
		if !errors.Is(err, ErrNoThread) {
			t.Errorf("%s = %v; want ErrNoThread", name, err)
		}
	}
	if !errors.Is(inRoom, ErrNoRoom) {
		t.Errorf("CreateThread = %v; want ErrNoRoom", inRoom)
	}
	if _, err := s.CreateThread("r", ThreadOptions{ID: id}); !errors.Is(err, ErrThreadExists) {
		t.Errorf("CreateThread = %v; want ErrThreadExists", err)
	}
	if _, err := s.CreateComment("r", id, Comment{ID: "cm"}); !errors.Is(err, ErrThreadExists) {
		t.Errorf("CreateComment = %v; want ErrThreadExists", err)
	}
	before, _ := s.ThreadSource("r", id)
	if err := s.SetCommentBody("r", id, "cm", []byte("{")); err == nil {
		t.Error("SetCommentBody of half an object = nil; want an error")
	}
	if after, _ := s.ThreadSource("r", id); string(after) != string(before) {
		t.Errorf("thread = %s; want it as before", after)
	}
	if s.Threads("R") != nil || s.Comments("r", "none") != nil || s.Connections("R") != nil {
		t.Error("something is in what is not there")
	}
}

// TestPayloads holds the webhooks to those the vendor's own types name.
func TestPayloads(t *testing.T) {
	t.Parallel()
	var vectors []struct{ Name, Body string }
	must(t, json.Unmarshal(readFile(t, "../../../ingest/webhook/testdata/signed-vectors.json"), &vectors))
	now := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)
	s := New(testKey)
	s.SetClock(func() time.Time { return now })
	got := make(map[string]string)
	s.OnEvent(func(ev Event) {
		name := ev.Type
		if name == NotificationSent {
			name += "-" + strings.TrimPrefix(strings.Replace(ev.NotificationKind, "$fileUpload", "custom", 1), "$")
		}
		got[name] = string(Payload(ev, "605a50b01a36d5ea7a2e9104"))
	})
	const room = "mirror:storage"
	must(t, s.CreateRoom(room, RoomOptions{}))
	must(t, s.SetStorage(room, nil))
	must(t, s.SetYdoc(room, "", nil))
	for _, v := range vectors { // who came and went is the vector's to say
		var body struct {
			Data struct {
				ConnectionID int64
				UserID       string
				UserInfo     json.RawMessage
			}
		}
		must(t, json.Unmarshal([]byte(v.Body), &body))
		c := Connection{ID: body.Data.ConnectionID, UserID: body.Data.UserID, Info: body.Data.UserInfo}
		switch v.Name {
		case UserEntered:
			must(t, s.Enter(room, c))
		case UserLeft:
			entered := got[UserEntered]
			if len(s.Connections(room)) > 0 {
				must(t, s.Leave(room, s.Connections(room)[0].ID))
			}
			must(t, s.Enter(room, c))
			must(t, s.Leave(room, c.ID))
			got[UserEntered] = entered
		}
	}
	_, err := s.CreateThread(room, ThreadOptions{ID: "th_1", Comment: Comment{ID: "cm_1", UserID: "alice"}})
	must(t, err)
	must(t, s.SetThreadMetadata(room, "th_1", nil, "alice"))
	must(t, s.SetResolved(room, "th_1", true, "alice"))
	must(t, s.SetResolved(room, "th_1", false, "alice"))
	must(t, s.EditComment(room, "th_1", "cm_1", "x"))
	must(t, s.SetCommentMetadata(room, "th_1", "cm_1", nil, "alice"))
	must(t, s.AddReaction(room, "th_1", "cm_1", "👍", "bob"))
	must(t, s.RemoveReaction(room, "th_1", "cm_1", "👍", "bob"))
	must(t, s.DeleteComment(room, "th_1", "cm_1"))
	made := now.Add(-30 * time.Minute)
	s.Notify(Notification{InboxID: "in_1", UserID: "alice", RoomID: room, SubjectID: "th_1", TriggerTime: made})
	s.Notify(Notification{
		InboxID: "in_1", UserID: "alice", Channel: "slack", Kind: "textMention", RoomID: room,
		SubjectID: "in_m1", TriggerTime: made,
	})
	s.Notify(Notification{
		InboxID: "in_1", UserID: "alice", Channel: "webPush", Kind: "$fileUpload", SubjectID: "file-1",
		TriggerTime: made,
	})
	must(t, s.DeleteRoom(room))
	if len(got) != len(vectors) {
		t.Errorf("payloads = %d; want %d", len(got), len(vectors))
	}
	for _, v := range vectors {
		if got[v.Name] == "" {
			t.Errorf("no payload of %s", v.Name)
			continue
		}
		var g, w struct {
			Type string
			Data map[string]any
		}
		must(t, json.Unmarshal([]byte(got[v.Name]), &g))
		must(t, json.Unmarshal([]byte(v.Body), &w))
		// How many are there is the vector's own story.
		delete(g.Data, "numActiveUsers")
		delete(w.Data, "numActiveUsers")
		if diff := cmp.Diff(w, g); diff != "" {
			t.Errorf("payload of %s (-want +got):\n%s", v.Name, diff)
		}
	}
}

func TestActiveUsers(t *testing.T) {
	t.Parallel()
	s := newFake(t)
	notFound := noRoom
	wantAnswer(t, s, "GET", "/v2/rooms/r/active_users", "", 404, notFound)
	must(t, s.CreateRoom("r", RoomOptions{}))
	wantAnswer(t, s, "GET", "/v2/rooms/r/active-users", "", 200, `{"data":[]}`)
	var counts []int
	s.OnEvent(func(ev Event) { counts = append(counts, ev.ActiveUsers) })
	must(t, s.Enter("r", Connection{ID: 2, UserID: "alice", Info: json.RawMessage(`{"name":"Alice","color":"#f00"}`)}))
	must(t, s.Enter("r", Connection{ID: 3}))
	wantAnswer(t, s, "GET", "/v2/rooms/r/active_users", "", 200,
		`{"data":[{"type":"user","connectionId":2,"id":"alice","info":{"name":"Alice","color":"#f00"}},{"type":"user","connectionId":3}]}`)
	if err := s.Enter("r", Connection{ID: 3}); err == nil {
		t.Error("Enter of a connection that is there = nil; want an error")
	}
	if err := s.Leave("r", 4); err == nil {
		t.Error("Leave of a connection that is not there = nil; want an error")
	}
	must(t, s.Leave("r", 2))
	if diff := cmp.Diff([]int{1, 2, 1}, counts); diff != "" {
		t.Errorf("numbers of active users (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Connection{{ID: 3}}, s.Connections("r")); diff != "" {
		t.Errorf("Connections (-want +got):\n%s", diff)
	}
	s.Script(Match{Endpoint: EndpointActiveUsers}, Stale(1))
	if _, got := do(t, s, "GET", "/v2/rooms/r/active_users", ""); !strings.Contains(got, "alice") {
		t.Errorf("stale answer = %s; want alice in it", got)
	}
	users, _ := s.ActiveUsers("r")
	wantAnswer(t, s, "GET", "/v2/rooms/r/active_users", "", 200, string(users))
	must(t, s.DeleteRoom("r"))
	wantAnswer(t, s, "GET", "/v2/rooms/r/active_users", "", 404, notFound)
}

func TestInbox(t *testing.T) {
	t.Parallel()
	s := newFake(t)
	notFound := `{"error":"RESOURCE_NOT_FOUND","message":"Inbox notification not found"}`
	path := "/v2/users/a%2Fb/inbox-notifications/in_x"
	wantAnswer(t, s, "GET", path, "", 404, notFound)
	n := s.Notify(Notification{InboxID: "in_x", UserID: "a/b", RoomID: "r", SubjectID: "th"})
	wantAnswer(t, s, "GET", path, "", 200,
		`{"id":"in_x","kind":"thread","notifiedAt":"2026-11-22T03:34:17.545Z","readAt":null,"roomId":"r","threadId":"th"}`)
	s.Read(n, testClock.Add(time.Second))
	unread, _ := s.Inbox("a/b", "in_x")
	wantAnswer(t, s, "GET", path, "", 200, string(unread))
	if !strings.Contains(string(unread), `"readAt":"2026-11-22T03:34:18.545Z"`) {
		t.Fatalf("Inbox = %s; want it read", unread)
	}
	s.Notify(n) // again, over another channel: what is there stays
	wantAnswer(t, s, "GET", path, "", 200, string(unread))
	wantAnswer(t, s, "GET", "/v2/users/b/inbox-notifications/in_x", "", 404, notFound)
	s.SetInbox("a/b", "in_x", nil)
	wantAnswer(t, s, "GET", path, "", 404, notFound)
	s.Script(Match{Endpoint: EndpointInbox}, Stale(1))
	wantAnswer(t, s, "GET", path, "", 200, string(unread))
	for _, path := range []string{
		"/v2/users//inbox-notifications", "/v2/users//inbox-notifications/x",
		"/v2/users/u/inbox-notifications/", "/v2/users/u/groups/x",
	} {
		wantAnswer(t, s, "GET", path, "", 404, `{"error":"Not Found"}`)
	}
	// The published shapes have these fields.
	var published struct{ Data []map[string]any }
	must(t, json.Unmarshal(readFile(t, "inbox-notifications.json"), &published))
	custom := s.Notify(Notification{UserID: "u", Kind: "$fileUpload", SubjectID: "file-1"})
	mention := s.Notify(Notification{
		UserID: "u", Kind: "textMention", RoomID: "r", SubjectID: "m1", TriggerTime: testClock.Add(time.Second),
	})
	for i, n := range []Notification{n, custom, mention} {
		var got map[string]any
		must(t, json.Unmarshal(n.render(nil), &got))
		for name := range got {
			if _, ok := published.Data[i][name]; !ok {
				t.Errorf("notification %d has a field %s, which is not published", i, name)
			}
		}
		for name := range published.Data[i] {
			if _, ok := got[name]; !ok && name != "organizationId" {
				t.Errorf("notification %d lacks the field %s, which is published", i, name)
			}
		}
	}

	// The list has the latest first, in pages.
	s.Read(custom, testClock)
	read, _ := s.Inbox("u", custom.InboxID)
	first, _ := s.Inbox("u", mention.InboxID)
	list := "/v2/users/u/inbox-notifications"
	page := func(cursor string, items ...[]byte) string { return string(pageAnswer(cursor, items).body) }
	wantAnswer(t, s, "GET", list, "", 200, page("", first, read))
	wantAnswer(t, s, "GET", list+"?limit=1", "", 200, page(mention.InboxID, first))
	wantAnswer(t, s, "GET", list+"?limit=1&startingAfter="+mention.InboxID, "", 200, page("", read))
	wantAnswer(t, s, "GET", list+"?query=unread:true", "", 200, page("", first))
	wantAnswer(t, s, "GET", list+"?query=unread:false", "", 200, page("", read))
	wantAnswer(t, s, "GET", "/v2/users/nobody/inbox-notifications", "", 200, page(""))
	for _, query := range []string{"limit=51", "limit=0", "query=unread"} {
		if status, body := do(t, s, "GET", list+"?"+query, ""); status != 422 {
			t.Errorf("%s = %d %s; want 422", query, status, body)
		}
	}
}

func TestRename(t *testing.T) {
	t.Parallel()
	s := newFake(t, "other", "r", "last")
	must(t, s.SetStorage("r", []byte("1")))
	_, err := s.CreateThread("r", ThreadOptions{ID: "th", Comment: Comment{UserID: "u"}})
	must(t, err)
	events := 0
	s.OnEvent(func(Event) { events++ })
	if status, _ := do(t, s, "POST", "/v2/rooms/r/update-room-id", `{"newRoomId":"other"}`); status != 409 {
		t.Fatalf("rename to what is there = %d; want 409", status)
	}
	if status, _ := do(t, s, "POST", "/v2/rooms/r/update-room-id", `{}`); status != 422 {
		t.Fatalf("rename to nothing = %d; want 422", status)
	}
	wantAnswer(t, s, "POST", "/v2/rooms/r/update-room-id", `{"newRoomId":"new"}`, 200,
		strings.Replace(emptyRoom, `"id":"r"`, `"id":"new"`, 1))
	wantAnswer(t, s, "POST", "/v2/rooms/r/update-room-id", `{"newRoomId":"new"}`, 404, noRoom)
	for _, path := range []string{"", "/storage", "/ydoc-binary", "/threads", "/threads/th", "/active_users"} {
		wantAnswer(t, s, "GET", "/v2/rooms/r"+path, "", 404, noRoom)
		if status, _ := do(t, s, "GET", "/v2/rooms/new"+path, ""); status != 200 {
			t.Errorf("GET of the renamed room's %q = %d; want 200", path, status)
		}
	}
	wantAnswer(t, s, "GET", "/v2/rooms/new/storage", "", 200, "1")
	if source, ok := s.ThreadSource("new", "th"); !ok || !strings.Contains(string(source), `"roomId":"new"`) {
		t.Errorf("thread = %s; want it in the renamed room", source)
	}
	if diff := cmp.Diff([]string{"last", "new", "other"}, s.Rooms()); diff != "" {
		t.Errorf("Rooms (-want +got):\n%s", diff)
	}
	if events != 0 {
		t.Errorf("events = %d; want 0", events)
	}
	must(t, s.CreateRoom("r", RoomOptions{})) // the old id is free
	must(t, s.SetYdoc("r", "", []byte("2")))
	must(t, s.DeleteRoom("new"))
	if diff := cmp.Diff([]string{"r", "last", "other"}, s.Rooms()); diff != "" {
		t.Errorf("Rooms (-want +got):\n%s", diff)
	}
}

// A key of another project sees nothing, and nothing is lost by it.
func TestForeignKey(t *testing.T) {
	t.Parallel()
	s := newFake(t, "r")
	_, err := s.CreateThread("r", ThreadOptions{ID: "th"})
	must(t, err)
	s.SetForeign(true)
	wantAnswer(t, s, "GET", "/v2/rooms?limit=100", "", 200, `{"nextCursor":null,"data":[]}`)
	for _, path := range []string{"", "/storage", "/ydoc-binary", "/threads", "/threads/th", "/active_users"} {
		wantAnswer(t, s, "GET", "/v2/rooms/r"+path, "", 404, noRoom)
	}
	s.SetForeign(false)
	wantAnswer(t, s, "GET", "/v2/rooms/r", "", 200, emptyRoom)
}

// Trouble in a listing can be had on any page of it.
func TestScriptsByPage(t *testing.T) {
	t.Parallel()
	s := newFake(t, "a", "b", "c", "d", "e")
	s.Script(Match{Endpoint: EndpointListRooms, Page: 2}, Status(500, "X").Times(2))
	ids, next := page(t, s, "limit=2")
	if fmt.Sprint(ids) != "[e d]" {
		t.Fatalf("first page = %v; want e and d", ids)
	}
	for range 2 {
		if status, _ := do(t, s, "GET", "/v2/rooms?limit=2&"+next, ""); status != 500 {
			t.Fatalf("second page = %d; want 500", status)
		}
	}
	ids, next = page(t, s, "limit=2&"+next)
	if fmt.Sprint(ids) != "[c b]" {
		t.Fatalf("second page = %v; want c and b", ids)
	}
	s.Script(Match{Page: 3}, Answer(200, "application/json", []byte(`{"data":[`)))
	wantAnswer(t, s, "GET", "/v2/rooms?limit=2&"+next, "", 200, `{"data":[`)
	if ids, next = page(t, s, "limit=2&"+next); fmt.Sprint(ids) != "[a]" || next != "" {
		t.Fatalf("third page = %v, %q; want a and no more", ids, next)
	}
}

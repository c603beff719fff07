package blackbox_test

// This file belongs to version a1887a4, whose binary fills a database with rows of
// every kind and says how it serves them. README.md says how to run it there.

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	neturl "net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness/dbtest"
	lb "github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/liveblockstest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/yjs"
)

func TestMakeUpgrade(t *testing.T) {
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Empty(t)
		s, fake := fill(t, url)
		db := e.Connect(t, url)

		// Work is left undone: nothing is answered any more, and the process dies.
		fake.SetDelay(func(lb.Call) lb.Delay { return lb.Delay{Before: time.Hour} })
		must(t, fake.SetYdoc(upgradeRoom, "", file(t, "yjs/testdata/ydoc-yjs-map-binary.bin")))
		fake.Notify(lb.Notification{InboxID: "in_late", UserID: "erin", RoomID: upgradeRoom, SubjectID: "th_1"})
		awaitRunning(t, s)
		s.Kill()
		wantRows(t, e, db)
		pack(t, upgradeFile(e, "sql"), dump(t, e, url))

		time.Sleep(4 * time.Second) // the leases end
		s = startMute(t, url)
		awaitRunning(t, s)
		answers, err := json.MarshalIndent(observe(t, s, db, reads(t, s)), "", " ")
		must(t, err)
		for _, there := range []string{
			"SESSION_END_CAUSE_ROOM_DELETED", "SESSION_END_CAUSE_ABSENT",
			"TASK_STATE_FAILED", "TASK_STATE_WAITING", "TASK_STATE_RUNNING",
			"EVENT_OUTCOME_UNKNOWN_TYPE", "EVENT_OUTCOME_MALFORMED", "EVENT_OUTCOME_ID_INVALID",
			"EVENT_OUTCOME_FOREIGN_PROJECT", "missingSinceTime", "deleteTime",
		} {
			if !strings.Contains(string(answers), there) {
				t.Errorf("no answer has %s", there)
			}
		}
		pack(t, upgradeFile(e, "json"), answers)
	})
}

// file is test data of a decoder.
func file(t *testing.T, path string) []byte {
	t.Helper()
	return mustRead(t, filepath.Join("..", "..", "internal", filepath.FromSlash(path)))
}

// source is a time at Liveblocks.
func source(seconds int) time.Time {
	return time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC).Add(time.Duration(seconds) * time.Second)
}

// fill starts the service on a database without tables and lets things happen.
func fill(t *testing.T, url string) (*harness.Service, *harness.Fake) {
	t.Helper()
	fake := harness.NewFake(t)
	var clock struct {
		sync.Mutex
		seconds int
	}
	fake.SetClock(func() time.Time {
		clock.Lock()
		defer clock.Unlock()
		clock.seconds++
		return source(clock.seconds)
	})
	s := harness.Start(t, harness.Options{DatabaseURL: url, UpstreamURL: fake.URL, Env: map[string]string{
		"MIRROR_MAX_ATTEMPTS": "3", "MIRROR_MAX_DATA": "100000", "MIRROR_SETTLE": "50ms", "MIRROR_BACKOFF_MAX": "100ms",
	}})
	var events struct {
		sync.Mutex
		n int
	}
	sendAs := func(id string, body []byte) {
		if status := s.Post(t, harness.SignAs(t, id, time.Now(), body)); status != http.StatusOK {
			t.Fatalf("webhook %.200s answered %d; want 200", body, status)
		}
	}
	send := func(body string) {
		events.Lock()
		defer events.Unlock()
		events.n++
		sendAs(fmt.Sprintf("msg_%04d", events.n), []byte(body))
	}
	tell := func(ev lb.Event) { send(string(lb.Payload(ev, harness.LiveblocksProject))) }
	fake.OnEvent(tell)
	rest := func() {
		t.Helper()
		harness.Eventually(t, patience, func() error {
			for _, state := range []string{"PENDING", "RUNNING"} {
				if _, _, body := s.Get(t, "/v1/admin/tasks?state=TASK_STATE_"+state); strings.Contains(string(body), "taskId") {
					return fmt.Errorf("tasks are left: %s", body)
				}
			}
			return nil
		})
	}

	// Documents of every kind.
	must(t, fake.CreateRoom(upgradeRoom, lb.RoomOptions{
		Metadata:           map[string]any{"name": "Böard \"1\"", "tags": []string{"a", "b"}},
		GroupsAccesses:     map[string][]string{"design": {"room:read", "room:presence:write"}},
		UsersAccesses:      map[string][]string{"alice": {"room:write"}},
		LastConnectionTime: source(-60), OrganizationID: "acme",
		Storage: file(t, "lson/testdata/storage-storage-plainlson.json"),
		Ydoc:    file(t, "yjs/testdata/editor-tiptap-update.bin"),
	}))
	must(t, fake.CreateRoom("flow/diagram é", lb.RoomOptions{
		Storage: file(t, "lson/testdata/storage-flow-plainlson.json"),
	}))
	must(t, fake.CreateRoom("notes", lb.RoomOptions{
		Storage: file(t, "lson/testdata/storage-tiptap-storage-plainlson.json"),
		Ydoc:    file(t, "yjs/testdata/editor-lexical-update.bin"),
	}))
	outer := file(t, "yjs/testdata/ydoc-yjs-subdoc-binary.bin")
	must(t, fake.CreateRoom("subdocuments", lb.RoomOptions{Ydoc: outer}))
	doc, err := yjs.Decode(outer, yjs.Limits{})
	must(t, err)
	for _, guid := range doc.Subdocuments() {
		must(t, fake.SetYdoc("subdocuments", guid, file(t, "yjs/testdata/ydoc-subdoc-guid-binary.bin")))
	}
	must(t, fake.CreateRoom("large", lb.RoomOptions{Storage: notes(150_000)}))
	must(t, fake.CreateRoom("odd", lb.RoomOptions{Storage: storage(`"x\u0000y"`), Ydoc: []byte("\x01\x02\x03")}))
	must(t, fake.CreateRoom("odd numbers", lb.RoomOptions{
		Storage: storage(`[9007199254740993,-0.10,1e3,"\ud83d\ude00","é\/",{"a":1,"a":2}]`),
		Ydoc:    file(t, "yjs/testdata/ydoc-yjs-mixed-binary.bin"),
	}))
	must(t, fake.SetRoomSource("odd", []byte(` {"type":"room","id":"odd","createdAt":"`+source(7).Format(time.RFC3339Nano)+
		`","metadata":{"s":"\ud800","n":9007199254740993,"n":2,"l":["x",null]},"defaultAccesses":[]} `)))
	rest()

	// Threads.
	const body = `{"version":1,"content":[{"type":"paragraph","children":[{"text":"Look, "},` +
		`{"type":"mention","kind":"user","id":"bob"},{"text":" and "},` +
		`{"type":"mention","kind":"group","id":"design","userIds":["eve","bob"]},{"text":": "},` +
		`{"text":"bold","bold":true},{"type":"link","url":"https://example.org/?a=1&b=2","text":"a link"}]}]}`
	made(t)(fake.CreateThread(upgradeRoom, lb.ThreadOptions{
		ID: "th_1", Visibility: "private", Metadata: map[string]any{"color": "blue", "x": 1.5, "open": true, "quote": `"\é`},
		Comment: lb.Comment{
			ID: "cm_1", UserID: "alice", Body: json.RawMessage(body), Metadata: map[string]any{"priority": 1},
			Attachments: []lb.Attachment{
				{ID: "at_1", Name: "plan é.pdf", Size: 1 << 40, MIMEType: "application/pdf"},
			},
		},
	}))
	made(t)(fake.CreateComment(upgradeRoom, "th_1", lb.Comment{ID: "cm_2", UserID: "bob", Text: "yes\nand no"}))
	made(t)(fake.CreateComment(upgradeRoom, "th_1", lb.Comment{ID: "cm_3", UserID: "bob", Text: "soon gone"}))
	must(t, fake.EditComment(upgradeRoom, "th_1", "cm_2", "edited"))
	must(t, fake.DeleteComment(upgradeRoom, "th_1", "cm_3"))
	must(t, fake.AddReaction(upgradeRoom, "th_1", "cm_1", "👍", "bob"))
	must(t, fake.AddReaction(upgradeRoom, "th_1", "cm_1", "👍", "eve"))
	must(t, fake.AddReaction(upgradeRoom, "th_1", "cm_2", "👩‍👩‍👧", "alice"))
	for _, id := range []string{"th_2", "th_3", "th_deleted"} {
		made(t)(fake.CreateThread(upgradeRoom, lb.ThreadOptions{
			ID: id, Metadata: map[string]any{"color": "red"},
			Comment: lb.Comment{ID: "cm_of_" + id, UserID: "carol", Text: "hello"},
		}))
	}
	must(t, fake.SetResolved(upgradeRoom, "th_2", true, "alice"))
	must(t, fake.DeleteThread(upgradeRoom, "th_deleted"))
	made(t)(fake.CreateThread("odd", lb.ThreadOptions{ID: "th_odd", Comment: lb.Comment{ID: "cm_odd", Text: "odd"}}))
	must(t, fake.SetThreadSource("odd", "th_odd", []byte(`{"type":"thread","id":"th_odd","roomId":"odd",`+
		`"createdAt":"2026-01-02T03:04:05.678Z","metadata":{"a":"\ud800","n":1.0},`+
		`"comments":[{"id":"cm_odd","userId":"alice","metadata":{"k":"v"},`+
		`"body":{"content":[{"type":"paragraph","children":[{"text":"x\u0000y"}]}]}},{"id":7}]}`)))
	tell(lb.Event{Type: lb.ThreadMetadataUpdated, RoomID: "odd", ThreadID: "th_odd", Time: source(200)})
	rest()

	// Rooms that end, and one that comes back.
	for _, room := range []string{"gone", "again"} {
		must(t, fake.CreateRoom(room, lb.RoomOptions{Storage: storage("1")}))
		made(t)(fake.CreateThread(room, lb.ThreadOptions{
			ID: "th_of_" + room, Comment: lb.Comment{ID: "cm_of_" + room, UserID: "alice", Text: "before"},
		}))
		must(t, fake.Enter(room, lb.Connection{ID: 9, UserID: "dave", Info: json.RawMessage(`{"name":"Dave"}`)}))
		rest()
	}
	must(t, fake.DeleteRoom("gone"))
	must(t, fake.RecreateRoom("again", lb.RoomOptions{Storage: storage("2")}))
	rest()

	// Who is there, and who was.
	enter := func(id int64, user, info string) {
		t.Helper()
		must(t, fake.Enter(upgradeRoom, lb.Connection{ID: id, UserID: user, Info: json.RawMessage(info)}))
	}
	enter(1, "alice", `{"name":"Alice","color":"#f00"}`)
	must(t, fake.Enter(upgradeRoom, lb.Connection{ID: 2}))
	enter(3, "carol", `"\ud800"`)
	enter(4, "bob", `{}`)
	must(t, fake.Leave(upgradeRoom, 4))
	fake.OnEvent(nil) // the webhook is lost
	must(t, fake.Leave(upgradeRoom, 3))
	fake.OnEvent(tell)
	enter(5, "eve", `{"name":"Eve"}`)
	rest() // after the interval of active users

	// Notifications.
	thread := lb.Notification{InboxID: "in_1", UserID: "bob", RoomID: upgradeRoom, SubjectID: "th_1"}
	first := fake.Notify(thread)
	rest()
	fake.Read(first, source(500))
	thread.Channel = "slack"
	fake.Notify(thread)
	fake.Notify(lb.Notification{
		InboxID: "in_2", UserID: "alice", RoomID: "notes", Kind: "textMention", SubjectID: "me_1", Channel: "teams",
	})
	fake.Notify(lb.Notification{
		InboxID: "in_3", UserID: "alice", Kind: "$fileUpload", SubjectID: "file-1", Channel: "webPush",
	})
	tell(lb.Event{
		Type: lb.NotificationSent, RoomID: upgradeRoom, Time: source(600), UserID: "carol", Channel: "email",
		NotificationKind: "thread", ThreadID: "th_2", InboxNotificationID: "in_not_there", TriggerTime: source(601),
	})
	const project = `"projectId":"` + harness.LiveblocksProject + `"`
	send(`{"type":"notification","data":{` + project +
		`,"roomId":null,"kind":"$plain","userId":"alice","createdAt":"2026-01-02T03:04:05Z"}}`)
	rest()

	// What fails, what waits, and events that lead to nothing.
	denied := lb.Status(http.StatusForbidden, "UNAUTHORIZED_ROOM_ACCESS").Always()
	fake.Script(lb.Match{Room: "refused", Endpoint: lb.EndpointStorage}, denied)
	fake.Script(lb.Match{Room: "refused", Endpoint: lb.EndpointYdoc}, lb.Garbage().Always())
	must(t, fake.CreateRoom("refused", lb.RoomOptions{}))
	fake.Script(lb.Match{Room: "sealed", Endpoint: lb.EndpointRoom}, denied)
	for _, room := range []string{"nowhere", "sealed"} {
		tell(lb.Event{Type: lb.StorageUpdated, RoomID: room, Time: source(700)})
	}
	send(`[]`)
	send(`{"type":"groupCreated","data":{"groupId":"g"}}`)
	fake.OnEvent(nil)
	must(t, fake.CreateRoom("painted", lb.RoomOptions{Storage: storage(`"blue"`)}))
	fake.OnEvent(tell)
	send(`{"data":{"roomId":"painted",` + project + `},"type":"roomPainted"}`)
	send(`{"type":"storageUpdated","data":{"roomId":"` + strings.Repeat("r", 513) + `",` + project + `}}`)
	send(`{"type":"storageUpdated","data":{"roomId":"notes","projectId":"another"}}`)
	for range 2 {
		sendAs("msg_twice", []byte(`{"type":"ydocUpdated","data":{"roomId":"notes",`+project+`}}`))
	}
	rest()

	if _, err := s.Admin(t).StartBackfill(t.Context(), &mirrorv1.StartBackfillRequest{}); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, patience, func() error {
		got, err := s.Admin(t).GetBackfill(t.Context(), &mirrorv1.GetBackfillRequest{})
		if err != nil || got.GetSweep().GetState() != mirrorv1.SweepState_SWEEP_STATE_DONE {
			return fmt.Errorf("backfill: %v, %w", got, err)
		}
		return nil
	})
	rest()
	return s, fake
}

// reads are what is asked for: [observe].
func reads(t *testing.T, s *harness.Service) []string {
	t.Helper()
	rooms := []string{
		upgradeRoom, "flow/diagram é", "notes", "subdocuments", "large", "odd", "odd numbers", "gone", "again", "refused",
		"nowhere", "sealed", "painted",
	}
	paths := []string{
		"/v1/rooms", "/v1/rooms?pageSize=3", "/v1/rooms?showDeleted=true", "/v1/rooms?view=ROOM_VIEW_FULL",
		"/v1/rooms?roomIdPrefix=o&pageSize=1",
		"/v1/documents", "/v1/documents?pageSize=4", "/v1/documents?kind=DOCUMENT_KIND_YDOC",
		"/v1/threads", "/v1/threads?pageSize=2", "/v1/threads?showDeleted=true", "/v1/threads?resolved=true",
		"/v1/threads?metadata[color]=red", "/v1/threads?metadata[x]=1.5", "/v1/threads?authorUserId=bob",
		"/v1/threads?mentionedUserId=eve", "/v1/threads?updatedSinceTime=" + source(140).Format(time.RFC3339),
		"/v1/comments", "/v1/comments?pageSize=2", "/v1/comments?showDeleted=true", "/v1/comments?authorUserId=carol",
		"/v1/comments?mentionedUserId=bob",
		"/v1/user-sessions", "/v1/user-sessions?pageSize=2", "/v1/user-sessions?openOnly=true",
		"/v1/user-sessions?userId=dave",
		"/v1/notifications", "/v1/notifications?pageSize=2", "/v1/notifications?userId=bob",
		"/v1/notifications?kind=textMention", "/v1/notifications?channel=webPush", "/v1/notifications?threadId=th_1",
		"/v1/notifications?roomId=notes",
		"/v1/events", "/v1/events?pageSize=20", "/v1/events?view=EVENT_VIEW_FULL&roomId=notes",
		"/v1/events?type=userEntered", "/v1/events?userId=alice", "/v1/events/msg_0001", "/v1/events/msg_twice",
		"/v1/events/msg_none",
		"/v1/admin/status", "/v1/admin/backfill", "/v1/admin/tasks", "/v1/admin/tasks?pageSize=2",
		"/v1/admin/tasks?state=TASK_STATE_FAILED", "/v1/admin/tasks?state=TASK_STATE_WAITING",
		"/v1/admin/tasks?state=TASK_STATE_DONE", "/v1/admin/tasks?state=TASK_STATE_DONE&pageSize=7",
		"/v1/admin/tasks?state=TASK_STATE_DONE&roomId=" + upgradeRoom,
	}
	for _, room := range rooms {
		for _, rest := range []string{
			"", "?showDeleted=true", "/storage?view=DOCUMENT_VIEW_BASIC", "/storage:read", "/storage:read?format=plain-lson",
			"/storage:read?format=text", "/storage:read?format=editor", "/ydoc?view=DOCUMENT_VIEW_BASIC", "/ydoc:read",
			"/ydoc:read?format=binary", "/ydoc:read?format=text", "/ydoc:read?format=editor",
			"/threads", "/active-users", "/user-sessions", "/flows",
		} {
			paths = append(paths, roomPath(room, rest))
		}
	}
	for _, room := range []string{"notes", "odd numbers", "gone"} {
		paths = append(paths, roomPath(room, "/storage"), roomPath(room, "/ydoc?format=DOCUMENT_FORMAT_TEXT"),
			roomPath(room, "/storage?showDeleted=true"), roomPath(room, "/threads?showDeleted=true"))
	}
	for _, rest := range []string{
		"", "?view=THREAD_VIEW_BASIC", "?view=THREAD_VIEW_SOURCE", "/comments", "/comments?showDeleted=true",
		"/comments/cm_1", "/comments/cm_3",
	} {
		paths = append(paths, threadPath(upgradeRoom, "th_1", rest))
	}
	paths = append(paths,
		threadPath("odd", "th_odd", ""), threadPath("odd", "th_odd", "?view=THREAD_VIEW_SOURCE"),
		threadPath(upgradeRoom, "th_deleted", ""), threadPath(upgradeRoom, "th_deleted", "?showDeleted=true"),
		threadPath("gone", "th_of_gone", "?showDeleted=true"), threadPath("again", "th_of_again", ""),
		roomPath("flow/diagram é", "/flows/flow"), roomPath("flow/diagram é", "/flows/none"),
	)
	inside, err := s.Mirror(t).ListDocuments(t.Context(), &mirrorv1.ListDocumentsRequest{RoomIdPrefix: "subdocuments"})
	must(t, err)
	for _, d := range inside.GetDocuments() {
		if d.GetGuid() != "" {
			paths = append(paths, roomPath("subdocuments", "/ydoc:read?guid="+neturl.QueryEscape(d.GetGuid())))
		}
	}
	for i := range paths {
		paths[i] = "GET " + paths[i]
	}
	return append(paths,
		"select * from liveblocks_documents order by room_id",
		"select * from liveblocks_flow_nodes where room_id like 'flow%' order by node_id",
		"select * from liveblocks_flow_edges where room_id like 'flow%' order by edge_id",
		"select * from mirror_change order by bucket, n",
		"select room_id, epoch, data, data_problem, delete_time from mirror_room order by room_id",
		"select room_id, kind, resource_id, epoch, size, derive_version, data, data_problem, plain_text "+
			"from mirror_document order by room_id, kind, resource_id",
		"select room_id, thread_id, epoch, metadata, metadata_text, comment_count, data_problem, delete_time "+
			"from mirror_thread order by room_id, thread_id",
		"select room_id, comment_id, user_id, body, plain_text, markdown, metadata, delete_time "+
			"from mirror_comment order by room_id, comment_id",
		"select room_id, notification_id, event_id, inbox, read_time "+
			"from mirror_notification order by room_id, notification_id, event_id",
	)
}

// dump is a database as plain SQL.
func dump(t *testing.T, e *dbtest.Engine, url string) []byte {
	t.Helper()
	var args, env []string
	name := ""
	if e == dbtest.Postgres {
		args = []string{"pg_dump", "--inserts", "--no-owner", "--no-privileges", "--no-toast-compression", "--dbname", url}
	} else {
		u, err := neturl.Parse(url)
		must(t, err)
		password, _ := u.User.Password()
		name, env = strings.TrimPrefix(u.Path, "/"), []string{"MYSQL_PWD=" + password}
		args = []string{
			"mariadb-dump", "--compact", "--skip-extended-insert", "--hex-blob", "--no-tablespaces", "--skip-tz-utc",
			"--single-transaction", "--default-character-set=utf8mb4",
			"--host", u.Hostname(), "--port", u.Port(), "--user", u.User.Username(), name,
		}
	}
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("dump: %v: %s", err, stderr.Bytes())
	}
	// Comments, what sets up a session, who made a view, and the name of the database
	// in it are not taken over.
	leave := regexp.MustCompile(`^(--|SET |\\|SELECT pg_catalog\.set_config` +
		`|/\*M?![0-9]+(\\-)? (SET|enable) |/\*!50013 DEFINER)`)
	var text strings.Builder
	quoted := false // a string of PostgreSQL can be in several lines
	for line := range strings.Lines(string(out)) {
		if !quoted && (line == "\n" || leave.MatchString(line)) {
			continue
		}
		text.WriteString(strings.ReplaceAll(line, "`"+name+"`.", ""))
		quoted = e == dbtest.Postgres && quoted != (strings.Count(line, "'")%2 == 1)
		if quoted && strings.HasSuffix(line, ";\n") {
			t.Fatalf("the dump cannot be split: %.200s", line)
		}
	}
	return []byte(text.String())
}

func pack(t *testing.T, path string, content []byte) {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	must(t, err)
	_, err = w.Write(content)
	must(t, errors.Join(err, w.Close()))
	must(t, os.WriteFile(path, b.Bytes(), 0o600))
}

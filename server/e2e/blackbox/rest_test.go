package blackbox_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// runScript runs a script in the folder of the real packages, and returns what it prints.
func runScript(t *testing.T, script string, stdin []byte, env ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", script)
	cmd.Dir = lbDir
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("%s (tools/testdeps.sh installs what it needs): %v\n%s%s", script, err, out, &stderr)
	}
	return out
}

// compared is what a comparison of reads has found.
type compared struct {
	Succeeded int
	Warnings  []string
	// Sources are where the mirror's answers to each method came from.
	Sources map[string]string
}

// compareReads makes reads with the real package against Liveblocks and the mirror, which
// must have the same results.
func compareReads(t *testing.T, s *harness.Service, upstream, secret, key string, reads [][]any, env ...string) (
	found compared,
) {
	t.Helper()
	plan, err := json.Marshal(reads)
	if err != nil {
		t.Fatal(err)
	}
	out := runScript(t, "rest.mjs", plan, append(env, "LIVEBLOCKS_BASE_URL="+upstream, "LIVEBLOCKS_KEY="+secret,
		"MIRROR_URL="+s.URL(""), "MIRROR_KEY="+key)...)
	if err := json.Unmarshal(out, &found); err != nil {
		t.Fatalf("rest.mjs wrote %q: %v", out, err)
	}
	return found
}

// from checks where the answers came from: those to the methods passed from Liveblocks, all
// others from the mirror.
func (c compared) from(t *testing.T, passed [][]any) {
	t.Helper()
	for method, source := range c.Sources {
		want := "mirror"
		if slices.ContainsFunc(passed, func(read []any) bool { return read[0] == method }) {
			want = "liveblocks"
		}
		if source != want {
			t.Errorf("answers to %s came from %s; want %s", method, source, want)
		}
	}
}

// object is what most methods take.
type object = map[string]any

// passedReads are a read with each method that is passed on.
func passedReads(room string) [][]any {
	thread := object{"roomId": room, "threadId": "th_a"}
	feed := object{"roomId": room, "feedId": "feed /%"}
	source := object{"copilotId": "copilot /%", "knowledgeSourceId": "source /%"}
	return [][]any{
		{"getInboxNotifications", object{"userId": "alice /%"}},
		{"iterInboxNotifications", object{"userId": "alice /%"}},
		{"getThreadSubscriptions", thread},
		{"getRoomSubscriptionSettings", object{"roomId": room, "userId": "alice /%"}},
		{"getUserRoomSubscriptionSettings", object{"userId": "alice /%"}},
		{"getNotificationSettings", object{"userId": "alice /%"}},
		{"getAttachment", object{"roomId": room, "attachmentId": "at /%"}},
		{"getFileUrl", object{"roomId": room, "file": "file /%"}},
		{"getVersionHistory", room},
		{"getYjsVersion", object{"roomId": room, "versionId": "version /%"}},
		{"getFeeds", object{"roomId": room}},
		{"getFeed", feed},
		{"getFeedMessages", feed},
		{"getAiCopilots"},
		{"getAiCopilot", "copilot /%"},
		{"getKnowledgeSources", source},
		{"getKnowledgeSource", source},
		{"getFileKnowledgeSourceMarkdown", source},
		{"getWebKnowledgeSourceLinks", source},
	}
}

// roomReads are reads of lists of rooms. What the dev server does not filter by, which is all but
// the organization, the script does.
func roomReads() [][]any {
	var reads [][]any
	for _, params := range []object{
		{},
		{"limit": 7},
		{"limit": 1},
		{"limit": 100},
		{"query": ""},
		{"query": `roomId^"page "`},
		{"query": `roomId^'a/b:c?d#e%'`},
		{"query": `roomId^"ro"`, "limit": 2},
		{"query": object{"roomId": object{"startsWith": "Room"}}},
		{"query": object{"roomId": object{"startsWith": "roö"}}},
		{"query": object{"roomId": "Room"}},
		{"query": object{"roomId": "room "}},
		{"query": object{"roomId": "a/b:c?d#e%f"}},
		{"query": object{"roomId": "none"}},
		{"query": object{"roomId": "ROOM"}},
		{"query": `metadata["kind"]:"odd"`, "limit": 3},
		{"query": `metadata['kind']:'odd' roomId^"page 1"`},
		{"query": object{"metadata": object{"quoted": `"it's" \\ <ö 👩‍👩‍👧>`}}},
		{"query": object{"metadata": object{"kind": "even", "third": "yes"}, "roomId": object{"startsWith": "page"}}},
		{"query": `metadata["tags"]:"a"`},
		{"query": `metadata["empty"]:""`},
		{"query": `metadata["none"]:"x"`},
		{"query": object{"metadata": object{"name": "Room 0 “Room”"}}},
		{"userId": "alice"},
		{"userId": "bøb / 👩‍👩‍👧", "limit": 2},
		{"userId": "nobody"},
		{"userId": "revoked"},
		{"groupIds": []string{"design:1"}},
		{"groupIds": []string{"g 1", "design:1"}, "limit": 4},
		{"userId": "alice", "groupIds": []string{"g 1"}},
		{"userId": "carol", "query": `metadata["kind"]:"even"`},
		{"userId": "carol", "query": object{"roomId": "page 04"}},
		{"organizationId": "org /%"},
		{"organizationId": "none"},
		{"organizationId": "org /%", "userId": "carol"},
		{"organizationId": "org /%", "query": `metadata["kind"]:"odd"`},
		{"query": "resolved:true"},
		{"query": `roomId^""`},
		{"query": `roomId:1`},
		{"query": `-roomId:"a"`},
		{"query": `metadata:"a"`},
		{"query": `metadata["kind"]^"o"`},
	} {
		reads = append(reads, []any{"getRooms", params})
		if params["limit"] == nil {
			reads = append(reads, []any{"iterRooms", params, object{"pageSize": 20}})
		}
	}
	return reads
}

// methodsNotOnDevServer are those that the dev server does not have. The fake has all but the
// last three of them: of two the test has the answers, and massMutateStorage writes.
var methodsNotOnDevServer = []string{
	"getThreads", "getThread", "getComment", "getGroup", "getGroups", "getUserGroups", "getInboxNotification",
	"getThreadParticipants", "prewarmRoom", "massMutateStorage",
}

var (
	methodRow  = regexp.MustCompile("(?m)^\\| (`.*`) \\| (?:served|passed) \\|")
	methodName = regexp.MustCompile("`([a-zA-Z]+)`")
)

// documentedReads are the methods that REST.md says are served or passed on.
func documentedReads(t *testing.T) (methods []string) {
	t.Helper()
	for _, row := range methodRow.FindAllStringSubmatch(string(mustRead(t, "../../../docs/REST.md")), -1) {
		for _, name := range methodName.FindAllStringSubmatch(row[1], -1) {
			methods = append(methods, name[1])
		}
	}
	if len(methods) < 30 {
		t.Fatalf("REST.md has %d reads; want all of them", len(methods))
	}
	return methods
}

// among checks that some reads are made with all of the methods.
func among(t *testing.T, methods []string, reads [][]any) {
	t.Helper()
	for _, method := range methods {
		if !slices.ContainsFunc(reads, func(read []any) bool { return read[0] == method }) {
			t.Errorf("%s is not compared", method)
		}
	}
}

// makePages creates rooms at the dev server that differ by what lists are filtered by.
func makePages(t *testing.T, dev devServer, n int) {
	t.Helper()
	for i := range n {
		metadata := object{"kind": []string{"even", "odd"}[i%2]}
		room := object{"id": fmt.Sprintf("page %02d", i), "defaultAccesses": []string{}, "metadata": metadata}
		switch i % 3 {
		case 0:
			metadata["third"], room["usersAccesses"] = "yes", object{"carol": []string{"room:write"}, "revoked": []string{}}
		case 1:
			metadata["quoted"], room["groupsAccesses"] = `"it's" \\ <ö 👩‍👩‍👧>`, object{"g 1": []string{"room:read"}}
		default:
			room["organizationId"] = "org /%"
		}
		body, err := json.Marshal(room)
		must(t, err)
		if got := send(t, http.MethodPost, dev.url+"/v2/rooms", http.Header{
			"Authorization": {"Bearer " + devKey}, "Content-Type": {"application/json"},
		}, bytes.NewReader(body)); got.status != http.StatusOK {
			t.Fatalf("POST of room %d = %d %s", i, got.status, got.body)
		}
	}
}

// The real package reads the same from the mirror as from the real server, whatever the ids,
// and gets from the real server what the mirror does not hold.
func TestRESTEqualsRealLiveblocks(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		dev := startDevServer(t)
		s := harness.Start(t, harness.Options{DatabaseURL: e.Database(t), UpstreamURL: dev.url, Env: map[string]string{
			"LIVEBLOCKS_SECRET_KEY": devKey, "MIRROR_MIGRATE": "", "MIRROR_REST": "read",
		}})
		act(t, dev, s, "create")
		told := act(t, dev, s, "edit")
		compare(t, dev, s)
		reads, rooms := documentReads(t, dev)
		for _, doc := range told.Ydocs { // those inside others too
			guid := object{"guid": doc.GUID}
			if doc.GUID == "" {
				guid = object{}
			}
			reads = append(reads, []any{"getYjsDocumentAsBinaryUpdate", "Room", guid})
		}
		want := 2 * len(reads)
		for _, missing := range []string{"no such room", "a/b", "Room%", "ROOM"} {
			reads = append(reads, []any{"getRoom", missing}, []any{"getStorageDocument", missing},
				[]any{"getYjsDocument", missing}, []any{"getYjsDocumentAsBinaryUpdate", missing})
		}
		found := compareReads(t, s, dev.url, devKey, "sk_of_anybody", reads, "ENTER=Room",
			"WEBHOOK_URL="+s.URL("/api/liveblocks-webhook"), "WEBHOOK_SECRET="+harness.WebhookSecret, "NODE_ENV=production")
		if rooms < 5 || found.Succeeded != want {
			t.Errorf("reads of %d rooms that succeeded = %d; want %d", rooms, found.Succeeded, want)
		}
		if len(found.Warnings) > 0 {
			t.Errorf("warnings of fresh copies = %q; want none", found.Warnings)
		}
		found.from(t, nil)

		const pages = 50
		makePages(t, dev, pages)
		_, err := s.Admin(t).StartBackfill(t.Context(), &mirrorv1.StartBackfillRequest{})
		must(t, err)
		harness.Eventually(t, patience, func() error {
			got, err := s.Mirror(t).ListRooms(t.Context(), &mirrorv1.ListRoomsRequest{PageSize: 500})
			if sweep := latestSweep(t, s); err == nil && (sweep.GetEndTime() == nil || len(got.GetRooms()) != rooms+pages) {
				return fmt.Errorf("%d rooms after %v; want %d", len(got.GetRooms()), sweep, rooms+pages)
			}
			return err
		})
		lists, passed := roomReads(), passedReads("Room")
		among(t, slices.DeleteFunc(documentedReads(t), func(method string) bool {
			return slices.Contains(methodsNotOnDevServer, method)
		}), slices.Concat(reads, lists, passed))
		found = compareReads(t, s, dev.url, devKey, "sk_of_anybody", slices.Concat(lists, passed))
		found.from(t, passed)
		if got := found.Sources; got["getRooms"] == "" || got["iterRooms"] == "" || got["getFeeds"] == "" {
			t.Errorf("answers came from %v; want those to lists of rooms and feeds", got)
		}
	})
}

// documentReads are reads of all rooms of the dev server, and how many rooms these are.
func documentReads(t *testing.T, dev devServer) (reads [][]any, rooms int) {
	t.Helper()
	for room := range dev.rooms(t) {
		rooms++
		var ydoc map[string]any
		if err := json.Unmarshal(dev.get(t, "/rooms/"+escape(room)+"/ydoc").body, &ydoc); err != nil {
			t.Fatal(err)
		}
		reads = append(reads, []any{"getRoom", room}, []any{"getActiveUsers", room}, []any{"getStorageDocument", room},
			[]any{"getStorageDocument", room, "json"}, []any{"getYjsDocument", room},
			[]any{"getYjsDocument", room, object{"format": true}},
			[]any{"getYjsDocument", room, object{"key": "no such key"}},
			[]any{"getYjsDocumentAsBinaryUpdate", room},
			[]any{"getYjsDocumentAsBinaryUpdate", room, object{"guid": "root"}},
			[]any{"getYjsDocumentAsBinaryUpdate", room, object{"guid": "no such guid"}})
		for key := range ydoc {
			reads = append(reads, []any{"getYjsDocument", room, object{"key": key}})
		}
	}
	return reads, rooms
}

// What the real server lacks is read from the mirror as the fake has it, in the published
// shapes.
func TestRESTEqualsPublishedShapes(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		upstream := harness.NewFake(t)
		const room = "team a/1"
		must(t, upstream.CreateRoom(room, fake.RoomOptions{}))
		begin := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
		for i, id := range []string{"th_b", "th_a", "th /%"} {
			made(t)(upstream.CreateThread(room, fake.ThreadOptions{
				ID: id, Metadata: map[string]any{"color": []string{"red", "blue", "red"}[i], "n": float64(i), "done": i > 0},
				Comment: fake.Comment{
					ID: "cm_" + id, UserID: "alice", Text: "Hello", CreateTime: begin.Add(time.Duration(i) * time.Hour),
				},
			}))
		}
		second := made(t)(upstream.CreateComment(room, "th_b", fake.Comment{UserID: "bob", Body: json.RawMessage(
			`{"version":1,"content":[{"type":"paragraph","children":[{"text":"Hi "},` +
				`{"type":"mention","kind":"user","id":"carol"}]}]}`)}))
		gone := made(t)(upstream.CreateComment(room, "th_b", fake.Comment{UserID: "mallory", Text: "gone"}))
		must(t, upstream.DeleteComment(room, "th_b", gone))
		must(t, upstream.AddReaction(room, "th_b", second, "👍", "alice"))
		must(t, upstream.SetResolved(room, "th_a", true, "alice"))
		for i := range 45 {
			upstream.PutGroup(fmt.Sprintf("group %02d/", i), "alice")
		}
		upstream.PutGroup("of bob", "bob", "carol")
		for _, id := range numbered("r /", 130) { // most of them of the same time
			must(t, upstream.CreateRoom(id, fake.RoomOptions{CreateTime: begin}))
		}
		unannounced := fake.Notification{UserID: "alice /%", RoomID: room, SubjectID: "th_b", TriggerTime: begin}
		unannounced = upstream.Notify(unannounced)
		for i := range 60 {
			next := unannounced
			next.InboxID, next.TriggerTime = "", begin.Add(time.Duration(i)*time.Minute)
			upstream.Notify(next)
		}
		s := harness.Start(t, harness.Options{
			DatabaseURL: e.Database(t), UpstreamURL: upstream.URL, Env: with(often, "MIRROR_REST", "write"),
		})
		awaitSwept(t, s)
		follow(t, s, upstream)
		must(t, upstream.Enter(room, fake.Connection{ID: 1, UserID: "alice", Info: json.RawMessage(`{"name":"<Älice>"}`)}))
		awaitPresent(t, s, upstream, room)
		var announced []fake.Notification
		for _, n := range []fake.Notification{
			{Kind: "thread", RoomID: room, SubjectID: "th_b"},
			{Kind: "textMention", RoomID: room, SubjectID: "in_m 1", AuthorID: "bob"},
			{Kind: "$file", SubjectID: "file-1", InboxID: "in /%"},
			{Kind: "$file", SubjectID: "file-2", Channel: "slack"},
		} {
			n.UserID = "alice /%"
			announced = append(announced, upstream.Notify(n))
		}
		awaitIdle(t, s, mirrorv1.ResourceKind_RESOURCE_KIND_SWEEP)
		// No event tells of this.
		upstream.Read(announced[0], begin.Add(time.Hour))
		upstream.SetInbox(announced[3].UserID, announced[3].InboxID, nil)

		threads := upstream.Threads(room)
		reads := [][]any{
			{"getRoom", room},
			{"getActiveUsers", room},
			{"getThreads", map[string]any{"roomId": room}},
			{"getGroup", map[string]any{"groupId": "group 07/"}},
			{"getGroup", map[string]any{"groupId": "of bob"}},
			{"getStorageDocument", room},
			{"getYjsDocumentAsBinaryUpdate", room},
			{"getRooms", object{}},
			{"getRooms", object{"limit": 7}},
			{"iterRooms", object{}, object{"pageSize": 20}},
			{"getGroups", object{"limit": 7}},
			{"getUserGroups", object{"userId": "alice", "limit": 20}},
			{"getUserGroups", object{"userId": "carol"}},
			{"getUserGroups", object{"userId": "nobody"}},
		}
		for _, thread := range threads {
			reads = append(reads, []any{"getThread", map[string]any{"roomId": room, "threadId": thread}})
		}
		for _, comment := range upstream.Comments(room, "th_b") {
			reads = append(reads, []any{"getComment", object{"roomId": room, "threadId": "th_b", "commentId": comment}})
		}
		for _, n := range announced[:3] {
			reads = append(reads, []any{"getInboxNotification", object{"userId": n.UserID, "inboxNotificationId": n.InboxID}})
		}
		among(t, methodsNotOnDevServer[:len(methodsNotOnDevServer)-3], reads)
		want := 2 * len(reads)
		reads = append(reads, []any{"getThread", map[string]any{"roomId": "none", "threadId": "th_a"}},
			[]any{"getThreads", map[string]any{"roomId": "none"}}, []any{"getGroup", object{"groupId": "none"}},
			[]any{"getComment", object{"roomId": room, "threadId": "th_b", "commentId": "none"}},
			[]any{"getInboxNotification", object{
				"userId": announced[3].UserID, "inboxNotificationId": announced[3].InboxID,
			}})
		found := compareReads(t, s, upstream.URL, harness.SecretKey, "sk_of_anybody", reads)
		if found.Succeeded != want {
			t.Errorf("reads that succeeded = %d; want %d", found.Succeeded, want)
		}
		found.from(t, nil)

		// An inbox has more than what was announced, and so what the mirror lacks is Liveblocks'.
		inbox := [][]any{{"getInboxNotification", object{"userId": "alice /%", "inboxNotificationId": unannounced.InboxID}}}
		for _, params := range []object{
			{}, {"limit": 7}, {"query": "unread:true"}, {"query": object{"unread": false}}, {"organizationId": "default"},
		} {
			params["userId"] = "alice /%"
			inbox = append(inbox, []any{"getInboxNotifications", params},
				[]any{"iterInboxNotifications", params, object{"pageSize": 10}})
		}
		passed := slices.Concat(inbox, passedReads(room))
		found = compareReads(t, s, upstream.URL, harness.SecretKey, "sk_of_anybody", append(passed,
			[]any{"getInboxNotifications", object{"userId": "alice /%", "query": "unread"}}))
		found.from(t, passed)
		if want := 2*len(inbox) + 4; found.Succeeded != want { // with those of passedReads
			t.Errorf("reads of inboxes that succeeded = %d; want %d", found.Succeeded, want)
		}

		get := func(path string) answer {
			t.Helper()
			return send(t, http.MethodGet, s.URL(path), http.Header{"Authorization": {"Bearer sk_of_anybody"}}, nil)
		}
		source, _ := upstream.ThreadSource(room, "th_b")
		var thread struct {
			Comments []json.RawMessage `json:"comments"`
		}
		must(t, json.Unmarshal(source, &thread))
		for i, id := range []string{"cm_th_b", second, gone} { // a deleted comment is in its thread
			path := "/v2/rooms/" + escape(room) + "/threads/th_b/comments/" + id
			if got := get(path); got.status != http.StatusOK || !bytes.Equal(got.body, thread.Comments[i]) {
				t.Errorf("GET %s = %d %s; want %s", path, got.status, got.body, thread.Comments[i])
			}
		}
		for path, want := range map[string]string{
			"/prewarm":                   `{}`,
			"/threads/th_b/participants": `{"participantIds":["alice","bob","carol"]}`,
			"/threads/th_x":              `{"error":"RESOURCE_NOT_FOUND","message":"Thread not found"}`,
			"/threads/th_b/comments/x":   `{"error":"RESOURCE_NOT_FOUND","message":"Comment not found"}`,
			"/threads?query=resolved":    `{"error":"INVALID_QUERY","message":"Expected an operator but end of input found (at 1:9)"}`,
		} {
			if got := get("/v2/rooms/" + escape(room) + path); string(got.body) != want {
				t.Errorf("GET %s = %d %s; want %s", path, got.status, got.body, want)
			}
		}
		for text, want := range map[string]string{
			"": "th_b th_a th /%", "resolved:true": "th_a", `metadata["color"]:"red"`: "th_b th /%",
			`metadata["n"]>=1 AND resolved:false`: "th /%", `metadata["done"]:false`: "th_b", `metadata["none"]:null resolved:true`: "th_a",
		} {
			var list struct {
				Data []struct {
					ID string `json:"id"`
				} `json:"data"`
			}
			must(t, json.Unmarshal(get("/v2/rooms/"+escape(room)+"/threads?query="+url.QueryEscape(text)).body, &list))
			var ids []string
			for _, thread := range list.Data {
				ids = append(ids, thread.ID)
			}
			if got := strings.Join(ids, " "); got != want {
				t.Errorf("threads with %q = %q; want %q", text, got, want)
			}
		}
		// Who has it already gets it no more.
		for _, path := range []string{"", "/storage", "/threads", "/ydoc-binary", "/ydoc", "/active-users", "/active_users"} {
			path := "/v2/rooms/" + escape(room) + path
			first := get(path)
			again := send(t, http.MethodGet, s.URL(path), http.Header{
				"Authorization": {"Bearer sk_of_anybody"}, "If-None-Match": {first.header.Get("ETag")},
			}, nil)
			if first.status != http.StatusOK || first.header.Get("Mirror-Source") != "mirror" ||
				first.header.Get("Mirror-Fetch-Time") == "" || again.status != http.StatusNotModified || len(again.body) > 0 {
				t.Errorf("GET %s = %d %v, then %d %s; want it with its age, then 304", path, first.status, first.header,
					again.status, again.body)
			}
		}
	})
}

// Every write of the package is refused, with what it makes an error of, and Liveblocks is
// not asked. Keys see what they see elsewhere.
func TestRESTIsReadOnly(t *testing.T) {
	t.Parallel()
	keys := newKeyFile(t)
	whole := keys.add(t, "--scope", "read")
	limited := keys.add(t, "--scope", "read", "--room-prefix", "team-a:")
	other := keys.add(t, "--scope", "watch")
	s, upstream := start(t, with(with(nil, "MIRROR_KEYS_FILE", string(keys)), "MIRROR_REST", "read"))
	const room = "team-b:1"
	must(t, upstream.CreateRoom(room, fake.RoomOptions{}))
	for _, typ := range []string{fake.RoomCreated, fake.StorageUpdated} {
		deliver(t, s, fake.Event{Type: typ, RoomID: room, Time: time.Now()})
	}
	get := func(key, path string) answer {
		return send(t, http.MethodGet, s.URL(path), http.Header{"Authorization": {"Bearer " + key}}, nil)
	}
	harness.Eventually(t, patience, func() error {
		if got := get(whole, "/v2/rooms/"+room+"/storage"); got.status != http.StatusOK {
			return fmt.Errorf("storage = %d %s", got.status, got.body)
		}
		return nil
	})
	for _, c := range []struct {
		key, path string
		status    int
		code      string
	}{
		{"", "/v2/rooms/" + room, http.StatusUnauthorized, "MISSING_SECRET_KEY"},
		{harness.SecretKey, "/v2/rooms/" + room, http.StatusForbidden, "INVALID_SECRET_KEY"},
		{"pk_any", "/v2/rooms/" + room, http.StatusForbidden, "INVALID_PUBLIC_KEY"},
		{other, "/v2/rooms/" + room, http.StatusForbidden, "FORBIDDEN"},
		{limited, "/v2/rooms/" + room, http.StatusNotFound, "ROOM_NOT_FOUND"},
		{limited, "/v2/rooms/" + room + "/storage", http.StatusNotFound, "ROOM_NOT_FOUND"},
		{limited, "/v2/groups", http.StatusForbidden, "FORBIDDEN"},
		{limited, "/v2/users/" + strings.Repeat("x", 600) + "/groups", http.StatusForbidden, "FORBIDDEN"},
		{other, "/v2/users/alice/inbox-notifications", http.StatusForbidden, "FORBIDDEN"},
		{other, "/v2/rooms/" + room + "/threads?query=resolved", http.StatusForbidden, "FORBIDDEN"},
		{whole, "/v2/rooms/" + room + "/ydoc-binary?guid=a;b", http.StatusUnprocessableEntity, "UNPROCESSABLE_ENTITY"},
		{whole, "/v2/groups/none", http.StatusNotFound, "RESOURCE_NOT_FOUND"},
		{whole, "/v2/users/alice/inbox-notifications", http.StatusForbidden, "FORBIDDEN"}, // without rest.upstream
		{limited, "/v2/rooms/" + room + "/versions", http.StatusForbidden, "FORBIDDEN"},
		{whole, "/v2/c/rooms/" + room, http.StatusNotFound, "NOT_FOUND"},
	} {
		var body struct{ Error, Message string }
		got := get(c.key, c.path)
		if err := json.Unmarshal(got.body, &body); err != nil || got.status != c.status || body.Error != c.code ||
			body.Message == "" {
			t.Errorf("GET %s = %d %s; want %d %s", c.path, got.status, got.body, c.status, c.code)
		}
	}

	script, err := filepath.Abs("../../internal/serve/rest/testdata/methods.mjs")
	must(t, err)
	writes := 0
	for line := range strings.SplitSeq(strings.TrimSpace(string(runScript(t, script, nil, "MIRROR_URL="+s.URL(""),
		"MIRROR_KEY="+whole))), "\n") {
		var method struct {
			Name  string
			Calls []struct {
				Method, Path string
				Status       int
			}
			Thrown *struct {
				Status           int
				Message, Details string
			}
		}
		must(t, json.Unmarshal([]byte(line), &method))
		for _, c := range method.Calls {
			if c.Method == http.MethodGet {
				continue
			}
			writes++
			if c.Status != http.StatusMethodNotAllowed {
				t.Errorf("%s: %s %s = %d; want 405", method.Name, c.Method, c.Path, c.Status)
			}
			if e := method.Thrown; method.Name != "prepareSession" && method.Name != "identifyUser" &&
				(e == nil || e.Status != http.StatusMethodNotAllowed || !strings.Contains(e.Message, "read-only mirror") ||
					!strings.Contains(e.Details, "Suggestion: Send writes to Liveblocks")) {
				t.Errorf("%s threw %+v; want a LiveblocksError that says what to do", method.Name, e)
			}
		}
	}
	if writes < 50 {
		t.Errorf("writes = %d; want all of the package", writes)
	}
	if calls := forwardedTo(upstream); len(calls) > 0 {
		t.Errorf("Liveblocks was called: %s", calls)
	}
}

// While calls are paused reads go on, and say since when, but not what the operator wrote.
// Nothing is passed on.
func TestRESTWhilePaused(t *testing.T) {
	t.Parallel()
	s, upstream := start(t, map[string]string{"MIRROR_REST": "write"})
	const room = "room"
	create(t, s, upstream, room, fake.RoomOptions{})
	deliver(t, s, fake.Event{Type: fake.StorageUpdated, RoomID: room, Time: time.Now()})
	reads := [][]any{{"getStorageDocument", room}, {"getRoom", room}}
	harness.Eventually(t, patience, func() error {
		if got := send(t, http.MethodGet, s.URL("/v2/rooms/room/storage"), nil, nil); got.status != http.StatusOK {
			return fmt.Errorf("storage = %d %s", got.status, got.body)
		}
		return nil
	})
	if got := compareReads(t, s, upstream.URL, harness.SecretKey, "sk_of_anybody", reads); len(got.Warnings) > 0 {
		t.Errorf("warnings before the pause = %q; want none", got.Warnings)
	}
	_, err := s.Admin(t).PauseProject(t.Context(), &mirrorv1.PauseProjectRequest{Reason: "the database moves"})
	must(t, err)
	must(t, upstream.SetStorage(room, []byte(`{"liveblocksType":"LiveObject","data":{"new":1}}`)))
	deliver(t, s, fake.Event{Type: fake.StorageUpdated, RoomID: room, Time: time.Now()})
	got := send(t, http.MethodGet, s.URL("/v2/rooms/room/storage"), http.Header{"Authorization": {"Bearer sk_x"}}, nil)
	warning := got.header.Get("X-Lb-Warn")
	if string(got.body) != fake.EmptyStorage || got.header.Get("Mirror-Stale") != "1" ||
		!strings.Contains(warning, " that has not called Liveblocks since 20") ||
		!strings.HasSuffix(warning, ": an operator paused it") {
		t.Errorf("storage during a pause = %d %s %v; want the copy, with a warning", got.status, got.body, got.header)
	}
	for _, call := range []string{"GET /v2/rooms/room/versions", "POST /v2/rooms/room/threads", "DELETE /v2/rooms/room"} {
		method, path, _ := strings.Cut(call, " ")
		got := send(t, method, s.URL(path), http.Header{"Authorization": {"Bearer sk_x"}}, nil)
		if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" ||
			bytes.Contains(got.body, []byte("the database moves")) {
			t.Errorf("%s during a pause = %d %s; want 503", call, got.status, got.body)
		}
	}
	audit := send(t, http.MethodGet, s.URL("/v1/admin/audit-entries"), nil, nil)
	if !bytes.Contains(audit.body, []byte("PauseProject")) || bytes.Contains(audit.body, []byte("/v2/")) {
		t.Errorf("the audit = %d %s; want no call that was not made", audit.status, audit.body)
	}
	if calls := forwardedTo(upstream); len(calls) > 0 {
		t.Errorf("Liveblocks was called: %s", calls)
	}
}

// What has not been fetched is not shown as empty. Without Liveblocks reads go on, and say
// since when.
func TestRESTWithoutLiveblocks(t *testing.T) {
	t.Parallel()
	s, upstream := start(t, map[string]string{
		"MIRROR_REST": "read", "MIRROR_REST_UPSTREAM": "off", "MIRROR_REST_WARN_AFTER": "0s",
	})
	const room = "room"
	must(t, upstream.CreateRoom(room, fake.RoomOptions{}))
	made(t)(upstream.CreateThread(room, fake.ThreadOptions{
		ID: "th_a", Comment: fake.Comment{UserID: "alice", Text: "Hello"},
	}))
	source, _ := upstream.ThreadSource(room, "th_a")
	hold := fake.NewHold()
	defer hold.Release()
	upstream.Script(fake.Match{Room: room, Endpoint: fake.EndpointThreads}, hold.Step())
	tell(t, s, fake.RoomCreated, room)
	get := func(path string) answer {
		return send(t, http.MethodGet, s.URL("/v2/rooms/room"+path), nil, nil)
	}
	await := func(path, body string) {
		t.Helper()
		harness.Eventually(t, patience, func() error {
			if got := get(path); got.status != http.StatusOK || body != "" && string(got.body) != body {
				return fmt.Errorf("%s = %d %s", path, got.status, got.body)
			}
			return nil
		})
	}
	await("", "")
	select {
	case <-hold.Arrived():
	case <-time.After(patience):
		t.Fatal("the threads were not asked for")
	}
	if got := get("/threads"); got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" ||
		!bytes.Contains(got.body, []byte("NOT_MIRRORED_YET")) {
		t.Errorf("threads before the first fetch = %d %s; want 503", got.status, got.body)
	}
	hold.Release()
	await("/threads", `{"data":[`+string(source)+`]}`)
	awaitIdle(t, s) // or the settle fetch of the list could find the next thread before its event is recorded

	// What an event has announced is missing in the list until it is fetched, and the list says
	// so.
	made(t)(upstream.CreateThread(room, fake.ThreadOptions{
		ID: "th_b", Comment: fake.Comment{UserID: "alice", Text: "Late", CreateTime: time.Now().Add(time.Hour)},
	}))
	late := fake.NewHold()
	defer late.Release()
	upstream.Script(fake.Match{Room: room, Thread: "th_b"}, late.Step())
	deliver(t, s, fake.Event{Type: fake.ThreadCreated, RoomID: room, ThreadID: "th_b", Time: time.Now()})
	select {
	case <-late.Arrived():
	case <-time.After(patience):
		t.Fatal("the thread was not asked for")
	}
	if got := get("/threads"); string(got.body) != `{"data":[`+string(source)+`]}` || got.header.Get("Mirror-Stale") != "1" {
		t.Errorf("threads while one is fetched = %d %s %v; want the others, stale", got.status, got.body, got.header)
	}
	late.Release()
	second, _ := upstream.ThreadSource(room, "th_b")
	await("/threads", `{"data":[`+string(source)+`,`+string(second)+`]}`)
	harness.Eventually(t, patience, func() error { // once it has been fetched again after the event
		if got := get("/threads"); got.header.Get("Mirror-Stale") != "" {
			return fmt.Errorf("threads once all are fetched are stale: %v", got.header)
		}
		return nil
	})

	if got := get(""); got.header.Get("X-Lb-Warn") != "" {
		t.Errorf("warning before the outage = %q; want none", got.header.Get("X-Lb-Warn"))
	}
	upstream.Close()
	deliver(t, s, fake.Event{Type: fake.StorageUpdated, RoomID: room, Time: time.Now()})
	harness.Eventually(t, patience, func() error {
		got := get("")
		warning := got.header.Get("X-Lb-Warn")
		if got.status != http.StatusOK || !strings.Contains(warning, " that has got no answer from Liveblocks since 20") {
			return fmt.Errorf("room without Liveblocks = %d %s %q; want it with a warning", got.status, got.body, warning)
		}
		return nil
	})
}

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

// compareReads makes reads with the real package against Liveblocks and the mirror, which
// must have the same results, and returns how many succeeded and what the package printed.
func compareReads(t *testing.T, s *harness.Service, upstream, secret, key string, reads [][]any) (int, []string) {
	t.Helper()
	plan, err := json.Marshal(reads)
	if err != nil {
		t.Fatal(err)
	}
	out := runScript(t, "rest.mjs", plan, "LIVEBLOCKS_BASE_URL="+upstream, "LIVEBLOCKS_KEY="+secret,
		"MIRROR_URL="+s.URL(""), "MIRROR_KEY="+key)
	var result struct {
		Succeeded int
		Warnings  []string
	}
	if err := json.Unmarshal(out, &result); err != nil {
		t.Fatalf("rest.mjs wrote %q: %v", out, err)
	}
	return result.Succeeded, result.Warnings
}

// The real package reads the same from the mirror as from the real server, whatever the ids.
func TestRESTEqualsRealLiveblocks(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		dev := startDevServer(t)
		s := harness.Start(t, harness.Options{DatabaseURL: e.Database(t), UpstreamURL: dev.url, Env: map[string]string{
			"LIVEBLOCKS_SECRET_KEY": devKey, "MIRROR_MIGRATE": "", "MIRROR_REST": "read", "MIRROR_REST_UPSTREAM": "off",
		}})
		act(t, dev, s, "create")
		told := act(t, dev, s, "edit")
		compare(t, dev, s)
		var reads [][]any
		rooms := dev.rooms(t)
		for room := range rooms {
			var ydoc map[string]any
			if err := json.Unmarshal(dev.get(t, "/rooms/"+escape(room)+"/ydoc").body, &ydoc); err != nil {
				t.Fatal(err)
			}
			reads = append(reads, []any{"getRoom", room}, []any{"getStorageDocument", room},
				[]any{"getStorageDocument", room, "json"}, []any{"getYjsDocument", room},
				[]any{"getYjsDocument", room, map[string]any{"format": true}},
				[]any{"getYjsDocument", room, map[string]any{"key": "no such key"}},
				[]any{"getYjsDocumentAsBinaryUpdate", room},
				[]any{"getYjsDocumentAsBinaryUpdate", room, map[string]any{"guid": "root"}},
				[]any{"getYjsDocumentAsBinaryUpdate", room, map[string]any{"guid": "no such guid"}})
			for key := range ydoc {
				reads = append(reads, []any{"getYjsDocument", room, map[string]any{"key": key}})
			}
		}
		for _, doc := range told.Ydocs { // those inside others too
			guid := map[string]any{"guid": doc.GUID}
			if doc.GUID == "" {
				guid = map[string]any{}
			}
			reads = append(reads, []any{"getYjsDocumentAsBinaryUpdate", "Room", guid})
		}
		want := 2 * len(reads)
		for _, missing := range []string{"no such room", "a/b", "Room%", "ROOM"} {
			reads = append(reads, []any{"getRoom", missing}, []any{"getStorageDocument", missing},
				[]any{"getYjsDocument", missing}, []any{"getYjsDocumentAsBinaryUpdate", missing})
		}
		succeeded, warnings := compareReads(t, s, dev.url, devKey, "sk_of_anybody", reads)
		if len(rooms) < 5 || succeeded != want {
			t.Errorf("reads of %d rooms that succeeded = %d; want %d", len(rooms), succeeded, want)
		}
		if len(warnings) > 0 {
			t.Errorf("warnings of fresh copies = %q; want none", warnings)
		}
	})
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
		s := harness.Start(t, harness.Options{
			DatabaseURL: e.Database(t), UpstreamURL: upstream.URL,
			Env: with(with(often, "MIRROR_REST", "read"), "MIRROR_REST_UPSTREAM", "off"),
		})
		awaitSwept(t, s)
		follow(t, s, upstream)
		must(t, upstream.Enter(room, fake.Connection{ID: 1, UserID: "alice", Info: json.RawMessage(`{"name":"<Älice>"}`)}))
		awaitPresent(t, s, upstream, room)
		awaitIdle(t, s, mirrorv1.ResourceKind_RESOURCE_KIND_SWEEP)

		threads := upstream.Threads(room)
		reads := [][]any{
			{"getRoom", room},
			{"getActiveUsers", room},
			{"getThreads", map[string]any{"roomId": room}},
			{"getGroup", map[string]any{"groupId": "group 07/"}},
			{"getGroup", map[string]any{"groupId": "of bob"}},
			{"getStorageDocument", room},
			{"getYjsDocumentAsBinaryUpdate", room},
		}
		for _, thread := range threads {
			reads = append(reads, []any{"getThread", map[string]any{"roomId": room, "threadId": thread}})
		}
		want := 2 * len(reads)
		reads = append(reads, []any{"getThread", map[string]any{"roomId": "none", "threadId": "th_a"}},
			[]any{"getThreads", map[string]any{"roomId": "none"}})
		if succeeded, _ := compareReads(t, s, upstream.URL, harness.SecretKey, "sk_of_anybody", reads); succeeded != want {
			t.Errorf("reads that succeeded = %d; want %d", succeeded, want)
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
		for path, want := range map[string]int{"/v2/groups": 46, "/v2/users/alice/groups": 45, "/v2/users/carol/groups": 1} {
			var ids []string
			for cursor := ""; ; {
				var list struct {
					Next *string `json:"nextCursor"`
					Data []struct {
						ID string `json:"id"`
					} `json:"data"`
				}
				must(t, json.Unmarshal(get(path+"?limit=20&startingAfter="+cursor).body, &list))
				for _, group := range list.Data {
					ids = append(ids, group.ID)
				}
				if list.Next == nil {
					break
				}
				cursor = *list.Next
			}
			if len(ids) != want || !slices.IsSorted(ids) {
				t.Errorf("GET %s = %q; want %d groups", path, ids, want)
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
	if _, warnings := compareReads(t, s, upstream.URL, harness.SecretKey, "sk_of_anybody", reads); len(warnings) > 0 {
		t.Errorf("warnings before the pause = %q; want none", warnings)
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

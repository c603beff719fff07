package blackbox_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// wiretap is a proxy in front of Liveblocks that remembers what it was sent.
type wiretap struct {
	url string
	// dropped is the end of the paths of calls that are made, and of which the answer is lost.
	dropped string
	mu      sync.Mutex
	seen    []string
	keys    map[string]bool
}

func newWiretap(t *testing.T, upstream string) *wiretap {
	t.Helper()
	to, err := url.Parse(upstream)
	must(t, err)
	w := &wiretap{keys: map[string]bool{}}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		header, _ := json.Marshal(r.Header)
		w.mu.Lock()
		w.seen = append(w.seen, r.Method+" "+r.RequestURI+" "+string(header)+" "+string(body))
		w.keys[r.Header.Get("Authorization")] = true
		w.mu.Unlock()
		r.Body = io.NopCloser(bytes.NewReader(body))
		if w.dropped != "" && strings.HasSuffix(r.URL.Path, w.dropped) {
			proxy.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		proxy.ServeHTTP(rw, r)
	}))
	t.Cleanup(server.Close)
	w.url = server.URL
	return w
}

// The real packages write through the mirror, and the next read through it shows what they
// wrote: those for documents of editors run as they are. The mirror's key stays here, and the
// project's there.
func TestRESTWritesAreShown(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		dev := startDevServer(t)
		tap := newWiretap(t, dev.url)
		keys := newKeyFile(t)
		key := keys.add(t, "--scope", "read,rest.upstream,rest.write")
		s := harness.Start(t, harness.Options{DatabaseURL: e.Database(t), UpstreamURL: tap.url, Env: map[string]string{
			"LIVEBLOCKS_SECRET_KEY": devKey, "MIRROR_MIGRATE": "", "MIRROR_REST": "write", "MIRROR_KEYS_FILE": string(keys),
		}})
		writeThrough(t, "rest-writes.mjs", s, tap, key, dev.url, devKey,
			"DELETE liveblocks, GET liveblocks, GET mirror, POST liveblocks, POST mirror, PUT liveblocks")
	})
}

// Threads, comments and groups, too, on every replica. With its last comment a thread is gone.
func TestRESTWritesOfThreadsAreShown(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		upstream := harness.NewFake(t)
		tap := newWiretap(t, upstream.URL)
		const room = "team a/1"
		must(t, upstream.CreateRoom(room, fake.RoomOptions{}))
		keys := newKeyFile(t)
		key := keys.add(t, "--scope", "read,rest.upstream,rest.write")
		options := harness.Options{DatabaseURL: e.Database(t), UpstreamURL: tap.url, Env: map[string]string{
			"MIRROR_REST": "write", "MIRROR_KEYS_FILE": string(keys), "MIRROR_MIGRATE": "",
		}}
		s := harness.Start(t, options)
		other := harness.Start(t, options)
		tell(t, s, fake.RoomCreated, room)
		harness.Eventually(t, patience, func() error {
			got := send(t, http.MethodGet, other.URL("/v2/rooms/"+escape(room)+"/threads"),
				http.Header{"Authorization": {"Bearer " + key}}, nil)
			if got.status != http.StatusOK || got.header.Get("Mirror-Source") != "mirror" {
				return fmt.Errorf("threads = %d %s", got.status, got.body)
			}
			return nil
		})
		writeThrough(t, "rest-threads.mjs", s, tap, key, upstream.URL, harness.SecretKey,
			"DELETE liveblocks, GET mirror, POST liveblocks", "ROOM="+room, "MIRROR_READER="+other.URL(""))
		if log := other.Log(); strings.Contains(log, harness.SecretKey) || strings.Contains(log, key) {
			t.Error("a key is in the log")
		}
	})
}

// What may have been done is fetched, too.
func TestRESTWritesWithoutAnAnswerAreShown(t *testing.T) {
	t.Parallel()
	upstream := harness.NewFake(t)
	tap := newWiretap(t, upstream.URL)
	tap.dropped = "/mark-as-resolved"
	must(t, upstream.CreateRoom("room", fake.RoomOptions{}))
	made(t)(upstream.CreateThread("room", fake.ThreadOptions{
		ID: "th_a", Comment: fake.Comment{UserID: "alice", Text: "Hi"},
	}))
	s := harness.Start(t, harness.Options{
		DatabaseURL: database(t), UpstreamURL: tap.url, Env: map[string]string{"MIRROR_REST": "write", "MIRROR_MIGRATE": ""},
	})
	tell(t, s, fake.RoomCreated, "room")
	const path = "/v2/rooms/room/threads/th_a"
	await := func(text string) {
		t.Helper()
		harness.Eventually(t, patience, func() error {
			got := send(t, http.MethodGet, s.URL(path), nil, nil)
			if got.header.Get("Mirror-Source") != "mirror" || !bytes.Contains(got.body, []byte(text)) {
				return fmt.Errorf("the thread = %d %s; want %s of the mirror", got.status, got.body, text)
			}
			return nil
		})
	}
	await(`"resolved":false`)
	got := send(t, http.MethodPost, s.URL(path+tap.dropped), http.Header{
		"Authorization": {"Bearer sk_any"}, "Content-Type": {"application/json"},
	}, strings.NewReader(`{"userId":"alice"}`))
	if got.status != http.StatusBadGateway {
		t.Errorf("a write whose answer is lost = %d %s; want 502", got.status, got.body)
	}
	await(`"resolved":true`)
}

// writeThrough runs a script that writes through the mirror, and checks that the keys stay
// where they belong, and from where its answers came.
func writeThrough(t *testing.T, script string, s *harness.Service, tap *wiretap, key, upstream, secret, sources string,
	env ...string,
) {
	t.Helper()
	var told struct {
		Pending int
		Sources []string
	}
	must(t, json.Unmarshal(runScript(t, script, nil, append(env, "LIVEBLOCKS_BASE_URL="+upstream, "LIVEBLOCKS_KEY="+secret,
		"MIRROR_URL="+s.URL(""), "MIRROR_KEY="+key, "NODE_ENV=production")...), &told))
	t.Logf("%d writes took longer to be mirrored", told.Pending)
	if got := strings.Join(told.Sources, ", "); got != sources {
		t.Errorf("answers came from %s; want %s", got, sources)
	}
	tap.mu.Lock()
	defer tap.mu.Unlock()
	if len(tap.keys) != 1 || !tap.keys["Bearer "+secret] {
		t.Errorf("Liveblocks was called with %d keys; want that of the project alone", len(tap.keys))
	}
	for _, seen := range tap.seen {
		if strings.Contains(seen, "sk_mirror_") {
			t.Errorf("Liveblocks saw the key of the mirror: %s", seen)
		}
	}
	if log := s.Log(); strings.Contains(log, secret) || strings.Contains(log, key) {
		t.Error("a key is in the log")
	}
}

// changing are the calls of the fake that change something, and those that it does not have:
// the mirror itself makes none of them.
var changing = []fake.Endpoint{
	fake.EndpointUnknown, fake.EndpointInboxes, fake.EndpointWrite, fake.EndpointCreateRoom,
	fake.EndpointDeleteRoom, fake.EndpointUpdateRoomID,
}

// forwardedTo returns the calls of others that the fake saw.
func forwardedTo(upstream *harness.Fake) (calls []string) {
	for _, call := range upstream.Log() {
		if slices.Contains(changing, call.Endpoint) {
			calls = append(calls, call.Method+" "+call.Path)
		}
	}
	return calls
}

// A key that is limited to some rooms passes on nothing else: calls of other rooms find none,
// and calls about all are refused. One without the scope passes on nothing.
func TestRESTForwardsWhatKeysMay(t *testing.T) {
	t.Parallel()
	keys := newKeyFile(t)
	limited := keys.add(t, "--scope", "read,rest.upstream,rest.write", "--room-prefix", "team:")
	reader := keys.add(t, "--scope", "read")
	whole := keys.add(t, "--scope", "read,rest.upstream,rest.write,admin.read")
	s, upstream := start(t, map[string]string{"MIRROR_KEYS_FILE": string(keys), "MIRROR_REST": "write"})
	for _, room := range []string{"team:1", "other"} {
		must(t, upstream.CreateRoom(room, fake.RoomOptions{}))
		made(t)(upstream.CreateThread(room, fake.ThreadOptions{
			ID: "th_a", Comment: fake.Comment{UserID: "alice", Text: "Hi"},
		}))
	}
	do := func(key, method, path, body string) answer {
		t.Helper()
		return send(t, method, s.URL("/v2/"+path), http.Header{
			"Authorization": {"Bearer " + key}, "Content-Type": {"application/json"},
		}, strings.NewReader(body))
	}
	for _, c := range []struct {
		key, method, path string
		status            int
	}{
		{limited, "GET", "rooms/other/versions", 404},
		{limited, "GET", "rooms/team/versions", 404},
		{limited, "GET", "rooms", 503}, // no sweep has ended yet, and Liveblocks would show all
		{limited, "POST", "rooms/other/threads", 404},
		{limited, "DELETE", "rooms/other", 404},
		{limited, "DELETE", "rooms/team:1%2F..%2F..%2Frooms%2Fother", 404},
		{limited, "PUT", "rooms/other/ydoc", 404},
		{limited, "POST", "rooms", 403},
		{limited, "POST", "rooms?idempotent", 403},
		{limited, "POST", "rooms/team:1/update-room-id", 403},
		{limited, "POST", "authorize-user", 403},
		{limited, "POST", "identify-user", 403},
		{limited, "POST", "inbox-notifications/trigger", 403},
		{limited, "POST", "groups", 403},
		{limited, "DELETE", "groups/g", 403},
		{limited, "GET", "users/alice/inbox-notifications", 403},
		{limited, "DELETE", "users/alice/inbox-notifications", 403},
		{limited, "GET", "ai/copilots", 403},
		{reader, "POST", "rooms/other/threads", 403},
		{reader, "DELETE", "rooms/other", 403},
		{reader, "GET", "rooms/other/versions", 403},
		{reader, "GET", "ai/copilots", 403},
	} {
		if got := do(c.key, c.method, c.path, `{"id":"other","newRoomId":"team:2"}`); got.status != c.status {
			t.Errorf("%s %s = %d %s; want %d", c.method, c.path, got.status, got.body, c.status)
		}
	}
	// So for every method of the package, whose rooms this key does not see.
	script, err := filepath.Abs("../../internal/serve/rest/testdata/methods.mjs")
	must(t, err)
	calls := 0
	for line := range strings.SplitSeq(strings.TrimSpace(string(runScript(t, script, nil, "MIRROR_URL="+s.URL(""),
		"MIRROR_KEY="+limited))), "\n") {
		var method struct {
			Name  string
			Calls []struct {
				Method, Path string
				Status       int
			}
		}
		must(t, json.Unmarshal([]byte(line), &method))
		for _, c := range method.Calls {
			calls++
			list := c.Method == http.MethodGet && c.Path == "/v2/rooms" // of the rooms that it sees
			if c.Status != http.StatusForbidden && c.Status != http.StatusNotFound && !list {
				t.Errorf("%s: %s %s = %d; want 403 or 404", method.Name, c.Method, c.Path, c.Status)
			}
		}
	}
	if got := forwardedTo(upstream); len(got) > 0 || calls < 80 {
		t.Errorf("Liveblocks was called: %s, in %d calls", got, calls)
	}

	// What they may is done.
	for _, c := range []struct {
		key, method, path, body string
		status                  int
	}{
		{limited, "POST", "rooms/team:1/threads/th_a/comments", `{"userId":"bob","body":{}}`, 200},
		{limited, "DELETE", "rooms/team:1/threads/th_a", "", 204},
		{whole, "POST", "groups", `{"id":"g","memberIds":["a"]}`, 200},
		{whole, "DELETE", "groups/g", "", 204},
	} {
		got := do(c.key, c.method, c.path, c.body)
		if got.status != c.status || got.header.Get("Mirror-Source") != "liveblocks" {
			t.Errorf("%s %s = %d %s %v; want %d", c.method, c.path, got.status, got.body, got.header, c.status)
		}
	}
	const want = "POST /v2/rooms/team:1/threads/th_a/comments, DELETE /v2/rooms/team:1/threads/th_a, " +
		"POST /v2/groups, DELETE /v2/groups/g"
	if got := strings.Join(forwardedTo(upstream), ", "); got != want {
		t.Errorf("Liveblocks was called: %s; want %s", got, want)
	}
	harness.Eventually(t, patience, func() error {
		got := send(t, http.MethodGet, s.URL("/v1/admin/audit-entries?denied=false"),
			http.Header{"Authorization": {"Bearer " + whole}}, nil)
		for _, entry := range []string{"DELETE /v2/rooms/*/threads/*", "POST /v2/groups", "DELETE /v2/groups/*"} {
			if !bytes.Contains(got.body, []byte(entry)) || bytes.Contains(got.body, []byte("comments")) ||
				bytes.Count(got.body, []byte(`"code":"OK"`)) != 3 {
				return fmt.Errorf("the audit = %s; want %s", got.body, entry)
			}
		}
		return nil
	})
}

// The real package for emails reads a thread and groups from the mirror, and the notification
// from Liveblocks until its webhook has come. Then it needs Liveblocks no more.
func TestRESTEmails(t *testing.T) {
	t.Parallel()
	upstream := harness.NewFake(t)
	const room, thread = "team a/1", "th_a"
	must(t, upstream.CreateRoom(room, fake.RoomOptions{}))
	begin := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	made(t)(upstream.CreateThread(room, fake.ThreadOptions{
		ID: thread, Comment: fake.Comment{ID: "cm_a", UserID: "bob", CreateTime: begin, Body: json.RawMessage(
			`{"version":1,"content":[{"type":"paragraph","children":[{"text":"Look, <"},` +
				`{"type":"mention","kind":"group","id":"designers"},{"text":">","bold":true}]}]}`)},
	}))
	for i := range 30 { // more than a page
		upstream.PutGroup(fmt.Sprintf("group %02d", i), "carol")
	}
	upstream.PutGroup("designers", "carol")
	notification := upstream.Notify(fake.Notification{
		UserID: "carol", RoomID: room, SubjectID: thread, TriggerTime: begin.Add(time.Minute),
	})
	s := harness.Start(t, harness.Options{
		DatabaseURL: database(t), UpstreamURL: upstream.URL, Env: with(often, "MIRROR_REST", "read"),
	})
	awaitSwept(t, s)
	event, err := json.Marshal(map[string]any{"type": "notification", "data": map[string]any{
		"channel": "email", "kind": "thread", "projectId": "p", "roomId": room, "userId": "carol", "threadId": thread,
		"inboxNotificationId": notification.InboxID, "createdAt": begin.Add(2 * time.Minute), "triggeredAt": begin,
	}})
	must(t, err)
	harness.Eventually(t, patience, func() error {
		for path, want := range map[string]string{
			"/v2/rooms/" + escape(room) + "/threads": thread, "/v2/users/carol/groups?limit=100": `"designers"`,
		} {
			if got := send(t, http.MethodGet, s.URL(path), nil, nil); got.status != http.StatusOK ||
				got.header.Get("Mirror-Source") != "mirror" || !bytes.Contains(got.body, []byte(want)) {
				return fmt.Errorf("%s = %d %s", path, got.status, got.body)
			}
		}
		return nil
	})
	check := func() {
		t.Helper()
		var email struct {
			Type    string
			Comment struct {
				ID     string
				Author struct{ Info struct{ Name string } }
				Body   string
			}
		}
		must(t, json.Unmarshal(runScript(t, "rest-emails.mjs", event, "MIRROR_URL="+s.URL(""), "MIRROR_KEY=sk_of_anybody",
			"NODE_ENV=production"), &email))
		if c := email.Comment; email.Type != "unreadMention" || c.ID != "cm_a" || c.Author.Info.Name != "Name of bob" ||
			!strings.Contains(c.Body, "Look, &lt;") || !strings.Contains(c.Body, "@designers") {
			t.Errorf("email = %+v; want the comment that mentions a group of hers", email)
		}
	}
	check()
	if got := upstream.Calls("", fake.EndpointInbox); got == 0 {
		t.Error("Liveblocks was not asked for the notification")
	}
	follow(t, s, upstream)
	upstream.Notify(notification)
	path := "/v2/users/carol/inbox-notifications/" + notification.InboxID
	harness.Eventually(t, patience, func() error {
		if got := send(t, http.MethodGet, s.URL(path), nil, nil); got.header.Get("Mirror-Source") != "mirror" {
			return fmt.Errorf("%s = %d %s %v; want it of the mirror", path, got.status, got.body, got.header)
		}
		return nil
	})
	upstream.Close()
	check()
}

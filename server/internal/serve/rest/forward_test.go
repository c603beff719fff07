package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
)

const (
	projectKey = "sk_of_the_project_itself"
	mirrorKey  = "sk_mirror_of_the_caller"
)

// liveblocksAt is a Liveblocks that answers with what a test says, and remembers what it was
// asked.
type liveblocksAt struct {
	mu     sync.Mutex
	asked  []*http.Request
	bodies [][]byte
	answer func(w http.ResponseWriter, r *http.Request)
}

func (l *liveblocksAt) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	l.mu.Lock()
	l.asked, l.bodies = append(l.asked, r), append(l.bodies, body)
	l.mu.Unlock()
	l.answer(w, r)
}

func (l *liveblocksAt) take() (asked []*http.Request, bodies [][]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	asked, bodies = l.asked, l.bodies
	l.asked, l.bodies = nil, nil
	return asked, bodies
}

// upstreamOf returns a change that forwards with the real client.
func upstreamOf(t *testing.T, l http.Handler, mode Mode) func(*Config) {
	t.Helper()
	server := httptest.NewServer(l)
	t.Cleanup(server.Close)
	base, err := liveblocks.ParseBaseURL(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	key, err := liveblocks.ParseKey(projectKey)
	if err != nil {
		t.Fatal(err)
	}
	client := liveblocks.New(liveblocks.Config{
		BaseURL: base, SecretKey: key, IdleTimeout: time.Minute, Timeout: time.Minute, MaxBody: 1 << 20,
		RatePerSecond: 10_000, ProbeMin: time.Second, ProbeMax: time.Second, UserAgent: "mirror", Now: time.Now,
		Logger: slog.New(slog.DiscardHandler), OnPause: func(string) {}, Transport: liveblocks.NewTransport(4),
	})
	t.Cleanup(client.Close)
	return func(c *Config) {
		c.Mode = mode
		c.Permit = func(context.Context, access.Scope, *string) (string, error) { return "p", nil }
		c.Forward = func(project string, r *http.Request, before func() error) (*http.Response, error) {
			if project != "p" {
				return nil, status.Error(codes.Internal, "of no project")
			}
			resp, err := client.Forward("somebody", r, before)
			if errors.Is(err, liveblocks.ErrNoAnswer) {
				err = ErrNoAnswer
			}
			return resp, err
		}
		c.Changed = func(context.Context, []mirror.Request, time.Time) bool { return true }
		c.Record = func(context.Context, string, string, *string) (func(string), error) { return func(string) {}, nil }
		c.Authorize = func(r *http.Request) (context.Context, error) {
			return access.Into(r.Context(), access.Everything("somebody")), nil
		}
	}
}

// sample returns a path of a route, with ids that have to be escaped.
func (r *route) sample() string {
	path := strings.Join(r.path, "/")
	for _, id := range []string{"a%2Fb%3F%23%25%20!'()*~:%C3%B6", "..%2Fx", "%2E%2E%2E", "z"} {
		path = strings.Replace(path, "*", id, 1)
	}
	return Prefix + path + "?b=%2F&a=1&&guid=%22"
}

// Every call of the table that the mirror does not answer arrives at Liveblocks as it was
// sent, with the key of the project and nothing of who calls, and what comes back goes to the
// caller as it is, without anything of the connection.
func TestForwardedAsSent(t *testing.T) {
	t.Parallel()
	answer := []byte("{\"id\":\"x\",\x00\xff not even JSON")
	upstream := &liveblocksAt{answer: func(w http.ResponseWriter, _ *http.Request) {
		for name, v := range map[string]string{
			"Content-Type": "application/x-ndjson", "X-LB-Warn": "careful", "Retry-After": "7", "Set-Cookie": "a=b",
			"X-Request-Id": "1", "Server": "s", "Connection": "X-Secret", "X-Secret": projectKey, "ETag": `"e"`,
		} {
			w.Header().Set(name, v)
		}
		w.WriteHeader(http.StatusAccepted)
		_, _ = w.Write(answer)
	}}
	server := httptest.NewServer(serve(&stub{}, upstreamOf(t, upstream, Mode{Upstream: true, Writes: true})))
	t.Cleanup(server.Close)
	calls := 0
	for _, rt := range newTable() {
		if rt.class == served {
			continue
		}
		calls++
		body := []byte("{\"id\":\"x\",\"newRoomId\":\"y\"}\x00\xff" + strings.Repeat("z", 3000))
		if rt.method == http.MethodGet {
			body = nil
		}
		req, err := http.NewRequestWithContext(t.Context(), rt.method, server.URL+rt.sample(), bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for name, v := range map[string]string{
			"Authorization": "Bearer " + mirrorKey, "Content-Type": "application/what+ever", "Cookie": "k=" + mirrorKey,
			"X-Mine": mirrorKey, "Te": "trailers", "X-Forwarded-For": "1.2.3.4", "Accept": "text/*",
		} {
			req.Header.Set(name, v)
		}
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatalf("%s %s: %v", rt.method, rt.sample(), err)
		}
		got, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusAccepted || !bytes.Equal(got, answer) {
			t.Errorf("%s %s = %d %q, %v; want the answer as it is", rt.method, rt.sample(), resp.StatusCode, got, err)
		}
		var names []string
		for name := range resp.Header {
			names = append(names, name)
		}
		slices.Sort(names)
		const want = "Cache-Control Content-Length Content-Type Date Mirror-Source Retry-After X-Lb-Warn"
		if strings.Join(names, " ") != want || resp.Header.Get("X-LB-Warn") != "careful" ||
			resp.Header.Get("Mirror-Source") != "liveblocks" ||
			resp.Header.Get("Content-Type") != "application/x-ndjson" || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s %s has %v; want %s", rt.method, rt.sample(), resp.Header, want)
		}
		asked, bodies := upstream.take()
		if len(asked) != 1 || asked[0].Method != rt.method || asked[0].RequestURI != rt.sample() ||
			!bytes.Equal(bodies[0], body) {
			t.Fatalf("%s %s: Liveblocks was asked %v %q", rt.method, rt.sample(), asked, bodies)
		}
		header := asked[0].Header
		text, _ := json.Marshal(header)
		if header.Get("Authorization") != "Bearer "+projectKey || header.Get("Content-Type") != "application/what+ever" ||
			header.Get("Accept") != "text/*" || strings.Contains(string(text), mirrorKey) ||
			header.Get("X-Forwarded-For") != "" {
			t.Errorf("%s %s: Liveblocks got %s", rt.method, rt.sample(), text)
		}
	}
	if calls < 89 {
		t.Errorf("calls = %d; want all of the table", calls)
	}
}

// What Liveblocks refuses is passed on; what is no answer is not.
func TestForwardedAnswers(t *testing.T) {
	t.Parallel()
	logs := new(bytes.Buffer)
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request)
		status int
		body   string // the whole of it, or the code in it
	}{
		"refused": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusConflict)
			_, _ = io.WriteString(w, `{"error":"ROOM_ALREADY_EXISTS"} `)
		}, 409, `{"error":"ROOM_ALREADY_EXISTS"} `},
		"trouble": {func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				_, _ = io.WriteString(w, `{"data":[]}`) // the ping
				return
			}
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, "oh no")
		}, 500, "oh no"},
		"too many": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3")
			w.WriteHeader(http.StatusTooManyRequests)
		}, 429, ""},
		"nothing": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, 204, ""},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://elsewhere/?key="+projectKey, http.StatusTemporaryRedirect)
		}, 502, "BAD_GATEWAY"},
		"no answer": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 502, "BAD_GATEWAY"},
		"key": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "the key is "+projectKey[:10])
			_ = http.NewResponseController(w).Flush()
			<-time.After(50 * time.Millisecond)
			_, _ = io.WriteString(w, projectKey[10:]+" as you know")
		}, 502, "BAD_GATEWAY"},
		"key of a refusal": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusUnprocessableEntity)
			_, _ = io.WriteString(w, "Authorization: Bearer "+projectKey)
		}, 0, ""},
		"too long": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(make([]byte, 3<<20))
		}, 0, ""},
	} {
		upstream := &liveblocksAt{answer: c.answer}
		server := httptest.NewServer(serve(&stub{}, upstreamOf(t, upstream, Mode{Writes: true}), func(cfg *Config) {
			cfg.Logger = slog.New(slog.NewTextHandler(logs, nil))
		}))
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
			server.URL+"/v2/rooms/r/threads/t/mark-as-resolved", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := server.Client().Do(req)
		if err != nil {
			asked, _ := upstream.take()
			if c.status != 0 || len(asked) != 1 || !errors.Is(err, io.EOF) || strings.Contains(err.Error(), projectKey) {
				t.Errorf("%s: %v after %d calls", name, err, len(asked))
			}
			server.Close()
			continue
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		server.Close()
		text, _ := json.Marshal(resp.Header)
		if strings.Contains(string(body)+string(text), projectKey) || strings.Contains(string(body), projectKey[:10]) {
			t.Errorf("%s: the key came out: %q %s", name, body, text)
		}
		switch {
		case c.status == 0:
			if err == nil {
				t.Errorf("%s = %d, %d bytes; want it broken off", name, resp.StatusCode, len(body))
			}
		case err != nil || resp.StatusCode != c.status || string(body) != c.body && !strings.Contains(string(body), `"error":"`+c.body+`"`):
			t.Errorf("%s = %d %q, %v; want %d %q", name, resp.StatusCode, body, err, c.status, c.body)
		}
	}
	if strings.Contains(logs.String(), projectKey) || !strings.Contains(logs.String(), "the answer holds the secret key") {
		t.Errorf("logs = %s; want why answers were broken off, without the key", logs)
	}
}

// What cannot be passed on is not, and Liveblocks is not asked.
func TestNotForwarded(t *testing.T) {
	t.Parallel()
	upstream := &liveblocksAt{answer: func(http.ResponseWriter, *http.Request) {}}
	denied := func(code codes.Code) func(*Config) {
		return func(c *Config) {
			c.Permit = func(context.Context, access.Scope, *string) (string, error) { return "", status.Error(code, "no") }
		}
	}
	writes, reads := upstreamOf(t, upstream, Mode{Writes: true}), upstreamOf(t, upstream, Mode{Upstream: true})
	none := func(*Config) {}
	limited := func(c *Config) {
		c.Authorize = func(r *http.Request) (context.Context, error) {
			return access.Into(r.Context(), access.Caller{
				Scopes: access.AllScopes, Projects: []mirror.ProjectID{"p"}, Rooms: []string{"team:"},
			}), nil
		}
	}
	long := strings.Repeat("x", maxNaming)
	for _, c := range []struct {
		mode, change func(*Config)
		method, path string
		body         string
		status       int
	}{
		{writes, denied(codes.PermissionDenied), "POST", "/v2/rooms/r/threads", "{}", 403},
		{writes, denied(codes.NotFound), "POST", "/v2/rooms/r/threads", "{}", 404},
		{writes, none, "POST", "/v2/rooms/../threads", "{}", 404},
		{writes, none, "POST", "/v2/rooms/r/threads/%2E%2E/comments", "{}", 404},
		{writes, none, "DELETE", "/v2/rooms/.", "", 404},
		{writes, none, "POST", "/v2/anything", "{}", 404},
		{writes, none, "PATCH", "/v2/rooms/r", "{}", 405},
		{writes, none, "POST", "/v2/rooms/r/threads?a;b", "{}", 422},
		{writes, none, "POST", "/v2/rooms", `{"id":"` + long + `"}`, 413},
		{writes, none, "GET", "/v2/rooms/r/versions", "", 501},
		{reads, none, "POST", "/v2/rooms/r/threads", "{}", 405},
		{reads, denied(codes.PermissionDenied), "GET", "/v2/rooms/r/versions", "", 403},
		{reads, none, "GET", "/v2/rooms/../versions", "", 404},
		// A proxy that decodes would lead elsewhere.
		{writes, limited, "DELETE", "/v2/rooms/team:1%2F..%2F..%2Frooms%2Fother", "", 404},
		{writes, limited, "DELETE", `/v2/rooms/team:1%5C..%5Cother`, "", 404},
		{writes, limited, "POST", "/v2/rooms/team:1%2F%2Fother/threads", "{}", 404},
		{writes, limited, "DELETE", "/v2/rooms/team:1/threads/x%2F..%2Fy", "", 404},
		{reads, limited, "GET", "/v2/rooms/team:1%2F./versions", "", 404},
		{writes, limited, "POST", "/v2/rooms/team:1%2Fupdate-room-id", "{}", 404},
		{writes, limited, "DELETE", "/v2/rooms/team:1%2Fthreads%2Ft", "", 404},
		{writes, limited, "DELETE", "/v2/rooms/team:1/threads/t%2Fcomments%2Fc", "", 404},
		// What has to be escaped anew would become another path.
		{writes, none, "DELETE", "/v2/rooms/a|b%2Fstorage", "", 404},
	} {
		w := call(serve(&stub{}, c.mode, c.change), c.method, c.path, c.body)
		if asked, _ := upstream.take(); w.Code != c.status || len(asked) > 0 {
			t.Errorf("%s %s = %d %.200s, and %d calls; want %d and none", c.method, c.path, w.Code, w.Body, len(asked), c.status)
		}
	}
	for path, change := range map[string]func(*Config){
		"/v2/rooms/team:1%2Fpage": limited, "/v2/rooms/a%2Fupdate-room-id": none, "/v2/rooms/a%25%2Fb": none,
	} {
		w := call(serve(&stub{}, writes, change), http.MethodPost, path, "{}")
		if asked, _ := upstream.take(); w.Code != http.StatusOK || len(asked) != 1 || asked[0].RequestURI != path {
			t.Errorf("POST %s = %d %s; want it made", path, w.Code, w.Body)
		}
	}
	r := httptest.NewRequest(http.MethodPut, "/v2/rooms/r/ydoc", strings.NewReader("x"))
	r.ContentLength = maxForwarded + 1
	w := httptest.NewRecorder()
	if serve(&stub{}, writes).ServeHTTP(w, r); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("a body that is too long = %d; want 413", w.Code)
	}
}

// Which scope a call needs, and for which room: none stands for all of them.
func TestForwardingScopes(t *testing.T) {
	t.Parallel()
	upstream := &liveblocksAt{answer: func(http.ResponseWriter, *http.Request) {}}
	var asked []string
	h := serve(&stub{}, upstreamOf(t, upstream, Mode{Upstream: true, Writes: true}), func(c *Config) {
		c.Permit = func(_ context.Context, scope access.Scope, room *string) (string, error) {
			in := "all rooms"
			if room != nil {
				in = *room
			}
			asked = append(asked, scope.String()+" in "+in)
			return "", status.Error(codes.PermissionDenied, "no")
		}
	})
	for call, want := range map[string]string{
		"GET /v2/rooms/a%2Fb/versions":                       "rest.upstream in a/b",
		"GET /v2/users/alice/inbox-notifications":            "rest.upstream in all rooms",
		"GET /v2/ai/copilots":                                "rest.upstream in all rooms",
		"POST /v2/rooms/a/threads":                           "rest.write in a",
		"POST /v2/rooms":                                     "rest.write in all rooms",
		"POST /v2/rooms/a/update-room-id":                    "rest.write in all rooms",
		"POST /v2/authorize-user":                            "rest.write in all rooms",
		"POST /v2/inbox-notifications/trigger":               "rest.write in all rooms",
		"POST /v2/groups":                                    "rest.write in all rooms",
		"DELETE /v2/users/alice/notification-settings":       "rest.write in all rooms",
		"POST /v2/rooms/a/users/alice/subscription-settings": "rest.write in a",
	} {
		asked = nil
		method, path, _ := strings.Cut(call, " ")
		req := httptest.NewRequest(method, path, strings.NewReader("{}"))
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, req); w.Code != http.StatusForbidden || strings.Join(asked, ", ") != want {
			t.Errorf("%s = %d after asking for %q; want 403 after %q", call, w.Code, asked, want)
		}
	}
}

// A write names what it has changed, also when its caller is gone by then, and only if it was
// done. If that is not mirrored in time, the answer says so.
func TestWritesTellWhatTheyChange(t *testing.T) {
	t.Parallel()
	code := http.StatusOK
	upstream := &liveblocksAt{answer: func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet { // a ping
			_, _ = io.WriteString(w, `{"data":[]}`)
			return
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, `{"id":"made","more":[1]}`)
	}}
	var told []mirror.Request
	mirrored, sure := true, false
	known := map[mirror.Resource]mirror.Task{}
	for _, room := range []mirror.RoomID{"a", "known"} {
		known[mirror.Resource{Room: room, Kind: mirror.KindRoom}] = mirror.Task{}
	}
	h := serve(&stub{tasks: known}, upstreamOf(t, upstream, Mode{Writes: true}), func(c *Config) {
		c.Changed = func(ctx context.Context, changed []mirror.Request, until time.Time) bool {
			if ctx.Err() != nil {
				t.Error("the request ends with its caller")
			}
			sure = !until.IsZero()
			if left := time.Until(until); sure && (left > changedWait || left < changedWait-2*time.Second) {
				t.Errorf("it is waited for %v; want what is left of %v since the call came", left, changedWait)
			}
			told = changed
			return mirrored
		}
	})
	of := func(room mirror.RoomID, kind mirror.Kind, id string) mirror.Request {
		return mirror.Request{Resource: mirror.Resource{Project: "p", Room: room, Kind: kind, ID: id}, Settle: true}
	}
	off := func(r mirror.Request) mirror.Request { r.Unlisted = true; return r }
	all := func(room mirror.RoomID) []mirror.Request {
		list := []mirror.Request{of(room, mirror.KindRoom, "")}
		for _, kind := range mirror.RoomKinds() {
			list = append(list, of(room, kind, ""))
		}
		return list
	}
	for _, c := range []struct {
		call string
		want []mirror.Request
	}{
		{"POST /v2/rooms", all("new")},
		{"POST /v2/rooms?idempotent", all("new")},
		{"POST /v2/rooms known", all("known")},
		// The caller may not see that it exists.
		{"POST /v2/rooms?idempotent known", []mirror.Request{of("known", mirror.KindRoom, "")}},
		{"POST /v2/rooms/a%2Fb", []mirror.Request{of("a/b", mirror.KindRoom, "")}},
		{"POST /v2/rooms/a/upsert", []mirror.Request{of("a", mirror.KindRoom, "")}},
		{"DELETE /v2/rooms/a", []mirror.Request{off(of("a", mirror.KindRoom, ""))}},
		{"DELETE /v2/rooms/unknown", nil}, // which is a success
		{"POST /v2/rooms/a/update-room-id", append([]mirror.Request{off(of("a", mirror.KindRoom, ""))}, all("other")...)},
		{"POST /v2/rooms/a/send-message", []mirror.Request{of("a", mirror.KindStorage, "")}},
		{"POST /v2/rooms/a/storage", []mirror.Request{of("a", mirror.KindStorage, "")}},
		{"DELETE /v2/rooms/a/storage", []mirror.Request{of("a", mirror.KindStorage, "")}},
		{"PATCH /v2/rooms/a/storage/json-patch", []mirror.Request{of("a", mirror.KindStorage, "")}},
		{"PUT /v2/rooms/a/ydoc", []mirror.Request{of("a", mirror.KindYdoc, "")}},
		{"PUT /v2/rooms/a/ydoc?guid=root", []mirror.Request{of("a", mirror.KindYdoc, "")}},
		{"PUT /v2/rooms/a/ydoc?guid=sub", []mirror.Request{of("a", mirror.KindYdoc, "sub")}},
		{"PUT /v2/rooms/a/ydoc?guid=" + strings.Repeat("x", 600), nil},
		{"POST /v2/rooms/a/threads", []mirror.Request{of("a", mirror.KindThread, "made")}},
		{"DELETE /v2/rooms/a/threads/t", []mirror.Request{off(of("a", mirror.KindThread, "t"))}},
		{"POST /v2/rooms/a/threads/t/comments", []mirror.Request{of("a", mirror.KindThread, "t")}},
		{"DELETE /v2/rooms/a/threads/t/comments/c", []mirror.Request{off(of("a", mirror.KindThread, "t"))}},
		{"POST /v2/rooms/a/threads/t/comments/c/add-reaction", []mirror.Request{of("a", mirror.KindThread, "t")}},
		{"POST /v2/rooms/a/threads/t/subscribe", nil},
		{"POST /v2/rooms/a/broadcast-event", nil},
		{"POST /v2/rooms/a/request-storage-mutation", nil},
		{"POST /v2/groups", []mirror.Request{of("", mirror.KindGroup, "made")}},
		{"DELETE /v2/groups/g", []mirror.Request{off(of("", mirror.KindGroup, "g"))}},
		{"POST /v2/groups/g/add-members", []mirror.Request{of("", mirror.KindGroup, "g")}},
		{"POST /v2/authorize-user", nil},
	} {
		method, path, _ := strings.Cut(c.call, " ")
		path, id, _ := strings.Cut(path, " ")
		if id == "" {
			id = "new"
		}
		for _, code = range []int{200, 201, 403, 422, 429, 500, 503} {
			for _, mirrored = range []bool{true, false} {
				told, sure = nil, true
				w := call(h, method, path, `{"id":"`+id+`","newRoomId":"other"}`)
				want, pending := slices.Clone(c.want), ""
				switch {
				case code >= http.StatusInternalServerError: // it may have been done
					for i := range want {
						want[i].Unlisted = false
						if want[i].Resource.ID == "made" {
							want[i].Resource.ID = "" // it is not known which
						}
					}
				case code >= http.StatusBadRequest:
					want = nil
				case len(want) > 0 && !mirrored:
					pending = "pending"
				}
				if w.Code != code || w.Body.String() != `{"id":"made","more":[1]}` || !slices.Equal(told, want) ||
					w.Header().Get("Mirror-Refresh") != pending || len(want) > 0 && sure != (code < http.StatusBadRequest) {
					t.Errorf("%s = %d %s %v, and %v has changed; want %d and %v", c.call, w.Code, w.Body, w.Header(), told, code, want)
				}
			}
		}
	}
}

// A write that may have been done is noted, too: one without an answer, one whose answer
// breaks off, and one whose caller went away meanwhile. Nobody waits, and nothing is taken for
// gone. What was not made is not noted.
func TestWritesThatMayHaveBeenDoneAreNoted(t *testing.T) {
	t.Parallel()
	thread := mirror.Resource{Project: "p", Room: "r", Kind: mirror.KindThread, ID: "t"}
	list := mirror.Resource{Project: "p", Room: "r", Kind: mirror.KindThread}
	none := mirror.Resource{}
	reached := make(chan struct{}) // closed once Liveblocks has the call whose caller leaves
	for name, c := range map[string]struct {
		call   string
		answer func(w http.ResponseWriter, r *http.Request)
		leaves bool
		status int
		want   mirror.Resource
	}{
		"no answer": {"DELETE /v2/rooms/r/threads/t", func(http.ResponseWriter, *http.Request) {
			panic(http.ErrAbortHandler)
		}, false, 502, thread},
		"no answer to what makes something": {"POST /v2/rooms/r/threads", func(http.ResponseWriter, *http.Request) {
			panic(http.ErrAbortHandler)
		}, false, 502, list},
		"half an answer": {"POST /v2/rooms/r/threads", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"id":"t"`)
		}, false, 502, list},
		"the caller leaves": {"DELETE /v2/rooms/r/threads/t", func(_ http.ResponseWriter, r *http.Request) {
			close(reached)
			<-r.Context().Done()
		}, true, 0, thread},
		"refused": {"DELETE /v2/rooms/r/threads/t", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
		}, false, 404, none},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			upstream := &liveblocksAt{answer: c.answer}
			noted := make(chan mirror.Request, 1)
			h := serve(&stub{}, upstreamOf(t, upstream, Mode{Writes: true}), func(cfg *Config) {
				cfg.Changed = func(ctx context.Context, changed []mirror.Request, until time.Time) bool {
					if ctx.Err() != nil || !until.IsZero() || len(changed) != 1 {
						t.Errorf("Changed(%v, %v, %v); want one, at once", ctx.Err(), changed, until)
					}
					noted <- changed[0]
					return false
				}
			})
			server := httptest.NewServer(h)
			t.Cleanup(server.Close)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			method, path, _ := strings.Cut(c.call, " ")
			req, err := http.NewRequestWithContext(ctx, method, server.URL+path, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			if c.leaves {
				go func() { <-reached; cancel() }()
			}
			resp, err := server.Client().Do(req)
			if err == nil {
				_ = resp.Body.Close()
			}
			if c.leaves != (err != nil) || err == nil && resp.StatusCode != c.status {
				t.Fatalf("%s = %v, %v; want %d", c.call, resp, err, c.status)
			}
			if c.want == none {
				if len(noted) > 0 {
					t.Errorf("%v is noted; want nothing", <-noted)
				}
				return
			}
			select {
			case got := <-noted:
				if got.Resource != c.want || got.Unlisted || !got.Settle {
					t.Errorf("%v is noted; want %v", got, c.want)
				}
			case <-time.After(time.Minute):
				t.Error("it is not noted")
			}
		})
	}
	h := serve(&stub{}, upstreamOf(t, http.NotFoundHandler(), Mode{Writes: true}), func(c *Config) {
		c.Forward = func(string, *http.Request, func() error) (*http.Response, error) {
			return nil, status.Error(codes.Unavailable, "not made")
		}
		c.Changed = func(context.Context, []mirror.Request, time.Time) bool {
			t.Error("a write that was not made is noted")
			return true
		}
	})
	if w := call(h, http.MethodDelete, "/v2/rooms/r/threads/t", ""); w.Code != http.StatusServiceUnavailable {
		t.Errorf("a write that was not made = %d; want 503", w.Code)
	}
}

// Long bodies that are read as a whole share some memory, which they give back. Where there is
// none, a call is not made, and what a long answer names counts as not known.
func TestLongBodiesTakeMemory(t *testing.T) {
	t.Parallel()
	base := upstreamOf(t, http.NotFoundHandler(), Mode{Writes: true}) // its server is not of the bubble
	synctest.Test(t, func(t *testing.T) {
		const answer = `{"id":"made","more":[1]}`
		long := strings.Repeat(" ", 2*readAhead)
		var told []mirror.Request
		calls := 0
		h := serve(&stub{}, base, func(c *Config) {
			c.Memory = 4 * maxNaming // of which a quarter is for bodies
			c.Forward = func(_ string, r *http.Request, before func() error) (*http.Response, error) {
				if err := before(); err != nil {
					return nil, err
				}
				calls++
				body, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				text := answer
				if r.URL.Path == "/v2/rooms/r/threads" {
					text = `{"id":"made","more":"` + long + `"}`
				} else if len(body) < 10 {
					t.Errorf("%s arrived with %d bytes", r.URL.Path, len(body))
				}
				return &http.Response{
					StatusCode: http.StatusOK, Header: http.Header{}, ContentLength: -1, Body: io.NopCloser(strings.NewReader(text)),
				}, nil
			}
			c.Changed = func(_ context.Context, changed []mirror.Request, _ time.Time) bool {
				told = changed
				return true
			}
		})
		for range 3 {
			for made, c := range map[string]struct {
				body          string
				with, without int
				made, listed  string // the id of the thread
			}{
				"POST /v2/rooms":            {`{"id":"new"}` + long, 200, 503, "", ""},
				"POST /v2/rooms short":      {`{"id":"new"}`, 200, 200, "", ""},
				"POST /v2/rooms?idempotent": {`{"id":"new"}` + long, 200, 503, "", ""},
				"PUT /v2/rooms/r/ydoc":      {`{"id":"new"}` + long, 200, 200, "", ""},
				"POST /v2/rooms/r/threads":  {`{}`, 200, 200, "made", ""},
			} {
				method, path, _ := strings.Cut(made, " ")
				path, _, _ = strings.Cut(path, " ")
				for _, taken := range []bool{false, true} {
					want, id := c.with, c.made
					if taken {
						want, id = c.without, c.listed
						if err := h.bodies.Acquire(t.Context(), maxNaming); err != nil {
							t.Fatal(err)
						}
					}
					told, calls = nil, 0
					begin := time.Now()
					w := call(h, method, path, c.body)
					took := time.Since(begin)
					if w.Code != want || (calls == 1) != (want == http.StatusOK) || took > bodyWait ||
						want == 503 && took < bodyWait ||
						strings.Contains(path, "threads") && (told[0].Resource.ID != id || w.Body.Len() < len(long)) {
						t.Errorf("%s, with memory %v = %d %.80s after %v, and %v changed; want %d and %q", made, !taken, w.Code, w.Body,
							took, told, want, id)
					}
					if taken {
						h.bodies.Release(maxNaming)
					}
				}
			}
		}
	})
}

// A room that the mirror has is not asked for at Liveblocks, also where writes are
// forwarded, and for keys that may not write.
func TestGetOrCreateRoom(t *testing.T) {
	t.Parallel()
	upstream := &liveblocksAt{answer: func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"id":"new"}`) }}
	with := func(scopes access.Scopes) func(*Config) {
		return func(c *Config) {
			c.Authorize = func(r *http.Request) (context.Context, error) {
				return access.Into(r.Context(), access.Caller{Scopes: scopes, Rooms: []string{""}}), nil
			}
			c.Permit = func(ctx context.Context, scope access.Scope, _ *string) (string, error) {
				if caller, ok := access.From(ctx); !ok || !caller.Allows(scope) {
					return "", status.Error(codes.PermissionDenied, "no")
				}
				return "p", nil
			}
		}
	}
	read, write := access.ScopesOf(access.Read), access.ScopesOf(access.RESTWrite)
	for _, c := range []struct {
		mode   Mode
		scopes access.Scopes
		body   string
		status int
		source string
	}{
		{Mode{Writes: true}, read | write, `{"id":"r","x":1}`, 200, "mirror"},
		{Mode{Writes: true}, read, `{"id":"r"}`, 200, "mirror"},
		{Mode{}, read, `{"id":"r"}`, 200, "mirror"},
		{Mode{Writes: true}, read | write, `{"id":"new","x":1}`, 200, "liveblocks"},
		{Mode{Writes: true}, write, `{"id":"r","x":1}`, 200, "liveblocks"},
		{Mode{Writes: true}, read | write, `{"x":1}`, 200, "liveblocks"},
		{Mode{Writes: true}, read, `{"id":"new"}`, 403, ""},
		{Mode{}, read | write, `{"id":"new"}`, 405, ""},
		{Mode{Writes: true}, read | write, `{"id":"` + strings.Repeat("x", maxNaming) + `"}`, 413, ""},
	} {
		h := serve(&stub{}, upstreamOf(t, upstream, c.mode), with(c.scopes))
		w := call(h, http.MethodPost, "/v2/rooms?idempotent", c.body)
		asked, bodies := upstream.take()
		forwarded := c.source == "liveblocks"
		if w.Code != c.status || w.Header().Get("Mirror-Source") != c.source || (len(asked) > 0) != forwarded ||
			forwarded && string(bodies[0]) != c.body {
			t.Errorf("%+v, %v: %.60s = %d from %q, and Liveblocks got %q", c.mode, c.scopes.Names(), c.body, w.Code,
				w.Header().Get("Mirror-Source"), bodies)
		}
	}
}

// Writes that delete, or are about more than a room, are recorded in the audit before they
// are made, and not made if they cannot be.
func TestWritesAreRecorded(t *testing.T) {
	t.Parallel()
	upstream := &liveblocksAt{answer: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusConflict) }}
	var log []string
	fails := false
	h := serve(&stub{}, upstreamOf(t, upstream, Mode{Writes: true, Upstream: true}), func(c *Config) {
		c.Record = func(_ context.Context, project, call string, room *string) (func(string), error) {
			if fails {
				return nil, status.Error(codes.Unavailable, "no database")
			}
			in := ""
			if room != nil {
				in = *room
			}
			log = append(log, project+" "+call+" "+in)
			return func(code string) { log = append(log, code) }, nil
		}
	})
	for made, want := range map[string]string{
		"DELETE /v2/rooms/a%2Fb":          "p DELETE /v2/rooms/* a/b, 409",
		"DELETE /v2/rooms/a/threads/t":    "p DELETE /v2/rooms/*/threads/* a, 409",
		"POST /v2/rooms/a/update-room-id": "p POST /v2/rooms/*/update-room-id a, 409",
		"POST /v2/groups":                 "p POST /v2/groups , 409",
		"POST /v2/rooms/a/threads":        "",
		"POST /v2/rooms":                  "",
		"POST /v2/authorize-user":         "",
		"GET /v2/ai/copilots":             "",
	} {
		method, path, _ := strings.Cut(made, " ")
		log, fails = nil, false
		if w := call(h, method, path, `{"id":"x"}`); w.Code != http.StatusConflict || strings.Join(log, ", ") != want {
			t.Errorf("%s = %d with %q in the audit; want %q", made, w.Code, log, want)
		}
		upstream.take()
		fails = want != ""
		w := call(h, method, path, `{"id":"x"}`)
		if asked, _ := upstream.take(); fails && (w.Code != http.StatusServiceUnavailable || len(asked) > 0) {
			t.Errorf("%s that cannot be recorded = %d, and %d calls; want 503 and none", made, w.Code, len(asked))
		}
	}
}

// A call that is not made, such as during a pause, is not recorded.
func TestOnlyCallsAreRecorded(t *testing.T) {
	t.Parallel()
	h := serve(&stub{}, upstreamOf(t, &liveblocksAt{}, Mode{Writes: true}), func(c *Config) {
		c.Forward = func(string, *http.Request, func() error) (*http.Response, error) {
			return nil, status.Error(codes.ResourceExhausted, "paused")
		}
		c.Record = func(context.Context, string, string, *string) (func(string), error) {
			t.Error("a call that was not made was recorded")
			return func(string) {}, nil
		}
	})
	if w := call(h, http.MethodDelete, "/v2/rooms/r", ""); w.Code != http.StatusTooManyRequests {
		t.Errorf("DELETE = %d %s; want it refused", w.Code, w.Body)
	}
}

// A read that the mirror should answer and cannot is passed on, for those who may.
func TestReadsInsteadOfTheMirror(t *testing.T) {
	t.Parallel()
	upstream := &liveblocksAt{answer: func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "theirs") }}
	mode := upstreamOf(t, upstream, Mode{Upstream: true})
	weak := func(c *Config) {
		c.Authorize = func(r *http.Request) (context.Context, error) {
			return access.Into(r.Context(), access.Caller{Scopes: access.ScopesOf(access.Read)}), nil
		}
	}
	for path, code := range map[string]int{
		"/v2/rooms/r/storage":                 503, // not fetched yet
		"/v2/rooms/r/ydoc-binary?encoder=v2":  501,
		"/v2/rooms/r/ydoc?guid=x&key=%22a%22": 503,
	} {
		w := call(serve(&stub{}, mode), http.MethodGet, path, "")
		if w.Code != http.StatusOK || w.Body.String() != "theirs" || w.Header().Get("Mirror-Source") != "liveblocks" {
			t.Errorf("GET %s = %d %s %v; want what Liveblocks answers", path, w.Code, w.Body, w.Header())
		}
		if asked, _ := upstream.take(); len(asked) != 1 || asked[0].RequestURI != path {
			t.Errorf("GET %s: Liveblocks was asked %v", path, asked)
		}
		if w := call(serve(&stub{}, mode, weak), http.MethodGet, path, ""); w.Code != code {
			t.Errorf("GET %s without the scope = %d; want %d", path, w.Code, code)
		}
	}
	for _, path := range []string{"/v2/rooms/r", "/v2/rooms/none", "/v2/rooms/r/threads?query=resolved"} {
		call(serve(&stub{}, mode), http.MethodGet, path, "")
	}
	// Nor is what would be refused then, in place of a failure that passes.
	limited := func(c *Config) {
		c.Authorize = func(r *http.Request) (context.Context, error) {
			return access.Into(r.Context(), access.Caller{Scopes: access.AllScopes, Rooms: []string{"r"}}), nil
		}
	}
	noGroups := &stub{tasks: map[mirror.Resource]mirror.Task{{Kind: mirror.KindGroup}: {State: mirror.TaskPending}}}
	for path, code := range map[string]int{"/v2/groups": 503, "/v2/rooms/r/ydoc-binary?guid=x": 503} {
		if w := call(serve(noGroups, mode, limited), http.MethodGet, path, ""); path == "/v2/groups" != (w.Code == code) {
			t.Errorf("GET %s for a key with prefixes = %d; want %d only where it is about all rooms", path, w.Code, code)
		}
	}
	if asked, _ := upstream.take(); len(asked) != 1 {
		t.Errorf("Liveblocks was asked %v; want for the document in the room alone", asked)
	}
	// A list goes on where it has begun.
	foreign := &stub{tasks: noGroups.tasks, badToken: "theirs"}
	const theirs = "?startingAfter=theirs"
	for _, path := range []string{"/v2/groups", "/v2/groups" + theirs, "/v2/users/u/groups" + theirs} {
		if w := call(serve(foreign, mode), http.MethodGet, path, ""); w.Body.String() != "theirs" {
			t.Errorf("GET %s = %d %s; want what Liveblocks answers", path, w.Code, w.Body)
		}
	}
	upstream.take()
	if w := call(serve(foreign, mode), http.MethodGet, "/v2/groups?startingAfter=ours", ""); w.Code != 503 {
		t.Errorf("a list that began at the mirror and cannot go on = %d; want 503", w.Code)
	}
	// Liveblocks says who is in a room once in ten seconds, for which the mirror has a use.
	for _, path := range []string{"/v2/rooms/r/active_users", "/v2/rooms/r/active-users"} {
		for state, code := range map[mirror.TaskState]int{mirror.TaskPending: 503, mirror.TaskFailed: 501} {
			w := call(serve(&stub{neverEntered: true, tasks: map[mirror.Resource]mirror.Task{
				{Room: "r", Kind: mirror.KindActiveUsers}: {State: state},
			}}, mode), http.MethodGet, path, "")
			if w.Code != code {
				t.Errorf("GET %s before its first fetch = %d; want %d", path, w.Code, code)
			}
		}
	}
	if asked, _ := upstream.take(); len(asked) > 0 {
		t.Errorf("Liveblocks was asked for what the mirror answers: %v", asked)
	}
}

// Once a body has ended, no deadline is set: the server waits for its client to go away
// without one, and would take its end for that.
func TestNoDeadlineAfterTheBody(t *testing.T) {
	t.Parallel()
	extended := 0
	body := &sentBody{
		r: io.NopCloser(strings.NewReader("ab")), left: 10, allowed: time.Minute, until: func(time.Time) { extended++ },
	}
	got, err := io.ReadAll(body)
	if string(got) != "ab" || err != nil || extended == 0 {
		t.Fatalf("the body = %q, %v after %d deadlines; want ab", got, err, extended)
	}
	before := extended
	if n, err := body.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) || extended != before {
		t.Errorf("Read behind the end = %d, %v, and the deadline moved %d times; want EOF alone", n, err, extended-before)
	}
}

// deadlines counts the deadlines that are set for reading.
type deadlines struct {
	*httptest.ResponseRecorder

	set int
}

func (d *deadlines) SetReadDeadline(time.Time) error {
	d.set++
	return nil
}

// So it is for calls whose body has ended before they are forwarded, or that have none.
func TestNoDeadlineWithoutABody(t *testing.T) {
	t.Parallel()
	upstream := &liveblocksAt{answer: func(http.ResponseWriter, *http.Request) {}}
	h := serve(&stub{}, upstreamOf(t, upstream, Mode{Writes: true}))
	for call, set := range map[string]bool{
		"DELETE /v2/rooms/r/threads/t ":                false,
		"POST /v2/rooms/r/threads/t/mark-as-resolved ": false,
		`POST /v2/rooms?idempotent {"id":"new"}`:       false,
		"POST /v2/rooms/r/threads/t/comments {}":       true,
	} {
		method, path, _ := strings.Cut(call, " ")
		path, body, _ := strings.Cut(path, " ")
		r := httptest.NewRequest(method, path, http.NoBody)
		if body != "" {
			r = httptest.NewRequest(method, path, strings.NewReader(body))
		}
		w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		if h.ServeHTTP(w, r); w.Code != http.StatusOK || (w.set > 0) != set {
			t.Errorf("%s = %d, with %d deadlines; want some: %t", call, w.Code, w.set, set)
		}
	}
}

// A body that is longer than it said is refused, and what is half sent is broken off.
func TestForwardedBodiesAreLimited(t *testing.T) {
	t.Parallel()
	sent := func(r io.Reader) *sentBody {
		return &sentBody{r: io.NopCloser(r), left: 3, allowed: time.Minute, until: func(time.Time) {}}
	}
	body := sent(strings.NewReader("abcdef"))
	_, err := io.ReadAll(body)
	failure := body.problem(errors.New("the transport says something else"))
	p, ok := failure.(*problem) //nolint:errorlint // it is never wrapped
	if !errors.Is(err, errBodyTooLong) || !ok || p.status != http.StatusRequestEntityTooLarge {
		t.Errorf("a body that is too long = %v, %v; want 413", err, p)
	}
	body = sent(iotest.ErrReader(io.ErrUnexpectedEOF))
	_, err = io.ReadAll(body)
	if p, ok := body.problem(err).(*problem); !ok || p.status != http.StatusBadRequest { //nolint:errorlint // see above
		t.Errorf("a body that breaks off = %v; want 400", err)
	}
}

// A body is not touched once its call has ended, whoever still holds it: the server may have
// given what it is read with to another request.
func TestBodiesEndWithTheirCalls(t *testing.T) {
	t.Parallel()
	bodies := make(chan io.ReadCloser, 1)
	h := serve(&stub{}, upstreamOf(t, http.NotFoundHandler(), Mode{Writes: true}), func(c *Config) {
		c.Forward = func(_ string, r *http.Request, _ func() error) (*http.Response, error) {
			bodies <- r.Body
			return nil, ErrNoAnswer
		}
	})
	for _, http2 := range []bool{true, false} {
		server := httptest.NewUnstartedServer(h)
		server.EnableHTTP2 = http2
		server.StartTLS()
		t.Cleanup(server.Close)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, server.URL+"/v2/rooms/r/ydoc",
			strings.NewReader(strings.Repeat("x", 3*readAhead)))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		body := <-bodies
		if (resp.ProtoMajor == 2) != http2 || resp.StatusCode != http.StatusBadGateway {
			t.Fatalf("PUT = %s %d; want 502, with HTTP/2 %t", resp.Proto, resp.StatusCode, http2)
		}
		<-time.After(50 * time.Millisecond) // the server cleans up after its answer
		if _, err := io.Copy(io.Discard, body); !errors.Is(err, errBodyOver) {
			t.Errorf("reading the body with HTTP/2 %t after its call = %v; want errBodyOver", http2, err)
		}
	}
}

// A body that arrives slowly is waited for only as long as its bytes allow, and the time that
// it takes to send them on does not count.
func TestSlowBodies(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		each    int
		pause   time.Duration // before each read
		between time.Duration // after it
		want    error
	}{
		"a byte now and then": {1, 29 * time.Second, 0, errBodySlow},
		"a slow link":         {100 << 10, time.Second, 0, nil},
		"slow to be sent on":  {100 << 10, time.Millisecond, time.Hour, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var until time.Time
				ended := false // as HTTP/2 ends a body whose deadline passes
				left := 100
				body := &sentBody{left: 1 << 30, allowed: bodyPatience, until: func(deadline time.Time) { until = deadline }}
				body.r = io.NopCloser(readerFunc(func(p []byte) (int, error) {
					if left--; left < 0 {
						return 0, io.EOF
					}
					deadline := time.Until(until)
					if <-time.After(min(c.pause, deadline)); ended || c.pause > deadline {
						return 0, os.ErrDeadlineExceeded
					}
					return min(c.each, len(p)), nil
				}))
				p := make([]byte, 1<<20)
				for {
					_, err := body.Read(p)
					if err != nil {
						if c.want == nil != errors.Is(err, io.EOF) {
							t.Errorf("the body ends with %v; want %v", err, c.want)
						}
						return
					}
					<-time.After(c.between)
					ended = ended || !until.IsZero() && time.Now().After(until)
				}
			})
		})
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A caller that goes away is noticed before its call is made: a short body has arrived by
// then.
func TestCallersThatLeaveAreNoticed(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	h := serve(&stub{}, upstreamOf(t, http.NotFoundHandler(), Mode{Writes: true}), func(c *Config) {
		c.Forward = func(_ string, r *http.Request, _ func() error) (*http.Response, error) { // as if it waited for its turn
			cancel()
			select {
			case <-r.Context().Done():
				ended <- nil
			case <-time.After(time.Minute):
				ended <- errors.New("the call goes on")
			}
			return nil, status.Error(codes.Unavailable, "not made")
		}
	})
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/v2/rooms/r/threads/t/comments",
		strings.NewReader(strings.Repeat("x", readAhead)))
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := server.Client().Do(req); err == nil {
		_ = resp.Body.Close()
		t.Fatalf("the call is answered %d before its caller goes away", resp.StatusCode)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A read is passed on without a body, of which somebody between might make another request,
// and an answer without a type gets none.
func TestReadsHaveNoBody(t *testing.T) {
	t.Parallel()
	upstream := &liveblocksAt{answer: func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = nil
		_, _ = io.WriteString(w, "<html>")
	}}
	h := serve(&stub{}, upstreamOf(t, upstream, Mode{Upstream: true}))
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		req, err := http.NewRequestWithContext(t.Context(), method, server.URL+"/v2/rooms/r/versions",
			strings.NewReader("GET /v2/rooms HTTP/1.1\r\n\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		asked, bodies := upstream.take()
		if len(asked) != 1 || len(bodies[0]) > 0 || asked[0].ContentLength != 0 || len(asked[0].TransferEncoding) > 0 {
			t.Errorf("%s: Liveblocks got %v %q; want one request without a body", method, asked, bodies)
		}
		if got, ok := resp.Header["Content-Type"]; ok {
			t.Errorf("%s has the type %q; want none", method, got)
		}
	}
}

package blackbox_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// Ids are bytes: what a database, a URL or Unicode takes for the same is not.
func TestNamesStayApart(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		database := e.Database(t)
		s, upstream := startOn(t, database, nil)
		db := e.Connect(t, database)
		// The longest that Liveblocks takes, in the longest characters there are.
		long := strings.Repeat("\U0001f469", 127)
		names := []string{
			long + "\U0001f469", long + "\U0001f468",
			"Room", "room", "room ", "roöm", "a/b:c?d#e%f",
			"roo\u0308m", " room", "room/", "a%2Fb:c?d#e%f", ":read", "storage:read", "..", "+&=;,\"'\\", "日本語 👩‍👩‍👧",
		}
		slices.Sort(names) // by bytes, as lists are
		content := make(map[string][]byte, len(names))
		for i, name := range names {
			content[name] = storage(strconv.Itoa(i))
			create(t, s, upstream, name,
				fake.RoomOptions{Storage: content[name], Metadata: map[string]any{"n": strconv.Itoa(i)}})
		}
		awaitIdle(t, s)

		mirror, events := s.Mirror(t), mirrorv1.NewEventServiceClient(s.Dial(t))
		for i, name := range names {
			room, err := mirror.GetRoom(t.Context(), &mirrorv1.GetRoomRequest{RoomId: name})
			if err != nil {
				t.Fatalf("GetRoom(%q): %v", name, err)
			}
			got := room.GetRoom()
			if got.GetRoomId() != name || got.GetMetadata()["n"].GetStringValue() != strconv.Itoa(i) {
				t.Errorf("room %q = %v", name, got)
			}
			checkOverHTTP(t, s, roomPath(name, ""), room)
			doc, err := mirror.GetStorageDocument(t.Context(), &mirrorv1.GetStorageDocumentRequest{
				RoomId: name, Format: mirrorv1.DocumentFormat_DOCUMENT_FORMAT_PLAIN_LSON,
			})
			if err != nil || string(doc.GetDocument().GetContent()) != string(content[name]) {
				t.Errorf("GetStorageDocument(%q) = %v, %v; want %s", name, doc, err, content[name])
			}
			if status, _, got := s.Get(t, roomPath(name, "/storage:read?format=plain-lson")); status != http.StatusOK ||
				string(got) != string(content[name]) {
				t.Errorf("GET %s = %d %s; want %s", roomPath(name, "/storage:read"), status, got, content[name])
			}
			// Filters mean the same bytes.
			list, err := events.ListEvents(t.Context(), &mirrorv1.ListEventsRequest{RoomId: name})
			if err != nil || len(list.GetEvents()) != 1 || list.GetEvents()[0].GetRoomId() != name {
				t.Errorf("ListEvents of room %q = %v, %v; want its only one", name, list, err)
			}
			_, _, body := s.Get(t, "/v1/events?roomId="+url.QueryEscape(name))
			var listed struct {
				Events []struct {
					RoomID string `json:"roomId"`
				} `json:"events"`
			}
			if err := json.Unmarshal(body, &listed); err != nil || len(listed.Events) != 1 || listed.Events[0].RoomID != name {
				t.Errorf("GET /v1/events of room %q = %s (%v)", name, body, err)
			}
			// So do the users' own statements, about the table of the guides.
			var rows []string
			err = db.Each(t.Context(), "select room_id, "+e.JSON("data", "v")+" from "+guides(t, db)+" where room_id = ?",
				func(scan func(dest ...any) error) error {
					var room, v string
					err := scan(&room, &v)
					if n := slices.Index(names, room); v != strconv.Itoa(n) {
						t.Errorf("liveblocks_documents has %q for room %q; want %d", v, room, n)
					}
					rows = append(rows, room)
					return err
				}, name)
			slices.Sort(rows)
			if err != nil || !slices.Equal(rows, []string{name}) {
				t.Errorf("rows of room %q in liveblocks_documents = %q, %v; want %q", name, rows, err, name)
			}
			// A task is named by an opaque id that holds the name.
			tasks, err := s.Admin(t).ListTasks(t.Context(),
				&mirrorv1.ListTasksRequest{RoomId: name, State: mirrorv1.TaskState_TASK_STATE_DONE})
			if err != nil || len(tasks.GetTasks()) != 4 {
				t.Errorf("ListTasks of room %q = %v, %v; want four: the room, both documents, and the list of threads", name,
					tasks, err)
			}
			for _, task := range tasks.GetTasks() {
				if status, _, body := s.Get(t, "/v1/admin/tasks/"+task.GetTaskId()); status != http.StatusOK {
					t.Errorf("GET task of room %q = %d %s", name, status, body)
				}
			}
		}

		checkLists(t, s, names)
	})
}

// checkLists walks the lists page by page and compares the names in them.
func checkLists(t *testing.T, s *harness.Service, names []string) {
	t.Helper()
	var each []string // of the two documents of a room
	for _, name := range names {
		each = append(each, name, name)
	}
	for path, want := range map[string][]string{"/v1/rooms": names, "/v1/documents": each} {
		var got []string
		for token, more := "", true; more; more = token != "" {
			_, _, body := s.Get(t, path+"?pageSize=3&pageToken="+url.QueryEscape(token))
			var page map[string]json.RawMessage
			if err := json.Unmarshal(body, &page); err != nil {
				t.Fatalf("GET %s: %v: %s", path, err, body)
			}
			var rows []struct {
				RoomID string `json:"roomId"`
			}
			if err := json.Unmarshal(page[strings.TrimPrefix(path, "/v1/")], &rows); err != nil {
				t.Fatalf("GET %s: %v: %s", path, err, body)
			}
			for _, row := range rows {
				got = append(got, row.RoomID)
			}
			if err := json.Unmarshal(page["nextPageToken"], &token); err != nil {
				t.Fatalf("GET %s: %v: %s", path, err, body)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	for prefix, want := range map[string][]string{
		"room": {"room", "room ", "room/"},
		"roo":  {"room", "room ", "room/", "roo\u0308m"}, "a%": {"a%2Fb:c?d#e%f"},
	} {
		list, err := s.Mirror(t).ListRooms(t.Context(), &mirrorv1.ListRoomsRequest{RoomIdPrefix: prefix})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, room := range list.GetRooms() {
			got = append(got, room.GetRoomId())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("rooms that begin with %q (-want +got):\n%s", prefix, diff)
		}
	}
}

// Proxies decode a path, merge its slashes and resolve its dots. The query arrives as
// it was sent.
func TestRoomIDsInTheQuery(t *testing.T) {
	t.Parallel()
	s, upstream := startOn(t, dbtest.Postgres.Database(t), nil)
	target, err := url.Parse(s.URL("/"))
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.URL.Path, r.Out.URL.RawPath = path.Clean(r.In.URL.Path), ""
	}})
	t.Cleanup(proxy.Close)
	names := []string{"a/b", "..", ".", "a//b", "org:acme/doc:1", "../rooms"}
	for _, name := range names {
		create(t, s, upstream, name, fake.RoomOptions{Storage: []byte(`{"liveblocksType":"LiveObject","data":{"name":"` +
			name + `","flow":{"liveblocksType":"LiveObject","data":{"nodes":{"liveblocksType":"LiveMap","data":{}},` +
			`"edges":{"liveblocksType":"LiveMap","data":{}}}}}}`)})
	}
	awaitIdle(t, s)
	get := func(address string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := proxy.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%d %s", resp.StatusCode, body)
	}
	for _, name := range names {
		for segment, query := range map[string]string{
			"": "/v1/room?", "/storage": "/v1/storage?", "/storage:read": "/v1/storage:read?", "/ydoc": "/v1/ydoc?",
			"/storage:read?format=plain-lson": "/v1/storage:read?format=plain-lson&", "/ydoc:read": "/v1/ydoc:read?",
			"/flows": "/v1/flows?", "/flows/flow": "/v1/flow?storage_key=flow&", "/active-users": "/v1/active-users?",
			"/threads": "/v1/threads?", "/user-sessions": "/v1/user-sessions?",
		} {
			query += "room_id=" + url.QueryEscape(name)
			want := get(s.URL("/v1/rooms/" + escaped(name) + segment))
			if !strings.HasPrefix(want, "200 ") {
				t.Errorf("GET %s of room %q = %s", segment, name, want)
			}
			for _, address := range []string{s.URL(query), proxy.URL + query} {
				if got := get(address); got != want {
					t.Errorf("GET %s = %s; want as with the id in the path: %s", address, got, want)
				}
			}
		}
		if got := get(proxy.URL + "/v1/rooms/" + escaped(name) + "/storage:read"); strings.HasPrefix(got, "200 ") {
			t.Errorf("the path with room %q arrives through the proxy, which was to decode it", name)
		}
	}
}

// escaped encodes each byte of an id, since clients resolve dots.
func escaped(id string) string {
	var b strings.Builder
	for _, c := range []byte(id) {
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

package fake

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

const testKey = "sk_fake"

// testClock is the time of the fake in tests that compare its answers.
var testClock = time.Date(2026, 11, 22, 3, 34, 17, 545e6, time.UTC)

func newFake(t *testing.T, ids ...string) *Server {
	t.Helper()
	s := New(testKey)
	s.SetClock(func() time.Time { return testClock })
	for _, id := range ids {
		must(t, s.CreateRoom(id, RoomOptions{}))
	}
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("error = %v; want nil", err)
	}
}

// do sends a request to s without a network.
func do(t *testing.T, s *Server, method, path, body string) (int, string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, "http://fake"+path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+testKey)
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func wantAnswer(t *testing.T, s *Server, method, path, body string, status int, want string) {
	t.Helper()
	gotStatus, got := do(t, s, method, path, body)
	if gotStatus != status || got != want {
		t.Fatalf("%s %s = %d %s; want %d %s", method, path, gotStatus, got, status, want)
	}
}

const emptyRoom = `{"type":"room","id":"r","organizationId":"default","createdAt":"2026-11-22T03:34:17.545Z",` +
	`"metadata":{},"defaultAccesses":["room:write"],"groupsAccesses":{},"usersAccesses":{}}`

func TestRooms(t *testing.T) {
	t.Parallel()
	s := newFake(t)
	notFound := `{"error":"ROOM_NOT_FOUND","message":"Room with id \"r\" not found."}`
	wantAnswer(t, s, "GET", "/v2/rooms/r", "", 404, notFound)
	wantAnswer(t, s, "GET", "/v2/rooms/r/storage", "", 404, notFound)
	wantAnswer(t, s, "POST", "/v2/rooms", `{"id":"r","defaultAccesses":["room:write"]}`, 200, emptyRoom)
	wantAnswer(t, s, "GET", "/v2/rooms/r", "", 200, emptyRoom)
	wantAnswer(t, s, "GET", "/v2/rooms/r/storage", "", 200, EmptyStorage)
	wantAnswer(t, s, "POST", "/v2/rooms", `{"id":"r","defaultAccesses":[]}`, 409,
		`{"error":"ROOM_ALREADY_EXISTS","message":"The room already exists."}`)
	wantAnswer(t, s, "POST", "/v2/rooms?idempotent", `{"id":"r","defaultAccesses":[]}`, 200, emptyRoom)
	wantAnswer(t, s, "POST", "/v2/rooms", `{"id":"x"}`, 422,
		`{"error":"UNPROCESSABLE_ENTITY","message":"Missing key: 'defaultAccesses'."}`)
	if status, _ := do(t, s, "POST", "/v2/rooms", `{"id":`); status != 422 {
		t.Fatalf("POST of half an object = %d; want 422", status)
	}
	wantAnswer(t, s, "DELETE", "/v2/rooms/r", "", 204, "")
	wantAnswer(t, s, "DELETE", "/v2/rooms/r", "", 204, "")
	wantAnswer(t, s, "GET", "/v2/rooms/r", "", 404, notFound)
	for _, path := range []string{
		"/", "/v2", "/v2/rooms/", "/v2/rooms//storage", "/v2/roomsr", "/v2/rooms/r/ydoc",
		"/v2/rooms/r/storage/x",
	} {
		wantAnswer(t, s, "GET", path, "", 404, `{"error":"Not Found"}`)
	}
	wantAnswer(t, s, "PUT", "/v2/rooms", "", 404, `{"error":"Not Found"}`)

	must(t, s.CreateRoom("full", RoomOptions{
		OrganizationID: "acme", Metadata: map[string]any{"tags": []string{"<&>", "ö"}},
		DefaultAccesses: []string{}, GroupsAccesses: map[string][]string{"g": {"room:write"}},
		UsersAccesses: map[string][]string{"u": {"room:read"}}, LastConnectionTime: testClock.Add(time.Second),
		Storage: []byte(`{ }`),
	}))
	wantAnswer(t, s, "GET", "/v2/rooms/full", "", 200, `{"type":"room","id":"full","organizationId":"acme",`+
		`"lastConnectionAt":"2026-11-22T03:34:18.545Z","createdAt":"2026-11-22T03:34:17.545Z","metadata":{"tags":["<&>","ö"]},`+
		`"defaultAccesses":[],"groupsAccesses":{"g":["room:write"]},"usersAccesses":{"u":["room:read"]}}`)
	wantAnswer(t, s, "GET", "/v2/rooms/full/storage?format=plain-lson", "", 200, `{ }`)
}

func TestAuthorisation(t *testing.T) {
	t.Parallel()
	s := newFake(t, "r")
	for header, want := range map[string]string{
		"":                  "401 MISSING_SECRET_KEY",
		"Bearer ":           "401 MISSING_SECRET_KEY",
		"Basic " + testKey:  "401 MISSING_SECRET_KEY",
		"Bearer pk_fake":    "401 WRONG_KEY_USED",
		"Bearer sk_FAKE":    "403 INVALID_SECRET_KEY",
		"Bearer " + testKey: "200 ",
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v2/rooms", http.NoBody)
		r.Header.Set("Authorization", header)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		var body struct{ Error string }
		must(t, json.Unmarshal(w.Body.Bytes(), &body))
		if got := fmt.Sprint(w.Code, " ", body.Error); got != want {
			t.Errorf("Authorization %q = %s; want %s", header, got, want)
		}
	}
}

func TestStorageAsJSON(t *testing.T) {
	t.Parallel()
	s := newFake(t, "r")
	for _, name := range []string{"flow", "storage", "tiptap-storage"} { // recorded from the real server
		lson, err := os.ReadFile("testdata/" + name + ".lson.json")
		must(t, err)
		want, err := os.ReadFile("testdata/" + name + ".plain.json")
		must(t, err)
		must(t, s.SetStorage("r", lson))
		wantAnswer(t, s, "GET", "/v2/rooms/r/storage?format=json", "", 200, string(want))
		wantAnswer(t, s, "GET", "/v2/rooms/r/storage", "", 200, string(lson))
	}
	for lson, want := range map[string]string{
		EmptyStorage: `{}`,
		"":           "",
		`nonsense`:   `nonsense`,
		` {"liveblocksType":"LiveList","data":[ 1 , {"liveblocksType":"LiveMap","data":{}}]}`: `[1,{}]`,
		`{"liveblocksType":"LiveList","data":7}`:                                              `7`,
		`{"liveblocksType":"LiveText","data":[["a",{"liveblocksType":"LiveMap","data":{}}]]}`: `[["a",{"liveblocksType":"LiveMap","data":{}}]]`,
	} {
		must(t, s.SetStorage("r", []byte(lson)))
		wantAnswer(t, s, "GET", "/v2/rooms/r/storage?format=json", "", 200, want)
	}
}

// page lists one page and returns its ids and the path of the next one.
func page(t *testing.T, s *Server, query string) (ids []string, next string) {
	t.Helper()
	status, body := do(t, s, "GET", "/v2/rooms?"+query, "")
	var got struct {
		NextCursor *string
		Data       []struct{ ID string }
	}
	must(t, json.Unmarshal([]byte(body), &got))
	if status != 200 || got.Data == nil {
		t.Fatalf("GET /v2/rooms?%s = %d %s; want a page", query, status, body)
	}
	for _, r := range got.Data {
		ids = append(ids, r.ID)
	}
	if got.NextCursor != nil {
		next = "startingAfter=" + *got.NextCursor
	}
	return ids, next
}

func TestListing(t *testing.T) {
	t.Parallel()
	s := newFake(t)
	if ids, next := page(t, s, ""); ids != nil || next != "" {
		t.Fatalf("empty listing = %v, %q; want nothing", ids, next)
	}
	const n = 5000
	for i := range n {
		must(t, s.CreateRoom(fmt.Sprint("room ", i), RoomOptions{}))
	}
	var all []string
	for next := "limit=100"; next != ""; {
		var ids []string
		ids, next = page(t, s, next)
		all = append(all, ids...)
		if next != "" {
			next += "&limit=100"
		}
		if len(all) == 300 {
			// The room of the cursor, one behind it and one to come go; one
			// comes.
			for _, i := range []int{n - 300, n - 1, 100} {
				must(t, s.DeleteRoom(fmt.Sprint("room ", i)))
			}
			must(t, s.CreateRoom("new", RoomOptions{}))
		}
	}
	if len(all) != n-1 || all[0] != "room 4999" || all[n-2] != "room 0" {
		t.Fatalf("listing = %d rooms, %q first; want %d, the newest first", len(all), all[0], n-1)
	}
	slices.Sort(all)
	if len(slices.Compact(all)) != n-1 || slices.Contains(all, "room 100") {
		t.Fatal("listing repeats a room or has a deleted one")
	}
	rooms := s.Rooms()
	if len(rooms) != n-2 || rooms[0] != "new" || rooms[1] != "room 4998" {
		t.Fatalf("Rooms = %d, %q first; want %d, the newest first", len(rooms), rooms[:2], n-2)
	}
	if ids, next := page(t, s, ""); len(ids) != 20 || next == "" {
		t.Fatalf("listing = %d rooms; want 20 and a cursor", len(ids))
	}
	for _, q := range []string{
		"limit=0", "limit=101", "limit=x", "startingAfter=!", "startingAfter=eA", "query=x",
		"userId=u",
	} {
		if status, body := do(t, s, "GET", "/v2/rooms?"+q, ""); status != 422 {
			t.Errorf("GET /v2/rooms?%s = %d %s; want 422", q, status, body)
		}
	}
}

func TestChangesOfMissingRooms(t *testing.T) {
	t.Parallel()
	s := newFake(t, "r")
	for name, err := range map[string]error{
		"SetStorage":        s.SetStorage("R", nil),
		"SetRoomMetadata":   s.SetRoomMetadata("R", nil),
		"SetRoomSource":     s.SetRoomSource("R", nil),
		"SetLastConnection": s.SetLastConnection("R", testClock),
		"DeleteRoom":        s.DeleteRoom("R"),
	} {
		if !errors.Is(err, ErrNoRoom) {
			t.Errorf("%s = %v; want ErrNoRoom", name, err)
		}
	}
	if err := s.CreateRoom("r", RoomOptions{}); !errors.Is(err, ErrRoomExists) {
		t.Errorf("CreateRoom = %v; want ErrRoomExists", err)
	}
	if err := s.SetRoomMetadata("r", map[string]any{"f": func() {}}); err == nil {
		t.Error("SetRoomMetadata of a function = nil; want an error")
	}
	if _, ok := s.RoomSource("R"); ok {
		t.Error("RoomSource of a missing room = true; want false")
	}
	if _, ok := s.Storage("r"); !ok {
		t.Error("Storage = false; want true")
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	s := newFake(t)
	var got []string
	s.OnEvent(func(ev Event) {
		_, alive := s.RoomSource(ev.RoomID) // the hook may look at the fake
		got = append(got, fmt.Sprint(string(Payload(ev, "p1")), " ", alive))
	})
	must(t, s.CreateRoom(`a/"ö`, RoomOptions{}))
	must(t, s.SetStorage(`a/"ö`, []byte(`{}`)))
	must(t, s.SetRoomMetadata(`a/"ö`, map[string]any{"k": "v"}))
	must(t, s.SetRoomSource(`a/"ö`, []byte(`{}`)))
	must(t, s.SetLastConnection(`a/"ö`, testClock))
	must(t, s.RecreateRoom(`a/"ö`, RoomOptions{}))
	must(t, s.RecreateRoom("b", RoomOptions{}))
	do(t, s, "DELETE", "/v2/rooms/b", "")
	do(t, s, "DELETE", "/v2/rooms/b", "")
	do(t, s, "POST", "/v2/rooms", `{"id":"<c>","defaultAccesses":[]}`)
	s.OnEvent(nil)
	must(t, s.DeleteRoom("<c>"))
	want := []string{
		`{"type":"roomCreated","data":{"createdAt":"2026-11-22T03:34:17.545Z","projectId":"p1","roomId":"a/\"ö"}} true`,
		`{"type":"storageUpdated","data":{"projectId":"p1","roomId":"a/\"ö","updatedAt":"2026-11-22T03:34:17.545Z"}} true`,
		`{"type":"roomDeleted","data":{"deletedAt":"2026-11-22T03:34:17.545Z","projectId":"p1","roomId":"a/\"ö"}} true`,
		`{"type":"roomCreated","data":{"createdAt":"2026-11-22T03:34:17.546Z","projectId":"p1","roomId":"a/\"ö"}} true`,
		`{"type":"roomCreated","data":{"createdAt":"2026-11-22T03:34:17.545Z","projectId":"p1","roomId":"b"}} true`,
		`{"type":"roomDeleted","data":{"deletedAt":"2026-11-22T03:34:17.545Z","projectId":"p1","roomId":"b"}} false`,
		`{"type":"roomCreated","data":{"createdAt":"2026-11-22T03:34:17.545Z","projectId":"p1","roomId":"<c>"}} true`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("events (-want +got):\n%s", diff)
	}
	if got := string(Payload(Event{Type: "other", RoomID: "r"},
		"p")); got != `{"type":"other","data":{"projectId":"p","roomId":"r"}}` {
		t.Fatalf("Payload = %s; want no time", got)
	}
}

func TestScripts(t *testing.T) {
	t.Parallel()
	s := newFake(t, "a", "b")
	s.Script(Match{}) // nothing
	s.Script(Match{Room: "a", Endpoint: EndpointStorage}, Status(500, "X").Times(2), Usual(), Status(501, "X"))
	s.Script(Match{Room: "a"}, Status(502, "X"))
	s.Script(Match{Endpoint: EndpointStorage}, Status(503, "X"))
	if n := s.StepsLeft(); n != 6 {
		t.Fatalf("StepsLeft = %d; want 6", n)
	}
	var got []int
	for _, call := range strings.Fields("b a/storage a a a/storage a/storage b/storage b/storage a/storage a/storage") {
		status, _ := do(t, s, "GET", "/v2/rooms/"+call, "")
		got = append(got, status)
	}
	if diff := cmp.Diff([]int{200, 500, 502, 200, 500, 200, 503, 200, 501, 200}, got); diff != "" {
		t.Fatalf("answers (-want +got):\n%s", diff)
	}
	s.Script(Match{}, Status(500, "X").Always(), Usual())
	for range 3 {
		if got, _ := do(t, s, "GET", "/v2/rooms/a", ""); got != 500 {
			t.Fatalf("answer = %d; want 500 for ever", got)
		}
	}
	if n := s.StepsLeft(); n != 2 {
		t.Fatalf("StepsLeft = %d; want 2", n)
	}
	s.ClearScripts()
	if got, _ := do(t, s, "GET", "/v2/rooms/a", ""); got != 200 {
		t.Fatalf("answer = %d; want 200", got)
	}
}

func TestStale(t *testing.T) {
	t.Parallel()
	s := newFake(t, "r")
	read := func() string {
		status, body := do(t, s, "GET", "/v2/rooms/r/storage", "")
		return fmt.Sprint(status, " ", body)
	}
	want := func(answers ...string) {
		t.Helper()
		for _, a := range answers {
			if got := read(); !strings.HasPrefix(got, a) {
				t.Fatalf("answer = %s; want %s", got, a)
			}
		}
	}
	s.Script(Match{}, Stale(2))
	want("404", "404", "200 "+EmptyStorage)
	must(t, s.SetStorage("r", []byte("1")))
	must(t, s.SetRoomMetadata("r", nil)) // another resource
	s.Script(Match{}, Stale(1))
	want("200 "+EmptyStorage, "200 1")
	must(t, s.DeleteRoom("r"))
	s.Script(Match{}, Stale(1))
	want("200 1", "404")
	must(t, s.CreateRoom("r", RoomOptions{Storage: []byte("2")}))
	s.Script(Match{}, Stale(1))
	want("404", "200 2")
	must(t, s.RecreateRoom("r", RoomOptions{Storage: []byte("3")}))
	s.Script(Match{}, Stale(1))
	want("200 2", "200 3")
}

// The difference between an old answer that comes late and a late answer.
func TestOldAndLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFake(t, "r")
		s.SetClock(time.Now)
		hold := NewHold()
		s.Script(Match{}, hold.Step(), hold.Step().Late(), Slow(time.Minute), Slow(time.Minute).Late())
		var wg sync.WaitGroup
		answers := make([]string, 6)
		for i := range answers {
			if i == 4 { // the last two calls are delayed, not scripted
				s.SetDelay(func(c Call) Delay {
					if c.Room != "r" || c.Endpoint != EndpointStorage {
						t.Errorf("delay asked for %+v; want the call", c)
					}
					return Delay{After: time.Minute}
				})
			}
			if i == 5 {
				s.SetDelay(func(Call) Delay { return Delay{Before: time.Minute} })
			}
			wg.Go(func() { _, answers[i] = do(t, s, "GET", "/v2/rooms/r/storage", "") })
			synctest.Wait()
		}
		<-hold.Arrived()
		<-hold.Arrived()
		must(t, s.SetStorage("r", []byte("new")))
		hold.Release()
		hold.Release()
		wg.Wait()
		want := []string{EmptyStorage, "new", EmptyStorage, "new", EmptyStorage, "new"}
		if diff := cmp.Diff(want, answers); diff != "" {
			t.Fatalf("answers (-want +got):\n%s", diff)
		}
		for i, c := range s.Log() {
			if took, want := c.End.Sub(c.Begin), []time.Duration{0, time.Minute}[min(1, i/2)]; took != want || c.Status != 200 {
				t.Errorf("call %d = %d after %v; want 200 after %v", i, c.Status, took, want)
			}
		}
	})
}

// A caller that goes away leaves nothing behind.
func TestCallerGoesAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFake(t, "r")
		s.Script(Match{}, NewHold().Step(), NewHold().Step().Late(), Slow(time.Hour))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for i := range 5 {
			if i == 3 {
				s.SetDelay(func(Call) Delay { return Delay{Before: time.Hour} })
			}
			if i == 4 {
				s.SetDelay(func(Call) Delay { return Delay{After: time.Hour} })
			}
			wg.Go(func() {
				r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/v2/rooms/r", http.NoBody)
				s.ServeHTTP(httptest.NewRecorder(), r)
			})
			synctest.Wait()
		}
		wg.Wait()
		for i, c := range s.Log() {
			if c.Status != 0 || c.End.IsZero() {
				t.Errorf("call %d = %+v; want an end without a status", i, c)
			}
		}
	})
}

func TestDamage(t *testing.T) {
	t.Parallel()
	s := newFake(t, "r")
	doc := `{"data":"` + strings.Repeat("x", 100_000) + `"}`
	must(t, s.SetStorage("r", []byte(doc)))
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	get := func() (int, int64, string, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/v2/rooms/r/storage", http.NoBody)
		must(t, err)
		req.Header.Set("Authorization", "Bearer "+testKey)
		resp, err := srv.Client().Do(req)
		must(t, err)
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		return resp.StatusCode, resp.ContentLength, string(body), err
	}
	for name, test := range map[string]struct {
		step   Step
		length int64
		err    string
	}{
		"usual":           {Usual(), int64(len(doc)), ""},
		"chunked":         {Usual().Chunked(), -1, ""},
		"gzip":            {Usual().Gzip(), -1, ""},
		"reset":           {ResetMidBody(), int64(len(doc)), "connection reset by peer"},
		"reset of chunks": {ResetMidBody().Chunked(), -1, "connection reset by peer"},
		"short":           {Truncate(), int64(len(doc)), "unexpected EOF"},
		"short of chunks": {Truncate().Chunked(), -1, "unexpected EOF"},
	} {
		s.Script(Match{}, test.step)
		status, length, body, err := get()
		whole := test.err == ""
		if status != 200 || length != test.length || (err == nil) != whole || (body == doc) != whole {
			t.Errorf("%s = %d, length %d, %d bytes, %v; want length %d", name, status, length, len(body), err, test.length)
		}
		if !whole && (!strings.Contains(err.Error(), test.err) || !strings.HasPrefix(doc, body)) {
			t.Errorf("%s = %v; want the first half, then %s", name, err, test.err)
		}
	}
	s.Script(Match{}, TooLarge(1234), Garbage())
	if status, length, body, err := get(); status != 200 || length != 1234 || err != nil || !json.Valid([]byte(body)) {
		t.Errorf("too large = %d, length %d, %v; want 1234 bytes of JSON", status, length, err)
	}
	if status, _, body, err := get(); status != 200 || err != nil || json.Valid([]byte(body)) {
		t.Errorf("garbage = %d, %s, %v; want something that is not JSON", status, body, err)
	}
}

func TestCounts(t *testing.T) {
	t.Parallel()
	s := newFake(t, "a")
	for _, path := range []string{
		"/v2/rooms", "/v2/rooms/a", "/v2/rooms/a", "/v2/rooms/a/storage", "/v2/rooms/b/storage",
		"/v2/rooms/a%2Fb", "/x",
	} {
		do(t, s, "GET", path, "")
	}
	for _, test := range []struct {
		room     string
		endpoint Endpoint
		want     int
	}{
		{"", "", 7},
		{"a", "", 3},
		{"a", EndpointRoom, 2},
		{"", EndpointStorage, 2},
		{"a/b", EndpointRoom, 1},
		{"", EndpointListRooms, 1},
		{"", EndpointUnknown, 1},
		{"b", EndpointRoom, 0},
	} {
		if got := s.Calls(test.room, test.endpoint); got != test.want {
			t.Errorf("Calls(%q, %q) = %d; want %d", test.room, test.endpoint, got, test.want)
		}
	}
	want := Call{
		Method: "GET", Endpoint: EndpointRoom, Room: "a/b", Path: "/v2/rooms/a%2Fb",
		Begin: testClock, End: testClock, Status: 404,
	}
	if diff := cmp.Diff(want, s.Log()[5]); diff != "" {
		t.Fatalf("Log (-want +got):\n%s", diff)
	}
}

func TestLogIsBounded(t *testing.T) {
	t.Parallel()
	s := newFake(t)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/x", http.NoBody)
	w := httptest.NewRecorder()
	for range logLimit + 1 {
		s.ServeHTTP(w, r)
		w.Body.Reset()
	}
	if n := len(s.Log()); n != logLimit/2+1 {
		t.Fatalf("Log = %d calls; want %d", n, logLimit/2+1)
	}
	if n := s.Calls("", ""); n != logLimit+1 {
		t.Fatalf("Calls = %d; want %d", n, logLimit+1)
	}
}

// Everything at once; the race detector is the judge, and the truth at the end.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	s := New(testKey)
	var events sync.Map
	s.OnEvent(func(ev Event) { events.Store(ev, true) })
	s.SetDelay(func(Call) Delay { return Delay{After: rand.N(time.Millisecond)} })
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			id := fmt.Sprint("room ", w%4)
			for i := range 100 {
				switch i % 5 {
				case 0:
					_ = s.RecreateRoom(id, RoomOptions{Metadata: map[string]any{"i": i}})
				case 1:
					_ = s.SetStorage(id, fmt.Append(nil, i))
				case 2:
					_ = s.SetRoomMetadata(id, map[string]any{"i": i})
				case 3:
					s.Script(Match{Room: id}, Stale(1), TooMany("1"))
				case 4:
					_ = s.DeleteRoom(id)
				}
				for _, path := range []string{
					"/v2/rooms", "/v2/rooms/room%20" + fmt.Sprint(w%4),
					"/v2/rooms/room%20" + fmt.Sprint(w%4) + "/storage",
				} {
					do(t, s, "GET", path, "")
				}
				_, _, _ = s.Rooms(), s.Log(), s.StepsLeft()
			}
		})
	}
	wg.Wait()
	s.SetDelay(nil)
	s.ClearScripts()
	if n := s.Calls("", ""); n != 2400 {
		t.Fatalf("Calls = %d; want 2400", n)
	}
	for i := range 4 {
		must(t, s.RecreateRoom(fmt.Sprint("room ", i), RoomOptions{}))
	}
	ids, _ := page(t, s, "limit=100")
	if diff := cmp.Diff([]string{"room 3", "room 2", "room 1", "room 0"}, ids); diff != "" {
		t.Fatalf("listing (-want +got):\n%s", diff)
	}
	for _, id := range ids {
		want, _ := s.RoomSource(id)
		if _, got := do(t, s, "GET", "/v2/rooms/"+strings.ReplaceAll(id, " ", "%20"), ""); !bytes.Equal(want, []byte(got)) {
			t.Fatalf("GET %s = %s; want %s", id, got, want)
		}
	}
}

func BenchmarkStorage(b *testing.B) {
	s := New(testKey)
	for i := range 5000 {
		if err := s.CreateRoom(fmt.Sprint(i), RoomOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/v2/rooms/"+fmt.Sprint(rand.IntN(5000))+
				"/storage", http.NoBody)
			r.Header.Set("Authorization", "Bearer "+testKey)
			s.ServeHTTP(httptest.NewRecorder(), r)
		}
	})
}

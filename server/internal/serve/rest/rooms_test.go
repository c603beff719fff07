package rest

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// roomStub lists the rooms 0 to 6, three at a time at most, and keeps what it was asked.
type roomStub struct {
	*stub

	asked []*mirrorv1.ListRoomsRequest
}

func (s *roomStub) ListRooms(_ context.Context, req *mirrorv1.ListRoomsRequest) (*mirrorv1.ListRoomsResponse, error) {
	s.asked = append(s.asked, req)
	begin := 0
	_, _ = fmt.Sscan(req.GetPageToken(), &begin)
	end := min(begin+min(int(req.GetPageSize()), 3), 7)
	got := &mirrorv1.ListRoomsResponse{}
	for n := begin; n < end; n++ {
		got.Rooms = append(got.Rooms, &mirrorv1.Room{SourceJson: fmt.Appendf(nil, `{"id":%d }`, n), Freshness: s.freshness()})
	}
	if end < 7 {
		got.NextPageToken = fmt.Sprint(end)
	}
	return got, nil
}

func serveRooms(tasks map[mirror.Resource]mirror.Task) (*roomStub, http.Handler) {
	s := &roomStub{stub: &stub{tasks: tasks}}
	return s, serveMirror(s.stub, s)
}

// sweptOnce is that a sweep has read the list of rooms.
var sweptOnce = map[mirror.Resource]mirror.Task{
	{Kind: mirror.KindSweep}: {State: mirror.TaskPending, FetchTime: early},
}

func TestRoomPages(t *testing.T) {
	t.Parallel()
	const none = `{"nextPage":null,"nextCursor":null,"data":[`
	by := url.QueryEscape
	for _, c := range []struct{ path, want string }{
		{
			"?limit=2",
			`{"nextPage":"/v2/rooms?limit=2\u0026startingAfter=2","nextCursor":"2","data":[{"id":0 },{"id":1 }]}`,
		},
		{
			"?limit=5&startingAfter=1&query=roomId%5E%22r%22",
			`{"nextPage":"/v2/rooms?limit=5\u0026query=roomId%5E%22r%22\u0026startingAfter=6","nextCursor":"6",` +
				`"data":[{"id":1 },{"id":2 },{"id":3 },{"id":4 },{"id":5 }]}`,
		},
		{"?startingAfter=5", none + `{"id":5 },{"id":6 }]}`},
		{"?limit=nonsense&startingAfter=6", none + `{"id":6 }]}`},
		{"?query=" + by(`roomId:"r"`), none + `{"id":"r" }]}`},
		{"?query=" + by(`roomId:"x"`), none + `]}`},
		{"?userId=u&query=" + by(`roomId:"r"`), none + `]}`},
		{"?query=" + by(`roomId:"r" roomId^"s"`), none + `]}`},
		{"?query=" + by(`roomId^"ab" AND roomId^"b"`), none + `]}`},
		{"?query=" + by(`metadata["a"]:"1"metadata["a"]:"2"`), none + `]}`},
	} {
		_, h := serveRooms(sweptOnce)
		w := call(h, http.MethodGet, "/v2/rooms"+c.path, "")
		if w.Code != http.StatusOK || w.Body.String() != c.want {
			t.Errorf("GET /v2/rooms%s = %d %s; want %s", c.path, w.Code, w.Body, c.want)
		}
		if got := w.Header().Get("Mirror-Fetch-Time"); got != "2026-11-22T10:00:00Z" {
			t.Errorf("GET /v2/rooms%s is of %s; want the time of the sweep", c.path, got)
		}
	}
}

func TestRoomFilters(t *testing.T) {
	t.Parallel()
	groups := strings.TrimSuffix(strings.Repeat("g,", 50), ",")
	for path, want := range map[string]*mirrorv1.ListRoomsRequest{
		"?limit=1000": {PageSize: 100},
		"?query=":     {PageSize: 20},
		"?userId=u&groupIds=a,,b,a&organizationId=o&tenantId=t": {
			PageSize: 20, UserId: "u", GroupIds: []string{"a", "b"}, OrganizationId: "o",
		},
		"?groupIds=" + groups: {PageSize: 20, GroupIds: []string{"g"}},
		"?query=" + url.QueryEscape(`roomId^"a" AND roomId^"ab" metadata["k"]:"v" and metadata["k"]:"v"`) + "&metadata.x=y": {
			PageSize: 20, RoomIdPrefix: "ab", Metadata: map[string]string{"k": "v"},
		},
		"?metadata.x=y&metadata.x=z&metadata.y=": {PageSize: 20, Metadata: map[string]string{"x": "z", "y": ""}},
	} {
		s, h := serveRooms(sweptOnce)
		w := call(h, http.MethodGet, "/v2/rooms"+path, "")
		want.ProjectId, want.View, want.OrderBy = "p", mirrorv1.RoomView_ROOM_VIEW_FULL, "create_time desc"
		if w.Code != http.StatusOK || len(s.asked) == 0 {
			t.Fatalf("GET /v2/rooms%s = %d %s", path, w.Code, w.Body)
		}
		if d := cmp.Diff(want, s.asked[0], protocmp.Transform()); d != "" {
			t.Errorf("GET /v2/rooms%s asks for (-want +got):\n%s", path, d)
		}
	}
}

func TestRoomsAreRefused(t *testing.T) {
	t.Parallel()
	var many []string
	for n := range maxGroups + 1 {
		many = append(many, fmt.Sprint("g", n))
	}
	for _, c := range []struct {
		path   string
		tasks  map[mirror.Resource]mirror.Task
		status int
		code   string
	}{
		{"?query=roomId", sweptOnce, http.StatusUnprocessableEntity, "INVALID_QUERY"},
		{"?query=" + url.QueryEscape(`resolved:true`), sweptOnce, http.StatusUnprocessableEntity, "INVALID_QUERY"},
		{"?groupIds=" + strings.Join(many, ","), sweptOnce, http.StatusUnprocessableEntity, "UNPROCESSABLE_ENTITY"},
		{"", nil, http.StatusServiceUnavailable, "NOT_MIRRORED_YET"},
		{
			"",
			map[mirror.Resource]mirror.Task{{Kind: mirror.KindSweep}: {State: mirror.TaskRunning}},
			http.StatusServiceUnavailable, "NOT_MIRRORED_YET",
		},
		{
			"",
			map[mirror.Resource]mirror.Task{{Kind: mirror.KindSweep}: {State: mirror.TaskFailed}},
			http.StatusNotImplemented, "NOT_MIRRORED",
		},
	} {
		s, h := serveRooms(c.tasks)
		w := call(h, http.MethodGet, "/v2/rooms"+c.path, "")
		if w.Code != c.status || !strings.Contains(w.Body.String(), `"error":"`+c.code+`"`) || len(s.asked) > 0 {
			t.Errorf("GET /v2/rooms%s = %d %s; want %d %s", c.path, w.Code, w.Body, c.status, c.code)
		}
	}
}

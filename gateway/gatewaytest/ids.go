package gatewaytest

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"pgregory.net/rapid"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

var idCases = []testCase{
	{"IDsArriveByteForByte", idsArrive},
	{"AnyIDArrivesByteForByte", anyIDArrives},
	{"UnstorableIDsAreRefused", unstorableIDs},
	{"QueryValuesArriveByteForByte", queryValuesArrive},
}

// idRoute is a route with an id in the path, and where the echo shows it.
type idRoute struct {
	method, path string // %s stands for the id
	id           func(any) string
}

var idRoutes = []idRoute{
	{"GET", "/v1/rooms/%s", field((*mirrorv1.GetRoomRequest).GetRoomId)},
	{"GET", "/v1/rooms/%s/storage", field((*mirrorv1.GetStorageDocumentRequest).GetRoomId)},
	{"GET", "/v1/rooms/%s/storage:read", field((*mirrorv1.ReadDocumentRequest).GetRoomId)},
	{"GET", "/v1/rooms/%s/ydoc", field((*mirrorv1.GetYjsDocumentRequest).GetRoomId)},
	{"GET", "/v1/rooms/%s/ydoc:read", field((*mirrorv1.ReadDocumentRequest).GetRoomId)},
	{"GET", "/v1/rooms/%s/threads", field((*mirrorv1.ListThreadsRequest).GetRoomId)},
	{"GET", "/v1/groups/%s", field((*mirrorv1.GetGroupRequest).GetGroupId)},
	{"GET", "/v1/users/%s/groups", field((*mirrorv1.ListGroupsRequest).GetUserId)},
	{"GET", "/v1/rooms/%s/threads/th_1", field((*mirrorv1.GetThreadRequest).GetRoomId)},
	{"GET", "/v1/rooms/r/threads/%s", field((*mirrorv1.GetThreadRequest).GetThreadId)},
	{"GET", "/v1/rooms/%s/threads/th_1/comments", field((*mirrorv1.ListCommentsRequest).GetRoomId)},
	{"GET", "/v1/rooms/r/threads/%s/comments", field((*mirrorv1.ListCommentsRequest).GetThreadId)},
	{"GET", "/v1/rooms/%s/threads/th_1/comments/cm_1", field((*mirrorv1.GetCommentRequest).GetRoomId)},
	{"GET", "/v1/rooms/r/threads/%s/comments/cm_1", field((*mirrorv1.GetCommentRequest).GetThreadId)},
	{"GET", "/v1/rooms/r/threads/th_1/comments/%s", field((*mirrorv1.GetCommentRequest).GetCommentId)},
	{"GET", "/v1/rooms/%s/active-users", field((*mirrorv1.ListActiveUsersRequest).GetRoomId)},
	{"GET", "/v1/rooms/%s/user-sessions", field((*mirrorv1.ListUserSessionsRequest).GetRoomId)},
	{"GET", "/v1/rooms/%s/flows", field((*mirrorv1.ListFlowsRequest).GetRoomId)},
	{"GET", "/v1/rooms/%s/flows/flow", field((*mirrorv1.GetFlowRequest).GetRoomId)},
	{"GET", "/v1/rooms/r/flows/%s", field((*mirrorv1.GetFlowRequest).GetStorageKey)},
	{"GET", "/v1/events/%s", field((*mirrorv1.GetEventRequest).GetEventId)},
	{"GET", "/v1/admin/tasks/%s", field((*mirrorv1.GetTaskRequest).GetTaskId)},
	{"POST", "/v1/admin/tasks/%s:retry", field((*mirrorv1.RetryTaskRequest).GetTaskId)},
	{"POST", "/v1/admin/tasks/%s:discard", field((*mirrorv1.DiscardTaskRequest).GetTaskId)},
	{"POST", "/v1/admin/rooms/%s/sync:request", field((*mirrorv1.RequestSyncRequest).GetRoomId)},
	{"POST", "/v1/projects/%s/webhooks/liveblocks", field((*mirrorv1.ReceiveWebhookRequest).GetProjectId)},
}

// field reads a field of requests of one type.
func field[T any](get func(T) string) func(any) string {
	return func(req any) string {
		if v, ok := req.(T); ok {
			return get(v)
		}
		return fmt.Sprintf("of a %T", req)
	}
}

// everyByte escapes all of id; url.PathEscape only what must be.
func everyByte(id string) string {
	var b strings.Builder
	for i := range len(id) {
		fmt.Fprintf(&b, "%%%02x", id[i])
	}
	return b.String()
}

func arrives(t testing.TB, r *rig, id string, escapes ...func(string) string) {
	t.Helper()
	for _, route := range idRoutes {
		for _, escape := range escapes {
			path := fmt.Sprintf(route.path, escape(id))
			a := r.do(t, route.method, r.url+path, nil)
			a.accepted(t, nil)
			if got := route.id(r.onlyCall(t).req); got != id {
				t.Errorf("%s %s brought the id %q; want %q", route.method, path, got, id)
			}
		}
	}
}

func idsArrive(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	for _, id := range []string{
		"a/b:c?d#e%f", "room", "room ", " room", "Room", "roöm", "ro\u0308om", "日本語", "🦄", "\u202eevil",
		"a:read", ":read", "read", "a:retry", ":retry", ":request", ":", "::", "storage:read", "a/storage:read", "x/storage",
		".", "..", "../..", "./a", "a/../b", "/", "//", "/a", "a/", "a//b", `\`, `..\..`,
		"%", "%%", "%2F", "%252F", "%25", "%zz", "%00", "a%3Aread", "100%",
		"+", "a+b c", "a&b=c", "?", "#", ";", "a;b=c", ",", "@", "$", "*", "!", "'", `"`, "(", "[x]", "{room_id}", "<>", "^",
		"|", "~", "`",
		"\t", "\n", "\r\n", "\x7f", "\u0080", "\ufeff", "\ufffd",
		"webhooks", "liveblocks", "projects", "healthz", strings.Repeat("x", 512), strings.Repeat("/", 512),
	} {
		arrives(t, r, id, everyByte, url.PathEscape)
	}
}

func anyIDArrives(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	ids := rapid.StringN(1, -1, 512).Filter(func(s string) bool { return s != "" && !strings.ContainsRune(s, 0) })
	special := rapid.StringOfN(rapid.SampledFrom([]rune(`/:?#%.;&=+ 2FfreadA`)), 1, 64, 512)
	rapid.Check(t, func(rt *rapid.T) {
		escape := everyByte
		if rapid.Bool().Draw(rt, "sparing") {
			escape = url.PathEscape
		}
		arrives(t, r, rapid.OneOf(ids, special).Draw(rt, "id"), escape)
	})
}

func unstorableIDs(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	for _, escaped := range []string{"%00", "a%00b", "%ff", "%c3", "%ed%a0%80", "%c0%80"} {
		for _, route := range idRoutes {
			r.do(t, route.method, r.url+fmt.Sprintf(route.path, escaped), nil).refused(t, http.StatusBadRequest, "ID_INVALID")
		}
		r.get(t, "/v1/events?room_id="+escaped).refused(t, http.StatusBadRequest, "REQUEST_INVALID")
		r.post(t, hook+"?project_id="+escaped, "{}").refused(t, http.StatusBadRequest, "REQUEST_INVALID")
	}
	r.noCall(t)
}

func queryValuesArrive(t *testing.T, dial Dial) {
	r := newRig(t, dial, nil)
	for _, id := range []string{"a/b:c?d#e%f", "room ", "a+b", "a&b=c", "a;b", "日本語", "%2F", "\n"} {
		r.get(t, "/v1/events?room_id="+url.QueryEscape(id)).accepted(t, nil)
		if got := field((*mirrorv1.ListEventsRequest).GetRoomId)(r.onlyCall(t).req); got != id {
			t.Errorf("room_id = %q; want %q", got, id)
		}
	}
}

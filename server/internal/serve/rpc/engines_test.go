package rpc

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/presence"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/thread"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
)

// filled is the services over a database, and a way to put into it what was
// fetched.
type filled struct {
	*harness
	t     *testing.T
	store store.Store
}

func onEngine(t *testing.T, e *dbtest.Engine) *filled {
	t.Helper()
	url := e.Database(t)
	db, err := engine.Open(t.Context(), engine.Config{URL: url, MaxConns: 4})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(db.Close)
	h := start(t, func(d *Deps) {
		d.Query = db
		d.Log = discard
	})
	return &filled{harness: h, t: t, store: db}
}

// put applies under a lease what apply makes of it.
func (f *filled) put(r mirror.Resource, apply func(context.Context, mirror.Lease) (mirror.Applied, error)) {
	f.t.Helper()
	ctx := f.t.Context()
	if _, err := f.store.Request(ctx, []mirror.Request{{Resource: r}}, noon); err != nil {
		f.t.Fatalf("Request %v: %v", r, err)
	}
	var token [16]byte
	rand.Read(token[:])
	lease, err := f.store.Claim(ctx, r, token, noon, time.Minute)
	if err != nil {
		f.t.Fatalf("Claim %v: %v", r, err)
	}
	if _, err := apply(ctx, lease); err != nil {
		f.t.Fatalf("apply %v: %v", r, err)
	}
}

func (f *filled) putRoom(id mirror.RoomID) mirror.Resource {
	f.t.Helper()
	room := mirror.Resource{Project: project, Room: id, Kind: mirror.KindRoom}
	f.put(room, func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
		return f.store.ApplyRoom(ctx, lease, mirror.RoomContent{FetchTime: noon, Source: []byte(`{}`),
			CreateTime: noon.Add(-time.Hour)}, noon, 0)
	})
	return room
}

func (f *filled) putThread(room mirror.RoomID, source string) {
	f.t.Helper()
	parsed, err := thread.Parse([]byte(source))
	if err != nil {
		f.t.Fatal(err)
	}
	parsed.Project, parsed.Room = project, room
	f.put(mirror.Resource{Project: project, Room: room, Kind: mirror.KindThread, ID: parsed.ID},
		func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			return f.store.ApplyThread(ctx, lease, mirror.ThreadContent{FetchTime: noon, Thread: parsed}, noon, 0)
		})
}

// deleteRoom has the room's deletion announced and confirmed.
func (f *filled) deleteRoom(room mirror.Resource) {
	f.t.Helper()
	ctx := f.t.Context()
	_, err := f.store.Request(ctx, []mirror.Request{{Resource: room, Unlisted: true}}, noon)
	if err != nil {
		f.t.Fatal(err)
	}
	f.put(room, func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
		return f.store.ApplyMissing(ctx, lease, store.Failure{Now: noon, NotBefore: noon}, 0)
	})
}

// Over every engine, what was fetched is found by every filter, page by page, and
// comes back as it was.
func TestThreadsOnEngines(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		f := onEngine(t, e)
		ctx := t.Context()
		const odd = "a/b:c?d#e%f ö"
		room := f.putRoom(odd)
		f.putRoom("r")
		f.putThread("r", threadOne)
		f.putThread("r", `{"id":"th_2","createdAt":"2026-01-03T00:00:00Z","updatedAt":"2026-01-03T00:00:00Z","metadata":{"color":"blue","n":1,"s":"1"},"comments":[`+
			`{"id":"cm_1","userId":"bob","createdAt":"2026-01-03T00:00:00Z"},{"id":"cm_0","userId":"alice","createdAt":"2026-01-03T00:00:00Z"},{"id":"cm_9","userId":"zoe"}]}`)
		f.putThread(odd, `{"id":"th_1","updatedAt":"2026-02-01T00:00:00Z","metadata":{"color":"red"},"comments":[]}`)

		got, err := f.mirror.GetThread(ctx, &mirrorv1.GetThreadRequest{RoomId: "r", ThreadId: "th_1"})
		want := wantThread(&mirror.Thread{})
		want.Comments = wantComments()
		ignore := protocmp.IgnoreFields(&mirrorv1.Freshness{}, "revision", "stale")
		if diff := gocmp.Diff(want, got.GetThread(), protocmp.Transform(), ignore,
			protocmp.IgnoreFields(&mirrorv1.Thread{}, "data_problem", "freshness")); err != nil || diff != "" {
			t.Errorf("GetThread = %v; -want +got:\n%s", err, diff)
		}
		source, err := f.mirror.GetThread(ctx, &mirrorv1.GetThreadRequest{RoomId: "r", ThreadId: "th_1",
			View: mirrorv1.ThreadView_THREAD_VIEW_SOURCE})
		if err != nil || string(source.GetThread().GetSourceJson()) != threadOne {
			t.Errorf("source = %s, %v; want every byte", source.GetThread().GetSourceJson(), err)
		}
		comment, err := f.mirror.GetComment(ctx, &mirrorv1.GetCommentRequest{RoomId: "r", ThreadId: "th_1",
			CommentId: "cm_1"})
		one := wantComments()[0]
		one.SourceJson = []byte(commentOne)
		if diff := gocmp.Diff(one, comment.GetComment(), protocmp.Transform(), ignore); err != nil || diff != "" {
			t.Errorf("GetComment = %v; -want +got:\n%s", err, diff)
		}

		yes, no := true, false
		since := timestamppb.New(time.Date(2026, 1, 3, 0, 0, 0, 0, time.UTC))
		for name, c := range map[string]struct {
			req  *mirrorv1.ListThreadsRequest
			want []string
		}{
			"all":          {&mirrorv1.ListThreadsRequest{}, []string{odd + " th_1", "r th_1", "r th_2"}},
			"room":         {&mirrorv1.ListThreadsRequest{RoomId: odd}, []string{odd + " th_1"}},
			"resolved":     {&mirrorv1.ListThreadsRequest{Resolved: &yes}, []string{"r th_1"}},
			"not resolved": {&mirrorv1.ListThreadsRequest{Resolved: &no}, []string{odd + " th_1", "r th_2"}},
			"metadata": {&mirrorv1.ListThreadsRequest{Metadata: map[string]string{"color": "blue"}},
				[]string{"r th_2"}},
			"number": {&mirrorv1.ListThreadsRequest{Metadata: map[string]string{"n": "1", "color": "blue"}},
				[]string{"r th_2"}},
			"no such metadata":   {&mirrorv1.ListThreadsRequest{Metadata: map[string]string{"color": "blu"}}, nil},
			"odd metadata":       {&mirrorv1.ListThreadsRequest{Metadata: map[string]string{`a"b\`: `'; "$.x`}}, nil},
			"author":             {&mirrorv1.ListThreadsRequest{AuthorUserId: "alice"}, []string{"r th_1", "r th_2"}},
			"mentioned":          {&mirrorv1.ListThreadsRequest{MentionedUserId: "bob"}, []string{"r th_1"}},
			"mentioned in group": {&mirrorv1.ListThreadsRequest{MentionedUserId: "u2"}, []string{"r th_1"}},
			"updated since":      {&mirrorv1.ListThreadsRequest{UpdatedSinceTime: since}, []string{odd + " th_1", "r th_2"}},
			"all of them": {&mirrorv1.ListThreadsRequest{RoomId: "r", Resolved: &no, AuthorUserId: "bob",
				UpdatedSinceTime: since}, []string{"r th_2"}},
		} {
			var got []string
			for c.req.PageSize = 1; ; {
				page, err := f.mirror.ListThreads(ctx, c.req)
				if err != nil {
					t.Fatalf("ListThreads by %s: %v", name, err)
				}
				for _, row := range page.GetThreads() {
					got = append(got, row.GetRoomId()+" "+row.GetThreadId())
				}
				if c.req.PageToken = page.GetNextPageToken(); c.req.PageToken == "" {
					break
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("threads by %s = %q; want %q", name, got, c.want)
			}
		}
		for name, c := range map[string]struct {
			req  *mirrorv1.ListCommentsRequest
			want []string
		}{
			"all": {&mirrorv1.ListCommentsRequest{}, []string{"th_1 cm_1", "th_2 cm_9", "th_2 cm_0", "th_2 cm_1"}},
			"deleted too": {&mirrorv1.ListCommentsRequest{ShowDeleted: true},
				[]string{"th_1 cm_1", "th_1 cm_2", "th_2 cm_9", "th_2 cm_0", "th_2 cm_1"}},
			"thread": {&mirrorv1.ListCommentsRequest{RoomId: "r", ThreadId: "th_2"},
				[]string{"th_2 cm_9", "th_2 cm_0", "th_2 cm_1"}},
			"author":        {&mirrorv1.ListCommentsRequest{AuthorUserId: "alice"}, []string{"th_1 cm_1", "th_2 cm_0"}},
			"mentioned":     {&mirrorv1.ListCommentsRequest{MentionedUserId: "u1"}, []string{"th_1 cm_1"}},
			"updated since": {&mirrorv1.ListCommentsRequest{UpdatedSinceTime: since}, []string{"th_2 cm_0", "th_2 cm_1"}},
			"deleted since": {&mirrorv1.ListCommentsRequest{ShowDeleted: true, UpdatedSinceTime: at("2026-01-02T03:04:08Z")},
				[]string{"th_1 cm_2", "th_2 cm_0", "th_2 cm_1"}},
			"nobody's words": {&mirrorv1.ListCommentsRequest{AuthorUserId: "Alice"}, nil},
		} {
			var got []string
			for c.req.PageSize = 1; ; {
				page, err := f.mirror.ListComments(ctx, c.req)
				if err != nil {
					t.Fatalf("ListComments by %s: %v", name, err)
				}
				for _, row := range page.GetComments() {
					got = append(got, row.GetThreadId()+" "+row.GetCommentId())
				}
				if c.req.PageToken = page.GetNextPageToken(); c.req.PageToken == "" {
					break
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("comments by %s = %q; want %q", name, got, c.want)
			}
		}

		// A deleted room hides its threads.
		f.deleteRoom(room)
		_, err = f.mirror.GetThread(ctx, &mirrorv1.GetThreadRequest{RoomId: odd, ThreadId: "th_1"})
		wantStatus(t, err, codes.NotFound, fault.ReasonThreadNotMirrored)
		if _, err = f.mirror.GetThread(ctx, &mirrorv1.GetThreadRequest{RoomId: odd, ThreadId: "th_1",
			ShowDeleted: true}); err != nil {
			t.Errorf("GetThread in a deleted room on request = %v", err)
		}
	})
}

func TestPresenceOnEngines(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		f := onEngine(t, e)
		ctx := t.Context()
		room := f.putRoom("r")
		f.putRoom("never asked for")
		users := mirror.Resource{Project: project, Room: "r", Kind: mirror.KindActiveUsers}
		sessions := mirror.Resource{Project: project, Room: "r", Kind: mirror.KindUserSessions}
		f.put(users, func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			return f.store.ApplyActiveUsers(ctx, lease, mirror.ActiveUsersContent{FetchTime: noon, Users: []mirror.ActiveUser{
				{ConnectionID: 2, UserID: "alice", Info: []byte(`{"name":"\u0000"}`)}, {ConnectionID: 11},
				{ConnectionID: 100, UserID: "alice"},
			}}, noon.Add(-time.Minute), noon, 0)
		})
		var got []int64
		for token := ""; ; {
			page, err := f.mirror.ListActiveUsers(ctx, &mirrorv1.ListActiveUsersRequest{RoomId: "r", PageSize: 1,
				PageToken: token})
			if err != nil || !page.GetFreshness().GetFetchTime().AsTime().Equal(noon) {
				t.Fatalf("ListActiveUsers = %v, %v", page, err)
			}
			for _, u := range page.GetActiveUsers() {
				got = append(got, u.GetConnectionId())
				if u.GetConnectionId() == 2 && string(u.GetInfoJson()) != `{"name":"\u0000"}` {
					t.Errorf("info = %s; want every byte", u.GetInfoJson())
				}
			}
			if token = page.GetNextPageToken(); token == "" {
				break
			}
		}
		if !slices.Equal(got, []int64{2, 11, 100}) {
			t.Errorf("connections = %v; want 2, 11, 100", got)
		}
		empty, err := f.mirror.ListActiveUsers(ctx, &mirrorv1.ListActiveUsersRequest{RoomId: "never asked for"})
		if err != nil || len(empty.GetActiveUsers()) != 0 || empty.GetFreshness().GetFetchTime() != nil {
			t.Errorf("ListActiveUsers of a room never asked for = %v, %v", empty, err)
		}
		_, err = f.mirror.ListActiveUsers(ctx, &mirrorv1.ListActiveUsersRequest{RoomId: "none"})
		wantStatus(t, err, codes.NotFound, fault.ReasonRoomNotMirrored)

		event := func(id, kind, member string, connection int, user string, at time.Time) mirror.Event {
			return mirror.Event{
				Project: project, ID: id, Type: kind, Room: "r", SourceTime: at, ReceiveTime: at,
				Payload: fmt.Appendf(nil,
					`{"type":%q,"data":{"roomId":"r","connectionId":%d,"userId":%q,"userInfo":{"n":1},%q:%q}}`,
					kind, connection, user, member, at.Format(time.RFC3339Nano)),
			}
		}
		f.put(sessions, func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			return f.store.ApplySessions(ctx, lease, presence.Fold(nil, []mirror.Event{
				event("e1", "userEntered", "enteredAt", 2, "alice", noon.Add(-time.Hour)),
				event("e2", "userEntered", "enteredAt", 3, "bob", noon.Add(-30*time.Minute)),
				event("e3", "userLeft", "leftAt", 3, "bob", noon.Add(-10*time.Minute)),
				event("e4", "userLeft", "leftAt", 9, "bob", noon.Add(-2*time.Hour)),
			}), noon)
		})
		show := func(name string, req *mirrorv1.ListUserSessionsRequest, want ...string) {
			t.Helper()
			var got []string
			for req.PageSize = 1; ; {
				page, err := f.mirror.ListUserSessions(ctx, req)
				if err != nil {
					t.Fatalf("ListUserSessions by %s: %v", name, err)
				}
				for _, s := range page.GetUserSessions() {
					cause := strings.TrimPrefix(s.GetEndCause().String(), "SESSION_END_CAUSE_")
					word := s.GetSessionId() + " " + cause
					if s.GetDuration() != nil {
						word += " " + s.GetDuration().AsDuration().String()
					}
					got = append(got, word)
				}
				if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
					break
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("sessions by %s = %q; want %q", name, got, want)
			}
		}
		show("all", &mirrorv1.ListUserSessionsRequest{}, "e2 LEFT 20m0s", "e1 OPEN", "e4 LEFT")
		show("user", &mirrorv1.ListUserSessionsRequest{RoomId: "r", UserId: "bob"}, "e2 LEFT 20m0s", "e4 LEFT")
		show("open", &mirrorv1.ListUserSessionsRequest{OpenOnly: true}, "e1 OPEN")
		show("time", &mirrorv1.ListUserSessionsRequest{StartTime: timestamppb.New(noon.Add(-time.Hour)),
			EndTime: timestamppb.New(noon.Add(-30 * time.Minute))}, "e1 OPEN")
		show("another room", &mirrorv1.ListUserSessionsRequest{RoomId: "R"})
		f.deleteRoom(room)
		show("all, of a deleted room", &mirrorv1.ListUserSessionsRequest{RoomId: "r"}, "e2 LEFT 20m0s",
			"e1 ROOM_DELETED 1h0m0s", "e4 LEFT")
	})
}

func TestNotificationsOnEngines(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		f := onEngine(t, e)
		ctx := t.Context()
		inbox := []byte(`{"id":"in_1", "readAt":null}`)
		for _, n := range []struct {
			room  mirror.RoomID
			id    string
			rows  []mirror.Notification
			inbox mirror.Inbox
		}{
			{"r", "in_1", []mirror.Notification{
				{EventID: "m1", Channel: "email", Kind: "thread", UserID: "bob", ThreadID: "th_1", CreateTime: noon},
				{EventID: "m2", Channel: "slack", Kind: "thread", UserID: "bob", ThreadID: "th_1", CreateTime: noon},
			}, mirror.Inbox{Source: inbox, NotifyTime: noon}},
			{"", "m3", []mirror.Notification{{EventID: "m3", Channel: "webPush", Kind: "$fileUpload", UserID: "zoe",
				SubjectID: "s", CreateTime: noon.Add(-time.Hour)}}, mirror.Inbox{}},
		} {
			for i := range n.rows {
				n.rows[i].Project, n.rows[i].Room, n.rows[i].ID = project, n.room, n.id
			}
			f.put(mirror.Resource{Project: project, Room: n.room, Kind: mirror.KindNotification, ID: n.id},
				func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
					return f.store.ApplyNotification(ctx, lease,
						mirror.NotificationFold{FetchTime: noon, Rows: n.rows, Inbox: n.inbox}, noon, 0)
				})
		}
		for name, c := range map[string]struct {
			req  *mirrorv1.ListNotificationsRequest
			want []string
		}{
			"all":     {&mirrorv1.ListNotificationsRequest{}, []string{"m1", "m2", "m3"}},
			"room":    {&mirrorv1.ListNotificationsRequest{RoomId: "r"}, []string{"m1", "m2"}},
			"user":    {&mirrorv1.ListNotificationsRequest{UserId: "zoe"}, []string{"m3"}},
			"channel": {&mirrorv1.ListNotificationsRequest{Channel: "slack"}, []string{"m2"}},
			"kind":    {&mirrorv1.ListNotificationsRequest{Kind: "$fileUpload"}, []string{"m3"}},
			"thread":  {&mirrorv1.ListNotificationsRequest{ThreadId: "th_1"}, []string{"m1", "m2"}},
			"time":    {&mirrorv1.ListNotificationsRequest{EndTime: timestamppb.New(noon)}, []string{"m3"}},
		} {
			var got []string
			for c.req.PageSize = 1; ; {
				page, err := f.mirror.ListNotifications(ctx, c.req)
				if err != nil {
					t.Fatalf("ListNotifications by %s: %v", name, err)
				}
				for _, n := range page.GetNotifications() {
					got = append(got, n.GetEventId())
					if want := map[bool]string{true: string(inbox)}[n.GetNotificationId() == "in_1"]; string(
						n.GetInboxJson()) != want {
						t.Errorf("inbox of %s = %s; want %s", n.GetEventId(), n.GetInboxJson(), want)
					}
				}
				if c.req.PageToken = page.GetNextPageToken(); c.req.PageToken == "" {
					break
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("notifications by %s = %q; want %q", name, got, c.want)
			}
		}
		tasks, err := f.admin.ListTasks(ctx, &mirrorv1.ListTasksRequest{State: mirrorv1.TaskState_TASK_STATE_DONE})
		if err != nil || len(tasks.GetTasks()) != 2 {
			t.Fatalf("ListTasks = %v, %v; want those of the two notifications", tasks, err)
		}
		for _, task := range tasks.GetTasks() {
			got, err := f.admin.GetTask(ctx, &mirrorv1.GetTaskRequest{TaskId: task.GetTaskId()})
			if diff := gocmp.Diff(task, got.GetTask(), protocmp.Transform()); err != nil || diff != "" ||
				task.GetKind() != mirrorv1.ResourceKind_RESOURCE_KIND_NOTIFICATION {
				t.Errorf("GetTask = %v; -listed +got:\n%s", err, diff)
			}
		}
	})
}

func TestFlowsOnEngines(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		f := onEngine(t, e)
		f.putRoom("r")
		doc := recordedFlow(t, mirror.Freshness{})
		f.put(mirror.Resource{Project: project, Room: "r", Kind: mirror.KindStorage},
			func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
				return f.store.ApplyDocument(ctx, lease, mirror.DocumentContent{FetchTime: noon, Content: doc.Content,
					DeriveVersion: 1, Data: []byte(`{}`)}, noon, 0)
			})
		got, err := f.mirror.GetFlow(t.Context(), &mirrorv1.GetFlowRequest{RoomId: "r"})
		if err != nil || len(got.GetFlow().GetNodes()) != 3 || len(got.GetFlow().GetEdges()) != 2 ||
			got.GetFlow().GetFreshness().GetRevision() == 0 {
			t.Errorf("GetFlow = %v, %v; want 3 nodes and 2 edges", got, err)
		}
		list, err := f.mirror.ListFlows(t.Context(), &mirrorv1.ListFlowsRequest{RoomId: "r"})
		if err != nil || len(list.GetFlows()) != 1 || list.GetFlows()[0].GetStorageKey() != "flow" {
			t.Errorf("ListFlows = %v, %v; want the one", list, err)
		}
	})
}

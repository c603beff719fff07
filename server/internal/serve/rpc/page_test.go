package rpc

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// paged is a list under test.
type paged struct {
	name string
	// add puts the i-th item in; items sort by i.
	add func(q *fakeQuery, i int)
	// get returns the ids of a page. other asks with another filter.
	get func(ctx context.Context, h *harness, size int32, token string, other bool) (ids []string, next string, err error)
}

func id(i int) string { return fmt.Sprintf("item %04d", i) }

func pagedLists() []paged {
	return []paged{
		{
			name: "events",
			add: func(q *fakeQuery, i int) {
				// Three events share a time, so that the id decides among them.
				at := noon.Add(-time.Duration(i/3) * time.Microsecond)
				q.events = append(q.events, mirror.Event{
					Project: project, ID: id(i), ReceiveTime: at, Type: "t",
					Payload: []byte("{}"),
				})
			},
			get: func(ctx context.Context, h *harness, size int32, token string, other bool) (ids []string, next string,
				err error,
			) {
				req := &mirrorv1.ListEventsRequest{PageSize: size, PageToken: token}
				if other {
					req.Type = "t"
				}
				resp, err := h.events.ListEvents(ctx, req)
				for _, e := range resp.GetEvents() {
					ids = append(ids, e.GetEventId())
				}
				return ids, resp.GetNextPageToken(), err
			},
		},
		{
			name: "rooms",
			add: func(q *fakeQuery, i int) {
				q.rooms = append(q.rooms, mirror.Room{Project: project, ID: mirror.RoomID(id(i)), Source: []byte("{}")})
			},
			get: func(ctx context.Context, h *harness, size int32, token string, other bool) (ids []string, next string,
				err error,
			) {
				resp, err := h.mirror.ListRooms(ctx, &mirrorv1.ListRoomsRequest{
					PageSize: size, PageToken: token,
					ShowDeleted: other,
				})
				for _, r := range resp.GetRooms() {
					ids = append(ids, r.GetRoomId())
				}
				return ids, resp.GetNextPageToken(), err
			},
		},
		{
			name: "documents",
			add: func(q *fakeQuery, i int) {
				q.documents = append(q.documents, mirror.Document{
					Project: project, Room: mirror.RoomID(id(i)),
					Kind: mirror.KindStorage,
				})
			},
			get: func(ctx context.Context, h *harness, size int32, token string, other bool) (ids []string, next string,
				err error,
			) {
				req := &mirrorv1.ListDocumentsRequest{PageSize: size, PageToken: token}
				if other {
					req.RoomIdPrefix = "item"
				}
				resp, err := h.mirror.ListDocuments(ctx, req)
				for _, d := range resp.GetDocuments() {
					ids = append(ids, d.GetRoomId())
				}
				return ids, resp.GetNextPageToken(), err
			},
		},
		{
			name: "tasks",
			add: func(q *fakeQuery, i int) {
				// Two tasks share a room, so that the kind decides among them.
				room := mirror.RoomID(id(i / 2))
				kind := []mirror.Kind{mirror.KindRoom, mirror.KindActiveUsers}[i%2]
				q.tasks = append(q.tasks, mirror.Task{
					Resource: mirror.Resource{Project: project, Room: room, Kind: kind}, State: mirror.TaskPending, LastError: id(i),
				})
			},
			get: func(ctx context.Context, h *harness, size int32, token string, other bool) (ids []string, next string,
				err error,
			) {
				req := &mirrorv1.ListTasksRequest{PageSize: size, PageToken: token}
				if other {
					req.State = mirrorv1.TaskState_TASK_STATE_PENDING
				}
				resp, err := h.admin.ListTasks(ctx, req)
				for _, task := range resp.GetTasks() {
					ids = append(ids, task.GetLastError())
				}
				return ids, resp.GetNextPageToken(), err
			},
		},
		{
			name: "threads",
			add: func(q *fakeQuery, i int) {
				q.threads = append(q.threads, mirror.Thread{Project: project, Room: mirror.RoomID(id(i / 2)), ID: id(i)})
			},
			get: func(ctx context.Context, h *harness, size int32, token string, other bool) (ids []string, next string,
				err error,
			) {
				req := &mirrorv1.ListThreadsRequest{PageSize: size, PageToken: token}
				if other {
					req.Metadata = map[string]string{"a": "b"}
				}
				resp, err := h.mirror.ListThreads(ctx, req)
				for _, thread := range resp.GetThreads() {
					ids = append(ids, thread.GetThreadId())
				}
				return ids, resp.GetNextPageToken(), err
			},
		},
		{
			name: "comments",
			add: func(q *fakeQuery, i int) {
				// Two comments share a thread and a time. The first of all have none.
				c := mirror.Comment{Project: project, Room: mirror.RoomID(id(i / 4)), Thread: id(i / 2), ID: id(i)}
				if i >= 4 {
					c.CreateTime = noon.Add(-time.Duration(i/2) * time.Hour)
				}
				q.comments = append(q.comments, c)
			},
			get: func(ctx context.Context, h *harness, size int32, token string, other bool) (ids []string, next string,
				err error,
			) {
				resp, err := h.mirror.ListComments(ctx, &mirrorv1.ListCommentsRequest{
					PageSize: size, PageToken: token,
					ShowDeleted: other,
				})
				for _, c := range resp.GetComments() {
					ids = append(ids, c.GetCommentId())
				}
				return ids, resp.GetNextPageToken(), err
			},
		},
		{
			name: "active users",
			add: func(q *fakeQuery, i int) {
				if q.users == nil {
					q.users = []mirror.ActiveUsers{{Project: project, Room: "r"}}
				}
				// Numbers are not in the order of their decimal digits.
				q.users[0].Users = append(q.users[0].Users, mirror.ActiveUser{ConnectionID: int64(7*i - 10), UserID: id(i)})
				slices.SortFunc(q.users[0].Users,
					func(a, b mirror.ActiveUser) int { return cmp.Compare(a.ConnectionID, b.ConnectionID) })
			},
			get: func(ctx context.Context, h *harness, size int32, token string, other bool) (ids []string, next string,
				err error,
			) {
				if h.query.users == nil {
					h.query.users = []mirror.ActiveUsers{{Project: project, Room: "r"}}
				}
				resp, err := h.mirror.ListActiveUsers(ctx, &mirrorv1.ListActiveUsersRequest{
					RoomId: "r", PageSize: size,
					PageToken: token, ShowDeleted: other,
				})
				for _, u := range resp.GetActiveUsers() {
					ids = append(ids, u.GetUserId())
				}
				return ids, resp.GetNextPageToken(), err
			},
		},
		{
			name: "user sessions",
			add: func(q *fakeQuery, i int) {
				s := mirror.UserSession{Project: project, ID: id(i)}
				if at := noon.Add(-time.Duration(i/3) * time.Second); i%2 == 0 {
					s.EnterTime = at
				} else { // known by its end alone
					s.LeaveTime = at
				}
				q.sessions = append(q.sessions, s)
			},
			get: func(ctx context.Context, h *harness, size int32, token string, other bool) (ids []string, next string,
				err error,
			) {
				req := &mirrorv1.ListUserSessionsRequest{PageSize: size, PageToken: token}
				if other {
					req.StartTime = timestamppb.New(noon.Add(-time.Hour))
				}
				resp, err := h.mirror.ListUserSessions(ctx, req)
				for _, s := range resp.GetUserSessions() {
					ids = append(ids, s.GetSessionId())
				}
				return ids, resp.GetNextPageToken(), err
			},
		},
		{
			name: "flows",
			add: func(q *fakeQuery, i int) {
				if q.documents == nil {
					q.documents = []mirror.Document{storageOf("r", `{}`, mirror.Freshness{})}
				}
				key := id(i)
				if i == 0 { // a key can be empty
					key = ""
				}
				d := &q.documents[0]
				members := strings.TrimSuffix(string(d.Content), "}}")
				if !strings.HasSuffix(members, "{") {
					members += ","
				}
				*d = storageOf("r", fmt.Sprintf(`%s%q:{"nodes":{},"edges":{}}}`,
					members[len(`{"liveblocksType":"LiveObject","data":`):], key), mirror.Freshness{})
			},
			get: func(ctx context.Context, h *harness, size int32, token string, other bool) (ids []string, next string,
				err error,
			) {
				if h.query.documents == nil {
					h.query.documents = []mirror.Document{storageOf("r", `{}`, mirror.Freshness{})}
				}
				resp, err := h.mirror.ListFlows(ctx, &mirrorv1.ListFlowsRequest{
					RoomId: "r", PageSize: size, PageToken: token,
					ShowDeleted: other,
				})
				for _, f := range resp.GetFlows() {
					ids = append(ids, cmp.Or(f.GetStorageKey(), id(0)))
				}
				return ids, resp.GetNextPageToken(), err
			},
		},
		{
			name: "notifications",
			add: func(q *fakeQuery, i int) {
				q.notices = append(q.notices, mirror.Notification{
					Project: project, EventID: id(i),
					CreateTime: noon.Add(-time.Duration(i/3) * time.Second),
				})
			},
			get: func(ctx context.Context, h *harness, size int32, token string, other bool) (ids []string, next string,
				err error,
			) {
				req := &mirrorv1.ListNotificationsRequest{PageSize: size, PageToken: token}
				if other {
					req.EndTime = timestamppb.New(noon.Add(time.Hour))
				}
				resp, err := h.mirror.ListNotifications(ctx, req)
				for _, n := range resp.GetNotifications() {
					ids = append(ids, n.GetEventId())
				}
				return ids, resp.GetNextPageToken(), err
			},
		},
		{
			name: "groups",
			add: func(q *fakeQuery, i int) {
				q.groups = append(q.groups, mirror.Group{Project: project, ID: id(i), Source: []byte(`{}`)})
			},
			get: func(ctx context.Context, h *harness, size int32, token string, other bool) (ids []string, next string,
				err error,
			) {
				resp, err := h.mirror.ListGroups(ctx, &mirrorv1.ListGroupsRequest{
					PageSize: size, PageToken: token,
					ShowDeleted: other,
				})
				for _, g := range resp.GetGroups() {
					ids = append(ids, g.GetGroupId())
				}
				return ids, resp.GetNextPageToken(), err
			},
		},
	}
}

func ids(from, to int) []string {
	var want []string
	for i := from; i < to; i++ {
		want = append(want, id(i))
	}
	return want
}

// What every list does, whatever is in it.
func TestLists(t *testing.T) {
	t.Parallel()
	for _, l := range pagedLists() {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			fill := func(t *testing.T, n int) *harness {
				t.Helper()
				h := start(t)
				for i := range n {
					l.add(h.query, n-1-i) // backwards: the order is the list's own
				}
				return h
			}
			t.Run("sizes", func(t *testing.T) {
				t.Parallel()
				h := fill(t, 620)
				for _, c := range []struct{ ask, want int }{
					{0, 50},
					{1, 1},
					{7, 7},
					{50, 50},
					{500, 500},
					{501, 500},
					{1 << 30, 500},
				} {
					got, next, err := l.get(t.Context(), h, int32(c.ask), "", false)
					if err != nil || !slices.Equal(got, ids(0, c.want)) || next == "" {
						t.Errorf("page_size %d = %d items, token %q, %v; want %d items and a token", c.ask, len(got), next, err, c.want)
					}
				}
				_, _, err := l.get(t.Context(), h, -1, "", false)
				wantStatus(t, err, codes.InvalidArgument, fault.ReasonRequestInvalid)
			})
			t.Run("every item once", func(t *testing.T) {
				t.Parallel()
				for _, n := range []int{0, 1, 2, 3, 4, 5, 6, 7, 60} {
					h := fill(t, n)
					for _, size := range []int32{1, 2, 3, 60} {
						var all []string
						token, pages := "", 0
						for {
							got, next, err := l.get(t.Context(), h, size, token, false)
							if err != nil {
								t.Fatalf("page of %d: %v", size, err)
							}
							all, token = append(all, got...), next
							if pages++; token == "" {
								break
							}
							if pages > n {
								t.Fatalf("%d items in pages of %d do not end: %v", n, size, all)
							}
						}
						if !slices.Equal(all, ids(0, n)) {
							t.Errorf("%d items in pages of %d = %v", n, size, all)
						}
						// A full last page is known to be the last one.
						if want := max(1, (n+int(size)-1)/int(size)); pages != want {
							t.Errorf("%d items took %d pages of %d; want %d", n, pages, size, want)
						}
					}
				}
			})
			t.Run("insert while paging", func(t *testing.T) {
				t.Parallel()
				h := start(t)
				for _, i := range []int{2, 4, 6, 8} {
					l.add(h.query, i)
				}
				first, token, err := l.get(t.Context(), h, 2, "", false)
				if err != nil || !slices.Equal(first, []string{id(2), id(4)}) {
					t.Fatalf("first page = %v, %v", first, err)
				}
				h.query.change(func() {
					for _, i := range []int{1, 3, 5, 9} {
						l.add(h.query, i)
					}
				})
				rest, _, err := l.get(t.Context(), h, 9, token, false)
				if want := []string{id(5), id(6), id(8), id(9)}; err != nil || !slices.Equal(rest, want) {
					t.Errorf("the rest = %v, %v; want %v", rest, err, want)
				}
			})
			t.Run("another size with the same token", func(t *testing.T) {
				t.Parallel()
				h := fill(t, 9)
				_, token, err := l.get(t.Context(), h, 3, "", false)
				if err != nil {
					t.Fatal(err)
				}
				got, next, err := l.get(t.Context(), h, 6, token, false)
				if err != nil || !slices.Equal(got, ids(3, 9)) || next != "" {
					t.Errorf("second page = %v, %q, %v; want the other six", got, next, err)
				}
			})
			t.Run("foreign tokens", func(t *testing.T) {
				t.Parallel()
				h := fill(t, 9)
				_, token, err := l.get(t.Context(), h, 3, "", false)
				if err != nil {
					t.Fatal(err)
				}
				_, _, err = l.get(t.Context(), h, 3, token, true)
				wantStatus(t, err, codes.InvalidArgument, fault.ReasonPageTokenMismatch)
				for _, other := range pagedLists() {
					if other.name != l.name {
						_, _, err = other.get(t.Context(), h, 3, token, false)
						wantStatus(t, err, codes.InvalidArgument, fault.ReasonPageTokenMismatch)
					}
				}
				for _, bad := range []string{
					"x", "garbage!", token + "=", token + "\n", token[:10], "AAAA" + token[4:],
					strings.ToUpper(token) + "~",
				} {
					_, _, err = l.get(t.Context(), h, 3, bad, false)
					wantStatus(t, err, codes.InvalidArgument, fault.ReasonPageTokenInvalid)
				}
			})
			t.Run("the store fails", func(t *testing.T) {
				t.Parallel()
				h := start(t)
				h.query.err = func(context.Context) error {
					return fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "told")
				}
				_, _, err := l.get(t.Context(), h, 3, "", false)
				wantStatus(t, err, codes.Unavailable, fault.ReasonStoreUnavailable)
			})
		})
	}
}

// A token is bound to its project too.
func TestPageTokenOfAnotherProject(t *testing.T) {
	t.Parallel()
	h := start(t, func(d *Config) { d.Projects = []mirror.ProjectID{project, "other"} })
	for i := range 3 {
		h.query.rooms = append(h.query.rooms, mirror.Room{Project: project, ID: mirror.RoomID(id(i))})
	}
	resp, err := h.mirror.ListRooms(t.Context(), &mirrorv1.ListRoomsRequest{ProjectId: string(project), PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.mirror.ListRooms(t.Context(), &mirrorv1.ListRoomsRequest{
		ProjectId: "other", PageSize: 1,
		PageToken: resp.GetNextPageToken(),
	})
	wantStatus(t, err, codes.InvalidArgument, fault.ReasonPageTokenMismatch)
}

// With one project, naming it and leaving it out are the same filter.
func TestPageTokenOfTheOnlyProject(t *testing.T) {
	t.Parallel()
	h := start(t)
	for i := range 3 {
		h.query.rooms = append(h.query.rooms, mirror.Room{Project: project, ID: mirror.RoomID(id(i))})
	}
	resp, err := h.mirror.ListRooms(t.Context(), &mirrorv1.ListRoomsRequest{PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	resp, err = h.mirror.ListRooms(t.Context(), &mirrorv1.ListRoomsRequest{
		ProjectId: string(project), PageToken: resp.GetNextPageToken(), View: mirrorv1.RoomView_ROOM_VIEW_FULL,
	})
	if err != nil || len(resp.GetRooms()) != 2 {
		t.Errorf("second page = %v, %v; want two rooms", resp.GetRooms(), err)
	}
}

func TestPagesEndBeforeTheMessageIsFull(t *testing.T) {
	t.Parallel()
	h := start(t)
	var want []string
	for i := range 40 {
		h.query.events = append(h.query.events, mirror.Event{
			Project: project, ID: id(i), ReceiveTime: noon.Add(-time.Duration(i) * time.Second),
			Payload: bytes.Repeat([]byte("x"), 1<<20),
		})
		want = append(want, id(i))
	}
	var got []string
	for token := ""; ; {
		resp, err := h.events.ListEvents(t.Context(), &mirrorv1.ListEventsRequest{
			PageSize: 500, PageToken: token, View: mirrorv1.EventView_EVENT_VIEW_FULL,
		})
		if err != nil {
			t.Fatal(err)
		}
		if size := proto.Size(resp); size > 3<<20+4096 || len(resp.GetEvents()) == 0 {
			t.Fatalf("a page of %d events takes %d bytes", len(resp.GetEvents()), size)
		}
		for _, e := range resp.GetEvents() {
			got = append(got, e.GetEventId())
		}
		if token = resp.GetNextPageToken(); token == "" {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("events = %v; want all 40 in order", got)
	}
	if slices.Max(h.query.limits) > payloadBatch {
		t.Errorf("queries asked for %v rows; want at most %d payloads at a time", h.query.limits, payloadBatch)
	}

	h.query.limits = nil
	if _, err := h.events.ListEvents(t.Context(), &mirrorv1.ListEventsRequest{PageSize: 500}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(h.query.limits, []int{501}) {
		t.Errorf("without payloads the queries asked for %v rows; want 501 at once", h.query.limits)
	}
}

// One item that alone is over the budget is still a page.
func TestPageOfOneLargeItem(t *testing.T) {
	t.Parallel()
	h := start(t, func(d *Config) { d.MaxMessage = 1000 })
	for i := range 3 {
		h.query.rooms = append(h.query.rooms, mirror.Room{
			Project: project, ID: mirror.RoomID(id(i)),
			Source: bytes.Repeat([]byte(" "), 2000),
		})
	}
	for i, token := 0, ""; i < 3; i++ {
		resp, err := h.mirror.ListRooms(t.Context(),
			&mirrorv1.ListRoomsRequest{PageToken: token, View: mirrorv1.RoomView_ROOM_VIEW_FULL})
		if err != nil || len(resp.GetRooms()) != 1 || resp.GetRooms()[0].GetRoomId() != id(i) {
			t.Fatalf("page %d = %v, %v; want item %d alone", i, resp.GetRooms(), err, i)
		}
		if token = resp.GetNextPageToken(); (token == "") != (i == 2) {
			t.Errorf("page %d has token %q", i, token)
		}
	}
}

func TestEventFilters(t *testing.T) {
	t.Parallel()
	h := start(t)
	for i, e := range []mirror.Event{
		{Room: "a", Type: "x", User: "u", Outcome: mirror.OutcomeQueued},
		{Room: "a", Type: "y", Outcome: mirror.OutcomeMalformed},
		{Room: "b", Type: "x", User: "v", Thread: "t", Outcome: mirror.OutcomeQueued},
	} {
		e.Project, e.ID, e.ReceiveTime = project, id(i), noon.Add(-time.Duration(i)*time.Microsecond)
		e.Payload = []byte("{}")
		h.query.events = append(h.query.events, e)
	}
	for _, c := range []struct {
		name string
		req  *mirrorv1.ListEventsRequest
		want []string
	}{
		{"all", &mirrorv1.ListEventsRequest{}, ids(0, 3)},
		{"room", &mirrorv1.ListEventsRequest{RoomId: "a"}, ids(0, 2)},
		{"room and type", &mirrorv1.ListEventsRequest{RoomId: "a", Type: "x"}, ids(0, 1)},
		{"user", &mirrorv1.ListEventsRequest{UserId: "v"}, ids(2, 3)},
		{"thread", &mirrorv1.ListEventsRequest{ThreadId: "t"}, ids(2, 3)},
		{"thread of none", &mirrorv1.ListEventsRequest{ThreadId: "t", RoomId: "a"}, nil},
		{"outcome", &mirrorv1.ListEventsRequest{Outcome: mirrorv1.EventOutcome_EVENT_OUTCOME_MALFORMED}, ids(1, 2)},
		{
			"room and outcome",
			&mirrorv1.ListEventsRequest{RoomId: "b", Outcome: mirrorv1.EventOutcome_EVENT_OUTCOME_QUEUED}, ids(2, 3),
		},
		{"outcome of none", &mirrorv1.ListEventsRequest{Outcome: mirrorv1.EventOutcome_EVENT_OUTCOME_RECORDED}, nil},
		{"start is in", &mirrorv1.ListEventsRequest{StartTime: timestamppb.New(noon.Add(-time.Microsecond))}, ids(0, 2)},
		{
			"start between two microseconds",
			&mirrorv1.ListEventsRequest{StartTime: timestamppb.New(noon.Add(-time.Nanosecond))}, ids(0, 1),
		},
		{"end is out", &mirrorv1.ListEventsRequest{EndTime: timestamppb.New(noon)}, ids(1, 3)},
		{
			"end between two microseconds", &mirrorv1.ListEventsRequest{EndTime: timestamppb.New(noon.Add(-time.Nanosecond))},
			ids(1, 3),
		},
		{"end in the year 1", &mirrorv1.ListEventsRequest{EndTime: &timestamppb.Timestamp{Seconds: -62135596800}}, nil},
		{
			"start in the year 1", &mirrorv1.ListEventsRequest{StartTime: &timestamppb.Timestamp{Seconds: -62135596800}},
			ids(0, 3),
		},
		{
			"start after the last nanosecond there is",
			&mirrorv1.ListEventsRequest{StartTime: &timestamppb.Timestamp{Seconds: 253402300799, Nanos: 999999999}}, nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			resp, err := h.events.ListEvents(t.Context(), c.req)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range resp.GetEvents() {
				got = append(got, e.GetEventId())
				if e.GetPayload() != nil {
					t.Errorf("the basic view has a payload")
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("events = %v; want %v", got, c.want)
			}
		})
	}
	_, err := h.events.ListEvents(t.Context(), &mirrorv1.ListEventsRequest{
		StartTime: &timestamppb.Timestamp{Nanos: -1}, EndTime: &timestamppb.Timestamp{Seconds: 1 << 60},
	})
	wantStatus(t, err, codes.InvalidArgument, fault.ReasonRequestInvalid)
	if got := badFields(err); !slices.Equal(got, []string{"start_time", "end_time"}) {
		t.Errorf("bad fields = %v; want both times", got)
	}
}

func cursors() map[list]cursor {
	return map[list]cursor{
		listEvents:    {Time: noon.Add(time.Microsecond), ID: "msg_1"},
		listRooms:     {Room: "a/b c%"},
		listDocuments: {Room: "röom", Kind: mirror.KindStorage},
		listTasks:     {Room: mirror.RoomID(strings.Repeat("x", 512)), Kind: mirror.KindRoom},
		listThreads:   {Room: "a/b", ID: "th_1"},
		listComments: {
			Room: mirror.RoomID(strings.Repeat("x", 512)), Thread: strings.Repeat("y", 128), Time: noon,
			ID: strings.Repeat("z", 128),
		},
		listActiveUsers:   {ID: "-9223372036854775808:user:1"},
		listUserSessions:  {Time: noon, ID: "msg_1"},
		listFlows:         {ID: "=" + strings.Repeat("ö", 1024)},
		listNotifications: {Time: noon, ID: "msg_1"},
		listGroups:        {ID: "a/b ö"},
		listReplay:        {Time: noon, ID: "msg_1"},
		listAudit:         {Time: noon, ID: "0123456789abcdef"},
		listLatestRooms:   {Time: noon, Room: "a/b c%"},
	}
}

func TestTokensComeBack(t *testing.T) {
	t.Parallel()
	if len(cursors()) != len(lists) {
		t.Errorf("%d lists are tried; want %d", len(cursors()), len(lists))
	}
	filters := filterHash{1, 2, 3}
	for l, want := range cursors() {
		token := formatToken(l, filters, want)
		got, err := parseToken(token, l, filters)
		if err != nil || got != want {
			t.Errorf("token of list %d = %v, %v; want %v", l, got, err, want)
		}
		if len(token) > 4096 {
			t.Errorf("token of list %d has %d bytes; the API takes 4096", l, len(token))
		}
		if got.fits(l) != want.fits(l) || !got.fits(l) {
			t.Errorf("%+v is no key of list %d", got, l)
		}
		for other := range cursors() {
			if _, err := parseToken(token, other, filters); other != l && !errors.Is(err, errTokenMismatch) {
				t.Errorf("token of list %d in list %d = %v; want a mismatch", l, other, err)
			}
		}
		if _, err := parseToken(token, l, filterHash{}); !errors.Is(err, errTokenMismatch) {
			t.Errorf("token with other filters = %v; want a mismatch", err)
		}
	}
}

// Whatever is accepted is exactly what would have been handed out.
func FuzzPageToken(f *testing.F) {
	for l, c := range cursors() {
		f.Add(formatToken(l, filterHash{}, c), byte(l))
		f.Add(formatToken(l, filterHash{}, cursor{}), byte(l))
		f.Add(formatToken(l, filterHash{}, cursor{Time: latest.Add(time.Hour), Room: "\x00", Kind: 99, ID: "\xff"}), byte(l))
	}
	f.Add("", byte(1))
	f.Add("AQEAAAAAAAAAAAAAAAAAAAAAAAAAAA\n", byte(1))
	f.Add(base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, 40)), byte(0xff))
	f.Fuzz(func(t *testing.T, token string, b byte) {
		l := list(b)
		c, err := parseToken(token, l, filterHash{})
		if err != nil {
			if !errors.Is(err, errTokenInvalid) && !errors.Is(err, errTokenMismatch) {
				t.Fatalf("parseToken = %v; want one of the two refusals", err)
			}
			return
		}
		if !c.fits(l) {
			t.Fatalf("parseToken = %+v, which is no key of list %d", c, l)
		}
		if again := formatToken(l, filterHash{}, c); again != token {
			t.Fatalf("token %q reads as %+v, which is spelled %q", token, c, again)
		}
	})
}

func TestTaskIDs(t *testing.T) {
	t.Parallel()
	for _, want := range []mirror.Resource{
		{Project: project, Room: "r", Kind: mirror.KindRoom},
		{Project: project, Room: " ö/:?#%", Kind: mirror.KindStorage},
		{Project: project, Room: mirror.RoomID(strings.Repeat("x", 512)), Kind: mirror.KindStorage},
		{
			Project: project, Room: mirror.RoomID(strings.Repeat("x", 512)), Kind: mirror.KindThread,
			ID: strings.Repeat("y", 128),
		},
		{Project: project, Room: "r", Kind: mirror.KindYdoc, ID: "guid"},
		{Project: project, Room: "r", Kind: mirror.KindThread},
		{Project: project, Room: "r", Kind: mirror.KindActiveUsers},
		{Project: project, Room: "r", Kind: mirror.KindUserSessions},
		{Project: project, Room: "r", Kind: mirror.KindNotification, ID: "in_1"},
		{Project: project, Kind: mirror.KindNotification, ID: "in_1"},
		{Project: project, Kind: mirror.KindSweep},
	} {
		id := formatTaskID(want)
		got, err := parseTaskID(project, id)
		if err != nil || got != want {
			t.Errorf("task id %q = %v, %v; want %v", id, got, err, want)
		}
		if len(id) > 2048 {
			t.Errorf("task id has %d bytes; the API takes 2048", len(id))
		}
	}
	for name, bad := range map[string]mirror.Resource{
		"no room":      {Kind: mirror.KindRoom},
		"no kind":      {Room: "r"},
		"unknown kind": {Room: "r", Kind: 99},
		"NUL":          {Room: "\x00", Kind: mirror.KindRoom},
		"not UTF-8":    {Room: "\xff", Kind: mirror.KindRoom},
		"too long":     {Room: mirror.RoomID(strings.Repeat("x", 513)), Kind: mirror.KindRoom},
		"room with id": {Room: "r", Kind: mirror.KindRoom, ID: "x"},

		"list of a thread without room": {Kind: mirror.KindThread, ID: "th_1"},
		"active users with id":          {Room: "r", Kind: mirror.KindActiveUsers, ID: "x"},
		"sessions with id":              {Room: "r", Kind: mirror.KindUserSessions, ID: "x"},
		"notification without id":       {Room: "r", Kind: mirror.KindNotification},
		"sweep with room":               {Room: "r", Kind: mirror.KindSweep},
		"sweep with id":                 {Kind: mirror.KindSweep, ID: "x"},
		"thread's id too long":          {Room: "r", Kind: mirror.KindThread, ID: strings.Repeat("x", 129)},
	} {
		if got, err := parseTaskID(project, formatTaskID(bad)); err == nil {
			t.Errorf("task id with %s = %v; want a refusal", name, got)
		}
	}
}

func FuzzTaskID(f *testing.F) {
	f.Add(formatTaskID(mirror.Resource{Room: "r", Kind: mirror.KindRoom}))
	f.Add(formatTaskID(mirror.Resource{Room: "röom", Kind: mirror.KindStorage}))
	f.Add(formatTaskID(mirror.Resource{Room: "\x00", Kind: 99, ID: "x"}))
	f.Add("AQEA\n")
	f.Add("AQH__w")
	f.Fuzz(func(t *testing.T, id string) {
		r, err := parseTaskID(project, id)
		if err != nil {
			if !errors.Is(err, errTaskID) {
				t.Fatalf("parseTaskID = %v; want a refusal", err)
			}
			return
		}
		if !r.Valid() || r.Project != project {
			t.Fatalf("parseTaskID = %+v, which cannot be", r)
		}
		if again := formatTaskID(r); again != id {
			t.Fatalf("task id %q reads as %+v, which is spelled %q", id, r, again)
		}
	})
}

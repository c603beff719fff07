package rpc

import (
	"context"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

func TestListActiveUsers(t *testing.T) {
	t.Parallel()
	h := start(t)
	h.query.users = []mirror.ActiveUsers{
		{
			Project: project, Room: "r",
			Users: []mirror.ActiveUser{
				{ConnectionID: 2, UserID: "alice", Info: []byte(`{"name":"\u0000"}`)},
				{ConnectionID: 3},
			},
			Freshness: mirror.Freshness{FetchTime: noon.Add(-time.Minute), Revision: 4, Stale: true},
		},
		{Project: project, Room: "never fetched"},
		{
			Project: project, Room: "gone", Users: []mirror.ActiveUser{{ConnectionID: 1}},
			Freshness: mirror.Freshness{FetchTime: noon, DeleteTime: noon},
		},
	}
	ctx := t.Context()
	resp, err := h.mirror.ListActiveUsers(ctx, &mirrorv1.ListActiveUsersRequest{RoomId: "r"})
	want := &mirrorv1.ListActiveUsersResponse{
		ActiveUsers: []*mirrorv1.ActiveUser{
			{ConnectionId: 2, UserId: "alice", InfoJson: []byte(`{"name":"\u0000"}`)},
			{ConnectionId: 3},
		},
		Freshness: &mirrorv1.Freshness{FetchTime: timestamppb.New(noon.Add(-time.Minute)), Revision: 4, Stale: true},
	}
	if diff := gocmp.Diff(want, resp, protocmp.Transform()); err != nil || diff != "" {
		t.Errorf("ListActiveUsers = %v; -want +got:\n%s", err, diff)
	}
	resp, err = h.mirror.ListActiveUsers(ctx, &mirrorv1.ListActiveUsersRequest{RoomId: "never fetched"})
	if diff := gocmp.Diff(&mirrorv1.ListActiveUsersResponse{Freshness: &mirrorv1.Freshness{}}, resp,
		protocmp.Transform()); err != nil || diff != "" {
		t.Errorf("ListActiveUsers of a room never asked for = %v; -want +got:\n%s", err, diff)
	}
	for _, room := range []string{"gone", "none"} {
		_, err = h.mirror.ListActiveUsers(ctx, &mirrorv1.ListActiveUsersRequest{RoomId: room})
		wantStatus(t, err, codes.NotFound, fault.ReasonRoomNotMirrored)
	}
	resp, err = h.mirror.ListActiveUsers(ctx, &mirrorv1.ListActiveUsersRequest{RoomId: "gone", ShowDeleted: true})
	if err != nil || len(resp.GetActiveUsers()) != 1 || resp.GetFreshness().GetDeleteTime() == nil {
		t.Errorf("ListActiveUsers of a tombstone on request = %v, %v", resp, err)
	}
}

func TestActiveUsersAreRefreshedOnce(t *testing.T) {
	t.Parallel()
	h := start(t)
	h.query.users = []mirror.ActiveUsers{{Project: project, Room: "r"}}
	h.worker.refresh = func(context.Context) error {
		h.query.change(func() {
			h.query.users[0].Users = []mirror.ActiveUser{{ConnectionID: 1}, {ConnectionID: 2}, {ConnectionID: 3}}
			h.query.users[0].Freshness.FetchTime = noon.Add(-time.Second)
		})
		return nil
	}
	users := mirror.Resource{Project: project, Room: "r", Kind: mirror.KindActiveUsers}
	req := &mirrorv1.ListActiveUsersRequest{
		RoomId: "r", MaxAge: durationpb.New(10 * time.Second), RequireFresh: true,
		PageSize: 2,
	}
	resp, err := h.mirror.ListActiveUsers(t.Context(), req)
	if err != nil || len(resp.GetActiveUsers()) != 2 || resp.GetNextPageToken() == "" {
		t.Fatalf("ListActiveUsers = %v, %v; want two of three", resp, err)
	}
	if len(h.worker.refreshed) != 1 || !slices.Equal(h.worker.refreshed[0], []mirror.Resource{users}) {
		t.Errorf("refreshed %v; want the active users once", h.worker.refreshed)
	}
	// How fresh the next page has to be is another matter.
	req.PageToken, req.MaxAge, req.RequireFresh = resp.GetNextPageToken(), nil, false
	resp, err = h.mirror.ListActiveUsers(t.Context(), req)
	if err != nil || len(resp.GetActiveUsers()) != 1 || resp.GetActiveUsers()[0].GetConnectionId() != 3 ||
		resp.GetNextPageToken() != "" {
		t.Errorf("the next page = %v, %v; want the third", resp, err)
	}
	// A token that is none costs no fetch.
	_, err = h.mirror.ListActiveUsers(t.Context(),
		&mirrorv1.ListActiveUsersRequest{RoomId: "r", MaxAge: durationpb.New(0), PageToken: "x"})
	wantStatus(t, err, codes.InvalidArgument, fault.ReasonPageTokenInvalid)
	if len(h.worker.refreshed) != 1 {
		t.Errorf("refreshed %v for a bad token", h.worker.refreshed)
	}
}

func TestListUserSessions(t *testing.T) {
	t.Parallel()
	h := start(t)
	enter, leave := noon.Add(-time.Hour), noon.Add(-time.Minute)
	h.query.sessions = []mirror.UserSession{
		{Project: project, Room: "r", ID: "a", ConnectionID: 7, UserID: "alice", Info: []byte(`{}`), EnterTime: noon},
		{
			Project: project, Room: "r", ID: "b", EnterTime: enter.Add(3 * time.Second), LeaveTime: leave.Add(3 * time.Second),
			LeaveEventID: "x", End: mirror.SessionLeft,
		},
		{
			Project: project, Room: "r", ID: "c", EnterTime: enter.Add(2 * time.Second), LeaveTime: enter,
			End: mirror.SessionAbsent,
		},
		{
			Project: project, Room: "r", ID: "d", EnterTime: enter.Add(time.Second), LeaveTime: noon,
			End: mirror.SessionRoomDeleted,
		},
		{Project: project, Room: "r", ID: "e", LeaveTime: enter, LeaveEventID: "e", End: mirror.SessionLeft},
	}
	session := func(id string, enter, leave time.Time, cause mirrorv1.SessionEndCause) *mirrorv1.UserSession {
		return &mirrorv1.UserSession{
			ProjectId: "default", RoomId: "r", SessionId: id, EnterTime: timestamp(enter),
			LeaveTime: timestamp(leave), EndCause: cause,
		}
	}
	want := []*mirrorv1.UserSession{
		session("a", noon, time.Time{}, mirrorv1.SessionEndCause_SESSION_END_CAUSE_OPEN),
		session("b", enter.Add(3*time.Second), leave.Add(3*time.Second), mirrorv1.SessionEndCause_SESSION_END_CAUSE_LEFT),
		session("c", enter.Add(2*time.Second), enter, mirrorv1.SessionEndCause_SESSION_END_CAUSE_ABSENT),
		session("d", enter.Add(time.Second), noon, mirrorv1.SessionEndCause_SESSION_END_CAUSE_ROOM_DELETED),
		session("e", time.Time{}, enter, mirrorv1.SessionEndCause_SESSION_END_CAUSE_LEFT),
	}
	want[0].ConnectionId, want[0].UserId, want[0].InfoJson = 7, "alice", []byte(`{}`)
	want[1].LeaveEventId, want[1].Duration = "x", durationpb.New(59*time.Minute)
	want[2].Duration = durationpb.New(0) // two clocks, and no stay is shorter than none
	want[3].Duration = durationpb.New(time.Hour - time.Second)
	want[4].LeaveEventId = "e"
	resp, err := h.mirror.ListUserSessions(t.Context(), &mirrorv1.ListUserSessionsRequest{
		RoomId: "r", UserId: "alice", OpenOnly: true, StartTime: timestamppb.New(enter), EndTime: timestamppb.New(noon),
	})
	if diff := gocmp.Diff(want, resp.GetUserSessions(), protocmp.Transform()); err != nil || diff != "" {
		t.Errorf("ListUserSessions = %v; -want +got:\n%s", err, diff)
	}
	filter := store.SessionFilter{Project: project, Room: "r", User: "alice", Open: true, From: enter, To: noon, Limit: 51}
	if diff := gocmp.Diff(filter, h.query.sessionFilter); diff != "" {
		t.Errorf("filter -want +got:\n%s", diff)
	}
}

func TestListNotifications(t *testing.T) {
	t.Parallel()
	h := start(t)
	inbox := []byte(`{"id":"in_1","readAt":null}`)
	h.query.notices = []mirror.Notification{
		{
			Project: project, Room: "r", EventID: "msg_1", ID: "in_1", Channel: "email", Kind: "thread", UserID: "bob",
			ThreadID: "th_1", MentionID: "m", SubjectID: "s",
			CreateTime: noon, TriggerTime: noon.Add(time.Second),
			Inbox:     mirror.Inbox{Source: inbox, ReadTime: noon.Add(2 * time.Second), NotifyTime: noon.Add(3 * time.Second)},
			Freshness: mirror.Freshness{FetchTime: noon, Revision: 5},
		},
		{
			Project: project, EventID: "msg_2", ID: "msg_2", Channel: "slack", Kind: "$fileUpload",
			CreateTime: noon.Add(-time.Hour),
		},
	}
	resp, err := h.mirror.ListNotifications(t.Context(), &mirrorv1.ListNotificationsRequest{
		RoomId: "r", UserId: "bob", Channel: "email", Kind: "thread", ThreadId: "th_1", StartTime: timestamppb.New(noon),
		EndTime: timestamppb.New(noon.Add(1)),
	})
	want := []*mirrorv1.Notification{
		{
			ProjectId: "default", RoomId: "r", EventId: "msg_1", NotificationId: "in_1", Channel: "email", Kind: "thread",
			UserId: "bob", ThreadId: "th_1",
			MentionId: "m", SubjectId: "s", CreateTime: timestamppb.New(noon),
			TriggerTime: timestamppb.New(noon.Add(time.Second)), InboxJson: inbox,
			ReadTime: timestamppb.New(noon.Add(2 * time.Second)), NotifyTime: timestamppb.New(noon.Add(3 * time.Second)),
			Freshness: &mirrorv1.Freshness{
				FetchTime: timestamppb.New(noon), Revision: 5,
				ContentSha256: "8ba62e834eff8e4af02c79abb50e51bc714c484fa8757a817ab96b117902a84a",
			},
		},
		{
			ProjectId: "default", EventId: "msg_2", NotificationId: "msg_2", Channel: "slack", Kind: "$fileUpload",
			CreateTime: timestamppb.New(noon.Add(-time.Hour)),
			Freshness:  &mirrorv1.Freshness{},
		},
	}
	if diff := gocmp.Diff(want, resp.GetNotifications(), protocmp.Transform()); err != nil || diff != "" {
		t.Errorf("ListNotifications = %v; -want +got:\n%s", err, diff)
	}
	filter := store.NotificationFilter{
		Project: project, Room: "r", User: "bob", Channel: "email", Kind: "thread", Thread: "th_1", From: noon,
		To: noon.Add(time.Microsecond), Limit: 51,
	}
	if diff := gocmp.Diff(filter, h.query.noticeFilter); diff != "" {
		t.Errorf("filter -want +got:\n%s", diff)
	}
}

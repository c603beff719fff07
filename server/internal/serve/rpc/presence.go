package rpc

import (
	"context"
	"slices"
	"strconv"

	"google.golang.org/protobuf/types/known/durationpb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// ListActiveUsers lists who is in a room, by connection id.
func (m *mirrorService) ListActiveUsers(ctx context.Context,
	req *mirrorv1.ListActiveUsersRequest) (*mirrorv1.ListActiveUsersResponse, error) {
	project, err := m.s.project(req.GetProjectId())
	if err != nil {
		return nil, err
	}
	var row mirror.ActiveUsers
	users, next, err := page(ctx, req, listing[mirror.ActiveUser, *mirrorv1.ActiveUser]{
		list:    listActiveUsers,
		project: project,
		// All of them are one copy, so a page is one read.
		fetch: func(ctx context.Context, after cursor, limit int) ([]mirror.ActiveUser, error) {
			var err error
			row, err = read(ctx, m.s, req, copyOf[mirror.ActiveUsers]{
				resource:  mirror.Resource{Project: project, Room: mirror.RoomID(req.GetRoomId()), Kind: mirror.KindActiveUsers},
				get:       m.s.Query.ActiveUsers,
				freshness: func(u *mirror.ActiveUsers) mirror.Freshness { return u.Freshness },
			})
			if err != nil {
				return nil, notFound(err, roomNotMirrored(err, req.GetRoomId()))
			}
			last, err := strconv.ParseInt(after.ID, 10, 64)
			rest := slices.DeleteFunc(slices.Clone(row.Users),
				func(u mirror.ActiveUser) bool { return err == nil && u.ConnectionID <= last })
			return rest[:min(limit, len(rest))], nil
		},
		key: func(u *mirror.ActiveUser) cursor { return cursor{ID: strconv.FormatInt(u.ConnectionID, 10)} },
		show: func(u *mirror.ActiveUser) *mirrorv1.ActiveUser {
			return &mirrorv1.ActiveUser{ConnectionId: u.ConnectionID, UserId: u.UserID, InfoJson: u.Info}
		},
	}, m.s.pageBudget())
	if err != nil {
		return nil, err
	}
	return &mirrorv1.ListActiveUsersResponse{
		ActiveUsers: users, NextPageToken: next, Freshness: showFreshness(row.Freshness, nil),
	}, nil
}

func roomNotMirrored(err error, room string) *fault.Error {
	return fault.Wrap(err, fault.NotFound, fault.ReasonRoomNotMirrored, "the mirror holds no such room").With("room_id",
		room)
}

// ListUserSessions lists who was in a room when, the latest first.
func (m *mirrorService) ListUserSessions(ctx context.Context,
	req *mirrorv1.ListUserSessionsRequest) (*mirrorv1.ListUserSessionsResponse, error) {
	project, err := m.s.project(req.GetProjectId())
	if err != nil {
		return nil, err
	}
	sessions, next, err := page(ctx, req, listing[mirror.UserSession, *mirrorv1.UserSession]{
		list:    listUserSessions,
		project: project,
		fetch: func(ctx context.Context, after cursor, limit int) ([]mirror.UserSession, error) {
			return m.s.Query.UserSessions(ctx, store.SessionFilter{
				Project:   project,
				Room:      mirror.RoomID(req.GetRoomId()),
				User:      req.GetUserId(),
				Open:      req.GetOpenOnly(),
				From:      bound(req.GetStartTime()),
				To:        bound(req.GetEndTime()),
				AfterTime: after.stored(),
				AfterID:   after.ID,
				Limit:     limit,
			})
		},
		key:  func(row *mirror.UserSession) cursor { return cursor{Time: row.BeginTime(), ID: row.ID} },
		show: showSession,
	}, m.s.pageBudget())
	if err != nil {
		return nil, err
	}
	return &mirrorv1.ListUserSessionsResponse{UserSessions: sessions, NextPageToken: next}, nil
}

func showSession(s *mirror.UserSession) *mirrorv1.UserSession {
	shown := &mirrorv1.UserSession{
		ProjectId:    string(s.Project),
		RoomId:       string(s.Room),
		SessionId:    s.ID,
		ConnectionId: s.ConnectionID,
		UserId:       s.UserID,
		InfoJson:     s.Info,
		EnterTime:    timestamp(s.EnterTime),
		LeaveTime:    timestamp(s.LeaveTime),
		EndCause:     sessionEnds[s.End],
		LeaveEventId: s.LeaveEventID,
	}
	if !s.EnterTime.IsZero() && !s.LeaveTime.IsZero() {
		// An end that was inferred is a time of ours, the rest are Liveblocks' own.
		shown.Duration = durationpb.New(max(0, s.LeaveTime.Sub(s.EnterTime)))
	}
	return shown
}

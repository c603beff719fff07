package rpc

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// Each filter of a list of rooms but the prefix makes it begin with the newest, and selects
// what it says, over all pages.
func TestLatestRooms(t *testing.T) {
	t.Parallel()
	h := start(t)
	for n := range 5 {
		h.query.rooms = append(h.query.rooms, mirror.Room{
			Project: project, ID: mirror.RoomID(fmt.Sprint("r", n)), CreateTime: noon.Add(time.Duration(n/2) * time.Hour),
			Source: fmt.Appendf(nil, `{"metadata":{"n":"%d","x":"y"},"organizationId":"o%d",`+
				`"usersAccesses":{"u%d":["room:write"]},"groupsAccesses":{"g%d":["room:read"]}}`, n, n%2, n, n),
		})
	}
	h.query.rooms[4].CreateTime = time.Time{}
	deleted := h.query.rooms[0]
	deleted.ID, deleted.Freshness.DeleteTime = "r9", noon
	h.query.rooms = append(h.query.rooms, deleted)
	for _, c := range []struct {
		req  *mirrorv1.ListRoomsRequest
		want string
	}{
		{&mirrorv1.ListRoomsRequest{}, "r0 r1 r2 r3 r4"},
		{&mirrorv1.ListRoomsRequest{OrderBy: "create_time desc"}, "r2 r3 r0 r1 r4"},
		{&mirrorv1.ListRoomsRequest{OrderBy: "create_time desc", RoomIdPrefix: "r3"}, "r3"},
		{&mirrorv1.ListRoomsRequest{Metadata: map[string]string{"x": "y"}}, "r2 r3 r0 r1 r4"},
		{&mirrorv1.ListRoomsRequest{Metadata: map[string]string{"x": "y", "n": "3"}}, "r3"},
		{&mirrorv1.ListRoomsRequest{OrganizationId: "o1"}, "r3 r1"},
		{&mirrorv1.ListRoomsRequest{UserId: "u1"}, "r1"},
		{&mirrorv1.ListRoomsRequest{UserId: "u1", GroupIds: []string{"g2", "g4"}}, "r2 r1 r4"},
		{&mirrorv1.ListRoomsRequest{UserId: "u1", OrganizationId: "o0"}, ""},
	} {
		for _, size := range []int32{1, 2, 50} {
			c.req.PageSize, c.req.PageToken = size, ""
			var got []string
			for {
				page, err := h.mirror.ListRooms(t.Context(), c.req)
				if err != nil {
					t.Fatalf("ListRooms by %v = %v", c.req, err)
				}
				for _, r := range page.GetRooms() {
					got = append(got, r.GetRoomId())
				}
				if c.req.PageToken = page.GetNextPageToken(); c.req.PageToken == "" {
					break
				}
			}
			if d := cmp.Diff(strings.Fields(c.want), slices.Clip(append([]string{}, got...))); d != "" {
				t.Errorf("ListRooms by %v (-want +got):\n%s", c.req, d)
			}
		}
	}
	for _, req := range []*mirrorv1.ListRoomsRequest{
		{OrderBy: "create_time"},
		{OrderBy: "create_time desc", ShowDeleted: true},
		{UserId: "u", ShowDeleted: true},
		{GroupIds: []string{""}},
		{GroupIds: slices.Repeat([]string{"g"}, 101)},
	} {
		if _, err := h.mirror.ListRooms(t.Context(), req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("ListRooms by %v = %v; want it refused", req, err)
		}
	}
	h.query.err = func(context.Context) error { return store.ErrNotIndexed }
	_, err := h.mirror.ListRooms(t.Context(), &mirrorv1.ListRoomsRequest{OrderBy: "create_time desc"})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "being indexed") {
		t.Errorf("ListRooms of what is not indexed = %v; want %v", err, codes.Unavailable)
	}
}

package rpc

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

func TestGetGroup(t *testing.T) {
	t.Parallel()
	h := start(t)
	source := `{"id":"design","scopes":{"mention":true},"members":[{"id":"bob"},{"id":"alice","addedAt":"2026-01-02T03:04:05Z"}]}`
	h.query.groups = []mirror.Group{
		{Project: project, ID: "design", Source: []byte(source), OrganizationID: "acme", CreateTime: noon},
		{Project: project, ID: "gone", Source: []byte(`{"id":"gone"}`), Freshness: mirror.Freshness{DeleteTime: noon}},
	}
	got, err := h.mirror.GetGroup(t.Context(), &mirrorv1.GetGroupRequest{GroupId: "design"})
	if err != nil {
		t.Fatal(err)
	}
	want := &mirrorv1.Group{
		ProjectId: string(project), GroupId: "design", OrganizationId: "acme", CreateTime: timestamp(noon),
		Scopes: []string{"mention"}, SourceJson: []byte(source), Freshness: got.GetGroup().GetFreshness(),
		Members: []*mirrorv1.GroupMember{
			{UserId: "bob"}, {UserId: "alice", AddTime: got.GetGroup().GetMembers()[1].GetAddTime()},
		},
	}
	diff := cmp.Diff(want, got.GetGroup(), protocmp.Transform())
	if diff != "" || want.GetMembers()[1].GetAddTime() == nil {
		t.Error(diff)
	}
	_, err = h.mirror.GetGroup(t.Context(), &mirrorv1.GetGroupRequest{GroupId: "gone"})
	wantStatus(t, err, codes.NotFound, fault.ReasonGroupNotMirrored)
	if _, err = h.mirror.GetGroup(t.Context(), &mirrorv1.GetGroupRequest{GroupId: "gone", ShowDeleted: true}); err != nil {
		t.Errorf("GetGroup of a deleted one = %v; want it", err)
	}
	_, err = h.mirror.GetGroup(t.Context(), &mirrorv1.GetGroupRequest{})
	wantStatus(t, err, codes.InvalidArgument, fault.ReasonRequestInvalid)
}

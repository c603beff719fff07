package blackbox_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// diagram is a diagram of React Flow as Liveblocks' client reads it.
type diagram struct {
	Key   string `json:"key"`
	Nodes []struct {
		ID       string `json:"id"`
		Type     string `json:"type"`
		Position struct {
			X float64 `json:"x"`
			Y float64 `json:"y"`
		} `json:"position"`
		Width          *float64        `json:"width"`
		Height         *float64        `json:"height"`
		ParentID       string          `json:"parentId"`
		SourcePosition string          `json:"sourcePosition"`
		TargetPosition string          `json:"targetPosition"`
		Data           json.RawMessage `json:"data"`
	} `json:"nodes"`
	Edges []struct {
		ID           string          `json:"id"`
		Type         string          `json:"type"`
		Source       string          `json:"source"`
		Target       string          `json:"target"`
		SourceHandle string          `json:"sourceHandle"`
		TargetHandle string          `json:"targetHandle"`
		Animated     bool            `json:"animated"`
		Label        string          `json:"label"`
		Data         json.RawMessage `json:"data"`
	} `json:"edges"`
}

// activeUser is somebody in a room as his client knows himself.
type activeUser struct {
	ConnectionID int64           `json:"connectionId"`
	ID           string          `json:"id"`
	Info         json.RawMessage `json:"info"`
}

// sameJSON is JSON of an application in one form.
func sameJSON(t *testing.T, doc []byte) []byte {
	t.Helper()
	if len(doc) == 0 {
		return nil
	}
	return []byte(canonical(t, doc))
}

// flow is the diagram as the API has to answer it, in order of ids.
func (d diagram) flow(t *testing.T, room string) *mirrorv1.Flow {
	t.Helper()
	f := &mirrorv1.Flow{
		ProjectId: "default", RoomId: room, StorageKey: d.Key,
		NodeCount: int32(len(d.Nodes)), EdgeCount: int32(len(d.Edges)),
	}
	for _, n := range d.Nodes {
		f.Nodes = append(f.Nodes, &mirrorv1.FlowNode{
			NodeId: n.ID, Type: n.Type, Position: &mirrorv1.FlowPosition{X: n.Position.X, Y: n.Position.Y},
			Width: n.Width, Height: n.Height, ParentNodeId: n.ParentID,
			SourcePosition: n.SourcePosition, TargetPosition: n.TargetPosition, DataJson: sameJSON(t, n.Data),
		})
	}
	for _, e := range d.Edges {
		f.Edges = append(f.Edges, &mirrorv1.FlowEdge{
			EdgeId: e.ID, Type: e.Type, SourceNodeId: e.Source, TargetNodeId: e.Target,
			SourceHandle: e.SourceHandle, TargetHandle: e.TargetHandle,
			Animated: e.Animated, Label: e.Label, DataJson: sameJSON(t, e.Data),
		})
	}
	slices.SortFunc(f.Nodes, func(a, b *mirrorv1.FlowNode) int { return cmp.Compare(a.GetNodeId(), b.GetNodeId()) })
	slices.SortFunc(f.Edges, func(a, b *mirrorv1.FlowEdge) int { return cmp.Compare(a.GetEdgeId(), b.GetEdgeId()) })
	return f
}

// checkFlows compares the diagrams of a room with what Liveblocks' client reads, over
// gRPC and in the views.
func checkFlows(t *testing.T, s *harness.Service, db *dbtest.DB, scene scene) {
	t.Helper()
	if len(scene.Flows) != 2 || len(scene.Flows[0].Nodes) != 8 || len(scene.Flows[0].Edges) != 7 {
		t.Fatalf("play.mjs made %d diagrams; want two, the first with 8 nodes and 7 edges", len(scene.Flows))
	}
	var want []*mirrorv1.Flow
	for _, d := range scene.Flows {
		want = append(want, d.flow(t, scene.Room))
	}
	ignoreFreshness := protocmp.IgnoreFields(&mirrorv1.Flow{}, "freshness")

	list, err := s.Mirror(t).ListFlows(t.Context(), &mirrorv1.ListFlowsRequest{RoomId: scene.Room})
	if err != nil {
		t.Fatalf("ListFlows: %v", err)
	}
	keys := slices.SortedFunc(slices.Values(want),
		func(a, b *mirrorv1.Flow) int { return cmp.Compare(a.GetStorageKey(), b.GetStorageKey()) })
	if diff := gocmp.Diff(keys, list.GetFlows(), protocmp.Transform(), ignoreFreshness,
		protocmp.IgnoreFields(&mirrorv1.Flow{}, "nodes", "edges")); diff != "" {
		t.Errorf("ListFlows (-Liveblocks' client +mirror):\n%s", diff)
	}
	for _, flow := range want {
		answer, err := s.Mirror(t).GetFlow(t.Context(),
			&mirrorv1.GetFlowRequest{RoomId: scene.Room, StorageKey: flow.GetStorageKey()})
		if err != nil {
			t.Errorf("GetFlow %q: %v", flow.GetStorageKey(), err)
			continue
		}
		got := answer.GetFlow()
		for _, n := range got.GetNodes() {
			n.DataJson = sameJSON(t, n.GetDataJson())
		}
		for _, e := range got.GetEdges() {
			e.DataJson = sameJSON(t, e.GetDataJson())
		}
		if diff := gocmp.Diff(flow, got, protocmp.Transform(), ignoreFreshness); diff != "" {
			t.Errorf("GetFlow %q (-Liveblocks' client +mirror):\n%s", flow.GetStorageKey(), diff)
		}
		if !db.HasViews(t) {
			continue
		}
		const where = " where project_id = 'default' and room_id = ? and storage_key = ?"
		if n := count(t, db, "select count(*) from liveblocks_flow_nodes"+where, scene.Room,
			flow.GetStorageKey()); n != len(flow.GetNodes()) {
			t.Errorf("liveblocks_flow_nodes has %d rows of %q; want %d", n, flow.GetStorageKey(), len(flow.GetNodes()))
		}
		if n := count(t, db, "select count(*) from liveblocks_flow_edges"+where, scene.Room,
			flow.GetStorageKey()); n != len(flow.GetEdges()) {
			t.Errorf("liveblocks_flow_edges has %d rows of %q; want %d", n, flow.GetStorageKey(), len(flow.GetEdges()))
		}
	}
}

// tellPresence delivers the webhook of somebody who enters or leaves.
func tellPresence(t *testing.T, s *harness.Service, kind, room string, user activeUser) {
	t.Helper()
	deliver(t, s, fake.Event{
		Type: kind, RoomID: room, Time: time.Now(), ConnectionID: user.ConnectionID, UserID: user.ID,
		UserInfo: string(user.Info),
	})
}

// awaitUsers waits until the mirror has exactly these users in a room. That can take
// the ten seconds that have to lie between two looks at them.
func awaitUsers(t *testing.T, s *harness.Service, room string, users []activeUser) {
	t.Helper()
	var want []*mirrorv1.ActiveUser
	for _, u := range users {
		want = append(want, &mirrorv1.ActiveUser{ConnectionId: u.ConnectionID, UserId: u.ID, InfoJson: sameJSON(t, u.Info)})
	}
	harness.Eventually(t, patience, func() error {
		list, err := s.Mirror(t).ListActiveUsers(t.Context(), &mirrorv1.ListActiveUsersRequest{RoomId: room})
		if err != nil {
			return err
		}
		for _, u := range list.GetActiveUsers() {
			u.InfoJson = sameJSON(t, u.GetInfoJson())
		}
		if diff := gocmp.Diff(want, list.GetActiveUsers(), protocmp.Transform()); diff != "" {
			return errors.New("active users (-Liveblocks' clients +mirror):\n" + diff)
		}
		return nil
	})
}

// checkSessions makes sure that the mirror knows who stayed and who left.
func checkSessions(t *testing.T, s *harness.Service, room string, met, left []activeUser) {
	t.Helper()
	list, err := s.Mirror(t).ListUserSessions(t.Context(), &mirrorv1.ListUserSessionsRequest{RoomId: room})
	if err != nil {
		t.Fatalf("ListUserSessions: %v", err)
	}
	if len(list.GetUserSessions()) != len(met) {
		t.Errorf("%d users entered, which left %d sessions", len(met), len(list.GetUserSessions()))
	}
	for _, session := range list.GetUserSessions() {
		stayed := slices.ContainsFunc(left, func(u activeUser) bool { return u.ConnectionID == session.GetConnectionId() })
		want := mirrorv1.SessionEndCause_SESSION_END_CAUSE_LEFT
		if stayed {
			want = mirrorv1.SessionEndCause_SESSION_END_CAUSE_OPEN
		}
		known := slices.ContainsFunc(met, func(u activeUser) bool {
			return u.ConnectionID == session.GetConnectionId() && u.ID == session.GetUserId()
		})
		if session.GetEndCause() != want || !known || !session.GetEnterTime().IsValid() ||
			session.GetLeaveTime().IsValid() == stayed || session.GetDuration().IsValid() == stayed {
			t.Errorf("session %v; want one of %v with the end %v", session, met, want)
		}
	}
}

// refresh lets the mirror fetch both documents of a room.
func refresh(t *testing.T, s *harness.Service, room string) {
	t.Helper()
	now := durationpb.New(0)
	if _, err := s.Mirror(t).GetStorageDocument(t.Context(),
		&mirrorv1.GetStorageDocumentRequest{RoomId: room, MaxAge: now, RequireFresh: true}); err != nil {
		t.Errorf("GetStorageDocument: %v", err)
	}
	if _, err := s.Mirror(t).GetYjsDocument(t.Context(),
		&mirrorv1.GetYjsDocumentRequest{RoomId: room, MaxAge: now, RequireFresh: true}); err != nil {
		t.Errorf("GetYjsDocument: %v", err)
	}
}

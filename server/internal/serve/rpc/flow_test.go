package rpc

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// recordedFlow is a room with a diagram made by Liveblocks' React Flow package.
func recordedFlow(t testing.TB, f mirror.Freshness) mirror.Document {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "..", "decode", "lson", "testdata", "storage-flow-plainlson.json"))
	if err != nil {
		t.Fatal(err)
	}
	return mirror.Document{
		Project: project, Room: "r", Kind: mirror.KindStorage, Content: content, SHA256: sha256.Sum256(content),
		Size: int64(len(content)), Freshness: f,
	}
}

func TestGetFlow(t *testing.T) {
	t.Parallel()
	h := start(t)
	doc := recordedFlow(t, mirror.Freshness{FetchTime: noon, Revision: 3})
	h.query.documents = []mirror.Document{doc}
	freshness := &mirrorv1.Freshness{
		FetchTime: timestamppb.New(noon), Revision: 3,
		ContentSha256: hex.EncodeToString(doc.SHA256[:]),
	}
	listed := &mirrorv1.Flow{
		ProjectId: "default", RoomId: "r", StorageKey: "flow", NodeCount: 3, EdgeCount: 2,
		Freshness: freshness,
	}
	want := proto.CloneOf(listed)
	want.Nodes = []*mirrorv1.FlowNode{
		{
			NodeId: "1", Type: "input", Position: &mirrorv1.FlowPosition{}, SourcePosition: "right",
			DataJson: []byte(`{"label":"Start"}`),
		},
		{
			NodeId: "2", Type: "default", Position: &mirrorv1.FlowPosition{X: 250, Y: 100}, Width: proto.Float64(150),
			Height: proto.Float64(40), ParentNodeId: "1",
			DataJson: []byte(`{"label":"Review"}`),
		},
		{
			NodeId: "3", Type: "output", Position: &mirrorv1.FlowPosition{X: 500},
			DataJson: []byte(`{"label":"Done","style":{"color":"red"},"tags":["a","b"]}`),
		},
	}
	want.Edges = []*mirrorv1.FlowEdge{
		{EdgeId: "e1-2", Type: "smoothstep", SourceNodeId: "1", TargetNodeId: "2", Animated: true, Label: "go"},
		{EdgeId: "e2-3", SourceNodeId: "2", TargetNodeId: "3", SourceHandle: "a", DataJson: []byte(`{"weight":2}`)},
	}
	for _, key := range []string{"", "flow"} {
		for range 2 { // the second time from memory
			resp, err := h.mirror.GetFlow(t.Context(), &mirrorv1.GetFlowRequest{RoomId: "r", StorageKey: key})
			if diff := gocmp.Diff(want, resp.GetFlow(), protocmp.Transform()); err != nil || diff != "" {
				t.Errorf("GetFlow(%q) = %v; -want +got:\n%s", key, err, diff)
			}
		}
	}
	list, err := h.mirror.ListFlows(t.Context(), &mirrorv1.ListFlowsRequest{RoomId: "r"})
	if diff := gocmp.Diff([]*mirrorv1.Flow{listed}, list.GetFlows(), protocmp.Transform()); err != nil || diff != "" {
		t.Errorf("ListFlows = %v; -want +got:\n%s", err, diff)
	}

	_, err = h.mirror.GetFlow(t.Context(), &mirrorv1.GetFlowRequest{RoomId: "r", StorageKey: "Flow"})
	wantStatus(t, err, codes.NotFound, fault.ReasonFlowNotFound)
	if meta := detail[*errdetails.ErrorInfo](err).GetMetadata(); meta["room_id"] != "r" || meta["storage_key"] != "Flow" {
		t.Errorf("metadata = %v; want the room and the key", meta)
	}
	_, err = h.mirror.GetFlow(t.Context(), &mirrorv1.GetFlowRequest{RoomId: "other"})
	wantStatus(t, err, codes.NotFound, fault.ReasonDocumentNotMirrored)
	_, err = h.mirror.ListFlows(t.Context(), &mirrorv1.ListFlowsRequest{RoomId: "other"})
	wantStatus(t, err, codes.NotFound, fault.ReasonDocumentNotMirrored)
}

func TestFlowsUnderOddKeys(t *testing.T) {
	t.Parallel()
	h := start(t)
	const empty = `{"nodes":{},"edges":{}}`
	long := strings.Repeat("k", maxStorageKey)
	h.query.documents = []mirror.Document{storageOf("r",
		fmt.Sprintf(`{"z":%[1]s,"a/b:c?":%[1]s,"":%[1]s,%[2]q:%[1]s,%[3]q:%[1]s,"none":{"nodes":1}}`, empty, long, long+"k"),
		mirror.Freshness{})}
	list, err := h.mirror.ListFlows(t.Context(), &mirrorv1.ListFlowsRequest{RoomId: "r"})
	var keys []string
	for _, f := range list.GetFlows() {
		keys = append(keys, f.GetStorageKey())
	}
	if want := []string{"", "a/b:c?", long, "z"}; err != nil || !slices.Equal(keys, want) {
		t.Errorf("ListFlows = %q, %v; want %q", keys, err, want)
	}
	for _, key := range keys[1:] {
		resp, err := h.mirror.GetFlow(t.Context(), &mirrorv1.GetFlowRequest{RoomId: "r", StorageKey: key})
		if err != nil || resp.GetFlow().GetStorageKey() != key {
			t.Errorf("GetFlow(%q) = %v, %v", key, resp, err)
		}
	}
}

func TestFlowIsAsFreshAsItsDocument(t *testing.T) {
	t.Parallel()
	h := start(t)
	h.query.documents = []mirror.Document{storageOf("r", `{}`, mirror.Freshness{FetchTime: noon.Add(-time.Hour)})}
	h.worker.refresh = func(context.Context) error {
		h.query.change(func() { h.query.documents = []mirror.Document{recordedFlow(t, mirror.Freshness{FetchTime: noon})} })
		return nil
	}
	_, err := h.mirror.GetFlow(t.Context(), &mirrorv1.GetFlowRequest{RoomId: "r", MaxAge: durationpb.New(2 * time.Hour)})
	wantStatus(t, err, codes.NotFound, fault.ReasonFlowNotFound)
	resp, err := h.mirror.GetFlow(t.Context(), &mirrorv1.GetFlowRequest{
		RoomId: "r", MaxAge: durationpb.New(time.Minute),
		RequireFresh: true,
	})
	if err != nil || len(resp.GetFlow().GetNodes()) != 3 {
		t.Errorf("GetFlow = %v, %v; want the diagram that was fetched", resp, err)
	}
	storage := mirror.Resource{Project: project, Room: "r", Kind: mirror.KindStorage}
	if len(h.worker.refreshed) != 1 || !slices.Equal(h.worker.refreshed[0], []mirror.Resource{storage}) {
		t.Errorf("refreshed %v; want the document", h.worker.refreshed)
	}
}

func TestLargeFlow(t *testing.T) {
	t.Parallel()
	h := start(t)
	var nodes strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&nodes, `,"%d":{"id":"%[1]d","position":{"x":%[1]d,"y":0},"data":{"text":%q}}`, i,
			strings.Repeat("x", 1500))
	}
	h.query.documents = []mirror.Document{storageOf("r", `{"flow":{"nodes":{`+nodes.String()[1:]+`},"edges":{}}}`,
		mirror.Freshness{})}
	_, err := h.mirror.GetFlow(t.Context(), &mirrorv1.GetFlowRequest{RoomId: "r"})
	wantStatus(t, err, codes.FailedPrecondition, fault.ReasonDocumentTooLarge)
	list, err := h.mirror.ListFlows(t.Context(), &mirrorv1.ListFlowsRequest{RoomId: "r"})
	if err != nil || len(list.GetFlows()) != 1 || list.GetFlows()[0].GetNodeCount() != 3000 {
		t.Errorf("ListFlows = %v, %v; want one of 3000 nodes", list, err)
	}
}

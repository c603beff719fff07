package rpc

import (
	"cmp"
	"context"
	"math"
	"slices"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/flow"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

const (
	// defaultStorageKey is where Liveblocks' React Flow package keeps a diagram
	// unless told otherwise.
	defaultStorageKey = "flow"
	// maxStorageKey is the longest key that is listed, so that a page token can hold
	// it.
	maxStorageKey = 2048
	// keyMark begins the id of a diagram in a cursor: its key may be empty.
	keyMark = "="
)

// GetFlow returns a React Flow diagram from a room's Storage.
func (m *mirrorService) GetFlow(ctx context.Context, req *mirrorv1.GetFlowRequest) (*mirrorv1.GetFlowResponse, error) {
	doc, flows, err := m.flows(ctx, req)
	if err != nil {
		return nil, err
	}
	key := cmp.Or(req.GetStorageKey(), defaultStorageKey)
	i := slices.IndexFunc(flows, func(f flow.Flow) bool { return f.StorageKey == key })
	if i < 0 {
		return nil, fault.New(fault.NotFound, fault.ReasonFlowNotFound,
			"the room's Storage holds no React Flow diagram under this key").
			With("room_id", req.GetRoomId()).With("storage_key", key)
	}
	shown := showFlow(&doc, &flows[i])
	for j := range flows[i].Nodes {
		shown.Nodes = append(shown.Nodes, showNode(&flows[i].Nodes[j]))
	}
	for j := range flows[i].Edges {
		shown.Edges = append(shown.Edges, showEdge(&flows[i].Edges[j]))
	}
	if err := m.s.fits(shown, "the diagram does not fit one message: read the Storage document as a stream"); err != nil {
		return nil, err
	}
	return &mirrorv1.GetFlowResponse{Flow: shown}, nil
}

// ListFlows lists the React Flow diagrams in a room's Storage by their keys.
func (m *mirrorService) ListFlows(ctx context.Context, req *mirrorv1.ListFlowsRequest) (*mirrorv1.ListFlowsResponse,
	error) {
	project, err := m.s.project(req.GetProjectId())
	if err != nil {
		return nil, err
	}
	var doc mirror.Document
	flows, next, err := page(ctx, req, listing[flow.Flow, *mirrorv1.Flow]{
		list:    listFlows,
		project: project,
		// All of them are in one document, so a page is one read.
		fetch: func(ctx context.Context, after cursor, limit int) ([]flow.Flow, error) {
			var all []flow.Flow
			var err error
			if doc, all, err = m.flows(ctx, req); err != nil {
				return nil, err
			}
			var rest []flow.Flow
			for i := range all {
				if id := keyMark + all[i].StorageKey; id > after.ID && len(all[i].StorageKey) <= maxStorageKey &&
					len(rest) < limit {
					rest = append(rest, all[i])
				}
			}
			return rest, nil
		},
		key:  func(row *flow.Flow) cursor { return cursor{ID: keyMark + row.StorageKey} },
		show: func(row *flow.Flow) *mirrorv1.Flow { return showFlow(&doc, row) },
	}, m.s.pageBudget())
	if err != nil {
		return nil, err
	}
	return &mirrorv1.ListFlowsResponse{Flows: flows, NextPageToken: next}, nil
}

// flows reads the diagrams in a room's Storage.
func (m *mirrorService) flows(ctx context.Context, req documentRequest) (mirror.Document, []flow.Flow, error) {
	_, form, err := formOf(mirror.KindStorage, mirrorv1.DocumentFormat_DOCUMENT_FORMAT_JSON)
	if err != nil {
		return mirror.Document{}, nil, err
	}
	doc, kept, err := m.document(ctx, req, mirror.KindStorage, "", form)
	if err != nil {
		return doc, nil, err
	}
	content, release, err := m.s.documents.represent(ctx, &doc, req.GetShowDeleted(), form, kept)
	if err != nil {
		return doc, nil, documentFault(err, req.GetRoomId(), mirror.KindStorage)
	}
	defer release()
	found, err := flow.Find(content)
	if err != nil {
		return doc, nil, unreadable(err, "document")
	}
	return doc, found, nil
}

func showFlow(doc *mirror.Document, f *flow.Flow) *mirrorv1.Flow {
	return &mirrorv1.Flow{
		ProjectId:  string(doc.Project),
		RoomId:     string(doc.Room),
		StorageKey: f.StorageKey,
		NodeCount:  int32(min(len(f.Nodes), math.MaxInt32)),
		EdgeCount:  int32(min(len(f.Edges), math.MaxInt32)),
		Freshness:  showFreshness(doc.Freshness, &doc.SHA256),
	}
}

func showNode(n *flow.Node) *mirrorv1.FlowNode {
	return &mirrorv1.FlowNode{
		NodeId:         n.ID,
		Type:           n.Type,
		Position:       &mirrorv1.FlowPosition{X: n.X, Y: n.Y},
		Width:          n.Width,
		Height:         n.Height,
		ParentNodeId:   n.ParentID,
		SourcePosition: n.SourcePosition,
		TargetPosition: n.TargetPosition,
		DataJson:       n.Data,
		Hidden:         n.Hidden,
	}
}

func showEdge(e *flow.Edge) *mirrorv1.FlowEdge {
	return &mirrorv1.FlowEdge{
		EdgeId:       e.ID,
		Type:         e.Type,
		SourceNodeId: e.Source,
		TargetNodeId: e.Target,
		SourceHandle: e.SourceHandle,
		TargetHandle: e.TargetHandle,
		Animated:     e.Animated,
		Label:        e.Label,
		DataJson:     e.Data,
		Hidden:       e.Hidden,
	}
}

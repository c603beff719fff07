// Package flow finds React Flow diagrams in a Storage document.
package flow

import (
	"cmp"
	"slices"
	"strings"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
)

// Flow is a diagram.
type Flow struct {
	// StorageKey is the key of the document's root that holds the diagram.
	StorageKey string
	// Nodes and Edges are in byte order of their ids. Edges and parents may name
	// nodes that do not exist, because an application removes each with a separate
	// write.
	Nodes []Node
	Edges []Edge
}

// Node is a node of a diagram. The typed fields leave out values that do not have
// React Flow's type.
type Node struct {
	ID string
	// Type is empty for React Flow's default.
	Type string
	// X and Y are relative to the parent, if there is one.
	X, Y float64
	// Width and Height are nil if they are not set.
	Width, Height *float64
	// ParentID is the parent node, empty if there is none.
	ParentID string
	// SourcePosition and TargetPosition are the sides where edges leave and arrive,
	// such as "right".
	SourcePosition, TargetPosition string
	Hidden                         bool
	// Data is the application's data as JSON; nil if there is none.
	Data []byte
	// Raw is the whole node as JSON.
	Raw []byte
}

// Edge is an edge of a diagram, with typed fields like those of [Node].
type Edge struct {
	ID, Type       string
	Source, Target string
	// SourceHandle and TargetHandle are empty if the node has only one handle.
	SourceHandle, TargetHandle string
	Animated, Hidden           bool
	// Label is empty if it is not a string.
	Label string
	Data  []byte
	Raw   []byte
}

// Find returns the diagrams in a Storage document, given as plain JSON, in byte
// order of their keys. They share memory with storageJSON.
//
// A diagram is a member of the root with "nodes" and "edges". Both are objects, as
// in Liveblocks' React Flow package, or arrays, as in older applications. A node
// needs an id and a position with an x; an edge needs an id, a source and a target;
// others are left out. If none remain, the value counts as a diagram only if it is
// two empty objects and nothing else. The views liveblocks_flow_nodes and
// liveblocks_flow_edges show the same nodes and edges, except those in arrays.
//
// The only error is [rawjson.ErrSyntax].
func Find(storageJSON []byte) ([]Flow, error) {
	root, err := rawjson.Parse(storageJSON)
	if err != nil {
		return nil, err
	}
	byKey := map[string]rawjson.Value{}
	for key, value := range root.Members() {
		byKey[text(key)] = value
	}
	var flows []Flow
	for key, value := range byKey {
		nodes, edges := value.Get("nodes"), value.Get("edges")
		objects, arrays := nodes.IsObject() && edges.IsObject(), nodes.IsArray() && edges.IsArray()
		if !objects && !arrays {
			continue
		}
		others := false
		for name := range value.Members() {
			others = others || name != "nodes" && name != "edges"
		}
		f := Flow{StorageKey: key, Nodes: parts(nodes, node), Edges: parts(edges, edge)}
		empty := objects && !others && isEmpty(nodes) && isEmpty(edges)
		if len(f.Nodes) == 0 && len(f.Edges) == 0 && !empty {
			continue
		}
		slices.SortFunc(f.Nodes, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
		slices.SortFunc(f.Edges, func(a, b Edge) int { return cmp.Compare(a.ID, b.ID) })
		flows = append(flows, f)
	}
	slices.SortFunc(flows, func(a, b Flow) int { return cmp.Compare(a.StorageKey, b.StorageKey) })
	return flows, nil
}

// text makes s valid UTF-8: unpaired surrogates are not.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func isEmpty(object rawjson.Value) bool {
	for range object.Members() {
		return false
	}
	return true
}

// parts reads the nodes or edges in an object or array. The last of duplicate keys
// wins.
func parts[T any](list rawjson.Value, read func(rawjson.Value) (T, bool)) []T {
	var out []T
	at := map[string]int{}
	add := func(key string, v rawjson.Value) {
		part, ok := read(v)
		if i, known := at[key]; !ok {
			return
		} else if known {
			out[i] = part
			return
		}
		at[key] = len(out)
		out = append(out, part)
	}
	for key, v := range list.Members() {
		add(key, v)
	}
	for v := range list.Elements() {
		add(v.Get("id").Exact(), v)
	}
	return out
}

func node(v rawjson.Value) (Node, bool) {
	n := Node{Raw: v}
	var id, x rawjson.Value
	for name, value := range v.Members() {
		switch name {
		case "id":
			id = value
		case "type":
			n.Type = text(value.Exact())
		case "position":
			x = value.Get("x")
			n.X, _ = x.Float()
			n.Y, _ = value.Get("y").Float()
		case "width":
			n.Width = number(value)
		case "height":
			n.Height = number(value)
		case "parentId":
			n.ParentID = text(value.Exact())
		case "sourcePosition":
			n.SourcePosition = text(value.Exact())
		case "targetPosition":
			n.TargetPosition = text(value.Exact())
		case "hidden":
			n.Hidden = value.IsTrue()
		case "data":
			n.Data = value
		}
	}
	n.ID = text(id.Exact())
	return n, id.IsString() && len(x) > 0
}

func edge(v rawjson.Value) (Edge, bool) {
	e := Edge{Raw: v}
	var id, source, target rawjson.Value
	for name, value := range v.Members() {
		switch name {
		case "id":
			id = value
		case "type":
			e.Type = text(value.Exact())
		case "source":
			source = value
		case "target":
			target = value
		case "sourceHandle":
			e.SourceHandle = text(value.Exact())
		case "targetHandle":
			e.TargetHandle = text(value.Exact())
		case "animated":
			e.Animated = value.IsTrue()
		case "hidden":
			e.Hidden = value.IsTrue()
		case "label":
			e.Label = text(value.Exact())
		case "data":
			e.Data = value
		}
	}
	e.ID, e.Source, e.Target = text(id.Exact()), text(source.Exact()), text(target.Exact())
	return e, id.IsString() && source.IsString() && target.IsString()
}

// number returns the number in v, or nil if v is not a number.
func number(v rawjson.Value) *float64 {
	f, ok := v.Float()
	if !ok {
		return nil
	}
	return &f
}

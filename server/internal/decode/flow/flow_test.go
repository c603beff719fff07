package flow_test

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/flow"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
)

func find(t *testing.T, storage string) []flow.Flow {
	t.Helper()
	got, err := flow.Find([]byte(storage))
	if err != nil {
		t.Fatalf("Find(%s) = %v", storage, err)
	}
	return got
}

func TestFind(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/storage-flow-json.json")
	if err != nil {
		t.Fatal(err)
	}
	got := find(t, string(raw))
	width, height := 150.0, 40.0
	want := []flow.Flow{{
		StorageKey: "flow",
		Nodes: []flow.Node{
			{ID: "1", Type: "input", SourcePosition: "right", Data: []byte(`{"label":"Start"}`)},
			{
				ID: "2", Type: "default", X: 250, Y: 100, Width: &width, Height: &height, ParentID: "1",
				Data: []byte(`{"label":"Review"}`),
			},
			{ID: "3", Type: "output", X: 500, Data: []byte(`{"label":"Done","style":{"color":"red"},"tags":["a","b"]}`)},
		},
		Edges: []flow.Edge{
			{ID: "e1-2", Type: "smoothstep", Source: "1", Target: "2", Animated: true, Label: "go"},
			{ID: "e2-3", Source: "2", Target: "3", SourceHandle: "a", Data: []byte(`{"weight":2}`)},
		},
	}}
	ignore := []cmp.Option{cmpopts.IgnoreFields(flow.Node{}, "Raw"), cmpopts.IgnoreFields(flow.Edge{}, "Raw")}
	if diff := cmp.Diff(want, got, ignore...); diff != "" {
		t.Errorf("Find (-want +got):\n%s", diff)
	}
	for _, n := range got[0].Nodes {
		if !bytes.Contains(raw, n.Raw) || n.Raw[0] != '{' || !bytes.Contains(n.Raw, []byte(`"id":"`+n.ID+`"`)) {
			t.Errorf("raw node %s = %s", n.ID, n.Raw)
		}
	}
	if want := `{"id":"e1-2","source":"1","target":"2","type":"smoothstep","animated":true,"label":"go","markerEnd":{"type":"arrowclosed"}}`; string(got[0].Edges[0].Raw) != want {
		t.Errorf("raw edge = %s; want %s", got[0].Edges[0].Raw, want)
	}
}

// ids shows diagrams as key, ids of nodes, ids of edges.
func ids(flows []flow.Flow) [][]string {
	var out [][]string
	for _, f := range flows {
		row := []string{f.StorageKey}
		for _, n := range f.Nodes {
			row = append(row, n.ID)
		}
		row = append(row, "|")
		for _, e := range f.Edges {
			row = append(row, e.ID)
		}
		out = append(out, row)
	}
	return out
}

func TestFindRecognises(t *testing.T) {
	t.Parallel()
	const node, edge = `{"id":"n","position":{"x":1,"y":2}}`, `{"id":"e","source":"n","target":"gone"}`
	for _, c := range []struct {
		name, storage string
		want          [][]string
	}{
		{"nothing", `{}`, nil},
		{"no object", `[{"nodes":{},"edges":{}}]`, nil},
		{"dangling edge", `{"x":{"nodes":{},"edges":{"e":` + edge + `}}}`, [][]string{{"x", "|", "e"}}},
		{"node without edges", `{"x":{"nodes":{"n":` + node + `},"edges":{},"viewport":{}}}`, [][]string{{"x", "n", "|"}}},
		{"several, by key", `{"b":{"nodes":{},"edges":{}},"B":{"edges":{},"nodes":{"n":` + node +
			`}},"":{"nodes":{},"edges":{}}}`, [][]string{{"", "|"}, {"B", "n", "|"}, {"b", "|"}}},
		{"empty, with more beside", `{"x":{"nodes":{},"edges":{},"name":"graph"}}`, nil},
		{"empty arrays", `{"x":{"nodes":[],"edges":[]}}`, nil},
		{
			"arrays", `{"x":{"nodes":[{"id":"z","position":{"x":0}},` + node + `],"edges":[` + edge + `]}}`,
			[][]string{{"x", "n", "z", "|", "e"}},
		},
		{"object and array", `{"x":{"nodes":{"n":` + node + `},"edges":[]}}`, nil},
		{"one missing", `{"x":{"nodes":{"n":` + node + `}}}`, nil},
		{"of another shape", `{"x":{"nodes":{"a":{"id":"a"},"b":1,"c":{"id":"c","position":7}},"edges":{"e":{"id":"e","source":"a"},"f":{"source":"a","target":"b"}}}}`, nil},
		{"some of another shape", `{"x":{"nodes":{"a":{"id":"a"},"b":null,"n":` + node +
			`},"edges":{"e":{"id":"e","source":"a","target":7}}}}`, [][]string{{"x", "n", "|"}}},
		{"key written twice", `{"x":{"nodes":{},"edges":{}},"x":{"nodes":{"n":` + node +
			`,"n":{"id":"n2","position":{"x":0}}},"edges":{}}}`, [][]string{{"x", "n2", "|"}}},
		{"deeper down", `{"x":{"y":{"nodes":{},"edges":{}}}}`, nil},
	} {
		if diff := cmp.Diff(c.want, ids(find(t, c.storage))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
	for _, bad := range []string{"", "{", "nope"} {
		if got, err := flow.Find([]byte(bad)); !errors.Is(err, rawjson.ErrSyntax) {
			t.Errorf("Find(%q) = %v, %v; want ErrSyntax", bad, got, err)
		}
	}
}

// What is not of React Flow's type reads as absent, and nothing is lost in Raw.
func TestFindIsLenient(t *testing.T) {
	t.Parallel()
	const node = `{"id":"\ud83d","type":7,"position":{"x":"left","y":1e999},"width":"wide","height":null,"parentId":null,"hidden":1,"data":[1]}`
	const edge = `{"id":"e","source":"","target":"","sourceHandle":null,"animated":"yes","hidden":true,"label":{"a":1}}`
	got := find(t, `{"\ud83d":{"nodes":{"a":`+node+`},"edges":{"e":`+edge+`}}}`)
	want := []flow.Flow{{
		StorageKey: "\ufffd",
		Nodes:      []flow.Node{{ID: "\ufffd", Data: []byte("[1]"), Raw: []byte(node)}},
		Edges:      []flow.Edge{{ID: "e", Hidden: true, Raw: []byte(edge)}},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Find (-want +got):\n%s", diff)
	}
}

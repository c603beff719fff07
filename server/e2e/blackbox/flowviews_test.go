package blackbox_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// The views of React Flow diagrams find them in every top-level part of a document,
// and leave alone what only looks a little like one.
func TestFlowViews(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		if e == dbtest.MySQL {
			mysqltest.Need(t, mysqltest.Views)
		}
		url := e.Database(t)
		s, upstream := startOn(t, url, nil)
		db := e.Connect(t, url)
		object := func(members string) string { return `{"liveblocksType":"LiveObject","data":{` + members + `}}` }
		documents := map[string]string{
			"diagrams": object(`
				"flow":{"nodes":{
					"1":{"id":"1","type":"input","position":{"x":0,"y":-2.5},"data":{"label":"Start"}},
					"a \"b\" ö":{"id":"a \"b\" ö","position":{"x":1e300},"width":150,"height":40,"parentId":"1"},
					"nowhere":{"id":"nowhere"}, "nameless":{"position":{"x":0,"y":0}}, "text":"no node"
				},"edges":{
					"e1":{"id":"e1","source":"1","target":"a \"b\" ö","sourceHandle":"s","targetHandle":null,
						"type":"step","data":{"w":2}},
					"loose":{"id":"loose","source":"1"}
				}},
				"an \"odd\".key $[0]":{"nodes":{"1":{"id":"1","position":{"x":7,"y":8}}},"edges":{}},
				"nodes":{"1":{"id":"1","position":{"x":0,"y":0}}},
				"half":{"nodes":{"1":{"id":"1","position":{"x":0,"y":0}}}},
				"lists":{"nodes":[{"id":"1","position":{"x":0,"y":0}}],"edges":[]}`),
			"none": object(`"a":1,"b":[{"nodes":{},"edges":{}}],"c":null`),
		}
		for room, doc := range documents {
			create(t, s, upstream, room, fake.RoomOptions{Storage: []byte(doc)})
			awaitStorage(t, s, room, []byte(doc))
		}
		read := func(sql string) (rows []string) {
			err := db.Each(t.Context(), sql, func(scan func(dest ...any) error) error {
				var columns [10]string
				if err := scan(&columns[0], &columns[1], &columns[2], &columns[3], &columns[4], &columns[5], &columns[6],
					&columns[7], &columns[8], &columns[9]); err != nil {
					return err
				}
				rows = append(rows, strings.Join(columns[:], "|"))
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			return rows
		}
		text := func(column string) string { return "coalesce(" + column + ", '-')" }
		number := func(column string) string {
			return "case when " + column + " is null then '-' when " + column + " > 1e299 then 'huge' else concat('', cast(" +
				column + " as decimal(9, 1))) end"
		}
		nodes := read("select " + strings.Join([]string{
			text("room_id"), text("storage_key"), text("node_id"), text("type"), number("x"), number("y"), number("width"),
			number("height"),
			text("parent_id"), text(e.JSON("data", "label")),
		}, ", ") + " from liveblocks_flow_nodes where updated_at is not null and project_id = 'default' and node is not " +
			"null order by 2, 3")
		want := []string{
			`diagrams|an "odd".key $[0]|1|-|7.0|8.0|-|-|-|-`,
			`diagrams|flow|1|input|0.0|-2.5|-|-|-|Start`,
			`diagrams|flow|a "b" ö|-|huge|-|150.0|40.0|1|-`,
		}
		if d := cmp.Diff(want, nodes); d != "" {
			t.Errorf("liveblocks_flow_nodes (-want +got):\n%s", d)
		}
		edges := read("select " + strings.Join([]string{
			text("room_id"), text("storage_key"), text("edge_id"), text("source"), text("target"), text("source_handle"),
			text("target_handle"), text("type"),
			text(e.JSON("data", "w")), "'.'",
		}, ", ") + " from liveblocks_flow_edges where updated_at is not null and project_id = 'default' and edge is not " +
			"null order by 2, 3")
		if d := cmp.Diff([]string{`diagrams|flow|e1|1|a "b" ö|s|-|step|2|.`}, edges); d != "" {
			t.Errorf("liveblocks_flow_edges (-want +got):\n%s", d)
		}
	})
}

package reconcile_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/liveblockstest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// Invariant 10: content is exact. What the queryable column cannot hold leaves
// it null with the reason, and holds up nothing.
func TestOddDocuments(t *testing.T) {
	t.Parallel()
	nested := func(levels int) string {
		return `{"liveblocksType":"LiveObject","data":{"n":` + strings.Repeat("[", levels) + strings.Repeat("]", levels) + `}}`
	}
	node := func(data string) string { return `{"liveblocksType":"LiveObject","data":` + data + `}` }
	cases := []struct {
		name, storage string
		// problem is in the reason why there is no data; empty if there is data.
		problem string
		// query reads something from data, which is want.
		query, want string
	}{
		{name: "nul", storage: node(`{"a":"x\u0000y"}`), problem: `\u0000`},
		{name: "nul in a key", storage: node(`{"\u0000":1}`), problem: `\u0000`},
		{name: "lone surrogate", storage: node(`{"a":"\ud800"}`), problem: "surrogate"},
		{name: "surrogate pair", storage: node(`{"a":"\ud83d\ude00"}`), query: `data->>'a'`, want: "😀"},
		{name: "2^53+1", storage: node(`{"n":9007199254740993,"m":-0.10}`), query: `data->>'n' || ' ' || (data->>'m')`, want: "9007199254740993 -0.10"},
		{name: "1e400", storage: node(`{"n":1e400}`), query: `length(data->>'n')::text`, want: "401"},
		{name: "1e200000", storage: node(`{"n":1e200000}`), problem: "SQLSTATE 22003"},
		{name: "60 levels", storage: nested(60), query: `jsonb_typeof(data->'n'->0->0->0)`, want: "array"},
		{name: "9,000 levels", storage: nested(9_000), problem: ""},
		{name: "20,000 levels", storage: nested(20_000), problem: "read plain-lson"},
		{name: "repeated key", storage: node(`{"a":1,"a":2}`), query: `data->>'a'`, want: "2"},
		{name: "long key", storage: node(`{"` + strings.Repeat("k", 100_000) + `":1}`), query: `length(data::text) > 100000`, want: "true"},
		{name: "white space", storage: " \t\r\n" + node(` { "a" : [ 1 , 2 ] } `) + "\n", query: `data::text`, want: `{"a": [1, 2]}`},
		{name: "not utf-8", storage: node("{\"a\":\"\xff\"}"), problem: "read plain-lson"},
		{name: "scalar", storage: `"text"`, query: `data::text`, want: `"text"`},
		{name: "looks live", storage: node(`{"liveblocksType":"LiveObject","data":{"b":1},"c":2}`), query: `data->'data'->>'b'`, want: "1"},
		{name: "16 MiB", storage: node(`{"a":"` + strings.Repeat("0123456789abcdef", 1<<20-8) + `"}`), query: `length(data->>'a')::text`, want: fmt.Sprint(16<<20 - 128)},
	}
	b := newBench(t)
	r := b.start()
	conn := b.connect()
	for _, c := range cases {
		b.create(c.name, c.storage)
		b.deliver(r, event(liveblockstest.RoomCreated, c.name))
	}
	b.quiet()
	for _, c := range cases {
		doc, ok := b.document(c.name)
		if !ok || !bytes.Equal(doc.Content, []byte(c.storage)) {
			t.Fatalf("%s: document has %d bytes, there: %v; want the %d bytes of the source; tasks: %s", c.name, len(doc.Content), ok, len(c.storage), b.tasks())
		}
		if doc.SHA256 != sha256.Sum256([]byte(c.storage)) || doc.Size != int64(len(c.storage)) {
			t.Fatalf("%s: document = %d bytes, hash %x; want those of the source", c.name, doc.Size, doc.SHA256)
		}
		b.wantState(storageOf(c.name), mirror.TaskDone, "")
		var null bool
		var problem string
		err := conn.QueryRow(t.Context(), `select data is null, data_problem from mirror_document where room_id = $1`, c.name).Scan(&null, &problem)
		if err != nil || problem != doc.DataProblem || null == (problem == "") {
			t.Fatalf("%s: data is null = %v because of %q, %v; want a reason exactly if it is, and %q shown", c.name, null, problem, err, doc.DataProblem)
		}
		if c.problem != "" && !strings.Contains(problem, c.problem) {
			t.Fatalf("%s: reason = %q; want it to say %q", c.name, problem, c.problem)
		}
		if c.query == "" {
			continue
		}
		if null {
			t.Fatalf("%s: data is null because of %q; want it there", c.name, problem)
		}
		var got string
		if err := conn.QueryRow(t.Context(), "select ("+c.query+")::text from mirror_document where room_id = $1", c.name).Scan(&got); err != nil || got != c.want {
			t.Fatalf("%s: %s = %.100q, %v; want %q", c.name, c.query, got, err, c.want)
		}
	}
}

func TestLargeDocumentsHaveNoData(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.start(func(p *parts) { p.reconcile.MaxData = 1000 })
	for size, kept := range map[int]bool{1000: true, 1001: false} {
		id, storage := fmt.Sprint(size), `"`+strings.Repeat("x", size-2)+`"`
		b.created(r, id, storage)
		if doc := b.wantDocument(id, storage); (doc.DataProblem == "") != kept || !kept && !strings.Contains(doc.DataProblem, "at most 1000") {
			t.Fatalf("data problem of %d bytes = %q; want data kept: %v", size, doc.DataProblem, kept)
		}
	}
}

// The same holds for the JSON of rooms.
func TestOddRooms(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.start()
	conn := b.connect()
	source := func(id, metadata string) string {
		return ` {"type":"room","id":"` + id + `","createdAt":"2026-01-02T03:04:05.678Z" , "metadata":` + metadata + `}`
	}
	for id, c := range map[string]struct{ metadata, problem string }{
		"plain":     {`{"a":"b"}`, ""},
		"nul":       {`{"a":"\u0000"}`, `\u0000`},
		"surrogate": {`{"a":"\udc00"}`, "surrogate"},
		"numbers":   {`{"n":9007199254740993,"m":1e200000}`, "SQLSTATE 22003"},
		"deep":      {strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000), ""},
	} {
		b.create(id, lson("1"))
		want := source(id, c.metadata)
		if err := b.fake.SetRoomSource(id, []byte(want)); err != nil {
			t.Fatalf("SetRoomSource = %v", err)
		}
		b.deliver(r, event(liveblockstest.RoomCreated, id))
		b.quiet()
		if id == "deep" {
			continue // the client cannot read whose room it is, and says so; see below
		}
		room, ok := b.room(id, false)
		if !ok || string(room.Source) != want || room.CreateTime.IsZero() {
			t.Fatalf("room %q = %s, there: %v; want %s; tasks: %s", id, room.Source, ok, want, b.tasks())
		}
		var null bool
		var problem string
		err := conn.QueryRow(t.Context(), `select data is null, data_problem from mirror_room where room_id = $1`, id).Scan(&null, &problem)
		if err != nil || null != (c.problem != "") || !strings.Contains(problem, c.problem) {
			t.Fatalf("data of %q is null = %v because of %q, %v; want %q", id, null, problem, err, c.problem)
		}
		b.wantDocument(id, lson("1"))
	}
	b.wantState(roomOf("deep"), mirror.TaskFailed, "UPSTREAM_ANSWER_INVALID")
}

// Invariant 9: ids are bytes, on the whole way from the event to the row.
func TestIDsAreBytes(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.start()
	for _, id := range oddIDs {
		b.create(id, lson(id))
		b.deliver(r, event(liveblockstest.RoomCreated, id))
	}
	b.quiet()
	for _, id := range oddIDs {
		b.wantDocument(id, lson(id))
		source, _ := b.fake.RoomSource(id)
		if room, ok := b.room(id, false); !ok || !bytes.Equal(room.Source, source) {
			t.Fatalf("room %q = %s, there: %v; want %s", id, room.Source, ok, source)
		}
	}
}

// oddIDs are ids that something on the way may take for one another, or for a
// part of a path.
var oddIDs = []string{
	"Room", "room", "room ", " room", "ro\u00f6m", "roo\u0308m", "a/b", "a%2Fb", "a?b#c", "..", ".", "%", "+", "'; --", "😀", "\\", `"`, "a:b",
	"room\n", "<&>",
}

package yjs_test

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/yjs"
)

// readCase reads an update that is kept in hexadecimal.
func readCase(t *testing.T, name string) *yjs.Doc {
	t.Helper()
	b, err := hex.DecodeString(strings.TrimSpace(string(read(t, "case-"+name+".hex"))))
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, b)
}

func TestTextOfCases(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"mentions":      "Hello @alice!\nHi @team.\nx @Boby\nz @Carol.",
		"table-caption": "A1\nB1\nA2\nB2\nA caption\nleft\nright",
		"slate":         "First line\nSecond line\nHi @alice",
		"weak-link":     "Hello",
		"gap":           "Hello",
		"gap-filled":    "Hello! world",
	} {
		if got := readCase(t, name).Text(); got != want {
			t.Errorf("Text of %s = %q; want %q", name, got, want)
		}
	}
}

// Rich texts inside maps and arrays have their trees under their paths.
func TestTreesInside(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"nested": `{"cards/0":{"type":"doc","content":[{"type":"heading","attrs":{"level":1},` +
			`"content":[{"type":"text","text":"Card"}]}]},` +
			`"pages/p1":{"type":"doc","content":[{"type":"paragraph","content":[{"type":"text","text":"Hello"}]}]}}`,
		"slate": `{}`,
	} {
		if got := string(structure(t, readCase(t, name))); got != want {
			t.Errorf("Structure of %s = %s; want %s", name, got, want)
		}
	}
	if got := readCase(t, "slate").Foreign(); got != 1 {
		t.Errorf("Foreign of slate = %d; want 1", got)
	}
	if got := readCase(t, "mentions").Foreign(); got != 0 {
		t.Errorf("Foreign of mentions = %d; want 0", got)
	}

	// Keys can hold what separates them, and an array counts what lies before.
	inside := ops{}.root(values, "a").uint(2).byte(126, 126).after(typ, 1, 1).byte(1)
	inside = append(inside, ops{}.byte(typ|0x20).uint(0, 1, 2).text("x/~y").byte(4)...)
	inside = append(inside, ops{}.root(typ, "").byte(1)...)
	inside = append(inside, ops{}.byte(typ|0x20).uint(0, 1, 4).text("k").byte(4)...)
	d := decode(t, whole(section(5, 1, 0, inside)))
	const want = `{"/0/k":{"type":"doc"},"a/2/x~1~0y":{"type":"doc"}}`
	if got := string(structure(t, d)); got != want {
		t.Errorf("Structure = %s; want %s", got, want)
	}
}

// A root that has the name of a path hides what is there.
func TestRootHidesPath(t *testing.T) {
	t.Parallel()
	o := ops{}.byte(typ|0x20).uint(1).text("m").text("k").byte(4).
		root(typ, "m/k").byte(3).text("p")
	d := decode(t, whole(section(2, 1, 0, o)))
	const want = `{"m/k":{"type":"doc","content":[{"type":"p"}]}}`
	if got := string(structure(t, d)); got != want {
		t.Errorf("Structure = %s; want %s", got, want)
	}
}

func TestWaiting(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]yjs.Waiting{
		"gap": {{Client: 1, Clock: 6}}, "gap-filled": nil, "equal-a": nil, "nested": nil,
	} {
		if diff := cmp.Diff(want, readCase(t, name).Waiting()); diff != "" {
			t.Errorf("Waiting of %s (-want +got):\n%s", name, diff)
		}
	}
	a := ops{}.root(str, "t").text("a")
	for name, c := range map[string]struct {
		update []byte
		want   []yjs.Waiting
	}{
		"nothing": {whole(section(1, 1, 0, a)), nil},
		"client that begins later": {
			whole(section(1, 1, 0, a), section(1, 2, 5, ops{}.root(str, "t").text("b"))), []yjs.Waiting{{2, 5}},
		},
		"gap at the end": {whole(section(2, 1, 0, a.byte(skip).uint(1))), nil},
		"two gaps": {
			whole(section(4, 1, 0, a.byte(skip).uint(1).byte(skip).uint(2).root(str, "t").text("b"))), []yjs.Waiting{{1, 4}},
		},
		"origin of an absent client": {
			whole(section(2, 1, 0, a.after(str, 7, 0).text("b"))), []yjs.Waiting{{1, 1}},
		},
		"what refers to what waits": {
			whole(section(1, 1, 0, a), section(2, 2, 0, ops{}.after(str, 7, 0).text("b").after(str, 2, 0).text("c")),
				section(1, 3, 0, ops{}.after(str, 2, 1).text("d"))), []yjs.Waiting{{2, 0}, {3, 0}},
		},
		"deletion of what is absent":         {without(whole(section(1, 1, 0, a)), 1, 1, 9), []yjs.Waiting{{1, 1}}},
		"deletion of what a stranger made":   {without(whole(section(1, 1, 0, a)), 7, 3, 9), []yjs.Waiting{{7, 3}}},
		"deletion of what an earlier client": {without(whole(section(1, 5, 0, a)), 2, 0, 1), []yjs.Waiting{{2, 0}}},
		"deletion of what there is":          {without(whole(section(1, 1, 0, a)), 1, 0, 1), nil},
	} {
		if diff := cmp.Diff(c.want, decode(t, c.update).Waiting()); diff != "" {
			t.Errorf("Waiting of %s (-want +got):\n%s", name, diff)
		}
	}
}

// state is the hash of what is in an update.
func state(t *testing.T, d *yjs.Doc) [32]byte {
	t.Helper()
	return d.StateSHA256(toJSON(t, d))
}

func TestStateIsThatOfAnyEncoding(t *testing.T) {
	t.Parallel()
	var none [32]byte
	a := state(t, readCase(t, "equal-a"))
	if b := state(t, readCase(t, "equal-b")); a != b || a == none {
		t.Errorf("StateSHA256 = %x and %x; want the same", a, b)
	}
	if got := state(t, readCase(t, "gap")); got != none {
		t.Errorf("StateSHA256 of what waits = %x; want none", got)
	}
	one := func(o ops) []byte { return whole(section(1, 1, 0, o)) }
	ab := func() []byte { return one(ops{}.root(str, "t").text("ab")) }
	seen := map[[32]byte]string{}
	for name, update := range map[string][]byte{
		"empty":         {0, 0},
		"ab":            ab(),
		"other content": one(ops{}.root(str, "t").text("ac")),
		"other root":    one(ops{}.root(str, "u").text("ab")),
		"other client":  whole(section(1, 2, 0, ops{}.root(str, "t").text("ab"))),
		"a deleted":     without(ab(), 1, 0, 1),
		"b deleted":     without(ab(), 1, 1, 1),
		"all deleted":   without(ab(), 1, 0, 2),
		"more deleted":  whole(section(2, 1, 0, ops{}.root(str, "t").text("ab").root(deleted, "t").uint(3))),
		"as much, but two": whole(section(1, 1, 0, ops{}.root(str, "t").text("ab")),
			section(1, 2, 0, ops{}.root(deleted, "t").uint(3))),
	} {
		sum := state(t, decode(t, update))
		if other, ok := seen[sum]; ok || sum == none {
			t.Errorf("StateSHA256 of %q = %x; want one of its own, not that of %q", name, sum, other)
		}
		seen[sum] = name
	}
	// What was deleted may be there or not.
	for name, update := range map[string][]byte{
		"as a length": one(ops{}.root(deleted, "t").uint(2)), "collected": one(ops{}.byte(gc).uint(2)),
		"in parts": whole(section(2, 1, 0, ops{}.byte(gc).uint(1).root(deleted, "t").uint(1))),
	} {
		sum := state(t, decode(t, update))
		if d := decode(t, without(ab(), 1, 0, 2)); sum != d.StateSHA256(toJSON(t, decode(t, update))) {
			t.Errorf("StateSHA256 of what was deleted %s differs", name)
		}
	}
}

// What is long in one place costs nothing in another.
func TestLosses(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("\x07", yjs.MaxBinary+1)
	o := ops{}.member(values, "m", "title").uint(1).byte(119).text("small").
		member(binaryData, "m", "thumb").text(long).
		member(values, "m", "in").uint(1).byte(118).uint(1).text("a").byte(116).text(long).
		member(binaryData, "m", "short").text("\x07")
	d := decode(t, whole(section(4, 1, 0, o)))
	q, err := d.Queryable(1000)
	const want = `{"m":{"in":{"a":null},"short":{"0":7},"thumb":null,"title":"small"}}`
	if err != nil || string(q.JSON) != want || q.Lost != (yjs.Losses{Binaries: 2}) {
		t.Errorf("Queryable = %s, %+v, %v; want %s and two binaries", q.JSON, q.Lost, err, want)
	}
	q, err = readCase(t, "weak-link").Queryable(1000)
	if err != nil || string(q.JSON) != `{"m":{"link":null},"t":[{"insert":"Hello"}]}` || q.Lost != (yjs.Losses{Links: 1}) {
		t.Errorf("Queryable of a weak link = %s, %+v, %v", q.JSON, q.Lost, err)
	}
	// A link to a range names both of its ends.
	o = ops{}.member(typ, "m", "l").uint(7).byte(7).uint(1, 1, 1, 1).root(str, "t").text("x")
	d = decode(t, whole(section(2, 1, 0, o)))
	if got := string(toJSON(t, d)); got != `{"m":{"l":null},"t":[{"insert":"x"}]}` {
		t.Errorf("JSON of a link to a range = %s", got)
	}
}

// A shared type of a kind that Yjs does not define is null, with all that is in it, and
// costs nothing beside it.
func TestUnknownTypes(t *testing.T) {
	t.Parallel()
	o := ops{}.member(typ, "m", "known").byte(1).member(typ, "m", "new").uint(200)
	o = append(o, ops{}.byte(typ|0x20).uint(0, 1, 1).text("inside").byte(1)...) // of the new one
	o = o.root(str, "t").text("abc").root(typ, "x").byte(8).root(values, "a").uint(1).byte(126)
	d := decode(t, without(whole(section(6, 1, 0, o)), 1, 4, 1)) // without the b
	q, err := d.Queryable(1000)
	const want = `{"a":[null],"m":{"known":{},"new":null},"t":[{"insert":"ac"}],"x":[null]}`
	if err != nil || string(q.JSON) != want || q.Lost != (yjs.Losses{Types: 2}) {
		t.Errorf("Queryable = %s, %+v, %v; want %s and two types", q.JSON, q.Lost, err, want)
	}
	if got := d.Text(); got != "ac" {
		t.Errorf("Text = %q; want ac", got)
	}
}

package yjs_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/yjs"
)

// The kinds of structs.
const (
	gc byte = iota
	deleted
	jsonTexts
	binaryData
	str
	embed
	format
	typ
	values
	doc
	skip
)

// ops is an update in the making. Its methods append and return the receiver.
type ops []byte

func (o ops) uint(vs ...uint64) ops {
	for _, v := range vs {
		o = binary.AppendUvarint(o, v)
	}
	return o
}

func (o ops) byte(b ...byte) ops { return append(o, b...) }

func (o ops) text(s string) ops { return append(o.uint(uint64(len(s))), s...) }

// root begins a struct that lies first in a root.
func (o ops) root(kind byte, name string) ops { return o.byte(kind).uint(1).text(name) }

// member begins a struct under a key of a root.
func (o ops) member(kind byte, name, key string) ops {
	return o.byte(kind | 0x20).uint(1).text(name).text(key)
}

// in begins a struct that lies first in the type that another struct is.
func (o ops) in(kind byte, client, clock uint64) ops { return o.byte(kind).uint(0, client, clock) }

// after begins a struct right of a unit.
func (o ops) after(kind byte, client, clock uint64) ops { return o.byte(kind|0x80).uint(client, clock) }

// before begins a struct left of a unit.
func (o ops) before(kind byte, client, clock uint64) ops {
	return o.byte(kind|0x40).uint(client, clock)
}

// section is what one client wrote.
func section(structs int, client, clock uint64, o ops) ops {
	return append(ops{}.uint(uint64(structs), client, clock), o...)
}

// whole is an update of sections that deletes nothing.
func whole(sections ...ops) []byte {
	o := ops{}.uint(uint64(len(sections)))
	for _, s := range sections {
		o = append(o, s...)
	}
	return o.uint(0)
}

// without is an update that deletes what the client made, in pairs of a clock
// and a length.
func without(u []byte, client uint64, pairs ...uint64) []byte {
	return ops(u[:len(u)-1]).uint(1, client, uint64(len(pairs)/2)).uint(pairs...)
}

// quadratic is an update of n insertions of one client, all in the same place,
// and of another client's, of which each has to be compared with all of those.
func quadratic(n uint64) []byte {
	a := ops{}.root(str, "t").text("a")
	b := ops{}
	for i := range n - 1 {
		a = a.before(str, 2, i).text("a")
		b = b.before(str, 2, i).text("b")
	}
	return whole(section(int(n), 2, 0, a), section(int(n-1), 1, 0, b))
}

// nested is an update of n types, each in the one before.
func nested(n uint64, kind byte) []byte {
	o := ops{}.root(typ, "x").byte(kind)
	for i := range n - 1 {
		o = o.in(typ, 1, i).byte(kind)
	}
	return whole(section(int(n), 1, 0, o))
}

// attributes is an update of a text with n attributes and as many parts.
func attributes(n int) []byte {
	o := ops{}.root(str, "t").text("x")
	last := uint64(0)
	add := func(kind byte) ops {
		o = o.after(kind, 1, last)
		last++
		return o
	}
	for i := range n {
		o = add(format).text(strconv.Itoa(i)).text("true")
	}
	for range n {
		o = add(embed).text("1")
	}
	return whole(section(2*n+1, 1, 0, o))
}

// marks is an update of a node with n marks and as many changes of them that
// change nothing.
func marks(n int) []byte {
	o := ops{}.root(typ, "x").byte(3).text("p").in(typ, 1, 0).byte(6).in(str, 1, 1).text("x")
	last := uint64(2)
	add := func(kind byte) ops {
		o = o.after(kind, 1, last)
		last++
		return o
	}
	for i := range n {
		o = add(format).text(strconv.Itoa(i)).text("true")
	}
	for range n {
		o = add(format).text("0").text("true")
		o = add(str).text("x")
	}
	return whole(section(3*n+3, 1, 0, o))
}

// shredded is an update of a string of which every other unit was deleted.
func shredded(n int) []byte {
	var pairs []uint64
	for i := range n / 2 {
		pairs = append(pairs, uint64(2*i), 1)
	}
	return without(whole(section(1, 1, 0, ops{}.root(str, "t").text(strings.Repeat("x", n)))), 1, pairs...)
}

func TestLimits(t *testing.T) {
	t.Parallel()
	levels := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	anyLevels := func(n int) ops { return append(ops(strings.Repeat("\x75\x01", n-1)), 0x75, 0) }
	tests := []struct {
		name     string
		update   func(n int) []byte
		limits   yjs.Limits
		fits     int
		exceeded string
	}{
		{"update", func(n int) []byte {
			return whole(section(1, 1, 0, ops{}.root(str, "t").text(strings.Repeat("x", n-10))))
		}, yjs.Limits{Bytes: 100}, 100, "Bytes"},
		{
			"structs", func(n int) []byte { return whole(section(n, 1, 0, ops(strings.Repeat("\x01\x01\x01t\x01", n)))) },
			yjs.Limits{Items: 50},
			50, "Items",
		},
		{"pieces", func(n int) []byte { return shredded(n) }, yjs.Limits{Items: 50}, 50, "Items"},
		{"types", func(n int) []byte { return nested(uint64(n), 0) }, yjs.Limits{}, 1000, "Depth"},
		{"values", func(n int) []byte {
			return whole(section(1, 1, 0, append(ops{}.root(values, "a").uint(1), anyLevels(n)...)))
		}, yjs.Limits{}, 1000, "Depth"},
		{
			"JSON", func(n int) []byte { return whole(section(1, 1, 0, ops{}.root(jsonTexts, "a").uint(1).text(levels(n)))) },
			yjs.Limits{},
			1000, "Depth",
		},
		{"embedded JSON", func(n int) []byte {
			return whole(section(1, 1, 0, ops{}.root(embed, "a").text(`["[[\"",`+levels(n-1)+`]`)))
		}, yjs.Limits{Depth: 30}, 30, "Depth"},
		{"steps", func(n int) []byte { return quadratic(uint64(n)) }, yjs.Limits{Steps: 10_000}, 100, "Steps"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d, err := yjs.Decode(tt.update(tt.fits), tt.limits)
			if err != nil {
				t.Fatalf("Decode at the limit: %v", err)
			}
			if b := toJSON(t, d); !json.Valid(b) {
				t.Errorf("JSON at the limit is not valid: %.200s", b)
			}
			var limit *yjs.LimitError
			if _, err := yjs.Decode(tt.update(tt.fits+tt.fits/10), tt.limits); !errors.As(err, &limit) ||
				limit.Limit != tt.exceeded {
				t.Errorf("Decode beyond the limit: %v; want a LimitError of %s", err, tt.exceeded)
			}
		})
	}
}

// What would take minutes or fill the memory ends early.
func TestWorkIsBounded(t *testing.T) {
	t.Parallel()
	var limit *yjs.LimitError
	if _, err := yjs.Decode(quadratic(20_000), yjs.Limits{Steps: 1 << 22}); !errors.As(err, &limit) ||
		limit.Limit != "Steps" {
		t.Errorf("Decode of a quadratic document: %v; want a LimitError of Steps", err)
	}
	before := []byte("before")
	for name, write := range map[string]func(*yjs.Doc, []byte) ([]byte, error){
		"JSON":      (*yjs.Doc).JSON,
		"Structure": (*yjs.Doc).Structure,
	} {
		d, err := yjs.Decode(map[string][]byte{"JSON": attributes(2_000), "Structure": marks(2_000)}[name],
			yjs.Limits{Output: 4 << 20})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := write(d, before); !errors.As(err, &limit) || limit.Limit != "Output" || string(got) != "before" {
			t.Errorf("%s of many attributes = %d bytes, %v; want what was there before and a LimitError of Output", name,
				len(got), err)
		}
	}
	// What is cut into many pieces is not moved as many times.
	if got, want := decode(t, shredded(1<<18)).Text(), strings.Repeat("x", 1<<17); got != want {
		t.Errorf("Text of what is left of a string has %d bytes; want %d", len(got), len(want))
	}
}

// Memory is in proportion to the update, whatever it holds. TotalAlloc counts
// all that is ever allocated, tables that were outgrown included.
func TestMemory(t *testing.T) { //nolint:paralleltest // others would count
	const size, factor = 1 << 18, 160
	// fill repeats a struct until the update is long enough. The struct may tell
	// its number, and where three bytes are that no other has.
	fill := func(one func(o ops, n uint64, name string) ops) []byte {
		o, n := ops{}.root(deleted, "").uint(1), uint64(1)
		for ; len(o) < size; n++ {
			o = one(o, n, string([]byte{byte(n & 0x7f), byte(n >> 7 & 0x7f), byte(n >> 14)}))
		}
		return whole(section(int(n), 1, 0, o))
	}
	tests := []struct {
		name   string
		update []byte
	}{
		{"garbage", fill(func(o ops, n uint64, _ string) ops {
			if n%2 == 0 {
				return o.byte(gc).uint(1)
			}
			return o.byte(deleted).uint(0, 1, 0).uint(1)
		})},
		{"deleted", fill(func(o ops, _ uint64, _ string) ops { return o.after(deleted, 1, 0).uint(1) })},
		{"types", fill(func(o ops, _ uint64, _ string) ops { return o.root(typ, "").byte(1) })},
		{"keys", fill(func(o ops, _ uint64, name string) ops { return o.member(deleted, "", name).uint(1) })},
		{"roots", fill(func(o ops, _ uint64, name string) ops { return o.root(deleted, name).uint(1) })},
		{"references", func() []byte {
			o, n := ops{}.after(deleted, 9, 9).uint(1), uint64(1) // nobody has that one, so all wait for it
			for ; len(o) < size; n++ {
				o = o.byte(deleted|0xc0).uint(1, 2*n, 1, size-2*n, 1)
			}
			return whole(section(1, 1, 0, ops{}.root(deleted, "").uint(2*size)), section(int(n), 2, 0, o))
		}()},
		{"pieces", shredded(size / 3)},
		{"clients", func() []byte {
			all := make([]ops, size/9)
			for n := range all {
				all[n] = section(1, uint64(n), 0, ops{}.root(deleted, "").uint(1))
			}
			return whole(all...)
		}()},
	}
	for _, tt := range tests { //nolint:paralleltest // see above
		t.Run(tt.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := yjs.Decode(tt.update, yjs.Limits{})
			runtime.ReadMemStats(&after)
			if err != nil {
				t.Fatalf("Decode: %v", err)
			}
			got := float64(after.TotalAlloc-before.TotalAlloc) / float64(len(tt.update))
			t.Logf("%.0f bytes for each", got)
			if got > factor {
				t.Errorf("Decode allocates %.0f bytes for each byte of the update; want at most %d", got, factor)
			}
		})
	}
}

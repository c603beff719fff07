package yjs

import (
	"encoding/json"
	"unicode/utf8"
)

// kind is the kind of a struct in an update, encoded in its first byte.
type kind uint8

const (
	kindGC      kind = iota // collected garbage: a length
	kindDeleted             // content that is gone: a length
	kindJSON                // values as JSON texts, or "undefined"
	kindBinary
	kindString
	kindEmbed  // an object in a text, as JSON
	kindFormat // an attribute of the text that follows: a key and its value as JSON
	kindType   // a shared type
	kindAny    // values
	kindDoc    // a subdocument: its id and options
	kindSkip   // a gap: a length
)

// The tags of values, each the first byte of one.
const (
	tagBinary byte = 116 + iota
	tagArray
	tagObject
	tagString
	tagTrue
	tagFalse
	tagBigInt
	tagFloat64
	tagFloat32
	tagInteger
	tagNull
	tagUndefined
)

// undefined represents a missing value among JSON texts.
const undefined = "undefined"

// maxInteger is the largest integer that JavaScript represents exactly. Clocks and
// lengths stay below it, so their sums never overflow.
const maxInteger = 1 << 53

// reader reads an update. The first error is kept, and after it everything reads as
// zero.
type reader struct {
	src string
	i   int
	err error
	// depth is the maximum nesting of a value.
	depth int
	// trusted means that the bytes were checked before.
	trusted bool
	// odd is where the first shared type of no known kind ends, 0 if there is none.
	odd int
	// scratch is a buffer for texts that encoding/json reads.
	scratch []byte
}

func (r *reader) fail(problem string) {
	if r.err == nil {
		r.err = &SyntaxError{Offset: min(r.i, len(r.src)), Problem: problem}
		if r.odd > 0 { // what follows it was not what it was taken for
			r.err = &SyntaxError{Offset: r.odd, Problem: "a shared type is of no known kind"}
		}
	}
	r.i = len(r.src)
}

func (r *reader) byte() byte {
	if r.i >= len(r.src) {
		r.fail("it ends too early")
		return 0
	}
	c := r.src[r.i]
	r.i++
	return c
}

// take returns the next n bytes.
func (r *reader) take(n uint64) string {
	if n > uint64(len(r.src)-r.i) { //nolint:gosec // i never passes the end
		r.fail("a length leads beyond the end")
		return ""
	}
	start := r.i
	r.i += int(n) //nolint:gosec // n is below the length of src
	return r.src[start:r.i]
}

func (r *reader) uint() uint64 {
	c := r.byte()
	return r.varint(uint64(c&0x7f), 7, c >= 0x80)
}

// varint reads the rest of an integer whose lowest bits are known.
func (r *reader) varint(v uint64, bits int, more bool) uint64 {
	for ; more; bits += 7 {
		c := r.byte()
		if bits > 49 {
			r.fail("an integer is too large")
			return 0
		}
		v |= uint64(c&0x7f) << bits
		more = c >= 0x80
	}
	if v > maxInteger {
		r.fail("an integer is too large")
		return 0
	}
	return v
}

// int reads a signed integer.
func (r *reader) int() int64 {
	c := r.byte()
	v := int64(r.varint(uint64(c&0x3f), 6, c >= 0x80)) //nolint:gosec // at most maxInteger
	if c&0x40 != 0 {
		return -v
	}
	return v
}

// count reads the number of following elements, each of at least size bytes.
func (r *reader) count(size int) int {
	n := r.uint()
	if n > uint64((len(r.src)-r.i)/size) { //nolint:gosec // i never passes the end
		r.fail("a number of parts leads beyond the end")
		return 0
	}
	return int(n) //nolint:gosec // at most the length of src
}

func (r *reader) text() string {
	s := r.take(r.uint())
	if !r.trusted && !utf8.ValidString(s) {
		r.fail("a string is not valid UTF-8")
	}
	return s
}

// json reads a JSON text.
func (r *reader) json() string {
	s := r.text()
	r.checkJSON(s)
	return s
}

func (r *reader) checkJSON(s string) {
	if r.trusted || r.err != nil {
		return
	}
	r.scratch = append(r.scratch[:0], s...)
	if !json.Valid(r.scratch) {
		r.fail("a value is not JSON")
	} else if jsonDepth(s) > r.depth {
		r.deep()
	}
}

func (r *reader) deep() {
	if r.err == nil {
		r.err = &LimitError{"Depth", r.depth}
	}
	r.i = len(r.src)
}

// jsonDepth returns the nesting of arrays and objects in valid JSON.
func jsonDepth(s string) int {
	depth, deepest := 0, 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			i = stringEnd(s, i)
		case '[', '{':
			depth++
			deepest = max(deepest, depth)
		case ']', '}':
			depth--
		}
	}
	return deepest
}

// stringEnd returns the position of the closing quote of the string at i in valid
// JSON.
func stringEnd(s string, i int) int {
	for i++; s[i] != '"'; i++ {
		if s[i] == '\\' {
			i++
		}
	}
	return i
}

// any skips a value, including nested ones.
func (r *reader) any(nested int) {
	if nested > r.depth {
		r.deep()
		return
	}
	switch r.byte() {
	case tagUndefined, tagNull, tagTrue, tagFalse:
	case tagInteger:
		r.int()
	case tagFloat32:
		r.take(4)
	case tagFloat64, tagBigInt:
		r.take(8)
	case tagString:
		r.text()
	case tagObject:
		for n := r.count(2); n > 0 && r.err == nil; n-- {
			r.text()
			r.any(nested + 1)
		}
	case tagArray:
		for n := r.count(1); n > 0 && r.err == nil; n-- {
			r.any(nested + 1)
		}
	case tagBinary:
		r.take(r.uint())
	default:
		r.fail("a value is of no known type")
	}
}

// id identifies one unit of content: a client and its clock.
type id struct {
	client, clock uint64
	set           bool
}

func (r *reader) id() id { return id{r.uint(), r.uint(), r.err == nil} }

// header is the start of a struct.
type header struct {
	kind kind
	// origin and right are the neighbours that the struct was inserted between.
	origin, right id
	// Without neighbours, it names its parent: a struct, or a root by name.
	parent  id
	root    string
	hasRoot bool
	// sub is the key in the parent, if it has one.
	sub    string
	hasSub bool
}

func (r *reader) header() (h header) {
	const (
		hasSub    = 0x20
		hasRight  = 0x40
		hasOrigin = 0x80
	)
	info := r.byte()
	h.kind = kind(info & 0x1f)
	if h.kind == kindGC || h.kind == kindSkip {
		return h
	}
	if info&hasOrigin != 0 {
		h.origin = r.id()
	}
	if info&hasRight != 0 {
		h.right = r.id()
	}
	if info&(hasOrigin|hasRight) == 0 {
		if h.hasRoot = r.uint() == 1; h.hasRoot {
			h.root = r.text()
		} else {
			h.parent = r.id()
		}
		if h.hasSub = info&hasSub != 0; h.hasSub {
			h.sub = r.text()
		}
	}
	return h
}

// content is the content after the header of a struct.
type content struct {
	// n is its length in clock units.
	n uint64
	// start and end delimit it in the update, without lengths and counts.
	start, end int
	// typ and name are set for a shared type.
	typ  Type
	name string
}

func (r *reader) content(k kind) (c content) {
	c.n = 1
	c.start = r.i
	switch k {
	case kindGC, kindDeleted, kindSkip:
		c.n = r.uint()
	case kindJSON, kindAny:
		n := r.count(1)
		c.n, c.start = uint64(n), r.i //nolint:gosec // not negative
		r.values(k, n)
	case kindBinary:
		s := r.take(r.uint())
		c.start = r.i - len(s)
	case kindString:
		s := r.text()
		c.n, c.start = utf16Length(s), r.i-len(s)
	case kindEmbed:
		s := r.json()
		c.start = r.i - len(s)
	case kindFormat:
		r.text()
		r.json()
	case kindType:
		// Most kinds have nothing that follows, so one that is not known is taken for one of
		// these. If it is not, the rest of the update hardly makes sense up to its last byte.
		ref := r.uint()
		if ref >= uint64(Undefined-1) {
			ref = uint64(Undefined - 1)
			if r.odd == 0 {
				r.odd = r.i
			}
		}
		switch c.typ = Type(ref + 1); c.typ {
		case XMLElement, XMLHook:
			c.name = r.text()
		case WeakLink: // to one unit or, with the lowest bit, to a range
			ids := 1 + int(r.byte()&1)
			for range ids {
				r.id()
			}
		default: // only its kind
		}
	case kindDoc:
		s := r.text()
		c.start, c.end = r.i-len(s), r.i
		r.any(1)
		return c
	default:
		r.fail("a struct is of no known kind")
	}
	c.end = r.i
	return c
}

// values skips n values of content of kind JSON or any.
func (r *reader) values(k kind, n int) {
	for ; n > 0 && r.err == nil; n-- {
		if k == kindAny {
			r.any(1)
		} else if s := r.text(); s != undefined {
			r.checkJSON(s)
		}
	}
}

// utf16Length returns the length of valid UTF-8 in UTF-16 units.
func utf16Length(s string) uint64 {
	n := uint64(0)
	for i := range len(s) {
		if s[i]&0xc0 != 0x80 {
			n++
		}
		if s[i] >= 0xf0 {
			n++
		}
	}
	return n
}

// Package lson converts Liveblocks' plain-lson, the JSON form of a Storage document
// that marks live nodes, to plain JSON for queries. It does no I/O.
//
// A live node is an object with exactly the keys "liveblocksType" and "data", in
// any order, whose type is one of LiveObject, LiveMap and LiveFile (data is an
// object) or LiveList and LiveText (data is an array); LiveText may also have a
// numeric "version". A node is replaced by its data. Everything else is the user's
// JSON and is copied unchanged, including key order, numbers and string escapes;
// only white space between tokens is removed.
package lson

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
)

// Version is the derive version. It changes whenever the same document would give
// other JSON, so outdated columns can be detected.
const Version = 1

// MaxDepth is the maximum nesting of a document, the same as that of encoding/json.
// Real documents stay below a hundred levels.
const MaxDepth = 10_000

// Properties describes what a database might refuse in the resulting JSON.
type Properties struct {
	// HasNUL means that a string or key contains the escape \u0000.
	HasNUL bool
	// HasLoneSurrogate means that a string or key contains an unpaired escaped
	// surrogate.
	HasLoneSurrogate bool
	// Depth is the nesting of objects and arrays: 0 for a scalar, 1 for {} and [1].
	Depth int
}

// SyntaxError reports where a document is not JSON. It never quotes the document.
type SyntaxError struct {
	// Offset is the byte at which parsing failed.
	Offset int
	// Problem describes the error.
	Problem string
}

// Error returns the problem and its offset.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("read plain-lson at byte %d: %s", e.Offset, e.Problem)
}

// JSON appends src with its live nodes unwrapped to dst and returns the
// extended slice, which is at most len(src) longer. dst must not overlap src.
//
// src must be JSON as in RFC 8259, in valid UTF-8, at most [MaxDepth] deep;
// otherwise JSON returns dst unchanged and a [*SyntaxError]. Work and memory are
// linear in len(src) for any src.
func JSON(dst, src []byte) (out []byte, p Properties, err error) {
	s := scanner{
		src: src, dst: slices.Grow(dst, len(src)), base: len(dst), n: len(dst), stack: make([]frame, 0, 32),
	}
	if err := s.document(); err != nil {
		return dst, Properties{}, err
	}
	s.applyPatches()
	return s.dst, s.props, nil
}

// Size returns the number of bytes that [JSON] would append, without making them. It takes
// memory for the nesting of src alone.
func Size(src []byte) (size int, p Properties, err error) {
	s := scanner{src: src, counts: true, stack: make([]frame, 0, 32)}
	if err := s.document(); err != nil {
		return 0, Properties{}, err
	}
	return s.n + s.grown, s.props, nil
}

// nodeType is a type of live node.
type nodeType uint8

const (
	notLive nodeType = iota
	liveObject
	liveMap
	liveList
	liveText
	liveFile
)

// prefixes holds how nodes start in Liveblocks' spelling, up to the value of data;
// opener is the first byte of that value.
var prefixes = [...]string{
	liveObject: `{"liveblocksType":"LiveObject","data":`,
	liveMap:    `{"liveblocksType":"LiveMap","data":`,
	liveList:   `{"liveblocksType":"LiveList","data":`,
	liveText:   `{"liveblocksType":"LiveText","data":`,
	liveFile:   `{"liveblocksType":"LiveFile","data":`,
}

const (
	// commonPrefix is what all prefixes share.
	commonPrefix = `{"liveblocksType":"Live`
	// typeStart is where the quoted name of the type begins in a prefix.
	typeStart = len(`{"liveblocksType":`)
)

// opener returns the first byte that the data of a node of type t must have.
func (t nodeType) opener() byte {
	if t == liveList || t == liveText {
		return '['
	}
	return '{'
}

// name returns the quoted name of t.
func (t nodeType) name() string {
	p := prefixes[t]
	return p[typeStart : len(p)-len(`,"data":`)]
}

// typeByInitial returns the only type whose name has c after "Live".
func typeByInitial(c byte) nodeType {
	switch c {
	case 'O':
		return liveObject
	case 'M':
		return liveMap
	case 'L':
		return liveList
	case 'T':
		return liveText
	case 'F':
		return liveFile
	}
	return notLive
}

// nodeAt returns the type of the node that starts at b, according to its prefix in
// Liveblocks' spelling, and the length of the prefix. The end of the object may
// still disprove it.
func nodeAt(b []byte) (nodeType, int) {
	if len(b) <= len(commonPrefix) || string(b[:len(commonPrefix)]) != commonPrefix {
		return notLive, 0
	}
	t := typeByInitial(b[len(commonPrefix)])
	p := prefixes[t]
	if t == notLive || len(b) <= len(p) || string(b[:len(p)]) != p || b[len(p)] != t.opener() {
		return notLive, 0
	}
	return t, len(p)
}

// typeNameAt returns the type whose quoted name stands at b.
func typeNameAt(b []byte) nodeType {
	const start = `"Live`
	if len(b) <= len(start) {
		return notLive
	}
	if t := typeByInitial(b[len(start)]); t != notLive && bytes.HasPrefix(b, []byte(t.name())) {
		return t
	}
	return notLive
}

// state says what an open object is assumed to be.
type state uint8

const (
	// plain is the user's own object, or an array.
	plain state = iota
	// candidate has only keys of a node so far, each at most once.
	candidate
	// node started with the prefix of a node, which was left out of the output.
	node
)

// The keys of a node.
const (
	keyType uint8 = 1 << iota
	keyData
	keyVersion
)

// frame is an open object or array. Output positions include what is still to be
// copied.
type frame struct {
	close byte
	state state
	// For a candidate: the keys seen, the last one, the type and the first byte of
	// data, and whether the last patch restores its prefix.
	seen, key uint8
	typ       nodeType
	open      byte
	patched   bool
	// height is the depth of the deepest value inside.
	height int
	// src is where the object begins in the source.
	src int
	// out is where it begins in the output; data and end enclose its data there.
	out, data, end int
}

// isNode reports whether a complete candidate is a live node.
func (f *frame) isNode() bool {
	const must = keyType | keyData
	return f.state == candidate && f.seen&must == must && f.open == f.typ.opener() &&
		(f.seen == must || f.typ == liveText)
}

// patch corrects the output where an assumption about an object was wrong: it
// removes drop bytes at out and inserts the prefix of typ, unless typ is notLive.
type patch struct {
	src, out, drop int
	typ            nodeType
}

// scanner reads the source once. It assumes that an object that starts like a node
// is one and leaves out its prefix; it copies any other. Only the end of the object
// can disprove either assumption. Moving the output then would take quadratic time
// in deep documents, so the scanner records patches and applies them together at
// the end. Documents written by Liveblocks need none.
type scanner struct {
	src, dst []byte
	// n is the length of dst, which stays empty if counts is set.
	n      int
	counts bool
	// base is where the output begins in dst.
	base int
	// from is where the part of the source begins that is still to be copied.
	from    int
	stack   []frame
	patches []patch
	// grown is by how many bytes patches make the output longer, if counts is set: none is
	// kept then.
	grown int
	props Properties
}

func syntax(at int, problem string) error { return &SyntaxError{Offset: at, Problem: problem} }

// flush copies the source up to i.
func (s *scanner) flush(i int) {
	if s.n += i - s.from; !s.counts {
		s.dst = append(s.dst, s.src[s.from:i]...)
	}
}

// place returns the output position that corresponds to i in the source.
func (s *scanner) place(i int) int { return s.n + i - s.from }

// document reads the whole source.
func (s *scanner) document() error {
	src := s.src
	i, err := 0, error(nil)
	for {
		// A value begins at i.
		if i = s.space(i); i == len(src) {
			return syntax(i, "the document ends where a value should be")
		}
		switch c := src[i]; c {
		case '"':
			i, err = s.text(i)
		case '{':
			if len(s.stack) == MaxDepth {
				return syntax(i, "nested too deeply")
			}
			if t, n := nodeAt(src[i:]); t != notLive {
				s.flush(i)
				s.stack = append(s.stack, frame{close: '}', state: node, typ: t, src: i, out: s.n})
				i += n
				s.from = i
				continue
			}
			s.stack = append(s.stack, frame{close: '}', state: candidate, src: i, out: s.place(i)})
			if i = s.space(i + 1); i == len(src) || src[i] != '}' {
				if i, err = s.key(i); err != nil {
					return err
				}
				continue
			}
		case '[':
			if len(s.stack) == MaxDepth {
				return syntax(i, "nested too deeply")
			}
			s.stack = append(s.stack, frame{close: ']'})
			if i = s.space(i + 1); i == len(src) || src[i] != ']' {
				continue
			}
		case 't':
			i, err = s.literal(i, "true")
		case 'f':
			i, err = s.literal(i, "false")
		case 'n':
			i, err = s.literal(i, "null")
		default:
			i, err = s.number(i)
		}
		if err != nil {
			return err
		}

		// A value ended before i, or an empty object or array ends at i.
		for {
			i = s.space(i)
			if len(s.stack) == 0 {
				if i != len(src) {
					return syntax(i, "something follows the document")
				}
				s.flush(i)
				return nil
			}
			if i == len(src) {
				return syntax(i, "the document ends inside an object or array")
			}
			f := &s.stack[len(s.stack)-1]
			if src[i] == f.close {
				s.pop(i)
				i++
				continue
			}
			if src[i] != ',' {
				return syntax(i, "neither a comma nor the end of the object or array")
			}
			if f.close == '}' {
				s.comma(f, i)
				i, err = s.key(s.space(i + 1))
			} else {
				i++
			}
			break
		}
		if err != nil {
			return err
		}
	}
}

// comma notes that a member of f ended before the comma at i.
func (s *scanner) comma(f *frame, i int) {
	switch {
	case f.state == node:
		// There is more than type and data. Assume that it is the user's own
		// object, until its end shows that only a version followed.
		s.correct(patch{src: f.src, out: f.out, typ: f.typ})
		f.state, f.patched = candidate, true
		f.seen = keyType | keyData
		f.open, f.data, f.end = f.typ.opener(), f.out, s.place(i)
	case f.key == keyData:
		f.end = s.place(i)
	}
}

// key reads a key at i and the colon, and returns where the value begins.
func (s *scanner) key(i int) (int, error) {
	src := s.src
	if i == len(src) || src[i] != '"' {
		return i, syntax(i, "no key where one should be")
	}
	end, err := s.text(i)
	if err != nil {
		return end, err
	}
	name := src[i+1 : end-1]
	if i = s.space(end); i == len(src) || src[i] != ':' {
		return i, syntax(i, "no colon after a key")
	}
	i = s.space(i + 1)
	if f := &s.stack[len(s.stack)-1]; f.state == candidate && i < len(src) {
		s.mark(f, name, i)
	}
	return i, nil
}

// mark notes a key of a candidate whose value begins at i.
func (s *scanner) mark(f *frame, name []byte, i int) {
	f.key = 0
	fits := false
	switch string(name) {
	case "liveblocksType":
		f.key, f.typ = keyType, typeNameAt(s.src[i:])
		fits = f.typ != notLive
	case "data":
		f.key, f.open = keyData, s.src[i]
		f.data = s.place(i)
		fits = true
	case "version":
		f.key = keyVersion
		fits = s.src[i] == '-' || isDigit(s.src[i])
	}
	if !fits || f.seen&f.key != 0 {
		f.state = plain
	}
	f.seen |= f.key
}

// pop closes the innermost object or array with the bracket at i.
func (s *scanner) pop(i int) {
	f := &s.stack[len(s.stack)-1]
	height := f.height
	switch {
	case f.state == node:
		s.flush(i)
		s.from = i + 1
	case f.isNode():
		if f.key == keyData {
			f.end = s.place(i)
		}
		s.flush(i)
		if s.n = f.end; !s.counts {
			s.dst = s.dst[:f.end]
		}
		s.from = i + 1
		switch {
		case !f.patched:
			s.correct(patch{src: f.src, out: f.out, drop: f.data - f.out})
		case s.counts:
			s.grown -= len(prefixes[f.typ])
		default: // the last patch: only a number came after it
			s.patches = s.patches[:len(s.patches)-1]
		}
	default:
		height++
	}
	s.stack = s.stack[:len(s.stack)-1]
	if n := len(s.stack); n > 0 {
		s.stack[n-1].height = max(s.stack[n-1].height, height)
	} else {
		s.props.Depth = height
	}
}

// correct notes a patch, or only what it adds if counts is set.
func (s *scanner) correct(p patch) {
	if s.counts {
		s.grown += len(prefixes[p.typ]) - p.drop
		return
	}
	s.patches = append(s.patches, p)
}

// applyPatches corrects the output. Of two patches at the same position, that of
// the outer object, which starts earlier in the source, comes first.
func (s *scanner) applyPatches() {
	if len(s.patches) == 0 {
		return
	}
	slices.SortFunc(s.patches, func(a, b patch) int { return cmp.Compare(a.src, b.src) })
	mended := make([]byte, 0, len(s.src))
	at := s.base
	for _, p := range s.patches {
		mended = append(mended, s.dst[at:p.out]...)
		mended = append(mended, prefixes[p.typ]...)
		at = p.out + p.drop
	}
	mended = append(mended, s.dst[at:]...)
	s.dst = append(s.dst[:s.base], mended...)
}

// Package lson turns Liveblocks' plain-lson, the JSON form of a Storage
// document that tells live nodes from plain values, into the plain JSON that
// people query. It is pure: bytes in, bytes out.
//
// A live node is an object with exactly the keys "liveblocksType" and "data",
// in any order, whose type is one of LiveObject, LiveMap and LiveFile (data is
// an object) or LiveList and LiveText (data is an array); LiveText may also
// have a numeric "version". A node is replaced by its data. Everything else is
// the user's own JSON and stays: key order, numbers and string escapes are
// copied as they are written, only white space between tokens goes.
package lson

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
)

// Version is the derive version: it changes whenever the same document would
// be turned into other JSON, so that stored copies can be told to be outdated.
const Version = 1

// MaxDepth is how deep a document may be nested, as many levels as
// encoding/json allows. Real documents stay below a hundred.
const MaxDepth = 10_000

// Properties says what a database might refuse in the JSON that was made.
type Properties struct {
	// HasNUL says that a string or key holds the escape \u0000.
	HasNUL bool
	// HasLoneSurrogate says that a string or key holds an escaped surrogate
	// without its other half.
	HasLoneSurrogate bool
	// Depth is how deep objects and arrays are nested: 0 for a scalar, 1 for
	// {} and [1].
	Depth int
}

// SyntaxError says where a document is not JSON. It never quotes the document.
type SyntaxError struct {
	// Offset is the byte at which the document stops being JSON.
	Offset int
	// Problem is what is wrong there.
	Problem string
}

// Error returns the problem and its place.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("read plain-lson at byte %d: %s", e.Offset, e.Problem)
}

// JSON appends src with its live nodes unwrapped to dst and returns the
// extended slice, which is at most len(src) longer. dst must not overlap src.
//
// src has to be JSON by RFC 8259 in valid UTF-8, at most [MaxDepth] deep;
// otherwise JSON returns dst as it was and a [*SyntaxError]. Work and memory
// are linear in len(src), whatever src holds.
func JSON(dst, src []byte) (out []byte, p Properties, err error) {
	s := scanner{src: src, dst: slices.Grow(dst, len(src)), base: len(dst), stack: make([]frame, 0, 32)}
	if err := s.document(); err != nil {
		return dst, Properties{}, err
	}
	s.applyPatches()
	return s.dst, s.props, nil
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

// prefixes holds what a node begins with as Liveblocks writes it, up to and
// without the value of data; opener is the first byte of that value.
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

// typeByInitial tells the only type whose name goes on with c after "Live".
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

// nodeAt returns the type of node that begins at b, judged by the prefix in
// the spelling Liveblocks uses, and the length of the prefix. The end of the
// object may still prove it wrong.
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

// state says what an open object is held to be.
type state uint8

const (
	// plain is the user's own, or an array.
	plain state = iota
	// candidate has had no key but those of a node, each at most once.
	candidate
	// node began with the prefix of a node, which was left out of the output.
	node
)

// The keys of a node.
const (
	keyType uint8 = 1 << iota
	keyData
	keyVersion
)

// frame is an open object or array. Places in the output are counted as if
// what is not yet copied already were.
type frame struct {
	close byte
	state state
	// For a candidate: the keys seen, the last one, the type and the first byte
	// of data, and whether its prefix is to be put back by the last patch.
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

// isNode says whether a candidate that is complete is a live node.
func (f *frame) isNode() bool {
	const must = keyType | keyData
	return f.state == candidate && f.seen&must == must && f.open == f.typ.opener() &&
		(f.seen == must || f.typ == liveText)
}

// patch mends the output where the guess about an object was wrong: drop bytes
// at out go, and the prefix of typ comes in unless typ is notLive.
type patch struct {
	src, out, drop int
	typ            nodeType
}

// scanner walks the source once. An object that begins like a node is taken
// for one and its prefix left out at once; any other is copied. Both guesses
// can turn out wrong only when the object ends. Moving what was written since
// would cost a quadratic time in deep documents, so wrong guesses are noted as
// patches and mended together in the end. Liveblocks' own documents need none.
type scanner struct {
	src, dst []byte
	// base is where the output begins in dst.
	base int
	// from is where the part of the source begins that is still to be copied.
	from    int
	stack   []frame
	patches []patch
	props   Properties
}

func syntax(at int, problem string) error { return &SyntaxError{Offset: at, Problem: problem} }

// flush copies the source up to i.
func (s *scanner) flush(i int) { s.dst = append(s.dst, s.src[s.from:i]...) }

// place returns the place in the output that corresponds to i in the source.
func (s *scanner) place(i int) int { return len(s.dst) + i - s.from }

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
				s.stack = append(s.stack, frame{close: '}', state: node, typ: t, src: i, out: len(s.dst)})
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
		// There is more than type and data. Take it for the user's own object,
		// until its end says that only a version followed.
		s.patches = append(s.patches, patch{src: f.src, out: f.out, typ: f.typ})
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
		s.dst = s.dst[:f.end]
		s.from = i + 1
		if f.patched { // the last patch: nothing but a number came after it
			s.patches = s.patches[:len(s.patches)-1]
		} else {
			s.patches = append(s.patches, patch{src: f.src, out: f.out, drop: f.data - f.out})
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

// applyPatches mends the output. Where two patches meet in the output, the
// one of the outer object, which begins earlier in the source, comes first.
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

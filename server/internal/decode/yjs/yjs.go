// Package yjs reads Yjs documents: an update in encoding version 1 that holds a
// whole document becomes its JSON, its plain text and, where an editor wrote it,
// the editor's own tree. It is pure: bytes in, values out.
//
// An update is a list of operations of several clients, made at the same time,
// in no order but that of their references to each other. [Decode] puts them in
// the order every client of the document agrees on, as Yjs does: what refers to
// operations that are not there stays out, and so does what comes after it.
//
// Updates come from users and are not trusted. Work and memory are bounded by
// [Limits] and linear in the update but for two things that are counted: the
// steps it takes to order what was inserted concurrently in one place, and the
// size of the output, as the attributes of a text are written again for each of
// its parts. Decode allocates at most 160 bytes for each byte of the update, in
// real documents about 20, and the document keeps less than half of them.
package yjs

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// Version is the derive version: it changes whenever the same update would
// be turned into other output, so that stored copies can be told to be outdated.
const Version = 2

// Limits bounds what a document may cost. A field that is not positive means
// its default.
type Limits struct {
	// Bytes is how long an update may be. The default is 64 MiB, the largest
	// answer that is taken from Liveblocks.
	Bytes int
	// Items is how many operations it may hold, counted as they lie in the
	// document: one that others were inserted into or that was deleted in part
	// counts more than once. The default is 8 Mi; one item takes 56 bytes.
	Items int
	// Depth is how deep shared types, and apart from them the values in one
	// operation, may be nested. The default is 1000. JSON nests at most three
	// levels for one shared type, so that what is made stays below the 10,000
	// levels that encoding/json reads.
	Depth int
	// Steps is how many items may be passed in search of the place of those
	// inserted concurrently. The default is 64 Mi, which takes about a second.
	Steps int
	// Output is how many bytes [Doc.JSON] or [Doc.Structure] may write. The
	// default is 256 MiB.
	Output int
}

func (l Limits) withDefaults() Limits {
	for _, f := range []struct {
		value         *int
		standard, max int
	}{
		{&l.Bytes, 64 << 20, math.MaxInt32}, // places in the update are kept in 32 bits
		{&l.Items, 8 << 20, math.MaxInt32},
		{&l.Depth, 1000, math.MaxInt32},
		{&l.Steps, 64 << 20, math.MaxInt32},
		{&l.Output, 256 << 20, math.MaxInt},
	} {
		if *f.value <= 0 {
			*f.value = f.standard
		}
		*f.value = min(*f.value, f.max)
	}
	return l
}

// ErrVersion2 says that an update is in encoding version 2.
var ErrVersion2 = errors.New("decode yjs update: it is in encoding version 2, and only version 1 is read")

// SyntaxError says where an update is broken. It never quotes the update.
type SyntaxError struct {
	// Offset is the byte at or before which the update makes no sense.
	Offset int
	// Problem is what is wrong there.
	Problem string
}

// Error returns the problem and its place.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("decode yjs update at byte %d: %s", e.Offset, e.Problem)
}

// LimitError says that a document exceeds one of the [Limits].
type LimitError struct {
	// Limit is the name of the field of Limits.
	Limit string
	// Max is what the field allows.
	Max int
}

// Error returns the limit and its value.
func (e *LimitError) Error() string {
	return fmt.Sprintf("decode yjs update: more than %d %s", e.Max, e.Limit)
}

// Type is a kind of shared type.
type Type uint8

// The types, numbered as an update does, plus one.
const (
	// Unknown is a root that tells nothing of its type, since it is empty.
	Unknown Type = iota
	Array
	Map
	Text
	XMLElement
	XMLFragment
	XMLHook
	XMLText
)

// String returns the name of t as Liveblocks spells it.
func (t Type) String() string {
	names := [...]string{"unknown", "yarray", "ymap", "ytext", "yxmlelement", "yxmlfragment", "yxmlhook", "yxmltext"}
	if int(t) < len(names) {
		return names[t]
	}
	return names[Unknown]
}

// Doc is a decoded document. It does not change, and may be read concurrently.
type Doc struct {
	src     string
	limits  Limits
	items   []item
	types   []sharedType
	entries []entry
	roots   []root
}

// root is a shared type that can be had by name.
type root struct {
	name string
	at   index
}

// Root is a shared type that clients of the document get by its name.
type Root struct {
	// Name is the name.
	Name string
	// Type is the type the content speaks for, as no update states it.
	Type Type
}

// Decode reads an update that holds a whole document. It fails with
// [ErrVersion2], a [*SyntaxError] or a [*LimitError], whose texts never hold
// content of the document. The update may be altered afterwards.
func Decode(update []byte, limits Limits) (*Doc, error) {
	limits = limits.withDefaults()
	if len(update) > limits.Bytes {
		return nil, &LimitError{"Bytes", limits.Bytes}
	}
	d := &decoder{Doc: &Doc{src: string(update), limits: limits}}
	if err := d.run(); err != nil {
		return nil, err
	}
	for i := range d.roots {
		t := &d.types[d.roots[i].at]
		if t.kind = d.infer(t); t.kind == XMLElement {
			t.name = "UNDEFINED" // as Yjs calls an element without a name
		}
	}
	slices.SortFunc(d.roots, func(a, b root) int { return strings.Compare(a.name, b.name) })
	return d.Doc, nil
}

// Roots returns the roots in the order of their names.
func (d *Doc) Roots() []Root {
	roots := make([]Root, len(d.roots))
	for i, r := range d.roots {
		roots[i] = Root{Name: r.name, Type: d.types[r.at].kind}
	}
	return roots
}

// Subdocuments returns the ids of the documents inside this one, each once, in
// order. An update holds no more of them.
func (d *Doc) Subdocuments() []string {
	guids := map[string]bool{}
	for _, r := range d.roots {
		d.subdocuments(r.at, guids)
	}
	return slices.Sorted(maps.Keys(guids))
}

func (d *Doc) subdocuments(at index, guids map[string]bool) {
	note := func(it *item) {
		switch it.kind {
		case kindDoc:
			guids[d.src[it.start:it.end]] = true
		case kindType:
			d.subdocuments(it.typ(), guids)
		default:
		}
	}
	t := &d.types[at]
	for it := range d.list(t) {
		note(it)
	}
	for _, e := range d.attributes(t) {
		note(e.item)
	}
}

// infer tells the type of a root by what is in it: first by what shows, then
// by what has been deleted. What editors put into a text or a fragment decides
// for the two, which hold XML nodes alike: a fragment holds elements, a text
// holds texts that have attributes, such as the type of a node of Lexical.
func (d *Doc) infer(t *sharedType) Type {
	has := [...]bool{XMLText: false}
	look := func(it *item) {
		switch it.kind {
		case kindString, kindFormat, kindEmbed:
			has[Text] = true
		case kindJSON, kindAny, kindBinary, kindDoc:
			has[Array] = true
		case kindType:
			switch child := &d.types[it.typ()]; {
			case d.nodeType(child) != "", child.kind == XMLText && child.entries != none:
				has[XMLText] = true
			case child.kind == XMLElement, child.kind == XMLText, child.kind == XMLHook:
				has[XMLFragment] = true
			default:
				has[Unknown] = true // any type may lie in an array
			}
		case kindGC, kindDeleted, kindSkip:
		}
	}
	for it := range d.list(t) {
		look(it)
	}
	for _, showing := range []bool{true, false} {
		for _, typ := range []Type{Text, Array, XMLText, XMLFragment, Unknown} {
			switch {
			case !has[typ]:
			case typ == Unknown:
				return Array
			case typ == XMLFragment && t.entries != none:
				return XMLElement
			default:
				return typ
			}
		}
		if t.entries != none {
			return Map
		}
		if showing {
			for i := t.start; i != none; i = d.items[i].right {
				look(&d.items[i])
			}
		}
	}
	return Unknown
}

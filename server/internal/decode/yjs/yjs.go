// Package yjs reads Yjs documents. From an update in encoding version 1 that
// contains a whole document it computes the JSON, the plain text and, for documents
// of an editor, the editor's tree. It does no I/O.
//
// An update is a list of concurrent operations of several clients, ordered only by
// their references to each other. [Decode] integrates them as Yjs does, so that all
// clients agree on the result. Operations that refer to missing ones are left out,
// and so are those that follow them; see [Doc.Waiting].
//
// Updates come from users and are not trusted. [Limits] bounds work and memory.
// Both are linear in the update, except for two things that are counted: the steps
// to order concurrent insertions at one place, and the size of the output, because
// the attributes of a text are repeated for each of its parts. Decode allocates at
// most 160 bytes for each byte of the update, about 20 for real documents, and the
// document keeps less than half of them.
package yjs

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// Version is the derive version. It changes whenever the same update would give
// other output, so outdated columns can be detected.
const Version = 3

// Limits bounds the cost of a document. Fields that are zero or negative have their
// default.
type Limits struct {
	// Bytes is the maximum length of an update. The default is 64 MiB, the largest
	// response accepted from Liveblocks.
	Bytes int
	// Items is the maximum number of items. An operation counts more than once if
	// others were inserted into it or parts of it were deleted. The default is 8
	// Mi; an item takes 56 bytes.
	Items int
	// Depth is the maximum nesting of shared types and, separately, of the values
	// in one operation. The default is 1000. A shared type takes at most three
	// levels of JSON, so the output stays within the 10,000 levels that
	// encoding/json reads.
	Depth int
	// Steps is the maximum number of items that may be passed while ordering
	// concurrent insertions. The default is 64 Mi, which takes about a second.
	Steps int
	// Output is the maximum number of bytes that [Doc.JSON] or [Doc.Structure] may
	// write. The default is 256 MiB.
	Output int
}

func (l Limits) withDefaults() Limits {
	for _, f := range []struct {
		value         *int
		standard, max int
	}{
		{&l.Bytes, 64 << 20, math.MaxInt32}, // offsets in the update have 32 bits
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

// ErrVersion2 means that an update is in encoding version 2.
var ErrVersion2 = errors.New("decode yjs update: it is in encoding version 2, and only version 1 is read")

// SyntaxError reports where an update is malformed. It never quotes the update.
type SyntaxError struct {
	// Offset is the byte at or before which decoding failed.
	Offset int
	// Problem describes the error.
	Problem string
}

// Error returns the problem and its offset.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("decode yjs update at byte %d: %s", e.Offset, e.Problem)
}

// LimitError means that a document exceeds one of the [Limits].
type LimitError struct {
	// Limit is the name of the field in Limits.
	Limit string
	// Max is the value of the field.
	Max int
}

// Error returns the limit and its value.
func (e *LimitError) Error() string {
	return fmt.Sprintf("decode yjs update: more than %d %s", e.Max, e.Limit)
}

// Type is the type of a shared type.
type Type uint8

// The types, numbered as an update does, plus one.
const (
	// Unknown is the type of an empty root, whose type cannot be inferred.
	Unknown Type = iota
	Array
	Map
	Text
	XMLElement
	XMLFragment
	XMLHook
	XMLText
	// WeakLink is a link to other content of the document, which this package does
	// not follow. Only experimental versions of Yjs write it.
	WeakLink
	// Undefined stands for all kinds that Yjs does not define.
	Undefined
)

// String returns the name of t as Liveblocks spells it.
func (t Type) String() string {
	names := [...]string{
		"unknown", "yarray", "ymap", "ytext", "yxmlelement", "yxmlfragment", "yxmlhook", "yxmltext",
		"yweaklink", "undefined",
	}
	if int(t) < len(names) {
		return names[t]
	}
	return names[Unknown]
}

// Doc is a decoded document. It is immutable and safe for concurrent use.
type Doc struct {
	src     string
	limits  Limits
	clients []client
	waiting []Waiting
	items   []item
	types   []sharedType
	entries []entry
	roots   []root
}

// Waiting names operations that are not part of a document, because they refer to
// missing ones or follow those that do. They become part of it with an update that
// has what is missing.
type Waiting struct {
	// Client is the author.
	Client uint64
	// Clock is that of the first operation that waits.
	Clock uint64
}

// Waiting returns which operations wait, by client.
func (d *Doc) Waiting() []Waiting { return d.waiting }

// root is a shared type with a name.
type root struct {
	name string
	at   index
}

// Root is a shared type that clients access by name.
type Root struct {
	// Name is the name.
	Name string
	// Type is inferred from the content, because updates do not state it.
	Type Type
}

// Decode reads an update that contains a whole document. It fails with
// [ErrVersion2], a [*SyntaxError] or a [*LimitError], whose texts never contain
// content of the document. The caller may modify the update afterwards.
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

// Roots returns the roots, ordered by name.
func (d *Doc) Roots() []Root {
	roots := make([]Root, len(d.roots))
	for i, r := range d.roots {
		roots[i] = Root{Name: r.name, Type: d.types[r.at].kind}
	}
	return roots
}

// Subdocuments returns the guids of the subdocuments, sorted and without
// duplicates. An update contains nothing else of them.
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

// infer returns the type of a root from its content: first from visible items, then
// from deleted ones. Texts and fragments can both contain XML nodes. What editors
// put into them decides: a fragment contains elements, a text contains texts with
// attributes, such as the type of a Lexical node.
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

package yjs

import (
	"iter"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Structure appends the editors' trees to dst: one object with a member for each
// root that an editor wrote, ordered by name, each followed by those inside it, in
// maps and arrays. Their name is the path to them: the name of the root, the keys of
// maps and the indexes of arrays, with "/" between them, in which "~" and "/" read
// "~0" and "~1". A root that has the name of a path hides what is at the path. The
// same update always gives the same bytes.
//
// An XML fragment becomes the JSON of ProseMirror, on which Tiptap and BlockNote
// are built: {"type":"doc","content":[…]} of nodes
// {"type":…,"attrs":{…},"content":[…]} and texts
// {"type":"text","marks":[{"type":…,"attrs":{…}}],"text":…}. Attributes with the
// default value of the editor's schema are missing if the editor left them out.
// Marks are ordered by name, because the order of the schema is not known.
//
// An XML text written by Lexical becomes the JSON of its editor state:
// {"root":{"type":"root","children":[…],…}}. Nodes have all stored properties under
// the names that Lexical exports, and none that it computes, such as the
// indentation of a list item. As in Lexical, an empty style of a node with children
// is left out.
func (d *Doc) Structure(dst []byte) ([]byte, error) {
	w := newWriter(d, dst)
	w.raw("{")
	for _, r := range d.roots {
		t := &d.types[r.at]
		if !w.tree(r.name, t) {
			w.path = append(w.path[:0], segment(r.name)...)
			w.trees(t)
		}
	}
	w.raw("}")
	return w.result(dst)
}

// tree writes the member of a shared type, and reports whether an editor wrote it.
func (w *writer) tree(name string, t *sharedType) bool {
	switch {
	case t.kind == XMLFragment:
		w.key(name)
		w.raw(`{"type":"doc"`)
		w.nodes(t)
		w.raw("}")
	case t.kind == XMLText && w.isLexical(t):
		w.key(name)
		w.raw(`{"root":`)
		w.lexicalRoot(t)
		w.raw("}")
	default:
		return false
	}
	return true
}

// trees writes the members of the shared types in the map or array at w.path.
func (w *writer) trees(t *sharedType) {
	above := len(w.path)
	inside := func(name string, it *item) {
		if it.kind != kindType || w.full() {
			return
		}
		w.path = append(append(w.path[:above], '/'), segment(name)...)
		switch child := &w.types[it.typ()]; child.kind {
		case Map, Array:
			w.trees(child)
		case XMLFragment, XMLText:
			path := string(w.path)
			byName := func(r root, name string) int { return strings.Compare(r.name, name) }
			if _, hidden := slices.BinarySearchFunc(w.roots, path, byName); !hidden {
				w.tree(path, child)
			}
		default: // no editor's
		}
	}
	switch t.kind {
	case Map:
		for _, a := range w.attributes(t) {
			inside(a.key, a.item)
		}
	case Array:
		i := 0
		for it := range w.list(t) {
			inside(strconv.Itoa(i), it)
			for range w.values(it) {
				i++
			}
		}
	default: // what is inside a text or tree is part of it
	}
}

var segments = strings.NewReplacer("~", "~0", "/", "~1")

// segment returns a name as part of a path.
func segment(name string) string { return segments.Replace(name) }

// Foreign counts the rich texts that no known editor wrote. They have no tree; their
// content is in the JSON.
func (d *Doc) Foreign() int {
	n := 0
	for _, r := range d.roots {
		if t := &d.types[r.at]; t.kind == XMLText && !d.isLexical(t) {
			for range d.children(t) {
				n++
				break
			}
		}
	}
	return n
}

// children yields the shared types in the list of t.
func (d *Doc) children(t *sharedType) iter.Seq[*sharedType] {
	return func(yield func(*sharedType) bool) {
		for it := range d.list(t) {
			if it.kind == kindType && !yield(&d.types[it.typ()]) {
				return
			}
		}
	}
}

// nodes writes the content of a ProseMirror node, if it has any. Adjacent texts
// with the same marks are joined, as in the editor.
func (w *writer) nodes(t *sharedType) {
	empty, open := true, false
	marks := ""
	next := func() {
		if open {
			w.raw(`"}`)
			open = false
		}
		if empty {
			w.raw(`,"content":[`)
			empty = false
		}
		w.next()
	}
	for child := range w.children(t) {
		if w.full() {
			return
		}
		switch child.kind {
		case XMLElement:
			next()
			w.node(child)
		case XMLText:
			var format formatting
			known, changed := "", false
			for it := range w.list(child) {
				switch it.kind {
				case kindFormat:
					format.apply(w.formatOf(it))
					changed = true
				case kindString:
					if changed {
						known, changed = w.marks(&format), false
					}
					if w.full() {
						return
					}
					if !open || marks != known {
						next()
						marks, open = known, true
						w.raw(`{"type":"text"`)
						w.raw(marks)
						w.raw(`,"text":"`)
					}
					w.text(it)
				default: // ProseMirror keeps nothing else in a text
				}
			}
		default: // nor this
		}
	}
	if open {
		w.raw(`"}`)
	}
	if !empty {
		w.raw("]")
	}
}

// node writes a ProseMirror node.
func (w *writer) node(t *sharedType) {
	w.raw(`{"type":`)
	w.string(t.name)
	if len(w.attributes(t)) > 0 {
		w.raw(`,"attrs":`)
		w.object(t)
	}
	w.nodes(t)
	w.raw("}")
}

// markHash is the suffix that y-prosemirror appends to names of marks that a text
// may have more than once.
var markHash = regexp.MustCompile(`--[a-zA-Z0-9+/=]{8}$`)

// marks returns the member with the marks of a text, or nothing. The work counts as
// output: text that changes its attributes back and forth would otherwise cost more
// than it adds.
func (w *writer) marks(f *formatting) string {
	if len(f.values) == 0 {
		return ""
	}
	m := writer{Doc: w.Doc, max: w.max}
	m.raw(`,"marks":[`)
	for _, name := range f.sorted() {
		m.next()
		m.raw(`{"type":`)
		m.string(markHash.ReplaceAllString(name, ""))
		if value := f.values[name]; value[0] == '{' {
			before := len(m.dst)
			m.raw(`,"attrs":`)
			m.json(value)
			if string(m.dst[before:]) == `,"attrs":{}` {
				m.dst = m.dst[:before]
			}
		}
		m.raw("}")
	}
	m.raw("]")
	w.max -= len(m.dst)
	return string(m.dst)
}

// nodeType returns the Lexical node type of t, or "".
func (d *Doc) nodeType(t *sharedType) string {
	if it := d.get(t, "__type"); it != nil {
		return d.stringOf(it)
	}
	return ""
}

// stringOf returns the last value of it if that is a string, or "".
func (d *Doc) stringOf(it *item) string {
	v, _ := d.last(it)
	if v.kind == kindAny && v.s[0] == tagString {
		r := reader{src: v.s, i: 1, trusted: true}
		return r.text()
	}
	return ""
}

// isLexical reports whether t contains Lexical nodes.
func (d *Doc) isLexical(t *sharedType) bool {
	for child := range d.children(t) {
		if d.nodeType(child) != "" {
			return true
		}
	}
	return false
}

// Values that Lexical stores as numbers and exports as words.
var (
	alignments = []string{"", "left", "center", "right", "justify", "start", "end"}
	modes      = []string{"normal", "token", "segmented"}
)

// lexicalNode writes the start of a Lexical node, up to its properties.
func (w *writer) lexicalNode(t *sharedType, typ string) {
	w.raw(`{"type":`)
	w.string(typ)
	for _, a := range w.attributes(t) {
		v, ok := w.last(a.item)
		name, own := strings.CutPrefix(a.key, "__")
		if !ok || v.undefined() || !own || name == "type" {
			continue
		}
		var words []string
		unset := ""
		switch {
		case name == "dir":
			name = "direction"
		case name == "state":
			name = "$"
		case name == "mode":
			words = modes
		case name == "format" && t.kind == XMLText:
			words = alignments
		case name == "style" && t.kind == XMLText, name == "textStyle" && typ != paragraph:
			unset = `""`
		case name == "textFormat" && typ != paragraph:
			unset = "0"
		}
		before := len(w.dst)
		w.key(name)
		start := len(w.dst)
		w.value(v)
		if unset != "" && string(w.dst[start:]) == unset {
			w.dst = w.dst[:before]
		}
		if len(words) == 0 {
			continue
		}
		if i, err := strconv.Atoi(string(w.dst[start:])); err == nil && 0 <= i && i < len(words) {
			w.dst = w.dst[:start]
			w.string(words[i])
		}
	}
	w.raw(`,"version":1`)
}

// lexicalRoot writes the Lexical root, which stores no properties that have their
// defaults.
func (w *writer) lexicalRoot(t *sharedType) {
	w.lexicalNode(t, "root")
	for _, missing := range []struct{ key, member string }{
		{"__dir", `,"direction":null`},
		{"__format", `,"format":""`},
		{"__indent", `,"indent":0`},
	} {
		if w.get(t, missing.key) == nil {
			w.raw(missing.member)
		}
	}
	w.lexicalChildren(t)
}

// lexicalChildren writes the rest of a Lexical node with children. A text is a map
// followed by its string. Lexical drops strings without a map, and so does this.
func (w *writer) lexicalChildren(t *sharedType) {
	w.raw(`,"children":[`)
	open := false
	end := func() {
		if open {
			w.raw(`"}`)
			open = false
		}
	}
	for it := range w.list(t) {
		if w.full() {
			return
		}
		switch it.kind {
		case kindString:
			if open {
				w.text(it)
			}
		case kindType:
			child := &w.types[it.typ()]
			typ := w.nodeType(child)
			if typ == "" {
				continue
			}
			end()
			w.next()
			switch {
			case child.kind == XMLText:
				w.lexicalNode(child, typ)
				w.lexicalChildren(child)
			case child.kind == Map && typ != lineBreak:
				w.lexicalNode(child, typ)
				w.raw(`,"text":"`)
				open = true
			default:
				w.lexicalNode(child, typ)
				w.raw("}")
			}
		default: // Lexical keeps nothing else in a text
		}
	}
	end()
	w.raw("]}")
}

// Lexical node types: a soft break, and a block that always exports the style of
// future text in it.
const (
	lineBreak = "linebreak"
	paragraph = "paragraph"
)

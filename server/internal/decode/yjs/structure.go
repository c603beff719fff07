package yjs

import (
	"iter"
	"regexp"
	"strconv"
	"strings"
)

// Structure appends the editors' trees to dst: one object with a member for each
// root that an editor wrote, ordered by name. The same update always gives the same
// bytes.
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
		switch {
		case t.kind == XMLFragment:
			w.key(r.name)
			w.raw(`{"type":"doc"`)
			w.nodes(t)
			w.raw("}")
		case t.kind == XMLText && d.isLexical(t):
			w.key(r.name)
			w.raw(`{"root":`)
			w.lexicalRoot(t)
			w.raw("}")
		}
	}
	w.raw("}")
	return w.result(dst)
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

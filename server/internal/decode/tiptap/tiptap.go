// Package tiptap reads documents of the Tiptap editor that are stored in Storage
// instead of Yjs, as its collaboration mode "liveblocks" does.
//
// They are under the key "_tiptap_docs" of the root, one for each editor field of
// the room: trees of nodes {"id":…,"type":…,"attrs":{…},"content":[…]}, whose texts
// are {"id":…,"type":"text","text":[["string",{attributes}],…]}. The marks of a
// segment of text are one of its attributes.
package tiptap

import (
	"bytes"
	"iter"
	"maps"
	"slices"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
)

const (
	docsKey = "_tiptap_docs"
	// marksAttribute is the attribute of a segment that holds its marks.
	marksAttribute = "__liveblocks_tiptap_marks"
)

// MaxDepth is the maximum nesting of nodes; deeper ones are left out. A list in a
// list takes three levels.
const MaxDepth = 100

// Text returns the readable text of the documents for search, in the order of their
// fields. As with Yjs documents, each block is a line, empty blocks are left out, a
// hard break starts a new line, and a mention reads "@" and its label or the id of the
// user or group. The
// result is empty if there are no documents in storage, a Storage document as plain JSON.
func Text(storage rawjson.Value) string {
	docs := find(storage)
	var t texter
	for _, field := range slices.Sorted(maps.Keys(docs)) {
		t.line = true
		t.inside(nodeOf(docs[field]), 0)
	}
	return string(t.dst)
}

// Part returns the part of a Storage document, in plain-lson, that holds the documents.
// It gives the same [Text] and [Docs].
func Part(plainLSON []byte) []byte {
	part := []byte{'{'}
	if bytes.Contains(plainLSON, []byte(`"`+docsKey+`"`)) {
		if root, err := rawjson.Parse(plainLSON); err == nil {
			if len(root.Get("liveblocksType")) > 0 {
				root = root.Get("data")
			}
			if docs := root.Get(docsKey); len(docs) > 0 {
				part = append(append(part, `"`+docsKey+`":`...), docs...)
			}
		}
	}
	return append(part, '}')
}

// Docs returns the documents in storage, which is a Storage document as plain
// JSON: one object with a member for each field, in their order, that is the
// document in the JSON of ProseMirror, on which Tiptap is built:
// {"type":"doc","content":[…]} of nodes {"type":…,"attrs":{…},"content":[…]} and
// texts {"type":"text","marks":[{"type":…,"attrs":{…}}],"text":…}. Without
// documents it is an empty object.
func Docs(storage rawjson.Value) []byte {
	docs := find(storage)
	dst := []byte{'{'}
	for _, field := range slices.Sorted(maps.Keys(docs)) {
		if doc := nodeOf(docs[field]); doc.typ.IsString() && !doc.isText() {
			dst = append(rawjson.AppendString(comma(dst), field), ':')
			dst = doc.appendTo(dst, 0)
		}
	}
	return append(dst, '}')
}

// find returns the documents by their fields.
func find(storage rawjson.Value) map[string]rawjson.Value {
	// Most rooms have none, and this check is cheaper than reading the members.
	if !bytes.Contains(storage, []byte(`"`+docsKey+`"`)) {
		return nil
	}
	return maps.Collect(storage.Get(docsKey).Members())
}

// node is a node of a document.
type node struct{ typ, attrs, content, text rawjson.Value }

func nodeOf(v rawjson.Value) node {
	var n node
	for name, value := range v.Members() {
		switch name {
		case "type":
			n.typ = value
		case "attrs":
			n.attrs = value.Object()
		case "content":
			n.content = value
		case "text":
			n.text = value
		}
	}
	return n
}

func (n node) isText() bool { return n.typ.Exact() == "text" }

// children iterates over the nodes in n.
func (n node) children() iter.Seq[node] {
	return func(yield func(node) bool) {
		for v := range n.content.Elements() {
			if child := nodeOf(v); child.typ.IsString() && !yield(child) {
				return
			}
		}
	}
}

// segments iterates over the strings of a text and their attributes.
func (n node) segments() iter.Seq2[rawjson.Value, rawjson.Value] {
	return func(yield func(s, attributes rawjson.Value) bool) {
		for segment := range n.text.Elements() {
			var parts [2]rawjson.Value
			i := 0
			for part := range segment.Elements() {
				if i < len(parts) {
					parts[i] = part
				}
				i++
			}
			if parts[0].IsString() && len(parts[0]) > len(`""`) && !yield(parts[0], parts[1]) {
				return
			}
		}
	}
}

// appendTo appends n, which lies depth nodes deep, to dst in the JSON of
// ProseMirror: a text becomes one for each of its segments.
func (n node) appendTo(dst []byte, depth int) []byte {
	if n.isText() {
		for s, attributes := range n.segments() {
			dst = append(comma(dst), `{"type":"text"`...)
			dst = appendMarks(dst, attributes.Get(marksAttribute))
			dst = append(append(dst, `,"text":`...), s...)
			dst = append(dst, '}')
		}
		return dst
	}
	dst = append(append(comma(dst), `{"type":`...), n.typ...)
	if len(n.attrs) > 0 {
		dst = append(append(dst, `,"attrs":`...), n.attrs...)
	}
	const content = `,"content":[`
	dst = append(dst, content...)
	start := len(dst)
	if depth < MaxDepth {
		for child := range n.children() {
			dst = child.appendTo(dst, depth+1)
		}
	}
	if len(dst) == start {
		return append(dst[:start-len(content)], '}')
	}
	return append(dst, "]}"...)
}

// appendMarks appends the member that holds the marks of a text, if it has any.
func appendMarks(dst []byte, marks rawjson.Value) []byte {
	const member = `,"marks":[`
	dst = append(dst, member...)
	start := len(dst)
	for mark := range marks.Elements() {
		n := nodeOf(mark)
		if !n.typ.IsString() {
			continue
		}
		dst = append(append(comma(dst), `{"type":`...), n.typ...)
		if len(n.attrs) > 0 {
			dst = append(append(dst, `,"attrs":`...), n.attrs...)
		}
		dst = append(dst, '}')
	}
	if len(dst) == start {
		return dst[:start-len(member)]
	}
	return append(dst, ']')
}

// mentions are the names of nodes that mention somebody: of Tiptap, and of
// Liveblocks' own kit for it.
var mentions = map[string]bool{"mention": true, "liveblocksMention": true, "liveblocksGroupMention": true}

// texter writes plain text.
type texter struct {
	dst []byte
	// line means that what comes next begins a line.
	line bool
}

func (t *texter) write(s string) {
	if s == "" {
		return
	}
	if n := len(t.dst); t.line && n > 0 && t.dst[n-1] != '\n' {
		t.dst = append(t.dst, '\n')
	}
	t.line = false
	t.dst = append(t.dst, s...)
}

// inside writes the content of a node at the given depth. A child counts as a block
// unless there is text next to it, because documents do not say what a block is.
func (t *texter) inside(n node, depth int) {
	if depth == MaxDepth {
		return
	}
	children := slices.Collect(n.children())
	beside := false
	for _, child := range children {
		beside = beside || child.isText()
	}
	for _, child := range children {
		switch typ := child.typ.Exact(); {
		case child.isText():
			for s := range child.segments() {
				t.write(s.Text())
			}
		case typ == "hardBreak" || typ == "hard_break":
			t.write("\n")
		case mentions[typ]:
			for _, key := range []string{"label", "id", "user"} {
				if label := child.attrs.Get(key).Text(); label != "" {
					t.write("@" + label)
					break
				}
			}
		case beside:
			t.inside(child, depth+1)
		default:
			t.line = true
			t.inside(child, depth+1)
			t.line = true
		}
	}
}

// comma appends a comma unless an object, an array or a member begins there.
func comma(dst []byte) []byte {
	if c := dst[len(dst)-1]; c == '{' || c == '[' || c == ':' {
		return dst
	}
	return append(dst, ',')
}

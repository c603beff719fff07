package yjs

// Text returns the readable text of the document for search: the strings of all
// texts and XML nodes, ordered by the names of the roots. Strings in maps and
// arrays are data and are left out.
//
// Each block is a line, empty blocks are left out, and a soft break starts a new
// line. Updates do not say what a block is: a node counts as one unless there is
// text next to it. A caption follows what it belongs to. A mention reads "@" and the
// label of Tiptap's node, or the id of the user or group in the nodes of Liveblocks,
// BlockNote and Slate.
func (d *Doc) Text() string {
	t := texter{Doc: d}
	for _, r := range d.roots {
		t.shared(&d.types[r.at])
	}
	return string(t.dst)
}

// texter writes plain text.
type texter struct {
	*Doc
	dst []byte
	// line means that what comes next begins a line.
	line bool
}

// block ends a block and starts another.
func (t *texter) block() { t.line = true }

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

// shared writes the content of a shared type as a block.
func (t *texter) shared(s *sharedType) {
	t.block()
	t.inline(s)
	t.block()
}

// inline writes the content of a shared type.
func (t *texter) inline(s *sharedType) {
	switch s.kind {
	case Map, XMLHook:
		for _, a := range t.attributes(s) {
			if a.item.kind == kindType {
				t.shared(&t.types[a.item.typ()])
			}
		}
	case Array:
		for child := range t.children(s) {
			t.shared(child)
		}
	default:
		t.nodes(s)
	}
}

// nodes writes the content of a text or an XML node.
func (t *texter) nodes(s *sharedType) {
	// Texts are inside elements. Texts inside a text are elements themselves, as in
	// Lexical.
	within := s.kind == Text || s.kind == XMLText
	beside := false // there is text
	lexical := false
	for it := range t.list(s) {
		switch it.kind {
		case kindString:
			beside = true
		case kindType:
			child := &t.types[it.typ()]
			beside = beside || child.kind == XMLText && !within
			lexical = lexical || t.nodeType(child) != ""
		default: // no text
		}
	}
	keep := !lexical // whether a string belongs to a node
	for it := range t.list(s) {
		if it.kind == kindString && keep {
			for part := range t.strings(it) {
				t.write(part)
			}
		}
		if it.kind != kindType {
			continue
		}
		child := &t.types[it.typ()]
		keep = !lexical
		switch typ := t.nodeType(child); {
		case child.kind == Map && typ == lineBreak, child.kind == XMLElement &&
			(child.name == "hardBreak" || child.name == "hard_break"):
			t.write("\n")
		case child.kind == Map && typ != "":
			keep = true
		case child.kind == XMLElement && mentions[child.name], child.kind == XMLText && t.isVoidMention(child):
			t.mention(child, "@", "label", "id", "user")
		case child.kind == XMLElement && typ == "lb-mention":
			if !t.mention(child, "@", "__userId") {
				t.mention(child, "", "__id") // as @liveblocks/node-lexical writes and reads it
			}
		case beside:
			t.inline(child)
		default:
			t.shared(child)
		}
		if caption := t.get(child, "caption"); caption != nil && child.kind == XMLElement {
			t.block()
			t.write(t.stringOf(caption))
			t.block()
		}
	}
}

// mentions are the names of nodes that mention somebody: of Tiptap and BlockNote, and
// of Liveblocks' own kits for them.
var mentions = map[string]bool{"mention": true, "liveblocksMention": true, "liveblocksGroupMention": true}

// isVoidMention reports whether s is the node of Slate that mentions somebody.
func (d *Doc) isVoidMention(s *sharedType) bool {
	it := d.get(s, "type")
	return it != nil && d.stringOf(it) == "mention"
}

// mention writes the first of the attributes that is a text, and reports whether
// one is.
func (t *texter) mention(s *sharedType, sign string, keys ...string) bool {
	for _, key := range keys {
		if it := t.get(s, key); it != nil {
			if label := t.stringOf(it); label != "" {
				t.write(sign + label)
				return true
			}
		}
	}
	return false
}

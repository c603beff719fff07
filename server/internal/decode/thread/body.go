package thread

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
)

// mark is a set of text styles.
type mark uint8

const (
	bold mark = 1 << iota
	italic
	strikethrough
	code
)

// inline is a part of a paragraph: text, or a link if it has an href.
type inline struct {
	text  string
	marks mark
	href  string
}

// render returns the plain text and the Markdown of a comment's body.
//
// Both equal the result of stringifyCommentBody of Liveblocks' packages, with
// mentions shown by their ids, except for these deliberate differences:
//   - Elements of a type that is not known show their text instead of nothing.
//   - In Markdown text without marks is escaped too, and whatever Markdown would
//     read as its own is; what it would not is left alone. The package escapes
//     some characters, and only within marks.
//   - White space at the edges of marked text stays outside of the markers, which
//     Markdown does not recognise otherwise, and is left out at the start of a
//     line, where four spaces would make a code block. Marks end with the line.
//   - A mark that two texts side by side have is not closed between them, where its
//     markers would run together.
//   - Code is the innermost mark, not the outermost, and nothing in it is escaped.
//   - URLs keep their spelling but for what would end them.
func render(body rawjson.Value) (text, markdown string) {
	var plain, marked []string
	for _, line := range blocks(body.Get("content")) {
		plain = append(plain, plainLine(line))
		marked = append(marked, markdownLine(merge(line)))
	}
	return strings.Join(plain, "\n"), strings.Join(marked, "\n\n")
}

// blocks returns the paragraphs in a list of blocks.
func blocks(list rawjson.Value) [][]inline {
	var out [][]inline
	for block := range list.Elements() {
		children := block.Get("children")
		if block.Get("type").Exact() == "paragraph" {
			out = append(out, inlines(nil, children))
			continue
		}
		// An unknown type is a block of blocks, such as a list of items, if its
		// children have children.
		nested := false
		for child := range children.Elements() {
			nested = nested || child.Get("children").IsArray()
		}
		if nested {
			out = append(out, blocks(children)...)
		} else if line := inlineOf(nil, block); len(line) > 0 {
			out = append(out, line)
		}
	}
	return out
}

// inlines appends the parts of a paragraph to line.
func inlines(line []inline, list rawjson.Value) []inline {
	for element := range list.Elements() {
		line = inlineOf(line, element)
	}
	return line
}

func inlineOf(line []inline, v rawjson.Value) []inline {
	text := v.Get("text")
	switch v.Get("type").Exact() {
	case "mention":
		if id := v.Get("id").Text(); id != "" {
			line = append(line, inline{text: "@" + id})
		}
	case "link":
		url := v.Get("url").Text()
		shown := url
		if text.IsString() {
			shown = text.Text()
		}
		line = append(line, inline{text: shown, href: href(url)})
	default:
		if !text.IsString() {
			return inlines(line, v.Get("children"))
		}
		in := inline{text: text.Text()}
		for name, value := range v.Members() {
			var m mark
			switch name {
			case "bold":
				m = bold
			case "italic":
				m = italic
			case "strikethrough":
				m = strikethrough
			case "code":
				m = code
			}
			if in.marks &^= m; value.IsTrue() {
				in.marks |= m
			}
		}
		line = append(line, in)
	}
	return line
}

// merge joins adjacent texts of the same style, whose markers would otherwise run
// together.
func merge(line []inline) []inline {
	line = slices.DeleteFunc(line, func(in inline) bool { return in.text == "" && in.href == "" })
	var out []inline
	for len(line) > 0 {
		n := 1
		for n < len(line) && line[0].href == "" && line[n].href == "" && line[n].marks == line[0].marks {
			n++
		}
		in := line[0]
		in.text = plainLine(line[:n])
		out = append(out, in)
		line = line[n:]
	}
	return out
}

// plainLine returns the plain text of a paragraph.
func plainLine(line []inline) string {
	var out strings.Builder
	for _, in := range line {
		out.WriteString(in.text)
	}
	return out.String()
}

// href returns the target of a link, or "" if it is not safe to follow. Like
// Liveblocks' packages it accepts http, https and relative URLs.
func href(url string) string {
	if strings.HasPrefix(url, "www.") {
		url = "https://" + url
	}
	// Browsers ignore these characters, so the check of the scheme must ignore them
	// too.
	url = strings.NewReplacer("\t", "", "\n", "", "\r",
		"").Replace(strings.TrimFunc(url, func(r rune) bool { return r <= ' ' }))
	if scheme, rest, ok := strings.Cut(url, ":"); ok && isScheme(scheme) {
		if s := strings.ToLower(scheme); s != "http" && s != "https" || strings.Trim(rest, `/\`) == "" {
			return ""
		}
	}
	return url
}

// isScheme reports whether s can stand before the colon of a URL.
func isScheme(s string) bool {
	for i, c := range []byte(s) {
		if !isAlphanumeric(c) && (i == 0 || strings.IndexByte("+-.", c) < 0) || i == 0 && c <= '9' {
			return false
		}
	}
	return s != ""
}

// markdownLine returns the Markdown of a paragraph.
func markdownLine(line []inline) string {
	w := markdown{begin: true}
	after := following(line)
	for i, in := range line {
		if in.href != "" {
			w.marks(0, false)
			w.link(in)
		} else {
			w.text(in, isWord(after[i]))
		}
	}
	w.marks(0, false)
	return w.out.String()
}

// following returns for each part of line the character that comes after it and the
// italic text behind it, or a space.
func following(line []inline) []rune {
	after := make([]rune, len(line))
	for i := len(line) - 1; i >= 0; i-- {
		after[i] = ' '
		if i+1 == len(line) || line[i+1].href != "" {
			continue
		}
		next := line[i+1]
		last, _ := utf8.DecodeLastRuneInString(line[i].text)
		switch first, _ := utf8.DecodeRuneInString(next.text); {
		case next.marks&italic != 0 || strings.TrimSpace(next.text) == "":
			after[i] = after[i+1]
		case !unicode.IsSpace(last):
			after[i] = first
		}
	}
	return after
}

// markdown writes a paragraph.
type markdown struct {
	out strings.Builder
	// begin means that a line begins here.
	begin bool
	// last is the last character written.
	last rune
	// space is white space that comes next, after any closing markers.
	space []byte
	// open are the marks that are open, the innermost last.
	open []openMark
}

type openMark struct {
	mark   mark
	marker string
}

func (w *markdown) write(s string) {
	if s != "" {
		w.out.WriteString(s)
		w.last, _ = utf8.DecodeLastRuneInString(s)
		w.begin = false
	}
}

func isWord(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r) }

// marks closes the open marks that are not wanted and opens those that are missing.
func (w *markdown) marks(those mark, wordNext bool) {
	var missing mark
	keep := 0
	for keep < len(w.open) && w.open[keep].mark&those != 0 {
		missing |= w.open[keep].mark
		keep++
	}
	missing ^= those &^ code
	for n := len(w.open); n > keep; n-- {
		w.write(w.open[n-1].marker)
	}
	w.open = w.open[:keep]
	w.write(string(w.space))
	w.space = w.space[:0]
	for _, m := range []openMark{{strikethrough, "~~"}, {italic, "_"}, {bold, "**"}} {
		if missing&m.mark == 0 {
			continue
		}
		if m.mark == italic && (isWord(w.last) || wordNext) {
			m.marker = "*" // the only marker that works within a word
		}
		w.write(m.marker)
		w.open = append(w.open, m)
	}
}

// text writes text, line by line.
func (w *markdown) text(in inline, wordNext bool) {
	for i, line := range strings.Split(lineEnds.Replace(in.text), "\n") {
		if i > 0 {
			w.marks(0, false)
			w.write("\n")
			w.begin = true
		}
		content := strings.TrimLeftFunc(line, unicode.IsSpace)
		if !w.begin {
			w.space = append(w.space, line[:len(line)-len(content)]...)
		}
		trimmed := strings.TrimRightFunc(content, unicode.IsSpace)
		if trimmed == "" {
			continue
		}
		begin := w.begin
		w.marks(in.marks, wordNext)
		if in.marks&code != 0 {
			w.write(codeSpan(trimmed))
		} else {
			w.write(escape(trimmed, begin && len(w.open) == 0))
		}
		w.space = append(w.space, content[len(trimmed):]...)
	}
}

// lineEnds normalises the line endings that Markdown knows.
var lineEnds = strings.NewReplacer("\r\n", "\n", "\r", "\n")

// codeSpan encloses s in more backticks than the longest run in it.
func codeSpan(s string) string {
	longest, run := 0, 0
	for _, c := range []byte(s) {
		if c == '`' {
			run++
			longest = max(longest, run)
		} else {
			run = 0
		}
	}
	fence := strings.Repeat("`", longest+1)
	if s[0] == '`' || s[len(s)-1] == '`' {
		s = " " + s + " "
	}
	return fence + s + fence
}

// escape escapes what Markdown would interpret; begin says whether s begins a line.
func escape(s string, begin bool) string {
	var out strings.Builder
	if begin {
		digits := len(s) - len(strings.TrimLeft(s, "0123456789"))
		switch {
		case strings.IndexByte("#>+-=", s[0]) >= 0:
			out.WriteString(`\` + s[:1])
			s = s[1:]
		case digits > 0 && digits < len(s) && (s[digits] == '.' || s[digits] == ')'):
			out.WriteString(s[:digits] + `\` + s[digits:digits+1])
			s = s[digits+1:]
		}
	}
	for i, c := range []byte(s) {
		special := strings.IndexByte("\\`*_~[]<|", c) >= 0
		switch {
		case c == '&':
			special = isEntity(s[i+1:])
		case c == '_' && 0 < i && i+1 < len(s): // within a word it is no marker
			special = !isAlphanumeric(s[i-1]) || !isAlphanumeric(s[i+1])
		}
		if special {
			out.WriteByte('\\')
		}
		out.WriteByte(c)
	}
	return out.String()
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9'
}

// isEntity reports whether s is the rest of a character reference.
func isEntity(s string) bool {
	i := 0
	for i < len(s) && (s[i] == '#' || isAlphanumeric(s[i])) {
		i++
	}
	return i > 0 && i < len(s) && s[i] == ';'
}

// link writes a link.
func (w *markdown) link(in inline) {
	var url strings.Builder
	for i, c := range []byte(in.href) {
		switch {
		case c <= ' ' || c == 0x7f || strings.IndexByte("<>\"`\\|", c) >= 0:
			url.WriteString("%" + string("0123456789ABCDEF"[c>>4]) + string("0123456789ABCDEF"[c&15]))
			continue
		case c == '(' || c == ')' || c == '&' && isEntity(in.href[i+1:]):
			url.WriteByte('\\')
		}
		url.WriteByte(c)
	}
	text := strings.ReplaceAll(lineEnds.Replace(in.text), "\n", " ")
	w.write("[" + escape(text, false) + "](" + url.String() + ")")
}

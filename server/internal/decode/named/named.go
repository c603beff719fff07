// Package named finds out whether content names somebody: whether it holds the id of a
// user. Ids are compared as bytes, however JSON spells them.
package named

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Value reports whether a string of the JSON, a name of a member included, is the id.
// A string that holds JSON is read as such. In what is no JSON, it looks for a [Word].
func Value(raw []byte, id string) bool {
	if !json.Valid(raw) {
		return Word(raw, id)
	}
	return value(raw, id, maxDepth)
}

// maxDepth is how deep JSON is read that stands in strings of JSON.
const maxDepth = 8

func value(raw []byte, id string, depth int) bool {
	for {
		begin := bytes.IndexByte(raw, '"')
		if begin < 0 {
			return false
		}
		raw = raw[begin+1:]
		end := 0
		for end < len(raw) && raw[end] != '"' {
			if raw[end] == '\\' {
				end++
			}
			end++
		}
		end = min(end, len(raw))
		text := unescape(raw[:end])
		if string(text) == id || depth > 0 && nested(text) && value(text, id, depth-1) {
			return true
		}
		raw = raw[min(end+1, len(raw)):]
	}
}

// nested reports whether a string holds JSON with strings in it.
func nested(text []byte) bool {
	return len(text) > 2 && (text[0] == '{' || text[0] == '[' || text[0] == '"') && json.Valid(text)
}

// Word reports whether the id stands in a text, or in JSON, and is no part of a longer
// word: of letters of ASCII, digits, hyphens and underscores.
func Word(text []byte, id string) bool { return find(text, id, word) }

// Bytes reports whether the id stands in content of any form, also as part of a word: the
// lengths that precede texts in a Yjs update look like letters.
func Bytes(content []byte, id string) bool {
	return find(content, id, func(text []byte, id string) bool { return bytes.Contains(text, []byte(id)) })
}

// find looks for the id as it is written and behind escapes of JSON, of JSON in strings of
// JSON, and of Markdown.
func find(text []byte, id string, holds func(text []byte, id string) bool) bool {
	if id == "" {
		return false
	}
	for range maxDepth {
		if holds(text, id) {
			return true
		}
		plain := unescape(text)
		if len(plain) == len(text) {
			return false
		}
		text = plain
	}
	return false
}

func word(text []byte, id string) bool {
	for begin := 0; ; {
		at := bytes.Index(text[begin:], []byte(id))
		if at < 0 {
			return false
		}
		at += begin
		end := at + len(id)
		if (at == 0 || !inWord(id[0]) || !inWord(text[at-1])) &&
			(end == len(text) || !inWord(id[len(id)-1]) || !inWord(text[end])) {
			return true
		}
		begin = at + 1
	}
}

func inWord(b byte) bool {
	return b == '-' || b == '_' || '0' <= b && b <= '9' || 'A' <= b && b <= 'Z' || 'a' <= b && b <= 'z'
}

// controls are the letters that stand for control characters behind a backslash.
var controls = map[byte]byte{'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// unescape returns a text without its backslashes. It returns the text itself if there are
// none.
func unescape(text []byte) []byte {
	at := bytes.IndexByte(text, '\\')
	if at < 0 {
		return text
	}
	out := slices.Grow([]byte(nil), len(text))
	for ; at >= 0; at = bytes.IndexByte(text, '\\') {
		out, text = append(out, text[:at]...), text[at+1:]
		if len(text) == 0 {
			return out
		}
		r, size := unit(text)
		switch control, ok := controls[text[0]]; {
		case size > 0:
			if low, more := pair(text[size:]); utf16.IsSurrogate(r) && more > 0 {
				if both := utf16.DecodeRune(r, low); both != utf8.RuneError {
					r, size = both, size+more
				}
			}
			out, text = utf8.AppendRune(out, r), text[size:]
		case ok:
			out, text = append(out, control), text[1:]
		default:
			out, text = append(out, text[0]), text[1:]
		}
	}
	return append(out, text...)
}

// unit reads the four digits of an escape, and returns how long they are with the u.
func unit(text []byte) (r rune, size int) {
	const size16 = len("u0000")
	if len(text) < size16 || text[0] != 'u' {
		return 0, 0
	}
	n, err := strconv.ParseUint(string(text[1:size16]), 16, 16)
	if err != nil {
		return 0, 0
	}
	return rune(n), size16
}

// pair reads the second escape of a pair of surrogates, with its backslash.
func pair(text []byte) (r rune, size int) {
	if len(text) == 0 || text[0] != '\\' {
		return 0, 0
	}
	if r, size = unit(text[1:]); size == 0 {
		return 0, 0
	}
	return r, size + 1
}

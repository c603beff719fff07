// Package rawjson reads JSON without changing it. It decodes a value only on
// request, which preserves what encoding/json would alter: numbers beyond 2^53,
// unpaired surrogates, the order of keys. It is lenient: a value of another type
// than the requested one reads as absent.
package rawjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// ErrSyntax means that the input is not JSON, or is nested deeper than the 10,000
// levels that encoding/json reads.
var ErrSyntax = errors.New("not JSON")

// Value is the source text of a JSON value, without surrounding white space; empty
// if the value is absent. It must be part of a result of [Parse] or [Known].
type Value []byte

// Parse returns the value in raw, or [ErrSyntax] if raw is not JSON. The value
// shares memory with raw.
func Parse(raw []byte) (Value, error) {
	if !json.Valid(raw) {
		return nil, ErrSyntax
	}
	return Known(raw), nil
}

// Known returns the value in raw, which must be JSON: package lson has read or written it.
// Reading a value that is not JSON panics. The value shares memory with raw.
func Known(raw []byte) Value { return bytes.Trim(raw, " \t\r\n") }

// IsObject reports whether v is an object.
func (v Value) IsObject() bool { return len(v) > 0 && v[0] == '{' }

// IsArray reports whether v is an array.
func (v Value) IsArray() bool { return len(v) > 0 && v[0] == '[' }

// IsString reports whether v is a string.
func (v Value) IsString() bool { return len(v) > 0 && v[0] == '"' }

// IsNull reports whether v is null or absent.
func (v Value) IsNull() bool { return len(v) == 0 || v[0] == 'n' }

// IsTrue reports whether v is true.
func (v Value) IsTrue() bool { return len(v) > 0 && v[0] == 't' }

// Object returns v if it is an object, and an absent value otherwise.
func (v Value) Object() Value {
	if v.IsObject() {
		return v
	}
	return nil
}

// Members iterates over the names and values of an object in source order,
// including duplicates. (Look-ups use the last duplicate, as JavaScript does.)
// Names are decoded like [Value.Exact]. A value that is not an object has no
// members.
func (v Value) Members() iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		for name, value := range v.members() {
			if !yield(name.Exact(), value) {
				return
			}
		}
	}
}

// members is like Members, but yields the source text of the names.
func (v Value) members() iter.Seq2[Value, Value] {
	return func(yield func(name, value Value) bool) {
		if !v.IsObject() {
			return
		}
		i := skipSpace(v, 1)
		for v[i] != '}' {
			if v[i] == ',' {
				i = skipSpace(v, i+1)
			}
			name := v[i:skipValue(v, i)]
			i = skipSpace(v, i+len(name)) // the colon
			i = skipSpace(v, i+1)
			value := v[i:skipValue(v, i)]
			if !yield(name, value) {
				return
			}
			i = skipSpace(v, i+len(value))
		}
	}
}

// Elements iterates over the elements of an array. A value that is not an array has
// none.
func (v Value) Elements() iter.Seq[Value] {
	return func(yield func(Value) bool) {
		if !v.IsArray() {
			return
		}
		i := skipSpace(v, 1)
		for v[i] != ']' {
			if v[i] == ',' {
				i = skipSpace(v, i+1)
			}
			element := v[i:skipValue(v, i)]
			if !yield(element) {
				return
			}
			i = skipSpace(v, i+len(element))
		}
	}
}

// Get returns the named member of an object, or an absent value.
func (v Value) Get(name string) Value {
	var found Value
	for n, value := range v.members() {
		escaped := bytes.IndexByte(n, '\\') >= 0
		if !escaped && string(n[1:len(n)-1]) == name || escaped && n.Exact() == name {
			found = value
		}
	}
	return found
}

// Depth returns how deep objects and arrays are nested: 0 for a scalar, 1 for {}
// and [1].
func (v Value) Depth() int {
	depth, deepest := 0, 0
	for i := 0; i < len(v); i++ {
		switch v[i] {
		case '"':
			i = skipValue(v, i) - 1
		case '{', '[':
			depth++
			deepest = max(deepest, depth)
		case '}', ']':
			depth--
		}
	}
	return deepest
}

// Exact returns the string in v, or "" if v is not a string. It encodes an unpaired
// surrogate like a character, so different strings stay different; the result may
// not be valid UTF-8.
func (v Value) Exact() string {
	if !v.IsString() {
		return ""
	}
	content := v[1 : len(v)-1]
	if bytes.IndexByte(content, '\\') < 0 {
		return string(content)
	}
	out := make([]byte, 0, len(content))
	for len(content) > 0 {
		i := bytes.IndexByte(content, '\\')
		if i < 0 {
			return string(append(out, content...))
		}
		out = append(out, content[:i]...)
		r, n := Escape(content[i:])
		content = content[i+n:]
		if utf16.IsSurrogate(r) {
			out = append(out, 0xed, 0x80|byte(r>>6&0x3f), 0x80|byte(r&0x3f))
		} else {
			out = utf8.AppendRune(out, r)
		}
	}
	return string(out)
}

// Text returns the string in v as text that every database accepts: it replaces
// invalid characters and NUL by U+FFFD.
func (v Value) Text() string { return Clean(v.Exact()) }

// Clean replaces invalid characters and NUL in s by U+FFFD.
func Clean(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// ID returns the string in v if it can be stored as an id of at most limit bytes,
// and "" otherwise.
func (v Value) ID(limit int) string {
	if s := v.Exact(); mirror.ValidID(s, limit) {
		return s
	}
	return ""
}

// Time returns the time in v to the microsecond. It returns zero if v is not a time
// or is outside the range that every engine can store.
func (v Value) Time() time.Time {
	if !v.IsString() {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, v.Exact())
	if t = t.UTC(); err != nil || t.Year() < 1970 || t.Year() > 9998 {
		return time.Time{}
	}
	return t.Truncate(time.Microsecond)
}

// Float returns the number in v; ok is false if v is not a number in the range of a
// float64.
func (v Value) Float() (f float64, ok bool) {
	if len(v) == 0 || v[0] != '-' && (v[0] < '0' || v[0] > '9') {
		return 0, false
	}
	f, err := strconv.ParseFloat(string(v), 64)
	if err != nil {
		return 0, false
	}
	return f, true
}

// Int returns the integer in v in any notation; ok is false if v is not a 64-bit
// integer.
func (v Value) Int() (n int64, ok bool) {
	if n, err := strconv.ParseInt(string(v), 10, 64); err == nil {
		return n, true
	}
	f, ok := v.Float()
	if !ok || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, false
	}
	return int64(f), true
}

// Why SQL databases refuse a string in JSON.
const (
	ProblemNUL       = `contains the character \u0000, which SQL databases do not store in JSON`
	ProblemSurrogate = "contains half of a surrogate pair, which SQL databases do not store in JSON"
)

// Problem returns why SQL databases refuse v as JSON, or "" if they accept it.
func (v Value) Problem() string {
	if !utf8.Valid(v) {
		return "is not valid UTF-8"
	}
	lone := false
	for r := range v.escapes() {
		if r == 0 {
			return ProblemNUL
		}
		lone = lone || utf16.IsSurrogate(r)
	}
	if lone {
		return ProblemSurrogate
	}
	return ""
}

// HasNUL reports whether a string or name in v contains the character U+0000.
func (v Value) HasNUL() bool {
	if !bytes.Contains(v, []byte(`\u0000`)) {
		return false
	}
	for r := range v.escapes() {
		if r == 0 {
			return true
		}
	}
	return false
}

// escapes iterates over the characters that are escaped in v.
func (v Value) escapes() iter.Seq[rune] {
	return func(yield func(rune) bool) {
		for rest := []byte(v); ; {
			i := bytes.IndexByte(rest, '\\')
			if i < 0 {
				return
			}
			r, n := Escape(rest[i:])
			if !yield(r) {
				return
			}
			rest = rest[i+n:]
		}
	}
}

// AppendCanonical appends v to dst in canonical form: without white space, with
// sorted names, the last of duplicate members, and one spelling for each string.
// Numbers keep their spelling. Two values have the same form if and only if they
// differ in nothing else.
//
// The work grows with the depth of v. The caller must bound the depth.
func (v Value) AppendCanonical(dst []byte) []byte {
	switch {
	case v.IsObject():
		return v.appendObject(dst)
	case v.IsArray():
		dst = append(dst, '[')
		first := true
		for element := range v.Elements() {
			if !first {
				dst = append(dst, ',')
			}
			first = false
			dst = element.AppendCanonical(dst)
		}
		return append(dst, ']')
	case v.IsString() && bytes.IndexByte(v, '\\') >= 0:
		return AppendString(dst, v.Exact())
	default:
		return append(dst, v...)
	}
}

func (v Value) appendObject(dst []byte) []byte {
	// Write members in source order, each with a trailing comma, and sort them
	// afterwards if necessary.
	type member struct{ begin, name, end int }
	var members []member
	dst = append(dst, '{')
	start := len(dst)
	sorted := true
	for name, value := range v.members() {
		m := member{begin: len(dst)}
		dst = name.AppendCanonical(dst)
		m.name = len(dst)
		dst = append(dst, ':')
		dst = value.AppendCanonical(dst)
		dst = append(dst, ',')
		m.end = len(dst)
		if n := len(members); n > 0 {
			last := members[n-1]
			sorted = sorted && bytes.Compare(dst[last.begin:last.name], dst[m.begin:m.name]) < 0
		}
		members = append(members, m)
	}
	if !sorted {
		written := slices.Clone(dst[start:])
		name := func(m member) []byte { return written[m.begin-start : m.name-start] }
		slices.SortStableFunc(members, func(a, b member) int { return bytes.Compare(name(a), name(b)) })
		dst = dst[:start]
		for n, m := range members {
			if n+1 == len(members) || !bytes.Equal(name(m), name(members[n+1])) {
				dst = append(dst, written[m.begin-start:m.end-start]...)
			}
		}
	}
	if len(members) > 0 {
		dst = dst[:len(dst)-1]
	}
	return append(dst, '}')
}

// AppendString appends s, a result of [Value.Exact], to dst as a JSON string. It
// escapes only what JSON requires, and unpaired surrogates.
func AppendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < ' ':
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c == 0xed && i+2 < len(s) && s[i+1] >= 0xa0:
			dst = append(dst, '\\', 'u', 'd', hex[s[i+1]>>2&15], hex[s[i+1]&3<<2|s[i+2]>>4&3], hex[s[i+2]&15])
			i += 2
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}

// Escape decodes the escape sequence that follows the backslash at the start of b, or
// the two of a surrogate pair. It returns the character, which may be an unpaired
// surrogate, and the length; 0 if that is no escape sequence of JSON.
func Escape(b []byte) (r rune, n int) {
	if len(b) < 2 {
		return 0, 0
	}
	switch b[1] {
	case '"', '\\', '/':
		return rune(b[1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	}
	r, ok := codeUnit(b)
	if !ok {
		return 0, 0
	}
	if utf16.IsSurrogate(r) {
		if low, ok := codeUnit(b[6:]); ok {
			if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
				return pair, 12
			}
		}
	}
	return r, 6
}

// codeUnit reads the \uXXXX at the start of b.
func codeUnit(b []byte) (r rune, ok bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	for _, c := range b[2:6] {
		r <<= 4
		switch {
		case '0' <= c && c <= '9':
			r |= rune(c - '0')
		case 'a' <= c && c <= 'f':
			r |= rune(c - 'a' + 10)
		case 'A' <= c && c <= 'F':
			r |= rune(c - 'A' + 10)
		default:
			return 0, false
		}
	}
	return r, true
}

func skipSpace(b []byte, i int) int {
	for b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t' {
		i++
	}
	return i
}

// End returns the end of the value that begins at i, or after spaces, inside an object or array.
func End(raw []byte, i int) int { return skipValue(raw, skipSpace(raw, i)) }

// skipValue returns the end of the value at i inside an object or array, or of a
// string.
func skipValue(b []byte, i int) int {
	for depth := 0; ; i++ {
		switch b[i] {
		case '"':
			for i++; b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
			if depth < 0 { // a scalar ends with its container
				return i
			}
		case ',', ' ', '\n', '\r', '\t':
			if depth == 0 {
				return i
			}
		}
	}
}

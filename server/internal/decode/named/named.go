// Package named finds the id of a user in content, and takes it out of JSON. Ids are
// compared as bytes, however JSON spells them.
package named

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
)

const space = " \t\r\n"

// accesses is the member whose names are ids of users.
const accesses = "usersAccesses"

// users are the members whose values are ids of users. In an object of persons, or a mention of
// a user, the member id is one as well.
var users = []string{
	"userId", "userIds", "createdBy", "updatedBy", "editedBy", "deletedBy", "addedBy", "removedBy", "resolvedBy",
}

// persons are the members whose values are lists of objects about a user each.
var persons = []string{"users", "members"}

// structure are the members whose values say what the JSON is about, and are no ids of users
// even if they equal one.
var structure = []string{
	"type", "kind", "channel", "projectId", "appId", "roomId", "threadId", "commentId", "inboxNotificationId", "mentionId",
}

// fixed are more such members; Liveblocks chooses their values.
var fixed = []string{"id", "mimeType", "visibility", "organizationId", "resourceId"}

// defined are the members whose values applications define.
var defined = []string{"metadata", "info", "userInfo", "activityData"}

// Value reports whether a string of the JSON is the id, whatever it means there: a text or a
// role can equal the id of a user.
func Value(raw []byte, id string) bool {
	found := false
	scan(raw, func(s text) bool {
		found = s.equals(id)
		return !found
	})
	return found
}

// Replace returns the JSON with an empty string in place of the id wherever that is known to
// be the id of a user, by the member that has it, the rest byte for byte. It returns nil if
// there is none, or if raw is no JSON. Names of members are ids of users in the accesses of
// rooms only: such a member goes, because two of them without a name would be one.
func Replace(raw []byte, id string) []byte {
	if !Value(raw, id) {
		return nil
	}
	mentions := mentioned(raw)
	return without(raw, func(s text) bool { return s.equals(id) && s.isUser(mentions) })
}

// without returns the JSON with an empty string in place of some values, and without members
// that have some names; nil if there are none.
func without(raw []byte, some func(text) bool) []byte {
	var out []byte
	done := 0 // as far as it was copied
	scan(raw, func(s text) bool {
		if s.begin < done || !some(s) {
			return true
		}
		out = append(out, raw[done:s.begin]...)
		if done = s.end; !s.name {
			out = append(out, `""`...)
			return true
		}
		done = rawjson.End(raw, done+bytes.IndexByte(raw[done:], ':')+1)
		if rest := bytes.TrimLeft(raw[done:], space); rest[0] == ',' {
			done = len(raw) - len(rest) + 1
		} else { // it is the last one
			out = bytes.TrimSuffix(bytes.TrimRight(out, space), []byte(","))
		}
		return true
	})
	if done == 0 {
		return nil
	}
	return append(out, raw[done:]...)
}

// Clear does to the JSON what [Replace] does, and empties every other text that [Holds] the id,
// whatever it means there. In what applications define, which is all of it if free, members
// with such a name go. What says what the JSON is about stays, and so do times, and ids of
// others. It returns nil if there is nothing to do, or if raw is no JSON.
func Clear(raw []byte, id string, free bool) []byte {
	mentions := mentioned(raw)
	return without(raw, func(s text) bool {
		switch free := free || s.free; {
		case s.isUser(mentions):
			return s.equals(id)
		case !free && (s.name || slices.Contains(structure, s.member) || slices.Contains(fixed, s.member) ||
			strings.HasSuffix(s.member, "At")):
			return false
		}
		return Holds([]byte(s.raw.Exact()), id)
	})
}

// Replaced reports whether got is the JSON with an empty string in place of some values, as
// [Replace] and [Clear] leave them, whatever the ids were.
func Replaced(raw, got []byte) bool {
	done, same := 0, true // as far as raw was compared
	scan(raw, func(s text) bool {
		if got, same = bytes.CutPrefix(got, raw[done:s.begin]); !same {
			return false
		}
		rest, whole := bytes.CutPrefix(got, s.raw)
		if !whole {
			rest, same = bytes.CutPrefix(got, []byte(`""`))
			same = same && !s.name && !slices.Contains(structure, s.member)
		}
		got, done = rest, s.end
		return same
	})
	return same && bytes.Equal(raw[done:], got)
}

// emptied are the members of a comment that are its author's, and what takes their place.
var emptied = map[string]string{"body": "null", "attachments": "[]", "metadata": "{}"}

// ReplaceInThread does to the JSON of a thread what [Replace] does, and empties the comments of
// the user.
func ReplaceInThread(raw []byte, id string) []byte {
	thread, err := rawjson.Parse(raw)
	if err != nil {
		return nil
	}
	var out []byte
	done := 0
	for name, comments := range thread.Members() {
		if name != "comments" {
			continue
		}
		for comment := range comments.Elements() {
			if comment.Get("userId").Exact() != id {
				continue
			}
			for name, value := range comment.Members() {
				if with, ok := emptied[name]; ok {
					begin := cap(thread) - cap(value) // a value is a part of what it is in
					out = append(append(out, thread[done:begin]...), with...)
					done = begin + len(value)
				}
			}
		}
	}
	if out == nil {
		return Replace(raw, id)
	}
	return Replace(append(out, thread[done:]...), id) // at least that of the author
}

// text is a string of JSON.
type text struct {
	raw        rawjson.Value
	begin, end int
	// member is the name of the member that the string is in, or is if it is a name; of is
	// that of the member that the object is in, which begins at object.
	member, of string
	object     int
	name       bool
	// free means that it is in what applications define.
	free bool
}

// isUser reports whether the string is the id of a user, if it is any.
func (s text) isUser(mentions map[int]bool) bool {
	return s.name && s.of == accesses || !s.name && slices.Contains(users, s.member) ||
		s.member == "id" && (slices.Contains(persons, s.of) || mentions[s.object])
}

// mentioned returns where the objects begin that mention a user: those of the type mention
// that are of no other kind.
func mentioned(raw []byte) map[int]bool {
	found, others := make(map[int]bool), make(map[int]bool)
	scan(raw, func(s text) bool {
		switch {
		case s.name:
		case s.member == "type" && s.raw.Exact() == "mention":
			found[s.object] = true
		case s.member == "kind" && s.raw.Exact() != "user":
			others[s.object] = true
		}
		return true
	})
	maps.DeleteFunc(found, func(object int, _ bool) bool { return others[object] })
	return found
}

// equals reports whether the string is the id and may be one of a user.
func (s text) equals(id string) bool {
	switch {
	case s.name:
		return s.of == accesses && s.raw.Exact() == id && id != ""
	case len(s.raw) < len(id)+2: // escapes make it longer
		return false
	}
	return s.raw.Exact() == id && id != "" && !slices.Contains(structure, s.member)
}

// level is an object or array that is open.
type level struct {
	object     bool
	begin      int // of the object that it is, or is in
	of, member string
	free       bool
}

// defines reports whether what is in the level now is defined by applications.
func (l level) defines() bool { return l.free || slices.Contains(defined, l.member) }

// scan hands out the strings of the JSON until visit returns false; none of what is no JSON.
func scan(raw []byte, visit func(text) bool) {
	if !json.Valid(raw) {
		return
	}
	open := []level{{}}
	for i := 0; i < len(raw); i++ {
		top := &open[len(open)-1]
		switch raw[i] {
		case '{':
			open = append(open, level{object: true, begin: i, of: top.member, free: top.defines()})
		case '[':
			open = append(open, level{begin: top.begin, of: top.of, member: top.member, free: top.free})
		case '}', ']':
			open = open[:len(open)-1]
		case '"':
			end := i + 1
			for raw[end] != '"' {
				if raw[end] == '\\' {
					end++
				}
				end++
			}
			end++
			s := text{raw: rawjson.Value(raw[i:end]), begin: i, end: end, of: top.of, object: top.begin}
			rest := bytes.TrimLeft(raw[end:min(end+64, len(raw))], space)
			if len(rest) == 0 {
				rest = bytes.TrimLeft(raw[end:], space)
			}
			if s.name = top.object && len(rest) > 0 && rest[0] == ':'; s.name {
				top.member = s.raw.Exact()
			}
			s.member, s.free = top.member, top.free || !s.name && top.defines()
			if !visit(s) {
				return
			}
			i = end - 1
		}
	}
}

// maxDepth is how often JSON in strings of JSON is read.
const maxDepth = 8

// Occurs reports whether the id is anywhere in content of any form, also as a part of a longer
// word: as it is written, behind escapes of JSON or Markdown, or in JSON in strings of JSON.
func Occurs(content []byte, id string) bool {
	return occurs(content, id, func([]byte, int) bool { return true })
}

// Holds reports whether the id occurs as a word, not only as a part of a longer one: before and
// after it is no letter, digit or underscore.
func Holds(content []byte, id string) bool {
	first, _ := utf8.DecodeRuneInString(id)
	last, _ := utf8.DecodeLastRuneInString(id)
	return occurs(content, id, func(content []byte, at int) bool {
		before, _ := utf8.DecodeLastRune(content[:at])
		after, _ := utf8.DecodeRune(content[at+len(id):])
		longer := inWord(first) && inWord(before) || inWord(last) && inWord(after)
		return !longer
	})
}

func inWord(r rune) bool {
	return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r)
}

// occurs reports whether the id is somewhere in the content where it counts.
func occurs(content []byte, id string, counts func(content []byte, at int) bool) bool {
	if id == "" {
		return false
	}
	for range maxDepth {
		for from := 0; ; {
			at := bytes.Index(content[from:], []byte(id))
			if at < 0 {
				break
			}
			if counts(content, from+at) {
				return true
			}
			from += at + 1
		}
		plain := unescape(content)
		if plain == nil {
			return false
		}
		content = plain
	}
	return false
}

// unescape returns content without its backslashes; nil if it has none.
func unescape(content []byte) []byte {
	at := bytes.IndexByte(content, '\\')
	if at < 0 {
		return nil
	}
	out := make([]byte, 0, len(content))
	for ; at >= 0; at = bytes.IndexByte(content, '\\') {
		out, content = append(out, content[:at]...), content[at:]
		if r, n := rawjson.Escape(content); n > 0 {
			out, content = utf8.AppendRune(out, r), content[n:]
		} else {
			content = content[1:] // as Markdown has it
			if len(content) > 0 {
				out, content = append(out, content[0]), content[1:]
			}
		}
	}
	return append(out, content...)
}

package apijson

import "unicode/utf8"

// deepest is how deeply JSON may be nested, as in [encoding/json].
const deepest = 10000

// valid reports what [encoding/json.Valid] does, and that data is UTF-8. It takes less
// time, which for documents is most of what an answer costs.
func valid(data []byte) bool {
	s := scanner{data: data}
	s.space()
	return utf8.Valid(data) && s.value(0) && s.at == len(data)
}

// scanner is a position in JSON. Its methods move behind what they expect, and report
// whether it was there.
type scanner struct {
	data []byte
	at   int
}

// next returns the next byte, or 0 at the end.
func (s *scanner) next() byte {
	if s.at < len(s.data) {
		return s.data[s.at]
	}
	return 0
}

func (s *scanner) space() {
	for c := s.next(); c == ' ' || c == '\n' || c == '\t' || c == '\r'; c = s.next() {
		s.at++
	}
}

// one expects a byte and the spaces behind it.
func (s *scanner) one(c byte) bool {
	if s.next() != c {
		return false
	}
	s.at++
	s.space()
	return true
}

// value expects a value and the spaces behind it.
func (s *scanner) value(depth int) (ok bool) {
	switch c := s.next(); c {
	case '{':
		return depth < deepest && s.items('}', func() bool {
			return s.text() && s.one(':') && s.value(depth+1)
		})
	case '[':
		return depth < deepest && s.items(']', func() bool { return s.value(depth + 1) })
	case '"':
		return s.text()
	case 't':
		ok = s.word("true")
	case 'f':
		ok = s.word("false")
	case 'n':
		ok = s.word("null")
	default:
		ok = s.number()
	}
	s.space()
	return ok
}

// items expects items between commas, the byte at the end and the spaces behind it.
func (s *scanner) items(end byte, item func() bool) bool {
	s.at++
	s.space()
	if s.one(end) {
		return true
	}
	for item() {
		if !s.one(',') {
			return s.one(end)
		}
	}
	return false
}

func (s *scanner) word(word string) bool {
	if len(s.data)-s.at < len(word) || string(s.data[s.at:s.at+len(word)]) != word {
		return false
	}
	s.at += len(word)
	return true
}

// text expects a string and the spaces behind it.
func (s *scanner) text() bool {
	if s.next() != '"' {
		return false
	}
	for i := s.at + 1; i < len(s.data); i++ {
		switch c := s.data[i]; {
		case c == '"':
			s.at = i + 1
			s.space()
			return true
		case c < ' ':
			return false
		case c == '\\':
			i++
			if i == len(s.data) {
				return false
			}
			switch s.data[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if len(s.data)-i < 5 || !isHex(s.data[i+1:i+5]) {
					return false
				}
				i += 4
			default:
				return false
			}
		}
	}
	return false
}

func isHex(digits []byte) bool {
	for _, c := range digits {
		if (c < '0' || c > '9') && (c|' ' < 'a' || c|' ' > 'f') {
			return false
		}
	}
	return true
}

func (s *scanner) number() bool {
	if s.next() == '-' {
		s.at++
	}
	if s.next() == '0' {
		s.at++
	} else if !s.digits() {
		return false
	}
	if s.next() == '.' {
		s.at++
		if !s.digits() {
			return false
		}
	}
	if s.next()|' ' != 'e' {
		return true
	}
	s.at++
	if c := s.next(); c == '+' || c == '-' {
		s.at++
	}
	return s.digits()
}

func (s *scanner) digits() bool {
	begin := s.at
	for c := s.next(); c >= '0' && c <= '9'; c = s.next() {
		s.at++
	}
	return s.at > begin
}

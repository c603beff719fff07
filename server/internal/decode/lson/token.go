package lson

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
)

// space returns the next i that is not white space. White space is left out
// of the output.
func (s *scanner) space(i int) int {
	if i < len(s.src) && s.src[i] > ' ' {
		return i
	}
	return s.skipSpace(i)
}

// skipSpace is a separate function so that space can be inlined.
//
//go:noinline
func (s *scanner) skipSpace(i int) int {
	start := i
	for i < len(s.src) && isSpace(s.src[i]) {
		i++
	}
	if i > start {
		s.flush(start)
		s.from = i
	}
	return i
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

const (
	eachByte = 0x0101_0101_0101_0101
	highBits = 0x80 * eachByte
)

// specials returns a word whose lowest set bit is in the first byte of w, read
// in little-endian order, that is a quote, a backslash or a control character;
// zero if there is none. Higher bits mean nothing: a borrow may set them.
func specials(w uint64) uint64 {
	quote := w ^ '"'*eachByte
	backslash := w ^ '\\'*eachByte
	return ((quote-eachByte)&^quote | (backslash-eachByte)&^backslash | (w-' '*eachByte)&^w) & highBits
}

// text reads the string whose quote is at i and returns where it ends.
func (s *scanner) text(i int) (int, error) {
	src := s.src
	start := i
	i++
	var seen uint64 // every bit that is set in some byte of the string
	for {
		for len(src)-i >= 8 {
			w := binary.LittleEndian.Uint64(src[i:])
			if stop := specials(w); stop != 0 {
				n := bits.TrailingZeros64(stop) &^ 7
				seen |= w & (1<<n - 1)
				i += n >> 3
				break
			}
			seen |= w
			i += 8
		}
		for i < len(src) && src[i] >= ' ' && src[i] != '"' && src[i] != '\\' {
			seen |= uint64(src[i])
			i++
		}
		if i == len(src) {
			return i, syntax(i, "the document ends inside a string")
		}
		switch src[i] {
		case '"':
			if seen&highBits != 0 && !utf8.Valid(src[start:i]) {
				return i, syntax(start, "a string is not valid UTF-8")
			}
			return i + 1, nil
		case '\\':
			n := s.escape(src[i:])
			if n == 0 {
				return i, syntax(i, "unknown escape in a string")
			}
			i += n
		default:
			return i, syntax(i, "control character in a string")
		}
	}
}

// escape reads the escape sequence at the start of b, or the two of a surrogate
// pair, and returns the length; 0 if there is none.
func (s *scanner) escape(b []byte) int {
	r, n := rawjson.Escape(b)
	if n > 2 {
		s.props.HasNUL = s.props.HasNUL || r == 0
		s.props.HasLoneSurrogate = s.props.HasLoneSurrogate || utf16.IsSurrogate(r)
	}
	return n
}

// literal reads word at i and returns where it ends.
func (s *scanner) literal(i int, word string) (int, error) {
	end := i + len(word)
	if end > len(s.src) || string(s.src[i:end]) != word {
		return i, syntax(i, "not a value")
	}
	return end, nil
}

// number reads the number at i and returns where it ends.
func (s *scanner) number(i int) (int, error) {
	src, start := s.src, i
	if src[i] == '-' {
		i++
	}
	whole := i
	i = digits(src, i)
	if i == whole || src[whole] == '0' && i > whole+1 {
		return i, syntax(start, "not a value")
	}
	if i < len(src) && src[i] == '.' {
		fraction := i + 1
		if i = digits(src, fraction); i == fraction {
			return i, syntax(i, "no digit after the decimal point")
		}
	}
	if i < len(src) && src[i]|0x20 == 'e' {
		i++
		if i < len(src) && (src[i] == '+' || src[i] == '-') {
			i++
		}
		exponent := i
		if i = digits(src, exponent); i == exponent {
			return i, syntax(i, "no digit in the exponent")
		}
	}
	return i, nil
}

// digits returns the end of the run of digits at i.
func digits(src []byte, i int) int {
	for i < len(src) && isDigit(src[i]) {
		i++
	}
	return i
}

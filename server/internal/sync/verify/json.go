package verify

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
)

// sameValue reports whether the JSON that an engine returns is equal to the
// document. Engines spell numbers in their own way, and some store them as doubles.
func sameValue(doc, stored []byte) bool {
	a, oka := rawjson.Canonical(doc)
	b, okb := rawjson.Canonical(stored)
	if !oka || !okb {
		return false
	}
	i, j := 0, 0
	for i < len(a) && j < len(b) {
		switch {
		case startsNumber(a[i]) && startsNumber(b[j]):
			x, y := numberAt(a[i:]), numberAt(b[j:])
			if !sameNumber(x, y) {
				return false
			}
			i, j = i+len(x), j+len(y)
		case a[i] != b[j]:
			return false
		case a[i] == '"':
			n := stringEnd(a[i:])
			if !bytes.HasPrefix(b[j:], a[i:i+n]) {
				return false
			}
			i, j = i+n, j+n
		default:
			i, j = i+1, j+1
		}
	}
	return i == len(a) && j == len(b)
}

func startsNumber(c byte) bool { return c == '-' || '0' <= c && c <= '9' }

func numberAt(b []byte) string {
	n := 1
	for n < len(b) && (startsNumber(b[n]) || b[n] == '+' || b[n] == '.' || b[n] == 'e' || b[n] == 'E') {
		n++
	}
	return string(b[:n])
}

// stringEnd returns the length of the string at the start of b.
func stringEnd(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// sameNumber reports whether stored is n or the double nearest to it.
func sameNumber(n, stored string) bool {
	if n == stored {
		return true
	}
	want := decimal(stored)
	if decimal(n) == want {
		return true
	}
	f, err := strconv.ParseFloat(n, 64)
	return err == nil && decimal(strconv.FormatFloat(f, 'e', -1, 64)) == want
}

// decimal is a number: its digits without surrounding zeros, and the power of ten
// of the last digit.
func decimal(n string) string {
	sign := ""
	if rest, ok := strings.CutPrefix(n, "-"); ok {
		sign, n = "-", rest
	}
	n, exponent, _ := strings.Cut(strings.ToLower(n), "e")
	power, err := strconv.ParseInt("0"+strings.TrimLeft(exponent, "+-"), 10, 32)
	if err != nil {
		return sign + n + "e" + exponent
	}
	if strings.HasPrefix(exponent, "-") {
		power = -power
	}
	whole, fraction, _ := strings.Cut(n, ".")
	digits := strings.TrimLeft(whole+fraction, "0")
	power -= int64(len(fraction))
	short := strings.TrimRight(digits, "0")
	if short == "" {
		return "0"
	}
	return sign + short + "e" + strconv.FormatInt(power+int64(len(digits)-len(short)), 10)
}

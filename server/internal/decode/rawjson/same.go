package rawjson

import (
	"bytes"
	"strconv"
	"strings"
)

// Canonical returns a document in the one form that all its spellings share; ok
// is false if it is no JSON.
func Canonical(doc []byte) (canonical []byte, ok bool) {
	v, err := Parse(doc)
	if err != nil {
		return nil, false
	}
	return v.AppendCanonical(make([]byte, 0, len(v))), true
}

// Same reports whether two documents say the same.
func Same(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	ca, oka := Canonical(a)
	cb, okb := Canonical(b)
	return oka && okb && bytes.Equal(ca, cb)
}

// SameStored reports whether the JSON that an engine returns is equal to the
// document. Engines spell numbers in their own way, and some store them as doubles.
func SameStored(doc, stored []byte) bool {
	a, oka := Canonical(doc)
	b, okb := Canonical(stored)
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
			n := skipValue(a, i) - i
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

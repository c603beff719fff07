package rawjson

import "bytes"

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

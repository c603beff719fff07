package apijson

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func checkValid(t *testing.T, data string) {
	t.Helper()
	if got, want := valid([]byte(data)), json.Valid([]byte(data)) && utf8.ValidString(data); got != want {
		t.Errorf("valid(%.100q) = %v; want %v", data, got, want)
	}
}

var samples = []string{
	`{"a":[1,-2.5e+10,true,false,null,"x\"\\\/\b\f\n\r\t\u00e9"], "b" : {} , "c":[ ] }`,
	"", " ", "null", " 0 ", "-0.0E-1", `"é` + "\U0001f469" + `"`, "[[],{}]", "\ufeff{}", `{"a":{"a":{"a":[[1],[2]]}}}`,
	strings.Repeat("[", deepest) + strings.Repeat("]", deepest),
	strings.Repeat("[", deepest+1) + strings.Repeat("]", deepest+1),
	strings.Repeat(`{"a":`, deepest-1) + "1" + strings.Repeat("}", deepest-1),
	strings.Repeat(`{"a":`, deepest+1) + "1" + strings.Repeat("}", deepest+1),
}

// Each sample with every byte left out, doubled, or another one in its place.
func TestValid(t *testing.T) {
	t.Parallel()
	for _, sample := range samples {
		checkValid(t, sample)
		if len(sample) > 1000 {
			continue
		}
		for i := range len(sample) {
			checkValid(t, sample[:i])
			checkValid(t, sample[:i]+sample[i+1:])
			checkValid(t, sample[:i+1]+sample[i:])
			for _, c := range []byte("{}[]:,\"\\0159.-+eEutrfnlasGg/ \n\t\r\v\x00\x1f\x7f\x80\xff'") {
				checkValid(t, sample[:i]+string([]byte{c})+sample[i+1:])
			}
		}
	}
}

func FuzzValid(f *testing.F) {
	for _, sample := range samples {
		f.Add(sample)
	}
	f.Fuzz(checkValid)
}

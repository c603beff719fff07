package verify

import "testing"

// Engines spell numbers in their own ways, and some keep them as doubles.
func TestSameValue(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		doc, stored string
		want        bool
	}{
		{`{"n":[1,2.5]}`, `{"n": [1, 2.5]}`, true},
		{`1e2`, `100`, true},
		{`1.0`, `1`, true},
		{`1.50`, `1.5`, true},
		{`100`, `1E+2`, true},
		{`-0`, `0`, true},
		{`0.000001`, `1e-06`, true},
		{`1e400`, `1` + zeros(400), true},
		{`9007199254740993`, `9007199254740993`, true},
		{`9007199254740993`, `9007199254740992`, true}, // as a double
		{`9007199254740993`, `9007199254740994`, false},
		{`123456789012345678901234567890`, `1.2345678901234568e29`, true}, // as a double
		{`0.1`, `0.10000000000000001`, false},                             // nobody spells it so
		{`1`, `2`, false},
		{`1`, `-1`, false},
		{`10`, `1`, false},
		{`12`, `1`, false},
		{`"1"`, `1`, false},
		{`"1e2"`, `"100"`, false},
		{`{"1e2":1}`, `{"100":1}`, false},
		{`[1,2]`, `[12]`, false},
		{`"a\"1"`, `"a\"1"`, true},
		{`"a\"1"`, `"a\"2"`, false},
		{`{"a":1}`, `no JSON`, false},
		{`1e99999999999`, `1e99999999999`, true},
		{`1e99999999999`, `1e99999999998`, false},
	} {
		if got := sameValue([]byte(c.doc), []byte(c.stored)); got != c.want {
			t.Errorf("sameValue(%.40s, %.40s) = %t; want %t", c.doc, c.stored, got, c.want)
		}
	}
}

func zeros(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = '0'
	}
	return string(b)
}

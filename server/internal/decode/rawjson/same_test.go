package rawjson_test

import (
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/rawjson"
)

func TestSame(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{`{"a":1,"b":[1,2]}`, ` { "b" : [1, 2], "a" : 1 } `, true},
		{`{"a":"\u00e9"}`, `{"a":"é"}`, true},
		{`{"a":1}`, `{"a":2}`, false},
		{`{"a":1}`, `{"a":1,"b":null}`, false},
		{`[1,2]`, `[2,1]`, false},
		{`{"a":"\ud800"}`, `{"a":"\ud801"}`, false},
		{`{"a":9007199254740993}`, `{"a":9007199254740992}`, false},
		{`no JSON`, `no JSON`, true},
		{`no JSON`, `{}`, false},
	} {
		if got := rawjson.Same([]byte(c.a), []byte(c.b)); got != c.want {
			t.Errorf("Same(%s, %s) = %t; want %t", c.a, c.b, got, c.want)
		}
	}
}

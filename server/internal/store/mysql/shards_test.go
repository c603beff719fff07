package mysql

import "testing"

func TestSeveralShards(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		keyspace string
		shards   []string
		want     bool
	}{
		{"mirror", []string{"mirror/0"}, false},
		{"mirror", []string{"mirror/-"}, false},
		{"mirror", []string{"mirror/-80", "mirror/80-"}, true},
		{"mirror@primary", []string{"mirror/-80", "mirror/80-"}, true},
		{"mirror", []string{"mirror/0", "other/-80", "other/80-"}, false},
		{"other", []string{"mirror/0", "other/-80", "other/80-"}, true},
		{"mirror:-80", []string{"mirror/-80", "mirror/80-"}, false},
		{"renamed", []string{"mirror/0", "other/0"}, false},
		{"renamed", []string{"mirror/0", "other/-80", "other/80-"}, true},
		{"mirror", nil, true},
	} {
		if got := severalShards(c.keyspace, c.shards); got != c.want {
			t.Errorf("severalShards(%q, %q) = %t; want %t", c.keyspace, c.shards, got, c.want)
		}
	}
}

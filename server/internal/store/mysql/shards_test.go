package mysql

import (
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
)

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

// A transaction that would span shards is refused, whatever the server allows.
func TestTransactionsKeepToOneShard(t *testing.T) {
	t.Parallel()
	mysqltest.Need(t, mysqltest.ManyShards)
	c, err := newConnector(mysqltest.Take(t, false) + "?transaction_mode='multi'")
	if err != nil {
		t.Fatalf("newConnector = %v", err)
	}
	db := openPool(c, 1)
	t.Cleanup(func() { _ = db.Close() })
	var mode string
	if err := db.QueryRowContext(t.Context(), "select @@transaction_mode").Scan(&mode); err != nil || mode != "SINGLE" {
		t.Fatalf("mode of transactions = %q, %v; want SINGLE", mode, err)
	}
}

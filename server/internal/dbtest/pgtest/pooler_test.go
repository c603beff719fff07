package pgtest_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/pgtest"
)

func TestPoolerHandsConnectionsRound(t *testing.T) {
	t.Parallel()
	p := pgtest.StartPooler(t, pgtest.Database(t), pgtest.PoolerPort)
	// More sessions than the pooler has connections: in transaction mode they all
	// get their turn.
	backends := make(map[int32]bool)
	conns := make([]*pgx.Conn, 2*pgtest.PoolerSize)
	for i := range conns {
		cfg, err := pgx.ParseConfig(p.URL)
		if err != nil {
			t.Fatalf("ParseConfig = %v", err)
		}
		cfg.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
		if conns[i], err = pgx.ConnectConfig(t.Context(), cfg); err != nil {
			t.Fatalf("ConnectConfig = %v", err)
		}
		defer func() { _ = conns[i].Close(t.Context()) }()
		var pid int32
		if err := conns[i].QueryRow(t.Context(), "select pg_backend_pid()").Scan(&pid); err != nil {
			t.Fatalf("pg_backend_pid = %v", err)
		}
		backends[pid] = true
	}
	if len(backends) > pgtest.PoolerSize {
		t.Fatalf("%d sessions had %d connections to the server; want at most %d", len(conns), len(backends),
			pgtest.PoolerSize)
	}
	if n := p.Transactions(t); n < int64(len(conns)) {
		t.Fatalf("Transactions = %d; want at least %d\n%s", n, len(conns), p.Log())
	}
}

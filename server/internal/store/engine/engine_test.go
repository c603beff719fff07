package engine_test

import (
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres"
)

func TestURLChoosesTheEngine(t *testing.T) {
	t.Parallel()
	for url, wantPostgres := range map[string]bool{
		"postgres://u:p@127.0.0.1:1/db":      true,
		"postgresql://u:p@127.0.0.1:1/db":    true,
		"mysql://u:p@127.0.0.1:1/db":         false,
		"u:p@tcp(127.0.0.1:1)/db?timeout=1s": false,
		// As other languages write them.
		"postgresql+psycopg://u:p@127.0.0.1:1/db":     true,
		"postgresql+asyncpg://u:p@127.0.0.1:1/db":     true,
		"pgsql://u:p@127.0.0.1:1/db":                  true,
		"jdbc:postgresql://127.0.0.1:1/db?user=u":     true,
		"mysql+pymysql://u:p@127.0.0.1:1/db":          false,
		"mysql2://u:p@127.0.0.1:1/db":                 false,
		"mariadb://u:p@127.0.0.1:1/db":                false,
		"jdbc:mysql://u:p@127.0.0.1:1/db?useSSL=true": false,
	} {
		s, err := engine.Open(t.Context(), engine.Config{URL: url, MaxConns: 2})
		if err != nil {
			t.Fatalf("Open(%s) = %v", url, err)
		}
		_, isPostgres := s.(*postgres.Store)
		_, isMySQL := s.(*mysql.Store)
		if isPostgres != wantPostgres || isMySQL == wantPostgres {
			t.Errorf("Open(%s) = %T; want Postgres: %t", url, s, wantPostgres)
		}
		s.Close()
	}
	for _, url := range []string{"postgres://%", "mysql://%", "nonsense"} {
		if s, err := engine.Open(t.Context(), engine.Config{URL: url, MaxConns: 2}); err == nil || s != nil {
			t.Errorf("Open(%s) = %v, %v; want an error and nothing else", url, s, err)
		}
	}
}

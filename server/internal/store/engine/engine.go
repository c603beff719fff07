// Package engine selects the SQL engine by the URL of the database.
package engine

import (
	"context"
	"log/slog"
	"strings"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres"
)

// Config says how to reach the database.
type Config struct {
	// URL starts with postgres:// or postgresql:// for Postgres. Anything else is
	// for MySQL: a mysql:// URL or a DSN of the Go driver.
	URL string
	// Pooled means that URL goes through a pooler in transaction mode. Only
	// Postgres uses it.
	Pooled bool
	// MaxConns limits the open connections. Required.
	MaxConns int
}

// IsPostgres reports whether a database URL is for Postgres.
func IsPostgres(url string) bool {
	return strings.HasPrefix(url, "postgres://") || strings.HasPrefix(url, "postgresql://")
}

// Open prepares the connections. It does not wait for the database.
func Open(ctx context.Context, cfg Config) (store.Store, error) {
	if IsPostgres(cfg.URL) {
		s, err := postgres.Open(ctx, postgres.Config{URL: cfg.URL, Pooled: cfg.Pooled, MaxConns: cfg.MaxConns})
		if err != nil {
			return nil, err
		}
		return s, nil
	}
	s, err := mysql.Open(ctx, mysql.Config{URL: cfg.URL, MaxConns: cfg.MaxConns})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Migrate migrates the schema to the version that this binary needs.
func Migrate(ctx context.Context, url string, log *slog.Logger) error {
	if IsPostgres(url) {
		return postgres.Migrate(ctx, url, log)
	}
	return mysql.Migrate(ctx, url, log)
}

// MySQLMigrations returns the statements that Migrate would run on an empty MySQL
// database.
func MySQLMigrations() string { return mysql.MigrationSQL() }

// Package engine chooses the SQL engine by the URL of the database.
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
	// URL begins with postgres:// or postgresql:// for Postgres. Anything else is
	// MySQL's: a mysql:// URL or a DSN of the Go driver.
	URL string
	// Pooled says that URL leads through a pooler in transaction mode. Only
	// Postgres needs to know.
	Pooled bool
	// MaxConns limits the open connections. Required.
	MaxConns int
}

// IsPostgres reports whether a database URL is one of Postgres.
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

// Migrate brings the schema up to what this binary needs.
func Migrate(ctx context.Context, url string, log *slog.Logger) error {
	if IsPostgres(url) {
		return postgres.Migrate(ctx, url, log)
	}
	return mysql.Migrate(ctx, url, log)
}

// MySQLMigrations returns what Migrate would do to an empty MySQL database.
func MySQLMigrations() string { return mysql.MigrationSQL() }

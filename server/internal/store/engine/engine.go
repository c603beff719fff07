// Package engine selects the SQL engine by the URL of the database.
package engine

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres"
)

// Config says how to reach the database.
type Config struct {
	// URL starts with postgres://, or another scheme of Postgres' clients, for
	// Postgres. Anything else is for MySQL: a mysql:// URL or a DSN of the Go driver.
	URL string
	// Pooled means that URL goes through a pooler in transaction mode. Only
	// Postgres uses it.
	Pooled bool
	// MaxConns limits the open connections. Required.
	MaxConns int
	// ReadTimeout limits the time of a statement that only reads, also on the server;
	// zero means no limit. A deadline of the caller does so too.
	ReadTimeout time.Duration
	// Sharded makes every transaction keep to one bucket, as it does on a sharded server.
	// Only MySQL uses it, and only tests set it.
	Sharded bool
}

// schemes are the schemes of database URLs, with those that clients of other
// languages use for the same servers.
var schemes = map[string]string{
	"postgres": "postgres", "postgresql": "postgres", "pgsql": "postgres", "postgis": "postgres",
	"mysql": "mysql", "mysql2": "mysql", "mariadb": "mysql",
}

// normal returns a URL with the scheme of its engine. A URL without a scheme, such as
// a DSN of the Go driver, is returned as it is.
func normal(url string) string {
	bare := strings.TrimPrefix(url, "jdbc:")
	scheme, rest, ok := strings.Cut(bare, "://")
	if !ok {
		return url
	}
	name, _, _ := strings.Cut(scheme, "+") // the driver, as in postgresql+psycopg
	if known, ok := schemes[strings.ToLower(name)]; ok {
		return known + "://" + rest
	}
	return url
}

// IsPostgres reports whether a database URL is for Postgres.
func IsPostgres(url string) bool { return strings.HasPrefix(normal(url), "postgres://") }

// Known reports whether a URL has the scheme of a database.
func Known(url string) bool {
	scheme, _, ok := strings.Cut(normal(url), "://")
	return ok && schemes[scheme] == scheme
}

// CheckURL reports what is wrong with a database URL, as far as that can be seen from
// it. Its errors never repeat the URL, which holds the password.
func CheckURL(url string) error {
	if IsPostgres(url) {
		return postgres.CheckURL(normal(url))
	}
	return mysql.CheckURL(normal(url))
}

// Open prepares the connections. It does not wait for the database.
func Open(ctx context.Context, cfg Config) (store.Store, error) {
	if IsPostgres(cfg.URL) {
		s, err := postgres.Open(ctx, postgres.Config{
			URL: normal(cfg.URL), Pooled: cfg.Pooled, MaxConns: cfg.MaxConns, ReadTimeout: cfg.ReadTimeout,
		})
		if err != nil {
			return nil, err
		}
		return s, nil
	}
	s, err := mysql.Open(ctx, mysql.Config{
		URL: normal(cfg.URL), MaxConns: cfg.MaxConns, ReadTimeout: cfg.ReadTimeout, Sharded: cfg.Sharded,
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// WithSchema returns a PostgreSQL URL whose tables are in a schema.
func WithSchema(url, schema string) string { return postgres.WithSchema(url, schema) }

// Migrate migrates the schema to the version that this binary needs. It warns of roles that
// have rights on the tables, except those in expected. What earlier versions have written is
// indexed by [Index].
func Migrate(ctx context.Context, url string, log *slog.Logger, expected ...string) error {
	if IsPostgres(url) {
		return postgres.Migrate(ctx, normal(url), log, expected...)
	}
	return mysql.Migrate(ctx, normal(url), log)
}

// progressInterval is the time between two lines about what is indexed.
const progressInterval = 10 * time.Second

// Index indexes the rooms and threads of all projects that are not. It can be cut off at any
// time, and nothing but lists needs it: the next one, or the next sweep of each project, goes
// on.
func Index(ctx context.Context, s store.Indexer, log *slog.Logger) error {
	begun := time.Now()
	told := begun
	n, err := store.IndexAll(ctx, s, "", func(n store.Indexed) {
		if time.Since(told) >= progressInterval {
			told = time.Now()
			log.InfoContext(ctx, "indexing rooms and threads for lists", slog.Int("rooms", n.Rooms),
				slog.Int("threads", n.Threads))
		}
	})
	if err != nil {
		return fmt.Errorf("index rooms and threads: %w", err)
	}
	if n != (store.Indexed{}) {
		log.InfoContext(ctx, "rooms and threads indexed for lists", slog.Int("rooms", n.Rooms),
			slog.Int("threads", n.Threads), slog.Duration("took", time.Since(begun)))
	}
	return nil
}

// Migrations returns the statements that Migrate would run on an empty database: a
// PostgreSQL one if the URL names one, otherwise a MySQL one. It connects to nothing.
func Migrations(url string) string {
	if url != "" && IsPostgres(url) {
		return postgres.MigrationSQL(normal(url))
	}
	return mysql.MigrationSQL()
}

// VSchema returns the VSchema of a sharded keyspace of Vitess.
func VSchema() string { return mysql.VSchema() }

// Grants returns the statements that make roles with least rights, for PostgreSQL if the
// URL is, otherwise for MySQL. It connects to nothing.
func Grants(url string, roles store.Roles) (string, error) {
	if url != "" && IsPostgres(url) {
		return postgres.GrantSQL(normal(url), roles)
	}
	return mysql.GrantSQL(normal(url), roles)
}

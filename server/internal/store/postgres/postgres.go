// Package postgres is the engine for PostgreSQL 14 and newer and for compatible
// services. Package store documents the contract of each method.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/internal/sqllist"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/pack"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

var _ store.Store = (*Store)(nil)

// Config says how to reach the database.
type Config struct {
	// URL is a postgres:// URL or a keyword/value string. It may go through a
	// connection pooler.
	URL string
	// Pooled means that URL goes through a pooler in transaction mode, which cannot
	// keep prepared statements. Common poolers are detected by host name or port.
	Pooled bool
	// MaxConns limits the open connections. Required.
	MaxConns int
	// ReadTimeout limits the time of a read; zero means no limit.
	ReadTimeout time.Duration
}

// connectTimeout limits one attempt to connect. A suspended Neon compute wakes in
// well under a second; ten seconds allow for a cold region.
const connectTimeout = 10 * time.Second

// maxConns bounds the connections, whatever is configured.
const maxConns = 10_000

// Store is the engine.
type Store struct {
	*sqllist.Reader

	pool *pgxpool.Pool
	q    *dbq.Queries
	// The pools of the uses that have connections of their own; see store.Shares. The
	// others are pool.
	accepting, renewing, reading *pgxpool.Pool

	sessions *sessions
	pack     *pack.Codec
	// searchPath and schema are those that the URL asks for; empty if it does not.
	searchPath, schema string
	names              *names
}

// Open prepares the connections. It does not wait for the database: the first
// use connects.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	to, err := configOf(cfg.URL)
	if err != nil {
		return nil, err
	}
	pc, err := pgxpool.ParseConfig(to.url)
	if err != nil {
		return nil, errors.New("the database URL cannot be read") // the cause repeats the URL, password included
	}
	// Idle connections are closed, so they do not occupy the server's slots.
	pc.MaxConnIdleTime = 5 * time.Minute
	pc.ConnConfig.ConnectTimeout = connectTimeout
	all := &sessions{}
	all.pooled.Store(cfg.Pooled || to.pooled || behindPooler(pc.ConnConfig))
	pc.BeforeConnect, pc.AfterConnect = all.beforeConnect, all.afterConnect(to.searchPath)
	pc.ConnConfig.Tracer = tracer{}
	pc.ConnConfig.OnPgError, pc.ShouldPing = all.usable, shouldPing
	if pc.ConnConfig.RuntimeParams["application_name"] == "" {
		pc.ConnConfig.RuntimeParams["application_name"] = "liveblocks-mirror"
	}
	pc.ConnConfig.RuntimeParams["timezone"] = "UTC"
	pc.ConnConfig.RuntimeParams["client_encoding"] = "UTF8"
	z, err := pack.New()
	if err != nil {
		return nil, err
	}
	opened := &Store{
		sessions: all, pack: z, searchPath: to.searchPath, schema: to.schema, names: namesIn(to.schema),
	}
	if err := opened.connect(ctx, pc, cfg.MaxConns); err != nil {
		opened.Close()
		return nil, fmt.Errorf("open database: %w", err)
	}
	opened.Reader = sqllist.NewReader(lists, rowsOf(opened.names.on(opened.reading)), classify, z, cfg.ReadTimeout)
	return opened, nil
}

// connect makes the pools.
func (s *Store) connect(ctx context.Context, pc *pgxpool.Config, conns int) (err error) {
	shares := store.ShareConns(min(conns, maxConns))
	for _, p := range []struct {
		pool  **pgxpool.Pool
		conns int
	}{{&s.pool, shares.Work}, {&s.accepting, shares.Accept}, {&s.renewing, shares.Renew}, {&s.reading, shares.Read}} {
		if p.conns == 0 {
			*p.pool = s.pool
			continue
		}
		pc := pc.Copy()
		pc.MaxConns = int32(p.conns) //nolint:gosec // bounded
		if *p.pool, err = pgxpool.NewWithConfig(ctx, pc); err != nil {
			return err
		}
	}
	s.q = dbq.New(s.names.on(s.pool))
	s.sessions.of(s.pool, s.accepting, s.renewing, s.reading)
	return nil
}

// behindPooler detects the poolers of Neon and Supabase and PgBouncer's default
// port. Prepared statements fail behind a pooler that may use another connection
// for each transaction; only described types can be cached.
func behindPooler(c *pgx.ConnConfig) bool {
	return strings.Contains(c.Host, "-pooler.") || c.Port == 6432 || c.Port == 6543
}

// Pools describes the pools of connections.
func (s *Store) Pools() (list []store.Pool) {
	for _, p := range []struct {
		use  string
		pool *pgxpool.Pool
	}{{"work", s.pool}, {"accept", s.accepting}, {"renew", s.renewing}, {"read", s.reading}} {
		if p.pool == s.pool && p.use != "work" {
			continue
		}
		stat := p.pool.Stat()
		list = append(list, store.Pool{
			Use: p.use, Max: int(stat.MaxConns()), InUse: int(stat.AcquiredConns()), Idle: int(stat.IdleConns()),
			Waits: stat.EmptyAcquireCount(), Waited: stat.EmptyAcquireWaitTime(),
		})
	}
	return list
}

// Close ends all connections.
func (s *Store) Close() {
	for _, pool := range []*pgxpool.Pool{s.reading, s.renewing, s.accepting, s.pool} {
		if pool != nil { // as long as Open fails
			pool.Close()
		}
	}
	s.pack.Close()
}

// Ping reads the schema version, which proves that the database answers and has the
// schema that this binary needs, and checks that the server takes writes. It uses
// the connections of Accept, which are what deliveries depend on.
func (s *Store) Ping(ctx context.Context) error {
	var behind, readOnly bool
	err := retry(ctx, func() (err error) {
		behind, readOnly, err = schemaBehind(ctx, s.names.on(s.accepting))
		return err
	})
	switch {
	case err != nil:
		return classify(ctx, fmt.Errorf("ping: %w", err))
	case behind:
		return store.ErrSchemaBehind
	case readOnly:
		s.sessions.reset()
		return errReadOnly(errors.New("ping: the session is read-only"))
	}
	return nil
}

// Engine returns the server's name and version.
func (s *Store) Engine(ctx context.Context) (string, error) {
	var version string
	if err := s.pool.QueryRow(ctx, "show server_version").Scan(&version); err != nil {
		return "", classify(ctx, fmt.Errorf("read server version: %w", err))
	}
	return "PostgreSQL " + version, nil
}

// txAttempts is the maximum number of runs of one transaction. Each retry means
// that another transaction succeeded, so five in a row indicate a problem.
const txAttempts = 5

// retry runs f, a whole transaction, again as long as it fails transiently. Once, it
// also does so if only the session was at fault: f then runs in a new one.
func retry(ctx context.Context, f func() error) error {
	for attempt, old := 1, true; ; attempt++ {
		err := f()
		again := transient(err)
		if old && sessionAtFault(err) {
			again, old = true, false
		}
		if err == nil || attempt == txAttempts || !again {
			return err
		}
		if clock.Sleep(ctx, time.Duration(attempt)*5*time.Millisecond) != nil {
			return err
		}
		if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
			store.CountRetry(pg.Code)
		} else {
			store.CountRetry("session")
		}
	}
}

// transient reports whether the transaction failed only because of another one, by a
// serialization failure or a deadlock, or before a pooler was recognised.
func transient(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pg.Code == "40001" || pg.Code == "40P01" || forgotten(pg.Code))
}

// refused reports whether the server will never accept the values: class 22 is a
// data exception, 54 a program limit.
func refused(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (strings.HasPrefix(pg.Code, "22") || strings.HasPrefix(pg.Code, "54"))
}

// classify converts an error of the driver to one of the contract. An error about
// the statement itself is returned unchanged: it is a defect, and waiting does not
// help.
func classify(ctx context.Context, err error) error {
	switch {
	case err == nil, ctx.Err() != nil:
		return err
	case errors.Is(err, store.ErrLeaseLost), errors.Is(err, store.ErrEpochChanged),
		errors.Is(err, store.ErrCopyChanged), errors.Is(err, store.ErrNotDue), errors.Is(err, store.ErrNotFound):
		return err
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("%w: %w", store.ErrNotFound, err)
	}
	// Whatever the code of a refused connection, such as one for a rotated
	// password, no statement was at fault.
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		if isCode(err, startingCode) {
			err = fmt.Errorf("%w: %w", store.ErrStarting, err)
		}
		return fault.Wrap(connectHint(err), fault.Unavailable, fault.ReasonStoreUnavailable, "the database is not available")
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch {
		case pg.Code == readOnlyCode:
			return errReadOnly(err)
		case forgotten(pg.Code):
			return fault.Wrap(err, fault.Unavailable, fault.ReasonStoreUnavailable,
				"the database is behind a pooler in transaction mode; set MIRROR_DATABASE_POOLED=true")
		case pg.Code == "42501":
			return fault.Wrap(err, fault.Unavailable, fault.ReasonStoreUnavailable,
				"the database role lacks a right on a table; start the service again to see which")
		}
		switch class := pg.Code[:min(2, len(pg.Code))]; {
		case pg.Code == "42P01", pg.Code == "42703": // no such table or column
			return fault.Wrap(fmt.Errorf("%w: %w", store.ErrSchemaBehind, err), fault.Unavailable, fault.ReasonSchemaBehind,
				"the database schema is older than this version needs; run liveblocks-mirror migrate")
		case !slices.Contains([]string{"08", "25", "40", "53", "55", "57", "58"}, class):
			// Not connection, read-only, rollback, resources, not ready, shutdown or system.
			return err
		}
	}
	return fault.Wrap(err, fault.Unavailable, fault.ReasonStoreUnavailable, "the database is not available")
}

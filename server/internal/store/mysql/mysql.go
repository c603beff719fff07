// Package mysql is the engine for MySQL 8, MariaDB 10.6 and newer and services
// that speak their protocol, such as PlanetScale. What each method owes is said
// in package store.
//
// It keeps to what MySQL, MariaDB and Vitess have in common; a test refuses the
// words that only some of them know. Nothing is returned by a write there, so
// what Postgres does in one statement is a transaction of a few here.
package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	gomysql "github.com/go-sql-driver/mysql"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/internal/sqllist"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql/dbq"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/pack"
)

var _ store.Store = (*Store)(nil)

// Config says how to reach the database.
type Config struct {
	// URL is a mysql:// URL or a DSN of the Go driver. Settings in it that would
	// alter what a statement means are overruled.
	URL string
	// MaxConns limits the open connections. Required.
	MaxConns int
}

// Connections are given back when nobody uses them, so that they do not keep a
// server's slots, and are replaced long before the day after which PlanetScale
// ends them.
const (
	connectTimeout = 10 * time.Second
	connIdleTime   = 5 * time.Minute
	connLifetime   = 30 * time.Minute
	// undoTimeout bounds a rollback, which does not heed the caller's patience: it
	// has run out as often as not.
	undoTimeout = 2 * time.Second
)

// Store is the engine.
type Store struct {
	*sqllist.Reader

	db        *sql.DB
	q         *queries
	pack      *pack.Codec
	connector *connector
}

// queries are all statements: those that sqlc made, and those of build.go.
type queries struct {
	*dbq.Queries

	db dbq.DBTX
}

// Open prepares the connections. It does not wait for the database: the first
// use connects.
func Open(_ context.Context, cfg Config) (*Store, error) {
	c, err := newConnector(cfg.URL)
	if err != nil {
		return nil, err
	}
	p, err := pack.New()
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(cfg.MaxConns)
	db.SetMaxIdleConns(cfg.MaxConns)
	db.SetConnMaxIdleTime(connIdleTime)
	db.SetConnMaxLifetime(connLifetime)
	q := &queries{dbq.New(db), db}
	reader := sqllist.NewReader(lists, q.rows, classify, p)
	return &Store{Reader: reader, db: db, q: q, pack: p, connector: c}, nil
}

// connector makes connections on which statements mean what they should,
// whatever the server's defaults are.
type connector struct {
	driver.Connector

	// maxPacket is the server's max_allowed_packet in bytes; 0 before the first
	// connection.
	maxPacket atomic.Int64
}

func newConnector(url string) (*connector, error) {
	cfg, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	c, err := gomysql.NewConnector(cfg)
	if err != nil {
		return nil, errors.New("the database URL cannot be used") // the cause may repeat parts of it
	}
	return &connector{Connector: c}, nil
}

// connectError says that no connection could be had, whatever code the server
// gave for a reason: no statement was at fault.
type connectError struct{ err error }

func (e connectError) Error() string { return "connect: " + e.err.Error() }

func (e connectError) Unwrap() error { return e.err }

// Connect opens a connection and prepares its session.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, connectError{err}
	}
	s, err := newSession(conn)
	if err == nil {
		err = c.prepare(ctx, s)
	}
	if err != nil {
		return nil, connectError{errors.Join(err, conn.Close())}
	}
	return s, nil
}

func (c *connector) prepare(ctx context.Context, s *session) error {
	// Enough for us, because rows are locked before they are read, and all there
	// is on Galera's nodes. It takes no locks on gaps, over which inserts would
	// trip. Not a variable in the URL: its name differs between servers.
	if _, err := s.ExecContext(ctx, "set session transaction isolation level read committed", nil); err != nil {
		return fmt.Errorf("set isolation level: %w", err)
	}
	packet, err := variable(ctx, s, "max_allowed_packet")
	if err != nil {
		return fmt.Errorf("read max_allowed_packet: %w", err)
	}
	n, err := strconv.ParseInt(packet, 10, 64)
	if err != nil {
		return fmt.Errorf("read max_allowed_packet: %w", err)
	}
	c.maxPacket.Store(n)
	on, err := variable(ctx, s, "wsrep_on")
	switch number(err) {
	case 1193, 1105, 1235: // unknown: this is no Galera
		return nil
	}
	if err != nil {
		return fmt.Errorf("read wsrep_on: %w", err)
	}
	if on == "1" {
		// On Galera a node may answer with what was before another node's commit.
		// This makes reads and writes wait for what the cluster has committed.
		if _, err := s.ExecContext(ctx, "set session wsrep_sync_wait = 7", nil); err != nil {
			return fmt.Errorf("ask for consistent reads: %w", err)
		}
	}
	return nil
}

// variable reads a variable of the session.
func variable(ctx context.Context, q driver.QueryerContext, name string) (_ string, err error) {
	rows, err := q.QueryContext(ctx, "select @@"+name, nil)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	row := make([]driver.Value, len(rows.Columns()))
	if err := rows.Next(row); err != nil {
		return "", err
	}
	if b, ok := row[0].([]byte); ok {
		return string(b), nil
	}
	return fmt.Sprint(row[0]), nil
}

// Close ends all connections.
func (s *Store) Close() {
	_ = s.db.Close() // nothing is left that could be lost
	s.pack.Close()
}

// Ping asks for the schema's version, which proves that the database answers
// and is what this binary needs.
func (s *Store) Ping(ctx context.Context) error {
	behind, err := schemaBehind(ctx, s.db)
	if err != nil {
		return classify(ctx, fmt.Errorf("ping: %w", err))
	}
	if behind {
		return store.ErrSchemaBehind
	}
	return nil
}

// Engine asks the server for its name and version.
func (s *Store) Engine(ctx context.Context) (string, error) {
	var version string
	if err := s.db.QueryRowContext(ctx, "select version()").Scan(&version); err != nil {
		return "", classify(ctx, fmt.Errorf("read server version: %w", err))
	}
	// MariaDB puts its name behind the number.
	if number, _, ok := strings.Cut(version, "-MariaDB"); ok {
		return "MariaDB " + number, nil
	}
	return "MySQL " + version, nil
}

// txAttempts bounds how often one transaction is run. Each retry means that
// another transaction got through. Galera's nodes find out only at the commit,
// so there the same one can lose several times in a row.
const txAttempts = 20

// tx runs f in a transaction, again from the start where the server asks for
// it, and classifies what is left over. f keeps nothing across runs.
func (s *Store) tx(ctx context.Context, what string, f func(q *queries) error) error {
	err := retry(ctx, func() error { return s.once(ctx, f) })
	if err != nil {
		return classify(ctx, fmt.Errorf("%s: %w", what, err))
	}
	return nil
}

// once runs f in a transaction. Its bounds are statements like any other, and so
// heed ctx: a commit by database/sql waits for a server that does not answer for
// as long as the network lets it.
//
// A connection that is lost at the commit leaves open whether it took place.
// That is never told as a success; what is done twice because of it is fenced
// by keys and tokens.
func (s *Store) once(ctx context.Context, f func(q *queries) error) (err error) {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			undo(ctx, conn)
		}
		_ = conn.Close() // back to the pool
	}()
	if _, err := conn.ExecContext(ctx, "start transaction"); err != nil {
		return err
	}
	if err := f(&queries{dbq.New(conn), conn}); err != nil {
		return err
	}
	_, err = conn.ExecContext(ctx, "commit")
	return err
}

// undo rolls back, or ends the connection if that is not possible, which rolls
// back too.
func undo(ctx context.Context, conn *sql.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if _, err := conn.ExecContext(ctx, "rollback"); err != nil {
		_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // so the pool drops it
	}
}

// retry runs f, which is a whole transaction, until the server no longer asks
// for it to be run again.
func retry(ctx context.Context, f func() error) error {
	for attempt := 1; ; attempt++ {
		err := f()
		if err == nil || attempt == txAttempts || !transient(err) {
			return err
		}
		// Chance keeps those apart who have just been in each other's way.
		if clock.Sleep(ctx, rand.N(time.Duration(min(attempt, 10))*10*time.Millisecond)) != nil {
			return err
		}
	}
}

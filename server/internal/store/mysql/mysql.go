// Package mysql is the engine for MySQL 8, MariaDB 10.6 and newer and compatible
// services, such as PlanetScale. Package store documents the contract of each
// method.
//
// Its SQL stays within what MySQL, MariaDB and Vitess have in common; a test
// refuses the rest. Writes return nothing there, so what is one statement on
// Postgres is a short transaction here.
package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	gomysql "github.com/go-sql-driver/mysql"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/internal/sqllist"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql/dbq"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/pack"
)

var _ store.Store = (*Store)(nil)

// Config says how to reach the database.
type Config struct {
	// URL is a mysql:// URL or a DSN of the Go driver. Settings in it that would
	// change the meaning of statements are overridden.
	URL string
	// MaxConns limits the open connections. Required.
	MaxConns int
	// ReadTimeout limits the time of a read; zero means no limit.
	ReadTimeout time.Duration
	// Sharded makes every transaction keep to one bucket, as it does on a sharded server,
	// whatever the server says. It is for tests.
	Sharded bool
}

// Idle connections are closed, so they do not occupy the server's slots. All are
// replaced long before the day after which PlanetScale closes them.
const (
	connectTimeout = 10 * time.Second
	connIdleTime   = 5 * time.Minute
	connLifetime   = 30 * time.Minute
	// silence is how long MySQL waits for the next statement of a session.
	silence = 20 * time.Second
	// undoTimeout limits a rollback, which ignores the caller's context because
	// that has often ended.
	undoTimeout = 2 * time.Second
)

// Store is the engine.
type Store struct {
	*sqllist.Reader

	db *sql.DB
	q  *queries
	// The pools of the uses that have connections of their own; see store.Shares. The
	// others are db.
	accepting, renewing, reading *sql.DB

	pack      *pack.Codec
	connector *connector
	// lanes is the number of buckets of one batch that are recorded at once.
	lanes int
	// piece is pieceRows, or less for tests.
	piece int
}

// queries holds all statements: those of sqlc and those of build.go.
type queries struct {
	*dbq.Queries

	db    dbq.DBTX
	piece int
}

// Open prepares the connections. It does not wait for the database: the first
// use connects.
func Open(_ context.Context, cfg Config) (*Store, error) {
	c, err := newConnector(cfg.URL)
	if err != nil {
		return nil, err
	}
	return open(c, cfg, pieceRows)
}

func open(c *connector, cfg Config, piece int) (*Store, error) {
	p, err := pack.New()
	if err != nil {
		return nil, err
	}
	shares := store.ShareConns(cfg.MaxConns)
	db := openPool(c, shares.Work)
	orElse := func(c driver.Connector, conns int) *sql.DB {
		if conns == 0 {
			return db
		}
		return openPool(c, conns)
	}
	s := &Store{
		db: db, q: newQueries(db, piece), accepting: orElse(impatient{c}, shares.Accept), renewing: orElse(c, shares.Renew),
		reading: orElse(c, shares.Read), pack: p, connector: c, lanes: max(shares.Accept, 1), piece: piece,
	}
	if cfg.Sharded {
		c.layout.Store(int32(forced))
	}
	dialect := lists
	dialect.Piece = piece
	s.Reader = sqllist.NewReader(dialect, limited(newQueries(s.reading, piece).rows), classify, p, cfg.ReadTimeout)
	return s, nil
}

func newQueries(db dbq.DBTX, piece int) *queries { return &queries{dbq.New(db), db, piece} }

func openPool(c driver.Connector, conns int) *sql.DB {
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	db.SetConnMaxIdleTime(connIdleTime)
	db.SetConnMaxLifetime(connLifetime)
	return db
}

// impatient opens connections that wait for a locked row as briefly as the server
// allows. A transaction that was given up ends by then too, and releases its locks.
type impatient struct{ *connector }

// Connect is for package sql.
func (c impatient) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	s, ok := conn.(*session)
	if ok { // as always
		_, err = s.ExecContext(ctx, "set session innodb_lock_wait_timeout = 1", nil)
	}
	// A server that refuses it only waits for longer. Vitess does not, unless a shard is away.
	if err != nil && (number(err) == 0 || s.vitess) {
		return nil, connectError{errors.Join(err, conn.Close())}
	}
	return conn, nil
}

// connector opens connections whose settings do not depend on the server's
// defaults.
type connector struct {
	driver.Connector

	// maxPacket is the server's max_allowed_packet in bytes; 0 before the first
	// connection.
	maxPacket atomic.Int64
	// era counts how often all sessions had to be replaced.
	era atomic.Uint64
	// layout is the layout of the server.
	layout atomic.Int32
	// tls means that connections have TLS, and local that they stay on this machine.
	tls, local bool
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
	encrypted, local := wayTo(cfg)
	return &connector{Connector: c, tls: encrypted, local: local}, nil
}

// connectError classifies a failure to connect. Whatever its code, no statement was
// at fault.
type connectError struct{ err error }

func (e connectError) Error() string { return "connect: " + e.err.Error() }

func (e connectError) Unwrap() error { return e.err }

const (
	// shardAttempts is the maximum number of attempts to open a session on a sharded server.
	// Vitess asks a random shard for each variable that is read, so that one that is away would
	// fail most attempts. For each that is set it asks the first shard.
	shardAttempts = 20
	// shardPause is the longest pause between two of them.
	shardPause = 10 * time.Millisecond
)

// Connect opens a connection and prepares its session.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		conn, err := c.connect(ctx)
		if !ofShard(err) || attempt == shardAttempts || clock.Sleep(ctx, rand.N(shardPause)) != nil {
			return conn, err
		}
	}
}

// connect makes one attempt.
func (c *connector) connect(ctx context.Context) (driver.Conn, error) {
	era := c.era.Load()
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, connectError{err}
	}
	s, err := newSession(conn, era, &c.era)
	if err == nil {
		err = c.prepare(ctx, s)
	}
	if err != nil {
		return nil, connectError{errors.Join(err, conn.Close())}
	}
	return s, nil
}

func (c *connector) prepare(ctx context.Context, s *session) error {
	// This is sufficient, because rows are locked before they are read, and it is
	// the highest level across Galera's nodes. It takes no gap locks, which would
	// block inserts. It is not a variable in the URL because its name differs
	// between servers.
	if _, err := s.ExecContext(ctx, "set session transaction isolation level read committed", nil); err != nil {
		return fmt.Errorf("set isolation level: %w", err)
	}
	if err := limitIdle(ctx, s); err != nil {
		return fmt.Errorf("limit idle transactions: %w", err)
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
	if err := c.lookForShards(ctx, s); err != nil {
		return fmt.Errorf("look for shards: %w", err)
	}
	on, err := variable(ctx, s, "wsrep_on")
	switch number(err) {
	case 1193, 1105, 1235: // unknown: not Galera
		return nil
	}
	if err != nil {
		return fmt.Errorf("read wsrep_on: %w", err)
	}
	if on == "1" {
		// A Galera node may return the state before another node's commit. This
		// makes reads and writes wait for the commits of the cluster.
		if _, err := s.ExecContext(ctx, "set session wsrep_sync_wait = 7", nil); err != nil {
			return fmt.Errorf("set wsrep_sync_wait: %w", err)
		}
	}
	return nil
}

// waitTimeout sets for how many seconds a session may be silent.
const waitTimeout = "set session wait_timeout = %d"

// limitIdle lets the server end a transaction whose process is silent. The rows that a
// process locked before its host was lost would stay locked until the operating system
// gives its connections up, which takes hours. MariaDB knows idle transactions; MySQL
// ends any idle session, which the pool notices before it uses one again.
func limitIdle(ctx context.Context, s *session) error {
	_, err := s.ExecContext(ctx, "set session idle_transaction_timeout = 10", nil)
	if number(err) != 0 {
		_, err = s.ExecContext(ctx, fmt.Sprintf(waitTimeout, silence/time.Second), nil)
	}
	if number(err) != 0 {
		return nil // a proxy that has a limit of its own
	}
	return err
}

// variable reads a variable of the session.
func variable(ctx context.Context, q driver.QueryerContext, name string) (string, error) {
	values, err := firstColumn(ctx, q, "select @@"+name)
	if err == nil && len(values) == 0 {
		err = io.EOF
	}
	return strings.Join(values, ""), err
}

// firstColumn reads the first column of a query.
func firstColumn(ctx context.Context, q driver.QueryerContext, query string) (values []string, err error) {
	rows, err := q.QueryContext(ctx, query, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	row := make([]driver.Value, len(rows.Columns()))
	for {
		switch err := rows.Next(row); {
		case errors.Is(err, io.EOF):
			return values, nil
		case err != nil:
			return nil, err
		}
		if b, ok := row[0].([]byte); ok {
			values = append(values, string(b))
		} else {
			values = append(values, fmt.Sprint(row[0]))
		}
	}
}

// Pools describes the pools of connections.
func (s *Store) Pools() (list []store.Pool) {
	for _, p := range []struct {
		use string
		db  *sql.DB
	}{{"work", s.db}, {"accept", s.accepting}, {"renew", s.renewing}, {"read", s.reading}} {
		if p.db == s.db && p.use != "work" {
			continue
		}
		stat := p.db.Stats()
		list = append(list, store.Pool{
			Use: p.use, Max: stat.MaxOpenConnections, InUse: stat.InUse, Idle: stat.Idle,
			Waits: stat.WaitCount, Waited: stat.WaitDuration,
		})
	}
	return list
}

// Close ends all connections.
func (s *Store) Close() {
	for _, db := range []*sql.DB{s.reading, s.renewing, s.accepting, s.db} {
		_ = db.Close() // nothing can be lost
	}
	s.pack.Close()
}

// Ping reads the schema version, which proves that the database answers and has the
// schema that this binary needs, and checks that the server takes writes. Whether it
// does depends on the user as well as on several variables, so Ping sends a write,
// which alters nothing: no project has this id.
//
// Of several shards one is enough: what concerns the others goes on while one is away.
func (s *Store) Ping(ctx context.Context) error {
	behind, err := s.pingAll(ctx)
	if err != nil && layout(s.connector.layout.Load()) == manyShards {
		err = s.pingShards(ctx, err)
	}
	if err != nil {
		return classify(ctx, fmt.Errorf("ping: %w", err))
	}
	if behind {
		return store.ErrSchemaBehind
	}
	return nil
}

func (s *Store) pingAll(ctx context.Context) (behind bool, err error) {
	if layout(s.connector.layout.Load()) == manyShards { // one that hangs leaves time for the others
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, shardTime)
		defer cancel()
	}
	err = retry(ctx, func() (err error) {
		if behind, err = schemaBehind(ctx, s.accepting); behind || err != nil {
			return err
		}
		_, err = s.accepting.ExecContext(ctx, "update mirror_project set pause_reason = '' where project_id = ''")
		return err
	})
	return behind, err
}

const (
	// pingedShards is how many shards are asked one by one at most, pingShardsTime for how long.
	pingedShards   = 16
	pingShardsTime = 3 * shardTime
	// shardTime is the time that all shards together have to answer, and then each of them.
	shardTime = time.Second
)

// pingShards returns nil if a shard takes writes, otherwise err. Buckets that follow each
// other are in different shards.
func (s *Store) pingShards(ctx context.Context, err error) error {
	ctx, cancel := context.WithTimeout(ctx, pingShardsTime)
	defer cancel()
	first := rand.N(mirror.Buckets)
	for i := range pingedShards {
		ctx, cancel := context.WithTimeout(ctx, shardTime)
		_, failed := s.accepting.ExecContext(ctx, pingShardSQL, (first+i)%mirror.Buckets)
		cancel()
		if failed == nil {
			return nil
		}
	}
	return err
}

// pingShardSQL alters nothing.
const pingShardSQL = "update mirror_feed_head set n = 0 where bucket = ? and n < 0"

// Engine returns the server's name and version.
func (s *Store) Engine(ctx context.Context) (string, error) {
	var version string
	if err := s.db.QueryRowContext(ctx, "select version()").Scan(&version); err != nil {
		return "", classify(ctx, fmt.Errorf("read server version: %w", err))
	}
	// MariaDB appends its name to the number.
	if number, _, ok := strings.Cut(version, "-MariaDB"); ok {
		return "MariaDB " + number, nil
	}
	return "MySQL " + version, nil
}

// txAttempts is the maximum number of runs of one transaction. Each retry means
// that another transaction succeeded. Galera nodes detect conflicts only at the
// commit, so the same transaction can lose several times in a row.
const txAttempts = 20

// tx runs f in a transaction, again from the start after transient failures, and
// classifies other errors. f must not keep state across runs.
func (s *Store) tx(ctx context.Context, what string, f func(q *queries) error) error {
	err := retry(ctx, func() error { return s.once(ctx, s.db, f) })
	if err != nil {
		return classify(ctx, fmt.Errorf("%s: %w", what, err))
	}
	return nil
}

// once runs f in a transaction. Start and commit are ordinary statements that end
// with ctx: a commit by database/sql would wait for an unresponsive server as long
// as the network allows.
//
// A connection lost during the commit leaves its result unknown. It is never
// reported as a success; keys and tokens make a repetition harmless.
func (s *Store) once(ctx context.Context, db *sql.DB, f func(q *queries) error) (err error) {
	conn, err := db.Conn(ctx)
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
	tx := &transaction{Conn: conn}
	if err := f(newQueries(tx, s.piece)); err != nil || tx.ended != nil {
		return errors.Join(tx.ended, err)
	}
	_, err = conn.ExecContext(ctx, "commit")
	return err
}

// transaction sends nothing after a statement at which the server has ended it. The server would
// run that by itself, and it would stay. What reads rows returns an error that comes among them.
type transaction struct {
	*sql.Conn

	ended error
}

func (t *transaction) see(err error) error {
	if t.ended == nil && ended(err) {
		t.ended = err
	}
	return err
}

func (t *transaction) ExecContext(ctx context.Context, text string, args ...any) (sql.Result, error) {
	if t.ended != nil {
		return nil, t.ended
	}
	result, err := t.Conn.ExecContext(ctx, text, args...)
	return result, t.see(err)
}

func (t *transaction) QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	if t.ended != nil {
		return nil, t.ended
	}
	rows, err := t.Conn.QueryContext(ctx, text, args...)
	return rows, t.see(err)
}

func (t *transaction) QueryRowContext(ctx context.Context, text string, args ...any) *sql.Row {
	if t.ended != nil {
		var stop context.CancelFunc
		ctx, stop = context.WithCancel(ctx)
		stop() // so nothing is sent
	}
	row := t.Conn.QueryRowContext(ctx, text, args...)
	_ = t.see(row.Err()) // its scan returns it
	return row
}

// undo rolls back, or closes the connection if that fails, which also rolls back.
func undo(ctx context.Context, conn *sql.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if _, err := conn.ExecContext(ctx, "rollback"); err != nil {
		_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // makes the pool drop it
	}
}

// retryCode is the code of an error for the metric of transactions that run again; of a
// session that is gone there is none.
func retryCode(err error) string {
	if n := number(err); n != 0 {
		return strconv.Itoa(int(n))
	}
	return "session"
}

// givenUpAttempts is the maximum number of runs of one transaction that the server gives up,
// after 20 or 30 seconds each.
const givenUpAttempts = 3

// retry runs f, a whole transaction, again as long as it fails transiently. Once, it
// also does so if the server takes no writes: f then runs in a new session.
func retry(ctx context.Context, f func() error) error {
	for attempt, old, late := 1, true, 0; ; attempt++ {
		err := f()
		again := transient(err)
		if givenUp(err) {
			late++
			again = late < givenUpAttempts
		}
		if old && readOnly(err) {
			again, old = true, false
		}
		if err == nil || attempt == txAttempts || !again {
			return err
		}
		// A random delay separates transactions that have just conflicted.
		if clock.Sleep(ctx, rand.N(time.Duration(min(attempt, 10))*10*time.Millisecond)) != nil {
			return err
		}
		store.CountRetry(retryCode(err))
	}
}

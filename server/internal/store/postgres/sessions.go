package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// readOnlyCode is the answer to a write in a session that is read-only: it leads to
// a standby or to a primary that was demoted, or was opened while the role, the
// database or the server was set so.
const readOnlyCode = "25006"

// startingCode is the answer to a connection while the server starts or recovers.
const startingCode = "57P03"

// lockedCode is the error of a statement that waited too long for a lock.
const lockedCode = "55P03"

// sessions are the open sessions of all pools.
type sessions struct {
	mu    sync.Mutex
	pools []*pgxpool.Pool

	// pooled means that a pooler may lead each transaction to another server process, so
	// that nothing can be left there: neither a prepared statement nor a setting.
	pooled atomic.Bool
	log    atomic.Pointer[slog.Logger] // nil before Check
}

// switchMode goes on as behind a pooler in transaction mode.
func (s *sessions) switchMode() {
	if s.pooled.Swap(true) {
		return
	}
	if log := s.log.Load(); log != nil {
		log.Warn("the database is behind a pooler in transaction mode; set MIRROR_DATABASE_POOLED=true")
	}
	s.reset()
}

// beforeConnect chooses how a new session runs statements.
func (s *sessions) beforeConnect(_ context.Context, cc *pgx.ConnConfig) error {
	if s.pooled.Load() {
		cc.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	return nil
}

// afterConnect prepares a new session, and pins its settings.
func (s *sessions) afterConnect(searchPath string) func(context.Context, *pgx.Conn) error {
	return func(ctx context.Context, conn *pgx.Conn) error {
		readTimes(conn.TypeMap())
		if s.pooled.Load() {
			return nil
		}
		return pinSession(ctx, conn, searchPath)
	}
}

// pingAfter is the idle time after which a session is pinged before it is used.
const pingAfter = 30 * time.Second

// shouldPing decides whether a session is pinged before it is used. A ping is a round
// trip that a delivery waits for, so there is none where the operating system knows
// that the session is open.
func shouldPing(_ context.Context, p pgxpool.ShouldPingParams) bool {
	return p.IdleDuration > pingAfter || !quiet(p.Conn.PgConn().Conn())
}

// quiet reports whether a connection is open and the server has sent nothing. What it
// sends to an idle session is mostly that it ends it.
func quiet(conn net.Conn) bool {
	if encrypted, ok := conn.(*tls.Conn); ok {
		conn = encrypted.NetConn()
	}
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	var nothing bool
	// Not raw.Read: it would wait for a Read that pgx has left behind after a slow write.
	err = raw.Control(func(fd uintptr) {
		_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK)
		nothing = errors.Is(err, syscall.EAGAIN)
	})
	return err == nil && nothing
}

func pinSession(ctx context.Context, conn *pgx.Conn, searchPath string) error {
	if err := conn.PgConn().Exec(ctx, sessionSQL(searchPath)).Close(); err != nil {
		return fmt.Errorf("prepare the session: %w", err)
	}
	return nil
}

// forgotten are the answers to the use of a prepared statement behind a pooler that
// has changed the server process since: it is unknown, or somebody else's is there.
func forgotten(code string) bool { return code == "26000" || code == "42P05" }

func (s *sessions) of(pools ...*pgxpool.Pool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pools = pools
}

// reset closes all sessions, those in use when they are given back. The next
// statement opens a new one, which may lead to another server.
func (s *sessions) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, pool := range s.pools {
		pool.Reset()
	}
}

// usable reports whether a session that received err can be used again. If err says
// that the server is the wrong one or shuts down, no other session to it can be used
// either.
func (s *sessions) usable(_ *pgconn.PgConn, err *pgconn.PgError) bool {
	if forgotten(err.Code) {
		s.switchMode()
		return false
	}
	switch err.Code {
	case readOnlyCode, "57P01", "57P02": // the latter two: shut down by an operator or after a crash
		s.reset()
		return false
	}
	return !fatal(err)
}

// fatal reports whether the server has ended the session.
func fatal(err *pgconn.PgError) bool {
	return strings.EqualFold(err.Severity, "FATAL") || strings.EqualFold(err.SeverityUnlocalized, "FATAL")
}

// sessionAtFault reports whether a statement failed only because of its session, and
// has changed nothing.
func sessionAtFault(err error) bool {
	return isCode(err, readOnlyCode) || pgconn.SafeToRetry(err)
}

func errReadOnly(err error) error {
	return fault.Wrap(fmt.Errorf("%w: %w", store.ErrReadOnly, err), fault.Unavailable, fault.ReasonStoreUnavailable,
		"the database takes no writes")
}

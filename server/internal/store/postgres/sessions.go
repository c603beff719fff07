package postgres

import (
	"fmt"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// readOnlyCode is the answer to a write in a session that is read-only: it leads to
// a standby or to a primary that was demoted, or was opened while the role, the
// database or the server was set so.
const readOnlyCode = "25006"

// sessions are the open sessions of all pools.
type sessions struct {
	mu    sync.Mutex
	pools []*pgxpool.Pool
}

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
	switch err.Code {
	case readOnlyCode, "57P01", "57P02": // the latter two: shut down by an operator or after a crash
		s.reset()
		return false
	}
	return !strings.EqualFold(err.Severity, "FATAL") && !strings.EqualFold(err.SeverityUnlocalized, "FATAL")
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

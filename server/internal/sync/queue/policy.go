package queue

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// Policy says how to handle failures.
type Policy struct {
	// MaxAttempts is the number of attempts before a task fails for good.
	MaxAttempts int
	// BackoffMin and BackoffMax limit the delay between two attempts, which doubles
	// each time.
	BackoffMin, BackoffMax time.Duration
}

// Failure classifies err.
func (p Policy) Failure(lease mirror.Lease, err error, now time.Time) store.Failure {
	f := fault.Of(err)
	failure := store.Failure{Now: now, Cause: cause(err)}
	switch {
	// Not a failure of the task: another incarnation, or a shutdown.
	case errors.Is(err, store.ErrEpochChanged):
		failure.Uncounted, failure.NotBefore, failure.Cause = true, now, "the room was deleted or created again meanwhile"
	case errors.Is(err, store.ErrCopyChanged):
		failure.Uncounted, failure.NotBefore, failure.Cause = true, now, "the copy changed during the fetch"
	case errors.Is(err, errLeaseExpired):
		failure.Uncounted, failure.NotBefore, failure.Cause = true, now, "the lease could not be renewed in time"
	case errors.Is(err, errUnanswered):
		failure.Uncounted, failure.NotBefore, failure.Cause = true, now, "the database did not answer"
	case errors.Is(err, errAlone):
		failure.Uncounted, failure.NotBefore, failure.Cause = true, now, fmt.Sprintf(
			"the process ended %d times during this task; it runs while nothing else does", lease.Deaths)
	case errors.Is(err, errStopped):
		failure.Uncounted, failure.NotBefore, failure.Cause = true, now, "the service stopped"
	case f.Reason == fault.ReasonUpstreamUnsupported:
		failure.Uncounted, failure.Unsupported, failure.NotBefore = true, true, now
	case f.Kind == fault.Busy, f.Reason == fault.ReasonUpstreamOutage:
		failure.Uncounted, failure.NotBefore = true, now.Add(cmp.Or(f.RetryAfter, p.BackoffMin))
	case f.Kind == fault.Invalid, f.Kind == fault.NotFound, f.Kind == fault.Precondition:
		failure.Final, failure.NotBefore = true, now
	default:
		failure.Final = lease.Attempts+1 >= p.MaxAttempts
		failure.NotBefore = now.Add(max(p.backoff(lease.Attempts), f.RetryAfter))
	}
	return failure
}

// cause returns the text that the task shows to an operator: the public sentence if
// there is one, because other errors may quote anything.
func cause(err error) string {
	f := fault.Of(err)
	if f.Kind == fault.Internal {
		return "internal error; see the log"
	}
	text := string(f.Reason.Public()) + ": " + f.Public
	if status := f.Meta["status"]; status != "" {
		text += " (HTTP status " + status + ")"
	}
	return text
}

// backoff doubles with each attempt. Half of it is random, so tasks that failed
// together do not retry together.
func (p Policy) backoff(attempts int) time.Duration {
	d := p.BackoffMin
	for range attempts {
		if d *= 2; d >= p.BackoffMax {
			d = p.BackoffMax
			break
		}
	}
	return d/2 + rand.N(d/2+1)
}

package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gomysql "github.com/go-sql-driver/mysql"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

func serverError(number uint16) error {
	return fmt.Errorf("do: %w", &gomysql.MySQLError{Number: number, Message: "the server's words"})
}

// vitessError is an error with the number that Vitess has for most of its own.
func vitessError(message string) error {
	return fmt.Errorf("do: %w", &gomysql.MySQLError{
		Number: 1317, Message: "target: ks.0.primary: vttablet: rpc error: code = Aborted desc = " + message,
	})
}

var (
	errManyRows   = vitessError("Row count exceeded 10000 (CallerID: mirror)")
	errManyShards = vitessError("multi-db transaction attempted: [ks.-80 ks.80-]")
	errACL        = &gomysql.MySQLError{Number: 1045, Message: "Select command denied to user (ACL check error)"}
	errOvertime   = vitessError(
		"transaction 1796168207000001: ended at 2026-11-28 20:05:10.123 UTC (exceeded timeout: 30s) (CallerID: mirror)")
)

func TestClassify(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err    error
		reason fault.Reason
	}{
		{serverError(1213), fault.ReasonStoreUnavailable},
		{serverError(1205), fault.ReasonStoreUnavailable},
		{serverError(1243), fault.ReasonStoreUnavailable},
		{serverError(1615), fault.ReasonStoreUnavailable},
		{serverError(1040), fault.ReasonStoreUnavailable},
		{serverError(1203), fault.ReasonStoreUnavailable},
		{serverError(1290), fault.ReasonStoreUnavailable}, // a replica after a failover
		{serverError(1836), fault.ReasonStoreUnavailable},
		{serverError(1053), fault.ReasonStoreUnavailable},
		{serverError(1047), fault.ReasonStoreUnavailable},
		{serverError(1105), fault.ReasonStoreUnavailable},
		{serverError(2006), fault.ReasonStoreUnavailable}, // as Vitess tells of a shard
		{serverError(2013), fault.ReasonStoreUnavailable},
		{serverError(1317), fault.ReasonStoreUnavailable}, // an operator has ended it
		{errOvertime, fault.ReasonStoreUnavailable},
		{errACL, fault.ReasonStoreUnavailable},
		{errManyRows, fault.ReasonStoreLimitExceeded}, // waiting does not help
		{
			&gomysql.MySQLError{Number: 1153, Message: "in-memory row count exceeded allowed limit of 300000"},
			fault.ReasonStoreLimitExceeded,
		},
		{errManyShards, fault.ReasonStoreLimitExceeded},
		{serverError(1146), fault.ReasonSchemaBehind},
		{serverError(1054), fault.ReasonSchemaBehind},
		{serverError(1153), fault.ReasonDocumentTooLarge},
		{gomysql.ErrPktTooLarge, fault.ReasonDocumentTooLarge},
		{serverError(1064), fault.ReasonInternal},
		{serverError(1048), fault.ReasonInternal},
		{serverError(1406), fault.ReasonInternal},
		{connectError{serverError(1045)}, fault.ReasonStoreUnavailable}, // a password just rotated
		{connectError{serverError(1146)}, fault.ReasonStoreUnavailable},
		{connectError{serverError(1064)}, fault.ReasonStoreUnavailable},
		{gomysql.ErrInvalidConn, fault.ReasonStoreUnavailable},
		{driver.ErrBadConn, fault.ReasonStoreUnavailable},
		{io.ErrUnexpectedEOF, fault.ReasonStoreUnavailable},
		{&net.OpError{Op: "dial", Err: errors.New("connection refused")}, fault.ReasonStoreUnavailable},
		{fault.New(fault.Precondition, fault.ReasonDocumentTooLarge, "said already"), fault.ReasonDocumentTooLarge},
	} {
		if got := fault.Of(classify(t.Context(), c.err)).Reason; got != c.reason {
			t.Errorf("classify(%v) has reason %s; want %s", c.err, got, c.reason)
		}
	}
	for _, err := range []error{errManyRows, errManyShards} {
		got := fault.Of(classify(t.Context(), err))
		if got.Kind != fault.Precondition || strings.Contains(got.Public, "available") ||
			!strings.Contains(got.Public, "defect") || strings.Contains(got.Public, "ks.") {
			t.Errorf("classify(%v) = %v, %q; want a defect that is told without the server's words", err, got.Kind, got.Public)
		}
	}
	if got := fault.Of(classify(t.Context(), errACL)).Public; !strings.Contains(got, "lacks a right") {
		t.Errorf("classify(%v) says %q; want it to name the right", errACL, got)
	}
	if err := classify(t.Context(), nil); err != nil {
		t.Errorf("classify(nil) = %v; want nil", err)
	}
	if err := classify(t.Context(), serverError(1146)); !errors.Is(err, store.ErrSchemaBehind) ||
		fault.Of(err).Kind != fault.Unavailable {
		t.Errorf("classify of a missing table = %v; want %v", err, store.ErrSchemaBehind)
	}
	if err := classify(t.Context(), fmt.Errorf("do: %w", sql.ErrNoRows)); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("classify of no rows = %v; want %v", err, store.ErrNotFound)
	}
	for _, sentinel := range []error{store.ErrLeaseLost, store.ErrEpochChanged, store.ErrNotDue, store.ErrNotFound} {
		if err := classify(t.Context(), fmt.Errorf("do: %w", sentinel)); !errors.Is(err, sentinel) ||
			fault.Of(err).Kind != fault.Internal {
			t.Errorf("classify(%v) = %v; want it as it was", sentinel, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range []error{context.Canceled, gomysql.ErrInvalidConn} {
		if err := classify(ctx, err); !errors.Is(err, context.Canceled) || fault.Of(err).Kind == fault.Unavailable {
			t.Errorf("classify of the caller's own cancellation = %v; want it to say so", err)
		}
	}
}

// Vitess adds the statement and its values to its messages.
func TestErrorsHoldNoValues(t *testing.T) {
	t.Parallel()
	var era atomic.Uint64
	err := (&session{current: &era}).observe(&gomysql.MySQLError{
		Number: 1062, Message: `target: s1.-40.primary: vttablet: Duplicate entry (errno 1062) (CallerID: mirror): ` +
			`Sql: "insert into mirror_event values (:vtg1)", BindVars: {vtg1: "type:BLOB value:\"payload\""}`,
	})
	my, ok := errors.AsType[*gomysql.MySQLError](err)
	if !ok || my.Number != 1062 || !strings.HasPrefix(my.Message, "target: s1.-40.primary") {
		t.Errorf("observe(a server's error) = %v; want the error", err)
	}
	for _, secret := range []string{"payload", "vtg1", "insert"} {
		if ok && strings.Contains(my.Error(), secret) {
			t.Errorf("the error has %q in it: %v", secret, my)
		}
	}
}

func TestRetryEnds(t *testing.T) {
	t.Parallel()
	deadlock, interrupted := serverError(1213), serverError(1317)
	for _, c := range []struct {
		what  string
		errs  []error
		runs  int
		final error
	}{
		{"success", []error{nil}, 1, nil},
		{"deadlock once", []error{deadlock, nil}, 2, nil},
		{
			"lock wait, altered table, stale connection",
			[]error{serverError(1205), serverError(1412), driver.ErrBadConn, nil},
			4, nil,
		},
		{"deadlock for ever", nil, txAttempts, deadlock},
		{"transaction ended because of its time", []error{errOvertime, deadlock, errOvertime, nil}, 4, nil},
		{
			"transaction ended because of its time, always",
			[]error{errOvertime, errOvertime, errOvertime, nil},
			givenUpAttempts, errOvertime,
		},
		{
			"transaction that is being ended because of its time",
			[]error{vitessError("transaction 7: in use: for tx killer rollback"), nil},
			2, nil,
		},
		{"too many rows", []error{errManyRows, nil}, 1, errManyRows},
		{"too many shards", []error{errManyShards, nil}, 1, errManyShards},
		{"statement ended by an operator", []error{interrupted, nil}, 1, interrupted},
		{"lease lost", []error{store.ErrLeaseLost}, 1, store.ErrLeaseLost},
		{"deadlock, then lease lost", []error{deadlock, store.ErrLeaseLost}, 2, store.ErrLeaseLost},
		{"connection lost, which leaves the outcome open", []error{gomysql.ErrInvalidConn}, 1, gomysql.ErrInvalidConn},
	} {
		runs := 0
		err := retry(t.Context(), func() error {
			runs++
			if runs > len(c.errs) {
				return deadlock
			}
			return c.errs[runs-1]
		})
		if runs != c.runs || !errors.Is(err, c.final) {
			t.Errorf("%s: %d runs, %v; want %d, %v", c.what, runs, err, c.runs, c.final)
		}
	}
	if n := store.Retries()["1213"]; n < txAttempts { // two of them once, and one to the last attempt
		t.Errorf("%d retries after deadlocks are counted; want all of them", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	runs := 0
	if err := retry(ctx, func() error { runs++; cancel(); return deadlock }); runs != 1 || !errors.Is(err, deadlock) {
		t.Errorf("retry of a cancelled call = %v after %d runs; want 1", err, runs)
	}
}

func TestProblemQuotesNothing(t *testing.T) {
	t.Parallel()
	for number, want := range map[uint16]string{4025: "4025", 3140: "3140", 1366: "1366", 1153: "max_allowed_packet"} {
		if !refused(serverError(number)) {
			t.Errorf("refused(%d) = false; want true", number)
		}
		if got := problem(serverError(number)); !strings.Contains(got, want) || strings.Contains(got, "words") {
			t.Errorf("problem of %d = %q; want %s in it and not the server's words", number, got, want)
		}
	}
	if refused(serverError(1213)) || refused(nil) {
		t.Error("refused says so of what was not refused")
	}
}

func TestTimesFitIntoColumns(t *testing.T) {
	t.Parallel()
	zone := time.FixedZone("", -12*3600)
	for _, c := range []struct{ in, want time.Time }{
		{time.Date(2026, 1, 2, 3, 4, 5, 678_901_999, time.UTC), time.Date(2026, 1, 2, 3, 4, 5, 678_901_000, time.UTC)},
		{time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC), lastTime},
		{time.Date(9999, 12, 31, 23, 59, 59, 0, zone), lastTime}, // in the year 10000
		{time.Date(1000, 1, 1, 0, 0, 0, 0, time.UTC), firstTime},
		{time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC), firstTime},
		{time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC), firstTime},
	} {
		got := nullTime(c.in)
		if !got.Valid || got.Time != c.want || timeOf(got) != c.want {
			t.Errorf("at(%v) = %v; want %v", c.in, got, c.want)
		}
	}
	if got := nullTime(time.Time{}); got.Valid || !timeOf(got).IsZero() {
		t.Errorf("at of no time = %v; want null", got)
	}
}

func TestEscaped(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int64{"": 0, "plain": 5, "\x00\n\r\x1a'\"\\": 14, "ß": 2, `{"a":1}`: 9} {
		if got := escaped(in); got != want {
			t.Errorf("escaped(%q) = %d; want %d", in, got, want)
		}
	}
}

package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"

	gomysql "github.com/go-sql-driver/mysql"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// number returns the error number of the server in err's chain; 0 if there is none.
// The numbers are MySQL's; MariaDB and Vitess use them too, with additions.
func number(err error) uint16 {
	if my, ok := errors.AsType[*gomysql.MySQLError](err); ok {
		return my.Number
	}
	return 0
}

// withoutValues removes the statement and its values from the message of an error, where
// Vitess puts them: they may be a payload, and errors are logged.
func withoutValues(err error) error {
	if my, ok := errors.AsType[*gomysql.MySQLError](err); ok {
		for _, mark := range []string{"Sql: ", "BindVars: "} {
			my.Message, _, _ = strings.Cut(my.Message, mark)
		}
	}
	return err
}

// says reports whether the server's message contains a text.
func says(err error, text string) bool {
	my, ok := errors.AsType[*gomysql.MySQLError](err)
	return ok && strings.Contains(my.Message, text)
}

// tooManyRows reports whether the server refuses a statement because of the number of
// rows. Vitess has the number of an interrupted statement for it, of a packet that is too
// large, or of any error.
func tooManyRows(err error) bool {
	return says(err, "ow count exceeded") // with a capital or without
}

// spansShards reports whether the server refuses a transaction because it concerns
// several shards.
func spansShards(err error) bool {
	return number(err) == 1317 && says(err, "multi-db transaction attempted")
}

// ofShard reports whether the error is that of a shard behind a gateway of Vitess.
func ofShard(err error) bool { return says(err, "target: ") || says(err, "vttablet: ") }

// givenUp reports whether Vitess has given the transaction up, because it took too long. It was
// rolled back.
func givenUp(err error) bool {
	return number(err) == 1317 && (says(err, "exceeded timeout") || says(err, "for tx killer rollback"))
}

// ended reports whether the server has rolled the transaction back, so that what follows
// would not be part of it.
func ended(err error) bool {
	switch number(err) {
	case 1213, // deadlock
		1206, // too many locks
		1020: // MariaDB: the row has changed since it was read
		return true
	}
	return givenUp(err)
}

// transient reports whether the transaction failed only because of another one, or
// was never received because the connection was stale.
func transient(err error) bool {
	switch number(err) {
	case 1213, // deadlock; on Galera another node was first, reported at the commit
		1205,       // waited too long for a lock
		1412,       // a table was altered meanwhile
		1020,       // MariaDB: the row has changed since it was read
		1243, 1615: // the prepared statement is unknown or outdated
		return true
	}
	return errors.Is(err, driver.ErrBadConn)
}

// readOnly reports whether the server takes no writes, at least not from this user.
func readOnly(err error) bool { return readOnlyNumber(number(err)) }

func readOnlyNumber(n uint16) bool {
	switch n {
	case 1290, // read_only, which is also what Aurora says of a reader
		1792, // a read-only transaction
		1836, // read_only
		1874, // InnoDB is read-only
		3100: // group replication: the commit was refused, as by a secondary
		return true
	}
	return false
}

// wrongServer reports whether no session to the server can be used any longer.
func wrongServer(n uint16) bool {
	switch n {
	case 1053, // shutting down
		1047: // Galera: the node is not part of the cluster
		return true
	}
	return readOnlyNumber(n)
}

// refused reports whether the server will never accept the values.
func refused(err error) bool {
	switch n := number(err); {
	case n == 1264, n == 1406, // out of range, too long
		n == 1300, n == 1366, // not in the character set
		n >= 3140 && n <= 3158, // MySQL: no JSON, too deep, too large
		n == 4025:              // MariaDB: no JSON by the check of the column
		return true
	}
	return tooLarge(err)
}

// tooLarge reports whether a statement is too large for one packet.
func tooLarge(err error) bool {
	return number(err) == 1153 && !tooManyRows(err) || errors.Is(err, gomysql.ErrPktTooLarge)
}

// denied reports whether the role lacks a privilege. Vitess has the number of a failed login
// for what its own lists of rights refuse.
func denied(err error) bool {
	switch number(err) {
	case 1044, 1142, 1143, 1227, 1370:
		return true
	}
	return number(err) == 1045 && says(err, "ACL check error")
}

// outages are error numbers that concern the server as a whole and not the
// statement.
var outages = [][]uint16{
	{1213, 1205, 1412, 1020, 1243, 1615},                                     // retries did not help
	{1040, 1203, 1226},                                                       // too many connections
	{1021, 1037, 1038, 1041, 1114, 1135, 1206},                               // no room
	{1053, 1077, 1078, 1079, 1080},                                           // shutting down
	{1152, 1154, 1155, 1156, 1157, 1158, 1159, 1160, 1161, 1184, 1927, 4031}, // the connection broke
	{2006, 2013},                         // a connection of Vitess to a shard broke
	{1180, 1181},                         // the commit or the rollback failed
	{1317, 3024, 1969, 1028},             // ended by an operator or by a time limit; see tooManyRows
	{1045, 1049, 1129, 1130, 1131, 1698}, // not let in
	{1047},                               // Galera: the node is not part of the cluster
	{1105},                               // unspecific: Vitess reports a shard without a primary with it
}

func outage(n uint16) bool {
	return slices.ContainsFunc(outages, func(numbers []uint16) bool { return slices.Contains(numbers, n) })
}

// problem describes a refusal. The server's message may quote the document; its
// number does not.
func problem(err error) string {
	if tooLarge(err) {
		return "larger than one packet of the database (max_allowed_packet)"
	}
	return fmt.Sprintf("refused by the json column (error %d)", number(err))
}

// classify converts an error of the driver to one of the contract. An error about
// the statement itself is returned unchanged: it is a defect, and waiting does not
// help.
func classify(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil && !errors.Is(err, ctx.Err()):
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	case ctx.Err() != nil:
		return err
	case errors.Is(err, store.ErrLeaseLost), errors.Is(err, store.ErrEpochChanged),
		errors.Is(err, store.ErrCopyChanged), errors.Is(err, store.ErrNotDue), errors.Is(err, store.ErrNotFound):
		return err
	case errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("%w: %w", store.ErrNotFound, err)
	case tooLarge(err):
		return fault.Wrap(err, fault.Precondition, fault.ReasonDocumentTooLarge,
			"the document is larger than one packet of the database; raise its max_allowed_packet")
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err // classified already
	}
	const ours = "; this is a defect of the service, and not an outage: report the line of the log"
	if _, ok := errors.AsType[connectError](err); !ok {
		switch n := number(err); {
		case readOnlyNumber(n):
			return fault.Wrap(fmt.Errorf("%w: %w", store.ErrReadOnly, err), fault.Unavailable, fault.ReasonStoreUnavailable,
				"the database takes no writes")
		case denied(err):
			return fault.Wrap(err, fault.Unavailable, fault.ReasonStoreUnavailable,
				"the database user lacks a right; grant it select, insert, update and delete on all tables of the database")
		case tooManyRows(err):
			return fault.Wrap(err, fault.Precondition, fault.ReasonStoreLimitExceeded,
				"the database refuses a statement about so many rows"+ours)
		case spansShards(err):
			return fault.Wrap(err, fault.Precondition, fault.ReasonStoreLimitExceeded,
				"the database refuses a transaction on several shards"+ours)
		case givenUp(err):
			return fault.Wrap(err, fault.Unavailable, fault.ReasonStoreUnavailable,
				"the database ended a transaction that took too long, several times")
		case n == 1146, n == 1054: // no such table or column
			return fault.Wrap(fmt.Errorf("%w: %w", store.ErrSchemaBehind, err), fault.Unavailable, fault.ReasonSchemaBehind,
				"the database schema is older than this version needs; run liveblocks-mirror migrate")
		case n != 0 && !outage(n):
			return err
		}
	}
	return fault.Wrap(err, fault.Unavailable, fault.ReasonStoreUnavailable, "the database is not available")
}

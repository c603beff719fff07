package dbtest

import (
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/pgtest"
)

// Pair is a primary and a replica that takes no writes and has all that the primary
// has acknowledged.
type Pair struct {
	// Primary and Replica are the URLs of the same database on either, as the service's role
	// has them.
	Primary, Replica string
	// Kill ends the primary at once. Demote lets it live and refuse writes. Promote
	// lets the replica take writes.
	Kill, Demote, Promote func(tb testing.TB)
}

// Pair starts a pair for tb alone, with the current schema, and stops it when tb ends.
func (e *Engine) Pair(tb testing.TB) *Pair {
	tb.Helper()
	var pair *Pair
	var primary, replica string // of administrators
	if e == MySQL {
		const database = "mirror"
		p := mysqltest.StartPair(tb, database)
		primary, replica = p.Primary.URL(database), p.Replica.URL(database)
		pair = &Pair{Kill: p.Kill, Demote: p.Demote, Promote: p.Promote}
	} else {
		p := pgtest.StartPair(tb)
		primary, replica = p.Primary.URL(), p.Standby.URL()
		pair = &Pair{Kill: p.Kill, Demote: p.Demote, Promote: p.Promote}
	}
	if err := migrateAsOwner(tb.Context(), primary); err != nil {
		tb.Fatalf("dbtest: %v", err)
	}
	pair.Primary, pair.Replica = service(primary), service(replica)
	return pair
}

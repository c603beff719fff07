package crash_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/liveblockstest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/pgembed/pgtest"
)

// steps are the places at which the service is killed. reach waits until it is
// there, under load, proves it, and returns what has to happen once it is dead.
var steps = []struct {
	name  string
	reach func(s *site) (after func())
	// late lets after wait until the next service runs.
	late bool
}{
	{name: "before the ledger statement is sent", reach: beforeLedger},
	{name: "while the ledger statement runs", reach: duringLedger},
	{name: "while the ledger statement outlives the service", reach: duringLedger, late: true},
	{name: "after the ledger commit, before the answer", reach: afterLedger},
	{name: "during the fetch", reach: duringFetch},
	{name: "before a document's commit", reach: beforeCommit("UpsertDocument")},
	{name: "before a new room's commit", reach: beforeCommit("UpsertRoom")},
	{name: "before a tombstone's commit", reach: beforeCommit("TombstoneRoom")},
	{name: "after a document's commit", reach: afterCommit},
}

// Invariants 1, 3 and 5 at every step.
func TestKilledAtStep(t *testing.T) {
	t.Parallel()
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, clone(t))
			service := s.start()
			s.populate(service)
			stop := s.load()
			s.more(20)

			after := step.reach(s)
			s.kill(service)
			if !step.late {
				after()
			}
			service = s.start()
			if step.late {
				after()
			}
			s.more(50)
			stop()
			s.converge(service)
		})
	}
}

// At random moments, whichever step that is.
func TestKilledAtRandom(t *testing.T) {
	t.Parallel()
	s := newSite(t, clone(t))
	service := s.start()
	s.populate(service)
	stop := s.load()
	s.fake.SetDelay(func(liveblockstest.Call) liveblockstest.Delay {
		return liveblockstest.Delay{After: rand.N(20 * time.Millisecond)}
	})
	for range 6 {
		s.more(1 + rand.Int64N(80))
		s.kill(service)
		service = s.start()
	}
	s.more(50)
	stop()
	s.fake.SetDelay(nil)
	s.converge(service)
}

func recorded(s *site, ids []string) int {
	s.t.Helper()
	return one[int](s, "select count(*) from mirror_event where event_id = any($1)", ids)
}

func beforeLedger(s *site) func() {
	s.t.Helper()
	tr := s.proxy.set(beforeSend, "AcceptEvents")
	tr.await(s.t)
	if ids := s.caught(tr); recorded(s, ids) != 0 {
		s.t.Fatalf("events %v are recorded before their statement is sent", ids)
	}
	return tr.cut
}

// duringLedger lets the statement run into a lock, after it has written its
// events. The server finishes it when the lock is gone, whether or not anybody
// still waits for it.
func duringLedger(s *site) func() {
	s.t.Helper()
	tx, err := s.db.Begin(s.t.Context())
	if err != nil {
		s.t.Fatalf("Begin = %v", err)
	}
	if _, err := tx.Exec(s.t.Context(), "lock table mirror_resource_state in share mode"); err != nil {
		s.t.Fatalf("lock = %v", err)
	}
	const waiting = `select count(*) from pg_stat_activity
		where datname = current_database() and wait_event_type = 'Lock' and query like '-- name: AcceptEvents%'`
	eventually(s.t, func() error {
		n, err := queryOne[int](s, waiting)
		if err != nil {
			return err
		}
		return unless(n > 0, "no ledger statement waits for the lock")
	})
	return func() {
		if err := tx.Rollback(s.t.Context()); err != nil {
			s.t.Fatalf("Rollback = %v", err)
		}
	}
}

func afterLedger(s *site) func() {
	s.t.Helper()
	tr := s.proxy.set(beforeReply, "AcceptEvents")
	tr.await(s.t)
	if ids := s.caught(tr); recorded(s, ids) != len(ids) {
		s.t.Fatalf("%d of the events %v are recorded; want all, with the reply held", recorded(s, ids), ids)
	}
	return tr.cut
}

func duringFetch(s *site) func() {
	s.t.Helper()
	hold := liveblockstest.NewHold()
	s.t.Cleanup(hold.Release)
	s.fake.Script(liveblockstest.Match{Endpoint: liveblockstest.EndpointStorage}, hold.Step().Times(3), hold.Step().Late())
	s.fake.Script(liveblockstest.Match{Endpoint: liveblockstest.EndpointRoom}, hold.Step())
	for range 5 {
		select {
		case <-hold.Arrived():
		case <-time.After(patience):
			s.t.Fatal("no fetch arrived")
		}
	}
	if n := one[int](s, "select count(*) from mirror_resource_state where lease_token is not null"); n < 5 {
		s.t.Fatalf("%d leases while 5 fetches are held; want one for each", n)
	}
	return func() {
		hold.Release()
		s.fake.ClearScripts()
	}
}

// written counts the rows whose content a held transaction has sent.
func written(s *site, tr *trap) int {
	s.t.Helper()
	return one[int](s, `select count(*) from (
		select content_sha256 from mirror_document union all select content_sha256 from mirror_room
	) c where position(content_sha256 in $1::bytea) > 0`, tr.data)
}

// beforeCommit holds the commit of a transaction that has done a statement.
func beforeCommit(statement string) func(s *site) func() {
	return func(s *site) func() {
		s.t.Helper()
		tr := s.proxy.set(beforeSend, statement, "commit")
		tr.await(s.t)
		if n := one[int](s, "select count(*) from pg_stat_activity where datname = current_database() and state = 'idle in transaction'"); n == 0 {
			s.t.Fatal("no transaction is open while its commit is held")
		}
		if n := written(s, tr); n != 0 {
			s.t.Fatalf("%d rows are there before the commit that writes them", n)
		}
		return tr.cut
	}
}

// afterCommit holds the reply to the commit of a document, which everybody else
// can see by then.
func afterCommit(s *site) func() {
	s.t.Helper()
	tr := s.proxy.set(beforeReply, "UpsertDocument", "commit")
	tr.await(s.t)
	if n := written(s, tr); n != 1 {
		s.t.Fatalf("%d rows are there after the commit whose reply is held; want 1", n)
	}
	return tr.cut
}

// In the middle of the first migration: it leaves no half of a schema, and its
// lock does not outlive it for long.
func TestKilledWhileMigrating(t *testing.T) {
	t.Parallel()
	s := newSite(t, pgtest.Database(t))
	s.env["MIRROR_MIGRATE"] = "true"
	tr := s.proxy.set(beforeSend, "create", "alter") // with some of the tables made
	cmd := harness.Command(t.Context(), t, map[string]string{"DATABASE_URL": s.url}, "migrate")
	if err := cmd.Start(); err != nil {
		t.Fatalf("Start = %v", err)
	}
	tr.await(t)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatalf("Kill = %v", err)
	}
	_ = cmd.Wait() // it was killed
	tr.cut()
	if one[bool](s, "select to_regclass('mirror_event') is not null") {
		t.Fatal("a table of an unfinished migration is there")
	}
	begun := time.Now()
	service := s.start()
	if took := time.Since(begun); took > 25*time.Second {
		t.Errorf("the next start took %v; want it to wait for the lock 10 s at most", took)
	}
	s.create("room", document(1))
	s.converge(service)
}

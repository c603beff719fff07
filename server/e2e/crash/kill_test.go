package crash_test

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
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
	{name: "before a document's commit", reach: beforeCommit(writeDocument)},
	{name: "before a new room's commit", reach: beforeCommit("UpsertRoom")},
	{name: "before a tombstone's commit", reach: beforeCommit("TombstoneRoom")},
	{name: "after a document's commit", reach: afterCommit},
}

// Invariants 1, 3 and 5 at every step.
func TestKilledAtStep(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		for _, step := range steps {
			t.Run(step.name, func(t *testing.T) {
				t.Parallel()
				s := newSite(t, e)
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
	})
}

// At random moments, whichever step that is.
func TestKilledAtRandom(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		s := newSite(t, e)
		s.env["MIRROR_LEASE_TTL"] = "1s" // no task is held, and those of the dead are taken over under load
		service := s.start()
		s.populate(service)
		stop := s.load()
		s.upstream.SetDelay(func(fake.Call) fake.Delay {
			return fake.Delay{After: rand.N(20 * time.Millisecond)}
		})
		for range 4 {
			s.more(1 + rand.Int64N(80))
			s.kill(service)
			service = s.start()
		}
		s.more(50)
		stop()
		s.upstream.SetDelay(nil)
		s.converge(service)
	})
}

func recorded(s *site, ids []string) int {
	s.t.Helper()
	in, args := dbtest.In(ids)
	return one[int](s, "select count(*) from mirror_event where event_id in "+in, args...)
}

func beforeLedger(s *site) func() {
	s.t.Helper()
	tr := s.proxy.set(beforeSend, s.words.ledger)
	tr.await(s.t)
	if ids := s.caught(tr); recorded(s, ids) != 0 {
		s.t.Fatalf("events %v are recorded before their statement is sent", ids)
	}
	return tr.cut
}

// duringLedger lets the transaction run into a lock, after it has written its
// events. The server goes on with it when the lock is gone, whether or not anybody
// still waits for it.
func duringLedger(s *site) func() {
	s.t.Helper()
	release := func() {}
	if !s.proxy.pooled { // there, a statement that is held is parsed already, which needs what is locked here
		tr := s.proxy.set(beforeSend, s.words.runs...)
		tr.await(s.t)
		release = tr.release
	}
	unlock := s.db.LockTable(s.t, "mirror_resource_state", "share")
	release()
	waiting := s.db.OfServer(s.t, s.words.waiting)
	eventually(s.t, func() error {
		n, err := queryOne[int](s, waiting)
		if err != nil {
			return err
		}
		return unless(n > 0, "no ledger statement waits for the lock")
	})
	return unlock
}

func afterLedger(s *site) func() {
	s.t.Helper()
	tr := s.proxy.set(beforeReply, s.words.ledger, "commit")
	tr.await(s.t)
	if ids := s.caught(tr); recorded(s, ids) != len(ids) {
		s.t.Fatalf("%d of the events %v are recorded; want all, with the reply held", recorded(s, ids), ids)
	}
	return tr.cut
}

func duringFetch(s *site) func() {
	s.t.Helper()
	hold := fake.NewHold()
	s.t.Cleanup(hold.Release)
	s.upstream.Script(fake.Match{Endpoint: fake.EndpointStorage}, hold.Step().Times(3), hold.Step().Late())
	s.upstream.Script(fake.Match{Endpoint: fake.EndpointRoom}, hold.Step())
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
		s.upstream.ClearScripts()
	}
}

// written counts the rows whose content a held transaction has sent. Their hash
// would not do: a transaction also says which copy it means to replace.
func written(s *site, tr *trap) int {
	s.t.Helper()
	n := 0
	s.each("select content from mirror_document union all select source_json from mirror_room",
		func(scan func(dest ...any) error) error {
			var content []byte
			if err := scan(&content); err != nil {
				return err
			}
			if bytes.Contains(tr.data, content) {
				n++
			}
			return nil
		})
	return n
}

// beforeCommit holds the commit of a transaction that has done a statement. It lets those
// go that write what is there already: a document that was fetched before its new room is
// written once more with the room's epoch.
func beforeCommit(statement string) func(s *site) func() {
	return func(s *site) func() {
		s.t.Helper()
		for range 10 {
			tr := s.proxy.set(beforeSend, statement, "commit")
			tr.await(s.t)
			if len(tr.tx) > 1 {
				open := s.db.OfServer(s.t, s.words.open)
				eventually(s.t, func() error {
					n, err := queryOne[int](s, open)
					if err != nil {
						return err
					}
					return unless(n > 0, "no transaction is open that has written something while its commit is held")
				})
			}
			if written(s, tr) == 0 {
				return tr.cut
			}
			tr.release()
		}
		s.t.Fatal("rows are there before the commit that writes them, every time")
		return nil
	}
}

// frame begins the content of a document: it is sent only if it has changed.
const frame = "\x28\xb5\x2f\xfd" // zstd

// afterCommit holds the reply to the commit of a document, which everybody else
// can see by then. It lets the replies go of statements that have found something
// changed and written nothing: a transaction follows. It also lets those go that
// write no content.
func afterCommit(s *site) func() {
	s.t.Helper()
	var tr *trap
	for tr == nil || s.words.wroteNothing(tr.reply) || !bytes.Contains(tr.data, []byte(frame)) {
		if tr != nil {
			tr.release()
		}
		tr = s.proxy.set(beforeReply, writeDocument, "commit")
		tr.await(s.t)
	}
	// The commit has given the lease back. A service that notices would fetch the document again,
	// and could replace the row before it is looked for: it stands still until it is killed.
	for _, service := range *s.targets.Load() {
		s.signal(service, syscall.SIGSTOP)
	}
	if n := written(s, tr); n != 1 {
		s.t.Fatalf("%d rows are there after the commit whose reply is held; want 1", n)
	}
	return tr.cut
}

// In the middle of the first migration: it leaves no half of a schema, or one that
// the next is not troubled by, and its lock does not outlive it for long.
func TestKilledWhileMigrating(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		s := newSiteAt(t, e, e.Empty(t))
		s.env["MIRROR_MIGRATE"] = "true"
		tr := s.proxy.set(beforeSend, s.words.migrating...) // with some of the tables made
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
		tables := one[int](s, "select count(*) from information_schema.tables where table_name in ('mirror_event', "+
			"'mirror_room') and table_schema = "+e.Schema)
		if tables != s.words.tables {
			t.Fatalf("an unfinished migration left %d of its tables; want %d", tables, s.words.tables)
		}
		holder := one[string](s, "select locked_by from mirror_schema_lock where locked")
		begun := time.Now()
		cmd = harness.Command(t.Context(), t, map[string]string{"DATABASE_URL": s.url}, "migrate")
		if err := cmd.Start(); err != nil {
			t.Fatalf("Start = %v", err)
		}
		eventually(t, func() error {
			n, err := queryOne[int](s, "select count(*) from mirror_schema_lock where locked_by = ?", holder)
			if err != nil {
				return err
			}
			return unless(n == 0, "the lock is still that of the process that was killed")
		})
		// The tables are made only then, which takes long on a machine that does much else.
		if took := time.Since(begun); took > 25*time.Second {
			t.Errorf("the lock of a dead process was taken over after %v; want the next one to wait 10 s at most", took)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("migrate = %v", err)
		}
		if n := one[int](s, "select count(*) from mirror_schema_version where version_id > 0"); n == 0 {
			t.Fatal("no migration was applied")
		}
		service := s.start()
		s.create("room", document(1))
		s.converge(service)
	})
}

// A task that kills the process each time is counted at its claim, so it is given up
// in the end, and an operator may try it again.
func TestTaskThatKillsTheProcess(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		const deadly = "deadly"
		s := newSite(t, e)
		service := s.start()
		s.create(deadly, document(1))
		s.create("other", document(2))
		s.converge(service)

		held := fake.NewHold()
		t.Cleanup(held.Release)
		s.upstream.Script(fake.Match{Room: deadly, Endpoint: fake.EndpointStorage}, held.Step().Always())
		s.setStorage(3, deadly)
		for n := range store.MaxDeaths + store.MaxDeathsAlone {
			s.awaitHeld(held, 1)
			eventually(t, func() error {
				deaths, err := queryOne[int](s, "select deaths from mirror_resource_state where kind = 2 and room_id = ?", deadly)
				if err != nil {
					return err
				}
				return unless(deaths == n, "%d deaths were counted after %d kills", deaths, n)
			})
			if n < store.MaxDeaths { // from then on it runs while nothing else does
				s.setStorage(10+n, "other")
				s.senders.Wait()
				s.awaitDocument("other", document(10+n))
			}
			s.kill(service)
			// Only a process that has lost the lease on a slow machine calls again, and that call is
			// not to be taken for one of the next process.
			if n := len(held.Arrived()); n != 0 {
				if !strings.Contains(service.Log(), "lease lost") {
					t.Errorf("%d more calls were made by a process that has its lease", n)
				}
				s.awaitHeld(held, n)
			}
			service = s.start()
		}
		tasks := func() []*mirrorv1.Task {
			resp, err := service.Admin(t).ListTasks(t.Context(),
				&mirrorv1.ListTasksRequest{RoomId: deadly, State: mirrorv1.TaskState_TASK_STATE_FAILED})
			if err != nil {
				t.Fatalf("ListTasks = %v", err)
			}
			return resp.GetTasks()
		}
		eventually(t, func() error {
			return unless(len(tasks()) == 1, "%d tasks have failed; want the one that kills the process", len(tasks()))
		})
		if task := tasks()[0]; !strings.Contains(task.GetLastError(), "the process ended 5 times during this task") {
			t.Errorf("task = %v; want it to say that it kills the process", task)
		}
		if n := len(held.Arrived()); n != 0 {
			t.Errorf("%d more calls were made for it", n)
		}

		held.Release()
		again := &mirrorv1.RetryTaskRequest{TaskId: tasks()[0].GetTaskId()}
		if _, err := service.Admin(t).RetryTask(t.Context(), again); err != nil {
			t.Fatalf("RetryTask = %v", err)
		}
		s.converge(service)
	})
}

// awaitDocument waits until a room's Storage document is lson.
func (s *site) awaitDocument(room string, lson []byte) {
	s.t.Helper()
	s.awaitDocumentIn(s.db, room, lson)
}

// awaitDocumentIn waits for it in a part of the database.
func (s *site) awaitDocumentIn(db *dbtest.DB, room string, lson []byte) {
	s.t.Helper()
	sum := sha256.Sum256(lson)
	eventually(s.t, func() error {
		n, err := dbtest.Value[int](s.t.Context(), db,
			"select count(*) from mirror_document where kind = 2 and room_id = ? and content_sha256 = ?", room, sum[:])
		if err != nil {
			return err
		}
		return unless(n == 1, "the document of %q is not mirrored", room)
	})
}

package engine_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/storetest"
)

// race is a database on which another session holds locks, and a store that waits
// for them.
type race struct {
	engine *dbtest.Engine
	url    string
	db     *dbtest.DB // of the other session, and for looking
	store  store.Store
	lease  mirror.Lease // of the storage of a room that is due as well
	now    time.Time
}

// newRace opens the store with settings of the server: options of PostgreSQL, or
// parameters of MySQL's URL.
func newRace(t *testing.T, e *dbtest.Engine, settings string) *race {
	t.Helper()
	to := e.Database(t)
	r := &race{engine: e, url: to, now: testTime}
	if e == dbtest.Postgres {
		// The other session looks for deadlocks so late that it is never the victim.
		r.db = e.Connect(t, withOptions(t, dbtest.Admin(to), "-c deadlock_timeout=10min"))
		if settings != "" {
			to = dbtest.Admin(to) // only administrators may set what tests do
		}
		r.store = open(t, engine.Config{URL: withOptions(t, to, settings)})
	} else {
		r.db = e.Connect(t, to)
		r.store = open(t, engine.Config{URL: to + settings})
	}
	r.claim(t)
	return r
}

// raceOn is a race on a database of the test's own.
func raceOn(t *testing.T, e *dbtest.Engine, url string) *race {
	t.Helper()
	r := &race{engine: e, url: url, now: testTime, db: e.Connect(t, url), store: open(t, engine.Config{URL: url})}
	r.claim(t)
	return r
}

func (r *race) claim(t *testing.T) {
	t.Helper()
	room := mirror.Resource{Project: "default", Room: "room", Kind: mirror.KindRoom}
	storage := mirror.Resource{Project: "default", Room: "room", Kind: mirror.KindStorage}
	if _, err := r.store.Request(t.Context(), requestsFor(room, storage), r.now); err != nil {
		t.Fatalf("Request = %v", err)
	}
	var err error
	if r.lease, err = r.store.Claim(t.Context(), storage, [16]byte{1}, r.now, time.Minute); err != nil {
		t.Fatalf("Claim = %v", err)
	}
}

// withOptions adds settings of the server to a URL of PostgreSQL.
func withOptions(t *testing.T, to, options string) string {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatalf("Parse = %v", err)
	}
	q := u.Query()
	q.Set("options", options)
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20") // in these URLs a plus is a plus
	return u.String()
}

// mirrorRoom mirrors the room, as if that had been before the claim.
func (r *race) mirrorRoom(t *testing.T) {
	t.Helper()
	room, err := r.store.Claim(t.Context(), r.lease.Resource.RoomResource(), [16]byte{2}, r.now, time.Minute)
	if err == nil {
		_, err = r.store.ApplyRoom(t.Context(), room, mirror.RoomContent{
			FetchTime: r.now, Source: []byte(`{}`),
			CreateTime: r.now,
		}, r.now, 0)
	}
	if err != nil {
		t.Fatalf("mirror the room = %v", err)
	}
	r.lease.Epoch = 1
}

// apply applies a document for the lease.
func (r *race) apply(ctx context.Context, lease mirror.Lease, content string, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	return r.store.ApplyDocument(ctx, lease,
		mirror.DocumentContent{FetchTime: now, Content: []byte(content), DeriveVersion: 1}, now, settle)
}

// begin begins the other session's transaction with some statements.
func (r *race) begin(t *testing.T, statements ...string) *sql.Tx {
	t.Helper()
	// On MySQL, the default would lock all rows that a statement looks at.
	tx, err := r.db.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		t.Fatalf("BeginTx = %v", err)
	}
	for _, statement := range statements {
		if _, err := tx.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s = %v", statement, err)
		}
	}
	return tx
}

func commit(t *testing.T, tx *sql.Tx) {
	t.Helper()
	if err := tx.Commit(); err != nil {
		t.Fatalf("Commit = %v", err)
	}
}

// waiting waits until so many sessions wait for locks.
func (r *race) waiting(t *testing.T, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d sessions that wait", n), func() bool {
		if r.engine == dbtest.Postgres {
			return value[int](t, r.db,
				"select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'") == n
		}
		return len(r.waits(t)) == n
	})
}

var waitingSession = regexp.MustCompile(`(?s)LOCK WAIT.* thread id (\d+), .* query id (\d+) `)

// waits lists the statements of MySQL that wait for a lock. The tables that would say
// so are not read anew as long as anybody reads them often.
func (r *race) waits(t *testing.T) (statements []string) {
	t.Helper()
	var ignored, name, status string
	if err := r.db.QueryRowContext(t.Context(), "show engine innodb status").Scan(&ignored, &name, &status); err != nil {
		t.Fatalf("show engine innodb status = %v", err)
	}
	for _, section := range strings.Split(status, "---TRANSACTION") {
		m := waitingSession.FindStringSubmatch(section)
		if m != nil && value[int](t, r.db,
			r.db.OfServer(t, "select count(*) from {processlist} p where db = database() and id = ?"), m[1]) == 1 {
			statements = append(statements, m[2])
		}
	}
	return statements
}

const (
	lockRoomState    = "select generation from mirror_resource_state where room_id = 'room' and kind = 1 for update"
	lockStorageState = "select generation from mirror_resource_state where bucket = 175 and project_id = 'default' " +
		"and room_id = 'room' and kind = 2 for update"
)

// calls are transactions that lock the room's state and then the storage's.
func calls() map[string]func(ctx context.Context, r *race) error {
	return map[string]func(ctx context.Context, r *race) error{
		"Park": func(ctx context.Context, r *race) error {
			applied, err := r.store.Park(ctx, r.lease, r.now)
			if err == nil && (!applied.Due.IsZero() || len(applied.AlsoDue) != 0) {
				return fmt.Errorf("Park = %+v; want the child asleep beside a pending room", applied)
			}
			return err
		},
		// Accept never waits for long; see TestLockedRowsKeepBackTheirEventsOnly.
		"Request": func(ctx context.Context, r *race) error {
			got, err := r.store.Request(ctx, requestsFor(r.lease.Resource, r.lease.Resource.RoomResource()), r.now)
			if err == nil && (len(got) != 2 || got[0].Generation != 2 || got[1].Generation != 2) {
				return fmt.Errorf("Request = %+v; want both marked stale once", got)
			}
			return err
		},
	}
}

// The server undoes one side of a deadlock, ours, and the method never tells.
func TestDeadlockIsRetried(t *testing.T) {
	t.Parallel()
	// On PostgreSQL, the time in which the other side has to close the circle.
	settings := map[*dbtest.Engine]string{dbtest.Postgres: "-c deadlock_timeout=15s"}
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		for what, call := range calls() {
			t.Run(what, func(t *testing.T) {
				t.Parallel()
				r := newRace(t, e, settings[e])
				tx := r.begin(t, lockStorageState)
				for n := range 100 { // on MySQL, what it has written makes the other side the heavier
					if _, err := tx.ExecContext(t.Context(),
						fmt.Sprintf("insert into mirror_feed_head (bucket, n) values (%d, 1)", 1000+n)); err != nil {
						t.Fatalf("insert = %v", err)
					}
				}
				done := make(chan error, 1)
				go func() { done <- call(t.Context(), r) }()
				r.waiting(t, 1) // it has the room, and wants the storage
				// Getting the room proves that the other transaction was undone.
				if _, err := tx.ExecContext(t.Context(), lockRoomState); err != nil {
					t.Fatalf("lock the room = %v; want the store to be the victim", err)
				}
				if _, err := tx.ExecContext(t.Context(), "delete from mirror_feed_head where bucket >= 1000"); err != nil {
					t.Fatalf("delete = %v", err)
				}
				commit(t, tx)
				if err := <-done; err != nil {
					t.Fatalf("call in a deadlock = %v; want it retried", err)
				}
			})
		}
	})
}

// MySQL gives up a statement that has waited too long, and nothing else of its
// transaction; that is undone as a whole.
func TestLockWaitIsRetried(t *testing.T) {
	t.Parallel()
	for what, call := range calls() {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRace(t, dbtest.MySQL, "?innodb_lock_wait_timeout=1")
			tx := r.begin(t, lockStorageState)
			done := make(chan error, 1)
			go func() { done <- call(t.Context(), r) }()
			r.waiting(t, 1)
			first := r.waits(t)
			eventually(t, "another attempt", func() bool {
				again := r.waits(t)
				return len(again) == 1 && (len(first) == 0 || again[0] != first[0])
			})
			commit(t, tx)
			if err := <-done; err != nil {
				t.Fatalf("call that waited too long = %v; want it retried", err)
			}
		})
	}
}

// Where the settings of PostgreSQL ask for more isolation than we need, sessions are
// pinned to what we do: a concurrent update is waited for and is no failure.
func TestIsolationIsOurs(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"repeatable\\ read", "serializable"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			r := newRace(t, dbtest.Postgres, "-c default_transaction_isolation="+level)
			tx := r.begin(t, "update mirror_resource_state set generation = generation + 1")
			done := make(chan error, 1)
			go func() {
				_, err := r.store.Park(t.Context(), r.lease, r.now)
				done <- err
			}()
			r.waiting(t, 1)
			commit(t, tx)
			if err := <-done; err != nil {
				t.Fatalf("Park beside an update = %v; want it done", err)
			}
			task, err := r.store.Task(t.Context(), r.lease.Resource, r.now)
			if err != nil || task.Generation != 2 || task.State != mirror.TaskWaiting {
				t.Fatalf("Task = %+v, %v; want the update kept and the task waiting", task, err)
			}
		})
	}
}

// A statement that waited for a lock goes on with what it read before it waited,
// unless it locks that too. Here the room goes, or comes anew, while its storage
// waits to be applied.
func TestRoomChangesWhileApplyWaits(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		for what, change := range map[string]string{
			"deleted":   "update mirror_room set epoch = epoch + 1, delete_time = '2026-03-01'",
			"recreated": "update mirror_room set epoch = epoch + 1",
		} {
			t.Run(what, func(t *testing.T) {
				t.Parallel()
				r := newRace(t, e, "")
				r.mirrorRoom(t)
				tx := r.begin(t, "update mirror_resource_state set generation = generation + 1 where kind = 2", change)
				done := make(chan error, 1)
				go func() {
					_, err := r.apply(t.Context(), r.lease, "old", r.now, 0)
					done <- err
				}()
				r.waiting(t, 1)
				commit(t, tx)
				if err := <-done; !errors.Is(err, store.ErrEpochChanged) {
					t.Fatalf("ApplyDocument = %v; want %v", err, store.ErrEpochChanged)
				}
				if n := value[int](t, r.db, "select count(*) from mirror_document"); n != 0 {
					t.Fatalf("documents = %d; want none", n)
				}
			})
		}
	})
}

// While a document is applied, its room can neither go nor come anew.
func TestRoomWaitsForApply(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		r := newRace(t, e, "")
		r.mirrorRoom(t)
		// The other session holds the number that Apply takes last.
		tx := r.begin(t, "update mirror_feed_head set n = n where bucket = 175",
			"select n from mirror_feed_head where bucket = 175 for update")
		done := make(chan error, 1)
		go func() {
			_, err := r.apply(t.Context(), r.lease, "new", r.now, 0)
			done <- err
		}()
		r.waiting(t, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := r.db.ExecContext(ctx, "update mirror_room set epoch = epoch + 1")
		if err == nil || ctx.Err() == nil {
			t.Fatalf("update of the room = %v; want it to wait", err)
		}
		commit(t, tx)
		if err := <-done; err != nil {
			t.Fatalf("ApplyDocument = %v", err)
		}
	})
}

// A claim that waits for the end of another goes on with the document it saw
// before it waited. What is decided on that must not be written.
func TestDocumentChangesWhileClaimWaits(t *testing.T) {
	t.Parallel()
	hash := map[*dbtest.Engine]string{dbtest.Postgres: "sha256('%s')", dbtest.MySQL: "unhex(sha2('%s', 256))"}
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		r := newRace(t, e, "")
		r.mirrorRoom(t)
		if _, err := r.apply(t.Context(), r.lease, "old", r.now, time.Second); err != nil {
			t.Fatalf("ApplyDocument = %v", err)
		}
		// Somebody whose lease has just ended applies another version.
		tx := r.begin(t, "update mirror_resource_state set revision = revision + 1 where kind = 2",
			"update mirror_document set content_sha256 = "+fmt.Sprintf(hash[e], "new"))
		type claimed struct {
			lease mirror.Lease
			err   error
		}
		done := make(chan claimed, 1)
		later := r.now.Add(time.Minute)
		go func() {
			lease, err := r.store.Claim(t.Context(), r.lease.Resource, [16]byte{3}, later, time.Minute)
			done <- claimed{lease, err}
		}()
		r.waiting(t, 1)
		commit(t, tx)
		c := <-done
		if c.err != nil {
			t.Fatalf("Claim = %v", c.err)
		}
		// And the source has gone back to the one before.
		applied, err := r.apply(t.Context(), c.lease, "old", later, 0)
		if err != nil || !applied.Changed {
			t.Fatalf("ApplyDocument = %+v, %v; want the document changed", applied, err)
		}
		if n := value[int](t, r.db, "select count(*) from mirror_document where content_sha256 = "+
			fmt.Sprintf(hash[e], "old")); n != 1 {
			t.Fatal("the document is not the one that was fetched last")
		}
	})
}

// What CleanRoom found may be overwritten by the new incarnation before it is
// deleted; that row has to stay.
func TestCleanRoomSparesWhatIsWrittenMeanwhile(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		r := newRace(t, e, "")
		r.mirrorRoom(t)
		if _, err := r.apply(t.Context(), r.lease, "old", r.now, 0); err != nil {
			t.Fatalf("ApplyDocument = %v", err)
		}
		mustExec(t, r.db, "update mirror_room set epoch = 3") // deleted and back
		tx := r.begin(t, "update mirror_document set epoch = 3")
		done := make(chan error, 1)
		go func() {
			_, err := r.store.CleanRoom(t.Context(), r.lease.Resource.RoomResource(), 10)
			done <- err
		}()
		r.waiting(t, 1)
		commit(t, tx)
		if err := <-done; err != nil {
			t.Fatalf("CleanRoom = %v", err)
		}
		if n := value[int](t, r.db, "select count(*) from mirror_document"); n != 1 {
			t.Fatalf("documents = %d; want that of the new incarnation", n)
		}
	})
}

// Two deliveries of one event at once: the second waits for the first, and only
// then knows that it is a duplicate.
func TestDuplicateWaitsForTheFirst(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		for _, end := range []string{"commit", "rollback"} {
			t.Run(end, func(t *testing.T) {
				t.Parallel()
				r := newRace(t, e, "")
				// The first is written under another id, since the statement is the store's own.
				event := func(id, outcome string) mirror.Event {
					return mirror.Event{
						Project: "default", ID: id, ReceiveTime: r.now, SendTime: r.now,
						Outcome: mirror.Outcome(outcome),
					}
				}
				if _, err := r.store.Accept(t.Context(), []mirror.Delivery{{Event: event("first", "theirs")}}); err != nil {
					t.Fatalf("Accept = %v", err)
				}
				tx := r.begin(t, "update mirror_event set event_id = 'msg'")
				type answer struct {
					got []store.Accepted
					err error
				}
				done := make(chan answer, 1)
				go func() {
					batch := []mirror.Delivery{
						{Event: event("own", "own")},
						{Event: event("msg", "ours"), Invalidations: []mirror.Invalidation{{Resource: r.lease.Resource}}},
					}
					got, err := storetest.Accept(t.Context(), r.store, batch)
					done <- answer{got, err}
				}()
				r.waiting(t, 1)
				wantOutcome, wantGeneration := mirror.Outcome("theirs"), int64(1)
				if end == "commit" {
					commit(t, tx)
				} else {
					wantOutcome, wantGeneration = "ours", 2
					if err := tx.Rollback(); err != nil {
						t.Fatalf("Rollback = %v", err)
					}
				}
				a := <-done
				if a.err != nil || !a.got[0].Fresh || a.got[1].Fresh != (end == "rollback") || a.got[1].Outcome != wantOutcome ||
					len(a.got[1].Pending) != 1 || a.got[1].Pending[0].Generation != wantGeneration {
					t.Fatalf("Accept beside a %s = %+v, %v", end, a.got, a.err)
				}
			})
		}
	})
}

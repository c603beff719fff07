package mysql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql"
)

// eventually waits until done is true.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s does not come", what)
		case <-tick.C:
		}
	}
}

// race is a database on which somebody holds locks, and a store that waits for
// them.
type race struct {
	db    *sql.DB
	store *mysql.Store
	lease mirror.Lease
	now   time.Time
}

func newRace(t *testing.T, params string) *race {
	t.Helper()
	url := migratedDatabase(t)
	r := &race{db: mysqltest.Connect(t, url), store: open(t, mysql.Config{URL: url + params}),
		now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	resources := []mirror.Resource{{Project: "default", Room: "room", Kind: mirror.KindRoom},
		{Project: "default", Room: "room", Kind: mirror.KindStorage}}
	if _, err := r.store.Request(t.Context(), requestsFor(resources...), r.now); err != nil {
		t.Fatalf("Request = %v", err)
	}
	var err error
	if r.lease, err = r.store.Claim(t.Context(), resources[1], [16]byte{1}, r.now, time.Minute); err != nil {
		t.Fatalf("Claim = %v", err)
	}
	return r
}

// mirrorRoom mirrors the room, as if that had been before the claim.
func (r *race) mirrorRoom(t *testing.T) {
	t.Helper()
	room, err := r.store.Claim(t.Context(), r.lease.Resource.RoomResource(), [16]byte{2}, r.now, time.Minute)
	if err == nil {
		_, err = r.store.ApplyRoom(t.Context(), room, mirror.RoomContent{FetchTime: r.now, Source: []byte(`{}`),
			CreateTime: r.now}, r.now, 0)
	}
	if err != nil {
		t.Fatalf("mirror the room = %v", err)
	}
	r.lease.Epoch = 1
}

// begin begins the other side's transaction with some statements.
func (r *race) begin(t *testing.T, queries ...string) *sql.Tx {
	t.Helper()
	tx, err := r.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatalf("BeginTx = %v", err)
	}
	for _, query := range queries {
		if _, err := tx.ExecContext(t.Context(), query); err != nil {
			t.Fatalf("%s = %v", query, err)
		}
	}
	return tx
}

var waitingSession = regexp.MustCompile(`(?s)LOCK WAIT.* thread id (\d+), .* query id (\d+) `)

// waits reports whether a session waits for a lock, and in which statement. The
// tables that would say so are not read anew as long as anybody reads them often.
func (r *race) waits(t *testing.T) (statement string, ok bool) {
	t.Helper()
	var ignored, name, status string
	if err := r.db.QueryRowContext(t.Context(), "show engine innodb status").Scan(&ignored, &name, &status); err != nil {
		t.Fatalf("show engine innodb status = %v", err)
	}
	for _, section := range strings.Split(status, "---TRANSACTION") {
		m := waitingSession.FindStringSubmatch(section)
		if m != nil && value[int](t, r.db,
			"select count(*) from information_schema.processlist where db = database() and id = ?", m[1]) == 1 {
			return m[2], true
		}
	}
	return "", false
}

func (r *race) waiting(t *testing.T) {
	t.Helper()
	eventually(t, "a session that waits", func() bool { _, ok := r.waits(t); return ok })
}

func (r *race) commit(t *testing.T, tx *sql.Tx) {
	t.Helper()
	if err := tx.Commit(); err != nil {
		t.Fatalf("Commit = %v", err)
	}
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
		"Accept": func(ctx context.Context, r *race) error {
			a := mirror.Delivery{Event: mirror.Event{Project: "default", ID: "msg", ReceiveTime: r.now, SendTime: r.now}}
			for _, kind := range []mirror.Kind{mirror.KindStorage, mirror.KindRoom} {
				a.Invalidations = append(a.Invalidations,
					mirror.Invalidation{Resource: mirror.Resource{Project: "default", Room: "room", Kind: kind}})
			}
			got, err := r.store.Accept(ctx, []mirror.Delivery{a})
			if err == nil && (!got[0].Fresh || len(got[0].Pending) != 2 || got[0].Pending[0].Generation != 2) {
				return fmt.Errorf("Accept = %+v; want it fresh, and both raised once", got)
			}
			return err
		},
	}
}

// The server undoes the lighter side of a deadlock, ours, and the method never
// tells.
func TestDeadlockIsRetried(t *testing.T) {
	t.Parallel()
	for what, call := range calls() {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRace(t, "")
			// What it has written makes the other side the heavier.
			tx := r.begin(t, lockStorageState)
			for n := range 100 {
				if _, err := tx.ExecContext(t.Context(), "insert into mirror_feed_head (bucket, n) values (?, 1)",
					1000+n); err != nil {
					t.Fatalf("insert = %v", err)
				}
			}
			done := make(chan error, 1)
			go func() { done <- call(t.Context(), r) }()
			r.waiting(t) // it has the room, and wants the storage
			// Getting the room proves that the other transaction was undone.
			if _, err := tx.ExecContext(t.Context(), lockRoomState); err != nil {
				t.Fatalf("lock the room = %v; want the store to be the victim", err)
			}
			r.commit(t, tx)
			if err := <-done; err != nil {
				t.Fatalf("call in a deadlock = %v; want it retried", err)
			}
		})
	}
}

// The server gives up a statement that has waited too long, and nothing else of
// its transaction; that is undone as a whole.
func TestLockWaitIsRetried(t *testing.T) {
	t.Parallel()
	for what, call := range calls() {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRace(t, "?innodb_lock_wait_timeout=1")
			tx := r.begin(t, lockStorageState)
			done := make(chan error, 1)
			go func() { done <- call(t.Context(), r) }()
			r.waiting(t)
			first, _ := r.waits(t)
			eventually(t, "another attempt", func() bool {
				again, ok := r.waits(t)
				return ok && again != first
			})
			r.commit(t, tx)
			if err := <-done; err != nil {
				t.Fatalf("call that waited too long = %v; want it retried", err)
			}
		})
	}
}

// A statement that waited for a lock goes on with what it read before it waited,
// unless it locks that too. Here the room goes, or comes anew, while its storage
// waits to be applied.
func TestRoomChangesWhileApplyWaits(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]string{
		"deleted":   "update mirror_room set epoch = epoch + 1, delete_time = '2026-03-01'",
		"recreated": "update mirror_room set epoch = epoch + 1",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRace(t, "")
			r.mirrorRoom(t)
			tx := r.begin(t, "update mirror_resource_state set generation = generation + 1 where kind = 2", change)
			done := make(chan error, 1)
			go func() {
				_, err := r.store.ApplyDocument(t.Context(), r.lease,
					mirror.DocumentContent{FetchTime: r.now, Content: []byte("old"), DeriveVersion: 1}, r.now, 0)
				done <- err
			}()
			r.waiting(t)
			r.commit(t, tx)
			if err := <-done; !errors.Is(err, store.ErrEpochChanged) {
				t.Fatalf("ApplyDocument = %v; want %v", err, store.ErrEpochChanged)
			}
			if n := value[int](t, r.db, "select count(*) from mirror_document"); n != 0 {
				t.Fatalf("documents = %d; want none", n)
			}
		})
	}
}

// While a document is applied, its room can neither go nor come anew.
func TestRoomWaitsForApply(t *testing.T) {
	t.Parallel()
	r := newRace(t, "")
	r.mirrorRoom(t)
	// The other side holds the number that Apply takes last.
	tx := r.begin(t, "update mirror_feed_head set n = n where bucket = 175",
		"select n from mirror_feed_head where bucket = 175 for update")
	done := make(chan error, 1)
	go func() {
		_, err := r.store.ApplyDocument(t.Context(), r.lease,
			mirror.DocumentContent{FetchTime: r.now, Content: []byte("new"), DeriveVersion: 1}, r.now, 0)
		done <- err
	}()
	r.waiting(t)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := r.db.ExecContext(ctx, "update mirror_room set epoch = epoch + 1"); !errors.Is(err,
		context.DeadlineExceeded) {
		t.Fatalf("update of the room = %v; want it to wait", err)
	}
	r.commit(t, tx)
	if err := <-done; err != nil {
		t.Fatalf("ApplyDocument = %v", err)
	}
}

// What CleanRoom found may be overwritten by the new incarnation before it is
// deleted; that row has to stay.
func TestCleanRoomSparesWhatIsWrittenMeanwhile(t *testing.T) {
	t.Parallel()
	r := newRace(t, "")
	r.mirrorRoom(t)
	if _, err := r.store.ApplyDocument(t.Context(), r.lease,
		mirror.DocumentContent{FetchTime: r.now, Content: []byte("old"), DeriveVersion: 1}, r.now, 0); err != nil {
		t.Fatalf("ApplyDocument = %v", err)
	}
	mustExec(t, r.db, "update mirror_room set epoch = 3") // deleted and back
	tx := r.begin(t, "update mirror_document set epoch = 3")
	done := make(chan error, 1)
	go func() {
		_, err := r.store.CleanRoom(t.Context(), r.lease.Resource.RoomResource(), 10)
		done <- err
	}()
	r.waiting(t)
	r.commit(t, tx)
	if err := <-done; err != nil {
		t.Fatalf("CleanRoom = %v", err)
	}
	if n := value[int](t, r.db, "select count(*) from mirror_document"); n != 1 {
		t.Fatalf("documents = %d; want that of the new incarnation", n)
	}
}

// Two deliveries of one event at once: the second waits for the first, and only
// then knows that it is a duplicate.
func TestDuplicateWaitsForTheFirst(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"commit", "rollback"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			r := newRace(t, "")
			bucket := mirror.Bucket("default", "msg")
			tx := r.begin(t, fmt.Sprintf(`insert into mirror_event values (%d, 'default', 'msg', '', '', '', '', '', '2026-03-01', '2026-03-01', null, 'theirs', '')`, bucket))
			type answer struct {
				got []store.Accepted
				err error
			}
			done := make(chan answer, 1)
			go func() {
				got, err := r.store.Accept(t.Context(), []mirror.Delivery{
					{Event: mirror.Event{Project: "default", ID: "own", ReceiveTime: r.now, SendTime: r.now, Outcome: "own"}},
					{Event: mirror.Event{Project: "default", ID: "msg", ReceiveTime: r.now, SendTime: r.now, Outcome: "ours"},
						Invalidations: []mirror.Invalidation{{Resource: r.lease.Resource}}},
				})
				done <- answer{got, err}
			}()
			r.waiting(t)
			wantOutcome, wantGeneration := mirror.Outcome("theirs"), int64(1)
			if end == "commit" {
				r.commit(t, tx)
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
}

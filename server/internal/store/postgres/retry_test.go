package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres"
)

// withSettings adds settings of the server to a URL.
func withSettings(t *testing.T, to, options string) string {
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

const lockState = `select from mirror_resource_state where room_id = $1 and kind = $2 for update`

// race is a database on which somebody holds the state of a room's storage, and
// a store that waits for it.
type race struct {
	url         string
	conn, watch *pgx.Conn
	store       *postgres.Store
	lease       mirror.Lease
	now         time.Time
}

func newRace(t *testing.T, storeOptions string) *race {
	t.Helper()
	to := migratedDatabase(t)
	r := &race{
		url: to,
		// The other side looks for deadlocks so late that it is never the victim.
		conn: connect(t, withSettings(t, to, "-c deadlock_timeout=10min")), watch: connect(t, to),
		store: open(t, postgres.Config{URL: withSettings(t, to, storeOptions)}),
		now:   time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
	}
	resources := []mirror.Resource{{Project: "default", Room: "room", Kind: mirror.KindRoom},
		{Project: "default", Room: "room", Kind: mirror.KindStorage}}
	if _, err := r.store.Request(t.Context(), []mirror.Request{{Resource: resources[0]}, {Resource: resources[1]}},
		r.now); err != nil {
		t.Fatalf("Request = %v", err)
	}
	var err error
	if r.lease, err = r.store.Claim(t.Context(), resources[1], [16]byte{1}, r.now, time.Minute); err != nil {
		t.Fatalf("Claim = %v", err)
	}
	return r
}

// waiting waits until so many sessions wait for locks.
func (r *race) waiting(t *testing.T, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d sessions that wait", n), func() bool {
		return value[int](t, r.watch,
			"select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'") == n
	})
}

// The server undoes one side of a deadlock, ours, and the method never tells.
func TestDeadlockIsRetried(t *testing.T) {
	t.Parallel()
	for what, call := range map[string]func(ctx context.Context, r *race) error{
		"transaction": func(ctx context.Context, r *race) error {
			applied, err := r.store.Park(ctx, r.lease, r.now)
			if err == nil && (!applied.Due.IsZero() || len(applied.AlsoDue) != 0) {
				return fmt.Errorf("Park = %+v; want the child asleep beside a pending room", applied)
			}
			return err
		},
		"statement": func(ctx context.Context, r *race) error {
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
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			// The window in which the other side has to close the circle.
			r := newRace(t, "-c deadlock_timeout=3s")
			tx, err := r.conn.Begin(t.Context())
			if err != nil {
				t.Fatalf("Begin = %v", err)
			}
			if _, err := tx.Exec(t.Context(), lockState, "room", mirror.KindStorage); err != nil {
				t.Fatalf("lock the storage = %v", err)
			}
			done := make(chan error, 1)
			go func() { done <- call(t.Context(), r) }()
			r.waiting(t, 1) // it has the room, and wants the storage
			// Getting the room proves that the other transaction was undone.
			if _, err := tx.Exec(t.Context(), lockState, "room", mirror.KindRoom); err != nil {
				t.Fatalf("lock the room = %v; want the store to be the victim", err)
			}
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatalf("Commit = %v", err)
			}
			if err := <-done; err != nil {
				t.Fatalf("call in a deadlock = %v; want it retried", err)
			}
		})
	}
}

// Where the server's settings ask for more isolation than we need, concurrent
// updates are serialization failures.
func TestSerializationFailureIsRetried(t *testing.T) {
	t.Parallel()
	for _, level := range []string{"repeatable\\ read", "serializable"} {
		t.Run(level, func(t *testing.T) {
			t.Parallel()
			r := newRace(t, "-c default_transaction_isolation="+level)
			tx, err := r.conn.Begin(t.Context())
			if err != nil {
				t.Fatalf("Begin = %v", err)
			}
			if _, err := tx.Exec(t.Context(), "update mirror_resource_state set generation = generation + 1"); err != nil {
				t.Fatalf("update = %v", err)
			}
			done := make(chan error, 1)
			go func() {
				_, err := r.store.Park(t.Context(), r.lease, r.now)
				done <- err
			}()
			r.waiting(t, 1)
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatalf("Commit = %v", err)
			}
			if err := <-done; err != nil {
				t.Fatalf("Park beside an update = %v; want it retried", err)
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
	for what, change := range map[string]string{
		"deleted":   "update mirror_room set epoch = epoch + 1, delete_time = now()",
		"recreated": "update mirror_room set epoch = epoch + 1",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRace(t, "-c deadlock_timeout=1s")
			room, err := r.store.Claim(t.Context(), r.lease.Resource.RoomResource(), [16]byte{2}, r.now, time.Minute)
			if err == nil {
				_, err = r.store.ApplyRoom(t.Context(), room, mirror.RoomContent{FetchTime: r.now, Source: []byte(`{}`),
					CreateTime: r.now}, r.now, 0)
			}
			if err != nil {
				t.Fatalf("mirror the room = %v", err)
			}
			r.lease.Epoch = 1 // as claimed after that
			tx, err := r.conn.Begin(t.Context())
			if err != nil {
				t.Fatalf("Begin = %v", err)
			}
			for _, sql := range []string{"update mirror_resource_state set generation = generation + 1 where kind = 2", change} {
				if _, err := tx.Exec(t.Context(), sql); err != nil {
					t.Fatalf("%s = %v", sql, err)
				}
			}
			done := make(chan error, 1)
			go func() {
				_, err := r.store.ApplyDocument(t.Context(), r.lease,
					mirror.DocumentContent{FetchTime: r.now, Content: []byte("old"), DeriveVersion: 1}, r.now, 0)
				done <- err
			}()
			r.waiting(t, 1)
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatalf("Commit = %v", err)
			}
			if err := <-done; !errors.Is(err, store.ErrEpochChanged) {
				t.Fatalf("ApplyDocument = %v; want %v", err, store.ErrEpochChanged)
			}
			if n := value[int](t, r.watch, "select count(*) from mirror_document"); n != 0 {
				t.Fatalf("documents = %d; want none", n)
			}
		})
	}
}

// A claim that waits for the end of another goes on with the document it saw
// before it waited. What is decided on that must not be written.
func TestDocumentChangesWhileClaimWaits(t *testing.T) {
	t.Parallel()
	r := newRace(t, "-c deadlock_timeout=1s")
	room, err := r.store.Claim(t.Context(), r.lease.Resource.RoomResource(), [16]byte{2}, r.now, time.Minute)
	if err == nil {
		_, err = r.store.ApplyRoom(t.Context(), room, mirror.RoomContent{FetchTime: r.now, Source: []byte(`{}`),
			CreateTime: r.now}, r.now, 0)
	}
	if err != nil {
		t.Fatalf("mirror the room = %v", err)
	}
	r.lease.Epoch = 1 // as claimed after that
	old := mirror.DocumentContent{FetchTime: r.now, Content: []byte("old"), DeriveVersion: 1}
	if _, err := r.store.ApplyDocument(t.Context(), r.lease, old, r.now, time.Second); err != nil {
		t.Fatalf("ApplyDocument = %v", err)
	}
	// Somebody whose lease has just ended applies another version.
	tx, err := r.conn.Begin(t.Context())
	if err != nil {
		t.Fatalf("Begin = %v", err)
	}
	for _, sql := range []string{
		"update mirror_resource_state set revision = revision + 1 where kind = 2",
		"update mirror_document set content_sha256 = sha256('new')",
	} {
		if _, err := tx.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s = %v", sql, err)
		}
	}
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
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatalf("Commit = %v", err)
	}
	c := <-done
	if c.err != nil {
		t.Fatalf("Claim = %v", c.err)
	}
	// And the source has gone back to the one before.
	applied, err := r.store.ApplyDocument(t.Context(), c.lease, old, later, 0)
	if err != nil || !applied.Changed {
		t.Fatalf("ApplyDocument = %+v, %v; want the document changed", applied, err)
	}
	if !value[bool](t, r.watch, "select content_sha256 = sha256('old') from mirror_document") {
		t.Fatal("the document is not the one that was fetched last")
	}
}

// What CleanRoom found may be overwritten by the new incarnation before it is
// deleted; that row has to stay.
func TestCleanRoomSparesWhatIsWrittenMeanwhile(t *testing.T) {
	t.Parallel()
	r := newRace(t, "-c deadlock_timeout=1s")
	room := r.lease.Resource.RoomResource()
	lease, err := r.store.Claim(t.Context(), room, [16]byte{2}, r.now, time.Minute)
	if err == nil {
		_, err = r.store.ApplyRoom(t.Context(), lease,
			mirror.RoomContent{FetchTime: r.now, Source: []byte(`{}`), CreateTime: r.now}, r.now, 0)
	}
	if err != nil {
		t.Fatalf("mirror the room = %v", err)
	}
	r.lease.Epoch = 1 // as claimed after that
	if _, err := r.store.ApplyDocument(t.Context(), r.lease,
		mirror.DocumentContent{FetchTime: r.now, Content: []byte("old"), DeriveVersion: 1}, r.now, 0); err != nil {
		t.Fatalf("ApplyDocument = %v", err)
	}
	mustExec(t, r.watch, "update mirror_room set epoch = 3") // deleted and back
	tx, err := r.conn.Begin(t.Context())
	if err != nil {
		t.Fatalf("Begin = %v", err)
	}
	if _, err := tx.Exec(t.Context(), "update mirror_document set epoch = 3"); err != nil {
		t.Fatalf("overwrite = %v", err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := r.store.CleanRoom(t.Context(), room, 10)
		done <- err
	}()
	r.waiting(t, 1)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatalf("Commit = %v", err)
	}
	if err := <-done; err != nil {
		t.Fatalf("CleanRoom = %v", err)
	}
	if n := value[int](t, r.watch, "select count(*) from mirror_document"); n != 1 {
		t.Fatalf("documents = %d; want that of the new incarnation", n)
	}
}

package engine_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
)

// An event that needs a row which another session has locked is kept back, and no
// other: not even that of the same room that needs another row. Nothing of it is
// recorded, and it is as soon as the row is free.
func TestLockedRowsKeepBackTheirEventsOnly(t *testing.T) {
	t.Parallel()
	storage := func(room string) mirror.Resource {
		return mirror.Resource{Project: "default", Room: mirror.RoomID(room), Kind: mirror.KindStorage}
	}
	held := storage("held")
	// By the whole key: MariaDB locks every row that a statement looks at.
	of := func(r mirror.Resource) string {
		return fmt.Sprintf(" from mirror_resource_state where bucket = %d and project_id = 'default' and room_id = '%s' "+
			"and kind = %d and resource_id = ''", r.Bucket(), r.Room, r.Kind)
	}
	for _, c := range []struct {
		name string
		hold string
		// The one needs the row that hold locks; the other does not, although it is
		// about the same room.
		kept, passed mirror.Delivery
	}{
		{
			"state", "select 1" + of(held) + " for update",
			deliveryOf("kept", held),
			deliveryOf("passed", mirror.Resource{Project: "default", Room: "held", Kind: mirror.KindYdoc}),
		},
		{
			"state of the room", "select 1" + of(held.RoomResource()) + " for update",
			deliveryOf("kept", held.RoomResource(), held),
			func() mirror.Delivery { // names the room only if that is unknown
				d := deliveryOf("passed", held, held.RoomResource())
				d.Invalidations[1].IfUnknown = true
				return d
			}(),
		},
		{
			"state that is not committed", fmt.Sprintf(
				"insert into mirror_resource_state (bucket, project_id, room_id, kind, resource_id, generation, due_time, "+
					"last_error) select %d, project_id, 'born', kind, resource_id, 1, due_time, ''",
				storage("born").Bucket()) + of(held),
			deliveryOf("kept", storage("born")), deliveryOf("passed", held),
		},
		{
			"event", "delete from mirror_event where event_id = 'kept'",
			deliveryOf("kept", held), deliveryOf("passed", held),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
				url := e.Database(t)
				s, r := open(t, engine.Config{URL: url}), &race{engine: e, url: url, db: e.Connect(t, url)}
				_, err := s.Accept(t.Context(), []mirror.Delivery{
					deliveryOf("first", held, held.RoomResource(), storage("other0")), deliveryOf("old"),
				})
				if err == nil && c.name == "event" {
					_, err = s.Accept(t.Context(), []mirror.Delivery{c.kept})
				}
				if err != nil {
					t.Fatalf("Accept = %v", err)
				}
				tx := r.begin(t, c.hold)
				// Among many others, duplicates too.
				batch := []mirror.Delivery{c.kept, deliveryOf("old"), c.passed}
				for i := range 60 {
					batch = append(batch, deliveryOf(fmt.Sprint("other", i), storage(fmt.Sprint("other", i))))
				}
				batch = append(batch, c.kept)
				batch[len(batch)-1].Event.ID = "kept too"
				want := map[string]string{"kept": "locked", "kept too": "locked", "passed": "fresh", "old": "duplicate"}
				if c.name == "event" {
					want["kept too"] = "fresh"
				}
				got := make(map[string]string)
				answers, err := s.Accept(t.Context(), batch)
				if err != nil {
					t.Fatalf("Accept = %v", err)
				}
				for i, a := range answers {
					switch id := batch[i].Event.ID; {
					case a.Locked:
						got[id] = "locked"
					case !a.Fresh:
						got[id] = "duplicate"
					default:
						got[id] = "fresh"
						if len(a.Pending) == 0 {
							t.Errorf("event %s has nothing pending", id)
						}
					}
					if want[batch[i].Event.ID] == "" {
						want[batch[i].Event.ID] = "fresh"
					}
				}
				if d := cmp.Diff(want, got); d != "" {
					t.Fatalf("answers (-want +got):\n%s", d)
				}
				// Nothing stays locked that was given up, so the session can write all of it.
				if _, err := tx.ExecContext(t.Context(), "update mirror_resource_state set attempts = 0"); err != nil {
					t.Fatalf("update = %v", err)
				}
				recorded := value[int](t, r.db, "select count(*) from mirror_event where event_id in ('kept', 'kept too')")
				if wantRecorded := map[bool]int{false: 0, true: 2}[c.name == "event"]; recorded != wantRecorded {
					t.Fatalf("events recorded of those kept back = %d; want %d", recorded, wantRecorded)
				}
				if err := tx.Rollback(); err != nil {
					t.Fatalf("Rollback = %v", err)
				}
				answers, err = s.Accept(t.Context(), []mirror.Delivery{c.kept})
				if err != nil || answers[0].Locked || answers[0].Fresh != (c.name != "event") {
					t.Fatalf("Accept after the release = %+v, %v; want it recorded", answers, err)
				}
			})
		})
	}
}

// A batch in which every event needs a locked row, and more of them than one
// statement takes on MySQL.
func TestManyEventsForALockedRow(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Database(t)
		s, r := open(t, engine.Config{URL: url}), &race{engine: e, url: url, db: e.Connect(t, url)}
		held := mirror.Resource{Project: "default", Room: "held", Kind: mirror.KindStorage}
		if _, err := s.Accept(t.Context(), []mirror.Delivery{deliveryOf("first", held)}); err != nil {
			t.Fatalf("Accept = %v", err)
		}
		tx := r.begin(t, "select 1 from mirror_resource_state for update")
		batch := make([]mirror.Delivery, 600)
		for i := range batch {
			batch[i] = deliveryOf(fmt.Sprint("msg", i), held)
		}
		answers, err := s.Accept(t.Context(), batch)
		if err != nil {
			t.Fatalf("Accept = %v", err)
		}
		for i, a := range answers {
			if !cmp.Equal(a, store.Accepted{Locked: true}) {
				t.Fatalf("answer %d = %+v; want it locked", i, a)
			}
		}
		commit(t, tx)
		if answers, err = s.Accept(t.Context(), batch); err != nil || answers[599].Locked || !answers[599].Fresh {
			t.Fatalf("Accept after the release = %+v, %v", answers[599], err)
		}
		n := value[int64](t, r.db, "select generation from mirror_resource_state")
		if want := answers[599].Pending[0].Generation; n != want {
			t.Fatalf("generation = %d; want %d, as the answer says", n, want)
		}
	})
}

// The state of a document is not locked while its content is packed, sent and
// written, however long that takes: an event on the document is recorded meanwhile.
func TestWritingADocumentLocksNoState(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		for _, c := range []struct {
			name  string
			size  int
			event bool // comes during the fetch
		}{{"event during the fetch", 1000, true}, {"long", 1 << 20, false}} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				url := e.Own(t)
				migrate(t, url)
				r := raceOn(t, e, url)
				r.mirrorRoom(t)
				if c.event {
					if _, err := r.store.Accept(t.Context(), []mirror.Delivery{deliveryOf("during", r.lease.Resource)}); err != nil {
						t.Fatalf("Accept = %v", err)
					}
				}
				// Writing the content waits for the other session.
				mustExec(t, r.db, "create table gate (n int)")
				mustExec(t, r.db, "insert into gate values (0)")
				for _, statement := range gates[e] {
					mustExec(t, r.db, statement)
				}
				tx := r.begin(t, "update gate set n = n + 1")
				done := make(chan error, 1)
				go func() {
					_, err := r.apply(t.Context(), r.lease, strings.Repeat("x", c.size), r.now, 0)
					done <- err
				}()
				r.waiting(t, 1)
				answers, err := r.store.Accept(t.Context(), []mirror.Delivery{deliveryOf("meanwhile", r.lease.Resource)})
				commit(t, tx)
				if err != nil || answers[0].Locked || !answers[0].Fresh {
					t.Fatalf("Accept meanwhile = %+v, %v; want it recorded", answers, err)
				}
				if err := <-done; err != nil {
					t.Fatalf("ApplyDocument = %v", err)
				}
				task, err := r.store.Task(t.Context(), r.lease.Resource, r.now)
				if err != nil || task.Applied != r.lease.Generation || task.State != mirror.TaskPending {
					t.Fatalf("Task = %+v, %v; want what came during the fetch pending", task, err)
				}
				if n := value[int](t, r.db, "select size from mirror_document"); n != c.size {
					t.Fatalf("size = %d; want %d", n, c.size)
				}
			})
		}
	})
}

// gates make every write of a document wait for the row of the table gate.
var gates = map[*dbtest.Engine][]string{
	dbtest.Postgres: {
		`create function wait() returns trigger language plpgsql as $$
			begin
				update gate set n = n + 1;
				return new;
			end $$`,
		"create trigger wait before insert or update on mirror_document for each row execute function wait()",
	},
	dbtest.MySQL: {"create trigger wait before insert on mirror_document for each row update gate set n = n + 1"},
}

// Expiry waits for no session that has locked a row: what is locked stays with all that
// belongs to it, and goes the next time.
func TestLockedRowsDoNotExpire(t *testing.T) {
	t.Parallel()
	const gone = "'2026-01-02 03:04:05'"
	for _, c := range []struct {
		table   store.Aging
		bucket  func(id string) int16
		id      string   // the column
		inserts []string // nil if Accept makes the row
		deleted int      // rows that go for one
	}{
		{
			store.AgingRooms, func(id string) int16 {
				return mirror.Resource{Project: "default", Room: mirror.RoomID(id), Kind: mirror.KindRoom}.Bucket()
			}, "room_id", []string{
				"insert into mirror_room (bucket, project_id, room_id, epoch, source_json, content_sha256, organization_id, " +
					"data_problem, delete_time) values (BUCKET, 'default', 'ID', 1, '{\"a\":1}', '', '', '', " + gone + ")",
				"insert into mirror_active_user (bucket, project_id, room_id, connection_id, epoch, user_id) " +
					"values (BUCKET, 'default', 'ID', 1, 1, 'alice')",
			}, 2,
		},
		{
			store.AgingThreads, func(id string) int16 {
				return mirror.Resource{Project: "default", Room: "room", Kind: mirror.KindThread, ID: id}.Bucket()
			}, "thread_id", []string{
				"insert into mirror_thread (bucket, project_id, room_id, thread_id, epoch, source_json, content_sha256, " +
					"resolved, visibility, comment_count, data_problem, delete_time) values " +
					"(BUCKET, 'default', 'room', 'ID', 1, '{}', '', false, 'public', 1, '', " + gone + ")",
				"insert into mirror_comment (bucket, project_id, room_id, thread_id, comment_id, user_id, create_time, " +
					"source_json, plain_text, markdown, digest) values " +
					"(BUCKET, 'default', 'room', 'ID', 'cm', 'alice', " + gone + ", '{}', '', '', '')",
			}, 2,
		},
		{
			store.AgingGroups, func(id string) int16 {
				return mirror.Resource{Project: "default", Kind: mirror.KindGroup, ID: id}.Bucket()
			}, "group_id", []string{
				"insert into mirror_group (bucket, project_id, group_id, organization_id, source_json, content_sha256, " +
					"delete_time) values (BUCKET, 'default', 'ID', '', '{}', '', " + gone + ")",
				"insert into mirror_group_member (bucket, project_id, group_id, user_id) values (BUCKET, 'default', 'ID', 'alice')",
			}, 2,
		},
		{store.AgingEvents, func(id string) int16 { return deliveryOf(id).Event.Bucket() }, "event_id", nil, 1},
	} {
		t.Run(string(c.table), func(t *testing.T) {
			t.Parallel()
			dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
				url := e.Database(t)
				s, r := open(t, engine.Config{URL: url}), &race{engine: e, url: url, db: e.Connect(t, url)}
				for _, id := range []string{"held", "free"} {
					for _, insert := range c.inserts {
						mustExec(t, r.db, strings.NewReplacer("BUCKET", fmt.Sprint(c.bucket(id)), "ID", id).Replace(insert))
					}
					if c.inserts == nil {
						if _, err := s.Accept(t.Context(), []mirror.Delivery{deliveryOf(id)}); err != nil {
							t.Fatalf("Accept = %v", err)
						}
					}
				}
				expiry := store.Expiry{Project: "default", Table: c.table, Before: testTime.Add(100 * time.Hour), Limit: 100}
				tx := r.begin(t, fmt.Sprintf("select 1 from %s where bucket = %d and project_id = 'default' and %s = 'held' "+
					"for update", c.table, c.bucket("held"), c.id))
				ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second) // MySQL would wait for a lock for 50 s
				defer cancel()
				first, err := s.Expire(ctx, expiry)
				if err != nil || first.Deleted > c.deleted {
					t.Fatalf("Expire beside a locked row = %+v, %v; want the other row at most, %d", first, err, c.deleted)
				}
				for _, insert := range slices.Concat(c.inserts, []string{"insert into " + string(c.table)}) {
					of := strings.Fields(insert)[2]
					if n := value[int](t, r.db, "select count(*) from "+of+" where "+c.id+" = 'held'"); n != 1 {
						t.Errorf("%s has %d of the locked rows; want 1", of, n)
					}
				}
				commit(t, tx)
				second, err := s.Expire(t.Context(), expiry)
				if err != nil || first.Deleted+second.Deleted != 2*c.deleted {
					t.Fatalf("Expire later = %+v after %+v, %v; want both rows gone, %d", second, first, err, 2*c.deleted)
				}
			})
		})
	}
}

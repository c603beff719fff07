package engine_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
)

// Every column that could hold the id of a user is one that an erasure searches, or one of
// which somebody has said why it need not. A new one fails here until somebody decides.
func TestErasureKnowsEveryColumn(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		db := e.Connect(t, e.Database(t))
		type column struct{ table, name, data string }
		var columns []column
		if err := db.Each(t.Context(), "select table_name, column_name, data_type from information_schema.columns "+
			"where table_name like 'mirror%' and table_schema = "+e.Schema+" order by table_name, column_name",
			func(scan func(dest ...any) error) error {
				var c column
				err := scan(&c.table, &c.name, &c.data)
				columns = append(columns, c)
				return err
			}); err != nil {
			t.Fatal(err)
		}
		numbers := []string{
			"smallint", "integer", "int", "bigint", "tinyint", "boolean", "datetime", "timestamp with time zone",
			"timestamp without time zone", "timestamp",
		}
		// What is said of a column for all tables holds for these, beside those that are searched:
		// in a new one, it could be the id of a user.
		looked := []string{
			"mirror_change", "mirror_feed_head", "mirror_project", "mirror_resource_state", "mirror_room_term", "mirror_sweep",
			"mirror_thread_term", "mirror_unannounced",
		}
		for _, table := range store.Personal {
			looked = append(looked, table.Name)
		}
		searched, unused := make(map[string]bool), make(map[string]bool)
		for _, table := range store.Personal {
			for _, c := range table.Columns {
				searched[table.Name+"."+c.Name] = true
			}
		}
		for name := range store.Impersonal {
			unused[name] = true
		}
		seen := 0
		for _, c := range columns {
			if slices.Contains(numbers, c.data) || c.table == "mirror_schema_version" || c.table == "mirror_schema_lock" {
				continue
			}
			seen++
			full := c.table + "." + c.name
			_, here := store.Impersonal[full]
			_, everywhere := store.Impersonal[c.name]
			everywhere = everywhere && slices.Contains(looked, c.table)
			delete(unused, full)
			delete(unused, c.name)
			// A column of its own table goes before what is said of all tables.
			if !searched[full] && !here && !everywhere {
				t.Errorf("%s (%s) can hold the id of a user: add it to store.Personal, or to store.Impersonal with the reason "+
					"why it cannot", full, c.data)
			}
			if searched[full] && here {
				t.Errorf("%s is both searched and not", full)
			}
			delete(searched, full)
		}
		for name := range searched {
			t.Errorf("store.Personal has %s, which is no column", name)
		}
		for name := range unused {
			if e == dbtest.MySQL { // it has them all
				t.Errorf("store.Impersonal has %s, which is no column", name)
			}
		}
		if seen < 80 {
			t.Fatalf("only %d columns were seen: %s", seen, fmt.Sprint(columns))
		}
	})
}

// Events belong to nothing that is locked before them: what another purge or erasure takes out
// of one while it is judged does not come back.
func TestErasureOfEventsWaitsForOthers(t *testing.T) {
	t.Parallel()
	events := store.Personal[slices.IndexFunc(store.Personal, func(t *store.PersonalTable) bool {
		return t.Name == "mirror_event"
	})]
	for what, c := range map[string]struct{ set, payload, user string }{
		"purge": {
			"user_id = '', payload = '" + store.Purged + "'", store.Purged, "",
		},
		"erasure of another": {
			`user_id = '', payload = '{"data":{"createdBy":"ann","editedBy":""}}'`, `{"data":{"createdBy":"","editedBy":""}}`, "",
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
				url := e.Database(t)
				s, db := open(t, engine.Config{URL: url}), e.Connect(t, url)
				r := storageIn("room")
				d := deliveryOf("named", r)
				d.Event.User, d.Event.Payload = "bob", []byte(`{"data":{"createdBy":"ann","editedBy":"bob"}}`)
				if _, err := s.Accept(t.Context(), []mirror.Delivery{d}); err != nil {
					t.Fatal(err)
				}
				tx, err := db.BeginTx(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = tx.Rollback() }()
				if _, err := tx.ExecContext(t.Context(), "update mirror_event set "+c.set+" where event_id = 'named'"); err != nil {
					t.Fatal(err)
				}
				ann := store.Subject{User: "ann"}
				// A dry run waits for nobody, and locks nothing.
				if _, err := tx.ExecContext(t.Context(), "update mirror_resource_state set attempts = attempts"); err != nil {
					t.Fatal(err)
				}
				for _, table := range store.Personal {
					key := make([]any, len(table.Key))
					for i, c := range table.Key {
						switch {
						case c.Number:
							key[i] = int64(r.Kind)
						case c.Name == "room_id":
							key[i] = string(r.Room)
						case c.Name == "event_id":
							key[i] = "named"
						default:
							key[i] = ""
						}
					}
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
					_, err := s.EraseRows(ctx, r.Project, table, r.Bucket(), [][]any{key}, ann, true, testTime)
					if err == nil && table.HasContent() { // of which it changes nothing
						_, err = s.EraseRows(ctx, r.Project, table, r.Bucket(), [][]any{key}, ann, false, testTime)
					}
					cancel()
					if err != nil {
						t.Fatalf("an erasure that changes nothing in %s = %v; want it to wait for nobody", table.Name, err)
					}
				}
				done := make(chan error, 1)
				go func() {
					_, err := s.EraseRows(t.Context(), r.Project, events, r.Bucket(), [][]any{{"named"}}, ann, false, testTime)
					done <- err
				}()
				select {
				case err := <-done:
					t.Fatalf("EraseRows of a row that another holds = %v; want it to wait", err)
				case <-time.After(time.Second):
				}
				if err := tx.Commit(); err != nil {
					t.Fatal(err)
				}
				if err := <-done; err != nil {
					t.Fatalf("EraseRows = %v", err)
				}
				if got := value[string](t, db, "select user_id from mirror_event"); got != c.user {
					t.Errorf("user = %q; want %q", got, c.user)
				}
				if got := value[[]byte](t, db, "select payload from mirror_event"); string(got) != c.payload {
					t.Errorf("payload = %s; want %s", got, c.payload)
				}
			})
		})
	}
}

// A replay, or a pin, has read events before. What an erasure takes out of one meanwhile does
// not come back.
func TestRecordedEventsWaitForErasures(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Database(t)
		s, db := open(t, engine.Config{URL: url}), e.Connect(t, url)
		sessions := mirror.Resource{Project: "default", Room: "room", Kind: mirror.KindUserSessions}
		d := deliveryOf("entered", sessions)
		d.Event.User, d.Event.Payload, d.Invalidations[0].Fold = "ann", []byte(`{"data":{"userId":"ann"}}`), true
		aside := d
		aside.Event.Outcome, aside.Invalidations = mirror.OutcomeForeignProject, nil
		if _, err := s.Accept(t.Context(), []mirror.Delivery{aside}); err != nil {
			t.Fatal(err)
		}
		for what, work := range map[string]func() ([]mirror.Pending, error){
			"Replay": func() ([]mirror.Pending, error) {
				pending, _, err := s.Replay(t.Context(), []mirror.Delivery{d}, testTime)
				return pending, err
			},
			"TakeUp": func() ([]mirror.Pending, error) { return s.TakeUp(t.Context(), []mirror.Delivery{d}) },
		} {
			mustExec(t, db, "update mirror_event set payload = ?", d.Event.Payload)
			tx, err := db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tx.Rollback() }()
			if _, err := tx.ExecContext(t.Context(), "update mirror_event set payload = '{}'"); err != nil {
				t.Fatal(err)
			}
			type result struct {
				pending []mirror.Pending
				err     error
			}
			done := make(chan result, 1)
			go func() {
				pending, err := work()
				done <- result{pending, err}
			}()
			select {
			case got := <-done:
				t.Fatalf("%s of an event that is being erased = %+v; want it to wait", what, got)
			case <-time.After(time.Second):
			}
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			if got := <-done; got.err != nil || len(got.pending) > 0 {
				t.Errorf("%s of an event that was erased = %+v; want nothing stale", what, got)
			}
			if n := value[int](t, db, "select count(*) from mirror_unfolded_event"); n != 0 {
				t.Errorf("%d events wait to be folded after %s; want none", n, what)
			}
		}
	})
}

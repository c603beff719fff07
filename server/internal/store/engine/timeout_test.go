package engine_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
)

// A read that takes too long ends, on the server too, and the error says what to do.
// So does one whose caller waits no longer.
func TestReadsEndInTime(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Empty(t) // not one that is lent to other tests, because tables change
		migrate(t, url)
		conn := e.Connect(t, url)
		exec := func(text string) {
			t.Helper()
			if _, err := conn.ExecContext(t.Context(), text); err != nil {
				t.Fatalf("%s = %v", text, err)
			}
		}
		// Rooms are computed for minutes, from rows: a server that waits for something may
		// notice that the connection is gone, and MariaDB takes a function like benchmark()
		// that it has stopped for one that is done.
		running := "select count(*) from pg_stat_activity where datname = current_database() and state = 'active' " +
			"and pid <> pg_backend_pid() and query like '%mirror_room%'"
		if !engine.IsPostgres(url) {
			running = conn.OfServer(t, "select count(*) from {processlist} p where db = database() "+
				"and id <> connection_id() and info like '%mirror_room%'")
		}
		exec("create table ones (n bigint)")
		exec("insert into ones values (1)" + strings.Repeat(", (1)", 3000))
		const slow = "(select count(*) from ones a, ones b, ones c where a.n + b.n + c.n < r.bucket)"
		exec("insert into mirror_room (bucket, project_id, room_id, epoch, source_json, content_sha256, organization_id, " +
			"data_problem) values (0, 'default', 'r', 1, '{}', '', '', '')")
		exec("alter table mirror_room rename to rooms")
		exec("create view mirror_room as select r.bucket, r.project_id, r.room_id, r.epoch + 0 * " + slow + " as epoch, " +
			"r.source_json, r.content_sha256, r.create_time, r.last_connection_time, r.organization_id, r.delete_time " +
			"from rooms r")
		// ended waits until the server does. The test's own timeout is the limit.
		ended := func(what string) {
			t.Helper()
			for n := -1; n != 0; {
				if err := conn.QueryRowContext(t.Context(), running).Scan(&n); err != nil {
					t.Fatalf("%s: %s = %v", what, running, err)
				}
			}
		}
		limited := open(t, engine.Config{URL: url, MaxConns: 4, ReadTimeout: 200 * time.Millisecond})
		patient := open(t, engine.Config{URL: url, MaxConns: 4, ReadTimeout: time.Hour})
		read := func(ctx context.Context, s store.Store) error {
			_, err := s.Rooms(ctx, store.RoomFilter{Project: "default", Limit: 1})
			return err
		}
		err := read(t.Context(), limited)
		if f := fault.Of(err); f.Kind != fault.Unavailable || !strings.Contains(f.Public, "longer than 200ms") {
			t.Errorf("Rooms = %v (%q); want that it took too long", err, f.Public)
		}
		ended("Rooms")
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if err := read(ctx, patient); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Rooms until a deadline of the caller = %v; want %v", err, context.DeadlineExceeded)
		}
		ended("Rooms until a deadline of the caller")
		eventually(t, "Counts afterwards", func() bool { // within the limit it connects, too
			_, err := limited.Counts(t.Context(), "default")
			return err == nil
		})
	})
}

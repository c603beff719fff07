package blackbox_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// A service deletes what has become old while it was down, and what is young stays. The
// status and the metrics tell how much it was.
func TestOldRowsAreDeleted(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		upstream, url := harness.NewFake(t), e.Database(t)
		options := harness.Options{DatabaseURL: url, UpstreamURL: upstream.URL}
		s := harness.Start(t, options)
		follow(t, s, upstream)
		must(t, upstream.CreateRoom("plan", fake.RoomOptions{Storage: storage("1")}))
		must(t, upstream.Enter("plan", fake.Connection{ID: 1, UserID: "alice"}))
		must(t, upstream.Leave("plan", 1))
		upstream.Notify(fake.Notification{UserID: "alice", RoomID: "plan", Kind: "$trip", SubjectID: "s"})
		thread, err := upstream.CreateThread("plan", fake.ThreadOptions{Comment: fake.Comment{UserID: "alice", Text: "hi"}})
		must(t, err)
		must(t, upstream.CreateRoom("gone", fake.RoomOptions{Storage: storage("1")}))
		awaitIdle(t, s)
		must(t, upstream.DeleteThread("plan", thread))
		must(t, upstream.DeleteRoom("gone"))
		awaitIdle(t, s)
		if _, err := s.Stop(t); err != nil {
			t.Fatal(err)
		}

		// The clock goes on: two months, for all that was written so far.
		db := e.Connect(t, url)
		for _, column := range []string{
			"mirror_event.receive_time", "mirror_user_session.begin_time", "mirror_user_session.leave_time",
			"mirror_notification.create_time", "mirror_change.commit_time", "mirror_room.delete_time",
			"mirror_thread.delete_time",
		} {
			table, column, _ := strings.Cut(column, ".")
			ago := map[*dbtest.Engine]string{dbtest.Postgres: "interval '60 days'", dbtest.MySQL: "interval 60 day"}[e]
			_, err := db.ExecContext(t.Context(), fmt.Sprintf("update %s set %s = %s - %s", table, column, column, ago))
			must(t, err)
		}
		count := func(table string) (n int) {
			t.Helper()
			must(t, db.QueryRowContext(t.Context(), "select count(*) from "+table).Scan(&n))
			return n
		}
		// A refused call of when there were several projects.
		_, err = db.ExecContext(t.Context(), "insert into mirror_audit select 0, '', 'old', min(receive_time), null, true, "+
			"'', '', '', '', '', 0, '', '', '', '', 1 from mirror_event")
		must(t, err)
		rooms, states, events := count("mirror_room"), count("mirror_resource_state"), count("mirror_event")
		if events < 4 || count("mirror_user_session") != 1 || count("mirror_notification") != 1 {
			t.Fatalf("%d events, %d sessions, %d notifications; want some", events, count("mirror_user_session"),
				count("mirror_notification"))
		}
		options.Env = map[string]string{
			"MIRROR_RETENTION_EVENTS": "720h", "MIRROR_RETENTION_SESSIONS": "720h", "MIRROR_RETENTION_NOTIFICATIONS": "720h",
			"MIRROR_RETENTION_AUDIT": "720h", "MIRROR_RETENTION_TOMBSTONES": "720h",
		}
		s = harness.Start(t, options)
		harness.Eventually(t, patience, func() error {
			status, err := s.Admin(t).GetStatus(t.Context(), &mirrorv1.GetStatusRequest{})
			if err != nil {
				return err
			}
			got := make(map[string]int64)
			for _, r := range append(status.GetProjects()[0].GetRetention(), status.GetChangeRetention()) {
				got[r.GetTable()] = r.GetDeletedRows()
				if r.GetRunTime() == nil || r.GetKeepDuration().AsDuration() != 720*time.Hour || r.GetProblem() != "" {
					return fmt.Errorf("retention = %v; want it done", r)
				}
			}
			if got["mirror_event"] != int64(events) || got["mirror_user_session"] != 1 || got["mirror_notification"] != 1 ||
				got["mirror_change"] == 0 || got["mirror_room"] == 0 || got["mirror_thread"] != 2 {
				return fmt.Errorf("deleted rows = %v; want all %d events, and what else is old", got, events)
			}
			if n := count("mirror_audit"); n != 0 {
				return fmt.Errorf("entries of the audit = %d; want none", n)
			}
			return nil
		})
		if n := count("mirror_user_session") + count("mirror_notification"); n != 0 {
			t.Errorf("old sessions and notifications = %d; want none", n)
		}
		for _, of := range []string{"mirror_document where room_id = 'gone'", "mirror_thread", "mirror_comment"} {
			if n := count(of); n != 0 {
				t.Errorf("rows of %s = %d; want none of what was deleted", of, n)
			}
		}
		if n := count("mirror_document where room_id = 'plan'"); n == 0 {
			t.Error("the document of a room that lives is gone")
		}
		if r, s := count("mirror_room"), count("mirror_resource_state"); r != rooms || s != states {
			t.Errorf("rooms = %d, states = %d; want %d and %d as before", r, s, rooms, states)
		}
		if _, _, body := s.Get(t, "/metrics"); !strings.Contains(string(body), fmt.Sprintf(
			"mirror_retention_deleted_rows_total{project=\"default\",table=\"mirror_event\"} %d\n", events)) {
			t.Errorf("the metrics do not tell of %d deleted events", events)
		}
		// It goes on as ever.
		follow(t, s, upstream)
		must(t, upstream.SetStorage("plan", storage("2")))
		awaitStorage(t, s, "plan", storage("2"))
	})
}

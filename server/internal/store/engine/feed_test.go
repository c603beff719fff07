package engine_test

import (
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
)

// An entry that is visible before its predecessors, as a snapshot of MariaDB can show it,
// is neither the first of the feed nor read before them.
func TestFeedBeginsBeforeAGap(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Database(t)
		s, db := open(t, engine.Config{URL: url}), e.Connect(t, url)
		write := func(bucket int, numbers ...int) {
			for _, n := range numbers {
				mustExec(t, db, `insert into mirror_change
    (bucket, n, project_id, room_id, kind, resource_id, change_kind, commit_time)
values (?, ?, 'default', 'room', 1, '', 1, '2026-01-02 03:04:05')`, bucket, n)
			}
		}
		mustExec(t, db, "delete from mirror_feed_head where bucket in (7, 8)")
		mustExec(t, db, "insert into mirror_feed_head (bucket, n) values (7, 0), (8, 5)")
		write(7, 2)
		write(8, 4, 5)
		earliest, err := s.Earliest(t.Context())
		if want := (mirror.Position{8: 3}); err != nil || earliest != want {
			t.Fatalf("Earliest = %v, %v; want %v", earliest, err, want)
		}
		write(7, 1)
		changes, err := s.Changes(t.Context(), []store.ChangeRange{{Bucket: 7, To: 2}})
		if err != nil || len(changes) != 2 {
			t.Fatalf("Changes = %v, %v; want two", changes, err)
		}
	})
}

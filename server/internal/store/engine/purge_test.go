package engine_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
)

// A version before schema 13 that still runs records events in buckets of their own. They
// are emptied with their room all the same.
func TestPurgeFindsEventsOfOldVersions(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		if e == dbtest.MySQL {
			mysqltest.Need(t, mysqltest.OneShard) // such a version writes nothing to shards
		}
		url := e.Database(t)
		s, db := open(t, engine.Config{URL: url}), e.Connect(t, url)
		room := mirror.Resource{Project: "default", Room: "room", Kind: mirror.KindRoom}
		for _, id := range []string{"new", "old"} {
			d := deliveryOf(id, storageIn(room.Room))
			d.Event.Payload = []byte(`{"text":"private"}`)
			if _, err := s.Accept(t.Context(), []mirror.Delivery{d}); err != nil {
				t.Fatalf("Accept = %v", err)
			}
		}
		mustExec(t, db, "update mirror_event set bucket = ? where event_id = 'old'", (room.Bucket()+1)%mirror.Buckets)
		mustExec(t, db, "insert into mirror_room (bucket, project_id, room_id, epoch, source_json, content_sha256, "+
			"organization_id, data_problem, delete_time) values (?, 'default', 'room', 1, '{}', '', '', '', ?)",
			room.Bucket(), testTime)
		if _, err := s.PurgeRoom(t.Context(), room, testTime.Add(time.Hour), 100); err != nil {
			t.Fatalf("PurgeRoom = %v", err)
		}
		if n, err := s.Remains(t.Context(), room); n.All() != 0 || err != nil {
			t.Errorf("Remains = %v, %v; want nothing", n, err)
		}
		if n := value[int](t, db, "select count(*) from mirror_event where payload = '"+store.Purged+"'"); n != 2 {
			t.Errorf("%d of 2 events are empty", n)
		}
	})
}

// The purge of a project knows every table that has rows of projects, those added later
// included.
func TestPurgeKnowsEveryTableOfProjects(t *testing.T) {
	t.Parallel()
	want := slices.Sorted(slices.Values(slices.Concat(store.ProjectTables, store.ProjectRows, []string{"mirror_change"})))
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		db := e.Connect(t, e.Database(t))
		var got []string
		if err := db.Each(t.Context(), "select table_name from information_schema.columns where column_name = 'project_id' "+
			"and table_name like 'mirror%' and table_schema = "+e.Schema+" order by table_name",
			func(scan func(dest ...any) error) error {
				got = append(got, "")
				return scan(&got[len(got)-1])
			}); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("tables with rows of projects (-those of the purge +those of the schema):\n%s", d)
		}
	})
}

package engine_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
)

// The log of MySQL has all that a transaction deletes, and a cluster refuses what is too much:
// then nothing behind it would ever go.
func TestExpiryOfRoomsIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Database(t)
		s, db := open(t, engine.Config{URL: url}), e.Connect(t, url)
		for _, id := range []mirror.RoomID{"one", "two"} {
			room := mirror.Resource{Project: "default", Room: id, Kind: mirror.KindRoom}
			mustExec(t, db, "insert into mirror_room (bucket, project_id, room_id, epoch, source_json, content_sha256, "+
				"organization_id, data_problem, delete_time) values (?, 'default', ?, 1, '{}', '', '', '', ?)",
				room.Bucket(), []byte(id), testTime)
			for i, size := range []int64{store.MaxExpired, store.MaxExpired / 8, store.MaxExpired / 8, store.MaxExpired / 2} {
				mustExec(t, db, "insert into mirror_document (bucket, project_id, room_id, kind, resource_id, epoch, content, "+
					"content_sha256, size, derive_version, data_problem, plain_text) "+
					"values (?, 'default', ?, ?, ?, 1, '', '', ?, 0, '', '')",
					room.Bucket(), []byte(id), mirror.KindYdoc, []byte(fmt.Sprint(i)), size)
			}
		}
		expiry := store.Expiry{
			Project: "default", Table: store.AgingRooms, Before: testTime.Add(time.Hour), Limit: 1000,
		}
		left := 8
		for calls := 0; ; calls++ {
			out, err := s.Expire(t.Context(), expiry)
			if err != nil || calls > 20 {
				t.Fatalf("call %d of Expire = %+v, %v", calls, out, err)
			}
			before := left
			left = value[int](t, db, "select count(*) from mirror_document")
			sum := value[int64](t, db, "select coalesce(sum(size), 0) from mirror_document")
			if e == dbtest.MySQL && before-left > 3 {
				t.Errorf("a transaction deleted %d documents; want at most one long one, or those that fit; %d bytes are left",
					before-left, sum)
			}
			if expiry.After = out.Last; !out.More {
				if e == dbtest.MySQL && calls < 3 {
					t.Errorf("all went in %d calls", calls+1)
				}
				break
			}
		}
		emptied := value[int](t, db, "select count(*) from mirror_room where source_json = '{}' and delete_time is not null")
		if left != 0 || emptied != 2 {
			t.Errorf("%d documents are left, and %d rooms are empty; want none and both", left, emptied)
		}
	})
}

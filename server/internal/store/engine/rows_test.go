package engine_test

import (
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
)

// rowTables are the tables that a thread's change writes.
var rowTables = []string{
	"mirror_thread", "mirror_comment", "mirror_comment_reaction", "mirror_comment_attachment", "mirror_comment_mention",
	"mirror_thread_term", "mirror_resource_state", "mirror_change", "mirror_feed_head",
}

// countRows makes the database count every row that is written or deleted.
func countRows(t *testing.T, e *dbtest.Engine, db *dbtest.DB) {
	t.Helper()
	if e == dbtest.MySQL {
		mysqltest.Need(t, mysqltest.Triggers)
	}
	mustExec(t, db, "create table row_count (name varchar(64), n int)")
	if e == dbtest.Postgres {
		mustExec(t, db, `create function count_row() returns trigger language plpgsql as $$
			begin insert into row_count values (tg_table_name, 1); return null; end $$`)
	}
	for _, table := range rowTables {
		if e == dbtest.Postgres {
			mustExec(t, db, "create trigger count_row after insert or update or delete on "+table+
				" for each row execute function count_row()")
			continue
		}
		for _, verb := range []string{"insert", "update", "delete"} {
			mustExec(t, db, "create trigger "+table+"_"+verb+" after "+verb+" on "+table+
				" for each row insert into row_count values ('"+table+"', 1)")
		}
	}
}

func rowsCounted(t *testing.T, db *dbtest.DB) map[string]int {
	t.Helper()
	counts := make(map[string]int)
	query := "select name, sum(n) from row_count group by name"
	err := db.Each(t.Context(), query, func(scan func(dest ...any) error) error {
		var name string
		var n int
		err := scan(&name, &n)
		counts[name] = n
		return err
	})
	if err != nil {
		t.Fatalf("select = %v", err)
	}
	mustExec(t, db, "delete from row_count")
	return counts
}

// A change of one comment writes the rows that differ, however long the thread is.
func TestRowsWrittenForAReaction(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Own(t)
		db := e.Connect(t, url)
		s := open(t, engine.Config{URL: url})
		room := mirror.Resource{Project: "default", Room: "room", Kind: mirror.KindRoom}
		resource := mirror.Resource{Project: "default", Room: "room", Kind: mirror.KindThread, ID: "th_1"}
		claim := func(r mirror.Resource) mirror.Lease {
			t.Helper()
			if _, err := s.Request(t.Context(), requestsFor(r), testTime); err != nil {
				t.Fatalf("Request = %v", err)
			}
			lease, err := s.Claim(t.Context(), r, [16]byte{1}, testTime, time.Minute)
			if err != nil {
				t.Fatalf("Claim = %v", err)
			}
			return lease
		}
		content := mirror.RoomContent{FetchTime: testTime, Source: []byte(`{}`), CreateTime: testTime}
		if _, err := s.ApplyRoom(t.Context(), claim(room), content, testTime, 0); err != nil {
			t.Fatalf("ApplyRoom = %v", err)
		}
		thread := mirror.Thread{ID: resource.ID, Source: []byte(`{}`), Metadata: []byte(`{"color":"red","n":1}`)}
		for i := range 300 {
			thread.Comments = append(thread.Comments, mirror.Comment{
				ID: fmt.Sprintf("cm_%d", i), UserID: "alice", Source: fmt.Appendf(nil, `{"n":%d}`, i), CreateTime: testTime,
				Body: []byte(`{}`), Reactions: []mirror.Reaction{{Emoji: "+1", UserID: "bob", CreateTime: testTime}},
				Attachments: []mirror.Attachment{{ID: "at_1"}}, Mentions: []mirror.Mention{{Kind: "user", ID: "bob"}},
			})
		}
		apply := func(version int) {
			t.Helper()
			thread.SHA256 = sha256.Sum256(fmt.Append(nil, version))
			lease := claim(resource)
			_, err := store.WriteItem(t.Context(), s, lease, store.ThreadItem(thread), testTime,
				func() time.Time { return testTime }, 0)
			if err != nil {
				t.Fatalf("WriteItem = %v", err)
			}
		}
		apply(1)
		countRows(t, e, db)
		comment := &thread.Comments[150]
		comment.Source = []byte(`{"n":150,"reactions":2}`)
		comment.Reactions = append(comment.Reactions, mirror.Reaction{Emoji: "x", UserID: "carol", CreateTime: testTime})
		apply(2)
		counts := rowsCounted(t, db)
		for table, most := range map[string]int{
			"mirror_thread": 1, "mirror_comment": 1, "mirror_comment_reaction": 1, "mirror_comment_attachment": 0,
			"mirror_comment_mention": 0, "mirror_thread_term": 0, "mirror_change": 1, "mirror_feed_head": 1,
			"mirror_resource_state": 3, // the request, the claim and the end
		} {
			if got := counts[table]; got > most || got == 0 && most > 0 {
				t.Errorf("a reaction writes %d rows of %s; want %d", got, table, most)
			}
		}
		comment.Reactions = comment.Reactions[:1]
		comment.Source = []byte(`{"n":150}`)
		apply(3)
		if got := rowsCounted(t, db)["mirror_comment_reaction"]; got != 1 {
			t.Errorf("a reaction that is taken back writes %d rows of reactions; want 1", got)
		}
		thread.Metadata = []byte(`{"color":"red","n":2}`)
		apply(4)
		if got := rowsCounted(t, db)["mirror_thread_term"]; got != 2 {
			t.Errorf("a value that changes writes %d rows of terms; want 2", got)
		}
	})
}

package blackbox_test

import (
	"bytes"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// dump returns all values of all rows of a query.
func dump(t *testing.T, db *dbtest.DB, query string) []byte {
	t.Helper()
	var all [][]byte
	rows, err := db.QueryContext(t.Context(), query)
	must(t, err)
	defer func() { must(t, rows.Close()) }()
	columns, err := rows.Columns()
	must(t, err)
	for rows.Next() {
		row, dest := make([]sql.RawBytes, len(columns)), make([]any, len(columns))
		for i := range row {
			dest[i] = &row[i]
		}
		must(t, rows.Scan(dest...))
		var text []byte
		for _, value := range row {
			text = append(append(text, value...), '\n')
		}
		all = append(all, text)
	}
	must(t, rows.Err())
	slices.SortFunc(all, bytes.Compare) // shards answer in any order
	return bytes.Join(all, nil)
}

// After a purge no table holds anything that was written in a deleted room or about its
// users.
func TestPurge(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		const marker = "Zanzibar"
		upstream := harness.NewFake(t)
		url := e.Database(t)
		s := harness.Start(t, harness.Options{DatabaseURL: url, UpstreamURL: upstream.URL})
		follow(t, s, upstream)
		for _, room := range []string{"gone", "stays"} {
			must(t, upstream.CreateRoom(room, fake.RoomOptions{
				Metadata: map[string]any{"name": marker}, Storage: storage(`"` + marker + `"`),
			}))
			thread, err := upstream.CreateThread(room, fake.ThreadOptions{
				Comment: fake.Comment{UserID: "alice", Text: "the coast of " + marker},
			})
			must(t, err)
			must(t, upstream.AddReaction(room, thread, upstream.Comments(room, thread)[0], marker, "bob"))
			must(t, upstream.Enter(room, fake.Connection{
				ID: 1, UserID: "alice", Info: fmt.Appendf(nil, `{"name":%q}`, marker),
			}))
			upstream.Notify(fake.Notification{UserID: "alice", RoomID: room, Kind: "$trip", SubjectID: marker})
		}
		awaitIdle(t, s)
		must(t, upstream.DeleteRoom("gone"))
		awaitIdle(t, s)

		db := e.Connect(t, url)
		// rooms are those whose rows have the marker, by table.
		rooms := func() map[string][]string {
			t.Helper()
			found := make(map[string][]string)
			var tables []string
			must(t, db.Each(t.Context(), "select table_name from information_schema.columns where column_name = 'room_id' "+
				"and table_name like 'mirror%' and table_schema in (select table_schema from information_schema.tables "+
				"where table_name = 'mirror_room') group by table_name", func(scan func(dest ...any) error) error {
				tables = append(tables, "")
				return scan(&tables[len(tables)-1])
			}))
			if len(tables) < 12 {
				t.Fatalf("tables with rooms = %q; want all", tables)
			}
			for _, table := range tables {
				for _, room := range []string{"gone", "stays"} {
					if bytes.Contains(dump(t, db, "select * from "+table+" where room_id = '"+room+"'"), []byte(marker)) {
						found[table] = append(found[table], room)
					}
				}
			}
			return found
		}
		before := rooms()
		for _, table := range []string{
			"mirror_room", "mirror_document", "mirror_thread", "mirror_comment", "mirror_comment_reaction",
			"mirror_user_session", "mirror_notification", "mirror_event",
		} {
			if !slices.Equal(before[table], []string{"gone", "stays"}) {
				t.Errorf("rooms with the text in %s before the purge = %q; want both", table, before[table])
			}
		}
		purge := func(args ...string) string {
			t.Helper()
			cmd := harness.Command(t.Context(), t, map[string]string{"DATABASE_URL": url},
				append([]string{"purge", "rooms"}, args...)...)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("purge %q: %v\n%s", args, err, stderr.String())
			}
			return string(out)
		}
		if out := purge("--deleted-before", "1h", "--yes"); out !=
			"purged 0 rows of 0 rooms of the project default that were deleted more than 1h0m0s ago\n" {
			t.Errorf("purge of rooms deleted an hour ago: %s", out)
		}
		if out := purge("--deleted-before", "0s"); !strings.HasPrefix(out, "there are ") ||
			!strings.Contains(out, " rows of 1 rooms ") || !strings.Contains(out, "--yes") {
			t.Errorf("purge without --yes: %s", out)
		}
		if got := rooms(); len(got) != len(before) || !slices.Contains(got["mirror_document"], "gone") {
			t.Errorf("rooms with the text after counting = %q; want what was there", got)
		}
		if out := purge("--deleted-before", "0s", "--yes"); !strings.Contains(out, " rows of 1 rooms ") {
			t.Errorf("purge: %s", out)
		}
		for table, with := range rooms() {
			if !slices.Equal(with, []string{"stays"}) {
				t.Errorf("rooms with the text in %s after the purge = %q", table, with)
			}
		}
		if out := purge("--deleted-before", "0s", "--yes"); !strings.HasPrefix(out, "purged 0 rows of 0 rooms ") {
			t.Errorf("purge again: %s", out)
		}
		// The service goes on, and takes the room up again when it comes back.
		must(t, upstream.CreateRoom("gone", fake.RoomOptions{Storage: storage("1")}))
		awaitIdle(t, s)
		if status, _, body := s.Get(t, "/v1/rooms/gone/storage:read"); status != 200 || string(body) != `{"v":1}` {
			t.Errorf("document of the room that came back = %d %s", status, body)
		}
	})
}

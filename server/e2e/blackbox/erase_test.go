package blackbox_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// somewhere lists the tables whose rows have a text, also in what they have compressed.
func somewhere(t *testing.T, db *dbtest.DB, text string) (found []string) {
	t.Helper()
	unpack, err := zstd.NewReader(nil)
	must(t, err)
	defer unpack.Close()
	var tables []string
	must(t, db.Each(t.Context(), "select table_name from information_schema.columns where column_name = 'project_id' "+
		"and table_name like 'mirror%' and table_schema in (select table_schema from information_schema.tables "+
		"where table_name = 'mirror_room') group by table_name", func(scan func(dest ...any) error) error {
		tables = append(tables, "")
		return scan(&tables[len(tables)-1])
	}))
	for _, table := range tables {
		query := "select * from " + table
		if bytes.Contains(dump(t, db, query), []byte(text)) {
			found = append(found, table)
		}
	}
	must(t, db.Each(t.Context(), "select content from mirror_document", func(scan func(dest ...any) error) error {
		var packed []byte
		if err := scan(&packed); err != nil {
			return err
		}
		plain, err := unpack.DecodeAll(packed, nil)
		if bytes.Contains(plain, []byte(text)) {
			found = append(found, "mirror_document")
		}
		return err
	}))
	return found
}

// After somebody was deleted at Liveblocks and erased here, no table has the id, and neither
// repeated webhooks nor a sweep bring it back. What Liveblocks still has is listed until then,
// and so is the document of a deleted room.
func TestEraseUser(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		const user = "zanzibar-7"
		upstream := harness.NewFake(t)
		url := e.Database(t)
		s := harness.Start(t, harness.Options{DatabaseURL: url, UpstreamURL: upstream.URL})
		var sent []harness.Delivery
		upstream.OnEvent(func(ev fake.Event) {
			d := harness.SignEvent(t, ev)
			sent = append(sent, d)
			if status := s.Post(t, d); status != http.StatusOK {
				t.Errorf("webhook %s answered %d", ev.Type, status)
			}
		})
		threads := make(map[string]string)
		for _, room := range []string{"gone", "stays"} {
			must(t, upstream.CreateRoom(room, fake.RoomOptions{Storage: storage(`"seen by ` + user + `"`)}))
			thread, err := upstream.CreateThread(room, fake.ThreadOptions{Comment: fake.Comment{UserID: user, Text: "hello"}})
			must(t, err)
			threads[room] = thread
			must(t, upstream.AddReaction(room, thread, upstream.Comments(room, thread)[0], "+1", user))
			must(t, upstream.Enter(room, fake.Connection{ID: 1, UserID: user, Info: fmt.Appendf(nil, `{"id":%q}`, user)}))
			must(t, upstream.Enter(room, fake.Connection{ID: 2, UserID: "bob", Info: fmt.Appendf(nil, `{"userId":%q}`, user)}))
			upstream.Notify(fake.Notification{UserID: user, RoomID: room, Kind: "$trip", SubjectID: "trip"})
			must(t, upstream.Leave(room, 1))
		}
		awaitIdle(t, s)
		must(t, upstream.DeleteRoom("gone"))
		awaitIdle(t, s)
		db := e.Connect(t, url)
		if found := somewhere(t, db, user); len(found) < 9 {
			t.Errorf("tables that name the user before = %q; want all", found)
		}
		run := func(args ...string) (string, []byte) {
			t.Helper()
			cmd := harness.Command(t.Context(), t, map[string]string{"MIRROR_SERVER": s.GRPCAddr},
				append([]string{"erase"}, args...)...)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("erase %q: %v\n%s", args, err, stderr.String())
			}
			return string(out), out
		}
		before := somewhere(t, db, user)
		if out, _ := run("user", user); !strings.Contains(out, "--yes") ||
			!strings.Contains(out, "DELETE /v2/rooms/stays/threads/"+threads["stays"]) {
			t.Errorf("erase without --yes: %s", out)
		}
		if after := somewhere(t, db, user); len(after) != len(before) {
			t.Errorf("tables that name the user after counting = %q; want %q", after, before)
		}
		// What Liveblocks still has stays, and nothing else.
		var report struct {
			Done      bool
			Remaining []struct{ Kind, RoomID, ResourceID string }
		}
		_, raw := run("user", user, "--yes", "--json")
		must(t, json.Unmarshal(raw, &report))
		if !report.Done || len(report.Remaining) != 4 {
			t.Errorf("what remains = %s; want the thread, the document and bob's info of the room that stays, and the "+
				"document of the other", raw)
		}
		awaitIdle(t, s)
		for _, table := range somewhere(t, db, user) {
			switch table {
			case "mirror_document", "mirror_thread", "mirror_comment", "mirror_comment_reaction", "mirror_active_user":
			default:
				t.Errorf("%s has the id although only the mirror has that row", table)
			}
		}
		// Once Liveblocks has nothing more, nothing is left here.
		must(t, upstream.DeleteThread("stays", threads["stays"]))
		must(t, upstream.SetStorage("stays", storage(`"seen"`)))
		must(t, upstream.Leave("stays", 2))
		awaitIdle(t, s)
		if out, _ := run("room", "gone", "--yes"); !strings.Contains(out, "mirror_document") {
			t.Errorf("erase room: %s", out)
		}
		if out, _ := run("room", "gone"); !strings.HasPrefix(out, "there is nothing to erase") {
			t.Errorf("erase room again: %s", out)
		}
		run("user", user, "--yes")
		awaitIdle(t, s)
		if found := somewhere(t, db, user); len(found) > 0 {
			t.Errorf("tables that name the user after the erasure = %q", found)
		}
		for _, d := range sent {
			if status := s.Post(t, d); status != http.StatusOK {
				t.Errorf("repeated webhook answered %d", status)
			}
		}
		if _, err := s.Admin(t).StartBackfill(t.Context(), &mirrorv1.StartBackfillRequest{}); err != nil {
			t.Fatal(err)
		}
		awaitIdle(t, s)
		if out, _ := run("user", user); !strings.HasPrefix(out, "there is nothing to erase") {
			t.Errorf("erase after repeated webhooks and a sweep: %s", out)
		}
		if found := somewhere(t, db, user); len(found) > 0 {
			t.Errorf("tables that name the user after repeated webhooks and a sweep = %q", found)
		}
		// The others are as they were.
		status, _, body := s.Get(t, "/v1/rooms/stays/user-sessions")
		if status != http.StatusOK || !bytes.Contains(body, []byte("bob")) {
			t.Errorf("sessions = %d %s; want those of others", status, body)
		}
	})
}

package reconcile_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// copies are the tables that hold what is mirrored of a room.
var copies = []string{
	"mirror_active_user", "mirror_comment", "mirror_comment_attachment", "mirror_comment_mention",
	"mirror_comment_reaction",
	"mirror_document", "mirror_notification", "mirror_room", "mirror_room_term", "mirror_thread", "mirror_thread_term",
	"mirror_user_session",
}

// Each event changes the rows of the tables that docs/EVENTS.md names, and of no
// others, when everything in its room has changed without a word.
func TestEventsChangeTheRowsTheDocumentNames(t *testing.T) {
	t.Parallel()
	var vectors []struct{ Name, Body string }
	b, err := os.ReadFile(filepath.Join("..", "..", "ingest", "webhook", "testdata", "signed-vectors.json"))
	if err == nil {
		err = json.Unmarshal(b, &vectors)
	}
	if err != nil {
		t.Fatal(err)
	}
	vectors = append(vectors,
		struct{ Name, Body string }{"roomUpdated", `{"type":"roomUpdated","data":{"roomId":"mirror:storage"}}`})
	document, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "docs", "EVENTS.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := make(map[string][]string)
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| .* \\| (.*) \\|$").FindAllStringSubmatch(string(document),
		-1) {
		tables := strings.Split(strings.ReplaceAll(m[2], "`", ""), ", ")
		slices.Sort(tables)
		named[m[1]] = tables
	}
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start()
		db := e.Connect(t, b.url)
		room := func(name string) string {
			if name == "notification-custom" {
				return "" // the one that belongs to no room
			}
			return "room of " + name
		}
		for _, v := range vectors {
			if id := room(v.Name); id != "" {
				b.told(r, func() {
					b.create(id, lson("1"))
					b.startThread(id, "th_1")
					b.must(b.upstream.Enter(id, alice(1)))
				})
			}
		}
		b.quiet()
		before := make(map[string]map[string]string)
		var batch []mirror.Delivery
		for _, v := range vectors {
			id := room(v.Name)
			before[v.Name] = contents(t, db, id)
			if id != "" {
				b.changeEverything(id)
			}
			switch v.Name {
			case fake.RoomDeleted:
				b.remove(id)
			case fake.ThreadDeleted:
				b.must(b.upstream.DeleteThread(id, "th_1"))
			}
			body := strings.ReplaceAll(v.Body, "mirror:storage", id)
			batch = append(batch, sooner(decode("msg_"+v.Name, body, time.Now())))
		}
		b.accept(r, batch...)
		b.quiet()
		for _, v := range vectors {
			after := contents(t, db, room(v.Name))
			var changed []string
			for _, table := range copies {
				if before[v.Name][table] != after[table] {
					changed = append(changed, table)
				}
			}
			typ, _, _ := strings.Cut(v.Name, "-")
			if diff := gocmp.Diff(named[typ], changed); diff != "" || len(changed) == 0 {
				t.Errorf("tables that %s changed (-document +database):\n%s", v.Name, diff)
			}
		}
	})
}

// changeEverything changes all there is in a room, of which no event tells.
func (b *bench) changeEverything(room string) {
	b.Helper()
	b.must(b.upstream.SetRoomMetadata(room, map[string]any{"name": "another"}))
	b.must(b.upstream.SetStorage(room, []byte(lson("2"))))
	b.must(b.upstream.SetYdoc(room, "", []byte(recorded(b, "yjs-text"))))
	b.must(b.upstream.AddReaction(room, "th_1", "cm_1", "👍", "bob"))
	b.must(b.upstream.SetCommentBody(room, "th_1", "cm_1", []byte(strings.ReplaceAll(discussion, "bob", "carol"))))
	b.must(b.upstream.SetThreadMetadata(room, "th_1", map[string]any{"color": "another"}, "bob"))
	_, err := b.upstream.CreateComment(room, "th_1",
		fake.Comment{Attachments: []fake.Attachment{{ID: "at_1", Name: "plan.pdf"}}})
	b.must(err)
	b.must(b.upstream.Enter(room, alice(77)))
}

// contents are the rows of a room, by their tables.
func contents(t *testing.T, db *dbtest.DB, room string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	for _, table := range copies {
		rows, err := db.QueryContext(t.Context(), fmt.Sprintf("select * from %s where room_id = '%s'", table, room))
		if err != nil {
			t.Fatal(err)
		}
		columns, err := rows.Columns()
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for rows.Next() {
			values, places := make([]any, len(columns)), make([]any, len(columns))
			for i := range values {
				places[i] = &values[i]
			}
			if err := rows.Scan(places...); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, fmt.Sprint(values))
		}
		if err := rows.Close(); err != nil {
			t.Fatal(err)
		}
		slices.Sort(lines)
		out[table] = strings.Join(lines, "\n")
	}
	return out
}

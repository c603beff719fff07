package blackbox_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// verify runs the command against a service.
func verify(t *testing.T, s *harness.Service, args ...string) result {
	t.Helper()
	return command(t, map[string]string{"MIRROR_SERVER": s.GRPCAddr}, append([]string{"verify"}, args...)...)
}

// wantVerified checks that nothing differs.
func wantVerified(t *testing.T, s *harness.Service, when string) {
	t.Helper()
	if got := verify(t, s); got.code != 0 || got.stdout != "" || !strings.Contains(got.told, "0 differences") {
		t.Fatalf("verify %s = %+v; want exit code 0 and no difference", when, got)
	}
}

// furnish puts one of everything that is verified into a room, before anything of
// it is told.
func furnish(t *testing.T, upstream *harness.Fake, room string) (thread string) {
	t.Helper()
	update, err := os.ReadFile("../../internal/decode/yjs/testdata/editor-tiptap-update.bin")
	if err != nil {
		t.Fatal(err)
	}
	err = upstream.CreateRoom(room, fake.RoomOptions{
		// Numbers that engines spell in their own ways.
		Storage:  []byte(`{"liveblocksType":"LiveObject","data":{"n":[1.0,1e2,-0.5,123456789012345678,0.1],"s":"\u00e9\"\\","room":` + strconv.Quote(room) + `}}`),
		Metadata: map[string]any{"title": room, "tags": []string{"a", "b"}}, OrganizationID: "acme",
		LastConnectionTime: time.Now(),
	})
	if err == nil {
		err = upstream.SetYdoc(room, "", update)
	}
	if err == nil {
		thread, err = upstream.CreateThread(room, fake.ThreadOptions{
			Metadata: map[string]any{"priority": 1.5, "done": false, "color": "blue"}, Visibility: "public",
			Comment: fake.Comment{
				UserID: "alice",
				Body: json.RawMessage(`{"version":1,"content":[{"type":"paragraph","children":[{"text":"Hello ","bold":true},` +
					`{"type":"mention","kind":"user","id":"bob"},{"type":"mention","kind":"group","id":"team","userIds":["carol","dave"]}]}]}`),
				Metadata:    map[string]any{"note": "x"},
				Attachments: []fake.Attachment{{ID: "at_1", Name: "plan.pdf", Size: 12345, MIMEType: "application/pdf"}},
			},
		})
	}
	var comment string
	if err == nil {
		comment, err = upstream.CreateComment(room, thread, fake.Comment{UserID: "bob", Text: "an answer"})
	}
	if err == nil {
		err = upstream.AddReaction(room, thread, comment, "👍", "alice")
	}
	if err != nil {
		t.Fatal(err)
	}
	return thread
}

// After many changes at once, told in disorder and twice, nothing differs.
func TestVerifyAfterAStorm(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		s, upstream := startOn(t, e.Database(t), nil)
		rooms := numbered("storm-", 12)
		var mu sync.Mutex
		var told []harness.Delivery
		upstream.OnEvent(func(ev fake.Event) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, harness.SignEvent(t, ev))
		})
		random := rand.New(rand.NewPCG(1, 2))
		post := func() {
			mu.Lock()
			batch := told
			told = nil
			mu.Unlock()
			batch = slices.Concat(batch, batch) // at least once
			random.Shuffle(len(batch), func(i, j int) { batch[i], batch[j] = batch[j], batch[i] })
			for _, d := range batch {
				if status := s.Post(t, d); status != http.StatusOK {
					t.Fatalf("webhook answered %d", status)
				}
			}
		}
		threads := make(map[string]string)
		for _, room := range rooms {
			threads[room] = furnish(t, upstream, room)
		}
		for i := range 300 {
			room := rooms[random.IntN(len(rooms))]
			var err error
			switch random.IntN(8) {
			case 0:
				_, err = upstream.CreateThread(room,
					fake.ThreadOptions{Comment: fake.Comment{UserID: "carol", Text: fmt.Sprint("thread ", i)}})
			case 1:
				_, err = upstream.CreateComment(room, threads[room], fake.Comment{UserID: "dave", Text: fmt.Sprint("comment ", i)})
			case 2:
				if all := upstream.Threads(room); len(all) > 1 && all[len(all)-1] != threads[room] {
					err = upstream.DeleteThread(room, all[len(all)-1])
				}
			case 3:
				err = upstream.SetResolved(room, threads[room], i%2 == 0, "alice")
			case 4:
				err = upstream.DeleteRoom(room)
				threads[room] = furnish(t, upstream, room)
			default:
				err = upstream.SetStorage(room, storage(fmt.Sprint(i)))
			}
			if err != nil {
				t.Fatal(err)
			}
			if i%20 == 19 {
				post()
			}
		}
		post()
		awaitIdle(t, s)
		wantVerified(t, s, "after the storm")

		// The store was not written to by it, and only a part is compared if asked for.
		calls := upstream.Calls("", fake.EndpointStorage)
		if got := verify(t, s, "--room-prefix", "storm-0000"); got.code != 0 || !strings.Contains(got.told, "10 rooms") {
			t.Errorf("verify of ten rooms = %+v", got)
		}
		if n := upstream.Calls("", fake.EndpointStorage) - calls; n != 10 {
			t.Errorf("Storage documents fetched = %d; want those of ten rooms", n)
		}
	})
}

// Rows damaged by hand are all found, told as they are, and repaired if asked for.
func TestVerifyFindsAndRepairs(t *testing.T) {
	t.Parallel()
	// Each is done to a room of its own. The words are those of the line that tells.
	damages := []struct {
		name, sql string
		told      []string
	}{
		{"storage data", `update mirror_document set data = '{"n": [1, 100, -0.5, 123456789012345679, 0.1]}' where room_id = ? and kind = 2`, []string{"derived: storage", "queryable JSON"}},
		{
			"storage data missing", `update mirror_document set data = null where room_id = ? and kind = 2`,
			[]string{"derived: storage", "missing"},
		},
		{"storage content", `update mirror_document set content = (select content from (select content from mirror_document where room_id = 'whole' and kind = 2) o) where room_id = ? and kind = 2`, []string{"content: storage"}},
		{
			"storage content destroyed", `update mirror_document set content = 'nonsense' where room_id = ? and kind = 2`,
			[]string{"content: storage"},
		},
		{"storage hash", `update mirror_document set content_sha256 = (select content_sha256 from (select content_sha256 from mirror_document where room_id = 'whole' and kind = 3) o) where room_id = ? and kind = 2`, []string{"derived: storage", "hash"}},
		{
			"storage version", `update mirror_document set derive_version = 99 where room_id = ? and kind = 2`,
			[]string{"derived: storage", "version"},
		},
		{"storage row", `delete from mirror_document where room_id = ? and kind = 2`, []string{"missing: storage"}},
		{
			"ydoc text", `update mirror_document set plain_text = 'other words' where room_id = ? and kind = 3`,
			[]string{"derived: ydoc", "plain text"},
		},
		{
			"ydoc data", `update mirror_document set data = '[]' where room_id = ? and kind = 3`,
			[]string{"derived: ydoc", "queryable JSON"},
		},
		{"ydoc row", `delete from mirror_document where room_id = ? and kind = 3`, []string{"missing: ydoc"}},
		{"all documents", `delete from mirror_document where room_id = ?`, []string{"missing: storage", "missing: ydoc"}},
		{
			"room source", `update mirror_room set source_json = '{"type":"room"}' where room_id = ?`,
			[]string{"content: room"},
		},
		{
			"room data", `update mirror_room set data = '{"id": "other"}' where room_id = ?`,
			[]string{"derived: room", "queryable JSON"},
		},
		{"room hash", `update mirror_room set content_sha256 = (select content_sha256 from (select content_sha256 from mirror_room where room_id = 'whole') o) where room_id = ?`, []string{"derived: room", "hash"}},
		{
			"room organization", `update mirror_room set organization_id = 'evil' where room_id = ?`,
			[]string{"derived: room", "organization"},
		},
		{
			"room time", `update mirror_room set last_connection_time = null where room_id = ?`,
			[]string{"derived: room", "time"},
		},
		{"room row", `delete from mirror_room where room_id = ?`, []string{"missing: room"}},
		{"room tombstone", `update mirror_room set delete_time = create_time where room_id = ?`, []string{"missing: room"}},
		{"thread row", `delete from mirror_thread where room_id = ?`, []string{"missing: thread"}},
		{
			"thread source", `update mirror_thread set source_json = '{"type":"thread"}' where room_id = ?`,
			[]string{"content: thread"},
		},
		{
			"thread metadata", `update mirror_thread set metadata = '{"color": "red"}' where room_id = ?`,
			[]string{"derived: thread", "column metadata of mirror_thread"},
		},
		{
			"thread metadata as text", `update mirror_thread set metadata_text = '{"color": "red"}' where room_id = ?`,
			[]string{"derived: thread", "column metadata_text of mirror_thread"},
		},
		{
			"number of comments", `update mirror_thread set comment_count = 99 where room_id = ?`,
			[]string{"derived: thread", "column comment_count of mirror_thread"},
		},
		{
			"thread resolved", `update mirror_thread set resolved = true where room_id = ?`,
			[]string{"derived: thread", "column resolved of mirror_thread"},
		},
		{"comment rows", `delete from mirror_comment where room_id = ?`, []string{"derived: thread", "row of mirror_comment is missing"}},
		{
			"a comment too many",
			`insert into mirror_comment (bucket, project_id, room_id, thread_id, comment_id, user_id, create_time, source_json, plain_text, markdown) ` +
				`select bucket, project_id, room_id, thread_id, 'cm_extra', 'eve', create_time, source_json, plain_text, markdown from mirror_thread_first where room_id = ?`,
			[]string{"derived: thread", "row of mirror_comment is surplus"},
		},
		{
			"comment text", `update mirror_comment set plain_text = 'never said' where room_id = ?`,
			[]string{"derived: thread", "column plain_text of mirror_comment"},
		},
		{
			"comment body", `update mirror_comment set body = null where room_id = ?`,
			[]string{"derived: thread", "column body of mirror_comment"},
		},
		{
			"comment author", `update mirror_comment set user_id = 'eve' where room_id = ?`,
			[]string{"derived: thread", "column user_id of mirror_comment"},
		},
		{"reactions", `delete from mirror_comment_reaction where room_id = ?`, []string{"derived: thread", "row of mirror_comment_reaction is missing"}},
		{
			"attachments", `update mirror_comment_attachment set size = 1 where room_id = ?`,
			[]string{"derived: thread", "column size of mirror_comment_attachment"},
		},
		{
			"mentions", `delete from mirror_comment_mention where room_id = ? and mentioned_id = 'carol'`,
			[]string{"derived: thread", "row of mirror_comment_mention is missing"},
		},
	}
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Database(t)
		s, upstream := startOn(t, url, nil)
		db := e.Connect(t, url)
		rooms := []string{"whole", "unlisted", "stale\nroom"}
		for _, d := range damages {
			rooms = append(rooms, d.name)
		}
		for _, room := range rooms {
			furnish(t, upstream, room)
			tell(t, s, fake.RoomCreated, room)
		}
		awaitIdle(t, s)
		wantVerified(t, s, "before the damage")

		want := make(map[string][]string)
		for _, d := range damages {
			sql := strings.Replace(d.sql, "mirror_thread_first", "(select * from mirror_comment) c", 1)
			if strings.Contains(d.sql, "mirror_thread_first") {
				sql += " and user_id = 'alice'"
			}
			n, err := db.Exec(t.Context(), sql, []byte(d.name))
			if err != nil || n == 0 {
				t.Fatalf("%s: %d rows (%v)", d.name, n, err)
			}
			want[d.name] = d.told
		}
		// What no event told of.
		if err := upstream.DeleteRoom("unlisted"); err != nil {
			t.Fatal(err)
		}
		want["unlisted"] = []string{"surplus: room"}
		if err := upstream.SetStorage("stale\nroom", storage(`"edited"`)); err != nil {
			t.Fatal(err)
		}
		thread := upstream.Threads("stale\nroom")[0]
		if err := upstream.DeleteThread("stale\nroom", thread); err != nil {
			t.Fatal(err)
		}
		unknown, err := upstream.CreateThread("stale\nroom",
			fake.ThreadOptions{Comment: fake.Comment{UserID: "bob", Text: "new"}})
		if err != nil {
			t.Fatal(err)
		}
		want["stale\nroom"] = []string{
			"content: storage", fmt.Sprintf("surplus: thread %q", thread),
			fmt.Sprintf("missing: thread %q", unknown),
		}

		check := func(got result, repaired bool) {
			t.Helper()
			if got.code != 3 {
				t.Fatalf("verify = %+v; want exit code 3", got)
			}
			const next = " repairs requested; run verify again to see that nothing differs any more"
			if strings.Contains(got.told, next) != repaired {
				t.Errorf("verify says at the end: %q; want what to do next only after a repair", got.told)
			}
			lines := strings.Split(strings.TrimSpace(got.stdout), "\n")
			for room, words := range want {
				var of []string
				for _, line := range lines {
					if strings.Contains(line, fmt.Sprintf(" of room %q: ", room)) {
						of = append(of, line)
					}
				}
				all := strings.Join(of, "\n")
				for _, word := range words {
					if !strings.Contains(all, word) {
						t.Errorf("verify tells of room %q: %q; want %q", room, all, word)
					}
				}
				if n := strings.Count(all, "[repair requested]"); repaired && n != len(of) || !repaired && n != 0 {
					t.Errorf("verify tells of room %q: %q; want its repair told: %t", room, all, repaired)
				}
			}
			for _, line := range lines {
				if strings.Contains(line, `"whole"`) || strings.Contains(line, "not done") {
					t.Errorf("verify tells %q", line)
				}
				for _, content := range []string{"Hello", "never said", "acme"} {
					if strings.Contains(line, content) {
						t.Errorf("verify tells content: %q", line)
					}
				}
			}
		}
		check(verify(t, s), false)
		check(verify(t, s), false) // nothing was mended by looking
		check(verify(t, s, "--repair"), true)
		wantVerified(t, s, "after the repair")
		awaitGone(t, s, "unlisted")
		awaitIdle(t, s)
		wantVerified(t, s, "after all is quiet")
	})
}

// What waits for its fetch differs for a while, and is no drift.
func TestVerifyTellsDriftFromWhatIsPending(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		url := e.Database(t)
		s, upstream := startOn(t, url, nil)
		furnish(t, upstream, "room")
		tell(t, s, fake.RoomCreated, "room")
		awaitIdle(t, s)
		if err := upstream.SetStorage("room", storage(`"edited"`)); err != nil {
			t.Fatal(err)
		}
		db := e.Connect(t, url)
		due := func(at any) {
			t.Helper()
			n, err := db.Exec(t.Context(), "update mirror_resource_state set due_time = ? where room_id = ? and kind = 2", at,
				[]byte("room"))
			if err != nil || n != 1 {
				t.Fatalf("%d rows (%v)", n, err)
			}
		}
		due(time.Now().Add(time.Hour).UTC())
		if got := verify(t, s, "--repair"); got.code != 0 || got.stdout != "" ||
			!strings.Contains(got.told, "1 resources differ but have a fetch pending") {
			t.Errorf("verify of what is pending = %+v; want exit code 0, and what waits told", got)
		}
		due(nil)
		if got := verify(t, s); got.code != 3 || !strings.Contains(got.stdout, "content: storage") {
			t.Errorf("verify of the same when nothing is pending = %+v; want it told as drift", got)
		}
	})
}

// A key of another project finds every room surplus, and repairs none of them.
func TestVerifyRepairsNothingByABrokenList(t *testing.T) {
	t.Parallel()
	s, upstream := start(t, nil)
	for _, room := range numbered("room-", 3) {
		create(t, s, upstream, room, fake.RoomOptions{})
	}
	awaitIdle(t, s)
	upstream.SetForeign(true)
	got := verify(t, s, "--repair")
	if got.code != 3 || strings.Count(got.stdout, "surplus: room of room") != 3 ||
		strings.Count(got.stdout, "not repaired: the list of rooms is empty") != 3 {
		t.Errorf("verify --repair with the key of another project = %+v; want three rooms told of and none repaired", got)
	}
	upstream.SetForeign(false)
	wantVerified(t, s, "with the right key")

	// What cannot be compared is told, and is no success.
	upstream.Script(fake.Match{Endpoint: fake.EndpointStorage},
		fake.Status(http.StatusForbidden, "UNAUTHORIZED_ROOM_ACCESS").Always())
	if got := verify(t, s); got.code != 1 || strings.Count(got.stdout, "\n") != 3 ||
		strings.Count(got.stdout, "not compared: storage of room") != 3 ||
		!strings.Contains(got.told, "3 resources could not be compared") {
		t.Errorf("verify without access to documents = %+v; want exit code 1 and the reason", got)
	}
	upstream.ClearScripts()
	upstream.Script(fake.Match{Endpoint: fake.EndpointListRooms},
		fake.Status(http.StatusNotFound, "ROOM_NOT_FOUND").Always())
	if got := verify(t, s); got.code != 1 || got.stdout != "" || strings.Count(got.told, "\n") != 1 {
		t.Errorf("verify without a list = %+v; want exit code 1 and one line", got)
	}
}

// Commands that talk to a service say in one line what is wrong.
func TestRemoteCommandsExplainThemselves(t *testing.T) {
	t.Parallel()
	needServers(t)
	upstream := harness.NewFake(t)
	closed := harness.Start(t, harness.Options{
		DatabaseURL: database(t), UpstreamURL: upstream.URL,
		Env: map[string]string{"MIRROR_API_TOKEN": token, "MIRROR_MIGRATE": ""},
	})
	secured := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(secured.Close)
	secured.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	for _, name := range []string{"verify", "backfill"} {
		for _, c := range []struct {
			env  map[string]string
			args []string
			code int
			want []string
		}{
			{
				env: map[string]string{"MIRROR_SERVER": "127.0.0.1:1"}, code: 1,
				want: []string{"127.0.0.1:1", "serve", "--server"},
			},
			{
				args: []string{"--server", closed.HTTPAddr}, code: 1,
				want: []string{closed.HTTPAddr, "something answers", "not the gRPC port", "--server"},
			},
			{
				args: []string{"--server", "https://" + closed.GRPCAddr}, code: 1,
				want: []string{closed.GRPCAddr, "something answers", "leave out https://"},
			},
			{
				args: []string{"--server", secured.Listener.Addr().String()}, code: 1,
				want: []string{"something answers", "begin with https://"},
			},
			{
				env: map[string]string{"MIRROR_SERVER": "nowhere"}, code: 2,
				want: []string{"MIRROR_SERVER", "nowhere", "127.0.0.1:9090"},
			},
			{args: []string{"--server", closed.GRPCAddr}, code: 1, want: []string{"MIRROR_API_TOKEN"}},
			{
				env: map[string]string{"MIRROR_API_TOKEN": secretMark + "0123456789"}, args: []string{"--server", closed.GRPCAddr},
				code: 1, want: []string{"MIRROR_API_TOKEN"},
			},
			{
				env:  map[string]string{"MIRROR_API_TOKEN": token},
				args: []string{"--server", closed.GRPCAddr, "--project-id", "other"}, code: 1, want: []string{"project"},
			},
		} {
			got := command(t, c.env, append([]string{name}, c.args...)...)
			if got.code != c.code || got.stdout != "" || strings.Count(got.told, "\n") != 1 ||
				!strings.HasPrefix(got.told, "liveblocks-mirror: ") || strings.Contains(got.told, secretMark) {
				t.Errorf("%s %q with %v = %+v; want exit code %d and one line", name, c.args, c.env, got, c.code)
			}
			for _, want := range c.want {
				if !strings.Contains(got.told, want) {
					t.Errorf("%s %q says %q; want %s in it", name, c.args, got.told, want)
				}
			}
		}
	}
	got := command(t, map[string]string{"MIRROR_API_TOKEN": token + ",another-token-0123"}, "backfill", "--watch",
		"--server", closed.GRPCAddr)
	if got.code != 1 || !strings.Contains(got.told, "no sweep yet") {
		t.Errorf("backfill --watch before any sweep = %+v; want it said", got)
	}
	if got := command(t, map[string]string{"MIRROR_API_TOKEN": token}, "backfill", "--server",
		closed.GRPCAddr); got.code != 0 || !strings.Contains(got.stdout, "done: 0 rooms listed") {
		t.Errorf("backfill of nothing = %+v; want exit code 0 and what was done", got)
	}
}

// What an operator has confirmed to be deleted is repaired as sweeps follow it, and no
// more than that: rooms, and groups, of which no list is believed either that lacks many.
func TestVerifyRepairsDeletionsThatAreConfirmed(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		upstream := harness.NewFake(t)
		rooms, groups := numbered("room-", 25), numbered("group-", 25)
		populate(t, upstream, rooms...)
		for _, id := range groups {
			upstream.PutGroup(id, "alice")
		}
		url := e.Database(t)
		s := harness.Start(t, harness.Options{
			DatabaseURL: url, UpstreamURL: upstream.URL,
			Env: map[string]string{"MIRROR_SWEEP_INTERVAL": "24h"}, // one at the start
		})
		db := e.Connect(t, url)
		living := func() string {
			return fmt.Sprintf("%d rooms, %d groups", count(t, db, "select count(*) from mirror_room where delete_time is null"),
				count(t, db, "select count(*) from mirror_group where delete_time is null"))
		}
		await := func(want string) {
			t.Helper()
			harness.Eventually(t, patience, func() error {
				// The next sweep is pending.
				due := count(t, db, "select count(*) from mirror_resource_state where due_time is not null and kind <> 8")
				if got := living(); got != want || due != 0 {
					return fmt.Errorf("living: %s, %d tasks are due; want %s", got, due, want)
				}
				return nil
			})
		}
		await("25 rooms, 25 groups")
		for i := range 22 {
			if err := upstream.DeleteRoom(rooms[i]); err != nil {
				t.Fatal(err)
			}
			upstream.SetGroup(groups[i], nil)
		}
		repair := func(when string, notRepaired int, want string) {
			t.Helper()
			got := verify(t, s, "--repair")
			if got.code != 3 || strings.Count(got.stdout, "surplus: ") != 44 ||
				strings.Count(got.stdout, "not repaired: ") != notRepaired {
				t.Errorf("verify --repair %s = %+v; want 44 differences, %d of them not repaired", when, got, notRepaired)
			}
			await(want)
		}
		confirm := func(rooms, groups int) {
			t.Helper()
			// Without the sweep that a call would start.
			if n, err := db.Exec(t.Context(), "update mirror_project set confirmed_rooms = ?, confirmed_groups = ?, "+
				"confirm_time = ?", rooms, groups, time.Now().UTC().Truncate(time.Second)); err != nil || n != 1 {
				t.Fatalf("confirm = %d, %v", n, err)
			}
		}
		repair("of what nobody has confirmed", 44, "25 rooms, 25 groups")
		confirm(21, 21)
		repair("of more than was confirmed", 44, "25 rooms, 25 groups")
		confirm(22, 22)
		repair("of what was confirmed", 0, "3 rooms, 3 groups")
		wantVerified(t, s, "after that")
	})
}

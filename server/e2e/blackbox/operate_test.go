package blackbox_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// A paused project records events and fetches nothing, on each replica and after a
// restart, until it is resumed.
func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		upstream := harness.NewFake(t)
		o := harness.Options{DatabaseURL: e.Database(t), UpstreamURL: upstream.URL, Env: map[string]string{
			"MIRROR_SWEEP_INTERVAL": "0s", "MIRROR_FULL_SWEEP_INTERVAL": "0s",
		}}
		s := harness.Start(t, o)
		create(t, s, upstream, "room", fake.RoomOptions{Storage: storage("1")})
		awaitStorage(t, s, "room", storage("1"))
		awaitIdle(t, s)

		must(t, pause(t, s, "the database is moved"))
		other := harness.Start(t, o) // it begins paused
		calls := upstream.Calls("", "")
		must(t, upstream.SetStorage("room", storage("2")))
		for _, s := range []*harness.Service{s, other} {
			tell(t, s, fake.StorageUpdated, "room")
			p := projectStatus(t, s)
			if !strings.HasPrefix(p.GetPauseReason(), "by an operator: the database is moved; ") || p.GetPauseTime() == nil {
				t.Errorf("status = %v; want the pause", p)
			}
			_, err := s.Mirror(t).GetRoom(t.Context(), &mirrorv1.GetRoomRequest{
				RoomId: "room", MaxAge: durationpb.New(0), RequireFresh: true,
			})
			if status.Code(err) != codes.Unavailable || reasonOf(err) != "PROJECT_PAUSED" {
				t.Errorf("GetRoom that must be fresh = %v; want UNAVAILABLE, PROJECT_PAUSED", err)
			}
		}
		if n := upstream.Calls("", "") - calls; n != 0 {
			t.Errorf("%d calls to Liveblocks while the project is paused; want none", n)
		}
		if _, err := s.Admin(t).ResumeProject(t.Context(), &mirrorv1.ResumeProjectRequest{}); err != nil {
			t.Fatal(err)
		}
		awaitStorage(t, s, "room", storage("2"))
		if p := projectStatus(t, s); p.GetPauseReason() != "" {
			t.Errorf("status after the pause = %v", p)
		}
	})
}

func pause(t testing.TB, s *harness.Service, reason string) error {
	t.Helper()
	_, err := s.Admin(t).PauseProject(t.Context(), &mirrorv1.PauseProjectRequest{Reason: reason})
	return err
}

// replayed replays events and returns the last message.
func replayed(t testing.TB, s *harness.Service, req *mirrorv1.ReplayEventsRequest) (
	last *mirrorv1.ReplayEventsResponse,
) {
	t.Helper()
	stream, err := s.Admin(t).ReplayEvents(t.Context(), req)
	for err == nil {
		var got *mirrorv1.ReplayEventsResponse
		if got, err = stream.Recv(); err == nil {
			last = got
		}
	}
	if !errors.Is(err, io.EOF) || !last.GetDone() {
		t.Fatalf("ReplayEvents = %v, %v; want the end", last, err)
	}
	return last
}

// Replaying what was recorded leaves the mirror as it was: every row, exactly once.
// OPERATE_EVENTS is how many events there are at least; CI does with few.
func TestReplayChangesNothing(t *testing.T) {
	t.Parallel()
	events := 200
	if n, err := strconv.Atoi(os.Getenv("OPERATE_EVENTS")); err == nil {
		events = n
	}
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		upstream, url := harness.NewFake(t), e.Database(t)
		s := harness.Start(t, harness.Options{DatabaseURL: url, UpstreamURL: upstream.URL, Env: map[string]string{
			"MIRROR_SWEEP_INTERVAL": "0s", "MIRROR_FULL_SWEEP_INTERVAL": "0s",
		}})
		follow(t, s, upstream)
		const ofRoom = 19 // events of each room that stays; one that is deleted has another
		rooms := numbered("room-", (events+ofRoom-1)/ofRoom)
		for i, room := range rooms {
			must(t, upstream.CreateRoom(room, fake.RoomOptions{Storage: storage(`"` + room + `"`)}))
			thread, err := upstream.CreateThread(room, fake.ThreadOptions{Comment: fake.Comment{UserID: "alice", Text: room}})
			must(t, err)
			must(t, upstream.AddReaction(room, thread, upstream.Comments(room, thread)[0], "+1", "bob"))
			for n := range 6 {
				id, user := int64(i*10+n), "user-"+strconv.Itoa(n)
				must(t, upstream.Enter(room, fake.Connection{ID: id, UserID: user}))
				if n%2 == 0 {
					must(t, upstream.Leave(room, id))
				}
			}
			for n := range 5 {
				must(t, upstream.SetStorage(room, storage(strconv.Itoa(n))))
			}
			upstream.Notify(fake.Notification{UserID: "alice", RoomID: room, Kind: "$trip", SubjectID: room})
			if i%5 == 4 {
				must(t, upstream.DeleteRoom(room))
			}
		}
		awaitIdle(t, s)
		db := e.Connect(t, url)
		before := mirrored(t, db)
		stored := count(t, db, "select count(*) from mirror_event")
		if stored < events {
			t.Errorf("%d events were recorded; want at least %d", stored, events)
		}

		if got := replayed(t, s, &mirrorv1.ReplayEventsRequest{DryRun: true}); got.GetEventsRead() != int64(stored) ||
			got.GetEventsReplayed() != int64(stored) {
			t.Errorf("dry run = %v; want all of %d events", got, stored)
		}
		if n := count(t, db, "select count(*) from mirror_resource_state where due_time is not null"); n != 0 {
			t.Errorf("a dry run has made %d resources due", n)
		}
		begin := time.Now()
		if got := replayed(t, s, &mirrorv1.ReplayEventsRequest{}); got.GetEventsReplayed() != int64(stored) {
			t.Errorf("replay = %v; want all of %d events", got, stored)
		}
		marked := time.Since(begin)
		awaitIdle(t, s)
		t.Logf("%d events: replayed in %v, fetched after %v", stored, marked, time.Since(begin))
		for table, rows := range mirrored(t, db) {
			if rows != before[table] {
				t.Errorf("%s is another one after the replay: %s", table, firstDifference(before[table], rows))
			}
		}
		if n := count(t, db, "select count(*) from mirror_unfolded_event"); n != 0 {
			t.Errorf("%d events still wait to be folded", n)
		}
	})
}

// mirrored returns what is mirrored, by table: all but states, whose times and
// generations count fetches.
func mirrored(t *testing.T, db *dbtest.DB) map[string]string {
	t.Helper()
	tables := map[string]string{}
	for _, table := range []string{
		"mirror_event", "mirror_room", "mirror_document", "mirror_thread", "mirror_comment", "mirror_comment_reaction",
		"mirror_user_session", "mirror_notification", "mirror_active_user", "mirror_change",
	} {
		tables[table] = string(dump(t, db, "select * from "+table))
		if tables[table] == "" {
			t.Fatalf("%s is empty, so this test shows nothing of it", table)
		}
	}
	return tables
}

func firstDifference(before, after string) string {
	a, b := strings.Split(before, "\n"), strings.Split(after, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("line %d of %d was %q and is %q", i, len(a), a[i], b[i])
		}
	}
	return fmt.Sprintf("%d lines were %d", len(b), len(a))
}

// Each command for operators prints text for people, and with --json what HTTP answers.
func TestOperatorCommands(t *testing.T) {
	t.Parallel()
	needServers(t)
	s, upstream := start(t, map[string]string{"MIRROR_SWEEP_INTERVAL": "0s", "MIRROR_FULL_SWEEP_INTERVAL": "0s"})
	create(t, s, upstream, "a room", fake.RoomOptions{Storage: storage("1")})
	awaitStorage(t, s, "a room", storage("1"))
	awaitIdle(t, s)
	d := harness.SignEvent(t, fake.Event{
		Type: fake.UserEntered, RoomID: "a room", UserID: "alice", ConnectionID: 1, Time: time.Now(),
	})
	if code := s.Post(t, d); code != http.StatusOK {
		t.Fatalf("webhook = %d", code)
	}
	awaitIdle(t, s)
	env := map[string]string{"MIRROR_SERVER": s.GRPCAddr}
	run := func(code int, args ...string) result {
		t.Helper()
		got := command(t, env, args...)
		if got.code != code || strings.Contains(got.told, "panic") {
			t.Errorf("%q = %+v; want exit code %d", args, got, code)
		}
		return got
	}
	must(t, pause(t, s, "so that tasks stay"))
	tell(t, s, fake.StorageUpdated, "a room")
	var tasks struct {
		Tasks []struct {
			TaskID string `json:"taskId"`
		}
	}
	listed := []byte(run(0, "tasks", "list", "--json").stdout)
	if err := json.Unmarshal(listed, &tasks); err != nil || len(tasks.Tasks) != 1 {
		t.Fatalf("tasks = %+v, %v; want the storage", tasks, err)
	}
	task := tasks.Tasks[0].TaskID
	for _, c := range []struct {
		args string
		want string // in the text
		json string // and in the JSON
	}{
		{"status", "PAUSED", `"pauseReason":"by an operator: so that tasks stay`},
		{"status", "OPERATIONS.md#fetching-is-paused", `"warnings":[{"text":"fetching is paused: by an operator`},
		{"tasks list", "storage", `"kind":"storage"`},
		{"tasks list --state=done --limit=1", "done", `"nextPageToken":`},
		{"tasks show " + task, "pending", `"taskId":"` + task},
		{"tasks retry " + task, `storage of room "a room" is pending`, `"state":"pending"`},
		{"tasks discard " + task, `storage of room "a room" is waiting`, `"state":"waiting"`},
		{"resync RESYNC --kind=ydoc", "ydoc", `"kind":"ydoc"`},
		{"events list --type=userEntered --since=1h", d.ID, `"type":"userEntered"`},
		{"events list --thread=nowhere", "RECEIVED", `{"events":[]`},
		{"events show " + d.ID, "verified by the secret", `"secretFingerprint":"96ad2ccd"`},
		{"events list --outcome=queued", d.ID, `"outcome":"queued"`},
		{"events list --outcome=malformed", "RECEIVED", `{"events":[]`},
		{"events list --until=1h", "RECEIVED", `{"events":[]`},
		{"events show " + d.ID, `"userEntered"`, `"payload":{`},
		{"events show " + d.ID, "What it makes stale", `"tasks":[{"taskId":`},
		{"events replay", "nothing was changed", `"done":true`},
		{"events replay --yes " + d.ID, "1 of 1 events replayed", `"eventsReplayed":"1"`},
		{"resume", "goes on", "{}"},
		{"pause moving", "nothing is fetched", "{}"},
		{"project unpin", "the Liveblocks project was", `liveblocksProjectId`},
		{"project pin 6605", `is "6605"`, `eventsTakenUp`},
		{"project confirm-key", "taken to be", "{}"},
		{"audit list --method=DiscardTask --caller=anybody --since=1h", "DiscardTask", `"code":"OK"`},
		{"audit list --method=PauseProject", "127.0.0.1", `"method":"PauseProject"`},
		{"audit list --denied", "RESULT", `{"auditEntries":[]`},
		{"audit list --performed --method=PauseProject", "127.0.0.1", `"method":"PauseProject"`},
		{"call GetRoom REQUEST", `"roomId":"a room"`, ""},
		{"config print", "MIRROR_WORKERS", `"variable":"MIRROR_WORKERS"`},
		{"completion bash", "complete -o default", ""},
		{"completion fish", "complete -c liveblocks-mirror", ""},
	} {
		args := strings.Fields(c.args)
		for i := range args {
			switch args[i] {
			case "RESYNC":
				args[i] = "a room"
			case "REQUEST":
				args[i] = `{"roomId":"a room"}`
			}
		}
		if got := run(0, args...); !strings.Contains(got.stdout, c.want) {
			t.Errorf("%q prints %q and says %q; want %q", args, got.stdout, got.told, c.want)
		}
		if c.json == "" {
			continue
		}
		got := run(0, append(args, "--json")...)
		for line := range strings.Lines(got.stdout) {
			if !json.Valid([]byte(line)) {
				t.Errorf("%q --json prints %q", args, line)
			}
		}
		if !strings.Contains(got.stdout, c.json) {
			t.Errorf("%q --json prints %q and says %q; want %q", args, got.stdout, got.told, c.json)
		}
	}
	for args, code := range map[string]int{
		"tasks show x": 1, "tasks discard x": 1, "events show nowhere": 1, "events replay nowhere --yes": 1,
		"tasks list --state=odd": 2, "events list --since=odd": 2,
		"events list --outcome=odd": 2, "resync a --kind=odd": 2, "call Nothing": 2,
		"call GetRoom x": 2, "tasks retry": 2, "pause": 2, "completion ksh": 2, "nothing": 2,
		"status --server=127.0.0.1:1": 1, "status --server=odd": 2,
	} {
		got := run(code, strings.Fields(args)...)
		last := got.told[strings.LastIndex(strings.TrimSpace(got.told), "\n")+1:]
		if !strings.HasPrefix(last, "liveblocks-mirror: ") {
			t.Errorf("%s says %q; want a last line that says what is wrong", args, got.told)
		}
	}
}

// The doctor finds nothing wrong beside a service that works, with the settings of that;
// it says what is wrong once the service has ended, and never shows a secret. Only the
// webhook address passes as a public one.
func TestDoctor(t *testing.T) {
	t.Parallel()
	needServers(t)
	const token = "a-token-of-the-doctors-test"
	url := database(t)
	s, upstream := startOn(t, url, map[string]string{ // no process answers there once it has ended
		"MIRROR_HTTP_ADDR": freeAddr(t), "MIRROR_GRPC_ADDR": freeAddr(t), "MIRROR_WEBHOOK_ADDR": freeAddr(t),
		"MIRROR_API_TOKEN": token,
	})
	create(t, s, upstream, "a room", fake.RoomOptions{Storage: storage("1")})
	env := map[string]string{
		"DATABASE_URL": url, "LIVEBLOCKS_BASE_URL": upstream.URL, "LIVEBLOCKS_SECRET_KEY": harness.SecretKey,
		"LIVEBLOCKS_WEBHOOK_SECRET": harness.WebhookSecret, "MIRROR_API_TOKEN": token, "MIRROR_GRPC_ADDR": s.GRPCAddr,
		"MIRROR_HTTP_ADDR": s.HTTPAddr, "MIRROR_WEBHOOK_ADDR": s.WebhookAddr,
		"MIRROR_PUBLIC_URL": "http://" + s.WebhookAddr + "/",
	}
	look := func(env map[string]string, code int, want ...string) {
		t.Helper()
		text, lines := command(t, env, "doctor"), command(t, env, "doctor", "--json")
		var report struct {
			Checks []struct{ Check, Verdict, Seen, Advice string }
		}
		if err := json.Unmarshal([]byte(lines.stdout), &report); err != nil || len(report.Checks) < 10 {
			t.Fatalf("doctor --json = %+v, %v", lines, err)
		}
		var bad []string
		for _, c := range report.Checks {
			if !strings.Contains(text.stdout, c.Check) {
				t.Errorf("doctor prints %q; want %s too", text.stdout, c.Check)
			}
			if c.Verdict == "warn" || c.Verdict == "fail" {
				bad = append(bad, c.Verdict+" "+c.Check)
			}
		}
		if text.code != code || lines.code != code || !slices.Equal(bad, want) {
			t.Errorf("doctor ends with %d and %d, and finds %q; want %d and %q\n%s", text.code, lines.code, bad, code, want,
				text.stdout)
		}
		for _, secret := range []string{token, harness.SecretKey, harness.WebhookSecret} {
			if strings.Contains(text.stdout+text.told+lines.stdout+lines.told, secret) {
				t.Errorf("doctor shows a secret:\n%s%s", text.stdout, text.told)
			}
		}
	}
	but := func(variable, value string) map[string]string {
		changed := maps.Clone(env)
		changed[variable] = value
		return changed
	}
	look(env, 0)
	look(but("MIRROR_PUBLIC_URL", s.URL("")), 0, "warn public url")
	look(but("MIRROR_PUBLIC_URL", "http://127.0.0.1:1"), 1, "fail public url")
	look(but("MIRROR_PUBLIC_URL", upstream.URL), 1, "fail public url")
	look(but("MIRROR_API_TOKEN", "another-token-than-that"), 1, "fail service")
	look(but("MIRROR_CONFIG", "/nowhere"), 1, "fail settings")
	open, _ := start(t, nil)
	look(but("MIRROR_PUBLIC_URL", open.URL("")), 1, "fail public url")
	if _, err := s.Stop(t); err != nil {
		t.Fatal(err)
	}
	look(env, 1, "warn service", "fail public url")
}

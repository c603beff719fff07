package blackbox_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// documentedCall is a section of docs/API.md: the lines that make a call, by program, and
// those that they need before them.
type documentedCall struct {
	name   string
	before []string
	lines  map[string]string
}

// documentedCalls reads docs/API.md, with the addresses of a service.
func documentedCalls(t *testing.T, s *harness.Service) (prelude string, calls []documentedCall) {
	t.Helper()
	text := strings.NewReplacer("127.0.0.1:9090", s.GRPCAddr, "127.0.0.1:8080", s.HTTPAddr).Replace(
		string(mustRead(t, "../../../docs/API.md")))
	call := documentedCall{lines: map[string]string{}}
	for line := range strings.SplitSeq(text+"\n### ", "\n") {
		if name, ok := strings.CutPrefix(line, "### "); ok {
			if call.name == "" {
				prelude = strings.Join(call.before, "\n")
			} else {
				calls = append(calls, call)
			}
			call = documentedCall{name: name, lines: map[string]string{}}
			continue
		}
		line, ok := strings.CutPrefix(line, "    ")
		program, _, _ := strings.Cut(line, " ")
		switch program {
		case "grpcurl", "curl", "liveblocks-mirror":
			call.lines[program] = line
		case "alias", "export": // this test has its own
		default:
			if ok {
				call.before = append(call.before, line)
			}
		}
	}
	return prelude, calls
}

// Every call of every service works as docs/API.md has it: with grpcurl, with curl and as a
// command.
func TestEveryCallOfTheDocuments(t *testing.T) {
	t.Parallel()
	needServers(t)
	programs := t.TempDir()
	must(t, os.Symlink(grpcurl(t), filepath.Join(programs, "grpcurl")))
	must(t, os.Symlink(harness.Binary(t), filepath.Join(programs, "liveblocks-mirror")))
	s, upstream := start(t, map[string]string{"MIRROR_API_TOKEN": token})
	post := func(path, body string) {
		t.Helper()
		if got := send(t, http.MethodPost, s.URL(path), bearer(token), strings.NewReader(body)); got.status != http.StatusOK {
			t.Fatalf("%s = %d %s", path, got.status, got.body)
		}
	}
	examplesAtLiveblocks(t, s, upstream)
	pending := func() { // a task that nothing takes up
		post("/v1/admin/project:pause", `{"reason":"a test"}`)
		tell(t, s, fake.StorageUpdated, "plan")
	}
	restore := func() { post("/v1/admin/project:resume", "") }
	prepare := map[string]func(){
		"RetryTask": pending, "DiscardTask": pending,
		"PauseProject": restore, "ResumeProject": func() { post("/v1/admin/project:pause", `{"reason":"a test"}`) },
		"PinProject":   func() { post("/v1/admin/project:unpin", "") },
		"UnpinProject": func() { post("/v1/admin/project:pin", `{"liveblocksProjectId":"`+harness.LiveblocksProject+`"}`) },
	}
	tidy := map[string]func(){"RetryTask": restore, "DiscardTask": restore, "PauseProject": restore}
	// part is what a pattern finds in what the service says.
	part := func(path, pattern string) func() string {
		return func() string {
			t.Helper()
			got := send(t, http.MethodGet, s.URL(path), bearer(token), nil)
			return string(regexp.MustCompile(pattern).Find(got.body))
		}
	}
	// Each of these calls changes what the service says here.
	changes := map[string]func() string{
		"RequestSync":  part("/v1/admin/tasks/AQACAARwbGFu", `"generation":"?\d+`),
		"PauseProject": part("/v1/admin/status", `"pauseReason":"[^"]+`),
	}
	changes["ResumeProject"] = changes["PauseProject"]
	changes["PinProject"] = part("/v1/admin/status", `"liveblocksProjectId":"[^"]+`)
	changes["UnpinProject"] = changes["PinProject"]
	// Each matches the answers to all three lines: as JSON with the names of protobuf, as that of
	// the HTTP API, and as a text.
	wants := map[string]string{
		"GetStatus": "default", "ListTasks": "AQACAARwbGFu", "GetTask": "AQACAARwbGFu", "RetryTask": `(?i)\bpending|_pending`,
		"DiscardTask": `(?i)\bwaiting|_waiting`, "RequestSync": "AQACAARwbGFu", "StartBackfill": "sweepId|resources fetched",
		"GetBackfill": "sweepId|resources fetched", "PinProject": `^\{\}\s*$|eventsTakenUp|605a50b01a36d5ea7a2e9104`,
		"UnpinProject": `^\{\}\s*$|liveblocksProjectId|Liveblocks project was`,
		"PauseProject": `^\{\}\s*$|nothing is fetched`, "ResumeProject": `^\{\}\s*$|fetching goes on`,
		"ConfirmSecretKey": `^\{\}\s*$|is taken to be`,
		"ConfirmDeletions": "sweepId|up to 12 rooms", "ReplayEvents": `"done": ?true|events would be replayed`,
		"EraseUser": `"done": ?true|nothing to erase`, "EraseRoom": "mirror_room",
		"VerifyMirror": `"summary"|0 repairs requested`, "ReceiveWebhook": "EVENT_OUTCOME_QUEUED|queued",
		"ListAuditEntries": "PauseProject",
		"GetEvent":         "plan", "ListEvents": "msg_example",
		"ListChanges": "plan", "WatchChanges": "plan", "GetRoom": "plan", "ListRooms": "plan", "ListDocuments": "plan",
		"GetStorageDocument": "flow|eyJmbG93", "GetYjsDocument": "hello|eyJub3Rl", "ReadDocument": "LiveObject|eyJsaXZl",
		"GetThread": "th_example", "ListThreads": "th_example", "GetComment": "cm_example", "ListComments": "cm_example",
		"ListActiveUsers": "alice", "ListUserSessions": "alice", "ListNotifications": "in_example", "GetFlow": "flow",
		"ListFlows": "flow", "GetGroup": "marketing", "ListGroups": "marketing",
	}

	prelude, calls := documentedCalls(t, s)
	prelude = "set -euo pipefail; curl() { command curl --fail-with-body \"$@\"; }\n" + prelude
	seen := map[string]bool{}
	for _, call := range calls {
		seen[call.name] = true
		want, err := regexp.Compile(wants[call.name])
		if err != nil || wants[call.name] == "" {
			t.Errorf("%s: %v; say what its answers hold", call.name, err)
			continue
		}
		for program, line := range call.lines {
			if prepare[call.name] != nil {
				prepare[call.name]()
			}
			before := ""
			if changes[call.name] != nil {
				before = changes[call.name]()
			}
			script := strings.Join(append(append([]string{prelude}, call.before...), line), "\n")
			cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
			cmd.Env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"), "MIRROR_SERVER="+s.GRPCAddr,
				"MIRROR_API_TOKEN="+token, "LIVEBLOCKS_WEBHOOK_SECRET="+harness.WebhookSecret)
			if call.name == "WatchChanges" { // which has no end
				cmd.Args[2] = strings.ReplaceAll(script, "\n"+program+" ", "\nexec "+program+" ")
				p := run(t, cmd)
				p.await(t, wants[call.name])
				_ = p.end(os.Kill)
				continue
			}
			out, err := cmd.CombinedOutput()
			if err != nil || !want.Match(out) || strings.Contains(string(out), `"error":`) { // that of a stream
				t.Errorf("%s: %v, want %s in\n%s", line, err, want, out)
			}
			if changes[call.name] != nil && changes[call.name]() == before {
				t.Errorf("%s has not changed %q", line, before)
			}
		}
		if tidy[call.name] != nil {
			tidy[call.name]()
		}
	}
	for _, method := range methods() {
		if !seen[string(method.Name())] {
			t.Errorf("docs/API.md lacks %s", method.FullName())
		}
	}
	for _, call := range calls {
		if len(call.lines) != 3 {
			t.Errorf("docs/API.md has %d lines for %s; want grpcurl, curl and a command", len(call.lines), call.name)
		}
	}
}

// methods are all calls of the API.
func methods() (all []protoreflect.MethodDescriptor) {
	protoregistry.GlobalFiles.RangeFilesByPackage("liveblocks.mirror.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			for j := range file.Services().Get(i).Methods().Len() {
				all = append(all, file.Services().Get(i).Methods().Get(j))
			}
		}
		return true
	})
	return all
}

// examplesAtLiveblocks makes what the examples of docs/API.md name, and waits until the
// service mirrors it.
func examplesAtLiveblocks(t *testing.T, s *harness.Service, upstream *harness.Fake) {
	t.Helper()
	follow(t, s, upstream)
	must(t, upstream.CreateRoom("plan", fake.RoomOptions{
		Storage: []byte(`{"liveblocksType":"LiveObject","data":{"flow":{"liveblocksType":"LiveObject","data":{` +
			`"nodes":{"liveblocksType":"LiveMap","data":{}},"edges":{"liveblocksType":"LiveMap","data":{}}}}}}`),
		Ydoc: []byte("\x01\x01\x01\x00\x04\x01\x04note\x05hello\x00"),
	}))
	tell(t, s, fake.YdocUpdated, "plan")
	must(t, upstream.Enter("plan", fake.Connection{ID: 1, UserID: "alice"}))
	_, err := upstream.CreateThread("plan", fake.ThreadOptions{
		ID: "th_example", Metadata: map[string]any{"color": "blue"},
		Comment: fake.Comment{ID: "cm_example", UserID: "alice", Text: "hello"},
	})
	must(t, err)
	upstream.Notify(fake.Notification{
		InboxID: "in_example", UserID: "alice", RoomID: "plan", SubjectID: "th_example",
	})
	upstream.PutGroup("marketing", "alice")
	must(t, upstream.CreateRoom("gone", fake.RoomOptions{}))
	harness.Eventually(t, patience, func() error {
		if got := send(t, http.MethodGet, s.URL("/v1/rooms/gone"), bearer(token), nil); got.status != http.StatusOK {
			return fmt.Errorf("a room is %d %s; want it mirrored", got.status, got.body)
		}
		return nil
	})
	must(t, upstream.DeleteRoom("gone"))
	tell(t, s, fake.RoomDeleted, "gone")
	harness.Eventually(t, patience, func() error {
		if got := send(t, http.MethodGet, s.URL("/v1/rooms/gone"), bearer(token), nil); got.status != http.StatusNotFound {
			return fmt.Errorf("a room is %d %s; want it deleted", got.status, got.body)
		}
		return nil
	})
	delivery := harness.SignAs(t, "msg_example", time.Now(), fake.Payload(fake.Event{
		Type: fake.StorageUpdated, RoomID: "plan", Time: time.Now(),
	}, harness.LiveblocksProject))
	if status := s.Post(t, delivery); status != http.StatusOK {
		t.Fatalf("webhook answered %d", status)
	}
	if got := send(t, http.MethodPost, s.URL("/v1/admin/backfill"), bearer(token), nil); got.status != http.StatusOK {
		t.Fatalf("backfill = %d %s", got.status, got.body)
	}
	settled := regexp.MustCompile(`"tasks":\[\]`)
	harness.Eventually(t, patience, func() error {
		for path, want := range map[string]string{
			"/v1/groups": "marketing", "/v1/notifications": "in_example", "/v1/user-sessions": "alice",
			"/v1/rooms/plan/flows": "flow", "/v1/rooms/plan/ydoc": "hello",
		} {
			got := send(t, http.MethodGet, s.URL(path), bearer(token), nil)
			if !strings.Contains(string(got.body), want) {
				return fmt.Errorf("%s = %s; want %s", path, got.body, want)
			}
		}
		if got := send(t, http.MethodGet, s.URL("/v1/admin/tasks"), bearer(token), nil); !settled.Match(got.body) {
			return fmt.Errorf("tasks are left: %s", got.body)
		}
		return nil
	})
}

package blackbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// keyFile makes keys with the real command, in a file of the test's own.
type keyFile string

func newKeyFile(t *testing.T) keyFile {
	t.Helper()
	return keyFile(filepath.Join(t.TempDir(), "keys.yaml"))
}

// add adds a key, and returns it.
func (f keyFile) add(t *testing.T, args ...string) string {
	t.Helper()
	args = append([]string{"keys", "new", "--name", "test", "--add", "--keys-file", string(f)}, args...)
	out, err := harness.Command(t.Context(), t, nil, args...).Output()
	if err != nil {
		t.Fatalf("%v = %v", args, err)
	}
	key := strings.TrimSpace(string(out))
	harness.Secret(key[len("sk_mirror_abcdefgh_"):])
	return key
}

// withKeys starts a service on keys, with a room of each name that holds one of
// everything the fake has.
func withKeys(t *testing.T, f keyFile, env map[string]string, rooms ...string) *harness.Service {
	t.Helper()
	s, upstream := start(t, with(env, "MIRROR_KEYS_FILE", string(f)))
	for _, room := range rooms {
		if err := errors.Join(upstream.CreateRoom(room, fake.RoomOptions{}),
			upstream.SetStorage(room, []byte(`{"liveblocksType":"LiveObject","data":{"room":"`+room+`"}}`))); err != nil {
			t.Fatal(err)
		}
		for _, typ := range []string{fake.RoomCreated, fake.StorageUpdated} {
			d := harness.SignEvent(t, fake.Event{Type: typ, RoomID: room, Time: time.Now()})
			if code, body, err := d.Do(t.Context(), s.URL("/v1/webhooks/liveblocks")); err != nil || code != http.StatusOK {
				t.Fatalf("delivery = %d %s %v", code, body, err)
			}
		}
	}
	return s
}

// The commands of ACCESS.md work as they stand there, one after the other.
func TestAccessCommands(t *testing.T) {
	t.Parallel()
	needServers(t)
	text, err := os.ReadFile("../../../docs/ACCESS.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(harness.Binary(t), filepath.Join(bin, "mirror")); err != nil {
		t.Fatal(err)
	}
	f := keyFile(filepath.Join(dir, "keys.yaml"))
	var s *harness.Service
	env := append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "MIRROR_KEYS_FILE=keys.yaml", "TZ=UTC")
	commands := 0
	for line := range strings.SplitSeq(string(text), "\n") {
		command, ok := strings.CutPrefix(line, "    ")
		if !ok || strings.HasPrefix(strings.TrimSpace(line), "#") || strings.HasPrefix(command, " ") ||
			!strings.HasPrefix(command, "mirror ") && !strings.HasPrefix(command, "curl ") {
			continue
		}
		commands++
		if strings.HasPrefix(command, "curl") {
			if s == nil {
				s = withKeys(t, f, nil, "team-a:1", "team-b:1")
			}
			command = strings.ReplaceAll(command, "127.0.0.1:8080", s.HTTPAddr)
		}
		run := func() (string, error) {
			cmd := exec.CommandContext(t.Context(), "bash", "-c", "set -o pipefail; "+command)
			cmd.Dir, cmd.Env = dir, env
			out, err := cmd.CombinedOutput()
			return string(out), err
		}
		out, err := run()
		if strings.HasPrefix(command, "curl") && err != nil { // a key that is new to a running service
			harness.Eventually(t, patience, func() error { out, err = run(); return err })
		}
		if err != nil {
			t.Errorf("%s = %v: %s", command, err, out)
		}
		if strings.Contains(out, "sk_mirror_") {
			t.Errorf("%s prints a key: %s", command, out)
		}
		switch {
		case strings.Contains(command, "reports.key") && strings.HasPrefix(command, "curl"):
			harness.Eventually(t, patience, func() error {
				if out, err = run(); err != nil || !strings.Contains(out, "team-a:1") || !strings.Contains(out, "team-b:1") {
					return fmt.Errorf("%s = %s, %w; want both rooms", command, out, err)
				}
				return nil
			})
		case strings.HasSuffix(command, "/v1/rooms"):
			if !strings.Contains(out, "team-a:1") || strings.Contains(out, "team-b") {
				t.Errorf("%s = %s; want the rooms of team A only", command, out)
			}
		case strings.HasSuffix(command, "/status"):
			if !strings.Contains(out, "ROOMS_LIMITED") && !strings.Contains(out, "SCOPE_MISSING") {
				t.Errorf("%s = %s; want a refusal", command, out)
			}
		case strings.HasSuffix(command, "keys list"):
			if !strings.Contains(out, "reports") || !strings.Contains(out, "read") {
				t.Errorf("%s = %s; want the key", command, out)
			}
		case strings.Contains(command, "--stdin"):
			if !strings.Contains(out, "(reports) is valid for read") {
				t.Errorf("%s = %s; want that it is valid", command, out)
			}
		}
	}
	if commands < 8 {
		t.Errorf("ACCESS.md has %d commands", commands)
	}
}

// A key for one prefix learns nothing about other rooms, over any route of the HTTP API:
// what is not its and what is not there get the same answer.
func TestOtherRoomsOverHTTP(t *testing.T) {
	t.Parallel()
	needServers(t)
	f := newKeyFile(t)
	limited := f.add(t, "--scope", "read,events,admin.read,admin.write", "--room-prefix", "mine:", "--room-prefix", "my:")
	s := withKeys(t, f, map[string]string{"MIRROR_API_TOKEN": token}, "mine:1", "my:1", "mine", "others")
	harness.Eventually(t, patience, func() error {
		for _, room := range []string{"mine:1", "my:1", "others"} {
			if got := send(t, http.MethodGet, s.URL("/v1/rooms/"+room+"/storage"), bearer(token), nil); got.status != 200 {
				return fmt.Errorf("storage of %s: %d %s", room, got.status, got.body)
			}
		}
		return nil
	})
	var doc struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(send(t, http.MethodGet, s.URL("/openapi.json"), nil, nil).body, &doc); err != nil {
		t.Fatal(err)
	}
	// eventOf is the id of a recorded event of a room.
	eventOf := func(room string) string {
		var list struct {
			Events []struct {
				EventID string `json:"eventId"`
			} `json:"events"`
		}
		got := send(t, http.MethodGet, s.URL("/v1/events?room_id="+room), bearer(token), nil)
		if err := json.Unmarshal(got.body, &list); err != nil || len(list.Events) == 0 {
			return "none-" + room
		}
		return list.Events[0].EventID
	}
	taskOf := func(room string) string {
		got := send(t, http.MethodPost, s.URL("/v1/admin/sync:request"), bearer(token),
			strings.NewReader(`{"roomId":"`+room+`","kind":"room"}`))
		var list struct {
			Tasks []struct {
				TaskID string `json:"taskId"`
			} `json:"tasks"`
		}
		if err := json.Unmarshal(got.body, &list); err != nil || len(list.Tasks) == 0 {
			t.Fatalf("sync:request = %d %s", got.status, got.body)
		}
		return list.Tasks[0].TaskID
	}
	events := map[string]string{"others": eventOf("others"), "nowhere": "msg_nowhere"}
	tasks := map[string]string{"others": taskOf("others"), "nowhere": taskOf("nowhere")}
	tag := send(t, http.MethodGet, s.URL("/v1/rooms/others/storage:read"), bearer(token), nil).header.Get("ETag")
	if tag == "" || events["others"] == "none-others" {
		t.Fatalf("others: ETag %q, event %q", tag, events["others"])
	}
	// ask returns the answer about a room, without the names of what was asked for.
	ask := func(method, path, room string) string {
		path = strings.NewReplacer("{room_id}", room, "{event_id}", events[room], "{task_id}", tasks[room],
			"{thread_id}", "th_1", "{comment_id}", "cm_1", "{storage_key}", "flow", "{group_id}", "g").Replace(path)
		body := strings.NewReader("")
		header := bearer(limited)
		if method == http.MethodPost {
			body = strings.NewReader("{}")
			if strings.HasSuffix(path, "/v1/admin/sync:request") {
				body = strings.NewReader(`{"roomId":"` + room + `"}`)
			}
		} else {
			header.Set("If-None-Match", tag)
			query := "?"
			for _, known := range []string{"room_id", "room_id_prefix"} {
				if !strings.Contains(path, room) {
					if probe := send(t, method, s.URL(path+"?"+known+"="+room), header, nil); probe.reason() != "REQUEST_INVALID" {
						path, query = path+query+known+"="+room, "&"
					}
				}
			}
		}
		got := send(t, method, s.URL(path), header, body)
		text := strings.NewReplacer(tasks[room], "TASK", events[room], "EVENT", room, "ROOM").Replace(string(got.body))
		return fmt.Sprintf("%d %s ETag=%q %s", got.status, got.header.Get("Content-Type"), got.header.Get("ETag"), text)
	}
	seen := 0
	for path, methods := range doc.Paths {
		if strings.Contains(path, "webhook") {
			continue
		}
		for name := range methods {
			method := strings.ToUpper(name)
			there, nowhere := ask(method, path, "others"), ask(method, path, "nowhere")
			if there != nowhere {
				t.Errorf("%s %s:\nof others %s\nof none   %s", method, path, there, nowhere)
			}
			seen++
			if method != http.MethodGet {
				continue
			}
			// A list without a filter has no room of others.
			got := send(t, method, s.URL(strings.ReplaceAll(path, "{room_id}", "mine:1")), bearer(limited), nil)
			if strings.Contains(string(got.body), "others") || strings.Contains(string(got.body), `"mine"`) {
				t.Errorf("%s = %s; want no room of others", path, got.body)
			}
		}
	}
	if seen < 30 {
		t.Errorf("saw %d routes", seen)
	}
	for _, room := range []string{"mine:1", "my:1"} {
		got := send(t, http.MethodGet, s.URL("/v1/rooms/"+room+"/storage"), bearer(limited), nil)
		if got.status != http.StatusOK || !strings.Contains(string(got.body), room) {
			t.Errorf("the storage of %s = %d %s; want it", room, got.status, got.body)
		}
	}
	list := string(send(t, http.MethodGet, s.URL("/v1/rooms"), bearer(limited), nil).body)
	if !strings.Contains(list, "mine:1") || !strings.Contains(list, "my:1") {
		t.Errorf("/v1/rooms = %s; want the rooms of the key", list)
	}
}

// Keys are added and removed while calls are made: none that should pass is refused, and
// a removed key is refused within its time.
func TestKeysRotateUnderLoad(t *testing.T) {
	t.Parallel()
	needServers(t)
	f := newKeyFile(t)
	stays, leaves := f.add(t, "--scope", "read"), f.add(t, "--scope", "read")
	s := withKeys(t, f, nil)
	rooms := s.Mirror(t)
	call := func(ctx context.Context, key string) error {
		_, err := rooms.ListRooms(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+key),
			&mirrorv1.ListRoomsRequest{})
		return err
	}
	ctx, cancel := context.WithCancel(t.Context())
	var calls atomic.Int64
	done := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			if err := call(context.WithoutCancel(ctx), stays); err != nil {
				done <- err
				return
			}
			calls.Add(1)
		}
		done <- nil
	}()
	fresh := f.add(t, "--scope", "read")
	harness.Eventually(t, patience, func() error { return call(t.Context(), fresh) })
	if err := call(t.Context(), leaves); err != nil {
		t.Errorf("a key that is still there = %v", err)
	}
	text, err := os.ReadFile(string(f))
	if err != nil {
		t.Fatal(err)
	}
	entries := strings.Split(string(text), "  - id: ")
	entries = slices.DeleteFunc(
		entries,
		func(e string) bool { return strings.HasPrefix(e, leaves[len("sk_mirror_"):][:8]) },
	)
	if err := os.WriteFile(string(f), []byte(strings.Join(entries, "  - id: ")), 0o600); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, patience, func() error {
		if err := call(t.Context(), leaves); status.Code(err) != codes.Unauthenticated {
			return fmt.Errorf("a removed key = %w; want UNAUTHENTICATED", err)
		}
		return nil
	})
	if err := os.WriteFile(string(f), []byte("keys: broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, patience, func() error {
		if !strings.Contains(s.Log(), "the keys file cannot be used") {
			return fmt.Errorf("the log does not tell of a broken file")
		}
		return nil
	})
	for _, key := range []string{stays, fresh} {
		if err := call(t.Context(), key); err != nil {
			t.Errorf("a key while the file is broken = %v", err)
		}
	}
	cancel()
	if err := <-done; err != nil || calls.Load() == 0 {
		t.Errorf("after %d calls: %v; want that none is refused", calls.Load(), err)
	}
}

// Wrong keys are limited by address, and never printed; neither is a key in a URL, which
// is refused. harness looks for them in the log.
func TestWrongCredentials(t *testing.T) {
	t.Parallel()
	needServers(t)
	f := newKeyFile(t)
	key := f.add(t, "--scope", "read")
	s := withKeys(t, f, map[string]string{
		"MIRROR_TRUSTED_PROXIES": "127.0.0.0/8", "MIRROR_WEBHOOK_ALLOW": "192.0.2.0/24", "MIRROR_API_TOKEN": token,
	})
	from := func(credential, address string) http.Header {
		h := bearer(credential)
		h.Set("X-Forwarded-For", address)
		return h
	}
	const bad, good = "198.51.100.7", "192.0.2.9"
	limited := 0
	for i := range 200 {
		wrong := harness.Secret(fmt.Sprintf("wrong-credential-%d-%s", i, key[30:]))
		got := send(t, http.MethodGet, s.URL("/v1/rooms"), from(wrong, "203.0.113.1, "+bad), nil)
		switch {
		case got.status == http.StatusTooManyRequests && got.reason() == "CREDENTIALS_LIMITED" &&
			got.header.Get("Retry-After") != "":
			limited++
		case got.status != http.StatusUnauthorized || limited > 0:
			t.Fatalf("wrong key %d: %d %s", i, got.status, got.body)
		}
	}
	if limited != 100 {
		t.Errorf("%d of 200 were limited; want 100", limited)
	}
	if got := send(t, http.MethodGet, s.URL("/v1/rooms"), from(key, good), nil); got.status != http.StatusOK {
		t.Errorf("the right key from another address: %d %s", got.status, got.body)
	}
	if got := send(t, http.MethodGet, s.URL("/v1/rooms"), from(key, bad), nil); got.status != http.StatusTooManyRequests {
		t.Errorf("a right key that is new to an address that is limited: %d %s", got.status, got.body)
	}
	// gRPC has the same limit.
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer nonsense", "x-forwarded-for", bad)
	if _, err := s.Mirror(t).ListRooms(ctx, &mirrorv1.ListRoomsRequest{}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("over gRPC = %v; want RESOURCE_EXHAUSTED", err)
	}
	for _, path := range []string{
		"/v1/rooms?api_key=" + key, "/v1/rooms/" + key, "/v1/rooms?" + key,
		"/v1/rooms?k=" + strings.ReplaceAll(key, "_", "%5F"),
		"/v1/rooms/" + strings.ReplaceAll(key, "_", "%5F"), "/" + key,
	} {
		for _, h := range []http.Header{from(key, good), {"X-Forwarded-For": {netip.MustParseAddr(good).String()}}} {
			got := send(t, http.MethodGet, s.URL(path), h, nil)
			if got.status != http.StatusBadRequest || strings.Contains(string(got.body), key) {
				t.Errorf("a key in the URL: %d %s; want 400", got.status, got.body)
			}
		}
	}
	for address, want := range map[string]int{good: http.StatusOK, bad: http.StatusForbidden} {
		d := harness.SignEvent(t, fake.Event{Type: fake.StorageUpdated, RoomID: "r", Time: time.Now()})
		d.Header.Set("X-Forwarded-For", address)
		if code, body, err := d.Do(t.Context(), s.URL("/v1/webhooks/liveblocks")); err != nil || code != want {
			t.Errorf("a webhook from %s: %d %s %v; want %d", address, code, body, err, want)
		}
	}
	counts := string(send(t, http.MethodGet, s.URL("/v1/admin/status"), from(token, good), nil).body)
	for _, want := range []string{`"credential-invalid"`, `"credentials-limited"`, `"address-not-allowed"`} {
		if !strings.Contains(counts, want) {
			t.Errorf("the status lacks %s: %s", want, counts)
		}
	}
	if n := strings.Count(s.Log(), "calls are refused because of their credentials"); n < 1 || n > 3 {
		t.Errorf("%d lines about refused calls; want one now and then", n)
	}
}

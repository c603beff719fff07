// Package blackbox_test runs the real binary against real databases, over real HTTP
// and gRPC, and checks only what an operator or a client can see. Tests that depend
// on the database run on every engine, the others on PostgreSQL.
package blackbox_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	"github.com/liveblocks-mirror/liveblocks-mirror/gateway/apijson"
	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// patience bounds what takes milliseconds on a quiet machine.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	dbtest.Parallel(6)
	dbtest.Run(m)
	harness.Clean()
}

// needServers leaves a test out where -short asks for tests without databases.
func needServers(t testing.TB) {
	t.Helper()
	dbtest.Postgres.Need(t)
}

// database returns the URL of a database of the test's own whose schema is current.
func database(t testing.TB) string {
	t.Helper()
	return dbtest.Postgres.Database(t)
}

// start starts the service on a database and a fake of its own.
func start(t testing.TB, env map[string]string) (*harness.Service, *harness.Fake) {
	t.Helper()
	return startOn(t, database(t), env)
}

// startOn starts the service on a database, with a fake of its own.
func startOn(t testing.TB, url string, env map[string]string) (*harness.Service, *harness.Fake) {
	t.Helper()
	upstream := harness.NewFake(t)
	return harness.Start(t, harness.Options{
		DatabaseURL: url, UpstreamURL: upstream.URL, Env: with(env, "MIRROR_MIGRATE", ""),
	}), upstream
}

// with returns a copy of env with one more variable.
func with(env map[string]string, key, value string) map[string]string {
	more := map[string]string{key: value}
	for k, v := range env {
		more[k] = v
	}
	return more
}

// client follows no redirect and shares no connection with other tests' clients.
var client = &http.Client{
	Timeout:       patience,
	Transport:     &http.Transport{MaxIdleConnsPerHost: 64},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// answer is an HTTP answer that has been read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// send makes one HTTP request. A body that is no *bytes.Reader is sent in chunks.
func send(t testing.TB, method, url string, header http.Header, body io.Reader) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		req.Header = header.Clone()
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	read, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, read}
}

// reason is the reason of an error answered over HTTP, empty if there is none.
func (a answer) reason() string {
	var st struct {
		Details []struct {
			Type   string `json:"@type"`
			Reason string `json:"reason"`
		} `json:"details"`
	}
	if json.Unmarshal(a.body, &st) != nil {
		return ""
	}
	for _, d := range st.Details {
		if d.Type == "type.googleapis.com/google.rpc.ErrorInfo" {
			return d.Reason
		}
	}
	return ""
}

// reasonOf is the reason of an error answered over gRPC, empty if there is none.
func reasonOf(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// tell delivers the webhook of an event.
func tell(t testing.TB, s *harness.Service, kind, room string) {
	t.Helper()
	deliver(t, s, fake.Event{Type: kind, RoomID: room, Time: time.Now()})
}

// deliver sends the webhook of an event with everything that is in it.
func deliver(t testing.TB, s *harness.Service, ev fake.Event) {
	t.Helper()
	if status := s.Post(t, harness.SignEvent(t, ev)); status != http.StatusOK {
		t.Fatalf("webhook %s of room %q answered %d; want 200", ev.Type, ev.RoomID, status)
	}
}

// create creates a room at the fake and tells the service.
func create(t testing.TB, s *harness.Service, upstream *harness.Fake, room string, opts fake.RoomOptions) {
	t.Helper()
	if err := upstream.CreateRoom(room, opts); err != nil {
		t.Fatal(err)
	}
	tell(t, s, fake.RoomCreated, room)
}

// roomPath is the HTTP path of a room, or of something in it.
func roomPath(room, rest string) string { return "/v1/rooms/" + url.PathEscape(room) + rest }

// awaitStorage waits until the mirror returns exactly these bytes for the Storage of
// a room.
func awaitStorage(t testing.TB, s *harness.Service, room string, want []byte) {
	t.Helper()
	harness.Eventually(t, patience, func() error {
		status, _, got := s.Get(t, roomPath(room, "/storage:read?format=plain-lson"))
		if status != http.StatusOK || !bytes.Equal(got, want) {
			return fmt.Errorf("storage of room %q: status %d, %d bytes; want %d bytes", room, status, len(got), len(want))
		}
		return nil
	})
}

// awaitIdle waits until the service has nothing left to do, but for tasks of the kinds
// given.
func awaitIdle(t testing.TB, s *harness.Service, but ...mirrorv1.ResourceKind) {
	t.Helper()
	harness.Eventually(t, patience, func() error {
		_, _, body := s.Get(t, "/v1/admin/tasks?pageSize=500")
		var tasks struct {
			Tasks []struct {
				Kind string `json:"kind"`
			} `json:"tasks"`
		}
		if err := json.Unmarshal(body, &tasks); err != nil {
			return err
		}
		for _, task := range tasks.Tasks {
			kind, _ := apijson.ParseEnum(mirrorv1.ResourceKind(0).Descriptor(), task.Kind)
			if !slices.Contains(but, mirrorv1.ResourceKind(kind.Number())) {
				return fmt.Errorf("tasks are left: %s", body)
			}
		}
		return nil
	})
}

// count is the answer to a query for one number.
func count(t testing.TB, db *dbtest.DB, sql string, args ...any) int {
	t.Helper()
	n, err := dbtest.Value[int](t.Context(), db, sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// guides is the table of Liveblocks' guides: the view of it, or what is below where there are
// no views.
func guides(t testing.TB, db *dbtest.DB) string {
	t.Helper()
	if db.HasViews(t) {
		return "liveblocks_documents"
	}
	return "(select room_id, data from mirror_document where kind = 2) d"
}

// exitCode is how a command ended.
func exitCode(err error) int {
	var exit interface{ ExitCode() int }
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	default:
		return -1
	}
}

// lbDir holds the npm packages and the scripts that use them.
const lbDir = "../lb"

func mustRead(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// escape is how @liveblocks/node puts a room id into a path.
func escape(id string) string { return url.PathEscape(id) }

// canonical is a JSON document with sorted keys and no spaces. Numbers and strings
// keep their spelling, since Go's own reading of them would lose lone surrogates.
func canonical(t testing.TB, doc []byte) string {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(doc))
	var raw json.RawMessage
	if err := dec.Decode(&raw); err != nil {
		t.Fatalf("not JSON: %v: %.200s", err, doc)
	}
	var out bytes.Buffer
	writeCanonical(t, &out, raw)
	return out.String()
}

func writeCanonical(t testing.TB, out *bytes.Buffer, raw json.RawMessage) {
	t.Helper()
	raw = bytes.TrimSpace(raw)
	switch raw[0] {
	case '{':
		var members map[string]json.RawMessage
		if err := json.Unmarshal(raw, &members); err != nil {
			t.Fatal(err)
		}
		out.WriteByte('{')
		for i, key := range slices.Sorted(maps.Keys(members)) {
			if i > 0 {
				out.WriteByte(',')
			}
			fmt.Fprintf(out, "%q:", key)
			writeCanonical(t, out, members[key])
		}
		out.WriteByte('}')
	case '[':
		var items []json.RawMessage
		if err := json.Unmarshal(raw, &items); err != nil {
			t.Fatal(err)
		}
		out.WriteByte('[')
		for i, item := range items {
			if i > 0 {
				out.WriteByte(',')
			}
			writeCanonical(t, out, item)
		}
		out.WriteByte(']')
	default:
		out.Write(raw)
	}
}

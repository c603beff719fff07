package blackbox_test

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest/mysqltest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// upgradeRoom is the room of testdata/upgrade in which work was left undone.
const upgradeRoom = "board"

// A database that version a1887a4 has written, with rows in every table, is migrated
// and served as that version served it: every answer is the same, but for what
// [deliberate] lists. Work that it left undone is done, and the mirror follows what
// happens next. testdata/upgrade/README.md says where the files are from.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		if e == dbtest.MySQL {
			mysqltest.Need(t, mysqltest.OneShard) // that version knows no sharded database
		}
		url := e.Empty(t)
		db := e.Connect(t, url)
		dump := string(readPacked(t, upgradeFile(e, "sql")))
		db.Restore(t, url, dump)
		wantRows(t, db, dump)
		var want map[string]any
		if err := json.Unmarshal(readPacked(t, upgradeFile(e, "json")), &want); err != nil {
			t.Fatal(err)
		}
		deliberate(t, want, died(t, db))

		migrate := harness.Command(t.Context(), t, map[string]string{"DATABASE_URL": url}, "migrate")
		if out, err := migrate.CombinedOutput(); err != nil {
			t.Fatalf("migrate: %v\n%s", err, out)
		}
		s := startMute(t, url)
		awaitRunning(t, s)
		got := observe(t, s, db, slices.Collect(maps.Keys(want)))
		for _, what := range slices.Sorted(maps.Keys(want)) {
			if strings.HasPrefix(what, "select *") {
				got[what] = knownColumns(want[what], got[what])
			}
			if diff := gocmp.Diff(anyOrder(want[what]), anyOrder(known(want[what], got[what]))); diff != "" {
				t.Errorf("%s (-before +now):\n%s", what, diff)
			}
		}
		s.Kill()

		goOn(t, db, url, want)
	})
}

// upgradeTags are the ends of entity tags whose version has risen since: text and editor
// forms of Storage, and all that is derived of Yjs documents. The bytes here are the same.
var upgradeTags = map[string]string{
	`-text-1.1"`: `-text-1.2"`, `-editor-1.1"`: `-editor-1.2"`,
	`-json-2"`: `-json-3"`, `-text-2"`: `-text-3"`, `-editor-2"`: `-editor-3"`,
}

// deliberate changes the answers of the version before where this version answers
// differently on purpose:
//   - the entity tags of upgradeTags,
//   - the form of the JSON: see [plainJSON], and
//   - the attempts of the tasks during which the process died: their leases were never given
//     back, which counts as a failed attempt now. Every other task keeps its attempts.
func deliberate(t *testing.T, want map[string]any, died map[string]bool) {
	t.Helper()
	tags, counted := 0, map[string]bool{}
	var change func(any)
	change = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, member := range v {
				change(member)
			}
		case map[string]any:
			tag, _ := v["Etag"].(string)
			if at := strings.Index(tag, "-"); at >= 0 && upgradeTags[tag[at:]] != "" {
				v["Etag"] = tag[:at] + upgradeTags[tag[at:]]
				tags++
			}
			attempts, isTask := v["attempts"].(float64)
			if task := fmt.Sprint(v["kind"], " ", v["roomId"], " ", v["resourceId"]); isTask && died[task] {
				v["attempts"] = attempts + 1
				counted[task] = true
			}
			for _, member := range v {
				change(member)
			}
		}
	}
	plain := 0
	for read, answer := range want {
		change(answer)
		want[read] = plainJSON(t, answer, &plain)
	}
	if tags == 0 || plain == 0 || len(died) == 0 || !maps.Equal(counted, died) {
		t.Fatalf("the recorded answers have %d tags and %d values of older versions, and the tasks %v of those that died: %v",
			tags, plain, counted, died)
	}
}

// enumName is the name of an enum's value in a .proto file.
var enumName = regexp.MustCompile("^(?:DOCUMENT_(?:FORMAT|KIND)|DRIFT_KIND|EVENT_OUTCOME|MENTION_KIND|RESOURCE_KIND|" +
	"SESSION_END_CAUSE|SWEEP_STATE|TASK_STATE)_([A-Z_]+)$")

// plainJSON turns what older versions answered into the JSON of this one:
// enums are words, bytes with JSON are JSON and left out if there are none, values of
// metadata stand by themselves, and lists that a view leaves out are not there.
// It counts what it has changed.
func plainJSON(t *testing.T, v any, changed *int) any {
	t.Helper()
	decode := func(text string) any {
		t.Helper()
		*changed++
		data, err := base64.StdEncoding.DecodeString(text)
		must(t, err)
		var value any
		if json.Unmarshal(data, &value) != nil {
			return string(data)
		}
		return timeless(value)
	}
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = plainJSON(t, v[i], changed)
		}
	case map[string]any:
		if list, ok := v["stringList"].(map[string]any); ok {
			return list["values"]
		}
		for _, kind := range []string{"stringValue", "numberValue", "boolValue"} {
			if value, ok := v[kind]; ok && len(v) == 1 {
				return value
			}
		}
		for member, value := range v {
			text, isText := value.(string)
			list, isList := value.([]any)
			switch {
			case isText && (strings.HasSuffix(member, "Json") || member == "payload"):
				if v[member] = decode(text); text == "" {
					delete(v, member)
				}
			case isText && member == "content" && v["contentType"] == "text/plain; charset=utf-8":
				data, err := base64.StdEncoding.DecodeString(text)
				must(t, err)
				v[member] = string(data)
			case isText && member == "content" && v["contentType"] != "application/octet-stream":
				if v[member] = decode(text); text == "" {
					delete(v, member)
				}
			case isList && len(list) == 0 && (member == "comments" && v["threadId"] != nil ||
				member == "nodes" && v["nodeCount"] != 0.0 || member == "edges" && v["edgeCount"] != 0.0):
				delete(v, member)
			default:
				v[member] = plainJSON(t, value, changed)
			}
		}
	case string:
		if word := enumName.FindStringSubmatch(v); word != nil {
			*changed++
			return strings.ToLower(strings.ReplaceAll(word[1], "_", "-"))
		}
	}
	return v
}

// anyOrder reads the JSON of columns, whose members each server writes in its own order.
func anyOrder(v any) any {
	switch v := v.(type) {
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = anyOrder(v[i])
		}
		return out
	case string:
		var value any
		decoder := json.NewDecoder(strings.NewReader(v))
		decoder.UseNumber()
		if !strings.HasPrefix(v, "{") || !json.Valid([]byte(v)) || decoder.Decode(&value) != nil {
			return v
		}
		return value
	default:
		return v
	}
}

// died returns the tasks during which the process that wrote a database was killed: those
// that hold a lease.
func died(t *testing.T, db *dbtest.DB) map[string]bool {
	t.Helper()
	tasks := map[string]bool{}
	const held = "select kind, room_id, resource_id from mirror_resource_state where lease_until is not null"
	must(t, db.Each(t.Context(), held, func(scan func(...any) error) error {
		var kind int32
		var room, id string
		err := scan(&kind, &room, &id)
		tasks[fmt.Sprint(mirrorv1.ResourceKind(kind), " ", room, " ", id)] = true
		return err
	}))
	return tasks
}

// known leaves the members out of an answer that the version before did not have.
func known(before, now any) any {
	switch now := now.(type) {
	case map[string]any:
		was, _ := before.(map[string]any)
		out := map[string]any{}
		for name, value := range now {
			if old, ok := was[name]; ok || was == nil {
				out[name] = known(old, value)
			}
		}
		return out
	case []any:
		was, _ := before.([]any)
		out := slices.Clone(now)
		for i := range out[:min(len(out), len(was))] {
			out[i] = known(was[i], out[i])
		}
		return out
	default:
		return now
	}
}

// knownColumns leaves out of rows what comes after the columns of the version before.
func knownColumns(before, now any) any {
	was, _ := before.([]any)
	rows, _ := now.([]any)
	var out []any
	for i, row := range rows {
		columns, _ := row.([]any)
		if i < len(was) {
			old, _ := was[i].([]any)
			columns = columns[:min(len(columns), len(old))]
		}
		out = append(out, columns)
	}
	return out
}

// goOn lets Liveblocks answer again, of the one room, and something happen there.
func goOn(t *testing.T, db *dbtest.DB, url string, want map[string]any) {
	t.Helper()
	created, err := dbtest.Value[time.Time](t.Context(), db,
		"select create_time from mirror_room where room_id = ?", upgradeRoom)
	must(t, err)
	upstream := harness.NewFake(t)
	must(t, upstream.CreateRoom(upgradeRoom, fake.RoomOptions{CreateTime: created}))
	s := harness.Start(t, harness.Options{
		DatabaseURL: url, UpstreamURL: upstream.URL, Env: map[string]string{"MIRROR_MIGRATE": ""},
	})
	rest := func() { // but for what failed or waits for it
		t.Helper()
		awaitIdle(t, s, mirrorv1.ResourceKind_RESOURCE_KIND_ROOM, mirrorv1.ResourceKind_RESOURCE_KIND_STORAGE,
			mirrorv1.ResourceKind_RESOURCE_KIND_YDOC)
	}
	rest()
	redeliver(t, s, db)
	rest()
	state := func(column string) int {
		t.Helper()
		return count(t, db, "select "+column+" from mirror_resource_state where kind = 2 and room_id = ?", upgradeRoom)
	}
	generation, revision := state("generation"), state("revision")
	const after = `{"liveblocksType":"LiveObject","data":{"when":"after"}}`
	must(t, upstream.SetStorage(upgradeRoom, []byte(after)))
	tell(t, s, fake.StorageUpdated, upgradeRoom)
	awaitStorage(t, s, upgradeRoom, []byte(after))
	rest()
	g, applied, r := state("generation"), state("applied_generation"), state("revision")
	if g != generation+1 || applied != g || r <= revision {
		t.Errorf("the Storage document has generation %d, applied %d, revision %d; before the event %d, and %d",
			g, applied, r, generation, revision)
	}
	// It is still the room it was, with all that is in it, and a notification waited.
	for _, part := range []string{"/threads", "/active-users", "/user-sessions"} {
		read := "GET " + roomPath(upgradeRoom, part)
		if diff := gocmp.Diff(want[read], known(want[read], observe(t, s, db, []string{read})[read])); diff != "" {
			t.Errorf("%s after a webhook (-before +now):\n%s", read, diff)
		}
	}
	list, err := s.Mirror(t).ListNotifications(t.Context(), &mirrorv1.ListNotificationsRequest{UserId: "erin"})
	if err != nil || len(list.GetNotifications()) != 1 {
		t.Errorf("notifications of the event that waited: %v, %v; want one", list, err)
	}
}

// redeliver sends every event again that a database has, as Svix does where an answer was
// lost. Each is a duplicate.
func redeliver(t *testing.T, s *harness.Service, db *dbtest.DB) {
	t.Helper()
	type event struct {
		id      string
		payload []byte
	}
	var events []event
	must(t, db.Each(t.Context(), "select event_id, payload from mirror_event", func(scan func(...any) error) error {
		events = append(events, event{})
		last := &events[len(events)-1]
		return scan(&last.id, &last.payload)
	}))
	stale := func() int {
		return count(t, db, "select coalesce(sum(generation), 0) from mirror_resource_state")
	}
	before := stale()
	for _, e := range events {
		if status := s.Post(t, harness.SignAs(t, e.id, time.Now(), e.payload)); status != http.StatusOK {
			t.Errorf("event %s again answered %d; want 200", e.id, status)
		}
	}
	if n := count(t, db, "select count(*) from mirror_event"); n != len(events) || n == 0 {
		t.Errorf("%d events are %d after each was sent again; want no other", len(events), n)
	}
	if after := stale(); after != before {
		t.Errorf("generations add up to %d after each event was sent again; want %d, as before", after, before)
	}
}

func upgradeFile(e *dbtest.Engine, ext string) string {
	name := map[*dbtest.Engine]string{dbtest.Postgres: "postgres", dbtest.MySQL: "mysql"}[e]
	return filepath.Join("testdata", "upgrade", name+"."+ext+".gz")
}

func readPacked(t *testing.T, path string) []byte {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unpack, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(unpack)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// created matches the name of a table that a dump creates.
var created = regexp.MustCompile("(?m)^CREATE TABLE (?:public\\.)?`?(mirror_\\w+)")

// wantRows makes sure that a database has rows in every table of its dump. The catalog is not
// asked for them: that of Vitess was seen to list none shortly after they were made.
func wantRows(t *testing.T, db *dbtest.DB, dump string) {
	t.Helper()
	tables := created.FindAllStringSubmatch(dump, -1)
	if len(tables) < 19 {
		t.Fatalf("the tables are %q; want those of the mirror", tables)
	}
	for _, table := range tables {
		if table[1] != "mirror_schema_lock" && count(t, db, "select count(*) from "+table[1]) == 0 {
			t.Errorf("table %s is empty, so that nothing is shown about it", table[1])
		}
	}
}

// startMute starts the service with a Liveblocks that takes calls and answers none, so
// that nothing is fetched.
func startMute(t *testing.T, url string) *harness.Service {
	t.Helper()
	upstream := harness.NewFake(t)
	upstream.SetDelay(func(fake.Call) fake.Delay { return fake.Delay{Before: time.Hour} })
	return harness.Start(t, harness.Options{DatabaseURL: url, UpstreamURL: upstream.URL, Env: map[string]string{
		"MIRROR_MIGRATE": "", "MIRROR_LIVEBLOCKS_CALL_TIMEOUT": "10m",
	}})
}

// awaitRunning waits until the service works on all that can be worked on.
func awaitRunning(t *testing.T, s *harness.Service) {
	t.Helper()
	harness.Eventually(t, patience, func() error {
		_, _, pending := s.Get(t, "/v1/admin/tasks?state=pending")
		_, _, running := s.Get(t, "/v1/admin/tasks?state=running")
		if strings.Contains(string(pending), "taskId") || !strings.Contains(string(running), "taskId") {
			return fmt.Errorf("pending are %s, running are %s", pending, running)
		}
		return nil
	})
}

// observe answers reads: "GET " and a path, or a statement in SQL. Where a path asks for
// pages, it is answered by all of them.
func observe(t *testing.T, s *harness.Service, db *dbtest.DB, reads []string) map[string]any {
	t.Helper()
	answers := map[string]any{}
	for _, read := range reads {
		path, ok := strings.CutPrefix(read, "GET ")
		if !ok {
			answers[read] = observeRows(t, db, read)
			continue
		}
		var pages []any
		for token := ""; ; {
			page, next := observePage(t, s, path, token)
			pages = append(pages, page)
			if token = next; token == "" || !strings.Contains(path, "pageSize=") {
				break
			}
		}
		answers[read] = pages[0]
		if len(pages) > 1 {
			answers[read] = pages
		}
	}
	return answers
}

func observePage(t *testing.T, s *harness.Service, path, token string) (page map[string]any, next string) {
	t.Helper()
	if token != "" {
		path += "&pageToken=" + token
	}
	status, header, body := s.Get(t, path)
	page = map[string]any{"status": float64(status)}
	for _, name := range []string{"Content-Type", "Etag"} {
		if value := header.Get(name); value != "" {
			page[name] = value
		}
	}
	if strings.Contains(path, ":read") && status == http.StatusOK {
		page["body"] = fmt.Sprintf("%d bytes, sha256:%x", len(body), sha256.Sum256(body))
		return page, ""
	}
	var parsed map[string]any
	if err := json.Unmarshal(body, &parsed); err != nil {
		t.Fatalf("%s answered %d, %s: %v", path, status, body, err)
	}
	next, _ = parsed["nextPageToken"].(string)
	page["body"] = timeless(parsed)
	return page, next
}

// timeless leaves out of an answer what depends on the clock or the process, how a page
// token looks, and the words of an error.
func timeless(v any) any {
	switch v := v.(type) {
	case map[string]any:
		_, isError := v["code"]
		out := map[string]any{}
		for name, member := range v {
			switch name {
			case "nextPageToken", "version", "startTime", "store", "deliveries", "callsPerSecondLimit", "oldestDueTime",
				"dueTime", "leaseUntilTime", "resourcesPerSecond", "remainingDuration":
			case "message":
				if !isError {
					out[name] = timeless(member)
				}
			default:
				out[name] = timeless(member)
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = timeless(v[i])
		}
		return out
	default:
		return v
	}
}

// observeRows answers a statement, every value as text.
func observeRows(t *testing.T, db *dbtest.DB, query string) any {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	all := []any{}
	for rows.Next() {
		values, into := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		row := make([]any, len(values))
		for i, v := range values {
			switch v := v.(type) {
			case nil:
			case []byte:
				row[i] = string(v)
			case time.Time:
				row[i] = v.UTC().Format(time.RFC3339Nano)
			default:
				row[i] = fmt.Sprint(v)
			}
		}
		all = append(all, row)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return all
}

package blackbox_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// player is play.mjs: applications and their users, on the dev server.
type player struct {
	seed int
	mu   sync.Mutex
	in   io.Writer
	out  *bufio.Reader
}

// read is what a library reads in a document of an editor.
type read struct {
	State any    `json:"state"`
	Text  string `json:"text"`
}

// scene is what play.mjs tells of a room: what the libraries of Liveblocks, Yjs and the
// editors read there.
type scene struct {
	Room string `json:"room"`
	// Editors are the documents of editors by shared type, Stored those in Storage.
	Editors map[string]read `json:"editors"`
	Stored  map[string]read `json:"stored"`
	Ydocs   []struct {
		GUID string          `json:"guid"`
		JSON json.RawMessage `json:"json"`
		Text string          `json:"text"`
	} `json:"ydocs"`
	Storage json.RawMessage `json:"storage"`
	Flows   []diagram       `json:"flows"`
	Users   []activeUser    `json:"users"`
}

// startPlayer starts play.mjs until the end of the test.
func startPlayer(t *testing.T, dev devServer) *player {
	t.Helper()
	p := &player{seed: int(rand.Uint32())}
	cmd := exec.Command("node", "play.mjs")
	cmd.Dir = lbDir
	cmd.Env = append(os.Environ(), "LIVEBLOCKS_BASE_URL="+dev.url, "SEED="+strconv.Itoa(p.seed), "NODE_ENV=production")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in, p.out = in, bufio.NewReader(out)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("seed of play.mjs: %d; its log:\n%s", p.seed, &log)
		}
	})
	return p
}

// play lets play.mjs play an act and reads what it tells into told. Acts are played one
// after the other.
func (p *player) play(name, room string, told any) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	line, err := json.Marshal(map[string]string{"act": name, "room": room})
	if err != nil {
		return err
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("play.mjs has ended: %w", err)
	}
	line, err = p.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("play.mjs has ended in %s: %w", name, err)
	}
	return json.Unmarshal(line, told)
}

// act plays an act, which has to succeed.
func (p *player) act(t *testing.T, name, room string, told any) {
	t.Helper()
	if err := p.play(name, room, told); err != nil {
		t.Fatalf("%s with seed %d: %v", name, p.seed, err)
	}
}

// What applications write with the packages of Liveblocks, Yjs, Tiptap and Lexical, two
// authors at once, reads in the mirror as those packages read it themselves.
func TestMirrorEqualsTheLibraries(t *testing.T) {
	t.Parallel()
	needServers(t)
	dev := startDevServer(t)
	p := startPlayer(t, dev)
	var scenes []scene
	p.act(t, "documents", "", &scenes)
	const random = "random storage"
	p.act(t, "randomStorage", random, &struct{}{})
	stored := dev.get(t, "/rooms/"+escape(random)+"/storage").body
	for _, live := range []string{"LiveObject", "LiveMap", "LiveList", "LiveText", "LiveFile"} {
		if n := bytes.Count(stored, []byte(`{"liveblocksType":"`+live+`"`)); n < 3 {
			t.Errorf("the random Storage has %d of %s; want 3 at least", n, live)
		}
	}
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		database := e.Database(t)
		s := harness.Start(t, harness.Options{DatabaseURL: database, UpstreamURL: dev.url, Env: map[string]string{
			"LIVEBLOCKS_SECRET_KEY": devKey, "MIRROR_MIGRATE": "",
		}})
		tell(t, s, fake.RoomCreated, random)
		for _, scene := range scenes {
			tell(t, s, fake.RoomCreated, scene.Room)
		}
		awaitIdle(t, s, notOnDevServer)
		for _, scene := range scenes {
			checkScene(t, dev, s, scene)
		}
		compareStorage(t, dev, s, random)
		checkMeeting(t, dev, s, e.Connect(t, database), p, "meeting on "+e.Name)
	})
}

// checkMeeting lets two users work in a room at the same time, while the mirror follows.
func checkMeeting(t *testing.T, dev devServer, s *harness.Service, db *dbtest.DB, p *player, room string) {
	t.Helper()
	var met, worked, left scene
	p.act(t, "meet", room, &met)
	tell(t, s, fake.RoomCreated, room)
	for _, user := range met.Users {
		tellPresence(t, s, fake.UserEntered, room, user)
	}
	awaitUsers(t, s, room, met.Users)

	done := make(chan error, 1)
	go func() { done <- p.play("work", room, &worked) }() // awaited here
	for working := true; working; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			working = false
		default:
			refresh(t, s, room)
		}
	}
	tell(t, s, fake.StorageUpdated, room)
	tell(t, s, fake.YdocUpdated, room)
	refresh(t, s, room)
	checkScene(t, dev, s, worked)
	checkFlows(t, s, db, worked)

	p.act(t, "part", room, &left)
	for _, user := range met.Users[len(left.Users):] {
		tellPresence(t, s, fake.UserLeft, room, user)
	}
	awaitUsers(t, s, room, left.Users)
	checkSessions(t, s, room, met.Users, left.Users)
}

// checkScene compares what the mirror reads in a room with what the libraries read, and
// its bytes with those of Liveblocks.
func checkScene(t *testing.T, dev devServer, s *harness.Service, scene scene) {
	t.Helper()
	compareStorage(t, dev, s, scene.Room)
	if scene.Storage != nil {
		_, _, got := s.Get(t, roomPath(scene.Room, "/storage:read?format=json"))
		if a, b := canonical(t, scene.Storage), canonical(t, got); a != b {
			t.Errorf("Storage of room %q (-Liveblocks' client +mirror):\n%s", scene.Room, cmp.Diff(a, b))
		}
	}
	if len(scene.Editors) > 0 {
		compareYdoc(t, dev, s, scene.Room, "")
		_, _, body := s.Get(t, roomPath(scene.Room, "/ydoc:read?format=editor"))
		checkTrees(t, scene.Room, scene.Editors, body)
	}
	if len(scene.Editors) > 0 && len(scene.Ydocs) == 0 {
		_, _, got := s.Get(t, roomPath(scene.Room, "/ydoc:read?format=text"))
		if want := textOf(scene.Editors); string(got) != want {
			t.Errorf("text of room %q (-editor +mirror):\n%s", scene.Room, cmp.Diff(want, string(got)))
		}
	}
	if len(scene.Stored) > 0 {
		_, _, body := s.Get(t, roomPath(scene.Room, "/storage:read?format=editor"))
		checkTrees(t, scene.Room, scene.Stored, body)
		_, _, got := s.Get(t, roomPath(scene.Room, "/storage:read?format=text"))
		if want := textOf(scene.Stored); string(got) != want {
			t.Errorf("text in Storage of room %q (-editor +mirror):\n%s", scene.Room, cmp.Diff(want, string(got)))
		}
	}
	for _, doc := range scene.Ydocs {
		compareYdoc(t, dev, s, scene.Room, doc.GUID)
		path := roomPath(scene.Room, "/ydoc:read?guid="+url.QueryEscape(doc.GUID)+"&format=")
		if _, _, got := s.Get(t, path+"json"); canonical(t, got) != canonical(t, doc.JSON) {
			t.Errorf("Yjs document %q of room %q as JSON (-Yjs +mirror):\n%s", doc.GUID, scene.Room,
				cmp.Diff(canonical(t, doc.JSON), canonical(t, got)))
		}
		if _, _, got := s.Get(t, path+"text"); string(got) != doc.Text {
			t.Errorf("Yjs document %q of room %q as text (-Yjs +mirror):\n%s", doc.GUID, scene.Room,
				cmp.Diff(doc.Text, string(got)))
		}
	}
}

// compareStorage compares both forms of a room's Storage with those of Liveblocks.
func compareStorage(t *testing.T, dev devServer, s *harness.Service, room string) {
	t.Helper()
	for _, format := range []string{"plain-lson", "json"} {
		theirs := dev.get(t, "/rooms/"+escape(room)+"/storage?format="+format)
		status, _, ours := s.Get(t, roomPath(room, "/storage:read?format="+format))
		if theirs.status != http.StatusOK || status != http.StatusOK {
			t.Errorf("storage of room %q as %s: Liveblocks answered %d, the mirror %d", room, format, theirs.status, status)
			continue
		}
		a, b := string(theirs.body), string(ours)
		if format == "json" { // derived, so the order of keys is our own
			a, b = canonical(t, theirs.body), canonical(t, ours)
		}
		if a != b {
			t.Errorf("storage of room %q as %s (-Liveblocks +mirror):\n%s", room, format, cmp.Diff(a, b))
		}
	}
}

// checkTrees compares the editors' trees in a document, by shared type.
func checkTrees(t *testing.T, room string, want map[string]read, body []byte) {
	t.Helper()
	var got map[string]any
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatalf("documents of editors in room %q: %v: %.500s", room, err, body)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); diff != "" {
		t.Errorf("documents of editors in room %q (-editors +mirror):\n%s", room, diff)
	}
	for name, doc := range want {
		if diff := cmp.Diff(kept(doc.State), kept(got[name])); diff != "" {
			t.Errorf("document %q of room %q (-editor +mirror):\n%s", name, room, diff)
		}
	}
}

// emptyLines are lines without text, which the mirror's text leaves out.
var emptyLines = regexp.MustCompile(`\n{2,}`)

// textOf is the text of an editor's documents as the mirror has it: in the order of their
// names, without empty lines.
func textOf(docs map[string]read) string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(docs)) {
		lines = append(lines, strings.Trim(emptyLines.ReplaceAllString(docs[name].Text, "\n"), "\n"))
	}
	return strings.Join(lines, "\n")
}

// kept returns a tree of an editor with what is in the document, in one order: without
// attributes that are null, which the editor's schema supplies, and with the marks of
// ProseMirror in the order of their names instead of that of the schema.
func kept(v any) any {
	switch v := v.(type) {
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = kept(v[i])
		}
		return list
	case map[string]any:
		object := make(map[string]any, len(v))
		for key, value := range v {
			if value = kept(value); value != nil {
				object[key] = value
			}
		}
		if attrs, ok := object["attrs"].(map[string]any); ok && len(attrs) == 0 {
			delete(object, "attrs")
		}
		if marks, ok := object["marks"].([]any); ok {
			slices.SortFunc(marks, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		}
		return object
	default:
		return v
	}
}

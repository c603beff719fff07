package blackbox_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
)

// devKey is the only key the Liveblocks dev server takes.
const devKey = "sk_localdev"

// notOnDevServer is what the dev server answers 501 for, besides groups: its tasks wait.
const notOnDevServer = mirrorv1.ResourceKind_RESOURCE_KIND_THREAD

// devServer is the real Liveblocks dev server.
type devServer struct{ url string }

// devURL finds the address in what the dev server prints.
var devURL = regexp.MustCompile(`http://127\.0\.0\.1:\d+`)

// startDevServer starts the Liveblocks dev server until the end of the test. What it
// leaves behind lies in a folder of the test.
func startDevServer(t *testing.T) devServer {
	t.Helper()
	lb, err := filepath.Abs(lbDir)
	if err != nil {
		t.Fatal(err)
	}
	// Bun itself and not the npm wrapper, whose child outlives it.
	cmd := exec.Command(filepath.Join(lb, "node_modules", ".bin", "bun"),
		filepath.Join(lb, "node_modules", "liveblocks", "dist", "index.js"), "dev",
		"--host", "127.0.0.1", "--random-port", "--no-check", "--no-persist")
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	out, err := os.Create(filepath.Join(cmd.Dir, "dev.log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = out.Close() })
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatalf("start the Liveblocks dev server (tools/testdeps.sh installs it): %v", err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }() // awaited below
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		if t.Failed() {
			t.Logf("log of the Liveblocks dev server:\n%s", mustRead(t, out.Name()))
		}
	})
	var dev devServer
	harness.Eventually(t, patience, func() error {
		select {
		case <-done:
			t.Fatal("the Liveblocks dev server ended while starting")
		default:
		}
		if dev.url = devURL.FindString(string(mustRead(t, out.Name()))); dev.url == "" {
			return errors.New("the Liveblocks dev server has not told its address yet")
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, dev.url+"/health", nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("health answered %d", resp.StatusCode)
		}
		return nil
	})
	return dev
}

// get reads a path of the REST API.
func (d devServer) get(t *testing.T, path string) answer {
	t.Helper()
	return send(t, http.MethodGet, d.url+"/v2"+path, http.Header{"Authorization": {"Bearer " + devKey}}, nil)
}

// rooms are the rooms as the listing has them, by id.
func (d devServer) rooms(t *testing.T) map[string]json.RawMessage {
	t.Helper()
	var list struct {
		Data []json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(d.get(t, "/rooms").body, &list); err != nil {
		t.Fatal(err)
	}
	rooms := make(map[string]json.RawMessage, len(list.Data))
	for _, source := range list.Data {
		var room struct {
			ID string `json:"id"`
		}
		if err := json.Unmarshal(source, &room); err != nil {
			t.Fatal(err)
		}
		rooms[room.ID] = source
	}
	return rooms
}

// told is what an act of edits.mjs tells.
type told struct {
	Sent  int  `json:"sent"`
	Todos int  `json:"todos"`
	File  bool `json:"file"`
	// Ydocs are the Yjs documents of the room "Room", as Yjs itself reads them.
	Ydocs []struct {
		GUID string          `json:"guid"`
		JSON json.RawMessage `json:"json"`
		Text string          `json:"text"`
	} `json:"ydocs"`
}

// act lets edits.mjs play one act against the dev server and the service, and
// returns what it tells.
func act(t *testing.T, dev devServer, s *harness.Service, name string) (told told) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "edits.mjs", name)
	cmd.Dir = lbDir
	cmd.Env = append(os.Environ(), "LIVEBLOCKS_BASE_URL="+dev.url,
		"WEBHOOK_URL="+s.URL("/api/liveblocks-webhook"), "WEBHOOK_SECRET="+harness.WebhookSecret)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("edits.mjs %s: %v\n%s%s", name, err, out, &stderr)
	}
	if err := json.Unmarshal(out, &told); err != nil {
		t.Fatalf("edits.mjs %s wrote %q: %v", name, out, err)
	}
	return told
}

// Rooms made by the real packages and edited by two real clients at once, on the real
// server, arrive in the mirror as the REST API has them, every byte of them.
func TestMirrorEqualsRealLiveblocks(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		dev := startDevServer(t)
		database := e.Database(t)
		s := harness.Start(t, harness.Options{DatabaseURL: database, UpstreamURL: dev.url, Env: map[string]string{
			"LIVEBLOCKS_SECRET_KEY": devKey, "MIRROR_MIGRATE": "",
		}})
		sent := 0
		for _, name := range []string{"create", "edit", "replace"} {
			told := act(t, dev, s, name)
			sent += told.Sent
			compare(t, dev, s)
			if name == "edit" {
				// Otherwise two empty documents would be equal just as well.
				checkEdits(t, dev, told.Todos, told.File)
				checkYdocs(t, dev, s, told)
			}
		}
		if n := count(t, e.Connect(t, database), "select count(*) from mirror_event"); n*2 != sent {
			t.Errorf("%d deliveries, each sent twice, left %d events; want %d", sent, n, sent/2)
		}

		// roöm is gone, and what there was of it can still be seen.
		if status, _, body := s.Get(t, roomPath("roöm", "")); status != http.StatusNotFound {
			t.Errorf("deleted room answered %d: %s; want 404", status, body)
		}
		for _, path := range []string{"/storage:read", "/ydoc:read"} {
			if status, _, _ := s.Get(t, roomPath("roöm", path)); status != http.StatusNotFound {
				t.Errorf("%s of a deleted room answered %d; want 404", path, status)
			}
		}
		gone, err := s.Mirror(t).GetRoom(t.Context(), &mirrorv1.GetRoomRequest{RoomId: "roöm", ShowDeleted: true})
		if err != nil {
			t.Fatalf("GetRoom of a tombstone: %v", err)
		}
		if r := gone.GetRoom(); !r.GetFreshness().GetDeleteTime().IsValid() ||
			r.GetMetadata()["name"].GetStringValue() != "Room 3 “roöm”" {
			t.Errorf("tombstone = %v; want the room as it was, with its delete time", r)
		}
	})
}

// compare waits until the mirror holds exactly the rooms the dev server has, and each
// and its documents as the REST API returns them.
func compare(t *testing.T, dev devServer, s *harness.Service) {
	t.Helper()
	awaitIdle(t, s, notOnDevServer)
	rooms := dev.rooms(t)
	if len(rooms) < 5 {
		t.Fatalf("the dev server has %d rooms; want 5 at least", len(rooms))
	}
	list, err := s.Mirror(t).ListRooms(t.Context(), &mirrorv1.ListRoomsRequest{View: mirrorv1.RoomView_ROOM_VIEW_FULL})
	if err != nil {
		t.Fatalf("ListRooms: %v", err)
	}
	var mirrored []string
	for _, room := range list.GetRooms() {
		mirrored = append(mirrored, room.GetRoomId())
		if diff := cmp.Diff(string(dev.get(t, "/rooms/"+escape(room.GetRoomId())).body),
			string(room.GetSourceJson())); diff != "" {
			t.Errorf("room %q (-Liveblocks +mirror):\n%s", room.GetRoomId(), diff)
		}
	}
	var want []string
	for id := range rooms {
		want = append(want, id)
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, mirrored); diff != "" {
		t.Fatalf("rooms (-Liveblocks +mirror):\n%s", diff)
	}
	for _, id := range want {
		compareStorage(t, dev, s, id)
		compareYdoc(t, dev, s, id, "")
	}
}

// compareYdoc compares the bytes of a Yjs document.
func compareYdoc(t *testing.T, dev devServer, s *harness.Service, room, guid string) {
	t.Helper()
	theirPath, ourPath := "/rooms/"+escape(room)+"/ydoc-binary", roomPath(room, "/ydoc:read?format=binary")
	if guid != "" { // an empty one is another document at Liveblocks
		theirPath += "?guid=" + url.QueryEscape(guid)
		ourPath += "&guid=" + url.QueryEscape(guid)
	}
	theirs := dev.get(t, theirPath)
	status, _, ours := s.Get(t, ourPath)
	if theirs.status != http.StatusOK || status != http.StatusOK || !bytes.Equal(theirs.body, ours) {
		t.Errorf("Yjs document %q of room %q: Liveblocks answered %d %q, the mirror %d %q", guid, room, theirs.status,
			theirs.body, status, ours)
	}
}

// checkYdocs makes sure that the mirror reads in Yjs documents what Yjs does.
func checkYdocs(t *testing.T, dev devServer, s *harness.Service, told told) {
	t.Helper()
	if len(told.Ydocs) != 2 {
		t.Fatalf("edits.mjs wrote %d Yjs documents; want the room's own and one inside it", len(told.Ydocs))
	}
	for _, doc := range told.Ydocs {
		compareYdoc(t, dev, s, "Room", doc.GUID)
		path := roomPath("Room", "/ydoc:read?guid="+url.QueryEscape(doc.GUID)+"&format=")
		if _, _, got := s.Get(t, path+"json"); canonical(t, got) != canonical(t, doc.JSON) {
			t.Errorf("Yjs document %q as JSON (-Yjs +mirror):\n%s", doc.GUID,
				cmp.Diff(canonical(t, doc.JSON), canonical(t, got)))
		}
		if _, _, got := s.Get(t, path+"text"); string(got) != doc.Text || doc.Text == "" {
			t.Errorf("Yjs document %q as text (-Yjs +mirror):\n%s", doc.GUID, cmp.Diff(doc.Text, string(got)))
		}
	}
}

// checkEdits makes sure that the odd values got as far as the dev server's answers.
func checkEdits(t *testing.T, dev devServer, todos int, file bool) {
	t.Helper()
	var shared struct {
		Data struct {
			Todos struct {
				Data []json.RawMessage `json:"data"`
			} `json:"todos"`
			Note, File struct {
				Type string `json:"liveblocksType"`
			}
		} `json:"data"`
	}
	if err := json.Unmarshal(dev.get(t, "/rooms/Room/storage").body, &shared); err != nil {
		t.Fatal(err)
	}
	if n := len(shared.Data.Todos.Data); n != todos || n < 20 || shared.Data.Note.Type != "LiveText" {
		t.Errorf("after the edits there are %d todos and a note of type %q; want %d and LiveText", n, shared.Data.Note.Type,
			todos)
	}
	if !file || shared.Data.File.Type != "LiveFile" {
		t.Errorf("the file is a %q, uploaded: %v; want a LiveFile", shared.Data.File.Type, file)
	}
	odd := dev.get(t, "/rooms/room/storage").body
	for _, part := range []string{
		`a\u0000b`, `x\ud83dy`, `9007199254740994`, `1.7976931348623157e+308`, `[[[[[[[[[[`,
		`"":"an empty key"`, "👩‍👩‍👧",
	} {
		if !bytes.Contains(odd, []byte(part)) {
			t.Errorf("the dev server's answer lacks %s:\n%s", part, odd)
		}
	}
}

package blackbox_test

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// often has the service sweep all the time, after one full sweep at the start.
var often = map[string]string{
	"MIRROR_LOG_LEVEL": "warn", "MIRROR_SWEEP_INTERVAL": "100ms",
	"MIRROR_FULL_SWEEP_INTERVAL": "24h",
}

// populate creates rooms at the fake that no event tells of.
func populate(t testing.TB, upstream *harness.Fake, rooms ...string) {
	t.Helper()
	for _, room := range rooms {
		err := upstream.CreateRoom(room, fake.RoomOptions{
			Storage: storage(`"` + room + `"`), CreateTime: time.Now().Add(-48 * time.Hour),
			LastConnectionTime: time.Now().Add(-47 * time.Hour),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// numbered names n rooms.
func numbered(prefix string, n int) []string {
	rooms := make([]string, n)
	for i := range rooms {
		rooms[i] = fmt.Sprintf("%s%05d", prefix, i)
	}
	return rooms
}

// latestSweep is what the service tells of its latest sweep.
func latestSweep(t testing.TB, s *harness.Service) *mirrorv1.Sweep {
	t.Helper()
	return sweepOf(t, s.Admin(t))
}

func sweepOf(t testing.TB, admin mirrorv1.AdminServiceClient) *mirrorv1.Sweep {
	t.Helper()
	got, err := admin.GetBackfill(t.Context(), &mirrorv1.GetBackfillRequest{})
	if err != nil {
		t.Fatalf("GetBackfill = %v", err)
	}
	return got.GetSweep()
}

// awaitSwept waits until a sweep has come to its end that began after now, and until
// what it found is fetched, and returns it.
func awaitSwept(t testing.TB, s *harness.Service) *mirrorv1.Sweep {
	t.Helper()
	return awaitSweptIn(t, s, patience)
}

func awaitSweptIn(t testing.TB, s *harness.Service, within time.Duration) (sweep *mirrorv1.Sweep) {
	t.Helper()
	from, admin := time.Now(), s.Admin(t)
	harness.Eventually(t, within, func() error {
		sweep = sweepOf(t, admin)
		if sweep.GetEndTime() == nil || !sweep.GetBeginTime().AsTime().After(from) || sweep.GetResourcesPending() > 0 {
			return fmt.Errorf("sweep = %v; want one that began after %s to be done", sweep, from)
		}
		return nil
	})
	return sweep
}

// awaitRoom waits until the mirror has a room as Liveblocks has it.
func awaitRoom(t testing.TB, s *harness.Service, upstream *harness.Fake, room string) {
	t.Helper()
	client := s.Mirror(t)
	harness.Eventually(t, patience, func() error {
		want, ok := upstream.RoomSource(room)
		if !ok {
			t.Fatalf("there is no room %q", room)
		}
		got, err := client.GetRoom(t.Context(), &mirrorv1.GetRoomRequest{RoomId: room})
		if err != nil {
			return err
		}
		if string(got.GetRoom().GetSourceJson()) != string(want) {
			return fmt.Errorf("room %q = %s; want %s", room, got.GetRoom().GetSourceJson(), want)
		}
		return nil
	})
}

// awaitGone waits until a room is a tombstone.
func awaitGone(t testing.TB, s *harness.Service, room string) {
	t.Helper()
	client := s.Mirror(t)
	harness.Eventually(t, patience, func() error {
		if status, _, body := s.Get(t, roomPath(room, "")); status != http.StatusNotFound {
			return fmt.Errorf("room %q = %d %s; want it deleted", room, status, body)
		}
		got, err := client.GetRoom(t.Context(), &mirrorv1.GetRoomRequest{RoomId: room, ShowDeleted: true})
		if err != nil {
			return err
		}
		if got.GetRoom().GetFreshness().GetDeleteTime() == nil {
			return fmt.Errorf("deleted room %q = %v; want a tombstone", room, got)
		}
		return nil
	})
}

// What no webhook tells of: rooms that were there before, changed metadata, access
// from elsewhere, new ids, deletions.
func TestSweepFindsWhatNoEventTellsOf(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		upstream := harness.NewFake(t)
		rooms := numbered("room-", 30)
		populate(t, upstream, rooms...)
		s := harness.Start(t, harness.Options{DatabaseURL: e.Database(t), UpstreamURL: upstream.URL, Env: often})
		for _, room := range rooms {
			awaitRoom(t, s, upstream, room)
			awaitStorage(t, s, room, storage(`"`+room+`"`))
		}
		awaitSwept(t, s)

		// Nothing has changed, so nothing is fetched.
		before := upstream.Calls("", fake.EndpointRoom) + upstream.Calls("", fake.EndpointStorage)
		pages := upstream.Calls("", fake.EndpointListRooms)
		for range 3 {
			awaitSwept(t, s)
		}
		if n := upstream.Calls("", fake.EndpointRoom) + upstream.Calls("", fake.EndpointStorage) - before; n > 0 {
			t.Errorf("fetches of rooms and documents in %d sweeps without a change = %d; want none",
				upstream.Calls("", fake.EndpointListRooms)-pages, n)
		}

		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		// Metadata.
		must(upstream.SetRoomMetadata(rooms[0], map[string]any{"title": "changed", "tags": []string{"a", "b"}}))
		awaitRoom(t, s, upstream, rooms[0])
		// An edit whose event was lost: only the last connection tells.
		must(upstream.SetStorage(rooms[1], storage(`"edited"`)))
		must(upstream.SetLastConnection(rooms[1], time.Now()))
		awaitStorage(t, s, rooms[1], storage(`"edited"`))
		awaitRoom(t, s, upstream, rooms[1])
		// A new id.
		must(upstream.RenameRoom(rooms[2], "renamed"))
		awaitRoom(t, s, upstream, "renamed")
		awaitStorage(t, s, "renamed", storage(`"`+rooms[2]+`"`))
		awaitGone(t, s, rooms[2])
		// A deletion.
		must(upstream.DeleteRoom(rooms[3]))
		awaitGone(t, s, rooms[3])
		if status, _, _ := s.Get(t, roomPath(rooms[3], "/storage")); status != http.StatusNotFound {
			t.Errorf("document of a deleted room = %d; want 404", status)
		}
		// One that comes back under its old id.
		populate(t, upstream, rooms[3])
		awaitRoom(t, s, upstream, rooms[3])
		awaitStorage(t, s, rooms[3], storage(`"`+rooms[3]+`"`))
		if sweep := awaitSwept(t, s); sweep.GetProblem() != "" || sweep.GetRoomsListed() != 30 ||
			sweep.GetRoomsKnown() != 30 {
			t.Errorf("sweep = %v; want 30 rooms listed and known, and no problem", sweep)
		}
	})
}

// Somebody whose leaving was announced by an event that never came. Without fetches that
// settle, nothing but a sweep looks at the room after he came.
func TestSweepEndsSessionsWhoseEventWasLost(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		upstream := harness.NewFake(t)
		populate(t, upstream, "occupied", "other")
		s := harness.Start(t, harness.Options{
			DatabaseURL: e.Database(t), UpstreamURL: upstream.URL,
			Env: with(often, "MIRROR_SETTLE", "0"),
		})
		awaitRoom(t, s, upstream, "occupied")
		if err := upstream.Enter("occupied", fake.Connection{ID: 7, UserID: "alice"}); err != nil {
			t.Fatal(err)
		}
		entered := time.Now().Add(-5 * time.Minute) // clearly before any fetch
		if status := s.Post(t, harness.SignEvent(t, fake.Event{
			Type: fake.UserEntered, RoomID: "occupied", Time: entered, UserID: "alice", ConnectionID: 7, ActiveUsers: 1,
		})); status != http.StatusOK {
			t.Fatalf("webhook answered %d", status)
		}
		client := s.Mirror(t)
		await := func(want mirrorv1.SessionEndCause, present int) {
			t.Helper()
			harness.Eventually(t, patience, func() error {
				users, err := client.ListActiveUsers(t.Context(), &mirrorv1.ListActiveUsersRequest{RoomId: "occupied"})
				if err != nil {
					return err
				}
				got, err := client.ListUserSessions(t.Context(), &mirrorv1.ListUserSessionsRequest{RoomId: "occupied"})
				if err != nil {
					return err
				}
				all := got.GetUserSessions()
				if len(users.GetActiveUsers()) != present || len(all) != 1 || all[0].GetUserId() != "alice" ||
					all[0].GetEndCause() != want {
					return fmt.Errorf("users = %v, sessions = %v; want %d and that of alice with the end %v", users, all, present,
						want)
				}
				return nil
			})
		}
		await(mirrorv1.SessionEndCause_SESSION_END_CAUSE_OPEN, 1)
		// The look at her that a sweep asks for finds her there.
		harness.Eventually(t, patience, func() error {
			if n := upstream.Calls("occupied", fake.EndpointActiveUsers); n < 2 {
				return fmt.Errorf("fetches of active users = %d; want one by the event and one by a sweep", n)
			}
			return nil
		})
		await(mirrorv1.SessionEndCause_SESSION_END_CAUSE_OPEN, 1)
		if err := upstream.Leave("occupied", 7); err != nil {
			t.Fatal(err)
		}
		await(mirrorv1.SessionEndCause_SESSION_END_CAUSE_ABSENT, 0)
	})
}

// shownProblem waits until the status of the project and the backfill tell of a
// problem in these words.
func shownProblem(t testing.TB, s *harness.Service, words ...string) {
	t.Helper()
	admin := s.Admin(t)
	harness.Eventually(t, patience, func() error {
		status, err := admin.GetStatus(t.Context(), &mirrorv1.GetStatusRequest{})
		if err != nil {
			return err
		}
		for _, shown := range []*mirrorv1.Sweep{sweepOf(t, admin), status.GetProjects()[0].GetLastSweep()} {
			for _, word := range words {
				if !strings.Contains(shown.GetProblem(), word) {
					return fmt.Errorf("problem = %q; want %q in it", shown.GetProblem(), word)
				}
			}
		}
		return nil
	})
}

func noProblem(t testing.TB, s *harness.Service) {
	t.Helper()
	admin := s.Admin(t)
	harness.Eventually(t, patience, func() error {
		if problem := sweepOf(t, admin).GetProblem(); problem != "" {
			return errors.New(problem)
		}
		return nil
	})
}

// A list that is not whole, not ours or not there deletes nothing, and the status
// says why.
func TestSweepBelievesNoBrokenList(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		upstream := harness.NewFake(t)
		rooms := numbered("room-", 250)
		populate(t, upstream, rooms...)
		url := e.Database(t)
		s := harness.Start(t, harness.Options{DatabaseURL: url, UpstreamURL: upstream.URL, Env: often})
		db := e.Connect(t, url)
		living := func() int { return count(t, db, "select count(*) from mirror_room where delete_time is null") }
		harness.Eventually(t, patience, func() error {
			if n := living(); n != len(rooms) {
				return fmt.Errorf("rooms = %d; want %d", n, len(rooms))
			}
			return nil
		})
		awaitSwept(t, s)
		// rounds lets the service look at the list some more times.
		rounds := func() {
			t.Helper()
			from := upstream.Calls("", fake.EndpointListRooms)
			harness.Eventually(t, patience, func() error {
				if n := upstream.Calls("", fake.EndpointListRooms) - from; n < 4 {
					return fmt.Errorf("lists read = %d; want some more", n)
				}
				return nil
			})
		}
		intact := func(want int) {
			t.Helper()
			rounds()
			if n := living(); n != want {
				t.Fatalf("living rooms = %d; want all %d", n, want)
			}
		}

		// Half a list: pages fail, break off, or lead nowhere. A room really deleted
		// meanwhile has to wait.
		gone, left := rooms[7], len(rooms)
		for n, step := range []fake.Step{
			fake.Status(http.StatusInternalServerError, "INTERNAL"),
			fake.Truncate(),
			fake.ResetMidBody(),
			fake.Garbage(),
			fake.Answer(http.StatusOK, "application/json", []byte(`{"nextCursor":null}`)),
			fake.Status(http.StatusUnprocessableEntity, "UNPROCESSABLE_ENTITY"),
		} {
			upstream.Script(fake.Match{Endpoint: fake.EndpointListRooms, Page: 3}, step.Always())
			shownProblem(t, s, "list of rooms could not be read")
			if n == 0 { // no sooner: a sweep that began before the script could read the whole list without this room
				if err := upstream.DeleteRoom(gone); err != nil {
					t.Fatal(err)
				}
			}
			intact(left)
			upstream.ClearScripts()
			noProblem(t, s)
			// The room is deleted a little after the good list was read, and the next step counts rooms.
			awaitGone(t, s, gone)
			left = len(rooms) - 1
		}

		// The key of another project.
		upstream.SetForeign(true)
		shownProblem(t, s, "empty", fmt.Sprint(left), "another project", "nothing was deleted")
		intact(left)
		upstream.SetForeign(false)
		noProblem(t, s)

		// A list of others' rooms.
		foreign := `{"nextCursor":null,"data":[{"type":"room","id":"theirs","createdAt":"2026-01-02T03:04:05.678Z","metadata":{}}]}`
		upstream.Script(fake.Match{Endpoint: fake.EndpointListRooms},
			fake.Answer(http.StatusOK, "application/json", []byte(foreign)).Always())
		shownProblem(t, s, "none of the", "another project", "nothing was deleted")
		intact(left)
		upstream.ClearScripts()
		noProblem(t, s)

		// 404 for everything, also for what is asked for in between.
		upstream.Script(fake.Match{}, fake.Status(http.StatusNotFound, "ROOM_NOT_FOUND").Always())
		for _, room := range rooms[20:30] {
			tell(t, s, fake.StorageUpdated, room)
		}
		shownProblem(t, s, "list of rooms could not be read", "ROOM_NOT_FOUND")
		intact(left)
		upstream.ClearScripts()
		noProblem(t, s)
		awaitIdle(t, s, mirrorv1.ResourceKind_RESOURCE_KIND_SWEEP) // a fetch of a deleted room would confirm its deletion

		// More than is believed at once, deleted while no list shows any of it.
		upstream.SetForeign(true)
		shownProblem(t, s, "another project")
		many := rooms[100:200]
		for _, room := range many {
			if err := upstream.DeleteRoom(room); err != nil {
				t.Fatal(err)
			}
		}
		upstream.SetForeign(false)
		shownProblem(t, s, "lacks 100 of the 249", "more than is accepted at once", "nothing was deleted")
		intact(left)
		// What comes back is no problem any more.
		populate(t, upstream, many...)
		noProblem(t, s)
	})
}

// Many rooms are really deleted while no event tells of it: the status shows the
// number, reads show that the rooms are missing, and an operator confirms them.
func TestMassDeletionIsConfirmed(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		upstream := harness.NewFake(t)
		rooms := numbered("room-", 100)
		populate(t, upstream, rooms...)
		url := e.Database(t)
		s := harness.Start(t, harness.Options{DatabaseURL: url, UpstreamURL: upstream.URL, Env: often})
		db := e.Connect(t, url)
		living := func() int { return count(t, db, "select count(*) from mirror_room where delete_time is null") }
		awaitSwept(t, s)
		if n := living(); n != 100 {
			t.Fatalf("living rooms = %d; want 100", n)
		}
		// At once: 20 of them would be believed.
		upstream.SetForeign(true)
		shownProblem(t, s, "another project")
		gone := rooms[:30]
		for _, room := range gone {
			if err := upstream.DeleteRoom(room); err != nil {
				t.Fatal(err)
			}
		}
		upstream.SetForeign(false)
		shownProblem(t, s, "lacks 30 of the 100", "confirm-deletions --rooms 30")
		if got := projectStatus(t, s).GetProblems(); len(got) != 1 || !strings.Contains(got[0], "lacks 30") {
			t.Errorf("problems = %q; want the number", got)
		}
		client := s.Mirror(t)
		for _, room := range gone {
			harness.Eventually(t, patience, func() error {
				got, err := client.GetRoom(t.Context(), &mirrorv1.GetRoomRequest{RoomId: room})
				if err != nil {
					return err
				}
				if got.GetRoom().GetFreshness().GetMissingSinceTime() == nil {
					return fmt.Errorf("room = %v; want it shown as missing", got)
				}
				return nil
			})
		}
		confirm := func(rooms string) {
			t.Helper()
			out, err := harness.Command(t.Context(), t, map[string]string{"MIRROR_SERVER": s.GRPCAddr}, "project",
				"confirm-deletions", "--rooms", rooms).CombinedOutput()
			if err != nil {
				t.Fatalf("project confirm-deletions = %v: %s", err, out)
			}
		}
		confirm("29")
		awaitSwept(t, s)
		if n := living(); n != 100 {
			t.Fatalf("living rooms after too small a number was confirmed = %d; want 100", n)
		}
		confirm("30")
		for _, room := range gone {
			awaitGone(t, s, room)
		}
		noProblem(t, s)
		if n := living(); n != 70 {
			t.Errorf("living rooms = %d; want 70", n)
		}
	})
}

// What failed for good while Liveblocks was away is fetched by the next sweep, be it a
// full one or not.
func TestSweepFetchesWhatHasFailed(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		upstream := harness.NewFake(t)
		populate(t, upstream, "r")
		url := e.Database(t)
		options := harness.Options{DatabaseURL: url, UpstreamURL: upstream.URL, Env: with(often, "MIRROR_MAX_ATTEMPTS", "2")}
		s := harness.Start(t, options)
		awaitStorage(t, s, "r", storage(`"r"`))
		awaitSwept(t, s)
		s.Kill()
		// As an outage leaves it, with nobody connecting since.
		db := e.Connect(t, url)
		if _, err := db.ExecContext(t.Context(), "update mirror_resource_state set generation = generation + 1, "+
			"fail_time = fetch_time, last_error = 'UPSTREAM_UNAVAILABLE: Liveblocks reports a server error' "+
			"where kind = 2 and room_id = 'r'"); err != nil {
			t.Fatal(err)
		}
		if err := upstream.SetStorage("r", storage("1")); err != nil {
			t.Fatal(err)
		}
		s = harness.Start(t, options)
		awaitStorage(t, s, "r", storage("1"))
		if sweep := awaitSwept(t, s); sweep.GetFull() {
			t.Errorf("sweep = %v; want one that is not full", sweep)
		}
	})
}

// A host whose clock was a year ahead has stored its times. What it fetched is not
// fresh because of that, and rooms are found that have vanished since.
func TestTimesOfAClockThatWasAhead(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		upstream := harness.NewFake(t)
		rooms := numbered("room-", 5)
		populate(t, upstream, rooms...)
		url := e.Database(t)
		options := harness.Options{DatabaseURL: url, UpstreamURL: upstream.URL, Env: often}
		s := harness.Start(t, options)
		for _, room := range rooms {
			awaitStorage(t, s, room, storage(`"`+room+`"`))
		}
		awaitSwept(t, s)
		if _, err := s.Stop(t); err != nil {
			t.Fatal(err)
		}
		db := e.Connect(t, url)
		ahead := time.Now().UTC().AddDate(1, 0, 0).Truncate(time.Second)
		for _, update := range []string{
			"update mirror_resource_state set fetch_time = ?",
			"update mirror_resource_state set due_time = ? where kind = " + strconv.Itoa(int(mirror.KindSweep)),
			"update mirror_sweep set end_time = ?",
			"update mirror_sweep set full_time = ?",
		} {
			if _, err := db.Exec(t.Context(), update, ahead); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(
			upstream.SetStorage(rooms[0], storage(`"edited"`)), // without a connection: only a full sweep finds it
			upstream.SetStorage(rooms[1], storage(`"edited"`)),
			upstream.DeleteRoom(rooms[2]),
		); err != nil {
			t.Fatal(err)
		}
		s = harness.Start(t, options)
		// The read requires a fresh copy: otherwise it would return the old one if the refresh took
		// longer than a read may wait, as after a slow start.
		path := roomPath(rooms[0], "/storage:read?format=plain-lson&max_age=60s&require_fresh=true")
		harness.Eventually(t, patience, func() error {
			status, _, body := s.Get(t, path)
			switch {
			case status == http.StatusServiceUnavailable:
				return fmt.Errorf("%s = %d %s; want it to be refreshed in time", path, status, body)
			case status != http.StatusOK || string(body) != string(storage(`"edited"`)):
				t.Errorf("read of a document that was fetched in the future = %d %s; want it as it is now", status, body)
			}
			return nil
		})
		awaitGone(t, s, rooms[2])
		awaitStorage(t, s, rooms[1], storage(`"edited"`))
	})
}

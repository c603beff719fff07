package blackbox_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/e2e/harness"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
)

// The key of another project, which shares one room id with ours, mirrors nothing and
// deletes nothing, and the status says why. With the right key again all goes on.
func TestKeyOfAnotherProject(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		for _, n := range []int{15, 1000} {
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				t.Parallel()
				ours, theirs := harness.NewFake(t), harness.NewFake(t)
				rooms := numbered("room-", n)
				populate(t, ours, rooms...)
				theirs.SetSecret("sk_test_theirs")
				for _, room := range []string{rooms[0], "x1", "x2"} {
					if err := theirs.CreateRoom(room, fake.RoomOptions{Storage: storage(`"theirs"`)}); err != nil {
						t.Fatal(err)
					}
				}
				url := e.Database(t)
				db := e.Connect(t, url)
				env := with(with(often, "MIRROR_LIVEBLOCKS_PROBE_MIN", "100ms"), "MIRROR_LIVEBLOCKS_CALLS_PER_SECOND", "1000")
				start := func(upstream *harness.Fake, key string) *harness.Service {
					return harness.Start(t, harness.Options{
						DatabaseURL: url, UpstreamURL: upstream.URL, Env: with(env, "LIVEBLOCKS_SECRET_KEY", key),
					})
				}
				s := start(ours, harness.SecretKey)
				awaitSweptIn(t, s, backfillPatience) // four fetches for each room
				awaitStorage(t, s, rooms[0], storage(`"`+rooms[0]+`"`))
				living := func() int {
					return count(t, db, "select count(*) from mirror_room where delete_time is null")
				}
				if got := living(); got != n {
					t.Fatalf("living rooms = %d; want %d", got, n)
				}
				if _, err := s.Stop(t); err != nil {
					t.Fatal(err)
				}

				s = start(theirs, "sk_test_theirs")
				harness.Eventually(t, patience, func() error {
					got := projectStatus(t, s)
					if reason := got.GetPauseReason(); !strings.Contains(reason, "another project") ||
						!strings.Contains(reason, "nothing is fetched or deleted") {
						return fmt.Errorf("pause reason = %q; want it to tell of the key", reason)
					}
					return nil
				})
				// Neither a sweep nor an event gets through.
				if _, err := s.Admin(t).StartBackfill(t.Context(), &mirrorv1.StartBackfillRequest{}); err != nil {
					t.Fatal(err)
				}
				tell(t, s, fake.StorageUpdated, rooms[0])
				before := theirs.Calls(rooms[0], fake.EndpointRoom)
				harness.Eventually(t, patience, func() error {
					if calls := theirs.Calls(rooms[0], fake.EndpointRoom); calls < before+2 {
						return fmt.Errorf("looks at the room they share = %d; want two more checks", calls-before)
					}
					return nil
				})
				if calls := theirs.Calls("", fake.EndpointStorage); calls != 0 {
					t.Errorf("documents fetched with their key = %d; want none", calls)
				}
				awaitStorage(t, s, rooms[0], storage(`"`+rooms[0]+`"`))
				if got := living(); got != n {
					t.Errorf("living rooms with their key = %d; want %d", got, n)
				}
				if _, err := s.Stop(t); err != nil {
					t.Fatal(err)
				}

				if err := ours.SetStorage(rooms[0], storage("1")); err != nil {
					t.Fatal(err)
				}
				s = start(ours, harness.SecretKey)
				awaitStorage(t, s, rooms[0], storage("1"))
				harness.Eventually(t, patience, func() error {
					if got := projectStatus(t, s); got.GetPauseReason() != "" {
						return fmt.Errorf("pause reason = %q; want none", got.GetPauseReason())
					}
					return nil
				})
				awaitSwept(t, s)
				if got := living(); got != n {
					t.Errorf("living rooms in the end = %d; want %d", got, n)
				}
			})
		}
	})
}

// A key of the same project needs no hand, and an operator can vouch for one that no
// room bears out.
func TestKeyThatIsChanged(t *testing.T) {
	t.Parallel()
	upstream := harness.NewFake(t)
	populate(t, upstream, "room-1", "room-2")
	url := database(t)
	start := func(key string) *harness.Service {
		upstream.SetSecret(key)
		return harness.Start(t, harness.Options{
			DatabaseURL: url, UpstreamURL: upstream.URL, Env: with(often, "LIVEBLOCKS_SECRET_KEY", key),
		})
	}
	s := start("sk_test_1")
	awaitSwept(t, s)
	awaitStorage(t, s, "room-1", storage(`"room-1"`))
	s.Kill()
	s = start("sk_test_2")
	awaitSwept(t, s)
	s.Kill()

	for _, room := range []string{"room-1", "room-2"} {
		if err := upstream.DeleteRoom(room); err != nil {
			t.Fatal(err)
		}
	}
	if err := upstream.CreateRoom("room-2", fake.RoomOptions{CreateTime: time.Now(), Storage: storage("2")}); err != nil {
		t.Fatal(err)
	}
	s = start("sk_test_3")
	harness.Eventually(t, patience, func() error {
		if reason := projectStatus(t, s).GetPauseReason(); !strings.Contains(reason, "project confirm-key") {
			return fmt.Errorf("pause reason = %q; want it to say how to go on", reason)
		}
		return nil
	})
	out, err := harness.Command(t.Context(), t, map[string]string{"MIRROR_SERVER": s.GRPCAddr}, "project", "confirm-key").
		CombinedOutput()
	if err != nil {
		t.Fatalf("project confirm-key = %v: %s", err, out)
	}
	awaitStorage(t, s, "room-2", storage("2"))
	awaitGone(t, s, "room-1")
}

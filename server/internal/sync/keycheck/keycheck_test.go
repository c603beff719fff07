package keycheck_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/keycheck"
)

var born = time.Date(2026, 1, 2, 3, 4, 5, 678_901_000, time.UTC)

// world is the mirror and what the key shows.
type world struct {
	project mirror.Project
	rooms   []mirror.Room
	events  []mirror.Event
	shown   map[mirror.RoomID]time.Time // the creation times of existing rooms
	listed  []mirror.RoomID
	err     error // of a room that is fetched
	calls   int
	now     time.Time
}

func (w *world) Project(context.Context, mirror.ProjectID) (mirror.Project, error) {
	return w.project, nil
}

func (w *world) SaveKeyHash(_ context.Context, _ mirror.ProjectID, hash []byte) error {
	w.project.KeyHash = hash
	return nil
}

func (w *world) ConfirmKey(_ context.Context, _ mirror.ProjectID, now time.Time) error {
	w.project.KeyConfirmTime = now
	return nil
}

func (w *world) Events(context.Context, store.EventFilter) ([]mirror.Event, error) {
	return w.events, nil
}

func (w *world) Rooms(_ context.Context, f store.RoomFilter) ([]mirror.Room, error) {
	living := slices.DeleteFunc(slices.Clone(w.rooms), func(r mirror.Room) bool {
		return !r.Freshness.DeleteTime.IsZero()
	})
	return living[:min(f.Limit, len(living))], nil
}

func (w *world) RoomsByID(_ context.Context, _ mirror.ProjectID, ids []mirror.RoomID, _ bool) (rooms []mirror.Room,
	_ error,
) {
	for _, r := range w.rooms {
		if slices.Contains(ids, r.ID) {
			rooms = append(rooms, r)
		}
	}
	return rooms, nil
}

func (w *world) Room(_ context.Context, id mirror.RoomID) (mirror.RoomContent, error) {
	w.calls++
	created, ok := w.shown[id]
	switch {
	case w.err != nil:
		return mirror.RoomContent{}, w.err
	case !ok:
		return mirror.RoomContent{}, fault.New(fault.NotFound, fault.ReasonUpstreamRoomNotFound, "no such room")
	default:
		return mirror.RoomContent{CreateTime: created}, nil
	}
}

func (w *world) ListRooms(context.Context, string, int) (page mirror.RoomPage, _ error) {
	for _, id := range w.listed {
		page.Rooms = append(page.Rooms, mirror.ListedRoom{ID: id, Content: mirror.RoomContent{CreateTime: w.shown[id]}})
	}
	return page, nil
}

func (w *world) checker(key string) *keycheck.Checker {
	return keycheck.New(keycheck.Config{
		Project: "default", Key: key, Store: w, Fetcher: func() keycheck.Fetcher { return w },
		Now: func() time.Time { return w.now },
	})
}

// mirrored is a world of n mirrored rooms, all of which the key shows.
func mirrored(n int) *world {
	w := &world{now: born.Add(time.Hour), shown: make(map[mirror.RoomID]time.Time)}
	for i := range n {
		id := mirror.RoomID(fmt.Sprintf("room-%04d", i))
		w.rooms = append(w.rooms, mirror.Room{ID: id, CreateTime: born})
		w.shown[id] = born.Add(time.Nanosecond) // which no database keeps
	}
	return w
}

func wantChanged(t *testing.T, c *keycheck.Checker, want bool) {
	t.Helper()
	if changed, err := c.Changed(t.Context()); err != nil || changed != want {
		t.Fatalf("Changed = %t, %v; want %t", changed, err, want)
	}
}

func TestKeyIsRememberedByItsHash(t *testing.T) {
	t.Parallel()
	w := mirrored(3)
	const key = "sk_secret_of_ours"
	wantChanged(t, w.checker(key), false) // nothing is known
	if err := w.checker(key).Remember(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantChanged(t, w.checker(key), false)
	wantChanged(t, w.checker("sk_other"), true)
	if err := w.checker("sk_other").Remember(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantChanged(t, w.checker(key), false) // only a check replaces what is stored
	var hashes [][]byte
	for range 2 {
		if problem, err := w.checker(key).Check(t.Context()); err != nil || problem != "" {
			t.Fatalf("Check = %q, %v; want the key to be used", problem, err)
		}
		hashes = append(hashes, w.project.KeyHash)
	}
	if bytes.Contains(hashes[0], []byte(key)) || bytes.Equal(hashes[0], hashes[1]) {
		t.Fatalf("hashes = %q; want two with salts of their own", hashes)
	}
	wantChanged(t, w.checker(key), false)
	wantChanged(t, w.checker(key+"x"), true)
}

func TestKeyOfAnotherProject(t *testing.T) {
	t.Parallel()
	reborn := born.Add(time.Second)
	for name, c := range map[string]struct {
		rooms  int
		change func(w *world)
		other  bool
	}{
		"nothing is mirrored":       {0, func(*world) {}, false},
		"every room is the same":    {30, func(*world) {}, false},
		"no room is there":          {30, func(w *world) { clear(w.shown) }, true},
		"one id, another room":      {30, func(w *world) { clear(w.shown); w.shown["room-0000"] = reborn }, true},
		"the same ids, other rooms": {30, func(w *world) { setAll(w, reborn) }, true},
		"one room, another one":     {1, func(w *world) { setAll(w, reborn) }, true},
		"all but one were deleted":  {30, func(w *world) { clear(w.shown); w.shown["room-0007"] = born }, false},
		"one is left in the list": {30, func(w *world) {
			clear(w.shown)
			w.shown["room-0029"] = born
			w.listed = []mirror.RoomID{"new", "room-0029"}
		}, false},
		"one of the latest events is left": {30, func(w *world) {
			clear(w.shown)
			w.shown["room-0025"] = born
			w.events = []mirror.Event{{Room: ""}, {Room: "new"}, {Room: "room-0025"}}
		}, false},
		"list of another project": {30, func(w *world) {
			clear(w.shown)
			w.shown["room-0029"] = reborn
			w.listed = []mirror.RoomID{"new", "room-0029"}
		}, true},
		"access is denied": {3, func(w *world) {
			w.err = fault.New(fault.Precondition, fault.ReasonUpstreamAccessDenied, "no")
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := mirrored(c.rooms)
			c.change(w)
			problem, err := w.checker("sk_x").Check(t.Context())
			if err != nil || (problem != "") != c.other || c.other && (!strings.Contains(problem, "another project") ||
				!strings.HasSuffix(problem, "`liveblocks-mirror project confirm-key --project-id=default`")) {
				t.Fatalf("Check = %q, %v; want another project: %t", problem, err, c.other)
			}
			if (w.project.KeyHash == nil) != c.other {
				t.Fatalf("hash = %x; want it stored only for the right key", w.project.KeyHash)
			}
			if w.calls > 20 {
				t.Fatalf("rooms fetched = %d; want a few", w.calls)
			}
			// An operator knows better.
			checker := w.checker("sk_x")
			if err := checker.Confirm(t.Context(), "default"); err != nil {
				t.Fatal(err)
			}
			select {
			case <-checker.Again():
			default:
				t.Fatal("no new check after a confirmation")
			}
			if problem, err := checker.Check(t.Context()); err != nil || problem != "" || w.project.KeyHash == nil {
				t.Fatalf("Check of a confirmed key = %q, %v; want it used", problem, err)
			}
			w.now = w.now.Add(mirror.ConfirmationLife)
			if problem, err := checker.Problem(t.Context()); err != nil || (problem != "") != c.other {
				t.Fatalf("Problem a day later = %q, %v; want the confirmation to be over", problem, err)
			}
		})
	}
}

func setAll(w *world, created time.Time) {
	for id := range w.shown {
		w.shown[id] = created
	}
}

// What Liveblocks does not answer says nothing about the key.
func TestNoAnswerIsNoVerdict(t *testing.T) {
	t.Parallel()
	w := mirrored(3)
	w.err = fault.New(fault.Unavailable, fault.ReasonUpstreamUnavailable, "away")
	problem, err := w.checker("sk_x").Check(t.Context())
	if !errors.Is(err, w.err) || problem != "" || w.project.KeyHash != nil {
		t.Fatalf("Check = %q, %v; want the failure, and nothing stored", problem, err)
	}
}

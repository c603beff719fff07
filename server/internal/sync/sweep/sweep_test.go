package sweep

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

const project = mirror.ProjectID("default")

// world is Liveblocks and the mirror in memory: the list, the rooms that are
// mirrored, and what was requested.
type world struct {
	store.Sweeps // what is not used here

	list     []mirror.ListedRoom
	rooms    map[mirror.RoomID]mirror.Room
	sessions []mirror.UserSession
	sweep    mirror.Sweep
	task     mirror.Task

	asked       []string // the cursors of the pages
	answer      func(cursor string) error
	requests    []mirror.Request
	requestedAt time.Time // of the latest request
	pushed      []mirror.Pending
	rate        float64
	problems    []string // of each sweep that was saved
	next        time.Time
	lost        bool
	confirmed   mirror.Confirmation
	failed      []mirror.Task
	inbox       []mirror.Notification
	// problem is what a look at rooms finds out about the key; looks counts them.
	problem string
	looks   int
	// sources counts the rooms whose JSON was read.
	sources int
	// indexed counts the calls of IndexRooms and of IndexThreads.
	indexed [2]int
	// cleaned counts the calls of CleanTerms, which return cleanErr.
	cleanErr error
	cleaned  int
}

func (w *world) Project(context.Context, mirror.ProjectID) (mirror.Project, error) {
	return mirror.Project{ID: project, Confirmed: w.confirmed}, nil
}

func (w *world) ConfirmDeletions(_ context.Context, _ mirror.ProjectID, confirmed mirror.Confirmation) error {
	w.confirmed = confirmed
	return nil
}

func (w *world) TaskList(_ context.Context, filter store.TaskFilter) ([]mirror.Task, error) {
	if filter.State != mirror.TaskFailed || filter.AfterRoom != "" {
		return nil, nil
	}
	return w.failed, nil
}

func (w *world) Notifications(_ context.Context, f store.NotificationFilter) ([]mirror.Notification, error) {
	return slices.DeleteFunc(slices.Clone(w.inbox), func(n mirror.Notification) bool {
		return n.CreateTime.Before(f.From)
	}), nil
}

func (w *world) Problem(context.Context) (string, error) {
	w.looks++
	return w.problem, nil
}

func (w *world) ListRooms(_ context.Context, cursor string, limit int) (mirror.RoomPage, error) {
	w.asked = append(w.asked, cursor)
	if w.answer != nil {
		if err := w.answer(cursor); err != nil {
			return mirror.RoomPage{}, err
		}
	}
	from, _ := strconv.Atoi(cursor)
	to := min(from+limit, len(w.list))
	page := mirror.RoomPage{Rooms: w.list[min(from, to):to]}
	if to < len(w.list) {
		page.Next = strconv.Itoa(to)
	}
	return page, nil
}

func (w *world) PushBackground(pending []mirror.Pending) {
	w.pushed = append(w.pushed, pending...)
}

func (w *world) BackgroundRate() float64 { return w.rate }

func (w *world) Sweep(context.Context, mirror.ProjectID) (mirror.Sweep, error) {
	return cmp.Or(w.sweep, mirror.Sweep{Project: project}), nil
}

func (w *world) PlanSweep(_ context.Context, _ mirror.ProjectID, id string, full bool, now time.Time) (mirror.Sweep,
	error,
) {
	w.sweep = mirror.Sweep{Project: project, ID: id, Full: full, BeginTime: now, FullTime: w.sweep.FullTime}
	w.task.DueTime = now
	return w.sweep, nil
}

func (w *world) SaveSweep(_ context.Context, _ mirror.Lease, sweep mirror.Sweep) error {
	if w.lost {
		return store.ErrLeaseLost
	}
	w.sweep = sweep
	w.problems = append(w.problems, sweep.Problem)
	return nil
}

func (w *world) ApplySweep(_ context.Context, _ mirror.Lease, sweep mirror.Sweep, next, _ time.Time) (mirror.Applied,
	error,
) {
	w.sweep, w.next = sweep, next
	w.problems = append(w.problems, sweep.Problem)
	return mirror.Applied{Generation: 1, Due: next}, nil
}

func (w *world) RoomsByID(_ context.Context, _ mirror.ProjectID, ids []mirror.RoomID, source bool) (rooms []mirror.Room,
	_ error,
) {
	for _, id := range ids {
		if r, ok := w.rooms[id]; ok {
			r.SHA256 = sha256.Sum256(r.Source)
			if !source {
				r.Source = nil
			} else {
				w.sources++
			}
			rooms = append(rooms, r)
		}
	}
	return rooms, nil
}

func (w *world) Request(_ context.Context, requests []mirror.Request, at time.Time) ([]mirror.Pending, error) {
	w.requestedAt = at
	w.requests = append(w.requests, requests...)
	var pending []mirror.Pending
	for _, r := range requests {
		pending = append(pending, mirror.Pending{Resource: r.Resource, Generation: 1})
	}
	return pending, nil
}

func (w *world) RoomIDs(_ context.Context, filter store.RoomFilter) (ids []mirror.RoomID, _ error) {
	for _, r := range w.rooms {
		if r.ID > filter.After && r.Freshness.DeleteTime.IsZero() && strings.HasPrefix(string(r.ID), filter.Prefix) {
			ids = append(ids, r.ID)
		}
	}
	slices.Sort(ids)
	return ids[:min(len(ids), filter.Limit)], nil
}

func (w *world) UserSessions(context.Context, store.SessionFilter) ([]mirror.UserSession, error) {
	return w.sessions, nil
}

// IndexRooms says that there is something to index until it is asked for what is behind it.
func (w *world) IndexRooms(_ context.Context, of mirror.ProjectID, after store.IndexPlace, _ int) (store.IndexPlace,
	int, error,
) {
	return w.index(0, of, after)
}

// IndexThreads says so too.
func (w *world) IndexThreads(_ context.Context, of mirror.ProjectID, after store.IndexPlace, _ int) (store.IndexPlace,
	int, error,
) {
	return w.index(1, of, after)
}

func (w *world) index(kind int, of mirror.ProjectID, after store.IndexPlace) (store.IndexPlace, int, error) {
	w.indexed[kind]++
	last := store.IndexPlace{Bucket: 1, Project: project, Room: "r"}
	switch {
	case of != project: // its errors are those of its own sweep
		return after, 0, fmt.Errorf("project %q was indexed", of)
	case after == last:
		return after, 0, nil
	}
	return last, 1, nil
}

// CleanTerms counts its calls, and fails if it is told to.
func (w *world) CleanTerms(_ context.Context, of mirror.ProjectID, _ mirror.Kind, _ int16, _ store.TermPlace, _ int) (
	store.CleanedTerms, error,
) {
	w.cleaned++
	if of != project {
		return store.CleanedTerms{}, fmt.Errorf("project %q was cleaned up", of)
	}
	return store.CleanedTerms{}, w.cleanErr
}

func (w *world) Counts(context.Context, mirror.ProjectID) (store.Counts, error) {
	return store.Counts{Background: 5, BackgroundRooms: 2}, nil
}

func (w *world) Task(context.Context, mirror.Resource, time.Time) (mirror.Task, error) {
	if w.sweep.ID == "" {
		return mirror.Task{}, store.ErrNotFound
	}
	return w.task, nil
}

// listed adds rooms to the list.
func (w *world) listed(ids ...mirror.RoomID) {
	for _, id := range ids {
		w.list = append(w.list, mirror.ListedRoom{ID: id, Content: content(id)})
	}
}

func content(id mirror.RoomID) mirror.RoomContent {
	return mirror.RoomContent{Source: fmt.Appendf(nil, `{"id":%q,"metadata":{}}`, id)}
}

// mirrored adds rooms to the mirror, as they are listed.
func (w *world) mirrored(ids ...mirror.RoomID) {
	if w.rooms == nil {
		w.rooms = make(map[mirror.RoomID]mirror.Room)
	}
	for _, id := range ids {
		w.rooms[id] = mirror.Room{
			Project: project, ID: id, Source: content(id).Source,
			Freshness: mirror.Freshness{FetchTime: time.Now().Add(-time.Hour)},
		}
	}
}

func ids(n int) []mirror.RoomID {
	out := make([]mirror.RoomID, n)
	for i := range out {
		out[i] = mirror.RoomID(fmt.Sprintf("room-%04d", i))
	}
	return out
}

// raised are the requests as words, in order.
func (w *world) pending() []string {
	var out []string
	for _, r := range w.requests {
		word := r.Resource.Kind.String() + " " + string(r.Resource.Room)
		if r.Unlisted {
			word += " unlisted"
		}
		if !r.Background {
			word += " at once"
		}
		out = append(out, word)
	}
	slices.Sort(out)
	return out
}

func (w *world) sweeper(change func(*Config)) *Sweeper {
	cfg := Config{
		Project: project, Store: w, Lister: w, Pool: w, Key: w, Interval: time.Hour, FullInterval: 24 * time.Hour,
		RetryMin: time.Second, RetryMax: time.Minute, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	return New(cfg)
}

// run does a sweep that has to succeed.
func (w *world) run(t *testing.T, s *Sweeper) mirror.Sweep {
	t.Helper()
	if _, err := s.Do(t.Context(), mirror.Lease{Resource: s.resource()}); err != nil {
		t.Fatalf("Do = %v", err)
	}
	return w.sweep
}

func wantRaised(t *testing.T, w *world, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := w.pending(); !slices.Equal(got, want) {
		t.Fatalf("requested = %q; want %q", got, want)
	}
	if len(w.pushed) != len(want) {
		t.Fatalf("pushed = %v; want what was requested", w.pushed)
	}
}

func TestFirstSweepIsFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		w.listed("new", "known")
		w.mirrored("known")
		listed, ended := 0, time.Time{}
		s := w.sweeper(func(cfg *Config) {
			cfg.Listed, cfg.Ended = func(n int) { listed += n }, func(at time.Time) { ended = at }
		})
		if err := s.Begin(t.Context()); err != nil || !w.sweep.Full || w.sweep.ID == "" {
			t.Fatalf("Begin = %v, %+v; want a full sweep planned", err, w.sweep)
		}
		id := w.sweep.ID
		if err := s.Begin(t.Context()); err != nil || w.sweep.ID != id {
			t.Fatalf("Begin again = %v, %+v; want the same plan", err, w.sweep)
		}
		begun := time.Now()
		got := w.run(t, s)
		want := mirror.Sweep{
			Project: project, ID: id, Full: true, Done: true, Listed: 2, Known: 1, MarkedStale: 8, BeginTime: begun,
			EndTime: begun, FullTime: begun,
		}
		if got != want {
			t.Fatalf("sweep = %+v; want %+v", got, want)
		}
		if listed != 2 || !ended.Equal(begun) {
			t.Errorf("told = %d rooms, ended at %v; want 2, and now", listed, ended)
		}
		if w.indexed != [2]int{2, 2} {
			t.Errorf("calls of IndexRooms and IndexThreads = %d; want 2 of each, until nothing is left", w.indexed)
		}
		if w.cleaned != 0 {
			t.Errorf("calls of CleanTerms = %d; want none where nothing was before", w.cleaned)
		}
		wantRaised(t, w, "room new", "storage known", "thread known", "ydoc known", "group ")
		if !w.next.Equal(begun.Add(time.Hour)) {
			t.Fatalf("next sweep = %v; want in an hour", w.next.Sub(begun))
		}
		// Five pending, and three more of each of the two rooms that are not born yet, of
		// which only one is new.
		w.rate = 2
		status, err := s.Status(t.Context(), project)
		if err != nil || status.Pending != 8 || status.Done != 0 || status.PerSecond != 2 ||
			status.Remaining != 4*time.Second {
			t.Fatalf("Status = %+v (%v); want 8 pending, 2 of them a second", status, err)
		}
	})
}

// A sweep ends also if the terms of what is gone cannot be deleted: only lists are slower.
func TestSweepEndsWithoutItsCleanUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{cleanErr: errors.New("no right to delete")}
		w.listed("r")
		w.mirrored("r")
		s := w.sweeper(nil)
		w.run(t, s)
		time.Sleep(24 * time.Hour) //nolint:forbidigo // the bubble's clock, moved by hand
		if got := w.run(t, s); !got.Full || !got.Done || w.cleaned == 0 {
			t.Errorf("sweep = %+v after %d calls of CleanTerms; want a full one that is done", got, w.cleaned)
		}
	})
}

func TestLaterSweeps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		w.listed("r")
		w.mirrored("r")
		s := w.sweeper(nil)
		full := time.Now()
		w.run(t, s)
		for hour := 1; hour <= 25; hour++ {
			if wait := time.Until(w.next); wait <= 0 || wait > time.Hour {
				t.Fatalf("sweep %d begins after %v; want an hour at most", hour, wait)
			}
			time.Sleep(time.Until(w.next)) //nolint:forbidigo // the bubble's clock, moved by hand
			w.requests, w.cleaned = nil, 0
			got := w.run(t, s)
			wantFull := time.Since(full) >= 24*time.Hour
			if want := map[bool]int{true: 2 * mirror.Buckets}[wantFull]; w.cleaned != want {
				t.Fatalf("calls of CleanTerms by sweep %d = %d; want %d, one of each kind and bucket if it is full", hour,
					w.cleaned, want)
			}
			if got.Full != wantFull || (len(w.requests) > 1) != wantFull {
				t.Fatalf("sweep after %v = %+v with %d requests; want full: %t", time.Since(full), got, len(w.requests), wantFull)
			}
			if wantFull {
				return
			}
		}
		t.Fatal("no full sweep in 25 hours")
	})
}

func TestIntervalsThatAreNever(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		interval, full time.Duration
		next           time.Duration // 0: never
	}{
		"only plain": {interval: time.Hour, next: time.Hour},
		"only full":  {full: 24 * time.Hour, next: 24 * time.Hour},
		"none":       {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := &world{}
				w.listed("r")
				s := w.sweeper(func(cfg *Config) { cfg.Interval, cfg.FullInterval = c.interval, c.full })
				if err := s.Begin(t.Context()); err != nil || (w.sweep.ID == "") != (c.next == 0) {
					t.Fatalf("Begin = %v, %+v", err, w.sweep)
				}
				if _, err := s.Start(t.Context(), project); err != nil { // somebody asks for one
					t.Fatal(err)
				}
				got := w.run(t, s)
				var want time.Time
				if c.next > 0 {
					want = time.Now().Add(c.next)
				}
				if !got.Full || !got.Done || !w.next.Equal(want) {
					t.Fatalf("sweep = %+v, next %v; want it done and the next at %v", got, w.next, want)
				}
				// One that was due by earlier settings.
				w.asked = nil
				w.run(t, s)
				if asked := len(w.asked); (asked == 0) != (c.next == 0) {
					t.Fatalf("pages asked for by a sweep left over = %d", asked)
				}
			})
		})
	}
}

func TestWhatAListShowsToHaveChanged(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC)
	base := mirror.Room{
		Project: project, ID: "r", Source: []byte(`{"id":"r","a":1,"b":2}`),
		LastConnectionTime: at.Truncate(time.Microsecond),
	}
	base.SHA256 = sha256.Sum256(base.Source)
	listed := mirror.RoomContent{Source: base.Source, LastConnectionTime: at}
	missing := base
	missing.Freshness.MissingSince = at
	for name, c := range map[string]struct {
		room   mirror.Room
		listed mirror.RoomContent
		full   bool
		want   string
	}{
		"nothing":          {base, listed, false, "[]"},
		"nothing, in full": {base, listed, true, "[storage ydoc thread]"},
		"order of members": {
			base,
			mirror.RoomContent{Source: []byte(`{"b":2,"a":1,"id":"r"}`), LastConnectionTime: at},
			false, "[]",
		},
		"a member": {
			base,
			mirror.RoomContent{Source: []byte(`{"id":"r","a":1,"b":3}`), LastConnectionTime: at},
			false, "[room]",
		},
		"a member, and connected since": {
			base,
			mirror.RoomContent{Source: []byte(`{"id":"r","a":1,"b":3}`), LastConnectionTime: at.Add(time.Second)},
			false, "[room storage ydoc thread active_users]",
		},
		"was missing": {missing, listed, false, "[room]"},
		"connected since": {
			base,
			mirror.RoomContent{Source: base.Source, LastConnectionTime: at.Add(time.Second)},
			false,
			"[storage ydoc thread active_users]",
		},
		"connected at last": {
			mirror.Room{Project: project, ID: "r", SHA256: base.SHA256},
			listed, false,
			"[storage ydoc thread active_users]",
		},
	} {
		var kinds []mirror.Kind
		for _, r := range changed(c.room, c.listed, c.full) {
			kinds = append(kinds, r.Kind)
		}
		if got := fmt.Sprint(kinds); got != c.want {
			t.Errorf("%s: changed = %s; want %s", name, got, c.want)
		}
	}
}

// The hash shows that a room is as listed. Its JSON is read only if the bytes differ.
func TestSweepsReadTheJSONOfFewRooms(t *testing.T) {
	t.Parallel()
	w := &world{}
	all := ids(250)
	w.listed(all...)
	w.mirrored(all...)
	respelled := w.rooms[all[120]]
	respelled.Source = fmt.Appendf(nil, `{"metadata":{},"id":%q}`, all[120])
	w.rooms[all[120]] = respelled
	renamed := w.rooms[all[130]]
	renamed.Source = fmt.Appendf(nil, `{"id":%q,"metadata":{"title":"old"}}`, all[130])
	w.rooms[all[130]] = renamed
	entered := w.rooms[all[140]]
	entered.Source, entered.LastConnectionTime = []byte(`{}`), time.Now()
	w.rooms[all[140]] = entered
	w.sweep = mirror.Sweep{Project: project, ID: "before", Done: true, FullTime: time.Now()}
	w.run(t, w.sweeper(nil))
	rooms := make(map[mirror.RoomID]bool)
	for _, r := range w.requests {
		if r.Resource.Kind == mirror.KindRoom {
			rooms[r.Resource.Room] = true
		}
	}
	if w.sources != 2 || len(rooms) != 2 || !rooms[all[130]] || !rooms[all[140]] {
		t.Fatalf("the JSON of %d rooms was read, and %v requested; want two read and the two that differ", w.sources, rooms)
	}
}

func TestTombstonesAndNewRooms(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		w.listed("back", "busy", "quiet")
		w.list[1].Content.LastConnectionTime = time.Now().Add(-time.Hour)
		w.list[2].Content.LastConnectionTime = time.Now().Add(-48 * time.Hour)
		w.mirrored("back")
		tombstone := w.rooms["back"]
		tombstone.Freshness.DeleteTime = time.Now()
		w.rooms["back"] = tombstone
		w.sessions = []mirror.UserSession{{Room: "occupied", ID: "1"}, {Room: "occupied", ID: "2"}}
		got := w.run(t, w.sweeper(nil))
		if got.Known != 0 || got.Problem != "" {
			t.Fatalf("sweep = %+v; want no room known and no problem", got)
		}
		wantRaised(t, w, "room back", "room busy", "active_users busy", "room quiet", "active_users occupied", "group ")
	})
}

// createdAt gives listed rooms another creation time than the mirrored ones have.
func (w *world) createdAt(at time.Time, ids ...mirror.RoomID) {
	for i, r := range w.list {
		if slices.Contains(ids, r.ID) {
			w.list[i].Content.CreateTime = at
		}
	}
}

// The list of another project that has a room with the same id: it is told apart
// before anything is requested.
func TestListOfAnotherProject(t *testing.T) {
	t.Parallel()
	for _, n := range []int{15, 1000} {
		synctest.Test(t, func(t *testing.T) {
			w := &world{problem: "the key is that of another project"}
			w.listed("x1", "room-0000", "x2")
			w.mirrored(ids(n)...)
			w.createdAt(time.Now(), "room-0000")
			s := w.sweeper(nil)
			if err := s.Begin(t.Context()); err != nil {
				t.Fatal(err)
			}
			got := w.run(t, s)
			if got.Problem != w.problem || !got.Done || !got.FullTime.IsZero() || got.MarkedStale != 0 {
				t.Fatalf("sweep of %d rooms = %+v; want it stopped, and the next one full", n, got)
			}
			wantRaised(t, w)
			if !w.next.Equal(time.Now().Add(time.Hour)) {
				t.Fatalf("next sweep in %v; want it in an hour", time.Until(w.next))
			}
			// The right list again.
			w.problem, w.list = "", nil
			w.listed(ids(n)...)
			if got := w.run(t, s); got.Problem != "" || got.Known != int64(n) || !got.Full {
				t.Fatalf("sweep of the right list = %+v; want it whole", got)
			}
		})
	}
}

// A room that was deleted and created again is one of many on its page, or rooms
// that are looked at show that the list is ours.
func TestRebornRoomsStopNoSweep(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		listed, reborn []mirror.RoomID
		problem        string
		looks          int
	}{
		"one of many":              {ids(150), ids(1), "another project?", 0},
		"all of a later page":      {ids(150), ids(150)[100:], "another project?", 0},
		"all of the first page":    {ids(150), ids(100), "", 1},
		"all of a small list":      {ids(3), ids(3), "", 1},
		"the only one of its page": {append(ids(1), "new-1", "new-2"), ids(1), "", 2}, // with one at the end
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := &world{problem: c.problem, sweep: mirror.Sweep{ID: "before", Done: true, FullTime: time.Now()}}
				w.listed(c.listed...)
				w.mirrored(ids(150)[:min(150, len(c.listed))]...)
				w.createdAt(time.Now(), c.reborn...)
				got := w.run(t, w.sweeper(nil))
				if got.Problem != "" || got.Listed != int64(len(c.listed)) || w.looks != c.looks {
					t.Fatalf("sweep = %+v after %d looks; want it whole after %d", got, w.looks, c.looks)
				}
				asked := 0
				for _, r := range w.requests {
					if r.Resource.Kind == mirror.KindRoom && slices.Contains(c.reborn, r.Resource.Room) {
						asked++
					}
				}
				if asked != len(c.reborn) {
					t.Fatalf("reborn rooms requested = %d; want %d", asked, len(c.reborn))
				}
			})
		})
	}
}

func TestVanishedRooms(t *testing.T) {
	t.Parallel()
	all := ids(300)
	for name, c := range map[string]struct {
		listed, mirrored []mirror.RoomID
		gone             int
		problem          string
	}{
		"none":                     {listed: all, mirrored: all},
		"a few":                    {listed: all[5:], mirrored: all, gone: 5},
		"a few of few":             {listed: all[20:22], mirrored: all[:22], gone: 20},
		"a fifth":                  {listed: all[60:], mirrored: all, gone: 60},
		"more than a fifth":        {listed: all[61:], mirrored: all, problem: "lacks 61 of the 300 mirrored rooms"},
		"all but a few, of few":    {listed: all[21:23], mirrored: all[:23], problem: "lacks 21 of the 23"},
		"all, and the list empty":  {mirrored: all[:3], problem: "empty, but 3 rooms are mirrored"},
		"all, and others are left": {listed: all[10:20], mirrored: all[:3], problem: "none of the 3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := &world{sweep: mirror.Sweep{ID: "before", Done: true, FullTime: time.Now()}}
				w.listed(c.listed...)
				w.mirrored(c.mirrored...)
				got := w.run(t, w.sweeper(nil))
				unlisted := 0
				for _, r := range w.requests {
					if r.Unlisted {
						unlisted++
					}
				}
				if unlisted != c.gone || c.problem == "" && got.Problem != "" || !strings.Contains(got.Problem, c.problem) {
					t.Fatalf("%d requested as unlisted, problem %q; want %d, and %q", unlisted, got.Problem, c.gone, c.problem)
				}
			})
		})
	}
}

// unlisted counts the requests that count as a delete event, and missing those that
// only look.
func (w *world) unlisted() (unlisted, missing int) {
	for _, r := range w.requests {
		switch {
		case r.Unlisted:
			unlisted++
		case r.Resource.Kind == mirror.KindRoom:
			missing++
		}
	}
	return unlisted, missing
}

// Readers learn that rooms are missing, and an operator can confirm the number that
// was shown.
func TestConfirmedDeletions(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		listed    int
		confirmed int64
		age       time.Duration
		believed  bool
	}{
		"none":            {70, 0, 0, false},
		"the number":      {70, 30, time.Hour, true},
		"more than shown": {70, 40, time.Hour, true},
		"fewer":           {70, 29, time.Hour, false},
		"a day ago":       {70, 30, mirror.ConfirmationLife, false},
		"all of them":     {0, 100, time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := &world{sweep: mirror.Sweep{ID: "before", Done: true, FullTime: time.Now()}}
				w.listed(ids(100)[:c.listed]...)
				w.mirrored(ids(100)...)
				w.confirmed = mirror.Confirmation{Rooms: c.confirmed, Time: time.Now().Add(-c.age)}
				got := w.run(t, w.sweeper(nil))
				unlisted, missing := w.unlisted()
				gone := 100 - c.listed
				if c.believed && (got.Problem != "" || unlisted != gone || missing != 0) {
					t.Fatalf("problem %q, %d requested as deleted; want %d and no problem", got.Problem, unlisted, gone)
				}
				told := strings.Contains(got.Problem, "confirm-deletions --rooms 30")
				if !c.believed && (!told || unlisted != 0 || missing != gone) {
					t.Fatalf("problem %q, %d requested as deleted, %d looked for; want it to say how to confirm", got.Problem,
						unlisted, missing)
				}
			})
		})
	}
}

// No event tells that a notification was read: full sweeps look at the recent ones.
func TestFullSweepLooksForReadNotifications(t *testing.T) {
	t.Parallel()
	for _, full := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := &world{sweep: mirror.Sweep{ID: "before", Done: true, FullTime: time.Now()}}
			if full {
				w.sweep.FullTime = time.Now().Add(-48 * time.Hour)
			}
			add := func(id string, age time.Duration, inbox mirror.Inbox) {
				w.inbox = append(w.inbox, mirror.Notification{
					ID: id, Room: mirror.RoomID(id), CreateTime: time.Now().Add(-age), Inbox: inbox,
				})
			}
			unread := mirror.Inbox{Source: []byte(`{}`)}
			add("unread", time.Hour, unread)
			add("unread", time.Hour, unread) // by another channel
			add("read", time.Hour, mirror.Inbox{Source: []byte(`{}`), ReadTime: time.Now()})
			add("in no inbox", time.Hour, mirror.Inbox{})
			add("old", unreadFor+time.Second, unread)
			w.run(t, w.sweeper(nil))
			want := []string{"group "}
			if full {
				want = append(want, "notification unread")
			}
			wantRaised(t, w, want...)
		})
	}
}

// A shorter interval counts from the last sweep on, a longer one after the next.
func TestChangedIntervalCountsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for due, want := range map[time.Duration]int{
			167 * time.Hour: 1, 40 * time.Minute: 0, time.Minute: 0,
		} {
			w := &world{sweep: mirror.Sweep{
				ID: "before", Done: true, FullTime: time.Now(), EndTime: time.Now().Add(-20 * time.Minute),
			}}
			w.task.DueTime = time.Now().Add(due)
			if err := w.sweeper(nil).Begin(t.Context()); err != nil || w.sweep.ID != "before" || len(w.requests) != want {
				t.Fatalf("Begin = %v, %+v, %d requests; want %d, and what is shown kept", err, w.sweep, len(w.requests), want)
			}
			if want == 1 && !w.requestedAt.Equal(time.Now().Add(40*time.Minute)) {
				t.Fatalf("next sweep in %v; want an hour after the last", time.Until(w.requestedAt))
			}
		}
	})
}

// A confirmation begins a sweep.
func TestConfirm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{sweep: mirror.Sweep{ID: "before", Done: true, FullTime: time.Now()}}
		if _, err := w.sweeper(nil).Confirm(t.Context(), project, 30, 21); err != nil {
			t.Fatal(err)
		}
		want := mirror.Confirmation{Rooms: 30, Groups: 21, Time: time.Now()}
		if w.confirmed != want || w.sweep.ID == "before" || w.sweep.Full || len(w.pushed) != 1 {
			t.Fatalf("confirmed = %+v, sweep %+v; want %+v and a sweep", w.confirmed, w.sweep, want)
		}
	})
}

// A room that is there although the list lacks it, as one of another organization may
// be, is not requested by every sweep, and has not vanished.
func TestRoomThatNoListHas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{sweep: mirror.Sweep{ID: "before", Done: true, FullTime: time.Now()}}
		w.listed(ids(10)...)
		w.mirrored(append(ids(10), "apart", "gone")...)
		s := w.sweeper(nil)
		sweep := func() (unlisted int, vanished int64) {
			t.Helper()
			w.requests = nil
			got := w.run(t, s)
			unlisted, _ = w.unlisted()
			time.Sleep(time.Until(w.next)) //nolint:forbidigo // the bubble's clock, moved by hand
			return unlisted, got.Vanished
		}
		want := func(what string, wantUnlisted int, wantVanished int64) {
			t.Helper()
			if unlisted, vanished := sweep(); unlisted != wantUnlisted || vanished != wantVanished {
				t.Fatalf("%s: requested %d, vanished %d; want %d and %d", what, unlisted, vanished, wantUnlisted, wantVanished)
			}
		}
		fetched := func() {
			r := w.rooms["apart"]
			r.Freshness.FetchTime = time.Now().Add(-30 * time.Minute)
			w.rooms["apart"] = r
		}
		want("first", 2, 2)
		want("nothing was fetched yet", 2, 2)
		fetched()
		delete(w.rooms, "gone")
		for range 20 {
			want("found to be there", 0, 0)
		}
		if !w.sweep.Done {
			t.Fatal("the sweep is not done")
		}
		for !w.sweep.Full { // until the next full one
			w.requests = nil
			w.run(t, s)
			time.Sleep(time.Until(w.next)) //nolint:forbidigo // the bubble's clock, moved by hand
		}
		if unlisted, _ := w.unlisted(); unlisted != 1 || w.sweep.Vanished != 0 {
			t.Fatalf("full sweep requested %d, vanished %d; want it to look once", unlisted, w.sweep.Vanished)
		}
	})
}

// What failed because Liveblocks or the database was away is requested by every
// sweep, notifications included; what will hardly work by full ones.
func TestSweepsRetryWhatHasFailed(t *testing.T) {
	t.Parallel()
	for _, full := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := &world{sweep: mirror.Sweep{ID: "before", Done: true, FullTime: time.Now()}}
			if full {
				w.sweep.FullTime = time.Now().Add(-48 * time.Hour)
			}
			fail := func(kind mirror.Kind, id, why string) {
				r := mirror.Resource{Project: project, Room: "r", Kind: kind, ID: id}
				w.failed = append(w.failed, mirror.Task{Resource: r, State: mirror.TaskFailed, LastError: why})
			}
			fail(mirror.KindStorage, "", "UPSTREAM_UNAVAILABLE: Liveblocks reports a server error")
			fail(mirror.KindNotification, "in_1", "STORE_UNAVAILABLE: the database is not available")
			fail(mirror.KindYdoc, "", "UPSTREAM_ANSWER_TOO_LARGE: more than 64 MiB")
			fail(mirror.KindThread, "th_1", "UPSTREAM_ANSWER_INVALID: the response is not valid")
			fail(mirror.KindGroup, "g", "internal error; see the log")
			fail(mirror.Kind(99), "", "UPSTREAM_UNAVAILABLE: of a kind that a later version knows")
			w.run(t, w.sweeper(nil))
			want := []string{"group ", "notification r", "storage r"}
			if full {
				want = append(want, "group r", "thread r", "ydoc r")
			}
			wantRaised(t, w, want...)
		})
	}
}

// What was fetched while the list was read is there, whatever page it was too late
// for.
func TestRoomsFetchedDuringTheListHaveNotVanished(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		w.listed(ids(2)...)
		w.mirrored(append(ids(2), "created since")...)
		since := w.rooms["created since"]
		since.Freshness.FetchTime = time.Now()
		w.rooms["created since"] = since
		if got := w.run(t, w.sweeper(nil)); got.Vanished != 0 {
			t.Fatalf("sweep = %+v; want none vanished", got)
		}
	})
}

// A list that turns into another one while it is read seems to come to its end
// early.
func TestListThatChangesHands(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		all := ids(220)
		w.listed(all...)
		w.mirrored(all...)
		w.answer = func(cursor string) error {
			if cursor == "200" {
				w.list = nil
			}
			return nil
		}
		got := w.run(t, w.sweeper(nil))
		if !strings.Contains(got.Problem, "another project") ||
			slices.ContainsFunc(w.requests, func(r mirror.Request) bool { return r.Unlisted }) {
			t.Fatalf("problem = %q, requests = %d; want it found out", got.Problem, len(w.requests))
		}
	})
}

// Another process goes on where one has ended; what vanished is left to the next
// sweep, since nobody has read the whole list.
func TestAnotherProcessGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		all := ids(250)
		w.listed(all...)
		w.mirrored(append(all, "vanished")...)
		down := errors.New("killed")
		w.answer = func(cursor string) error {
			if cursor == "200" {
				return down
			}
			return nil
		}
		if _, err := w.sweeper(nil).Do(t.Context(), mirror.Lease{}); !errors.Is(err, down) {
			t.Fatalf("Do = %v; want %v", err, down)
		}
		w.asked, w.answer = nil, nil
		next := w.sweeper(nil)
		got := w.run(t, next)
		if !slices.Equal(w.asked, []string{"200"}) || got.Listed != 250 || got.Known != 250 || got.Vanished != 0 ||
			!got.Done {
			t.Fatalf("pages = %q, sweep = %+v; want the last page alone", w.asked, got)
		}
		if got := w.run(t, next); got.Vanished != 1 || got.Listed != 250 {
			t.Fatalf("next sweep = %+v; want it to find what vanished", got)
		}
	})
}

// The same process has not forgotten what it read before a page failed.
func TestFailureIsShownAndTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		all := ids(250)
		w.listed(all...)
		w.mirrored(append(all, "vanished")...)
		broken := fault.New(fault.Unavailable, fault.ReasonUpstreamUnavailable,
			"Liveblocks reports a server error").With("code", "HTTP_500")
		w.answer = func(cursor string) error {
			if cursor == "100" {
				return broken
			}
			return nil
		}
		s := w.sweeper(nil)
		for n := range 12 {
			_, err := s.Do(t.Context(), mirror.Lease{})
			want := min(time.Second<<n, time.Minute)
			if f := fault.Of(err); f.Kind != fault.Busy || f.RetryAfter != want || !errors.Is(err, broken) {
				t.Fatalf("Do = %v after %v; want it to cost no attempt and to wait %v", err, f.RetryAfter, want)
			}
			if w.sweep.Problem != "the list of rooms could not be read: Liveblocks reports a server error (HTTP_500)" ||
				w.sweep.Listed != 100 || w.sweep.Done {
				t.Fatalf("sweep = %+v; want the problem shown, and 100 rooms listed", w.sweep)
			}
		}
		w.answer = nil
		if got := w.run(t, s); got.Problem != "" || got.Vanished != 1 || got.Listed != 250 {
			t.Fatalf("sweep = %+v; want it whole", got)
		}
		w.answer = func(string) error { return broken.After(time.Hour) }
		if _, err := s.Do(t.Context(), mirror.Lease{}); fault.Of(err).RetryAfter != time.Hour {
			t.Fatalf("Do = %v; want it to wait as told", err)
		}
	})
}

// flaky is a database that fails once, after a page was read.
type flaky struct {
	*world
	at *int // the call that fails
}

var errFlaky = errors.New("the database is away")

func (f flaky) RoomsByID(ctx context.Context, project mirror.ProjectID, ids []mirror.RoomID,
	source bool,
) ([]mirror.Room, error) {
	if *f.at--; *f.at == 0 {
		return nil, errFlaky
	}
	return f.world.RoomsByID(ctx, project, ids, source)
}

// A page that has to be read again because the database failed after it is no list
// in a circle: the sweep goes on with it.
func TestPageReadAgain(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 3; n++ {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := &world{}
				all := ids(250)
				w.listed(all...)
				w.mirrored(append(all, "vanished")...)
				at := n
				s := w.sweeper(func(cfg *Config) { cfg.Store = flaky{w, &at} })
				if _, err := s.Do(t.Context(), mirror.Lease{}); !errors.Is(err, errFlaky) {
					t.Fatalf("Do = %v; want %v", err, errFlaky)
				}
				w.asked = nil
				got := w.run(t, s)
				if want := []string{"", "100", "200"}[n-1]; w.asked[0] != want || got.Listed != 250 || got.Vanished != 1 ||
					got.Problem != "" {
					t.Fatalf("pages = %q, sweep = %+v; want it to go on at %q and to be whole", w.asked, got, want)
				}
			})
		})
	}
}

// A cursor that is not taken any more does not stop the sweep for ever.
func TestRefusedCursor(t *testing.T) {
	t.Parallel()
	for reason, again := range map[fault.Reason]string{
		fault.ReasonUpstreamCursorInvalid: "",
		fault.ReasonUpstreamAnswerInvalid: "100",
		fault.ReasonUpstreamUnavailable:   "100",
	} {
		t.Run(string(reason), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := &world{}
				w.listed(ids(250)...)
				w.answer = func(cursor string) error {
					if cursor == "100" {
						return fault.New(fault.Unavailable, reason, "no")
					}
					return nil
				}
				s := w.sweeper(nil)
				if _, err := s.Do(t.Context(), mirror.Lease{}); err == nil {
					t.Fatal("Do = nil; want the failure")
				}
				w.asked, w.answer = nil, nil
				got := w.run(t, s)
				if w.asked[0] != again || got.Listed != 250 || got.Problem != "" {
					t.Fatalf("went on at %q, sweep = %+v; want it to go on at %q", w.asked[0], got, again)
				}
			})
		})
	}
}

func TestListInACircle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		w.listed(ids(300)...)
		s := w.sweeper(func(cfg *Config) { cfg.Lister = circle{w} })
		_, err := s.Do(t.Context(), mirror.Lease{})
		if !fault.Is(err, fault.ReasonUpstreamAnswerInvalid) || len(w.asked) > 5 {
			t.Fatalf("Do = %v after %d pages; want it to notice", err, len(w.asked))
		}
	})
}

// circle leads from the last page to the first.
type circle struct{ *world }

func (c circle) ListRooms(ctx context.Context, cursor string, limit int) (mirror.RoomPage, error) {
	page, err := c.world.ListRooms(ctx, cursor, limit)
	return mirror.RoomPage{Rooms: page.Rooms, Next: cmp.Or(page.Next, "0")}, err
}

func TestLostLeaseEndsTheSweep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{lost: true}
		w.listed(ids(250)...)
		if _, err := w.sweeper(nil).Do(t.Context(), mirror.Lease{}); !errors.Is(err, store.ErrLeaseLost) ||
			len(w.asked) != 1 {
			t.Fatalf("Do = %v after %d pages; want ErrLeaseLost after the first", err, len(w.asked))
		}
	})
}

// A sweep that was switched off and on again begins, and so does one that has
// failed.
func TestBeginFindsWhatStoodStill(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{sweep: mirror.Sweep{ID: "old", Done: true, FullTime: time.Now().Add(-time.Hour)}}
		s := w.sweeper(nil)
		if err := s.Begin(t.Context()); err != nil || w.sweep.ID == "old" || w.sweep.Full {
			t.Fatalf("Begin = %v, %+v; want a sweep planned, not a full one", err, w.sweep)
		}
	})
}

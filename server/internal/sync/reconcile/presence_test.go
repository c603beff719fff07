package reconcile_test

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/presence"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/reconcile"
)

// between stands for the ten seconds between two fetches of active users.
const between = 2 * settle

func usersOf(room string) mirror.Resource {
	return mirror.Resource{Project: project, Room: mirror.RoomID(room), Kind: mirror.KindActiveUsers}
}

func sessionsOf(room string) mirror.Resource {
	return mirror.Resource{Project: project, Room: mirror.RoomID(room), Kind: mirror.KindUserSessions}
}

func alice(connection int64) fake.Connection {
	return fake.Connection{ID: connection, UserID: "alice", Info: json.RawMessage(`{"name":"Alice","n":9007199254740993}`)}
}

// wantUsers checks that who is in a room is mirrored.
func (b *bench) wantUsers(room string) mirror.ActiveUsers {
	b.Helper()
	body, _ := b.upstream.ActiveUsers(room)
	want, err := presence.ParseUsers(body)
	if err != nil {
		b.Fatalf("ParseUsers = %v", err)
	}
	got, err := b.store.ActiveUsers(b.Context(), usersOf(room), false)
	if diff := gocmp.Diff(want, append([]mirror.ActiveUser{}, got.Users...)); err != nil || diff != "" ||
		got.Freshness.Stale {
		b.Fatalf("active users of %q, %v, %+v (-want +got):\n%s\ntasks: %s", room, err, got.Freshness, diff, b.tasks())
	}
	return got
}

// sessions are a room's sessions, the earliest first.
func (b *bench) sessions(room string) []mirror.UserSession {
	b.Helper()
	list, err := b.store.UserSessions(b.Context(), store.SessionFilter{
		Project: project, Room: mirror.RoomID(room),
		Limit: 1000,
	})
	if err != nil {
		b.Fatalf("UserSessions of %q = %v", room, err)
	}
	slices.Reverse(list)
	return list
}

func TestPresence(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start()
		b.created(r, "r", lson("1"))
		now := time.Now().UTC().Truncate(time.Millisecond)
		b.upstream.SetClock(func() time.Time { return now })
		b.told(r, func() { b.must(b.upstream.Enter("r", alice(1))) })
		b.quiet()
		b.wantUsers("r")
		b.told(r, func() {
			b.must(b.upstream.Enter("r", alice(2))) // a second tab
			b.must(b.upstream.Enter("r", fake.Connection{ID: 3}))
		})
		b.quiet()
		b.wantUsers("r")
		now = now.Add(time.Minute)
		b.told(r, func() { b.must(b.upstream.Leave("r", 1)) })
		b.quiet()
		b.wantUsers("r")
		got := b.sessions("r")
		if len(got) != 3 {
			t.Fatalf("sessions = %+v; want 3", got)
		}
		for _, s := range got {
			left := s.ConnectionID == 1
			if !s.EnterTime.Equal(now.Add(-time.Minute)) || s.LeaveTime.IsZero() == left || left &&
				(!s.LeaveTime.Equal(now) || s.End != mirror.SessionLeft) ||
				s.ConnectionID < 3 && (s.UserID != "alice" || string(s.Info) != string(alice(1).Info)) || s.ConnectionID == 3 &&
				s.UserID != "" {
				t.Fatalf("session = %+v; want a minute of alice's first tab, the second open, and an anonymous user", s)
			}
		}
		// What is folded waits no longer, and nothing is folded twice.
		if waiting, err := b.store.Unfolded(t.Context(), sessionsOf("r"), 10); err != nil || len(waiting) > 0 {
			t.Fatalf("Unfolded = %+v, %v; want none", waiting, err)
		}
		b.refresh(r, sessionsOf("r"))
		if diff := gocmp.Diff(got, b.sessions("r")); diff != "" {
			t.Fatalf("sessions after nothing (-before +after):\n%s", diff)
		}
	})
}

// Liveblocks asks for no more than one fetch of a room's active users in ten
// seconds, whatever comes and goes.
func TestActiveUsersAreNotFetchedOften(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		fetches := &fetchTimes{Fetcher: b.client()}
		r := b.start(func(p *parts) { p.reconcile.Fetcher = fetches })
		begin := time.Now()
		b.created(r, "r", lson("1"))
		for i := range int64(40) {
			b.told(r, func() { b.must(b.upstream.Enter("r", alice(i))) })
			if i%5 == 0 { // somebody asks for them as well
				request := []mirror.Request{{Resource: mirror.Resource{
					Project: "default", Room: "r",
					Kind: mirror.KindActiveUsers,
				}}}
				if _, err := b.store.Request(t.Context(), request, time.Now()); err != nil {
					t.Fatalf("Request = %v", err)
				}
			}
			b.eventually("a moment has passed", func() bool { return rand.N(4) == 0 })
		}
		b.quiet()
		b.wantUsers("r")
		times := fetches.all()
		n := len(times)
		for i := range n - 1 {
			// Databases keep microseconds.
			if gap := times[i+1].Sub(times[i]); gap < between-time.Millisecond {
				t.Errorf("fetch %d began %v after the one before; want at least %v", i+1, gap, between)
			}
		}
		// On a slow machine the events themselves take a while.
		if most := min(int(time.Since(begin)/between)+1, 30); n < 2 || n > most {
			t.Fatalf("fetches = %d; want 2 to %d, far fewer than the 40 events", n, most)
		}
		if got := len(b.sessions("r")); got != 40 {
			t.Fatalf("sessions = %d; want 40", got)
		}
	})
}

// fetchTimes notes when fetches of active users began.
type fetchTimes struct {
	reconcile.Fetcher

	mu    sync.Mutex
	times []time.Time
}

func (f *fetchTimes) ActiveUsers(ctx context.Context, room mirror.RoomID) (mirror.Fetched, error) {
	fetched, err := f.Fetcher.ActiveUsers(ctx, room)
	if err == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.times = append(f.times, fetched.FetchTime)
	}
	return fetched, err
}

func (f *fetchTimes) all() []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.times)
}

// A stale answer is put right by the fetch that comes after it.
func TestActiveUsersReadTooEarly(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start(early)
		b.created(r, "r", lson("1"))
		b.upstream.Script(fake.Match{Endpoint: fake.EndpointActiveUsers}, fake.Stale(1))
		b.told(r, func() { b.must(b.upstream.Enter("r", alice(1))) })
		b.quiet()
		b.wantUsers("r")
		if n := b.upstream.StepsLeft(); n != 0 {
			t.Fatalf("stale answers not served = %d; want 0, or the test proves nothing", n)
		}
	})
}

// An answer that makes no sense is no empty room, nor is a 404.
func TestActiveUsersAreNotForgottenLightly(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start(func(p *parts) { p.queue.Policy.MaxAttempts = 1 })
		b.created(r, "r", lson("1"))
		b.told(r, func() { b.must(b.upstream.Enter("r", alice(1))) })
		b.quiet()
		for name, step := range map[string]fake.Step{
			"no list":     fake.Answer(http.StatusOK, "application/json", []byte(`{}`)),
			"foreign 404": fake.Status(http.StatusNotFound, "NOT_FOUND"),
			"other 404":   fake.Status(http.StatusNotFound, "RESOURCE_NOT_FOUND"),
			"half":        fake.Truncate(),
		} {
			b.upstream.Script(fake.Match{Endpoint: fake.EndpointActiveUsers}, step)
			if err := r.pool.Refresh(t.Context(), usersOf("r")); !fault.Is(err, fault.ReasonRefreshFailed) {
				t.Fatalf("Refresh of %s = %v; want REFRESH_FAILED", name, err)
			}
			b.wantState(usersOf("r"), mirror.TaskFailed, "UPSTREAM_")
			if got, err := b.store.ActiveUsers(t.Context(), usersOf("r"), false); err != nil || len(got.Users) != 1 {
				t.Fatalf("active users after %s = %+v, %v; want alice still", name, got, err)
			}
		}
		b.refresh(r, usersOf("r"))
		b.wantUsers("r")
	})
}

// A session whose end nobody told is ended by the fetch that lacks it, if it began
// clearly before; the real end replaces that when it turns up after all.
func TestLostLeave(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start()
		b.created(r, "r", lson("1"))
		ago := func(d time.Duration) { // moves the clock of Liveblocks' events
			at := time.Now().Add(-d).UTC().Truncate(time.Millisecond)
			b.upstream.SetClock(func() time.Time { return at })
		}
		ago(time.Hour)
		b.told(r, func() { b.must(b.upstream.Enter("r", alice(1))) })
		ago(30 * time.Minute)
		lost := b.happens(func() { b.must(b.upstream.Leave("r", 1)) })
		ago(10 * time.Second) // too short ago to conclude anything
		b.deliver(r, b.happens(func() { b.must(b.upstream.Enter("r", alice(2))) })...)
		young := b.happens(func() { b.must(b.upstream.Leave("r", 2)) })
		b.quiet()
		b.wantUsers("r")
		got := b.sessions("r")
		fetched := b.fetchTime(usersOf("r"))
		if len(got) != 2 || got[0].End != mirror.SessionAbsent || got[0].LeaveEventID != "" ||
			got[0].LeaveTime.After(fetched) || got[0].LeaveTime.Before(fetched.Add(-time.Minute)) {
			t.Fatalf("sessions = %+v; want the first ended by the fetch of %v", got, fetched)
		}
		if got[1].End != mirror.SessionOpen {
			t.Fatalf("session = %+v; want it open: it may have begun after the fetch", got[1])
		}

		b.deliver(r, append(lost, young...)...)
		b.quiet()
		got = b.sessions("r")
		if got[0].End != mirror.SessionLeft || !got[0].LeaveTime.Equal(lost[0].Time) || got[1].End != mirror.SessionLeft {
			t.Fatalf("sessions = %+v; want their real ends", got)
		}
	})
}

func (b *bench) fetchTime(r mirror.Resource) time.Time {
	b.Helper()
	return b.task(r).FetchTime
}

func TestDeletedRoomEndsSessions(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start()
		b.created(r, "r", lson("1"))
		b.told(r, func() { b.must(b.upstream.Enter("r", alice(1))) })
		b.quiet()
		late := b.happens(func() { b.must(b.upstream.Leave("r", 1)) })
		left := late[0].Time.Truncate(time.Millisecond) // as the webhook tells it
		b.told(r, func() { b.remove("r") })
		b.quiet()
		b.wantTombstone("r")
		if got := b.sessions("r"); len(got) != 1 || got[0].End != mirror.SessionRoomDeleted || got[0].LeaveTime.IsZero() {
			t.Fatalf("sessions = %+v; want the one, ended with the room", got)
		}
		before := b.upstream.Calls("r", fake.EndpointActiveUsers)
		b.deliver(r, late...)
		b.quiet()
		if got := b.sessions("r"); len(got) != 1 || got[0].End != mirror.SessionLeft || !got[0].LeaveTime.Equal(left) {
			t.Fatalf("sessions = %+v; want the real end, though the room is gone", got)
		}
		if n := b.upstream.Calls("r", fake.EndpointActiveUsers) - before; n != 0 {
			t.Fatalf("fetches of the active users of a deleted room = %d; want 0", n)
		}
		b.wantState(usersOf("r"), mirror.TaskDone, "")
	})
}

// Events of presence in a room that nobody heard of bring the room, and make
// sessions of their own, even if there is no such room.
func TestPresenceInUnknownRooms(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start()
		b.create("r", lson("1"))
		b.told(r, func() { b.must(b.upstream.Enter("r", alice(1))) })
		b.deliver(r, fake.Event{Type: fake.UserEntered, RoomID: "nowhere", ConnectionID: 1, Time: time.Now()})
		b.quiet()
		b.wantUsers("r")
		b.wantDocument("r", lson("1"))
		for _, room := range []string{"r", "nowhere"} {
			if got := b.sessions(room); len(got) != 1 {
				t.Fatalf("sessions of %q = %+v; want 1", room, got)
			}
		}
		if n := b.upstream.Calls("nowhere", fake.EndpointActiveUsers); n > 1 {
			t.Fatalf("fetches of the active users of no room = %d; want at most that beside the room's", n)
		}
	})
}

// Comings and goings in any order, divided among tasks in any way, make the same
// sessions; a connection's number is given out again and again.
func TestSessionsInAnyOrder(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		const stays = 100 // of one connection: more than are read at first
		b := newBench(t, e)
		r := b.start()
		begin := time.Now().Add(-24 * time.Hour).UTC().Truncate(time.Millisecond)
		var events []fake.Event
		for i := range stays {
			for j, typ := range []string{fake.UserEntered, fake.UserLeft} {
				at := begin.Add(time.Duration(i)*time.Minute + time.Duration(j)*30*time.Second)
				events = append(events, fake.Event{Type: typ, ConnectionID: 1, UserID: "alice", Time: at})
			}
		}
		want := func(room string) {
			t.Helper()
			got := b.sessions(room)
			if len(got) != stays {
				t.Fatalf("sessions of %q = %d; want %d", room, len(got), stays)
			}
			for i, s := range got {
				at := begin.Add(time.Duration(i) * time.Minute)
				if !s.EnterTime.Equal(at) || !s.LeaveTime.Equal(at.Add(30*time.Second)) || s.End != mirror.SessionLeft {
					t.Fatalf("session %d of %q = %+v; want it at %v for half a minute", i, room, s, at)
				}
			}
		}
		for _, room := range []string{"at once", "reversed", "shuffled", "leaves first"} {
			order := slices.Clone(events)
			for i := range order {
				order[i].RoomID = room
			}
			batch := 20
			switch room {
			case "at once":
				batch = len(order)
			case "reversed":
				slices.Reverse(order)
			case "shuffled":
				rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
				batch = 7
			case "leaves first":
				slices.SortStableFunc(order, func(a, b fake.Event) int { return strings.Compare(b.Type, a.Type) })
			}
			for part := range slices.Chunk(order, batch) {
				b.deliver(r, part...)
				b.eventually("nothing waits", func() bool {
					waiting, err := b.store.Unfolded(t.Context(), sessionsOf(room), 1)
					return err == nil && len(waiting) == 0
				})
			}
			b.quiet()
			want(room)
		}
	})
}

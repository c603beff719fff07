package reconcile_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/presence"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// trouble stands before the fake: it delays answers, breaks them, and for a
// while after each change may serve the state before it.
type trouble struct {
	upstream *fake.Server

	mu      sync.Mutex
	chance  *rand.Rand
	changed map[fake.Match]time.Time
	// limits is how many answers may yet be 429: each stops all calls for a second.
	limits int
}

// lag is how long after a change the state before it may be served. A settle
// fetch comes later than that.
const lag = settle / 2

func (tr *trouble) seed(seed uint64) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.chance = rand.New(rand.NewPCG(seed, seed))
	tr.changed, tr.limits = make(map[fake.Match]time.Time), 1
}

func (tr *trouble) note(ev fake.Event) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	var changed []fake.Match
	switch ev.Type {
	case fake.StorageUpdated:
		changed = []fake.Match{{Endpoint: fake.EndpointStorage}}
	case fake.YdocUpdated:
		changed = []fake.Match{{Endpoint: fake.EndpointYdoc}}
	case fake.UserEntered, fake.UserLeft:
		changed = []fake.Match{{Endpoint: fake.EndpointActiveUsers}}
	case fake.RoomCreated, fake.RoomDeleted:
		for _, endpoint := range roomEndpoints {
			changed = append(changed, fake.Match{Endpoint: endpoint})
		}
	default:
		changed = []fake.Match{
			{Endpoint: fake.EndpointThreads}, {Endpoint: fake.EndpointThread, Thread: ev.ThreadID},
		}
	}
	for _, match := range changed {
		match.Room = ev.RoomID
		tr.changed[match] = time.Now()
	}
}

// roomEndpoints are the endpoints of what a room has one of, by their paths.
var roomEndpoints = map[string]fake.Endpoint{
	"":             fake.EndpointRoom,
	"storage":      fake.EndpointStorage,
	"ydoc-binary":  fake.EndpointYdoc,
	"threads":      fake.EndpointThreads,
	"active_users": fake.EndpointActiveUsers,
}

func (tr *trouble) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// "", "v2", "rooms", the room, and what is in it
	parts := append(strings.Split(r.URL.EscapedPath(), "/"), "", "", "")
	if parts[2] != "rooms" || parts[3] == "" {
		tr.upstream.ServeHTTP(w, r)
		return
	}
	match := fake.Match{Endpoint: roomEndpoints[parts[4]]}
	match.Room, _ = url.PathUnescape(parts[3]) // the client has escaped it
	if parts[5] != "" {
		match.Endpoint, match.Thread = fake.EndpointThread, parts[5]
	}
	tr.mu.Lock()
	// A lease lets only one call for a room's part be under way, so the step is
	// that call's.
	tr.upstream.Script(match, tr.step(match))
	tr.mu.Unlock()
	tr.upstream.ServeHTTP(w, r)
}

func (tr *trouble) step(call fake.Match) fake.Step {
	if time.Since(tr.changed[call]) < lag && tr.chance.IntN(2) == 0 {
		return fake.Stale(1)
	}
	wait := time.Duration(tr.chance.IntN(15)) * time.Millisecond
	switch tr.chance.IntN(20) {
	case 0:
		return fake.Status(http.StatusInternalServerError, "INTERNAL_ERROR")
	case 1:
		return fake.ResetMidBody()
	case 2:
		return fake.Status(http.StatusNotFound, "NOT_FOUND") // a proxy's, not the API's
	case 3:
		return fake.Truncate()
	case 4:
		if tr.limits--; tr.limits >= 0 {
			return fake.TooMany("1")
		}
		return fake.Usual()
	case 5, 6, 7, 8:
		return fake.Slow(wait).Late()
	default:
		return fake.Slow(wait)
	}
}

// Invariant 5: whatever the order, the duplication and the delay of the
// deliveries, and whatever the API answers meanwhile, once all is quiet the
// mirror is what the API returns.
func TestMirrorConverges(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		const (
			rooms      = 20
			changes    = 140
			deliveries = 300
		)
		b := newBench(t, e)
		tr := &trouble{upstream: b.upstream}
		b.before(tr.ServeHTTP)
		endless := func(p *parts) { p.queue.Policy.MaxAttempts = 1_000_000 }
		replicas := []*replica{b.start(endless), b.start(endless)}
		var happened []fake.Event
		b.upstream.OnEvent(func(ev fake.Event) {
			tr.note(ev)
			happened = append(happened, ev)
		})
		check := 0
		rapid.Check(t, func(t *rapid.T) {
			check++
			happened = nil
			tr.seed(rapid.Uint64().Draw(t, "seed"))
			ids := make([]string, rooms)
			for i := range ids {
				ids[i] = fmt.Sprintf("%d %s", check, oddIDs[i%len(oddIDs)])
			}
			room, kind, what := rapid.IntRange(0, rooms-1), rapid.IntRange(0, 16), rapid.IntRange(0, 9)
			sent := make(map[int]bool)
			count := 0
			deliver := func(i int) {
				count++
				sent[i] = true
				r := replicas[count%2]
				b.accept(r, b.delivery(fmt.Sprintf("msg_%d_%d", check, i), happened[i]))
			}
			for i := range changes {
				id, storage := ids[room.Draw(t, "room")], []byte(lson(fmt.Sprintf("%d of %d", i, check)))
				_, there := b.upstream.RoomSource(id)
				var err error
				switch k := kind.Draw(t, "change"); {
				case !there:
					err = b.upstream.CreateRoom(id, fake.RoomOptions{Storage: storage})
				case k == 0:
					err = b.upstream.DeleteRoom(id)
				case k == 1:
					err = b.upstream.RecreateRoom(id, fake.RoomOptions{Storage: storage})
				case k < 4:
					err = b.upstream.SetYdoc(id, "", storage) // bytes like any others
				case k < 8:
					err = b.upstream.SetStorage(id, storage)
				case k < 13:
					err = discuss(b.upstream, id, fmt.Sprint("th_", k%2), what.Draw(t, "comment"), i)
				default:
					err = come(b.upstream, id, int64(k%2))
				}
				if err != nil {
					t.Fatalf("change = %v", err)
				}
				// Some deliveries now, of anything that has happened so far.
				for range rapid.IntRange(0, 2).Draw(t, "deliveries") {
					deliver(rapid.IntRange(0, len(happened)-1).Draw(t, "event"))
				}
			}
			var rest []int
			for i := range happened {
				if !sent[i] {
					rest = append(rest, i)
				}
			}
			for len(rest)+count < deliveries {
				rest = append(rest, rapid.IntRange(0, len(happened)-1).Draw(t, "event"))
			}
			for _, i := range rapid.Permutation(rest).Draw(t, "rest") {
				deliver(i)
			}

			b.quiet()
			deleted := make(map[string]bool)
			for _, ev := range happened {
				deleted[ev.RoomID] = deleted[ev.RoomID] || ev.Type == fake.RoomDeleted
			}
			for _, id := range ids {
				b.wantEqual(t, id, deleted[id])
				var told []mirror.Event
				for i, ev := range happened {
					if ev.RoomID == id {
						told = append(told, b.delivery(fmt.Sprintf("msg_%d_%d", check, i), ev).Event)
					}
				}
				b.wantSessions(t, id, told)
			}
			if failed := b.tasks(); failed != "" {
				t.Fatalf("tasks left: %s", failed)
			}
		})
	})
}

// discuss changes a thread of a room: it begins it if it is not there.
func discuss(upstream *fake.Server, room, th string, what, n int) error {
	comments := upstream.Comments(room, th)
	if len(comments) == 0 {
		_, err := upstream.CreateThread(room,
			fake.ThreadOptions{ID: th, Comment: fake.Comment{UserID: "u", Text: fmt.Sprint("begun ", n)}})
		return err
	}
	last := comments[len(comments)-1]
	switch what {
	case 0:
		return upstream.DeleteThread(room, th)
	case 1, 2:
		return upstream.DeleteComment(room, th, last) // with the last one goes the thread
	case 3:
		return upstream.SetResolved(room, th, n%2 == 0, "u")
	case 4:
		return upstream.AddReaction(room, th, last, "👍", fmt.Sprint("user ", n))
	case 5:
		return upstream.EditComment(room, th, last, fmt.Sprint("edited ", n))
	default:
		_, err := upstream.CreateComment(room, th, fake.Comment{UserID: "u", Text: fmt.Sprint("written ", n)})
		return err
	}
}

// come lets somebody enter a room, or leave it if he is there.
func come(upstream *fake.Server, room string, connection int64) error {
	if slices.ContainsFunc(upstream.Connections(room), func(c fake.Connection) bool { return c.ID == connection }) {
		return upstream.Leave(room, connection)
	}
	return upstream.Enter(room, fake.Connection{ID: connection, UserID: fmt.Sprint("user ", connection)})
}

// wantSessions checks that a room's sessions are what its events say, apart from
// ends that nobody told of.
func (b *bench) wantSessions(t *rapid.T, id string, events []mirror.Event) {
	type session struct {
		enter, leave time.Time
		leaveEvent   string
	}
	told := func(list []mirror.UserSession) map[string]session {
		out := make(map[string]session)
		for _, s := range list {
			one := session{enter: s.EnterTime}
			if s.End == mirror.SessionLeft {
				one.leave, one.leaveEvent = s.LeaveTime, s.LeaveEventID
			}
			out[s.ID] = one
		}
		return out
	}
	want, got := told(presence.Fold(nil, events).Upserts), told(b.sessions(id))
	if !maps.Equal(want, got) {
		t.Fatalf("sessions of %q = %+v; want %+v", id, got, want)
	}
}

// wantEqual checks that the mirror of a room is what the API returns.
func (b *bench) wantEqual(t *rapid.T, id string, deleted bool) {
	source, there := b.upstream.RoomSource(id)
	storage, _ := b.upstream.Storage(id)
	room, known := b.room(id, true)
	doc, found := b.document(id)
	switch {
	case there && (!known || string(room.Source) != string(source) || !room.Freshness.DeleteTime.IsZero() ||
		!room.Freshness.MissingSince.IsZero() || room.Freshness.Stale):
		t.Fatalf("room %q = %+v, there: %v; want %s; task: %+v", id, room, known, source, b.task(roomOf(id)))
	case there && (!found || string(doc.Content) != string(storage) || doc.Freshness.Stale):
		t.Fatalf("document of %q = %s, there: %v; want %s; task: %+v", id, doc.Content, found, storage, b.task(storageOf(id)))
	case there:
		want, _ := b.upstream.Ydoc(id, "")
		if ydoc, err := b.store.Document(b.Context(), ydocOf(id, ""), false); err != nil ||
			string(ydoc.Content) != string(want) || ydoc.Freshness.Stale {
			t.Fatalf("Yjs document of %q = %q, %v; want %q; task: %+v", id, ydoc.Content, err, want, b.task(ydocOf(id, "")))
		}
		b.wantUsers(id)
		for _, th := range []string{"th_0", "th_1"} {
			if _, lives := b.upstream.ThreadSource(id, th); lives {
				b.wantThread(id, th)
			} else if got, ok := b.thread(id, th, false); ok {
				t.Fatalf("thread %q of %q = %+v; want none; task: %+v", th, id, got, b.task(threadOf(id, th)))
			}
		}
	case known && (!deleted || room.Freshness.DeleteTime.IsZero()):
		t.Fatalf("room %q = %+v; want a tombstone; task: %+v", id, room, b.task(roomOf(id)))
	case found:
		t.Fatalf("document of %q = %s; want none in a deleted room", id, doc.Content)
	}
}

var _ http.Handler = (*trouble)(nil)

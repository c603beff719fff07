package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/queue"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/reconcile"
)

func lson(v string) string { return fmt.Sprintf(`{"liveblocksType":"LiveObject","data":{"v":%q}}`, v) }

// Invariant 8: many events on one resource while it is being fetched cost one
// more fetch, and one settle fetch.
func TestBurstCollapses(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start()
		b.created(r, "r", lson("0"))
		before := b.calls("r")
		h := fake.NewHold()
		b.upstream.Script(fake.Match{Room: "r", Endpoint: fake.EndpointStorage}, h.Step().Always())
		b.Cleanup(h.Release)
		for i := range 20 {
			var events []fake.Event
			for range 50 {
				b.setStorage("r", lson(fmt.Sprint(i)))
				events = append(events, event(fake.StorageUpdated, "r"))
			}
			b.deliver(r, events...)
			if i == 0 {
				b.arrived(h) // the rest arrives during the first, slow fetch
			}
		}
		h.Release()
		b.quiet()
		if n := b.calls("r") - before; n > 3 {
			t.Fatalf("fetches for 1,000 events = %d; want at most 3", n)
		}
		b.wantDocument("r", lson("19"))
		if n := b.upstream.Calls("r", fake.EndpointRoom); n > 2 {
			t.Fatalf("fetches of the room = %d; want only those of its creation", n)
		}
	})
}

// An event of a room that nobody heard of brings the room too. Both are fetched at
// once, and what is in the room is applied after it.
func TestUnknownRoomIsMirroredFirst(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start()
		b.create("r", lson("1"))
		b.deliver(r, event(fake.StorageUpdated, "r"))
		b.quiet()
		b.wantDocument("r", lson("1"))
		room, ok := b.room("r", false)
		source, _ := b.upstream.RoomSource("r")
		if !ok || string(room.Source) != string(source) || room.Epoch != 1 {
			t.Fatalf("room = %+v; want %s in its first epoch", room, source)
		}
		if n := b.upstream.Calls("r", fake.EndpointStorage); n > 2 {
			t.Fatalf("fetches of the document = %d; want one beside that of the room, and the settle fetch", n)
		}
	})
}

// An event of a room that is not there comes to rest.
func TestRoomThatNeverWas(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start()
		b.deliver(r, event(fake.StorageUpdated, "nowhere"))
		b.quiet()
		if n := b.upstream.Calls("nowhere", fake.EndpointRoom); n > 2 {
			t.Fatalf("fetches of the room = %d; want one and its settle fetch", n)
		}
		if n := b.calls("nowhere"); n > 1 {
			t.Fatalf("fetches of its document = %d; want at most the one beside that of the room", n)
		}
		b.wantState(storageOf("nowhere"), mirror.TaskDone, "")
		if task := b.wantState(roomOf("nowhere"), mirror.TaskDone, ""); task.MissingSince.IsZero() {
			t.Fatalf("task = %+v; want it shown as missing", task)
		}
	})
}

func TestDeletedRoomAndItsReturn(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start()
		b.created(r, "r", lson("first life"))
		b.remove("r")
		b.deliver(r, event(fake.RoomDeleted, "r"))
		b.quiet()
		tombstone, before := b.wantTombstone("r"), b.calls("r")
		b.deliver(r, event(fake.StorageUpdated, "r")) // late
		b.quiet()
		if n := b.calls("r") - before; n != 0 {
			t.Fatalf("fetches of a document in a deleted room = %d; want 0", n)
		}
		if again := b.wantTombstone("r"); !again.Freshness.DeleteTime.Equal(tombstone.Freshness.DeleteTime) ||
			again.Epoch != tombstone.Epoch {
			t.Fatalf("tombstone after a late event = %+v; want %+v", again, tombstone)
		}

		b.create("r", lson("second life"))
		b.deliver(r, event(fake.RoomCreated, "r"))
		b.quiet()
		b.wantDocument("r", lson("second life"))
		room, ok := b.room("r", false)
		if !ok || room.Epoch <= tombstone.Epoch || !room.Freshness.MissingSince.IsZero() {
			t.Fatalf("room = %+v; want it alive in a later epoch", room)
		}
		changes, err := b.store.Changes(t.Context(), []store.ChangeRange{{Bucket: roomOf("r").Bucket(), To: 100}})
		if err != nil {
			t.Fatalf("Changes = %v", err)
		}
		var feed []string
		for i, c := range changes {
			if c.Number != int64(i)+1 {
				t.Fatalf("change %d has number %d", i, c.Number)
			}
			if c.Resource.Kind != mirror.KindYdoc { // beside the other, in any order
				feed = append(feed, fmt.Sprintf("%s %d", c.Resource.Kind, c.Kind))
			}
		}
		if got, want := strings.Join(feed, ", "), "room 1, storage 1, room 2, room 1, storage 1"; got != want {
			t.Fatalf("feed = %s; want %s", got, want)
		}
	})
}

// The answer to the first fetch after roomDeleted may still be the room.
func TestDeletionReadTooEarly(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start(early)
		b.created(r, "r", lson("1"))
		b.upstream.Script(fake.Match{Room: "r", Endpoint: fake.EndpointRoom}, fake.Stale(1))
		b.remove("r")
		b.deliver(r, event(fake.RoomDeleted, "r"))
		b.quiet()
		b.wantTombstone("r")
	})
}

// Invariant 11: without an event, a 404 sets missing_since and no more.
func TestDeletionWithoutEvent(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start()
		b.created(r, "r", lson("1"))
		b.remove("r")
		b.deliver(r, event(fake.StorageUpdated, "r"))
		b.quiet()
		room, ok := b.room("r", false)
		if !ok || room.Freshness.MissingSince.IsZero() || !room.Freshness.DeleteTime.IsZero() {
			t.Fatalf("room = %+v, there: %v; want it there and missing", room, ok)
		}
		b.wantDocument("r", lson("1"))
		since := room.Freshness.MissingSince
		if err := r.pool.Refresh(t.Context(), roomOf("r")); err != nil {
			t.Fatalf("Refresh = %v", err)
		}
		if room, _ := b.room("r", false); !room.Freshness.MissingSince.Equal(since) {
			t.Fatalf("missing since = %v; want still %v", room.Freshness.MissingSince, since)
		}

		b.create("r", lson("2")) // and back, as after an outage
		b.deliver(r, event(fake.RoomCreated, "r"))
		b.quiet()
		b.wantDocument("r", lson("2"))
		if room, _ := b.room("r", false); !room.Freshness.MissingSince.IsZero() {
			t.Fatalf("room = %+v; want it missing no more", room)
		}
	})
}

// A delete event of an earlier life, delivered late, does not make a later 404
// a deletion.
func TestLateDeleteEventIsContradicted(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start()
		b.created(r, "r", lson("1"))
		b.deliver(r, event(fake.RoomDeleted, "r")) // but it is there
		b.quiet()
		b.wantDocument("r", lson("1"))
		b.remove("r")
		b.deliver(r, event(fake.StorageUpdated, "r"))
		b.quiet()
		if room, ok := b.room("r", false); !ok || room.Freshness.MissingSince.IsZero() {
			t.Fatalf("room = %+v, there: %v; want it missing and not deleted", room, ok)
		}
	})
}

// A proxy or a wrong path may answer 404 to everything. Even with a delete
// event that proves nothing.
func TestForeign404DeletesNothing(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		for name, step := range map[string]fake.Step{
			"wrong code": fake.Status(http.StatusNotFound, "NOT_FOUND"),
			"a page":     fake.Answer(http.StatusNotFound, "text/html", []byte("<h1>404</h1>")),
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				b := newBench(t, e)
				r := b.start()
				b.created(r, "r", lson("1"))
				b.upstream.Script(fake.Match{}, step.Always())
				b.deliver(r, event(fake.RoomDeleted, "r"), event(fake.StorageUpdated, "r"))
				b.quiet()
				b.wantState(roomOf("r"), mirror.TaskFailed, string(fault.ReasonUpstreamNotFound))
				b.wantState(storageOf("r"), mirror.TaskFailed, string(fault.ReasonUpstreamNotFound))
				b.wantDocument("r", lson("1"))
				if room, ok := b.room("r", false); !ok || !room.Freshness.MissingSince.IsZero() {
					t.Fatalf("room = %+v, there: %v; want it untouched", room, ok)
				}
				b.upstream.ClearScripts()
				b.edited(r, "r", lson("2")) // the next event begins anew
				b.quiet()
				b.wantDocument("r", lson("2"))
			})
		}
	})
}

// counted counts what a replica asks the database.
type counted struct {
	store.Tasks
	store.Mirror
	calls *atomic.Int64
}

func (c counted) Due(ctx context.Context, look store.Look) (store.DueList, error) {
	c.calls.Add(1)
	return c.Tasks.Due(ctx, look)
}

func (c counted) Claim(ctx context.Context, r mirror.Resource, token [16]byte, now time.Time,
	ttl time.Duration,
) (mirror.Lease, error) {
	c.calls.Add(1)
	return c.Tasks.Claim(ctx, r, token, now, ttl)
}

func (c counted) Renew(ctx context.Context, lease mirror.Lease, until time.Time) error {
	c.calls.Add(1)
	return c.Tasks.Renew(ctx, lease, until)
}

func (c counted) Fail(ctx context.Context, lease mirror.Lease, f store.Failure) (mirror.Applied, error) {
	c.calls.Add(1)
	return c.Tasks.Fail(ctx, lease, f)
}

// A refused key pauses the project: no attempt is burned, the probes cost no
// query, and when the key is accepted again everything goes on.
func TestRefusedKeyPausesTheProject(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		var queries atomic.Int64
		r := b.start(func(p *parts) {
			p.queue.Tasks = counted{Tasks: p.queue.Tasks, calls: &queries}
			p.queue.Policy.MaxAttempts = 1
		})
		for i := range 5 {
			b.created(r, fmt.Sprint("r", i), lson("1"))
		}
		b.upstream.SetSecret("sk_another")
		for i := range 5 {
			b.edited(r, fmt.Sprint("r", i), lson("2"))
		}
		b.eventually("the project is paused", func() bool {
			p, err := b.store.Project(t.Context(), project)
			return err == nil && p.PauseReason != ""
		})
		probes := func() int { return b.upstream.Calls("", fake.EndpointListRooms) }
		before, since := queries.Load(), time.Now()
		b.eventually("the workers to stand still", func() bool {
			if n := queries.Load(); n != before {
				before, since = n, time.Now()
			}
			return time.Since(since) > 500*time.Millisecond
		})
		probed := probes()
		b.eventually("more probes", func() bool { return probes() >= probed+10 })
		if n := queries.Load() - before; n > 0 {
			t.Fatalf("queries during ten probes = %d; want 0", n)
		}
		for i := range 5 {
			if task := b.wantState(storageOf(fmt.Sprint("r", i)), mirror.TaskPending, ""); task.Attempts != 0 {
				t.Fatalf("task = %+v; want no attempt burned", task)
			}
		}
		b.upstream.SetSecret(apiKey)
		b.quiet()
		for i := range 5 {
			b.wantDocument(fmt.Sprint("r", i), lson("2"))
		}
		if p, err := b.store.Project(t.Context(), project); err != nil || p.PauseReason != "" {
			t.Fatalf("Project = %+v, %v; want it resumed", p, err)
		}
	})
}

// beginnings are when the fetches of a room's document arrived.
func (b *bench) beginnings(id string) (times []time.Time) {
	for _, c := range b.upstream.Log() {
		if c.Room == id && c.Endpoint == fake.EndpointStorage {
			times = append(times, c.Begin)
		}
	}
	return times
}

func TestRateLimitWaitsAsToldAndBurnsNoAttempt(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start(func(p *parts) { p.queue.Policy.MaxAttempts = 1 })
		b.created(r, "r", lson("1"))
		before := len(b.beginnings("r"))
		b.upstream.Script(fake.Match{Room: "r", Endpoint: fake.EndpointStorage}, fake.TooMany("2"), fake.TooMany("1"))
		b.edited(r, "r", lson("2"))
		b.eventually("the refusal is recorded", func() bool { return b.task(storageOf("r")).LastError != "" })
		task := b.wantState(storageOf("r"), mirror.TaskPending, string(fault.ReasonUpstreamRateLimited))
		if told := b.beginnings("r")[before].Add(2 * time.Second); task.Attempts != 0 || task.NotBefore.Before(told) {
			t.Fatalf("task = %+v; want it to wait until %v, with no attempt burned", task, told)
		}
		b.quiet()
		b.wantDocument("r", lson("2"))
		times := b.beginnings("r")[before:]
		if len(times) < 3 {
			t.Fatalf("fetches = %d; want 3 at least", len(times))
		}
		for i, want := range []time.Duration{2 * time.Second, time.Second} {
			if gap := times[i+1].Sub(times[i]); gap < want || gap > want+10*time.Second {
				t.Fatalf("fetch %d came after %v; want after the %v it was told", i+1, gap, want)
			}
		}
	})
}

// Trouble upstream is answered by attempts with delays that are kept in the
// database, so that another process heeds them too.
func TestTroubleIsRetriedWithAPersistedBackoff(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		for name, step := range map[string]fake.Step{
			"500":       fake.Status(http.StatusInternalServerError, "INTERNAL_ERROR"),
			"503":       fake.StatusRetry(http.StatusServiceUnavailable, ""),
			"reset":     fake.ResetMidBody(),
			"truncated": fake.Truncate(),
			"chunked":   fake.Truncate().Chunked(),
			"garbage":   fake.Garbage(),
			"redirect":  fake.Redirect("http://127.0.0.1:1/"),
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				b := newBench(t, e)
				slow := func(p *parts) {
					p.queue.Policy.BackoffMin, p.queue.Policy.BackoffMax = 2*time.Second, 2*time.Second
					p.queue.Policy.MaxAttempts = 1000
				}
				r := b.start(slow)
				b.created(r, "r", lson("1"))
				b.upstream.Script(fake.Match{Room: "r", Endpoint: fake.EndpointStorage}, step.Always())
				b.edited(r, "r", lson("2"))
				b.eventually("an attempt is recorded", func() bool { return b.task(storageOf("r")).Attempts > 0 })
				r.stop()
				before := len(b.beginnings("r"))
				b.upstream.ClearScripts()
				task := b.wantState(storageOf("r"), mirror.TaskPending, "UPSTREAM_")
				if left := time.Until(task.NotBefore); left > 2*time.Second {
					t.Fatalf("task = %+v; want the next attempt within two seconds", task)
				}
				r = b.start(slow)
				b.deliver(r, event(fake.StorageUpdated, "r")) // nor does an event cut it short
				b.quiet()
				b.wantDocument("r", lson("2"))
				if again := b.beginnings("r")[before]; again.Before(task.NotBefore) {
					t.Fatalf("next attempt began %v before its time", task.NotBefore.Sub(again))
				}
				if task := b.wantState(storageOf("r"), mirror.TaskDone, ""); task.Attempts != 0 || task.LastError != "" {
					t.Fatalf("task = %+v; want the trouble forgotten", task)
				}
			})
		}
	})
}

func TestDeniedRoomFailsAlone(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start()
		b.created(r, "closed", lson("1"))
		b.created(r, "open", lson("1"))
		b.upstream.Script(fake.Match{Room: "closed", Endpoint: fake.EndpointStorage},
			fake.Status(http.StatusForbidden, "UNAUTHORIZED_ROOM_ACCESS").Always())
		before := b.calls("closed")
		b.edited(r, "closed", lson("2"))
		b.edited(r, "open", lson("2"))
		b.quiet()
		b.wantState(storageOf("closed"), mirror.TaskFailed, string(fault.ReasonUpstreamAccessDenied))
		if n := b.calls("closed") - before; n != 1 {
			t.Fatalf("fetches of the closed room = %d; want 1", n)
		}
		b.wantDocument("closed", lson("1"))
		b.wantDocument("open", lson("2"))
		if p, err := b.store.Project(t.Context(), project); err != nil || p.PauseReason != "" {
			t.Fatalf("Project = %+v, %v; want it not paused", p, err)
		}
		b.upstream.ClearScripts()
		b.edited(r, "closed", lson("3"))
		b.quiet()
		b.wantDocument("closed", lson("3"))
	})
}

func TestAnswerOverTheCapFailsAlone(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start(func(p *parts) {
			p.client.MaxBody = 100_000
			p.queue.Workers = 1
		})
		b.created(r, "big", lson("1"))
		for i := range 5 {
			b.create(fmt.Sprint("small", i), lson("1"))
		}
		b.edited(r, "big", lson(strings.Repeat("x", 200_000)))
		for i := range 5 {
			b.deliver(r, event(fake.RoomCreated, fmt.Sprint("small", i)))
		}
		b.quiet()
		task := b.wantState(storageOf("big"), mirror.TaskFailed, string(fault.ReasonUpstreamAnswerTooLarge)+": ")
		if !strings.Contains(task.LastError, "size limit") {
			t.Fatalf("last error = %q; want it to say what is wrong", task.LastError)
		}
		b.wantDocument("big", lson("1"))
		for i := range 5 {
			b.wantDocument(fmt.Sprint("small", i), lson("1"))
		}
		b.edited(r, "big", lson("2")) // the next event begins anew
		b.quiet()
		b.wantDocument("big", lson("2"))
	})
}

// A read soon after an event may show the state before it; the settle fetch
// puts that right, also if something else brings the next fetch forward.
func TestSettleFetch(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		for name, c := range map[string]struct {
			// hurry brings the next fetch forward.
			hurry func(b *bench, r *replica)
			// stale is how many fetches show the state before the last change.
			stale int
			want  string
		}{
			"undisturbed": {func(*bench, *replica) {}, 1, "2"},
			"request": {func(b *bench, r *replica) {
				if err := r.pool.Refresh(b.Context(), storageOf("r")); err != nil {
					b.Fatalf("Refresh = %v", err)
				}
			}, 2, "2"},
			"retry": {func(b *bench, r *replica) {
				if _, err := r.pool.Retry(b.Context(), storageOf("r")); err != nil {
					b.Fatalf("Retry = %v", err)
				}
			}, 2, "2"},
			"rebirth": {func(b *bench, r *replica) {
				if err := b.upstream.RecreateRoom("r", fake.RoomOptions{Storage: []byte(lson("3"))}); err != nil {
					b.Fatalf("RecreateRoom = %v", err)
				}
				b.deliver(r, event(fake.RoomDeleted, "r")) // raises the room, and that what is in it
			}, 2, "3"},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				b := newBench(t, e)
				// Longer than anything that is done here between two fetches.
				r := b.start(early, func(p *parts) { p.reconcile.Settle = 6 * time.Second })
				b.created(r, "r", lson("1"))
				before := b.calls("r")
				b.upstream.Script(fake.Match{Room: "r", Endpoint: fake.EndpointStorage}, fake.Stale(c.stale))
				b.edited(r, "r", lson("2"))
				b.eventually("the first fetch", func() bool {
					return b.calls("r") == before+1 && b.task(storageOf("r")).LeaseUntil.IsZero()
				})
				c.hurry(b, r)
				b.quiet()
				b.wantDocument("r", lson(c.want))
				if n := b.upstream.StepsLeft(); n != 0 {
					t.Fatalf("stale answers not served = %d; want 0, or the test proves nothing", n)
				}
			})
		}
	})
}

// What came in during a fetch is fetched again, settle fetch or not: the fetch
// caught up with the generation it was claimed for, and no more.
func TestEventDuringAFetchIsNotLost(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start(func(p *parts) { p.reconcile.Settle = 0 })
		b.created(r, "r", lson("1"))
		h := b.hold("r", fake.EndpointStorage)
		b.deliver(r, event(fake.StorageUpdated, "r"))
		b.arrived(h) // it has read the old state
		b.setStorage("r", lson("2"))
		b.deliver(nil, event(fake.StorageUpdated, "r")) // taken in by another replica
		h.Release()
		b.quiet()
		b.wantDocument("r", lson("2"))
	})
}

func TestNoSettleFetchWithZero(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start(func(p *parts) { p.reconcile.Settle = 0 })
		b.created(r, "r", lson("1"))
		before := b.calls("r")
		b.edited(r, "r", lson("2"))
		b.quiet()
		if n := b.calls("r") - before; n != 1 {
			t.Fatalf("fetches = %d; want 1", n)
		}
		b.wantDocument("r", lson("2"))
	})
}

// sessions lists what the other sessions of a database do: whether one waits for
// its client, the transaction it is in, and its last statement.
var sessions = map[*dbtest.Engine]struct {
	query string
	// every is how long a look stays the same, and sightings how many of a waiting
	// session with a transaction prove that it was open that long.
	every     time.Duration
	looks     int
	sightings int
}{
	dbtest.Postgres: {
		query: `select coalesce(state like 'idle%', false), case when state like 'idle in%' then pid::text else '' end, query
			from pg_stat_activity
			where datname = current_database() and pid <> pg_backend_pid() and application_name = 'liveblocks-mirror'`,
		looks: 200, sightings: 1,
	},
	// The list of transactions is made anew only when nobody has read it for 100 ms, and
	// not at the same instant as that of the sessions.
	dbtest.MySQL: {
		query: `select p.command = 'Sleep', coalesce(t.name, ''), coalesce(p.info, '')
			from {processlist} p left join {transactions} t on t.session_id = p.id
			where p.db = database() and p.id <> connection_id()`,
		every: 150 * time.Millisecond, looks: 10, sightings: 2,
	},
}

// Invariant 7, proven from the database's side: while an answer is awaited no
// session has a transaction open.
func TestNoTransactionIsOpenDuringACall(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		const lease = 1500 * time.Millisecond // a loaded machine renews it in time
		r := b.start(func(p *parts) { p.queue.LeaseTTL = lease })
		b.created(r, "r", lson("1"))
		db, how := e.Connect(t, b.url), sessions[e]
		how.query = db.OfServer(t, how.query)
		// Each event makes one resource stale, so nothing else is done meanwhile.
		for endpoint, kind := range map[fake.Endpoint]string{
			fake.EndpointRoom:    fake.RoomDeleted,
			fake.EndpointStorage: fake.StorageUpdated,
			fake.EndpointThread:  fake.CommentEdited,
			fake.EndpointInbox:   fake.NotificationSent,
		} {
			room := "r"
			ev := event(kind, room)
			switch kind {
			case fake.CommentEdited:
				ev.ThreadID = "th"
			case fake.NotificationSent:
				room = "" // a user's inbox is in no room
				ev.UserID, ev.InboxNotificationID = "u", "in"
			}
			// All calls are held: if the lease is lost all the same, the task makes another.
			h := fake.NewHold()
			b.Cleanup(h.Release)
			b.upstream.Script(fake.Match{Room: room, Endpoint: endpoint}, h.Step().Always())
			b.deliver(r, ev)
			b.arrived(h)
			looks, waiting, open := 0, 0, map[string]int{}
			next := time.Now()
			renewed := next.Add(lease) // three times
			b.eventually("looks enough, over several renewals", func() bool {
				if time.Now().Before(next) {
					return false
				}
				err := db.Each(t.Context(), how.query, func(scan func(dest ...any) error) error {
					var waits bool
					var transaction, query string
					if err := scan(&waits, &transaction, &query); err != nil || !waits {
						return err
					}
					waiting++
					if transaction == "" {
						return nil
					}
					if open[transaction]++; open[transaction] == how.sightings {
						t.Fatalf("a transaction is open during a call; its last statement: %s", query)
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				looks++
				next = time.Now().Add(how.every)
				return looks >= how.looks && next.After(renewed)
			})
			if waiting < looks {
				t.Fatalf("looks = %d, sessions that wait = %d; want the replica's sessions in each", looks, waiting)
			}
			h.Release()
			b.quiet()
		}
	})
}

// What was fetched from a room's earlier life never applies to a later one.
func TestFetchFromAnEarlierLife(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		for name, recreated := range map[string]bool{"deleted": false, "created anew": true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				b := newBench(t, e)
				r := b.start()
				b.created(r, "r", lson("first"))
				epoch := func() int64 {
					room, _ := b.room("r", true)
					return room.Epoch
				}
				first := epoch()
				h := b.hold("r", fake.EndpointStorage)
				b.edited(r, "r", lson("last words"))
				b.arrived(h)
				var next *fake.Hold
				if recreated {
					next = b.hold("r", fake.EndpointStorage)
					if err := b.upstream.RecreateRoom("r", fake.RoomOptions{Storage: []byte(lson("second"))}); err != nil {
						t.Fatalf("RecreateRoom = %v", err)
					}
					b.deliver(r, event(fake.RoomDeleted, "r"), event(fake.RoomCreated, "r"))
				} else {
					b.remove("r")
					b.deliver(r, event(fake.RoomDeleted, "r"))
				}
				b.eventually("the room's next epoch", func() bool { return epoch() > first })
				look := func() {
					if doc, ok := b.document("r"); ok {
						t.Fatalf("document = %s; want none before that of the room's present life is fetched", doc.Content)
					}
				}
				look()
				if recreated {
					h.Release()
					b.arrived(next) // the late answer has had its chance
					b.during(settle, look)
					next.Release()
					b.quiet()
					b.wantDocument("r", lson("second"))
				} else {
					h.Release()
					b.during(2*settle, look)
					b.quiet()
					b.wantTombstone("r")
				}
				b.wantState(storageOf("r"), mirror.TaskDone, "")
			})
		}
	})
}

// Invariant 6: a fetch whose lease was taken over changes nothing, however late
// it ends. The replica that is too late does not notice: it stood still.
func TestLateFetchChangesNothing(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		late := make(chan error, 1)
		frozen := b.start(func(p *parts) {
			p.queue.LeaseTTL = 300 * time.Millisecond
			p.queue.Tasks = unrenewed{p.queue.Tasks}
			p.wrap = func(handle queue.Handler) queue.Handler {
				return queue.Whole(func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
					var applied mirror.Applied
					apply, err := handle(context.WithoutCancel(ctx), lease)
					if err == nil {
						applied, err = apply(context.WithoutCancel(ctx), lease)
					}
					if lease.Resource.Kind == mirror.KindStorage {
						late <- err
					}
					return applied, err
				})
			}
			p.reconcile.Fetcher = b.client()
		})
		b.create("r", lson("old"))
		h := b.hold("r", fake.EndpointStorage)
		b.deliver(frozen, event(fake.RoomCreated, "r"))
		b.arrived(h)
		b.setStorage("r", lson("new"))
		other := b.start()
		b.deliver(other, event(fake.StorageUpdated, "r"))
		b.quiet() // the other one has taken over, and finished
		before := b.wantDocument("r", lson("new"))
		task := b.task(storageOf("r"))
		h.Release()
		select {
		case err := <-late:
			if !errors.Is(err, store.ErrLeaseLost) {
				t.Fatalf("late fetch ended with %v; want ErrLeaseLost", err)
			}
		case <-time.After(patience):
			t.Fatal("the late fetch did not end")
		}
		frozen.stop()
		if after := b.wantDocument("r", lson("new")); after.Freshness != before.Freshness {
			t.Fatalf("freshness = %+v; want as before, %+v", after.Freshness, before.Freshness)
		}
		if after := b.task(storageOf("r")); after != task {
			t.Fatalf("task = %+v; want as before, %+v", after, task)
		}
	})
}

// unrenewed is a database that a replica cannot reach to renew its leases.
type unrenewed struct{ store.Tasks }

func (unrenewed) Renew(context.Context, mirror.Lease, time.Time) error {
	return fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "the database is not available")
}

// While a lease lives nobody else fetches; when its holder is dead another
// replica finishes after the lease.
func TestReplicasShareTheWork(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		const ttl = 6 * time.Second // far above what a busy machine delays a renewal by
		b := newBench(t, e)
		short := func(p *parts) {
			p.queue.LeaseTTL, p.queue.BusyPoll, p.queue.SafetyPoll = ttl, 20*time.Millisecond, 20*time.Millisecond
		}
		first := b.start(short)
		b.created(first, "r", lson("1"))
		before := b.calls("r")
		h := b.hold("r", fake.EndpointStorage)
		b.edited(first, "r", lson("2"))
		b.arrived(h)
		second := b.start(short)
		b.during(ttl+ttl/2, func() {
			second.pool.Push([]mirror.Pending{{Resource: storageOf("r")}})
			if n := b.calls("r") - before; n != 1 {
				t.Fatalf("fetches while a lease lives = %d; want 1", n)
			}
		})
		b.setStorage("r", lson("3")) // nobody tells of it any more

		first.store.Close() // the first replica is cut off from its database
		until := b.task(storageOf("r")).LeaseUntil
		if !until.After(time.Now()) {
			t.Fatalf("lease until %v; want it to live still", until)
		}
		b.eventually("the other replica fetches", func() bool { return b.calls("r")-before > 1 })
		if began := b.beginnings("r")[before+1]; began.Before(until) {
			t.Fatalf("the other replica began %v before the lease ended", until.Sub(began))
		}
		b.quiet()
		b.wantDocument("r", lson("3"))
		h.Release()
		first.stop()
		b.wantDocument("r", lson("3"))
	})
}

// What one replica takes in while it is stopping is found by the next.
func TestWorkSurvivesARestart(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start(func(p *parts) { p.queue.StopGrace = 100 * time.Millisecond })
		b.created(r, "r", lson("1"))
		h := b.hold("r", fake.EndpointStorage)
		b.edited(r, "r", lson("2"))
		b.arrived(h)
		r.stop() // cuts the fetch off
		b.deliver(nil, event(fake.StorageUpdated, "r"))
		task := b.task(storageOf("r"))
		if task.Attempts != 0 || task.LeaseUntil.After(time.Now()) {
			t.Fatalf("task after the stop = %+v; want it given back, and no attempt burned", task)
		}
		b.start()
		b.quiet()
		b.wantDocument("r", lson("2"))
	})
}

// The queue of a version that knows fewer kinds leaves the others alone and goes on.
func TestUnknownKind(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start()
		b.created(r, "r", lson("1"))
		strange := mirror.Resource{Project: project, Room: "r", Kind: 77}
		sweep := mirror.Resource{Project: project, Kind: mirror.KindSweep} // nobody does it here
		for _, other := range []mirror.Resource{strange, sweep} {
			if _, err := r.pool.Request(t.Context(), []mirror.Resource{other}); err != nil {
				t.Fatalf("Request = %v", err)
			}
			b.wantState(other, mirror.TaskPending, "") // for a replica that does it
		}
		b.edited(r, "r", lson("2"))
		b.eventually("the document is there", func() bool { return b.task(storageOf("r")).State == mirror.TaskDone })
		b.wantDocument("r", lson("2"))
		for _, other := range []mirror.Resource{strange, sweep} {
			b.wantState(other, mirror.TaskPending, "")
		}
	})
}

// Every kind is served here, but for the sweep, which is another package's.
func TestHandlersServeEveryKind(t *testing.T) {
	t.Parallel()
	handlers := reconcile.New(reconcile.Config{}).Handlers()
	for _, kind := range mirror.Kinds() {
		if _, ok := handlers[kind]; ok == (kind == mirror.KindSweep) {
			t.Errorf("a handler for %s: %t", kind, ok)
		}
	}
}

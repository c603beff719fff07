package reconcile_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/dbtest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/decode/thread"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks/fake"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/storetest"
)

func threadOf(room, id string) mirror.Resource {
	return mirror.Resource{Project: project, Room: mirror.RoomID(room), Kind: mirror.KindThread, ID: id}
}

// must fails the test if a change at the fake does.
func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatalf("change = %v", err)
	}
}

// happens makes changes and returns the events they lead to.
func (b *bench) happens(change func()) []fake.Event {
	b.Helper()
	var mu sync.Mutex
	var events []fake.Event
	b.upstream.OnEvent(func(ev fake.Event) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, ev)
	})
	defer b.upstream.OnEvent(nil)
	change()
	return events
}

// told makes changes and delivers their events.
func (b *bench) told(r *replica, change func()) {
	b.Helper()
	b.deliver(r, b.happens(change)...)
}

// refresh fetches resources anew, as somebody who asks for them does.
func (b *bench) refresh(r *replica, resources ...mirror.Resource) {
	b.Helper()
	if err := r.pool.Refresh(b.Context(), resources...); err != nil {
		b.Fatalf("Refresh = %v; tasks: %s", err, b.tasks())
	}
}

// startThread creates a thread with one comment.
func (b *bench) startThread(room, id string) {
	b.Helper()
	_, err := b.upstream.CreateThread(room, fake.ThreadOptions{
		ID: id, Metadata: map[string]any{"x": 10, "color": "blue", "open": true}, Visibility: "public",
		Comment: fake.Comment{ID: "cm_1", UserID: "alice", Body: json.RawMessage(discussion)},
	})
	b.must(err)
}

// discussion is a body with everything a body may have.
const discussion = `{"version":1,"content":[{"type":"paragraph","children":[{"text":"Hello "},{"text":"world","bold":true},{"text":" "},` +
	`{"type":"mention","kind":"user","id":"bob"},{"text":" and "},{"type":"mention","kind":"group","id":"design","userIds":["u1","u2"]},` +
	`{"text":" see "},{"type":"link","url":"https://example.org","text":"this"}]}]}`

func (b *bench) thread(room, id string, deleted bool) (mirror.Thread, bool) {
	b.Helper()
	got, err := b.store.Thread(b.Context(), threadOf(room, id), deleted)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		b.Fatalf("Thread %q of %q = %v", id, room, err)
	}
	return got, err == nil
}

// wantThread checks that a thread is mirrored byte for byte, and that the rows
// of its comments are what the decoder says.
func (b *bench) wantThread(room, id string) mirror.Thread {
	b.Helper()
	source, there := b.upstream.ThreadSource(room, id)
	got, ok := b.thread(room, id, false)
	if !there || !ok || string(got.Source) != string(source) || got.Freshness.Stale ||
		!got.Freshness.DeleteTime.IsZero() || !got.Freshness.MissingSince.IsZero() {
		b.Fatalf("thread %q of %q = %.2000s, %+v, there: %v; want %.2000s; tasks: %s", id, room, got.Source, got.Freshness,
			ok, source, b.tasks())
	}
	want, err := thread.Parse(source)
	if err != nil {
		b.Fatalf("Parse = %v", err)
	}
	stored, err := b.store.StoredItem(b.Context(), threadOf(room, id))
	if err != nil {
		b.Fatalf("StoredItem = %v", err)
	}
	if what := store.Differs(store.ItemKindOf(threadOf(room, id)), store.ThreadItem(want), stored); what != "" {
		b.Fatalf("rows of thread %q of %q: %s; want those of its source", id, room, what)
	}
	if got.Resolved != want.Resolved || got.Visibility != want.Visibility || !got.UpdateTime.Equal(want.UpdateTime) ||
		got.DataProblem != want.DataProblem {
		b.Fatalf("thread = %+v; want %+v", got, want)
	}
	return got
}

// wantNoThread checks that a deleted thread shows as deleted, and to who does not
// ask for such, not at all.
func (b *bench) wantNoThread(room, id string) mirror.Thread {
	b.Helper()
	if got, ok := b.thread(room, id, false); ok {
		b.Fatalf("thread %q of %q = %+v; want it deleted; tasks: %s", id, room, got, b.tasks())
	}
	got, ok := b.thread(room, id, true)
	if !ok || got.Freshness.DeleteTime.IsZero() {
		b.Fatalf("thread %q of %q, deleted or not = %+v, there: %v; want its tombstone", id, room, got, ok)
	}
	comments, err := b.store.Comments(b.Context(), store.CommentFilter{
		Project: project, Room: mirror.RoomID(room),
		Thread: id, Limit: 10,
	})
	if err != nil || len(comments) > 0 {
		b.Fatalf("Comments = %d, %v; want none of a deleted thread", len(comments), err)
	}
	return got
}

// Everything that can happen to a thread, told by the events that Liveblocks
// sends of it, in both of the shapes that reactions have.
func TestThreads(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start()
		b.created(r, "r", lson("1"))
		const th = "th_1"
		b.told(r, func() { b.startThread("r", th) })
		b.quiet()
		got := b.wantThread("r", th)
		if got.CreateTime.IsZero() || string(got.Metadata) == "" {
			t.Fatalf("thread = %+v; want its typed fields", got)
		}
		for i, change := range []func() error{
			func() error { return b.upstream.EditComment("r", th, "cm_1", "edited 😀") },
			func() error {
				_, err := b.upstream.CreateComment("r", th, fake.Comment{
					ID: "cm_2", UserID: "bob", Text: "an answer", Metadata: map[string]any{"priority": 1},
					Attachments: []fake.Attachment{{ID: "at_1", Name: "plan.pdf", Size: 12345, MIMEType: "application/pdf"}},
				})
				return err
			},
			func() error { return b.upstream.AddReaction("r", th, "cm_1", "👍", "bob") },
			func() error { return b.upstream.AddReaction("r", th, "cm_1", "👍", "carol") },
			func() error { return b.upstream.AddReaction("r", th, "cm_2", "🎉", "carol") },
			func() error {
				b.upstream.SetFlatReactions(true)
				return b.upstream.AddReaction("r", th, "cm_2", "🎉", "dave")
			},
			func() error { return b.upstream.RemoveReaction("r", th, "cm_1", "👍", "bob") },
			func() error { return b.upstream.SetThreadMetadata("r", th, map[string]any{"x": 11.5}, "alice") },
			func() error {
				return b.upstream.SetCommentMetadata("r", th, "cm_2", map[string]any{"priority": "high"}, "alice")
			},
			func() error { return b.upstream.SetResolved("r", th, true, "alice") },
			func() error { return b.upstream.SetResolved("r", th, false, "alice") },
			func() error { return b.upstream.DeleteComment("r", th, "cm_2") },
		} {
			b.told(r, func() { b.must(change()) })
			b.eventually(fmt.Sprintf("change %d is mirrored", i), func() bool {
				source, _ := b.upstream.ThreadSource("r", th)
				got, _ := b.thread("r", th, false)
				return string(got.Source) == string(source)
			})
		}
		b.quiet()
		b.wantThread("r", th)

		before := b.upstream.Calls("r", fake.EndpointThread)
		b.told(r, func() { b.must(b.upstream.DeleteComment("r", th, "cm_1")) }) // the last one
		b.quiet()
		b.wantNoThread("r", th)
		if n := b.upstream.Calls("r", fake.EndpointThread) - before; n == 0 {
			t.Fatal("the thread was not asked for; want its 404")
		}
		b.wantState(threadOf("r", th), mirror.TaskDone, "")
	})
}

// Everything is exact, and what the database cannot hold leaves its column null
// and says why.
func TestOddThreads(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start()
		b.created(r, "r", lson("1"))
		const head = `{"type":"thread", "id":"%s","roomId":"r","createdAt":"2026-01-02T03:04:05.678Z","metadata":{"s":"%s","n":9007199254740993},` +
			`"comments":[{"id":"cm_1","userId":"u","createdAt":"2026-01-02T03:04:05.678Z","body":{"version":1,"content":[{"type":"paragraph","children":[{"text":"%s"}]}]}}]}`
		for _, c := range []struct{ id, metadata, text, problem string }{
			{"plain", "x", "y", ""},
			{"a/b ?#%ö", "", "", ""},
			{"nul", `\u0000`, `\u0000`, `\u0000`},
			{"surrogate", `\ud83d`, `a\ud83db`, "surrogate"},
			{"backslash", `\\u0000`, `\\u0000`, ""},
		} {
			b.startThread("r", c.id)
			b.must(b.upstream.SetThreadSource("r", c.id, fmt.Appendf(nil, head, c.id, c.metadata, c.text)))
			b.deliver(r, fake.Event{Type: fake.ThreadCreated, RoomID: "r", ThreadID: c.id, Time: time.Now()})
			b.quiet()
			got := b.wantThread("r", c.id)
			if !strings.Contains(got.DataProblem, c.problem) || (c.problem == "") != (got.DataProblem == "") {
				t.Errorf("thread %q: problem %q; want one of %q", c.id, got.DataProblem, c.problem)
			}
		}
	})
}

func TestThreadDeletedBeforeItsCreationIsTold(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start()
		b.created(r, "r", lson("1"))
		began := b.happens(func() { b.startThread("r", "th") })
		ended := b.happens(func() { b.must(b.upstream.DeleteThread("r", "th")) })
		b.deliver(r, ended...)
		b.quiet()
		b.deliver(r, began...)
		b.quiet()
		if got, ok := b.thread("r", "th", false); ok {
			t.Fatalf("thread = %+v; want none", got)
		}
		b.wantState(threadOf("r", "th"), mirror.TaskDone, "")

		b.startThread("r", "back") // one that was deleted may come back
		b.deliver(r, fake.Event{Type: fake.ThreadCreated, RoomID: "r", ThreadID: "back", Time: time.Now()})
		b.quiet()
		b.told(r, func() { b.must(b.upstream.DeleteThread("r", "back")) })
		b.quiet()
		b.wantNoThread("r", "back")
		b.told(r, func() { b.startThread("r", "back") })
		b.quiet()
		b.wantThread("r", "back")
	})
}

func TestFiveHundredComments(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start()
		b.created(r, "r", lson("1"))
		b.told(r, func() {
			b.startThread("r", "th")
			for i := range 499 {
				_, err := b.upstream.CreateComment("r", "th",
					fake.Comment{UserID: fmt.Sprint("user ", i%7), Text: fmt.Sprintf("comment %d", i)})
				b.must(err)
			}
		})
		b.quiet()
		b.wantThread("r", "th")
		db := e.Connect(t, b.url)
		if n, err := dbtest.Value[int](t.Context(), db,
			"select count(*) from mirror_comment where thread_id = 'th'"); err != nil || n != 500 {
			t.Fatalf("rows = %d, %v; want 500", n, err)
		}
		if n := b.upstream.Calls("r", fake.EndpointThread); n > 3 {
			t.Fatalf("fetches for a burst of 500 events = %d; want at most 3", n)
		}

		// One comment more and one less make the thread's rows anew, and leave nothing twice.
		b.told(r, func() {
			b.must(b.upstream.DeleteComment("r", "th", b.upstream.Comments("r", "th")[0]))
			_, err := b.upstream.CreateComment("r", "th", fake.Comment{UserID: "bob", Text: "one more"})
			b.must(err)
		})
		b.quiet()
		b.wantThread("r", "th")
		for where, want := range map[string]int{"": 501, " and delete_time is not null": 1} {
			if n, err := dbtest.Value[int](t.Context(), db,
				"select count(*) from mirror_comment where thread_id = 'th'"+where); err != nil || n != want {
				t.Fatalf("rows%s = %d, %v; want %d", where, n, err, want)
			}
		}
	})
}

// permutations calls f with every order of 0 to n-1.
func permutations(n int, f func([]int)) {
	var walk func(order, rest []int)
	walk = func(order, rest []int) {
		if len(rest) == 0 {
			f(slices.Clone(order))
			return
		}
		for i := range rest {
			walk(append(slices.Clip(order), rest[i]), slices.Delete(slices.Clone(rest), i, i+1))
		}
	}
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	walk(nil, all)
}

// The events of one burst in every order, each of them worked off before the
// next comes.
func TestBurstInEveryOrder(t *testing.T) {
	t.Parallel()
	for name, burst := range map[string]struct {
		before, change func(b *bench, th string)
		want           func(b *bench, th string)
	}{
		"written": {
			before: func(*bench, string) {},
			change: func(b *bench, th string) {
				b.startThread("r", th) // two events
				b.must(b.upstream.EditComment("r", th, "cm_1", "edited"))
				b.must(b.upstream.AddReaction("r", th, "cm_1", "👍", "bob"))
				b.must(b.upstream.SetResolved("r", th, true, "bob"))
			},
			want: func(b *bench, th string) { b.wantThread("r", th) },
		},
		"deleted": {
			before: func(b *bench, th string) { b.startThread("r", th) },
			change: func(b *bench, th string) {
				_, err := b.upstream.CreateComment("r", th, fake.Comment{ID: "cm_2"})
				b.must(err)
				b.must(b.upstream.DeleteComment("r", th, "cm_1"))
				b.must(b.upstream.DeleteComment("r", th, "cm_2")) // two events, one of the thread
			},
			want: func(b *bench, th string) { b.wantNoThread("r", th) },
		},
		"never seen": {
			before: func(*bench, string) {},
			change: func(b *bench, th string) {
				b.startThread("r", th) // two events
				b.must(b.upstream.EditComment("r", th, "cm_1", "edited"))
				b.must(b.upstream.AddReaction("r", th, "cm_1", "👍", "bob"))
				b.must(b.upstream.DeleteThread("r", th))
			},
			want: func(b *bench, th string) {
				if got, ok := b.thread("r", th, true); ok {
					b.Fatalf("thread %q, which was gone before its first fetch = %+v; want none", th, got)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
				b := newBench(t, e)
				r := b.start()
				b.created(r, "r", lson("1"))
				var threads []string
				var orders [][]int
				n := len(b.happens(func() { burst.before(b, "sample"); burst.change(b, "sample") })) - len(
					b.happens(func() { burst.before(b, "another") }))
				permutations(n, func(order []int) {
					orders = append(orders, order)
					threads = append(threads, fmt.Sprint("th ", order))
				})
				told := make([][]fake.Event, len(threads))
				for _, th := range threads {
					b.told(r, func() { burst.before(b, th) })
				}
				b.quiet()
				for i, th := range threads {
					if told[i] = b.happens(func() { burst.change(b, th) }); len(told[i]) != n {
						t.Fatalf("events = %d; want %d", len(told[i]), n)
					}
				}
				for step := range n {
					var batch []mirror.Delivery
					for i, order := range orders {
						batch = append(batch, b.delivery(fmt.Sprintf("msg_%d_%d", i, step), told[i][order[step]]))
					}
					answers, err := storetest.Accept(t.Context(), b.store, batch)
					if err != nil {
						t.Fatalf("Accept = %v", err)
					}
					var pending []mirror.Pending
					for _, a := range answers {
						for _, one := range a.Pending {
							if one.Resource.Kind == mirror.KindThread {
								pending = append(pending, one)
								r.pool.Push([]mirror.Pending{one})
							}
						}
					}
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					err = r.pool.Wait(ctx, pending)
					cancel()
					if err != nil || len(pending) != len(threads) {
						t.Fatalf("Wait for %d = %v; want all %d; tasks: %s", len(pending), err, len(threads), b.tasks())
					}
				}
				b.quiet()
				for _, th := range threads {
					burst.want(b, th)
				}
			})
		})
	}
}

// What no event told of is found by the list of a room's threads.
func TestListFindsWhatNoEventTold(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start()
		b.create("r", lson("1"))
		b.startThread("r", "old")
		b.deliver(r, event(fake.RoomCreated, "r")) // brings what is in it
		b.quiet()
		b.wantThread("r", "old")
		list := threadOf("r", "")

		b.startThread("r", "new")
		b.refresh(r, list)
		b.quiet()
		b.wantThread("r", "new")
		if n := b.upstream.Calls("r", fake.EndpointThread); n != 0 {
			t.Fatalf("fetches of single threads = %d; want none for those the list brought", n)
		}

		b.must(b.upstream.EditComment("r", "old", "cm_1", "edited"))
		b.refresh(r, list)
		b.quiet()
		b.wantThread("r", "old")

		b.must(b.upstream.DeleteThread("r", "new"))
		b.refresh(r, list)
		b.quiet()
		b.wantNoThread("r", "new")
		b.wantThread("r", "old")

		// What is as the list says costs nothing.
		before := b.upstream.Calls("r", fake.EndpointThread)
		b.refresh(r, list)
		b.quiet()
		if n := b.upstream.Calls("r", fake.EndpointThread) - before; n != 0 {
			t.Fatalf("fetches of threads that are as listed = %d; want 0", n)
		}
	})
}

// A list that lacks a thread is no proof, nor is a 404 without a word of deletion.
func TestThreadsAreNotDeletedLightly(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start(func(p *parts) { p.queue.Policy.MaxAttempts = 2 })
		b.created(r, "r", lson("1"))
		b.told(r, func() { b.startThread("r", "th"); b.startThread("r", "other") })
		b.quiet()
		wantBoth := func() {
			t.Helper()
			for _, th := range []string{"th", "other"} {
				if got, ok := b.thread("r", th, false); !ok || !got.Freshness.DeleteTime.IsZero() {
					t.Fatalf("thread %q = %+v, there: %v; want it", th, got, ok)
				}
			}
		}
		list, th := threadOf("r", ""), threadOf("r", "th")
		inList := fake.Match{Room: "r", Endpoint: fake.EndpointThreads}
		inThread := fake.Match{Room: "r", Thread: "th"}

		// An empty list, half a list, and one of something else.
		for _, body := range []string{`{"data":[]}`, `{"data":[{"id":"other"}]}`} {
			b.upstream.Script(inList, fake.Answer(http.StatusOK, "application/json", []byte(body)))
			b.refresh(r, list)
			b.quiet()
			wantBoth()
			b.wantThread("r", "th") // its own fetch has cleared it
		}
		for name, step := range map[string]fake.Step{
			"half":        fake.Truncate(),
			"no list":     fake.Answer(http.StatusOK, "application/json", []byte(`{}`)),
			"foreign 404": fake.Status(http.StatusNotFound, "NOT_FOUND"),
			"other 404":   fake.Status(http.StatusNotFound, "RESOURCE_NOT_FOUND"),
			"room 404":    fake.Status(http.StatusNotFound, "ROOM_NOT_FOUND"), // while the room is there
			"500":         fake.Status(http.StatusInternalServerError, "INTERNAL_ERROR"),
		} {
			b.upstream.Script(inList, step.Times(2))
			if err := r.pool.Refresh(t.Context(), list); !fault.Is(err, fault.ReasonRefreshFailed) {
				t.Fatalf("Refresh of a list that is %s = %v; want REFRESH_FAILED", name, err)
			}
			b.quiet()
			wantBoth()
			b.upstream.ClearScripts()
			b.refresh(r, list)
		}

		// 404s of the thread itself: a foreign one fails, the right one is noted.
		b.upstream.Script(inThread, fake.Status(http.StatusNotFound, "NOT_FOUND").Times(2))
		if err := r.pool.Refresh(t.Context(), th); !fault.Is(err, fault.ReasonRefreshFailed) {
			t.Fatalf("Refresh = %v; want REFRESH_FAILED", err)
		}
		wantBoth()
		b.wantState(th, mirror.TaskFailed, string(fault.ReasonUpstreamNotFound))
		b.must(b.upstream.DeleteThread("r", "th")) // no event tells of it
		b.refresh(r, th)
		b.quiet()
		got, ok := b.thread("r", "th", false)
		if !ok || got.Freshness.MissingSince.IsZero() || !got.Freshness.DeleteTime.IsZero() {
			t.Fatalf("thread = %+v, there: %v; want it there, and missing", got.Freshness, ok)
		}
		b.refresh(r, list) // the list lacks it too, so its next 404 is believed
		b.quiet()
		b.wantNoThread("r", "th")
		b.wantThread("r", "other")
	})
}

// A read soon after an event may show the thread before it.
func TestThreadReadTooEarly(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start(early)
		b.created(r, "r", lson("1"))
		stale := func(th string) {
			b.upstream.Script(fake.Match{Room: "r", Thread: th}, fake.Stale(1))
		}
		stale("th") // not there yet
		b.told(r, func() { b.startThread("r", "th") })
		b.quiet()
		b.wantThread("r", "th")
		stale("th")
		b.told(r, func() { b.must(b.upstream.AddReaction("r", "th", "cm_1", "👍", "bob")) })
		b.quiet()
		b.wantThread("r", "th")
		stale("th") // there still
		b.told(r, func() { b.must(b.upstream.DeleteThread("r", "th")) })
		b.quiet()
		b.wantNoThread("r", "th")
		if n := b.upstream.StepsLeft(); n != 0 {
			t.Fatalf("stale answers not served = %d; want 0, or the test proves nothing", n)
		}
	})
}

// What was in a room's earlier life does not show in a later one.
func TestThreadsOfAnEarlierLife(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start()
		b.created(r, "r", lson("1"))
		b.told(r, func() { b.startThread("r", "th"); b.startThread("r", "both") })
		b.quiet()
		h := fake.NewHold()
		b.Cleanup(h.Release)
		b.upstream.Script(fake.Match{Room: "r", Thread: "th"}, h.Step())
		b.told(r, func() { b.must(b.upstream.EditComment("r", "th", "cm_1", "last words")) })
		b.arrived(h)
		b.must(b.upstream.RecreateRoom("r", fake.RoomOptions{Storage: []byte(lson("2"))}))
		b.startThread("r", "both")
		b.must(b.upstream.EditComment("r", "both", "cm_1", "in the second life"))
		b.deliver(r, event(fake.RoomDeleted, "r"), event(fake.RoomCreated, "r"))
		b.eventually("the room's next epoch", func() bool {
			room, _ := b.room("r", true)
			return room.Epoch > 1
		})
		h.Release()
		b.quiet()
		b.wantDocument("r", lson("2"))
		b.wantThread("r", "both")
		if got, ok := b.thread("r", "th", false); ok {
			t.Fatalf("thread of the earlier life = %+v; want none", got)
		}
		list, err := b.store.Threads(t.Context(), store.ThreadFilter{Project: project, Room: "r", Limit: 10})
		if err != nil || len(list) != 1 {
			t.Fatalf("Threads = %+v, %v; want the one of the later life", list, err)
		}

		b.remove("r")
		b.deliver(r, event(fake.RoomDeleted, "r"))
		b.quiet()
		b.wantTombstone("r")
		if _, ok := b.thread("r", "both", false); ok {
			t.Fatal("a thread shows in a deleted room")
		}
	})
}

// A thread of a room that nobody heard of brings the room first.
func TestThreadOfAnUnknownRoom(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, e *dbtest.Engine) {
		b := newBench(t, e)
		r := b.start()
		b.create("r", lson("1"))
		b.told(r, func() { b.startThread("r", "th") })
		b.quiet()
		b.wantThread("r", "th")
		b.wantDocument("r", lson("1"))
		b.deliver(r, fake.Event{Type: fake.ThreadCreated, RoomID: "nowhere", ThreadID: "th", Time: time.Now()})
		b.quiet()
		if n := b.upstream.Calls("nowhere", fake.EndpointThread); n > 1 {
			t.Fatalf("fetches of a thread without a room = %d; want at most that beside the room's", n)
		}
	})
}

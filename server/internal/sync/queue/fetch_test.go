package queue

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

func kindOf(kind mirror.Kind, room mirror.RoomID) mirror.Resource {
	r := mirror.Resource{Project: project, Room: room, Kind: kind}
	if kind == mirror.KindNotification {
		r.ID = "in_1"
	}
	return r
}

// While Liveblocks cannot be called, what needs no call goes on, and of what needs one
// later the first part. Neither spends a turn.
func TestWorkWithoutCallsNeedsNoTurn(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		sessions, inbox := kindOf(mirror.KindUserSessions, "r"), kindOf(mirror.KindNotification, "r")
		unfolded, called := 1, 0
		handler := func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			if lease.Resource != inbox {
				return b.tasks.apply(ctx, lease)
			}
			if mayCall(ctx) {
				called++
				return b.tasks.apply(ctx, lease)
			}
			if unfolded == 0 {
				return mirror.Applied{}, fault.New(fault.Busy, fault.ReasonUpstreamRateLimited, "no turn")
			}
			unfolded = 0
			b.tasks.mu.Lock()
			defer b.tasks.mu.Unlock()
			return b.tasks.write(lease, func(s store.State) store.State { return s.Unfinished(time.Now()) })
		}
		b.limiter.close()
		pool, _ := b.start(handler, nil)
		b.due(pool, resource(0), sessions, inbox)
		b.wantDone(sessions)
		pass(time.Hour)
		if unfolded != 0 || called != 0 {
			b.Fatalf("events of the notification unfolded = %d, calls = %d; want none", unfolded, called)
		}
		if runs := b.wantRuns(2); runs[0].resource != sessions || runs[1].resource != inbox {
			b.Fatalf("runs = %v; want each once", runs)
		}
		b.limiter.open()
		b.wantDone(resource(0), inbox)
		if b.limiter.passed != 2 || called != 1 {
			b.Fatalf("turns taken = %d, calls = %d; want one for each that calls", b.limiter.passed, called)
		}
	})
}

// What needs no call is not hidden in the database behind what does.
func TestWorkWithoutCallsIsFoundWhileTheLimiterIsClosed(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		b.tasks.raise(time.Now(), resources(scanLimit+100)...)
		pass(time.Second)
		sessions := kindOf(mirror.KindUserSessions, "r")
		b.tasks.raise(time.Now(), sessions)
		b.limiter.close()
		b.start(nil, nil)
		pass(safetyPoll + time.Second)
		b.wantDone(sessions)
		b.wantRuns(1)
		b.limiter.open()
	})
}

// A turn that a task has not used goes to the next one.
func TestUnusedTurnIsPassedOn(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		b.tasks.epoch = 0
		pool, _ := b.start(nil, func(c *Config) { c.Fetches = 1 })
		b.due(pool, resources(5)...) // which are parked
		synctest.Wait()
		b.due(pool, kindOf(mirror.KindRoom, "r"))
		b.wantRuns(1)
		if b.limiter.passed != 1 {
			b.Fatalf("turns taken for one call = %d; want 1", b.limiter.passed)
		}
	})
}

// Slow answers occupy no worker, so neither what needs no call nor other fetches wait
// for them.
func TestSlowFetchesHoldNoWorker(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		h := newHeld(b.tasks)
		handler := func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			if lease.Resource.Kind == mirror.KindStorage {
				return h.do(ctx, lease)
			}
			return b.tasks.apply(ctx, lease)
		}
		pool, _ := b.start(handler, func(c *Config) { c.Workers, c.Fetches = 1, 20 })
		begun := time.Now()
		b.due(pool, resources(19)...)
		b.due(pool, kindOf(mirror.KindUserSessions, "r"), kindOf(mirror.KindRoom, "r"))
		b.wantDone(kindOf(mirror.KindUserSessions, "r"), kindOf(mirror.KindRoom, "r"))
		if now, _ := h.running(); now != 19 || time.Since(begun) != 0 {
			b.Fatalf("slow fetches = %d after %v; want all, and nothing behind them", now, time.Since(begun))
		}
		close(h.release)
		b.wantDone(resources(19)...)
	})
}

// One room that is slow, or has much in it, leaves the fetches to the others.
func TestRoomHasAShareOfTheFetches(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		h := newHeld(b.tasks)
		handler := func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			if lease.Resource.Room == "slow" {
				return h.do(ctx, lease)
			}
			return b.tasks.apply(ctx, lease)
		}
		var slow []mirror.Resource
		for i := range 100 {
			slow = append(slow, mirror.Resource{
				Project: project, Room: "slow", Kind: mirror.KindYdoc, ID: fmt.Sprintf("guid-%d", i),
			})
		}
		pool, _ := b.start(handler, func(c *Config) { c.Fetches = 64 })
		b.due(pool, slow...)
		synctest.Wait()
		b.due(pool, resources(50)...)
		b.wantDone(resources(50)...)
		if _, most := h.running(); most != 64/roomShare {
			b.Fatalf("fetches of the slow room = %d; want its share, %d", most, 64/roomShare)
		}
		close(h.release)
		b.wantDone(slow...)
		if _, most := h.running(); most != 64/roomShare {
			b.Fatalf("fetches of the slow room = %d; want never more than its share, %d", most, 64/roomShare)
		}
	})
}

// However much comes in here, what is due in the database alone is found, and what is
// due first goes first.
func TestDueInTheDatabaseIsFoundUnderLoad(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		pool, _ := b.start(b.taking(20*time.Millisecond), func(c *Config) { c.Workers, c.Fetches = 1, 1 })
		var left time.Time
		other := resource(99_999)
		for i := range 1000 { // twice as much as can be done
			b.due(pool, resource(i))
			if i == 300 {
				left = time.Now()
				b.tasks.raise(left, other) // a replica that died has left it
			}
			pass(10 * time.Millisecond)
		}
		pass(time.Minute)
		begun := left.Add(b.begun(left, other))
		if after := begun.Sub(left); after > 2*busyPoll {
			b.Fatalf("begun %v after it was left; want within two busy polls, %v", after, 2*busyPoll)
		}
		// It was due in its turn, or found at most a busy poll later.
		later := resources(1000)[300+int(busyPoll/(10*time.Millisecond)):]
		for _, run := range b.attempts() {
			if run.at.Before(begun) && slices.Contains(later, run.resource) {
				b.Fatalf("%v was begun before what was due long before it", run.resource)
			}
		}
		b.wantDone(resources(1000)...)
	})
}

// A room that changes all the time waits in its turn like any other.
func TestHotResourcesStarveNobody(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		pool, _ := b.start(b.taking(20*time.Millisecond), func(c *Config) { c.Workers, c.Fetches = 1, 1 })
		hot, cold := resources(20), resource(100)
		var raised time.Time
		for i := range 1000 {
			b.due(pool, hot[i%len(hot)])
			if i == 500 {
				raised = time.Now()
				b.due(pool, cold)
			}
			pass(5 * time.Millisecond)
		}
		// Each of the others once, and the task under way.
		if after := b.begun(raised, cold); after > 21*20*time.Millisecond {
			b.Fatalf("begun %v after it was raised; want each of the others at most once before", after)
		}
		pass(time.Minute)
		b.wantDone(append(hot, cold)...)
	})
}

// What a restart finds in the database goes in the order in which it became due,
// among what comes in.
func TestEarliestDueGoesFirst(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		for i := range 3 * scanLimit {
			b.tasks.raise(time.Now(), resource(i))
			pass(time.Millisecond)
		}
		pool, _ := b.start(b.taking(time.Millisecond), func(c *Config) { c.Workers, c.Fetches = 1, 1 })
		synctest.Wait() // it has looked
		b.due(pool, resource(9999))
		pass(time.Minute)
		runs := b.wantRuns(3*scanLimit + 1)
		at := slices.IndexFunc(runs, func(a attempt) bool { return a.resource == resource(9999) })
		if at < 3*scanLimit {
			b.Fatalf("what came last was the task %d of %d; want it last", at, len(runs))
		}
	})
}

// The background gets on even if there is always something urgent.
func TestBackgroundIsNotStarved(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		b.background(resource(5000))
		pool, _ := b.start(b.taking(20*time.Millisecond), func(c *Config) { c.Workers, c.Fetches = 1, 1 })
		begun := time.Now()
		b.due(pool, resources(1000)...)
		pass(time.Minute)
		if after := b.begun(begun, resource(5000)); after > time.Second {
			b.Fatalf("begun after %v; want it among what is urgent", after)
		}
	})
}

// What a task makes due goes in front of what became due after the task.
func TestChildrenOfANewRoomGoInFront(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		room, child := kindOf(mirror.KindRoom, "r"), kindOf(mirror.KindStorage, "r")
		handler := func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			applied, err := b.taking(time.Second)(ctx, lease)
			if lease.Resource == room {
				b.tasks.raise(time.Now(), child)
				applied.AlsoDue = []mirror.Resource{child}
			}
			return applied, err
		}
		pool, _ := b.start(handler, func(c *Config) { c.Workers, c.Fetches = 1, 1 })
		b.due(pool, room)
		pass(time.Millisecond)
		b.due(pool, resources(10)...)
		pass(time.Minute)
		if runs := b.wantRuns(12); runs[1].resource != child {
			b.Fatalf("second run = %v; want the child of the room", runs[1].resource)
		}
	})
}

// A child whose room is being fetched here is fetched beside it, and applied after it.
func TestChildIsFetchedWithItsRoom(t *testing.T) {
	t.Parallel()
	for name, member := range map[string]bool{"same incarnation": true, "perhaps another": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(b *bench) {
				b.tasks.epoch = 0
				room, child := kindOf(mirror.KindRoom, "r"), kindOf(mirror.KindStorage, "r")
				var log []string
				fetch := func(_ context.Context, lease mirror.Lease) (Apply, error) {
					answer := time.NewTimer(50 * time.Millisecond)
					<-answer.C
					return func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
						log = append(log, fmt.Sprintf("%s in %d, joined by %d", lease.Resource.Kind, lease.Epoch, len(lease.Joined)))
						applied, err := b.tasks.apply(ctx, lease)
						if lease.Resource == room {
							b.tasks.mu.Lock()
							b.tasks.epoch = 7
							b.tasks.mu.Unlock()
							if applied.Epoch = 7; member {
								applied.Joined = []mirror.Resource{lease.Joined[0].Resource}
							}
						}
						return applied, err
					}, nil
				}
				pool := New(b.config(nil))
				ctx, cancel := context.WithCancel(b.Context())
				done := make(chan error, 1)
				go func() { // received below
					done <- pool.Run(ctx, map[mirror.Kind]Handler{mirror.KindRoom: fetch, mirror.KindStorage: fetch})
				}()
				begun := time.Now()
				b.due(pool, child, room)
				if member {
					pass(50 * time.Millisecond)
				} else {
					pass(50 * time.Millisecond)
					b.tasks.mu.Lock()
					s := b.tasks.states[child] // the store leaves it due, since the room lives
					s.Due = time.Now()
					b.tasks.states[child] = s
					b.tasks.mu.Unlock()
					pool.Push(marked(child))
					pass(50 * time.Millisecond)
				}
				b.wantDone(room, child)
				want := []string{"room in 0, joined by 1", "storage in 7, joined by 0"}
				if !slices.Equal(log, want) {
					b.Fatalf("applied after %v: %q; want %q", time.Since(begun), log, want)
				}
				if n := b.tasks.count("Park"); (n == 0) != member {
					b.Fatalf("parked = %d", n)
				}
				cancel()
				if err := <-done; err != nil {
					b.Fatalf("Run = %v", err)
				}
			})
		})
	}
}

// Children that wait for their rooms leave places among the fetches to other rooms.
func TestJoinedChildrenLeaveFetchesToRooms(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		b.tasks.epoch = 0
		h := newHeld(b.tasks)
		fetching := make(map[mirror.Kind]int)
		handler := func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			b.mu.Lock()
			fetching[lease.Resource.Kind]++
			b.mu.Unlock()
			if lease.Resource.Kind != mirror.KindRoom {
				return mirror.Applied{}, nil // fetched, and now it waits
			}
			return h.do(ctx, lease)
		}
		pool, stop := b.start(handler, func(c *Config) { c.Fetches = 8 })
		for i := range 4 {
			room := mirror.RoomID(fmt.Sprint("room ", i))
			b.due(pool, kindOf(mirror.KindRoom, room), kindOf(mirror.KindStorage, room), kindOf(mirror.KindYdoc, room))
			pass(time.Second) // the next room is due after these
		}
		b.mu.Lock()
		rooms, children := fetching[mirror.KindRoom], fetching[mirror.KindStorage]+fetching[mirror.KindYdoc]
		b.mu.Unlock()
		if rooms != 4 || children != 4 {
			b.Fatalf("%d rooms and %d children are fetched; want 4 of each", rooms, children)
		}
		close(h.release)
		stop()
		if pool.joined != 0 {
			b.Fatalf("%d children count as waiting after all has ended", pool.joined)
		}
	})
}

// After three deaths of the process a task runs while nothing else does, and after
// one more it fails.
func TestTaskThatKillsTheProcessRunsAlone(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		suspect, running := resource(0), 0
		handler := func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			b.mu.Lock()
			running++
			if running > 1 && lease.Resource == suspect {
				b.Errorf("%d tasks run beside the suspect", running-1)
			}
			b.mu.Unlock()
			defer func() {
				b.mu.Lock()
				defer b.mu.Unlock()
				running--
			}()
			return b.taking(time.Second)(ctx, lease)
		}
		dead := func(n int) {
			b.tasks.raise(time.Now(), suspect)
			b.tasks.mu.Lock()
			defer b.tasks.mu.Unlock()
			s := b.tasks.states[suspect]
			s.LeaseToken, s.LeaseUntil, s.Deaths = [16]byte{9}, time.Now(), n-1
			b.tasks.states[suspect] = s
		}
		dead(store.MaxDeaths + store.MaxDeathsAlone - 1)
		pool, _ := b.start(handler, nil)
		b.due(pool, resources(30)...)
		pass(time.Minute)
		b.wantDone(resources(30)...)
		if s := b.tasks.state(suspect); s.Deaths != 0 {
			b.Fatalf("state = %+v; want its deaths forgotten", s)
		}
		runs := len(b.attempts())
		dead(store.MaxDeaths + store.MaxDeathsAlone)
		b.due(pool, suspect)
		pass(time.Minute)
		b.wantRuns(runs)
		s := b.tasks.state(suspect)
		if s.TaskState(time.Now()) != mirror.TaskFailed || s.LastError == "" {
			b.Fatalf("state = %+v; want it failed, and why", s)
		}
		b.due(pool, suspect) // the next event does not kill the process again
		pass(time.Minute)
		b.wantRuns(runs)
		// An operator may try again.
		if _, err := pool.Retry(b.Context(), suspect); err != nil {
			b.Fatalf("Retry = %v", err)
		}
		pass(time.Minute)
		b.wantRuns(runs + 1)
		b.wantDone(suspect)
	})
}

package queue

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// roomsOf returns resources of another project, with the same rooms.
func roomsOf(project mirror.ProjectID, n int) []mirror.Resource {
	out := resources(n)
	for i := range out {
		out[i].Project = project
	}
	return out
}

// startOf runs the pool of a project.
func (b *bench) startOf(shared *Shared, id mirror.ProjectID, handler Handler, change func(*Config)) *Pool {
	b.Helper()
	pool := New(b.config(func(c *Config) {
		c.Project, c.Shared, c.Limiter = id, shared, &door{}
		if change != nil {
			change(c)
		}
	}))
	handlers := make(map[mirror.Kind]Handler)
	for _, kind := range mirror.Kinds() {
		handlers[kind] = handler
	}
	b.run(pool, handlers)
	return pool
}

// fetching returns a handler that fetches with one function, and applies at once.
func (b *bench) fetching(do Apply) Handler { return b.recorded(do) }

// applying returns a handler that fetches at once, and applies with one function.
func applying(do Apply) Handler {
	return func(ctx context.Context, _ mirror.Lease) (Apply, error) {
		called(ctx)
		return do, nil
	}
}

// A project whose calls hang holds half of the fetches. The others fetch as they would
// without it.
func TestHangingProjectLeavesFetchesToOthers(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		shared, hangs := new(Shared), newHeld(b.tasks)
		limits := func(c *Config) { c.Workers, c.Fetches = 2, 64 }
		a := b.startOf(shared, "a", b.fetching(hangs.do), limits)
		other := newHeld(b.tasks)
		c := b.startOf(shared, "c", b.fetching(other.do), limits)
		b.due(a, roomsOf("a", 200)...)
		pass(time.Minute)
		if now, most := hangs.running(); now != 32 || most != 32 {
			b.Fatalf("fetches of the project that hangs = %d, at most %d; want half of 64", now, most)
		}
		begin := time.Now()
		b.due(c, roomsOf("c", 16)...)
		synctest.Wait()
		if now, _ := other.running(); now != 16 || !time.Now().Equal(begin) {
			b.Fatalf("fetches of the other project = %d; want all 16 at once", now)
		}
		close(other.release)
		b.wantDone(roomsOf("c", 16)...)
		close(hangs.release)
		b.wantDone(roomsOf("a", 200)...)
	})
}

// However many projects hang, each of the others has a place.
func TestEveryProjectHasAPlace(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		shared, hangs := new(Shared), newHeld(b.tasks)
		limits := func(c *Config) { c.Workers, c.Fetches = 1, 4 }
		for _, id := range []mirror.ProjectID{"a", "b", "c", "d", "e", "f"} {
			b.due(b.startOf(shared, id, b.fetching(hangs.do), limits), roomsOf(id, 20)...)
			synctest.Wait()
		}
		last := b.startOf(shared, "z", b.fetching(b.tasks.apply), limits)
		b.due(last, roomsOf("z", 20)...)
		b.wantDone(roomsOf("z", 20)...)
		close(hangs.release)
	})
}

// Workers go in turns to the projects that wait for one, however much one has to do.
func TestWorkersGoInTurnsToProjects(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		shared := new(Shared)
		slow := func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			time.Sleep(time.Second) //nolint:forbidigo // the bubble's clock, which jumps
			return b.tasks.apply(ctx, lease)
		}
		limits := func(c *Config) { c.Workers, c.Fetches = 4, 400 }
		a := b.startOf(shared, "a", applying(slow), limits)
		c := b.startOf(shared, "c", applying(slow), limits)
		b.due(a, roomsOf("a", 400)...)
		pass(10*time.Second + time.Second/2) // 40 are done
		b.due(c, roomsOf("c", 20)...)
		pass(20 * time.Second) // 80 more, of which each has half; the first of the other's needs no free worker
		done := 0
		for _, r := range roomsOf("c", 20) {
			if b.tasks.state(r).Applied > 0 {
				done++
			}
		}
		if done != 20 {
			b.Fatalf("tasks of the second project that are done = %d of 20; want its half of the workers", done)
		}
		pass(time.Hour)
		b.wantDone(roomsOf("a", 400)...)
	})
}

// One that cannot call Liveblocks takes no place from the others, nor a turn.
func TestPausedProjectTakesNothing(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		shared, closed := new(Shared), &door{}
		closed.close()
		a := b.startOf(shared, "a", b.fetching(nil), func(c *Config) { c.Limiter, c.Workers, c.Fetches = closed, 2, 8 })
		slow := newHeld(b.tasks)
		c := b.startOf(shared, "c", b.fetching(slow.do), func(c *Config) { c.Workers, c.Fetches = 2, 8 })
		b.due(a, roomsOf("a", 100)...)
		synctest.Wait()
		b.due(c, roomsOf("c", 100)...)
		pass(time.Minute)
		if now, _ := slow.running(); now != 4 {
			b.Fatalf("fetches beside a paused project = %d; want half of 8", now)
		}
		close(slow.release)
		b.wantDone(roomsOf("c", 100)...)
		closed.open()
		b.wantDone(roomsOf("a", 100)...)
	})
}

// A task that is to run while nothing else does waits for the tasks of all projects, and
// they wait for it.
func TestAloneAmongAllProjects(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		shared, before := new(Shared), newHeld(b.tasks)
		c := b.startOf(shared, "c", b.fetching(before.do), nil)
		b.due(c, roomsOf("c", 3)...)
		synctest.Wait()
		var beside []int
		a := b.startOf(shared, "a", b.fetching(func(ctx context.Context, lease mirror.Lease) (mirror.Applied, error) {
			shared.mu.Lock()
			beside = append(beside, shared.workers.used+shared.fetches.used)
			shared.mu.Unlock()
			time.Sleep(time.Second) //nolint:forbidigo // the bubble's clock, which jumps
			return b.tasks.apply(ctx, lease)
		}), nil)
		r := roomsOf("a", 1)[0]
		b.tasks.raise(time.Now(), r)
		b.tasks.mu.Lock()
		s := b.tasks.states[r]
		s.LeaseToken, s.LeaseUntil, s.Deaths = [16]byte{9}, time.Now(), store.MaxDeaths-1
		b.tasks.states[r] = s
		b.tasks.mu.Unlock()
		a.Push(marked(r))
		pass(time.Second)
		if len(beside) != 0 {
			b.Fatal("the task began beside those of another project")
		}
		b.due(c, roomsOf("c", 20)...)
		pass(time.Second)
		if now, _ := before.running(); now != 3 {
			b.Fatalf("tasks of the other project = %d; want none to begin", now)
		}
		close(before.release)
		pass(time.Minute)
		b.wantDone(append(roomsOf("c", 20), r)...)
		if !slices.Equal(beside, []int{1}) { // its own place among the fetches; it has given back its worker
			b.Fatalf("places taken while it ran = %v; want its own", beside)
		}
	})
}

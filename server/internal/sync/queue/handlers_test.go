package queue

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
)

// What needs its room is not fetched before the room is mirrored, nor once it is
// gone; what does not need it is.
func TestRoomFirst(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		b.tasks.epoch = 0 // no room is mirrored
		var needy, free []mirror.Resource
		for _, kind := range mirror.Kinds() {
			r := mirror.Resource{Project: project, Room: "r", Kind: kind}
			switch {
			case kind == mirror.KindRoom: // nobody fetches it here
			case kind.Traits().NeedsRoom:
				needy = append(needy, r)
			default:
				free = append(free, r)
			}
		}
		pool, _ := b.start(nil, nil)
		b.due(pool, append(needy, free...)...)
		b.wantDone(free...)
		synctest.Wait()
		if n := b.tasks.count("Park"); n != len(needy) {
			b.Fatalf("parked = %d; want %d", n, len(needy))
		}
		b.wantRuns(len(free))
	})
}

// A kind that nobody serves, as one of a later version, is left to a replica that
// does.
func TestUnservedKind(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		unserved := mirror.Resource{Project: project, Room: "r", Kind: 99}
		pool, _ := b.start(nil, nil)
		b.due(pool, unserved, resource(0))
		b.wantDone(resource(0))
		pass(time.Hour)
		if s := b.tasks.state(unserved); s.TaskState(time.Now()) != mirror.TaskPending || s.LastError != "" {
			b.Fatalf("state = %+v; want it left alone", s)
		}
		if n := b.tasks.count("Claim"); n != 1 {
			b.Fatalf("claims = %d; want one", n)
		}
	})
}

// Run takes the handlers, so what is pushed before it waits.
func TestPushBeforeRun(t *testing.T) {
	t.Parallel()
	bubble(t, func(b *bench) {
		pool := New(b.config(nil))
		b.tasks.raise(time.Now(), resource(0))
		pool.Push(marked(resource(0)))
		pass(time.Minute)
		b.wantRuns(0)
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error, 1)
		go func() { done <- pool.Run(ctx, b.handlers(nil)) }() // received below
		b.wantDone(resource(0))
		cancel()
		if err := <-done; err != nil {
			b.Fatalf("Run = %v", err)
		}
	})
}

package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
)

// slowDatabase answers each key with its double, when it is told to.
type slowDatabase struct {
	begun   chan []int
	release chan struct{}
}

func newSlowDatabase() *slowDatabase {
	return &slowDatabase{begun: make(chan []int, 100), release: make(chan struct{})}
}

func (d *slowDatabase) ask(ctx context.Context, keys []int) ([]int, error) {
	d.begun <- slices.Clone(keys)
	select {
	case <-d.release:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	values := make([]int, len(keys))
	for i, k := range keys {
		switch {
		case k < 0:
			return nil, errors.New("no such number")
		case k == 13:
			panic("unlucky")
		}
		values[i] = 2 * k
	}
	return values, nil
}

// waitFor waits until n calls wait in g.
func waitFor(t *testing.T, g *gatherer[int, int], n int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		g.mu.Lock()
		waiting := len(g.waiting)
		g.mu.Unlock()
		if waiting == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d calls wait; want %d", waiting, n)
		}
		<-time.After(time.Millisecond)
	}
}

func TestGathererAsksForManyAtOnce(t *testing.T) {
	t.Parallel()
	d := newSlowDatabase()
	g := newGatherer(d.ask)
	var wg sync.WaitGroup
	get := func(key int) {
		wg.Go(func() {
			if got, err := g.get(t.Context(), key); err != nil || got != 2*key {
				t.Errorf("get(%d) = %d, %v; want %d", key, got, err, 2*key)
			}
		})
	}
	takeLanes(t, g, d, get)
	const more = gatherBatch + 5
	for i := range more {
		get(100 + i)
	}
	waitFor(t, g, more)
	d.release <- struct{}{}
	if got := <-d.begun; len(got) != gatherBatch {
		t.Fatalf("statement for %d keys; want a full batch of %d", len(got), gatherBatch)
	}
	close(d.release)
	wg.Wait()
	if got := <-d.begun; len(got) != more-gatherBatch || len(d.begun) != 0 {
		t.Fatalf("statement for %d keys and %d more statements; want the rest in one", len(got), len(d.begun))
	}
	waitIdle(t, g)
}

// takeLanes makes the gatherer ask as often at once as it ever does. Nothing is
// there to gather, because the database does not answer for longer than anyone
// waits for it.
func takeLanes(t *testing.T, g *gatherer[int, int], d *slowDatabase, get func(int)) {
	t.Helper()
	for i := range gatherLanes {
		get(i) // and after a while no longer waits for the others
		if got := <-d.begun; len(got) != 1 {
			t.Fatalf("statement for %v; want one key", got)
		}
	}
}

// waitIdle checks that nothing is left behind.
func waitIdle(t *testing.T, g *gatherer[int, int]) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		<-time.After(time.Millisecond)
		g.mu.Lock()
		asking, waiting := g.asking, len(g.waiting)
		g.mu.Unlock()
		if asking == 0 && waiting == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d statements under way, %d calls wait; want none", asking, waiting)
		}
	}
}

func TestGathererFailsAlone(t *testing.T) {
	t.Parallel()
	d := newSlowDatabase()
	g := newGatherer(d.ask)
	var wg sync.WaitGroup
	takeLanes(t, g, d, func(key int) { wg.Go(func() { _, _ = g.get(t.Context(), key) }) })
	for _, key := range []int{1, -1, 2, 13, 3} {
		wg.Go(func() {
			got, err := g.get(t.Context(), key)
			if bad := key < 0 || key == 13; bad != (err != nil) || !bad && got != 2*key {
				t.Errorf("get(%d) = %d, %v; want an error only where the key is at fault", key, got, err)
			}
		})
	}
	waitFor(t, g, 5)
	close(d.release)
	wg.Wait()
	waitIdle(t, g)
}

// An error of the database is everybody's, and asked for only once.
func TestGathererPassesOnAnOutage(t *testing.T) {
	t.Parallel()
	outage := fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "the database is not available")
	hold, begun := make(chan struct{}), make(chan struct{}, 100)
	g := newGatherer(func(context.Context, []int) ([]int, error) {
		begun <- struct{}{}
		<-hold
		return nil, fmt.Errorf("read: %w", outage)
	})
	var wg sync.WaitGroup
	get := func() {
		wg.Go(func() {
			if _, err := g.get(t.Context(), 1); !errors.Is(err, outage) {
				t.Errorf("get = %v; want the outage", err)
			}
		})
	}
	get()
	<-begun
	g.mu.Lock()
	g.begun = time.Now().Add(time.Hour) // so that all the others wait for this one
	g.mu.Unlock()
	for range 10 {
		get()
	}
	waitFor(t, g, 10)
	close(hold)
	wg.Wait()
	if len(begun) != 1 {
		t.Errorf("statements for those who waited = %d; want 1", len(begun))
	}
}

// A caller that hangs up takes nothing from those whose answer is on the way.
func TestGathererOutlivesACaller(t *testing.T) {
	t.Parallel()
	d := newSlowDatabase()
	g := newGatherer(d.ask)
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := g.get(ctx, 1)
		left <- err
	}()
	<-d.begun
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Fatalf("get of a caller that left = %v; want its context's error", err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if got, err := g.get(t.Context(), 4); err != nil || got != 8 {
			t.Errorf("get = %d, %v; want 8", got, err)
		}
	})
	<-d.begun
	close(d.release)
	wg.Wait()
	waitIdle(t, g)
}

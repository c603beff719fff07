package rpc

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
)

const (
	// gatherPatience is how long those who wait do so for one statement alone: a
	// nearby database is done by then, and the fewer the statements, the less each
	// row costs. Of one that is far away, several are under way at once.
	gatherPatience = 3 * time.Millisecond
	// gatherLanes bounds the statements of one kind under way.
	gatherLanes = 4
	// gatherBatch bounds the calls that one statement answers.
	gatherBatch = 64
	// gatherTimeout bounds one statement.
	gatherTimeout = 10 * time.Second
)

// gatherer answers many calls with few statements: an idle one asks at once,
// and while a statement is under way the next batch gathers. What a caller gets
// was read after it asked.
type gatherer[K, V any] struct {
	// ask answers every key, in order.
	ask func(ctx context.Context, keys []K) ([]V, error)

	mu      sync.Mutex
	asking  int       // statements under way
	begun   time.Time // when the last of them began
	waiting []*asked[K, V]
}

// asked is one call that waits.
type asked[K, V any] struct {
	key  K
	done chan struct{} // closed when the answer is there

	value V
	err   error
}

func newGatherer[K, V any](ask func(context.Context, []K) ([]V, error)) *gatherer[K, V] {
	return &gatherer[K, V]{ask: ask}
}

// get returns the answer to key.
func (g *gatherer[K, V]) get(ctx context.Context, key K) (V, error) {
	a := &asked[K, V]{key: key, done: make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, a)
	g.start()
	g.mu.Unlock()
	patience := time.NewTimer(gatherPatience)
	defer patience.Stop()
	for {
		select {
		case <-a.done:
			return a.value, a.err
		case <-ctx.Done():
			var none V
			return none, ctx.Err()
		case <-patience.C:
			g.mu.Lock()
			g.start()
			g.mu.Unlock()
		}
	}
}

// start begins a statement for those who wait, unless they have to wait for one
// that is under way. It is called with the lock held.
func (g *gatherer[K, V]) start() {
	if len(g.waiting) == 0 || g.asking == gatherLanes || g.asking > 0 && time.Since(g.begun) < gatherPatience {
		return
	}
	g.asking++
	g.begun = time.Now()
	go g.run() // ends when nobody waits any more
}

// run answers batches until nobody waits.
func (g *gatherer[K, V]) run() {
	for {
		g.mu.Lock()
		n := min(len(g.waiting), gatherBatch)
		if n == 0 {
			g.waiting = nil
			g.asking--
			g.mu.Unlock()
			return
		}
		batch := g.waiting[:n:n]
		g.waiting = g.waiting[n:]
		g.begun = time.Now()
		g.mu.Unlock()
		g.answer(batch)
		for _, a := range batch {
			close(a.done)
		}
	}
}

// answer fills in the answers. The callers' own contexts do not count: one that
// hung up would take the answer from the others.
func (g *gatherer[K, V]) answer(batch []*asked[K, V]) {
	keys := make([]K, len(batch))
	for i, a := range batch {
		keys[i] = a.key
	}
	values, err := g.guarded(keys)
	switch {
	case err == nil:
		for i, a := range batch {
			a.value = values[i]
		}
	case len(batch) > 1 && fault.Of(err).Kind == fault.Internal:
		// The database did not fail: something is wrong with one of these. One by
		// one, only its caller learns of it.
		for i := range batch {
			g.answer(batch[i : i+1])
		}
	default:
		for _, a := range batch {
			a.err = err
		}
	}
}

// guarded asks, and turns a panic into an error: nobody else would catch it here.
func (g *gatherer[K, V]) guarded(keys []K) (values []V, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), gatherTimeout)
	defer cancel()
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("read panicked: %v", v)
		}
	}()
	values, err = g.ask(ctx, keys)
	if ctx.Err() != nil {
		err = fault.Wrap(ctx.Err(), fault.Unavailable, fault.ReasonStoreUnavailable, "the database did not answer in time")
	}
	return values, err
}

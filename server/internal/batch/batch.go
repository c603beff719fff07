// Package batch answers many calls with few statements: an idle batcher starts
// immediately, or as soon as calls that are about to come have joined (see Gather), and
// calls that arrive during a batch form the next one.
package batch

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
)

var (
	// ErrFull means that too many calls are waiting.
	ErrFull = errors.New("batch: too many calls are waiting")
	// ErrClosed means that the batcher accepts no more calls.
	ErrClosed = errors.New("batch: closed")
)

// Config configures a Batcher.
type Config[K, V any] struct {
	// Do answers every key, in order. Its context ends with Timeout and never with
	// a caller's context: a caller that disconnects must not undo the work of the
	// others.
	//
	// An error of kind [fault.Internal] means that the database works but refused
	// something in the batch. Do is then called for each key separately, so only
	// the call at fault fails.
	Do func(ctx context.Context, keys []K) ([]V, error)
	// Size is the maximum number of keys in one batch.
	Size int
	// Timeout bounds the work on one batch.
	Timeout time.Duration
	// Lanes is the maximum number of concurrent batches; zero means one. Another
	// lane opens only when the latest batch has been running for Patience or
	// longer: a nearby database is done by then, and fewer statements cost less per
	// row.
	Lanes    int
	Patience time.Duration
	// Gather lets other goroutines run before each batch, so that calls that are about to
	// come join it. It is for work that takes processor time; work that waits, as for the
	// disk, is better begun at once.
	Gather bool
	// Queue is the maximum number of calls that wait for a batch; zero means no
	// limit.
	Queue int
	// Failed, if set, receives the number of calls that failed together, and the
	// cause.
	Failed func(ctx context.Context, calls int, err error)
	// Release, if set, is called once for every key, as soon as the batcher no
	// longer holds it. That can be long after its caller has returned.
	Release func(key K)
}

// Batcher gathers calls into batches.
type Batcher[K, V any] struct {
	cfg Config[K, V]

	mu      sync.Mutex
	lanes   int       // running batches
	begun   time.Time // when the latest of them started
	waiting []*call[K, V]
	closed  bool
	idle    sync.Cond // signals that the last lane has ended
}

// call is one caller's key and its answer.
type call[K, V any] struct {
	key   K
	done  chan struct{} // closed when value or err is set
	value V
	err   error
}

// New returns a Batcher.
func New[K, V any](cfg Config[K, V]) *Batcher[K, V] {
	cfg.Lanes = max(cfg.Lanes, 1)
	b := &Batcher[K, V]{cfg: cfg}
	b.idle.L = &b.mu
	return b
}

// Do returns the answer to key. The work on it starts after the call and, once
// accepted, continues when ctx ends. Do fails with [ErrFull] or [ErrClosed] if the
// key was not accepted.
func (b *Batcher[K, V]) Do(ctx context.Context, key K) (V, error) {
	c := &call[K, V]{key: key, done: make(chan struct{})}
	if err := b.enqueue(c); err != nil {
		b.release(c)
		return c.value, err
	}
	var patience <-chan time.Time
	if b.cfg.Lanes > 1 {
		timer := time.NewTimer(b.cfg.Patience)
		defer timer.Stop()
		patience = timer.C
	}
	for {
		select {
		case <-c.done:
			return c.value, c.err
		case <-ctx.Done():
			var none V
			return none, fmt.Errorf("wait for a batch: %w", context.Cause(ctx))
		case <-patience:
			b.mu.Lock()
			b.openLane()
			b.mu.Unlock()
		}
	}
}

func (b *Batcher[K, V]) enqueue(c *call[K, V]) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return ErrClosed
	case b.cfg.Queue > 0 && len(b.waiting) >= b.cfg.Queue:
		return ErrFull
	}
	b.waiting = append(b.waiting, c)
	b.openLane()
	return nil
}

// openLane starts a batch for the waiting calls, unless they must wait for a
// running one. The caller holds the lock.
func (b *Batcher[K, V]) openLane() {
	if len(b.waiting) == 0 || b.lanes == b.cfg.Lanes || b.lanes > 0 && time.Since(b.begun) < b.cfg.Patience {
		return
	}
	b.lanes++
	b.begun = time.Now()
	go b.run() // Close waits for it
}

// run answers batches until no call is waiting.
func (b *Batcher[K, V]) run() {
	for {
		if b.cfg.Gather {
			b.mu.Lock()
			b.begun = time.Now() // no other lane opens meanwhile
			b.mu.Unlock()
			runtime.Gosched()
		}
		b.mu.Lock()
		n := min(len(b.waiting), b.cfg.Size)
		if n == 0 {
			b.waiting = nil
			b.lanes--
			b.idle.Broadcast()
			b.mu.Unlock()
			return
		}
		calls := b.waiting[:n:n]
		b.waiting = b.waiting[n:]
		b.begun = time.Now()
		b.mu.Unlock()

		ctx, cancel := context.WithTimeout(context.Background(), b.cfg.Timeout)
		b.answer(ctx, calls)
		cancel()
		for _, c := range calls {
			b.release(c)
			close(c.done)
		}
	}
}

// answer fills in the answers.
func (b *Batcher[K, V]) answer(ctx context.Context, calls []*call[K, V]) {
	keys := make([]K, len(calls))
	for i, c := range calls {
		keys[i] = c.key
	}
	values, err := b.guarded(ctx, keys)
	switch {
	case err == nil:
		for i, c := range calls {
			c.value = values[i]
		}
		return
	case ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded):
		err = fault.Wrap(err, fault.Unavailable, fault.ReasonStoreUnavailable, "the database did not answer in time")
	case len(calls) > 1 && fault.Of(err).Kind == fault.Internal:
		for i := range calls {
			b.answer(ctx, calls[i:i+1])
		}
		return
	}
	if b.cfg.Failed != nil {
		b.cfg.Failed(ctx, len(calls), err)
	}
	for _, c := range calls {
		c.err = err
	}
}

// guarded converts a panic to an error: nothing else would recover it here.
func (b *Batcher[K, V]) guarded(ctx context.Context, keys []K) (values []V, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("batch panicked: %v\n%s", v, debug.Stack())
		}
	}()
	return b.cfg.Do(ctx, keys)
}

func (b *Batcher[K, V]) release(c *call[K, V]) {
	if b.cfg.Release != nil {
		b.cfg.Release(c.key)
	}
}

// Close refuses further calls and returns once the accepted ones are answered.
func (b *Batcher[K, V]) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for b.lanes > 0 {
		b.idle.Wait()
	}
}

// Package memory bounds the bytes that responses of Liveblocks and documents in work
// take at the same time. The garbage collector cannot free what is in use.
//
// A piece of work first reads, up to half of the budget together with others, and then
// decodes what it has read. It waits while it holds what it has read; so that this
// always ends, the oldest one goes on with more than there is once all others wait too.
package memory

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/semaphore"
)

const (
	// Free is the size up to which a response is read without asking: most are small.
	// They are as many as there are calls.
	Free = 1 << 20
	// smallPart is the largest part of the budget, one in so many, that is decoded
	// without waiting behind larger ones. Together, such work may take one in smallSum
	// on top of the budget.
	smallPart, smallSum = 64, 8
)

// Budget is an amount of memory. It is safe for concurrent use. A nil Budget has no
// limit.
type Budget struct {
	size  int64
	small *semaphore.Weighted

	mu            sync.Mutex
	used, reading int64 // bytes held, and those of them by work that only reads
	active        int   // work that holds bytes and does not wait for more
	begun         int64 // the number of the last work
	// lines hold who waits, by age.
	lines [phases][]*waiter
}

type phase int

const (
	decoding phase = iota
	reading
	phases
)

// hold is what one piece of work holds. It is for one goroutine.
type hold struct {
	budget *Budget
	number int64
	phase  phase
	bytes  int64
	small  int64
}

type waiter struct {
	*hold

	more  int64
	ready chan struct{}
}

// New returns a budget of size bytes.
func New(size int64) *Budget {
	return &Budget{size: size, small: semaphore.NewWeighted(max(size/smallSum, 1))}
}

type holdKey struct{}

// Begin returns a context for one piece of work and one goroutine. What [ForReading] and
// [ForDecoding] take with it is held until end is called. Meanwhile nothing may be
// waited for that waits for memory.
func (b *Budget) Begin(ctx context.Context) (work context.Context, end func()) {
	if b == nil {
		return ctx, func() {}
	}
	h := &hold{budget: b, phase: reading}
	return context.WithValue(ctx, holdKey{}, h), h.end
}

// ForReading waits until the work of ctx may hold n bytes of responses, with what it
// holds already. Up to [Free] there is nothing to wait for. Without [Budget.Begin] it
// does nothing.
func ForReading(ctx context.Context, n int64) error {
	if h, ok := ctx.Value(holdKey{}).(*hold); ok && n > Free {
		return h.take(ctx, n, h.phase)
	}
	return nil
}

// ForDecoding waits until the work of ctx may take n bytes to decode what it has read
// and to write or send it, with what it holds already. Work that needs more than the
// budget gets it while no other goes on. Without [Budget.Begin] it does nothing.
func ForDecoding(ctx context.Context, n int64) error {
	h, ok := ctx.Value(holdKey{}).(*hold)
	if !ok || n <= h.small {
		return nil
	}
	b := h.budget
	if h.bytes > 0 || h.small > 0 || n > b.size/smallPart {
		return h.take(ctx, n, decoding)
	}
	if err := b.small.Acquire(ctx, n); err != nil {
		return waitError(err)
	}
	h.small = n
	return nil
}

func waitError(err error) error { return fmt.Errorf("wait for memory: %w", err) }

// take raises what is held to n bytes.
func (h *hold) take(ctx context.Context, n int64, p phase) error {
	if n <= h.bytes {
		return nil
	}
	b := h.budget
	w := &waiter{hold: h, more: n - h.bytes, ready: make(chan struct{})}
	b.mu.Lock()
	if h.number == 0 {
		b.begun++
		h.number = b.begun
	}
	if h.bytes > 0 {
		b.active--
	}
	at, _ := slices.BinarySearchFunc(b.lines[p], h.number, func(w *waiter, number int64) int {
		return cmp.Compare(w.number, number)
	})
	b.lines[p] = slices.Insert(b.lines[p], at, w)
	b.admit()
	b.mu.Unlock()
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if at = slices.Index(b.lines[p], w); at < 0 {
		return nil // admitted at the same moment
	}
	b.lines[p] = slices.Delete(b.lines[p], at, at+1)
	if h.bytes > 0 {
		b.active++
	}
	b.admit()
	return waitError(context.Cause(ctx))
}

// admit gives waiting work what it needs, as far as there is any. Nothing more is read
// while something that was read cannot be decoded.
func (b *Budget) admit() {
	for {
		p := decoding
		if len(b.lines[p]) == 0 {
			p = reading
		}
		if len(b.lines[p]) == 0 {
			return
		}
		w := b.lines[p][0]
		fits := b.used+w.more <= b.size && (p == decoding || b.reading+w.more <= b.size/2)
		if !fits && b.active > 0 {
			return
		}
		b.lines[p] = b.lines[p][1:]
		if b.used += w.more; p == reading {
			b.reading += w.more
		} else if w.phase == reading {
			b.reading -= w.bytes
		}
		w.phase, w.bytes = p, w.bytes+w.more
		b.active++
		close(w.ready)
	}
}

// end gives everything back.
func (h *hold) end() {
	if h.small > 0 {
		h.budget.small.Release(h.small)
		h.small = 0
	}
	b := h.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	if h.bytes == 0 {
		return
	}
	b.active--
	if b.used -= h.bytes; h.phase == reading {
		b.reading -= h.bytes
	}
	h.bytes = 0
	b.admit()
}

// Size returns how many bytes the budget has.
func (b *Budget) Size() int64 { return b.size }

// Used returns the bytes that are held, without those for small documents.
func (b *Budget) Used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

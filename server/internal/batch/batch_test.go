package batch

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
)

const (
	size     = 8
	patience = 3 * time.Millisecond
	timeout  = 10 * time.Second
	poison   = -1 // refused by the database
	unlucky  = 13 // makes the code panic
)

// bench is a batcher over a database that answers each key with its double, when
// it is told to.
type bench struct {
	*testing.T
	*Batcher[int, int]
	release chan struct{}

	mu       sync.Mutex
	asked    [][]int
	outage   error
	failed   []int
	released []int
	wg       sync.WaitGroup
}

// bubble tests a batcher that gathers calls before it begins, and one that does not.
func bubble(t *testing.T, cfg Config[int, int], test func(b *bench)) {
	t.Helper()
	inBubble(t, cfg, test)
	cfg.Gather = true
	inBubble(t, cfg, test)
}

func inBubble(t *testing.T, cfg Config[int, int], test func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{T: t, release: make(chan struct{})}
		cfg.Do, cfg.Size, cfg.Timeout = b.double, size, timeout
		cfg.Failed = func(_ context.Context, calls int, _ error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.failed = append(b.failed, calls)
		}
		cfg.Release = func(key int) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.released = append(b.released, key)
		}
		b.Batcher = New(cfg)
		test(b)
		b.wg.Wait()
		b.Close() // hangs if a lane is left behind
	})
}

func (b *bench) double(ctx context.Context, keys []int) ([]int, error) {
	b.mu.Lock()
	b.asked = append(b.asked, slices.Clone(keys))
	outage := b.outage
	b.mu.Unlock()
	select {
	case <-b.release:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	values := make([]int, len(keys))
	for i, k := range keys {
		switch k {
		case poison:
			return nil, errors.New("no such number")
		case unlucky:
			panic("unlucky")
		}
		values[i] = 2 * k
	}
	return values, outage
}

// call has keys doubled, each by a call of its own, and checks the answers.
func (b *bench) call(keys ...int) {
	for _, key := range keys {
		b.wg.Go(func() {
			if got, err := b.Do(b.Context(), key); err != nil || got != 2*key {
				b.Errorf("Do(%d) = %d, %v; want %d", key, got, err, 2*key)
			}
		})
		synctest.Wait()
	}
}

func (b *bench) wantAsked(when string, want ...[]int) {
	b.Helper()
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if d := cmp.Diff(want, b.asked); d != "" {
		b.Fatalf("batches %s (-want +got):\n%s", when, d)
	}
}

func TestIdleWorksAtOnceAndBusyGathers(t *testing.T) {
	t.Parallel()
	bubble(t, Config[int, int]{}, func(b *bench) {
		begun := time.Now()
		b.call(1)
		b.wantAsked("of an idle batcher", []int{1})
		b.call(2, 3, 4, 5, 6, 7, 8, 9, 10)
		b.wantAsked("while the first is under way", []int{1})
		b.release <- struct{}{}
		b.wantAsked("then", []int{1}, []int{2, 3, 4, 5, 6, 7, 8, 9})
		b.release <- struct{}{}
		b.wantAsked("after a full one", []int{1}, []int{2, 3, 4, 5, 6, 7, 8, 9}, []int{10})
		b.release <- struct{}{}
		b.wg.Wait()
		if took := time.Since(begun); took != 0 {
			b.Errorf("the batcher added a delay of %v", took)
		}
	})
}

// A database that is far away gets several batches at once, but no two within the
// time in which a near one answers.
func TestLanesOpenWithTime(t *testing.T) {
	t.Parallel()
	bubble(t, Config[int, int]{Lanes: 3, Patience: patience}, func(b *bench) {
		b.call(1, 2, 3)
		time.Sleep(patience - time.Nanosecond) //nolint:forbidigo // of the bubble's clock
		b.wantAsked("at once", []int{1})
		time.Sleep(time.Nanosecond) //nolint:forbidigo // of the bubble's clock
		b.wantAsked("after a while", []int{1}, []int{2, 3})
		time.Sleep(patience) //nolint:forbidigo // of the bubble's clock
		b.call(4)
		b.wantAsked("with two lanes in use", []int{1}, []int{2, 3}, []int{4})
		time.Sleep(patience) //nolint:forbidigo // of the bubble's clock
		b.call(5, 6)
		time.Sleep(patience) //nolint:forbidigo // of the bubble's clock
		b.wantAsked("with all lanes in use", []int{1}, []int{2, 3}, []int{4})
		close(b.release)
		b.wantAsked("at the end", []int{1}, []int{2, 3}, []int{4}, []int{5, 6})
	})
}

// One by one, only the call that is at fault fails.
func TestPoisonFailsAlone(t *testing.T) {
	t.Parallel()
	bubble(t, Config[int, int]{}, func(b *bench) {
		b.call(0, 1)
		for _, key := range []int{poison, unlucky} {
			b.wg.Go(func() {
				if got, err := b.Do(b.Context(), key); fault.Of(err).Kind != fault.Internal {
					b.Errorf("Do(%d) = %d, %v; want it refused", key, got, err)
				}
			})
		}
		synctest.Wait()
		b.call(2)
		close(b.release)
		b.wg.Wait()
		if d := cmp.Diff([]int{1, 1}, b.failed); d != "" {
			b.Errorf("failures (-want +got):\n%s", d)
		}
		if len(b.asked) != 6 {
			b.Errorf("batches = %v; want the first, the second and its four one by one", b.asked)
		}
	})
}

// An outage is everybody's, and nothing is tried one by one.
func TestOutageFailsTheBatch(t *testing.T) {
	t.Parallel()
	down := fault.New(fault.Unavailable, fault.ReasonStoreUnavailable, "the database is not available")
	for name, outage := range map[string]error{
		"unavailable": fmt.Errorf("read: %w", down),
		"deadline":    fmt.Errorf("read: %w", context.DeadlineExceeded),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, Config[int, int]{}, func(b *bench) {
				b.outage = outage
				for i := range 5 {
					b.wg.Go(func() {
						if _, err := b.Do(b.Context(), i); !fault.Is(err, fault.ReasonStoreUnavailable) || !errors.Is(err, outage) {
							b.Errorf("Do(%d) = %v; want the outage", i, err)
						}
					})
					synctest.Wait()
				}
				close(b.release)
				b.wg.Wait()
				if d := cmp.Diff([]int{1, 4}, b.failed); d != "" {
					b.Errorf("failures (-want +got):\n%s", d)
				}
				b.wantAsked("in an outage", []int{0}, []int{1, 2, 3, 4})
			})
		})
	}
}

func TestHangingBatchEnds(t *testing.T) {
	t.Parallel()
	bubble(t, Config[int, int]{}, func(b *bench) {
		begun := time.Now()
		_, err := b.Do(b.Context(), 1)
		if took := time.Since(begun); !fault.Is(err, fault.ReasonStoreUnavailable) || took != timeout {
			b.Errorf("Do = %v after %v; want STORE_UNAVAILABLE after %v", err, took, timeout)
		}
	})
}

// A caller that hangs up takes nothing from the others, and its key stays until
// its batch is done.
func TestBatchOutlivesACaller(t *testing.T) {
	t.Parallel()
	bubble(t, Config[int, int]{}, func(b *bench) {
		ctx, hangUp := context.WithCancel(b.Context())
		for _, key := range []int{1, 2} { // one under way, one that waits
			b.wg.Go(func() {
				if _, err := b.Do(ctx, key); !errors.Is(err, context.Canceled) {
					b.Errorf("Do(%d) of a caller that left = %v; want its context's error", key, err)
				}
			})
			synctest.Wait()
		}
		b.call(3)
		hangUp()
		synctest.Wait()
		if len(b.released) != 0 {
			b.Errorf("released before they are done: %v", b.released)
		}
		close(b.release)
		b.wg.Wait()
		b.wantAsked("in spite of it", []int{1}, []int{2, 3})
		if d := cmp.Diff([]int{1, 2, 3}, b.released); d != "" {
			b.Errorf("released (-want +got):\n%s", d)
		}
	})
}

func TestQueueIsBounded(t *testing.T) {
	t.Parallel()
	bubble(t, Config[int, int]{Queue: 2}, func(b *bench) {
		b.call(1, 2, 3)
		if _, err := b.Do(b.Context(), 4); !errors.Is(err, ErrFull) {
			b.Errorf("Do with a full queue = %v; want ErrFull", err)
		}
		if d := cmp.Diff([]int{4}, b.released); d != "" {
			b.Errorf("released (-want +got):\n%s", d)
		}
		close(b.release)
		b.wg.Wait()
		b.call(5)
	})
}

func TestCloseDrainsAndThenRefuses(t *testing.T) {
	t.Parallel()
	bubble(t, Config[int, int]{}, func(b *bench) {
		b.call(1, 2, 3)
		closed := make(chan struct{})
		go func() { b.Close(); close(closed) }() // received below
		synctest.Wait()
		if _, err := b.Do(b.Context(), 4); !errors.Is(err, ErrClosed) {
			b.Errorf("Do after Close = %v; want ErrClosed", err)
		}
		select {
		case <-closed:
			b.Fatal("Close returned with calls waiting")
		default:
		}
		close(b.release)
		<-closed
		b.wantAsked("in all", []int{1}, []int{2, 3})
	})
}

// Calls that are ready to run when a batch begins join it if they may.
func TestGather(t *testing.T) { //nolint:paralleltest // it takes processors from other tests
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	batches := func(gather bool) (n int) {
		b := New(Config[int, int]{
			Do:   func(_ context.Context, keys []int) ([]int, error) { n++; return keys, nil },
			Size: size, Timeout: timeout, Gather: gather,
		})
		for range 100 {
			var wg sync.WaitGroup
			for key := range size {
				wg.Go(func() { _, _ = b.Do(t.Context(), key) })
			}
			wg.Wait()
		}
		b.Close()
		return n
	}
	if alone, gathered := batches(false), batches(true); gathered > alone*3/4 {
		t.Errorf("%d batches of gathered calls, %d otherwise; want fewer", gathered, alone)
	}
}

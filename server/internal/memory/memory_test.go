package memory

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const mib = 1 << 20

// work is a piece of work.
type work struct {
	context.Context //nolint:containedctx // it is the work

	end func()
}

func begin(t *testing.T, b *Budget) work {
	t.Helper()
	ctx, end := b.Begin(t.Context())
	return work{ctx, end}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// later takes in the background and returns a channel that is closed once it is done.
func later(t *testing.T, take func(context.Context, int64) error, w work, n int64) <-chan struct{} {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := take(w, n); err != nil {
			t.Error(err)
		}
	}()
	synctest.Wait()
	return done
}

func isDone(c <-chan struct{}) bool {
	synctest.Wait()
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestWaitsForMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := New(100 * mib)
		first, second := begin(t, b), begin(t, b)
		must(t, ForReading(first, 40*mib))
		must(t, ForReading(second, Free)) // takes nothing
		waits := later(t, ForReading, second, 20*mib)
		if isDone(waits) || b.Used() != 40*mib {
			t.Fatalf("more than half of the budget is read, %d bytes", b.Used())
		}
		must(t, ForDecoding(first, 90*mib))
		if !isDone(waits) && b.Used() != 90*mib {
			t.Fatalf("%d bytes in use; want what is decoded", b.Used())
		}
		first.end()
		first.end() // does nothing
		if !isDone(waits) || b.Used() != 20*mib {
			t.Fatalf("%d bytes in use; want what waited", b.Used())
		}
		must(t, ForReading(second, 10*mib)) // it has more
		second.end()
		if b.Used() != 0 {
			t.Fatalf("%d bytes in use after all is done", b.Used())
		}
	})
}

// What needs more than there is waits until nothing else goes on, and nothing begins
// beside it.
func TestLargestGoesAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := New(100 * mib)
		other, huge, next := begin(t, b), begin(t, b), begin(t, b)
		must(t, ForDecoding(other, 10*mib))
		must(t, ForReading(huge, 30*mib))
		waits := later(t, ForDecoding, huge, 500*mib)
		reads := later(t, ForReading, next, 2*mib)
		if isDone(waits) || isDone(reads) {
			t.Fatal("more is in use than there is, while something goes on")
		}
		other.end()
		if !isDone(waits) || isDone(reads) || b.Used() != 500*mib {
			t.Fatalf("%d bytes in use; want only the largest", b.Used())
		}
		huge.end()
		if !isDone(reads) {
			t.Fatal("the next one does not begin")
		}
		next.end()
	})
}

// Small documents do not wait behind large ones.
func TestSmallDoesNotWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := New(64 * mib)
		large, waiting := begin(t, b), begin(t, b)
		must(t, ForDecoding(large, 64*mib))
		waits := later(t, ForDecoding, waiting, 2*mib)
		for range 8 {
			small := begin(t, b)
			defer small.end()
			must(t, ForDecoding(small, mib))
			must(t, ForDecoding(small, mib/2)) // it has more
		}
		ninth := begin(t, b)
		soon, cancel := context.WithTimeout(ninth, time.Second)
		defer cancel()
		if err := ForDecoding(soon, mib); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ForDecoding beyond the part for small documents = %v; want it to wait", err)
		}
		if isDone(waits) {
			t.Error("a larger one did not wait")
		}
		large.end()
		if !isDone(waits) {
			t.Error("it waits although there is memory")
		}
		waiting.end()
	})
}

// A response of unknown length grows while others do. All together they want far more
// than there is, and wait while they hold what they have.
func TestAllWaitWhileTheyHold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const size, largest = 64 * mib, 100 * mib
		b := New(size)
		var most int64
		var mu sync.Mutex
		note := func() {
			mu.Lock()
			defer mu.Unlock()
			most = max(most, b.Used())
		}
		workers := make(chan struct{}, 2)
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				ctx, end := b.Begin(t.Context())
				defer end()
				random := rand.New(rand.NewPCG(1, uint64(i)))
				for n := int64(mib); n <= 16*mib; n *= 2 {
					<-time.After(time.Duration(random.IntN(1000)) * time.Millisecond)
					if err := ForReading(ctx, n); err != nil {
						t.Error(err)
					}
					note()
				}
				if err := ForDecoding(ctx, 20*mib+random.Int64N(largest-20*mib)); err != nil {
					t.Error(err)
				}
				note()
				workers <- struct{}{} // what holds memory waits for a worker
				<-time.After(time.Second)
				<-workers
			})
		}
		wg.Wait()
		if b.Used() != 0 {
			t.Errorf("%d bytes in use after all is done", b.Used())
		}
		if most > size/2+largest {
			t.Errorf("%d MiB were in use at once; want at most what is read, and the largest", most/mib)
		}
		t.Logf("at most %d MiB at once", most/mib)
	})
}

func TestWaitingEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := New(100 * mib)
		holds, waits, behind := begin(t, b), begin(t, b), begin(t, b)
		must(t, ForReading(holds, 40*mib))
		must(t, ForReading(waits, 5*mib))
		cause := errors.New("the lease is lost")
		ctx, cancel := context.WithCancelCause(waits)
		failed := make(chan error)
		go func() { failed <- ForReading(ctx, 60*mib) }()
		synctest.Wait()
		next := later(t, ForReading, behind, 5*mib)
		if isDone(next) {
			t.Fatal("the one behind is not behind")
		}
		cancel(cause)
		if err := <-failed; !errors.Is(err, cause) {
			t.Errorf("ForReading = %v; want the cause of its end", err)
		}
		if !isDone(next) {
			t.Error("the one behind still waits")
		}
		if b.Used() != 50*mib {
			t.Errorf("%d bytes in use; want what was held before", b.Used())
		}
		for _, w := range []work{holds, waits, behind} {
			w.end()
		}
		if b.Used() != 0 {
			t.Errorf("%d bytes in use after all is done", b.Used())
		}
	})
}

func TestWithoutLimit(t *testing.T) {
	t.Parallel()
	var none *Budget
	ctx, end := none.Begin(t.Context())
	must(t, ForReading(ctx, 1<<50))
	must(t, ForDecoding(ctx, 1<<50))
	end()
}

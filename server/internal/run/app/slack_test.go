package app

import (
	"math"
	"runtime"
	"runtime/debug"
	"testing"
)

func TestPercentFor(t *testing.T) {
	t.Parallel()
	for live, want := range map[uint64]int{
		0: gcPercent, maxSlack / 8: gcPercent, maxSlack / 4: gcPercent, maxSlack / 2: 200, maxSlack: 100, 1 << 40: 100,
		math.MaxUint64: 100,
	} {
		if got := percentFor(live); got != want {
			t.Errorf("percentFor(%d) = %d; want %d", live, got, want)
		}
	}
}

// Each collection decides about the next one, up and down.
func TestBoundSlack(t *testing.T) { //nolint:paralleltest // the GC percent is the process's
	before := debug.SetGCPercent(gcPercent)
	defer debug.SetGCPercent(before)
	defer boundSlack()()
	await := func(want int) {
		t.Helper()
		for range 1000 {
			runtime.GC()
			got := debug.SetGCPercent(want)
			if got == want {
				return
			}
			debug.SetGCPercent(got)
		}
		t.Fatalf("GC percent did not become %d", want)
	}
	held := make([]byte, 2*maxSlack)
	await(100)
	runtime.KeepAlive(held)
	await(gcPercent)
}

package app

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
)

// maxSlack bounds what the heap grows by between two collections where there is more
// live data than that allows gcPercent for; it grows by as much as is live at least.
const maxSlack = 64 << 20

// percentFor returns the GC percent for an amount of live data.
func percentFor(live uint64) int {
	return int(min(gcPercent, max(100, 100*maxSlack/max(live, 1))))
}

// boundSlack sets the GC percent after each collection until stop is called. Without it,
// the list of a room's threads takes seven times its length: what it leaves behind piles
// up to five times what is in use.
func boundSlack() (stop func()) {
	var stopped atomic.Bool
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	percent := gcPercent
	var arm func()
	collected := func(struct{}) {
		if stopped.Load() {
			return
		}
		metrics.Read(live)
		if p := percentFor(live[0].Value.Uint64()); p != percent {
			percent = p
			debug.SetGCPercent(p)
		}
		arm()
	}
	// A collection frees what nothing points to, and then runs its clean-up.
	arm = func() { runtime.AddCleanup(new([64]byte), collected, struct{}{}) }
	arm()
	return func() { stopped.Store(true) }
}

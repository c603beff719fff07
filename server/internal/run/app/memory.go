package app

import (
	"math"
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/memory"
)

const (
	// gcPercent lets the heap grow to five times the live data between collections: the
	// service has little live data and many short-lived allocations. See maxSlack for more
	// live data.
	gcPercent = 400
	// defaultLimit is the memory limit where nothing else sets one.
	defaultLimit = 2 << 30
)

// TuneMemory configures the garbage collector unless GOGC or GOMEMLIMIT does. In a
// control group with a limit (a container, a systemd unit) the soft limit is nine
// tenths of it; the rest is for memory outside the heap. Otherwise it is defaultLimit,
// or half of what a small machine has, because other processes share it, such as
// PostgreSQL: what large documents leave behind would pile up to five times what is in
// use.
func TuneMemory() {
	tuneMemory(memlimit.FromCgroup, memlimit.FromSystem)
	if os.Getenv("GOGC") == "" {
		boundSlack()
	}
}

func tuneMemory(group, machine memlimit.Provider) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	limit := uint64(defaultLimit)
	// An error means that there is no limit, or none that can be read.
	if all, err := machine(); err == nil {
		limit = min(limit, all/2)
	}
	if limited, err := memlimit.ApplyRatio(group, 0.9)(); err == nil {
		limit = limited
	}
	debug.SetMemoryLimit(int64(limit))
}

// budgets divides the memory limit: half of it is for responses and documents in work, a
// quarter for reading long documents. The collector needs the rest. GOMEMLIMIT=off
// stands for defaultLimit.
func budgets(limit int64) (work *memory.Budget, reads int64) {
	if limit == math.MaxInt64 {
		limit = defaultLimit
	}
	return memory.New(max(limit/2, 1)), max(limit/4, 1)
}

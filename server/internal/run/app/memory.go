package app

import (
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// gcPercent lets the heap grow to five times the live data between collections: the
// service has little live data and many short-lived allocations.
const gcPercent = 400

// TuneMemory configures the garbage collector unless GOGC or GOMEMLIMIT does. In a
// control group with a limit (a container, a systemd unit) the soft limit is nine
// tenths of it; the rest is for memory outside the heap. The memory of the machine
// is no such limit, because other processes share it, such as PostgreSQL.
func TuneMemory() { tuneMemory(memlimit.FromCgroup) }

func tuneMemory(groupLimit memlimit.Provider) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	// An error means that there is no limit, or none that can be read.
	if limit, err := memlimit.ApplyRatio(groupLimit, 0.9)(); err == nil {
		debug.SetMemoryLimit(int64(limit)) //nolint:gosec // a control group's limit fits
	}
}

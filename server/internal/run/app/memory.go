package app

import (
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// gcPercent lets the heap grow to five times the live data between collections:
// the service keeps little alive and allocates much that is short-lived.
const gcPercent = 400

// TuneMemory sets up the garbage collector, except where GOGC or GOMEMLIMIT do.
// Within a limited control group (a container, a systemd unit) the soft limit is
// nine tenths of it; the rest is for what is not on the heap. A machine's own
// memory is no such limit: other processes share it, PostgreSQL among them.
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

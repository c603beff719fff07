package app

import (
	"math"
	"runtime/debug"
	"testing"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// The garbage collector follows the control group, and the environment goes first.
func TestTuneMemory(t *testing.T) {
	limited := memlimit.Limit(1_000_000_000)
	unlimited := func() (uint64, error) { return 0, memlimit.ErrNoLimit }
	for name, c := range map[string]struct {
		group       memlimit.Provider
		gogc, limit string // GOGC and GOMEMLIMIT
		percent     int
		memoryLimit int64
	}{
		"by default":        {limited, "", "", gcPercent, 900_000_000},
		"without a limit":   {unlimited, "", "", gcPercent, math.MaxInt64},
		"GOGC set":          {limited, "50", "", 77, 900_000_000},
		"GOMEMLIMIT set":    {limited, "", "1GiB", gcPercent, math.MaxInt64},
		"both switched off": {limited, "off", "off", 77, math.MaxInt64},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("GOGC", c.gogc)
			t.Setenv("GOMEMLIMIT", c.limit)
			percent, memory := debug.SetGCPercent(77), debug.SetMemoryLimit(math.MaxInt64)
			tuneMemory(c.group)
			if got := debug.SetGCPercent(percent); got != c.percent {
				t.Errorf("GC percent = %d; want %d", got, c.percent)
			}
			if got := debug.SetMemoryLimit(memory); got != c.memoryLimit {
				t.Errorf("memory limit = %d; want %d", got, c.memoryLimit)
			}
		})
	}
}

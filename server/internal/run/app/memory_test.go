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
	large, small := memlimit.Limit(64<<30), memlimit.Limit(1<<30)
	for name, c := range map[string]struct {
		group       memlimit.Provider
		machine     memlimit.Provider
		gogc, limit string // GOGC and GOMEMLIMIT
		percent     int
		memoryLimit int64
	}{
		"by default":        {limited, small, "", "", gcPercent, 900_000_000},
		"without a limit":   {unlimited, large, "", "", gcPercent, defaultLimit},
		"small machine":     {unlimited, small, "", "", gcPercent, 512 << 20},
		"unknown machine":   {unlimited, unlimited, "", "", gcPercent, defaultLimit},
		"GOGC set":          {limited, large, "50", "", 77, 900_000_000},
		"GOMEMLIMIT set":    {limited, large, "", "1GiB", gcPercent, math.MaxInt64},
		"both switched off": {limited, large, "off", "off", 77, math.MaxInt64},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("GOGC", c.gogc)
			t.Setenv("GOMEMLIMIT", c.limit)
			percent, memory := debug.SetGCPercent(77), debug.SetMemoryLimit(math.MaxInt64)
			tuneMemory(c.group, c.machine)
			if got := debug.SetGCPercent(percent); got != c.percent {
				t.Errorf("GC percent = %d; want %d", got, c.percent)
			}
			if got := debug.SetMemoryLimit(memory); got != c.memoryLimit {
				t.Errorf("memory limit = %d; want %d", got, c.memoryLimit)
			}
		})
	}
}

func TestBudgets(t *testing.T) {
	t.Parallel()
	for limit, want := range map[int64]int64{1 << 30: 256 << 20, math.MaxInt64: 512 << 20, 0: 1} {
		if work, reads := budgets(limit); work == nil || reads != want {
			t.Errorf("budgets(%d) = %v, %d; want %d for reads", limit, work, reads, want)
		}
	}
}

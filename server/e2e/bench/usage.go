package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of times in /proc: a hundredth of a second on every Linux.
const tick = 10 * time.Millisecond

// cpuOf is the processor time a process has used, and whether it is known. With
// the children that ended and were waited for if reaped is set.
func cpuOf(pid int, reaped bool) (time.Duration, bool) {
	fields, ok := statOf(pid)
	if !ok {
		return 0, false
	}
	last := 2
	if reaped {
		last = 4
	}
	var total time.Duration
	for _, f := range fields[11 : 11+last] { // utime, stime, cutime, cstime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, false
		}
		total += time.Duration(n) * tick
	}
	return total, true
}

// statOf returns the fields of /proc/PID/stat from the state on.
func statOf(pid int) ([]string, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil, false
	}
	// The name before may hold blanks and brackets.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	return fields, len(fields) > 15
}

// cpuOfFamily is the processor time of a process and of all its children, alive
// or not: a PostgreSQL server with its backends and helpers, or all of a MariaDB.
func cpuOfFamily(pid int) (time.Duration, bool) {
	total, ok := cpuOf(pid, true)
	if !ok {
		return 0, false
	}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, false
	}
	for _, path := range stats {
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue
		}
		if fields, ok := statOf(child); ok && fields[1] == strconv.Itoa(pid) {
			cpu, _ := cpuOf(child, false) // one that ended meanwhile is missed by microseconds
			total += cpu
		}
	}
	return total, true
}

// resetPeak resets the peak of a process's memory.
func resetPeak(pid int) {
	// where that fails, the peak is that of its life
	_ = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/clear_refs", []byte("5"), 0)
}

// peakOf is the most memory a process has held, in bytes; 0 if unknown.
func peakOf(pid int) int64 {
	return statusField("/proc/"+strconv.Itoa(pid)+"/status", "VmHWM:") << 10
}

// residentOf is the memory that a process holds, in bytes; 0 if unknown.
func residentOf(pid int) int64 {
	return statusField("/proc/"+strconv.Itoa(pid)+"/status", "VmRSS:") << 10
}

func statusField(path, name string) int64 {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), name); ok {
			n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64) // 0 is "unknown"
			return n
		}
	}
	return 0
}

// machine describes where this runs.
func machine(engine string) string {
	model := "unknown processor"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	memory := statusField("/proc/meminfo", "MemTotal:") >> 20
	return fmt.Sprintf("%d cores (%s), %d GiB, %s/%s, %s, %s",
		runtime.NumCPU(), model, memory, runtime.GOOS, runtime.GOARCH, runtime.Version(), engine)
}

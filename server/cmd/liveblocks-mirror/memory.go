package main

import (
	"math"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
)

// gcPercent lets the heap grow to five times what is alive before it is swept:
// the service keeps little alive and makes much that is short-lived. GOGC
// overrides it.
const gcPercent = 400

// tuneMemory sets how much memory the garbage collector may leave to garbage,
// where the environment does not say it. root is that of the file system.
func tuneMemory(getenv func(string) string, root string) {
	if getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	// Where there is little memory, garbage is swept before it runs out. The tenth
	// is for what is not on the heap.
	if limit, ok := groupLimit(root); ok && getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit / 10 * 9)
	}
}

// groupLimit returns how much memory the control group of this process may use,
// as containers and systemd limit it. A machine's own memory is no such limit:
// it is shared with others, PostgreSQL perhaps among them.
func groupLimit(root string) (bytes int64, ok bool) {
	groups, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return 0, false // not Linux
	}
	// Version 1 writes "no limit" as a number near the largest.
	const unlimited = math.MaxInt64 / 2
	bytes = unlimited
	for line := range strings.Lines(string(groups)) {
		// 0::/path in version 2, and 7:cpu,memory:/path in version 1.
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		var dir, file string
		switch {
		case len(fields) != 3:
			continue
		case fields[1] == "":
			dir, file = "sys/fs/cgroup", "memory.max"
		case slices.Contains(strings.Split(fields[1], ","), "memory"):
			dir, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		// Groups further up bound it as well. Within a container the path may be one of
		// the machine outside, and the container's own group is the one at the top.
		for group := path.Clean("/" + fields[2]); ; group = path.Dir(group) {
			if text, err := os.ReadFile(filepath.Join(root, dir, group, file)); err == nil {
				if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 { // else it is "max"
					bytes = min(bytes, n)
				}
			}
			if group == "/" {
				break
			}
		}
	}
	return bytes, bytes < unlimited
}

package main

import (
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"
)

// fakeRoot writes files below a new folder and returns it.
func fakeRoot(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestGroupLimit(t *testing.T) {
	t.Parallel()
	const self, none = "proc/self/cgroup", 0
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"not Linux": {nil, none},
		"no files":  {map[string]string{self: "0::/\n"}, none},
		"container": {map[string]string{self: "0::/\n", "sys/fs/cgroup/memory.max": "268435456\n"}, 256 << 20},
		"unlimited": {map[string]string{self: "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, none},
		"nonsense":  {map[string]string{self: "\n::\n0\n0::/\n", "sys/fs/cgroup/memory.max": "much\n"}, none},
		"systemd": {map[string]string{self: "0::/system.slice/m.service\n",
			"sys/fs/cgroup/system.slice/m.service/memory.max": "1000\n", "sys/fs/cgroup/system.slice/memory.max": "max\n"},
			1000},
		"limited above": {map[string]string{self: "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "3000\n",
			"sys/fs/cgroup/a/memory.max": "2000\n"}, 2000},
		"limited below": {map[string]string{self: "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "2000\n",
			"sys/fs/cgroup/a/memory.max": "3000\n"}, 2000},
		"path outside": {map[string]string{self: "0::/../../other\n", "sys/fs/cgroup/memory.max": "4000\n",
			"sys/other/memory.max": "1\n"}, 4000},
		"version 1": {map[string]string{self: "8:cpuset:/x\n7:cpu,memory:/docker/abc\n0::/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "5000\n"}, 5000},
		"no limit in 1": {map[string]string{self: "7:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, none},
		"not of memory": {map[string]string{self: "7:cpu:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "5000\n"},
			none},
		"in version 1's": {map[string]string{self: "7:memory:/a\n", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "6000\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 6000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, ok := groupLimit(fakeRoot(t, c.files))
			if ok != (c.want != none) || ok && got != c.want {
				t.Errorf("groupLimit = %d, %t; want %d", got, ok, c.want)
			}
		})
	}
}

// The command sets the garbage collector up as its own memory suggests, and leaves
// alone what the user has set. It is not parallel: the process has one collector.
func TestTuneMemory(t *testing.T) { //nolint:paralleltest // see above
	limited := fakeRoot(t, map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1000000000\n"})
	for name, c := range map[string]struct { //nolint:paralleltest // see above
		root        string
		env         map[string]string
		percent     int
		memoryLimit int64
	}{
		"by default":        {limited, nil, 400, 900_000_000},
		"without a limit":   {t.TempDir(), nil, 400, math.MaxInt64},
		"GOGC set":          {limited, map[string]string{"GOGC": "50"}, 77, 900_000_000},
		"GOMEMLIMIT set":    {limited, map[string]string{"GOMEMLIMIT": "1GiB"}, 400, math.MaxInt64},
		"both switched off": {limited, map[string]string{"GOGC": "off", "GOMEMLIMIT": "off"}, 77, math.MaxInt64},
	} {
		t.Run(name, func(t *testing.T) {
			percent, memory := debug.SetGCPercent(77), debug.SetMemoryLimit(math.MaxInt64)
			tuneMemory(func(key string) string { return c.env[key] }, c.root)
			if got := debug.SetGCPercent(percent); got != c.percent {
				t.Errorf("GC percent = %d; want %d", got, c.percent)
			}
			if got := debug.SetMemoryLimit(memory); got != c.memoryLimit {
				t.Errorf("memory limit = %d; want %d", got, c.memoryLimit)
			}
		})
	}
}

// Every command begins with it.
func TestRunTunesMemory(t *testing.T) {
	t.Setenv("GOGC", "")
	before := debug.SetGCPercent(77)
	if code := run(t.Context(), []string{"version"}); code != exitOK {
		t.Errorf("version = %d; want %d", code, exitOK)
	}
	if got := debug.SetGCPercent(before); got != gcPercent {
		t.Errorf("GC percent = %d; want %d", got, gcPercent)
	}
}

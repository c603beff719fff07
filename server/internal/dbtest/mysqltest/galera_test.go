package mysqltest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A server that crashes while it recovers its position is asked again, but not for ever.
// One that ends by itself has said why, and is not asked again.
func TestRecoveryThatCrashes(t *testing.T) {
	t.Parallel()
	const position = "0d6f-11f0:305"
	for _, c := range []struct {
		name, end string // how its first runs end
		ends      int    // the number of these runs
		runs      int
		ok        bool
	}{
		{"twice", "kill -SEGV $$", 2, 3, true},
		{"each time", "kill -SEGV $$", 100, 3, false},
		{"an error", "exit 1", 1, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			n := &Node{Server: &Server{dir: dir, programs: programs{server: filepath.Join(dir, "mariadbd")}}}
			script := fmt.Sprintf("#!/bin/sh\necho run >> runs\n[ $(wc -l < runs) -gt %d ] || %s\n"+
				"echo 'WSREP: Recovered position: %s'\n", c.ends, c.end, position)
			syscall.ForkLock.RLock() // a process that is forked now would keep the file open for writing
			err := os.WriteFile(n.programs.server, []byte(script), 0o700)
			syscall.ForkLock.RUnlock()
			if err != nil {
				t.Fatalf("WriteFile = %v", err)
			}
			got, err := n.recoverPosition(t.Context())
			if (err == nil) != c.ok || c.ok && got != position {
				t.Errorf("recoverPosition = %q, %v; want %q: %v", got, err, position, c.ok)
			}
			runs, err := os.ReadFile(filepath.Join(dir, "runs"))
			if n := strings.Count(string(runs), "\n"); err != nil || n != c.runs {
				t.Errorf("%d runs, %v; want %d", n, err, c.runs)
			}
		})
	}
}

package pgembed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
)

// How long a leftover server may take to shut down before it gets an immediate
// shutdown, and then a kill.
const (
	leftoverGrace = 30 * time.Second
	leftoverQuit  = leftoverGrace + 10*time.Second
	leftoverLimit = leftoverGrace + 20*time.Second
)

// endLeftovers ends the processes of this cluster that an earlier run left behind.
// The caller holds the folder's lock, so they are no longer in use.
//
// A server whose parent was killed may still be running. Children of a server that
// was itself killed exit unless they are busy; until the last one has exited, its
// shared memory prevents a new server from starting.
func (c *cluster) endLeftovers(ctx context.Context) error {
	for begun := time.Now(); ; {
		commands, err := commandLines(ctx)
		if err != nil {
			return fmt.Errorf("list processes: %w", err)
		}
		servers, children := c.members(commands)
		age := time.Since(begun)
		switch {
		case len(servers) > 0: // a server ends its own children
			signal(servers, escalate(age, syscall.SIGINT))
		case len(children) > 0:
			signal(children, escalate(age+leftoverGrace, syscall.SIGQUIT))
		default:
			return c.dropStalePidFile(commands)
		}
		if age > leftoverLimit {
			return fmt.Errorf("processes of an earlier server do not exit: %v", append(servers, children...))
		}
		if clock.Sleep(ctx, 20*time.Millisecond) != nil {
			return ctx.Err()
		}
	}
}

// escalate returns the next signal for a process that has been stopping for the
// given time.
func escalate(age time.Duration, first syscall.Signal) syscall.Signal {
	switch {
	case age < leftoverGrace:
		return first
	case age < leftoverQuit:
		return syscall.SIGQUIT
	default:
		return syscall.SIGKILL
	}
}

// signal sends sig and ignores errors: the next listing shows what is left.
func signal(pids []int, sig syscall.Signal) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, sig)
	}
}

// isPostgres matches the command line of a PostgreSQL server or of one of its
// children, and possibly of an unrelated process.
var isPostgres = regexp.MustCompile(`(^|/)postgres:? `)

// members selects this cluster's processes by their command lines. A server has the
// tag in its arguments, a child in its title: "postgres: TAG: checkpointer".
func (c *cluster) members(commands map[int]string) (servers, children []int) {
	for pid, cmd := range commands {
		switch {
		case strings.HasPrefix(cmd, "postgres: "+c.tag):
			children = append(children, pid)
		case isPostgres.MatchString(cmd) && strings.Contains(cmd, "-c cluster_name="+c.tag):
			servers = append(servers, pid)
		}
	}
	return servers, children
}

// dropStalePidFile removes a pid file that names a running process other than
// PostgreSQL, which the server would mistake for another server on the same data.
// The server itself handles a file that names a dead process. A file that names a
// PostgreSQL may be right: a server may have been started there by hand.
func (c *cluster) dropStalePidFile(commands map[int]string) error {
	path := filepath.Join(c.pgdata, "postmaster.pid")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read pid file: %w", err)
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, _ := strconv.Atoi(strings.TrimSpace(first)) // the server handles what is not a number
	alive := pid > 0 && syscall.Kill(pid, 0) == nil
	if !alive || isPostgres.MatchString(commands[pid]+" ") {
		return nil
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove stale pid file: %w", err)
	}
	return nil
}

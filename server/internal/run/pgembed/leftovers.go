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
)

// How long a server left behind by a dead process of ours may take to shut down
// before it is cut off, and then killed.
const (
	leftoverGrace = 30 * time.Second
	leftoverQuit  = leftoverGrace + 10*time.Second
	leftoverLimit = leftoverGrace + 20*time.Second
)

// endLeftovers ends every process of this cluster that an earlier server has left.
// We hold the folder's lock, so nobody is using them any more.
//
// A server whose parent was killed may still be up. The children of a server that
// was itself killed go by themselves, unless they are busy; until the last is gone
// its shared memory keeps a new server from starting.
func (c *cluster) endLeftovers(ctx context.Context) error {
	for begun := time.Now(); ; {
		commands, err := commandLines(ctx)
		if err != nil {
			return fmt.Errorf("list processes: %w", err)
		}
		servers, children := c.members(commands)
		age := time.Since(begun)
		switch {
		case len(servers) > 0: // it ends its children itself
			signal(servers, escalate(age, syscall.SIGINT))
		case len(children) > 0:
			signal(children, escalate(age+leftoverGrace, syscall.SIGQUIT))
		default:
			return c.dropStalePidFile(commands)
		}
		if age > leftoverLimit {
			return fmt.Errorf("processes of an earlier server do not end: %v", append(servers, children...))
		}
		if !sleep(ctx, 20*time.Millisecond) {
			return ctx.Err()
		}
	}
}

// escalate is the signal for a process that has been asked to go for the given time.
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

// signal sends sig. A process that is gone or not ours shows in the next listing.
func signal(pids []int, sig syscall.Signal) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, sig)
	}
}

// isPostgres matches the command line of a PostgreSQL server or of one of its
// children, and the odd stranger: it decides what is left alone.
var isPostgres = regexp.MustCompile(`(^|/)postgres:? `)

// members picks this cluster's processes out of all command lines. A server has the
// tag among its arguments, a child in its title, "postgres: TAG: checkpointer".
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

// dropStalePidFile removes a pid file that names a living process that is no
// PostgreSQL. The server would take it for another server on the same data. A file that
// names a dead process it judges itself, shared memory included; and one that
// names a PostgreSQL may be right: someone has started a server there by hand.
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
	pid, _ := strconv.Atoi(strings.TrimSpace(first)) // what is no number is for the server to judge
	alive := pid > 0 && syscall.Kill(pid, 0) == nil
	if !alive || isPostgres.MatchString(commands[pid]+" ") {
		return nil
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove stale pid file: %w", err)
	}
	return nil
}

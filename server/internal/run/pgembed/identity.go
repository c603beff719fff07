package pgembed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// identity is the account of the server. PostgreSQL refuses to run as root or as an
// account without a name.
type identity struct {
	mode     identityMode
	uid, gid int // as seen by the server
}

type identityMode int

const (
	asSelf   identityMode = iota // the account of this process
	asOther                      // another account; needs root
	asMapped                     // the account of this process, mapped to another in a user namespace
)

// String describes the identity for the log.
func (id identity) String() string {
	switch id.mode {
	case asOther:
		return fmt.Sprintf("account %d", id.uid)
	case asMapped:
		return fmt.Sprintf("own account, seen as %d in a user namespace", id.uid)
	default:
		return "own account"
	}
}

// chooseIdentity returns an account that PostgreSQL accepts and that can access
// both its programs and the data folder. It keeps the owner of an existing cluster.
func chooseIdentity(ctx context.Context, dir, pgdata, bin string) (identity, error) {
	self := os.Geteuid()
	if self != 0 {
		if _, err := user.LookupId(strconv.Itoa(self)); err == nil {
			return identity{mode: asSelf}, nil
		}
	}
	uid, gid, err := unprivileged()
	if err != nil {
		return identity{}, err
	}
	other, mapped := identity{asOther, uid, gid}, identity{asMapped, uid, gid}
	candidates := []identity{other, mapped}
	var st syscall.Stat_t
	switch {
	case self != 0:
		candidates = []identity{mapped}
	case syscall.Stat(pgdata, &st) != nil: // no cluster yet
	case st.Uid == 0:
		candidates = []identity{mapped}
	default:
		candidates = []identity{{asOther, int(st.Uid), int(st.Gid)}}
	}
	var refused []error
	for _, id := range candidates {
		err := id.probe(ctx, dir, bin)
		if err == nil {
			return id, nil
		}
		refused = append(refused, fmt.Errorf("as %s: %w", id, err))
	}
	return identity{}, fmt.Errorf(
		"no account can run postgres here; choose a data folder that every account may pass through, "+
			"such as one outside root's home, or run as an ordinary user: %w", errors.Join(refused...))
}

// unprivileged returns an account to use instead of root.
func unprivileged() (uid, gid int, err error) {
	for _, name := range []string{"postgres", "_postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errU := strconv.Atoi(u.Uid)
		gid, errG := strconv.Atoi(u.Gid)
		if errU == nil && errG == nil && uid > 0 {
			return uid, gid, nil
		}
	}
	return 0, 0, errors.New("postgres needs an unprivileged account, and this machine has neither postgres nor nobody")
}

// probe runs postgres --version as id in dir, so the kernel decides whether id can
// access both.
func (id identity) probe(ctx context.Context, dir, bin string) error {
	out, err := id.output(ctx, dir, filepath.Join(bin, "postgres"), "-V")
	if err != nil && len(out) > 0 {
		return fmt.Errorf("%w: %s", err, oneLine(out))
	}
	return err
}

// command prepares a PostgreSQL program to run as id with a minimal environment:
// PGDATA, PGPORT and similar variables concern other servers.
func (id identity) command(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC", "HOME=/nonexistent"}
	cmd.SysProcAttr = id.attr()
	cmd.WaitDelay = 5 * time.Second // for a grandchild that keeps the output open
	return cmd
}

// output runs a PostgreSQL program as id and returns its output.
func (id identity) output(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	// The program receives a signal when the thread that started it ends (see
	// attr). So no other goroutine may use this thread, and end it, while the
	// program runs.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return id.command(ctx, dir, name, args...).CombinedOutput()
}

// mkdir creates a folder closed to everyone but id.
func (id identity) mkdir(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return fmt.Errorf("create folder: %w", err)
	}
	if id.mode != asOther {
		return nil
	}
	if err := os.Chown(path, id.uid, id.gid); err != nil {
		return fmt.Errorf("give folder away: %w", err)
	}
	return nil
}

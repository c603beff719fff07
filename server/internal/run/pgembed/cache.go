package pgembed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
)

// errCache means that a folder cannot be used to install PostgreSQL into.
var errCache = errors.New("the cache directory cannot be used")

// unfinished begins the name of a folder that is being installed into.
const unfinished = "installing-"

// sharedCache returns the folder that the data folders of an account share.
//
// Root does not use the cache of its home: the server's account cannot reach it, and
// after sudo it may be that of a user, who could replace the programs.
func sharedCache() (string, error) {
	dir := "/var/cache"
	if os.Geteuid() != 0 || os.Getenv("XDG_CACHE_HOME") != "" {
		var err error
		if dir, err = os.UserCacheDir(); err != nil {
			return "", fmt.Errorf("%w: %w", errCache, err)
		}
	}
	dir = filepath.Join(dir, "liveblocks-mirror", "postgres")
	return dir, passable(dir)
}

// passable returns an error if the account that runs the server for root could not
// reach dir.
func passable(dir string) error {
	if os.Geteuid() != 0 {
		return nil // this account runs the server
	}
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it will be open
		case err != nil:
			return fmt.Errorf("%w: %w", errCache, err)
		case info.Mode()&0o001 == 0:
			return fmt.Errorf("%w: only root may pass through %s", errCache, dir)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// lockCache creates the folder, waits until no other process installs into it, and
// clears what one left unfinished.
func lockCache(ctx context.Context, dir string) (unlock func(), err error) {
	if err := openFolder(dir); err != nil {
		return nil, fmt.Errorf("%w: %w", errCache, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errCache, err)
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			break
		}
		if err := clock.Sleep(ctx, 100*time.Millisecond); err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("wait for another process that installs PostgreSQL into %s: %w", dir, err)
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%w: lock %s: %w", errCache, dir, err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, unfinished+"*")) // the pattern is well formed
	for _, folder := range left {
		_ = os.RemoveAll(folder) // it only takes room
	}
	return func() {
		// Unlock before closing, as in cluster.close.
		_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
		_ = f.Close()
	}, nil
}

// openFolder creates a folder that every account may read, whatever the umask: that
// of the server is another one than root.
func openFolder(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := openFolder(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) { //nolint:gosec // see above
		return err
	}
	return os.Chmod(dir, 0o755) //nolint:gosec // see above
}

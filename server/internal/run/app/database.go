package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/pgembed"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/engine"
)

// database is the open store and, if there is one, the server behind it.
type database struct {
	store    store.Store
	embedded *pgembed.Server
	// readOnly means that the server took no writes at the start.
	readOnly bool
	// migrated means that the schema was brought up to date.
	migrated bool
}

// startEmbedded starts the embedded PostgreSQL and points cfg to it.
func startEmbedded(ctx context.Context, cfg config.Database, log *slog.Logger) (*pgembed.Server, config.Database,
	error,
) {
	dir, err := DataDir(cfg)
	if err != nil {
		return nil, cfg, err
	}
	server, err := pgembed.Start(ctx, pgembed.Config{DataDir: dir, BinDir: cfg.PGBin, Logger: log})
	if errors.Is(err, pgembed.ErrNoBinaries) {
		err = fmt.Errorf("%w, or set DATABASE_URL to use your own server", err)
	}
	if err != nil {
		return nil, cfg, err
	}
	cfg.DatabaseURL = config.NewSecret(server.URL())
	return server, cfg, nil
}

// DataDir returns the directory of the embedded PostgreSQL: that of the settings, or the
// usual place for the data of a service or, if not root, of a user.
func DataDir(cfg config.Database) (string, error) {
	if cfg.DataDir != "" {
		return cfg.DataDir, nil
	}
	if os.Geteuid() == 0 {
		return "/var/lib/liveblocks-mirror", nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", errors.New(
			"this user has no home directory for the embedded PostgreSQL; set MIRROR_DATA_DIR, or set DATABASE_URL to use " +
				"your own server")
	}
	return filepath.Join(home, ".local", "share", "liveblocks-mirror"), nil
}

// openDatabase opens the store, migrates its schema if requested, and checks that
// it can be used. roles are those of the configuration.
func openDatabase(ctx context.Context, cfg config.Database, roles config.Roles, migrate bool,
	log *slog.Logger,
) (*database, error) {
	db := &database{}
	if cfg.DatabaseURL.Reveal() == "" {
		var err error
		if db.embedded, cfg, err = startEmbedded(ctx, cfg, log); err != nil {
			return nil, err
		}
		migrate = true
	}
	if err := db.open(ctx, cfg, roles, migrate, log); err != nil {
		db.close(context.WithoutCancel(ctx))
		return nil, err
	}
	return db, nil
}

func (db *database) open(ctx context.Context, cfg config.Database, roles config.Roles, migrate bool,
	log *slog.Logger,
) error {
	var refused error
	if migrate {
		err := onceStarted(ctx, cfg.DatabaseWait, log, func() error {
			return engine.Migrate(ctx, cfg.DirectURL(), log, roles.OwnerRole, roles.ServiceRole, roles.ReaderRole)
		})
		switch {
		case errors.Is(err, store.ErrReadOnly):
			refused = err // not necessary if the schema is current, which Ping knows
		case err != nil:
			return unreachable(cfg.DirectURL(), err)
		}
		db.migrated = refused == nil
	}
	s, err := engine.Open(ctx, engine.Config{
		URL: cfg.URL(), Pooled: cfg.Pooled(), MaxConns: cfg.DatabaseMaxConns,
		ReadTimeout: cfg.ReadTimeout,
	})
	if err != nil {
		return fmt.Errorf("check DATABASE_URL; it must look like postgres://user:password@host/name?sslmode=require or "+
			"mysql://user:password@host/name: %w", err)
	}
	db.store = s
	switch err := onceStarted(ctx, cfg.DatabaseWait, log, func() error { return s.Check(ctx, log) }); {
	case err != nil && fault.Of(err).Kind == fault.Unavailable:
		return unreachable(cfg.DatabaseURL.Reveal(), err)
	case err != nil:
		return err
	}
	switch err := onceStarted(ctx, cfg.DatabaseWait, log, func() error { return s.Ping(ctx) }); {
	case errors.Is(err, store.ErrSchemaBehind) && refused != nil:
		return refused
	case errors.Is(err, store.ErrSchemaBehind):
		return errors.New("the database schema is missing or older than this version needs; run `liveblocks-mirror " +
			"migrate`, or `serve --migrate`")
	case errors.Is(err, store.ErrReadOnly):
		db.readOnly = true
	case err != nil:
		return unreachable(cfg.DatabaseURL.Reveal(), err)
	}
	return nil
}

// onceStarted calls f again while the database is starting: it lives and says so, and to
// wait for it is quicker than to be restarted. One that cannot be reached is waited for
// as long as the setting says.
func onceStarted(ctx context.Context, wait time.Duration, log *slog.Logger, f func() error) error {
	begin, told := time.Now(), false
	for {
		err := f()
		// Told before the time is looked at: one attempt may have taken all of it.
		if !told && wait > 0 && isUnreachable(err) {
			told = true
			log.WarnContext(ctx, "waiting for the database", slog.Duration("at_most", wait), slog.Any("error", err))
		}
		if !errors.Is(err, store.ErrStarting) && (!isUnreachable(err) || time.Since(begin) >= wait) {
			return err
		}
		if clock.Sleep(ctx, startingEvery) != nil {
			return err
		}
	}
}

// isUnreachable reports whether there was no connection to the server of the database.
func isUnreachable(err error) bool {
	_, network := errors.AsType[net.Error](err)
	return network || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// startingEvery is the time between two attempts to use a database that is starting.
const startingEvery = 250 * time.Millisecond

// unreachable names the server that could not be reached, never the password.
func unreachable(rawURL string, err error) error {
	where := "the database"
	if u, perr := url.Parse(rawURL); perr == nil && u.Host != "" {
		where = "the database at " + u.Host
	}
	return fmt.Errorf("cannot use %s; check DATABASE_URL, and that the server is running and accepts connections from "+
		"this machine: %w", where, err)
}

// embeddedPatience is how long the embedded database may take to write its data to disk.
// After that it is shut down at once: it recovers at the next start, and the process ends
// even if the database hangs.
const embeddedPatience = time.Minute

func (db *database) close(ctx context.Context) {
	if db.store != nil {
		db.store.Close()
	}
	if db.embedded != nil {
		ctx, cancel := context.WithTimeout(ctx, embeddedPatience)
		defer cancel()
		_ = db.embedded.Stop(ctx) // it logs its errors, and the process ends
	}
}

// indexLists indexes what earlier versions have written. Nobody waits for it, and lists do
// without: they look at what is not indexed.
func (a *App) indexLists(ctx context.Context) error {
	if err := engine.Index(ctx, a.db.store, a.log); err != nil && ctx.Err() == nil {
		a.log.WarnContext(ctx, "cannot index rooms and threads for lists; the next sweep goes on", slog.Any("error", err))
	}
	<-ctx.Done()
	return nil
}

// Migrate migrates the schema of the configured database, and indexes what is in it.
func Migrate(ctx context.Context, cfg config.Database, roles config.Roles, log *slog.Logger) error {
	db, err := openDatabase(ctx, cfg, roles, true, log)
	if err != nil {
		return err
	}
	defer db.close(context.WithoutCancel(ctx))
	if db.readOnly {
		return errors.New("the database takes no writes: it is a standby, or was set read-only; check that DATABASE_URL " +
			"leads to the primary")
	}
	log.InfoContext(ctx, "the database schema is up to date")
	return engine.Index(ctx, db.store, log)
}

// PrintMigrations writes the statements that Migrate would run on an empty database: a
// PostgreSQL one if the configured one is, otherwise a MySQL one.
func PrintMigrations(cfg config.Database, w io.Writer) error {
	_, err := io.WriteString(w, engine.Migrations(cfg.DirectURL()))
	return err
}

// PrintVSchema writes the VSchema of a sharded keyspace of Vitess.
func PrintVSchema(w io.Writer) error {
	_, err := io.WriteString(w, engine.VSchema())
	return err
}

// PrintGrants writes the statements that make roles with least rights: PostgreSQL's if the
// configured database is one, otherwise MySQL's.
func PrintGrants(cfg config.Database, roles config.Roles, w io.Writer) error {
	text, err := engine.Grants(cfg.DirectURL(), store.Roles{
		Owner: roles.OwnerRole, Service: roles.ServiceRole, Reader: roles.ReaderRole,
	})
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, text)
	return err
}

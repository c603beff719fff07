package move

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/clock"
)

const (
	// LockWait is how long a statement that needs a table for itself waits for those who use
	// it. All others wait behind it meanwhile, webhooks too.
	LockWait = 3 * time.Second
	// lockPause is the time for these between two attempts, and lockPatience how long it waits
	// in all, without the work between.
	lockPause    = 5 * time.Second
	lockPatience = 5 * time.Minute
)

// Up applies the migrations one by one, so that the log tells how far it is. It tries one
// again that did not get its table, which locked recognizes; each can be run again.
func Up(ctx context.Context, provider *goose.Provider, locked func(error) bool, log *slog.Logger) error {
	var waited time.Duration
	for {
		m, err := provider.UpByOne(ctx)
		switch {
		case errors.Is(err, goose.ErrNoNextVersion):
			return nil
		case err == nil:
			log.InfoContext(ctx, "migration applied", slog.Int64("version", m.Source.Version), slog.Duration("took", m.Duration))
			waited = 0
			continue
		case !locked(err):
			return err
		case waited == 0:
			log.InfoContext(ctx, "a migration waits until no transaction uses its table; others go on")
		case waited >= lockPatience:
			return fmt.Errorf("transactions have used the table for %s, such as a dump of the database; run migrate again "+
				"when it has ended: %w", lockPatience, err)
		}
		waited += LockWait + lockPause
		if err := clock.Sleep(ctx, lockPause); err != nil {
			return err
		}
	}
}

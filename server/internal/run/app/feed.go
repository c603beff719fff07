package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
)

// ResetFeed gives the feed of changes of every project a new identity, so that no token from
// before is accepted any more, and says on out how many there are. Unless it is confirmed, it
// only says what it would do. A running service finds out within a minute.
func ResetFeed(ctx context.Context, cfg config.Database, confirmed bool, out io.Writer, log *slog.Logger) error {
	if !confirmed {
		_, err := fmt.Fprintln(out, "all who follow the changes would have to start anew\n"+
			"nothing was changed; run it again with --yes to end their tokens")
		return err
	}
	db, err := openDatabase(ctx, cfg, config.Roles{}, false, log)
	if err != nil {
		return err
	}
	defer db.close(context.WithoutCancel(ctx))
	if db.readOnly {
		return errors.New("the database takes no writes; check that DATABASE_URL leads to the primary")
	}
	n, err := db.store.ForgetFeeds(ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "the tokens of %d feeds are no longer accepted; a running service knows within a minute\n",
		n)
	return err
}

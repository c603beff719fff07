package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
)

// ResetFeeds is how many feeds of changes got a new identity.
type ResetFeeds struct {
	Feeds int64 `json:"feeds"`
	Reset bool  `json:"reset"`
}

// Say writes it for people.
func (r ResetFeeds) Say(w io.Writer) {
	if !r.Reset {
		_, _ = fmt.Fprintln(w, "all who follow the changes would have to start again\n"+
			"nothing was changed; run it again with --yes to end their tokens")
		return
	}
	_, _ = fmt.Fprintf(w, "the tokens of %d feeds are no longer accepted; a running service knows within a minute\n",
		r.Feeds)
}

// ResetFeed gives the feed of changes of every project a new identity, so that no token from
// before is accepted any more. Unless it is confirmed, it does nothing. A running service
// finds out within a minute.
func ResetFeed(ctx context.Context, cfg config.Database, confirmed bool, log *slog.Logger) (Result, error) {
	if !confirmed {
		return ResetFeeds{}, nil
	}
	db, err := openDatabase(ctx, cfg, config.Roles{}, false, log)
	if err != nil {
		return nil, err
	}
	defer db.close(context.WithoutCancel(ctx))
	if db.readOnly {
		return nil, errors.New("the database takes no writes; check that DATABASE_URL leads to the primary")
	}
	n, err := db.store.ForgetFeeds(ctx)
	if err != nil {
		return nil, err
	}
	return ResetFeeds{n, true}, nil
}

package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

const (
	// purgeRooms is how many deleted rooms are listed at once, and purgeRows how many rows
	// a transaction of the purge changes at most.
	purgeRooms = 1000
	purgeRows  = 1000
)

// Purge says what [PurgeRooms] does.
type Purge struct {
	Project string
	// DeletedBefore is how long ago a room must have been deleted.
	DeletedBefore time.Duration
	// Delete means to delete. Otherwise it is only counted.
	Delete bool
}

// PurgeRooms deletes what deleted rooms have left, and says on out how much that is. A
// service may run meanwhile.
func PurgeRooms(ctx context.Context, cfg config.Database, p Purge, out io.Writer, log *slog.Logger) error {
	db, err := openDatabase(ctx, cfg, config.Roles{}, false, log)
	if err != nil {
		return err
	}
	defer db.close(context.WithoutCancel(ctx))
	if db.readOnly && p.Delete {
		return errors.New("the database takes no writes; check that DATABASE_URL leads to the primary")
	}
	rooms, rows, err := purge(ctx, db.store, p, time.Now())
	verb := "there are"
	if p.Delete {
		verb = "purged"
	}
	_, printed := fmt.Fprintf(out, "%s %d rows of %d rooms that were deleted more than %v ago\n", verb, rows, rooms,
		p.DeletedBefore)
	if err == nil && !p.Delete && rows > 0 {
		_, printed = fmt.Fprintln(out, "nothing was changed; run it again with --yes to delete them for good")
	}
	return errors.Join(err, printed)
}

// purge purges or counts, and returns how many rooms have left something, and how many
// rows.
func purge(ctx context.Context, s store.Purge, p Purge, now time.Time) (rooms int, rows int64, err error) {
	project, before := mirror.ProjectID(p.Project), now.Add(-p.DeletedBefore)
	for after := mirror.RoomID(""); ; {
		ids, err := s.DeletedRooms(ctx, project, before, after, purgeRooms)
		if err != nil || len(ids) == 0 {
			return rooms, rows, err
		}
		for _, id := range ids {
			n, err := purgeRoom(ctx, s, mirror.Resource{Project: project, Room: id, Kind: mirror.KindRoom}, before, p.Delete)
			if rows += n; n > 0 {
				rooms++
			}
			if err != nil {
				return rooms, rows, err
			}
		}
		after = ids[len(ids)-1]
	}
}

func purgeRoom(ctx context.Context, s store.Purge, room mirror.Resource, before time.Time, remove bool) (int64, error) {
	if !remove {
		return s.Remains(ctx, room)
	}
	for rows := int64(0); ; {
		n, err := s.PurgeRoom(ctx, room, before, purgeRows)
		if rows += int64(n); err != nil || n == 0 {
			return rows, err
		}
	}
}

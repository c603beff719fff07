package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"text/tabwriter"
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
	_, printed := fmt.Fprintf(out, "%s %d rows of %d rooms of the project %s that were deleted more than %v ago\n", verb,
		rows, rooms, p.Project, p.DeletedBefore)
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

// ListProjects says on out which projects are configured, and of which others something
// is stored.
func ListProjects(ctx context.Context, cfg config.Database, configured []mirror.ProjectID, out io.Writer,
	log *slog.Logger,
) error {
	db, err := openDatabase(ctx, cfg, config.Roles{}, false, log)
	if err != nil {
		return err
	}
	defer db.close(context.WithoutCancel(ctx))
	stored, err := db.store.ProjectIDs(ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, id := range configured {
		state := "configured"
		if !slices.Contains(stored, id) {
			state = "configured, nothing is stored of it yet"
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\n", id, state) // Flush returns the error
	}
	for _, id := range removed(stored, configured) {
		_, _ = fmt.Fprintf(w, "%s\tremoved; `liveblocks-mirror projects purge %s` deletes its rows\n", id, id)
	}
	return w.Flush()
}

// removed returns the projects of which something is stored and that are not configured.
func removed(stored, configured []mirror.ProjectID) []mirror.ProjectID {
	return slices.DeleteFunc(slices.Clone(stored), func(id mirror.ProjectID) bool {
		return slices.Contains(configured, id)
	})
}

// PurgeProject deletes, or only counts, the rows of a project that is not configured any
// more, and says on out how many. It can be run again after an interruption.
func PurgeProject(ctx context.Context, cfg config.Database, configured []mirror.ProjectID, project string,
	remove bool, out io.Writer, log *slog.Logger,
) error {
	id := mirror.ProjectID(project)
	if slices.Contains(configured, id) {
		return fmt.Errorf("project %q is configured; remove it from the settings of the service and restart that first", id)
	}
	db, err := openDatabase(ctx, cfg, config.Roles{}, false, log)
	if err != nil {
		return err
	}
	defer db.close(context.WithoutCancel(ctx))
	if db.readOnly && remove {
		return errors.New("the database takes no writes; check that DATABASE_URL leads to the primary")
	}
	all, err := remains(ctx, db.store, id)
	if err != nil {
		return err
	}
	if !remove {
		_, err := fmt.Fprintf(out, "there are %d rows of project %s\nnothing was changed; run it again with --yes to delete "+
			"them for good\n", all, id)
		return err
	}
	return purgeProject(ctx, db.store, id, all, out)
}

// purgeSteps is how often a purge tells its progress.
const purgeSteps = 8

func purgeProject(ctx context.Context, s store.Purge, id mirror.ProjectID, all int64, out io.Writer) error {
	purged := int64(0)
	for bucket := range int16(mirror.Buckets) {
		for n := purgeRows; n == purgeRows; purged += int64(n) {
			var err error
			if n, err = s.PurgeProject(ctx, id, bucket, purgeRows); err != nil {
				return fmt.Errorf("%d of %d rows are purged; run it again to go on: %w", purged, all, err)
			}
		}
		if (bucket+1)%(mirror.Buckets/purgeSteps) == 0 {
			if _, err := fmt.Fprintf(out, "purged %d of %d rows of project %s\n", purged, all, id); err != nil {
				return err
			}
		}
	}
	// Without the row of the project, nothing would tell that there are others.
	left, err := remains(ctx, s, id)
	switch {
	case err != nil:
		return err
	case left > 0:
		return fmt.Errorf("%d rows of project %s have come meanwhile: a service still has it in its settings; restart that "+
			"without it, and run the purge again", left, id)
	}
	return s.ForgetProject(ctx, id)
}

// remains counts the rows that a purge of the project would delete.
func remains(ctx context.Context, s store.Purge, id mirror.ProjectID) (all int64, err error) {
	for bucket := range int16(mirror.Buckets) {
		n, err := s.RemainsOfProject(ctx, id, bucket)
		if all += n; err != nil {
			return all, err
		}
	}
	return all, nil
}

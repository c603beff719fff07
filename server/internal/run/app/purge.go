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

// Result is what a command on the database has done. Its JSON is for programs.
type Result interface {
	// Say writes it for people.
	Say(w io.Writer)
}

const again = "nothing was changed; run it again with --yes to delete them for good\n"

// PurgedRooms is what deleted rooms had left, or still have.
type PurgedRooms struct {
	Project string `json:"project"`
	// Rooms and Rows are those that were purged or counted.
	Rooms int   `json:"rooms"`
	Rows  int64 `json:"rows"`
	// Purged means that they were purged, not only counted.
	Purged bool `json:"purged"`
	// Complete means that they are all.
	Complete bool `json:"complete"`

	before time.Duration
}

// Say writes it for people.
func (r PurgedRooms) Say(w io.Writer) {
	verb, hint := "purged", ""
	switch {
	case !r.Complete && (r.Rows == 0 || !r.Purged):
		return // the error says it all
	case !r.Purged:
		if verb = "there are"; r.Rows > 0 {
			hint = again
		}
	}
	_, _ = fmt.Fprintf(w, "%s %d rows of %d rooms of the project %s that were deleted more than %v ago\n%s", verb, r.Rows,
		r.Rooms, r.Project, r.before, hint)
}

// PurgeRooms deletes, or only counts, what deleted rooms have left. A service may run
// meanwhile. With an error, the result is what was done before it, or nil.
func PurgeRooms(ctx context.Context, cfg config.Database, p Purge, log *slog.Logger) (Result, error) {
	db, err := openDatabase(ctx, cfg, config.Roles{}, false, log)
	if err != nil {
		return nil, err
	}
	defer db.close(context.WithoutCancel(ctx))
	if db.readOnly && p.Delete {
		return nil, errors.New("the database takes no writes; check that DATABASE_URL leads to the primary")
	}
	return purge(ctx, db.store, p, time.Now())
}

// purge purges or counts.
func purge(ctx context.Context, s store.Purge, p Purge, now time.Time) (PurgedRooms, error) {
	done := PurgedRooms{Project: p.Project, Purged: p.Delete, before: p.DeletedBefore}
	project, before := mirror.ProjectID(p.Project), now.Add(-p.DeletedBefore)
	for after := mirror.RoomID(""); ; {
		ids, err := s.DeletedRooms(ctx, project, before, after, purgeRooms)
		if err != nil || len(ids) == 0 {
			done.Complete = err == nil
			return done, err
		}
		for _, id := range ids {
			n, err := purgeRoom(ctx, s, mirror.Resource{Project: project, Room: id, Kind: mirror.KindRoom}, before, p.Delete)
			if done.Rows += n; n > 0 {
				done.Rooms++
			}
			if err != nil {
				return done, err
			}
		}
		after = ids[len(ids)-1]
	}
}

func purgeRoom(ctx context.Context, s store.Purge, room mirror.Resource, before time.Time, remove bool) (int64, error) {
	if !remove {
		left, err := s.Remains(ctx, room)
		return left.All(), err
	}
	rows, err := store.PurgeWhole(ctx, s, room, before, purgeRows)
	if errors.Is(err, store.ErrNotFound) { // it is back since it was listed, or may be
		err = nil
	}
	return rows.All(), err
}

// ListedProject is a project that is configured, or of which something is stored.
type ListedProject struct {
	Project string `json:"project"`
	// Configured means that the settings name it, otherwise it was removed from them.
	Configured bool `json:"configured"`
	// Stored means that something is stored of it.
	Stored bool `json:"stored"`
}

// Projects are those of a database and of the settings.
type Projects struct {
	Projects []ListedProject `json:"projects"`
}

// Say writes them for people.
func (ps Projects) Say(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, p := range ps.Projects {
		state := "configured"
		switch {
		case !p.Configured:
			state = fmt.Sprintf("removed; `liveblocks-mirror projects purge %s` deletes its rows", p.Project)
		case !p.Stored:
			state = "configured, nothing is stored of it yet"
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\n", p.Project, state)
	}
	_ = t.Flush()
}

// ListProjects returns which projects are configured, and of which others something is
// stored.
func ListProjects(ctx context.Context, cfg config.Database, configured []mirror.ProjectID, log *slog.Logger) (
	Result, error,
) {
	db, err := openDatabase(ctx, cfg, config.Roles{}, false, log)
	if err != nil {
		return nil, err
	}
	defer db.close(context.WithoutCancel(ctx))
	stored, err := db.store.ProjectIDs(ctx)
	if err != nil {
		return nil, err
	}
	var list Projects
	for _, id := range configured {
		list.Projects = append(list.Projects, ListedProject{string(id), true, slices.Contains(stored, id)})
	}
	for _, id := range removed(stored, configured) {
		list.Projects = append(list.Projects, ListedProject{string(id), false, true})
	}
	return list, nil
}

// removed returns the projects of which something is stored and that are not configured.
func removed(stored, configured []mirror.ProjectID) []mirror.ProjectID {
	return slices.DeleteFunc(slices.Clone(stored), func(id mirror.ProjectID) bool {
		return slices.Contains(configured, id)
	})
}

// PurgedProject is what a removed project had left, or still has.
type PurgedProject struct {
	Project string `json:"project"`
	// Rows are those that were purged or counted.
	Rows int64 `json:"rows"`
	// Purged means that they were purged, not only counted.
	Purged bool `json:"purged"`
	// Complete means that they are all, and that the project is gone if they were purged.
	Complete bool `json:"complete"`
}

// Say writes it for people, whom the progress has told of a purge.
func (p PurgedProject) Say(w io.Writer) {
	if p.Complete && !p.Purged {
		_, _ = fmt.Fprintf(w, "there are %d rows of project %s\n%s", p.Rows, p.Project, again)
	}
}

// PurgeProject deletes, or only counts, the rows of a project that is not configured any
// more, and tells the progress. It can be run again after an interruption.
func PurgeProject(ctx context.Context, cfg config.Database, configured []mirror.ProjectID, project string,
	remove bool, progress io.Writer, log *slog.Logger,
) (Result, error) {
	id := mirror.ProjectID(project)
	if slices.Contains(configured, id) {
		return nil, fmt.Errorf("project %q is configured; remove it from the settings of the service and restart that first",
			id)
	}
	db, err := openDatabase(ctx, cfg, config.Roles{}, false, log)
	if err != nil {
		return nil, err
	}
	defer db.close(context.WithoutCancel(ctx))
	if db.readOnly && remove {
		return nil, errors.New("the database takes no writes; check that DATABASE_URL leads to the primary")
	}
	rows, err := remains(ctx, db.store, id)
	if remove {
		all := rows
		if rows = 0; err == nil {
			rows, err = purgeProject(ctx, db.store, id, all, progress)
		}
	}
	return PurgedProject{project, rows, remove, err == nil}, err
}

// purgeSteps is how often a purge tells its progress.
const purgeSteps = 8

// purgeProject returns how many rows it has purged, also with an error.
func purgeProject(ctx context.Context, s store.Purge, id mirror.ProjectID, all int64, out io.Writer) (
	purged int64, err error,
) {
	for bucket := range int16(mirror.Buckets) {
		for n := purgeRows; n == purgeRows; purged += int64(n) {
			if n, err = s.PurgeProject(ctx, id, bucket, purgeRows); err != nil {
				return purged, fmt.Errorf("%d of %d rows are purged; run it again to go on: %w", purged, all, err)
			}
		}
		if (bucket+1)%(mirror.Buckets/purgeSteps) == 0 {
			if _, err := fmt.Fprintf(out, "purged %d of %d rows of project %s\n", purged, all, id); err != nil {
				return purged, err
			}
		}
	}
	// Without the row of the project, nothing would tell that there are others.
	left, err := remains(ctx, s, id)
	switch {
	case err != nil:
		return purged, err
	case left > 0:
		return purged, fmt.Errorf("%d rows of project %s have come meanwhile: a service still has it in its settings; "+
			"restart that without it, and run the purge again", left, id)
	}
	return purged, s.ForgetProject(ctx, id)
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

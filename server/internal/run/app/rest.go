package app

import (
	"context"
	"errors"
	"net/http"
	"time"

	"google.golang.org/grpc"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/memory"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/rest"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/rpc"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// rest returns what serves Liveblocks' own REST API, nil if it is off. long is the memory
// for long documents that are read.
func (a *App) rest(conn grpc.ClientConnInterface, door *entrance, decoding *memory.Budget, long int64,
) http.Handler {
	if a.cfg.RESTMode == "off" {
		return nil
	}
	return rest.New(rest.Config{
		Conn: conn, Authorize: door.authorize, Project: a.services.Project, WarnAfter: a.cfg.RESTWarnAfter,
		Paused: func(project string) (time.Time, bool) {
			s := a.projects.of(mirror.ProjectID(project)).client.Status()
			return s.PausedSince, s.Stopped
		},
		Failing: func(project string) time.Time {
			return a.projects.of(mirror.ProjectID(project)).client.Status().FailingSince
		},
		State: func(ctx context.Context, of mirror.Resource) (mirror.Task, bool, error) {
			switch task, err := a.db.store.Task(ctx, of, time.Now()); {
			case errors.Is(err, store.ErrNotFound):
				return mirror.Task{}, false, nil
			case err != nil:
				return mirror.Task{}, false, rpc.Refusal(ctx, err)
			default:
				return task, true, nil
			}
		},
		Unfetched: func(ctx context.Context, list mirror.Resource) (bool, error) {
			lacks, err := unfetched(ctx, a.db.store, list)
			if err != nil {
				return false, rpc.Refusal(ctx, err)
			}
			return lacks, nil
		},
		Decoding: decoding, Memory: max(long/2, 1), Now: time.Now, Logger: a.log,
	})
}

// tasksAtOnce is how many tasks are read at a time: most rooms have few that are not done.
const tasksAtOnce = 100

// unfetched reports whether something in a list waits for the fetch of a version that is
// known, or could not be fetched.
func unfetched(ctx context.Context, db store.TaskQuery, list mirror.Resource) (bool, error) {
	filter := store.TaskFilter{
		Project: list.Project, Room: list.Room, AfterRoom: list.Room, AfterKind: list.Kind, Now: time.Now(),
		Limit: tasksAtOnce,
	}
	for {
		tasks, err := db.TaskList(ctx, filter)
		if err != nil {
			return false, err
		}
		for _, task := range tasks {
			if task.Resource.Room != list.Room || task.Resource.Kind != list.Kind {
				return false, nil
			}
			if task.Generation > task.Applied {
				return true, nil
			}
		}
		if len(tasks) < tasksAtOnce {
			return false, nil
		}
		last := tasks[len(tasks)-1].Resource
		filter.AfterRoom, filter.AfterKind, filter.AfterID = last.Room, last.Kind, last.ID
	}
}

package app

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"google.golang.org/grpc"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/memory"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
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
		Mode:   rest.Mode{Upstream: a.cfg.RESTUpstream == "on", Writes: a.cfg.RESTMode == "write"},
		Permit: a.services.Permit, Forward: a.forward, Changed: a.changed, Record: a.services.RecordREST,
		Conn: conn, Authorize: door.authorize, Project: a.services.Project, WarnAfter: a.cfg.RESTWarnAfter,
		Refresh: func(ctx context.Context, of mirror.Resource) error {
			return a.projects.of(of.Project).pool.Refresh(ctx, of)
		},
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

// forward makes a call to Liveblocks for a project.
func (a *App) forward(project string, r *http.Request, before func() error) (*http.Response, error) {
	name := ""
	if caller, ok := access.From(r.Context()); ok {
		name = caller.Name
	}
	resp, err := a.projects.of(mirror.ProjectID(project)).client.Forward(name, r, before)
	switch {
	case errors.Is(err, liveblocks.ErrNoAnswer):
		return nil, rest.ErrNoAnswer
	case err != nil:
		return nil, rpc.Refusal(r.Context(), err)
	}
	return resp, nil
}

// requestTimeout ends the request for what a forwarded write has changed.
const requestTimeout = 2 * time.Second

// changed marks what a write has changed as stale, and reports whether it is mirrored by a
// time.
func (a *App) changed(ctx context.Context, changed []mirror.Request, until time.Time) bool {
	p := a.projects.of(changed[0].Resource.Project)
	asking, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	pending, err := p.pool.RequestEach(asking, changed)
	if err != nil {
		p.log.WarnContext(ctx, "what a forwarded write has changed cannot be requested", slog.Any("error", err))
		return false
	}
	if until.IsZero() {
		return false
	}
	waiting, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	return p.pool.Wait(waiting, pending) == nil
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

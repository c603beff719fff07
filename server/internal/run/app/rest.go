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
		Decoding: decoding, Memory: max(long/2, 1), Now: time.Now, Logger: a.log,
	})
}

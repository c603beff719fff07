package app

import (
	"context"
	"log/slog"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/liveblocks"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/sync/keycheck"
)

// recordTimeout limits the recording of a pause.
const recordTimeout = 10 * time.Second

// liveblocks returns the client of the service, and a function that returns clients
// for checks of the key, which do not depend on the first.
func (a *App) liveblocks(project mirror.ProjectID, version string) (*liveblocks.Client, func() keycheck.Fetcher,
	error,
) {
	key, err := liveblocks.ParseKey(a.cfg.SecretKey.Reveal())
	if err != nil {
		return nil, nil, &config.Error{Setting: "LIVEBLOCKS_SECRET_KEY", Problem: err.Error()}
	}
	url, err := liveblocks.ParseBaseURL(a.cfg.BaseURL)
	if err != nil {
		return nil, nil, &config.Error{Setting: "LIVEBLOCKS_BASE_URL", Problem: err.Error()}
	}
	pause := func(reason string) {
		ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
		defer cancel()
		if err := a.db.store.Pause(ctx, project, reason, time.Now()); err != nil {
			a.log.ErrorContext(ctx, "cannot record that the project is paused or resumed", slog.Any("error", err))
		}
	}
	cfg := liveblocks.Config{
		BaseURL: url, SecretKey: key, IdleTimeout: a.cfg.IdleTimeout, Timeout: a.cfg.CallTimeout,
		HedgeShare: a.cfg.HedgeShare, MaxBody: a.cfg.MaxAnswer,
		RatePerSecond: a.cfg.CallsPerSecond, ProbeMin: a.cfg.ProbeMin, ProbeMax: max(a.cfg.ProbeMin, probeMax),
		UserAgent: "liveblocks-mirror/" + version, Now: time.Now, Logger: a.log, OnPause: pause,
		Called:    a.metrics.Called(project),
		Transport: liveblocks.NewTransport(a.cfg.Fetches),
	}
	check := cfg
	check.OnPause = func(string) {}
	return liveblocks.New(cfg), func() keycheck.Fetcher { return liveblocks.New(check) }, nil
}

// probeMax is the maximum interval of probes while the key is refused.
const probeMax = 5 * time.Minute

// forgetPause deletes the pause that an earlier process recorded, because a refused
// key is replaced by a restart. If this key is refused too, that is recorded again.
func (a *App) forgetPause(ctx context.Context, id mirror.ProjectID) error {
	project, err := a.db.store.Project(ctx, id)
	if err != nil || project.PauseReason == "" {
		return err
	}
	return a.db.store.Pause(ctx, id, "", time.Now())
}

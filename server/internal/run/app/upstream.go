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

// connect makes the client of a project, and what makes clients for checks of the key,
// which do not depend on the first.
func (a *App) connect(p *project, version string) error {
	url, key, err := Upstream(p.cfg)
	if err != nil {
		return err
	}
	pause := func(reason string) {
		ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
		defer cancel()
		if err := a.db.store.Pause(ctx, p.id, reason, time.Now()); err != nil {
			p.log.ErrorContext(ctx, "cannot record that the project is paused or resumed", slog.Any("error", err))
		}
	}
	stopped := func(ctx context.Context) (string, time.Time, error) {
		ctx, cancel := context.WithTimeout(ctx, recordTimeout)
		defer cancel()
		stored, err := a.db.store.Project(ctx, p.id)
		return stored.Stopped(), stored.StopTime, err
	}
	cfg := liveblocks.Config{
		BaseURL: url, SecretKey: key, IdleTimeout: p.cfg.IdleTimeout, Timeout: p.cfg.CallTimeout,
		HedgeShare: p.cfg.HedgeShare, MaxBody: p.cfg.MaxAnswer,
		RatePerSecond: p.cfg.CallsPerSecond, ProbeMin: p.cfg.ProbeMin, ProbeMax: max(p.cfg.ProbeMin, probeMax),
		UserAgent: "liveblocks-mirror/" + version, Now: time.Now, Logger: p.log, OnPause: pause,
		Called: a.metrics.Called(p.id), Stopped: stopped,
		Transport: liveblocks.NewTransport(p.cfg.Fetches),
	}
	check := cfg
	check.OnPause, check.Stopped = func(string) {}, nil
	p.client, p.toCheck = liveblocks.New(cfg), func() keycheck.Fetcher { return liveblocks.New(check) }
	return nil
}

// Upstream returns where and with which key the API of Liveblocks is called.
func Upstream(p config.Project) (url liveblocks.BaseURL, key liveblocks.Key, err error) {
	if key, err = liveblocks.ParseKey(p.SecretKey.Reveal()); err != nil {
		return url, key, p.Wrong("LIVEBLOCKS_SECRET_KEY", err.Error())
	}
	if url, err = liveblocks.ParseBaseURL(p.BaseURL); err != nil {
		return url, key, p.Wrong("LIVEBLOCKS_BASE_URL", err.Error())
	}
	return url, key, nil
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

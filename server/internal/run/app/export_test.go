package app

import (
	"context"
	"log/slog"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/metrics"
)

// RunImpatiently is Run with another time that the event of a change may take.
func RunImpatiently(ctx context.Context, cfg config.Serve, log *slog.Logger, underway time.Duration) error {
	a := &App{cfg: cfg, log: log, metrics: metrics.New("test", time.Now), underway: underway}
	if err := a.prepare(ctx, "test"); err != nil {
		return err
	}
	return a.Serve(ctx)
}

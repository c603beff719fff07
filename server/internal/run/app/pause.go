package app

import (
	"context"
	"errors"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/fault"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

// pauseCheck is how often somebody who waits for a fetch looks, in memory, whether
// there will be one.
const pauseCheck = 50 * time.Millisecond

// Refresh fetches the resources anew and returns when that is applied.
func (a *App) Refresh(ctx context.Context, resources ...mirror.Resource) error {
	return a.unlessPaused(ctx, func(ctx context.Context) error { return a.pool.Refresh(ctx, resources...) })
}

// Verify compares the mirror with Liveblocks.
func (a *App) Verify(ctx context.Context, options mirror.VerifyOptions, report func(mirror.VerifyReport) error) error {
	return a.unlessPaused(ctx, func(ctx context.Context) error { return a.verifier.Verify(ctx, options, report) })
}

// await returns when the resources have caught up. Tasks that had failed before are
// started again: what is waited for may be a delivery that is repeated because of just
// that failure, and a repetition raises nothing.
func (a *App) await(ctx context.Context, pending []mirror.Pending) error {
	return a.unlessPaused(ctx, func(ctx context.Context) error {
		resources := make([]mirror.Resource, len(pending))
		for i, r := range pending {
			resources[i] = r.Resource
		}
		progress, err := a.db.store.Generations(ctx, resources)
		if err != nil {
			return err
		}
		for i, r := range resources {
			if !progress[i].Failed {
				continue
			}
			if _, err := a.pool.Retry(ctx, r); err != nil && !errors.Is(err, store.ErrNotDue) {
				return err
			}
		}
		return a.pool.Wait(ctx, pending)
	})
}

// unlessPaused calls wait, and ends it with PROJECT_PAUSED when nothing is fetched: a
// pause lasts until somebody mends the key, which nobody should be kept waiting for.
func (a *App) unlessPaused(ctx context.Context, wait func(context.Context) error) error {
	paused := func() bool { return a.client.Status().PauseReason != "" }
	failure := fault.New(fault.Unavailable, fault.ReasonProjectPaused,
		"nothing is fetched, because Liveblocks refuses the project's key")
	if paused() {
		return failure
	}
	ctx, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() { // ends with ctx; awaited below
		defer close(watched)
		ticker := time.NewTicker(pauseCheck)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				if paused() {
					cancel(failure)
				}
			}
		}
	}()
	err := wait(ctx)
	cancel(nil)
	<-watched
	if err != nil && errors.Is(context.Cause(ctx), failure) {
		return failure
	}
	return err
}

package app

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/metrics"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/access"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/serve/rpc"
)

// metrics returns what serves the metrics to callers that may see them.
func (e *entrance) metrics(m *metrics.Metrics) func(context.Context) (http.Handler, error) {
	return func(ctx context.Context) (http.Handler, error) {
		caller, ok := access.From(ctx)
		if !ok {
			caller = &access.Caller{}
		}
		rule, _ := access.RuleOf(access.MetricsPath)
		if err := e.guard.Permit(rule, caller); err != nil {
			return nil, rpc.Refusal(ctx, err)
		}
		return m.Handler(caller.SeesProject), nil
	}
}

// remember reads what the metrics show of before the start of this process.
func (a *App) remember(ctx context.Context, project mirror.ProjectID) error {
	events, err := a.db.store.LastEvents(ctx, project, nil)
	if err != nil {
		return fmt.Errorf("read the time of the latest event: %w", err)
	}
	sweep, err := a.db.store.Sweep(ctx, project)
	if err != nil {
		return fmt.Errorf("read the latest sweep: %w", err)
	}
	a.metrics.Begin(project)
	a.metrics.Received(project, events.Time)
	// Of a sweep that goes on, no end is known, and one that was stopped is none: then the
	// time counts from its beginning, and if there has been no sweep, from now.
	ended := sweep.EndTime
	if sweep.Problem != "" {
		ended = time.Time{}
	}
	a.metrics.Swept(project, cmp.Or(ended, sweep.BeginTime, time.Now()))
	return nil
}

// countingVerifier counts the differences that verifications find.
type countingVerifier struct {
	rpc.Verifier

	differs func(mirror.Resource)
}

// Verify is part of [rpc.Verifier].
func (v countingVerifier) Verify(ctx context.Context, options mirror.VerifyOptions,
	report func(mirror.VerifyReport) error,
) error {
	return v.Verifier.Verify(ctx, options, func(r mirror.VerifyReport) error {
		if r.Difference != nil {
			v.differs(r.Difference.Resource)
		}
		return report(r)
	})
}

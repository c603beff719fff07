package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql/dbq"
)

// sweepResource is the task of a project's sweeps.
func sweepResource(project mirror.ProjectID) mirror.Resource {
	return mirror.Resource{Project: project, Kind: mirror.KindSweep}
}

func sweepOf(ctx context.Context, q *queries, project mirror.ProjectID) (mirror.Sweep, error) {
	row, err := q.Sweep(ctx, dbq.SweepParams{Bucket: sweepResource(project).Bucket(), ProjectID: rawKey(project)})
	if errors.Is(err, sql.ErrNoRows) {
		return mirror.Sweep{Project: project}, nil
	}
	return mirror.Sweep{
		Project: project, ID: string(row.SweepID), Full: row.IsFull, Done: row.IsDone, Cursor: string(row.ListCursor),
		Listed: row.Listed, Known: row.Known, MarkedStale: row.Raised, Vanished: row.Vanished,
		BeginTime: timeOf(row.BeginTime), EndTime: timeOf(row.EndTime), FullTime: timeOf(row.FullTime), Problem: row.Problem,
	}, err
}

func writeSweep(ctx context.Context, q *queries, project mirror.ProjectID, s mirror.Sweep) error {
	return q.WriteSweep(ctx, dbq.WriteSweepParams{
		Bucket: sweepResource(project).Bucket(), ProjectID: rawKey(project),
		SweepID: rawKey(s.ID), IsFull: s.Full, IsDone: s.Done, ListCursor: rawKey(s.Cursor),
		Listed: s.Listed, Known: s.Known, Raised: s.MarkedStale, Vanished: s.Vanished,
		BeginTime: nullTime(s.BeginTime), EndTime: nullTime(s.EndTime), FullTime: nullTime(s.FullTime),
		Problem: store.Text(s.Problem),
	})
}

// Sweep reads by key.
func (s *Store) Sweep(ctx context.Context, project mirror.ProjectID) (mirror.Sweep, error) {
	sweep, err := sweepOf(ctx, s.q, project)
	if err != nil {
		return mirror.Sweep{}, classify(ctx, fmt.Errorf("read sweep: %w", err))
	}
	return sweep, nil
}

// PlanSweep locks the state first, so the sweep is not claimed or ended meanwhile.
func (s *Store) PlanSweep(ctx context.Context, project mirror.ProjectID, id string, full bool,
	now time.Time,
) (mirror.Sweep, error) {
	r := sweepResource(project)
	var plan store.SweepPlan
	err := s.tx(ctx, "plan sweep", func(q *queries) error {
		st, fresh, err := lockOrMark(ctx, q, store.Stale{Resource: r, Now: now})
		if err != nil {
			return err
		}
		stored, err := sweepOf(ctx, q, project)
		if err != nil {
			return err
		}
		plan = store.PlanSweep(st, fresh, stored, id, full, timeOf(nullTime(now)))
		if !plan.Begin {
			return q.markStale(ctx, []store.Stale{plan.Stale})
		}
		if err := writeSweep(ctx, q, project, plan.Sweep); err != nil {
			return err
		}
		return q.WriteState(ctx, writeState(r, plan.State, 0))
	})
	return plan.Sweep, err
}

// SaveSweep checks the lease under the lock of its state.
func (s *Store) SaveSweep(ctx context.Context, lease mirror.Lease, sweep mirror.Sweep) error {
	return s.tx(ctx, "save sweep", func(q *queries) error {
		if _, err := lockState(ctx, q, lease); err != nil {
			return err
		}
		return writeSweep(ctx, q, lease.Resource.Project, sweep)
	})
}

// ApplySweep writes the sweep and when the next is due.
func (s *Store) ApplySweep(ctx context.Context, lease mirror.Lease, sweep mirror.Sweep,
	next, now time.Time,
) (mirror.Applied, error) {
	return s.end(ctx, "apply sweep", lease, now, func(q *queries) (store.Plan, error) {
		st, err := lockState(ctx, q, lease)
		if err != nil {
			return store.Plan{}, err
		}
		return store.PlanSweepEnd(st, sweep, lease, next, now), writeSweep(ctx, q, lease.Resource.Project, sweep)
	})
}

// Invalidate makes the stored copy differ from every fetched one.
func (s *Store) Invalidate(ctx context.Context, r mirror.Resource) error {
	if of := items[r.Kind]; of != nil {
		return of.invalidate(ctx, s, r)
	}
	err := retry(ctx, func() error {
		switch r.Kind {
		case mirror.KindRoom:
			return s.q.InvalidateRoom(ctx, dbq.InvalidateRoomParams{
				Bucket: r.Bucket(), ProjectID: rawKey(r.Project),
				RoomID: rawKey(r.Room),
			})
		default:
			return s.q.InvalidateDocument(ctx, dbq.InvalidateDocumentParams(lockParams(r)))
		}
	})
	if err != nil {
		return classify(ctx, fmt.Errorf("invalidate a %s: %w", r.Kind, err))
	}
	return nil
}

package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

// Sweep reads by key.
func (s *Store) Sweep(ctx context.Context, project mirror.ProjectID) (mirror.Sweep, error) {
	sweep, err := readSweep(ctx, s.q, project)
	if err != nil {
		return mirror.Sweep{}, classify(ctx, fmt.Errorf("read sweep: %w", err))
	}
	return sweep, nil
}

func readSweep(ctx context.Context, q *dbq.Queries, project mirror.ProjectID) (mirror.Sweep, error) {
	row, err := q.Sweep(ctx, dbq.SweepParams{Bucket: sweepOf(project).Bucket(), ProjectID: string(project)})
	if errors.Is(err, pgx.ErrNoRows) {
		return mirror.Sweep{Project: project}, nil
	}
	return mirror.Sweep{
		Project: project, ID: row.SweepID, Full: row.IsFull, Done: row.IsDone, Cursor: row.ListCursor,
		Listed: row.Listed, Known: row.Known, MarkedStale: row.Raised, Vanished: row.Vanished,
		BeginTime: timeOf(row.BeginTime), EndTime: timeOf(row.EndTime), FullTime: timeOf(row.FullTime), Problem: row.Problem,
	}, err
}

func sweepOf(project mirror.ProjectID) mirror.Resource {
	return mirror.Resource{Project: project, Kind: mirror.KindSweep}
}

// writeSweep returns the row of a sweep, which is written only under the token if
// one is given.
func writeSweep(w mirror.Sweep, token []byte) dbq.UpsertSweepParams {
	return dbq.UpsertSweepParams{
		ProjectID: string(w.Project), SweepID: w.ID, IsFull: w.Full, IsDone: w.Done, ListCursor: store.Text(w.Cursor),
		Listed: w.Listed, Known: w.Known, Raised: w.MarkedStale, Vanished: w.Vanished,
		BeginTime: nullTime(w.BeginTime), EndTime: nullTime(w.EndTime), FullTime: nullTime(w.FullTime),
		Problem: store.Text(w.Problem),
		Bucket:  sweepOf(w.Project).Bucket(), Kind: int16(mirror.KindSweep), Token: token,
	}
}

// PlanSweep locks the state first, so the sweep is not claimed or ended meanwhile.
func (s *Store) PlanSweep(ctx context.Context, project mirror.ProjectID, id string, full bool,
	now time.Time,
) (mirror.Sweep, error) {
	r := sweepOf(project)
	var plan store.SweepPlan
	err := s.tx(ctx, "plan sweep", func(q, later *dbq.Queries) error {
		st, fresh, err := lockOrMark(ctx, q, store.Stale{Resource: r, Now: now})
		if err != nil {
			return err
		}
		stored, err := readSweep(ctx, q, project)
		if err != nil {
			return err
		}
		plan = store.PlanSweep(st, fresh, stored, id, full, timeOf(nullTime(now)))
		if !plan.Begin {
			return markStale(ctx, later, []store.Stale{plan.Stale})
		}
		if _, err := later.UpsertSweep(ctx, writeSweep(plan.Sweep, nil)); err != nil {
			return err
		}
		_, err = later.WriteState(ctx, writeState(r, store.Plan{State: plan.State}, now))
		return err
	})
	if err != nil {
		return mirror.Sweep{}, err
	}
	return plan.Sweep, nil
}

// SaveSweep is one conditional statement.
func (s *Store) SaveSweep(ctx context.Context, lease mirror.Lease, sweep mirror.Sweep) error {
	sweep.Project = lease.Resource.Project
	var n int64
	err := retry(ctx, func() (err error) {
		n, err = s.q.UpsertSweep(ctx, writeSweep(sweep, lease.Token[:]))
		return err
	})
	if err != nil {
		return classify(ctx, fmt.Errorf("save sweep: %w", err))
	}
	if n == 0 {
		return store.ErrLeaseLost
	}
	return nil
}

// ApplySweep writes the sweep and when the next is due.
func (s *Store) ApplySweep(ctx context.Context, lease mirror.Lease, sweep mirror.Sweep,
	next, now time.Time,
) (mirror.Applied, error) {
	sweep.Project = lease.Resource.Project
	return s.end(ctx, "apply sweep", lease, now, func(q, later *dbq.Queries) (store.Plan, error) {
		st, _, err := lockLeased(ctx, q, lease)
		if err != nil {
			return store.Plan{}, err
		}
		_, err = later.UpsertSweep(ctx, writeSweep(sweep, lease.Token[:]))
		return store.PlanSweepEnd(st, sweep, lease, next, now), err
	})
}

// Invalidate makes the stored copy differ from every fetched one.
func (s *Store) Invalidate(ctx context.Context, r mirror.Resource) error {
	var err error
	switch r.Kind {
	case mirror.KindRoom:
		err = s.q.InvalidateRoom(ctx, dbq.InvalidateRoomParams{
			Bucket: r.Bucket(), ProjectID: string(r.Project),
			RoomID: string(r.Room),
		})
	case mirror.KindStorage, mirror.KindYdoc:
		err = s.q.InvalidateDocument(ctx, dbq.InvalidateDocumentParams{
			Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), Kind: int16(r.Kind), ResourceID: r.ID,
		})
	default: // other kinds have no derived columns, unless they are items
		if of := items[r.Kind]; of != nil {
			return of.invalidate(ctx, s, r)
		}
	}
	if err != nil {
		return classify(ctx, fmt.Errorf("invalidate a %s: %w", r.Kind, err))
	}
	return nil
}

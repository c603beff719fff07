package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

// lockGroup locks the state that lease is for, and reads which copy is stored. The
// group is written only under the lock of its state.
func lockGroup(ctx context.Context, q *dbq.Queries, lease mirror.Lease) (store.State, store.ThreadCopy, error) {
	r := lease.Resource
	st, _, err := lockLeased(ctx, q, lease)
	if err != nil {
		return store.State{}, store.ThreadCopy{}, err
	}
	row, err := q.GroupCopy(ctx, dbq.GroupCopyParams{Bucket: r.Bucket(), ProjectID: string(r.Project), GroupID: r.ID})
	if errors.Is(err, pgx.ErrNoRows) {
		return st, store.ThreadCopy{}, nil
	}
	return st, store.GroupCopy(row.ContentSha256, row.DeleteTime.Valid), err
}

// ApplyGroup writes a group that changed, with its members.
func (s *Store) ApplyGroup(ctx context.Context, lease mirror.Lease, content mirror.GroupContent, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	r, g := lease.Resource, content.Group
	arg := dbq.WriteGroupParams{
		Bucket: r.Bucket(), ProjectID: string(r.Project), GroupID: r.ID, OrganizationID: g.OrganizationID,
		SourceJson: notNull(g.Source), ContentSha256: g.SHA256[:], CreateTime: nullTime(g.CreateTime),
		UpdateTime: nullTime(g.UpdateTime), UserID: []string{},
	}
	for _, m := range g.Members {
		arg.UserID, arg.AddTime = append(arg.UserID, m.UserID), append(arg.AddTime, nullTime(m.AddTime))
	}
	return s.end(ctx, "apply group", lease, now, func(q, later *dbq.Queries) (store.Plan, error) {
		st, stored, err := lockGroup(ctx, q, lease)
		if err != nil {
			return store.Plan{}, err
		}
		plan := store.PlanGroup(st, stored, lease, content, now, settle)
		if plan.Change != 0 {
			err = later.WriteGroup(ctx, arg)
		}
		return plan, err
	})
}

// ApplyGroupMissing applies the 404 of a group.
func (s *Store) ApplyGroupMissing(ctx context.Context, lease mirror.Lease, now time.Time, settle time.Duration) (
	mirror.Applied, error,
) {
	return s.end(ctx, "apply missing group", lease, now, func(q, later *dbq.Queries) (store.Plan, error) {
		st, stored, err := lockGroup(ctx, q, lease)
		if err != nil {
			return store.Plan{}, err
		}
		plan := store.PlanMissingGroup(st, stored, lease, now, settle)
		if plan.Change != 0 {
			r := lease.Resource
			err = later.TombstoneGroup(ctx, dbq.TombstoneGroupParams{
				DeleteTime: nullTime(now), Bucket: r.Bucket(), ProjectID: string(r.Project), GroupID: r.ID,
			})
		}
		return plan, err
	})
}

// ApplyGroups locks the states of all groups in key order.
func (s *Store) ApplyGroups(ctx context.Context, lease mirror.Lease, list mirror.GroupList, now time.Time) (
	mirror.Applied, error,
) {
	r := lease.Resource
	return s.end(ctx, "apply groups", lease, now, func(q, later *dbq.Queries) (store.Plan, error) {
		states, err := lockStates(ctx, q, lease)
		if err != nil {
			return store.Plan{}, err
		}
		rows, err := q.GroupCopies(ctx, dbq.GroupCopiesParams{Bucket: r.Bucket(), ProjectID: string(r.Project)})
		if err != nil {
			return store.Plan{}, err
		}
		copies := make(map[string]store.ThreadCopy, len(rows))
		for _, row := range rows {
			copies[row.GroupID] = store.GroupCopy(row.ContentSha256, row.DeleteTime.Valid)
		}
		plan, err := store.PlanGroups(states, copies, lease, list, now)
		if err != nil {
			return store.Plan{}, err
		}
		return plan, markStale(ctx, later, plan.Stale)
	})
}

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

// Due reads without locks: Claim decides who gets a resource.
func (s *Store) Due(ctx context.Context, look store.Look) (store.DueList, error) {
	kinds, tooFar := store.KindColumns(look.Kinds), nullTime(store.LeaseTooFar(look.Now, look.LeaseTTL))
	rows, err := s.q.Due(ctx, dbq.DueParams{
		ProjectID: string(look.Project), Now: nullTime(look.Now), Kinds: kinds, TooFar: tooFar,
		MaxRows: int32(look.Limit) + 1, //nolint:gosec // a small number; one more shows whether there are more
	})
	if err != nil {
		return store.DueList{}, classify(ctx, fmt.Errorf("list due resources: %w", err))
	}
	var list store.DueList
	for _, r := range rows {
		list.Add(look, store.DueResource{Due: timeOf(r.DueTime), Settles: r.Settles, Resource: mirror.Resource{
			Project: look.Project, Room: mirror.RoomID(r.RoomID), Kind: mirror.Kind(r.Kind), ID: r.ResourceID,
		}}, r.Background)
	}
	if list.More || list.MoreBackground {
		return list, nil
	}
	next, err := s.q.NextDue(ctx, dbq.NextDueParams{
		ProjectID: string(look.Project), Now: nullTime(look.Now), Kinds: kinds, TooFar: tooFar,
	})
	if err != nil {
		return store.DueList{}, classify(ctx, fmt.Errorf("find next due time: %w", err))
	}
	list.Next = timeOf(next)
	return list, nil
}

// Claim is one conditional update.
func (s *Store) Claim(
	ctx context.Context, r mirror.Resource, token [16]byte, now time.Time, ttl time.Duration,
) (mirror.Lease, error) {
	until := now.Add(ttl)
	var row dbq.ClaimRow
	err := retry(ctx, func() (err error) {
		row, err = s.q.Claim(ctx, dbq.ClaimParams{
			Token: token[:], Until: nullTime(until), Now: nullTime(now), TooFar: nullTime(store.LeaseTooFar(now, ttl)),
			Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), Kind: int16(r.Kind), ResourceID: r.ID,
		})
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return mirror.Lease{}, store.ErrNotDue
	}
	if err != nil {
		return mirror.Lease{}, classify(ctx, fmt.Errorf("claim: %w", err))
	}
	st := stateOf(row.MirrorResourceState)
	lease := store.LeaseOf(r, token, until, st, store.RoomCopy{Epoch: row.RoomEpoch, DeleteTime: timeOf(row.DeleteTime)})
	if r.Kind == mirror.KindStorage || r.Kind == mirror.KindYdoc {
		lease.Seen = store.SeenOf(st, documentCopy(row.DocumentEpoch, row.DocumentSha256,
			row.DocumentStateSha256, row.DocumentDeriveVersion))
	}
	return lease, nil
}

// Renew moves the lease's end.
func (s *Store) Renew(ctx context.Context, lease mirror.Lease, until time.Time) error {
	r := lease.Resource
	var n int64
	err := retry(ctx, func() (err error) {
		n, err = dbq.New(s.names.on(s.renewing)).Renew(ctx, dbq.RenewParams{
			Until: nullTime(until), Token: lease.Token[:],
			Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), Kind: int16(r.Kind), ResourceID: r.ID,
		})
		return err
	})
	if err != nil {
		return classify(ctx, fmt.Errorf("renew lease: %w", err))
	}
	if n == 0 {
		return store.ErrLeaseLost
	}
	return nil
}

// lockLeased locks the state of the lease, which must still be held, and reads its
// room.
func lockLeased(ctx context.Context, q *dbq.Queries, lease mirror.Lease) (store.State, store.RoomCopy, error) {
	r := lease.Resource
	row, err := q.LockLeased(ctx, dbq.LockLeasedParams{
		Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), Kind: int16(r.Kind), ResourceID: r.ID,
		Token: lease.Token[:],
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return store.State{}, store.RoomCopy{}, store.ErrLeaseLost
	}
	if err != nil {
		return store.State{}, store.RoomCopy{}, err
	}
	room := store.RoomCopy{Epoch: row.Epoch, CreateTime: timeOf(row.CreateTime), DeleteTime: timeOf(row.DeleteTime)}
	copy(room.SHA256[:], row.ContentSha256)
	return stateOf(row.MirrorResourceState), room, nil
}

// lockOrMark locks the state of a resource. An unknown resource becomes stale
// first, so there is a row to lock; fresh reports that.
func lockOrMark(ctx context.Context, q *dbq.Queries, w store.Stale) (st store.State, fresh bool, err error) {
	row, err := q.LockState(ctx, stateKey(w.Resource))
	if errors.Is(err, pgx.ErrNoRows) {
		fresh = true
		if err = markStale(ctx, q, []store.Stale{w}); err == nil {
			row, err = q.LockState(ctx, stateKey(w.Resource))
		}
	}
	return stateOf(row), fresh, err
}

// lockChild locks the state of a leased resource's room, so the room cannot be
// created or deleted meanwhile, and then the resource's own.
func lockChild(ctx context.Context, q *dbq.Queries, lease mirror.Lease, now time.Time) (store.State, store.Parent,
	error,
) {
	var parent store.Parent
	var err error
	parent.State, parent.Fresh, err = lockOrMark(ctx, q, store.Stale{
		Resource: lease.Resource.RoomResource(), Now: now, Background: lease.Background,
	})
	if err != nil {
		return store.State{}, store.Parent{}, err
	}
	var st store.State
	st, parent.Copy, err = lockLeased(ctx, q, lease)
	return st, parent, err
}

// markStale marks resources, which must be in key order.
func markStale(ctx context.Context, q *dbq.Queries, list []store.Stale) error {
	if len(list) == 0 {
		return nil
	}
	_, err := q.MarkStale(ctx, staleParams(list))
	return err
}

// end writes the plan for the resource of a lease, in a transaction in which f has
// loaded the rows for the plan and written what is specific to it.
func (s *Store) end(
	ctx context.Context, what string, lease mirror.Lease, now time.Time, f func(q, later *dbq.Queries) (store.Plan, error),
) (mirror.Applied, error) {
	return s.endTx(ctx, what, lease, now, func(_ *transaction, q, later *dbq.Queries) (store.Plan, error) {
		return f(q, later)
	})
}

// endTx is end for statements that are not sqlc's.
func (s *Store) endTx(ctx context.Context, what string, lease mirror.Lease, now time.Time,
	f func(t *transaction, q, later *dbq.Queries) (store.Plan, error),
) (mirror.Applied, error) {
	var plan store.Plan
	var changes []mirror.Change
	var last int64
	err := s.itemTx(ctx, what, func(t *transaction, q, later *dbq.Queries) (err error) {
		if plan, err = f(t, q, later); err != nil {
			return err
		}
		changes = plan.Entries(lease.Resource, now)
		if _, err = t.later(&last).WriteState(ctx, writeState(lease.Resource, plan, now)); err != nil || !plan.Sessions {
			return err
		}
		c := changes[len(changes)-1]
		_, err = t.later(&last).Announce(ctx, dbq.AnnounceParams{
			Bucket: c.Bucket, ProjectID: string(c.Resource.Project), RoomID: string(c.Resource.Room),
			Kind: int16(c.Resource.Kind), Epoch: c.Epoch, Now: nullTime(now),
		})
		return err
	})
	if err != nil {
		return mirror.Applied{}, err
	}
	store.Number(changes, last-int64(len(changes))+1)
	return plan.Applied(changes), nil
}

// Park locks the room's state first. Otherwise the room could be mirrored between
// the check and the parking, and nothing would wake the resource.
func (s *Store) Park(ctx context.Context, lease mirror.Lease, now time.Time) (mirror.Applied, error) {
	return s.end(ctx, "park", lease, now, func(q, later *dbq.Queries) (store.Plan, error) {
		st, room, err := lockChild(ctx, q, lease, now)
		if err != nil {
			return store.Plan{}, err
		}
		plan := store.PlanPark(st, room, lease, now)
		return plan, markStale(ctx, later, plan.Stale)
	})
}

// Fail writes the result of State.Fail.
func (s *Store) Fail(ctx context.Context, lease mirror.Lease, f store.Failure) (mirror.Applied, error) {
	return s.end(ctx, "record failure", lease, f.Now, func(q, _ *dbq.Queries) (store.Plan, error) {
		st, _, err := lockLeased(ctx, q, lease)
		return store.Plan{State: st.Fail(lease, f)}, err
	})
}

// Request uses one statement for all resources.
func (s *Store) Request(ctx context.Context, requests []mirror.Request, now time.Time) ([]mirror.Pending, error) {
	if len(requests) == 0 {
		return nil, nil
	}
	list := make([]store.Stale, len(requests))
	for i, r := range requests {
		list[i] = store.StaleByRequest(r, now)
	}
	arg := staleParams(store.MergeStale(list))
	var out []mirror.Pending
	err := retry(ctx, func() error {
		rows, err := s.q.MarkStale(ctx, arg)
		out = make([]mirror.Pending, 0, len(rows))
		for _, row := range rows {
			out = append(out, pendingOf(row))
		}
		return err
	})
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("request %d resources: %w", len(requests), err))
	}
	return out, nil
}

// Retry decides under a lock.
func (s *Store) Retry(ctx context.Context, r mirror.Resource, now time.Time) (mirror.Task, error) {
	var task mirror.Task
	err := s.tx(ctx, "retry", func(q, later *dbq.Queries) error {
		row, err := q.LockState(ctx, stateKey(r))
		if err != nil {
			return err
		}
		st := stateOf(row)
		stale, err := store.PlanRetry(st, r, now)
		if err != nil {
			return err
		}
		st = st.Release()
		task = st.MarkStale(stale).Task(r, now)
		err = later.ReleaseLease(ctx, dbq.ReleaseLeaseParams{
			Deaths: int16(st.Deaths), //nolint:gosec // a small number
			Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), Kind: int16(r.Kind), ResourceID: r.ID,
		})
		return errors.Join(err, markStale(ctx, later, []store.Stale{stale}))
	})
	if err != nil {
		return mirror.Task{}, err
	}
	return task, nil
}

// Discard decides under a lock.
func (s *Store) Discard(ctx context.Context, r mirror.Resource, now time.Time) (mirror.Task, error) {
	var task mirror.Task
	err := s.tx(ctx, "discard", func(q, _ *dbq.Queries) error {
		row, err := q.LockState(ctx, stateKey(r))
		if err != nil {
			return err
		}
		st, err := store.PlanDiscard(stateOf(row), now)
		if err != nil {
			return err
		}
		task = st.Task(r, now)
		_, err = q.WriteState(ctx, writeState(r, store.Plan{State: st}, now))
		return err
	})
	if err != nil {
		return mirror.Task{}, err
	}
	return task, nil
}

func (s *Store) states(ctx context.Context, resources []mirror.Resource) (map[mirror.Resource]store.State, error) {
	return readStates(ctx, s.q, resources)
}

// readStates reads the states of resources by key.
func readStates(ctx context.Context, q *dbq.Queries, resources []mirror.Resource) (map[mirror.Resource]store.State,
	error,
) {
	var arg dbq.StatesParams
	for _, r := range resources {
		arg.Bucket = append(arg.Bucket, r.Bucket())
		arg.ProjectID = append(arg.ProjectID, string(r.Project))
		arg.RoomID = append(arg.RoomID, string(r.Room))
		arg.Kind = append(arg.Kind, int16(r.Kind))
		arg.ResourceID = append(arg.ResourceID, r.ID)
	}
	rows, err := q.States(ctx, arg)
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("read states: %w", err))
	}
	out := make(map[mirror.Resource]store.State, len(rows))
	for _, row := range rows {
		out[resourceOf(row)] = stateOf(row)
	}
	return out, nil
}

// Generations reads all states with one statement.
func (s *Store) Generations(ctx context.Context, resources []mirror.Resource) ([]store.Progress, error) {
	states, err := s.states(ctx, resources)
	if err != nil {
		return nil, err
	}
	out := make([]store.Progress, len(resources))
	for i, r := range resources {
		out[i] = states[r].ProgressOf()
	}
	return out, nil
}

// Pause stores or clears the reason.
func (s *Store) Pause(ctx context.Context, project mirror.ProjectID, reason string, now time.Time) error {
	if reason == "" {
		now = time.Time{}
	}
	if err := s.q.Pause(ctx, dbq.PauseParams{
		ProjectID: string(project), PauseReason: store.Text(reason),
		PauseTime: nullTime(now),
	}); err != nil {
		return classify(ctx, fmt.Errorf("pause project: %w", err))
	}
	return nil
}

package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql/dbq"
)

// Due reads without locks: Claim decides who gets a resource. While one of several shards is
// away, it fails, and the list has what the others returned.
func (s *Store) Due(ctx context.Context, look store.Look) (store.DueList, error) {
	project, now := rawKey(look.Project), nullTime(look.Now)
	kinds, tooFar := store.KindColumns(look.Kinds), nullTime(store.LeaseTooFar(look.Now, look.LeaseTTL))
	most := int32(look.Limit) + 1 //nolint:gosec // a small number; one more shows whether there are more
	arg := dbq.DueParams{
		ProjectID: project, Now: now, Kinds: kinds, KindsToo: kinds, TooFar: tooFar, Limit: most, Limit_2: most,
	}
	rows, failed := dbq.New(allShards{s.db}).Due(ctx, arg)
	if number(failed) != 0 && layout(s.connector.layout.Load()) == manyShards {
		rows, _ = s.q.Due(ctx, arg) // as well as it can
	}
	var list store.DueList
	for _, row := range rows {
		list.Add(look, store.DueResource{Due: timeOf(row.DueTime), Settles: row.Settles, Resource: mirror.Resource{
			Project: look.Project, Room: mirror.RoomID(row.RoomID), Kind: mirror.Kind(row.Kind), ID: string(row.ResourceID),
		}}, row.Background)
	}
	if failed != nil {
		return list, classify(ctx, fmt.Errorf("list due resources: %w", failed))
	}
	if list.More || list.MoreBackground {
		return list, nil
	}
	dues, errDue := s.q.NextDue(ctx, dbq.NextDueParams{ProjectID: project, Now: now, Kinds: kinds, KindsToo: kinds})
	end, errEnd := s.q.NextLeaseEnd(ctx, dbq.NextLeaseEndParams{
		ProjectID: project, Now: now, Kinds: kinds, TooFar: tooFar,
	})
	for _, err := range []error{errDue, errEnd} {
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return list, classify(ctx, fmt.Errorf("find next due time: %w", err))
		}
	}
	for _, next := range append(dues, end) {
		if next := timeOf(next); !next.IsZero() && (list.Next.IsZero() || next.Before(list.Next)) {
			list.Next = next
		}
	}
	return list, nil
}

// allShards sends reads without the directive that lets some shards fail.
type allShards struct{ dbq.DBTX }

func (d allShards) QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	return d.DBTX.QueryContext(ctx, strings.ReplaceAll(text, "/*vt+ SCATTER_ERRORS_AS_WARNINGS=1 */ ", ""), args...)
}

// Claim uses one conditional update and a read of the claimed row.
func (s *Store) Claim(ctx context.Context, r mirror.Resource, token [16]byte, now time.Time,
	ttl time.Duration,
) (mirror.Lease, error) {
	until := now.Add(ttl)
	var won int64
	err := retry(ctx, func() (err error) {
		won, err = s.q.Claim(ctx, dbq.ClaimParams{
			Token: token[:], LeaseUntil: nullTime(until), Now: nullTime(now), TooFar: nullTime(store.LeaseTooFar(now, ttl)),
			Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room), Kind: int16(r.Kind),
			ResourceID: rawKey(r.ID),
		})
		return err
	})
	if err != nil {
		return mirror.Lease{}, classify(ctx, fmt.Errorf("claim: %w", err))
	}
	if won == 0 {
		return mirror.Lease{}, store.ErrNotDue
	}
	row, err := s.q.Leased(ctx, dbq.LeasedParams{
		Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room), Kind: int16(r.Kind),
		ResourceID: rawKey(r.ID), Token: token[:],
	})
	if errors.Is(err, sql.ErrNoRows) {
		return mirror.Lease{}, store.ErrNotDue // the lease is so short that it is over
	}
	if err != nil {
		return mirror.Lease{}, classify(ctx, fmt.Errorf("read what was claimed: %w", err))
	}
	st := stateOf(row.MirrorResourceState)
	lease := store.LeaseOf(r, token, until, st, store.RoomCopy{Epoch: row.Epoch.Int64, DeleteTime: timeOf(row.DeleteTime)})
	if r.Kind == mirror.KindStorage || r.Kind == mirror.KindYdoc {
		lease.Seen = store.SeenOf(st, documentCopy(row.DocumentEpoch.Int64, row.DocumentSha256,
			row.DocumentStateSha256, row.DocumentDeriveVersion.Int32))
	}
	return lease, nil
}

// Renew moves the lease's end. An update without a change counts as unaffected; a
// read distinguishes it from a lost lease.
func (s *Store) Renew(ctx context.Context, lease mirror.Lease, until time.Time) error {
	r, q := lease.Resource, newQueries(s.renewing, s.piece)
	var n int64
	err := retry(ctx, func() (err error) {
		n, err = q.Renew(ctx, dbq.RenewParams{
			LeaseUntil: nullTime(until), Token: lease.Token[:],
			Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room), Kind: int16(r.Kind),
			ResourceID: rawKey(r.ID),
		})
		return err
	})
	if err == nil && n == 0 {
		_, err = q.Leased(ctx, dbq.LeasedParams{
			Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room), Kind: int16(r.Kind),
			ResourceID: rawKey(r.ID), Token: lease.Token[:],
		})
		if errors.Is(err, sql.ErrNoRows) {
			return store.ErrLeaseLost
		}
	}
	if err != nil {
		return classify(ctx, fmt.Errorf("renew lease: %w", err))
	}
	return nil
}

func lockParams(r mirror.Resource) dbq.LockStateParams {
	return dbq.LockStateParams{
		Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room), Kind: int16(r.Kind),
		ResourceID: rawKey(r.ID),
	}
}

// lockState locks the state of the lease, which must still be held.
func lockState(ctx context.Context, q *queries, lease mirror.Lease) (store.State, error) {
	row, err := q.LockState(ctx, lockParams(lease.Resource))
	if errors.Is(err, sql.ErrNoRows) || err == nil && !stateOf(row).Held(lease) {
		return store.State{}, store.ErrLeaseLost
	}
	return stateOf(row), err
}

// lockRoom locks the state of the lease and reads the stored copy of its room.
func lockRoom(ctx context.Context, q *queries, lease mirror.Lease) (store.State, store.RoomCopy, error) {
	st, err := lockState(ctx, q, lease)
	if err != nil {
		return store.State{}, store.RoomCopy{}, err
	}
	room, err := roomCopy(ctx, q, lease.Resource)
	return st, room, err
}

// lockOrMark locks the state of a resource. An unknown resource becomes stale
// first, so there is a row to lock; fresh reports that.
func lockOrMark(ctx context.Context, q *queries, w store.Stale) (st store.State, fresh bool, err error) {
	row, err := q.LockState(ctx, lockParams(w.Resource))
	if errors.Is(err, sql.ErrNoRows) {
		fresh = true
		if err = q.markStale(ctx, []store.Stale{w}); err == nil {
			row, err = q.LockState(ctx, lockParams(w.Resource))
		}
	}
	return stateOf(row), fresh, err
}

// lockChild locks the state of a leased resource's room, so the room cannot be
// created or deleted meanwhile, and then the resource's own.
func lockChild(ctx context.Context, q *queries, lease mirror.Lease, now time.Time) (store.State, store.Parent, error) {
	var room store.Parent
	var err error
	room.State, room.Fresh, err = lockOrMark(ctx, q, store.Stale{
		Resource: lease.Resource.RoomResource(), Now: now, Background: lease.Background,
	})
	if err != nil {
		return store.State{}, store.Parent{}, err
	}
	var st store.State
	st, room.Copy, err = lockRoom(ctx, q, lease)
	return st, room, err
}

// end writes the plan for the resource of a lease, in a transaction in which f has
// loaded the rows for the plan and written what is specific to it. It releases the
// lease and writes the next due time. Change entries take their numbers last, after
// everything else is locked.
func (s *Store) end(ctx context.Context, what string, lease mirror.Lease, now time.Time,
	f func(q *queries) (store.Plan, error),
) (mirror.Applied, error) {
	var plan store.Plan
	var changes []mirror.Change
	err := s.tx(ctx, what, func(q *queries) (err error) {
		if plan, err = f(q); err != nil {
			return err
		}
		changes = plan.Entries(lease.Resource, now)
		if err := q.announce(ctx, changes); err != nil {
			return err
		}
		var revision int64
		if plan.Change != 0 {
			revision = changes[0].Number
		}
		return q.WriteState(ctx, writeState(lease.Resource, plan.State, revision))
	})
	if err != nil {
		return mirror.Applied{}, err
	}
	return plan.Applied(changes), nil
}

// Park locks the room's state first. Otherwise the room could be mirrored between
// the check and the parking, and nothing would wake the resource.
func (s *Store) Park(ctx context.Context, lease mirror.Lease, now time.Time) (mirror.Applied, error) {
	return s.end(ctx, "park", lease, now, func(q *queries) (store.Plan, error) {
		st, room, err := lockChild(ctx, q, lease, now)
		if err != nil {
			return store.Plan{}, err
		}
		plan := store.PlanPark(st, room, lease, now)
		return plan, q.markStale(ctx, plan.Stale)
	})
}

// Fail writes the result of State.Fail.
func (s *Store) Fail(ctx context.Context, lease mirror.Lease, f store.Failure) (mirror.Applied, error) {
	return s.end(ctx, "record failure", lease, f.Now, func(q *queries) (store.Plan, error) {
		st, err := lockState(ctx, q, lease)
		return store.Plan{State: st.Fail(lease, f)}, err
	})
}

func sortedResources(resources []mirror.Resource) []mirror.Resource {
	sorted := slices.Clone(resources)
	slices.SortFunc(sorted, mirror.Resource.Compare)
	return slices.Compact(sorted)
}

// Request marks all resources in key order and reads the result.
func (s *Store) Request(ctx context.Context, requests []mirror.Request, now time.Time) ([]mirror.Pending, error) {
	if len(requests) == 0 {
		return nil, nil
	}
	list := make([]store.Stale, len(requests))
	for i, r := range requests {
		list[i] = store.StaleByRequest(r, now)
	}
	parts, err := transactions(ctx, s, store.MergeStale(list), func(w store.Stale) int16 { return w.Resource.Bucket() })
	if err != nil {
		return nil, err
	}
	var out []mirror.Pending
	for _, part := range parts {
		var states map[mirror.Resource]store.State
		resources := make([]mirror.Resource, len(part))
		for i, w := range part {
			resources[i] = w.Resource
		}
		err := s.tx(ctx, "request", func(q *queries) (err error) {
			if err = q.markStale(ctx, part); err == nil {
				states, err = q.progress(ctx, resources)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, r := range resources {
			out = append(out, mirror.Pending{Resource: r, Generation: states[r].Generation})
		}
	}
	return out, nil
}

// Retry decides under a lock.
func (s *Store) Retry(ctx context.Context, r mirror.Resource, now time.Time) (mirror.Task, error) {
	var task mirror.Task
	err := s.tx(ctx, "retry", func(q *queries) error {
		row, err := q.LockState(ctx, lockParams(r))
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
		if err := q.ReleaseLease(ctx, dbq.ReleaseLeaseParams{
			Deaths: int16(st.Deaths), //nolint:gosec // a small number
			Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room), Kind: int16(r.Kind),
			ResourceID: rawKey(r.ID),
		}); err != nil {
			return err
		}
		return q.markStale(ctx, []store.Stale{stale})
	})
	if err != nil {
		return mirror.Task{}, err
	}
	return task, nil
}

// Discard decides under a lock.
func (s *Store) Discard(ctx context.Context, r mirror.Resource, now time.Time) (mirror.Task, error) {
	var task mirror.Task
	err := s.tx(ctx, "discard", func(q *queries) error {
		row, err := q.LockState(ctx, lockParams(r))
		if err != nil {
			return err
		}
		st, err := store.PlanDiscard(stateOf(row), now)
		if err != nil {
			return err
		}
		task = st.Task(r, now)
		return q.WriteState(ctx, writeState(r, st, 0))
	})
	if err != nil {
		return mirror.Task{}, err
	}
	return task, nil
}

// Generations reads all states with one statement.
func (s *Store) Generations(ctx context.Context, resources []mirror.Resource) ([]store.Progress, error) {
	states, err := s.q.progress(ctx, sortedResources(resources))
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("read states: %w", err))
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
	err := retry(ctx, func() error {
		return s.q.Pause(ctx, dbq.PauseParams{
			ProjectID: rawKey(project), PauseReason: store.Text(reason),
			PauseTime: nullTime(now),
		})
	})
	if err != nil {
		return classify(ctx, fmt.Errorf("pause project: %w", err))
	}
	return nil
}

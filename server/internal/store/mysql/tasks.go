package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql/dbq"
)

// Due reads without locks: who gets a resource is decided by Claim.
func (s *Store) Due(ctx context.Context, project mirror.ProjectID, now time.Time, limit int) (store.DueList, error) {
	// One more than wanted tells whether there is more.
	most := int32(limit) + 1 //nolint:gosec // a small constant of the caller
	rows, err := s.q.Due(ctx, dbq.DueParams{ProjectID: rawKey(project), Now: nullTime(now), Limit: most, Limit_2: most,
		Limit_3: most})
	if err != nil {
		return store.DueList{}, classify(ctx, fmt.Errorf("list due resources: %w", err))
	}
	more := len(rows) > limit
	var list store.DueList
	for _, row := range rows[:min(limit, len(rows))] {
		r := mirror.Resource{Project: project, Room: mirror.RoomID(row.RoomID), Kind: mirror.Kind(row.Kind),
			ID: string(row.ResourceID)}
		if row.Background {
			list.Background = append(list.Background, r)
		} else {
			list.Resources = append(list.Resources, r)
		}
	}
	if more {
		list.Next = now
		return list, nil
	}
	dues, errDue := s.q.NextDue(ctx, dbq.NextDueParams{ProjectID: rawKey(project), Now: nullTime(now)})
	end, errEnd := s.q.NextLeaseEnd(ctx, dbq.NextLeaseEndParams{ProjectID: rawKey(project), Now: nullTime(now)})
	for _, err := range []error{errDue, errEnd} {
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return store.DueList{}, classify(ctx, fmt.Errorf("find next due time: %w", err))
		}
	}
	for _, next := range append(dues, end) {
		if next := timeOf(next); !next.IsZero() && (list.Next.IsZero() || next.Before(list.Next)) {
			list.Next = next
		}
	}
	return list, nil
}

// Claim is one conditional update, and a read of what it won.
func (s *Store) Claim(ctx context.Context, r mirror.Resource, token [16]byte, now time.Time,
	ttl time.Duration) (mirror.Lease, error) {
	until := now.Add(ttl)
	var won int64
	err := retry(ctx, func() (err error) {
		won, err = s.q.Claim(ctx, dbq.ClaimParams{
			Token: token[:], LeaseUntil: nullTime(until), Now: nullTime(now),
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
		return mirror.Lease{}, store.ErrNotDue // so short a lease that it is over
	}
	if err != nil {
		return mirror.Lease{}, classify(ctx, fmt.Errorf("read what was claimed: %w", err))
	}
	return mirror.Lease{
		Resource:   r,
		Token:      token,
		Until:      until,
		Generation: row.Generation,
		Applied:    row.AppliedGeneration,
		Epoch:      row.Epoch.Int64,
		Gone:       row.DeleteTime.Valid,
		Attempts:   int(row.Attempts),
		SourceTime: timeOf(row.HintTime),
		FetchTime:  timeOf(row.FetchTime),
		Background: row.Background,
	}, nil
}

// Renew moves the lease's end. A row that already says so counts as untouched,
// which is told from a lost lease by a look.
func (s *Store) Renew(ctx context.Context, lease mirror.Lease, until time.Time) error {
	r := lease.Resource
	var n int64
	err := retry(ctx, func() (err error) {
		n, err = s.q.Renew(ctx, dbq.RenewParams{
			LeaseUntil: nullTime(until), Token: lease.Token[:],
			Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room), Kind: int16(r.Kind),
			ResourceID: rawKey(r.ID),
		})
		return err
	})
	if err == nil && n == 0 {
		_, err = s.q.Leased(ctx, dbq.LeasedParams{
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

// lockState locks the state of r, which the token must own.
func lockState(ctx context.Context, q *queries, r mirror.Resource, token [16]byte) (store.State, error) {
	row, err := q.LockState(ctx, lockParams(r))
	if errors.Is(err, sql.ErrNoRows) {
		return store.State{}, store.ErrLeaseLost
	}
	if err != nil {
		return store.State{}, err
	}
	st := stateOf(row)
	if row.LeaseToken == nil || st.LeaseToken != token {
		return store.State{}, store.ErrLeaseLost
	}
	return st, nil
}

// lockRoom locks the state of a room, so that the room cannot come or go
// meanwhile, and reads both. A room that was never heard of is given a state,
// due at now in the background or not, or there would be nothing to lock; fresh says
// so.
func lockRoom(ctx context.Context, q *queries, room mirror.Resource, background bool, now time.Time) (st store.State,
	h head, fresh bool, err error) {
	row, err := q.LockState(ctx, lockParams(room))
	if errors.Is(err, sql.ErrNoRows) {
		if fresh, err = insertState(ctx, q, room, background, now); err != nil {
			return store.State{}, head{}, false, err
		}
		row, err = q.LockState(ctx, lockParams(room))
	}
	if err != nil {
		return store.State{}, head{}, false, err
	}
	h, err = roomHead(ctx, q, room)
	return stateOf(row), h, fresh, err
}

// insertState gives r a state, due at now in the background or not, and reports
// whether it had none.
func insertState(ctx context.Context, q *queries, r mirror.Resource, background bool, now time.Time) (bool, error) {
	n, err := q.InsertState(ctx, dbq.InsertStateParams{
		Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room), Kind: int16(r.Kind),
		ResourceID: rawKey(r.ID),
		Now:        nullTime(now), Background: background,
	})
	return n > 0, err
}

// wakeRoom makes a locked room due unless it is already, as urgent as what waits for
// it.
func wakeRoom(ctx context.Context, q *queries, room mirror.Resource, fresh, background bool,
	now time.Time) ([]mirror.Resource, error) {
	if !fresh {
		n, err := q.WakeRoom(ctx, dbq.WakeRoomParams{Background: background, Now: nullTime(now), Bucket: room.Bucket(),
			ProjectID: rawKey(room.Project), RoomID: rawKey(room.Room)})
		if err != nil || n == 0 {
			return nil, err
		}
	}
	return []mirror.Resource{room}, nil
}

// finish ends every change of a leased state: the lease is given back, and what
// is due next is written. A change entry, if there is one, takes its number
// last, after everything else of the transaction is locked. A change of 0 writes
// none.
//
// The number is counted up, and then copied to where it belongs on the server:
// last_insert_id with an argument would tell it, and is not known to every Vitess.
func finish(ctx context.Context, q *queries, r mirror.Resource, st store.State, change mirror.ChangeKind,
	now time.Time) error {
	if change != 0 {
		if err := addChange(ctx, q, r, change, now); err != nil {
			return err
		}
	}
	return q.WriteState(ctx, writeState(r, st, change != 0))
}

// addChange writes a change entry.
func addChange(ctx context.Context, q *queries, r mirror.Resource, change mirror.ChangeKind, now time.Time) error {
	if err := q.RaiseFeedHead(ctx, r.Bucket()); err != nil {
		return err
	}
	return q.InsertChange(ctx, dbq.InsertChangeParams{
		Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room), Kind: int16(r.Kind),
		ResourceID: rawKey(r.ID),
		ChangeKind: int16(change), CommitTime: nullTime(now).Time,
	})
}

// Park locks the room's state first. Without that, the room could be mirrored
// between our look at it and our going to sleep, and nobody would wake us.
func (s *Store) Park(ctx context.Context, lease mirror.Lease, now time.Time) (mirror.Applied, error) {
	r := lease.Resource
	var out mirror.Applied
	err := s.tx(ctx, "park", func(q *queries) error {
		out = mirror.Applied{}
		_, h, fresh, err := lockRoom(ctx, q, r.RoomResource(), lease.Background, now)
		if err != nil {
			return err
		}
		var woken []mirror.Resource
		if !h.lives() {
			if woken, err = wakeRoom(ctx, q, r.RoomResource(), fresh, lease.Background, now); err != nil {
				return err
			}
		}
		st, err := lockState(ctx, q, r, lease.Token)
		if err != nil {
			return err
		}
		if h.lives() {
			st.Due = now
		} else {
			st = st.Park()
		}
		out = mirror.Applied{Generation: st.Applied, Due: st.Due, AlsoDue: woken}
		return finish(ctx, q, r, st, 0, now)
	})
	return out, err
}

// Fail writes what State.Fail decides.
func (s *Store) Fail(ctx context.Context, lease mirror.Lease, f store.Failure) (mirror.Applied, error) {
	var out mirror.Applied
	err := s.tx(ctx, "record failure", func(q *queries) error {
		st, err := lockState(ctx, q, lease.Resource, lease.Token)
		if err != nil {
			return err
		}
		st = st.Fail(lease, f)
		out = mirror.Applied{Generation: st.Applied, Due: st.Due}
		return finish(ctx, q, lease.Resource, st, 0, f.Now)
	})
	return out, err
}

func sortedResources(resources []mirror.Resource) []mirror.Resource {
	sorted := slices.Clone(resources)
	slices.SortFunc(sorted, mirror.Resource.Compare)
	return slices.Compact(sorted)
}

// sortedRequests puts requests in key order and those of one resource together.
func sortedRequests(requests []mirror.Request) (out []mirror.Request, resources []mirror.Resource) {
	sorted := slices.Clone(requests)
	slices.SortStableFunc(sorted, func(a, b mirror.Request) int { return a.Resource.Compare(b.Resource) })
	for _, r := range sorted {
		if n := len(out); n > 0 && out[n-1].Resource == r.Resource {
			out[n-1].Unlisted = out[n-1].Unlisted || r.Unlisted
			out[n-1].Background = out[n-1].Background && r.Background
			continue
		}
		out, resources = append(out, r), append(resources, r.Resource)
	}
	return out, resources
}

// Request raises all of them in key order, and reads what has become of them.
func (s *Store) Request(ctx context.Context, requests []mirror.Request, now time.Time) ([]mirror.Pending, error) {
	if len(requests) == 0 {
		return nil, nil
	}
	requests, sorted := sortedRequests(requests)
	var out []mirror.Pending
	err := s.tx(ctx, "request", func(q *queries) error {
		if err := q.request(ctx, requests, now); err != nil {
			return err
		}
		states, err := q.progress(ctx, sorted)
		if err != nil {
			return err
		}
		out = make([]mirror.Pending, 0, len(sorted))
		for _, r := range sorted {
			out = append(out, mirror.Pending{Resource: r, Generation: states[r].Generation})
		}
		return nil
	})
	return out, err
}

// Retry is one conditional update and a read, which tells whether there was
// anything to do: a row that is already as it should be counts as untouched.
func (s *Store) Retry(ctx context.Context, r mirror.Resource, now time.Time) (mirror.Task, error) {
	var n int64
	err := retry(ctx, func() (err error) {
		n, err = s.q.Retry(ctx, dbq.RetryParams{
			Now: nullTime(now), Bucket: r.Bucket(), ProjectID: rawKey(r.Project), RoomID: rawKey(r.Room), Kind: int16(r.Kind),
			ResourceID: rawKey(r.ID),
		})
		return err
	})
	if err != nil {
		return mirror.Task{}, classify(ctx, fmt.Errorf("retry: %w", err))
	}
	task, err := s.Task(ctx, r, now)
	if err != nil {
		return mirror.Task{}, err
	}
	if n == 0 && task.State == mirror.TaskDone {
		return mirror.Task{}, store.ErrNotDue
	}
	return task, nil
}

// Generations reads all of them at once.
func (s *Store) Generations(ctx context.Context, resources []mirror.Resource) ([]store.Progress, error) {
	states, err := s.q.progress(ctx, sortedResources(resources))
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("read states: %w", err))
	}
	out := make([]store.Progress, len(resources))
	for i, r := range resources {
		st := states[r]
		state := st.TaskState(time.Time{})
		out[i] = store.Progress{
			Applied: st.Applied,
			Failed:  state == mirror.TaskFailed,
			Waiting: state == mirror.TaskWaiting,
		}
	}
	return out, nil
}

// Pause stores the reason, or takes it away.
func (s *Store) Pause(ctx context.Context, project mirror.ProjectID, reason string, now time.Time) error {
	if reason == "" {
		now = time.Time{}
	}
	err := retry(ctx, func() error {
		return s.q.Pause(ctx, dbq.PauseParams{ProjectID: rawKey(project), PauseReason: text(reason),
			PauseTime: nullTime(now)})
	})
	if err != nil {
		return classify(ctx, fmt.Errorf("pause project: %w", err))
	}
	return nil
}

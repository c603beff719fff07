package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/postgres/dbq"
)

// Due reads without locks: who gets a resource is decided by Claim.
func (s *Store) Due(ctx context.Context, project mirror.ProjectID, now time.Time, limit int) (store.DueList, error) {
	// One more than wanted tells whether there is more.
	rows, err := s.q.Due(ctx, dbq.DueParams{ProjectID: string(project), Now: nullTime(now),
		MaxRows: int32(limit) + 1}) //nolint:gosec // a small constant of the caller
	if err != nil {
		return store.DueList{}, classify(ctx, fmt.Errorf("list due resources: %w", err))
	}
	more := len(rows) > limit
	list := store.DueList{Resources: make([]mirror.Resource, 0, len(rows))}
	for _, r := range rows[:min(limit, len(rows))] {
		due := mirror.Resource{Project: project, Room: mirror.RoomID(r.RoomID), Kind: mirror.Kind(r.Kind), ID: r.ResourceID}
		if r.Background {
			list.Background = append(list.Background, due)
		} else {
			list.Resources = append(list.Resources, due)
		}
	}
	if more {
		list.Next = now
		return list, nil
	}
	next, err := s.q.NextDue(ctx, dbq.NextDueParams{ProjectID: string(project), Now: nullTime(now)})
	if err != nil {
		return store.DueList{}, classify(ctx, fmt.Errorf("find next due time: %w", err))
	}
	list.Next = timeOf(next)
	return list, nil
}

// Claim is one conditional update.
func (s *Store) Claim(ctx context.Context, r mirror.Resource, token [16]byte, now time.Time,
	ttl time.Duration) (mirror.Lease, error) {
	until := now.Add(ttl)
	row, err := s.q.Claim(ctx, dbq.ClaimParams{
		Token: token[:], Until: nullTime(until), Now: nullTime(now),
		Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), Kind: int16(r.Kind), ResourceID: r.ID,
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return mirror.Lease{}, store.ErrNotDue
	}
	if err != nil {
		return mirror.Lease{}, classify(ctx, fmt.Errorf("claim: %w", err))
	}
	st := stateOf(row.MirrorResourceState)
	if r.Kind == mirror.KindStorage || r.Kind == mirror.KindYdoc {
		s.claims.put(token, copied{st, row.DocumentEpoch, row.DocumentSha256, row.DocumentDeriveVersion})
	}
	return mirror.Lease{
		Resource:   r,
		Token:      token,
		Until:      until,
		Generation: st.Generation,
		Applied:    st.Applied,
		Epoch:      row.RoomEpoch,
		Gone:       row.Gone,
		Attempts:   st.Attempts,
		SourceTime: timeOf(row.MirrorResourceState.HintTime),
		FetchTime:  st.FetchTime,
		Background: st.Background,
	}, nil
}

// maxClaims bounds how many claims are remembered. A process holds as many leases
// as it has workers; the rest are of leases that were not applied.
const maxClaims = 1024

// claims remembers what Claim has read, by token. What is missing is read again.
type claims struct {
	mu sync.Mutex
	m  map[[16]byte]copied
}

func (c *claims) put(token [16]byte, read copied) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil || len(c.m) >= maxClaims {
		c.m = make(map[[16]byte]copied)
	}
	c.m[token] = read
}

func (c *claims) take(token [16]byte) (copied, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	read, ok := c.m[token]
	delete(c.m, token)
	return read, ok
}

// Renew moves the lease's end.
func (s *Store) Renew(ctx context.Context, lease mirror.Lease, until time.Time) error {
	r := lease.Resource
	n, err := s.q.Renew(ctx, dbq.RenewParams{
		Until: nullTime(until), Token: lease.Token[:],
		Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), Kind: int16(r.Kind), ResourceID: r.ID,
	})
	if err != nil {
		return classify(ctx, fmt.Errorf("renew lease: %w", err))
	}
	if n == 0 {
		return store.ErrLeaseLost
	}
	return nil
}

// lockLeased locks the state that lease is for, which has to be held still, and
// reads its room.
func lockLeased(ctx context.Context, q *dbq.Queries, lease mirror.Lease) (store.State, head, error) {
	r := lease.Resource
	row, err := q.LockLeased(ctx, dbq.LockLeasedParams{
		Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), Kind: int16(r.Kind), ResourceID: r.ID,
		Token: lease.Token[:],
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return store.State{}, head{}, store.ErrLeaseLost
	}
	if err != nil {
		return store.State{}, head{}, err
	}
	return stateOf(row.MirrorResourceState), head{
		epoch: row.Epoch, sha256: row.ContentSha256, createTime: timeOf(row.CreateTime), deleteTime: timeOf(row.DeleteTime),
	}, nil
}

// lockRoom locks the state of a room, so that the room cannot come or go
// meanwhile. A room that was never heard of is given a state, due at now, or
// there would be nothing to lock; fresh says so.
func lockRoom(ctx context.Context, q *dbq.Queries, room mirror.Resource, background bool,
	now time.Time) (st store.State, fresh bool, err error) {
	key := dbq.LockStateParams{Bucket: room.Bucket(), ProjectID: string(room.Project), RoomID: string(room.Room),
		Kind: int16(room.Kind)}
	row, err := q.LockState(ctx, key)
	if errors.Is(err, pgx.ErrNoRows) {
		var n int64
		n, err = q.InsertState(ctx, dbq.InsertStateParams{
			Now: nullTime(now), Bucket: key.Bucket, ProjectID: key.ProjectID, RoomID: key.RoomID, Kind: key.Kind,
			Background: background,
		})
		if err != nil {
			return store.State{}, false, err
		}
		fresh = n > 0
		row, err = q.LockState(ctx, key)
	}
	return stateOf(row), fresh, err
}

// wakeRoom makes a locked room due, as urgent as the child that waits for it,
// unless it is already.
func wakeRoom(ctx context.Context, later *dbq.Queries, room mirror.Resource, st store.State, fresh, background bool,
	now time.Time) ([]mirror.Resource, error) {
	if !fresh && !st.Due.IsZero() && (background || !st.Background) {
		return nil, nil
	}
	return []mirror.Resource{room}, later.WakeRoom(ctx, dbq.WakeRoomParams{
		Now: nullTime(now), Background: background, Bucket: room.Bucket(), ProjectID: string(room.Project),
		RoomID: string(room.Room),
	})
}

// Park locks the room's state first. Without that, the room could be mirrored
// between our look at it and our going to sleep, and nobody would wake us.
func (s *Store) Park(ctx context.Context, lease mirror.Lease, now time.Time) (mirror.Applied, error) {
	r := lease.Resource
	var out mirror.Applied
	err := s.tx(ctx, "park", func(q, later *dbq.Queries) error {
		out = mirror.Applied{}
		roomState, fresh, err := lockRoom(ctx, q, r.RoomResource(), lease.Background, now)
		if err != nil {
			return err
		}
		st, h, err := lockLeased(ctx, q, lease)
		if err != nil {
			return err
		}
		var woken []mirror.Resource
		if h.lives() {
			st.Due = now
		} else {
			st = st.Park()
			if woken, err = wakeRoom(ctx, later, r.RoomResource(), roomState, fresh, st.Background, now); err != nil {
				return err
			}
		}
		out = mirror.Applied{Generation: st.Applied, Due: st.Due, AlsoDue: woken}
		return later.WriteState(ctx, writeState(r, st, 0, now))
	})
	return out, err
}

// Fail writes what State.Fail decides.
func (s *Store) Fail(ctx context.Context, lease mirror.Lease, f store.Failure) (mirror.Applied, error) {
	var out mirror.Applied
	err := s.tx(ctx, "record failure", func(q, later *dbq.Queries) error {
		st, _, err := lockLeased(ctx, q, lease)
		if err != nil {
			return err
		}
		st = st.Fail(lease, f)
		out = mirror.Applied{Generation: st.Applied, Due: st.Due}
		return later.WriteState(ctx, writeState(lease.Resource, st, 0, f.Now))
	})
	return out, err
}

// Request is one statement for all.
func (s *Store) Request(ctx context.Context, requests []mirror.Request, now time.Time) ([]mirror.Pending, error) {
	if len(requests) == 0 {
		return nil, nil
	}
	arg := dbq.RequestParams{Now: nullTime(now)}
	place := make(map[mirror.Resource]int, len(requests))
	for _, r := range requests {
		if i, ok := place[r.Resource]; ok {
			arg.Unlisted[i] = arg.Unlisted[i] || r.Unlisted
			arg.Background[i] = arg.Background[i] && r.Background
			continue
		}
		place[r.Resource] = len(arg.Bucket)
		arg.Bucket = append(arg.Bucket, r.Resource.Bucket())
		arg.ProjectID = append(arg.ProjectID, string(r.Resource.Project))
		arg.RoomID = append(arg.RoomID, string(r.Resource.Room))
		arg.Kind = append(arg.Kind, int16(r.Resource.Kind))
		arg.ResourceID = append(arg.ResourceID, r.Resource.ID)
		arg.Unlisted = append(arg.Unlisted, r.Unlisted)
		arg.Background = append(arg.Background, r.Background)
	}
	var out []mirror.Pending
	err := retry(ctx, func() error {
		rows, err := s.q.Request(ctx, arg)
		out = make([]mirror.Pending, 0, len(rows))
		for _, row := range rows {
			out = append(out, mirror.Pending{Generation: row.Generation, Resource: mirror.Resource{
				Project: mirror.ProjectID(row.ProjectID), Room: mirror.RoomID(row.RoomID), Kind: mirror.Kind(row.Kind),
				ID: row.ResourceID,
			}})
		}
		return err
	})
	if err != nil {
		return nil, classify(ctx, fmt.Errorf("request %d resources: %w", len(requests), err))
	}
	return out, nil
}

// Retry is one conditional update and a read.
func (s *Store) Retry(ctx context.Context, r mirror.Resource, now time.Time) (mirror.Task, error) {
	n, err := s.q.Retry(ctx, dbq.RetryParams{
		Now: nullTime(now), Bucket: r.Bucket(), ProjectID: string(r.Project), RoomID: string(r.Room), Kind: int16(r.Kind),
		ResourceID: r.ID,
	})
	if err != nil {
		return mirror.Task{}, classify(ctx, fmt.Errorf("retry: %w", err))
	}
	task, err := s.Task(ctx, r, now)
	if err != nil {
		return mirror.Task{}, err
	}
	if n == 0 {
		return mirror.Task{}, store.ErrNotDue
	}
	return task, nil
}

func (s *Store) states(ctx context.Context, resources []mirror.Resource) (map[mirror.Resource]store.State, error) {
	return readStates(ctx, s.q, resources)
}

// readStates reads the states of resources by key.
func readStates(ctx context.Context, q *dbq.Queries, resources []mirror.Resource) (map[mirror.Resource]store.State,
	error) {
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

// Generations reads all of them at once.
func (s *Store) Generations(ctx context.Context, resources []mirror.Resource) ([]store.Progress, error) {
	states, err := s.states(ctx, resources)
	if err != nil {
		return nil, err
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
	if err := s.q.Pause(ctx, dbq.PauseParams{ProjectID: string(project), PauseReason: text(reason),
		PauseTime: nullTime(now)}); err != nil {
		return classify(ctx, fmt.Errorf("pause project: %w", err))
	}
	return nil
}

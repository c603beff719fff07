package mysql

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store/mysql/dbq"
)

var groupTable = table{
	name: "mirror_group",
	columns: "bucket, project_id, group_id, organization_id, source_json, content_sha256, create_time, update_time, " +
		"delete_time",
	key: 3,
}

var groupMemberTable = table{
	name: "mirror_group_member", columns: "bucket, project_id, group_id, user_id, add_time", key: 4,
}

// lockGroup locks the state that lease is for, and reads which copy is stored. The
// group is written only under the lock of its state.
func lockGroup(ctx context.Context, q *queries, lease mirror.Lease) (store.State, store.ThreadCopy, error) {
	r := lease.Resource
	st, err := lockState(ctx, q, lease)
	if err != nil {
		return store.State{}, store.ThreadCopy{}, err
	}
	row, err := q.GroupCopy(ctx, dbq.GroupCopyParams{
		Bucket: r.Bucket(), ProjectID: rawKey(r.Project), GroupID: rawKey(r.ID),
	})
	if errors.Is(err, sql.ErrNoRows) {
		return st, store.ThreadCopy{}, nil
	}
	return st, store.GroupCopy(row.ContentSha256, row.DeleteTime.Valid), err
}

// ApplyGroup writes a group that changed, with its members.
func (s *Store) ApplyGroup(ctx context.Context, lease mirror.Lease, content mirror.GroupContent, now time.Time,
	settle time.Duration,
) (mirror.Applied, error) {
	r, g := lease.Resource, content.Group
	key := func(more ...any) []any {
		return append([]any{r.Bucket(), rawKey(r.Project), rawKey(r.ID)}, more...)
	}
	row := key(rawKey(g.OrganizationID), rawKey(g.Source), g.SHA256[:], nullTime(g.CreateTime), nullTime(g.UpdateTime),
		sql.NullTime{})
	members := make([][]any, len(g.Members))
	for i, m := range g.Members {
		members[i] = key(rawKey(m.UserID), nullTime(m.AddTime))
	}
	return s.end(ctx, "apply group", lease, now, func(q *queries) (store.Plan, error) {
		st, stored, err := lockGroup(ctx, q, lease)
		if err != nil {
			return store.Plan{}, err
		}
		plan := store.PlanGroup(st, stored, lease, content, now, settle)
		if plan.Change == 0 {
			return plan, nil
		}
		return plan, errors.Join(
			s.write(ctx, q, groupTable, [][]any{row}, nil),
			q.DeleteGroupMembers(ctx, dbq.DeleteGroupMembersParams{
				Bucket: r.Bucket(), ProjectID: rawKey(r.Project), GroupID: rawKey(r.ID),
			}),
			s.write(ctx, q, groupMemberTable, members, nil))
	})
}

// ApplyGroupMissing applies the 404 of a group.
func (s *Store) ApplyGroupMissing(ctx context.Context, lease mirror.Lease, now time.Time, settle time.Duration) (
	mirror.Applied, error,
) {
	return s.end(ctx, "apply missing group", lease, now, func(q *queries) (store.Plan, error) {
		st, stored, err := lockGroup(ctx, q, lease)
		if err != nil {
			return store.Plan{}, err
		}
		plan := store.PlanMissingGroup(st, stored, lease, now, settle)
		if plan.Change != 0 {
			r := lease.Resource
			err = q.TombstoneGroup(ctx, dbq.TombstoneGroupParams{
				DeleteTime: nullTime(now), Bucket: r.Bucket(), ProjectID: rawKey(r.Project), GroupID: rawKey(r.ID),
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
	return s.end(ctx, "apply groups", lease, now, func(q *queries) (store.Plan, error) {
		states, err := lockStates(ctx, q, lease)
		if err != nil {
			return store.Plan{}, err
		}
		rows, err := q.GroupCopies(ctx, dbq.GroupCopiesParams{Bucket: r.Bucket(), ProjectID: rawKey(r.Project)})
		if err != nil {
			return store.Plan{}, err
		}
		copies := make(map[string]store.ThreadCopy, len(rows))
		for _, row := range rows {
			copies[string(row.GroupID)] = store.GroupCopy(row.ContentSha256, row.DeleteTime.Valid)
		}
		plan, err := store.PlanGroups(states, copies, lease, list, now)
		if err != nil {
			return store.Plan{}, err
		}
		return plan, q.markStale(ctx, plan.Stale)
	})
}

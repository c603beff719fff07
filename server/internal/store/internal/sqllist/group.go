package sqllist

import (
	"context"
	"fmt"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

var groupColumns = `select g.group_id, g.source_json, g.content_sha256, g.organization_id, g.create_time, g.update_time,
    g.delete_time,` + stateColumns + "\n"

var joinGroupState = `left join mirror_resource_state s
    on s.bucket = g.bucket and s.project_id = g.project_id and s.room_id = ''
    and s.kind = ` + literal(mirror.KindGroup) + " and s.resource_id = g.group_id\n"

func scanGroup(project mirror.ProjectID) func(Row, *mirror.Group) error {
	return func(row Row, g *mirror.Group) error {
		g.Project = project
		return scanWithState(row, &g.Freshness, &g.ID, &g.Source, (*hash)(&g.SHA256), &g.OrganizationID,
			at(&g.CreateTime), at(&g.UpdateTime), at(&g.Freshness.DeleteTime))
	}
}

// Group reads by key.
func (r *Reader) Group(ctx context.Context, group mirror.Resource, deleted bool) (mirror.Group, error) {
	s := r.query(groupColumns+"from mirror_group g\n"+joinGroupState).
		where("g.bucket = ? and g.project_id = ? and g.group_id = ?", group.Bucket(), group.Project, group.ID).
		where("(g.delete_time is null or ?)", deleted)
	groups, err := r.withMembers(ctx, "read group", group.Project, s)
	if err == nil && len(groups) == 0 {
		err = fmt.Errorf("read group: %w", store.ErrNotFound)
	}
	if err != nil {
		return mirror.Group{}, err
	}
	return groups[0], nil
}

// Groups walks the primary key, since the groups of a project are in one bucket, or
// the memberships of a user.
func (r *Reader) Groups(ctx context.Context, f store.GroupFilter) ([]mirror.Group, error) {
	bucket := mirror.Bucket(f.Project, "")
	if f.User == "" {
		order := []string{"g.group_id"}
		s := r.query(groupColumns+"from mirror_group g\n"+joinGroupState).
			where("g.bucket = ? and g.project_id = ?", bucket, f.Project).
			where("(g.delete_time is null or ?)", f.Deleted).after(order, f.After).page(order, f.Limit)
		return r.withMembers(ctx, "list groups", f.Project, s)
	}
	// A left join, as in joinRoom. A membership without its group is of a group that
	// is being written.
	order := []string{"m.group_id"}
	s := r.query(groupColumns+"from mirror_group_member m"+r.by("mirror_group_member_by_user")+`left join mirror_group g
    on g.bucket = m.bucket and g.project_id = m.project_id and g.group_id = m.group_id
`+joinGroupState).
		where("m.bucket = ? and m.project_id = ? and m.user_id = ?", bucket, f.Project, f.User).
		where("case when g.delete_time is null then g.group_id is not null else ? end", f.Deleted).
		after(order, f.After).page(order, f.Limit)
	return r.withMembers(ctx, "list groups", f.Project, s)
}

// withMembers reads groups by id, and then the members of all of them.
func (r *Reader) withMembers(ctx context.Context, what string, project mirror.ProjectID, s *statement) ([]mirror.Group,
	error,
) {
	groups, err := list(ctx, r, what, s, scanGroup(project))
	if err != nil || len(groups) == 0 {
		return nil, err
	}
	place := make(map[string]int, len(groups))
	var keys []rowKey
	for i, g := range groups {
		place[g.ID] = i
		keys = append(keys, rowKey{ID: g.ID})
	}
	table, args := r.keyTable(project, keys, "group_id")
	members := r.query("select m.group_id, m.user_id, m.add_time\nfrom "+table+`
join mirror_group_member m
    on m.bucket = k.bucket and m.project_id = ? and m.group_id = k.group_id`, append(args, project)...)
	members.add("\norder by m.group_id, m.user_id")
	_, err = list(ctx, r, "list members of groups", members, func(row Row, m *mirror.GroupMember) error {
		var id string
		err := row.Scan(&id, &m.UserID, at(&m.AddTime))
		if i, ok := place[id]; ok {
			groups[i].Members = append(groups[i].Members, *m)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return groups, nil
}

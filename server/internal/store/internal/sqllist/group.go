package sqllist

import (
	"context"
	"fmt"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

var selectGroups = `select g.group_id, g.source_json, g.content_sha256, g.organization_id, g.create_time, g.update_time,
    g.delete_time,` + stateColumns + `
from mirror_group g
left join mirror_resource_state s
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
	s := r.query(selectGroups).
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

// Groups walks the primary key: the groups of a project are in one bucket.
func (r *Reader) Groups(ctx context.Context, f store.GroupFilter) ([]mirror.Group, error) {
	order := []string{"g.group_id"}
	s := r.query(selectGroups).
		where("g.bucket = ? and g.project_id = ?", mirror.Bucket(f.Project, ""), f.Project).
		where("(g.delete_time is null or ?)", f.Deleted).after(order, f.After).
		whereIf(f.User != "", `exists (
        select 1 from mirror_group_member m
        where m.bucket = g.bucket and m.project_id = g.project_id and m.group_id = g.group_id and m.user_id = ?
    )`, f.User).
		page(order, f.Limit)
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
	for i, g := range groups {
		place[g.ID] = i
	}
	members := r.query(`select m.group_id, m.user_id, m.add_time
from mirror_group_member m
`).where("m.bucket = ? and m.project_id = ? and m.group_id >= ? and m.group_id <= ?", mirror.Bucket(project, ""), project,
		groups[0].ID, groups[len(groups)-1].ID)
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

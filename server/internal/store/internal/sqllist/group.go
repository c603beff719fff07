package sqllist

import (
	"context"

	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/mirror"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/store"
)

var groupColumns = `select g.group_id, g.source_json, g.content_sha256, g.organization_id, g.create_time, g.update_time,
    g.delete_time,` + stateColumns + "\n"

func (r *Reader) ofGroup() string { return r.state("g", "''", literal(mirror.KindGroup), "g.group_id") }

func scanGroup(project mirror.ProjectID) func(Row, *mirror.Group) error {
	return func(row Row, g *mirror.Group) error {
		g.Project = project
		return scanWithState(row, &g.Freshness, &g.ID, &g.Source, (*hash)(&g.SHA256), &g.OrganizationID,
			at(&g.CreateTime), at(&g.UpdateTime), at(&g.Freshness.DeleteTime))
	}
}

// Group reads by key.
func (r *Reader) Group(ctx context.Context, group mirror.Resource, deleted bool) (mirror.Group, error) {
	return only(r.groupsByKey(ctx, group.Project, []mirror.Resource{group}, deleted))
}

// GroupsByID uses one statement for all of them.
func (r *Reader) GroupsByID(ctx context.Context, project mirror.ProjectID, groups []mirror.Resource) ([]mirror.Group,
	error,
) {
	return r.groupsByKey(ctx, project, groups, false)
}

func (r *Reader) groupsByKey(ctx context.Context, project mirror.ProjectID, groups []mirror.Resource, deleted bool) (
	[]mirror.Group, error,
) {
	return byDistinctKeys(groups, func(keys []rowKey) ([]mirror.Group, error) {
		table, args := r.keyTable(project, keys, "group_id")
		s := r.query(groupColumns+"from "+table+`
join mirror_group g on g.bucket = k.bucket and g.project_id = ? and g.group_id = k.group_id
`+r.ofGroup(), append(args, project)...).where("(g.delete_time is null or ?)", deleted).
			whereIf(r.dialect.Routed, "g.bucket = ?", mirror.Bucket(project, ""))
		return list(ctx, r, "read groups", s, scanGroup(project))
	})
}

// Groups walks the primary key, since the groups of a project are in one bucket, or
// the memberships of a user.
func (r *Reader) Groups(ctx context.Context, f store.GroupFilter) ([]mirror.Group, error) {
	bucket := mirror.Bucket(f.Project, "")
	order := []string{"g.group_id"}
	s := r.query(groupColumns+"from mirror_group g\n"+r.ofGroup()).
		where("g.bucket = ? and g.project_id = ?", bucket, f.Project).where("(g.delete_time is null or ?)", f.Deleted)
	if f.User != "" {
		// A membership without its group is of a group that is being written.
		order = []string{"m.group_id"}
		s = r.query(groupColumns+"from mirror_group_member m"+r.by("mirror_group_member_by_user")+
			r.lookUp("mirror_group", "g", "g.bucket = m.bucket and g.project_id = m.project_id and g.group_id = m.group_id")+
			r.ofGroup()).
			where("m.bucket = ? and m.project_id = ? and m.user_id = ?", bucket, f.Project, f.User).
			where("case when g.delete_time is null then g.group_id is not null else ? end", f.Deleted)
	}
	return list(ctx, r, "list groups", s.after(order, f.After).page(order, f.Limit), scanGroup(f.Project))
}

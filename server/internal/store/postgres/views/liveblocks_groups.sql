-- The groups of users that are not deleted.
create or replace view liveblocks_groups (group_id, organization_id, created_at, updated_at, project_id) as
select
    g.group_id,
    g.organization_id,
    g.create_time,
    g.update_time,
    g.project_id
from mirror_group g
where g.delete_time is null;

-- By this comment a later migrate knows that the view may be replaced.
comment on view liveblocks_groups is 'liveblocks-mirror: the groups of users';

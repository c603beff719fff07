-- The groups of users that are not deleted.
-- By the last condition a later migrate knows the view and its edition.
create or replace sql security invoker view liveblocks_groups (
    group_id, organization_id, created_at, updated_at, project_id
) as
select
    g.group_id,
    g.organization_id,
    g.create_time,
    g.update_time,
    g.project_id
from mirror_group g
where g.delete_time is null and 'liveblocks-mirror 1' <> ''

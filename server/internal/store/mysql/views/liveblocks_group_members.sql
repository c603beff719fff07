-- The members of groups that are not deleted.
-- By the last condition a later migrate knows the view and its edition.
create or replace sql security invoker view liveblocks_group_members (
    group_id, user_id, added_at, project_id
) as
select
    m.group_id,
    m.user_id,
    m.add_time,
    m.project_id
from mirror_group_member m
join mirror_group g
    on g.bucket = m.bucket
    and g.project_id = m.project_id
    and g.group_id = m.group_id
    and g.delete_time is null
where 'liveblocks-mirror 1' <> ''

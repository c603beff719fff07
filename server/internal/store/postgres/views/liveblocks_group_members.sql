-- The members of groups that are not deleted.
create or replace view liveblocks_group_members (group_id, user_id, added_at, project_id) as
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
    and g.delete_time is null;

-- By this comment a later migrate knows that the view may be replaced.
comment on view liveblocks_group_members is 'liveblocks-mirror: the members of groups';

comment on column liveblocks_group_members.group_id is 'id of the group';
comment on column liveblocks_group_members.user_id is 'id of the member';
comment on column liveblocks_group_members.added_at is 'when it was added, according to Liveblocks';
comment on column liveblocks_group_members.project_id is 'local id of the project, by default "default"';

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

comment on column liveblocks_groups.group_id is 'id of the group';
comment on column liveblocks_groups.organization_id is 'id of the organization (tenant); empty if there is none';
comment on column liveblocks_groups.created_at is 'when it was created, according to Liveblocks';
comment on column liveblocks_groups.updated_at is 'when it last changed, as far as is known';
comment on column liveblocks_groups.project_id is 'local id of the project, by default "default"';

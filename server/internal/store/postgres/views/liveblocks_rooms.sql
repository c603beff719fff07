-- The rooms that are not deleted.
create or replace view liveblocks_rooms (
    room_id, organization_id, metadata, data, created_at, last_connection_at, project_id
) as
select
    r.room_id,
    r.organization_id,
    r.data->'metadata',
    r.data,
    r.create_time,
    r.last_connection_time,
    r.project_id
from mirror_room r
where r.delete_time is null;

-- By this comment a later migrate knows that the view may be replaced.
comment on view liveblocks_rooms is 'liveblocks-mirror: the rooms that are not deleted';

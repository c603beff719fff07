-- The rooms that are not deleted.
-- By the last condition a later migrate knows the view and its edition.
create or replace sql security invoker view liveblocks_rooms (
    room_id, organization_id, metadata, data, created_at, last_connection_at, project_id
) as
select
    r.room_id,
    r.organization_id,
    json_extract(r.data, '$.metadata'),
    r.data,
    r.create_time,
    r.last_connection_time,
    r.project_id
from mirror_room r
where r.delete_time is null and 'liveblocks-mirror 1' <> ''

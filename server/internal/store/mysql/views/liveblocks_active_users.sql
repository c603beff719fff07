-- Who is in a room now: a row for each connection.
-- By the last condition a later migrate knows the view and its edition.
create or replace sql security invoker view liveblocks_active_users (
    room_id, connection_id, user_id, info, project_id
) as
select
    u.room_id,
    u.connection_id,
    u.user_id,
    u.info,
    u.project_id
from mirror_active_user u
join mirror_room r
    on r.bucket = u.bucket
    and r.project_id = u.project_id
    and r.room_id = u.room_id
    and r.epoch = u.epoch
    and r.delete_time is null
where 'liveblocks-mirror 1' <> ''

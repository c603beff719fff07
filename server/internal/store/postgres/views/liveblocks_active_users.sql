-- Who is in a room now: a row for each connection.
create or replace view liveblocks_active_users (room_id, connection_id, user_id, info, project_id) as
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
    and r.delete_time is null;

-- By this comment a later migrate knows that the view may be replaced.
comment on view liveblocks_active_users is 'liveblocks-mirror: who is in a living room now';

comment on column liveblocks_active_users.room_id is 'id of the room';
comment on column liveblocks_active_users.connection_id is 'number of the connection; -1 for users without one';
comment on column liveblocks_active_users.user_id is 'id of the user; empty for an anonymous one';
comment on column liveblocks_active_users.info is 'what the app says of the user, as JSON; null if there is nothing, or the server refuses it';
comment on column liveblocks_active_users.project_id is 'local id of the project, by default "default"';

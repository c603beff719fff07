-- Who was in a room, and when; also in rooms that are deleted by now. end_cause is empty
-- while the session lasts.
create or replace view liveblocks_user_sessions (
    room_id, session_id, connection_id, user_id, info, entered_at, left_at, end_cause, project_id
) as
select
    u.room_id,
    u.session_id,
    u.connection_id,
    u.user_id,
    u.info,
    u.enter_time,
    u.leave_time,
    u.end_cause,
    u.project_id
from mirror_user_session u;

-- By this comment a later migrate knows that the view may be replaced.
comment on view liveblocks_user_sessions is 'liveblocks-mirror: who was in a room, and when';

comment on column liveblocks_user_sessions.room_id is 'id of the room';
comment on column liveblocks_user_sessions.session_id is 'id of the session';
comment on column liveblocks_user_sessions.connection_id is 'number of the connection; -1 for users without one';
comment on column liveblocks_user_sessions.user_id is 'id of the user; empty for an anonymous one';
comment on column liveblocks_user_sessions.info is 'what the app says of the user, as JSON; null if there is nothing, or the server refuses it';
comment on column liveblocks_user_sessions.entered_at is 'when the user entered; null if not known';
comment on column liveblocks_user_sessions.left_at is 'when the user left; null while there';
comment on column liveblocks_user_sessions.end_cause is 'left, absent or room_deleted; empty while it lasts';
comment on column liveblocks_user_sessions.project_id is 'local id of the project, by default "default"';

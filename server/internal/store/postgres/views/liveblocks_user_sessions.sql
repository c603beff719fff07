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

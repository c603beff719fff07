-- Who was in a room, and when; also in rooms that are deleted by now. end_cause is empty
-- while the session lasts.
-- By the last condition a later migrate knows the view and its edition.
create or replace sql security invoker view liveblocks_user_sessions (
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
from mirror_user_session u
where 'liveblocks-mirror 1' <> ''

-- name: Unfolded :many
-- In the order in which they happened, as far as known.
select event_id, type, payload, source_time, receive_time
from mirror_unfolded_event
where bucket = ? and project_id = ? and room_id = ? and kind = ? and resource_id = ?
order by happen_time, event_id
limit ?;

-- name: AnyUnfolded :one
select count(*) from (
    select event_id from mirror_unfolded_event
    where bucket = ? and project_id = ? and room_id = ? and kind = ? and resource_id = ?
    limit 1
) u;

-- name: ActiveUsersOfRoom :many
select connection_id, epoch, user_id, info_json
from mirror_active_user
where bucket = sqlc.arg(bucket) and project_id = sqlc.arg(project_id) and room_id = sqlc.arg(room_id)
    and connection_id >= sqlc.arg(after_connection)
    and (connection_id > sqlc.arg(after_connection) or user_id > sqlc.arg(after_user))
order by connection_id, user_id
limit ?;

-- name: DeleteActiveUsers :execrows
delete from mirror_active_user
where bucket = ? and project_id = ? and room_id = ?
order by connection_id, user_id
limit ?;

-- name: CleanActiveUsers :execrows
delete from mirror_active_user
where bucket = ? and project_id = ? and room_id = ? and epoch < ?
order by connection_id, user_id
limit ?;

-- name: OpenSessions :many
select session_id, connection_id, user_id, begin_time
from mirror_user_session
where bucket = ? and project_id = ? and room_id = ? and session_id > sqlc.arg(after) and end_cause = ''
order by session_id
limit ?;

-- name: EndSessionsOfRoom :execrows
update mirror_user_session
set leave_time = sqlc.arg(leave_time), end_cause = 'room_deleted'
where bucket = sqlc.arg(bucket) and project_id = sqlc.arg(project_id) and room_id = sqlc.arg(room_id) and end_cause = ''
order by session_id
limit ?;

-- name: NotificationRows :many
select event_id, channel, kind, user_id, thread_id, mention_id, subject_id, create_time, trigger_time,
    inbox_json, read_time, notify_time
from mirror_notification
where bucket = ? and project_id = ? and room_id = ? and notification_id = ? and event_id > sqlc.arg(after)
order by event_id
limit ?;

-- name: NotificationUser :one
select user_id
from mirror_notification
where bucket = ? and project_id = ? and room_id = ? and notification_id = ? and user_id <> ''
order by event_id
limit 1;

-- name: WriteInbox :exec
update mirror_notification
set inbox_json = sqlc.narg(inbox_json), inbox = sqlc.narg(inbox), inbox_problem = sqlc.arg(inbox_problem),
    read_time = sqlc.narg(read_time), notify_time = sqlc.narg(notify_time)
where bucket = sqlc.arg(bucket) and project_id = sqlc.arg(project_id) and room_id = sqlc.arg(room_id)
    and notification_id = sqlc.arg(notification_id)
    and event_id >= sqlc.arg(first_event) and event_id <= sqlc.arg(last_event);

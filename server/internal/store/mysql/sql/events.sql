-- Each list of events walks the index that fits its filter, latest first. The
-- comparison of the rest of the key is spelled out, because the two halves of
-- the order go in opposite directions.

-- name: EventsByTime :many
select project_id, event_id, type, room_id, user_id, liveblocks_project_id, send_time, receive_time, source_time, outcome,
    left(payload, sqlc.arg(payload_bytes)) as payload
from mirror_event
where project_id = sqlc.arg(project_id)
    and (sqlc.arg(type) = '' or type = sqlc.arg(type))
    and receive_time >= sqlc.arg(from_time) and receive_time < sqlc.arg(to_time)
    and receive_time <= sqlc.arg(after_time) and (receive_time < sqlc.arg(after_time) or event_id > sqlc.arg(after_id))
order by receive_time desc, event_id
limit ?;

-- name: EventsByRoom :many
select project_id, event_id, type, room_id, user_id, liveblocks_project_id, send_time, receive_time, source_time, outcome,
    left(payload, sqlc.arg(payload_bytes)) as payload
from mirror_event
where project_id = sqlc.arg(project_id) and room_id = sqlc.arg(room_id)
    and (sqlc.arg(type) = '' or type = sqlc.arg(type))
    and (sqlc.arg(user_id) = '' or user_id = sqlc.arg(user_id))
    and receive_time >= sqlc.arg(from_time) and receive_time < sqlc.arg(to_time)
    and receive_time <= sqlc.arg(after_time) and (receive_time < sqlc.arg(after_time) or event_id > sqlc.arg(after_id))
order by receive_time desc, event_id
limit ?;

-- name: EventsByUser :many
select project_id, event_id, type, room_id, user_id, liveblocks_project_id, send_time, receive_time, source_time, outcome,
    left(payload, sqlc.arg(payload_bytes)) as payload
from mirror_event
where project_id = sqlc.arg(project_id) and user_id = sqlc.arg(user_id)
    and (sqlc.arg(type) = '' or type = sqlc.arg(type))
    and receive_time >= sqlc.arg(from_time) and receive_time < sqlc.arg(to_time)
    and receive_time <= sqlc.arg(after_time) and (receive_time < sqlc.arg(after_time) or event_id > sqlc.arg(after_id))
order by receive_time desc, event_id
limit ?;

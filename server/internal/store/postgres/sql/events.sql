-- Each list of events walks the index that fits its filter, latest first. The
-- comparison of the rest of the key is spelled out, because the two halves of
-- the order go in opposite directions.

-- name: EventsByTime :many
select project_id, event_id, type, room_id, user_id, liveblocks_project_id, send_time, receive_time, source_time, outcome,
    (case when @no_payload::boolean then '' else payload end)::bytea as payload
from mirror_event
where project_id = @project_id
    and (@type::text = '' or type = @type)
    and receive_time >= @from_time and receive_time < @to_time
    and receive_time <= @after_time and (receive_time < @after_time or event_id > @after_id)
order by receive_time desc, event_id
limit @max_rows;

-- name: EventsByRoom :many
select project_id, event_id, type, room_id, user_id, liveblocks_project_id, send_time, receive_time, source_time, outcome,
    (case when @no_payload::boolean then '' else payload end)::bytea as payload
from mirror_event
where project_id = @project_id and room_id = @room_id and room_id <> ''
    and (@type::text = '' or type = @type)
    and (@user_id::text = '' or user_id = @user_id)
    and receive_time >= @from_time and receive_time < @to_time
    and receive_time <= @after_time and (receive_time < @after_time or event_id > @after_id)
order by receive_time desc, event_id
limit @max_rows;

-- name: EventsByUser :many
select project_id, event_id, type, room_id, user_id, liveblocks_project_id, send_time, receive_time, source_time, outcome,
    (case when @no_payload::boolean then '' else payload end)::bytea as payload
from mirror_event
where project_id = @project_id and user_id = @user_id and user_id <> ''
    and (@type::text = '' or type = @type)
    and receive_time >= @from_time and receive_time < @to_time
    and receive_time <= @after_time and (receive_time < @after_time or event_id > @after_id)
order by receive_time desc, event_id
limit @max_rows;

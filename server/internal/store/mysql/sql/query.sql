-- name: Project :one
select * from mirror_project where project_id = ?;

-- name: CountPending :many
select background, count(*) as n, min(due_time) as oldest
from mirror_resource_state
where project_id = ? and background in (false, true) and due_time is not null
group by background;

-- name: CountBackgroundRooms :one
select count(*) from mirror_resource_state
where project_id = ? and background = true and due_time is not null and kind = ?;

-- name: CountFailed :one
select count(*) from mirror_resource_state where project_id = ? and fail_time is not null;

-- name: Changes :many
select * from mirror_change
where bucket = ? and n > sqlc.arg(after)
order by n
limit ?;

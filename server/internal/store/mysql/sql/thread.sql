-- name: ListStates :many
-- The resources of one kind in a room, without their list.
select resource_id, missing_since from mirror_resource_state
where bucket = ? and project_id = ? and room_id = ? and kind = ? and resource_id > sqlc.arg(after)
order by resource_id
limit ?;

-- name: OldThreads :many
select thread_id from mirror_thread
where bucket = ? and project_id = ? and room_id = ? and epoch < ?
order by thread_id
limit ?;

-- name: LockOldThread :one
-- The condition is checked again when the row is locked.
select thread_id from mirror_thread
where bucket = ? and project_id = ? and room_id = ? and thread_id = ? and epoch < ?
for update;

-- name: DeleteThread :exec
delete from mirror_thread
where bucket = ? and project_id = ? and room_id = ? and thread_id = ?;

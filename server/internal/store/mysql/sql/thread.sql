-- name: ListStates :many
-- The resources of one kind in a room, without their list.
select resource_id, missing_since from mirror_resource_state
where bucket = ? and project_id = ? and room_id = ? and kind = ? and resource_id <> '';

-- name: OldThreads :many
select thread_id from mirror_thread
where bucket = ? and project_id = ? and room_id = ? and epoch < ?
order by thread_id
limit ?;

-- name: CleanThread :execrows
-- The condition is checked again when the row is locked.
delete from mirror_thread
where bucket = ? and project_id = ? and room_id = ? and thread_id = ? and epoch < ?;

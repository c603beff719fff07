-- name: Event :one
select * from mirror_event
where bucket = ? and project_id = ? and event_id = ?;

-- name: Room :one
-- The state is joined from the left, so that a copy never hides behind it.
select r.room_id, r.epoch, r.source_json, r.content_sha256, r.create_time, r.last_connection_time,
    r.organization_id, r.delete_time, s.fetch_time, s.source_update_time, s.missing_since,
    s.revision, s.generation, s.applied_generation
from mirror_room r
left join mirror_resource_state s
    on s.bucket = r.bucket and s.project_id = r.project_id and s.room_id = r.room_id
    and s.kind = 1 and s.resource_id = ''
where r.bucket = sqlc.arg(bucket) and r.project_id = sqlc.arg(project_id) and r.room_id = sqlc.arg(room_id)
    and (r.delete_time is null or cast(sqlc.arg(deleted) as signed) = 1);

-- name: Rooms :many
select r.room_id, r.epoch, r.source_json, r.content_sha256, r.create_time, r.last_connection_time,
    r.organization_id, r.delete_time, s.fetch_time, s.source_update_time, s.missing_since,
    s.revision, s.generation, s.applied_generation
from mirror_room r
left join mirror_resource_state s
    on s.bucket = r.bucket and s.project_id = r.project_id and s.room_id = r.room_id
    and s.kind = 1 and s.resource_id = ''
where r.project_id = sqlc.arg(project_id)
    and r.room_id > sqlc.arg(after) and r.room_id >= sqlc.arg(lower) and r.room_id <= sqlc.arg(upper)
    and (r.delete_time is null or cast(sqlc.arg(deleted) as signed) = 1)
order by r.room_id
limit ?;

-- name: Documents :many
-- The key after the last one is spelled out: a comparison of rows would not be
-- looked up in the index.
select d.room_id, d.kind, d.resource_id, d.content_sha256, d.size, d.derive_version, d.data_problem,
    s.fetch_time, s.source_update_time, s.missing_since,
    s.revision, s.generation, s.applied_generation
from mirror_document d
join mirror_room r
    on r.bucket = d.bucket and r.project_id = d.project_id and r.room_id = d.room_id
    and r.epoch = d.epoch and r.delete_time is null
left join mirror_resource_state s
    on s.bucket = d.bucket and s.project_id = d.project_id and s.room_id = d.room_id
    and s.kind = d.kind and s.resource_id = d.resource_id
where d.project_id = sqlc.arg(project_id)
    and d.room_id >= sqlc.arg(lower) and d.room_id <= sqlc.arg(upper)
    and d.room_id >= sqlc.arg(after_room)
    and (d.room_id > sqlc.arg(after_room)
        or d.kind > sqlc.arg(after_kind)
        or (d.kind = sqlc.arg(after_kind) and d.resource_id > sqlc.arg(after_id)))
    and (cast(sqlc.arg(any_kind) as signed) = 1 or d.kind = sqlc.arg(kind))
order by d.room_id, d.kind, d.resource_id
limit ?;

-- name: TaskList :many
select * from mirror_resource_state s
where s.project_id = sqlc.arg(project_id)
    and (sqlc.arg(room_id) = '' or s.room_id = sqlc.arg(room_id))
    and s.room_id >= sqlc.arg(after_room)
    and (s.room_id > sqlc.arg(after_room)
        or s.kind > sqlc.arg(after_kind)
        or (s.kind = sqlc.arg(after_kind) and s.resource_id > sqlc.arg(after_id)))
    and case cast(sqlc.arg(state) as char)
        when '' then s.due_time is not null or s.fail_time is not null or s.generation > s.applied_generation
        when 'running' then s.due_time is not null and s.lease_until > sqlc.arg(now)
        when 'pending' then s.due_time is not null and (s.lease_until is null or s.lease_until <= sqlc.arg(now))
        when 'failed' then s.due_time is null and s.fail_time is not null
        when 'waiting' then s.due_time is null and s.fail_time is null and s.generation > s.applied_generation
        else s.due_time is null and s.fail_time is null and s.generation = s.applied_generation
    end
order by s.room_id, s.kind, s.resource_id
limit ?;

-- name: Project :one
select * from mirror_project where project_id = ?;

-- name: CountPending :many
select background, count(*) as n, min(due_time) as oldest
from mirror_resource_state
where project_id = ? and background in (false, true) and due_time is not null
group by background;

-- name: CountBackgroundRooms :one
select count(*) from mirror_resource_state
where project_id = ? and background = true and due_time is not null and kind = 1;

-- name: CountFailed :one
select count(*) from mirror_resource_state where project_id = ? and fail_time is not null;

-- name: Changes :many
select * from mirror_change
where bucket = ? and n > sqlc.arg(after)
order by n
limit ?;

-- name: State :one
select * from mirror_resource_state
where bucket = ? and project_id = ? and room_id = ? and kind = ? and resource_id = ?;

-- name: Document :one
-- A tombstone's epoch is one above that of what was in the room.
select d.content, d.content_sha256, d.size, d.derive_version, d.data_problem, r.delete_time,
    s.fetch_time, s.source_update_time, s.missing_since,
    s.revision, s.generation, s.applied_generation
from mirror_document d
join mirror_room r
    on r.bucket = d.bucket and r.project_id = d.project_id and r.room_id = d.room_id
    and (r.epoch = d.epoch and r.delete_time is null
        or cast(sqlc.arg(deleted) as signed) = 1 and r.epoch = d.epoch + 1 and r.delete_time is not null)
left join mirror_resource_state s
    on s.bucket = d.bucket and s.project_id = d.project_id and s.room_id = d.room_id
    and s.kind = d.kind and s.resource_id = d.resource_id
where d.bucket = sqlc.arg(bucket) and d.project_id = sqlc.arg(project_id) and d.room_id = sqlc.arg(room_id)
    and d.kind = sqlc.arg(kind) and d.resource_id = sqlc.arg(resource_id);

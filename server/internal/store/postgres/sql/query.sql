-- name: Event :one
select * from mirror_event
where bucket = @bucket and project_id = @project_id and event_id = @event_id;

-- name: Room :one
-- The state is joined from the left, so that a copy never hides behind it.
select r.room_id, r.epoch, r.source_json, r.content_sha256, r.create_time, r.last_connection_time,
    r.organization_id, r.delete_time, s.fetch_time, s.source_update_time, s.missing_since,
    coalesce(s.revision, 0)::bigint as revision,
    coalesce(s.generation > s.applied_generation, false)::boolean as stale
from mirror_room r
left join mirror_resource_state s
    on s.bucket = r.bucket and s.project_id = r.project_id and s.room_id = r.room_id
    and s.kind = 1 and s.resource_id = ''
where r.bucket = @bucket and r.project_id = @project_id and r.room_id = @room_id
    and (r.delete_time is null or @deleted::boolean);

-- name: Rooms :many
select r.room_id, r.epoch, r.source_json, r.content_sha256, r.create_time, r.last_connection_time,
    r.organization_id, r.delete_time, s.fetch_time, s.source_update_time, s.missing_since,
    coalesce(s.revision, 0)::bigint as revision,
    coalesce(s.generation > s.applied_generation, false)::boolean as stale
from mirror_room r
left join mirror_resource_state s
    on s.bucket = r.bucket and s.project_id = r.project_id and s.room_id = r.room_id
    and s.kind = 1 and s.resource_id = ''
where r.project_id = @project_id
    and r.room_id > @after and r.room_id >= @lower and r.room_id <= @upper
    and (r.delete_time is null or @deleted::boolean)
order by r.room_id
limit @max_rows;

-- name: Document :one
-- A tombstone's epoch is one above that of what was in the room.
select d.content, d.content_sha256, d.size, d.derive_version, d.data_problem, r.delete_time,
    s.fetch_time, s.source_update_time, s.missing_since,
    coalesce(s.revision, 0)::bigint as revision,
    coalesce(s.generation > s.applied_generation, false)::boolean as stale
from mirror_document d
join mirror_room r
    on r.bucket = d.bucket and r.project_id = d.project_id and r.room_id = d.room_id
    and (r.epoch = d.epoch and r.delete_time is null
        or @deleted::boolean and r.epoch = d.epoch + 1 and r.delete_time is not null)
left join mirror_resource_state s
    on s.bucket = d.bucket and s.project_id = d.project_id and s.room_id = d.room_id
    and s.kind = d.kind and s.resource_id = d.resource_id
where d.bucket = @bucket and d.project_id = @project_id and d.room_id = @room_id
    and d.kind = @kind and d.resource_id = @resource_id;

-- name: ReadDocuments :many
-- Document for many readers. What a reader holds already, or would be too much
-- to send to all of them at once, stays where it is.
-- The inner selects hide the length of the arrays from the planner. It would
-- take it for a reason to plan every execution anew, at many times the cost of
-- the rows.
select k.n::integer as n,
    (case when d.content_sha256 <> k.have and d.size <= @inline_bytes::bigint then d.content end)::bytea as content,
    d.content_sha256, d.size, d.derive_version, d.data_problem, r.delete_time,
    s.fetch_time, s.source_update_time, s.missing_since,
    coalesce(s.revision, 0)::bigint as revision,
    coalesce(s.generation > s.applied_generation, false)::boolean as stale
from (
    select
        unnest((select @n::integer[])) as n,
        unnest((select @bucket::smallint[])) as bucket,
        unnest((select @project_id::text[])) as project_id,
        unnest((select @room_id::text[])) as room_id,
        unnest((select @kind::smallint[])) as kind,
        unnest((select @resource_id::text[])) as resource_id,
        unnest((select @deleted::boolean[])) as deleted,
        unnest((select @have::bytea[])) as have
) k
join mirror_document d
    on d.bucket = k.bucket and d.project_id = k.project_id and d.room_id = k.room_id
    and d.kind = k.kind and d.resource_id = k.resource_id
join mirror_room r
    on r.bucket = d.bucket and r.project_id = d.project_id and r.room_id = d.room_id
    and (r.epoch = d.epoch and r.delete_time is null
        or k.deleted and r.epoch = d.epoch + 1 and r.delete_time is not null)
left join mirror_resource_state s
    on s.bucket = d.bucket and s.project_id = d.project_id and s.room_id = d.room_id
    and s.kind = d.kind and s.resource_id = d.resource_id;

-- name: Documents :many
select d.room_id, d.kind, d.resource_id, d.content_sha256, d.size, d.derive_version, d.data_problem,
    s.fetch_time, s.source_update_time, s.missing_since,
    coalesce(s.revision, 0)::bigint as revision,
    coalesce(s.generation > s.applied_generation, false)::boolean as stale
from mirror_document d
join mirror_room r
    on r.bucket = d.bucket and r.project_id = d.project_id and r.room_id = d.room_id
    and r.epoch = d.epoch and r.delete_time is null
left join mirror_resource_state s
    on s.bucket = d.bucket and s.project_id = d.project_id and s.room_id = d.room_id
    and s.kind = d.kind and s.resource_id = d.resource_id
where d.project_id = @project_id
    and d.room_id >= @lower and d.room_id <= @upper
    and (d.room_id, d.kind, d.resource_id) > (@after_room::text, @after_kind::smallint, @after_id::text)
    and (@kind::smallint = 0 or d.kind = @kind)
order by d.room_id, d.kind, d.resource_id
limit @max_rows;

-- name: TaskList :many
select * from mirror_resource_state s
where s.project_id = @project_id
    and (@room_id::text = '' or s.room_id = @room_id)
    and (s.room_id, s.kind, s.resource_id) > (@after_room::text, @after_kind::smallint, @after_id::text)
    and case @state::text
        when '' then s.due_time is not null or s.fail_time is not null or s.generation > s.applied_generation
        when 'running' then s.due_time is not null and s.lease_until > @now
        when 'pending' then s.due_time is not null and coalesce(s.lease_until <= @now, true)
        when 'failed' then s.due_time is null and s.fail_time is not null
        when 'waiting' then s.due_time is null and s.fail_time is null and s.generation > s.applied_generation
        else s.due_time is null and s.fail_time is null and s.generation = s.applied_generation
    end
order by s.room_id, s.kind, s.resource_id
limit @max_rows;

-- name: Project :one
select * from mirror_project where project_id = @project_id;

-- name: Counts :one
select
    (select count(*) from mirror_resource_state d where d.project_id = @project_id and d.due_time is not null)::bigint as pending,
    (select count(*) from mirror_resource_state b where b.project_id = @project_id and b.background = true and b.due_time is not null)::bigint as background,
    (select count(*) from mirror_resource_state r where r.project_id = @project_id and r.background = true and r.due_time is not null and r.kind = 1)::bigint as background_rooms,
    (select count(*) from mirror_resource_state f where f.project_id = @project_id and f.fail_time is not null)::bigint as failed,
    least(
        (select min(m.due_time) from mirror_resource_state m where m.project_id = @project_id and m.background = false),
        (select min(n.due_time) from mirror_resource_state n where n.project_id = @project_id and n.background = true)
    )::timestamptz as oldest_due;

-- name: Changes :many
select * from mirror_change
where bucket = @bucket and n > @after
order by n
limit @max_rows;

-- name: Due :many
-- Two index scans, so waiting background tasks cost nothing while there are urgent
-- ones. Vitess takes the comments for directives: what the shards have that answer is
-- returned, as if it were all.
(select /*vt+ SCATTER_ERRORS_AS_WARNINGS=1 */ l.background, l.due_time, l.room_id, l.kind, l.resource_id, l.generation = l.applied_generation as settles
from mirror_resource_state l
where l.project_id = sqlc.arg(project_id) and l.background = false
    and l.due_time <= sqlc.arg(now) and l.kind in (sqlc.slice(kinds))
    and (l.lease_until is null or l.lease_until <= sqlc.arg(now) or l.lease_until > sqlc.arg(too_far))
order by l.due_time
limit ?)
union all
(select /*vt+ SCATTER_ERRORS_AS_WARNINGS=1 */ b.background, b.due_time, b.room_id, b.kind, b.resource_id, b.generation = b.applied_generation as settles
from mirror_resource_state b
where b.project_id = sqlc.arg(project_id) and b.background = true
    and b.due_time <= sqlc.arg(now) and b.kind in (sqlc.slice(kinds_too))
    and (b.lease_until is null or b.lease_until <= sqlc.arg(now) or b.lease_until > sqlc.arg(too_far))
order by b.due_time
limit ?)
order by background, due_time;

-- name: NextDue :many
-- When the next resource becomes due. It fails while a shard is away, which Due would hide.
(select l.due_time
from mirror_resource_state l
where l.project_id = sqlc.arg(project_id) and l.background = false and l.due_time > sqlc.arg(now)
    and l.kind in (sqlc.slice(kinds))
order by l.due_time
limit 1)
union all
(select b.due_time
from mirror_resource_state b
where b.project_id = sqlc.arg(project_id) and b.background = true and b.due_time > sqlc.arg(now)
    and b.kind in (sqlc.slice(kinds_too))
order by b.due_time
limit 1);

-- name: NextLeaseEnd :one
-- When the first lease on a due resource ends.
select lease_until
from mirror_resource_state
where project_id = sqlc.arg(project_id) and background in (false, true) and due_time <= sqlc.arg(now)
    and lease_until > sqlc.arg(now) and lease_until <= sqlc.arg(too_far) and kind in (sqlc.slice(kinds))
order by lease_until
limit 1;

-- name: Claim :execrows
-- The condition decides who gets the lease; a row lock or SKIP LOCKED could only
-- make losing cheaper.
--
-- A lease that was not given back means that the process ended during the task.
-- Assignments are evaluated from left to right.
update mirror_resource_state
set attempts = attempts + if(lease_until <= sqlc.arg(now), 1, 0),
    deaths = deaths + if(lease_until <= sqlc.arg(now), 1, 0),
    lease_token = sqlc.arg(token), lease_until = sqlc.arg(lease_until), again_time = null
where bucket = sqlc.arg(bucket) and project_id = sqlc.arg(project_id) and room_id = sqlc.arg(room_id)
    and kind = sqlc.arg(kind) and resource_id = sqlc.arg(resource_id)
    and due_time <= sqlc.arg(now)
    and (lease_until is null or lease_until <= sqlc.arg(now) or lease_until > sqlc.arg(too_far));

-- name: Leased :one
-- The row that Claim has leased. What arrived since then is included, because the
-- fetch has not begun.
select
    sqlc.embed(s), r.epoch, r.delete_time,
    d.epoch as document_epoch, d.content_sha256 as document_sha256, d.state_sha256 as document_state_sha256,
    d.derive_version as document_derive_version
from mirror_resource_state s
left join mirror_room r
    on r.bucket = s.bucket and r.project_id = s.project_id and r.room_id = s.room_id
left join mirror_document d
    on d.bucket = s.bucket and d.project_id = s.project_id and d.room_id = s.room_id
    and d.kind = s.kind and d.resource_id = s.resource_id
where s.bucket = sqlc.arg(bucket) and s.project_id = sqlc.arg(project_id) and s.room_id = sqlc.arg(room_id)
    and s.kind = sqlc.arg(kind) and s.resource_id = sqlc.arg(resource_id)
    and s.lease_token = sqlc.arg(token);

-- name: Renew :execrows
update mirror_resource_state
set lease_until = sqlc.arg(lease_until)
where bucket = sqlc.arg(bucket) and project_id = sqlc.arg(project_id) and room_id = sqlc.arg(room_id)
    and kind = sqlc.arg(kind) and resource_id = sqlc.arg(resource_id) and lease_token = sqlc.arg(token);

-- name: ReleaseLease :exec
update mirror_resource_state
set lease_token = null, lease_until = null, deaths = sqlc.arg(deaths)
where bucket = sqlc.arg(bucket) and project_id = sqlc.arg(project_id) and room_id = sqlc.arg(room_id)
    and kind = sqlc.arg(kind) and resource_id = sqlc.arg(resource_id);

-- name: LockState :one
select * from mirror_resource_state
where bucket = ? and project_id = ? and room_id = ? and kind = ? and resource_id = ?
for update;

-- name: WriteState :exec
-- Every change of a leased state ends with this: it releases the lease and writes
-- the next due time. The revision is the number of the change entry that the
-- transaction has written, or 0.
update mirror_resource_state s set
    s.generation = sqlc.arg(generation),
    s.applied_generation = sqlc.arg(applied_generation),
    s.due_time = sqlc.arg(due_time),
    s.not_before = sqlc.arg(not_before),
    s.settle = sqlc.arg(settle),
    s.background = sqlc.arg(background),
    s.delete_generation = sqlc.arg(delete_generation),
    s.lease_token = null,
    s.lease_until = null,
    s.again_time = null,
    s.attempts = sqlc.arg(attempts),
    s.deaths = sqlc.arg(deaths),
    s.last_error = sqlc.arg(last_error),
    s.fail_time = sqlc.arg(fail_time),
    s.fetch_time = sqlc.arg(fetch_time),
    s.source_update_time = sqlc.arg(source_update_time),
    s.missing_since = sqlc.arg(missing_since),
    s.revision = greatest(s.revision, sqlc.arg(revision))
where s.bucket = sqlc.arg(bucket) and s.project_id = sqlc.arg(project_id) and s.room_id = sqlc.arg(room_id)
    and s.kind = sqlc.arg(kind) and s.resource_id = sqlc.arg(resource_id);

-- name: LockChildren :many
-- The states of a room's children of the given kinds, after one of them.
select kind, resource_id, lease_token from mirror_resource_state
where bucket = sqlc.arg(bucket) and project_id = sqlc.arg(project_id) and room_id = sqlc.arg(room_id)
    and kind in (sqlc.slice(kinds))
    and kind >= sqlc.arg(after_kind) and (kind > sqlc.arg(after_kind) or resource_id > sqlc.arg(after_id))
order by kind, resource_id
limit ?
for update;

-- name: SettleChildren :execrows
-- The room is deleted, so nothing in it is left to fetch. A settle fetch is still
-- to be done if the room returns immediately: the response may have been outdated.
-- Those that are done already do not count.
update mirror_resource_state
set settle = settle or due_time is not null,
    applied_generation = generation, due_time = null, not_before = null,
    attempts = 0, last_error = '', fail_time = null
where bucket = ? and project_id = ? and room_id = ? and kind in (sqlc.slice(kinds))
    and (applied_generation <> generation or due_time is not null or not_before is not null
        or attempts <> 0 or last_error <> '' or fail_time is not null)
order by kind, resource_id
limit ?;

-- name: Pause :exec
insert into mirror_project (project_id, liveblocks_project_id, pause_reason, pause_time)
values (?, '', ?, ?)
on duplicate key update
    pause_reason = values(pause_reason),
    pause_time = values(pause_time);

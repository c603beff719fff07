-- name: Due :many
-- Each half scans its part of the index. A single scan would read all urgent rows
-- that are not due yet before the background rows that are.
select d.room_id, d.kind, d.resource_id, d.background, d.due_time, d.settles
from (
    (
        select f.room_id, f.kind, f.resource_id, f.background, f.due_time,
            f.generation = f.applied_generation as settles
        from mirror_resource_state f
        where f.project_id = @project_id and f.background = false
            and f.due_time <= @now and f.kind = any(@kinds::smallint[])
            and (f.lease_until is null or f.lease_until <= @now or f.lease_until > @too_far)
        order by f.due_time
        limit @max_rows
    )
    union all
    (
        select b.room_id, b.kind, b.resource_id, b.background, b.due_time,
            b.generation = b.applied_generation as settles
        from mirror_resource_state b
        where b.project_id = @project_id and b.background = true
            and b.due_time <= @now and b.kind = any(@kinds::smallint[])
            and (b.lease_until is null or b.lease_until <= @now or b.lease_until > @too_far)
        order by b.due_time
        limit @max_rows
    )
) d
order by d.background, d.due_time;

-- name: NextDue :one
-- The first time at which a resource becomes due or the lease on a due one ends. With
-- min, the planner takes any index of open tasks for as good as the one in order, and
-- reads them all. The last part reads what is due, of which all is leased, or the rest
-- would have been returned.
select least(
    (select f.due_time from mirror_resource_state f
        where f.project_id = @project_id and f.background = false and f.due_time > @now
            and f.kind = any(@kinds::smallint[])
        order by f.due_time
        limit 1),
    (select b.due_time from mirror_resource_state b
        where b.project_id = @project_id and b.background = true and b.due_time > @now
            and b.kind = any(@kinds::smallint[])
        order by b.due_time
        limit 1),
    (select min(l.lease_until) from (
        (select f.lease_until from mirror_resource_state f
            where f.project_id = @project_id and f.background = false and f.due_time <= @now and f.lease_until > @now
                and f.lease_until <= @too_far and f.kind = any(@kinds::smallint[])
            order by f.due_time
            limit 10000)
        union all
        (select b.lease_until from mirror_resource_state b
            where b.project_id = @project_id and b.background = true and b.due_time <= @now and b.lease_until > @now
                and b.lease_until <= @too_far and b.kind = any(@kinds::smallint[])
            order by b.due_time
            limit 10000)
    ) l)
)::timestamptz as next_time;

-- name: Claim :one
-- The condition decides who gets the lease; a row lock or SKIP LOCKED could only
-- make losing cheaper. The commit does not wait for the disk: a claim that a crash
-- undoes is made again, and its result has lost its lease.
--
-- "is false" prevents use of the index on due_time: with few statistics, the
-- planner considers it as good as the key, and scans everything that is due.
update mirror_resource_state s
set
    -- A lease that was not given back: the process ended during the task.
    attempts = s.attempts + case when s.lease_until <= @now then 1 else 0 end,
    deaths = s.deaths + case when s.lease_until <= @now then 1 else 0 end,
    lease_token = @token, lease_until = @until, again_time = null
from (select set_config('synchronous_commit', 'off', true)) asynchronous
left join mirror_room r
    on r.bucket = @bucket and r.project_id = @project_id and r.room_id = @room_id
left join mirror_document d
    on d.bucket = @bucket and d.project_id = @project_id and d.room_id = @room_id
    and d.kind = @kind and d.resource_id = @resource_id
where s.bucket = @bucket and s.project_id = @project_id and s.room_id = @room_id
    and s.kind = @kind and s.resource_id = @resource_id
    and (s.due_time > @now) is false
    and (s.lease_until is null or s.lease_until <= @now or s.lease_until > @too_far)
returning
    sqlc.embed(s),
    coalesce(r.epoch, 0)::bigint as room_epoch,
    r.delete_time,
    coalesce(d.epoch, 0)::bigint as document_epoch,
    d.content_sha256 as document_sha256,
    d.state_sha256 as document_state_sha256,
    coalesce(d.derive_version, 0)::integer as document_derive_version;

-- name: Renew :execrows
update mirror_resource_state
set lease_until = @until
where bucket = @bucket and project_id = @project_id and room_id = @room_id
    and kind = @kind and resource_id = @resource_id and lease_token = @token;

-- name: ReleaseLease :exec
update mirror_resource_state
set lease_token = null, lease_until = null, deaths = @deaths
where bucket = @bucket and project_id = @project_id and room_id = @room_id
    and kind = @kind and resource_id = @resource_id;

-- name: LockState :one
select * from mirror_resource_state
where bucket = @bucket and project_id = @project_id and room_id = @room_id
    and kind = @kind and resource_id = @resource_id
for update;

-- name: LockLeased :one
-- Locks the state that the token owns and reads the stored copy of its room. The
-- room needs no lock: it is written only under the lock of its own state, which the
-- caller holds.
select
    sqlc.embed(s),
    coalesce(r.epoch, 0)::bigint as epoch,
    r.content_sha256, r.create_time, r.delete_time
from mirror_resource_state s
left join mirror_room r
    on r.bucket = s.bucket and r.project_id = s.project_id and r.room_id = s.room_id
where s.bucket = @bucket and s.project_id = @project_id and s.room_id = @room_id
    and s.kind = @kind and s.resource_id = @resource_id
    and s.lease_token = @token
for update of s;

-- name: WriteState :one
-- Every change of a leased state ends with this: it releases the lease and writes
-- the next due time. The change entry, if any, takes its number last, after
-- everything else in the transaction. Returns it, or 0.
with head as (
    update mirror_feed_head h set n = h.n + 1
    where h.bucket = @bucket and @change_kind::smallint <> 0
    returning h.n
),
entry as (
    insert into mirror_change (bucket, n, project_id, room_id, kind, resource_id, change_kind, epoch, commit_time)
    select @bucket, head.n, @project_id, @room_id, @kind, @resource_id, @change_kind::smallint, @epoch, @now
    from head
)
update mirror_resource_state s set
    generation = @generation,
    applied_generation = @applied_generation,
    due_time = @due_time,
    not_before = @not_before,
    settle = @settle,
    delete_generation = @delete_generation,
    lease_token = null,
    lease_until = null,
    again_time = null,
    attempts = @attempts,
    deaths = @deaths,
    last_error = @last_error,
    fail_time = @fail_time,
    fetch_time = @fetch_time,
    source_update_time = @source_update_time,
    missing_since = @missing_since,
    background = @background,
    parked = @parked,
    revision = coalesce((select head.n from head), s.revision)
where s.bucket = @bucket and s.project_id = @project_id and s.room_id = @room_id
    and s.kind = @kind and s.resource_id = @resource_id
returning coalesce((select head.n from head), 0)::bigint as n;

-- name: LockChildren :many
-- The states of a room's children of the given kinds.
select kind, resource_id, lease_token from mirror_resource_state
where bucket = @bucket and project_id = @project_id and room_id = @room_id and kind = any(@kinds::smallint[])
order by kind, resource_id
for update;

-- name: SettleChildren :exec
-- The room is deleted, so nothing in it is left to fetch. A settle fetch is still
-- to be done if the room returns immediately: the response may have been outdated.
update mirror_resource_state
set applied_generation = generation, due_time = null, not_before = null,
    settle = settle or due_time is not null,
    attempts = 0, last_error = '', fail_time = null, parked = false
where bucket = @bucket and project_id = @project_id and room_id = @room_id and kind = any(@kinds::smallint[]);

-- name: States :many
select s.*
from (
    select
        unnest(@bucket::smallint[]) as bucket,
        unnest(@project_id::text[]) as project_id,
        unnest(@room_id::text[]) as room_id,
        unnest(@kind::smallint[]) as kind,
        unnest(@resource_id::text[]) as resource_id
) k
join mirror_resource_state s
    on s.bucket = k.bucket and s.project_id = k.project_id and s.room_id = k.room_id
    and s.kind = k.kind and s.resource_id = k.resource_id;

-- name: Pause :exec
insert into mirror_project (project_id, pause_reason, pause_time)
values (@project_id, @pause_reason, @pause_time)
on conflict (project_id) do update set
    pause_reason = excluded.pause_reason,
    pause_time = excluded.pause_time;

-- name: TakeJSON :exec
-- Fails as writing the value to a column would.
select @data::jsonb;

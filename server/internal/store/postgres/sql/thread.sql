-- name: LockInRoom :one
-- Locks the state of something in a room, then the room against a change of epoch. No
-- row means that the lease is lost or that the room is missing or deleted.
select sqlc.embed(s), r.epoch as room_epoch
from mirror_resource_state s
join mirror_room r
    on r.bucket = s.bucket and r.project_id = s.project_id and r.room_id = s.room_id
where s.bucket = @bucket and s.project_id = @project_id and s.room_id = @room_id
    and s.kind = @kind and s.resource_id = @resource_id
    and s.lease_token = @token
    and r.delete_time is null
for update of s for share of r;

-- name: ListStates :many
-- The resources of one kind in a room, without their list.
select resource_id, missing_since from mirror_resource_state
where bucket = @bucket and project_id = @project_id and room_id = @room_id and kind = @kind and resource_id <> '';

-- name: InsertListedStates :many
-- States of unknown resources that have applied their list.
insert into mirror_resource_state (
    bucket, project_id, room_id, kind, resource_id, generation, applied_generation, fetch_time
)
select @bucket, @project_id, @room_id, @kind, t.resource_id, 1, 1, @fetch_time
from (select unnest(@resource_id::text[]) as resource_id) t
order by t.resource_id
on conflict do nothing
returning resource_id;

-- name: LockRoomEpoch :one
-- Against a change of epoch.
select epoch from mirror_room
where bucket = @bucket and project_id = @project_id and room_id = @room_id and delete_time is null
for share;

-- name: AnnounceListed :one
-- Takes as many change numbers as there are resources, last in the transaction, and
-- returns the one before them. The limit is for the estimate, as in MarkStale.
--
-- The states are there: an insert finds each by its key, where an update may be planned
-- as a scan of all states of the room, of which the planner expects few.
with head as (
    update mirror_feed_head h set n = h.n + cardinality(@resource_id::text[])
    where h.bucket = @bucket
    returning h.n - cardinality(@resource_id::text[]) as before
),
entry as (
    insert into mirror_change (bucket, n, project_id, room_id, kind, resource_id, change_kind, epoch, commit_time)
    select @bucket, head.before + t.i, @project_id, @room_id, @kind, t.resource_id, 1, @epoch, @now
    from head, (
        select generate_series(1, cardinality(@resource_id::text[])) as i, unnest(@resource_id::text[]) as resource_id
        limit cardinality(@resource_id::text[])
    ) t
    returning n, resource_id
),
revised as (
    insert into mirror_resource_state (
        bucket, project_id, room_id, kind, resource_id, generation, applied_generation, revision
    )
    select @bucket, @project_id, @room_id, @kind, entry.resource_id, 1, 1, entry.n from entry
    on conflict (bucket, project_id, room_id, kind, resource_id) do update set revision = excluded.revision
)
select head.before::bigint as before from head;

-- name: CleanThreads :many
with old as (
    delete from mirror_thread t
    where t.bucket = @bucket and t.project_id = @project_id and t.room_id = @room_id
        -- With the epoch, as for documents.
        and (t.thread_id, t.epoch) in (
            select o.thread_id, o.epoch
            from mirror_thread o
            join mirror_room r
                on r.bucket = o.bucket and r.project_id = o.project_id and r.room_id = o.room_id
            where o.bucket = @bucket and o.project_id = @project_id and o.room_id = @room_id
                and o.epoch < r.epoch and r.delete_time is null
            order by o.thread_id
            limit @max_rows
        )
    returning t.thread_id
),
reaction as (
    delete from mirror_comment_reaction r
    where r.bucket = @bucket and r.project_id = @project_id and r.room_id = @room_id and r.thread_id in (select old.thread_id from old)
),
attachment as (
    delete from mirror_comment_attachment a
    where a.bucket = @bucket and a.project_id = @project_id and a.room_id = @room_id and a.thread_id in (select old.thread_id from old)
),
mention as (
    delete from mirror_comment_mention m
    where m.bucket = @bucket and m.project_id = @project_id and m.room_id = @room_id and m.thread_id in (select old.thread_id from old)
),
term as (
    delete from mirror_thread_term m
    where m.bucket = @bucket and m.project_id = @project_id and m.room_id = @room_id and m.thread_id in (select old.thread_id from old)
),
comment as (
    delete from mirror_comment c
    where c.bucket = @bucket and c.project_id = @project_id and c.room_id = @room_id and c.thread_id in (select old.thread_id from old)
)
select old.thread_id from old;

-- name: CleanActiveUsers :execrows
delete from mirror_active_user u
where u.bucket = @bucket and u.project_id = @project_id and u.room_id = @room_id
    and (u.connection_id, u.user_id, u.epoch) in (
        select o.connection_id, o.user_id, o.epoch
        from mirror_active_user o
        join mirror_room r
            on r.bucket = o.bucket and r.project_id = o.project_id and r.room_id = o.room_id
        where o.bucket = @bucket and o.project_id = @project_id and o.room_id = @room_id
            and o.epoch < r.epoch and r.delete_time is null
        order by o.connection_id, o.user_id
        limit @max_rows
    );

-- name: UnindexedThreads :many
-- Of a project, or of all.
select bucket, project_id, room_id, thread_id from mirror_thread
where (terms_sha256 is not distinct from content_sha256)::integer = 0
    and (bucket, project_id, room_id, thread_id)
    > (@after_bucket::smallint, @after_project::text, @after_room::text, @after_thread::text)
    and (@project_id::text = '' or project_id = @project_id)
order by bucket, project_id, room_id, thread_id
limit @max_rows;

-- name: LockUnindexedThreads :many
-- Thread by thread, here and below: of a join, the planner might read the whole bucket.
select t.room_id, t.thread_id, t.metadata_text
from (select unnest(@room_ids::text[]) as room_id, unnest(@thread_ids::text[]) as thread_id) k
cross join lateral (
    select h.room_id, h.thread_id, h.metadata_text from mirror_thread h
    where h.bucket = @bucket and h.project_id = @project_id and h.room_id = k.room_id and h.thread_id = k.thread_id
        and (h.terms_sha256 is not distinct from h.content_sha256)::integer = 0
    for update
) t;

-- name: DeleteThreadTerms :exec
delete from mirror_thread_term
where ctid = any(array(
    select d.ctid
    from (select unnest(@room_ids::text[]) as room_id, unnest(@thread_ids::text[]) as thread_id) k
    cross join lateral (
        select t.ctid from mirror_thread_term t
        where t.bucket = @bucket and t.project_id = @project_id and t.room_id = k.room_id and t.thread_id = k.thread_id
        offset 0
    ) d
));

-- name: InsertThreadTerms :exec
insert into mirror_thread_term (bucket, project_id, room_id, thread_id, term)
select @bucket, @project_id, unnest(@room_ids::text[]), unnest(@thread_ids::text[]), unnest(@terms::text[])
on conflict do nothing;

-- name: MarkThreadsIndexed :exec
update mirror_thread set terms_sha256 = content_sha256
where ctid = any(array(
    select d.ctid
    from (select unnest(@room_ids::text[]) as room_id, unnest(@thread_ids::text[]) as thread_id) k
    cross join lateral (
        select t.ctid from mirror_thread t
        where t.bucket = @bucket and t.project_id = @project_id and t.room_id = k.room_id and t.thread_id = k.thread_id
        offset 0
    ) d
));

-- name: ThreadTermsAfter :many
-- Terms in a bucket, and whether there is a thread for each.
select
    t.room_id,
    t.thread_id,
    t.term,
    coalesce((
        select true from mirror_thread h
        where h.bucket = t.bucket and h.project_id = t.project_id and h.room_id = t.room_id and h.thread_id = t.thread_id
    ), false)::boolean as kept
from mirror_thread_term t
where (t.bucket, t.project_id, t.room_id, t.thread_id, t.term)
    > (@bucket::smallint, @project_id::text, @after_room::text, @after_thread::text, @after_term::text)
    and (t.bucket, t.project_id) <= (@bucket::smallint, @project_id::text)
order by t.bucket, t.project_id, t.room_id, t.thread_id, t.term
limit @max_rows;

-- name: DeleteGoneThreadTerms :execrows
-- Unless there is a thread now.
delete from mirror_thread_term
where ctid = any(array(
    select d.ctid
    from (
        select unnest(@room_ids::text[]) as room_id, unnest(@thread_ids::text[]) as thread_id, unnest(@terms::text[]) as term
    ) k
    cross join lateral (
        select t.ctid from mirror_thread_term t
        where t.bucket = @bucket and t.project_id = @project_id and t.room_id = k.room_id and t.thread_id = k.thread_id
            and t.term = k.term
        offset 0
    ) d
    where (
        select true from mirror_thread h
        where h.bucket = @bucket and h.project_id = @project_id and h.room_id = k.room_id and h.thread_id = k.thread_id
    ) is null
));

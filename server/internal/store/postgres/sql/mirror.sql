-- name: UpsertRoom :exec
insert into mirror_room (
    bucket, project_id, room_id, epoch, source_json, content_sha256,
    create_time, last_connection_time, organization_id, data, data_problem, terms_sha256
)
values (
    @bucket, @project_id, @room_id, @epoch, @source_json, @content_sha256,
    @create_time, @last_connection_time, @organization_id, @data, @data_problem, @content_sha256
)
on conflict (bucket, project_id, room_id) do update set
    epoch = excluded.epoch,
    source_json = excluded.source_json,
    content_sha256 = excluded.content_sha256,
    create_time = excluded.create_time,
    last_connection_time = excluded.last_connection_time,
    organization_id = excluded.organization_id,
    data = excluded.data,
    data_problem = excluded.data_problem,
    terms_sha256 = excluded.terms_sha256,
    delete_time = null;

-- name: DeleteRoomTerms :exec
delete from mirror_room_term
where bucket = @bucket and project_id = @project_id and room_id = @room_id and term <> all(@terms::bytea[]);

-- name: UpsertRoomTerms :exec
insert into mirror_room_term (bucket, project_id, room_id, term, create_time)
select @bucket, @project_id, @room_id, unnest(@terms::bytea[]), @create_time
on conflict (bucket, project_id, room_id, term) do update set create_time = excluded.create_time
where mirror_room_term.create_time <> excluded.create_time;

-- name: UnindexedRooms :many
-- Of a project, or of all.
select bucket, project_id, room_id from mirror_room
where delete_time is null and (terms_sha256 is not distinct from content_sha256)::integer = 0
    and (bucket, project_id, room_id) > (@after_bucket::smallint, @after_project::text, @after_room::text)
    and (@project_id::text = '' or project_id = @project_id)
order by bucket, project_id, room_id
limit @max_rows;

-- name: LockUnindexedRooms :many
select room_id, source_json, create_time from mirror_room
where bucket = @bucket and project_id = @project_id and room_id = any(@room_ids::text[])
    and delete_time is null and (terms_sha256 is not distinct from content_sha256)::integer = 0
order by room_id
for update;

-- name: MarkRoomsIndexed :exec
update mirror_room set terms_sha256 = content_sha256
where bucket = @bucket and project_id = @project_id and room_id = any(@room_ids::text[]);

-- name: RoomTermsAfter :many
-- Terms in a bucket, and whether there is a room for each.
select
    t.room_id,
    t.term,
    coalesce((
        select r.delete_time is null from mirror_room r
        where r.bucket = t.bucket and r.project_id = t.project_id and r.room_id = t.room_id
    ), false)::boolean as kept
from mirror_room_term t
where (t.bucket, t.project_id, t.room_id, t.term) > (@bucket::smallint, @project_id::text, @after_room::text, @after_term::bytea)
    and (t.bucket, t.project_id) <= (@bucket::smallint, @project_id::text)
order by t.bucket, t.project_id, t.room_id, t.term
limit @max_rows;

-- name: DeleteGoneRoomTerms :execrows
delete from mirror_room_term
where ctid = any(array(
    select d.ctid
    from (select unnest(@room_ids::text[]) as room_id, unnest(@terms::bytea[]) as term) k
    cross join lateral (
        select t.ctid from mirror_room_term t
        where t.bucket = @bucket and t.project_id = @project_id and t.room_id = k.room_id and t.term = k.term
        offset 0
    ) d
));

-- name: HoldRooms :exec
-- Makes those that are missing, so that nobody else does, and nothing appears in them, until
-- the transaction ends. DropHeldRooms takes them away again.
insert into mirror_room (bucket, project_id, room_id, epoch, source_json, content_sha256, organization_id)
select @bucket, @project_id, unnest(@room_ids::text[]), -1, '', '', ''
on conflict do nothing;

-- name: LockHeldRooms :many
-- The rooms, and whether each is missing or deleted.
select room_id, (epoch = -1 or delete_time is not null)::boolean as gone from mirror_room
where bucket = @bucket and project_id = @project_id and room_id = any(@room_ids::text[])
order by room_id
for update;

-- name: DropHeldRooms :exec
delete from mirror_room
where bucket = @bucket and project_id = @project_id and room_id = any(@room_ids::text[]) and epoch = -1;

-- name: UnmarkIndexed :exec
-- Of rooms that lose terms: an earlier version may bring them back as they were.
update mirror_room set terms_sha256 = null
where bucket = @bucket and project_id = @project_id and room_id = any(@room_ids::text[]) and terms_sha256 is not null;

-- name: TombstoneRoom :exec
update mirror_room set epoch = epoch + 1, delete_time = @delete_time, terms_sha256 = null
where bucket = @bucket and project_id = @project_id and room_id = @room_id;

-- name: ForgetRoomTerms :exec
delete from mirror_room_term where bucket = @bucket and project_id = @project_id and room_id = @room_id;

-- name: LockChild :one
-- Locks the child's state, then its room against a change of epoch, and reads the
-- stored document. No row means that the lease is lost or that the room is missing
-- or deleted.
select
    sqlc.embed(s),
    r.epoch as room_epoch,
    coalesce(d.epoch, 0)::bigint as document_epoch,
    d.content_sha256 as document_sha256,
    coalesce(d.derive_version, 0)::integer as document_derive_version
from mirror_resource_state s
join mirror_room r
    on r.bucket = s.bucket and r.project_id = s.project_id and r.room_id = s.room_id
left join mirror_document d
    on d.bucket = s.bucket and d.project_id = s.project_id and d.room_id = s.room_id
    and d.kind = s.kind and d.resource_id = s.resource_id
where s.bucket = @bucket and s.project_id = @project_id and s.room_id = @room_id
    and s.kind = @kind and s.resource_id = @resource_id
    and s.lease_token = @token
    and r.delete_time is null
for update of s for share of r;

-- name: LockDocument :one
select epoch, content_sha256, state_sha256, derive_version from mirror_document
where bucket = @bucket and project_id = @project_id and room_id = @room_id and kind = @kind and resource_id = @resource_id
for update;

-- name: UpsertDocument :exec
insert into mirror_document (
    bucket, project_id, room_id, kind, resource_id, epoch,
    content, content_sha256, state_sha256, size, derive_version, data, data_problem, plain_text
)
values (
    @bucket, @project_id, @room_id, @kind, @resource_id, @epoch,
    @content, @content_sha256, @state_sha256, @size, @derive_version, @data, @data_problem, @plain_text
)
on conflict (bucket, project_id, room_id, kind, resource_id) do update set
    epoch = excluded.epoch,
    content = excluded.content,
    content_sha256 = excluded.content_sha256,
    state_sha256 = excluded.state_sha256,
    size = excluded.size,
    derive_version = excluded.derive_version,
    data = excluded.data,
    data_problem = excluded.data_problem,
    plain_text = excluded.plain_text;

-- name: WriteDocument :one
-- Releases the lease and writes the document if it changed, in lock order, provided
-- that the basis of the decision is unchanged: the lease is held, the room lives in
-- the same epoch, nothing arrived for the state (that would have changed its
-- generation, due time or urgency), and the stored document is the one that was
-- seen. A claim that waited for another one may have seen the previous document.
-- Returns the number of the change entry, or 0.
with held as materialized (
    select s.generation
    from mirror_resource_state s
    join mirror_room r
        on r.bucket = s.bucket and r.project_id = s.project_id and r.room_id = s.room_id
    left join mirror_document d
        on d.bucket = s.bucket and d.project_id = s.project_id and d.room_id = s.room_id
        and d.kind = s.kind and d.resource_id = s.resource_id
    where s.bucket = @bucket and s.project_id = @project_id and s.room_id = @room_id
        and s.kind = @kind and s.resource_id = @resource_id
        and s.lease_token = @token
        and s.generation = @seen_generation and s.settle = @seen_settle and s.background = @seen_background
        and s.due_time is not distinct from @seen_due_time -- with "=", the index on it would look good
        and r.epoch = @epoch and r.delete_time is null
        and coalesce(d.epoch, 0) = @seen_epoch
        and d.content_sha256 is not distinct from @seen_sha256
        and coalesce(d.derive_version, 0) = @seen_derive_version
    for update of s for share of r
),
document as (
    insert into mirror_document (
        bucket, project_id, room_id, kind, resource_id, epoch,
        content, content_sha256, state_sha256, size, derive_version, data, data_problem, plain_text
    )
    select
        @bucket, @project_id, @room_id, @kind, @resource_id, @epoch,
        @content, @content_sha256, @state_sha256, @size, @derive_version, @data, @data_problem, @plain_text
    from held
    where @change_kind::smallint <> 0
    on conflict (bucket, project_id, room_id, kind, resource_id) do update set
        epoch = excluded.epoch,
        content = excluded.content,
        content_sha256 = excluded.content_sha256,
        state_sha256 = excluded.state_sha256,
        size = excluded.size,
        derive_version = excluded.derive_version,
        data = excluded.data,
        data_problem = excluded.data_problem,
        plain_text = excluded.plain_text
    returning epoch
),
head as (
    update mirror_feed_head h set n = h.n + 1
    from document
    where h.bucket = @bucket
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
    and exists (select from held)
returning coalesce((select head.n from head), 0)::bigint as n;

-- name: CleanDocuments :execrows
delete from mirror_document d
where d.bucket = @bucket and d.project_id = @project_id and d.room_id = @room_id
    -- With the epoch: a row that a new incarnation has overwritten is not the one
    -- that was found.
    and (d.kind, d.resource_id, d.epoch) in (
        select o.kind, o.resource_id, o.epoch
        from mirror_document o
        join mirror_room r
            on r.bucket = o.bucket and r.project_id = o.project_id and r.room_id = o.room_id
        where o.bucket = @bucket and o.project_id = @project_id and o.room_id = @room_id
            and o.epoch < r.epoch and r.delete_time is null
        order by o.kind, o.resource_id
        limit @max_rows
    );

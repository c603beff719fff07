-- name: RoomHead :one
-- Needs no lock: only the holder of the room's resource state writes the room.
select epoch, content_sha256, create_time, delete_time
from mirror_room
where bucket = @bucket and project_id = @project_id and room_id = @room_id;

-- name: UpsertRoom :exec
insert into mirror_room (
    bucket, project_id, room_id, epoch, source_json, content_sha256,
    create_time, last_connection_time, organization_id, data, data_problem
)
values (
    @bucket, @project_id, @room_id, @epoch, @source_json, @content_sha256,
    @create_time, @last_connection_time, @organization_id, @data, @data_problem
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
    delete_time = null;

-- name: TombstoneRoom :exec
update mirror_room set epoch = epoch + 1, delete_time = @delete_time
where bucket = @bucket and project_id = @project_id and room_id = @room_id;

-- name: LockChild :one
-- Locks the child's state, then its room against a change of epoch, and reads
-- what is stored of the document. No row means that the lease is lost or that
-- there is no living room.
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

-- name: UpsertDocument :exec
insert into mirror_document (
    bucket, project_id, room_id, kind, resource_id, epoch,
    content, content_sha256, size, derive_version, data, data_problem, plain_text
)
values (
    @bucket, @project_id, @room_id, @kind, @resource_id, @epoch,
    @content, @content_sha256, @size, @derive_version, @data, @data_problem, @plain_text
)
on conflict (bucket, project_id, room_id, kind, resource_id) do update set
    epoch = excluded.epoch,
    content = excluded.content,
    content_sha256 = excluded.content_sha256,
    size = excluded.size,
    derive_version = excluded.derive_version,
    data = excluded.data,
    data_problem = excluded.data_problem,
    plain_text = excluded.plain_text;

-- name: CleanDocuments :execrows
delete from mirror_document d
where d.bucket = @bucket and d.project_id = @project_id and d.room_id = @room_id
    -- With the epoch: a row that a new incarnation has just overwritten is not
    -- the one that was found.
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

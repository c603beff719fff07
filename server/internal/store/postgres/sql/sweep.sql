-- name: Sweep :one
select * from mirror_sweep where bucket = @bucket and project_id = @project_id;

-- name: UpsertSweep :execrows
-- Under the lease, if a token is given.
with held as (
    select s.generation from mirror_resource_state s
    where s.bucket = @bucket and s.project_id = @project_id and s.room_id = '' and s.kind = @kind and s.resource_id = ''
        and (s.lease_token = sqlc.narg('token')::bytea or sqlc.narg('token')::bytea is null)
    for update
)
insert into mirror_sweep (
    bucket, project_id, sweep_id, is_full, is_done, list_cursor, listed, known, raised, vanished,
    begin_time, end_time, full_time, problem
)
select
    @bucket, @project_id, @sweep_id, @is_full, @is_done, @list_cursor, @listed, @known, @raised, @vanished,
    @begin_time, @end_time, @full_time, @problem
from held
on conflict (bucket, project_id) do update set
    sweep_id = excluded.sweep_id,
    is_full = excluded.is_full,
    is_done = excluded.is_done,
    list_cursor = excluded.list_cursor,
    listed = excluded.listed,
    known = excluded.known,
    raised = excluded.raised,
    vanished = excluded.vanished,
    begin_time = excluded.begin_time,
    end_time = excluded.end_time,
    full_time = excluded.full_time,
    problem = excluded.problem;


-- name: InvalidateRoom :exec
-- No content has this hash, so the next apply rewrites the row.
update mirror_room set content_sha256 = ''
where bucket = @bucket and project_id = @project_id and room_id = @room_id;

-- name: InvalidateDocument :exec
-- Readers distinguish copies by their hash, so it stays; no code has this version.
update mirror_document set derive_version = -1
where bucket = @bucket and project_id = @project_id and room_id = @room_id and kind = @kind and resource_id = @resource_id;

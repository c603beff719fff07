-- name: Sweep :one
select * from mirror_sweep where bucket = ? and project_id = ?;

-- name: WriteSweep :exec
insert into mirror_sweep (
    bucket, project_id, sweep_id, is_full, is_done, list_cursor,
    listed, known, raised, vanished, begin_time, end_time, full_time, problem
)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
on duplicate key update
    sweep_id = values(sweep_id),
    is_full = values(is_full),
    is_done = values(is_done),
    list_cursor = values(list_cursor),
    listed = values(listed),
    known = values(known),
    raised = values(raised),
    vanished = values(vanished),
    begin_time = values(begin_time),
    end_time = values(end_time),
    full_time = values(full_time),
    problem = values(problem);

-- name: InvalidateRoom :exec
-- No content has this hash, so the next apply rewrites the row.
update mirror_room set content_sha256 = ''
where bucket = ? and project_id = ? and room_id = ?;

-- name: InvalidateDocument :exec
-- Readers distinguish copies by their hash, so it stays; no code has this version.
update mirror_document set derive_version = -1
where bucket = ? and project_id = ? and room_id = ? and kind = ? and resource_id = ?;

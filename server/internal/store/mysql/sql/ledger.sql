-- The statements of Accept have as many rows as the batch, which sqlc does not
-- support; they are in build.go.

-- name: PinProject :exec
insert into mirror_project (project_id, liveblocks_project_id, pause_reason)
values (?, ?, '')
on duplicate key update
    liveblocks_project_id = if(liveblocks_project_id = '', values(liveblocks_project_id), liveblocks_project_id);

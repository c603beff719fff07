-- name: GroupCopies :many
select group_id, content_sha256, delete_time
from mirror_group
where bucket = ? and project_id = ?;

-- name: GroupCopy :one
select content_sha256, delete_time
from mirror_group
where bucket = ? and project_id = ? and group_id = ?;

-- name: DeleteGroupMembers :exec
delete from mirror_group_member where bucket = ? and project_id = ? and group_id = ?;

-- name: TombstoneGroup :exec
update mirror_group set delete_time = ? where bucket = ? and project_id = ? and group_id = ?;

-- name: InvalidateGroup :exec
update mirror_group set content_sha256 = '' where bucket = ? and project_id = ? and group_id = ?;

-- name: GroupCopy :one
select content_sha256, delete_time
from mirror_group
where bucket = @bucket and project_id = @project_id and group_id = @group_id;

-- name: GroupCopies :many
select group_id, content_sha256, delete_time
from mirror_group
where bucket = @bucket and project_id = @project_id;

-- name: WriteGroup :exec
-- Writes the group and replaces its members.
with written as (
    insert into mirror_group (
        bucket, project_id, group_id, organization_id, source_json, content_sha256, create_time, update_time
    )
    values (
        @bucket, @project_id, @group_id, @organization_id, @source_json, @content_sha256, @create_time, @update_time
    )
    on conflict (bucket, project_id, group_id) do update set
        organization_id = excluded.organization_id,
        source_json = excluded.source_json,
        content_sha256 = excluded.content_sha256,
        create_time = excluded.create_time,
        update_time = excluded.update_time,
        delete_time = null
),
left_group as (
    delete from mirror_group_member
    where bucket = @bucket and project_id = @project_id and group_id = @group_id and user_id <> all(@user_id::text[])
)
insert into mirror_group_member (bucket, project_id, group_id, user_id, add_time)
select @bucket, @project_id, @group_id, unnest(@user_id::text[]), unnest(@add_time::timestamptz[])
on conflict (bucket, project_id, group_id, user_id) do update set add_time = excluded.add_time;

-- name: TombstoneGroup :exec
update mirror_group set delete_time = @delete_time
where bucket = @bucket and project_id = @project_id and group_id = @group_id;

-- name: InvalidateGroup :exec
update mirror_group set content_sha256 = ''
where bucket = @bucket and project_id = @project_id and group_id = @group_id;

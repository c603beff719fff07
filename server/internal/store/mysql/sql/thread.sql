-- name: ListStates :many
-- The resources of one kind in a room, without their list.
select resource_id, missing_since from mirror_resource_state
where bucket = ? and project_id = ? and room_id = ? and kind = ? and resource_id <> '';

-- name: OldThreads :many
select thread_id from mirror_thread
where bucket = ? and project_id = ? and room_id = ? and epoch < ?
order by thread_id
limit ?;

-- name: CleanThread :execrows
-- The condition is checked again when the row is locked.
delete from mirror_thread
where bucket = ? and project_id = ? and room_id = ? and thread_id = ? and epoch < ?;

-- name: StoredThread :one
-- Locks the thread, so its comments are those that were written with it.
select t.source_json, t.content_sha256, coalesce(t.metadata, '') as metadata, coalesce(t.metadata_text, '') as metadata_text,
    t.comment_count, t.data_problem
from mirror_thread t
join mirror_room r
    on r.bucket = t.bucket and r.project_id = t.project_id and r.room_id = t.room_id
    and r.epoch = t.epoch and r.delete_time is null
where t.bucket = ? and t.project_id = ? and t.room_id = ? and t.thread_id = ?
    and t.delete_time is null
lock in share mode;

-- name: StoredComments :many
select comment_id, user_id, create_time, edit_time, delete_time, source_json,
    coalesce(body, '') as body, plain_text, markdown, coalesce(metadata, '') as metadata
from mirror_comment
where bucket = ? and project_id = ? and room_id = ? and thread_id = ?
order by create_time, comment_id;

-- name: StoredReactions :many
select comment_id, emoji, user_id, create_time
from mirror_comment_reaction
where bucket = ? and project_id = ? and room_id = ? and thread_id = ?
order by comment_id, emoji, user_id;

-- name: StoredAttachments :many
select comment_id, attachment_id, name, mime_type, size
from mirror_comment_attachment
where bucket = ? and project_id = ? and room_id = ? and thread_id = ?
order by comment_id, attachment_id;

-- name: StoredMentions :many
select comment_id, kind, mentioned_id, via_group
from mirror_comment_mention
where bucket = ? and project_id = ? and room_id = ? and thread_id = ?
order by comment_id, kind, mentioned_id, via_group;

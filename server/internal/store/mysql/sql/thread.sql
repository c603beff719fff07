-- name: ShareThread :one
-- Locks the room, if it is not deleted, against a change of epoch, and reads the
-- stored copy of the thread.
select r.epoch as room_epoch, t.epoch as thread_epoch, t.content_sha256, t.delete_time
from mirror_room r
left join mirror_thread t
    on t.bucket = r.bucket and t.project_id = r.project_id and t.room_id = r.room_id
    and t.thread_id = sqlc.arg(thread_id)
where r.bucket = sqlc.arg(bucket) and r.project_id = sqlc.arg(project_id) and r.room_id = sqlc.arg(room_id)
    and r.delete_time is null
lock in share mode;

-- name: TombstoneThread :exec
update mirror_thread set delete_time = sqlc.arg(delete_time)
where bucket = sqlc.arg(bucket) and project_id = sqlc.arg(project_id) and room_id = sqlc.arg(room_id) and thread_id = sqlc.arg(thread_id);

-- name: LockStates :many
-- The states of all resources of one kind in the room and of their list, which
-- comes first.
select * from mirror_resource_state
where bucket = ? and project_id = ? and room_id = ? and kind = ?
order by resource_id
for update;

-- name: ThreadCopies :many
select thread_id, epoch, content_sha256, delete_time
from mirror_thread
where bucket = ? and project_id = ? and room_id = ?;

-- name: NoteThreadProblem :exec
update mirror_thread
set data_problem = if(data_problem = '', sqlc.arg(problem), concat(data_problem, '; ', sqlc.arg(problem)))
where bucket = sqlc.arg(bucket) and project_id = sqlc.arg(project_id) and room_id = sqlc.arg(room_id) and thread_id = sqlc.arg(thread_id);

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

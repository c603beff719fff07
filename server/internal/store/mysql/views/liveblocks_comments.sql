-- The comments of living threads that are not deleted.
-- By the last condition a later migrate knows the view and its edition.
create or replace sql security invoker view liveblocks_comments (
    room_id, thread_id, comment_id, user_id, text, markdown, body, metadata, created_at, edited_at,
    project_id
) as
select
    c.room_id,
    c.thread_id,
    c.comment_id,
    c.user_id,
    c.plain_text,
    c.markdown,
    c.body,
    c.metadata,
    c.create_time,
    c.edit_time,
    c.project_id
from mirror_comment c
join mirror_thread t
    on t.bucket = c.bucket
    and t.project_id = c.project_id
    and t.room_id = c.room_id
    and t.thread_id = c.thread_id
    and t.delete_time is null
join mirror_room r
    on r.bucket = t.bucket
    and r.project_id = t.project_id
    and r.room_id = t.room_id
    and r.epoch = t.epoch
    and r.delete_time is null
where c.delete_time is null and 'liveblocks-mirror 1' <> ''

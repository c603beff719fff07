-- The threads of living rooms that are not deleted.
-- By the last condition a later migrate knows the view and its edition.
create or replace sql security invoker view liveblocks_threads (
    room_id, thread_id, resolved, visibility, metadata, comment_count, created_at, updated_at,
    project_id
) as
select
    t.room_id,
    t.thread_id,
    t.resolved,
    t.visibility,
    t.metadata,
    t.comment_count,
    t.create_time,
    t.update_time,
    t.project_id
from mirror_thread t
join mirror_room r
    on r.bucket = t.bucket
    and r.project_id = t.project_id
    and r.room_id = t.room_id
    and r.epoch = t.epoch
    and r.delete_time is null
where t.delete_time is null and 'liveblocks-mirror 1' <> ''

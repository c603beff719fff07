-- The threads of living rooms that are not deleted.
create or replace view liveblocks_threads (
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
where t.delete_time is null;

-- By this comment a later migrate knows that the view may be replaced.
comment on view liveblocks_threads is 'liveblocks-mirror: the threads of living rooms';

comment on column liveblocks_threads.room_id is 'id of the room';
comment on column liveblocks_threads.thread_id is 'id of the thread';
comment on column liveblocks_threads.resolved is 'whether the thread is resolved';
comment on column liveblocks_threads.visibility is 'public or private';
comment on column liveblocks_threads.metadata is 'metadata as JSON; null if the server refuses it';
comment on column liveblocks_threads.comment_count is 'comments that are not deleted';
comment on column liveblocks_threads.created_at is 'when it was created, according to Liveblocks';
comment on column liveblocks_threads.updated_at is 'when it last changed, as far as is known';
comment on column liveblocks_threads.project_id is 'local id of the project, by default "default"';

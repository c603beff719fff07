-- The reactions to comments of living threads.
create or replace view liveblocks_reactions (
    room_id, thread_id, comment_id, emoji, user_id, created_at, project_id
) as
select
    x.room_id,
    x.thread_id,
    x.comment_id,
    x.emoji,
    x.user_id,
    x.create_time,
    x.project_id
from mirror_comment_reaction x
join mirror_comment c
    on c.bucket = x.bucket
    and c.project_id = x.project_id
    and c.room_id = x.room_id
    and c.thread_id = x.thread_id
    and c.comment_id = x.comment_id
    and c.delete_time is null
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
    and r.delete_time is null;

-- By this comment a later migrate knows that the view may be replaced.
comment on view liveblocks_reactions is 'liveblocks-mirror: the reactions to comments of living threads';

comment on column liveblocks_reactions.room_id is 'id of the room';
comment on column liveblocks_reactions.thread_id is 'id of the thread';
comment on column liveblocks_reactions.comment_id is 'id of the comment';
comment on column liveblocks_reactions.emoji is 'the reaction';
comment on column liveblocks_reactions.user_id is 'who reacted';
comment on column liveblocks_reactions.created_at is 'when, according to Liveblocks';
comment on column liveblocks_reactions.project_id is 'local id of the project, by default "default"';

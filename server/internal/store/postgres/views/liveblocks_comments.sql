-- The comments of living threads that are not deleted.
create or replace view liveblocks_comments (
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
where c.delete_time is null;

-- By this comment a later migrate knows that the view may be replaced.
comment on view liveblocks_comments is 'liveblocks-mirror: the comments of living threads';

comment on column liveblocks_comments.room_id is 'id of the room';
comment on column liveblocks_comments.thread_id is 'id of the thread';
comment on column liveblocks_comments.comment_id is 'id of the comment';
comment on column liveblocks_comments.user_id is 'id of the author';
comment on column liveblocks_comments.text is 'text without format';
comment on column liveblocks_comments.markdown is 'text as Markdown';
comment on column liveblocks_comments.body is 'text with its structure, as JSON';
comment on column liveblocks_comments.metadata is 'metadata as JSON; null if the server refuses it';
comment on column liveblocks_comments.created_at is 'when it was created, according to Liveblocks';
comment on column liveblocks_comments.edited_at is 'when it was last edited; null if never';
comment on column liveblocks_comments.project_id is 'local id of the project, by default "default"';

-- The Yjs documents of living rooms: their text, and their content as JSON. guid is empty for
-- the document of the room itself. Where data is null, data_problem says why.
create or replace view liveblocks_ydocs (room_id, guid, text, data, data_problem, updated_at, project_id) as
select
    d.room_id,
    d.resource_id,
    d.plain_text,
    d.data,
    d.data_problem,
    coalesce(s.source_update_time, s.fetch_time),
    d.project_id
from mirror_document d
join mirror_room r
    on r.bucket = d.bucket
    and r.project_id = d.project_id
    and r.room_id = d.room_id
    and r.epoch = d.epoch
    and r.delete_time is null
join mirror_resource_state s
    on s.bucket = d.bucket
    and s.project_id = d.project_id
    and s.room_id = d.room_id
    and s.kind = d.kind
    and s.resource_id = d.resource_id
where d.kind = 3;

-- By this comment a later migrate knows that the view may be replaced.
comment on view liveblocks_ydocs is 'liveblocks-mirror: the Yjs documents of living rooms';

comment on column liveblocks_ydocs.room_id is 'id of the room';
comment on column liveblocks_ydocs.guid is 'guid of a subdocument; empty for the room''s own document';
comment on column liveblocks_ydocs.text is 'text without format';
comment on column liveblocks_ydocs.data is 'content as plain JSON; null if there is none, see data_problem';
comment on column liveblocks_ydocs.data_problem is 'why data is null, or what it leaves out; empty if there is nothing to say';
comment on column liveblocks_ydocs.updated_at is 'when it last changed, as far as is known';
comment on column liveblocks_ydocs.project_id is 'local id of the project, by default "default"';

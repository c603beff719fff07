-- The Yjs documents of living rooms: their text, and their content as JSON. guid is empty for
-- the document of the room itself. Where data is null, data_problem says why.
-- By the last condition a later migrate knows the view and its edition.
create or replace sql security invoker view liveblocks_ydocs (
    room_id, guid, text, data, data_problem, updated_at, project_id
) as
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
where d.kind = 3 and 'liveblocks-mirror 1' <> ''

-- The table of the Liveblocks guides, as a view: what used to be written by hand
-- can go on being read. Ids are shown as they are stored, as bytes: "room_id =
-- 'my-room'" compares every one of them, and a join with a column of text does, and
-- both use the index by room, which they could not if the view showed text. For a
-- client that shows bytes as numbers: convert(room_id using utf8mb4). The rights are
-- those of whoever reads, so that the view outlives the role that made it. By the last
-- condition a later migrate knows the view and its edition.
create or replace sql security invoker view liveblocks_documents (room_id, data, updated_at, project_id) as
select
    d.room_id,
    d.data,
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
where d.kind = 2 and d.data is not null and 'liveblocks-mirror 3' <> ''

-- The table of the Liveblocks guides, as a view: what used to be written by hand
-- can go on being read.
create or replace view liveblocks_documents (room_id, data, updated_at, project_id) as
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
where d.kind = 2 and d.data is not null;

-- By this comment a later migrate knows that the view may be replaced.
comment on view liveblocks_documents is 'liveblocks-mirror: the storage documents of living rooms';

comment on column liveblocks_documents.room_id is 'id of the room';
comment on column liveblocks_documents.data is 'content as plain JSON';
comment on column liveblocks_documents.updated_at is 'when it last changed, as far as is known';
comment on column liveblocks_documents.project_id is 'local id of the project, by default "default"';

-- The rooms that are not deleted.
create or replace view liveblocks_rooms (
    room_id, organization_id, metadata, data, created_at, last_connection_at, project_id
) as
select
    r.room_id,
    r.organization_id,
    r.data->'metadata',
    r.data,
    r.create_time,
    r.last_connection_time,
    r.project_id
from mirror_room r
where r.delete_time is null;

-- By this comment a later migrate knows that the view may be replaced.
comment on view liveblocks_rooms is 'liveblocks-mirror: the rooms that are not deleted';

comment on column liveblocks_rooms.room_id is 'id of the room';
comment on column liveblocks_rooms.organization_id is 'id of the organization (tenant); empty if there is none';
comment on column liveblocks_rooms.metadata is 'metadata as JSON';
comment on column liveblocks_rooms.data is 'the room as Liveblocks returned it, as JSON; null if the server refuses it';
comment on column liveblocks_rooms.created_at is 'when it was created, according to Liveblocks';
comment on column liveblocks_rooms.last_connection_at is 'when somebody last connected, according to Liveblocks';
comment on column liveblocks_rooms.project_id is 'local id of the project, by default "default"';

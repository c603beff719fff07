-- The edges of React Flow diagrams: a row for each member of "edges" in every
-- top-level part of a Storage document that has "nodes" and "edges" of their shape.
-- Ask by room_id: without it every document is read.
create or replace view liveblocks_flow_edges (
    room_id, storage_key, edge_id, source, target, source_handle, target_handle, type, data, edge, updated_at, project_id
) as
select
    d.room_id,
    f.key,
    e.value->>'id',
    e.value->>'source',
    e.value->>'target',
    e.value->>'sourceHandle',
    e.value->>'targetHandle',
    e.value->>'type',
    e.value->'data',
    e.value,
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
cross join lateral jsonb_each(case when jsonb_typeof(d.data) = 'object' then d.data end) f
cross join lateral jsonb_each(
    case when jsonb_typeof(f.value->'nodes') = 'object' and jsonb_typeof(f.value->'edges') = 'object' then f.value->'edges' end
) e
where d.kind = 2 and jsonb_typeof(e.value) = 'object' and jsonb_typeof(e.value->'id') = 'string'
    and jsonb_typeof(e.value->'source') = 'string' and jsonb_typeof(e.value->'target') = 'string';

-- By this comment a later migrate knows that the view may be replaced.
comment on view liveblocks_flow_edges is 'liveblocks-mirror: the edges of React Flow diagrams in living rooms';

comment on column liveblocks_flow_edges.room_id is 'id of the room';
comment on column liveblocks_flow_edges.storage_key is 'key of the diagram in the root of Storage';
comment on column liveblocks_flow_edges.edge_id is 'id of the edge';
comment on column liveblocks_flow_edges.source is 'node at which the edge begins';
comment on column liveblocks_flow_edges.target is 'node at which it ends';
comment on column liveblocks_flow_edges.source_handle is 'handle at which it begins; null if none is named';
comment on column liveblocks_flow_edges.target_handle is 'handle at which it ends; null if none is named';
comment on column liveblocks_flow_edges.type is 'type that the app gave it; null if none';
comment on column liveblocks_flow_edges.data is 'data that the app gave it, as JSON';
comment on column liveblocks_flow_edges.edge is 'the whole edge as JSON';
comment on column liveblocks_flow_edges.updated_at is 'when it last changed, as far as is known';
comment on column liveblocks_flow_edges.project_id is 'local id of the project, by default "default"';

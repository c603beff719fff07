-- The nodes of React Flow diagrams: a row for each member of "nodes" in every
-- top-level part of a Storage document that has "nodes" and "edges" of their shape.
-- Ask by room_id: without it every document is read.
create or replace view liveblocks_flow_nodes (
    room_id, storage_key, node_id, type, x, y, width, height, parent_id, data, node, updated_at, project_id
) as
select
    d.room_id,
    f.key,
    n.value->>'id',
    n.value->>'type',
    -- As numeric, which holds every number that JSON can spell.
    case when jsonb_typeof(n.value#>'{position,x}') = 'number' then (n.value#>>'{position,x}')::numeric end,
    case when jsonb_typeof(n.value#>'{position,y}') = 'number' then (n.value#>>'{position,y}')::numeric end,
    case when jsonb_typeof(n.value->'width') = 'number' then (n.value->>'width')::numeric end,
    case when jsonb_typeof(n.value->'height') = 'number' then (n.value->>'height')::numeric end,
    n.value->>'parentId',
    n.value->'data',
    n.value,
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
    case when jsonb_typeof(f.value->'nodes') = 'object' and jsonb_typeof(f.value->'edges') = 'object' then f.value->'nodes' end
) n
where d.kind = 2 and jsonb_typeof(n.value) = 'object' and jsonb_typeof(n.value->'id') = 'string'
    and n.value#>'{position,x}' is not null;

-- By this comment a later migrate knows that the view may be replaced.
comment on view liveblocks_flow_nodes is 'liveblocks-mirror: the nodes of React Flow diagrams in living rooms';

comment on column liveblocks_flow_nodes.room_id is 'id of the room';
comment on column liveblocks_flow_nodes.storage_key is 'key of the diagram in the root of Storage';
comment on column liveblocks_flow_nodes.node_id is 'id of the node';
comment on column liveblocks_flow_nodes.type is 'type that the app gave it; null if none';
comment on column liveblocks_flow_nodes.x is 'horizontal position';
comment on column liveblocks_flow_nodes.y is 'vertical position';
comment on column liveblocks_flow_nodes.width is 'width; null if not set';
comment on column liveblocks_flow_nodes.height is 'height; null if not set';
comment on column liveblocks_flow_nodes.parent_id is 'node that it lies in; null if none';
comment on column liveblocks_flow_nodes.data is 'data that the app gave it, as JSON';
comment on column liveblocks_flow_nodes.node is 'the whole node as JSON';
comment on column liveblocks_flow_nodes.updated_at is 'when it last changed, as far as is known';
comment on column liveblocks_flow_nodes.project_id is 'local id of the project, by default "default"';

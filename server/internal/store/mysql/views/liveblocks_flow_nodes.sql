-- The nodes of React Flow diagrams: a row for each member of "nodes" in every
-- top-level part of a Storage document that has "nodes" and "edges" of their shape.
-- Ask by room_id: without it every document is read.
-- Columns of json_table do not hold JSON on every server, so what is JSON is looked up
-- again: data and node cost more than the other columns.
-- By the last condition a later migrate knows the view and its edition.
create or replace sql security invoker view liveblocks_flow_nodes (
    room_id, storage_key, node_id, type, x, y, width, height, parent_id, data, node, updated_at, project_id
) as
select
    d.room_id,
    f.storage_key,
    n.name,
    n.type,
    n.x,
    n.y,
    n.width,
    n.height,
    n.parent,
    json_extract(json_extract(d.data, concat('$.', json_quote(f.storage_key), '.nodes.*')), concat('$[', n.i - 1, '].data')),
    json_extract(json_extract(d.data, concat('$.', json_quote(f.storage_key), '.nodes.*')), concat('$[', n.i - 1, ']')),
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
join json_table(json_keys(d.data), '$[*]' columns (storage_key text character set utf8mb4 collate utf8mb4_bin path '$')) f
join json_table(
    case
        when json_type(json_extract(d.data, concat('$.', json_quote(f.storage_key), '.nodes'))) = 'OBJECT'
            and json_type(json_extract(d.data, concat('$.', json_quote(f.storage_key), '.edges'))) = 'OBJECT'
            then json_extract(d.data, concat('$.', json_quote(f.storage_key), '.nodes.*'))
    end,
    '$[*]' columns (
        i for ordinality,
        name text character set utf8mb4 collate utf8mb4_bin path '$.id',
        type text character set utf8mb4 collate utf8mb4_bin path '$.type',
        placed int exists path '$.position.x',
        x double path '$.position.x',
        y double path '$.position.y',
        width double path '$.width',
        height double path '$.height',
        parent text character set utf8mb4 collate utf8mb4_bin path '$.parentId'
    )
) n
where d.kind = 2 and n.name is not null
    and n.placed
    and 'liveblocks-mirror 1' <> ''

-- +goose Up

-- Every primary key starts with bucket, the first byte of a hash of the project
-- and the room (for events, the event id): the rows of one room lie together on
-- a sharded engine, and moving there rewrites no key. There are no foreign keys,
-- because events arrive in any order.
--
-- Ids are compared byte by byte: "Room" and "room" are two rooms, and so are "a"
-- and "a ". collate "C" makes that true of every comparison and index.

-- What is known of a configured project. Small, and not sharded.
create table mirror_project (
    project_id text collate "C" not null,
    -- Liveblocks' own id, pinned by the first verified event.
    liveblocks_project_id text collate "C" not null default '',
    -- Why nothing is fetched; empty if nothing stands in the way.
    pause_reason text not null default '',
    pause_time timestamptz,
    constraint mirror_project_pkey primary key (project_id)
);

-- The ledger: every signed delivery, once, as it arrived.
create table mirror_event (
    bucket smallint not null,
    project_id text collate "C" not null,
    event_id text collate "C" not null,
    type text collate "C" not null,
    room_id text collate "C" not null,
    user_id text collate "C" not null,
    liveblocks_project_id text collate "C" not null,
    payload bytea not null,
    send_time timestamptz not null,
    receive_time timestamptz not null,
    source_time timestamptz,
    outcome text collate "C" not null,
    constraint mirror_event_pkey primary key (bucket, project_id, event_id)
);

create index mirror_event_by_time on mirror_event (project_id, receive_time desc, event_id);
create index mirror_event_by_room on mirror_event (project_id, room_id, receive_time desc, event_id) where room_id <> '';
create index mirror_event_by_user on mirror_event (project_id, user_id, receive_time desc, event_id) where user_id <> '';

-- One permanent row for each resource ever heard of: what is known about its
-- freshness, and who is fetching it. Rows are never deleted while the resource
-- can come back, so that generations never restart.
create table mirror_resource_state (
    bucket smallint not null,
    project_id text collate "C" not null,
    room_id text collate "C" not null,
    -- 1 room, 2 storage. A room sorts before what is in it: that is lock order.
    kind smallint not null,
    resource_id text collate "C" not null,
    -- Raised by every event and request; the copy has caught up with
    -- applied_generation.
    generation bigint not null,
    applied_generation bigint not null default 0,
    -- When the next fetch is wanted; null if none is.
    due_time timestamptz,
    -- Before when none will begin: a backoff, or the source's Retry-After.
    not_before timestamptz,
    -- An event came in since the last settle fetch.
    settle boolean not null default false,
    -- The generation of the latest delete event that no successful fetch has
    -- contradicted.
    delete_generation bigint,
    -- The latest time of change that an event told of.
    hint_time timestamptz,
    -- The fence: a result is applied only under the token that is stored here.
    lease_token bytea,
    lease_until timestamptz,
    -- When what came in since the claim wants its fetch, if all of it can wait;
    -- null means at once.
    again_time timestamptz,
    attempts integer not null default 0,
    last_error text not null default '',
    fail_time timestamptz,
    -- The copy in the mirror: when its fetch began, hint_time at that claim, and
    -- the number of the change entry that last altered it.
    fetch_time timestamptz,
    source_update_time timestamptz,
    revision bigint not null default 0,
    missing_since timestamptz,
    constraint mirror_resource_state_pkey primary key (bucket, project_id, room_id, kind, resource_id)
) with (fillfactor = 80);

create index mirror_resource_state_by_due on mirror_resource_state (project_id, due_time) where due_time is not null;
create index mirror_resource_state_by_fail on mirror_resource_state (project_id, fail_time) where fail_time is not null;
create index mirror_resource_state_by_room on mirror_resource_state (project_id, room_id, kind, resource_id);

create table mirror_room (
    bucket smallint not null,
    project_id text collate "C" not null,
    room_id text collate "C" not null,
    -- The incarnation: rises when the room is deleted and when it comes back.
    -- What belongs to another epoch is not part of this room.
    epoch bigint not null,
    -- The room as Liveblocks answered it, byte for byte.
    source_json bytea not null,
    content_sha256 bytea not null,
    create_time timestamptz,
    last_connection_time timestamptz,
    organization_id text not null,
    -- source_json for queries; null where jsonb refuses it, and why.
    data jsonb,
    data_problem text not null default '',
    delete_time timestamptz,
    constraint mirror_room_pkey primary key (bucket, project_id, room_id)
);

create index mirror_room_by_id on mirror_room (project_id, room_id);

-- The content of documents. How fresh it is stands in mirror_resource_state
-- under the same key, so that a fetch that finds nothing new rewrites no row
-- here.
create table mirror_document (
    bucket smallint not null,
    project_id text collate "C" not null,
    room_id text collate "C" not null,
    kind smallint not null,
    resource_id text collate "C" not null,
    epoch bigint not null,
    -- The document byte for byte, in a zstd frame.
    content bytea not null,
    content_sha256 bytea not null,
    -- Length before compression.
    size bigint not null,
    -- Version of the code that derived data and plain_text.
    derive_version integer not null,
    -- The document as plain JSON for queries; null where it cannot be had, and
    -- why.
    data jsonb,
    data_problem text not null default '',
    plain_text text not null default '',
    constraint mirror_document_pkey primary key (bucket, project_id, room_id, kind, resource_id)
);

create index mirror_document_by_id on mirror_document (project_id, room_id, kind, resource_id);
-- For the users' own statements about a room, by the view liveblocks_documents,
-- which do not name the project.
create index mirror_document_by_room on mirror_document (room_id, kind);

-- content is compressed already; trying again costs time and saves nothing.
alter table mirror_document alter column content set storage external;

-- lz4 halves the cost of reading and writing jsonb. Servers built without it
-- keep their default.
-- +goose StatementBegin
do $$
begin
    alter table mirror_document alter column data set compression lz4;
    alter table mirror_room alter column data set compression lz4;
exception when feature_not_supported then
    null;
end
$$;
-- +goose StatementEnd

-- The next change number of each bucket. Its row is locked last in a
-- transaction, so numbers become visible in order and without gaps; a sequence
-- would hand them out before the commit and lose rows for readers.
create table mirror_feed_head (
    bucket smallint not null,
    n bigint not null default 0,
    constraint mirror_feed_head_pkey primary key (bucket)
) with (fillfactor = 20);

insert into mirror_feed_head (bucket) select generate_series(0, 255);

create table mirror_change (
    bucket smallint not null,
    n bigint not null,
    project_id text collate "C" not null,
    room_id text collate "C" not null,
    kind smallint not null,
    resource_id text collate "C" not null,
    -- 1 upserted, 2 deleted. A room's entry implies what is in it.
    change_kind smallint not null,
    commit_time timestamptz not null,
    constraint mirror_change_pkey primary key (bucket, n)
);

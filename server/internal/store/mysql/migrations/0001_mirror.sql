-- +goose NO TRANSACTION
-- +goose Up

-- MySQL commits after each statement of this kind, so each can be run again: a
-- migration that was cut off begins anew.
--
-- Every primary key starts with bucket, the first byte of a hash of the project
-- and the room (for events, the event id): the rows of one room lie together on
-- a sharded engine, and moving there rewrites no key. There are no foreign keys,
-- because events arrive in any order.
--
-- Ids are bytes: "Room" and "room" are two rooms, and so are "a" and "a ". No
-- collation can be trusted with that, a varbinary column can. Times are UTC.

-- What is known of a configured project. Small, and not sharded.
create table if not exists mirror_project (
    project_id varbinary(64) not null,
    -- Liveblocks' own id, pinned by the first verified event.
    liveblocks_project_id varbinary(128) not null,
    -- Why nothing is fetched; empty if nothing stands in the way.
    pause_reason mediumtext not null,
    pause_time datetime(6),
    primary key (project_id)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

-- The ledger: every signed delivery, once, as it arrived.
create table if not exists mirror_event (
    bucket smallint not null,
    project_id varbinary(64) not null,
    event_id varbinary(128) not null,
    type varbinary(512) not null,
    room_id varbinary(512) not null,
    user_id varbinary(512) not null,
    liveblocks_project_id varbinary(128) not null,
    payload mediumblob not null,
    send_time datetime(6) not null,
    receive_time datetime(6) not null,
    source_time datetime(6),
    outcome varbinary(64) not null,
    -- Tells the batch that recorded the event from those that brought it again.
    batch_token binary(16) not null,
    primary key (bucket, project_id, event_id),
    key mirror_event_by_time (project_id, receive_time desc, event_id),
    key mirror_event_by_room (project_id, room_id, receive_time desc, event_id),
    key mirror_event_by_user (project_id, user_id, receive_time desc, event_id)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

-- One permanent row for each resource ever heard of: what is known about its
-- freshness, and who is fetching it. Rows are never deleted while the resource
-- can come back, so that generations never restart.
create table if not exists mirror_resource_state (
    bucket smallint not null,
    project_id varbinary(64) not null,
    room_id varbinary(512) not null,
    -- 1 room, 2 storage. A room sorts before what is in it: that is lock order.
    kind smallint not null,
    resource_id varbinary(512) not null,
    -- Raised by every event and request; the copy has caught up with
    -- applied_generation.
    generation bigint not null,
    applied_generation bigint not null default 0,
    -- When the next fetch is wanted; null if none is.
    due_time datetime(6),
    -- Before when none will begin: a backoff, or the source's Retry-After.
    not_before datetime(6),
    -- An event came in since the last settle fetch.
    settle boolean not null default false,
    -- The generation of the latest delete event that no successful fetch has
    -- contradicted.
    delete_generation bigint,
    -- The latest time of change that an event told of.
    hint_time datetime(6),
    -- The fence: a result is applied only under the token that is stored here.
    lease_token binary(16),
    lease_until datetime(6),
    -- When what came in since the claim wants its fetch, if all of it can wait.
    -- Null means at once.
    again_time datetime(6),
    attempts int not null default 0,
    last_error mediumtext not null,
    fail_time datetime(6),
    -- The copy in the mirror: when its fetch began, hint_time at that claim, and
    -- the number of the change entry that last altered it.
    fetch_time datetime(6),
    source_update_time datetime(6),
    revision bigint not null default 0,
    missing_since datetime(6),
    primary key (bucket, project_id, room_id, kind, resource_id),
    key mirror_resource_state_by_due (project_id, due_time),
    key mirror_resource_state_by_fail (project_id, fail_time),
    key mirror_resource_state_by_room (project_id, room_id, kind, resource_id)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

create table if not exists mirror_room (
    bucket smallint not null,
    project_id varbinary(64) not null,
    room_id varbinary(512) not null,
    -- The incarnation: rises when the room is deleted and when it comes back.
    -- What belongs to another epoch is not part of this room.
    epoch bigint not null,
    -- The room as Liveblocks answered it, byte for byte.
    source_json longblob not null,
    content_sha256 binary(32) not null,
    create_time datetime(6),
    last_connection_time datetime(6),
    organization_id mediumtext not null,
    -- source_json for queries; null where the server refuses it, and why.
    data json,
    data_problem mediumtext not null,
    delete_time datetime(6),
    primary key (bucket, project_id, room_id),
    key mirror_room_by_id (project_id, room_id)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

-- The content of documents. How fresh it is stands in mirror_resource_state
-- under the same key, so that a fetch that finds nothing new rewrites no row
-- here.
create table if not exists mirror_document (
    bucket smallint not null,
    project_id varbinary(64) not null,
    room_id varbinary(512) not null,
    kind smallint not null,
    resource_id varbinary(512) not null,
    epoch bigint not null,
    -- The document byte for byte, in a zstd frame.
    content longblob not null,
    content_sha256 binary(32) not null,
    -- Length before compression.
    size bigint not null,
    -- Version of the code that derived data and plain_text.
    derive_version int not null,
    -- The document as plain JSON for queries; null where it cannot be had, and
    -- why.
    data json,
    data_problem mediumtext not null,
    plain_text longtext not null,
    primary key (bucket, project_id, room_id, kind, resource_id),
    key mirror_document_by_id (project_id, room_id, kind, resource_id),
    -- For the users' own SQL, which seldom names a project.
    key mirror_document_by_room (room_id, kind)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

-- The last change number of each bucket that has one. Its row is locked last in
-- a transaction, so numbers become visible in order and without gaps; numbers
-- the server counts by itself are handed out before the commit and lose rows for
-- readers.
create table if not exists mirror_feed_head (
    bucket smallint not null,
    n bigint not null,
    primary key (bucket)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

create table if not exists mirror_change (
    bucket smallint not null,
    n bigint not null,
    project_id varbinary(64) not null,
    room_id varbinary(512) not null,
    kind smallint not null,
    resource_id varbinary(512) not null,
    -- 1 upserted, 2 deleted. A room's entry implies what is in it.
    change_kind smallint not null,
    commit_time datetime(6) not null,
    primary key (bucket, n)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

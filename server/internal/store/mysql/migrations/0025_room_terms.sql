-- +goose NO TRANSACTION
-- +goose Up

-- Lists select rooms by metadata, access and organization. Each statement can be run again.
-- The rows of rooms that are there are written after the migrations, some at a time; a room
-- whose rows are missing or of an earlier version, such as one that an earlier version of
-- the service writes, is known by its hash, and lists look at it one by one.

create table if not exists mirror_room_term (
    bucket smallint not null,
    project_id varbinary(64) not null,
    room_id varbinary(512) not null,
    -- First 16 bytes of a hash of the property: a string in the metadata, a user or group
    -- with access, the organization, or that it is a room.
    term varbinary(16) not null,
    -- 1970 if Liveblocks does not say.
    create_time datetime(6) not null,
    primary key (bucket, project_id, room_id, term),
    key mirror_room_term_by_term (project_id, term, create_time desc, room_id)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;
alter table mirror_room_term comment = 'a row for each property by which lists select a room';

-- The columns only change the dictionary. The first is content_sha256 as of the rows of
-- mirror_room_term; null if there are none yet, and of deleted rooms.
alter table mirror_room add column terms_sha256 binary(32);
alter table mirror_room
    add column is_indexed boolean generated always as (
        delete_time is not null or terms_sha256 <=> content_sha256
    ) virtual;
-- Built in place, beside reads and writes.
alter table mirror_room add key mirror_room_unindexed (is_indexed, bucket, project_id, room_id);

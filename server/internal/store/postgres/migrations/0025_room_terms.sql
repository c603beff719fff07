-- +goose NO TRANSACTION
-- +goose Up

-- Lists select rooms by metadata, access and organization. Each statement can be run again.
-- The rows of rooms that are there are written after the migrations, some at a time; a room
-- whose rows are missing or of an earlier version, such as one that an earlier version of
-- the service writes, is known by its hash, and lists look at it one by one.

create table if not exists mirror_room_term (
    bucket smallint not null,
    project_id text collate "C" not null,
    room_id text collate "C" not null,
    term bytea not null,
    create_time timestamptz not null,
    constraint mirror_room_term_pkey primary key (bucket, project_id, room_id, term)
);

create index if not exists mirror_room_term_by_term on mirror_room_term (project_id, term, create_time desc, room_id);

comment on table mirror_room_term is 'a row for each property by which lists select a room';
comment on column mirror_room_term.bucket is 'first byte of a hash of project and room, 0 to 255; a primary key begins with it';
comment on column mirror_room_term.project_id is 'local id of the project, by default "default"';
comment on column mirror_room_term.room_id is 'id of the room';
comment on column mirror_room_term.term is
    'first 16 bytes of a hash of the property: a string in the metadata, a user or group with access, the organization, or that it is a room';
comment on column mirror_room_term.create_time is 'when the room was created; 1970 if Liveblocks does not say';

-- Adding the column only changes the catalog, but needs the table for a moment: others wait
-- no longer than this behind it.
set lock_timeout = '3s';
alter table mirror_room add column if not exists terms_sha256 bytea;
comment on column mirror_room.terms_sha256 is
    'content_sha256 as of the rows of mirror_room_term; null if there are none yet, and of deleted rooms';
reset lock_timeout;

-- Built concurrently: whatever is written meanwhile goes on. Of a comparison of two columns
-- the planner would expect most rows to differ; of this it expects few.
drop index concurrently if exists mirror_room_unindexed;
create index concurrently mirror_room_unindexed on mirror_room (bucket, project_id, room_id)
    where delete_time is null and (terms_sha256 is not distinct from content_sha256)::integer = 0;

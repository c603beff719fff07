-- +goose NO TRANSACTION
-- +goose Up

-- Lists select threads by metadata, as 0025_room_terms does for rooms. Each statement can be
-- run again. The rows of threads that are there are written after the migrations, some at a
-- time; a thread whose rows are missing or of an earlier version is known by its hash, and
-- lists look at it one by one.

create table if not exists mirror_thread_term (
    bucket smallint not null,
    project_id text collate "C" not null,
    room_id text collate "C" not null,
    thread_id text collate "C" not null,
    term text collate "C" not null,
    constraint mirror_thread_term_pkey primary key (bucket, project_id, room_id, thread_id, term)
);

create index if not exists mirror_thread_term_by_term on mirror_thread_term (project_id, term, room_id, thread_id);

comment on table mirror_thread_term is 'a row for each value in the metadata of a thread, by which lists select it';
comment on column mirror_thread_term.bucket is 'first byte of a hash of project and room, 0 to 255; a primary key begins with it';
comment on column mirror_thread_term.project_id is 'local id of the project, by default "default"';
comment on column mirror_thread_term.room_id is 'id of the room';
comment on column mirror_thread_term.thread_id is 'id of the thread';
comment on column mirror_thread_term.term is
    'first 16 bytes of a hash of a name and its value in the metadata, in hexadecimal';

-- Adding the column only changes the catalog, but needs the table for a moment: others wait
-- no longer than this behind it.
set lock_timeout = '3s';
alter table mirror_thread add column if not exists terms_sha256 bytea;
comment on column mirror_thread.terms_sha256 is
    'content_sha256 as of the rows of mirror_thread_term; null if there are none yet';
reset lock_timeout;

-- Built concurrently, with the expression that the planner expects few rows of, as for rooms.
drop index concurrently if exists mirror_thread_unindexed;
create index concurrently mirror_thread_unindexed on mirror_thread (bucket, project_id, room_id, thread_id)
    where (terms_sha256 is not distinct from content_sha256)::integer = 0;

-- The terms take its place. Each change of a thread wrote to it, whatever had changed.
drop index concurrently if exists mirror_thread_by_metadata;

-- +goose NO TRANSACTION
-- +goose Up

-- Lists select threads by metadata, as 0025_room_terms does for rooms. Each statement can be
-- run again. The rows of threads that are there are written after the migrations, some at a
-- time; a thread whose rows are missing or of an earlier version is known by its hash, and
-- lists look at it one by one.

create table if not exists mirror_thread_term (
    bucket smallint not null,
    project_id varbinary(64) not null,
    room_id varbinary(512) not null,
    thread_id varbinary(128) not null,
    -- First 16 bytes of a hash of a name and its value in the metadata, in hexadecimal.
    term varbinary(32) not null,
    primary key (bucket, project_id, room_id, thread_id, term),
    key mirror_thread_term_by_term (project_id, term, room_id, thread_id)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;
alter table mirror_thread_term comment = 'a row for each value in the metadata of a thread, by which lists select it';

-- The columns only change the dictionary. The first is content_sha256 as of the rows of
-- mirror_thread_term; null if there are none yet.
alter table mirror_thread add column terms_sha256 binary(32);
alter table mirror_thread
    add column is_indexed boolean generated always as (terms_sha256 <=> content_sha256) virtual;
-- Built in place, beside reads and writes.
alter table mirror_thread add key mirror_thread_unindexed (is_indexed, bucket, project_id, room_id, thread_id);

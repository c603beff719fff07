-- +goose NO TRANSACTION
-- +goose Up

-- Events are found by their thread, and tell which signing secret verified them. The columns
-- only change the dictionary. The index is built in place, beside reads and writes; it reads
-- the table once. As in the migrations before, each statement can be run again.
alter table mirror_event
    add column thread_id varbinary(128) not null default '',
    add column secret_sha varbinary(8) not null default '';
alter table mirror_event add key mirror_event_by_thread (project_id, thread_id, receive_time desc, event_id);

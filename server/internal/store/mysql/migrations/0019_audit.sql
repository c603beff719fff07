-- +goose NO TRANSACTION
-- +goose Up

-- Events are found by their thread, and tell which signing secret verified them. The columns
-- only change the dictionary.
alter table mirror_event
    add column thread_id varbinary(128) not null default '',
    add column secret_sha varbinary(8) not null default '';

-- +goose Up

-- Events are found by their thread, and tell which signing secret verified them. Adding the
-- columns only changes the catalog, but needs the table for a moment: webhooks wait no longer
-- than this behind it.
set local lock_timeout = '3s';
alter table mirror_event add column if not exists thread_id text collate "C" not null default '';
alter table mirror_event add column if not exists secret_sha text collate "C" not null default '';
comment on column mirror_event.thread_id is 'thread of the event; empty if none, and in events that earlier versions recorded';
comment on column mirror_event.secret_sha is
    'first 8 digits of the SHA-256 of the signing secret that verified it; empty in events that earlier versions recorded';

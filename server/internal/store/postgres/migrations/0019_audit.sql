-- +goose NO TRANSACTION
-- +goose Up

-- Events are found by their thread, and tell which signing secret verified them. Adding the
-- columns only changes the catalog. The index is built concurrently: it reads the table once
-- and has no entry for what earlier versions recorded, whatever is recorded meanwhile goes
-- on. Each statement can be run again.
alter table mirror_event add column if not exists thread_id text collate "C" not null default '';
alter table mirror_event add column if not exists secret_sha text collate "C" not null default '';
comment on column mirror_event.thread_id is 'thread of the event; empty if none, and in events that earlier versions recorded';
comment on column mirror_event.secret_sha is
    'first 8 digits of the SHA-256 of the signing secret that verified it; empty in events that earlier versions recorded';
drop index concurrently if exists mirror_event_by_thread;
create index concurrently mirror_event_by_thread on mirror_event (project_id, thread_id, receive_time desc, event_id)
    where thread_id <> '';

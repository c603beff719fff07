-- +goose NO TRANSACTION
-- +goose Up

-- Built concurrently, it reads the table once and has no entry for what earlier versions
-- recorded; whatever is recorded meanwhile goes on. Each statement can be run again.
drop index concurrently if exists mirror_event_by_thread;
create index concurrently mirror_event_by_thread on mirror_event (project_id, thread_id, receive_time desc, event_id)
    where thread_id <> '';

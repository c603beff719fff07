-- +goose NO TRANSACTION
-- +goose Up

-- Built in place, beside reads and writes, it reads the table once.
alter table mirror_event add key mirror_event_by_thread (project_id, thread_id, receive_time desc, event_id);

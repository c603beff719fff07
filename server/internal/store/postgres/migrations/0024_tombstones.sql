-- +goose NO TRANSACTION
-- +goose Up

-- What was deleted is found by when, to expire. Of rooms only those have an entry that still
-- have content. Built concurrently, each index reads its table once; whatever is written
-- meanwhile goes on. Each statement can be run again.
drop index concurrently if exists mirror_room_by_delete;
create index concurrently mirror_room_by_delete on mirror_room (project_id, delete_time desc, room_id)
    where delete_time is not null and content_sha256 <> sha256('{}');
drop index concurrently if exists mirror_thread_by_delete;
create index concurrently mirror_thread_by_delete on mirror_thread (project_id, delete_time desc, thread_id)
    where delete_time is not null;
drop index concurrently if exists mirror_group_by_delete;
create index concurrently mirror_group_by_delete on mirror_group (project_id, delete_time desc, group_id)
    where delete_time is not null;

-- Events that were not simply queued are few, and no other event costs anything for it.
drop index concurrently if exists mirror_event_by_outcome;
create index concurrently mirror_event_by_outcome on mirror_event (project_id, outcome, receive_time desc, event_id)
    where outcome <> 'queued';

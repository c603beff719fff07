-- +goose NO TRANSACTION
-- +goose Up

-- Indexes of lists. They are built while the service works, so each statement stands
-- by itself and can be run again: an index whose build was cut off is there, but not
-- used, and goes first.

-- Waits for its room, so it is neither due nor failed. A column of its own, because an
-- index on generation would cost each event a new entry in every index.
alter table mirror_resource_state add column if not exists parked boolean not null default false;

update mirror_resource_state set parked = true
where due_time is null and fail_time is null and generation > applied_generation and not parked;

-- What is not at rest, which is little. Before, an index had all states in this order.
drop index concurrently if exists mirror_resource_state_open;
create index concurrently mirror_resource_state_open on mirror_resource_state (project_id, room_id, kind, resource_id)
    where due_time is not null or fail_time is not null or parked;
drop index concurrently if exists mirror_resource_state_by_room;

drop index concurrently if exists mirror_event_by_type;
create index concurrently mirror_event_by_type on mirror_event (project_id, type, receive_time desc, event_id)
    where type <> '';

drop index concurrently if exists mirror_thread_by_resolved;
create index concurrently mirror_thread_by_resolved on mirror_thread (project_id, resolved, room_id, thread_id);
drop index concurrently if exists mirror_thread_by_change;
create index concurrently mirror_thread_by_change on mirror_thread (project_id, coalesce(update_time, create_time));
drop index concurrently if exists mirror_thread_by_metadata;
create index concurrently mirror_thread_by_metadata on mirror_thread using gin (metadata_text jsonb_path_ops);
drop index concurrently if exists mirror_comment_by_change;
create index concurrently mirror_comment_by_change
    on mirror_comment (project_id, greatest(create_time, edit_time, delete_time));

drop index concurrently if exists mirror_notification_by_thread;
create index concurrently mirror_notification_by_thread
    on mirror_notification (project_id, thread_id, create_time desc, event_id) where thread_id <> '';
drop index concurrently if exists mirror_notification_by_kind;
create index concurrently mirror_notification_by_kind
    on mirror_notification (project_id, kind, create_time desc, event_id) where kind <> '';
drop index concurrently if exists mirror_notification_by_channel;
create index concurrently mirror_notification_by_channel
    on mirror_notification (project_id, channel, create_time desc, event_id) where channel <> '';

-- Queues inside large tables: every task leaves dead entries at the front of the
-- indexes that are read for the next one. The default waits for a fifth of the table.
alter table mirror_resource_state set (autovacuum_vacuum_scale_factor = 0.02);
alter table mirror_unfolded_event set (autovacuum_vacuum_scale_factor = 0.02);

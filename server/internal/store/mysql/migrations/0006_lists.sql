-- +goose NO TRANSACTION
-- +goose Up

-- Indexes of lists. As in the migrations before, each statement can be run again: a
-- column or an index that is there already counts as added, one that is gone as
-- dropped. Columns are computed and take no space, but for their index.

-- What is not at rest, in the order of lists.
alter table mirror_resource_state
    add column is_open boolean generated always as (
        due_time is not null or fail_time is not null or generation > applied_generation
    ) virtual;
alter table mirror_resource_state add key mirror_resource_state_open (project_id, is_open, room_id, kind, resource_id);
alter table mirror_resource_state drop key mirror_resource_state_by_room;

alter table mirror_event add key mirror_event_by_type (project_id, type, receive_time desc, event_id);

alter table mirror_thread
    add column changed_time datetime(6) generated always as (coalesce(update_time, create_time)) virtual;
alter table mirror_thread add key mirror_thread_by_change (project_id, changed_time);
alter table mirror_thread add key mirror_thread_by_resolved (project_id, resolved, room_id, thread_id);

alter table mirror_comment
    add column changed_time datetime(6) generated always as (
        greatest(create_time, coalesce(edit_time, create_time), coalesce(delete_time, create_time))
    ) virtual;
alter table mirror_comment add key mirror_comment_by_change (project_id, changed_time);

alter table mirror_notification add key mirror_notification_by_thread (project_id, thread_id, create_time desc, event_id);
alter table mirror_notification add key mirror_notification_by_kind (project_id, kind, create_time desc, event_id);
alter table mirror_notification add key mirror_notification_by_channel (project_id, channel, create_time desc, event_id);

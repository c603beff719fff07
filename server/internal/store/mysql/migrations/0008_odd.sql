-- +goose NO TRANSACTION
-- +goose Up

-- As in the migrations before, each statement can be run again.

-- Why info or inbox is null although info_json or inbox_json is not: the server
-- refuses it. These columns are added without rewriting a row.
alter table mirror_user_session add column info_problem varchar(255) not null default '';
alter table mirror_notification add column inbox_problem varchar(255) not null default '';

-- Users without a connection of their own share one number, so the number alone is
-- no key. The table holds who is in a room now, so it is rewritten in no time. Both
-- in one statement, so that there is never one without the other.
alter table mirror_active_user
    add column info_problem varchar(255) not null default '',
    drop primary key,
    add primary key (bucket, project_id, room_id, connection_id, user_id);

-- The same for contents of a Yjs document that are only encoded differently; null
-- if it is not known. No row is rewritten.
alter table mirror_document add column state_sha256 binary(32);

-- What waits at one resource, in the order in which it happened: a fold reads as
-- much as it takes up, however much waits. happen_time is source_time, or
-- receive_time where that is not known. It is null where an earlier version wrote
-- the row; those rows go first.
alter table mirror_unfolded_event
    add column happen_time datetime(6),
    add key mirror_unfolded_event_in_order (bucket, project_id, room_id, kind, resource_id, happen_time, event_id);
update mirror_unfolded_event set happen_time = coalesce(source_time, receive_time) where happen_time is null;

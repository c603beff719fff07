-- +goose Up

-- Why info or inbox is null although info_json or inbox_json is not: jsonb refuses
-- it. As the defaults are constants, no row is rewritten.
alter table mirror_active_user add column info_problem text not null default '';
alter table mirror_user_session add column info_problem text not null default '';
alter table mirror_notification add column inbox_problem text not null default '';

-- Users without a connection of their own share one number, so the number alone is
-- no key. The table holds who is in a room now, so its index is made in no time.
alter table mirror_active_user
    drop constraint mirror_active_user_pkey,
    add constraint mirror_active_user_pkey primary key (bucket, project_id, room_id, connection_id, user_id);

-- The same for contents of a Yjs document that are only encoded differently; null
-- if it is not known.
alter table mirror_document add column state_sha256 bytea;

-- What waits at one resource, in the order in which it happened: a fold reads as
-- much as it takes up, however much waits.
create index mirror_unfolded_event_in_order on mirror_unfolded_event
    (bucket, project_id, room_id, kind, resource_id, coalesce(source_time, receive_time), event_id);

-- name: ActiveUserRows :many
select connection_id, epoch, user_id, info_json
from mirror_active_user
where bucket = @bucket and project_id = @project_id and room_id = @room_id
order by connection_id;

-- name: DeleteActiveUsers :exec
delete from mirror_active_user
where bucket = @bucket and project_id = @project_id and room_id = @room_id;

-- name: InsertActiveUsers :exec
insert into mirror_active_user (bucket, project_id, room_id, connection_id, epoch, user_id, info_json, info)
select
    @bucket, @project_id, @room_id, unnest(@connection_id::bigint[]), @epoch,
    unnest(@user_id::text[]), unnest(@info_json::bytea[]), unnest(@info::jsonb[]);

-- name: OpenSessions :many
select session_id, connection_id, user_id, begin_time
from mirror_user_session
where bucket = @bucket and project_id = @project_id and room_id = @room_id and end_cause = ''
order by session_id
for update;

-- name: EndAbsentSessions :exec
update mirror_user_session set leave_time = @leave_time, end_cause = 'absent'
where bucket = @bucket and project_id = @project_id and room_id = @room_id and session_id = any(@session_id::text[]);

-- name: EndSessions :exec
-- The room is gone.
with gone as (
    select o.session_id from mirror_user_session o
    where o.bucket = @bucket and o.project_id = @project_id and o.room_id = @room_id and o.end_cause = ''
    order by o.session_id
    for update
)
update mirror_user_session s set leave_time = @leave_time, end_cause = 'room_deleted'
from gone
where s.bucket = @bucket and s.project_id = @project_id and s.room_id = @room_id and s.session_id = gone.session_id;

-- name: Unfolded :many
select event_id, type, payload, source_time, receive_time
from mirror_unfolded_event
where bucket = @bucket and project_id = @project_id and room_id = @room_id and kind = @kind and resource_id = @resource_id
order by coalesce(source_time, receive_time), event_id
limit @max_rows;

-- name: DeleteUnfolded :exec
delete from mirror_unfolded_event
where bucket = @bucket and project_id = @project_id and room_id = @room_id and kind = @kind and resource_id = @resource_id
    and event_id = any(@event_id::text[]);

-- name: HasUnfolded :one
select exists (
    select from mirror_unfolded_event
    where bucket = @bucket and project_id = @project_id and room_id = @room_id and kind = @kind and resource_id = @resource_id
);

-- name: SessionsOf :many
select s.*
from (select unnest(@connection_id::bigint[]) as connection_id) c
cross join lateral (
    select * from mirror_user_session u
    where u.bucket = @bucket and u.project_id = @project_id and u.room_id = @room_id and u.connection_id = c.connection_id
    order by u.begin_time desc, u.session_id
    limit @max_rows
) s
order by s.connection_id, s.begin_time desc, s.session_id;

-- name: DeleteSessions :exec
delete from mirror_user_session
where bucket = @bucket and project_id = @project_id and room_id = @room_id and session_id = any(@session_id::text[]);

-- name: UpsertSessions :exec
-- An end that was inferred since the fold read the session stays: the fold knew
-- of none.
insert into mirror_user_session as s (
    bucket, project_id, room_id, session_id, connection_id, user_id, info_json, info,
    begin_time, enter_time, leave_time, leave_event_id, end_cause
)
select
    @bucket, @project_id, @room_id, u.session_id, u.connection_id, u.user_id, u.info_json, u.info,
    u.begin_time, u.enter_time, u.leave_time, u.leave_event_id, u.end_cause
from (
    select
        unnest(@session_id::text[]) as session_id,
        unnest(@connection_id::bigint[]) as connection_id,
        unnest(@user_id::text[]) as user_id,
        unnest(@info_json::bytea[]) as info_json,
        unnest(@info::jsonb[]) as info,
        unnest(@begin_time::timestamptz[]) as begin_time,
        unnest(@enter_time::timestamptz[]) as enter_time,
        unnest(@leave_time::timestamptz[]) as leave_time,
        unnest(@leave_event_id::text[]) as leave_event_id,
        unnest(@end_cause::text[]) as end_cause
) u
order by u.session_id
on conflict (bucket, project_id, room_id, session_id) do update set
    connection_id = excluded.connection_id,
    user_id = excluded.user_id,
    info_json = excluded.info_json,
    info = excluded.info,
    begin_time = excluded.begin_time,
    enter_time = excluded.enter_time,
    leave_event_id = excluded.leave_event_id,
    leave_time = case
        when excluded.end_cause = '' and s.end_cause in ('absent', 'room_deleted') then s.leave_time
        else excluded.leave_time
    end,
    end_cause = case
        when excluded.end_cause = '' and s.end_cause in ('absent', 'room_deleted') then s.end_cause
        else excluded.end_cause
    end;

-- name: NotificationRows :many
select event_id, channel, kind, user_id, thread_id, mention_id, subject_id, create_time, trigger_time,
    inbox_json, read_time, notify_time
from mirror_notification
where bucket = @bucket and project_id = @project_id and room_id = @room_id and notification_id = @notification_id
order by event_id;

-- name: NotificationUser :one
select user_id
from mirror_notification
where bucket = @bucket and project_id = @project_id and room_id = @room_id and notification_id = @notification_id
    and user_id <> ''
order by event_id
limit 1;

-- name: UpsertNotifications :exec
insert into mirror_notification (
    bucket, project_id, room_id, notification_id, event_id, channel, kind, user_id,
    thread_id, mention_id, subject_id, create_time, trigger_time
)
select
    @bucket, @project_id, @room_id, @notification_id, n.event_id, n.channel, n.kind, n.user_id,
    n.thread_id, n.mention_id, n.subject_id, n.create_time, n.trigger_time
from (
    select
        unnest(@event_id::text[]) as event_id,
        unnest(@channel::text[]) as channel,
        unnest(@kind::text[]) as kind,
        unnest(@user_id::text[]) as user_id,
        unnest(@thread_id::text[]) as thread_id,
        unnest(@mention_id::text[]) as mention_id,
        unnest(@subject_id::text[]) as subject_id,
        unnest(@create_time::timestamptz[]) as create_time,
        unnest(@trigger_time::timestamptz[]) as trigger_time
) n
order by n.event_id
on conflict (bucket, project_id, room_id, notification_id, event_id) do update set
    channel = excluded.channel,
    kind = excluded.kind,
    user_id = excluded.user_id,
    thread_id = excluded.thread_id,
    mention_id = excluded.mention_id,
    subject_id = excluded.subject_id,
    create_time = excluded.create_time,
    trigger_time = excluded.trigger_time;

-- name: WriteInbox :exec
update mirror_notification
set inbox_json = @inbox_json, inbox = @inbox, read_time = @read_time, notify_time = @notify_time
where bucket = @bucket and project_id = @project_id and room_id = @room_id and notification_id = @notification_id;

-- name: ActiveUsers :many
-- One row for each connection, or one without if there is none.
select r.delete_time, s.fetch_time, s.source_update_time, s.missing_since,
    coalesce(s.revision, 0)::bigint as revision,
    coalesce(s.generation > s.applied_generation, false)::boolean as stale,
    u.connection_id, u.user_id, u.info_json
from mirror_room r
left join mirror_resource_state s
    on s.bucket = r.bucket and s.project_id = r.project_id and s.room_id = r.room_id
    and s.kind = 5 and s.resource_id = ''
left join mirror_active_user u
    on u.bucket = r.bucket and u.project_id = r.project_id and u.room_id = r.room_id
    and u.epoch = case when r.delete_time is null then r.epoch else r.epoch - 1 end
where r.bucket = @bucket and r.project_id = @project_id and r.room_id = @room_id
    and (r.delete_time is null or @deleted::boolean)
order by u.connection_id;

-- As for events, each list walks the index that fits its filter.

-- name: OpenSessionsByTime :many
-- By itself, so that the index of open sessions serves it: there are few of them
-- in a long history.
select * from mirror_user_session
where project_id = @project_id and end_cause = ''
    and begin_time >= @from_time and begin_time < @to_time
    and begin_time <= @after_time and (begin_time < @after_time or session_id > @after_id)
order by begin_time desc, session_id
limit @max_rows;

-- name: SessionsByTime :many
select * from mirror_user_session
where project_id = @project_id
    and begin_time >= @from_time and begin_time < @to_time
    and begin_time <= @after_time and (begin_time < @after_time or session_id > @after_id)
order by begin_time desc, session_id
limit @max_rows;

-- name: SessionsByRoom :many
select * from mirror_user_session
where project_id = @project_id and room_id = @room_id
    and (@user_id::text = '' or user_id = @user_id)
    and (not @open::boolean or end_cause = '')
    and begin_time >= @from_time and begin_time < @to_time
    and begin_time <= @after_time and (begin_time < @after_time or session_id > @after_id)
order by begin_time desc, session_id
limit @max_rows;

-- name: SessionsByUser :many
select * from mirror_user_session
where project_id = @project_id and user_id = @user_id and user_id <> ''
    and (not @open::boolean or end_cause = '')
    and begin_time >= @from_time and begin_time < @to_time
    and begin_time <= @after_time and (begin_time < @after_time or session_id > @after_id)
order by begin_time desc, session_id
limit @max_rows;

-- name: NotificationsByTime :many
select sqlc.embed(n), s.fetch_time, s.source_update_time, s.missing_since,
    coalesce(s.revision, 0)::bigint as revision,
    coalesce(s.generation > s.applied_generation, false)::boolean as stale
from mirror_notification n
left join mirror_resource_state s
    on s.bucket = n.bucket and s.project_id = n.project_id and s.room_id = n.room_id
    and s.kind = 7 and s.resource_id = n.notification_id
where n.project_id = @project_id
    and (@channel::text = '' or n.channel = @channel) and (@kind::text = '' or n.kind = @kind)
    and (@thread_id::text = '' or n.thread_id = @thread_id)
    and n.create_time >= @from_time and n.create_time < @to_time
    and n.create_time <= @after_time and (n.create_time < @after_time or n.event_id > @after_id)
order by n.create_time desc, n.event_id
limit @max_rows;

-- name: NotificationsByRoom :many
select sqlc.embed(n), s.fetch_time, s.source_update_time, s.missing_since,
    coalesce(s.revision, 0)::bigint as revision,
    coalesce(s.generation > s.applied_generation, false)::boolean as stale
from mirror_notification n
left join mirror_resource_state s
    on s.bucket = n.bucket and s.project_id = n.project_id and s.room_id = n.room_id
    and s.kind = 7 and s.resource_id = n.notification_id
where n.project_id = @project_id and n.room_id = @room_id and n.room_id <> ''
    and (@user_id::text = '' or n.user_id = @user_id)
    and (@channel::text = '' or n.channel = @channel) and (@kind::text = '' or n.kind = @kind)
    and (@thread_id::text = '' or n.thread_id = @thread_id)
    and n.create_time >= @from_time and n.create_time < @to_time
    and n.create_time <= @after_time and (n.create_time < @after_time or n.event_id > @after_id)
order by n.create_time desc, n.event_id
limit @max_rows;

-- name: NotificationsByUser :many
select sqlc.embed(n), s.fetch_time, s.source_update_time, s.missing_since,
    coalesce(s.revision, 0)::bigint as revision,
    coalesce(s.generation > s.applied_generation, false)::boolean as stale
from mirror_notification n
left join mirror_resource_state s
    on s.bucket = n.bucket and s.project_id = n.project_id and s.room_id = n.room_id
    and s.kind = 7 and s.resource_id = n.notification_id
where n.project_id = @project_id and n.user_id = @user_id and n.user_id <> ''
    and (@channel::text = '' or n.channel = @channel) and (@kind::text = '' or n.kind = @kind)
    and (@thread_id::text = '' or n.thread_id = @thread_id)
    and n.create_time >= @from_time and n.create_time < @to_time
    and n.create_time <= @after_time and (n.create_time < @after_time or n.event_id > @after_id)
order by n.create_time desc, n.event_id
limit @max_rows;

-- name: Announce :exec
-- A change to what belongs to another resource than the one that was applied.
with head as (
    update mirror_feed_head h set n = h.n + 1
    where h.bucket = @bucket
    returning h.n
)
insert into mirror_change (bucket, n, project_id, room_id, kind, resource_id, change_kind, commit_time)
select @bucket, head.n, @project_id, @room_id, @kind, '', 1, @now
from head;

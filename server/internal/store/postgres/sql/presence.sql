-- name: ActiveUserRows :many
select connection_id, epoch, user_id, info_json
from mirror_active_user
where bucket = @bucket and project_id = @project_id and room_id = @room_id
order by connection_id, user_id;

-- name: DeleteActiveUsers :exec
delete from mirror_active_user
where bucket = @bucket and project_id = @project_id and room_id = @room_id;

-- name: InsertActiveUsers :exec
insert into mirror_active_user (
    bucket, project_id, room_id, connection_id, epoch, user_id, info_json, info, info_problem
)
select
    @bucket, @project_id, @room_id, unnest(@connection_id::bigint[]), @epoch,
    unnest(@user_id::text[]), unnest(@info_json::bytea[]), unnest(@info::jsonb[]), unnest(@info_problem::text[]);

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
-- The room is deleted.
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
-- The time bounds what is read by the index that is in order: before the table has been
-- analysed, the planner may take that for the one by id.
delete from mirror_unfolded_event
where bucket = @bucket and project_id = @project_id and room_id = @room_id and kind = @kind and resource_id = @resource_id
    and event_id = any(@event_id::text[]) and coalesce(source_time, receive_time) <= @until::timestamptz;

-- name: HasUnfolded :one
select exists (
    select from mirror_unfolded_event
    where bucket = @bucket and project_id = @project_id and room_id = @room_id and kind = @kind and resource_id = @resource_id
);

-- name: DeleteSessions :exec
delete from mirror_user_session
where bucket = @bucket and project_id = @project_id and room_id = @room_id and session_id = any(@session_id::text[]);

-- name: UpsertSessions :exec
-- An end that was inferred since the fold read the session stays, because the fold
-- does not know of it.
insert into mirror_user_session as s (
    bucket, project_id, room_id, session_id, connection_id, user_id, info_json, info, info_problem,
    begin_time, enter_time, leave_time, leave_event_id, end_cause
)
select
    @bucket, @project_id, @room_id, u.session_id, u.connection_id, u.user_id, u.info_json, u.info, u.info_problem,
    u.begin_time, u.enter_time, u.leave_time, u.leave_event_id, u.end_cause
from (
    select
        unnest(@session_id::text[]) as session_id,
        unnest(@connection_id::bigint[]) as connection_id,
        unnest(@user_id::text[]) as user_id,
        unnest(@info_json::bytea[]) as info_json,
        unnest(@info::jsonb[]) as info,
        unnest(@info_problem::text[]) as info_problem,
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
    info_problem = excluded.info_problem,
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
set inbox_json = @inbox_json, inbox = @inbox, inbox_problem = @inbox_problem, read_time = @read_time, notify_time = @notify_time
where bucket = @bucket and project_id = @project_id and room_id = @room_id and notification_id = @notification_id;

-- name: Announce :one
-- A change of rows that belong to a resource other than the applied one. Returns the
-- number of its entry.
with head as (
    update mirror_feed_head h set n = h.n + 1
    where h.bucket = @bucket
    returning h.n
)
insert into mirror_change (bucket, n, project_id, room_id, kind, resource_id, change_kind, epoch, commit_time)
select @bucket, head.n, @project_id, @room_id, @kind, '', 1, @epoch, @now
from head
returning n;

-- The notifications that webhooks told of: a row for each channel.
create or replace view liveblocks_notifications (
    notification_id, event_id, channel, kind, user_id, room_id, thread_id, mention_id, subject_id, inbox,
    created_at, triggered_at, notified_at, read_at, project_id
) as
select
    n.notification_id,
    n.event_id,
    n.channel,
    n.kind,
    n.user_id,
    n.room_id,
    n.thread_id,
    n.mention_id,
    n.subject_id,
    n.inbox,
    n.create_time,
    n.trigger_time,
    n.notify_time,
    n.read_time,
    n.project_id
from mirror_notification n;

-- By this comment a later migrate knows that the view may be replaced.
comment on view liveblocks_notifications is 'liveblocks-mirror: the notifications that webhooks told of';

comment on column liveblocks_notifications.notification_id is 'id of the inbox notification, which several channels share';
comment on column liveblocks_notifications.event_id is 'id of the webhook (webhook-id)';
comment on column liveblocks_notifications.channel is 'email, slack, teams or webPush';
comment on column liveblocks_notifications.kind is 'thread, textMention or a kind of the app ($...)';
comment on column liveblocks_notifications.user_id is 'who is notified';
comment on column liveblocks_notifications.room_id is 'id of the room; empty for a notification without one';
comment on column liveblocks_notifications.thread_id is 'id of the thread; empty if it is about none';
comment on column liveblocks_notifications.mention_id is 'id of the mention; empty if it is about none';
comment on column liveblocks_notifications.subject_id is 'subject of a kind of the app; empty otherwise';
comment on column liveblocks_notifications.inbox is 'the inbox notification as JSON; null if there is none, or the server refuses it';
comment on column liveblocks_notifications.created_at is 'when the webhook was created';
comment on column liveblocks_notifications.triggered_at is 'when its cause happened; null if unknown';
comment on column liveblocks_notifications.notified_at is 'when the inbox notification last changed';
comment on column liveblocks_notifications.read_at is 'when the user read it; null if not yet';
comment on column liveblocks_notifications.project_id is 'local id of the project, by default "default"';

-- The notifications that webhooks told of: a row for each channel.
-- By the last condition a later migrate knows the view and its edition.
create or replace sql security invoker view liveblocks_notifications (
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
from mirror_notification n
where 'liveblocks-mirror 1' <> ''

-- +goose Up

-- Nobody but a sweep has asked for what is due. Everything else goes first.
alter table mirror_resource_state add column background boolean not null default false;
drop index mirror_resource_state_by_due;
create index mirror_resource_state_by_due on mirror_resource_state (project_id, background, due_time) where due_time is not null;

-- Events that wait at a resource that is folded from them, until its task has
-- taken them up. Their bucket is that of the room.
create table mirror_unfolded_event (
    bucket smallint not null,
    project_id text collate "C" not null,
    room_id text collate "C" not null,
    kind smallint not null,
    resource_id text collate "C" not null,
    event_id text collate "C" not null,
    type text collate "C" not null,
    payload bytea not null,
    source_time timestamptz,
    receive_time timestamptz not null,
    constraint mirror_unfolded_event_pkey primary key (bucket, project_id, room_id, kind, resource_id, event_id)
);

-- Threads. A thread is written as a whole, with all that is in the tables below
-- it. How fresh it is stands in mirror_resource_state.
create table mirror_thread (
    bucket smallint not null,
    project_id text collate "C" not null,
    room_id text collate "C" not null,
    thread_id text collate "C" not null,
    epoch bigint not null,
    -- The thread with its comments as Liveblocks answered it, byte for byte.
    source_json bytea not null,
    -- Of source_json in canonical form. Empty if it is to be written anew.
    content_sha256 bytea not null,
    create_time timestamptz,
    update_time timestamptz,
    resolved boolean not null,
    visibility text collate "C" not null,
    -- The metadata for queries, and once more with every value as a string, which
    -- finds 1 and "1" alike. Null where jsonb refuses it, and why.
    metadata jsonb,
    metadata_text jsonb,
    -- Deleted comments do not count.
    comment_count integer not null,
    data_problem text not null default '',
    delete_time timestamptz,
    constraint mirror_thread_pkey primary key (bucket, project_id, room_id, thread_id)
);

create index mirror_thread_by_id on mirror_thread (project_id, room_id, thread_id);

create table mirror_comment (
    bucket smallint not null,
    project_id text collate "C" not null,
    room_id text collate "C" not null,
    thread_id text collate "C" not null,
    comment_id text collate "C" not null,
    user_id text collate "C" not null,
    -- 1970 where Liveblocks does not say: comments are listed by it.
    create_time timestamptz not null,
    edit_time timestamptz,
    delete_time timestamptz,
    source_json bytea not null,
    body jsonb,
    plain_text text not null,
    markdown text not null,
    metadata jsonb,
    constraint mirror_comment_pkey primary key (bucket, project_id, room_id, thread_id, comment_id)
);

create index mirror_comment_by_id on mirror_comment (project_id, room_id, thread_id, create_time, comment_id);
create index mirror_comment_by_user on mirror_comment (project_id, user_id, room_id, thread_id, create_time, comment_id)
    where user_id <> '';

create table mirror_comment_reaction (
    bucket smallint not null,
    project_id text collate "C" not null,
    room_id text collate "C" not null,
    thread_id text collate "C" not null,
    comment_id text collate "C" not null,
    emoji text collate "C" not null,
    user_id text collate "C" not null,
    create_time timestamptz,
    constraint mirror_comment_reaction_pkey primary key (bucket, project_id, room_id, thread_id, comment_id, emoji, user_id)
);

-- Attachments have no URL here: it would have expired.
create table mirror_comment_attachment (
    bucket smallint not null,
    project_id text collate "C" not null,
    room_id text collate "C" not null,
    thread_id text collate "C" not null,
    comment_id text collate "C" not null,
    attachment_id text collate "C" not null,
    name text not null,
    mime_type text not null,
    size bigint not null,
    constraint mirror_comment_attachment_pkey primary key (bucket, project_id, room_id, thread_id, comment_id, attachment_id)
);

-- Whom a comment mentions. A group has a row, and each of its members one more,
-- with the group's id in via_group.
create table mirror_comment_mention (
    bucket smallint not null,
    project_id text collate "C" not null,
    room_id text collate "C" not null,
    thread_id text collate "C" not null,
    comment_id text collate "C" not null,
    -- user or group.
    kind text collate "C" not null,
    mentioned_id text collate "C" not null,
    via_group text collate "C" not null,
    constraint mirror_comment_mention_pkey primary key (bucket, project_id, room_id, thread_id, comment_id, kind, mentioned_id, via_group)
);

create index mirror_comment_mention_by_user on mirror_comment_mention (project_id, mentioned_id, room_id, thread_id, comment_id)
    where kind = 'user';

-- Who is in a room now, one row for each connection.
create table mirror_active_user (
    bucket smallint not null,
    project_id text collate "C" not null,
    room_id text collate "C" not null,
    connection_id bigint not null,
    epoch bigint not null,
    -- Empty for an anonymous user.
    user_id text collate "C" not null,
    -- The user's info byte for byte, and for queries; null where there is none or
    -- where jsonb refuses it.
    info_json bytea,
    info jsonb,
    constraint mirror_active_user_pkey primary key (bucket, project_id, room_id, connection_id)
);

-- Who was in a room when. It outlives the room.
create table mirror_user_session (
    bucket smallint not null,
    project_id text collate "C" not null,
    room_id text collate "C" not null,
    -- The event that announced the entry, or the leaving if no entry is known.
    session_id text collate "C" not null,
    connection_id bigint not null,
    user_id text collate "C" not null,
    info_json bytea,
    info jsonb,
    -- enter_time, or leave_time where that is not known.
    begin_time timestamptz not null,
    enter_time timestamptz,
    -- Null while the user is in the room.
    leave_time timestamptz,
    leave_event_id text collate "C" not null,
    -- How the end is known: left, absent, room_deleted; empty while there is none.
    end_cause text collate "C" not null,
    constraint mirror_user_session_pkey primary key (bucket, project_id, room_id, session_id)
);

create index mirror_user_session_by_connection on mirror_user_session (bucket, project_id, room_id, connection_id, begin_time desc, session_id);
create index mirror_user_session_by_time on mirror_user_session (project_id, begin_time desc, session_id);
create index mirror_user_session_by_room on mirror_user_session (project_id, room_id, begin_time desc, session_id);
create index mirror_user_session_by_user on mirror_user_session (project_id, user_id, begin_time desc, session_id) where user_id <> '';
create index mirror_user_session_open_by_time on mirror_user_session (project_id, begin_time desc, session_id) where end_cause = '';
create index mirror_user_session_open on mirror_user_session (bucket, project_id, room_id, session_id) where end_cause = '';

-- What users were told, one row for each event. It outlives the room.
create table mirror_notification (
    bucket smallint not null,
    project_id text collate "C" not null,
    -- Empty for a notification that belongs to no room.
    room_id text collate "C" not null,
    -- That of the inbox notification, which several channels share.
    notification_id text collate "C" not null,
    event_id text collate "C" not null,
    channel text collate "C" not null,
    kind text collate "C" not null,
    user_id text collate "C" not null,
    thread_id text collate "C" not null,
    mention_id text collate "C" not null,
    subject_id text collate "C" not null,
    create_time timestamptz not null,
    trigger_time timestamptz,
    -- The inbox notification byte for byte, and for queries; null where the inbox
    -- does not hold it. The same in all rows of one notification.
    inbox_json bytea,
    inbox jsonb,
    read_time timestamptz,
    notify_time timestamptz,
    constraint mirror_notification_pkey primary key (bucket, project_id, room_id, notification_id, event_id)
);

create index mirror_notification_by_time on mirror_notification (project_id, create_time desc, event_id);
create index mirror_notification_by_room on mirror_notification (project_id, room_id, create_time desc, event_id) where room_id <> '';
create index mirror_notification_by_user on mirror_notification (project_id, user_id, create_time desc, event_id) where user_id <> '';

-- The latest comparison of each project's rooms with the list of all rooms.
-- Small, and not sharded.
create table mirror_sweep (
    project_id text collate "C" not null,
    sweep_id text collate "C" not null,
    is_full boolean not null,
    is_done boolean not null,
    list_cursor text not null,
    listed bigint not null,
    known bigint not null,
    raised bigint not null,
    vanished bigint not null,
    begin_time timestamptz,
    end_time timestamptz,
    full_time timestamptz,
    problem text not null,
    constraint mirror_sweep_pkey primary key (project_id)
);

-- As for documents. Servers built without lz4 keep their default.
-- +goose StatementBegin
do $$
begin
    alter table mirror_thread alter column source_json set compression lz4;
    alter table mirror_comment alter column source_json set compression lz4;
    alter table mirror_comment alter column body set compression lz4;
exception when feature_not_supported then
    null;
end
$$;
-- +goose StatementEnd

-- +goose NO TRANSACTION
-- +goose Up

-- As in the migrations before, each statement can be run again: a column that is
-- there already counts as added.

-- Work that only a sweep has asked for goes last. Both in one statement, so that
-- there is never one without the other.
alter table mirror_resource_state
    add column background boolean not null default false,
    drop key mirror_resource_state_by_due,
    add key mirror_resource_state_by_due (project_id, background, due_time);

-- Threads of comments. How fresh they are stands in mirror_resource_state.
create table if not exists mirror_thread (
    bucket smallint not null,
    project_id varbinary(64) not null,
    room_id varbinary(512) not null,
    thread_id varbinary(128) not null,
    epoch bigint not null,
    -- The thread with its comments as Liveblocks answered it, byte for byte.
    source_json longblob not null,
    -- Of source_json in canonical form, so that a list and a single answer agree.
    content_sha256 binary(32) not null,
    create_time datetime(6),
    update_time datetime(6),
    resolved boolean not null,
    visibility varbinary(64) not null,
    -- The metadata for queries, and once more with every value as a string, which
    -- finds 1 and "1" alike. Null where the server refuses it, and why.
    metadata json,
    metadata_text json,
    -- Deleted comments do not count.
    comment_count int not null,
    data_problem mediumtext not null,
    delete_time datetime(6),
    primary key (bucket, project_id, room_id, thread_id),
    key mirror_thread_by_id (project_id, room_id, thread_id)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

-- The comments of a thread are written anew, all of them, when it changes. What
-- they belong to, and whether that still exists, stands in mirror_thread.
create table if not exists mirror_comment (
    bucket smallint not null,
    project_id varbinary(64) not null,
    room_id varbinary(512) not null,
    thread_id varbinary(128) not null,
    comment_id varbinary(128) not null,
    user_id varbinary(512) not null,
    -- 1970 where Liveblocks does not say: comments are listed by it.
    create_time datetime(6) not null,
    edit_time datetime(6),
    delete_time datetime(6),
    source_json longblob not null,
    body json,
    plain_text longtext not null,
    markdown longtext not null,
    metadata json,
    primary key (bucket, project_id, room_id, thread_id, comment_id),
    key mirror_comment_by_id (project_id, room_id, thread_id, create_time, comment_id),
    key mirror_comment_by_user (project_id, user_id, room_id, thread_id, create_time, comment_id)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

create table if not exists mirror_comment_reaction (
    bucket smallint not null,
    project_id varbinary(64) not null,
    room_id varbinary(512) not null,
    thread_id varbinary(128) not null,
    comment_id varbinary(128) not null,
    emoji varbinary(64) not null,
    user_id varbinary(512) not null,
    create_time datetime(6),
    primary key (bucket, project_id, room_id, thread_id, comment_id, emoji, user_id)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

-- Files attached to comments. Their URLs expire and are not kept.
create table if not exists mirror_comment_attachment (
    bucket smallint not null,
    project_id varbinary(64) not null,
    room_id varbinary(512) not null,
    thread_id varbinary(128) not null,
    comment_id varbinary(128) not null,
    attachment_id varbinary(128) not null,
    name mediumtext not null,
    mime_type mediumtext not null,
    size bigint not null,
    primary key (bucket, project_id, room_id, thread_id, comment_id, attachment_id)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

-- Whom comments mention. A mentioned group has a row of its own, and one for each
-- user that the mention lists, with the group's id in via_group.
create table if not exists mirror_comment_mention (
    bucket smallint not null,
    project_id varbinary(64) not null,
    room_id varbinary(512) not null,
    thread_id varbinary(128) not null,
    comment_id varbinary(128) not null,
    -- user or group
    kind varbinary(16) not null,
    mentioned_id varbinary(512) not null,
    via_group varbinary(512) not null,
    primary key (bucket, project_id, room_id, thread_id, comment_id, kind, mentioned_id, via_group),
    key mirror_comment_mention_by_user (project_id, mentioned_id, room_id, thread_id, comment_id)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

-- Who is in a room: one row for each connection.
create table if not exists mirror_active_user (
    bucket smallint not null,
    project_id varbinary(64) not null,
    room_id varbinary(512) not null,
    connection_id bigint not null,
    epoch bigint not null,
    -- Empty for somebody without a name.
    user_id varbinary(512) not null,
    -- The user's info byte for byte, and for queries where the server takes it.
    info_json longblob,
    info json,
    primary key (bucket, project_id, room_id, connection_id)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

-- Events that wait at a resource until its task has folded them into it. What they
-- are about is history, so nothing of it ever belongs to an earlier epoch.
create table if not exists mirror_unfolded_event (
    bucket smallint not null,
    project_id varbinary(64) not null,
    room_id varbinary(512) not null,
    kind smallint not null,
    resource_id varbinary(512) not null,
    event_id varbinary(128) not null,
    type varbinary(512) not null,
    payload mediumblob not null,
    source_time datetime(6),
    receive_time datetime(6) not null,
    primary key (bucket, project_id, room_id, kind, resource_id, event_id)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

-- Who was in a room when, as events told it.
create table if not exists mirror_user_session (
    bucket smallint not null,
    project_id varbinary(64) not null,
    room_id varbinary(512) not null,
    -- The event that announced the entry, or if none did, the leaving.
    session_id varbinary(128) not null,
    connection_id bigint not null,
    user_id varbinary(512) not null,
    info_json longblob,
    info json,
    -- enter_time, or leave_time if that is not known.
    begin_time datetime(6) not null,
    enter_time datetime(6),
    leave_time datetime(6),
    leave_event_id varbinary(128) not null,
    -- left, absent or room_deleted; empty while it lasts.
    end_cause varbinary(16) not null,
    primary key (bucket, project_id, room_id, session_id),
    key mirror_user_session_by_connection (bucket, project_id, room_id, connection_id, begin_time desc, session_id),
    key mirror_user_session_open (bucket, project_id, room_id, end_cause, session_id),
    key mirror_user_session_open_by_time (project_id, end_cause, begin_time desc, session_id),
    key mirror_user_session_by_time (project_id, begin_time desc, session_id),
    key mirror_user_session_by_room (project_id, room_id, begin_time desc, session_id),
    key mirror_user_session_by_user (project_id, user_id, begin_time desc, session_id)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

-- What users were told, one row for each event. It outlives the room.
create table if not exists mirror_notification (
    bucket smallint not null,
    project_id varbinary(64) not null,
    -- Empty for a notification that belongs to no room.
    room_id varbinary(512) not null,
    -- That of the inbox notification, which several channels share.
    notification_id varbinary(128) not null,
    event_id varbinary(128) not null,
    channel varbinary(512) not null,
    kind varbinary(512) not null,
    user_id varbinary(512) not null,
    thread_id varbinary(512) not null,
    mention_id varbinary(512) not null,
    subject_id varbinary(512) not null,
    create_time datetime(6) not null,
    trigger_time datetime(6),
    -- The inbox notification byte for byte, and for queries; null where the inbox
    -- does not hold it. The same in all rows of one notification.
    inbox_json longblob,
    inbox json,
    read_time datetime(6),
    notify_time datetime(6),
    primary key (bucket, project_id, room_id, notification_id, event_id),
    key mirror_notification_by_time (project_id, create_time desc, event_id),
    key mirror_notification_by_room (project_id, room_id, create_time desc, event_id),
    key mirror_notification_by_user (project_id, user_id, create_time desc, event_id)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

-- The latest comparison of each project's rooms with the list of all rooms.
-- Small, and not sharded.
create table if not exists mirror_sweep (
    project_id varbinary(64) not null,
    sweep_id varbinary(128) not null,
    is_full boolean not null,
    is_done boolean not null,
    list_cursor mediumblob not null,
    listed bigint not null,
    known bigint not null,
    raised bigint not null,
    vanished bigint not null,
    begin_time datetime(6),
    end_time datetime(6),
    full_time datetime(6),
    problem mediumtext not null,
    primary key (project_id)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;

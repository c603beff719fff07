-- +goose Up

-- What each table and column holds, for psql and other clients. Comments change the
-- catalogue only: no row is read, and reads and writes go on.

comment on table mirror_active_user is 'a row for each connection to a room now';
comment on column mirror_active_user.bucket is 'first byte of a hash of project and room, 0 to 255; a primary key begins with it';
comment on column mirror_active_user.project_id is 'local id of the project, by default "default"';
comment on column mirror_active_user.room_id is 'id of the room';
comment on column mirror_active_user.connection_id is 'number of the connection; -1 for users without one';
comment on column mirror_active_user.epoch is 'incarnation of the room to which the row belongs; one below that of mirror_room is of an earlier room';
comment on column mirror_active_user.user_id is 'id of the user; empty for an anonymous one';
comment on column mirror_active_user.info_json is 'what the app says of the user, byte for byte';
comment on column mirror_active_user.info is 'what the app says of the user, as JSON; null if there is nothing, or the server refuses it';
comment on column mirror_active_user.info_problem is 'why info is null although info_json is not';

comment on table mirror_change is 'a row for each change of a resource, numbered without gaps within a bucket';
comment on column mirror_change.bucket is 'first byte of a hash of project and room, 0 to 255; a primary key begins with it';
comment on column mirror_change.n is 'number of the change, without gaps within the bucket';
comment on column mirror_change.project_id is 'local id of the project, by default "default"';
comment on column mirror_change.room_id is 'id of the room';
comment on column mirror_change.kind is 'number of the kind of resource: 1 room, 2 storage, 3 ydoc, 4 thread, 5 active_users, 6 user_sessions, 7 notification, 8 sweep, 9 group';
comment on column mirror_change.resource_id is 'id within the room and kind: of a thread, a notification or a Yjs subdocument; empty for what a room has one of';
comment on column mirror_change.change_kind is '1 written, 2 deleted';
comment on column mirror_change.commit_time is 'when the change was made, by the clock of the service';

comment on table mirror_comment is 'a row for each comment: user_id, body, plain_text, markdown, metadata';
comment on column mirror_comment.bucket is 'first byte of a hash of project and room, 0 to 255; a primary key begins with it';
comment on column mirror_comment.project_id is 'local id of the project, by default "default"';
comment on column mirror_comment.room_id is 'id of the room';
comment on column mirror_comment.thread_id is 'id of the thread';
comment on column mirror_comment.comment_id is 'id of the comment';
comment on column mirror_comment.user_id is 'id of the author';
comment on column mirror_comment.create_time is 'when it was created; 1970 if Liveblocks does not say';
comment on column mirror_comment.edit_time is 'when it was last edited; null if never';
comment on column mirror_comment.delete_time is 'when it was deleted in a thread that lives; null otherwise';
comment on column mirror_comment.source_json is 'what Liveblocks returned, byte for byte';
comment on column mirror_comment.body is 'text with its structure, as JSON; null if the server refuses it';
comment on column mirror_comment.plain_text is 'text without format';
comment on column mirror_comment.markdown is 'text as Markdown';
comment on column mirror_comment.metadata is 'metadata as JSON; null if the server refuses it';
comment on column mirror_comment.digest is 'hash of the row, by which changed rows are found';

comment on table mirror_comment_attachment is 'a row for each attachment: id, name, type and size; URLs expire, so none is stored';
comment on column mirror_comment_attachment.bucket is 'first byte of a hash of project and room, 0 to 255; a primary key begins with it';
comment on column mirror_comment_attachment.project_id is 'local id of the project, by default "default"';
comment on column mirror_comment_attachment.room_id is 'id of the room';
comment on column mirror_comment_attachment.thread_id is 'id of the thread';
comment on column mirror_comment_attachment.comment_id is 'id of the comment';
comment on column mirror_comment_attachment.attachment_id is 'id of the attachment';
comment on column mirror_comment_attachment.name is 'name of the file';
comment on column mirror_comment_attachment.mime_type is 'media type';
comment on column mirror_comment_attachment.size is 'length in bytes';
comment on column mirror_comment_attachment.digest is 'hash of the row, by which changed rows are found';

comment on table mirror_comment_mention is 'a row for each mentioned user or group; members of a group have via_group';
comment on column mirror_comment_mention.bucket is 'first byte of a hash of project and room, 0 to 255; a primary key begins with it';
comment on column mirror_comment_mention.project_id is 'local id of the project, by default "default"';
comment on column mirror_comment_mention.room_id is 'id of the room';
comment on column mirror_comment_mention.thread_id is 'id of the thread';
comment on column mirror_comment_mention.comment_id is 'id of the comment';
comment on column mirror_comment_mention.kind is 'user or group';
comment on column mirror_comment_mention.mentioned_id is 'id of the user or group';
comment on column mirror_comment_mention.via_group is 'group through which a user is mentioned; empty if directly';

comment on table mirror_comment_reaction is 'a row for each reaction of a user to a comment';
comment on column mirror_comment_reaction.bucket is 'first byte of a hash of project and room, 0 to 255; a primary key begins with it';
comment on column mirror_comment_reaction.project_id is 'local id of the project, by default "default"';
comment on column mirror_comment_reaction.room_id is 'id of the room';
comment on column mirror_comment_reaction.thread_id is 'id of the thread';
comment on column mirror_comment_reaction.comment_id is 'id of the comment';
comment on column mirror_comment_reaction.emoji is 'the reaction';
comment on column mirror_comment_reaction.user_id is 'who reacted';
comment on column mirror_comment_reaction.create_time is 'when, according to Liveblocks';
comment on column mirror_comment_reaction.digest is 'hash of the row, by which changed rows are found';

comment on table mirror_document is 'a row for each document: Storage (kind = 2) or Yjs (kind = 3)';
comment on column mirror_document.bucket is 'first byte of a hash of project and room, 0 to 255; a primary key begins with it';
comment on column mirror_document.project_id is 'local id of the project, by default "default"';
comment on column mirror_document.room_id is 'id of the room';
comment on column mirror_document.kind is '2 storage, 3 ydoc: numbers of the tables, not those of the API';
comment on column mirror_document.resource_id is 'guid of a Yjs subdocument; empty for the room''s own documents';
comment on column mirror_document.epoch is 'incarnation of the room to which the row belongs; one below that of mirror_room is of an earlier room';
comment on column mirror_document.content is 'the document byte for byte, compressed with zstd';
comment on column mirror_document.content_sha256 is 'hash of the content before compression';
comment on column mirror_document.size is 'length in bytes before compression';
comment on column mirror_document.derive_version is 'version of the code that derived data and plain_text';
comment on column mirror_document.data is 'the document as plain JSON; null if there is none, see data_problem';
comment on column mirror_document.data_problem is 'why data is null, or what it leaves out; empty if there is nothing to say';
comment on column mirror_document.plain_text is 'text of the document';
comment on column mirror_document.state_sha256 is 'hash that Yjs updates have in common which are only encoded differently; null if unknown';

comment on table mirror_event is 'a row for each recorded webhook';
comment on column mirror_event.bucket is 'first byte of a hash of project and event, 0 to 255';
comment on column mirror_event.project_id is 'local id of the project, by default "default"';
comment on column mirror_event.event_id is 'id of the webhook (webhook-id)';
comment on column mirror_event.type is 'type of the event';
comment on column mirror_event.room_id is 'room of the event; empty if none';
comment on column mirror_event.user_id is 'user of the event; empty if none';
comment on column mirror_event.liveblocks_project_id is 'Liveblocks'' id of the project';
comment on column mirror_event.payload is 'the webhook''s body, byte for byte';
comment on column mirror_event.send_time is 'when the webhook was signed';
comment on column mirror_event.receive_time is 'when it arrived';
comment on column mirror_event.source_time is 'when it happened, according to Liveblocks; null if it does not say';
comment on column mirror_event.outcome is 'what became of it';

comment on table mirror_feed_head is 'a row for each bucket: its last change number';
comment on column mirror_feed_head.bucket is 'a bucket of mirror_change';
comment on column mirror_feed_head.n is 'number of its last change';

comment on table mirror_group is 'a row for each group of users';
comment on column mirror_group.bucket is 'first byte of a hash of project and room, 0 to 255; a primary key begins with it';
comment on column mirror_group.project_id is 'local id of the project, by default "default"';
comment on column mirror_group.group_id is 'id of the group';
comment on column mirror_group.organization_id is 'id of the organization (tenant); empty if there is none';
comment on column mirror_group.source_json is 'what Liveblocks returned, byte for byte';
comment on column mirror_group.content_sha256 is 'hash of the content; empty (zeros on MySQL) while it is to be written again';
comment on column mirror_group.create_time is 'when it was created, according to Liveblocks';
comment on column mirror_group.update_time is 'when it was last updated, according to Liveblocks';
comment on column mirror_group.delete_time is 'when it was found to be deleted; null while it lives';

comment on table mirror_group_member is 'a row for each member of a group';
comment on column mirror_group_member.bucket is 'first byte of a hash of project and room, 0 to 255; a primary key begins with it';
comment on column mirror_group_member.project_id is 'local id of the project, by default "default"';
comment on column mirror_group_member.group_id is 'id of the group';
comment on column mirror_group_member.user_id is 'id of the member';
comment on column mirror_group_member.add_time is 'when it was added, according to Liveblocks';
comment on column mirror_group_member.digest is 'hash of the row, by which changed rows are found';

comment on table mirror_notification is 'a row for each webhook of a notification, so one for each channel';
comment on column mirror_notification.bucket is 'first byte of a hash of project and room, 0 to 255; a primary key begins with it';
comment on column mirror_notification.project_id is 'local id of the project, by default "default"';
comment on column mirror_notification.room_id is 'id of the room; empty for a notification without one';
comment on column mirror_notification.notification_id is 'id of the inbox notification, which several channels share';
comment on column mirror_notification.event_id is 'id of the webhook (webhook-id)';
comment on column mirror_notification.channel is 'email, slack, teams or webPush';
comment on column mirror_notification.kind is 'thread, textMention or a kind of the app ($...)';
comment on column mirror_notification.user_id is 'who is notified';
comment on column mirror_notification.thread_id is 'id of the thread; empty if it is about none';
comment on column mirror_notification.mention_id is 'id of the mention; empty if it is about none';
comment on column mirror_notification.subject_id is 'subject of a kind of the app; empty otherwise';
comment on column mirror_notification.create_time is 'when the webhook was created';
comment on column mirror_notification.trigger_time is 'when its cause happened; null if unknown';
comment on column mirror_notification.inbox_json is 'the inbox notification, byte for byte; null if the inbox has none';
comment on column mirror_notification.inbox is 'the inbox notification as JSON; null if there is none, or the server refuses it';
comment on column mirror_notification.read_time is 'when the user read it; null if not yet';
comment on column mirror_notification.notify_time is 'when the inbox notification last changed';
comment on column mirror_notification.inbox_problem is 'why inbox is null although inbox_json is not';

comment on table mirror_project is 'a row for each project: Liveblocks'' id of it, what was set aside, what an operator confirmed';
comment on column mirror_project.project_id is 'local id of the project, by default "default"';
comment on column mirror_project.liveblocks_project_id is 'Liveblocks'' id of the project, once it is proven; empty before';
comment on column mirror_project.pause_reason is 'why nothing is fetched; empty if nothing stands in the way';
comment on column mirror_project.pause_time is 'since when';
comment on column mirror_project.key_hash is 'salt and HMAC of the secret key that was shown to be right; null before';
comment on column mirror_project.key_confirm_time is 'when an operator vouched for the secret key';
comment on column mirror_project.foreign_project_id is 'project of the latest event that was set aside; empty if none was';
comment on column mirror_project.foreign_events is 'how many events were set aside';
comment on column mirror_project.foreign_time is 'when the latest of them came';
comment on column mirror_project.confirmed_rooms is 'how many rooms an operator confirmed to be gone';
comment on column mirror_project.confirmed_groups is 'how many groups an operator confirmed to be gone';
comment on column mirror_project.confirm_time is 'when';

comment on table mirror_resource_state is 'a row for each resource: its generation, due time, lease, last failure';
comment on column mirror_resource_state.bucket is 'first byte of a hash of project and room, 0 to 255; a primary key begins with it';
comment on column mirror_resource_state.project_id is 'local id of the project, by default "default"';
comment on column mirror_resource_state.room_id is 'id of the room';
comment on column mirror_resource_state.kind is 'number of the kind of resource: 1 room, 2 storage, 3 ydoc, 4 thread, 5 active_users, 6 user_sessions, 7 notification, 8 sweep, 9 group';
comment on column mirror_resource_state.resource_id is 'id within the room and kind: of a thread, a notification or a Yjs subdocument; empty for what a room has one of';
comment on column mirror_resource_state.generation is 'number of the last thing that made it stale';
comment on column mirror_resource_state.applied_generation is 'generation that the stored copy has';
comment on column mirror_resource_state.due_time is 'when the next fetch is due; null if none is';
comment on column mirror_resource_state.not_before is 'before when no fetch begins: a backoff';
comment on column mirror_resource_state.settle is 'an event came since the last settle fetch';
comment on column mirror_resource_state.delete_generation is 'generation of the latest delete event that no fetch contradicts; null if none';
comment on column mirror_resource_state.hint_time is 'latest time of change that an event named';
comment on column mirror_resource_state.lease_token is 'token of the worker that has it; null if none has';
comment on column mirror_resource_state.lease_until is 'when that lease ends';
comment on column mirror_resource_state.again_time is 'when what came since the claim is due; null means at once';
comment on column mirror_resource_state.attempts is 'failed attempts since the last success';
comment on column mirror_resource_state.last_error is 'why the last attempt failed; empty if it did not';
comment on column mirror_resource_state.fail_time is 'when it failed for good; null if it did not';
comment on column mirror_resource_state.fetch_time is 'when the fetch of the stored copy began; null if there was none';
comment on column mirror_resource_state.source_update_time is 'when it last changed, as far as events told';
comment on column mirror_resource_state.revision is 'number of the change that last altered it';
comment on column mirror_resource_state.missing_since is 'since when Liveblocks answers 404 although nothing confirms a deletion; null if it does not';
comment on column mirror_resource_state.background is 'only a sweep asked for it; everything else goes first';
comment on column mirror_resource_state.notice_time is 'when the latest event on it arrived';
comment on column mirror_resource_state.deaths is 'how often the process ended during its task';
comment on column mirror_resource_state.parked is 'waits until its room is mirrored';

comment on table mirror_room is 'a row for each room; data is its JSON';
comment on column mirror_room.bucket is 'first byte of a hash of project and room, 0 to 255; a primary key begins with it';
comment on column mirror_room.project_id is 'local id of the project, by default "default"';
comment on column mirror_room.room_id is 'id of the room';
comment on column mirror_room.epoch is 'incarnation: rises when the room is deleted and when it comes back';
comment on column mirror_room.source_json is 'what Liveblocks returned, byte for byte';
comment on column mirror_room.content_sha256 is 'hash of the content; empty (zeros on MySQL) while it is to be written again';
comment on column mirror_room.create_time is 'when it was created, according to Liveblocks';
comment on column mirror_room.last_connection_time is 'when somebody last connected, according to Liveblocks';
comment on column mirror_room.organization_id is 'id of the organization (tenant); empty if there is none';
comment on column mirror_room.data is 'the room as JSON; null if the server refuses it';
comment on column mirror_room.data_problem is 'why data is null, or what it leaves out; empty if there is nothing to say';
comment on column mirror_room.delete_time is 'when it was found to be deleted; null while it lives';

comment on table mirror_sweep is 'a row for each project: its latest sweep';
comment on column mirror_sweep.project_id is 'local id of the project, by default "default"';
comment on column mirror_sweep.sweep_id is 'id of the sweep';
comment on column mirror_sweep.is_full is 'it fetches everything again';
comment on column mirror_sweep.is_done is 'it has ended';
comment on column mirror_sweep.list_cursor is 'where the list of rooms goes on';
comment on column mirror_sweep.listed is 'rooms listed so far';
comment on column mirror_sweep.known is 'rooms mirrored when it began';
comment on column mirror_sweep.raised is 'resources that it requested';
comment on column mirror_sweep.vanished is 'mirrored rooms that the list lacks';
comment on column mirror_sweep.begin_time is 'when it began';
comment on column mirror_sweep.end_time is 'when it ended; null while it runs';
comment on column mirror_sweep.full_time is 'when the last full one ended';
comment on column mirror_sweep.problem is 'why it did not finish; empty if it did';

comment on table mirror_thread is 'a row for each thread: resolved, metadata, comment_count';
comment on column mirror_thread.bucket is 'first byte of a hash of project and room, 0 to 255; a primary key begins with it';
comment on column mirror_thread.project_id is 'local id of the project, by default "default"';
comment on column mirror_thread.room_id is 'id of the room';
comment on column mirror_thread.thread_id is 'id of the thread';
comment on column mirror_thread.epoch is 'incarnation of the room to which the row belongs; one below that of mirror_room is of an earlier room; 0 while its first version is written';
comment on column mirror_thread.source_json is 'the thread with its comments as Liveblocks returned it, byte for byte';
comment on column mirror_thread.content_sha256 is 'hash of the content; empty (zeros on MySQL) while it is to be written again';
comment on column mirror_thread.create_time is 'when it was created, according to Liveblocks';
comment on column mirror_thread.update_time is 'when it was last updated, according to Liveblocks';
comment on column mirror_thread.resolved is 'whether the thread is resolved';
comment on column mirror_thread.visibility is 'public or private';
comment on column mirror_thread.metadata is 'metadata as JSON; null if the server refuses it';
comment on column mirror_thread.metadata_text is 'metadata with every value as a string, for searching';
comment on column mirror_thread.comment_count is 'comments that are not deleted';
comment on column mirror_thread.data_problem is 'why metadata or the body of a comment is null; empty if none is';
comment on column mirror_thread.delete_time is 'when it was found to be deleted; null while it lives';

comment on table mirror_unannounced is 'a row for each project and kind: changes that sweeps found and no event reported';
comment on column mirror_unannounced.project_id is 'local id of the project, by default "default"';
comment on column mirror_unannounced.kind is 'number of the kind of resource: 1 room, 2 storage, 3 ydoc, 4 thread, 5 active_users, 6 user_sessions, 7 notification, 8 sweep, 9 group';
comment on column mirror_unannounced.changes is 'how many there were';
comment on column mirror_unannounced.first_time is 'when the first was found';
comment on column mirror_unannounced.last_time is 'when the latest was found';

comment on table mirror_unfolded_event is 'a row for each event that waits to become part of a session or notification';
comment on column mirror_unfolded_event.bucket is 'first byte of a hash of project and room, 0 to 255; a primary key begins with it';
comment on column mirror_unfolded_event.project_id is 'local id of the project, by default "default"';
comment on column mirror_unfolded_event.room_id is 'id of the room';
comment on column mirror_unfolded_event.kind is 'number of the kind of resource: 1 room, 2 storage, 3 ydoc, 4 thread, 5 active_users, 6 user_sessions, 7 notification, 8 sweep, 9 group';
comment on column mirror_unfolded_event.resource_id is 'id of the notification; empty for sessions';
comment on column mirror_unfolded_event.event_id is 'id of the webhook (webhook-id)';
comment on column mirror_unfolded_event.type is 'type of the event';
comment on column mirror_unfolded_event.payload is 'the webhook''s body, byte for byte';
comment on column mirror_unfolded_event.source_time is 'when it happened, according to Liveblocks; null if it does not say';
comment on column mirror_unfolded_event.receive_time is 'when it arrived';

comment on table mirror_user_session is 'a row for each stay of a user in a room: enter_time, leave_time, end_cause';
comment on column mirror_user_session.bucket is 'first byte of a hash of project and room, 0 to 255; a primary key begins with it';
comment on column mirror_user_session.project_id is 'local id of the project, by default "default"';
comment on column mirror_user_session.room_id is 'id of the room';
comment on column mirror_user_session.session_id is 'event that announced the entry, or the leaving if no entry is known';
comment on column mirror_user_session.connection_id is 'number of the connection; -1 for users without one';
comment on column mirror_user_session.user_id is 'id of the user; empty for an anonymous one';
comment on column mirror_user_session.info_json is 'what the app says of the user, byte for byte';
comment on column mirror_user_session.info is 'what the app says of the user, as JSON; null if there is nothing, or the server refuses it';
comment on column mirror_user_session.begin_time is 'enter_time, or leave_time if that is not known';
comment on column mirror_user_session.enter_time is 'when the user entered; null if not known';
comment on column mirror_user_session.leave_time is 'when the user left; null while there';
comment on column mirror_user_session.leave_event_id is 'event that announced the leaving; empty if none did';
comment on column mirror_user_session.end_cause is 'left, absent or room_deleted; empty while it lasts';
comment on column mirror_user_session.info_problem is 'why info is null although info_json is not';

-- The tables of the migrations themselves are made by their tool.
-- +goose StatementBegin
do $$
begin
    comment on table mirror_schema_version is 'a row for each migration that was applied';
    comment on table mirror_schema_lock is 'who migrates now';
end
$$;
-- +goose StatementEnd

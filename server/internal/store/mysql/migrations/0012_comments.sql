-- +goose NO TRANSACTION
-- +goose Up

-- What each table holds. The comment of a table changes the dictionary only: no row is
-- read. Columns get none: MySQL takes a comment only with the whole definition of the
-- column, which would have to be the very same, or the table is written anew.

alter table mirror_active_user comment = 'a row for each connection to a room now';
alter table mirror_change comment = 'a row for each change of a resource, numbered without gaps within a bucket';
alter table mirror_comment comment = 'a row for each comment: user_id, body, plain_text, markdown, metadata';
alter table mirror_comment_attachment comment = 'a row for each attachment: id, name, type and size; URLs expire, so none is stored';
alter table mirror_comment_mention comment = 'a row for each mentioned user or group; members of a group have via_group';
alter table mirror_comment_reaction comment = 'a row for each reaction of a user to a comment';
alter table mirror_document comment = 'a row for each document: Storage (kind = 2) or Yjs (kind = 3)';
alter table mirror_event comment = 'a row for each recorded webhook';
alter table mirror_feed_head comment = 'a row for each bucket: its last change number';
alter table mirror_group comment = 'a row for each group of users';
alter table mirror_group_member comment = 'a row for each member of a group';
alter table mirror_notification comment = 'a row for each webhook of a notification, so one for each channel';
alter table mirror_project comment = 'a row for each project: Liveblocks'' id of it, what was set aside, what an operator confirmed';
alter table mirror_resource_state comment = 'a row for each resource: its generation, due time, lease, last failure';
alter table mirror_room comment = 'a row for each room; data is its JSON';
alter table mirror_sweep comment = 'a row for each project: its latest sweep';
alter table mirror_thread comment = 'a row for each thread: resolved, metadata, comment_count';
alter table mirror_unannounced comment = 'a row for each project and kind: changes that sweeps found and no event reported';
alter table mirror_unfolded_event comment = 'a row for each event that waits to become part of a session or notification';
alter table mirror_user_session comment = 'a row for each stay of a user in a room: enter_time, leave_time, end_cause';
alter table mirror_schema_version comment = 'a row for each migration that was applied';
alter table mirror_schema_lock comment = 'who migrates now';

-- +goose Up

-- A hash of the other columns, by which a writer finds the rows that changed. Empty
-- if the row is to be written again, as all older ones are at the next change of
-- their thread or group. Adding it rewrites no row.
alter table mirror_comment add column digest bytea not null default '';
alter table mirror_comment_reaction add column digest bytea not null default '';
alter table mirror_comment_attachment add column digest bytea not null default '';
alter table mirror_group_member add column digest bytea not null default '';

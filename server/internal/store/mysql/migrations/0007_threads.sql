-- +goose NO TRANSACTION
-- +goose Up

-- As in the migrations before, each statement can be run again.

-- A hash of the other columns, by which a writer finds the rows that changed. Empty
-- if the row is to be written again, as all older ones are at the next change of
-- their thread or group. Adding it rewrites no row.
alter table mirror_comment add column digest varbinary(16) not null default '';
alter table mirror_comment_reaction add column digest varbinary(16) not null default '';
alter table mirror_comment_attachment add column digest varbinary(16) not null default '';
alter table mirror_group_member add column digest varbinary(16) not null default '';

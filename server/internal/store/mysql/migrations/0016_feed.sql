-- +goose NO TRANSACTION
-- +goose Up

-- What the feed needs to be read: the incarnation of the room in each entry, and an
-- identity of the feed, which is that of a project in this database. As in the
-- migrations before, each statement can be run again. Both columns only change the
-- dictionary: no row is rewritten, however many there are.
alter table mirror_change add column epoch bigint not null default 0;

alter table mirror_project add column feed binary(16);

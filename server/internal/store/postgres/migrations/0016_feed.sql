-- +goose Up

-- What the feed needs to be read: the incarnation of the room in each entry, and an
-- identity of the feed, which is that of a project in this database. Both columns only
-- change the catalog: no row is rewritten, however many there are.
alter table mirror_change add column if not exists epoch bigint not null default 0;
comment on column mirror_change.epoch is
    'incarnation of the room as of the change; 0 for what outlives its room, and in entries of earlier versions';

alter table mirror_project add column if not exists feed bytea;
comment on column mirror_project.feed is 'identity of the feed of the project in this database, which tokens name; null before the first';

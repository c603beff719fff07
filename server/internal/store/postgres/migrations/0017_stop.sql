-- +goose Up

-- An operator can stop fetching. The table has a row for each project, so this costs
-- nothing whatever is mirrored.
alter table mirror_project
    add column if not exists stop_reason text not null default '',
    add column if not exists stop_time timestamptz;
comment on column mirror_project.stop_reason is 'why an operator has stopped fetching; empty if none has';
comment on column mirror_project.stop_time is 'when an operator stopped it; null if none has';

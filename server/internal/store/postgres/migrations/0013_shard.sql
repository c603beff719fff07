-- +goose Up

-- What an event makes stale is in the bucket of its room, and so is the event now:
-- both are written in one transaction, which on a sharded server must not span shards.
-- "migrate" has moved the events of earlier versions before it runs this.
comment on column mirror_event.bucket is 'first byte of a hash of project and room, 0 to 255; a primary key begins with it';

-- A sweep is written together with the state of its task, in the bucket of no room.
alter table mirror_sweep add column bucket smallint;
update mirror_sweep set bucket = get_byte(sha256(convert_to(project_id, 'UTF8') || '\x00'::bytea), 0);
alter table mirror_sweep
    alter column bucket set not null,
    drop constraint mirror_sweep_pkey,
    add constraint mirror_sweep_pkey primary key (bucket, project_id);
comment on column mirror_sweep.bucket is 'first byte of a hash of project and no room, 0 to 255; the primary key begins with it';

-- +goose NO TRANSACTION
-- +goose Up

-- What an event makes stale is in the bucket of its room, and so is the event now:
-- both are written in one transaction, which on a sharded server must not span shards.
-- "migrate" has moved the events of earlier versions before it runs this.

-- A sweep is written together with the state of its task, in the bucket of no room. Its
-- row is copied and then removed, since a sharded server alters no bucket.
alter table mirror_sweep
    add column bucket smallint not null default 0 first,
    drop primary key,
    add primary key (bucket, project_id);

insert into mirror_sweep (
    bucket, project_id, sweep_id, is_full, is_done, list_cursor,
    listed, known, raised, vanished, begin_time, end_time, full_time, problem
)
select
    cast(conv(left(sha2(concat(w.project_id, 0x00), 256), 2), 16, 10) as signed), w.project_id, w.sweep_id, w.is_full,
    w.is_done, w.list_cursor, w.listed, w.known, w.raised, w.vanished, w.begin_time, w.end_time, w.full_time, w.problem
from mirror_sweep w
where w.bucket = 0
on duplicate key update project_id = values(project_id);

delete from mirror_sweep
where bucket = 0 and cast(conv(left(sha2(concat(project_id, 0x00), 256), 2), 16, 10) as signed) <> 0;

alter table mirror_sweep alter column bucket drop default;

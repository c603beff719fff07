-- name: LockThread :one
-- Locks the thread's state, then its room against a change of epoch, and reads the
-- stored copy. No row means that the lease is lost or that the room is missing or
-- deleted.
select
    sqlc.embed(s),
    r.epoch as room_epoch,
    coalesce(t.epoch, 0)::bigint as thread_epoch,
    t.content_sha256,
    t.delete_time
from mirror_resource_state s
join mirror_room r
    on r.bucket = s.bucket and r.project_id = s.project_id and r.room_id = s.room_id
left join mirror_thread t
    on t.bucket = s.bucket and t.project_id = s.project_id and t.room_id = s.room_id
    and t.thread_id = s.resource_id
where s.bucket = @bucket and s.project_id = @project_id and s.room_id = @room_id
    and s.kind = @kind and s.resource_id = @resource_id
    and s.lease_token = @token
    and r.delete_time is null
for update of s for share of r;

-- name: UpsertThreads :exec
insert into mirror_thread (
    bucket, project_id, room_id, thread_id, epoch, source_json, content_sha256, create_time, update_time,
    resolved, visibility, metadata, metadata_text, comment_count, data_problem
)
select
    @bucket, @project_id, @room_id, t.thread_id, @epoch, t.source_json, t.content_sha256, t.create_time, t.update_time,
    t.resolved, t.visibility, t.metadata, t.metadata_text, t.comment_count, t.data_problem
from (
    select
        unnest(@thread_id::text[]) as thread_id,
        unnest(@source_json::bytea[]) as source_json,
        unnest(@content_sha256::bytea[]) as content_sha256,
        unnest(@create_time::timestamptz[]) as create_time,
        unnest(@update_time::timestamptz[]) as update_time,
        unnest(@resolved::boolean[]) as resolved,
        unnest(@visibility::text[]) as visibility,
        unnest(@metadata::jsonb[]) as metadata,
        unnest(@metadata_text::jsonb[]) as metadata_text,
        unnest(@comment_count::integer[]) as comment_count,
        unnest(@data_problem::text[]) as data_problem
) t
order by t.thread_id
on conflict (bucket, project_id, room_id, thread_id) do update set
    epoch = excluded.epoch,
    source_json = excluded.source_json,
    content_sha256 = excluded.content_sha256,
    create_time = excluded.create_time,
    update_time = excluded.update_time,
    resolved = excluded.resolved,
    visibility = excluded.visibility,
    metadata = excluded.metadata,
    metadata_text = excluded.metadata_text,
    comment_count = excluded.comment_count,
    data_problem = excluded.data_problem,
    delete_time = null;

-- name: DeleteComments :exec
-- All rows of the comments of some threads.
with reaction as (
    delete from mirror_comment_reaction r
    where r.bucket = @bucket and r.project_id = @project_id and r.room_id = @room_id and r.thread_id = any(@thread_id::text[])
),
attachment as (
    delete from mirror_comment_attachment a
    where a.bucket = @bucket and a.project_id = @project_id and a.room_id = @room_id and a.thread_id = any(@thread_id::text[])
),
mention as (
    delete from mirror_comment_mention m
    where m.bucket = @bucket and m.project_id = @project_id and m.room_id = @room_id and m.thread_id = any(@thread_id::text[])
)
delete from mirror_comment c
where c.bucket = @bucket and c.project_id = @project_id and c.room_id = @room_id and c.thread_id = any(@thread_id::text[]);

-- name: InsertComments :exec
insert into mirror_comment (
    bucket, project_id, room_id, thread_id, comment_id, user_id, create_time, edit_time, delete_time,
    source_json, body, plain_text, markdown, metadata
)
select
    @bucket, @project_id, @room_id, unnest(@thread_id::text[]), unnest(@comment_id::text[]), unnest(@user_id::text[]),
    unnest(@create_time::timestamptz[]), unnest(@edit_time::timestamptz[]), unnest(@delete_time::timestamptz[]),
    unnest(@source_json::bytea[]), unnest(@body::jsonb[]), unnest(@plain_text::text[]), unnest(@markdown::text[]),
    unnest(@metadata::jsonb[]);

-- name: InsertReactions :exec
insert into mirror_comment_reaction (bucket, project_id, room_id, thread_id, comment_id, emoji, user_id, create_time)
select
    @bucket, @project_id, @room_id, unnest(@thread_id::text[]), unnest(@comment_id::text[]),
    unnest(@emoji::text[]), unnest(@user_id::text[]), unnest(@create_time::timestamptz[]);

-- name: InsertAttachments :exec
insert into mirror_comment_attachment (bucket, project_id, room_id, thread_id, comment_id, attachment_id, name, mime_type, size)
select
    @bucket, @project_id, @room_id, unnest(@thread_id::text[]), unnest(@comment_id::text[]),
    unnest(@attachment_id::text[]), unnest(@name::text[]), unnest(@mime_type::text[]), unnest(@size::bigint[]);

-- name: InsertMentions :exec
insert into mirror_comment_mention (bucket, project_id, room_id, thread_id, comment_id, kind, mentioned_id, via_group)
select
    @bucket, @project_id, @room_id, unnest(@thread_id::text[]), unnest(@comment_id::text[]),
    unnest(@kind::text[]), unnest(@mentioned_id::text[]), unnest(@via_group::text[]);

-- name: TombstoneThread :exec
update mirror_thread set delete_time = @delete_time
where bucket = @bucket and project_id = @project_id and room_id = @room_id and thread_id = @thread_id;

-- name: LockStates :many
-- The states of all resources of one kind in the room and of their list, which
-- comes first.
select * from mirror_resource_state
where bucket = @bucket and project_id = @project_id and room_id = @room_id and kind = @kind
order by resource_id
for update;

-- name: InsertThreadStates :many
-- States of unknown threads that have applied the list.
insert into mirror_resource_state (
    bucket, project_id, room_id, kind, resource_id, generation, applied_generation, fetch_time
)
select @bucket, @project_id, @room_id, @kind, t.thread_id, 1, 1, @fetch_time
from (select unnest(@thread_id::text[]) as thread_id) t
order by t.thread_id
on conflict do nothing
returning resource_id;

-- name: LockRoomEpoch :one
-- Against a change of epoch.
select epoch from mirror_room
where bucket = @bucket and project_id = @project_id and room_id = @room_id and delete_time is null
for share;

-- name: ThreadCopies :many
select thread_id, epoch, content_sha256, delete_time
from mirror_thread
where bucket = @bucket and project_id = @project_id and room_id = @room_id;

-- name: AnnounceThreads :exec
-- Takes as many change numbers as there are threads, last in the transaction.
with head as (
    update mirror_feed_head h set n = h.n + cardinality(@thread_id::text[])
    where h.bucket = @bucket
    returning h.n - cardinality(@thread_id::text[]) as before
),
entry as (
    insert into mirror_change (bucket, n, project_id, room_id, kind, resource_id, change_kind, commit_time)
    select @bucket, head.before + t.i, @project_id, @room_id, @kind, t.thread_id, 1, @now
    from head, (
        select generate_series(1, cardinality(@thread_id::text[])) as i, unnest(@thread_id::text[]) as thread_id
    ) t
    returning n, resource_id
)
update mirror_resource_state s set revision = entry.n
from entry
where s.bucket = @bucket and s.project_id = @project_id and s.room_id = @room_id
    and s.kind = @kind and s.resource_id = entry.resource_id;

-- name: CleanThreads :many
with old as (
    delete from mirror_thread t
    where t.bucket = @bucket and t.project_id = @project_id and t.room_id = @room_id
        -- With the epoch, as for documents.
        and (t.thread_id, t.epoch) in (
            select o.thread_id, o.epoch
            from mirror_thread o
            join mirror_room r
                on r.bucket = o.bucket and r.project_id = o.project_id and r.room_id = o.room_id
            where o.bucket = @bucket and o.project_id = @project_id and o.room_id = @room_id
                and o.epoch < r.epoch and r.delete_time is null
            order by o.thread_id
            limit @max_rows
        )
    returning t.thread_id
),
reaction as (
    delete from mirror_comment_reaction r
    where r.bucket = @bucket and r.project_id = @project_id and r.room_id = @room_id and r.thread_id in (select old.thread_id from old)
),
attachment as (
    delete from mirror_comment_attachment a
    where a.bucket = @bucket and a.project_id = @project_id and a.room_id = @room_id and a.thread_id in (select old.thread_id from old)
),
mention as (
    delete from mirror_comment_mention m
    where m.bucket = @bucket and m.project_id = @project_id and m.room_id = @room_id and m.thread_id in (select old.thread_id from old)
),
comment as (
    delete from mirror_comment c
    where c.bucket = @bucket and c.project_id = @project_id and c.room_id = @room_id and c.thread_id in (select old.thread_id from old)
)
select old.thread_id from old;

-- name: CleanActiveUsers :execrows
delete from mirror_active_user u
where u.bucket = @bucket and u.project_id = @project_id and u.room_id = @room_id
    and (u.connection_id, u.user_id, u.epoch) in (
        select o.connection_id, o.user_id, o.epoch
        from mirror_active_user o
        join mirror_room r
            on r.bucket = o.bucket and r.project_id = o.project_id and r.room_id = o.room_id
        where o.bucket = @bucket and o.project_id = @project_id and o.room_id = @room_id
            and o.epoch < r.epoch and r.delete_time is null
        order by o.connection_id, o.user_id
        limit @max_rows
    );

-- name: StoredThread :one
select t.source_json, t.content_sha256, t.metadata, t.metadata_text, t.comment_count, t.data_problem
from mirror_thread t
join mirror_room r
    on r.bucket = t.bucket and r.project_id = t.project_id and r.room_id = t.room_id
    and r.epoch = t.epoch and r.delete_time is null
where t.bucket = @bucket and t.project_id = @project_id and t.room_id = @room_id and t.thread_id = @thread_id
    and t.delete_time is null;

-- name: StoredComments :many
select comment_id, user_id, create_time, edit_time, delete_time, source_json, body, plain_text, markdown, metadata
from mirror_comment
where bucket = @bucket and project_id = @project_id and room_id = @room_id and thread_id = @thread_id
order by create_time, comment_id;

-- name: StoredReactions :many
select comment_id, emoji, user_id, create_time
from mirror_comment_reaction
where bucket = @bucket and project_id = @project_id and room_id = @room_id and thread_id = @thread_id
order by comment_id, emoji, user_id;

-- name: StoredAttachments :many
select comment_id, attachment_id, name, mime_type, size
from mirror_comment_attachment
where bucket = @bucket and project_id = @project_id and room_id = @room_id and thread_id = @thread_id
order by comment_id, attachment_id;

-- name: StoredMentions :many
select comment_id, kind, mentioned_id, via_group
from mirror_comment_mention
where bucket = @bucket and project_id = @project_id and room_id = @room_id and thread_id = @thread_id
order by comment_id, kind, mentioned_id, via_group;

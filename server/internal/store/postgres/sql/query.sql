-- name: Project :one
select * from mirror_project where project_id = @project_id;

-- name: Heads :many
select bucket, n from mirror_feed_head;

-- name: Earliest :many
select h.bucket, (c.n - 1)::bigint as before
from mirror_feed_head h
cross join lateral (select f.n from mirror_change f where f.bucket = h.bucket order by f.n limit 1) c;

-- name: Changes :many
-- The order inside keeps the ranges apart: each is read by the key.
select c.*
from (
    select
        unnest(@bucket::smallint[]) as bucket,
        unnest(@after_n::bigint[]) as after_n,
        unnest(@to_n::bigint[]) as to_n
) r
cross join lateral (
    select * from mirror_change f
    where f.bucket = r.bucket and f.n > r.after_n and f.n <= r.to_n
    order by f.n
) c
order by c.bucket, c.n;

-- name: TrimChanges :execrows
delete from mirror_change c
where c.bucket = @bucket and c.n in (
    select f.n from mirror_change f
    where f.bucket = @bucket and f.n <= @through
    order by f.n
    limit @max_rows
);

-- name: Project :one
select * from mirror_project where project_id = ?;

-- name: Heads :many
select bucket, n from mirror_feed_head
where bucket >= 0
order by bucket
limit ?;

-- name: Earliest :many
select bucket, cast(min(n) - 1 as signed) as before_n
from mirror_change
where bucket >= 0
group by bucket
order by bucket
limit ?;

-- name: TrimChanges :execrows
delete from mirror_change
where bucket = ? and n <= ?
order by n
limit ?;

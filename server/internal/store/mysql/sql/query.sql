-- name: Project :one
select * from mirror_project where project_id = ?;

-- name: Changes :many
select * from mirror_change
where bucket = ? and n > sqlc.arg(after)
order by n
limit ?;

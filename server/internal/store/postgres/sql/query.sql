-- name: Project :one
select * from mirror_project where project_id = @project_id;

-- name: Changes :many
select * from mirror_change
where bucket = @bucket and n > @after
order by n
limit @max_rows;

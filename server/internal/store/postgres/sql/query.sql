-- name: Project :one
select * from mirror_project where project_id = @project_id;

-- name: Counts :one
select
    (select count(*) from mirror_resource_state d where d.project_id = @project_id and d.due_time is not null)::bigint as pending,
    (select count(*) from mirror_resource_state b where b.project_id = @project_id and b.background = true and b.due_time is not null)::bigint as background,
    (select count(*) from mirror_resource_state r where r.project_id = @project_id and r.background = true and r.due_time is not null and r.kind = @room_kind)::bigint as background_rooms,
    (select count(*) from mirror_resource_state f where f.project_id = @project_id and f.fail_time is not null)::bigint as failed,
    least(
        (select min(m.due_time) from mirror_resource_state m where m.project_id = @project_id and m.background = false),
        (select min(n.due_time) from mirror_resource_state n where n.project_id = @project_id and n.background = true)
    )::timestamptz as oldest_due;

-- name: Changes :many
select * from mirror_change
where bucket = @bucket and n > @after
order by n
limit @max_rows;

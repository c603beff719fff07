-- The statements of Accept have as many rows as the batch, which sqlc does not
-- support; they are in build.go.

-- name: PinProject :exec
insert into mirror_project (project_id, liveblocks_project_id, pause_reason)
values (?, ?, '')
on duplicate key update
    liveblocks_project_id = if(liveblocks_project_id = '', values(liveblocks_project_id), liveblocks_project_id);

-- name: IdentifyFeed :exec
insert into mirror_project (project_id, liveblocks_project_id, pause_reason, feed)
values (?, '', '', ?)
on duplicate key update feed = coalesce(feed, values(feed));

-- name: FeedProjects :many
select project_id from mirror_project where feed is not null order by project_id;

-- name: ForgetFeed :execrows
update mirror_project set feed = null where project_id = ? and feed is not null;

-- name: RepinProject :exec
insert into mirror_project (project_id, liveblocks_project_id, pause_reason)
values (?, ?, '')
on duplicate key update
    liveblocks_project_id = values(liveblocks_project_id),
    foreign_project_id = '',
    foreign_events = 0,
    foreign_time = null;

-- name: NoteForeign :exec
insert into mirror_project (
    project_id, liveblocks_project_id, pause_reason, foreign_project_id, foreign_events, foreign_time
)
values (?, '', '', ?, ?, ?)
on duplicate key update
    foreign_project_id = values(foreign_project_id),
    foreign_events = foreign_events + values(foreign_events),
    foreign_time = greatest(coalesce(foreign_time, values(foreign_time)), values(foreign_time));

-- name: TakeUpEvent :execrows
update mirror_event set outcome = sqlc.arg(outcome)
where bucket = ? and project_id = ? and event_id = ? and outcome = sqlc.arg(set_aside);

-- name: SaveKeyHash :exec
insert into mirror_project (project_id, liveblocks_project_id, pause_reason, key_hash)
values (?, '', '', ?)
on duplicate key update key_hash = values(key_hash);

-- name: ConfirmKey :exec
insert into mirror_project (project_id, liveblocks_project_id, pause_reason, key_confirm_time)
values (?, '', '', ?)
on duplicate key update key_confirm_time = values(key_confirm_time);

-- name: Stop :exec
insert into mirror_project (project_id, liveblocks_project_id, pause_reason, stop_reason, stop_time)
values (?, '', '', ?, ?)
on duplicate key update
    stop_reason = values(stop_reason),
    stop_time = values(stop_time);

-- name: ConfirmDeletions :exec
insert into mirror_project (
    project_id, liveblocks_project_id, pause_reason, confirmed_rooms, confirmed_groups, confirm_time
)
values (?, '', '', ?, ?, ?)
on duplicate key update
    confirmed_rooms = values(confirmed_rooms),
    confirmed_groups = values(confirmed_groups),
    confirm_time = values(confirm_time);

-- name: NoteUnannounced :exec
-- Assignments are made in order, so last_time comes last.
insert into mirror_unannounced (project_id, kind, changes, first_time, last_time)
values (sqlc.arg(project_id), sqlc.arg(kind), sqlc.arg(changes), sqlc.arg(now), sqlc.arg(now))
on duplicate key update
    changes = if(last_time > sqlc.arg(since), changes, 0) + values(changes),
    first_time = if(last_time > sqlc.arg(since), first_time, values(first_time)),
    last_time = greatest(last_time, values(last_time));

-- name: Unannounced :many
select kind, changes, first_time, last_time from mirror_unannounced where project_id = ? order by kind;

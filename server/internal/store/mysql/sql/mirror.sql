-- name: RoomHead :one
-- Needs no lock: only the holder of the room's resource state writes the room.
select epoch, content_sha256, create_time, delete_time
from mirror_room
where bucket = ? and project_id = ? and room_id = ?;

-- name: UpsertRoom :exec
insert into mirror_room (
    bucket, project_id, room_id, epoch, source_json, content_sha256,
    create_time, last_connection_time, organization_id, data, data_problem, terms_sha256
)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, sqlc.narg(data), ?, sqlc.narg(terms_sha256))
on duplicate key update
    epoch = values(epoch),
    source_json = values(source_json),
    content_sha256 = values(content_sha256),
    create_time = values(create_time),
    last_connection_time = values(last_connection_time),
    organization_id = values(organization_id),
    data = values(data),
    data_problem = values(data_problem),
    terms_sha256 = values(terms_sha256),
    delete_time = null;

-- name: RoomTerms :many
select term, create_time from mirror_room_term
where bucket = ? and project_id = ? and room_id = ? and term > sqlc.arg(after)
order by term
limit ?;

-- name: TombstoneRoom :exec
update mirror_room set epoch = epoch + 1, delete_time = sqlc.arg(delete_time), terms_sha256 = null
where bucket = sqlc.arg(bucket) and project_id = sqlc.arg(project_id) and room_id = sqlc.arg(room_id);

-- name: ForgetRoomTerms :execrows
delete from mirror_room_term
where bucket = sqlc.arg(bucket) and project_id = sqlc.arg(project_id) and room_id = sqlc.arg(room_id)
limit ?;

-- name: ShareRoom :one
-- Locks the room, if it is not deleted, against a change of epoch. MySQL, MariaDB and
-- Vitess all support this syntax.
select epoch from mirror_room
where bucket = sqlc.arg(bucket) and project_id = sqlc.arg(project_id) and room_id = sqlc.arg(room_id) and delete_time is null
lock in share mode;

-- name: LockDocument :one
select epoch, content_sha256, state_sha256, derive_version from mirror_document
where bucket = sqlc.arg(bucket) and project_id = sqlc.arg(project_id) and room_id = sqlc.arg(room_id)
    and kind = sqlc.arg(kind) and resource_id = sqlc.arg(resource_id)
for update;

-- name: UpsertDocument :exec
insert into mirror_document (
    bucket, project_id, room_id, kind, resource_id, epoch,
    content, content_sha256, state_sha256, size, derive_version, data, data_problem, plain_text
)
values (?, ?, ?, ?, ?, ?, ?, ?, sqlc.narg(state_sha256), ?, ?, sqlc.narg(data), ?, ?)
on duplicate key update
    epoch = values(epoch),
    content = values(content),
    content_sha256 = values(content_sha256),
    state_sha256 = values(state_sha256),
    size = values(size),
    derive_version = values(derive_version),
    data = values(data),
    data_problem = values(data_problem),
    plain_text = values(plain_text);

-- name: RaiseFeedHead :exec
insert into mirror_feed_head (bucket, n) values (?, ?)
on duplicate key update n = n + values(n);

-- name: FeedHead :one
-- The last number that the transaction has just taken. The row is locked, so no other
-- transaction has changed it.
select n from mirror_feed_head where bucket = ?;

-- name: CleanDocuments :execrows
-- The condition is checked again when the row is locked: a row that a new
-- incarnation has overwritten stays.
delete from mirror_document
where bucket = ? and project_id = ? and room_id = ? and epoch < ?
order by kind, resource_id
limit ?;

-- What a project of many rooms has in its tables, made up by the server. :rooms is
-- their number. Users and types are common, rare or unknown, as the tests ask for.
create function bucket_of(project text, room text) returns smallint language sql immutable as
    $$ select get_byte(sha256(convert_to(project, 'UTF8') || '\x00' || convert_to(room, 'UTF8')), 0)::smallint $$;

create unlogged table made as
select
    n, case when n % 50 = 0 then 'other' else 'default' end collate "C" as project_id, ('r-' || n) collate "C" as room_id,
    bucket_of(case when n % 50 = 0 then 'other' else 'default' end, 'r-' || n) as bucket,
    timestamptz '2026-01-01' + n * interval '1 second' as at,
    case
        when n % 10 = 1 then 'busy'
        when n % (:rooms / 4) = 3 then 'rare'
        else 'u-' || n % 10007
    end collate "C" as user_id
from generate_series(1, :rooms) n;

-- One room in a fourth of them has a status of its own, and one user many rooms.
create unlogged table made_room as
select
    *, case when n % (:rooms / 4) = 5 then 'rare' else 'common' end as status, (n % 2)::text as half
from made;

insert into mirror_room (
    bucket, project_id, room_id, epoch, source_json, content_sha256, organization_id, create_time, delete_time,
    terms_sha256
)
select
    bucket, project_id, room_id, 1,
    convert_to(
        json_build_object(
            'metadata', json_build_object('status', status, 'half', half),
            'usersAccesses', json_build_object(user_id, json_build_array('room:write')), 'x', repeat('x', 300)
        )::text, 'UTF8'
    ),
    '', '', at, case when n % 100 = 99 then at end, ''
from made_room;

create function term_of(kind integer, name text, value text) returns bytea language sql immutable as
    $$ select substring(sha256(set_byte('\x00', 0, kind) || sha256(convert_to(name, 'UTF8')) || convert_to(value, 'UTF8'))
        from 1 for 16) $$;

insert into mirror_room_term (bucket, project_id, room_id, term, create_time)
select
    bucket, project_id, room_id,
    case k
        when 1 then term_of(1, '', '')
        when 2 then term_of(2, 'status', status)
        when 3 then term_of(2, 'half', half)
        else term_of(3, '', user_id)
    end,
    at
from made_room, generate_series(1, 4) k;

insert into mirror_document (
    bucket, project_id, room_id, kind, resource_id, epoch, content, content_sha256, size, derive_version
)
select bucket, project_id, room_id, kind, '', case when n % 100 = 99 then 0 else 1 end, convert_to(repeat('x', 300), 'UTF8'), '', 0, 1
from made, generate_series(2, 3) kind;

-- One room in 5,000 is due, one in 20,000 failed, another waits for its room.
insert into mirror_resource_state (
    bucket, project_id, room_id, kind, resource_id, generation, applied_generation, due_time, background, fail_time
)
select
    bucket, project_id, room_id, kind, '', 2, case when kind = 2 and n % 5000 in (1, 2, 3) then 1 else 2 end,
    case when kind = 2 and n % 5000 = 1 then at end, n % 10000 = 1,
    case when kind = 2 and n % 20000 = 2 then at end
from made, generate_series(1, 4) kind;

-- Every second room has a thread of two comments; one has many.
create unlogged table made_thread as
select n, bucket, project_id, room_id, ('t-' || n) collate "C" as thread_id, at, user_id from made where n % 2 = 1
union all
select :rooms + n, bucket_of('default', 'r-8'), 'default', 'r-8', 't-' || (:rooms + n), at, user_id from made where n <= :rooms / 100;

insert into mirror_thread (
    bucket, project_id, room_id, thread_id, epoch, source_json, content_sha256, create_time, update_time, resolved,
    visibility, metadata_text, comment_count, terms_sha256
)
select bucket, project_id, room_id, thread_id, 1, convert_to(repeat('x', 300), 'UTF8'), '', at, at,
    n % (:rooms / 4) = 1, 'public',
    jsonb_build_object('status', case when n % (:rooms / 4) = 5 then 'rare' else 'common' end, 'n', (n % 1000)::text), 2, ''
from made_thread;

insert into mirror_thread_term (bucket, project_id, room_id, thread_id, term)
select bucket, project_id, room_id, thread_id, encode(term_of(2, k.name, k.value), 'hex')
from made_thread
cross join lateral (
    values ('status', case when n % (:rooms / 4) = 5 then 'rare' else 'common' end), ('n', (n % 1000)::text)
) k (name, value);

insert into mirror_resource_state (bucket, project_id, room_id, kind, resource_id, generation, applied_generation)
select bucket, project_id, room_id, 4, thread_id, 2, 2 from made_thread;

insert into mirror_comment (
    bucket, project_id, room_id, thread_id, comment_id, user_id, create_time, source_json, plain_text, markdown
)
select bucket, project_id, room_id, thread_id, 'c-' || c, user_id, at + c * interval '1 second',
    convert_to(repeat('x', 200), 'UTF8'), '', ''
from made_thread, generate_series(1, 2) c;

insert into mirror_comment_mention (bucket, project_id, room_id, thread_id, comment_id, kind, mentioned_id, via_group)
select bucket, project_id, room_id, thread_id, 'c-1', 'user', user_id, '' from made_thread;

-- One event in 100,000 has a rare type.
insert into mirror_event (
    bucket, project_id, event_id, type, room_id, user_id, liveblocks_project_id, payload, send_time, receive_time, outcome
)
select
    (n % 256)::smallint, project_id, 'e-' || n || '-' || e,
    case when e = 3 and n % (:rooms / 4) = 7 then 'rare' when e = 1 then 'storageUpdated' else 'ydocUpdated' end,
    case when n % 100 = 3 then 'r-8' else room_id end, user_id, '', convert_to(repeat('x', 150), 'UTF8'), at, at,
    case when e = 2 and n % (:rooms / 4) = 11 then 'malformed' else 'queued' end
from made, generate_series(1, 3) e;

insert into mirror_user_session (
    bucket, project_id, room_id, session_id, connection_id, user_id, begin_time, enter_time, leave_event_id, end_cause
)
select bucket, project_id, case when n % 100 = 3 then 'r-8' else room_id end, 's-' || n, 1, user_id, at, at, '',
    case when n % (:rooms / 100) = 1 then '' else 'left' end
from made where n % 2 = 1;

insert into mirror_notification (
    bucket, project_id, room_id, notification_id, event_id, channel, kind, user_id, thread_id, mention_id, subject_id,
    create_time
)
select bucket, project_id, case when n % 100 = 3 then 'r-8' else room_id end, 'n-' || n, 'e-' || n,
    case when n % (:rooms / 4) = 9 then 'rare' else 'email' end, case when n % (:rooms / 4) = 11 then 'rare' else 'thread' end,
    user_id, case when n % (:rooms / 4) = 13 then 'rare' else 't-' || n end, '', '', at
from made where n % 2 = 1;

insert into mirror_group (bucket, project_id, group_id, organization_id, source_json, content_sha256)
select bucket_of('default', ''), 'default', 'g-' || n, '', convert_to(repeat('x', 300), 'UTF8'), '' from made where n <= :rooms / 20;
insert into mirror_group_member (bucket, project_id, group_id, user_id)
select bucket_of('default', ''), 'default', 'g-' || n, case when n in (2, :rooms / 20 - 1) then 'rare' else user_id end
from made where n <= :rooms / 20;

-- The latest half are refused calls. Four in all are of a rare method or caller.
insert into mirror_audit (
    bucket, project_id, entry_id, call_time, denied, method, caller, address, request_id, room_id, kind, resource_id,
    options, code, reason, calls
)
select bucket_of('default', ''), 'default', 'a-' || n, at, n > :rooms / 2,
    case when n in (7, 8) then 'PauseProject' else 'RequestSync' end, case when n in (9, 10) then 'rare' else 'busy' end,
    '192.0.2.1', '', room_id, 0, '', '', 'OK', '', 1
from made where n <= :rooms;

drop table made, made_thread;

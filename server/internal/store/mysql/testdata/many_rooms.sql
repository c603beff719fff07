-- As testdata/many_rooms.sql of the engine for Postgres, which says what is in it.
create table digit (d int primary key);
insert into digit values (0), (1), (2), (3), (4), (5), (6), (7), (8), (9);

-- From 1 to the number of rooms. MySQL has no table of numbers, as MariaDB has.
create table numbers (seq int primary key);
insert into numbers
select n from (
    select 1 + a.d + 10 * b.d + 100 * c.d + 1000 * d.d + 10000 * e.d + 100000 * f.d as n
    from digit a, digit b, digit c, digit d, digit e, digit f
) m
where n <= :rooms;

create table made (
    n int primary key, project_id varbinary(64) not null, room_id varbinary(512) not null, bucket smallint not null,
    at datetime(6) not null, user_id varbinary(512) not null
);

insert into made
select seq, project_id, room_id, conv(left(sha2(concat(project_id, char(0), room_id), 256), 2), 16, 10), at, user_id
from (
    select
        seq, if(seq % 50 = 0, 'other', 'default') as project_id, concat('r-', seq) as room_id,
        timestampadd(second, seq, '2026-01-01') as at,
        case
            when seq % 10 = 1 then 'busy'
            when seq % (:rooms div 4) = 3 then 'rare'
            else concat('u-', seq % 10007)
        end as user_id
    from numbers
) m;

-- One room in a fourth of them has a status of its own, and one user many rooms.
create table made_room (
    n int primary key, bucket smallint not null, project_id varbinary(64) not null, room_id varbinary(512) not null,
    at datetime(6) not null, user_id varbinary(512) not null, status varbinary(64) not null, half varbinary(64) not null
);

insert into made_room
select n, bucket, project_id, room_id, at, user_id, if(n % (:rooms div 4) = 5, 'rare', 'common'), n % 2 from made;

insert into mirror_room (
    bucket, project_id, room_id, epoch, source_json, content_sha256, organization_id, data_problem, create_time,
    delete_time, terms_sha256
)
select
    bucket, project_id, room_id, 1,
    concat(
        '{"metadata":{"status":"', status, '","half":"', half, '"},"usersAccesses":{"', user_id,
        '":["room:write"]},"x":"', repeat('x', 300), '"}'
    ),
    '', '', '', at, if(n % 100 = 99, at, null), ''
from made_room;

insert into mirror_room_term (bucket, project_id, room_id, term, create_time)
select
    bucket, project_id, room_id,
    left(unhex(sha2(concat(
        if(k.seq = 1, 0x01, if(k.seq = 4, 0x03, 0x02)),
        unhex(sha2(if(k.seq = 2, 'status', if(k.seq = 3, 'half', '')), 256)),
        if(k.seq = 2, status, if(k.seq = 3, half, if(k.seq = 4, user_id, '')))
    ), 256)), 16),
    at
from made_room, (select seq from numbers where seq between 1 and 4) k;

insert into mirror_document (
    bucket, project_id, room_id, kind, resource_id, epoch, content, content_sha256, size, derive_version, data_problem,
    plain_text
)
select bucket, project_id, room_id, k.seq, '', if(n % 100 = 99, 0, 1), repeat('x', 300), '', 0, 1, '', ''
from made, (select seq from numbers where seq between 2 and 3) k;

insert into mirror_resource_state (
    bucket, project_id, room_id, kind, resource_id, generation, applied_generation, due_time, background, fail_time,
    last_error
)
select
    bucket, project_id, room_id, k.seq, '', 2, if(k.seq = 2 and n % 5000 in (1, 2, 3), 1, 2),
    if(k.seq = 2 and n % 5000 = 1, at, null), n % 10000 = 1, if(k.seq = 2 and n % 20000 = 2, at, null), ''
from made, (select seq from numbers where seq between 1 and 4) k;

create table made_thread (
    n int primary key, bucket smallint not null, project_id varbinary(64) not null, room_id varbinary(512) not null,
    thread_id varbinary(128) not null, at datetime(6) not null, user_id varbinary(512) not null
);

insert into made_thread
select n, bucket, project_id, room_id, concat('t-', n), at, user_id from made where n % 2 = 1;

insert into made_thread
select
    :rooms + n, conv(left(sha2(concat('default', char(0), 'r-8'), 256), 2), 16, 10), 'default', 'r-8',
    concat('t-', :rooms + n), at, user_id
from made where n <= :rooms div 100;

insert into mirror_thread (
    bucket, project_id, room_id, thread_id, epoch, source_json, content_sha256, create_time, update_time, resolved,
    visibility, metadata_text, comment_count, data_problem, terms_sha256
)
select bucket, project_id, room_id, thread_id, 1, repeat('x', 300), '', at, at, n % (:rooms div 4) = 1, 'public',
    json_object('status', if(n % (:rooms div 4) = 5, 'rare', 'common'), 'n', concat(n % 1000)), 2, '', ''
from made_thread;

insert into mirror_thread_term (bucket, project_id, room_id, thread_id, term)
select
    bucket, project_id, room_id, thread_id,
    left(sha2(concat(
        0x02, unhex(sha2(if(k.seq = 1, 'status', 'n'), 256)),
        if(k.seq = 1, if(n % (:rooms div 4) = 5, 'rare', 'common'), concat(n % 1000))
    ), 256), 32)
from made_thread, (select seq from numbers where seq between 1 and 2) k;

insert into mirror_resource_state (
    bucket, project_id, room_id, kind, resource_id, generation, applied_generation, last_error
)
select bucket, project_id, room_id, 4, thread_id, 2, 2, '' from made_thread;

insert into mirror_comment (
    bucket, project_id, room_id, thread_id, comment_id, user_id, create_time, source_json, plain_text, markdown
)
select bucket, project_id, room_id, thread_id, concat('c-', c.seq), user_id, timestampadd(second, c.seq, at),
    repeat('x', 200), '', ''
from made_thread, (select seq from numbers where seq between 1 and 2) c;

insert into mirror_comment_mention (bucket, project_id, room_id, thread_id, comment_id, kind, mentioned_id, via_group)
select bucket, project_id, room_id, thread_id, 'c-1', 'user', user_id, '' from made_thread;

insert into mirror_event (
    bucket, project_id, event_id, type, room_id, user_id, liveblocks_project_id, payload, send_time, receive_time, outcome,
    batch_token
)
select
    if(n % 100 = 3, conv(left(sha2(concat(project_id, char(0), 'r-8'), 256), 2), 16, 10), bucket), project_id, concat('e-', n, '-', e.seq),
    case
        when e.seq = 3 and n % (:rooms div 4) = 7 then 'rare'
        when e.seq = 1 then 'storageUpdated'
        else 'ydocUpdated'
    end,
    if(n % 100 = 3, 'r-8', room_id), user_id, '', repeat('x', 150), at, at,
    if(e.seq = 2 and n % (:rooms div 4) = 11, 'malformed', 'queued'), ''
from made, (select seq from numbers where seq between 1 and 3) e;

insert into mirror_user_session (
    bucket, project_id, room_id, session_id, connection_id, user_id, begin_time, enter_time, leave_event_id, end_cause
)
select
    if(n % 100 = 3, conv(left(sha2(concat(project_id, char(0), 'r-8'), 256), 2), 16, 10), bucket), project_id,
    if(n % 100 = 3, 'r-8', room_id), concat('s-', n), 1, user_id, at, at, '',
    if(n % (:rooms div 100) = 1, '', 'left')
from made where n % 2 = 1;

insert into mirror_notification (
    bucket, project_id, room_id, notification_id, event_id, channel, kind, user_id, thread_id, mention_id, subject_id,
    create_time
)
select
    if(n % 100 = 3, conv(left(sha2(concat(project_id, char(0), 'r-8'), 256), 2), 16, 10), bucket), project_id,
    if(n % 100 = 3, 'r-8', room_id), concat('n-', n), concat('e-', n),
    if(n % (:rooms div 4) = 9, 'rare', 'email'), if(n % (:rooms div 4) = 11, 'rare', 'thread'), user_id,
    if(n % (:rooms div 4) = 13, 'rare', concat('t-', n)), '', '', at
from made where n % 2 = 1;

insert into mirror_group (bucket, project_id, group_id, organization_id, source_json, content_sha256)
select conv(left(sha2(concat('default', char(0)), 256), 2), 16, 10), 'default', concat('g-', n), '', repeat('x', 300), ''
from made where n <= :rooms div 20;

insert into mirror_group_member (bucket, project_id, group_id, user_id)
select conv(left(sha2(concat('default', char(0)), 256), 2), 16, 10), 'default', concat('g-', n), if(n in (2, :rooms div 20 - 1), 'rare', user_id)
from made where n <= :rooms div 20;

-- The latest half are refused calls. Four in all are of a rare method or caller.
insert into mirror_audit (
    bucket, project_id, entry_id, call_time, denied, method, caller, address, request_id, room_id, kind, resource_id,
    options, code, reason, calls
)
select conv(left(sha2(concat('default', char(0)), 256), 2), 16, 10), 'default', concat('a-', n), at, n > :rooms / 2,
    case when n in (7, 8) then 'PauseProject' else 'RequestSync' end, case when n in (9, 10) then 'rare' else 'busy' end,
    '192.0.2.1', '', room_id, 0, '', '', 'OK', '', 1
from made where n <= :rooms;

drop table made, made_thread;

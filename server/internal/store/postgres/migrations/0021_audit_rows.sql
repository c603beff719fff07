-- +goose Up

-- Who has changed something for operators, and who was refused. The table begins empty.
create table if not exists mirror_audit (
    bucket smallint not null,
    project_id text collate "C" not null,
    entry_id text collate "C" not null,
    call_time timestamptz not null,
    end_time timestamptz,
    denied boolean not null,
    method text collate "C" not null,
    caller text collate "C" not null,
    address text collate "C" not null,
    request_id text collate "C" not null,
    room_id text collate "C" not null,
    kind smallint not null,
    resource_id text collate "C" not null,
    options text collate "C" not null,
    code text collate "C" not null,
    reason text collate "C" not null,
    calls bigint not null,
    constraint mirror_audit_pkey primary key (bucket, project_id, entry_id)
);

create index if not exists mirror_audit_by_time on mirror_audit (project_id, call_time desc, entry_id);
-- Refused calls can be many more than others, so a list reads one sort or the other.
create index if not exists mirror_audit_by_sort on mirror_audit (project_id, denied, call_time desc, entry_id);
create index if not exists mirror_audit_by_method on mirror_audit (project_id, denied, method, call_time desc, entry_id);
create index if not exists mirror_audit_by_caller on mirror_audit (project_id, denied, caller, call_time desc, entry_id);
create index if not exists mirror_audit_by_caller_method
    on mirror_audit (project_id, denied, caller, method, call_time desc, entry_id);

comment on table mirror_audit is 'a row for each call that changes something for operators, and for the refused calls of a minute';
comment on column mirror_audit.bucket is 'first byte of a hash of the project, 0 to 255; a primary key begins with it';
comment on column mirror_audit.project_id is
    'local id of the project; empty for refused calls that are of no single one of several';
comment on column mirror_audit.entry_id is 'id of the entry in its project';
comment on column mirror_audit.call_time is 'when the call began, or the minute of refused ones';
comment on column mirror_audit.end_time is 'when it ended, or when the latest was refused; null while it goes on';
comment on column mirror_audit.denied is 'whether it is about refused calls';
comment on column mirror_audit.method is 'name of the RPC; empty for refused calls of unknown callers, and of too many';
comment on column mirror_audit.caller is 'name of the credential; empty if it is unknown';
comment on column mirror_audit.address is 'where the call came from, of refused ones over IPv6 the network; empty if that is unknown or one of too many';
comment on column mirror_audit.request_id is 'id of the call, as in the log';
comment on column mirror_audit.room_id is 'room that the request names; empty if none';
comment on column mirror_audit.kind is 'kind of the task, or of what the request names in the room; 0 if none';
comment on column mirror_audit.resource_id is 'id of the same; empty if none';
comment on column mirror_audit.options is 'fields that the request sets to true, such as confirm';
comment on column mirror_audit.code is 'status code of the answer; empty while the call goes on, and if the service was stopped meanwhile';
comment on column mirror_audit.reason is 'why it failed or was refused; empty if it succeeded';
comment on column mirror_audit.calls is '1, or how many calls were refused';

-- +goose NO TRANSACTION
-- +goose Up

-- Who has changed something for operators, and who was refused. The table begins empty.
create table if not exists mirror_audit (
    bucket smallint not null,
    project_id varbinary(64) not null,
    entry_id varbinary(64) not null,
    -- When the call began, or the minute of refused ones; and when it ended, or when the
    -- latest was refused; null while it goes on.
    call_time datetime(6) not null,
    end_time datetime(6),
    denied boolean not null,
    method varbinary(128) not null,
    caller varbinary(512) not null,
    address varbinary(64) not null,
    request_id varbinary(64) not null,
    room_id varbinary(512) not null,
    kind smallint not null,
    resource_id varbinary(512) not null,
    options varbinary(512) not null,
    code varbinary(64) not null,
    reason varbinary(128) not null,
    calls bigint not null,
    primary key (bucket, project_id, entry_id),
    key mirror_audit_by_time (project_id, call_time desc, entry_id),
    -- Refused calls can be many more than others, so a list reads one sort or the other.
    key mirror_audit_by_sort (project_id, denied, call_time desc, entry_id),
    key mirror_audit_by_method (project_id, denied, method, call_time desc, entry_id),
    key mirror_audit_by_caller (project_id, denied, caller, call_time desc, entry_id),
    key mirror_audit_by_caller_method (project_id, denied, caller, method, call_time desc, entry_id)
) engine = InnoDB default character set utf8mb4 collate utf8mb4_bin;
alter table mirror_audit
    comment = 'a row for each call that changes something for operators, and for the refused calls of a minute';

-- name: RecordAudit :exec
-- The end of a call, and further refused ones, are written over the entry of the same id.
insert into mirror_audit as a (
    bucket, project_id, entry_id, call_time, end_time, denied, method, caller, address, request_id, room_id, kind,
    resource_id, options, code, reason, calls
)
select
    u.bucket, u.project_id, u.entry_id, u.call_time, u.end_time, u.denied, u.method, u.caller, u.address, u.request_id,
    u.room_id, u.kind, u.resource_id, u.options, u.code, u.reason, u.calls
from (
    select
        unnest(@bucket::smallint[]) as bucket,
        unnest(@project_id::text[]) as project_id,
        unnest(@entry_id::text[]) as entry_id,
        unnest(@call_time::timestamptz[]) as call_time,
        unnest(@end_time::timestamptz[]) as end_time,
        unnest(@denied::boolean[]) as denied,
        unnest(@method::text[]) as method,
        unnest(@caller::text[]) as caller,
        unnest(@address::text[]) as address,
        unnest(@request_id::text[]) as request_id,
        unnest(@room_id::text[]) as room_id,
        unnest(@kind::smallint[]) as kind,
        unnest(@resource_id::text[]) as resource_id,
        unnest(@options::text[]) as options,
        unnest(@code::text[]) as code,
        unnest(@reason::text[]) as reason,
        unnest(@calls::bigint[]) as calls
) u
order by u.bucket, u.project_id, u.entry_id
on conflict (bucket, project_id, entry_id) do update set
    end_time = greatest(a.end_time, excluded.end_time),
    code = case when excluded.end_time is null then a.code else excluded.code end,
    reason = case when excluded.end_time is null then a.reason else excluded.reason end,
    calls = case when a.denied then a.calls + excluded.calls else a.calls end;

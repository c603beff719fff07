-- name: AcceptEvents :many
-- One statement, so one round trip and one commit for the whole batch: the
-- events, what of the new ones waits to be folded, and the resource states they
-- raise, in key order. A hint that only wants a resource to be known is dropped
-- where it has a state.
--
-- Answered are the places of the events that were there before, and the
-- resources raised. Which events are new is looked up only if some are not.
with recorded as (
    insert into mirror_event (
        bucket, project_id, event_id, type, room_id, user_id, liveblocks_project_id,
        payload, send_time, receive_time, source_time, outcome
    )
    select
        unnest(@bucket::smallint[]), unnest(@project_id::text[]), unnest(@event_id::text[]),
        unnest(@type::text[]), unnest(@room_id::text[]), unnest(@user_id::text[]),
        unnest(@liveblocks_project_id::text[]), unnest(@payload::bytea[]),
        unnest(@send_time::timestamptz[]), unnest(@receive_time::timestamptz[]),
        unnest(@source_time::timestamptz[]), unnest(@outcome::text[])
    on conflict do nothing
    returning project_id, event_id
),
news as (
    select count(*) = cardinality(@event_id::text[]) as only from recorded
),
waiting as (
    insert into mirror_unfolded_event (
        bucket, project_id, room_id, kind, resource_id, event_id, type, payload, source_time, receive_time
    )
    select
        f.bucket, f.project_id, f.room_id, f.kind, f.resource_id, f.event_id, f.type, f.payload, f.source_time, f.receive_time
    from (
        select
            unnest(@fold_bucket::smallint[]) as bucket,
            unnest(@fold_project_id::text[]) as project_id,
            unnest(@fold_room_id::text[]) as room_id,
            unnest(@fold_kind::smallint[]) as kind,
            unnest(@fold_resource_id::text[]) as resource_id,
            unnest(@fold_event_id::text[]) as event_id,
            unnest(@fold_type::text[]) as type,
            unnest(@fold_payload::bytea[]) as payload,
            unnest(@fold_source_time::timestamptz[]) as source_time,
            unnest(@fold_receive_time::timestamptz[]) as receive_time
    ) f
    where (select news.only from news)
        or (f.project_id, f.event_id) in (select r.project_id, r.event_id from recorded r)
    on conflict do nothing
),
hint as (
    select
        unnest(@hint_event::integer[]) as event,
        unnest(@hint_bucket::smallint[]) as bucket,
        unnest(@hint_project_id::text[]) as project_id,
        unnest(@hint_room_id::text[]) as room_id,
        unnest(@hint_kind::smallint[]) as kind,
        unnest(@hint_resource_id::text[]) as resource_id,
        unnest(@hint_if_unknown::boolean[]) as if_unknown,
        unnest(@hint_deleted::boolean[]) as deleted,
        unnest(@hint_time::timestamptz[]) as hint_time,
        unnest(@hint_now::timestamptz[]) as now,
        unnest(@hint_min_interval_us::bigint[]) as min_interval_us
),
wanted as (
    select
        h.bucket, h.project_id, h.room_id, h.kind, h.resource_id,
        bool_and(h.if_unknown) as if_unknown,
        bool_or(h.deleted) as deleted,
        max(h.hint_time) as hint_time,
        min(h.now) as now,
        min(h.min_interval_us) * interval '1 microsecond' as min_interval
    from hint h
    where (select news.only from news)
        or ((@project_id::text[])[h.event], (@event_id::text[])[h.event]) in (select r.project_id, r.event_id from recorded r)
    group by h.bucket, h.project_id, h.room_id, h.kind, h.resource_id
),
raised as (
    insert into mirror_resource_state as s (
        bucket, project_id, room_id, kind, resource_id,
        generation, due_time, again_time, settle, delete_generation, hint_time
    )
    select
        w.bucket, w.project_id, w.room_id, w.kind, w.resource_id,
        1, w.now, w.now + w.min_interval, true, case when w.deleted then 1 end, w.hint_time
    from wanted w
    -- Not "not exists": that may be planned as a hash of the whole table, on
    -- every commit. A scalar subquery can only be looked up by key.
    where not w.if_unknown or (
        select 1 from mirror_resource_state k
        where k.bucket = w.bucket and k.project_id = w.project_id and k.room_id = w.room_id
            and k.kind = w.kind and k.resource_id = w.resource_id
    ) is null
    order by w.bucket, w.project_id, w.room_id, w.kind, w.resource_id
    on conflict (bucket, project_id, room_id, kind, resource_id) do update set
        generation = s.generation + 1,
        due_time = least(s.due_time, greatest(
            excluded.due_time,
            s.not_before,
            s.fetch_time + (excluded.again_time - excluded.due_time)
        )),
        settle = true,
        delete_generation = case
            when excluded.delete_generation is null then s.delete_generation
            else s.generation + 1
        end,
        hint_time = greatest(s.hint_time, excluded.hint_time),
        background = false,
        -- Counts only while leased: a claim clears it.
        again_time = least(s.again_time, excluded.again_time),
        attempts = case when s.fail_time is null then s.attempts else 0 end,
        fail_time = null
    returning s.project_id, s.room_id, s.kind, s.resource_id, s.generation
)
select e.place::integer as place, ''::text as project_id, ''::text as room_id, 0::smallint as kind, ''::text as resource_id, 0::bigint as generation
from (
    select
        generate_series(1, cardinality(@event_id::text[])) as place,
        unnest(@project_id::text[]) as project_id,
        unnest(@event_id::text[]) as event_id
) e
where not (select news.only from news)
    and (e.project_id, e.event_id) not in (select r.project_id, r.event_id from recorded r)
union all
select 0, project_id, room_id, kind, resource_id, generation from raised;

-- name: EventOutcomes :many
select e.project_id, e.event_id, e.outcome
from (
    select
        unnest(@bucket::smallint[]) as bucket,
        unnest(@project_id::text[]) as project_id,
        unnest(@event_id::text[]) as event_id
) k
join mirror_event e on e.bucket = k.bucket and e.project_id = k.project_id and e.event_id = k.event_id;

-- name: PinProject :one
insert into mirror_project as p (project_id, liveblocks_project_id)
values (@project_id, @liveblocks_project_id)
on conflict (project_id) do update set
    liveblocks_project_id = case
        when p.liveblocks_project_id = '' then excluded.liveblocks_project_id
        else p.liveblocks_project_id
    end
returning liveblocks_project_id;

-- name: MarkStale :many
-- The only statement that makes resources stale, by the rule of State.MarkStale in
-- package store. It runs with the events of a batch or without events, in one round
-- trip and one commit: the events, those new ones that wait to be folded, and the
-- states of stale resources, in key order. A resource that is stale because of an
-- event counts only if the event is new.
--
-- It returns the indexes of events that existed before, and the stale resources. It
-- looks up which events are new only if some are not.
--
-- With events, it waits for a locked row no longer than lock_timeout.
--
-- The limits change nothing but the estimate: without them, a plan for any arrays
-- counts on ten elements in each and looks dearer than one for those at hand, so the
-- server plans anew each time, which takes longer than the statement itself.
with recorded as (
    insert into mirror_event (
        bucket, project_id, event_id, type, room_id, user_id, liveblocks_project_id,
        payload, send_time, receive_time, source_time, outcome, thread_id, secret_sha
    )
    select
        unnest(@bucket::smallint[]), unnest(@project_id::text[]), unnest(@event_id::text[]),
        unnest(@type::text[]), unnest(@room_id::text[]), unnest(@user_id::text[]),
        unnest(@liveblocks_project_id::text[]), unnest(@payload::bytea[]),
        unnest(@send_time::timestamptz[]), unnest(@receive_time::timestamptz[]),
        unnest(@source_time::timestamptz[]), unnest(@outcome::text[]),
        unnest(@thread_id::text[]), unnest(@secret_sha::text[])
    from (select set_config('lock_timeout', @lock_timeout, true)) patience
    limit coalesce(cardinality(@event_id::text[]), 0) -- or it is set without events too
    on conflict do nothing
    returning project_id, event_id
),
news as (
    select count(*) = coalesce(cardinality(@event_id::text[]), 0) as only from recorded
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
        limit cardinality(@fold_event_id::text[])
    ) f
    where (select news.only from news)
        or (f.project_id, f.event_id) in (select r.project_id, r.event_id from recorded r)
    on conflict do nothing
),
stale as (
    select
        unnest(@stale_event::integer[]) as event, -- its place, from 1; 0 for none
        unnest(@stale_bucket::smallint[]) as bucket,
        unnest(@stale_project_id::text[]) as project_id,
        unnest(@stale_room_id::text[]) as room_id,
        unnest(@stale_kind::smallint[]) as kind,
        unnest(@stale_resource_id::text[]) as resource_id,
        unnest(@stale_now::timestamptz[]) as now,
        unnest(@stale_min_interval_us::bigint[]) as min_interval_us,
        unnest(@stale_source_time::timestamptz[]) as source_time,
        unnest(@stale_notice_time::timestamptz[]) as notice_time,
        -- 1 even if it has a state, 2 deleted, 4 not in the background, 8 lift, 16
        -- a new generation, 32 by an event. Flags of several entries are combined.
        unnest(@stale_flags::smallint[]) as flags
    limit cardinality(@stale_event::integer[])
),
-- Like MergeStale in package store.
wanted as (
    select
        w.bucket, w.project_id, w.room_id, w.kind, w.resource_id,
        min(w.now) as now,
        min(w.min_interval_us) * interval '1 microsecond' as min_interval,
        max(w.source_time) as source_time,
        max(w.notice_time) as notice_time,
        bit_or(w.flags) as flags
    from stale w
    where w.event = 0 or (select news.only from news)
        or ((@project_id::text[])[w.event], (@event_id::text[])[w.event]) in (select r.project_id, r.event_id from recorded r)
    group by w.bucket, w.project_id, w.room_id, w.kind, w.resource_id
),
marked as (
    -- A new row without again_time clears backoffs and failures.
    insert into mirror_resource_state as s (
        bucket, project_id, room_id, kind, resource_id,
        generation, due_time, again_time, settle, delete_generation, hint_time, notice_time, background
    )
    select
        w.bucket, w.project_id, w.room_id, w.kind, w.resource_id,
        case when w.flags & 16 = 0 then 0 else 1 end, w.now, case when w.flags & 8 = 0 then w.now + w.min_interval end,
        w.flags & 32 <> 0, case when w.flags & 2 <> 0 then 1 end, w.source_time, w.notice_time,
        w.flags & 4 = 0
    from wanted w
    -- Not "not exists", which may be planned as a hash of the whole table on every
    -- commit. A scalar subquery can only be a look-up by key.
    where w.flags & 1 <> 0 or (
        select 1 from mirror_resource_state k
        where k.bucket = w.bucket and k.project_id = w.project_id and k.room_id = w.room_id
            and k.kind = w.kind and k.resource_id = w.resource_id
    ) is null
    order by w.bucket, w.project_id, w.room_id, w.kind, w.resource_id
    on conflict (bucket, project_id, room_id, kind, resource_id) do update set
        generation = s.generation + excluded.generation,
        due_time = least(s.due_time, greatest(
            excluded.due_time,
            case when excluded.again_time is not null then s.not_before end,
            -- A fetch in the future, by a clock that was wrong, counts as one just now.
            case
                when excluded.again_time > excluded.due_time and s.fetch_time is not null
                    then least(s.fetch_time, excluded.due_time) + (excluded.again_time - excluded.due_time)
            end
        )),
        -- Only relevant while leased: a claim clears it.
        again_time = least(s.again_time, coalesce(excluded.again_time, excluded.due_time)),
        -- A settle fetch that is brought forward is still to be done.
        settle = excluded.settle or s.settle or s.due_time is not null and s.generation = s.applied_generation,
        delete_generation = case
            when excluded.delete_generation is null then s.delete_generation
            else s.generation + excluded.generation
        end,
        hint_time = greatest(s.hint_time, excluded.hint_time),
        notice_time = greatest(s.notice_time, excluded.notice_time),
        -- Urgent work does not become less urgent by a background request.
        background = excluded.background and (s.due_time is null or s.background),
        not_before = case when excluded.again_time is not null then s.not_before end,
        attempts = case when excluded.again_time is null or s.fail_time is not null then 0 else s.attempts end,
        fail_time = null
    returning s.project_id, s.room_id, s.kind, s.resource_id, s.generation
)
select e.place::integer as place, ''::text as project_id, ''::text as room_id, 0::smallint as kind, ''::text as resource_id, 0::bigint as generation
from (
    select
        generate_series(1, cardinality(@event_id::text[])) as place,
        unnest(@project_id::text[]) as project_id,
        unnest(@event_id::text[]) as event_id
    limit cardinality(@event_id::text[])
) e
where not (select news.only from news)
    and (e.project_id, e.event_id) not in (select r.project_id, r.event_id from recorded r)
union all
select 0, project_id, room_id, kind, resource_id, generation from marked;

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

-- name: IdentifyFeed :one
insert into mirror_project as p (project_id, feed)
values (@project_id, @feed)
on conflict (project_id) do update set feed = coalesce(p.feed, excluded.feed)
returning feed;

-- name: ForgetFeeds :execrows
update mirror_project set feed = null where feed is not null;

-- name: RepinProject :exec
insert into mirror_project (project_id, liveblocks_project_id)
values (@project_id, @liveblocks_project_id)
on conflict (project_id) do update set
    liveblocks_project_id = excluded.liveblocks_project_id,
    foreign_project_id = '',
    foreign_events = 0,
    foreign_time = null;

-- name: NoteForeign :exec
insert into mirror_project as p (project_id, foreign_project_id, foreign_events, foreign_time)
values (@project_id, @foreign_project_id, @foreign_events, @foreign_time)
on conflict (project_id) do update set
    foreign_project_id = excluded.foreign_project_id,
    foreign_events = p.foreign_events + excluded.foreign_events,
    foreign_time = greatest(p.foreign_time, excluded.foreign_time);

-- name: LockBodies :many
-- The hashes of the bodies of events, which no other transaction erases until this one ends.
select e.bucket, e.project_id, e.event_id, sha256(e.payload) as payload_sha256
from (
    select
        unnest(@bucket::smallint[]) as bucket,
        unnest(@project_id::text[]) as project_id,
        unnest(@event_id::text[]) as event_id
) k
join mirror_event e on e.bucket = k.bucket and e.project_id = k.project_id and e.event_id = k.event_id
order by e.bucket, e.project_id, e.event_id
for update of e;

-- name: TakeUpEvents :many
-- Returns the events that were still set aside.
update mirror_event e
set outcome = k.outcome
from (
    select
        unnest(@bucket::smallint[]) as bucket,
        unnest(@project_id::text[]) as project_id,
        unnest(@event_id::text[]) as event_id,
        unnest(@outcome::text[]) as outcome
) k
where e.bucket = k.bucket and e.project_id = k.project_id and e.event_id = k.event_id
    and e.outcome = @set_aside::text
returning e.project_id, e.event_id;

-- name: SaveKeyHash :exec
insert into mirror_project (project_id, key_hash)
values (@project_id, @key_hash)
on conflict (project_id) do update set key_hash = excluded.key_hash;

-- name: ConfirmKey :exec
insert into mirror_project (project_id, key_confirm_time)
values (@project_id, @key_confirm_time)
on conflict (project_id) do update set key_confirm_time = excluded.key_confirm_time;

-- name: Stop :exec
insert into mirror_project (project_id, stop_reason, stop_time)
values (@project_id, @stop_reason, @stop_time)
on conflict (project_id) do update set stop_reason = excluded.stop_reason, stop_time = excluded.stop_time;

-- name: ConfirmDeletions :exec
insert into mirror_project (project_id, confirmed_rooms, confirmed_groups, confirm_time)
values (@project_id, @confirmed_rooms, @confirmed_groups, @confirm_time)
on conflict (project_id) do update set
    confirmed_rooms = excluded.confirmed_rooms,
    confirmed_groups = excluded.confirmed_groups,
    confirm_time = excluded.confirm_time;

-- name: NoteUnannounced :exec
insert into mirror_unannounced as u (project_id, kind, changes, first_time, last_time)
values (@project_id, @kind, @changes, @now, @now)
on conflict (project_id, kind) do update set
    changes = case when u.last_time > @since::timestamptz then u.changes else 0 end + excluded.changes,
    first_time = case when u.last_time > @since::timestamptz then u.first_time else excluded.first_time end,
    last_time = greatest(u.last_time, excluded.last_time);

-- name: Unannounced :many
select kind, changes, first_time, last_time from mirror_unannounced where project_id = @project_id order by kind;

-- +goose NO TRANSACTION
-- +goose Up

-- What was deleted is found by when, to expire. Of rooms only those have such a time that
-- still have content: the hash is that of {}. The column is computed and takes no space, but
-- for its index. Indexes are built in place, beside reads and writes, and read their table
-- once.
alter table mirror_room
    add column unpurged_time datetime(6) generated always as (
        if(content_sha256 = x'44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a', null, delete_time)
    ) virtual;
alter table mirror_room add key mirror_room_by_delete (project_id, unpurged_time desc, room_id);
alter table mirror_thread add key mirror_thread_by_delete (project_id, delete_time desc, thread_id);
alter table mirror_group add key mirror_group_by_delete (project_id, delete_time desc, group_id);

-- Events that were not simply queued are found among the many that were.
alter table mirror_event add key mirror_event_by_outcome (project_id, outcome, receive_time desc, event_id);
